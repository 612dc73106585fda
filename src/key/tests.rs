//! What keys have in common, and what tells them apart.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Serialize;

use super::*;

fn key<K: Serialize + ?Sized>(key: &K) -> EncodedKey {
    EncodedKey::of(key).unwrap()
}

fn are_distinct(keys: &[EncodedKey]) {
    let distinct: HashSet<_> = keys.iter().collect();
    assert_eq!(distinct.len(), keys.len(), "{keys:?}");
}

#[test]
fn borrowed_and_owned_forms_are_one_key() {
    assert_eq!(key("a"), key(&"a".to_owned()));
    assert_eq!(key(&[1u8, 2][..]), key(&vec![1u8, 2]));
    assert_eq!(key(&[1u8, 2]), key(&vec![1u8, 2]), "an array borrows as a slice");
    assert_eq!(key(&("a", 1u32)), key(&("a".to_owned(), 1u32)));
    assert_eq!(key(&Box::new(&7u64)), key(&7u64));
}

/// Idea 3: floats are told apart by their bits.
#[test]
fn floats_are_told_apart() {
    let nan = f64::NAN;
    are_distinct(&[-1.0, -2.0, 0.0, -0.0, nan, 0.5, 2f64.powi(60), f64::INFINITY, 314_159.0].map(|float| key(&float)));
    assert_eq!(key(&f64::from_bits(nan.to_bits())), key(&nan));
}

#[test]
fn types_and_borders_are_told_apart() {
    are_distinct(&[key(&1u8), key(&1u16), key(&1u32), key(&1u64), key(&1i64), key(&1u128), key(&true), key("1")]);
    are_distinct(&[key(&("ab", "c")), key(&("a", "bc")), key(&("abc",)), key("abc"), key(&("a", "b", "c"))]);
    are_distinct(&[key(&((1u8, 2u8), 3u8)), key(&(1u8, (2u8, 3u8))), key(&(1u8, 2u8, 3u8)), key(&[[1u8, 2], [3, 0]])]);
    are_distinct(&[key(&None::<u8>), key(&Some(0u8)), key(&()), key(""), key(&0u8), key(&Some(None::<u8>))]);
    are_distinct(&[key(&'a'), key("a"), key(&Vec::<u8>::new()), key(&vec![0u8])]);
    are_distinct(&[key(&"x".repeat(254)), key(&"x".repeat(255)), key(&"x".repeat(256))]);
}

#[test]
fn variants_and_fields_go_by_name() {
    #[derive(Serialize)]
    enum Shape {
        Dot,
        Circle(u32),
        Square(u32),
        Oblong { width: u32, height: u32 },
    }
    #[derive(Serialize, Default)]
    struct Sparse {
        #[serde(skip_serializing_if = "Option::is_none")]
        left: Option<u8>,
        #[serde(skip_serializing_if = "Option::is_none")]
        right: Option<u8>,
    }
    let oblong = |width, height| key(&Shape::Oblong { width, height });
    are_distinct(&[key(&Shape::Dot), key(&Shape::Circle(1)), key(&Shape::Square(1)), oblong(1, 2), oblong(2, 1)]);
    let left = Sparse { left: Some(1), ..Sparse::default() };
    let right = Sparse { right: Some(1), ..Sparse::default() };
    are_distinct(&[key(&left), key(&right), key(&Sparse::default())]);
}

