//! Many entries by their keys, as JSON lines: `set-many` in, `get-many` out.

use std::{ffi::OsString, io};

use crate::{
    args::{Common, Keeping},
    damage::Damaged,
    loading::load,
    outcome::{Ending, Outcome, count, say},
    output::{Output, ttl_ms},
    progress::Progress,
    rows, stores,
};

/// Writes the rows that come in on stdin.
pub(crate) fn set_many(common: &Common, keeping: &Keeping) -> Ending {
    let store = stores::to_fill(common, keeping)?;
    let progress = Progress::of_bytes("writing", None);
    let loaded = load(&store, "stdin", rows::Reader::new(io::stdin().lock()), &progress);
    drop(progress);
    store.close()?;
    say(&format!("wrote {}", count(loaded?, "entry", "entries")));
    Ok(Outcome::Done)
}

/// Writes a row for each key to stdout, in their order.
pub(crate) fn get_many(common: &Common, keys: &[OsString]) -> Ending {
    let keys = keys.iter().map(|key| common.key(key)).collect::<Result<Vec<_>, _>>()?;
    let store = stores::to_read(common)?;
    let mut output = Output::stdout();
    let mut damaged = Damaged::default();
    let mut outcome = Outcome::Done;
    // One at a time: no more than one value is held, and a damaged one does not hide the others.
    for key in &keys {
        match store.get(key) {
            Ok(Some(value)) => {
                let left = store.metadata(key)?.and_then(|metadata| metadata.ttl_left).map(ttl_ms);
                output.row(|out| rows::write_entry(out, key, &value, left))?;
            }
            Ok(None) => {
                output.row(|out| rows::write_missing(out, key))?;
                outcome = Outcome::Missing;
            }
            Err(error) => {
                let what = error.to_string();
                damaged.step_over::<()>(Err(error))?;
                output.row(|out| rows::write_damaged(out, key, &what))?;
            }
        }
    }
    output.finish()?;
    damaged.told()?;
    Ok(outcome)
}
