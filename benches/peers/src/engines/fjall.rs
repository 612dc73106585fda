//! fjall, one keyspace, a cache that holds all of the data.
//!
//! Buffered is its default (the journal is written to the page cache on each insert); synced adds an fdatasync of
//! the journal. Before look-ups the memtable is flushed and everything compacted.

use std::path::Path;

use anyhow::Result;
use fjall::config::HashRatioPolicy;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{Engine, Expected, Mode};
use crate::workload::Key;

const CACHE_BYTES: u64 = 1 << 30;

pub(super) struct Fjall {
    database: Database,
    keyspace: Keyspace,
    mode: Mode,
}

impl Engine for Fjall {
    const NAME: &'static str = "fjall";

    fn open(dir: &Path, mode: Mode, _expected: Expected) -> Result<Self> {
        let database = Database::builder(dir).cache_size(CACHE_BYTES).open()?;
        let options = || {
            let point_reads = HashRatioPolicy::all(0.75);
            KeyspaceCreateOptions::default().expect_point_read_hits(true).data_block_hash_ratio_policy(point_reads)
        };
        let keyspace = database.keyspace("records", options)?;
        Ok(Self { database, keyspace, mode })
    }

    fn insert(&self, key: &Key, value: &[u8]) -> Result<()> {
        self.keyspace.insert(key.as_slice(), value)?;
        if self.mode == Mode::Synced {
            self.database.persist(PersistMode::SyncData)?;
        }
        Ok(())
    }

    fn get_each(&self, _way: usize, keys: impl Iterator<Item = Key>, mut found: impl FnMut(&[u8])) -> Result<()> {
        for key in keys {
            if let Some(value) = self.keyspace.get(key)? {
                found(&value);
            }
        }
        Ok(())
    }

    fn insert_many(&self, records: &[(Key, &[u8])]) -> Result<()> {
        let mut batch = self.database.batch();
        if self.mode == Mode::Synced {
            batch = batch.durability(Some(PersistMode::SyncData));
        }
        for (key, value) in records {
            batch.insert(&self.keyspace, key.as_slice(), *value);
        }
        Ok(batch.commit()?)
    }

    fn settle(&self) -> Result<()> {
        self.keyspace.rotate_memtable_and_wait()?;
        self.keyspace.major_compact()?;
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }

    fn close(self) -> Result<()> {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }
}
