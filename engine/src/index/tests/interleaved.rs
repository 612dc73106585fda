//! Models of what meets in the index: every interleaving of two or three threads and one race each.

use loom::{sync::Arc, thread};

use super::*;

fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 100_000;
    builder.check(model);
}

/// Keys whose hashes share the page prefix and tag bits that matter in tiny pages.
const A: u64 = 1;
const B: u64 = 2;
const C: u64 = 3;

#[test]
fn two_inserts_of_one_key_leave_one_slot_with_the_higher_version() {
    explore(|| {
        let index = Arc::new(Index::new().unwrap());
        let other = index.clone();
        let thread = thread::spawn(move || publish(&other, A, at(A, 2)).unwrap());
        publish(&index, A, at(A, 1)).unwrap();
        thread.join().unwrap();
        assert_eq!(find(&index, A), Some(at(A, 2)));
        let mut page = Vec::new();
        index.page_at(Cursor::default(), &Guard::pin(), &mut page).unwrap();
        assert_eq!(page, [at(A, 2)]);
    });
}

#[test]
fn an_insert_and_a_remove_leave_the_higher_one() {
    explore(|| {
        let index = Arc::new(Index::new().unwrap());
        publish(&index, A, at(A, 1)).unwrap();
        let other = index.clone();
        let removed = Location::of_model(A << 16 | 3, Kind::Removed);
        let thread = thread::spawn(move || publish(&other, A, removed).unwrap());
        publish(&index, A, at(A, 2)).unwrap();
        thread.join().unwrap();
        assert_eq!(find(&index, A), Some(removed));
    });
}

#[test]
fn a_page_that_two_ask_for_is_fetched_once() {
    explore(|| {
        let index = Index::new().unwrap();
        publish(&index, A, at(A, 1)).unwrap();
        let next = Arc::new(handed_on(&index, 0));
        let other = next.clone();
        let thread = thread::spawn(move || publish(&other, B, at(B, 1)).unwrap());
        assert_eq!(find(&next, A), Some(at(A, 1)));
        publish(&next, A, at(A, 2)).unwrap();
        thread.join().unwrap();
        assert_eq!((find(&next, A), find(&next, B)), (Some(at(A, 2)), Some(at(B, 1))));
    });
}

#[test]
fn a_page_that_is_fetched_while_it_is_copied_loses_nothing() {
    explore(|| {
        let index = Index::new().unwrap();
        (0..7).for_each(|key| _ = publish(&index, key, at(key, 1)).unwrap());
        let next = Arc::new(handed_on(&index, 0));
        let other = next.clone();
        let thread = thread::spawn(move || (7..9).for_each(|key| _ = publish(&other, key, at(key, 1)).unwrap()));
        assert_eq!(find(&next, 3), Some(at(3, 1)));
        thread.join().unwrap();
        (0..9).for_each(|key| assert_eq!(find(&next, key), Some(at(key, 1))));
    });
}

#[test]
fn what_is_written_while_its_page_forgets_is_not_lost() {
    explore(|| {
        let index = Arc::new(Index::new().unwrap());
        publish(&index, A, at(A, 1)).unwrap();
        publish(&index, B, at(B, 1)).unwrap();
        let other = index.clone();
        let thread = thread::spawn(move || {
            let (mut gone, old) = (Vec::new(), [at(A, 1), at(B, 1)]);
            other.forget(Cursor::default(), |at| old.contains(&at), &mut gone).unwrap();
            gone
        });
        let published = publish(&index, A, at(A, 2)).unwrap();
        let gone = thread.join().unwrap();
        // Either it was told of, or it was displaced: each is counted once.
        assert_eq!(gone.contains(&at(A, 1)), published == Published::New);
        assert_eq!((find(&index, A), find(&index, B)), (Some(at(A, 2)), None));
    });
}

/// A record in memory, by the number of the one in the log that it is a copy of.
fn in_memory(at: Location) -> Location {
    Location::of_model(at.model_number(), Kind::Memory)
}

#[test]
fn an_insert_and_a_promotion_leave_what_was_inserted() {
    explore(|| {
        let index = Arc::new(Index::new().unwrap());
        publish(&index, A, at(A, 1)).unwrap();
        let other = index.clone();
        let thread = thread::spawn(move || {
            other.exchange(hash_of(A), at(A, 1), in_memory(at(A, 1)), 0, &Guard::pin());
        });
        publish(&index, A, at(A, 2)).unwrap();
        thread.join().unwrap();
        assert_eq!(find(&index, A), Some(at(A, 2)));
    });
}

