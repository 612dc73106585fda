//! What is kept of what a function gives.

use std::{io, thread, time::Duration};

use serde::{Deserialize, Serialize};
use thermocline::memoize;

use crate::{Bodies, STORE};

type Fallible<T> = Result<T, io::Error>;
type Maybe = Option<u32>;

/// Idea 37: `None` is not kept, whatever its type is called, unless the function says so; then it is a hit.
#[test]
fn none_is_kept_if_the_function_says_so() {
    static BODIES: Bodies = Bodies::new();
    #[memoize(store = STORE)]
    fn unkept(number: u32) -> Maybe {
        BODIES.run();
        (number > 1).then_some(number)
    }
    assert_eq!((unkept(1), unkept(1), BODIES.count()), (None, None, 2));
    assert_eq!((unkept(2), unkept(2), BODIES.count()), (Some(2), Some(2), 3));
    assert!(!unkept::contains(1));
    assert_eq!((unkept::get(1), unkept::get(2)), (None, Some(Some(2))));

    static KEPT: Bodies = Bodies::new();
    #[memoize(store = STORE, cache_none)]
    fn kept(number: u32) -> Maybe {
        KEPT.run();
        (number > 1).then_some(number)
    }
    assert_eq!((kept(1), kept(1), KEPT.count()), (None, None, 1));
    assert!(kept::contains(1));
    assert_eq!((kept::get(1), kept::get(2)), (Some(None), None));
}

/// Idea 38: an error is not kept: the second call runs again and fails again. The error needs to be nothing but an error.
#[test]
fn errors_are_not_kept_unless_the_function_says_so() {
    static BODIES: Bodies = Bodies::new();
    #[memoize(store = STORE)]
    fn fails(number: u32) -> Fallible<u32> {
        BODIES.run();
        if number == 0 { Err(io::Error::other("zero")) } else { Ok(number) }
    }
    assert_eq!(fails(0).unwrap_err().to_string(), "zero");
    assert_eq!(fails(0).unwrap_err().to_string(), "zero");
    assert_eq!((fails(1).unwrap(), fails(1).unwrap(), BODIES.count()), (1, 1, 3));
    assert!(fails::get(0).is_none());
    assert_eq!(fails::get(1).unwrap().unwrap(), 1);
    fails::insert(2, Err(io::Error::other("not kept")));
    assert!(!fails::contains(2));

    static KEPT: Bodies = Bodies::new();
    #[memoize(store = STORE, cache_err)]
    fn keeps(number: u32) -> Result<u32, String> {
        KEPT.run();
        if number == 0 { Err("zero".to_owned()) } else { Ok(number) }
    }
    assert_eq!((keeps(0), keeps(0), KEPT.count()), (Err("zero".to_owned()), Err("zero".to_owned()), 1));
    assert_eq!(keeps::get(0), Some(Err("zero".to_owned())));
}

/// Idea 50: what a caller does to a result does not reach the next one.
#[test]
fn changing_a_result_does_not_change_what_is_kept() {
    #[memoize(store = STORE)]
    fn list(number: u32) -> Vec<u32> {
        vec![number]
    }
    let mut changed = list(1);
    changed.push(2);
    assert_eq!(list(1), [1]);
    let mut changed = list::get(1).unwrap();
    changed.clear();
    assert_eq!(list(1), [1]);
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Point,
    Circle { radius: f32, name: Option<String> },
    Many(Vec<Shape>, (i8, char, [u16; 3])),
}

/// Idea 51: a result that comes from the log is what it was in memory, type and all.
#[test]
fn a_result_from_the_log_is_what_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let store = thermocline::Store::open(directory.path()).unwrap();
    static OPENED: std::sync::OnceLock<thermocline::Store> = std::sync::OnceLock::new();
    OPENED.set(store.clone()).unwrap();
    static BODIES: Bodies = Bodies::new();
    #[memoize(store = OPENED)]
    fn shape(number: u32) -> Shape {
        BODIES.run();
        let circle = Shape::Circle { radius: -0.0, name: Some(String::new()) };
        Shape::Many(
            vec![Shape::Point, circle, Shape::Circle { radius: 1.5, name: None }],
            (-1, 'ß', [0, 1, number as u16]),
        )
    }
    let computed = shape(7);
    assert_eq!(shape(7), computed);
    store.evict_all().unwrap();
    assert_eq!((shape(7), BODIES.count()), (computed, 1));
}

