//! Which place of the arena is whose: blocks cut into places of one size, and runs of pages for what is larger.
//!
//! Holds bits and lists. Never holds bytes of records. Invariants: a place has one owner from `take` to `give`; what a
//! reader may look for in a block (its *cut*) changes only when no guard is left from before it had none.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use crossbeam_utils::CachePadded;

use super::{
    classes::{BLOCK_BYTES, BLOCK_PAGES, CLASSES, PAGE_BYTES, SizeClass, rounded},
    space::{Advice, Space},
};
use crate::{Guard, slot::Reserved};

/// Words of bits for the places of a block: enough for the smallest.
const WORDS: usize = 32;
/// So many blocks a hand starts behind the one before.
const APART: usize = 64;
/// So many blocks without a place that somebody has a hand passes by at once.
const VACANT_MAX: usize = 64;

/// What the arena does when it is told so.
pub(super) trait Ground {
    /// Passes advice about a region on to the system. Nobody uses what is discarded.
    fn advise(&self, region: usize, advice: Advice);
    /// Makes what stands at an offset no record, before anybody looks.
    fn clear(&self, offset: u64);
}

/// How a block is cut: the size of its places in words, their number, and which of 16 may start a record. All of them,
/// unless the block is pages. Zero: not at all.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut(u64);

impl Cut {
    const NONE: Self = Self(0);

    fn of_class(class: SizeClass) -> Self {
        Self((class.bytes() / 8) | ((class.places() as u64) << 16) | (0xffff << 32))
    }

    fn of_pages(starts: u64) -> Self {
        Self((PAGE_BYTES / 8) | ((BLOCK_PAGES as u64) << 16) | (starts << 32))
    }

    /// Places, whoever owns them.
    #[inline]
    pub(super) fn places(self) -> usize {
        (self.0 >> 16 & 0xffff) as usize
    }

    fn is_pages(self) -> bool {
        self.0 & 0xffff == PAGE_BYTES / 8 && self.places() == BLOCK_PAGES
    }

    /// The offset of a place in its block, if a record may start there.
    #[inline]
    fn offset(self, place: usize) -> Option<u64> {
        let is_start = place < self.places() && self.0 >> (32 + place % 16) & 1 == 1;
        is_start.then_some(place as u64 * (self.0 & 0xffff) * 8)
    }
}

/// A place that has no record: its owner's alone.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Vacant {
    pub(super) block: usize,
    pub(super) place: usize,
    /// From the start of the arena.
    pub(super) offset: u64,
    /// What it takes of the arena.
    pub(super) bytes: u64,
}

/// A place that moves over all others, round and round.
#[derive(Clone, Copy, Debug)]
pub struct Hand {
    block: usize,
    place: usize,
}

impl Hand {
    /// Each number starts a few megabytes apart.
    pub fn new(number: usize) -> Self {
        Self { block: number * APART, place: 0 }
    }
}

/// The blocks of one class.
#[derive(Debug, Default)]
struct Class {
    blocks: Vec<u32>,
    /// Those with a place left.
    open: Vec<u32>,
    /// Places that somebody has.
    taken: usize,
}

/// What its class knows of a block: taken places, whether it is closed to new records, and where it stands in the class's
/// lists. 19, 1, 22 and 22 bits.
#[derive(Clone, Copy)]
struct Note {
    taken: u32,
    is_closed: bool,
    in_blocks: usize,
    /// One more than the index; 0 for a block that is full or closed.
    in_open: usize,
}

impl Note {
    fn unpack(word: u64) -> Self {
        let [in_blocks, in_open] = [20, 42].map(|shift| (word >> shift & 0x3f_ffff) as usize);
        Self { taken: word as u32 & 0x7_ffff, is_closed: word >> 19 & 1 == 1, in_blocks, in_open }
    }

    fn pack(self) -> u64 {
        let closed = u64::from(self.is_closed);
        u64::from(self.taken) | closed << 19 | (self.in_blocks as u64) << 20 | (self.in_open as u64) << 42
    }
}

