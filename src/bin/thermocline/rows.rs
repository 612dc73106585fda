//! Rows: one JSON object a line, the form that programs and other tools read and write.
//!
//! `{"key": …, "value": …, "ttl_ms": …}`. What is no UTF-8 stands under `key_base64` and `value_base64`;
//! `ttl_ms` is what is left to live, and absent for ever. Invariant: a row read back is the row written.

use std::{
    io::{self, BufRead, Write},
    time::UNIX_EPOCH,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{
    Deserialize,
    ser::{SerializeMap, Serializer},
};
use serde_json::error::Category;
use thermocline::{Metadata, Tier};

use crate::{
    entry::{Broken, Entry, Found, Place},
    output::ttl_ms,
};

const EXPECTED: &str = r#"{"key": …, "value": …}"#;

/// The two names under which bytes can stand.
struct Names {
    text: &'static str,
    base64: &'static str,
}

const KEY: Names = Names { text: "key", base64: "key_base64" };
const VALUE: Names = Names { text: "value", base64: "value_base64" };

/// Writes an entry's row.
pub(crate) fn write_entry<W: Write>(out: W, key: &[u8], value: &[u8], ttl_ms: Option<u64>) -> io::Result<()> {
    write(out, |row| {
        put(row, &KEY, key)?;
        put(row, &VALUE, value)?;
        put_ttl(row, ttl_ms)
    })
}

/// Writes the row of a key that is not there.
pub(crate) fn write_missing<W: Write>(out: W, key: &[u8]) -> io::Result<()> {
    write(out, |row| {
        put(row, &KEY, key)?;
        row.serialize_entry("value", &())
    })
}

/// Writes the row of a key whose record cannot be read; it has no value, and never a wrong one.
pub(crate) fn write_damaged<W: Write>(out: W, key: &[u8], what: &str) -> io::Result<()> {
    write(out, |row| {
        put(row, &KEY, key)?;
        row.serialize_entry("error", what)
    })
}

/// Writes what is known of an entry.
pub(crate) fn write_metadata<W: Write>(out: W, key: &[u8], metadata: &Metadata) -> io::Result<()> {
    let created = metadata.created.duration_since(UNIX_EPOCH).unwrap_or_default();
    write(out, |row| {
        put(row, &KEY, key)?;
        row.serialize_entry("size_bytes", &metadata.size_bytes)?;
        row.serialize_entry("tier", tier(metadata))?;
        put_ttl(row, metadata.ttl_left.map(ttl_ms))?;
        row.serialize_entry("sequence", &metadata.sequence)?;
        row.serialize_entry("created_ms", &created.as_millis())
    })
}

/// The word for the tier where an entry is.
pub(crate) fn tier(metadata: &Metadata) -> &'static str {
    match metadata.tier {
        Tier::Memory => "memory",
        Tier::Log => "log",
        Tier::Remote => "remote",
        _ => "unknown",
    }
}

fn write<W: Write, E>(mut out: W, fields: E) -> io::Result<()>
where
    E: FnOnce(&mut <&mut serde_json::Serializer<&mut W> as Serializer>::SerializeMap) -> serde_json::Result<()>,
{
    let mut json = serde_json::Serializer::new(&mut out);
    let mut row = json.serialize_map(None)?;
    fields(&mut row)?;
    row.end()?;
    out.write_all(b"\n")
}

fn put<M: SerializeMap>(row: &mut M, names: &Names, bytes: &[u8]) -> Result<(), M::Error> {
    match str::from_utf8(bytes) {
        Ok(text) => row.serialize_entry(names.text, text),
        Err(_) => row.serialize_entry(names.base64, &BASE64_STANDARD.encode(bytes)),
    }
}

fn put_ttl<M: SerializeMap>(row: &mut M, ttl_ms: Option<u64>) -> Result<(), M::Error> {
    ttl_ms.map_or(Ok(()), |left| row.serialize_entry("ttl_ms", &left))
}

/// What a line may hold.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    ttl_ms: Option<u64>,
}

/// Reads rows to the end of a file; empty lines are passed over. Ends at the first broken line.
pub(crate) struct Reader<R> {
    input: R,
    line: Vec<u8>,
    line_number: u64,
    bytes_read: u64,
}

impl<R: BufRead> Reader<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, line: Vec::new(), line_number: 0, bytes_read: 0 }
    }

    /// Reads the next line that is not empty.
    fn next_line(&mut self) -> Result<bool, Broken> {
        loop {
            self.line.clear();
            self.line_number += 1;
            let place = Place::Line(self.line_number);
            let bytes = self.input.read_until(b'\n', &mut self.line).map_err(place.unreadable())?;
            self.bytes_read += bytes as u64;
            if bytes == 0 || !self.line.trim_ascii().is_empty() {
                return Ok(bytes > 0);
            }
        }
    }

    fn next_found(&mut self) -> Result<Option<Found>, Broken> {
        if !self.next_line()? {
            return Ok(None);
        }
        let place = Place::Line(self.line_number);
        let entry = decode(&self.line).map_err(|what| place.broken(what))?;
        Ok(Some(Found { entry, place, bytes_read: self.bytes_read }))
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Found, Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_found().transpose()
    }
}

