//! Whole stores: `export` writes every entry into a file or to stdout, `import` reads such a file back.
//!
//! A file appears under its name only when it is whole, and one that was there before stays until then.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, BufWriter, IsTerminal, Write},
    path::{Path, PathBuf},
};

use thermocline::Store;

use crate::{
    args::{Common, Format, Keeping},
    binary,
    damage::Damaged,
    loading::load,
    outcome::{Ending, Failure, Outcome, count, say},
    output::ttl_ms,
    progress::Progress,
    rows, stores,
};

const BUFFER_BYTES: usize = 256 << 10;

/// Reads a file into the store, in whichever form it is.
pub(crate) fn import(common: &Common, file: &Path, keeping: &Keeping) -> Ending {
    let source = Source::open(file)?;
    let store = stores::to_fill(common, keeping)?;
    let loaded = source.load_into(&store);
    store.close()?;
    say(&format!("imported {}", count(loaded?, "entry", "entries")));
    Ok(Outcome::Done)
}

/// A file that is read, once its first bytes are there.
struct Source {
    name: String,
    input: Box<dyn BufRead>,
    /// Its size, where it has one.
    bytes: Option<u64>,
    is_binary: bool,
}

impl Source {
    fn open(path: &Path) -> Result<Self, Failure> {
        if is_standard(path) {
            return Self::over("stdin".into(), io::stdin().lock(), None);
        }
        let name = path.display().to_string();
        let file = File::open(path).map_err(Failure::io("open", &name))?;
        let bytes = file.metadata().ok().filter(fs::Metadata::is_file).map(|metadata| metadata.len());
        Self::over(name, BufReader::with_capacity(BUFFER_BYTES, file), bytes)
    }

    fn over(name: String, mut input: impl BufRead + 'static, bytes: Option<u64>) -> Result<Self, Failure> {
        let first = input.fill_buf().map_err(Failure::io("read", &name))?.first();
        let is_binary = first == Some(&binary::FIRST_BYTE);
        Ok(Self { name, input: Box::new(input), bytes, is_binary })
    }

    fn load_into(self, store: &Store) -> Result<u64, Failure> {
        let progress = Progress::of_bytes("importing", self.bytes);
        if !self.is_binary {
            return load(store, &self.name, rows::Reader::new(self.input), &progress);
        }
        match binary::Reader::new(self.input) {
            Ok(records) => load(store, &self.name, records, &progress),
            Err(broken) => load(store, &self.name, [Err(broken)], &progress),
        }
    }
}

/// Writes every entry into a file; damaged records are told at the end.
pub(crate) fn export(common: &Common, file: &Path) -> Ending {
    let store = stores::to_read(common)?;
    let mut target = Target::open(file)?;
    let mut damaged = Damaged::default();
    let name = target.name.clone();
    let written = write_all(&store, common.format, &mut target, &mut damaged);
    let entries = written.map_err(|failure| match failure {
        Stop::Write(error) => Failure::io("write", name)(error),
        Stop::Store(error) => error.into(),
    })?;
    target.finish()?;
    damaged.told()?;
    say(&format!("exported {}", count(entries, "entry", "entries")));
    Ok(Outcome::Done)
}

/// Why an export stops.
enum Stop {
    Write(io::Error),
    Store(thermocline::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

impl From<thermocline::Error> for Stop {
    fn from(error: thermocline::Error) -> Self {
        Self::Store(error)
    }
}

fn write_all(store: &Store, form: Option<Format>, target: &mut Target, damaged: &mut Damaged) -> Result<u64, Stop> {
    let progress = target.progress(store.len_estimate());
    let mut encoder = Encoder::new(form, &mut target.output)?;
    let mut entries = 0;
    for entry in store.iter() {
        progress.advance();
        let Some((key, value)) = damaged.step_over(entry)? else { continue };
        // Without metadata it is gone: it expired between the two looks.
        let Some(metadata) = damaged.step_over(store.metadata(&key))?.flatten() else { continue };
        encoder.entry(&key, &value, metadata.ttl_left.map(ttl_ms))?;
        entries += 1;
    }
    encoder.finish()?;
    Ok(entries)
}

/// The two forms of an export.
enum Encoder<W> {
    Rows(W),
    Binary(binary::Writer<W>),
}

impl<W: Write> Encoder<W> {
    fn new(form: Option<Format>, out: W) -> io::Result<Self> {
        match form {
            Some(Format::Binary) => binary::Writer::new(out).map(Self::Binary),
            _ => Ok(Self::Rows(out)),
        }
    }

    fn entry(&mut self, key: &[u8], value: &[u8], ttl_ms: Option<u64>) -> io::Result<()> {
        match self {
            Self::Rows(out) => rows::write_entry(out, key, value, ttl_ms),
            Self::Binary(out) => out.entry(key, value, ttl_ms),
        }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::Rows(_) => Ok(()),
            Self::Binary(out) => out.finish().map(drop),
        }
    }
}

/// A file that is written: aside, and moved to its name by [`Target::finish`]. What is no regular file (a
/// pipe, a device, stdout) is written in place.
struct Target {
    name: String,
    output: BufWriter<Box<dyn Write>>,
    unfinished: Option<Unfinished>,
    /// The data goes to a terminal, where a bar would be in its way.
    shown: bool,
}

impl Target {
    fn open(path: &Path) -> Result<Self, Failure> {
        if is_standard(path) {
            return Ok(Self::over("stdout".into(), io::stdout().lock(), None, io::stdout().is_terminal()));
        }
        let name = path.display().to_string();
        let in_place = fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
        if in_place {
            let file = File::options().write(true).open(path).map_err(Failure::io("open", &name))?;
            let shown = file.is_terminal();
            return Ok(Self::over(name, file, None, shown));
        }
        let (unfinished, file) = Unfinished::create_for(path)?;
        Ok(Self::over(name, file, Some(unfinished), false))
    }

    fn over(name: String, output: impl Write + 'static, unfinished: Option<Unfinished>, shown: bool) -> Self {
        Self { name, output: BufWriter::with_capacity(BUFFER_BYTES, Box::new(output)), unfinished, shown }
    }

    fn progress(&self, entries: u64) -> Progress {
        if self.shown { Progress::none() } else { Progress::of_entries("exporting", entries) }
    }

    fn finish(mut self) -> Result<(), Failure> {
        self.output.flush().map_err(Failure::io("write", &self.name))?;
        self.unfinished.map_or(Ok(()), Unfinished::keep).map_err(Failure::io("rename", &self.name))
    }
}

/// A file under a name of its own, removed unless it is kept.
struct Unfinished {
    path: PathBuf,
    target: PathBuf,
}

impl Unfinished {
    fn create_for(path: &Path) -> Result<(Self, File), Failure> {
        // A link keeps pointing where it does; the file behind it is the one to replace.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        let mut unfinished = target.clone().into_os_string();
        unfinished.push(".unfinished");
        let path = PathBuf::from(unfinished);
        let file = File::create(&path).map_err(Failure::io("create", path.display()))?;
        Ok((Self { path, target }, file))
    }

    fn keep(self) -> io::Result<()> {
        fs::rename(&self.path, &self.target)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After `keep` there is nothing by this name.
        let _ = fs::remove_file(&self.path);
    }
}

/// `-` stands for stdin and stdout.
fn is_standard(path: &Path) -> bool {
    path == Path::new("-")
}
