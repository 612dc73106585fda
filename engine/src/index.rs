//! The index: which location each key has now.
//!
//! Holds one slot per key, in pages found by the key's hash (`DESIGN.md`, *The index*). Never holds keys, values
//! or time; it asks its caller whether a location belongs to the key. Invariant: a key is published in
//! at most one slot of the pages that readers can reach, and a slot keeps its key while its page lives.

mod forget;
mod growth;
mod page;
mod pages;
mod pool;
mod prepared;
mod search;
mod stored;
#[cfg(test)]
mod tests;

use std::cell::Cell;

use crossbeam_utils::CachePadded;
use thermocline_tiers::{
    Error, Guard, Kind, Location, Result, Slot, Tag, Word,
    slot::{Bucket, Reserved},
};

use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering, yield_now};
use page::{home, is_full};
use pages::Pages;
use pool::{Pool, Run};
use stored::Stored;
pub(crate) use stored::{Layout, Save, Source};

const SHARDS: usize = if cfg!(loom) { 1 } else { 16 };
/// Hash bits that choose a shard.
const SHARD_BITS: u32 = 8;
/// Nodes of all shards together: for 2¹⁸ × 16 pages of at least 100 keys at twice their number.
const NODES_MAX: usize = 1 << 26;

/// How many of 256 hash values each shard owns: 1 to 2 on a logarithmic scale, so that they split in turn.
const SHARES: [usize; 16] = [11, 12, 12, 13, 14, 14, 15, 15, 16, 17, 17, 18, 19, 20, 21, 22];
const SHARD_OF: [u8; 256] = shard_table();

const fn shard_table() -> [u8; 256] {
    let mut table = [0; 256];
    let (mut at, mut shard) = (0, 0);
    while shard < SHARDS {
        let mut left = SHARES[shard];
        while left > 0 && SHARDS > 1 {
            table[at] = shard as u8;
            (at, left) = (at + 1, left - 1);
        }
        shard += 1;
    }
    table
}

/// The shard of a hash, and the bits of it that are left.
#[inline]
fn shard_of(hash: u64) -> (usize, u64) {
    (SHARD_OF[(hash >> (64 - SHARD_BITS)) as usize] as usize, hash << SHARD_BITS)
}

/// A page's gate: how many writers are inside (12 bits), how many slots are taken (16 bits), and whether it is
/// closed. Readers never look at it.
struct Gate;

impl Gate {
    const WRITER: u32 = 1;
    const WRITERS: u32 = (1 << 12) - 1;
    const TAKEN: u32 = 1 << 12;
    const CLOSED: u32 = 1 << 31;

    #[inline]
    fn taken(gate: u32) -> u32 {
        (gate & !Self::CLOSED) / Self::TAKEN
    }
}

/// What the index asks of the records that its slots name.
pub(crate) trait Records {
    /// The hash of the key at `at`, or `None` if there is no record.
    ///
    /// # Errors
    /// What reading it says.
    fn hash_at(&self, at: Location) -> Result<Option<u64>>;

    /// Whether the removed key at `at` can be forgotten.
    fn is_forgettable(&self, at: Location) -> bool;
}

/// What a caller says of a location whose tag agrees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is another key's.
    Other,
    /// It is to be replaced.
    Replace,
    /// It is to stay.
    Keep,
    /// Nothing is there any more: the slot says something else by now.
    Moved,
}

/// What a reader says of a location whose tag agrees.
pub(crate) enum Look<R> {
    /// It is another key's.
    Other,
    /// The search is over.
    Found(R),
    /// Nothing is there any more: the slot says something else by now.
    Moved,
}

/// What became of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Published {
    /// The key had no slot.
    New,
    /// The key's slot named this.
    Replaced(Location),
    /// The caller kept what is there.
    Kept,
}

/// Where a key belongs at one moment.
#[derive(Clone, Copy)]
struct Place {
    shard: usize,
    node: usize,
    run: Run,
    /// What is left of the hash behind the page's prefix.
    tag: Tag,
}

/// A slot, what it says, and its number in its page.
enum Target<'a> {
    Slot(&'a Slot, Word, usize),
    Full,
    Moved,
}

#[derive(Debug)]
struct Shard {
    /// How many pages it has; see [`Pages`].
    pages: AtomicU64,
    /// Guards the order of splits.
    splitting: Mutex<()>,
}

/// The index of one store.
#[derive(Debug)]
pub(crate) struct Index {
    shards: [CachePadded<Shard>; SHARDS],
    /// Page `p` of level `l` of shard `s` is node `(2^l + p) * SHARDS + s`: its run; [`pool::SPLIT`] once it was
    /// split; 0 if it is stored and nobody has asked for it.
    nodes: Reserved<AtomicU64>,
    gates: Reserved<AtomicU32>,
    pool: Pool,
    /// Pages that were not made here.
    stored: Option<Stored>,
}

