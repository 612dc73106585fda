//! Plain values of at most eight bytes as words: those are shown out of the record, and no step is taken to where they are shared.
//!
//! Holds which types are plain. Invariant: what is shown is what was kept. Which type it is, is known when this is compiled.

use std::any::Any;

macro_rules! words {
    ($($plain:ty, $to:expr, $from:expr;)*) => {
        /// The word of a value; 0 for one that is not plain.
        #[inline]
        pub(super) fn word_of<V: Any>(value: &V) -> u64 {
            let value: &dyn Any = value;
            $(if let Some(plain) = value.downcast_ref::<$plain>() {
                return $to(*plain);
            })*
            0
        }

        /// Shows the value of a word; gives `show` back if the type is not plain.
        #[inline]
        pub(super) fn show_word<V: Any, R, F: FnOnce(&V) -> R>(word: u64, show: F) -> Result<R, F> {
            $(let plain: $plain = $from(word);
            if let Some(value) = (&plain as &dyn Any).downcast_ref() {
                return Ok(show(value));
            })*
            Err(show)
        }
    };
}

words! {
    u64, |value| value, |word| word;
    i64, |value: i64| value as u64, |word| word as i64;
    usize, |value: usize| value as u64, |word| word as usize;
    isize, |value: isize| value as u64, |word| word as isize;
    u32, u64::from, |word| word as u32;
    i32, |value: i32| value as u64, |word| word as i32;
    u16, u64::from, |word| word as u16;
    i16, |value: i16| value as u64, |word| word as i16;
    u8, u64::from, |word| word as u8;
    i8, |value: i8| value as u64, |word| word as i8;
    bool, u64::from, |word| word != 0;
    char, u64::from, |word| char::from_u32(word as u32).unwrap_or_default();
    f64, f64::to_bits, f64::from_bits;
    f32, |value: f32| u64::from(value.to_bits()), |word| f32::from_bits(word as u32);
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    fn is_plain<V: Any + Clone + PartialEq + Debug>(values: &[V]) {
        for value in values {
            assert_eq!(show_word(word_of(value), V::clone).ok().as_ref(), Some(value));
        }
    }

    #[test]
    fn plain_values_are_what_they_were() {
        is_plain(&[0, 1, u64::MAX]);
        is_plain(&[0, -1, i64::MIN, i64::MAX]);
        is_plain(&[0, usize::MAX]);
        is_plain(&[0, -1, isize::MIN, isize::MAX]);
        is_plain(&[0, u32::MAX]);
        is_plain(&[0, -1, i32::MIN, i32::MAX]);
        is_plain(&[0, u16::MAX]);
        is_plain(&[0, -1, i16::MIN, i16::MAX]);
        is_plain(&[0, u8::MAX]);
        is_plain(&[0, -1, i8::MIN, i8::MAX]);
        is_plain(&[false, true]);
        is_plain(&['\0', 'a', char::MAX]);
        is_plain(&[0.0, -0.5, f64::MAX, f64::INFINITY]);
        is_plain(&[0.0, -0.5, f32::MAX, f32::INFINITY]);
        assert!(show_word(word_of(&-0.0), |zero: &f64| zero.is_sign_negative()).unwrap_or(false));
    }

    #[test]
    fn others_are_not() {
        assert!(show_word::<String, _, _>(word_of(&"7".to_owned()), |_| ()).is_err());
        assert!(show_word::<[u8; 8], _, _>(word_of(&[7_u8; 8]), |_| ()).is_err());
        assert!(show_word::<Option<u32>, _, _>(word_of(&Some(7_u32)), |_| ()).is_err());
    }
}
