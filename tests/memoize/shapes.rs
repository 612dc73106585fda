//! Functions of every shape: generic, async, recursive, with patterns, with lifetimes, in other functions' bodies.

use std::{borrow::Cow, fmt::Display, sync::Barrier, thread};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thermocline::{CallOptions, memoize};

use crate::{Bodies, STORE};

/// Idea 20: recursion from several threads: right values, no deadlock.
#[test]
fn a_recursive_function_computes_each_value() {
    static BODIES: Bodies = Bodies::new();
    #[memoize(store = STORE)]
    fn fibonacci(number: u64) -> u64 {
        BODIES.run();
        if number < 2 { number } else { fibonacci(number - 1) + fibonacci(number - 2) }
    }
    let barrier = Barrier::new(4);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                barrier.wait();
                assert_eq!(fibonacci(80), 23_416_728_348_467_685);
            });
        }
    });
    assert_eq!(BODIES.count(), 81);
}

/// Idea 12: many threads, one key: one body, and all others hit.
#[test]
fn many_threads_and_one_key_are_one_body() {
    static BODIES: Bodies = Bodies::new();
    #[memoize(store = STORE)]
    fn slow(number: u32) -> u32 {
        thread::sleep(std::time::Duration::from_millis(50));
        number + BODIES.run()
    }
    let barrier = Barrier::new(8);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                barrier.wait();
                assert_eq!(slow(1), 2);
            });
        }
    });
    let info = slow::info();
    assert_eq!((BODIES.count(), info.hits, info.misses, info.entries), (1, 7, 1, 1));
}

/// Idea 16: who waits for a call that fails retries: nobody hangs, nobody gets a made-up result.
#[test]
fn who_waits_for_a_failing_call_retries() {
    struct NoError;
    static BODIES: Bodies = Bodies::new();
    #[memoize(store = STORE)]
    fn fails(number: u32) -> Result<u32, NoError> {
        thread::sleep(std::time::Duration::from_millis(10));
        if BODIES.run() < 3 { Err(NoError) } else { Ok(number) }
    }
    let barrier = Barrier::new(4);
    let failed = thread::scope(|scope| {
        let call = || {
            barrier.wait();
            fails(1).is_err()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(call)).collect();
        threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum::<usize>()
    });
    assert_eq!((failed, BODIES.count()), (2, 3));
}

#[test]
fn async_functions_are_memoized() {
    static BODIES: Bodies = Bodies::new();
    #[memoize(store = STORE, ttl = "1m")]
    async fn fetch(url: &str, tries: u32) -> Result<String, std::io::Error> {
        BODIES.run();
        std::future::ready(()).await;
        if tries == 0 { Err(std::io::Error::other("no try")) } else { Ok(format!("{url} {tries}")) }
    }
    pollster::block_on(async {
        assert_eq!(fetch("a", 1).await.unwrap(), "a 1");
        assert_eq!(fetch("a", 1).await.unwrap(), "a 1");
        assert_eq!(BODIES.count(), 1);
        assert!(fetch("a", 0).await.is_err());
        assert_eq!(fetch::refresh("a", 1).await.unwrap(), "a 1");
        assert_eq!(fetch::uncached("b", 1).await.unwrap(), "b 1");
        assert_eq!(fetch::with(CallOptions::new().overwrite()).call("c", 2).await.unwrap(), "c 2");
    });
    assert_eq!(fetch::get("a", 1).unwrap().unwrap(), "a 1");
    assert!(!fetch::contains("b", 1) && fetch::contains("c", 2));
    assert_eq!(fetch::query().tries(2).only().unwrap().result.unwrap(), "c 2");

    fn is_send<T: Send>(_: T) {}
    is_send(fetch("a", 1));
}

