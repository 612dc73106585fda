//! Options of the attribute, and of one call.

use std::{collections::HashMap, env, fs, path::Path, sync::OnceLock, time::Duration};

use serde::Serialize;
use thermocline::{CallOptions, Error, Json, MessagePack, Store, memoize};

use crate::{Bodies, STORE};

/// Idea 8: arguments called like our options, companions and locals reach the body.
#[test]
fn arguments_may_have_our_names() {
    #[memoize(store = STORE, require = options > 0)]
    #[allow(clippy::too_many_arguments)]
    fn named(
        options: u32,
        key: u32,
        memo: u32,
        kind: u32,
        keep: u32,
        ttl: u32,
        max_age: u32,
        skip: u32,
        value: u32,
    ) -> u32 {
        options + key + memo + kind + keep + ttl + max_age + skip + value
    }
    assert_eq!(named(1, 2, 3, 4, 5, 6, 7, 8, 9), 45);
    assert_eq!(named::get(1, 2, 3, 4, 5, 6, 7, 8, 9), Some(45));
    assert_eq!(named::with(CallOptions::new()).call(1, 2, 3, 4, 5, 6, 7, 8, 9), 45);
    assert_eq!(named::query().options(1).key(2).only().unwrap().result, 45);
    #[memoize(store = STORE)]
    fn asked(iter: u32, only: u32) -> u32 {
        iter + only
    }
    assert_eq!((asked(1, 2), asked::query().iter_(1).only_(2).only().unwrap().result), (3, 3));
}

/// Idea 9: an ignored argument changes nothing, one that does not suit is uncached, another version misses and leaves the old
/// one's results.
#[test]
fn ignored_and_required_arguments_and_versions() {
    static BODIES: Bodies = Bodies::new();
    struct Connection;
    #[memoize(store = STORE, ignore(connection, log), require = number > 1)]
    fn quiet(connection: &Connection, number: u32, log: &mut Vec<u32>) -> u32 {
        let _ = connection;
        log.push(number);
        BODIES.run();
        number
    }
    let mut log = Vec::new();
    assert_eq!((quiet(&Connection, 2, &mut log), quiet(&Connection, 2, &mut Vec::new()), BODIES.count()), (2, 2, 1));
    assert_eq!((quiet(&Connection, 1, &mut log), quiet(&Connection, 1, &mut log), BODIES.count()), (1, 1, 3));
    assert_eq!(log, [2, 1, 1]);

    mod old {
        #[thermocline::memoize(store = crate::STORE, name = "versioned", version = 1)]
        pub(super) fn versioned(number: u32) -> String {
            format!("old {number}")
        }
    }
    #[memoize(store = STORE, name = "versioned", version = 2)]
    fn versioned(number: u32) -> String {
        format!("new {number}")
    }
    assert_eq!((old::versioned(1), versioned(1)), ("old 1".to_owned(), "new 1".to_owned()));
    assert_eq!(old::versioned::get(1).as_deref(), Some("old 1"));
    assert_eq!((old::versioned::info().entries, versioned::query().iter().count()), (1, 1));
    versioned::clear();
    assert_eq!((old::versioned(1), versioned::info().entries), ("old 1".to_owned(), 0));
}

/// A store is made at the first call, once for all instances of a function; one that fails is not made again at once.
#[test]
fn a_store_is_made_once() {
    static MADE: Bodies = Bodies::new();
    fn made() -> Store {
        MADE.run();
        Store::builder().in_memory().unwrap()
    }
    #[memoize(store = made())]
    fn stored<T: Serialize>(thing: T) -> usize {
        std::mem::size_of_val(&thing)
    }
    assert_eq!(MADE.count(), 0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!((stored(1_u8), stored(1_u32), stored('a')), (1, 4, 4)));
        }
    });
    assert_eq!((MADE.count(), stored::info::<u8>().entries, stored::info::<u64>().entries), (1, 1, 0));
    assert_eq!(MADE.count(), 1);

    static REFUSED: Bodies = Bodies::new();
    fn refused() -> Result<Store, Error> {
        REFUSED.run();
        Store::open("/dev/null/no directory")
    }
    static BODIES: Bodies = Bodies::new();
    #[memoize(store = refused())]
    fn plain(number: u32) -> u32 {
        BODIES.run() + number
    }
    let failures = thermocline::memo::failures();
    assert_eq!((plain(1), plain(1), plain::get(1), REFUSED.count()), (2, 3, None, 1));
    assert!(thermocline::memo::failures() >= failures + 3, "it is counted each time");
}

