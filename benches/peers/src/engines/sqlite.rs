//! SQLite: one table (without rowids if rows are small), WAL, cached statements, one connection behind a mutex.
//!
//! Buffered is `synchronous=OFF`, synced is `FULL`, which in WAL mode flushes the log on each commit.

use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use anyhow::{Result, anyhow, bail};
use rusqlite::{Connection, OptionalExtension};

use super::{Engine, Expected, Mode};
use crate::workload::Key;

const INSERT: &str = "INSERT OR REPLACE INTO records (key, value) VALUES (?1, ?2)";
const SELECT: &str = "SELECT value FROM records WHERE key = ?1";

/// "A twentieth of a page", says its page on tables without rowids; beyond that they are the slower ones.
const WITHOUT_ROWID_BYTES_MAX: usize = 200;

pub(super) struct Sqlite {
    connection: Mutex<Connection>,
}

impl Sqlite {
    fn connection(&self) -> Result<MutexGuard<'_, Connection>> {
        self.connection.lock().map_err(|_| anyhow!("a thread panicked inside SQLite"))
    }
}

impl Engine for Sqlite {
    const NAME: &'static str = "sqlite";
    const WAYS: &'static [&'static str] = &["one read txn", "txn per get"];

    fn open(dir: &Path, mode: Mode, expected: Expected) -> Result<Self> {
        let connection = Connection::open(dir.join("data.sqlite"))?;
        let synchronous = match mode {
            Mode::Buffered => "OFF",
            Mode::Synced => "FULL",
        };
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?; // the WAL's index in memory of our own
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", synchronous)?;
        connection.pragma_update(None, "cache_size", -(1 << 20))?; // KiB
        connection.pragma_update(None, "mmap_size", 8_i64 << 30)?;
        let kind = if expected.value_bytes <= WITHOUT_ROWID_BYTES_MAX { "WITHOUT ROWID" } else { "" };
        connection.execute_batch(&format!(
            "CREATE TABLE IF NOT EXISTS records (key BLOB PRIMARY KEY, value BLOB NOT NULL) {kind}"
        ))?;
        Ok(Self { connection: Mutex::new(connection) })
    }

    fn insert(&self, key: &Key, value: &[u8]) -> Result<()> {
        self.connection()?.prepare_cached(INSERT)?.execute((key.as_slice(), value))?;
        Ok(())
    }

    fn get_each(&self, way: usize, keys: impl Iterator<Item = Key>, mut found: impl FnMut(&[u8])) -> Result<()> {
        let connection = self.connection()?;
        let txn = match way {
            0 => Some(connection.unchecked_transaction()?),
            1 => None,
            _ => bail!("no such way: {way}"),
        };
        let mut select = connection.prepare_cached(SELECT)?;
        for key in keys {
            let shown = select.query_row([key.as_slice()], |row| {
                found(row.get_ref(0)?.as_blob()?);
                Ok(())
            });
            shown.optional()?;
        }
        drop(select);
        txn.map_or(Ok(()), |txn| Ok(txn.commit()?))
    }

    fn insert_many(&self, records: &[(Key, &[u8])]) -> Result<()> {
        let mut connection = self.connection()?;
        let txn = connection.transaction()?;
        {
            let mut insert = txn.prepare_cached(INSERT)?;
            for (key, value) in records {
                insert.execute((key.as_slice(), *value))?;
            }
        }
        Ok(txn.commit()?)
    }

    fn settle(&self) -> Result<()> {
        Ok(self.connection()?.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))?)
    }

    fn close(self) -> Result<()> {
        let connection = self.connection.into_inner().map_err(|_| anyhow!("a thread panicked inside SQLite"))?;
        connection.close().map_err(|(_, error)| error.into())
    }
}
