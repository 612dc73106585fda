//! Entries of namespaces as objects: decoded once, dropped once, cleared, bounded, and nobody else's.

mod support;

use std::{
    cell::Cell,
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use support::Random;
use thermocline_engine::{
    Attributes, Decoded, Durability, Engine, Limits, Namespace, Object, Options, Reason, TimeSource,
    medium::{Disk, Volatile},
    unnamed,
};

/// An entry that says nothing but its value.
fn alone(object: Object) -> Decoded {
    Decoded { object, word: 0, stale_after_ms: 0, cost_us: 0, note: None }
}

/// A value that counts how many of its kind there are.
struct Counted {
    bytes: Vec<u8>,
    alive: Arc<AtomicUsize>,
}

impl Counted {
    fn decoded(bytes: &[u8], alive: &Arc<AtomicUsize>) -> Decoded {
        alive.fetch_add(1, Ordering::SeqCst);
        alone(Arc::new(Self { bytes: bytes.to_vec(), alive: alive.clone() }))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Cache<'a> {
    engine: &'a Engine,
    namespace: Arc<Namespace>,
    alive: Arc<AtomicUsize>,
    decoded: AtomicUsize,
}

impl<'a> Cache<'a> {
    fn new(engine: &'a Engine, name: &str, limits: Limits) -> Self {
        let namespace = engine.namespace(name, 7, limits).unwrap();
        Self { engine, namespace, alive: Arc::default(), decoded: AtomicUsize::new(0) }
    }

    fn key(&self, key: &[u8]) -> Vec<u8> {
        [self.namespace.prefix(), key].concat()
    }

    fn insert_with(&self, key: &[u8], value: &[u8], attributes: &Attributes) {
        let decoded = Counted::decoded(value, &self.alive);
        self.engine.insert_object(&self.namespace, &self.key(key), value, decoded, attributes).unwrap();
    }

    fn insert(&self, key: &[u8], value: &[u8]) {
        self.insert_with(key, value, &Attributes::new());
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let decode = |bytes: &[u8]| {
            self.decoded.fetch_add(1, Ordering::SeqCst);
            (bytes != b"garbage").then(|| Counted::decoded(bytes, &self.alive))
        };
        let bytes = |decoded: &Decoded, _| decoded.object.downcast_ref::<Counted>().unwrap().bytes.clone();
        self.engine.read_object(&self.namespace, &self.key(key), &decode, bytes).unwrap()
    }

    fn remove(&self, key: &[u8]) -> bool {
        self.engine.remove_object(&self.namespace, &self.key(key)).unwrap()
    }

    fn entries(&self) -> u64 {
        self.engine.entries(&self.namespace)
    }
}

fn open(dir: &tempfile::TempDir, options: Options) -> Engine {
    Engine::open(Arc::new(Disk::create(dir.path()).unwrap()), options).unwrap()
}

#[test]
fn a_hit_in_memory_decodes_nothing_and_one_in_the_log_decodes_once() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir, Options::default());
    let cache = Cache::new(&engine, "quotes", Limits::default());
    cache.insert(b"a", b"one");
    for _ in 0..3 {
        assert_eq!(cache.get(b"a").as_deref(), Some(&b"one"[..]));
    }
    assert_eq!(cache.decoded.load(Ordering::SeqCst), 0);
    drop(cache);
    engine.close().unwrap();
    let engine = open(&dir, Options::default());
    let cache = Cache::new(&engine, "quotes", Limits::default());
    for _ in 0..3 {
        assert_eq!(cache.get(b"a").as_deref(), Some(&b"one"[..]));
    }
    assert_eq!(cache.decoded.load(Ordering::SeqCst), 1);
    assert_eq!(cache.namespace.hits_and_misses(), (3, 0));
    assert_eq!(cache.get(b"b"), None);
    assert_eq!(cache.namespace.hits_and_misses(), (3, 1));
}

#[test]
fn what_cannot_be_decoded_is_a_miss_that_says_so() {
    let engine =
        Engine::open(Arc::new(Volatile::default()), Options { memory_capacity: 0, ..Options::default() }).unwrap();
    let cache = Cache::new(&engine, "quotes", Limits::default());
    cache.insert(b"a", b"garbage");
    assert_eq!(cache.get(b"a"), None);
    assert_eq!(
        (cache.namespace.hits_and_misses().1, cache.namespace.unreadable(), engine.stats().misses.unreadable),
        (1, 1, 1)
    );
}

