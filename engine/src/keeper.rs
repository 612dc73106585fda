//! The keeper of the memory tier: who is in it, how far it is filled, and the threads that see to that.
//!
//! Holds the policy, the clock of accesses, the sweeps for victims and the bounded list of those who left. The work itself is in
//! `promote.rs` and `demote.rs`. Invariant: the threads end before the store does.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use crossbeam_utils::CachePadded;
use thermocline_eviction::{History, Janitor, LearnedSweep, Options, Policy, Ticks, Tier, Watch, teachers};
use thermocline_tiers::Guard;

use crate::{
    catalog::named,
    counters::Count,
    engine::Core,
    inspect::{Eviction, Reason},
    sweep::Sweep,
    worker::{Next, Worker},
};

/// How many leave of those that are looked at together, at most.
pub(crate) const VICTIMS_MAX: usize = 4;
/// So many entries have to leave for each that leaves more at a time.
const BEHIND: u64 = 256;
/// So many threads let entries go without waiting for each other.
const INSERTERS: usize = 15;
/// How many evictions are remembered.
const EVICTIONS_REMEMBERED: usize = 1024;
/// What an entry is taken to weigh before there are any.
const WEIGHT_GUESS: u64 = 256;
/// What leaves when no size has room for others: some blocks' worth.
const STARVED_BYTES: u64 = 256 << 10;
/// Entries that leave under one guard, and blocks that are freed in a round.
const ROUND: usize = 64;

#[derive(Debug)]
pub(crate) struct Keeper {
    policy: Box<dyn Policy>,
    ticks: Ticks,
    /// A thread tells the clock of every so many accesses: a power of two, less one.
    batch_mask: AtomicU64,
    /// A key teaches if these bits of its hash are zero.
    teachers_mask: AtomicU64,
    /// How many entries the clock thinks fit.
    entries: AtomicU64,
    /// The keeper's, and those of threads that need room at once.
    sweeps: [CachePadded<Mutex<Sweep>>; 1 + INSERTERS],
    evictions: Mutex<VecDeque<(Vec<u8>, Count, u64)>>,
    worker: Worker,
    janitor: OnceLock<Janitor>,
    is_ending: AtomicBool,
}

/// Who lets entries go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Evictor {
    Keeper,
    Inserter,
}

impl Keeper {
    pub(crate) fn new(capacity: u64) -> Self {
        let entries = (capacity / WEIGHT_GUESS).max(1);
        let keeper = Self {
            policy: Box::new(LearnedSweep::default()),
            ticks: Ticks::new(entries),
            batch_mask: AtomicU64::new(0),
            teachers_mask: AtomicU64::new(0),
            entries: AtomicU64::new(entries),
            sweeps: std::array::from_fn(|number| Mutex::new(Sweep::new(number)).into()),
            evictions: Mutex::default(),
            worker: Worker::new("thermocline-keep"),
            janitor: OnceLock::new(),
            is_ending: AtomicBool::new(false),
        };
        keeper.resize(entries);
        keeper
    }

    fn resize(&self, entries: u64) {
        self.entries.store(entries, Ordering::Relaxed);
        self.ticks.resize(entries);
        self.teachers_mask.store(teachers(entries) - 1, Ordering::Relaxed);
        let batch = (self.ticks.accesses_per_tick() / 16).clamp(1, 256);
        // Relaxed: of one batch more or less nothing depends.
        self.batch_mask.store((batch + 1).next_power_of_two() / 2 - 1, Ordering::Relaxed);
    }

    /// The tick of an access now.
    #[inline]
    pub(crate) fn tick(&self) -> u8 {
        self.ticks.now()
    }

    /// A thread has counted `accesses`.
    #[inline]
    pub(crate) fn count(&self, accesses: u64) {
        let mask = self.batch_mask.load(Ordering::Relaxed);
        if accesses & mask == 0 {
            self.ticks.advance(mask + 1);
        }
    }

    /// Whether all accesses to a key of this hash are evidence.
    #[inline]
    pub(crate) fn teaches(&self, hash: u64) -> bool {
        // Bits of the hash that the index does not need.
        hash & self.teachers_mask.load(Ordering::Relaxed) == 0
    }

    /// The history after an access.
    #[inline]
    pub(crate) fn access(&self, before: u16, weight: u64, teaches: bool) -> u16 {
        let (before, now) = (History::from_bits(before), self.tick());
        if before != History::NEW && before.tick() == now {
            return before.to_bits();
        }
        self.policy.access(before, now, clamp(weight), teaches).to_bits()
    }

    /// Whether there is something to learn.
    pub(crate) fn wants_to_learn(&self) -> bool {
        self.policy.wants_to_learn()
    }

    fn learn(&self) {
        self.policy.learn(self.tick());
    }

    pub(crate) fn worth(&self, history: History, weight: u64) -> f32 {
        self.policy.worth(history, self.tick(), clamp(weight))
    }

