//! How a command comes to its store: to read, to write, or to change what is there.
//!
//! Only writing makes a store where none is.

use thermocline::{Builder, Result, Store};

use crate::args::{Common, Keeping};

/// Opens the store beside other readers; changes nothing.
pub(crate) fn to_read(common: &Common) -> Result<Store> {
    Store::builder().read_only().open(&common.dir)
}

/// Opens the store to add to it, and makes it if it is missing.
pub(crate) fn to_write(common: &Common) -> Result<Store> {
    Store::open(&common.dir)
}

/// As [`to_write`], for a lot.
pub(crate) fn to_fill(common: &Common, keeping: &Keeping) -> Result<Store> {
    kept(keeping).open(&common.dir)
}

/// Opens the store to change how it is kept; one that is missing stays so.
pub(crate) fn to_keep(common: &Common, keeping: &Keeping) -> Result<Store> {
    kept(keeping).create(false).open(&common.dir)
}

fn kept(keeping: &Keeping) -> Builder {
    let builder = Store::builder().compression(keeping.compression.unwrap_or_default());
    match keeping.disk_capacity {
        Some(bytes) => builder.disk_capacity(bytes),
        None => builder,
    }
}

/// Opens the store to take from it; one that is missing stays so.
pub(crate) fn to_change(common: &Common) -> Result<Store> {
    Store::builder().create(false).open(&common.dir)
}
