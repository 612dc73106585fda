//! The index alone: against a map, at every size, and in every interleaving of two threads.

#[cfg(loom)]
mod interleaved;

use std::cell::Cell;

use thermocline_tiers::{Error, Guard, Kind, Location, Result, Word};

use super::{Cursor, Index, Layout, Look, Published, Records, SHARD_BITS, Save, Source, Verdict};

/// A model in which the location of a key is `key << 16 | version`, so that "reading the record" is a shift.
struct Model;

fn at(key: u64, version: u64) -> Location {
    Location::of_model(key << 16 | version, Kind::Log)
}

fn key_at(at: Location) -> u64 {
    at.model_number() >> 16
}

fn hash_of(key: u64) -> u64 {
    let z = (key + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Records for Model {
    fn hash_at(&self, at: Location) -> Result<Option<u64>> {
        Ok(Some(hash_of(key_at(at))))
    }

    fn is_forgettable(&self, _at: Location) -> bool {
        true
    }
}

/// Publishes unless a higher version is there.
fn publish(index: &Index, key: u64, at: Location) -> Result<Published> {
    publish_in(index, &Model, key, at)
}

fn publish_in(index: &Index, records: &impl Records, key: u64, at: Location) -> Result<Published> {
    index.publish(hash_of(key), at, &Guard::pin(), records, &Cell::new(0), |there, _| {
        Ok(match key_at(there) == key {
            false => Verdict::Other,
            true if there.model_number() > at.model_number() => Verdict::Keep,
            true => Verdict::Replace,
        })
    })
}

fn find(index: &Index, key: u64) -> Option<Location> {
    index
        .find(hash_of(key), &Guard::pin(), |at| Ok(if key_at(at) == key { Look::Found(at) } else { Look::Other }))
        .unwrap()
}

/// Pages that were saved, of which some cannot be read at first.
#[derive(Debug, Default)]
struct Saved {
    pages: Vec<Vec<(Word, u16)>>,
    /// How often reading fails before it works.
    failures: std::sync::atomic::AtomicUsize,
}

impl Source for Saved {
    fn page(&self, number: usize, _layout: &Layout) -> Result<Vec<(Word, u16)>> {
        use std::sync::atomic::Ordering::Relaxed;
        match self.failures.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)) {
            Ok(_) => Err(Error::IndexFull { bytes: 0 }),
            Err(_) => Ok(self.pages[number].clone()),
        }
    }
}

/// The index that the next process has.
fn handed_on(index: &Index, failures: usize) -> Index {
    let mut pages = Vec::new();
    let put = |page| {
        pages.push(page);
        Ok(Save::Next)
    };
    let shards = index.save(|| (), put).unwrap().unwrap();
    let layout = Layout::new(&shards, pages.len()).unwrap();
    Index::stored(Box::new(Saved { pages, failures: failures.into() }), layout).unwrap()
}

#[cfg(not(loom))]
mod alone {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn walk(index: &Index) -> Vec<u64> {
        let (mut cursor, mut keys) = (Cursor::default(), Vec::new());
        loop {
            let mut page = Vec::new();
            let next = index.page_at(cursor, &Guard::pin(), &mut page);
            keys.extend(page.into_iter().filter(|at| at.kind() == Kind::Log).map(key_at));
            match next.unwrap() {
                Some(next) => cursor = next,
                None => return keys,
            }
        }
    }

    #[test]
    fn an_index_that_was_handed_on_says_the_same_and_grows_on() {
        let count = if cfg!(miri) { 300 } else { 30_000 };
        for size in [0, 1, 100, count] {
            let index = Index::new().unwrap();
            (0..size).for_each(|key| _ = publish(&index, key, at(key, 1)).unwrap());
            let next = handed_on(&index, 0);
            assert!((0..100).all(|key| next.is_asleep(hash_of(key)) && next.first_candidate(hash_of(key)).is_none()));
            // What was never asked for is handed on as it is.
            let next = handed_on(&next, 0);
            (0..size).step_by(7).for_each(|key| _ = publish(&next, key, at(key, 2)).unwrap());
            (size..2 * size).for_each(|key| _ = publish(&next, key, at(key, 1)).unwrap());
            let expected = |key| at(key, if key < size && key % 7 == 0 { 2 } else { 1 });
            assert!((0..2 * size).all(|key| find(&next, key) == Some(expected(key))));
            assert_eq!(find(&next, 2 * size), None);
            let mut keys = walk(&next);
            keys.sort_unstable();
            assert!(keys.into_iter().eq(0..2 * size));
            next.check_invariants();
        }
    }

    #[test]
    fn a_page_that_cannot_be_read_is_asked_for_again() {
        let index = Index::new().unwrap();
        publish(&index, 1, at(1, 1)).unwrap();
        let next = handed_on(&index, 3);
        assert!(publish(&next, 1, at(1, 2)).is_err());
        assert!(!next.exchange(hash_of(1), at(1, 1), at(1, 2), 0, &Guard::pin()));
        while next.page_at(Cursor::default(), &Guard::pin(), &mut Vec::new()).is_err() {}
        assert_eq!(find(&next, 1), Some(at(1, 1)));
    }

