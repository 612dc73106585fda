//! Caches keep what they are given, for exactly that key, over memory, log and reopening.

use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thermocline::{Cache, Codec, CodecError, Error, Json, LoadError, MessagePack, Postcard, Store};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Quote {
    name: String,
    price: f64,
    tags: Vec<Option<u32>>,
    by_year: BTreeMap<u16, (i8, char)>,
}

fn quote(price: f64) -> Quote {
    Quote {
        name: "Nighthawks".to_owned(),
        price,
        tags: vec![Some(7), None],
        by_year: BTreeMap::from([(1942, (-1, 'x'))]),
    }
}

fn open() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store")).unwrap();
    (dir, store)
}

#[test]
fn handles_and_builders_can_be_sent() {
    fn is_shared<T: Send + Sync + std::fmt::Debug>() {}
    is_shared::<Cache<String, Quote>>();
    is_shared::<LoadError<std::io::Error>>();
}

/// Ideas 37 and 51: what was kept comes back as it was, from memory, the log, and after reopening; so does `None`.
#[test]
fn a_value_comes_back_from_every_tier() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..2 {
        let store = Store::open(dir.path()).unwrap();
        let (quotes, nothing) =
            (store.cache::<String, Quote>("quotes").unwrap(), store.cache::<u8, Option<u8>>("none").unwrap());
        if round == 0 {
            quotes.insert("Alice", &quote(-0.0)).unwrap();
            nothing.get_or_insert_with(&1, || None).unwrap();
        }
        for _ in 0..2 {
            let found = quotes.get("Alice").unwrap().unwrap();
            assert_eq!((&*found, found.price.to_bits()), (&quote(-0.0), (-0.0f64).to_bits()));
            assert_eq!(quotes.read("Alice", |quote| quote.name.len()).unwrap(), Some(10));
            assert_eq!(nothing.get(&1).unwrap().as_deref(), Some(&None), "a cached `None` is a hit");
            assert_eq!(nothing.get(&2).unwrap(), None);
            store.evict_all().unwrap();
        }
        drop((quotes, nothing));
        store.close().unwrap();
    }
}

/// Idea 50: no caller can change what the cache has.
#[test]
fn a_value_in_the_cache_is_out_of_its_callers_reach() {
    let (_dir, store) = open();
    let cache = store.cache::<u8, Vec<u8>>("lists").unwrap();
    let mut given = vec![1];
    cache.insert(&1, &given).unwrap();
    given.push(2);
    let mut found = cache.get(&1).unwrap().unwrap();
    Arc::make_mut(&mut found).push(3);
    assert!(Arc::get_mut(&mut cache.get(&1).unwrap().unwrap()).is_none());
    assert_eq!(cache.get(&1).unwrap().as_deref(), Some(&vec![1]));
    let mut computed = cache.get_or_insert_with(&2, || vec![4]).unwrap();
    Arc::make_mut(&mut computed).push(5);
    assert_eq!(cache.get(&2).unwrap().as_deref(), Some(&vec![4]));
}

#[test]
fn a_hit_in_memory_is_the_very_same_value() {
    let (_dir, store) = open();
    let cache = store.cache::<u8, Quote>("quotes").unwrap();
    let computed = cache.get_or_insert_with(&1, || quote(1.0)).unwrap();
    assert!(Arc::ptr_eq(&computed, &cache.get(&1).unwrap().unwrap()));
    assert_eq!(cache.read(&1, |quote| std::ptr::eq(quote, &*computed)).unwrap(), Some(true));
}

/// Ideas 3 and 4: floats by their bits, maps whatever their order, scalars by their type, and no borders lost.
#[test]
fn equal_keys_are_one_and_others_are_not() {
    let (_dir, store) = open();
    let bodies = Cell::new(0);
    let count = || bodies.replace(bodies.get() + 1);
    let floats = store.cache::<f64, i32>("floats").unwrap();
    for _ in 0..2 {
        for float in [-1.0, -2.0, 0.0, -0.0, f64::NAN, 0.5, 2f64.powi(60), f64::INFINITY, 314_159.0] {
            floats.get_or_insert_with(&float, count).unwrap();
        }
    }
    assert_eq!(bodies.take(), 9);
    let maps = store.cache::<HashMap<String, u32>, i32>("maps").unwrap();
    for _ in 0..20 {
        let map: HashMap<_, _> = (0..50u32).map(|number| (number.to_string(), number)).collect();
        maps.get_or_insert_with(&map, count).unwrap();
    }
    assert_eq!(bodies.take(), 1);
    let pairs = store.cache::<(&str, &str), i32>("pairs").unwrap();
    for pair in [("ab", "c"), ("a", "bc"), ("", "abc"), ("ab", "c")] {
        pairs.get_or_insert_with(&pair, count).unwrap();
    }
    assert_eq!(bodies.take(), 3);
}

