//! Results past their `stale_after`.

use std::{
    sync::{Barrier, mpsc},
    thread,
    time::{Duration, Instant},
};

use thermocline::memoize;

use crate::{Bodies, STORE};

/// Waits until `holds`, which something behind the callers' backs brings about.
fn until(holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "it never came about");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Idea 18: many stale calls are one body, behind; all get the stale result, later ones the new.
#[test]
fn a_stale_result_is_refreshed_behind_once() {
    static BODIES: Bodies = Bodies::new();
    static GATE: Barrier = Barrier::new(2);
    #[memoize(store = STORE, stale_after = "200ms", ttl = "1h")]
    fn price(name: &str, list: &[u32], more: Vec<String>) -> u32 {
        let _ = (name, list, more);
        let run = BODIES.run();
        if run > 1 {
            GATE.wait();
        }
        run
    }
    let call = || price("a", &[1], vec!["b".to_owned()]);
    assert_eq!((call(), call()), (1, 1));
    thread::sleep(Duration::from_millis(250));
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert_eq!(call(), 1));
        }
    });
    assert!(price::call("a", &[1], vec!["b".to_owned()]).unwrap().is_stale);
    // It is being computed, once, and waits for us.
    until(|| BODIES.count() > 1);
    assert_eq!(BODIES.count(), 2);
    GATE.wait();
    until(|| call() == 2);
}

/// What borrows deep within is refreshed in line, by one caller; so is an async function.
#[test]
fn what_cannot_be_cloned_is_refreshed_in_line() {
    static BODIES: Bodies = Bodies::new();
    #[memoize(store = STORE, stale_after = "20ms")]
    fn deep(names: &[&str]) -> u32 {
        let _ = names;
        BODIES.run()
    }
    assert_eq!(deep(&["a"]), 1);
    thread::sleep(Duration::from_millis(30));
    assert_eq!(deep(&["a"]), 2);

    static POLLED: Bodies = Bodies::new();
    #[memoize(store = STORE, stale_after = "20ms")]
    async fn polled(name: &str) -> u32 {
        let _ = name;
        POLLED.run()
    }
    assert_eq!(pollster::block_on(polled("a")), 1);
    thread::sleep(Duration::from_millis(30));
    assert_eq!(pollster::block_on(polled("a")), 2);
}

/// A refresh that fails leaves the stale result.
#[test]
fn a_failing_refresh_leaves_the_stale_result() {
    static BODIES: Bodies = Bodies::new();
    #[memoize(store = STORE, stale_after = "20ms")]
    fn fails(number: u32) -> Result<u32, String> {
        if BODIES.run() > 1 { Err("later".to_owned()) } else { Ok(number) }
    }
    assert_eq!(fails(1), Ok(1));
    thread::sleep(Duration::from_millis(30));
    assert_eq!(fails(1), Ok(1));
    until(|| BODIES.count() > 1);
    assert_eq!(fails(1), Ok(1));
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(fails(1)).unwrap());
    assert_eq!(receiver.recv_timeout(Duration::from_secs(10)), Ok(Ok(1)));
}

/// So does one in line.
#[test]
fn a_refresh_in_line_that_fails_leaves_the_stale_result() {
    static BODIES: Bodies = Bodies::new();
    #[memoize(store = STORE, stale_after = "20ms")]
    fn deep(names: &[&str]) -> Result<usize, String> {
        if BODIES.run() > 1 { Err("later".to_owned()) } else { Ok(names.len()) }
    }
    assert_eq!(deep(&["a"]), Ok(1));
    thread::sleep(Duration::from_millis(30));
    assert_eq!((deep(&["a"]), BODIES.count()), (Ok(1), 2));

    static POLLED: Bodies = Bodies::new();
    #[memoize(store = STORE, stale_after = "20ms")]
    async fn polled(name: &str) -> Result<usize, String> {
        if POLLED.run() > 1 { Err("later".to_owned()) } else { Ok(name.len()) }
    }
    assert_eq!(pollster::block_on(polled("a")), Ok(1));
    thread::sleep(Duration::from_millis(30));
    assert_eq!((pollster::block_on(polled("a")), POLLED.count()), (Ok(1), 2));
}
