//! LMDB by way of heed, without and with a writable map.
//!
//! Buffered means that no commit is flushed (`NOSYNC`, `NOMETASYNC`; with the map `MAPASYNC` too): what was
//! committed survives the process, not the machine, which is what thermocline's `Buffered` says.

use std::path::Path;

use anyhow::{Context, Result, bail};
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, WithTls};

use super::{Engine, Expected, Mode};
use crate::workload::Key;

/// Address space for the map, at least; more where eight times the values are more.
const MAP_BYTES_MIN: u64 = 4 << 30;

pub(super) struct Lmdb<const WRITE_MAP: bool> {
    env: Env<WithTls>,
    database: Database<'static, Bytes, Bytes>,
}

impl<const WRITE_MAP: bool> Lmdb<WRITE_MAP> {
    fn flags(mode: Mode) -> EnvFlags {
        let map = if WRITE_MAP { EnvFlags::WRITE_MAP } else { EnvFlags::empty() };
        match mode {
            Mode::Synced => map,
            Mode::Buffered if WRITE_MAP => map | EnvFlags::MAP_ASYNC | EnvFlags::NO_SYNC | EnvFlags::NO_META_SYNC,
            Mode::Buffered => EnvFlags::NO_SYNC | EnvFlags::NO_META_SYNC,
        }
    }
}

impl<const WRITE_MAP: bool> Engine for Lmdb<WRITE_MAP> {
    const NAME: &'static str = if WRITE_MAP { "lmdb-writemap" } else { "lmdb" };
    const WAYS: &'static [&'static str] = &["one read txn", "txn per get"];

    #[expect(unsafe_code, reason = "heed opens no environment without it")]
    fn open(dir: &Path, mode: Mode, expected: Expected) -> Result<Self> {
        let map_bytes = (expected.records * 8 * expected.value_bytes as u64).max(MAP_BYTES_MIN).next_power_of_two();
        let mut options = EnvOpenOptions::new();
        options.map_size(usize::try_from(map_bytes)?);
        // SAFETY: the directory is this run's own: no other process maps, truncates or writes the files in it while
        // this environment is open (a loading child was reaped before), and it is on a local filesystem.
        // Without a flush a machine crash may corrupt it; nobody reads it after one.
        let env = unsafe { options.flags(Self::flags(mode)).open(dir)? };
        let database = env
            .create_databases_and_commit(env.write_txn()?, |opener, txn| {
                opener.create_database(txn, None).map(CommitOrAbort::<_, ()>::Commit)
            })?
            .commit()
            .context("the unnamed database was not made")?;
        Ok(Self { env, database })
    }

    fn insert(&self, key: &Key, value: &[u8]) -> Result<()> {
        let mut txn = self.env.write_txn()?;
        self.database.put(&mut txn, key, value)?;
        Ok(txn.commit()?)
    }

    fn get_each(&self, way: usize, keys: impl Iterator<Item = Key>, mut found: impl FnMut(&[u8])) -> Result<()> {
        match way {
            0 => {
                let txn = self.env.read_txn()?;
                for key in keys {
                    if let Some(value) = self.database.get(&txn, &key)? {
                        found(value);
                    }
                }
            }
            1 => {
                for key in keys {
                    let txn = self.env.read_txn()?;
                    if let Some(value) = self.database.get(&txn, &key)? {
                        found(value);
                    }
                }
            }
            _ => bail!("no such way: {way}"),
        }
        Ok(())
    }

    fn insert_many(&self, records: &[(Key, &[u8])]) -> Result<()> {
        let mut txn = self.env.write_txn()?;
        for (key, value) in records {
            self.database.put(&mut txn, key, value)?;
        }
        Ok(txn.commit()?)
    }

    fn settle(&self) -> Result<()> {
        Ok(self.env.force_sync()?)
    }

    fn close(self) -> Result<()> {
        self.env.prepare_for_closing().wait();
        Ok(())
    }
}
