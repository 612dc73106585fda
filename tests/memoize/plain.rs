//! The expansion brings no warnings of its own, and nothing of it gets in the user's way.
#![deny(warnings)]

use pollster::block_on;
use thermocline::memoize;

use crate::STORE;

mod inner {
    use super::{STORE, memoize};

    /// Doubles.
    #[memoize(store = STORE, ttl = "15m", max_entries = 10_000)]
    pub(super) fn double(number: u32) -> u32 {
        number * 2
    }

    #[derive(Clone, serde::Serialize)]
    pub(super) struct Shape(pub(super) u32);

    impl Shape {
        /// Its size.
        #[memoize(store = STORE, ignore(factor))]
        pub(super) fn size(&self, factor: u32) -> Option<u32> {
            Some(self.0 * factor)
        }
    }
}

#[memoize(store = STORE)]
fn largest<'a, T>(first: &'a T, second: &'a T) -> T
where
    T: Ord + Clone + serde::Serialize + serde::de::DeserializeOwned + Send + Sync + 'static,
{
    first.max(second).clone()
}

#[memoize(store = STORE)]
async fn later(number: u32) -> Result<u32, std::io::Error> {
    Ok(number)
}

#[test]
fn the_expansion_brings_no_warnings() {
    assert_eq!(inner::double(2), 4);
    assert_eq!(inner::double::info().misses, 1);
    assert_eq!(inner::Shape(3).size(2), Some(6));
    assert!(inner::Shape::size_memo().contains(&inner::Shape(3), 9), "an ignored argument is not in the key");
    assert_eq!(largest(&1, &2), 2);
    assert!(block_on(later(1)).is_ok());
}
