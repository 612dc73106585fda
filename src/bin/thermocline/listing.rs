//! `ls`: which keys there are, with what is known of each at a glance.
//!
//! A listing is written as the walk goes on: tables come in pages, so that ten million keys need no more
//! memory than a thousand.

use comfy_table::{Cell, Table};
use globset::{Candidate, GlobMatcher};
use thermocline::Metadata;

use crate::{
    args::{Common, Ls},
    damage::Damaged,
    outcome::{Ending, Failure, Outcome},
    output::{self, Output},
    rows, stores,
};

const PAGE_ROWS: usize = 1000;

/// Lists the keys that are asked for; damaged records are told at the end.
pub(crate) fn ls(common: &Common, ls: &Ls) -> Ending {
    let filter = Filter::new(common, ls)?;
    let store = stores::to_read(common)?;
    let mut listing = Listing::new(common);
    let mut damaged = Damaged::default();
    let mut left = ls.limit.unwrap_or(u64::MAX);
    let mut keys = store.keys();
    while left > 0
        && let Some(key) = keys.next()
    {
        let Some(key) = damaged.step_over(key)?.filter(|key| filter.admits(key)) else { continue };
        let Some(metadata) = damaged.step_over(store.metadata(&key))?.flatten() else { continue };
        listing.entry(&key, &metadata)?;
        left -= 1;
    }
    listing.finish()?;
    damaged.told()?;
    Ok(Outcome::Done)
}

/// Which keys are asked for.
struct Filter {
    prefix: Vec<u8>,
    glob: Option<GlobMatcher>,
}

impl Filter {
    fn new(common: &Common, ls: &Ls) -> Result<Self, Failure> {
        let prefix = ls.prefix.as_deref().map(|typed| common.key(typed)).transpose()?.unwrap_or_default();
        Ok(Self { prefix, glob: ls.glob.as_ref().map(globset::Glob::compile_matcher) })
    }

    fn admits(&self, key: &[u8]) -> bool {
        let matches = |glob: &GlobMatcher| glob.is_match_candidate(&Candidate::from_bytes(key));
        key.starts_with(&self.prefix) && self.glob.as_ref().is_none_or(matches)
    }
}

/// A listing on its way out.
struct Listing<'c> {
    common: &'c Common,
    output: Output,
    page: Table,
}

impl<'c> Listing<'c> {
    fn new(common: &'c Common) -> Self {
        Self { common, output: Output::stdout(), page: empty_page() }
    }

    fn entry(&mut self, key: &[u8], metadata: &Metadata) -> Result<(), Failure> {
        if self.common.json() {
            return self.output.row(|out| rows::write_metadata(out, key, metadata));
        }
        let (size, ttl_left) = (output::size(metadata.size_bytes), output::ttl_left(metadata.ttl_left));
        self.page.add_row([Cell::new(self.common.shown(key)), output::figure(size), Cell::new(ttl_left)]);
        if self.page.row_count() == PAGE_ROWS { self.turn() } else { Ok(()) }
    }

    /// Writes the page and starts the next.
    fn turn(&mut self) -> Result<(), Failure> {
        self.output.table(&std::mem::replace(&mut self.page, empty_page()))
    }

    fn finish(mut self) -> Result<(), Failure> {
        if !self.page.is_empty() {
            self.turn()?;
        }
        self.output.finish()
    }
}

fn empty_page() -> Table {
    output::table(["key", "size", "ttl left"])
}
