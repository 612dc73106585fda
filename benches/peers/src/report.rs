//! The report: one table per question with its goal and verdict, and the raw figures as JSON.
//!
//! Only turns results into text. States facts of the machine, never a path or a name of it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::goals::{Verdict, batch_gb_per_s, goal};
use crate::plot;
use crate::samples::{Latency, Limit, Measure, Results, Row};
use crate::workload::{BATCH_RECORDS, BATCH_VALUE_BYTES};

/// Writes `report.md`, `results.json` and the plots into `dir`, which is made if it is missing.
pub fn write(dir: &Path, results: &Results) -> Result<()> {
    fs::create_dir_all(dir).context("making the directory of the report")?;
    fs::write(dir.join("report.md"), markdown(results)?).context("writing report.md")?;
    let raw = serde_json::to_string_pretty(&raw(results))?;
    fs::write(dir.join("results.json"), raw + "\n").context("writing results.json")?;
    plot::write_all(dir, results)
}

/// The stem of a table's plot.
pub fn file_stem(measure: Measure) -> &'static str {
    match measure {
        Measure::Get => "get",
        Measure::Insert => "insert",
        Measure::SyncedOneThread => "synced-1",
        Measure::SyncedEightThreads => "synced-8",
        Measure::Batch => "batch",
        Measure::Space => "space",
        Measure::Reopen => "reopen",
    }
}

/// The question of a table, in words.
pub fn title(measure: Measure, results: &Results) -> String {
    let keys = grouped(results.keys);
    match measure {
        Measure::Get => format!("get: {keys} keys, uniform, warm"),
        Measure::Insert => format!("insert: buffered, one at a time, {keys} keys"),
        Measure::SyncedOneThread => "insert, durable on return: 1 thread".into(),
        Measure::SyncedEightThreads => "insert, durable on return: 8 threads".into(),
        Measure::Batch => format!("insert_many: {BATCH_RECORDS} records of {BATCH_VALUE_BYTES} bytes a call"),
        Measure::Space => format!("bytes on disk per record above key and value, {keys} keys"),
        Measure::Reopen => format!("opening {keys} records after kill -9"),
    }
}

/// What to know when reading a table.
fn note(measure: Measure) -> &'static str {
    match measure {
        Measure::Get => {
            "After a flush and, where the engine has one, a full compaction, and a pass that warms its caches. The last \
             8 bytes of each value are read and checked."
        }
        Measure::Insert => {
            "Random key order, one call (one transaction) per record, nothing waits for the disk. redb's \
             `Durability::None` and sled keep less across `kill -9` than the others, see the last table."
        }
        Measure::SyncedOneThread | Measure::SyncedEightThreads => {
            "Wall time over the operations of all threads, 500 per thread. sled's flush is `sync_file_range`, which leaves \
             the data in the disk's own cache: no power cut was promised there."
        }
        Measure::Batch => "GB/s of value bytes, at the median; the share is of the memcpy measured in the same run.",
        Measure::Space => "Disk blocks after `close`, less keys and values. Hints are not counted.",
        Measure::Reopen => {
            "`open` and one look-up, files in the page cache. *Kept* is the share of the killed process's records that \
             was found, at worst: a store that lost them opens fast."
        }
    }
}

fn markdown(results: &Results) -> Result<String> {
    let mut text = String::new();
    writeln!(text, "# thermocline and its peers\n")?;
    machine(&mut text, results)?;
    goals(&mut text, results)?;
    limits(&mut text, results)?;
    for measure in Measure::ALL {
        let rows = results.rows(measure);
        if !rows.is_empty() {
            table(&mut text, results, measure, &rows)?;
        }
    }
    if !results.failures.is_empty() {
        writeln!(text, "## What failed\n")?;
        results.failures.iter().try_for_each(|failure| writeln!(text, "- {failure}"))?;
    }
    Ok(text)
}

fn machine(text: &mut String, results: &Results) -> Result<()> {
    writeln!(
        text,
        "{}. {} keys of 16 bytes, values of \
         100 random bytes, {} repeats, the engines in turn within each. Times are nanoseconds per operation unless a \
         table says otherwise; smaller is better. The ratio is of medians, to thermocline's first row.\n",
        results.machine.words(),
        grouped(results.keys),
        results.repeats,
    )?;
    Ok(())
}

fn goals(text: &mut String, results: &Results) -> Result<()> {
    writeln!(text, "## The goals\n\n| question | goal | bound | thermocline | |\n| --- | --- | ---: | ---: | --- |")?;
    for measure in Measure::ALL {
        if results.rows(measure).is_empty() {
            continue;
        }
        let (goal, ours, unit) = (goal(measure, results), results.ours(measure), measure.unit());
        let with_unit = |figure: Option<f64>| figure.map_or("–".into(), |figure| format!("{} {unit}", short(figure)));
        writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            title(measure, results),
            goal.words,
            with_unit(goal.bound),
            with_unit(ours),
            verdict_words(goal.verdict(ours)),
        )?;
    }
    Ok(writeln!(text)?)
}

fn limits(text: &mut String, results: &Results) -> Result<()> {
    writeln!(text, "## The machine's own limits\n\n| what | min ns | median ns | |\n| --- | ---: | ---: | --- |")?;
    for (limit, runs) in &results.limits {
        let aside = match limit {
            Limit::Memcpy1Kib => format!("{} GB/s", short(batch_gb_per_s(runs.median()))),
            _ => String::new(),
        };
        writeln!(text, "| {} | {} | {} | {aside} |", limit.words(), short(runs.min()), short(runs.median()))?;
    }
    Ok(writeln!(text)?)
}

