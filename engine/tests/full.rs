//! A full disk: writes fail and say where, reads go on, the store opens, and writes again once there is room.

mod support;

use support::Random;
use support::{Possible, at, damage, each, key, look, open, seeds, small, value};
use thermocline_engine::{Engine, Error, medium::Faulty};

fn is_full(error: &Error) -> bool {
    let text = error.to_string();
    let names = text.contains("faulty/") && text.contains(".segment");
    assert!(names, "a full disk that does not say where: {text}");
    matches!(error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull)
}

/// Writes until the disk is full; what failed has changed nothing.
fn fill(engine: &Engine, possible: &mut Possible, random: &mut Random) -> u64 {
    let (mut full, mut version) = (0, 1_000);
    while full < 20 {
        version += 1;
        assert!(version < 100_000, "a disk that never fills");
        let number = random.below(40) as u8;
        let result = match random.below(3) {
            0 => {
                let pairs = [number, number + 1].map(|number| (key(number), value(number, version)));
                engine.insert_many(&pairs.each_ref().map(|(key, value)| (&key[..], &value[..])), &at(false))
            }
            synced => engine.insert(&key(number), &value(number, version), &at(synced == 1)),
        };
        match result {
            Ok(()) => possible.is(number, Some(version)),
            Err(error) => {
                assert!(is_full(&error), "{error}");
                full += 1;
                possible.may_be(number, Some(version));
            }
        }
        // One of a batch may have been written though the other was not.
        for number in [number, number + 1] {
            let found = look(engine, number).expect("reads go on");
            match found == Some(version) {
                true => possible.is(number, found),
                false => possible.saw(number, found, "on a full disk"),
            }
        }
    }
    full
}

fn run(seed: u64, mapped: bool) {
    let mut random = Random(seed);
    let medium = Faulty::new(mapped);
    let mut possible = Possible::default();
    let engine = open(&medium, &small()).unwrap();
    for number in 0..40 {
        engine.insert(&key(number), &value(number, 1), &at(false)).unwrap();
        possible.is(number, Some(1));
    }
    engine.sync().unwrap();
    let room = (200 << 10) + random.below(100 << 10);
    medium.set_room(Some(room));
    fill(&engine, &mut possible, &mut random);
    possible.check(&engine, "on a full disk");
    // A remove is a write, and finds room all the same.
    for number in 0..random.below(40) as u8 {
        engine.remove(&key(number)).expect("removals have room on a full disk");
        possible.is(number, None);
    }
    possible.check(&engine, "after removes on a full disk");
    if random.one_in(2) {
        fill(&engine, &mut possible, &mut random);
    }
    match random.below(3) {
        0 => engine.close().expect("closing needs no room"),
        1 => drop(engine),
        _ => {}
    }
    // The disk is as full as it was when the next process comes.
    let next = medium.after_kill();
    let engine = open(&next, &small()).expect("a store on a full disk can be opened");
    possible.check(&engine, "opened on a full disk");
    fill(&engine, &mut possible, &mut random);
    engine.compact().expect("a full disk can be compacted");
    possible.check(&engine, "compacted on a full disk");
    for number in 0..41 {
        engine.remove(&key(number)).expect("removals have room on a full disk");
        possible.is(number, None);
    }
    engine.compact().expect("a full disk can be compacted");
    possible.check(&engine, "emptied on a full disk");
    for number in 0..10 {
        engine.insert(&key(number), &value(number, 3), &at(number % 2 == 0)).expect("there is room in an empty store");
        possible.is(number, Some(3));
    }
    possible.check(&engine, "written again on a disk that was full");
    next.set_room(None);
    for number in 0..40 {
        engine.insert(&key(number), &value(number, 2), &at(true)).expect("there is room again");
        possible.is(number, Some(2));
    }
    possible.check(&engine, "with room again");
    engine.close().unwrap();
    let engine = open(&next, &small()).unwrap();
    possible.check(&engine, "opened with room again");
    assert_eq!(damage(&engine), [""; 0]);
}

#[test]
fn a_mapped_store_on_a_full_disk_refuses_writes_and_loses_nothing() {
    each(seeds(60), |seed| run(seed, true));
}

#[test]
fn an_unmapped_store_on_a_full_disk_refuses_writes_and_loses_nothing() {
    each(seeds(60), |seed| run(seed, false));
}
