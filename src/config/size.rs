//! Sizes as people write them: `256 MiB`, `10KB`, `1.5 MB`, or a plain number of bytes.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

const UNITS: [(&str, u64); 10] = [
    ("", 1),
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(u64);

impl Size {
    pub(super) const fn bytes(self) -> u64 {
        self.0
    }

    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim().to_ascii_lowercase();
        let found = UNITS.iter().find(|(name, _)| *name == unit);
        let (_, unit_bytes) =
            found.ok_or_else(|| format!("`{text}`: `{unit}` is no unit of size; take B, KB, KiB, MB, MiB, …"))?;
        let number = number.replace('_', "");
        let whole = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*unit_bytes));
        let part = || {
            number
                .parse::<f64>()
                .ok()
                .map(|number| (number * *unit_bytes as f64) as u64)
                .filter(|_| number.contains('.'))
        };
        whole.or_else(part).map(Self).ok_or_else(|| format!("`{text}` is no size"))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size as \"256 MiB\", or a number of bytes")
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
                u64::try_from(bytes).map(Size).map_err(|_| E::custom("a size below zero"))
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
                Ok(Size(bytes))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                Size::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Idea 33: sizes as people write them, and what is none is refused.
    #[test]
    fn sizes_are_read_as_people_write_them() {
        let bytes = |text| Size::parse(text).map(Size::bytes);
        assert_eq!(bytes("10KB"), Ok(10_000));
        assert_eq!(bytes("1.5 MB"), Ok(1_500_000));
        assert_eq!(bytes("256 MiB"), Ok(256 << 20));
        assert_eq!(bytes("1_024"), Ok(1024));
        assert_eq!(bytes("60B"), Ok(60));
        for bad in ["", "MB", "ten KB", "-1", "1.5.2 MB", "10 parsecs", "99999999999 TiB"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
