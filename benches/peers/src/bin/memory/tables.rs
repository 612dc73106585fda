//! The report: a table per question, every cell with the median and the best of the repeats.
//!
//! Only turns figures into text. States facts of the machine, never a path or a name of it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use thermocline_peers::machine::Machine;
use thermocline_peers::plot::{self, Plot};
use thermocline_peers::report::short;
use thermocline_peers::samples::{Row, Runs, Table};

const LOCK: &str = include_str!("../../../Cargo.lock");
const PEERS: [&str; 5] = ["quick_cache", "moka", "foyer-memory", "papaya", "dashmap"];

/// What stands above all tables.
pub struct Head {
    pub machine: Machine,
    pub command: String,
    pub repeats: u32,
}

/// One table of the report.
pub struct Section {
    pub title: String,
    /// What to know when reading it.
    pub note: String,
    pub columns: Vec<Column>,
    /// The stem and the unit of a plot of the first column.
    pub plot: Option<(String, &'static str)>,
}

/// One column: a figure of each row.
pub struct Column {
    title: String,
    table: Table,
    show: Show,
}

enum Show {
    /// Better when smaller.
    Least,
    /// Better when larger.
    Most,
    /// In shares of the figure of this engine.
    Ratio(&'static str),
}

impl Column {
    pub fn least(title: &str, table: &Table) -> Self {
        Self { title: title.into(), table: table.clone(), show: Show::Least }
    }

    pub fn most(title: &str, table: &Table) -> Self {
        Self { title: title.into(), table: table.clone(), show: Show::Most }
    }

    /// The same figures in shares of an engine's.
    pub fn ratio(what: &str, to: &'static str, table: &Table) -> Self {
        Self { title: format!("of {to}'s {what}"), table: table.clone(), show: Show::Ratio(to) }
    }

    fn heading(&self) -> String {
        let best = if matches!(self.show, Show::Most) { "max" } else { "min" };
        format!("{}, median / {best}", self.title)
    }

    /// `None` if this row has no figure here.
    fn cell(&self, row: &Row) -> Option<String> {
        let runs = self.runs(|other| other.name() == row.name())?;
        let (median, best) = match self.show {
            Show::Least => (runs.median(), runs.min()),
            Show::Most => (runs.median(), runs.max()),
            Show::Ratio(to) => {
                let base = self.runs(|other| other.engine == to)?;
                (runs.median() / base.median(), runs.min() / base.min())
            }
        };
        Some(format!("{} / {}", short(median), short(best)))
    }

    fn runs(&self, is_it: impl Fn(&Row) -> bool) -> Option<&Runs> {
        self.table.rows().iter().find(|row| is_it(row)).map(|row| &row.runs)
    }
}

/// Writes `memory.md` and the plots into `dir`, which is made if it is missing.
pub fn write(dir: &Path, head: &Head, sections: &[Section]) -> Result<()> {
    fs::create_dir_all(dir).context("making the directory of the report")?;
    fs::write(dir.join("memory.md"), markdown(head, sections)?).context("writing memory.md")?;
    for section in sections {
        if let (Some((stem, unit)), Some(first)) = (&section.plot, section.columns.first()) {
            let plot = Plot { title: section.title.clone(), unit, rows: first.table.rows(), bound: None };
            plot::draw(&dir.join(format!("{stem}.svg")), &plot)?;
        }
    }
    Ok(())
}

fn markdown(head: &Head, sections: &[Section]) -> Result<String> {
    let mut text = String::from("# thermocline's memory tier and its peers\n\n");
    writeln!(
        text,
        "{}. 16-byte keys, values of 100 random bytes, {} repeats, the engines in turn within each, in one process \
         unless a table says otherwise. Each cell has the median of the repeats and the best of them; a ratio is of \
         medians, then of minima. {}; all with quick_cache's hash, else with their defaults, and the allocator of the \
         C library.\n\n```\n{}\n```\n",
        head.machine.words(),
        head.repeats,
        versions().join(", "),
        head.command,
    )?;
    sections.iter().try_for_each(|section| table(&mut text, section))?;
    Ok(text)
}

fn table(text: &mut String, section: &Section) -> Result<()> {
    let headings: Vec<_> = section.columns.iter().map(Column::heading).collect();
    writeln!(text, "## {}\n\n| | {} |", section.title, headings.join(" | "))?;
    writeln!(text, "| --- |{}", " ---: |".repeat(headings.len()))?;
    for row in section.columns.first().map_or(&[][..], |first| first.table.rows()) {
        let cells: Vec<_> = section.columns.iter().map(|column| column.cell(row).unwrap_or("–".into())).collect();
        writeln!(text, "| {} | {} |", row.name(), cells.join(" | "))?;
    }
    let note = if section.note.is_empty() { String::new() } else { format!("{}\n\n", section.note) };
    write!(text, "\n{note}")?;
    if let Some((stem, _)) = &section.plot {
        writeln!(text, "![{}]({stem}.svg)\n", section.title)?;
    }
    Ok(())
}

/// The peers and their versions, as this program was built with them.
fn versions() -> Vec<String> {
    PEERS.iter().map(|peer| format!("{peer} {}", version(peer).unwrap_or("of unknown version"))).collect()
}

/// Of several versions in the lock file, the last one, which is the newest.
fn version(package: &str) -> Option<&'static str> {
    let name = format!("name = \"{package}\"\nversion = \"");
    LOCK.rsplit_once(&name)?.1.split_once('"').map(|(version, _)| version)
}

#[cfg(test)]
mod tests {
    use super::{Column, Table, version};

    #[test]
    fn a_cell_has_the_median_and_the_best() {
        let mut table = Table::default();
        [3.0, 1.0, 2.0].into_iter().for_each(|figure| table.add("quick_cache", "", figure));
        [6.0, 3.0, 9.0].into_iter().for_each(|figure| table.add("moka", "", figure));
        let row = table.rows()[1].clone();
        assert_eq!(Column::least("", &table).cell(&row).as_deref(), Some("6.00 / 3.00"));
        assert_eq!(Column::most("", &table).cell(&row).as_deref(), Some("6.00 / 9.00"));
        assert_eq!(Column::ratio("", "quick_cache", &table).cell(&row).as_deref(), Some("3.00 / 3.00"));
        assert_eq!(Column::ratio("", "foyer", &table).cell(&row), None);
    }

    #[test]
    fn every_peer_has_a_version() {
        assert!(super::PEERS.iter().all(|peer| version(peer).is_some()));
    }
}
