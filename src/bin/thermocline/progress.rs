//! Bars on stderr for what takes a while. Only a terminal gets them; elsewhere all of this does nothing.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

/// A bar that is taken away when this is dropped.
pub(crate) struct Progress(Option<ProgressBar>);

impl Progress {
    /// Work without a known end.
    pub(crate) fn of_unknown(verb: &'static str) -> Self {
        Self::styled(verb, None, "{spinner} {msg} {elapsed}")
    }

    /// Work on so many bytes, or on bytes without a known end.
    pub(crate) fn of_bytes(verb: &'static str, bytes: Option<u64>) -> Self {
        match bytes {
            Some(_) => Self::styled(verb, bytes, "{msg} [{wide_bar}] {binary_bytes}/{binary_total_bytes} {eta}"),
            None => Self::styled(verb, bytes, "{spinner} {msg} {binary_bytes} {elapsed}"),
        }
    }

    /// Work on so many entries.
    pub(crate) fn of_entries(verb: &'static str, entries: u64) -> Self {
        Self::styled(verb, Some(entries), "{msg} [{wide_bar}] {human_pos}/{human_len} {eta}")
    }

    /// No bar, terminal or not: for when the terminal shows the data.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    fn styled(verb: &'static str, length: Option<u64>, template: &str) -> Self {
        if !io::stderr().is_terminal() {
            return Self::none();
        }
        let style = ProgressStyle::with_template(template).expect("the templates are ours");
        let bar = length.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        bar.set_style(style);
        bar.set_message(verb);
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(Some(bar))
    }

    /// One more is done.
    pub(crate) fn advance(&self) {
        if let Some(bar) = &self.0 {
            bar.inc(1);
        }
    }

    /// So much is done of so much as is known of now.
    pub(crate) fn reach_of(&self, position: u64, length: u64) {
        if let Some(bar) = &self.0 {
            bar.set_length(length);
            bar.set_position(position);
        }
    }

    /// So much is done in all.
    pub(crate) fn reach(&self, position: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(position);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