    #[test]
    fn what_is_forgotten_is_told_once_and_everything_else_stays() {
        let index = Index::new().unwrap();
        let count = if cfg!(miri) { 300 } else { 20_000 };
        (0..count).for_each(|key| _ = publish(&index, key, at(key, 1)).unwrap());
        let is_needless = |at: Location| !key_at(at).is_multiple_of(3);
        let (mut cursor, mut gone) = (Some(Cursor::default()), Vec::new());
        while let Some(page) = cursor {
            cursor = index.forget(page, is_needless, &mut gone).unwrap();
        }
        index.check_invariants();
        let mut told: Vec<_> = gone.into_iter().map(key_at).collect();
        told.sort_unstable();
        assert!(told.into_iter().eq((0..count).filter(|key| !key.is_multiple_of(3))));
        (0..count).for_each(|key| {
            assert_eq!(find(&index, key), Some(at(key, 1)).filter(|_| key.is_multiple_of(3)), "key {key}");
        });
        (0..count).for_each(|key| _ = publish(&index, key, at(key, 2)).unwrap());
        index.check_invariants();
        assert!((0..count).all(|key| find(&index, key) == Some(at(key, 2))));
    }

    #[test]
    fn a_layout_of_no_index_is_refused() {
        let shards = Index::new().unwrap().save(|| (), |_| Ok(Save::Next)).unwrap().unwrap();
        let count = shards.len();
        assert!(Layout::new(&shards, count).is_some());
        assert!(Layout::new(&shards, count + 1).is_none() && Layout::new(&shards[1..], count - 1).is_none());
        for word in [63, 62, 1 << 8, u64::MAX, 1 << 63 | 20] {
            let mut shards = shards.clone();
            shards[0] = word;
            assert!((0..1 << 16).all(|pages| Layout::new(&shards, pages).is_none()), "{word:x}");
        }
    }

    #[test]
    fn fourteen_bytes_a_key_are_enough_at_every_size() {
        let count = if cfg!(miri) { 300 } else { 10_000_000 };
        let index = Index::new().unwrap();
        let (mut worst, mut bytes) = (0.0_f64, 0);
        for key in 0..count {
            publish(&index, key, at(key, 0)).unwrap();
            let now = index.bytes();
            if now != bytes {
                bytes = now;
                // The first pages, and runs that wait for readers before they are given out again, are a matter of
                // the store, not of its keys.
                assert!(bytes <= 14 * (key + 1) + (256 << 10), "{bytes} bytes for {} keys", key + 1);
                if key > 1_000_000 {
                    worst = worst.max(bytes as f64 / (key + 1) as f64);
                }
            }
        }
        index.check_invariants();
        println!("at most {worst:.2} bytes a key between one and ten million");
        assert!((0..count).step_by(997).all(|key| find(&index, key) == Some(at(key, 0))));
        assert!((count..2 * count).step_by(997).all(|key| find(&index, key).is_none()));
    }

    #[test]
    fn an_index_made_for_its_keys_is_one_that_has_grown() {
        let sizes: &[u64] = if cfg!(miri) { &[300] } else { &[0, 1, 1_000, 3_000, 30_000, 1_000_000] };
        for size in sizes.iter().copied() {
            let index = Index::new().unwrap();
            assert!(index.make_room(size));
            // About in the order of the hashes.
            let mut keys: Vec<_> = (0..size).collect();
            keys.sort_by_key(|key| hash_of(*key) >> 50);
            keys.iter().for_each(|key| assert_eq!(publish(&index, *key, at(*key, 1)).unwrap(), Published::New));
            index.check_invariants();
            let bytes = index.bytes();
            assert!(bytes <= 14 * size + (256 << 10), "{bytes} bytes for {size} keys");
            // It grows on.
            (size..2 * size).for_each(|key| _ = publish(&index, key, at(key, 1)).unwrap());
            index.check_invariants();
            assert!((0..2 * size).all(|key| find(&index, key) == Some(at(key, 1))));
            assert_eq!(walk(&index).len() as u64, 2 * size);
        }
    }

    #[test]
    fn keys_that_have_run_out_of_tag_bits_are_still_found() {
        // A hundred keys from when the index was small, then a growth that splits their pages more than ten times.
        let index = Index::new().unwrap();
        let old = 0..100_u64;
        old.clone().for_each(|key| assert_eq!(publish(&index, key, at(key, 0)).unwrap(), Published::New));
        let count = if cfg!(miri) { 500 } else { 1_500_000 };
        (100..count).for_each(|key| assert_eq!(publish(&index, key, at(key, 0)).unwrap(), Published::New));
        assert!(old.clone().all(|key| find(&index, key) == Some(at(key, 0))));
        for key in old {
            assert_eq!(publish(&index, key, at(key, 1)).unwrap(), Published::Replaced(at(key, 0)));
        }
        let keys = walk(&index);
        assert_eq!(keys.len() as u64, count);
        assert_eq!(keys.into_iter().collect::<BTreeSet<_>>().len() as u64, count);
    }

