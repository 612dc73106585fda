//! Size classes: how a block is cut into places of one size.
//!
//! Holds arithmetic only. Invariant: a record gets a place that is large enough, and at most an eighth of it is waste
//! (a quarter in the few classes above 4 KiB).

/// Bytes of a block.
pub(super) const BLOCK_BYTES: u64 = 64 << 10;
/// Bytes of a page: what records too large for a place in a block are rounded up to.
pub(super) const PAGE_BYTES: u64 = 4 << 10;
/// Pages of a block.
pub(super) const BLOCK_PAGES: usize = (BLOCK_BYTES / PAGE_BYTES) as usize;

/// The smallest place, and up to where there is a class for every multiple of eight.
const BYTES_MIN: u64 = 32;
const BYTES_FINE: u64 = 512;
const FINE: usize = ((BYTES_FINE - BYTES_MIN) / 8 + 1) as usize;
/// Places of a block in the classes above: about 6 % fewer from class to class.
const COARSE: [u16; 42] = [
    120, 112, 105, 98, 92, 86, 80, 75, 70, 65, 61, 57, 53, 50, 47, 44, 41, 38, 36, 33, 31, 29, 27, 25, 23, 21, 20, 18,
    17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4,
];
/// The class of a record of which this many fit into a block.
const CLASS_BY_FIT: [u8; 128] = class_by_fit();

/// How many classes there are.
pub(super) const CLASSES: usize = FINE + COARSE.len();

const fn class_by_fit() -> [u8; 128] {
    let mut classes = [u8::MAX; 128];
    let mut fit = COARSE[COARSE.len() - 1] as usize;
    while fit < classes.len() {
        let mut class = 0;
        while COARSE[class] as usize > fit {
            class += 1;
        }
        classes[fit] = (FINE + class) as u8;
        fit += 1;
    }
    classes
}

/// A size of places; `CLASSES` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SizeClass(u8);

impl SizeClass {
    /// The class for records of `bytes`; `None` if they need pages of their own.
    #[inline]
    pub(super) fn of(bytes: u64) -> Option<Self> {
        if bytes <= BYTES_FINE {
            return Some(Self((bytes.max(BYTES_MIN).div_ceil(8) - BYTES_MIN / 8) as u8));
        }
        // Places are multiples of eight, so bytes are before they are divided.
        let class = *CLASS_BY_FIT.get((BLOCK_BYTES / bytes.next_multiple_of(8)) as usize)?;
        (class != u8::MAX).then_some(Self(class))
    }

    #[inline]
    pub(super) fn index(self) -> usize {
        self.0.into()
    }

    /// Bytes of a place.
    #[inline]
    pub(super) fn bytes(self) -> u64 {
        match self.index().checked_sub(FINE) {
            None => BYTES_MIN + 8 * u64::from(self.0),
            Some(coarse) => (BLOCK_BYTES / u64::from(COARSE[coarse])) & !7,
        }
    }

    /// Places of a block.
    #[inline]
    pub(super) fn places(self) -> usize {
        (BLOCK_BYTES / self.bytes()) as usize
    }

    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..CLASSES as u8).map(Self)
    }
}

/// Bytes that a record of `bytes` takes.
#[inline]
pub(super) fn rounded(bytes: u64) -> u64 {
    SizeClass::of(bytes).map_or_else(|| bytes.next_multiple_of(PAGE_BYTES), SizeClass::bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_fits_its_place_and_wastes_little() {
        for bytes in 24..=BLOCK_BYTES {
            let place = rounded(bytes);
            assert!(place >= bytes && place.is_multiple_of(8), "{bytes} bytes in {place}");
            let waste_max = if bytes <= BYTES_FINE {
                8
            } else if bytes <= PAGE_BYTES {
                bytes / 8
            } else {
                bytes / 4
            };
            assert!(place - bytes <= waste_max.max(8) + 8, "{bytes} bytes in {place}");
        }
    }

    #[test]
    fn classes_grow_and_fill_their_blocks() {
        let sizes: Vec<_> = SizeClass::all().map(SizeClass::bytes).collect();
        assert!(sizes.is_sorted_by(|a, b| a < b), "{sizes:?}");
        for class in SizeClass::all() {
            assert_eq!(SizeClass::of(class.bytes()), Some(class));
            let left = BLOCK_BYTES - class.bytes() * class.places() as u64;
            assert!(left < class.bytes(), "{class:?}");
        }
        assert_eq!(SizeClass::of(16 << 10).map(SizeClass::places), Some(4));
        assert_eq!(SizeClass::of((16 << 10) + 1), None);
    }
}
