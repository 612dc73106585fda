//! One entry at a time: write it, read it, remove it, look at what is known of it.

use std::{
    ffi::OsString,
    fs,
    io::{self, Read},
};

use thermocline::{Attributes, Durability};

use crate::{
    args::{self, Common, Set},
    outcome::{Ending, Failure, Outcome, say},
    output::{self, Output},
    rows, stores,
};

/// Writes one entry. The value is read before the store is opened, so that nobody waits for our stdin.
pub(crate) fn set(common: &Common, set: &Set) -> Ending {
    let key = common.key(&set.key)?;
    let value = value(set)?;
    let store = stores::to_write(common)?;
    store.insert_with(&key, &value, &attributes(set))?;
    store.close()?;
    Ok(Outcome::Done)
}

fn value(set: &Set) -> Result<Vec<u8>, Failure> {
    match (&set.file, &set.value) {
        (Some(path), _) => fs::read(path).map_err(Failure::io("read", path.display())),
        (None, Some(value)) if value == "-" => {
            let mut bytes = Vec::new();
            io::stdin().lock().read_to_end(&mut bytes).map_err(Failure::io("read", "stdin"))?;
            Ok(bytes)
        }
        (None, value) => Ok(value.clone().unwrap_or_default().into_encoded_bytes()),
    }
}

fn attributes(set: &Set) -> Attributes {
    let mut attributes = Attributes::new();
    if let Some(ttl) = set.ttl {
        attributes = attributes.ttl(ttl);
    }
    match set.durability {
        None => attributes,
        Some(args::Durability::Buffered) => attributes.durability(Durability::Buffered),
        Some(args::Durability::Synced) => attributes.durability(Durability::Synced),
    }
}

/// Writes a value to stdout as it is.
pub(crate) fn get(common: &Common, key: &OsString) -> Ending {
    let key = common.key(key)?;
    let Some(value) = stores::to_read(common)?.get(&key)? else { return Ok(missing(common, &key)) };
    let mut output = Output::stdout();
    output.bytes(&value)?;
    output.finish()?;
    Ok(Outcome::Done)
}

/// Removes those of the keys that are there.
pub(crate) fn rm(common: &Common, keys: &[OsString]) -> Ending {
    let keys = keys.iter().map(|key| common.key(key)).collect::<Result<Vec<_>, _>>()?;
    let store = stores::to_change(common)?;
    let mut outcome = Outcome::Done;
    for key in &keys {
        if !store.remove(key)? {
            outcome = missing(common, key);
        }
    }
    store.close()?;
    Ok(outcome)
}

/// Shows what is known of an entry.
pub(crate) fn metadata(common: &Common, key: &OsString) -> Ending {
    let key = common.key(key)?;
    let Some(metadata) = stores::to_read(common)?.metadata(&key)? else { return Ok(missing(common, &key)) };
    let mut output = Output::stdout();
    if common.json() {
        output.row(|out| rows::write_metadata(out, &key, &metadata))?;
    } else {
        let mut table = output::table(["field", "value"]);
        table.add_row(["key", &common.shown(&key)]);
        table.add_row(["size", &output::size(metadata.size_bytes)]);
        table.add_row(["tier", rows::tier(&metadata)]);
        table.add_row(["ttl left", &output::ttl_left(metadata.ttl_left)]);
        table.add_row(["sequence", &metadata.sequence.to_string()]);
        table.add_row(["created", &humantime::format_rfc3339_millis(metadata.created).to_string()]);
        output.table(&table)?;
    }
    output.finish()?;
    Ok(Outcome::Done)
}

fn missing(common: &Common, key: &[u8]) -> Outcome {
    say(&format!("no such key: {}", common.shown(key)));
    Outcome::Missing
}
