//! One file of the double: what the page cache has of it, and what the disk.
//!
//! Holds bytes, sector by sector. Never fails a call: that is decided before.

use std::{collections::BTreeSet, io};

use super::splitmix;
use crate::log::map::Map;

/// What a power cut keeps or loses whole.
pub(super) const SECTOR: usize = 512;

#[derive(Debug)]
pub(super) struct Node {
    pub(super) cache: Map,
    pub(super) bytes: u64,
    /// What the disk has.
    pub(super) durable: Vec<u8>,
    /// What the page cache believes the disk has.
    pub(super) clean: Vec<u8>,
    /// Sectors written by call since the last flush, even with the same bytes.
    pub(super) written: BTreeSet<usize>,
}

impl Node {
    pub(super) fn new(content: &[u8]) -> io::Result<Self> {
        let cache = Map::anonymous(content.len() as u64)?;
        cache.fill(0, [content]);
        Ok(Self {
            cache,
            bytes: content.len() as u64,
            durable: content.to_vec(),
            clean: content.to_vec(),
            written: BTreeSet::new(),
        })
    }

    pub(super) fn content(&self) -> &[u8] {
        self.cache.quiet(0, self.bytes).unwrap_or_default()
    }

    /// Sectors that the page cache would write.
    pub(super) fn dirty(&self) -> Vec<usize> {
        let content = self.content();
        let differs = |sector: &usize| sector_of(content, *sector) != sector_of(&self.clean, *sector);
        (0..content.len().div_ceil(SECTOR)).filter(|sector| self.written.contains(sector) || differs(sector)).collect()
    }

    pub(super) fn persist(&mut self, sectors: &[usize]) {
        let content = self.content().to_vec();
        resize(&mut self.durable, content.len());
        resize(&mut self.clean, content.len());
        for sector in sectors {
            let range = sector * SECTOR..((sector + 1) * SECTOR).min(content.len());
            self.durable[range.clone()].copy_from_slice(&content[range.clone()]);
            self.clean[range.clone()].copy_from_slice(&content[range]);
            self.written.remove(sector);
        }
    }

    /// What is left after a power cut.
    pub(super) fn cut(&self, random: &mut u64) -> Vec<u8> {
        let now = self.content();
        let bytes = if splitmix(random) & 1 == 0 { now.len() } else { self.durable.len() };
        let mut content = self.durable.clone();
        resize(&mut content, bytes);
        for sector in self.dirty() {
            let range = sector * SECTOR..((sector + 1) * SECTOR).min(now.len());
            if range.end <= bytes && splitmix(random) & 1 == 0 {
                content[range.clone()].copy_from_slice(&now[range]);
            }
        }
        content
    }

    pub(super) fn resize(&mut self, bytes: u64) -> io::Result<()> {
        if bytes > self.cache.bytes() {
            let cache = Map::anonymous(bytes)?;
            cache.fill(0, [self.content()]);
            self.cache = cache;
        } else if bytes < self.bytes {
            self.cache.fill(bytes, [&vec![0; (self.bytes - bytes) as usize][..]]);
        }
        self.bytes = bytes;
        Ok(())
    }
}

/// As [`Vec::resize`] with zeros, which goes byte by byte where little is optimised.
fn resize(content: &mut Vec<u8>, bytes: usize) {
    match bytes.checked_sub(content.len()) {
        Some(more) => content.extend_from_slice(&vec![0; more]),
        None => content.truncate(bytes),
    }
}

fn sector_of(bytes: &[u8], sector: usize) -> &[u8] {
    let from = (sector * SECTOR).min(bytes.len());
    &bytes[from..(from + SECTOR).min(bytes.len())]
}
