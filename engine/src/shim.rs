use std::sync::atomic::{AtomicU64, Ordering};
use thermocline_eviction::{History, Policy};
#[derive(Debug)]
pub(crate) struct Ticks {
    acc: AtomicU64,
    per: AtomicU64,
}
impl Ticks {
    pub(crate) fn new(e: u64) -> Self {
        Self { acc: AtomicU64::new(0), per: AtomicU64::new((e / 20).max(1)) }
    }
    pub(crate) fn resize(&self, e: u64) {
        self.per.store((e / 20).max(1), Ordering::Relaxed)
    }
    pub(crate) fn accesses_per_tick(&self) -> u64 {
        self.per.load(Ordering::Relaxed)
    }
    pub(crate) fn now(&self) -> u8 {
        (self.acc.load(Ordering::Relaxed) >> 10) as u8
    }
    pub(crate) fn advance(&self, n: u64) {
        self.acc.fetch_add(n, Ordering::Relaxed);
    }
}
#[derive(Debug, Default)]
pub(crate) struct LearnedSweep;
impl Policy for LearnedSweep {
    fn access(&self, before: History, now: u8, _w: u32, _t: bool) -> History {
        History::from_bits((now as u16) << 8 | ((before.to_bits() & 0xff) + 1).min(255))
    }
    fn worth(&self, h: History, n: u8, _w: u32) -> f32 {
        -(n.wrapping_sub(h.tick()) as f32)
    }
    fn wants_to_learn(&self, _n: u8) -> bool {
        false
    }
    fn learn(&self, _n: u8, _k: u64, _s: &mut dyn FnMut() -> Option<History>) {}
}
