//! Namespaces: whose a key is, by what it begins with.
//!
//! Holds how keys are stored, and what all who have a namespace open share; the catalog has the names. Never holds an entry. A key of
//! a namespace is stored behind [`MARK`] and the namespace's number, so that index, log and recovery know keys only; one of the
//! unnamed namespace as it is, unless it begins with [`MARK`] itself: then it stands behind the number 0. Invariant: no two keys of
//! different namespaces are stored alike.

use std::{
    borrow::Cow,
    fmt,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use thermocline_tiers::Guard;

use crate::{
    bound::{Bound, Limits},
    counters::Striped,
    flight::Flights,
};

/// What keys of namespaces begin with: two bytes that no text has.
const MARK: [u8; 2] = [0xff, 0xfe];
/// What the keys of a namespace begin with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// Zeros behind it.
    bytes: [u8; 8],
    len: u8,
}

impl Prefix {
    /// Of the namespace of this number.
    pub fn of(number: u32) -> Self {
        let mut prefix = Self { bytes: [MARK[0], MARK[1], 0, 0, 0, 0, 0, 0], len: 2 };
        let mut left = number;
        // Seven bits a byte, the lowest first; the last byte is below 128.
        loop {
            let is_last = left < 0x80;
            prefix.bytes[usize::from(prefix.len)] = (left & 0x7f) as u8 | if is_last { 0 } else { 0x80 };
            prefix.len += 1;
            left >>= 7;
            if is_last {
                return prefix;
            }
        }
    }

    /// It, and zeros behind it: copied as one word.
    #[inline]
    pub fn padded(&self) -> &[u8; 8] {
        &self.bytes
    }

    /// How many bytes it has, without the zeros.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        self.len.into()
    }

    /// `key` behind it.
    pub(crate) fn join(&self, key: &[u8]) -> Vec<u8> {
        [self, key].concat()
    }
}

impl Deref for Prefix {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prefix({:02x?})", &**self)
    }
}

/// A key of the unnamed namespace as it is stored.
pub fn unnamed(key: &[u8]) -> Cow<'_, [u8]> {
    if key.starts_with(&MARK) { Cow::Owned(Prefix::of(0).join(key)) } else { Cow::Borrowed(key) }
}

/// Whether a key of the unnamed namespace is stored in another way than as it is.
#[inline]
pub fn is_marked(key: &[u8]) -> bool {
    key.starts_with(&MARK)
}

/// The key of the unnamed namespace that is stored as `stored`; `None` if it is of another one.
#[inline]
pub(crate) fn as_unnamed(stored: &[u8]) -> Option<&[u8]> {
    if stored.starts_with(&MARK) { stored.strip_prefix(&*Prefix::of(0)) } else { Some(stored) }
}

/// The number of the namespace that a stored key is of, 0 for the unnamed one, and the key itself.
pub(crate) fn split(stored: &[u8]) -> (u32, &[u8]) {
    let Some(behind) = stored.strip_prefix(&MARK) else { return (0, stored) };
    let Some(last) = behind.iter().take(5).position(|byte| byte & 0x80 == 0) else { return (0, stored) };
    let (digits, key) = behind.split_at(last + 1);
    let number = digits.iter().rev().fold(0, |number, digit| number << 7 | u64::from(digit & 0x7f));
    (number as u32, key)
}

/// What is counted of one namespace.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tally {
    Hit,
    Miss,
    /// Misses because of bytes that are damaged, or that say nothing to those who ask.
    Unreadable,
    /// Hits whose caller computed all the same: what was there was too old.
    Aged,
}

impl From<Tally> for usize {
    fn from(tally: Tally) -> Self {
        tally as Self
    }
}

/// One namespace of a store, shared by all who have it open.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    fingerprint: u64,
    number: u32,
    prefix: Prefix,
    /// Entries of lower sequences are gone.
    cleared: AtomicU64,
    tally: Striped<Tally, 4>,
    pub(crate) bound: Bound,
    flights: Arc<Flights>,
}

impl Namespace {
    pub(crate) fn new(name: &str, fingerprint: u64, number: u32, cleared: u64, limits: Limits) -> Self {
        Self {
            name: name.to_owned(),
            fingerprint,
            number,
            prefix: Prefix::of(number),
            cleared: AtomicU64::new(cleared),
            tally: Striped::default(),
            bound: Bound::new(limits),
            flights: Arc::default(),
        }
    }

    /// What is being computed.
    #[inline]
    pub fn flights(&self) -> &Arc<Flights> {
        &self.flights
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its keys begin with.
    #[inline]
    pub fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// Counts the miss of a call that did not look: the store, which was not asked, does not count it.
    pub fn count_miss(&self) {
        self.count(Tally::Miss, &Guard::pin());
    }

    /// Makes a miss of a hit: what was found was too old for its caller.
    pub fn count_aged(&self) {
        self.count(Tally::Aged, &Guard::pin());
    }

    /// How many reads found what they asked for, and how many did not.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        // In this order: what has become a miss was counted as a hit before.
        let aged = self.tally.sum(Tally::Aged);
        (self.tally.sum(Tally::Hit).saturating_sub(aged), self.tally.sum(Tally::Miss) + aged)
    }

    /// How many of those met an entry that is damaged or could not be decoded.
    pub fn unreadable(&self) -> u64 {
        self.tally.sum(Tally::Unreadable)
    }

    /// How many entries it may have, and how many bytes.
    pub fn limits(&self) -> Limits {
        self.bound.limits()
    }

    /// Whether an entry that was written at `sequence` is still there, as far as clearing goes.
    #[inline]
    pub(crate) fn has(&self, sequence: u64) -> bool {
        // Acquire: pairs with the Release of who cleared it.
        sequence > self.cleared.load(Ordering::Acquire)
    }

    /// Has nothing that was written up to `sequence` from here on.
    pub(crate) fn clear(&self, sequence: u64) {
        // Release: who sees it finds no older entry, whoever wrote that.
        self.cleared.fetch_max(sequence, Ordering::Release);
    }

    /// What the meaning of its entries is known by.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// What its keys begin with, as a number.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Counts a read.
    #[inline]
    pub(crate) fn count(&self, tally: Tally, guard: &Guard) {
        self.tally.add_one(tally, guard);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn keys_of_different_namespaces_are_stored_differently() {
        let keys: [&[u8]; 6] = [b"", b"a", &MARK, &[0xff, 0xfe, 0], &[0xff, 0xfe, 0x80, 1], &[0x80]];
        let mut stored: Vec<_> = keys.iter().map(|key| unnamed(key).into_owned()).collect();
        for number in [1, 16, 127, 128, 129, 16_384, u32::MAX] {
            stored.extend(keys.iter().map(|key| Prefix::of(number).join(key)));
        }
        let count = stored.len();
        stored.sort();
        stored.dedup();
        assert_eq!(stored.len(), count);
        for key in keys {
            assert_eq!(as_unnamed(&unnamed(key)), Some(key));
            assert_eq!(as_unnamed(&Prefix::of(77).join(key)), None);
            for number in [0, 77, 128, u32::MAX] {
                assert_eq!(split(&Prefix::of(number).join(key)), (number, key));
            }
        }
    }
}
