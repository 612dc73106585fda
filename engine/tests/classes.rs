//! What compaction copies stands with what expires at about the same time: it goes as a whole, and is not copied once more for
//! everything that lives shorter.

mod support;

use std::{sync::Arc, sync::atomic::AtomicU64, time::Duration};

use support::{advance, clock, damage, each, open, small_at};
use thermocline_engine::{Attributes, Compression, Engine, Options, medium::Faulty};

const MINUTE_MS: u64 = 60_000;
/// Half a minute, five, fifty, ten hours, and for ever.
const TTLS_MS: [u64; 5] = [MINUTE_MS / 2, 5 * MINUTE_MS, 50 * MINUTE_MS, 600 * MINUTE_MS, 0];
const VALUE: [u8; 1_000] = [7; 1_000];
const GENERATION: usize = 300;

fn store(disk_capacity: Option<u64>) -> (Faulty, Engine, Arc<AtomicU64>) {
    let (medium, now) = (Faulty::new(true), clock());
    let compression = Compression::none();
    let options = Options { memory_capacity: 0, disk_capacity, compression, ..small_at(&now) };
    let engine = open(&medium, &options).unwrap();
    (medium, engine, now)
}

/// Writes as much of each time to live, one after the other in turn; returns the bytes of what has each.
fn write_all(engine: &Engine) -> u64 {
    let before = engine.stats().log.bytes_written;
    for number in 0..GENERATION {
        for ttl_ms in TTLS_MS {
            let attributes = Attributes::new();
            let attributes = if ttl_ms == 0 { attributes } else { attributes.ttl(Duration::from_millis(ttl_ms)) };
            engine.insert(format!("{ttl_ms:9} {number:3}").as_bytes(), &VALUE, &attributes).unwrap();
        }
    }
    (engine.stats().log.bytes_written - before) / TTLS_MS.len() as u64
}

#[test]
fn what_lives_longer_is_copied_once_and_not_for_each_that_lives_shorter() {
    let (_medium, engine, now) = store(None);
    let bytes_each = write_all(&engine);
    let segments = bytes_each.div_ceil(64 << 10) * TTLS_MS.len() as u64;
    let mut passed_ms = 0;
    for (gone, ttl_ms) in (1..).zip(TTLS_MS.into_iter().filter(|ttl_ms| *ttl_ms > 0)) {
        advance(&now, ttl_ms - passed_ms);
        passed_ms = ttl_ms;
        let done = engine.compact().unwrap();
        let log = engine.stats().log;
        // Half a minute: the others are taken apart. Then what has expired goes as a whole, unread.
        let (copied, scanned) = if gone == 1 { (4 * bytes_each, log.bytes_scanned) } else { (0, 0) };
        assert_eq!((done.bytes_written, log.bytes_compacted), (copied, 4 * bytes_each), "{gone} have expired");
        assert!(log.bytes_scanned >= scanned && log.bytes_scanned <= 6 * bytes_each, "{gone}: {}", log.bytes_scanned);
        assert_eq!((engine.len(), log.expired), (((5 - gone) * GENERATION) as u64, (gone * GENERATION) as u64));
        // At rest there is nothing but what lives, beside headers and what is ready in the segment that is appended to.
        engine.rest_now().unwrap();
        let (log, live) = (engine.stats().log, (5 - gone as u64) * bytes_each);
        let more = segments * 128 + (64 << 10);
        assert!(log.bytes <= live + more, "{gone}: {} bytes for {live}, at most {more} more", log.bytes);
    }
    assert_eq!(damage(&engine), [""; 0]);
}

#[test]
fn under_a_ceiling_they_share_a_segment() {
    each([8, 40], |segments| {
        let capacity = segments * (64 << 10);
        let (_medium, engine, now) = store(Some(capacity));
        for _ in 0..3 {
            write_all(&engine);
            advance(&now, MINUTE_MS / 2);
            engine.compact().unwrap();
            assert!(engine.stats().log.bytes <= capacity);
        }
        assert_eq!(damage(&engine), [""; 0]);
    });
}
