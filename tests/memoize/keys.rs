//! Which calls are the same call.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ffi::OsStr,
    path::{Path, PathBuf},
};

use serde::Serialize;
use thermocline::memoize;

use crate::{Bodies, STORE};

/// Idea 1: however the arguments are spelled, one call is one body.
#[test]
fn borrowed_and_owned_spellings_are_one_call() {
    static BODIES: Bodies = Bodies::new();
    #[memoize(store = STORE)]
    fn spelled(name: &str, numbers: &[u32]) -> usize {
        BODIES.run();
        name.len() + numbers.len()
    }
    let (name, numbers) = (String::from("Nighthawks"), Vec::from([1, 2]));
    assert_eq!(spelled("Nighthawks", &[1, 2]), 12);
    assert_eq!(spelled(&name, &numbers), 12);
    assert_eq!(BODIES.count(), 1);
}

/// Idea 2: nothing, an empty text and zero are different.
#[test]
fn none_and_empty_and_zero_are_distinct() {
    #[derive(Serialize)]
    enum Any {
        Nothing,
        Text(String),
        Number(i64),
    }
    static BODIES: Bodies = Bodies::new();
    #[memoize(store = STORE)]
    fn any(all: Vec<Any>) -> u32 {
        let _ = &all;
        BODIES.run()
    }
    let empty = String::new;
    assert_eq!(any(vec![Any::Nothing]), 1);
    assert_eq!(any(vec![Any::Text(empty())]), 2);
    assert_eq!(any(vec![Any::Number(0)]), 3);
    assert_eq!(any(vec![]), 4);
    assert_eq!(any(vec![Any::Nothing, Any::Nothing]), 5);

    #[memoize(store = STORE)]
    fn optional(text: Option<&str>, other: &str) -> (bool, usize) {
        (text.is_some(), other.len())
    }
    assert_eq!(optional(None, ""), (false, 0));
    assert_eq!(optional(Some(""), ""), (true, 0));
    #[memoize(store = STORE)]
    fn joined(first: &str, second: &str) -> String {
        format!("{first}/{second}")
    }
    assert_eq!((joined("ab", "c"), joined("a", "bc")), ("ab/c".to_owned(), "a/bc".to_owned()));
}

/// Idea 3: numbers are what their bits are.
#[test]
fn floats_are_pairwise_distinct_and_equal_bits_are_equal() {
    static BODIES: Bodies = Bodies::new();
    #[memoize(store = STORE)]
    fn float(number: f64) -> u32 {
        let _ = number;
        BODIES.run()
    }
    let numbers = [-1.0, -2.0, 0.0, -0.0, f64::NAN, 0.5, 2f64.powi(60), f64::INFINITY, 314_159.0];
    let first: HashSet<u32> = numbers.into_iter().map(float).collect();
    assert_eq!(first.len(), numbers.len());
    let again: HashSet<u32> = numbers.into_iter().map(float).collect();
    assert_eq!((again, BODIES.count()), (first, numbers.len() as u32));
}

/// Idea 4: equal contents are equal, wherever they lie and in whatever order a hash map has them.
#[test]
fn equal_contents_are_one_call() {
    static BODIES: Bodies = Bodies::new();
    #[derive(Serialize)]
    struct Nested {
        map: HashMap<String, HashSet<u32>>,
        sorted: BTreeMap<u8, Option<char>>,
    }
    #[memoize(store = STORE)]
    fn contents(nested: &Nested) -> usize {
        BODIES.run();
        nested.map.len() + nested.sorted.len()
    }
    for turn in 0..20 {
        let mut names: Vec<u32> = (0..30).collect();
        names.rotate_left(turn);
        // Each map has a hasher of its own.
        let map =
            names.iter().map(|name| (name.to_string(), names.iter().map(|other| other * name).collect())).collect();
        assert_eq!(contents(&Nested { map, sorted: BTreeMap::from([(1, None), (2, Some('x'))]) }), 32);
    }
    assert_eq!(BODIES.count(), 1);
}

mod first {
    #[thermocline::memoize(store = crate::STORE)]
    pub(super) fn load(number: u32) -> String {
        format!("first {number}")
    }
}

mod second {
    #[thermocline::memoize(store = crate::STORE)]
    pub(super) fn load(number: u32) -> String {
        format!("second {number}")
    }
}

