//! Snapshot: the index, taken over from the last process as a file.
//!
//! Holds who answers for a page that cannot be read. It is written in `checkpoint.rs`. Never believes a page over the log: its records are held against their checksums when they are read. Invariant: an index that was taken over says, once what
//! was written since is replayed, what reading the whole log would have said.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use thermocline_tiers::{
    Guard, Kind, Location, Result, Word,
    log::{DICTIONARIES, Dictionary, Figures, Log, Record, scan::Found as Scanned},
};

use crate::{
    counters::{Count, Counters},
    dictionaries::key_of,
    found::is_same,
    index::{Index, Layout, Look, Save, Source},
};

/// So many pages are read at once from the log, when one cannot be believed: some 100 000 keys. Twice as many the next time, so that
/// the log is not read again and again.
const SALVAGED_PAGES: usize = 1 << 10;

/// Whether the log has no snapshot, or one of an index that there can be.
pub(crate) fn is_possible(log: &Log) -> bool {
    log.snapshot().is_none_or(|(shards, _)| Layout::new(shards, log.snapshot_pages()).is_some())
}

/// The index of the last process, and what it counted, if it left one that fits the log.
pub(crate) fn take_over(log: &Arc<Log>) -> Result<Option<(Index, Figures)>> {
    let Some((shards, figures)) = log.snapshot() else { return Ok(None) };
    let Some(layout) = Layout::new(shards, log.snapshot_pages()) else { return Ok(None) };
    let source = FromSnapshot { log: log.clone(), salvaged: Mutex::default() };
    Ok(Some((Index::stored(Box::new(source), layout)?, figures)))
}

/// Counts the keys anew if segments have gone since the snapshot was written: some of its words name places in them.
pub(crate) fn recount(log: &Log, index: &Index, counters: &Counters) -> Result<()> {
    let Some(gone_bytes) = log.snapshot_gone_bytes() else { return Ok(()) };
    let mut keys = 0;
    let is_there = |(word, _): &&(Word, u16)| word.location().is_some_and(|at| at.kind() == Kind::Log);
    let count = |words: Vec<_>| {
        keys += words.iter().filter(is_there).count() as u64;
        Ok(Save::Next)
    };
    index.save(|| (), count)?;
    keys = keys.saturating_sub(dictionaries(log, index)?);
    let counted = counters.sum(Count::Added).saturating_sub(counters.sum(Count::Taken));
    let counts = [(Count::LiveBytesTaken, gone_bytes), (Count::Taken, counted.saturating_sub(keys))];
    counters.add_all(counts, &Guard::pin());
    Ok(())
}

/// How many dictionaries the index names: they are nobody's entries.
pub(crate) fn dictionaries(log: &Log, index: &Index) -> Result<u64> {
    let (guard, mut count) = (Guard::pin(), 0);
    for key in (0..Dictionary::COUNT).map(key_of) {
        let is_it = |record: Record<'_>| record.namespace() == DICTIONARIES && is_same(record.key(), &key);
        let found = index.find(log.keys().hash(&key), &guard, |at| match at.kind() {
            // Of what is damaged whoever reads it hears.
            Kind::Log if log.read_unchecked(at, is_it).unwrap_or(false) => Ok(Look::Found(())),
            _ => Ok(Look::Other),
        })?;
        count += u64::from(found.is_some());
    }
    Ok(count)
}

/// The pages of the snapshot, or what the log says instead.
#[derive(Debug)]
struct FromSnapshot {
    log: Arc<Log>,
    salvaged: Mutex<Salvaged>,
}

/// Pages that were not what was written, read from the log, and how many it were the last time.
#[derive(Debug, Default)]
struct Salvaged {
    pages: HashMap<usize, Vec<(Word, u16)>>,
    count: usize,
}

/// The newest record of a key, as far as it was found.
struct Newest {
    at: Location,
    sequence: u64,
}