#[test]
fn generic_functions_take_the_turbofish() {
    static BODIES: Bodies = Bodies::new();
    #[memoize(store = STORE)]
    fn largest<T>(numbers: &[T]) -> Option<T>
    where
        T: Ord + Copy + Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        BODIES.run();
        numbers.iter().max().copied()
    }
    assert_eq!((largest(&[1u32, 3, 2]), largest(&[1u32, 3, 2]), BODIES.count()), (Some(3), Some(3), 1));
    assert_eq!((largest(&['a', 'c']), largest::<u64>(&[1, 3, 2]), BODIES.count()), (Some('c'), Some(3), 3));
    assert_eq!((largest::info::<u32>().entries, largest::info::<char>().entries), (1, 1));
    assert_eq!(largest::get(&['a', 'c']), Some(Some('c')));
    assert_eq!(largest::query::<u64>().numbers(&[1, 3, 2]).only().unwrap().result, Some(3));
    largest::clear::<u32>();
    assert!(!largest::contains(&[1u32, 3, 2]) && largest::contains(&['a', 'c']));

    #[memoize(store = STORE)]
    fn sized<const N: usize>(bytes: [u8; N]) -> usize
    where
        [u8; N]: Serialize,
    {
        bytes.len()
    }
    assert_eq!((sized([1, 2]), sized([1, 2, 3])), (2, 3));
    assert_eq!((sized::info::<2>().entries, sized::info::<3>().entries, sized::info::<4>().entries), (1, 1, 0));
}

#[derive(Clone, Copy, Serialize)]
struct Point {
    x: u32,
    y: u32,
}

/// Patterns, lifetimes, raw names, nothing at all.
#[test]
fn arguments_may_be_written_in_any_way() {
    #[memoize(store = STORE)]
    fn pattern(Point { x, y }: Point, (a, b): (u32, u32), mut last: u32, _: u8) -> u32 {
        last += 1;
        x + y + a + b + last
    }
    assert_eq!(
        (pattern(Point { x: 1, y: 2 }, (3, 4), 5, 6), pattern::contains(Point { x: 1, y: 2 }, (3, 4), 5, 6)),
        (16, true)
    );
    assert!(!pattern::contains(Point { x: 1, y: 2 }, (3, 4), 5, 7));

    #[memoize(store = STORE)]
    fn borrowed<'a, 'b: 'a>(text: &'a str, other: Cow<'b, str>, list: &[&'a str]) -> Cow<'static, str> {
        Cow::Owned(format!("{text}{other}{}", list.concat()))
    }
    assert_eq!(borrowed("a", "b".into(), &["c"]), "abc");
    assert_eq!(borrowed::get("a", "b".into(), &["c"]).as_deref(), Some("abc"));

    #[memoize(store = STORE)]
    fn r#type(r#match: u32, r#fn: &u32) -> u32 {
        r#match + *r#fn
    }
    assert_eq!((r#type(1, &2), r#type::query().r#match(1).r#fn(&2).only().unwrap().result), (3, 3));

    static BODIES: Bodies = Bodies::new();
    #[memoize(store = STORE)]
    fn nothing() -> u32 {
        BODIES.run()
    }
    assert_eq!((nothing(), nothing(), nothing::contains(), nothing::key().to_string().len()), (1, 1, true, 64));
    #[memoize(store = STORE)]
    fn unit(number: u32) {
        BODIES.run();
        let _ = number;
    }
    unit(1);
    unit(1);
    assert_eq!((BODIES.count(), unit::get(1)), (2, Some(())));
}

/// What a body may do, it may do: return early, use `?`, take a closure that is ignored, call itself by path.
#[test]
fn bodies_are_left_alone() {
    #[memoize(store = STORE)]
    fn early(text: &str) -> Result<u32, std::num::ParseIntError> {
        if text.is_empty() {
            return Ok(0);
        }
        let number: u32 = text.parse()?;
        Ok(number + self::helper())
    }
    assert_eq!((early("").unwrap(), early("41").unwrap(), early("x").is_err()), (0, 42, true));

    #[memoize(store = STORE, ignore(transform))]
    fn transformed<F: Fn(u32) -> u32>(number: u32, transform: F) -> u32 {
        transform(number)
    }
    assert_eq!(transformed(1, |number| number + 1), 2);
    #[memoize(store = STORE)]
    fn shown<T: Display + Serialize + ?Sized>(thing: &T) -> String {
        thing.to_string()
    }
    assert_eq!((shown("a"), shown::contains("a")), ("a".to_owned(), true));
}

fn helper() -> u32 {
    1
}

/// Types that only the body of another function knows.
#[test]
fn a_function_may_use_the_types_of_the_body_around_it() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Local(u32);
    #[memoize(store = STORE)]
    fn local(one: Local) -> Local {
        Local(one.0 + 1)
    }
    assert_eq!((local(Local(1)), local::get(Local(1))), (Local(2), Some(Local(2))));
}