#[test]
fn every_object_is_dropped_once_whatever_becomes_of_its_record() {
    for in_memory in [false, true] {
        let options = Options { memory_capacity: 1 << 20, in_memory, ..Options::default() };
        let engine = Engine::open(Arc::new(Volatile::default()), options).unwrap();
        let cache = Cache::new(&engine, "quotes", Limits::default());
        let mut random = Random(1);
        let mut draw = |below: u64| random.below(below) as usize;
        for step in 0..20_000_u32 {
            let key = draw(3_000).to_le_bytes();
            match draw(10) {
                0 => drop(cache.remove(&key)),
                1 => {
                    let volatile = Attributes::new().durability(Durability::Volatile);
                    cache.insert_with(&key, &vec![1; draw(2_000)], &volatile);
                }
                2..6 => cache.insert(&key, &vec![2; draw(500)]),
                _ => drop(cache.get(&key)),
            }
            match step % 5_000 {
                1_000 => _ = engine.evict_all().unwrap(),
                2_000 => engine.set_memory_capacity(256 << 10),
                3_000 => engine.set_memory_capacity(1 << 20),
                4_000 if !in_memory => drop(engine.compact().unwrap()),
                _ => {}
            }
        }
        let alive = cache.alive.clone();
        assert!(alive.load(Ordering::SeqCst) > 0);
        drop(cache);
        engine.close().unwrap();
        assert_eq!(alive.load(Ordering::SeqCst), 0, "in memory: {in_memory}");
    }
}

#[test]
fn objects_count_towards_the_memory_tier() {
    let engine =
        Engine::open(Arc::new(Volatile::default()), Options { memory_capacity: 8 << 20, ..Options::default() })
            .unwrap();
    let cache = Cache::new(&engine, "quotes", Limits::default());
    for key in 0..1_000_u32 {
        cache.insert(&key.to_le_bytes(), &[7; 32 << 10]);
    }
    let most = (8 << 20) / (32 << 10);
    engine.keep_now();
    assert!(engine.stats().memory.bytes <= (8 << 20) * 101 / 100);
    assert!(engine.stats().memory.entries <= most, "{:?}", engine.stats().memory);
    assert!(engine.stats().memory.entries >= most / 2, "{:?}", engine.stats().memory);
    // The rest is in the log.
    assert!((0..1_000_u32).all(|key| cache.get(&key.to_le_bytes()).is_some()));
}

#[test]
fn namespaces_and_the_unnamed_one_do_not_see_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir, Options::default());
    let (a, b) = (Cache::new(&engine, "foo", Limits::default()), Cache::new(&engine, "foo_bar", Limits::default()));
    let keys: [&[u8]; 4] = [b"", b"k", &[0xff, 0xfe], &[0xff, 0xfe, 16]];
    for key in keys {
        a.insert(key, b"a");
        b.insert(key, b"b");
        engine.insert(&unnamed(key), b"u", &Attributes::new()).unwrap();
    }
    for key in keys {
        assert_eq!(a.get(key).as_deref(), Some(&b"a"[..]));
        assert_eq!(b.get(key).as_deref(), Some(&b"b"[..]));
        assert_eq!(engine.get(&unnamed(key)).unwrap().as_deref(), Some(&b"u"[..]));
    }
    let met: HashSet<_> = engine.keys().map(Result::unwrap).collect();
    assert_eq!(met, keys.iter().map(|key| key.to_vec()).collect());
    assert_eq!((engine.len(), a.entries(), b.entries()), (4, 4, 4));
    assert_eq!(engine.resident_keys().count(), 4);
    engine.clear_namespace(&a.namespace).unwrap();
    assert!(keys.iter().all(|key| a.get(key).is_none()));
    assert!(keys.iter().all(|key| b.get(key).is_some()));
    a.insert(b"k", b"anew");
    drop((a, b));
    engine.close().unwrap();
    let engine = open(&dir, Options::default());
    let (a, b) = (Cache::new(&engine, "foo", Limits::default()), Cache::new(&engine, "foo_bar", Limits::default()));
    assert_eq!((engine.len(), a.entries(), b.entries()), (4, 1, 4));
    assert_eq!(a.get(b"k").as_deref(), Some(&b"anew"[..]));
    assert_eq!(a.get(b""), None);
}

#[test]
fn what_was_cleared_gives_its_space_back_and_a_kill_between_does_not_bring_it_back() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 1 << 20, ..Options::default() };
    let engine = open(&dir, options.clone());
    let cache = Cache::new(&engine, "quotes", Limits::default());
    for key in 0..2_000_u32 {
        cache.insert(&key.to_le_bytes(), b"old");
    }
    engine.clear_namespace(&cache.namespace).unwrap();
    assert_eq!(cache.entries(), 0);
    // As a killed process leaves it, perhaps in the middle of the removals.
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let engine = open(&copy, options);
    let cache = Cache::new(&engine, "quotes", Limits::default());
    assert!((0..2_000_u32).all(|key| cache.get(&key.to_le_bytes()).is_none()));
    // Its records go behind everybody's back; the catalog's two stay.
    let is_swept = || engine.len_estimate() <= 2;
    assert!((0..20_000).any(|_| is_swept() || {
        std::thread::sleep(Duration::from_millis(1));
        false
    }));
}