impl Source for FromSnapshot {
    fn page(&self, number: usize, layout: &Layout) -> Result<Vec<(Word, u16)>> {
        match self.log.snapshot_page(number) {
            Ok(Some(words)) => Ok(words),
            _ => self.salvage(number, layout),
        }
    }
}

impl FromSnapshot {
    /// Reads a page from the log, and some that come behind it: where one is damaged others may be.
    fn salvage(&self, number: usize, layout: &Layout) -> Result<Vec<(Word, u16)>> {
        let mut salvaged = self.salvaged.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(words) = salvaged.pages.get(&number) {
            return Ok(words.clone());
        }
        let count = (2 * salvaged.count).max(SALVAGED_PAGES);
        let asked = number..number.saturating_add(count).min(self.log.snapshot_pages());
        // What was removed needs no word: nothing older can be met any more.
        let newest = self.newest_of(|hash| asked.contains(&layout.number_of(hash)))?;
        let mut pages: HashMap<_, _> = asked.clone().map(|page| (page, Vec::new())).collect();
        for (hash, newest) in newest.filter(|(_, newest)| newest.at.kind() == Kind::Log) {
            let word = Word::of(layout.tag_of(hash), newest.at);
            pages.entry(layout.number_of(hash)).or_default().push((word, 0));
        }
        let words = pages.get(&number).cloned().unwrap_or_default();
        *salvaged = Salvaged { pages, count };
        Ok(words)
    }

    /// The newest record, among those that the snapshot covers, of each key whose hash `is_asked` for.
    fn newest_of(&self, is_asked: impl Fn(u64) -> bool) -> Result<impl Iterator<Item = (u64, Newest)>> {
        let _guard = Guard::pin();
        let mut newest = HashMap::<u64, Vec<Newest>>::new();
        let mut damaged = Vec::new();
        self.log.visit_covered(|found, at| {
            let hash = self.log.keys().hash(found.key);
            if !is_asked(hash) {
                return Ok(());
            }
            if at.is_unverified() {
                damaged.push((found.key.to_vec(), found.namespace, at));
                return Ok(());
            }
            self.add(newest.entry(hash).or_default(), found, at)
        })?;
        // As in recovery: a damaged record wins over what stands before it.
        damaged.sort_by_cached_key(|(.., at)| self.log.position_of(*at));
        for (key, namespace, at) in damaged {
            let of_hash = newest.entry(self.log.keys().hash(&key)).or_default();
            match self.position(of_hash, &key, namespace)? {
                Some(here) if self.is_before(of_hash[here].at, at) => of_hash[here] = Newest { at, sequence: 0 },
                Some(_) => {}
                None => of_hash.push(Newest { at, sequence: 0 }),
            }
        }
        Ok(newest.into_iter().flat_map(|(hash, of_hash)| of_hash.into_iter().map(move |newest| (hash, newest))))
    }

    fn add(&self, of_hash: &mut Vec<Newest>, found: &Scanned<'_>, at: Location) -> Result<()> {
        let sequence = found.header.sequence;
        match self.position(of_hash, found.key, found.namespace)? {
            Some(here) => {
                let Newest { at: there, sequence: than } = of_hash[here];
                if than < sequence || than == sequence && self.is_before(there, at) {
                    of_hash[here] = Newest { at, sequence };
                }
            }
            None => of_hash.push(Newest { at, sequence }),
        }
        Ok(())
    }

    fn is_before(&self, a: Location, b: Location) -> bool {
        self.log.position_of(a) < self.log.position_of(b)
    }

    /// Where a key is among those of one hash.
    fn position(&self, of_hash: &[Newest], key: &[u8], namespace: u32) -> Result<Option<usize>> {
        let is_it = |record: Record<'_>| is_same(record.key(), key) && record.namespace() == namespace;
        for (here, newest) in of_hash.iter().enumerate() {
            if self.log.read_unchecked(newest.at, is_it)? {
                return Ok(Some(here));
            }
        }
        Ok(None)
    }
}
