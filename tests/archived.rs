//! Archives: entries that are read where they stand, by the feature `rkyv`.

use rkyv::{Archive, rancor};
use serde::{Deserialize, Serialize};
use thermocline::{Cache, Compression, Durability, Json, Rkyv, Store};

#[derive(Archive, rkyv::Serialize, rkyv::Deserialize, Clone, Debug, Deserialize, PartialEq, Serialize)]
#[rkyv(derive(Debug))]
struct Quote {
    price: f64,
    name: String,
    history: Vec<u64>,
}

impl Quote {
    fn new(number: u64) -> Self {
        Self { price: number as f64, name: format!("quote {number}"), history: (0..number % 50).collect() }
    }
}

fn quotes(store: &Store) -> Cache<u64, Quote> {
    store.cache_builder("quotes").codec(Rkyv).open().unwrap()
}

/// Values are the same by every way: from memory, from the log, archived, at whatever address they stand.
#[test]
fn archives_are_read_where_they_stand() {
    for (memory_capacity, mapped) in [(0, true), (1 << 20, true), (0, false)] {
        let dir = tempfile::tempdir().unwrap();
        let open = || Store::builder().memory_capacity(memory_capacity).mapped(mapped).open(dir.path()).unwrap();
        let store = open();
        let cache = quotes(&store);
        (0..200).for_each(|number| cache.insert(&number, &Quote::new(number)).unwrap());
        for _ in 0..2 {
            for number in 0..200 {
                let quote = Quote::new(number);
                let look = |archived: &<Quote as Archive>::Archived| {
                    (archived.price.to_native(), archived.name.to_string(), archived.history.len())
                };
                let shown = cache.read_archived(&number, look).unwrap();
                assert_eq!(shown, Some((quote.price, quote.name.clone(), quote.history.len())));
                assert_eq!(cache.get(&number).unwrap().as_deref(), Some(&quote));
            }
            store.evict_all().unwrap();
        }
        assert_eq!(cache.read_archived(&200, |_| ()).unwrap(), None);
        cache.remove(&7).unwrap();
        assert_eq!(cache.read_archived(&7, |_| ()).unwrap(), None);
        let info = cache.info();
        assert_eq!((info.hits, info.misses, info.unreadable), (800, 2, 0));
        drop(cache);
        store.close().unwrap();
        let store = open();
        let cache = quotes(&store);
        let names = (0..200).filter_map(|number| cache.read_archived(&number, |quote| quote.name.len()).unwrap());
        assert_eq!(names.count(), 199);
        cache.clear().unwrap();
        assert_eq!(cache.read_archived(&1, |_| ()).unwrap(), None);
    }
}

/// Parts of an archive may ask more of their address than the whole does.
#[test]
fn archives_may_begin_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::builder().memory_capacity(0).open(dir.path()).unwrap();
    let floats: Cache<String, Vec<f64>> = store.cache_builder("floats").codec(Rkyv).open().unwrap();
    let wide: Cache<String, Vec<u128>> = store.cache_builder("wide").codec(Rkyv).open().unwrap();
    for length in 0..32 {
        let key = "k".repeat(length);
        for tags in [&[][..], &["a"], &["projects", "b"]] {
            floats.entry(&key).tags(tags.iter().copied()).insert(&vec![length as f64]).unwrap();
            wide.entry(&key).tags(tags.iter().copied()).insert(&vec![length as u128]).unwrap();
            assert_eq!(floats.get(&key).unwrap().as_deref(), Some(&vec![length as f64]), "{length} {tags:?}");
            assert_eq!(wide.get(&key).unwrap().as_deref(), Some(&vec![length as u128]), "{length} {tags:?}");
            assert_eq!(floats.read_archived(&key, |all| all[0].to_native()).unwrap(), Some(length as f64));
            let shown = pollster::block_on(wide.read_archived_async(&key, |all| all[0].to_native()));
            assert_eq!(shown.unwrap(), Some(length as u128));
        }
    }
}

/// What was compressed is decompressed, what memory alone has is read there, and what another codec wrote is a miss that is counted.
#[test]
fn what_is_no_archive_is_a_miss() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::builder().compression(Compression::zstd(3)).open(dir.path()).unwrap();
    let cache = quotes(&store);
    let json: Cache<u64, Quote> = store.cache_builder("quotes").codec(Json).open().unwrap();
    let long = Quote { name: "long ".repeat(1_000), ..Quote::new(49) };
    cache.insert(&1, &long).unwrap();
    cache.insert(&2, &Quote::new(2)).unwrap();
    store.compact().unwrap();
    assert!(store.stats().log.compression_ratio < 0.5, "{:?}", store.stats().log);
    store.evict_all().unwrap();
    assert_eq!(cache.read_archived(&1, |quote| quote.name.len()).unwrap(), Some(5_000));
    cache.entry(&3).durability(Durability::Volatile).insert(&Quote::new(3)).unwrap();
    assert_eq!(cache.read_archived(&3, |quote| quote.name.len()).unwrap(), Some("quote 3".len()));
    json.insert(&4, &Quote::new(4)).unwrap();
    assert_eq!(cache.read_archived(&4, |_| ()).unwrap(), None);
    assert_eq!((cache.info().unreadable, cache.get(&4).unwrap().as_deref()), (1, Some(&Quote::new(4))));
}

/// Any bytes are an archive or an error; what is an archive is one whatever its address.
#[test]
fn any_bytes_are_an_archive_or_an_error() {
    use thermocline::Codec;
    let mut bytes = Vec::new();
    Rkyv.encode(&Quote::new(30), &mut bytes).unwrap();
    let decode = |bytes: &[u8]| -> Result<Quote, _> { Rkyv.decode(bytes) };
    assert_eq!(decode(&bytes).unwrap(), Quote::new(30));
    assert_eq!(decode(&[&[0], &bytes[..]].concat()[1..]).unwrap(), Quote::new(30), "at any address");
    let cut = (0..bytes.len()).map(|length| bytes[..length].to_vec());
    let flipped = (0..bytes.len() * 8).map(|bit| {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    });
    let mut refused = 0;
    for bytes in cut.chain(flipped) {
        match decode(&bytes) {
            Ok(quote) => assert_eq!(decode(&[&[0], &bytes[..]].concat()[1..]).unwrap(), quote),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > bytes.len() / 2, "{refused}");
    let other = rkyv::to_bytes::<rancor::Error>(&7u8).unwrap();
    assert!(decode(&other).is_err());
}
