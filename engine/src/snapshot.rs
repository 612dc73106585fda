//! Snapshot: the index, handed to the next process as a file, and taken over from the last one.
//!
//! Holds what a page may say when it is written, and who answers for a page that cannot be read. Never believes a page over the
//! log: its records are held against their checksums when they are read. Invariant: an index that was taken over says, once what
//! was written since is replayed, what reading the whole log would have said.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use thermocline_tiers::{
    Error, Guard, Kind, Location, Result, Word,
    log::{DICTIONARIES, Dictionary, Figures, Log, Record, scan::Found as Scanned},
};

use crate::{
    counters::{Count, Counters},
    dictionaries::key_of,
    engine::Core,
    found::is_same,
    index::{Index, Layout, Look, Records, Source},
};

/// So many pages are read at once from the log, when one cannot be believed: some 100 000 keys.
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
    index.save(|words| {
        keys +=
            words.iter().filter(|(word, _)| word.location().is_some_and(|at| at.kind() == Kind::Log)).count() as u64;
        Ok(true)
    })?;
    let guard = Guard::pin();
    // Dictionaries are nobody's entries.
    for key in (0..Dictionary::COUNT).map(key_of) {
        let is_it = |record: Record<'_>| record.namespace() == DICTIONARIES && is_same(record.key(), &key);
        let found = index.find(log.keys().hash(&key), &guard, |at| match at.kind() {
            // Of what is damaged whoever reads it hears.
            Kind::Log if log.read_unchecked(at, is_it).unwrap_or(false) => Ok(Look::Found(())),
            _ => Ok(Look::Other),
        })?;
        keys = keys.saturating_sub(u64::from(found.is_some()));
    }
    let counted = counters.sum(Count::Added).saturating_sub(counters.sum(Count::Taken));
    counters.add_all([(Count::LiveBytesTaken, gone_bytes), (Count::Taken, counted.saturating_sub(keys))], &guard);
    Ok(())
}

/// The pages of the snapshot, or what the log says instead.
#[derive(Debug)]
struct FromSnapshot {
    log: Arc<Log>,
    /// Pages that were not what was written, read from the log.
    salvaged: Mutex<HashMap<usize, Vec<(Word, u16)>>>,
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
        if let Some(words) = salvaged.get(&number) {
            return Ok(words.clone());
        }
        let pages = number..(number + SALVAGED_PAGES).min(self.log.snapshot_pages());
        *salvaged = pages.clone().map(|page| (page, Vec::new())).collect();
        let newest = self.newest_of(|hash| pages.contains(&layout.number_of(hash)));
        // What was removed needs no word: nothing older can be met any more.
        let newest = newest.inspect_err(|_| salvaged.clear())?.filter(|(_, newest)| newest.at.kind() == Kind::Log);
        for (hash, newest) in newest {
            let word = Word::of(layout.tag_of(hash), newest.at);
            salvaged.entry(layout.number_of(hash)).or_default().push((word, 0));
        }
        Ok(salvaged.get(&number).cloned().unwrap_or_default())
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
        damaged.sort_by_key(|(.., at)| at.address());
        for (key, namespace, at) in damaged {
            let of_hash = newest.entry(self.log.keys().hash(&key)).or_default();
            match self.position(of_hash, &key, namespace)? {
                Some(here) if of_hash[here].at.address() < at.address() => of_hash[here] = Newest { at, sequence: 0 },
                Some(_) => {}
                None => of_hash.push(Newest { at, sequence: 0 }),
            }
        }
        Ok(newest.into_iter().flat_map(|(hash, of_hash)| of_hash.into_iter().map(move |newest| (hash, newest))))
    }

    fn add(&self, of_hash: &mut Vec<Newest>, found: &Scanned<'_>, at: Location) -> Result<()> {
        let sequence = found.header.sequence;
        match self.position(of_hash, found.key, found.namespace)? {
            Some(here) if (of_hash[here].sequence, of_hash[here].at.address()) < (sequence, at.address()) => {
                of_hash[here] = Newest { at, sequence };
            }
            Some(_) => {}
            None => of_hash.push(Newest { at, sequence }),
        }
        Ok(())
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

impl Core {
    /// Leaves the index to the next process, if reading what no snapshot covers would take it long. No writer may be active, and
    /// everything is durable.
    ///
    /// # Errors
    /// [`Error::Io`], but for a disk that is full: the next process reads the log instead.
    pub(crate) fn save_index(&self) -> Result<()> {
        if self.options.in_memory || self.options.read_only || !self.log.can_be_covered(self.len_estimate()) {
            return Ok(());
        }
        if self.log.uncovered_bytes().is_none_or(|bytes| bytes < self.options.snapshot_after) {
            return Ok(());
        }
        match self.write_index() {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull => Ok(()),
            other => other,
        }
    }

    fn write_index(&self) -> Result<()> {
        let covered = self.log.end();
        let mut snapshot = self.log.begin_snapshot(self.clock.last())?;
        let shards = self.index.save(|words| match self.words_to_keep(words) {
            Some(words) => snapshot.add_page(&words).map(|()| true),
            None => Ok(false),
        })?;
        let sum = |count| self.counters.sum(count);
        let figures = Figures {
            last_sequence: self.clock.last(),
            keys: self.len_estimate(),
            live_bytes: sum(Count::LiveBytesAdded).saturating_sub(sum(Count::LiveBytesTaken)),
            has_deadlines: self.has_deadlines.load(std::sync::atomic::Ordering::Relaxed),
        };
        snapshot.finish(figures, &shards, covered)
    }

    /// The words of a page as the next process may have them: what is in memory by its home, what is to be forgotten not at all.
    /// `None` if a record has moved since they were read.
    fn words_to_keep(&self, words: Vec<(Word, u16)>) -> Option<Vec<(Word, u16)>> {
        let guard = Guard::pin();
        let tiers = self.tiers(&guard);
        let mut kept = Vec::with_capacity(words.len());
        for (word, history) in words {
            let Some(at) = word.location() else { continue };
            match at.kind() {
                Kind::Memory => {
                    let record = self.memory.record(at, &guard)?;
                    kept.push((word.with_location(record.home()?), record.history()));
                }
                Kind::Removed if tiers.is_forgettable(at) => {}
                _ => kept.push((word, history)),
            }
        }
        Some(kept)
    }
}