/// Idea 5: namesakes in other modules, and in the bodies of other functions, share nothing.
#[test]
fn namesakes_share_nothing() {
    fn one() -> String {
        #[memoize(store = STORE)]
        fn load(number: u32) -> String {
            format!("one {number}")
        }
        load(1)
    }
    fn blocks() -> (String, String) {
        let third = {
            #[memoize(store = STORE)]
            fn load(number: u32) -> String {
                format!("third {number}")
            }
            load(1)
        };
        let fourth = {
            #[memoize(store = STORE)]
            fn load(number: u32) -> String {
                format!("fourth {number}")
            }
            load(1)
        };
        (third, fourth)
    }
    fn types() -> (String, String) {
        let fifth = {
            struct Local;
            impl Local {
                #[memoize(store = STORE, ignore(self))]
                fn load(&self, number: u32) -> String {
                    format!("fifth {number}")
                }
            }
            Local.load(1)
        };
        let sixth = {
            struct Local;
            impl Local {
                #[memoize(store = STORE, ignore(self))]
                fn load(&self, number: u32) -> String {
                    format!("sixth {number}")
                }
            }
            Local.load(1)
        };
        (fifth, sixth)
    }
    fn generics() -> (String, String) {
        let seventh = {
            #[memoize(store = STORE)]
            fn load<T: Serialize + std::fmt::Display>(thing: T) -> String {
                format!("seventh {thing}")
            }
            load(1)
        };
        let eighth = {
            #[memoize(store = STORE)]
            fn load<T: Serialize + std::fmt::Display>(thing: T) -> String {
                format!("eighth {thing}")
            }
            load(1)
        };
        (seventh, eighth)
    }
    for _ in 0..2 {
        assert_eq!((first::load(1), second::load(1)), ("first 1".to_owned(), "second 1".to_owned()));
        assert_eq!(one(), "one 1");
        assert_eq!(blocks(), ("third 1".to_owned(), "fourth 1".to_owned()));
        assert_eq!(types(), ("fifth 1".to_owned(), "sixth 1".to_owned()));
        assert_eq!(generics(), ("seventh 1".to_owned(), "eighth 1".to_owned()));
    }
    assert_ne!(first::load::key(1), second::load::key(1));
}

/// Idea 6: clearing `foo` leaves `foo_bar`.
#[test]
fn clearing_one_leaves_a_longer_name() {
    #[memoize(store = STORE)]
    fn foo(number: u32) -> u32 {
        number
    }
    #[memoize(store = STORE)]
    fn foo_bar(number: u32) -> u32 {
        number
    }
    foo(1);
    foo_bar(1);
    foo::clear();
    assert!(!foo::contains(1));
    assert!(foo_bar::contains(1));
}

/// Idea 10: what is the same again hits, what has changed does not.
#[test]
fn a_mutated_argument_is_another_call() {
    static BODIES: Bodies = Bodies::new();
    #[memoize(store = STORE)]
    fn total(mut numbers: Vec<u32>) -> u32 {
        BODIES.run();
        numbers.push(1);
        numbers.iter().sum()
    }
    let mut numbers = vec![1, 2];
    assert_eq!((total(numbers.clone()), total(numbers.clone()), BODIES.count()), (4, 4, 1));
    numbers.push(1);
    assert_eq!((total(numbers), BODIES.count()), (5, 2));
}

/// Idea 11: what cannot be encoded runs uncached, is counted, and is found by no query.
#[test]
fn what_cannot_be_encoded_runs_uncached() {
    struct Sealed;
    impl Serialize for Sealed {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("sealed"))
        }
    }
    static BODIES: Bodies = Bodies::new();
    #[memoize(store = STORE)]
    fn sealed(one: &Sealed) -> u32 {
        let _ = one;
        BODIES.run()
    }
    let before = thermocline::memo::failures();
    assert_eq!((sealed(&Sealed), sealed(&Sealed)), (1, 2));
    assert!(thermocline::memo::failures() >= before + 2);
    assert!(!sealed::contains(&Sealed));
    assert_eq!(sealed::query().one(&Sealed).iter().count(), 0);
    assert_eq!(sealed::query().iter().count(), 0);
}

/// Paths are their bytes: they need not be text.
#[test]
fn paths_need_not_be_text() {
    use std::os::unix::ffi::OsStrExt;

    static BODIES: Bodies = Bodies::new();
    #[memoize(store = STORE)]
    fn path(path: &Path, owned: PathBuf, other: Option<&Path>) -> usize {
        BODIES.run();
        path.as_os_str().len() + owned.as_os_str().len() + usize::from(other.is_some())
    }
    let (odd, other) = (Path::new(OsStr::from_bytes(b"\xff\xfe")), Path::new(OsStr::from_bytes(b"\xff\xfd")));
    for _ in 0..2 {
        assert_eq!(path(odd, odd.into(), None), 4);
        assert_eq!(path(odd, other.into(), Some(odd)), 5);
        assert_eq!(path(odd, odd.into(), Some(Path::new(""))), 5);
    }
    assert_eq!(BODIES.count(), 3, "had one not been encoded, it would have run again");
    assert_eq!(path::query().owned(other.into()).only().unwrap().result, 5);
    assert_eq!(path::info().entries, 3);
}

/// A number of another type is another number, and arguments keep to their places.
#[test]
fn types_and_places_are_told_apart() {
    static BODIES: Bodies = Bodies::new();
    #[memoize(store = STORE)]
    fn pair<A: Serialize, B: Serialize>(a: A, b: B) -> u32 {
        let _ = (&a, &b);
        BODIES.run()
    }
    assert_eq!((pair(1u8, 2u8), pair(1u32, 2u8), pair(2u8, 1u8), pair(1u8, 2u8)), (1, 2, 3, 1));
    assert!(pair::contains(1u8, 2u8));
    assert!(!pair::contains(1u64, 2u8));
}

/// The digest of a call is the same for the same call only, and printed in hexadecimal.
#[test]
fn the_key_of_a_call_is_a_digest() {
    #[memoize(store = STORE)]
    fn digested(text: &str, number: u32) -> u32 {
        number + text.len() as u32
    }
    let key = digested::key("a", 1);
    assert_eq!(key, digested::key(&String::from("a"), 1));
    assert_ne!(key, digested::key("a", 2));
    assert_eq!(key.to_string().len(), 64);
    assert!(key.to_string().bytes().all(|byte| byte.is_ascii_hexdigit()));
}