    /// A sweep. Whoever has it looks at a few records and gives it back.
    pub(crate) fn sweep(&self, who: Evictor, guard: &Guard) -> MutexGuard<'_, Sweep> {
        let number = match who {
            Evictor::Keeper => 0,
            Evictor::Inserter => 1 + guard.thread_number() % INSERTERS,
        };
        self.sweeps[number].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers who left.
    pub(crate) fn note_eviction(&self, key: &[u8], reason: Count, at_ms: u64) {
        let mut evictions = self.evictions.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entry = match evictions.len() < EVICTIONS_REMEMBERED {
            true => (Vec::new(), reason, at_ms),
            false => evictions.pop_front().unwrap_or((Vec::new(), reason, at_ms)),
        };
        entry.0.clear();
        entry.0.extend_from_slice(key);
        evictions.push_back((entry.0, reason, at_ms));
    }

    fn problems(&self) -> Vec<String> {
        self.worker.problem().into_iter().chain(self.janitor.get().into_iter().flat_map(Janitor::problems)).collect()
    }
}

fn clamp(weight: u64) -> u32 {
    weight.try_into().unwrap_or(u32::MAX)
}

impl Core {
    /// Bytes that the memory tier takes, our overhead counted.
    #[inline]
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.memory.charged_bytes()
    }

    fn limit_arena(&self) {
        self.memory.set_limit(self.budget.arena_bytes(self.memory.records()));
    }

    pub(crate) fn start_keeping(&self) {
        self.limit_arena();
        if self.options.free_memory_target.is_some() && self.budget.capacity() > 0 {
            self.start_janitor();
        }
    }

    /// Starts the threads for expiry and memory pressure, unless they run.
    #[inline]
    pub(crate) fn start_janitor(&self) {
        if self.keeper.janitor.get().is_none() {
            self.start_janitor_slow();
        }
    }

    #[cold]
    fn start_janitor_slow(&self) {
        if self.keeper.is_ending.load(Ordering::Acquire) {
            return;
        }
        self.keeper.janitor.get_or_init(|| {
            let watch = self.options.free_memory_target.map(Watch::new);
            let janitor = Janitor::start(
                Arc::new(Tenant(self.this.clone())),
                Options { watch, expiry_interval: Duration::from_secs(1) },
            );
            if self.options.free_memory_target.is_some() {
                janitor.poke();
            }
            janitor
        });
    }

    pub(crate) fn stop_keeping(&self) {
        self.keeper.is_ending.store(true, Ordering::Release);
        if let Some(janitor) = self.keeper.janitor.get() {
            janitor.stop();
        }
        self.keeper.worker.stop();
    }

    /// Asks the keeper for head-room.
    #[inline]
    pub(crate) fn wake_keeper(&self) {
        self.keeper.worker.wake(|| {
            let this = self.this.clone();
            Box::new(move || Ok(this.upgrade().map_or(Next::Done, |core| core.keep())))
        });
    }

    /// Asks for head-room if there is too little.
    pub(crate) fn wake_keeper_if_full(&self) {
        if self.resident_bytes() > self.budget.high() {
            self.wake_keeper();
        }
    }

    /// Brings the tier below its bound, its arena within its limit, and the policy up to date.
    fn keep(&self) -> Next {
        self.learn();
        self.evict_while(|_| self.resident_bytes().saturating_sub(self.budget.low()), Count::EvictedCapacity);
        let is_within = self.shrink_arena();
        let has_room = self.free_some();
        self.memory.reclaim();
        self.memory.drop_released();
        if is_within && has_room { Next::Done } else { Next::Soon }
    }

    /// Frees blocks for whatever size needs them: empties those of sizes that have room elsewhere, or lets entries go if none
    /// has. Whether there are enough of them now.
    fn free_some(&self) -> bool {
        for _ in 0..ROUND {
            if self.memory.free_bytes() >= self.budget.free_bytes_min() {
                return true;
            }
            match self.memory.emptiest_block() {
                Some(block) => self.evacuate(block),
                // What left already makes room when its readers are gone.
                None if self.memory.waiting_bytes() >= STARVED_BYTES => return false,
                None => {
                    self.evict_while(|gone| STARVED_BYTES.saturating_sub(gone), Count::EvictedCapacity);
                }
            }
            (0..2).for_each(|_| self.memory.reclaim());
        }
        false
    }

    /// Empties the part of the arena that is behind its limit; whether nothing is left there. What readers still look at,
    /// or somebody holds, stays until they are done.
    fn shrink_arena(&self) -> bool {
        self.limit_arena();
        if self.memory.blocks_beyond().is_empty() {
            return true;
        }
        // What has left already makes room for what moves.
        self.memory.reclaim();
        self.memory.blocks_beyond().for_each(|block| self.evacuate(block));
        // Records first, then the blocks that they leave empty.
        (0..3).for_each(|_| self.memory.reclaim());
        self.memory.give_back();
        self.memory.blocks_beyond().all(|block| self.memory.is_vacant(block, &Guard::pin()))
    }

    /// Turns what was seen of accesses into what is believed of them, if that is due.
    pub(crate) fn learn(&self) {
        self.resize_ticks();
        if self.keeper.wants_to_learn() {
            self.keeper.learn();
        }
    }

    fn resize_ticks(&self) {
        let records = self.memory.records();
        if records < 8 {
            return;
        }
        let entries =
            (self.budget.bound() as u128 * u128::from(records) / u128::from(self.resident_bytes().max(1))) as u64;
        let known = self.keeper.entries.load(Ordering::Relaxed);
        if entries.abs_diff(known) > known / 10 {
            self.keeper.resize(entries.max(1));
        }
    }

    /// Lets the least valuable entries go until nothing is left of what `too_many` says after so many bytes went; returns those.
    fn evict_while(&self, too_many: impl Fn(u64) -> u64, reason: Count) -> u64 {
        let (mut gone, mut fruitless) = (0, 0);
        while too_many(gone) > 0 && fruitless < ROUND && !self.keeper.is_ending.load(Ordering::Relaxed) {
            let guard = Guard::pin();
            for _ in 0..ROUND {
                let bytes = too_many(gone);
                if bytes == 0 {
                    break;
                }
                // The further behind, the less choosy.
                let each = (self.resident_bytes() / self.memory.records().max(1)).max(1);
                let count = (bytes / each / BEHIND).clamp(1, VICTIMS_MAX as u64) as usize;
                let went = self.evict_some(Evictor::Keeper, count, None, reason, &guard);
                fruitless = if went > 0 { 0 } else { fruitless + 1 };
                gone += went;
            }
        }
        gone
    }

    /// Changes the capacity of the memory tier. What is too much leaves behind the call's back.
    pub fn set_memory_capacity(&self, bytes: u64) {
        self.budget.set_capacity(bytes);
        self.limit_arena();
        self.wake_keeper();
    }

    /// Takes `bytes` of the memory tier out of use until [`release`](Self::release), for a value that is being computed.
    pub fn reserve(&self, bytes: u64) {
        self.budget.reserve(bytes);
        self.wake_keeper_if_full();
    }

    /// Gives back what [`reserve`](Self::reserve) took.
    pub fn release(&self, bytes: u64) {
        self.budget.release(bytes);
    }

    /// What does not work as it should with the memory tier's threads.
    pub(crate) fn keeping_problems(&self) -> Vec<String> {
        self.keeper.problems()
    }

    /// The threads that work for the memory tier, and whether they do.
    pub(crate) fn keeping_threads(&self) -> Vec<(&'static str, bool)> {
        let threads = self.keeper.janitor.get().map(Janitor::threads).unwrap_or_default();
        threads.into_iter().map(|thread| (thread.name, thread.is_alive)).collect()
    }

    /// Runs a round of the keeper, the expiry thread and the pressure thread now; for tests and commands.
    pub fn keep_now(&self) {
        self.keep();
        if let Some(janitor) = self.keeper.janitor.get() {
            janitor.poke();
        }
    }

    /// Who left memory last, newest first.
    pub fn eviction_log(&self) -> Vec<Eviction> {
        let names = self.namespace_names();
        let evictions = self.keeper.evictions.lock().unwrap_or_else(PoisonError::into_inner);
        let eviction = |(stored, reason, at_ms): &(Vec<u8>, Count, u64)| {
            let ((namespace, key), at) = (named(stored, &names)?, UNIX_EPOCH + Duration::from_millis(*at_ms));
            Some(Eviction { key, namespace, reason: Reason::of(*reason), at })
        };
        evictions.iter().rev().filter_map(eviction).collect()
    }
}

/// The store as its janitor sees it.
struct Tenant(Weak<Core>);

impl Tier for Tenant {
    fn resident_bytes(&self) -> u64 {
        self.0.upgrade().map_or(0, |core| core.resident_bytes())
    }

    fn evict_expired(&self) -> u64 {
        let Some(core) = self.0.upgrade() else { return 0 };
        let mut count = 0;
        core.memory.each_expired(core.clock.now_ms(), |at, _, guard| {
            count += u64::from(core.demote(at, Count::EvictedExpired, guard).unwrap_or(false));
        });
        if count > 0 {
            core.memory.reclaim();
        }
        // After that: what is in memory still would have to be looked for.
        core.wake_compactor();
        count
    }

    fn evict(&self, bytes: u64) -> u64 {
        let Some(core) = self.0.upgrade() else { return 0 };
        let went = core.evict_while(|gone| bytes.saturating_sub(gone), Count::EvictedPressure);
        // The allowance bounds the arena, too.
        core.shrink_arena();
        went
    }

    fn set_allowance(&self, bytes: Option<u64>) {
        if let Some(core) = self.0.upgrade() {
            core.budget.set_allowance(bytes);
            core.limit_arena();
            core.wake_keeper_if_full();
        }
    }
}