/// A function whose code changed computes anew, if it says so.
#[test]
fn the_code_may_be_part_of_the_key() {
    mod old {
        #[thermocline::memoize(store = crate::STORE, name = "coded", hash_code)]
        pub(super) fn coded(number: u32) -> u32 {
            number + 1
        }
    }
    #[memoize(store = STORE, name = "coded", hash_code)]
    fn coded(number: u32) -> u32 {
        number + 2
    }
    assert_eq!((old::coded(1), coded(1), old::coded(1)), (2, 3, 2));
}

/// One name is one namespace, if the user says so.
#[test]
fn a_name_is_a_namespace() {
    #[memoize(store = STORE, name = "shared")]
    fn one(number: u32) -> u32 {
        number
    }
    #[memoize(store = STORE, name = "shared")]
    fn other(number: u32) -> u32 {
        number + 100
    }
    assert_eq!((one(1), other(1)), (1, 1));
}

/// Results of a function whose key was made of other arguments are not met, also under a name.
#[test]
fn what_is_ignored_is_part_of_the_namespace() {
    mod old {
        #[thermocline::memoize(store = crate::STORE, name = "swapped", ignore(b))]
        pub(super) fn swapped(a: u32, b: u32) -> String {
            format!("a {a} {b}")
        }

        #[thermocline::memoize(store = crate::STORE, name = "turned")]
        pub(super) fn turned(a: u32, b: u32) -> String {
            format!("a {a} {b}")
        }
    }
    #[memoize(store = STORE, name = "swapped", ignore(a))]
    fn swapped(a: u32, b: u32) -> String {
        format!("b {a} {b}")
    }
    #[memoize(store = STORE, name = "turned")]
    fn turned(b: u32, a: u32) -> String {
        format!("b {b} {a}")
    }
    assert_eq!((old::swapped(1, 1), swapped(1, 1)), ("a 1 1".to_owned(), "b 1 1".to_owned()));
    assert_eq!((old::turned(1, 2), turned(1, 2)), ("a 1 2".to_owned(), "b 1 2".to_owned()));
}

