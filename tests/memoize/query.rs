//! Calls, and queries for them.

use std::time::Duration;

use thermocline::{memo::NotOne, memoize};

use crate::STORE;

/// Idea 47: by argument, by wildcard, by result, by what is known of the call, several at once; the results follow changes.
#[test]
fn queries_find_calls() {
    #[memoize(store = STORE, ttl = "1h")]
    fn appraise(painting: &str, year: u32) -> Option<u64> {
        (year > 1900).then_some(painting.len() as u64 * u64::from(year))
    }
    for (painting, year) in [("Nighthawks", 1942), ("Gas", 1940), ("Automat", 1927), ("Automat", 1942)] {
        appraise(painting, year);
    }
    assert_eq!(appraise::query().iter().count(), 4);
    assert_eq!(appraise::query().year(1942).iter().count(), 2);
    assert_eq!(appraise::query().painting("Automat").year(1942).iter().count(), 1);
    assert_eq!(appraise::query().painting("Nobody").iter().count(), 0);
    assert_eq!(appraise::query().iter().take(0).count(), 0);
    let dear =
        |call: &thermocline::Call<Option<u64>>| call.result > Some(10_000) && call.duration < Duration::from_secs(60);
    assert_eq!(appraise::query().iter().filter(dear).filter(|call| call.ttl_left.is_some()).count(), 3);

    let call = appraise::query().painting("Gas").only().unwrap();
    assert_eq!(call.arguments.get::<String>("painting").as_deref(), Some("Gas"));
    assert_eq!(call.arguments.get::<u32>("year"), Some(1940));
    assert_eq!(call.arguments.names().collect::<Vec<_>>(), ["painting", "year"]);
    assert_eq!(format!("{:?}", call.arguments), r#"{painting: "Gas", year: 1940}"#);
    assert_eq!((call.result, call.key), (Some(5820), appraise::key("Gas", 1940)));
    assert!(call.created.elapsed().unwrap() < Duration::from_secs(60));
    assert_eq!(appraise::query().painting("Nobody").only().unwrap_err(), NotOne::None);
    assert_eq!(appraise::query().year(1942).only().unwrap_err(), NotOne::Many);

    appraise::remove("Automat", 1942);
    assert_eq!(appraise::query().year(1942).only().unwrap().result, Some(19_420));
    appraise::insert("Automat", 1942, Some(1));
    assert_eq!(appraise::query().painting("Automat").year(1942).only().unwrap().result, Some(1));
    appraise::clear();
    assert_eq!(appraise::query().iter().count(), 0);
}

#[test]
fn a_call_shows_what_is_kept_of_it() {
    #[memoize(store = STORE)]
    fn slow(number: u32) -> u32 {
        std::thread::sleep(Duration::from_millis(20));
        number
    }
    assert!(slow::call(1).is_none());
    slow(1);
    let call = slow::call(1).unwrap();
    assert_eq!((call.result, call.arguments.get::<u32>("number"), call.key), (1, Some(1), slow::key(1)));
    assert!(call.duration >= Duration::from_millis(20), "{:?}", call.duration);
    assert!(!call.is_stale && call.ttl_left.is_none());
}

/// A long argument is found, and not kept.
#[test]
fn long_arguments_are_not_kept_to_be_shown() {
    #[memoize(store = STORE)]
    fn length(text: &str, number: u32) -> usize {
        text.len() + number as usize
    }
    let (long, short) = ("x".repeat(5000), "x".repeat(3000));
    assert_eq!((length(&long, 1), length(&short, 1)), (5001, 3001));
    let call = length::query().text(&long).number(1).only().unwrap();
    assert_eq!(
        (call.result, call.arguments.get::<String>("text"), call.arguments.get("number")),
        (5001, None, Some(1))
    );
    assert_eq!(format!("{:?}", call.arguments), "{text: \u{2026}, number: 1}");
    assert_eq!(length::call(&short, 1).unwrap().arguments.get::<String>("text"), Some(short));
}