/// Idea 52: what cannot be kept is in no tier, and reaches its caller.
#[test]
fn what_cannot_be_kept_is_in_no_tier() {
    #[derive(Debug)]
    struct Refuses;
    impl Serialize for Refuses {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("never"))
        }
    }
    impl<'de> Deserialize<'de> for Refuses {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Ok(Self)
        }
    }
    let (_dir, store) = open();
    let cache = store.cache::<u8, Refuses>("refuses").unwrap();
    assert!(matches!(cache.insert(&1, &Refuses), Err(Error::Encode { what: "value", .. })));
    cache.get_or_insert_with(&1, || Refuses).unwrap();
    assert!(cache.get(&1).unwrap().is_none() && !cache.contains_key(&1).unwrap());
    assert_eq!(cache.info().unkept, 1);
    let why = cache.why_unkept().unwrap();
    assert!(why.contains("Refuses"), "{why}");
    let keys = store.cache::<Refuses, u8>("keys").unwrap();
    let refused = keys.get(&Refuses).unwrap_err().to_string();
    assert!(refused.contains("Refuses"), "{refused}");
}

/// A record remembers its codec: another one that writes from now on makes nothing unreadable.
#[test]
fn old_entries_stay_readable_when_the_codec_changes() {
    struct Doubled;
    impl Codec<u64> for Doubled {
        fn id(&self) -> u8 {
            200
        }
        fn encode(&self, value: &u64, into: &mut Vec<u8>) -> Result<(), CodecError> {
            into.extend_from_slice(&(value * 2).to_le_bytes());
            Ok(())
        }
        fn decode(&self, bytes: &[u8]) -> Result<u64, CodecError> {
            Ok(u64::from_le_bytes(bytes.try_into()?) / 2)
        }
    }
    let (_dir, store) = open();
    let builder = || store.cache_builder::<u8, u64>("numbers");
    builder().codec(Doubled).open().unwrap().insert(&0, &10).unwrap();
    builder().codec(Json).open().unwrap().insert(&1, &11).unwrap();
    builder().codec(MessagePack).open().unwrap().insert(&2, &12).unwrap();
    builder().codec(Postcard).open().unwrap().insert(&3, &13).unwrap();
    store.evict_all().unwrap();
    let cache = builder().reads(Doubled).open().unwrap();
    let found: Vec<_> = (0..4).map(|key| cache.peek(&key).unwrap().map(|value| *value)).collect();
    assert_eq!(found, [Some(10), Some(11), Some(12), Some(13)]);
    let without = builder().open().unwrap();
    assert_eq!(without.get(&0).unwrap(), None, "an unknown codec is a miss");
    assert_eq!((without.get(&1).unwrap().as_deref(), without.info().unreadable), (Some(&11), 1));
}

/// A number names one codec for ever: ours are ours, and another's is its own.
#[test]
fn a_codec_whose_number_is_taken_is_refused() {
    struct Numbered<const N: u8, const OTHER: bool>;
    impl<const N: u8, const OTHER: bool> Codec<u64> for Numbered<N, OTHER> {
        fn id(&self) -> u8 {
            N
        }
        fn encode(&self, _: &u64, _: &mut Vec<u8>) -> Result<(), CodecError> {
            Ok(())
        }
        fn decode(&self, _: &[u8]) -> Result<u64, CodecError> {
            Ok(0)
        }
    }
    let (_dir, store) = open();
    let builder = || store.cache_builder::<u8, u64>("numbers");
    let refused = |builder: thermocline::CacheBuilder<u8, u64>, number: &str| {
        let error = builder.open().unwrap_err().to_string();
        assert!(error.contains("codec") && error.contains(number), "{error}");
    };
    refused(builder().codec(Numbered::<1, false>), "1,");
    refused(builder().reads(Numbered::<127, false>), "127,");
    refused(builder().codec(Numbered::<128, false>).reads(Numbered::<128, true>), "128,");
    builder().codec(Numbered::<128, false>).reads(Numbered::<128, false>).reads(Json).open().unwrap();
}