#[test]
fn an_insert_and_a_demotion_leave_what_was_inserted() {
    explore(|| {
        let index = Arc::new(Index::new().unwrap());
        publish(&index, A, in_memory(at(A, 1))).unwrap();
        let other = index.clone();
        let thread = thread::spawn(move || other.exchange(hash_of(A), in_memory(at(A, 1)), at(A, 1), 0, &Guard::pin()));
        publish(&index, A, in_memory(at(A, 2))).unwrap();
        thread.join().unwrap();
        assert_eq!(find(&index, A), Some(in_memory(at(A, 2))));
    });
}

#[test]
fn a_removed_key_is_not_revived_by_a_late_demotion_or_promotion() {
    for (from, to) in [(in_memory(at(A, 1)), at(A, 1)), (at(A, 1), in_memory(at(A, 1)))] {
        explore(move || {
            let index = Arc::new(Index::new().unwrap());
            publish(&index, A, from).unwrap();
            let other = index.clone();
            let thread = thread::spawn(move || other.exchange(hash_of(A), from, to, 0, &Guard::pin()));
            let removed = Location::of_model(A << 16 | 2, Kind::Removed);
            publish(&index, A, removed).unwrap();
            thread.join().unwrap();
            assert_eq!(find(&index, A), Some(removed));
        });
    }
}

#[test]
fn a_reader_finds_a_key_that_moves_between_the_tiers() {
    explore(|| {
        let index = Arc::new(Index::new().unwrap());
        publish(&index, A, in_memory(at(A, 1))).unwrap();
        let other = index.clone();
        let thread = thread::spawn(move || {
            let guard = Guard::pin();
            assert!(other.exchange(hash_of(A), in_memory(at(A, 1)), at(A, 1), 0, &guard));
            assert!(other.exchange(hash_of(A), at(A, 1), in_memory(at(A, 1)), 0, &guard));
        });
        assert!(find(&index, A).is_some());
        thread.join().unwrap();
        assert_eq!(find(&index, A), Some(in_memory(at(A, 1))));
    });
}

#[test]
fn a_demotion_is_not_lost_while_the_page_is_copied() {
    explore(|| {
        let index = Arc::new(Index::new().unwrap());
        publish(&index, A, in_memory(at(A, 1))).unwrap();
        let other = index.clone();
        let thread = thread::spawn(move || publish(&other, B, at(B, 1)).unwrap());
        assert!(index.exchange(hash_of(A), in_memory(at(A, 1)), at(A, 1), 0, &Guard::pin()));
        thread.join().unwrap();
        assert_eq!((find(&index, A), find(&index, B)), (Some(at(A, 1)), Some(at(B, 1))));
    });
}

#[test]
fn a_reader_finds_its_key_while_the_page_is_copied() {
    explore(|| {
        let index = Arc::new(Index::new().unwrap());
        publish(&index, A, at(A, 1)).unwrap();
        let other = index.clone();
        let thread = thread::spawn(move || publish(&other, B, at(B, 1)).unwrap());
        assert_eq!(find(&index, A), Some(at(A, 1)));
        thread.join().unwrap();
        assert_eq!(find(&index, B), Some(at(B, 1)));
    });
}

#[test]
fn a_write_is_not_lost_while_the_page_is_copied() {
    explore(|| {
        let index = Arc::new(Index::new().unwrap());
        publish(&index, A, at(A, 1)).unwrap();
        let other = index.clone();
        let thread = thread::spawn(move || publish(&other, B, at(B, 1)).unwrap());
        publish(&index, A, at(A, 2)).unwrap();
        assert_eq!(find(&index, A), Some(at(A, 2)));
        thread.join().unwrap();
        assert_eq!((find(&index, A), find(&index, B)), (Some(at(A, 2)), Some(at(B, 1))));
    });
}

#[test]
fn a_reader_and_a_writer_find_their_keys_while_a_page_is_split() {
    explore(|| {
        let index = Arc::new(Index::new().unwrap());
        (1..=4).for_each(|key| assert_eq!(publish(&index, key, at(key, 1)).unwrap(), Published::New));
        let other = index.clone();
        // The fifth key copies the page into three buckets, which splits the first in line.
        let thread = thread::spawn(move || publish(&other, 5, at(5, 1)).unwrap());
        assert_eq!(find(&index, C), Some(at(C, 1)));
        publish(&index, A, at(A, 2)).unwrap();
        thread.join().unwrap();
        assert!((2..=5).all(|key| find(&index, key) == Some(at(key, 1))));
        assert_eq!(find(&index, A), Some(at(A, 2)));
    });
}
