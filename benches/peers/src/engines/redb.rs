//! redb, one write transaction per insert, its 1 GiB cache as it comes.
//!
//! Buffered is `Durability::None`, its cheapest: unlike thermocline's `Buffered` it keeps nothing across `kill -9`
//! until a later durable commit.

use std::path::Path;

use anyhow::{Result, bail};
use redb::{Database, Durability, ReadableDatabase, TableDefinition};

use super::{Engine, Expected, Mode};
use crate::workload::Key;

const TABLE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");

pub(super) struct Redb {
    database: Database,
    durability: Durability,
}

impl Redb {
    fn write(&self, durability: Durability, records: &[(Key, &[u8])]) -> Result<()> {
        let mut txn = self.database.begin_write()?;
        txn.set_durability(durability)?;
        {
            let mut table = txn.open_table(TABLE)?;
            for (key, value) in records {
                table.insert(key.as_slice(), *value)?;
            }
        }
        Ok(txn.commit()?)
    }
}

impl Engine for Redb {
    const NAME: &'static str = "redb";
    const WAYS: &'static [&'static str] = &["one read txn", "txn per get"];

    fn open(dir: &Path, mode: Mode, _expected: Expected) -> Result<Self> {
        let file = dir.join("data.redb");
        let is_new = !file.exists();
        let durability = match mode {
            Mode::Buffered => Durability::None,
            Mode::Synced => Durability::Immediate,
        };
        let redb = Self { database: Database::create(file)?, durability };
        if is_new {
            redb.write(Durability::Immediate, &[])?; // the table, so that readers find one
        }
        Ok(redb)
    }

    fn insert(&self, key: &Key, value: &[u8]) -> Result<()> {
        self.write(self.durability, &[(*key, value)])
    }

    fn get_each(&self, way: usize, keys: impl Iterator<Item = Key>, mut found: impl FnMut(&[u8])) -> Result<()> {
        match way {
            0 => {
                let table = self.database.begin_read()?.open_table(TABLE)?;
                for key in keys {
                    if let Some(value) = table.get(key.as_slice())? {
                        found(value.value());
                    }
                }
            }
            1 => {
                for key in keys {
                    let table = self.database.begin_read()?.open_table(TABLE)?;
                    if let Some(value) = table.get(key.as_slice())? {
                        found(value.value());
                    }
                }
            }
            _ => bail!("no such way: {way}"),
        }
        Ok(())
    }

    fn insert_many(&self, records: &[(Key, &[u8])]) -> Result<()> {
        self.write(self.durability, records)
    }

    fn settle(&self) -> Result<()> {
        self.write(Durability::Immediate, &[])
    }

    fn close(self) -> Result<()> {
        drop(self.database);
        Ok(())
    }
}