/// Dropping a value may ask for the very key whose computation is being kept.
#[test]
fn a_value_may_ask_for_its_key_when_it_is_dropped() {
    use std::sync::OnceLock;
    type Numbers = thermocline::Cache<u8, u64>;
    static NUMBERS: OnceLock<Numbers> = OnceLock::new();
    #[derive(Serialize, Deserialize)]
    struct Asks;
    impl Drop for Asks {
        fn drop(&mut self) {
            NUMBERS.get().unwrap().insert(&1, &7).unwrap();
        }
    }
    let store = Store::builder().in_memory().unwrap();
    NUMBERS.set(store.cache("numbers").unwrap()).unwrap();
    let cache = store.cache::<u8, Asks>("asks").unwrap();
    for round in 0..50 {
        cache.insert(&0, &Asks).unwrap();
        cache.remove(&0).unwrap();
        let numbers = NUMBERS.get().unwrap();
        assert!([round, 7].contains(&*numbers.get_or_insert_with(&1, || round).unwrap()));
        numbers.remove(&1).unwrap();
    }
}

/// Idea 33: an entry that is too large for its cache is returned, not kept, and the reason is told; nor is what it replaces.
#[test]
fn an_entry_may_be_too_large_for_its_cache() {
    let (_dir, store) = open();
    let cache = store.cache_builder::<u8, Vec<u8>>("small").max_entry_bytes(100).open().unwrap();
    cache.get_or_insert_with(&1, || vec![1; 90]).unwrap();
    assert!(cache.contains_key(&1).unwrap());
    assert_eq!(cache.get_or_insert_with(&2, || vec![2; 110]).unwrap().len(), 110);
    assert!(!cache.contains_key(&2).unwrap());
    assert_eq!(cache.info().unkept, 1);
    let why = cache.why_unkept().unwrap();
    // How long it is depends on how long it took.
    assert!(why.starts_with("entry of 11") && why.ends_with(" bytes is too long, the limit is 100"), "{why}");
    let again = store.cache_builder::<u8, Vec<u8>>("small").open().unwrap();
    assert_eq!((again.why_unkept(), again.info().unkept), (Some(why), 1), "whoever has it open");
    assert!(matches!(cache.insert(&1, &vec![3; 110]), Err(Error::TooLarge { what: "entry", bytes_max: 100, .. })));
    assert_eq!(cache.get(&1).unwrap().unwrap().len(), 90, "the old value stays");
    let replaced = cache.entry(&1).max_age(std::time::Duration::ZERO).or_insert_with(|| vec![4; 110]).unwrap();
    assert_eq!((replaced.len(), cache.get(&1).unwrap()), (110, None), "it would be an old answer");
}

/// A type of one name that is edited between two runs of a program: its fields change places.
#[test]
fn what_a_type_wrote_before_it_was_edited_is_a_miss_and_never_garbage() {
    static IS_EDITED: AtomicBool = AtomicBool::new(false);

    #[derive(Clone, Debug, PartialEq)]
    struct Spread {
        bid: u64,
        ask: u64,
    }
    #[derive(Serialize, Deserialize)]
    #[serde(rename = "Spread")]
    struct Before {
        bid: u64,
        ask: u64,
    }
    #[derive(Serialize, Deserialize)]
    #[serde(rename = "Spread")]
    struct After {
        ask: u64,
        bid: u64,
    }
    impl Serialize for Spread {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let Self { bid, ask } = *self;
            match IS_EDITED.load(Relaxed) {
                false => Before { bid, ask }.serialize(serializer),
                true => After { ask, bid }.serialize(serializer),
            }
        }
    }
    impl<'de> Deserialize<'de> for Spread {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            match IS_EDITED.load(Relaxed) {
                false => Before::deserialize(deserializer).map(|Before { bid, ask }| Self { bid, ask }),
                true => After::deserialize(deserializer).map(|After { ask, bid }| Self { bid, ask }),
            }
        }
    }

    let (dir, spread) = (tempfile::tempdir().unwrap(), Spread { bid: 1, ask: 2 });
    let open = |store: &Store| {
        let plain: Cache<u8, Spread> = store.cache("plain").unwrap();
        let named: Cache<u8, Spread> = store.cache_builder("named").codec(MessagePack).open().unwrap();
        (plain, named)
    };
    for _ in 0..2 {
        let (plain, named) = open(&Store::open(dir.path()).unwrap());
        plain.insert(&1, &spread).unwrap();
        named.insert(&1, &spread).unwrap();
    }
    IS_EDITED.store(true, Relaxed);
    let (plain, named) = open(&Store::open(dir.path()).unwrap());
    assert_eq!((plain.get(&1).unwrap(), plain.info().unreadable), (None, 1));
    assert_eq!(named.get(&1).unwrap().as_deref(), Some(&spread), "fields go by their names");
    plain.insert(&1, &spread).unwrap();
    drop((plain, named));
    let (plain, _) = open(&Store::open(dir.path()).unwrap());
    assert_eq!(plain.get(&1).unwrap().as_deref(), Some(&spread));
}

