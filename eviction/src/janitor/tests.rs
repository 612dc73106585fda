use std::{
    collections::VecDeque,
    sync::{
        OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use super::*;

const MIB: u64 = 1 << 20;

/// No test waits for so long, unless it fails.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Call {
    EvictExpired,
    Evict(u64),
    Allow(Option<u64>),
}

/// A tier that tells what it was asked.
#[derive(Default)]
struct Double {
    calls: Mutex<Vec<Call>>,
    resident_bytes: AtomicU64,
    panics: AtomicBool,
    on_expiry: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Double {
    fn new(resident_bytes: u64) -> Arc<Self> {
        Arc::new(Self { resident_bytes: AtomicU64::new(resident_bytes), ..Self::default() })
    }

    fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    fn on_expiry(self: &Arc<Self>, act: impl Fn() + Send + Sync + 'static) -> &Arc<Self> {
        assert!(self.on_expiry.set(Box::new(act)).is_ok());
        self
    }
}

impl Tier for Double {
    fn resident_bytes(&self) -> u64 {
        self.resident_bytes.load(SeqCst)
    }

    fn evict_expired(&self) -> u64 {
        self.calls.lock().unwrap().push(Call::EvictExpired);
        assert!(!self.panics.load(SeqCst), "entry {} is upside down", 7);
        self.on_expiry.get().inspect(|act| act());
        1
    }

    fn evict(&self, bytes: u64) -> u64 {
        self.calls.lock().unwrap().push(Call::Evict(bytes));
        self.resident_bytes.fetch_sub(bytes, SeqCst);
        bytes
    }

    fn set_allowance(&self, bytes: Option<u64>) {
        self.calls.lock().unwrap().push(Call::Allow(bytes));
    }
}

/// A machine that is looked at by heart; past the end there is nothing to see.
#[derive(Debug, Default)]
struct Script {
    available_mib: VecDeque<u64>,
    dropped: Option<Sender<()>>,
}

impl Script {
    fn new(available_mib: impl Into<VecDeque<u64>>) -> Self {
        Self { available_mib: available_mib.into(), dropped: None }
    }
}

impl Machine for Script {
    fn look(&mut self) -> View {
        self.available_mib.pop_front().map_or(View::UNKNOWN, |mib| View::new(1000 * MIB, mib * MIB))
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        if let Some(dropped) = self.dropped.take() {
            let _ = dropped.send(());
        }
    }
}

/// Rounds come only when asked for.
fn options(machine: Option<Script>) -> Options {
    let watch =
        machine.map(|machine| Watch { target_bytes: 100 * MIB, interval: Duration::MAX, machine: Box::new(machine) });
    Options { expiry_interval: Duration::MAX, watch }
}

fn start(tier: &Arc<Double>, options: Options) -> Janitor {
    let tier = Arc::clone(tier);
    Janitor::start(tier, options)
}

fn alive(janitor: &Janitor) -> Vec<(&'static str, bool)> {
    janitor.threads().iter().map(|thread| (thread.name, thread.is_alive)).collect()
}

#[test]
fn a_round_bounds_the_tier_before_it_takes_from_it() {
    let tier = Double::new(400 * MIB);
    let watch = Watch { target_bytes: 100 * MIB, interval: Duration::MAX, machine: Box::new(Script::default()) };
    let observed = Arc::default();
    let mut watcher = Watcher::new(&watch, Arc::clone(&observed));
    let mut machine = Script::new([305, 85, 85, 105]);
    let mut round = || {
        watcher.round(&*tier, &mut machine);
        tier.calls()
    };
    assert_eq!(round(), [Call::Allow(Some(450 * MIB))]);
    assert_eq!(round(), [Call::Allow(Some(380 * MIB)), Call::Evict(20 * MIB)]);
    assert_eq!(round(), [Call::Allow(Some(380 * MIB))]);
    assert_eq!(round(), [Call::Allow(Some(380 * MIB))]);
    assert_eq!(round(), [Call::Allow(Some(380 * MIB))]);
    let seen = observed.lock().unwrap().unwrap();
    assert_eq!((seen.view, seen.level, seen.evicted_bytes), (View::UNKNOWN, Level::Unknown, 0));
}

#[test]
fn poking_runs_one_round_of_each_thread_and_waits_for_it() {
    let tier = Double::new(400 * MIB);
    let janitor = start(&tier, options(Some(Script::new([85, 105]))));
    assert_eq!(janitor.observed(), None);
    assert!(janitor.poke());
    let expected = [Call::EvictExpired, Call::Allow(Some(380 * MIB)), Call::Evict(20 * MIB)];
    assert_eq!(tier.calls(), expected);
    let seen = janitor.observed().unwrap();
    assert_eq!((seen.level, seen.evicted_bytes), (Level::Tight, 20 * MIB));
    assert!(janitor.poke());
    assert_eq!(tier.calls(), [Call::EvictExpired, Call::Allow(Some(380 * MIB))]);
    assert_eq!(janitor.observed().unwrap().level, Level::Near);
    assert_eq!(janitor.problems(), Vec::<String>::new());
}

#[test]
fn without_a_target_there_is_no_pressure_thread() {
    let tier = Double::new(400 * MIB);
    let janitor = start(&tier, options(None));
    assert!(janitor.poke());
    assert_eq!(tier.calls(), [Call::EvictExpired]);
    assert_eq!(alive(&janitor), [("thermocline-expiry", true)]);
}

#[test]
fn rounds_come_by_themselves_when_an_interval_has_passed() {
    let (tier, (ran, rounds)) = (Double::new(0), channel());
    tier.on_expiry(move || {
        let _ = ran.send(());
    });
    let janitor = start(&tier, Options { expiry_interval: Duration::ZERO, watch: None });
    for _ in 0..3 {
        rounds.recv_timeout(PATIENCE).unwrap();
    }
    drop(janitor);
}

#[test]
fn who_pokes_during_a_round_gets_another() {
    let tier = Double::new(0);
    let ((entered, entries), (leave, leaves)) = (channel(), channel::<()>());
    let leaves = Mutex::new(leaves);
    tier.on_expiry(move || {
        entered.send(()).unwrap();
        let _ = leaves.lock().unwrap().recv_timeout(PATIENCE);
    });
    let janitor = start(&tier, options(None));
    thread::scope(|scope| {
        let first = scope.spawn(|| janitor.poke());
        entries.recv_timeout(PATIENCE).unwrap();
        let second = scope.spawn(|| janitor.poke());
        // The second may come during the first round or after it: in both cases it has its own.
        leave.send(()).unwrap();
        assert!(first.join().unwrap());
        entries.recv_timeout(PATIENCE).unwrap();
        leave.send(()).unwrap();
        assert!(second.join().unwrap());
    });
    assert_eq!(tier.calls().len(), 2);
}

#[test]
fn stopping_wakes_sleepers_and_lets_the_tier_go() {
    let tier = Double::new(0);
    let janitor = start(&tier, options(Some(Script::default())));
    assert_eq!(alive(&janitor), [("thermocline-expiry", true), ("thermocline-pressure", true)]);
    janitor.stop();
    assert_eq!(alive(&janitor), [("thermocline-expiry", false), ("thermocline-pressure", false)]);
    assert_eq!(Arc::strong_count(&tier), 1);
    janitor.stop();
    assert!(!janitor.poke());
    assert_eq!(tier.calls(), []);
    assert_eq!(janitor.problems(), Vec::<String>::new());
}

#[test]
fn dropping_stops() {
    let tier = Double::new(0);
    drop(start(&tier, options(Some(Script::default()))));
    assert_eq!(Arc::strong_count(&tier), 1);
}

#[test]
fn pressure_ends_before_expiry() {
    let tier = Double::new(0);
    let ((entered, entries), (leave, leaves), (dropped, drops)) = (channel(), channel::<()>(), channel());
    let leaves = Mutex::new(leaves);
    tier.on_expiry(move || {
        entered.send(()).unwrap();
        let _ = leaves.lock().unwrap().recv_timeout(PATIENCE);
    });
    let janitor = start(&tier, options(Some(Script { available_mib: VecDeque::new(), dropped: Some(dropped) })));
    thread::scope(|scope| {
        let poke = scope.spawn(|| janitor.poke());
        entries.recv_timeout(PATIENCE).unwrap();
        let stop = scope.spawn(|| janitor.stop());
        // The expiry thread is still in its round.
        drops.recv_timeout(PATIENCE).unwrap();
        leave.send(()).unwrap();
        stop.join().unwrap();
        assert!(!poke.join().unwrap());
    });
}

#[test]
fn a_panic_ends_its_thread_is_told_and_leaves_the_other_alone() {
    let tier = Double::new(400 * MIB);
    let janitor = start(&tier, options(Some(Script::new([500, 500]))));
    tier.panics.store(true, SeqCst);
    assert!(!janitor.poke());
    assert_eq!(janitor.problems(), ["thermocline-expiry panicked: entry 7 is upside down"]);
    assert_eq!(alive(&janitor), [("thermocline-expiry", false), ("thermocline-pressure", true)]);
    assert_eq!(tier.calls(), [Call::EvictExpired, Call::Allow(Some(498 * MIB + 3 * MIB / 4))]);
    assert!(!janitor.poke());
    assert_eq!(tier.calls().len(), 1);
    janitor.stop();
    assert_eq!(janitor.problems().len(), 1);
}

#[test]
fn a_panic_while_the_machine_is_looked_at_is_told_too() {
    #[derive(Debug)]
    struct Broken;
    impl Machine for Broken {
        fn look(&mut self) -> View {
            std::panic::panic_any(7);
        }
    }
    let tier = Double::new(0);
    let watch = Watch { target_bytes: 1, interval: Duration::MAX, machine: Box::new(Broken) };
    let janitor = start(&tier, Options { expiry_interval: Duration::MAX, watch: Some(watch) });
    assert!(!janitor.poke());
    assert_eq!(janitor.problems(), ["thermocline-pressure panicked: no message"]);
    assert_eq!(alive(&janitor), [("thermocline-expiry", true), ("thermocline-pressure", false)]);
}

#[test]
fn the_tier_can_neither_wait_for_nor_join_the_thread_it_is_called_by() {
    let tier = Double::new(0);
    let slot = Arc::new(OnceLock::<Weak<Janitor>>::new());
    let (told, answers) = channel();
    let inside = Arc::clone(&slot);
    tier.on_expiry(move || {
        let janitor = inside.get().and_then(Weak::upgrade).unwrap();
        told.send(janitor.poke()).unwrap();
        janitor.stop();
    });
    let janitor = Arc::new(start(&tier, options(Some(Script::default()))));
    slot.set(Arc::downgrade(&janitor)).unwrap();
    janitor.poke();
    assert!(!answers.recv_timeout(PATIENCE).unwrap());
    janitor.stop();
    assert!(janitor.threads().iter().all(|thread| !thread.is_alive));
}

#[test]
#[cfg(target_os = "linux")]
fn the_threads_can_be_told_apart_by_what_the_system_shows_of_their_names() {
    #[derive(Debug)]
    struct Named(Sender<String>);
    impl Machine for Named {
        fn look(&mut self) -> View {
            self.0.send(shown_name()).unwrap();
            View::UNKNOWN
        }
    }
    fn shown_name() -> String {
        std::fs::read_to_string("/proc/thread-self/comm").unwrap().trim().to_owned()
    }
    let (tier, (told, names)): (_, (_, Receiver<String>)) = (Double::new(0), channel());
    let machine = Box::new(Named(told.clone()));
    tier.on_expiry(move || told.send(shown_name()).unwrap());
    let watch = Watch { target_bytes: 1, interval: Duration::MAX, machine };
    let janitor = start(&tier, Options { expiry_interval: Duration::MAX, watch: Some(watch) });
    assert!(janitor.poke());
    assert_eq!(names.try_iter().collect::<Vec<_>>(), ["thermocline-exp", "thermocline-pre"]);
}

#[test]
fn public_types_are_send_and_debug_and_sync_where_they_are_shared() {
    fn assert_send<T: Send + fmt::Debug>() {}
    fn assert_sync<T: Send + Sync + fmt::Debug>() {}
    assert_sync::<Janitor>();
    assert_sync::<Observation>();
    assert_sync::<ThreadState>();
    assert_send::<Options>();
    assert_send::<Watch>();
    let tier = Double::new(0);
    let janitor = start(&tier, Options::default());
    assert!(format!("{janitor:?}").contains("thermocline-expiry"));
    assert_eq!(Watch::new(MIB).target_bytes, MIB);
}