/// What companions give has no name that gets in the way of the user's.
#[test]
fn types_may_be_called_like_what_companions_give() {
    #[derive(Serialize)]
    struct Query(u32);
    #[derive(Serialize)]
    struct With(u32);
    #[memoize(store = STORE)]
    fn asked(query: &Query, with: With) -> u32 {
        query.0 + with.0
    }
    assert_eq!((asked(&Query(1), With(2)), asked::query().with(With(2)).only().unwrap().result), (3, 3));
    assert!(asked::contains(&Query(1), With(2)));
    assert_eq!(asked::query().query(&Query(1)).iter().count(), 1);
}

/// A lint is expected where the body is.
#[test]
fn an_expected_lint_is_met_once() {
    #[memoize(store = STORE)]
    #[expect(unused_variables)]
    #[deny(unfulfilled_lint_expectations)]
    fn expected(text: &str) -> u32 {
        let unused = 1;
        2
    }
    assert_eq!(expected("a"), 2);
}

/// What is said of lifetimes is said of the function, and not of its companions.
#[test]
fn bounds_may_name_lifetimes() {
    trait Part: Clone + serde::Serialize + serde::de::DeserializeOwned + Send + Sync + 'static {}
    impl Part for u32 {}
    #[memoize(store = STORE)]
    fn first<'a, 'b: 'a, T: 'a + 'b + Part>(all: &'a [T], other: &'b T) -> T {
        all.first().unwrap_or(other).clone()
    }
    assert_eq!(first(&[1u32, 2], &3), 1);
    assert!(first::contains::<u32>(&[1, 2], &3));
    assert_eq!(first::query::<u32>().other(&3).iter().count(), 1);
    #[derive(Clone, serde::Serialize)]
    struct Shape(u32);
    impl Shape {
        #[memoize(store = STORE)]
        fn size<'a, T>(&'a self, all: &'a [T]) -> u32
        where
            T: 'a + Part,
        {
            self.0 + all.len() as u32
        }
    }
    assert_eq!(Shape(7).size(&[1u32]), 8);
    assert!(Shape::size_memo::<u32>().contains(&Shape(7), &[1]));
}

/// What the function is allowed its companions are, whatever is denied around it.
mod allowed {
    #![deny(deprecated, non_snake_case, unfulfilled_lint_expectations)]

    use thermocline::memoize;

    use crate::STORE;

    #[derive(Clone, Copy, serde::Serialize, serde::Deserialize)]
    #[deprecated]
    pub(super) struct Old(pub(super) u32);

    #[allow(deprecated, non_snake_case)]
    #[memoize(store = STORE, stale_after = "1h")]
    pub(super) fn oldFunction(oldName: Old) -> Old {
        oldName
    }

    #[memoize(store = STORE)]
    #[allow(deprecated)]
    #[expect(non_snake_case)]
    pub(super) async fn oldTask<const N: usize>(oldName: Old, other: &str) -> Old {
        let _ = other;
        oldName
    }

    pub(super) struct Shape;

    impl Shape {
        #[memoize(store = STORE, ignore(self), max_entries = 7)]
        #[allow(deprecated, non_snake_case)]
        pub(super) fn oldMethod(&self, oldName: Old) -> Option<Old> {
            Some(oldName)
        }
    }
}

#[test]
#[allow(deprecated)]
fn what_is_allowed_is_allowed_in_companions() {
    use allowed::{Old, Shape, oldFunction, oldTask};
    assert_eq!((oldFunction(Old(1)).0, oldFunction::query().oldName(Old(1)).only().unwrap().result.0), (1, 1));
    assert_eq!((pollster::block_on(oldTask::<1>(Old(2), "")).0, oldTask::contains::<1>(Old(2), "")), (2, true));
    assert_eq!((Shape.oldMethod(Old(3)).unwrap().0, Shape::oldMethod_memo().contains(&Shape, Old(3))), (3, true));
}
