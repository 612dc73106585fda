//! sled 0.34, the stable one, in its high-throughput mode.
//!
//! Buffered leaves flushing to its own thread, every 500 ms as it comes, so `kill -9` may take the last of it. Synced
//! is a `flush` after each insert; on Linux that is `sync_file_range`, which does not empty the disk's own cache.

use std::path::Path;

use anyhow::Result;
use sled::{Batch, Config, Db};

use super::{Engine, Expected, Mode};
use crate::workload::Key;

const CACHE_BYTES: u64 = 1 << 30;

pub(super) struct Sled {
    db: Db,
    mode: Mode,
}

impl Engine for Sled {
    const NAME: &'static str = "sled";

    fn open(dir: &Path, mode: Mode, _expected: Expected) -> Result<Self> {
        let config = Config::new().path(dir).cache_capacity(CACHE_BYTES).mode(sled::Mode::HighThroughput);
        Ok(Self { db: config.open()?, mode })
    }

    fn insert(&self, key: &Key, value: &[u8]) -> Result<()> {
        self.db.insert(key, value)?;
        if self.mode == Mode::Synced {
            self.db.flush()?;
        }
        Ok(())
    }

    fn get_each(&self, _way: usize, keys: impl Iterator<Item = Key>, mut found: impl FnMut(&[u8])) -> Result<()> {
        for key in keys {
            if let Some(value) = self.db.get(key)? {
                found(&value);
            }
        }
        Ok(())
    }

    fn insert_many(&self, records: &[(Key, &[u8])]) -> Result<()> {
        let mut batch = Batch::default();
        for (key, value) in records {
            batch.insert(key, *value);
        }
        self.db.apply_batch(batch)?;
        if self.mode == Mode::Synced {
            self.db.flush()?;
        }
        Ok(())
    }

    fn settle(&self) -> Result<()> {
        self.db.flush()?;
        Ok(())
    }

    fn close(self) -> Result<()> {
        self.db.flush()?;
        Ok(())
    }
}