/// Entries of another version, or of another type, are never met.
#[test]
fn another_version_or_type_is_another_cache() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let cache = store.cache::<u8, u32>("numbers").unwrap();
    cache.insert(&1, &0x0101_0101).unwrap();
    assert!(matches!(store.cache::<u8, [u8; 4]>("numbers"), Err(Error::NamespaceInUse { .. })));
    assert!(matches!(store.cache_builder::<u8, u32>("numbers").version(1).open(), Err(Error::NamespaceInUse { .. })));
    drop(cache);
    assert_eq!(store.cache::<u8, [u8; 4]>("numbers").unwrap().get(&1).unwrap(), None);
    assert_eq!(store.cache_builder::<u8, u32>("numbers").version(1).open().unwrap().get(&1).unwrap(), None);
    assert_eq!(store.cache::<u8, u32>("numbers").unwrap().get(&1).unwrap().as_deref(), Some(&0x0101_0101));
}

/// Idea 32: a bound is the namespace's own.
#[test]
fn a_bound_holds_for_its_own_cache_over_both_tiers() {
    let (_dir, store) = open();
    let (small, other) = (
        store.cache_builder::<u32, u32>("small").max_entries(2).open().unwrap(),
        store.cache::<u32, u32>("other").unwrap(),
    );
    for key in 0..50 {
        small.get_or_insert_with(&key, || key).unwrap();
        other.get_or_insert_with(&key, || key).unwrap();
        assert!(small.info().entries <= 2);
    }
    assert_eq!((other.info().entries, small.info().max_entries), (50, Some(2)));
    small.clear().unwrap();
    assert_eq!((small.info().entries, other.info().entries), (0, 50), "nor does clearing one touch another");
    assert_eq!(small.get(&49).unwrap(), None);
}

/// Idea 38: errors are not kept.
#[test]
fn an_error_is_not_kept() {
    let (_dir, store) = open();
    let cache = store.cache::<u8, u8>("numbers").unwrap();
    for _ in 0..2 {
        match cache.get_or_try_insert_with(&1, || "x".parse::<u8>()) {
            Err(LoadError::Load(error)) => assert_eq!(error.to_string(), "invalid digit found in string"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(*cache.entry(&1).or_try_insert_with(|| "7".parse::<u8>()).unwrap(), 7);
    assert!(cache.remove(&1).unwrap() && !cache.remove(&1).unwrap());
}

/// Idea 31: no time is zero.
#[test]
fn a_time_of_zero_is_an_error() {
    let (_dir, store) = open();
    let zero = std::time::Duration::ZERO;
    let cache = store.cache::<u8, u8>("numbers").unwrap();
    let is_option = |error: Result<(), Error>| assert!(matches!(error, Err(Error::Option { .. })), "{error:?}");
    is_option(cache.entry(&1).ttl(zero).insert(&1));
    is_option(cache.entry(&1).stale_after(zero).insert(&1));
    is_option(cache.entry(&1).ttl(zero).or_insert_with(|| 1).map(drop));
    is_option(store.cache_builder::<u8, u8>("other").time_to_live(zero).open().map(drop));
    is_option(store.cache_builder::<u8, u8>("other").stale_after(zero).open().map(drop));
    is_option(store.cache_builder::<u8, u8>("other").jitter(1.5).open().map(drop));
    is_option(store.cache_builder::<u8, u8>("other").max_entries(0).open().map(drop));
    assert_eq!(cache.get(&1).unwrap(), None);
}
