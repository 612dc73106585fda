//! Digests every file below a directory, and never one twice.
//!
//! `cargo run --release --example tree_digest -- /usr/share [STORE]`
//!
//! The key is a file's path, size and time of modification, the value its BLAKE3 digest and how long that took. Each
//! digest is kept the moment it is finished, so the program can be killed at any time and goes on where it was.

use std::{
    env, fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Mutex,
    thread,
    time::{Duration, Instant, UNIX_EPOCH},
};

use thermocline::Store;
use walkdir::WalkDir;

/// A digest, and the nanoseconds it took to compute it.
struct Digest {
    hash: blake3::Hash,
    cost: Duration,
}

impl Digest {
    fn compute(path: &Path) -> io::Result<Self> {
        let start = Instant::now();
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(fs::File::open(path)?)?;
        Ok(Self { hash: hasher.finalize(), cost: start.elapsed() })
    }

    fn to_bytes(&self) -> Vec<u8> {
        let cost = u64::try_from(self.cost.as_nanos()).unwrap_or(u64::MAX);
        [self.hash.as_bytes().as_slice(), &cost.to_le_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (hash, cost) = bytes.split_at_checked(32)?;
        let hash = blake3::Hash::from_slice(hash).ok()?;
        Some(Self { hash, cost: Duration::from_nanos(u64::from_le_bytes(cost.try_into().ok()?)) })
    }
}

/// What one run did.
#[derive(Default)]
struct Tally {
    files: u64,
    bytes: u64,
    computed: u64,
    unreadable: u64,
    saved: Duration,
    /// The digests of all files, combined in a way that does not depend on their order.
    tree: [u8; 32],
}

impl Tally {
    fn add(&mut self, key: &[u8], digest: &Digest) {
        let one = blake3::Hasher::new().update(key).update(digest.hash.as_bytes()).finalize();
        self.tree.iter_mut().zip(one.as_bytes()).for_each(|(sum, byte)| *sum ^= byte);
    }
}

/// Path, size and time of modification: what changes when the content does.
fn key_of(path: &Path, metadata: &fs::Metadata) -> Vec<u8> {
    let modified = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    let mut key = metadata.len().to_le_bytes().to_vec();
    key.extend(modified.as_nanos().to_le_bytes());
    key.extend(path.as_os_str().as_bytes());
    key
}

fn digest_file(store: &Store, path: &Path, tally: &Mutex<Tally>) -> thermocline::Result<()> {
    let Ok(metadata) = fs::metadata(path) else { return Ok(()) };
    let key = key_of(path, &metadata);
    let known = store.read(&key, Digest::from_bytes)?.flatten();
    let is_known = known.is_some();
    let digest = match known.map_or_else(|| Digest::compute(path), Ok) {
        Ok(digest) => digest,
        Err(error) => {
            eprintln!("{}: {error}", path.display());
            tally.lock().expect("no thread panics").unreadable += 1;
            return Ok(());
        }
    };
    if !is_known {
        store.insert(&key, digest.to_bytes())?;
    }
    let mut tally = tally.lock().expect("no thread panics");
    tally.files += 1;
    tally.bytes += metadata.len();
    if is_known {
        tally.saved += digest.cost;
    } else {
        tally.computed += 1;
    }
    tally.add(&key, &digest);
    Ok(())
}

fn digest_tree(store: &Store, root: &Path, skip: &Path) -> thermocline::Result<Tally> {
    let entries = WalkDir::new(root).into_iter().filter_entry(|entry| entry.path() != skip);
    let files = Mutex::new(entries.filter_map(Result::ok).filter(|entry| entry.file_type().is_file()));
    let tally = Mutex::new(Tally::default());
    let work = || -> thermocline::Result<()> {
        loop {
            let next = files.lock().expect("no thread panics").next();
            match next {
                Some(entry) => digest_file(store, entry.path(), &tally)?,
                None => return Ok(()),
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("no thread panics"))
    })?;
    Ok(tally.into_inner().expect("no thread panics"))
}

/// Asks for every digest once more, and says which tier answers.
fn ask_again(store: &Store) -> thermocline::Result<()> {
    let (before, start) = (store.stats().hits, Instant::now());
    for key in store.keys() {
        store.read(key?, |digest| digest.len())?;
    }
    let (after, elapsed) = (store.stats().hits, start.elapsed());
    let (memory, log) = (after.memory - before.memory, after.log - before.log);
    println!("asked again, {memory} came from memory and {log} from the log, in {elapsed:.2?}");
    Ok(())
}

fn run(root: &Path, dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let root = fs::canonicalize(root).map_err(|error| format!("{}: {error}", root.display()))?;
    let start = Instant::now();
    let store = Store::open(dir)?;
    let tally = digest_tree(&store, &root, &fs::canonicalize(dir)?)?;
    let (elapsed, known) = (start.elapsed(), tally.files - tally.computed);
    println!("{} files, {:.1} MB below {}", tally.files, tally.bytes as f64 / 1e6, root.display());
    println!("computed {} digests, took {known} from {}, in {elapsed:.2?}", tally.computed, dir.display());
    if known > 0 {
        println!("the digests from the store took {:.2?} of computing when they were made", tally.saved);
    }
    if tally.unreadable > 0 {
        println!("{} files could not be read", tally.unreadable);
    }
    ask_again(&store)?;
    store.close()?;
    println!("tree {}", blake3::Hash::from_bytes(tally.tree).to_hex());
    Ok(())
}

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1).map(PathBuf::from);
    let Some(root) = arguments.next() else {
        eprintln!("usage: tree_digest DIRECTORY [STORE]");
        return ExitCode::from(2);
    };
    let dir = arguments.next().unwrap_or_else(|| PathBuf::from("tree_digest.d"));
    match run(&root, &dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tree_digest: {error}");
            ExitCode::from(2)
        }
    }
}
