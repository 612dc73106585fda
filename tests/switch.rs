//! The process-wide store and the switch: what is one for a whole process, in one of its own.

use std::sync::atomic::{AtomicU32, Ordering};

use thermocline::{Store, memoize, set_default, set_enabled};

static BODIES: AtomicU32 = AtomicU32::new(0);

#[memoize]
fn counted(number: u32) -> u32 {
    number + BODIES.fetch_add(1, Ordering::SeqCst)
}

struct Counter;

impl Counter {
    #[memoize(ignore(self))]
    fn counted(&self, number: u32) -> u32 {
        number + BODIES.fetch_add(1, Ordering::SeqCst)
    }
}

/// Idea 41: off and on, before and after the first use, functions and methods; and another store in the place of the first.
#[test]
fn memoization_is_switched_for_the_whole_process() {
    let store = || Store::builder().in_memory().unwrap();
    let first = store();
    set_enabled(false);
    assert!(!thermocline::is_enabled());
    set_default(first.clone());
    assert_eq!((counted(0), counted(0), Counter.counted(0)), (0, 1, 2));
    set_enabled(true);
    assert_eq!((counted(0), counted(0), Counter.counted(0), Counter.counted(0)), (3, 3, 4, 4));
    set_enabled(false);
    assert_eq!((counted(0), Counter.counted(0), counted::get(0)), (5, 6, Some(3)));
    set_enabled(true);
    assert_eq!((counted(0), Counter.counted(0)), (3, 4));

    // Nothing of one store is met in another; what the first has is there when it comes back.
    set_default(store());
    assert_eq!((counted(0), counted(0), counted::info().hits), (7, 7, 1));
    set_default(first);
    assert_eq!(counted(0), 3);
    assert_eq!(thermocline::memo::failures(), 0);
}