#[test]
fn limits_hold_over_both_tiers_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits::new(Some(100), None);
    let engine = open(&dir, Options { memory_capacity: 4 << 10, ..Options::default() });
    let (cache, other) = (Cache::new(&engine, "bounded", limits), Cache::new(&engine, "other", Limits::default()));
    for key in 0..1_000_u32 {
        cache.insert(&key.to_le_bytes(), b"value");
        other.insert(&key.to_le_bytes(), b"value");
        assert!(cache.entries() <= 100 || key % 50 != 0);
        // One that is asked for again and again stays.
        assert!(cache.get(&0_u32.to_le_bytes()).is_some(), "{key}");
    }
    assert_eq!((cache.entries(), other.entries()), (100, 1_000));
    assert_eq!(engine.stats().evictions.bound, 900);
    let last = engine.eviction_log().into_iter().find(|eviction| eviction.reason == Reason::Bound).unwrap();
    assert_eq!(last.namespace.as_deref(), Some("bounded"));
    // Room that a removal makes is used before anybody has to go.
    assert!(cache.remove(&999_u32.to_le_bytes()));
    cache.insert(b"one more", b"value");
    assert_eq!((cache.entries(), engine.stats().evictions.bound), (100, 900));
    drop((cache, other));
    engine.close().unwrap();
    let engine = open(&dir, Options::default());
    let cache = Cache::new(&engine, "bounded", limits);
    for key in 5_000..5_010_u32 {
        cache.insert(&key.to_le_bytes(), b"value");
    }
    assert_eq!((cache.entries(), engine.stats().evictions.bound), (100, 10));
    assert!(engine.namespace("bounded", 8, limits).is_err(), "open with another fingerprint");
    drop(cache);
    let bytes = Cache::new(&engine, "bytes", Limits::new(None, Some(10_000)));
    for key in 0..100_u32 {
        bytes.insert(&key.to_le_bytes(), &[0; 993]);
    }
    assert_eq!(bytes.entries(), 10);
}

#[test]
fn what_has_expired_is_a_miss_in_either_tier() {
    let now = Arc::new(AtomicU64::new(1_800_000_000_000));
    let time = TimeSource::Manual(now.clone());
    let engine = Engine::open(Arc::new(Volatile::default()), Options { time, ..Options::default() }).unwrap();
    let cache = Cache::new(&engine, "quotes", Limits::default());
    let brief = Attributes::new().ttl(Duration::from_secs(10));
    cache.insert_with(b"a", b"memory", &brief);
    cache.insert_with(b"b", b"log", &brief);
    engine.evict(&cache.key(b"b")).unwrap();
    assert!(cache.get(b"a").is_some() && cache.get(b"b").is_some());
    now.fetch_add(11_000, Ordering::SeqCst);
    assert_eq!((cache.get(b"a"), cache.get(b"b"), cache.entries()), (None, None, 0));
}

#[test]
fn what_has_expired_goes_before_what_lives_and_the_newest_stays() {
    let now = Arc::new(AtomicU64::new(1_800_000_000_000));
    let time = TimeSource::Manual(now.clone());
    let engine = Engine::open(Arc::new(Volatile::default()), Options { time, ..Options::default() }).unwrap();
    let cache = Cache::new(&engine, "bounded", Limits::new(Some(3), None));
    let brief = Attributes::new().ttl(Duration::from_secs(10));
    (0..3_u8).for_each(|key| cache.insert_with(&[key], b"value", &brief));
    now.fetch_add(11_000, Ordering::SeqCst);
    (10..13_u8).for_each(|key| cache.insert(&[key], b"value"));
    assert!((10..13_u8).all(|key| cache.get(&[key]).is_some()));
    assert_eq!((cache.entries(), engine.stats().evictions.bound), (3, 0));
}

