//! What goes to stdout: values untouched, rows of JSON, tables. Words never come here.
//!
//! Nothing is shown before [`Output::finish`] or a full buffer, and no failed write is passed over.

use std::{
    fmt::Display,
    io::{self, BufWriter, StdoutLock, Write},
    time::Duration,
};

use comfy_table::{Cell, CellAlignment, Table, presets};
use indicatif::BinaryBytes;

use crate::outcome::Failure;

/// Our stdout, buffered.
pub(crate) struct Output(BufWriter<StdoutLock<'static>>);

impl Output {
    pub(crate) fn stdout() -> Self {
        Self(BufWriter::with_capacity(64 << 10, io::stdout().lock()))
    }

    /// Writes bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.0.write_all(bytes).map_err(failed)
    }

    /// Writes one row of JSON, given the function that writes it.
    pub(crate) fn row(&mut self, row: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
        row(&mut self.0).map_err(failed)
    }

    /// Writes a table.
    pub(crate) fn table(&mut self, table: &Table) -> Result<(), Failure> {
        writeln!(self.0, "{}", table.trim_fmt()).map_err(failed)
    }

    /// Writes out what is buffered. Without this call the end of the output is not vouched for.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.0.flush().map_err(failed)
    }
}

fn failed(error: io::Error) -> Failure {
    Failure::io("write", "stdout")(error)
}

/// An empty table with these columns.
pub(crate) fn table<const COLUMNS: usize>(header: [&str; COLUMNS]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table.column_iter_mut().for_each(|column| _ = column.set_padding((0, 2)));
    table
}

/// A cell that holds a figure.
pub(crate) fn figure(figure: impl Display) -> Cell {
    Cell::new(figure).set_alignment(CellAlignment::Right)
}

/// A size as people read it: `512 B`, `1.21 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    BinaryBytes(bytes).to_string()
}

/// What is left of a time to live, as people read it: to the second, or to the millisecond at the end.
pub(crate) fn ttl_left(ttl_left: Option<Duration>) -> String {
    let Some(left) = ttl_left else { return "never expires".into() };
    let rounded = match left.as_secs() {
        0..60 => Duration::from_millis(ttl_ms(left)),
        seconds => Duration::from_secs(seconds),
    };
    humantime::format_duration(rounded).to_string()
}

/// What is left of a time to live, in milliseconds and never 0: what is present has some time left.
pub(crate) fn ttl_ms(left: Duration) -> u64 {
    u64::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_to_live_is_never_shown_as_nothing() {
        assert_eq!(ttl_ms(Duration::ZERO), 1);
        assert_eq!(ttl_ms(Duration::from_micros(1500)), 2);
        assert_eq!(ttl_ms(Duration::MAX), u64::MAX);
        assert_eq!(ttl_left(Some(Duration::from_nanos(1))), "1ms");
        assert_eq!(ttl_left(Some(Duration::from_millis(3_599_999))), "59m 59s");
    }
}