/// Idea 52: a result that cannot be encoded is given to its caller and is in no tier.
#[test]
fn a_result_that_cannot_be_encoded_is_nowhere() {
    #[derive(Clone, Debug, PartialEq, Deserialize)]
    struct Sealed(u32);
    impl Serialize for Sealed {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("sealed"))
        }
    }
    #[memoize(store = STORE)]
    fn sealed(number: u32) -> Sealed {
        Sealed(number)
    }
    assert_eq!((sealed(1), sealed(1)), (Sealed(1), Sealed(1)));
    assert!(!sealed::contains(1));
    assert_eq!(sealed::get(1), None);
}

/// Why a result was not kept is told, once each time, and counted.
#[test]
fn trouble_is_told() {
    use tracing::field::{Field, Visit};
    use tracing_subscriber::{Layer, layer::SubscriberExt};

    #[derive(Clone, Default)]
    struct Heard(std::sync::Arc<std::sync::Mutex<Vec<String>>>);
    impl<S: tracing::Subscriber> Layer<S> for Heard {
        fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
            struct Fields(String);
            impl Visit for Fields {
                fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                    self.0 += &format!("{}={value:?};", field.name());
                }
            }
            let mut fields = Fields(format!("{};", event.metadata().target()));
            event.record(&mut fields);
            self.0.lock().unwrap().push(fields.0);
        }
    }

    #[derive(Clone, Deserialize)]
    struct Shy(u32);
    impl Serialize for Shy {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("shy"))
        }
    }
    #[memoize(store = STORE, codec = thermocline::Json)]
    fn shy(number: u32) -> Shy {
        Shy(number)
    }
    #[memoize(store = STORE)]
    fn takes(shy: &Shy) -> u32 {
        shy.0
    }
    let (heard, before) = (Heard::default(), thermocline::memo::failures());
    tracing::subscriber::with_default(tracing_subscriber::registry().with(heard.clone()), || {
        assert_eq!((shy(1).0, takes(&Shy(2))), (1, 2));
    });
    let heard = heard.0.lock().unwrap();
    let told: Vec<_> = heard.iter().filter(|event| event.starts_with("thermocline::memo;")).collect();
    assert_eq!(told.len(), 2, "{heard:?}");
    assert!(told[0].contains("keep a result") && told[0].contains("shy"), "{}", told[0]);
    assert!(told[1].contains("encode an argument") && told[1].contains("shy"), "{}", told[1]);
    assert!(thermocline::memo::failures() >= before + 2);
}

/// A panic is not kept, and leaves nothing behind that the next call would wait for.
#[test]
fn a_panic_is_not_kept() {
    static BODIES: Bodies = Bodies::new();
    #[memoize(store = STORE)]
    fn panics(number: u32) -> u32 {
        assert!(BODIES.run() > 1, "the first one");
        number
    }
    assert!(std::panic::catch_unwind(|| panics(1)).is_err());
    assert_eq!((panics(1), panics(1), BODIES.count()), (1, 1, 2));
}

/// A caller waits for as long as it says, however many fail before it: then it computes beside another.
#[test]
fn a_caller_waits_once_for_all_who_fail_before_it() {
    static RUNNING: Bodies = Bodies::new();
    static ENDED: Bodies = Bodies::new();
    static TOGETHER: Bodies = Bodies::new();
    #[memoize(store = STORE, wait_timeout = "300ms")]
    fn fails(number: u32) -> Result<u32, u32> {
        if RUNNING.run().saturating_sub(ENDED.count()) > 1 {
            TOGETHER.run();
        }
        thread::sleep(Duration::from_millis(200));
        ENDED.run();
        Err(number)
    }
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| assert_eq!(fails(1), Err(1)));
        }
    });
    assert!(TOGETHER.count() > 0);
}