impl Index {
    /// An index without keys.
    pub(crate) fn new() -> Result<Self> {
        let index = Self::reserve()?;
        for shard in 0..SHARDS {
            let run = index.pool.take(1).ok_or(Error::IndexFull { bytes: 0 })?;
            // Relaxed: nobody else has the index yet.
            index.nodes[SHARDS + shard].store(run.pack(), Ordering::Relaxed);
        }
        Ok(index)
    }

    /// An index without pages.
    fn reserve() -> Result<Self> {
        let out_of_memory = |_| Error::IndexFull { bytes: 0 };
        let pool = Pool::new().map_err(out_of_memory)?;
        let nodes = Reserved::<AtomicU64>::new(NODES_MAX).map_err(out_of_memory)?;
        let gates = Reserved::<AtomicU32>::new(NODES_MAX).map_err(out_of_memory)?;
        let shard = |_| CachePadded::new(Shard { pages: AtomicU64::new(0), splitting: Mutex::new(()) });
        Ok(Self { shards: std::array::from_fn(shard), nodes, gates, pool, stored: None })
    }

    /// The node that the hash bits `rest` belong to now, its level, and what it says: a run, unless its page was split since, or
    /// was never asked for.
    #[inline]
    fn node(&self, shard: usize, rest: u64) -> (usize, u32, u64) {
        // Acquire: pairs with the Release in `split_next`; the halves are in their nodes.
        let (id, level) = Pages(self.shards[shard].pages.load(Ordering::Acquire)).id_of(rest);
        let node = id as usize * SHARDS + shard;
        // Acquire: pairs with the Release that published the page; its slots are written.
        (node, level, self.nodes[node].load(Ordering::Acquire))
    }

    /// The page that the hash bits `rest` belong to now: node, level, run.
    ///
    /// # Errors
    /// What fetching a stored page says.
    #[inline]
    fn page(&self, shard: usize, rest: u64) -> Result<(usize, u32, Run)> {
        loop {
            let (node, level, seen) = self.node(shard, rest);
            if let Some(run) = Run::unpack(seen) {
                return Ok((node, level, run));
            }
            self.fetch(node, seen)?;
        }
    }

    #[inline]
    fn place(&self, hash: u64) -> Result<Place> {
        let (shard, rest) = shard_of(hash);
        let (node, level, run) = self.page(shard, rest)?;
        Ok(Place { shard, node, run, tag: Tag::of(rest << level) })
    }

    /// As [`place`](Self::place), if that needs no second look.
    #[inline]
    fn place_at_once(&self, hash: u64) -> Option<Place> {
        let (shard, rest) = shard_of(hash);
        let (node, level, seen) = self.node(shard, rest);
        Some(Place { shard, node, run: Run::unpack(seen)?, tag: Tag::of(rest << level) })
    }

    /// Whether a page has been its node's since it was looked up; to be asked after its slots were loaded.
    #[inline]
    fn is_current(&self, node: usize, run: Run) -> bool {
        // The loads of the slots are Acquire and stay before this one. Acquire here for whoever writes next.
        self.nodes[node].load(Ordering::Acquire) == run.pack()
    }

    /// Publishes `at` for the key of `hash`, if `decide` does not keep what the key has.
    ///
    /// `decide` is asked about each location whose tag agrees and the history beside it, possibly several times, and may
    /// read the log. What it leaves in `history` is remembered beside the slot, unless `at` is in memory, where records
    /// have their own. Waits for nobody but a writer that is copying the page.
    ///
    /// # Errors
    /// What `decide` returns; [`Error::IndexFull`].
    pub(crate) fn publish(
        &self,
        hash: u64,
        at: Location,
        _guard: &Guard,
        records: &impl Records,
        history: &Cell<u16>,
        mut decide: impl FnMut(Location, u16) -> Result<Verdict>,
    ) -> Result<Published> {
        loop {
            let place = self.place(hash)?;
            let target = match self.target(&place, &mut decide)? {
                Some(Target::Moved) => continue,
                Some(target) => target,
                None => return Ok(Published::Kept),
            };
            if !self.enter(&place) {
                yield_now();
                continue;
            }
            let Target::Slot(slot, seen, number) = target else {
                self.leave(&place, 0);
                self.copy_page(&place, true, records)?;
                continue;
            };
            let published = slot.publish(seen, place.tag, at);
            if published.is_ok() && at.kind() != Kind::Memory && history.get() != 0 {
                self.pool.set_history(place.run, number, history.get());
            }
            let is_new = published.is_ok() && seen.is_vacant();
            let gate = self.leave(&place, u32::from(is_new));
            if is_new && is_full(Gate::taken(gate), place.run.buckets) {
                self.copy_page(&place, false, records)?;
            }
            if published.is_ok() {
                return Ok(seen.location().map_or(Published::New, Published::Replaced));
            }
        }
    }

