//! Keys between a person and the store: typed as text or hexadecimal digits, shown so that a terminal
//! survives them. What is shown is for reading; rows in JSON carry every byte.

use std::ffi::OsStr;

use crate::outcome::Failure;

/// Keys are shown up to this length; a table is no place for 64 KiB of key.
const SHOWN_CHARS_MAX: usize = 256;

/// Reads pairs of hexadecimal digits.
pub(crate) fn from_hex(typed: &OsStr) -> Result<Vec<u8>, Failure> {
    let digits = typed.as_encoded_bytes();
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => Some((digit(*high)? << 4) | digit(*low)?),
        _ => None,
    });
    pairs.collect::<Option<_>>().ok_or_else(|| {
        Failure::Told(format!("key {} is not hexadecimal, expected pairs of the digits 0-9 and a-f", escaped(digits)))
    })
}

fn digit(character: u8) -> Option<u8> {
    // `to_digit(16)` is below 16, so the cast keeps it.
    char::from(character).to_digit(16).map(|value| value as u8)
}

/// Writes bytes as pairs of hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    shortened(bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|half| char::from_digit(half.into(), 16)))
}

/// Writes bytes as text: what is no UTF-8 as `\xNN`, what does not print as Rust would write it.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for part in chunk.valid().split_inclusive(['"', '\'']) {
            // A quote would be escaped too, for no good: nothing stands between quotes here.
            let plain = part.trim_end_matches(['"', '\'']);
            text.extend(plain.escape_debug());
            text.push_str(&part[plain.len()..]);
        }
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    shortened(text.chars())
}

/// At most [`SHOWN_CHARS_MAX`] characters, the last of them a sign that more follow.
fn shortened(mut characters: impl Iterator<Item = char>) -> String {
    let mut text: String = characters.by_ref().take(SHOWN_CHARS_MAX).collect();
    if characters.next().is_some() {
        text.pop();
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_shown_so_that_a_terminal_survives_them() {
        assert_eq!(escaped(b"user:1"), "user:1");
        assert_eq!(escaped(b"\x1b[31m\n\xff"), "\\u{1b}[31m\\n\\xff");
        assert_eq!(escaped("{\"ключ\":'नमस्ते'}".as_bytes()), "{\"ключ\":'नमस्ते'}");
        assert_eq!(escaped(&[b'a'; 70_000]).chars().count(), SHOWN_CHARS_MAX);
        assert_eq!(hex(&[0, 0xab]), "00ab");
    }

    #[test]
    fn hexadecimal_digits_come_in_pairs() {
        assert_eq!(from_hex(OsStr::new("00aBff")).ok(), Some(vec![0, 0xab, 0xff]));
        assert_eq!(from_hex(OsStr::new("")).ok(), Some(vec![]));
        assert!(from_hex(OsStr::new("abc")).is_err());
        assert!(from_hex(OsStr::new("+1")).is_err());
        assert!(from_hex(OsStr::new("zz")).is_err());
    }
}