    /// A model on a disk that fails nine times of ten.
    struct Failing(Cell<u32>);

    impl Records for Failing {
        fn hash_at(&self, at: Location) -> Result<Option<u64>> {
            self.0.set(self.0.get() + 1);
            match self.0.get() % 10 {
                0 => Model.hash_at(at),
                _ => Err(Error::IndexFull { bytes: 0 }),
            }
        }

        fn is_forgettable(&self, at: Location) -> bool {
            Model.is_forgettable(at)
        }
    }

    #[test]
    fn a_key_whose_record_cannot_be_read_for_a_moment_stays() {
        let (index, failing) = (Index::new().unwrap(), Failing(Cell::new(0)));
        let count = if cfg!(miri) { 500 } else { 2_500_000 };
        (0..count).for_each(|key| assert_eq!(publish_in(&index, &failing, key, at(key, 0)).unwrap(), Published::New));
        assert!(cfg!(miri) || failing.0.get() > 10, "tags ran out of bits");
        assert!((0..count).all(|key| find(&index, key) == Some(at(key, 0))));
    }

    #[test]
    fn a_foreign_location_is_rarely_shown() {
        let index = Index::new().unwrap();
        let count = if cfg!(miri) { 300 } else { 300_000 };
        (0..count).for_each(|key| assert_eq!(publish(&index, key, at(key, 0)).unwrap(), Published::New));
        let mut shown = 0;
        for key in count..4 * count {
            let miss = index.find(hash_of(key), &Guard::pin(), |_| {
                shown += 1;
                Ok(Look::<()>::Other)
            });
            assert_eq!(miss.unwrap(), None);
        }
        // 8 to 12 slots looked at, each with 2⁻¹² at worst: one look-up in 340.
        assert!(shown < 3 * count / 340 + 3, "{shown} foreign records for {} misses", 3 * count);
    }

    #[test]
    fn forgotten_keys_give_their_slots_back() {
        let index = Index::new().unwrap();
        let rounds = if cfg!(miri) { 2 } else { 40 };
        let per_round = if cfg!(miri) { 100 } else { 20_000 };
        let mut first_bytes = 0;
        for round in 0..rounds {
            for key in round * per_round..(round + 1) * per_round {
                publish(&index, key, at(key, 0)).unwrap();
                publish(&index, key, Location::of_model(key << 16 | 1, Kind::Removed)).unwrap();
            }
            if round == 1 {
                first_bytes = index.bytes();
            }
        }
        index.check_invariants();
        assert!(
            index.bytes() <= 3 * first_bytes.max(1 << 16),
            "{} bytes, after the second round {first_bytes}",
            index.bytes()
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 40 }, ..ProptestConfig::default() })]

        #[test]
        fn the_index_answers_like_a_map(ops in prop::collection::vec((0..3000_u64, 0..4_u8), 1..4000)) {
            let index = Index::new().unwrap();
            let mut model = BTreeMap::new();
            for (version, (key, op)) in (1..).zip(ops) {
                match op {
                    0 => {
                        let (found, expected) = (find(&index, key), model.get(&key).copied());
                        let is_removed = expected.is_some_and(|at: Location| at.kind() == Kind::Removed);
                        prop_assert!(found == expected || found.is_none() && is_removed);
                    }
                    1 => {
                        let removed = Location::of_model(key << 16 | version, Kind::Removed);
                        publish(&index, key, removed).unwrap();
                        model.insert(key, removed);
                    }
                    _ => {
                        publish(&index, key, at(key, version)).unwrap();
                        model.insert(key, at(key, version));
                    }
                }
            }
            index.check_invariants();
            for (key, location) in &model {
                // What was removed may have been forgotten; nothing else may.
                let found = find(&index, *key);
                prop_assert!(found == Some(*location) || found.is_none() && location.kind() == Kind::Removed);
            }
            let living = model.iter().filter(|(_, at)| at.kind() == Kind::Log).count();
            prop_assert_eq!(walk(&index).len(), living);
        }
    }

    #[test]
    fn threads_publish_every_key_once_while_the_index_grows() {
        let index = Index::new().unwrap();
        let per_thread = if cfg!(miri) { 60 } else { 100_000 };
        // Every key is published by two threads with different versions; the higher one must stay.
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let index = &index;
                scope.spawn(move || {
                    let base = (thread / 2) * per_thread;
                    for n in 0..per_thread {
                        let key = base + if thread.is_multiple_of(2) { n } else { per_thread - 1 - n };
                        publish(index, key, at(key, thread % 2)).unwrap();
                        assert!(find(index, key).unwrap().model_number() >= at(key, thread % 2).model_number());
                    }
                });
            }
        });
        index.check_invariants();
        let keys = walk(&index);
        assert_eq!(keys.len() as u64, 2 * per_thread);
        assert!((0..2 * per_thread).all(|key| find(&index, key) == Some(at(key, 1))));
    }
}

#[test]
fn the_shares_of_the_shards_cover_every_hash() {
    assert_eq!(super::SHARES.iter().sum::<usize>(), 1 << SHARD_BITS);
}