#[derive(Debug)]
pub(super) struct Places {
    cuts: Reserved<AtomicU64>,
    bits: Reserved<AtomicU64>,
    notes: Reserved<AtomicU64>,
    classes: Vec<CachePadded<Mutex<Class>>>,
    space: Mutex<Space>,
    /// Blocks within the limit that nobody has, as of the last change.
    free_blocks: AtomicU64,
    /// The number behind the last block that was ever used, likewise.
    end_blocks: AtomicUsize,
    used_bytes: CachePadded<AtomicU64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics under these locks but on a broken invariant; then what is there is as good as it gets.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Places {
    /// All of an arena of `bytes` vacant, none of it to be given out before a limit is set.
    pub(super) fn new(bytes: u64) -> std::io::Result<Self> {
        let blocks = (bytes / BLOCK_BYTES) as usize;
        let reserve = |words| Reserved::<AtomicU64>::new(words);
        let (cuts, bits, notes) = (reserve(blocks)?, reserve(blocks * WORDS)?, reserve(blocks)?);
        let blocks = cuts.len().min(bits.len() / WORDS).min(notes.len()).min(blocks);
        Ok(Self {
            cuts,
            bits,
            notes,
            classes: (0..CLASSES).map(|_| CachePadded::default()).collect(),
            space: Mutex::new(Space::new(blocks * BLOCK_PAGES)),
            free_blocks: AtomicU64::new(0),
            end_blocks: AtomicUsize::new(0),
            used_bytes: CachePadded::default(),
        })
    }

    /// Behind this many bytes of the arena nothing is given out.
    pub(super) fn set_limit(&self, bytes: u64) {
        self.with_space(|space| space.set_limit((bytes / PAGE_BYTES) as usize));
        let end = (bytes / BLOCK_BYTES) as usize;
        for class in SizeClass::all() {
            let mut lists = lock(&self.classes[class.index()]);
            for block in lists.blocks.clone() {
                self.close_in(&mut lists, class, block as usize, block as usize >= end);
            }
        }
    }

    /// Changes the pages, and notes how many blocks are free then, and how many there are.
    fn with_space<R>(&self, change: impl FnOnce(&mut Space) -> R) -> R {
        let mut space = lock(&self.space);
        let result = change(&mut space);
        self.free_blocks.store(space.free_blocks() as u64, Ordering::Relaxed);
        self.end_blocks.store(space.end_pages().div_ceil(BLOCK_PAGES), Ordering::Relaxed);
        result
    }

    /// Bytes of the blocks within the limit that nobody has; one load.
    #[inline]
    pub(super) fn free_bytes(&self) -> u64 {
        self.free_blocks.load(Ordering::Relaxed) * BLOCK_BYTES
    }

    /// Bytes of all places that have an owner.
    pub(super) fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that the arena may have of the machine's memory.
    pub(super) fn touched_bytes(&self) -> u64 {
        lock(&self.space).touched_pages() as u64 * PAGE_BYTES
    }

    /// Bytes of pages that are cut up or taken.
    pub(super) fn cut_bytes(&self) -> u64 {
        lock(&self.space).used_pages() as u64 * PAGE_BYTES
    }

    /// The number behind the last block that was ever used.
    pub(super) fn blocks_end(&self) -> usize {
        self.end_blocks.load(Ordering::Relaxed)
    }

    /// The number behind the last block within the limit.
    pub(super) fn blocks_limit(&self) -> usize {
        lock(&self.space).limit_pages() / BLOCK_PAGES
    }

    /// How a block is cut, for as long as the guard lives; a record may be where it says, or be gone.
    #[inline]
    pub(super) fn cut(&self, block: usize, _guard: &Guard) -> Cut {
        // Acquire: pairs with the Release stores of cuts; no place of this cut has anything but records from here on.
        self.cuts.get(block).map_or(Cut::NONE, |cut| Cut(cut.load(Ordering::Acquire)))
    }

    /// Where a place starts in the arena, if a record may be there.
    #[inline]
    pub(super) fn offset(&self, block: usize, place: usize, guard: &Guard) -> Option<u64> {
        Some(block as u64 * BLOCK_BYTES + self.cut(block, guard).offset(place)?)
    }

    /// A place for a record of `bytes`: within the limit, or anywhere if `forced`.
    pub(super) fn take(&self, bytes: u64, forced: bool, ground: &impl Ground) -> Option<Vacant> {
        let vacant = match SizeClass::of(bytes) {
            Some(class) => self.take_place(class, forced, ground),
            None => self.take_run(bytes, forced, ground),
        }?;
        // Relaxed, here and below: sums and samples order nothing.
        self.used_bytes.fetch_add(vacant.bytes, Ordering::Relaxed);
        Some(vacant)
    }

    fn take_place(&self, class: SizeClass, forced: bool, ground: &impl Ground) -> Option<Vacant> {
        let mut lists = lock(&self.classes[class.index()]);
        let block = match lists.open.last() {
            Some(block) => *block as usize,
            None => self.cut_block(&mut lists, class, forced, ground)?,
        };
        let mut note = self.note(block);
        let place = self.first_free(block, class.places());
        let bits = &self.bits[block * WORDS + place / 64];
        // Relaxed: bits and notes of a block are its class's, whose lock is held.
        bits.store(bits.load(Ordering::Relaxed) | 1 << (place % 64), Ordering::Relaxed);
        note.taken += 1;
        self.notes[block].store(note.pack(), Ordering::Relaxed);
        if note.taken as usize == class.places() {
            self.unlist_open(&mut lists, block);
        }
        lists.taken += 1;
        let bytes = class.bytes();
        Some(Vacant { block, place, offset: block as u64 * BLOCK_BYTES + place as u64 * bytes, bytes })
    }

    /// The first place of an open block that nobody has.
    fn first_free(&self, block: usize, places: usize) -> usize {
        let words = &self.bits[block * WORDS..][..places.div_ceil(64)];
        let free = words.iter().enumerate().find_map(|(index, word)| {
            let free = !word.load(Ordering::Relaxed);
            (free != 0).then(|| index * 64 + free.trailing_zeros() as usize)
        });
        free.expect("an open block has a free place")
    }

    /// Gives a class one more block.
    fn cut_block(&self, lists: &mut Class, class: SizeClass, forced: bool, ground: &impl Ground) -> Option<usize> {
        let (block, was_used) = self.with_space(|space| {
            let end = space.end_pages();
            let block = space.take_block(forced, |region, advice| ground.advise(region, advice))?;
            Some((block, block * BLOCK_PAGES < end))
        })?;
        // One that nobody has used is zero, and not in the machine's memory yet.
        if was_used {
            let start = block as u64 * BLOCK_BYTES;
            (0..class.places() as u64).for_each(|place| ground.clear(start + place * class.bytes()));
        }
        self.bits[block * WORDS..][..WORDS].iter().for_each(|word| word.store(0, Ordering::Relaxed));
        let note = Note { taken: 0, is_closed: false, in_blocks: lists.blocks.len(), in_open: 0 };
        lists.blocks.push(block as u32);
        self.list_open(lists, block, note);
        // Release: pairs with the Acquire in `cut`; its places are zero, or cleared.
        self.cuts[block].store(Cut::of_class(class).0, Ordering::Release);
        Some(block)
    }

    fn take_run(&self, bytes: u64, forced: bool, ground: &impl Ground) -> Option<Vacant> {
        let count = bytes.div_ceil(PAGE_BYTES) as usize;
        let page =
            self.with_space(|space| space.take_pages(count, forced, |region, advice| ground.advise(region, advice)))?;
        let (block, place) = (page / BLOCK_PAGES, page % BLOCK_PAGES);
        ground.clear(page as u64 * PAGE_BYTES);
        self.mark_start(block, place, true);
        Some(Vacant { block, place, offset: page as u64 * PAGE_BYTES, bytes: count as u64 * PAGE_BYTES })
    }

    /// Says whether a record may start at a page. A block that is pages may be looked into while any of them is in use:
    /// other pages of it hold the inside of records, where none may start.
    fn mark_start(&self, block: usize, place: usize, is_start: bool) {
        let change = |cut: u64| {
            let starts = cut >> 32 & 0xffff;
            let starts = if is_start { starts | 1 << place } else { starts & !(1 << place) };
            Some(if starts == 0 { Cut::NONE.0 } else { Cut::of_pages(starts).0 })
        };
        // Release: pairs with the Acquire in `cut`. Relaxed for the old value, which carries nothing.
        let _ = self.cuts[block].fetch_update(Ordering::Release, Ordering::Relaxed, change);
    }

    /// Keeps those who look from now on from finding a record of `bytes` that is about to be retired, if that takes more
    /// than its own state.
    pub(super) fn hide(&self, offset: u64, bytes: u64) {
        if SizeClass::of(bytes).is_none() {
            let page = (offset / PAGE_BYTES) as usize;
            self.mark_start(page / BLOCK_PAGES, page % BLOCK_PAGES, false);
        }
    }

    /// Takes the place of a record of `bytes` back, which nobody can see any more.
    pub(super) fn give(self: &Arc<Self>, offset: u64, bytes: u64, ground: &Arc<impl Ground + Send + Sync + 'static>) {
        self.used_bytes.fetch_sub(rounded(bytes), Ordering::Relaxed);
        match SizeClass::of(bytes) {
            Some(class) => self.give_place(class, offset, ground),
            None => {
                let (page, count) = (offset / PAGE_BYTES, bytes.div_ceil(PAGE_BYTES));
                self.give_pages(page as usize, count as usize, &**ground);
            }
        }
    }

    fn give_pages(&self, page: usize, count: usize, ground: &impl Ground) {
        self.with_space(|space| space.give(page, count, |region, advice| ground.advise(region, advice)));
    }

    fn give_place(self: &Arc<Self>, class: SizeClass, offset: u64, ground: &Arc<impl Ground + Send + Sync + 'static>) {
        let block = (offset / BLOCK_BYTES) as usize;
        let place = (offset % BLOCK_BYTES / class.bytes()) as usize;
        let mut lists = lock(&self.classes[class.index()]);
        let mut note = self.note(block);
        let bits = &self.bits[block * WORDS + place / 64];
        bits.store(bits.load(Ordering::Relaxed) & !(1 << (place % 64)), Ordering::Relaxed);
        note.taken -= 1;
        lists.taken -= 1;
        self.notes[block].store(note.pack(), Ordering::Relaxed);
        if note.in_open == 0 && !note.is_closed {
            self.list_open(&mut lists, block, note);
        }
        // One open block is kept for the next record.
        if note.taken == 0 && (note.is_closed || lists.open.len() > 1) {
            self.give_block(lists, block, ground);
        }
    }

    /// Takes an empty block from its class. Its pages are free when nobody looks into it any more.
    fn give_block(
        self: &Arc<Self>,
        mut lists: MutexGuard<'_, Class>,
        block: usize,
        ground: &Arc<impl Ground + Send + Sync + 'static>,
    ) {
        self.unlist(&mut lists, block);
        // Relaxed: whoever retires orders it; see `Guard::retire`.
        self.cuts[block].store(Cut::NONE.0, Ordering::Relaxed);
        drop(lists);
        let (places, ground) = (self.clone(), ground.clone());
        Guard::pin().retire(move || places.give_pages(block * BLOCK_PAGES, BLOCK_PAGES, &*ground));
    }

    fn note(&self, block: usize) -> Note {
        // Relaxed: notes of a block are its class's, whose lock is held.
        Note::unpack(self.notes[block].load(Ordering::Relaxed))
    }

    fn list_open(&self, lists: &mut Class, block: usize, note: Note) {
        lists.open.push(block as u32);
        self.notes[block].store(Note { in_open: lists.open.len(), ..note }.pack(), Ordering::Relaxed);
    }

    fn unlist_open(&self, lists: &mut Class, block: usize) {
        let note = self.note(block);
        let Some(index) = note.in_open.checked_sub(1) else { return };
        lists.open.swap_remove(index);
        if let Some(moved) = lists.open.get(index).map(|block| *block as usize) {
            self.notes[moved].store(Note { in_open: note.in_open, ..self.note(moved) }.pack(), Ordering::Relaxed);
        }
        self.notes[block].store(Note { in_open: 0, ..note }.pack(), Ordering::Relaxed);
    }

    fn unlist(&self, lists: &mut Class, block: usize) {
        self.unlist_open(lists, block);
        let index = self.note(block).in_blocks;
        lists.blocks.swap_remove(index);
        if let Some(moved) = lists.blocks.get(index).map(|block| *block as usize) {
            self.notes[moved].store(Note { in_blocks: index, ..self.note(moved) }.pack(), Ordering::Relaxed);
        }
    }

    /// The next place that somebody has, from where the hand is on; the hand is behind it then.
    #[inline]
    pub(super) fn next(&self, hand: &mut Hand, guard: &Guard) -> Option<(usize, usize)> {
        for _ in 0..VACANT_MAX {
            if let Some(place) = self.next_in_block(hand, self.cut(hand.block, guard)) {
                hand.place = place + 1;
                return Some((hand.block, place));
            }
            let next = hand.block + 1;
            *hand = Hand { block: if next < self.blocks_end() { next } else { 0 }, place: 0 };
        }
        None
    }

    #[inline]
    fn next_in_block(&self, hand: &Hand, cut: Cut) -> Option<usize> {
        if cut.is_pages() {
            return (hand.place..BLOCK_PAGES).find(|place| cut.offset(*place).is_some());
        }
        let words = self.bits.get(hand.block * WORDS..)?.get(..cut.places().div_ceil(64))?;
        let mut index = hand.place / 64;
        // Relaxed: whoever looks for a record looks at the place himself.
        let mut taken = words.get(index)?.load(Ordering::Relaxed) & (u64::MAX << (hand.place % 64));
        while taken == 0 {
            index += 1;
            taken = words.get(index)?.load(Ordering::Relaxed);
        }
        Some(index * 64 + taken.trailing_zeros() as usize)
    }

    /// The block to empty for another class's sake: the emptiest of the class that has most room in its other blocks.
    pub(super) fn emptiest(&self) -> Option<usize> {
        let room = |class: SizeClass| {
            let lists = lock(&self.classes[class.index()]);
            (lists.blocks.len() * class.places() - lists.taken) as u64 * class.bytes()
        };
        let class =
            SizeClass::all().max_by_key(|class| room(*class)).filter(|class| room(*class) >= 2 * BLOCK_BYTES)?;
        let lists = lock(&self.classes[class.index()]);
        let taken = |block: &&u32| self.note(**block as usize).taken;
        lists.open.iter().min_by_key(taken).map(|block| *block as usize)
    }

    /// Keeps new records out of a block that is to be emptied, which goes at once if it is empty already.
    pub(super) fn close(
        self: &Arc<Self>,
        block: usize,
        ground: &Arc<impl Ground + Send + Sync + 'static>,
        guard: &Guard,
    ) {
        let cut = self.cut(block, guard);
        let Some(class) = SizeClass::all().find(|class| Cut::of_class(*class) == cut) else { return };
        let mut lists = lock(&self.classes[class.index()]);
        // Relaxed: a class's blocks are cut under its lock.
        if self.cuts[block].load(Ordering::Relaxed) == cut.0 {
            self.close_in(&mut lists, class, block, true);
            if self.note(block).taken == 0 {
                self.give_block(lists, block, ground);
            }
        }
    }

    fn close_in(&self, lists: &mut Class, class: SizeClass, block: usize, is_closed: bool) {
        let note = self.note(block);
        if note.is_closed == is_closed {
            return;
        }
        self.notes[block].store(Note { is_closed, ..note }.pack(), Ordering::Relaxed);
        if is_closed {
            self.unlist_open(lists, block);
        } else if (note.taken as usize) < class.places() {
            self.list_open(lists, block, self.note(block));
        }
    }

    /// Gives all regions without records back to the system; returns their bytes.
    pub(super) fn discard_spare(&self, ground: &impl Ground) -> u64 {
        lock(&self.space).discard_spare(|region, advice| ground.advise(region, advice))
    }
}
