//! RocksDB, tuned for point look-ups: bloom filter, hash index in the blocks, a cache that holds all of the data.
//!
//! The WAL is on. Buffered does not flush it, synced does on each write. Before look-ups everything is compacted.

use std::path::Path;

use anyhow::Result;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DataBlockIndexType, Options, WaitForCompactOptions, WriteBatch,
    WriteOptions,
};

use super::{Engine, Expected, Mode};
use crate::workload::Key;

const CACHE_BYTES: usize = 1 << 30;

pub(super) struct RocksDb {
    db: DB,
    writes: WriteOptions,
}

impl RocksDb {
    fn options() -> Options {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES));
        blocks.set_bloom_filter(10.0, false);
        blocks.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
        blocks.set_data_block_hash_ratio(0.75);

        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&blocks);
        options.set_compression_type(DBCompressionType::None);
        options.set_write_buffer_size(128 << 20);
        options.set_memtable_prefix_bloom_ratio(0.02);
        options.set_memtable_whole_key_filtering(true);
        options.increase_parallelism(2);
        options
    }
}

impl Engine for RocksDb {
    const NAME: &'static str = "rocksdb";

    fn open(dir: &Path, mode: Mode, _expected: Expected) -> Result<Self> {
        let mut writes = WriteOptions::default();
        writes.set_sync(mode == Mode::Synced);
        Ok(Self { db: DB::open(&Self::options(), dir)?, writes })
    }

    fn insert(&self, key: &Key, value: &[u8]) -> Result<()> {
        Ok(self.db.put_opt(key, value, &self.writes)?)
    }

    fn get_each(&self, _way: usize, keys: impl Iterator<Item = Key>, mut found: impl FnMut(&[u8])) -> Result<()> {
        let options = rocksdb::ReadOptions::default();
        for key in keys {
            if let Some(value) = self.db.get_pinned_opt(key, &options)? {
                found(&value);
            }
        }
        Ok(())
    }

    fn insert_many(&self, records: &[(Key, &[u8])]) -> Result<()> {
        let mut batch = WriteBatch::default();
        for (key, value) in records {
            batch.put(key, value);
        }
        Ok(self.db.write_opt(batch, &self.writes)?)
    }

    fn settle(&self) -> Result<()> {
        self.db.flush()?;
        self.db.compact_range(None::<&[u8]>, None::<&[u8]>);
        Ok(self.db.wait_for_compact(&WaitForCompactOptions::default())?)
    }

    fn close(self) -> Result<()> {
        self.db.flush_wal(true)?;
        Ok(())
    }
}
