//! How a command comes to its store: to read, to write, or to change what is there.
//!
//! Only writing makes a store where none is.

use thermocline::{Result, Store};

use crate::args::Common;

/// Opens the store beside other readers; changes nothing.
pub(crate) fn to_read(common: &Common) -> Result<Store> {
    Store::builder().read_only().open(&common.dir)
}

/// Opens the store to add to it, and makes it if it is missing.
pub(crate) fn to_write(common: &Common) -> Result<Store> {
    Store::open(&common.dir)
}

/// Opens the store to take from it; one that is missing stays so.
pub(crate) fn to_change(common: &Common) -> Result<Store> {
    Store::builder().create(false).open(&common.dir)
}
