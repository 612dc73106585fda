//! What is remembered of a key's accesses, in 16 bits.
//!
//! Holds the layout, and how an access changes it; never what it means for who leaves. Zero means that the key was
//! never seen. A key that came once has no interval; the field then holds how large its entry was.
//!
//! ```text
//! bits 15..8  tick of the last access, wrapping
//! bits  7..3  interval between accesses, smoothed, in quarter octaves of ticks; size octave while the count is 1
//! bits  2..0  accesses in different ticks, saturating; 0 only in a key never seen
//! ```

const COUNT_BITS: u32 = 3;

/// The highest count there is.
pub(crate) const COUNT_MAX: u8 = (1 << COUNT_BITS) - 1;

const INTERVAL_MAX: u8 = (1 << (8 - COUNT_BITS)) - 1;

/// Ages from here on are those of keys that seem to be accessed in the future: a thread has read the clock a little
/// before another moved it.
pub(crate) const AGES: u8 = 240;

/// The history of one key: when it was last accessed (in ticks), how long its reuse interval was, how often it came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct History(u16);

impl History {
    /// Never seen.
    pub const NEW: Self = Self(0);

    /// What [`to_bits`](Self::to_bits) gave.
    #[inline]
    pub fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// The history in a form that can be stored.
    #[inline]
    pub fn to_bits(self) -> u16 {
        self.0
    }

    /// The tick of the last access: the highest eight bits.
    #[inline]
    pub fn tick(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Everything but the tick: keys that are alike in this are expected to behave alike.
    #[inline]
    pub(crate) fn class(self) -> u8 {
        self.0 as u8
    }

    /// How many ticks ago the last access was. A key not accessed for longer than the clock takes to come round looks
    /// younger than it is.
    #[inline]
    pub(crate) fn age(self, now: u8) -> u8 {
        let age = now.wrapping_sub(self.tick());
        if age < AGES { age } else { 0 }
    }

    /// Accesses in different ticks; 0 if there was none.
    #[inline]
    pub(crate) fn count(self) -> u8 {
        count_of(self.class())
    }

    /// About how often the key came: 1 to 7, or 0 if it was never seen.
    pub fn access_count(self) -> u64 {
        self.count().into()
    }

    /// Whether the key came more than once, the last time within the half of the clock's round that lies behind `now`.
    pub fn came_back(self, now: u8) -> bool {
        self.count() > 1 && self.age(now) < 128
    }

    /// The history after an access at tick `now` to an entry of `weight` bytes.
    #[inline]
    pub(crate) fn accessed(self, now: u8, weight: u32) -> Self {
        let count = self.count();
        let interval = match count {
            0 => size_octave(weight),
            1 => quarter_octaves(self.age(now)),
            _ => (interval_of(self.class()) + quarter_octaves(self.age(now))).div_ceil(2),
        };
        Self::pack(now, interval, (count + 1).min(COUNT_MAX))
    }

    fn pack(tick: u8, interval: u8, count: u8) -> Self {
        Self(u16::from(tick) << 8 | u16::from(interval << COUNT_BITS | count))
    }
}

/// The count in a class.
#[inline]
pub(crate) fn count_of(class: u8) -> u8 {
    class & COUNT_MAX
}

/// The interval in a class, or the size octave.
#[inline]
pub(crate) fn interval_of(class: u8) -> u8 {
    class >> COUNT_BITS
}

/// `log2` of the age, times four.
fn quarter_octaves(age: u8) -> u8 {
    const TABLE: [u8; 256] = quarter_octave_table();
    TABLE[usize::from(age)]
}

const fn quarter_octave_table() -> [u8; 256] {
    let mut table = [0; 256];
    let mut age = 1;
    while age < 256 {
        // The rounded logarithm of age^4 to the base of 2: half an octave of the square is a quarter of the octave.
        let fourth = (age as u64).pow(4);
        let octave = fourth.ilog2();
        let rounds_up = (fourth as u128).pow(2) >= 1 << (2 * octave + 1);
        let value = octave as u8 + rounds_up as u8;
        table[age] = if value < INTERVAL_MAX { value } else { INTERVAL_MAX };
        age += 1;
    }
    table
}

fn size_octave(weight: u32) -> u8 {
    ((u32::BITS - weight.leading_zeros()) as u8).min(INTERVAL_MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn intervals_are_logarithms() {
        for age in 1..=255_u8 {
            let expected = (4.0 * f64::from(age).log2()).round().min(31.0);
            assert_eq!(f64::from(quarter_octaves(age)), expected, "{age}");
        }
        assert_eq!(quarter_octaves(0), 0);
    }

    #[test]
    fn a_key_seen_is_never_like_a_new_one() {
        for weight in [0, 1, 1000, u32::MAX] {
            assert_ne!(History::NEW.accessed(0, weight), History::NEW);
        }
    }

    #[test]
    fn a_tick_of_the_future_is_now() {
        assert_eq!(History::NEW.accessed(5, 1).age(4), 0);
        assert_eq!(History::NEW.accessed(5, 1).age(9), 4);
        assert_eq!(History::NEW.accessed(250, 1).age(2), 8);
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back(tick: u8, interval in 0..=INTERVAL_MAX, count in 0..=COUNT_MAX) {
            let history = History::pack(tick, interval, count);
            prop_assert_eq!(history.tick(), tick);
            prop_assert_eq!(interval_of(history.class()), interval);
            prop_assert_eq!(history.count(), count);
            prop_assert_eq!(History::from_bits(history.to_bits()), history);
        }

        #[test]
        fn any_bits_can_be_accessed(bits: u16, now: u8, weight: u32) {
            let before = History::from_bits(bits);
            let after = before.accessed(now, weight);
            prop_assert_eq!(after.tick(), now);
            prop_assert_eq!(after.count(), (before.count() + 1).min(COUNT_MAX));
        }
    }
}