#[test]
fn limits_hold_beside_writers_removers_and_clearers() {
    let engine = Engine::open(Arc::new(Volatile::default()), Options::default()).unwrap();
    let cache = Cache::new(&engine, "bounded", Limits::new(Some(50), Some(5_000)));
    for round in 0..8 {
        std::thread::scope(|scope| {
            for thread in 0..3_u64 {
                let cache = &cache;
                scope.spawn(move || {
                    let mut random = Random(round * 3 + thread + 1);
                    for _ in 0..300 {
                        let key = (random.below(200) as u32).to_le_bytes();
                        match random.below(40) {
                            0 => cache.engine.clear_namespace(&cache.namespace).unwrap(),
                            1..8 => _ = cache.remove(&key),
                            8..16 => _ = cache.get(&key),
                            _ => cache.insert(&key, &vec![1; random.below(200) as usize]),
                        }
                    }
                });
            }
        });
        // At rest, with whatever the last write leaves to the next one.
        cache.insert(b"last", b"");
        let keys: Vec<_> = (0..200_u32).map(u32::to_le_bytes).collect();
        let there: Vec<_> = keys.iter().filter_map(|key| cache.get(key)).collect();
        let bytes: usize = there.iter().map(|value| value.len() + 4 + cache.namespace.prefix().len()).sum();
        assert!(cache.entries() <= 50 && bytes <= 5_000, "{} entries, {bytes} bytes", cache.entries());
    }
}

#[test]
fn a_later_clear_is_not_undone_by_an_earlier_one() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 64 << 10, ..Options::default() };
    let engine = open(&dir, Options { durability: Durability::Volatile, ..options.clone() });
    let cache = Cache::new(&engine, "quotes", Limits::default());
    for round in 0..20_u32 {
        cache.insert_with(&round.to_le_bytes(), b"old", &Attributes::new().durability(Durability::Buffered));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| engine.clear_namespace(&cache.namespace).unwrap());
            }
        });
        // As a killed process leaves it: what was cleared stays so, though the store's writes survive nothing.
        let copy = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap) {
            std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
        let killed = open(&copy, options.clone());
        let cache = Cache::new(&killed, "quotes", Limits::default());
        assert_eq!(cache.get(&round.to_le_bytes()), None);
    }
}

#[test]
fn a_value_whose_drop_calls_the_store_does_not_hang_it() {
    struct Caller(std::sync::Weak<Engine>);
    impl Drop for Caller {
        fn drop(&mut self) {
            let Some(engine) = self.0.upgrade() else { return };
            engine.insert(b"dropped", b"value", &Attributes::new()).unwrap();
            if engine.stats().removals == 0 {
                // Waits for all guards, so it must not be called under one; once is enough.
                engine.compact().unwrap();
                engine.remove(b"dropped").unwrap();
                engine.insert(b"dropped", b"value", &Attributes::new()).unwrap();
            }
        }
    }
    let options = Options { memory_capacity: 1 << 20, ..Options::default() };
    let engine = Arc::new(Engine::open(Arc::new(Volatile::default()), options).unwrap());
    let namespace = engine.namespace("quotes", 7, Limits::default()).unwrap();
    for key in 0..300_u32 {
        let key = [namespace.prefix(), &(key % 50).to_le_bytes()[..]].concat();
        let object: Object = Arc::new(Caller(Arc::downgrade(&engine)));
        let brief = Attributes::new().ttl(Duration::from_millis(1));
        engine.insert_object(&namespace, &key, &[1; 10_000], alone(object), &brief).unwrap();
    }
    let was_dropped = || {
        engine.keep_now();
        engine.contains_key(b"dropped").unwrap()
    };
    // Guards of the tests beside this one may take their time.
    let is_dropped = || {
        was_dropped() || {
            std::thread::sleep(Duration::from_millis(1));
            false
        }
    };
    assert!((0..30_000).any(|_| is_dropped()));
}

/// Dropping an object runs code that may ask for the key that is being written: no write does that in its midst.
#[test]
fn a_write_drops_no_object() {
    thread_local!(static IS_WRITING: Cell<bool> = const { Cell::new(false) });
    struct Watches(Arc<AtomicUsize>);
    impl Drop for Watches {
        fn drop(&mut self) {
            self.0.fetch_add(usize::from(IS_WRITING.get()), Ordering::SeqCst);
        }
    }
    let engine = Engine::open(Arc::new(Volatile::default()), Options::default()).unwrap();
    let (namespace, amiss) = (engine.namespace("watched", 7, Limits::default()).unwrap(), Arc::default());
    let key = [namespace.prefix(), &b"key"[..]].concat();
    for round in 0..300_u32 {
        let decoded = alone(Arc::new(Watches(Arc::clone(&amiss))));
        IS_WRITING.set(true);
        engine.insert_object(&namespace, &key, &round.to_le_bytes(), decoded, &Attributes::new()).unwrap();
        if round % 3 == 0 {
            engine.remove_object(&namespace, &key).unwrap();
        }
        IS_WRITING.set(false);
    }
    assert_eq!(amiss.load(Ordering::SeqCst), 0);
    engine.drop_released();
}