    /// The slot that a key has or should get; `None` if `decide` keeps what is there.
    fn target(
        &self,
        place: &Place,
        decide: &mut impl FnMut(Location, u16) -> Result<Verdict>,
    ) -> Result<Option<Target<'_>>> {
        let (buckets, tag) = (self.pool.buckets(place.run), place.tag);
        let mut next = home(tag, buckets.len() as u32);
        for _ in 0..buckets.len() {
            let bucket = &buckets[next];
            // In this order: whatever comes before the first vacant slot was taken when the tags are compared.
            let vacant = bucket.vacant();
            let mut left = bucket.candidates(tag);
            while left != 0 {
                let at_bucket = left.trailing_zeros() as usize % Bucket::SLOTS;
                let (slot, number) = (&bucket[at_bucket], next * Bucket::SLOTS + at_bucket);
                let seen = slot.load();
                if seen.tag().matches(tag)
                    && let Some(at) = seen.location()
                {
                    match decide(at, self.pool.history(place.run, number))? {
                        Verdict::Other => {}
                        Verdict::Replace => return Ok(Some(Target::Slot(slot, seen, number))),
                        Verdict::Keep => return Ok(None),
                        Verdict::Moved => return Ok(Some(Target::Moved)),
                    }
                }
                left &= left - 1;
            }
            if let Some(slot) = bucket.get(vacant) {
                return Ok(Some(Target::Slot(slot, Word::VACANT, next * Bucket::SLOTS + vacant)));
            }
            next = if next + 1 == buckets.len() { 0 } else { next + 1 };
        }
        Ok(Some(Target::Full))
    }

    /// Publishes `at` in the slot that names exactly `seen`: the same record elsewhere. `false` if no slot of the key's
    /// does any more, or the page cannot be read. Reads no record.
    pub(crate) fn exchange(&self, hash: u64, seen: Location, at: Location, history: u16, _guard: &Guard) -> bool {
        loop {
            let Ok(place) = self.place(hash) else { return false };
            let Some((slot, word, number)) = self.slot_of(&place, seen) else {
                if self.is_current(place.node, place.run) {
                    return false;
                }
                continue;
            };
            if !self.enter(&place) {
                yield_now();
                continue;
            }
            // The tag stays: it may know less than a full one.
            let published = slot.publish(word, word.tag(), at).is_ok();
            if published && at.kind() != Kind::Memory {
                self.pool.set_history(place.run, number, history);
            }
            self.leave(&place, 0);
            if published {
                return true;
            }
        }
    }

    /// The slot that names `at`, what it says, and its number in its page.
    fn slot_of(&self, place: &Place, at: Location) -> Option<(&Slot, Word, usize)> {
        let buckets = self.pool.buckets(place.run);
        let mut next = home(place.tag, buckets.len() as u32);
        for _ in 0..buckets.len() {
            let bucket = &buckets[next];
            let words = bucket.iter().map(Slot::load).enumerate();
            if let Some((found, word)) = words.into_iter().find(|(_, word)| word.location() == Some(at)) {
                return Some((&bucket[found], word, next * Bucket::SLOTS + found));
            }
            if bucket.is_open() {
                return None;
            }
            next = if next + 1 == buckets.len() { 0 } else { next + 1 };
        }
        None
    }

    /// Changes what is remembered beside the slot that names `at`, if there is one; returns what is remembered then. Takes
    /// no part in the protocols of the pages: what is changed while the page is copied may be lost.
    pub(crate) fn touch(
        &self,
        hash: u64,
        at: Location,
        _guard: &Guard,
        change: impl FnOnce(u16) -> u16,
    ) -> Option<u16> {
        let place = self.place(hash).ok()?;
        let (_, _, number) = self.slot_of(&place, at)?;
        let before = self.pool.history(place.run, number);
        let after = change(before);
        if after != before {
            self.pool.set_history(place.run, number, after);
        }
        Some(after)
    }

    /// Announces a writer, unless the page is closed or no longer the one that was looked at.
    #[inline]
    fn enter(&self, place: &Place) -> bool {
        let gate = &self.gates[place.node];
        // Relaxed: not to knock again and again while whoever closed the gate waits for silence.
        if gate.load(Ordering::Relaxed) & Gate::CLOSED != 0 {
            return false;
        }
        // Acquire: pairs with the Release in `reopen`, so that an open gate shows the page behind it. Of this
        // and `close`, both read-modify-writes of one word, the later one sees the other.
        if gate.fetch_add(Gate::WRITER, Ordering::Acquire) & Gate::CLOSED == 0 && self.is_current(place.node, place.run)
        {
            return true;
        }
        gate.fetch_sub(Gate::WRITER, Ordering::Release);
        false
    }

    /// Takes the announcement back and counts taken slots; returns the gate as it was.
    #[inline]
    fn leave(&self, place: &Place, taken: u32) -> u32 {
        let change = (taken * Gate::TAKEN).wrapping_sub(Gate::WRITER);
        // Release: what was published inside is seen by whoever closes the gate.
        self.gates[place.node].fetch_add(change, Ordering::Release).wrapping_add(change)
    }

    /// Bytes of memory in use: pages, free runs, nodes and gates.
    pub(crate) fn bytes(&self) -> u64 {
        let pages =
            self.shards.iter().map(|shard| Pages(shard.pages.load(Ordering::Relaxed)).count()).max().unwrap_or(1);
        self.pool.bytes() + (2 * pages + 1) * (SHARDS * (size_of::<u64>() + size_of::<u32>())) as u64
    }

    /// Puts the locations of one page into the empty `into` and says where the next one begins; `None` behind the last.
    ///
    /// A walk that starts at [`Cursor::default`] meets each key that is there throughout exactly once, whatever
    /// happens meanwhile.
    ///
    /// # Errors
    /// What fetching a stored page says.
    pub(crate) fn page_at(&self, cursor: Cursor, _guard: &Guard, into: &mut Vec<Location>) -> Result<Option<Cursor>> {
        let Some((shard, rest)) = cursor.place() else { return Ok(None) };
        let level = loop {
            let (node, level, run) = self.page(shard, rest)?;
            into.extend(
                self.pool
                    .buckets(run)
                    .iter()
                    .flat_map(|bucket| bucket.iter())
                    .filter_map(|slot| slot.load().location()),
            );
            if self.is_current(node, run) {
                break level;
            }
            into.clear();
        };
        Ok(Some(cursor.next(level)))
    }
}