fn table(text: &mut String, results: &Results, measure: Measure, rows: &[Row]) -> Result<()> {
    let goal = goal(measure, results);
    let verdict = verdict_words(goal.verdict(results.ours(measure)));
    writeln!(text, "## {}\n\nGoal: {}: **{verdict}**.\n", title(measure, results), goal.words)?;
    let aside = match measure {
        Measure::Batch => (" GB/s | of memcpy |", " ---: | ---: |"),
        Measure::Reopen => (" kept |", " ---: |"),
        _ => ("", ""),
    };
    let unit = measure.unit();
    writeln!(text, "| engine | min {unit} | median {unit} | ratio |{}", aside.0)?;
    writeln!(text, "| --- | ---: | ---: | ---: |{}", aside.1)?;
    for row in rows {
        let ratio = results.ours(measure).map_or("–".into(), |ours| short(row.runs.median() / ours));
        let (min, median) = (short(row.runs.min()), short(row.runs.median()));
        write!(text, "| {} | {min} | {median} | {ratio} |", row.name())?;
        match measure {
            Measure::Batch => writeln!(text, " {} |", batch_words(results, row))?,
            Measure::Reopen => writeln!(text, " {} |", row.kept.map_or("–".into(), kept_words))?,
            _ => writeln!(text)?,
        }
    }
    writeln!(text, "\n{}\n\n![{}]({}.svg)\n", note(measure), title(measure, results), file_stem(measure))?;
    latencies(text, results, measure)
}

fn batch_words(results: &Results, row: &Row) -> String {
    let median = row.runs.median();
    let share = results.limit(Limit::Memcpy1Kib).map_or("–".into(), |limit| format!("{:.3}", limit / median));
    format!("{} | {share}", short(batch_gb_per_s(median)))
}

fn kept_words(share: f64) -> String {
    format!("{} %", (share * 1000.0).floor() / 10.0)
}

fn latencies(text: &mut String, results: &Results, measure: Measure) -> Result<()> {
    let of_this: Vec<&Latency> = results.latencies.iter().filter(|latency| latency.measure == measure).collect();
    if of_this.is_empty() {
        return Ok(());
    }
    writeln!(text, "Latency of a single call, ns, in a pass of its own:\n")?;
    writeln!(text, "| engine | p50 | p99 | p99.9 | max |\n| --- | ---: | ---: | ---: | ---: |")?;
    for latency in of_this {
        let name = Row { engine: latency.engine, way: latency.way, runs: Default::default(), kept: None }.name();
        let [p50, p99, p999, max] = percentiles(latency).map(grouped);
        writeln!(text, "| {name} | {p50} | {p99} | {p999} | {max} |")?;
    }
    Ok(writeln!(text)?)
}

fn percentiles(latency: &Latency) -> [u64; 4] {
    let at = |quantile| latency.nanoseconds.value_at_quantile(quantile);
    [at(0.5), at(0.99), at(0.999), latency.nanoseconds.max()]
}

fn verdict_words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Reached => "reached",
        Verdict::Missed => "missed",
        Verdict::NotMeasured => "not measured",
    }
}

fn raw(results: &Results) -> Value {
    let rows = Measure::ALL.into_iter().flat_map(|measure| {
        let goal = goal(measure, results);
        let rows = results.rows(measure).into_iter();
        rows.map(move |row| {
            json!({
                "measure": measure, "engine": row.engine, "way": row.way, "unit": measure.unit(),
                "min": row.runs.min(), "median": row.runs.median(), "runs": row.runs.all(), "kept": row.kept,
                "bound": goal.bound,
            })
        })
    });
    let limits = results.limits.iter().map(|(limit, runs)| {
        json!({ "limit": limit, "unit": "ns/op", "min": runs.min(), "median": runs.median(), "runs": runs.all() })
    });
    let latencies = results.latencies.iter().map(|latency| {
        let [p50, p99, p999, max] = percentiles(latency);
        json!({
            "measure": latency.measure, "engine": latency.engine, "way": latency.way, "count": latency.nanoseconds.len(),
            "latency_ns_p50": p50, "latency_ns_p99": p99, "latency_ns_p999": p999, "latency_ns_max": max,
        })
    });
    json!({
        "machine": results.machine,
        "keys": results.keys,
        "repeats": results.repeats,
        "limits": limits.collect::<Vec<_>>(),
        "results": rows.collect::<Vec<_>>(),
        "latencies": latencies.collect::<Vec<_>>(),
        "failures": results.failures,
    })
}

/// Three significant digits or all that stand before the point.
pub fn short(figure: f64) -> String {
    match figure.abs() {
        size if size >= 1000.0 => grouped(figure.round() as u64),
        size if size >= 100.0 => format!("{figure:.0}"),
        size if size >= 10.0 => format!("{figure:.1}"),
        size if size >= 1.0 => format!("{figure:.2}"),
        _ => format!("{figure:.3}"),
    }
}

/// 1234567 as `1 234 567`.
pub fn grouped(figure: u64) -> String {
    let digits = figure.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{grouped, short};

    #[test]
    fn figures_are_short_and_grouped() {
        assert_eq!(grouped(1_234_567), "1 234 567");
        assert_eq!([999.6, 12.34, 1.234, 0.01234].map(short), ["1000", "12.3", "1.23", "0.012"]);
        assert_eq!(short(123_456.7), "123 457");
    }
}
