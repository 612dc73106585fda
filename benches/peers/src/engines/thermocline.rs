//! thermocline itself, by its front door and with its defaults.
//!
//! `get` hands out an owned `Value`; `read` shows the bytes in place.

use std::path::Path;

use anyhow::{Result, bail};
use thermocline::{Durability, Store};

use super::{Engine, Expected, Mode, OURS};
use crate::workload::Key;

pub(super) struct Thermocline {
    store: Store,
}

impl Engine for Thermocline {
    const NAME: &'static str = OURS;
    const WAYS: &'static [&'static str] = &["get", "read"];

    fn open(dir: &Path, mode: Mode, _expected: Expected) -> Result<Self> {
        let durability = match mode {
            Mode::Buffered => Durability::Buffered,
            Mode::Synced => Durability::Synced,
        };
        Ok(Self { store: Store::builder().memory_capacity(0).durability(durability).open(dir)? })
    }

    fn insert(&self, key: &Key, value: &[u8]) -> Result<()> {
        Ok(self.store.insert(key, value)?)
    }

    fn get_each(&self, way: usize, keys: impl Iterator<Item = Key>, mut found: impl FnMut(&[u8])) -> Result<()> {
        match way {
            0 => {
                for key in keys {
                    if let Some(value) = self.store.get(key)? {
                        found(&value);
                    }
                }
            }
            1 => {
                for key in keys {
                    self.store.read(key, &mut found)?;
                }
            }
            _ => bail!("no such way: {way}"),
        }
        Ok(())
    }

    fn insert_many(&self, records: &[(Key, &[u8])]) -> Result<()> {
        Ok(self.store.insert_many(records.iter().copied())?)
    }

    fn settle(&self) -> Result<()> {
        Ok(self.store.sync()?)
    }

    fn close(self) -> Result<()> {
        Ok(self.store.close()?)
    }

    fn is_hint(file_name: &str) -> bool {
        file_name.ends_with(".hint")
    }
}