#[cfg(all(test, not(loom)))]
impl Index {
    /// Holds the structure against its invariants. No writer may be active.
    fn check_invariants(&self) {
        let pages = |shard: &CachePadded<Shard>| Pages(shard.pages.load(Ordering::Relaxed)).count();
        for (shard, pages) in self.shards.iter().map(pages).enumerate() {
            for id in 1..2 * pages {
                let node = id as usize * SHARDS + shard;
                let run = Run::unpack(self.nodes[node].load(Ordering::Relaxed));
                assert_eq!(run.is_some(), id >= pages, "node {id} of {pages} pages");
                let Some(run) = run else { continue };
                let gate = self.gates[node].load(Ordering::Relaxed);
                assert_eq!((gate & Gate::CLOSED, gate & Gate::WRITERS), (0, 0));
                let mut taken = 0;
                let full = |bucket: usize| !self.pool.buckets(run)[bucket][Bucket::SLOTS - 1].load().is_vacant();
                for (at, bucket) in self.pool.buckets(run).iter().enumerate() {
                    let words: Vec<Word> = bucket.iter().map(Slot::load).collect();
                    let first_vacant = words.iter().position(|word| word.is_vacant()).unwrap_or(Bucket::SLOTS);
                    assert!(words[first_vacant..].iter().all(|word| word.is_vacant()), "taken slots come first");
                    for word in &words[..first_vacant] {
                        let mut on_the_way = home(word.tag(), run.buckets);
                        while on_the_way != at {
                            assert!(full(on_the_way), "a key overflows full buckets only");
                            on_the_way = (on_the_way + 1) % run.buckets as usize;
                        }
                    }
                    taken += first_vacant as u32;
                }
                assert_eq!(Gate::taken(gate), taken);
            }
        }
    }
}

/// A place in a walk over the index.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    shard: usize,
    rest: u64,
}

impl Cursor {
    /// The shard and the hash bits of the page; `None` behind the last.
    fn place(self) -> Option<(usize, u64)> {
        (self.shard < SHARDS).then_some((self.shard, self.rest))
    }

    /// Behind its page, which is of this level.
    fn next(self, level: u32) -> Self {
        let Self { shard, rest } = self;
        let next = (rest >> 1 >> (63 - level)) + 1;
        let is_last = next >> level != 0;
        if is_last { Self { shard: shard + 1, rest: 0 } } else { Self { shard, rest: next << (64 - level) } }
    }
}