fn decode(line: &[u8]) -> Result<Entry, String> {
    let row: Row = serde_json::from_slice(line).map_err(|error| explain(&error))?;
    Ok(Entry {
        key: bytes_of(&KEY, row.key, row.key_base64)?,
        value: bytes_of(&VALUE, row.value, row.value_base64)?,
        ttl_ms: row.ttl_ms,
    })
}

/// Says what is wrong with a line; a line has no lines of its own, so only the column is worth naming.
fn explain(error: &serde_json::Error) -> String {
    let column = error.column();
    match error.classify() {
        Category::Syntax | Category::Eof | Category::Io => format!("no JSON at column {column}, expected {EXPECTED}"),
        Category::Data => {
            let what = error.to_string();
            let what = what.split(" at line ").next().unwrap_or_default();
            let expected = if what.contains("expected") { String::new() } else { format!(", expected {EXPECTED}") };
            format!("column {column}: {what}{expected}")
        }
    }
}

fn bytes_of(names: &Names, text: Option<String>, base64: Option<String>) -> Result<Vec<u8>, String> {
    let Names { text: text_name, base64: base64_name } = names;
    match (text, base64) {
        (Some(text), None) => Ok(text.into_bytes()),
        (None, Some(base64)) => {
            BASE64_STANDARD.decode(base64).map_err(|error| format!("{base64_name} is {error}, expected base64"))
        }
        (None, None) => Err(format!("neither {text_name} nor {base64_name}, expected {EXPECTED}")),
        (Some(_), Some(_)) => Err(format!("both {text_name} and {base64_name}, expected one of them")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_row_read_back_is_the_row_written(
            key: Vec<u8>, value: Vec<u8>, text: String, ttl_ms: Option<u64>, textual: bool,
        ) {
            let value = if textual { text.into_bytes() } else { value };
            let mut line = Vec::new();
            write_entry(&mut line, &key, &value, ttl_ms).unwrap();
            prop_assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
            let found = Reader::new(&line[..]).next().unwrap().unwrap();
            prop_assert_eq!(found.entry, Entry { key, value, ttl_ms });
            prop_assert_eq!(found.bytes_read, line.len() as u64);
        }

        #[test]
        fn any_bytes_at_all_are_read_without_a_panic(bytes: Vec<u8>) {
            Reader::new(&bytes[..]).take_while(Result::is_ok).for_each(drop);
        }
    }

    #[track_caller]
    fn refused(line: &str, what: &str) {
        let broken = Reader::new(line.as_bytes()).next().unwrap().err().unwrap();
        assert_eq!(broken.place, Place::Line(1));
        assert!(broken.what.contains(what) && broken.what.contains("expected"), "{}", broken.what);
    }

    #[test]
    fn a_broken_line_is_told_with_what_was_expected() {
        refused("{\"key\": \"a\", ", "no JSON at column");
        refused("nonsense", "no JSON at column 2");
        refused("{\"key\": \"a\"}", "neither value nor value_base64");
        refused("{\"value\": \"a\"}", "neither key nor key_base64");
        refused("{\"key\": \"a\", \"key_base64\": \"YQ==\", \"value\": \"\"}", "both key and key_base64");
        refused("{\"key\": \"a\", \"value_base64\": \"?\"}", "value_base64 is");
        refused("{\"key\": \"a\", \"value\": 5}", "integer `5`");
        refused("{\"key\": \"a\", \"value\": \"\", \"ttl\": 5}", "unknown field `ttl`");
        refused("{\"key\": \"a\", \"value\": \"\", \"ttl_ms\": -5}", "`-5`");
        refused("{\"key\": \"a\", \"key\": \"b\", \"value\": \"\"}", "duplicate field `key`");
    }

    #[test]
    fn empty_lines_count_as_lines_and_hold_nothing() {
        let rows = "\n  \r\n{\"key\":\"a\",\"value\":\"1\"}\r\n\n{\"key_base64\":\"Yg==\",\"value\":\"2\"}";
        let found: Vec<_> = Reader::new(rows.as_bytes()).map(|found| found.unwrap()).collect();
        assert_eq!([found[0].place, found[1].place], [Place::Line(3), Place::Line(5)]);
        assert_eq!(found[1].entry.key, b"b");
    }
}