/// A key of the user's own is all of the key; one argument may be encoded another way.
#[test]
fn keys_of_the_users_own() {
    struct Image(Vec<u8>, #[allow(dead_code)] fn());
    static BODIES: Bodies = Bodies::new();
    #[memoize(store = STORE, key = (image.0.len(), name.to_lowercase()))]
    fn keyed(image: &Image, name: &str) -> usize {
        BODIES.run();
        image.0.len() + name.len()
    }
    assert_eq!((keyed(&Image(vec![1, 2], || ()), "A"), keyed(&Image(vec![3, 4], || ()), "a")), (3, 3));
    assert_eq!(BODIES.count(), 1);

    #[memoize(store = STORE)]
    fn encoded(#[memoize(with = |image: &&Image| image.0.clone())] image: &Image, number: u32) -> u32 {
        BODIES.run() + number + image.0.len() as u32
    }
    let first = encoded(&Image(vec![1], || ()), 1);
    assert_eq!(encoded(&Image(vec![1], || ()), 1), first);
    assert_ne!(encoded(&Image(vec![2], || ()), 1), first);
    assert_eq!(encoded::query().image(&Image(vec![1], || ())).iter().count(), 1);
}

/// Idea 39: skipping leaves the entry, overwriting replaces it.
#[test]
fn one_call_may_skip_or_overwrite() {
    static BODIES: Bodies = Bodies::new();
    #[memoize(store = STORE)]
    fn counted(number: u32) -> u32 {
        number + BODIES.run()
    }
    assert_eq!(counted(10), 11);
    assert_eq!(counted::with(CallOptions::new().skip()).call(10), 12);
    assert_eq!(counted::uncached(10), 13);
    assert_eq!(counted(10), 11);
    assert_eq!(counted::with(CallOptions::new().overwrite()).call(10), 14);
    assert_eq!(counted(10), 14);
    assert_eq!(counted::refresh(10), 15);
    assert_eq!((counted(10), counted::get(10)), (15, Some(15)));
}

/// Idea 40: a result that was inserted is the call's; clearing forgets it.
#[test]
fn results_may_be_inserted_and_removed() {
    static BODIES: Bodies = Bodies::new();
    #[memoize(store = STORE, max_entries = 10_000)]
    fn precached(name: &str) -> u32 {
        name.len() as u32 + BODIES.run()
    }
    precached::insert("a", 42);
    assert_eq!((precached("a"), BODIES.count()), (42, 0));
    let info = precached::info();
    assert_eq!((info.hits, info.misses, info.entries, info.max_entries), (1, 0, 1, Some(10_000)));
    assert!(precached::remove("a"));
    assert!(!precached::remove("a"));
    assert_eq!((precached("a"), BODIES.count()), (2, 1));
    precached::clear();
    assert!(!precached::contains("a"));
    assert_eq!((precached("a"), BODIES.count()), (3, 2));
}

/// Idea 30: an age that is stricter, looser, zero, absent.
#[test]
fn one_call_may_want_a_younger_result() {
    static BODIES: Bodies = Bodies::new();
    #[memoize(store = STORE, ttl = "1h")]
    fn aged(number: u32) -> u32 {
        number + BODIES.run()
    }
    let at_most = |age| aged::with(CallOptions::new().max_age(age)).call(0);
    assert_eq!((aged(0), at_most(Duration::from_secs(3600)), at_most(Duration::MAX)), (1, 1, 1));
    assert_eq!((at_most(Duration::ZERO), aged(0)), (2, 2));
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!((at_most(Duration::from_millis(5)), aged(0)), (3, 3));
}

/// Tags may be made of the arguments.
#[test]
fn tags_are_kept_with_the_call() {
    #[memoize(store = STORE, tags = ["users".to_owned(), format!("user:{id}")])]
    fn tagged(id: u32) -> u32 {
        id
    }
    tagged(2);
    assert_eq!(tagged::call(2).unwrap().tags, ["users", "user:2"]);
}

/// What is in the log was written by the codec that was named, and is read by it.
#[test]
fn codecs_of_the_users_choice() {
    static OPENED: OnceLock<Store> = OnceLock::new();
    let directory = tempfile::tempdir().unwrap();
    let store = OPENED.get_or_init(|| Store::open(directory.path()).unwrap());
    static BODIES: Bodies = Bodies::new();
    #[memoize(store = OPENED, codec = Json)]
    fn as_json(number: u32) -> HashMap<String, u32> {
        BODIES.run();
        HashMap::from([("json".to_owned(), number)])
    }
    #[memoize(store = OPENED, codec = MessagePack)]
    fn as_message_pack(number: u32) -> HashMap<String, u32> {
        BODIES.run();
        HashMap::from([("pack".to_owned(), number)])
    }
    let computed = (as_json(42), as_message_pack(42));
    store.evict_all().unwrap();
    assert_eq!((as_json(42), as_message_pack(42)), computed);
    assert_eq!(BODIES.count(), 2);
    let files = fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().path());
    let bytes: Vec<u8> = files.filter(|file| file.is_file()).flat_map(|file| fs::read(file).unwrap()).collect();
    let is_written = |value: &[u8]| bytes.windows(value.len()).any(|window| window == value);
    assert!(is_written(b"{\"json\":42}"));
    assert!(is_written(b"\x81\xa4pack\x2a"));
}

/// The working directory may be part of the key.
#[test]
fn a_function_may_be_bound_to_its_directory() {
    #[memoize(store = STORE, isolate)]
    fn isolated(path: &Path) -> usize {
        path.as_os_str().len()
    }
    assert_eq!((isolated(Path::new("a")), isolated::contains(Path::new("a"))), (1, true));
    // No other test of this program has to do with the directory.
    let (before, other) = (env::current_dir().unwrap(), tempfile::tempdir().unwrap());
    env::set_current_dir(other.path()).unwrap();
    assert!(!isolated::contains(Path::new("a")) && isolated::query().iter().next().is_none());
    isolated(Path::new("ab"));
    assert_eq!(isolated::query().only().unwrap().result, 2);
    env::set_current_dir(before).unwrap();
    let found = isolated::query().only().unwrap();
    assert_eq!((found.result, found.arguments.names().collect::<Vec<_>>()), (1, vec!["path"]));
}

/// Durations may be constants, and times to live reach the entries.
#[test]
fn durations_may_be_constants() {
    const LONG: Duration = Duration::from_secs(60);
    #[memoize(store = STORE, ttl = LONG, wait_timeout = "30s")]
    fn timed(number: u32) -> u32 {
        number
    }
    timed(1);
    let left = timed::call(1).unwrap().ttl_left.unwrap();
    assert!(left <= LONG && left > LONG / 2, "{left:?}");
}