/// Idea 4: equal maps and sets are one key, whatever order they are met in.
#[test]
fn hash_maps_and_sets_have_no_order() {
    #[derive(Serialize)]
    struct Nested {
        sets: Vec<HashSet<String>>,
        #[expect(clippy::box_collection, reason = "the name of its type is what this is about")]
        one: Option<Box<HashSet<u64>>>,
    }
    let words = |up: bool| {
        let words = (0..100).map(|word| (word * 7919 % 1000).to_string());
        let mut words: Vec<_> = words.collect();
        if up {
            words.sort();
        }
        words
    };
    for _ in 0..10 {
        // Each has hasher seeds of its own.
        let [one, other] = [true, false].map(|up| words(up).into_iter().collect::<HashSet<String>>());
        assert_eq!(key(&one), key(&other));
        assert_eq!(key(&&one), key(&Box::new(other.clone())));
        let nested = |set: &HashSet<String>, up: bool| {
            let numbers = words(up).iter().map(|word| word.parse().unwrap()).collect();
            key(&Nested { sets: vec![set.clone()], one: Some(Box::new(numbers)) })
        };
        assert_eq!(nested(&one, true), nested(&other, false));
        let [one, other] = [true, false].map(|up| words(up).into_iter().zip(0u8..50).collect::<HashMap<_, _>>());
        assert_eq!(key(&one) == key(&other), one == other);
        assert_eq!(key(&one), key(&one.clone().into_iter().collect::<BTreeMap<_, _>>()));
    }
    are_distinct(&[key(&HashSet::from([1u8])), key(&BTreeSet::from([1u8])), key(&HashMap::from([(1u8, ())]))]);
    assert_ne!(key(&vec![2u8, 1]), key(&vec![1u8, 2]), "the order of a sequence counts");
    assert_ne!(key(&[("a", "b")].into_iter().collect::<HashMap<_, _>>()), key(&HashMap::from([("b", "a")])));
}

#[test]
fn a_long_key_is_its_digest() {
    let long = "x".repeat(100_000);
    assert_eq!(key(&long).as_bytes().len(), 33);
    are_distinct(&[key(&long), key(&"x".repeat(100_001)), key(&"x".repeat(1_000)), key(&"y".repeat(100_000))]);
    assert_eq!(key(&long), key(long.as_str()));
}

#[test]
fn several_values_are_no_tuple() {
    let mut builder = KeyBuilder::new();
    builder.push("ab").unwrap();
    builder.push("c").unwrap();
    let mut other = KeyBuilder::new();
    other.push("a").unwrap();
    other.push("bc").unwrap();
    are_distinct(&[builder.finish(), other.finish(), key(&("ab", "c"))]);
}

#[test]
fn what_cannot_be_encoded_is_named() {
    struct Stubborn;
    impl Serialize for Stubborn {
        fn serialize<S: serde::Serializer>(&self, _: S) -> std::result::Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("not today"))
        }
    }
    let refused = EncodedKey::of(&Stubborn).unwrap_err().to_string();
    assert!(refused.contains("Stubborn") && refused.contains("not today"), "{refused}");
}

#[test]
fn maps_whose_order_is_seen_keep_it() {
    let object = |text: &str| serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).unwrap();
    // Sorted by itself, unless a feature keeps its order: then the order counts.
    let keys = [r#"{"a":1,"b":2}"#, r#"{"a":2,"b":1}"#].map(|text| key(&object(text)));
    assert_ne!(keys[0], keys[1]);
    assert_ne!(key(&object("{}")), key(&HashMap::<String, u8>::new()), "it is no hash map");
}

#[test]
fn keys_are_alike_whether_they_fit_the_stack_or_not() {
    let prefix = Prefix::of(70_000);
    for long in [0u8, 1, 20].into_iter().chain(30..60).chain([100, 254]) {
        let (text, mut builder) = ("x".repeat(long.into()), KeyBuilder::behind(&prefix));
        builder.push(&text).unwrap();
        builder.push(&7u64).unwrap();
        let expected = [&prefix[..], &[17, long], text.as_bytes(), &[12, 7, 0, 0, 0, 0, 0, 0, 0]].concat();
        assert_eq!(builder.finish_here().stored(), expected);
        let built = builder.finish();
        assert_eq!(built.stored(), expected);
        assert_eq!(built.as_bytes(), &expected[prefix.len()..]);
    }
}

#[test]
fn buffers_of_the_same_bytes_are_the_same() {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let hash = |buffer: &Buffer| {
        let mut hasher = DefaultHasher::new();
        buffer.hash(&mut hasher);
        hasher.finish()
    };
    let of = |bytes: &[u8]| {
        let mut buffer = Buffer::default();
        buffer.extend(bytes);
        buffer
    };
    let (mut long, short) = (of(&[7; 80]), of(&[7; 20]));
    assert!(long != short);
    long.truncate(60);
    assert_eq!(&*long, [7; 60]);
    long.truncate(20);
    assert!(long == short && hash(&long) == hash(&short));
    long.extend(&[8]);
    assert_eq!(&*long, [&[7; 20][..], &[8]].concat());
}
