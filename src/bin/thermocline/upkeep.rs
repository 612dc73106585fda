//! The store as a whole: its figures, its health, a copy of it.

use std::path::Path;

use comfy_table::Cell;
use serde_json::{Map, json};
use thermocline::{Store, Verified};

use crate::{
    args::{Common, Keeping},
    outcome::{Ending, Failure, Outcome, count, say},
    output::{self, Output},
    progress::Progress,
    stores,
};

/// Shows the figures.
pub(crate) fn stats(common: &Common) -> Ending {
    let figures = figures(&stores::to_read(common)?);
    let mut output = Output::stdout();
    if common.json() {
        output.row(|out| writeln!(out, "{}", grouped(&figures)))?;
    } else {
        let mut table = output::table(["figure", "value"]);
        for (name, figure) in figures {
            table.add_row([Cell::new(name), output::figure(figure.shown())]);
        }
        output.table(&table)?;
    }
    output.finish()?;
    Ok(Outcome::Done)
}

/// A number and what it counts.
#[derive(Clone, Copy)]
enum Figure {
    Count(u64),
    Bytes(u64),
    Is(bool),
    Ratio(f64),
    Times(f64),
    Seconds(f64),
}

impl Figure {
    fn shown(self) -> String {
        match self {
            Self::Count(count) => count.to_string(),
            Self::Bytes(bytes) => output::size(bytes),
            Self::Ratio(ratio) => format!("{:.1} %", ratio * 100.0),
            Self::Times(times) => format!("{times:.2}"),
            Self::Seconds(seconds) => format!("{seconds:.3} s"),
            Self::Is(true) => "yes".into(),
            Self::Is(false) => "no".into(),
        }
    }

    fn json(self) -> serde_json::Value {
        match self {
            Self::Count(number) | Self::Bytes(number) => number.into(),
            Self::Ratio(number) | Self::Times(number) | Self::Seconds(number) => number.into(),
            Self::Is(so) => so.into(),
        }
    }
}

/// All figures, those that matter most first. A dot parts a group from its member.
fn figures(store: &Store) -> Vec<(&'static str, Figure)> {
    let stats = store.stats();
    vec![
        ("entries", Figure::Count(store.len())),
        ("log.records", Figure::Count(stats.log.records)),
        ("log.segments", Figure::Count(stats.log.segments)),
        ("log.bytes", Figure::Bytes(stats.log.bytes)),
        ("log.live_bytes", Figure::Bytes(stats.log.live_bytes)),
        ("log.live_ratio", Figure::Ratio(stats.log.live_ratio)),
        ("log.bytes_written", Figure::Bytes(stats.log.bytes_written)),
        ("log.bytes_scanned", Figure::Bytes(stats.log.bytes_scanned)),
        ("log.bytes_compacted", Figure::Bytes(stats.log.bytes_compacted)),
        ("log.bytes_beside", Figure::Bytes(stats.log.bytes_beside)),
        ("log.bytes_reclaimed", Figure::Bytes(stats.log.bytes_reclaimed)),
        ("log.write_amplification", Figure::Times(stats.log.write_amplification)),
        ("log.expired", Figure::Count(stats.log.expired)),
        ("log.compression_ratio", Figure::Ratio(stats.log.compression_ratio)),
        ("log.compression_seconds", Figure::Seconds(stats.log.compression_time.as_secs_f64())),
        ("log.mapped", Figure::Is(stats.log.mapped)),
        ("index.keys", Figure::Count(stats.index.keys)),
        ("index.bytes", Figure::Bytes(stats.index.bytes)),
        ("recovery.records", Figure::Count(stats.recovery.records)),
        ("recovery.damaged", Figure::Count(stats.recovery.damaged)),
        ("hits.memory", Figure::Count(stats.hits.memory)),
        ("hits.log", Figure::Count(stats.hits.log)),
        ("hits.remote", Figure::Count(stats.hits.remote)),
        ("misses.total", Figure::Count(stats.misses.total)),
        ("misses.absent", Figure::Count(stats.misses.absent)),
        ("misses.removed", Figure::Count(stats.misses.removed)),
        ("misses.expired", Figure::Count(stats.misses.expired)),
        ("misses.unreadable", Figure::Count(stats.misses.unreadable)),
        ("insertions", Figure::Count(stats.insertions)),
        ("removals", Figure::Count(stats.removals)),
        ("evictions.disk_capacity", Figure::Count(stats.evictions.disk_capacity)),
        ("evictions.bound", Figure::Count(stats.evictions.bound)),
    ]
}