/// Idea 39: a deep refresh computes what is called within anew, each call once, and no caller.
#[test]
fn a_deep_refresh_goes_down_and_not_up() {
    static BODIES: Bodies = Bodies::new();
    #[memoize(store = STORE)]
    fn fibonacci(number: u64) -> u64 {
        BODIES.run();
        if number < 2 { number } else { fibonacci(number - 1) + fibonacci(number - 2) }
    }
    assert_eq!((fibonacci(30), BODIES.count()), (832_040, 31));
    assert_eq!(fibonacci::with(CallOptions::new().refresh()).call(29), 514_229);
    assert_eq!(BODIES.count(), 32, "what it is made of was there");
    assert_eq!(fibonacci::with(CallOptions::new().refresh_deep()).call(29), 514_229);
    assert_eq!(BODIES.count(), 62, "thirty calls, each once");
    assert_eq!((fibonacci(29), fibonacci(30), BODIES.count()), (514_229, 832_040, 62), "it is over");
}

/// What a deep refresh has begun ends with it, also by a panic.
#[test]
fn a_deep_refresh_that_panics_is_over() {
    static BODIES: Bodies = Bodies::new();
    #[memoize(store = STORE)]
    fn part(number: u64) -> u64 {
        BODIES.run();
        number
    }
    #[memoize(store = STORE)]
    fn whole(number: u64) -> u64 {
        let part = part(number);
        assert_ne!(BODIES.count(), 2, "this is when it panics");
        part
    }
    assert_eq!(whole(1), 1);
    let refresh = || whole::with(CallOptions::new().refresh_deep()).call(1);
    assert!(std::panic::catch_unwind(refresh).is_err());
    assert_eq!((part(1), BODIES.count()), (1, 2));
}

/// Idea 39: what overwrites by itself within a deep refresh is not computed again there.
#[test]
fn a_deep_refresh_computes_each_call_once() {
    static BODIES: Bodies = Bodies::new();
    #[memoize(store = STORE)]
    fn part(number: u64) -> u64 {
        BODIES.run();
        number
    }
    #[memoize(store = STORE)]
    fn whole(number: u64) -> u64 {
        part::with(CallOptions::new().refresh()).call(number) + part(number) + part(number)
    }
    assert_eq!(whole::with(CallOptions::new().refresh_deep()).call(1), 3);
    assert_eq!(BODIES.count(), 1);
}

/// Idea 39, for tasks: however often they are polled; others that the same thread polls meanwhile are left alone.
#[test]
fn a_deep_refresh_goes_down_in_tasks() {
    use std::{
        future::poll_fn,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    static BODIES: Bodies = Bodies::new();
    #[memoize(store = STORE)]
    async fn inner(number: u64) -> u64 {
        BODIES.run();
        number
    }
    #[memoize(store = STORE)]
    async fn outer(number: u64) -> u64 {
        let mut has_paused = false;
        let first = inner(number).await;
        poll_fn(|_| if std::mem::replace(&mut has_paused, true) { Poll::Ready(()) } else { Poll::Pending }).await;
        first + inner(number + 1).await + inner(number).await
    }
    let done = |future: &mut std::pin::Pin<&mut dyn Future<Output = u64>>| match future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    };
    let run = |future: &mut dyn Fn() -> std::pin::Pin<Box<dyn Future<Output = u64>>>| {
        let mut future = future();
        let mut future: std::pin::Pin<&mut dyn Future<Output = u64>> = future.as_mut();
        (done(&mut future), done(&mut future))
    };
    assert_eq!((run(&mut || Box::pin(outer(1))), BODIES.count()), ((None, Some(4)), 2));
    let refresh = |options: CallOptions| outer::with(options).call(1);
    assert_eq!(run(&mut || Box::pin(refresh(CallOptions::new().refresh()))), (None, Some(4)));
    assert_eq!(BODIES.count(), 2);
    let mut deep = pin!(refresh(CallOptions::new().refresh_deep()));
    assert_eq!((done(&mut (deep.as_mut() as _)), BODIES.count()), (None, 3));
    assert_eq!((pollster::block_on(inner(2)), BODIES.count()), (2, 3), "another task meets what is there");
    assert_eq!((done(&mut (deep.as_mut() as _)), BODIES.count()), (Some(4), 4));
    assert_eq!((pollster::block_on(inner(1)), BODIES.count()), (1, 4));
}