/// The figures as one object, with an object for each group.
fn grouped(figures: &[(&'static str, Figure)]) -> serde_json::Value {
    let mut all = Map::new();
    for (name, figure) in figures {
        match name.split_once('.') {
            None => _ = all.insert((*name).into(), figure.json()),
            Some((group, member)) => all.entry(group).or_insert_with(|| json!({}))[member] = figure.json(),
        }
    }
    all.into()
}

/// Checks every record, shows what was found, and fails on damage.
pub(crate) fn verify(common: &Common) -> Ending {
    let store = stores::to_read(common)?;
    let progress = Progress::of_unknown("verifying");
    let verified = store.verify()?;
    drop(progress);
    let mut output = Output::stdout();
    if common.json() {
        output.row(|out| writeln!(out, "{}", verified_json(&verified)))?;
    } else {
        show_verified(&mut output, &verified)?;
    }
    output.finish()?;
    told(common, &verified)
}

fn verified_json(verified: &Verified) -> serde_json::Value {
    let damaged = verified.damaged.iter();
    let damaged: Vec<_> =
        damaged.map(|damage| json!({"file": damage.file, "offset": damage.offset, "what": damage.what})).collect();
    json!({"records": verified.records, "bytes": verified.bytes, "damaged": damaged})
}

fn show_verified(output: &mut Output, verified: &Verified) -> Result<(), Failure> {
    let mut table = output::table(["records", "size", "damaged"]);
    table.add_row([
        output::figure(verified.records),
        output::figure(output::size(verified.bytes)),
        output::figure(verified.damaged.len()),
    ]);
    output.table(&table)?;
    if verified.damaged.is_empty() {
        return Ok(());
    }
    let mut table = output::table(["file", "offset", "what"]);
    for damage in &verified.damaged {
        table.add_row([Cell::new(&damage.file), output::figure(damage.offset), Cell::new(&damage.what)]);
    }
    output.table(&table)
}

fn told(common: &Common, verified: &Verified) -> Ending {
    let Some(first) = verified.damaged.first() else { return Ok(Outcome::Done) };
    let records = count(verified.damaged.len() as u64, "damaged record", "damaged records, the first");
    let directory = common.dir.display();
    let line = format!("{directory} has {records}: {}, offset {}: {}", first.file, first.offset, first.what);
    Err(Failure::Told(line))
}

/// Compacts the log, and shows what that did.
pub(crate) fn compact(common: &Common, keeping: &Keeping) -> Ending {
    let store = stores::to_keep(common, keeping)?;
    let progress = Progress::of_bytes("compacting", Some(0));
    let done = store.compact_with(|at| progress.reach_of(at.bytes_done, at.bytes_total))?;
    let closed = store.close();
    drop(progress);
    let mut output = Output::stdout();
    if common.json() {
        let row = json!({
            "segments": done.segments,
            "bytes_read": done.bytes_read,
            "bytes_written": done.bytes_written,
            "bytes_reclaimed": done.bytes_reclaimed,
        });
        output.row(|out| writeln!(out, "{row}"))?;
    } else {
        let mut table = output::table(["segments", "read", "written", "reclaimed"]);
        let sizes = [done.bytes_read, done.bytes_written, done.bytes_reclaimed].map(output::size);
        table.add_row([output::figure(done.segments)].into_iter().chain(sizes.into_iter().map(output::figure)));
        output.table(&table)?;
    }
    output.finish()?;
    closed?;
    Ok(Outcome::Done)
}

/// Copies the store.
pub(crate) fn backup(common: &Common, directory: &Path) -> Ending {
    let store = stores::to_read(common)?;
    let progress = Progress::of_unknown("copying");
    store.backup(directory)?;
    drop(progress);
    say(&format!("copied {} to {}", common.dir.display(), directory.display()));
    Ok(Outcome::Done)
}
