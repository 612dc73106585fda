//! A shell to run the command in, and what it left: code, stdout, stderr, files.

use std::{
    ffi::OsStr,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;
use thermocline::Store;

/// A directory to work in, with `store` as the store.
pub(crate) struct Shell {
    pub(crate) dir: tempfile::TempDir,
}

/// How a command ended.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Shell {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_thermocline"));
        command.current_dir(self.dir.path()).env("THERMOCLINE_DIR", "store").args(args);
        command
    }

    #[track_caller]
    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ended {
        self.run_with(args, b"")
    }

    #[track_caller]
    pub(crate) fn run_with<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>, stdin: &[u8]) -> Ended {
        let mut command = self.command(args);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary");
        let mut input = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            // The command may end without reading all of it.
            scope.spawn(move || _ = input.write_all(stdin));
            let output = child.wait_with_output().unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            Ended { code: output.status.code().expect("no signal"), stdout: output.stdout, stderr }
        })
    }

    /// Runs what must succeed, and gives its stdout.
    #[track_caller]
    pub(crate) fn ok<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Vec<u8> {
        let ended = self.run(args);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        ended.stdout
    }

    #[track_caller]
    pub(crate) fn json<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Vec<Value> {
        rows(&self.ok(args))
    }

    /// Every entry of a store, in the order of the keys.
    #[track_caller]
    pub(crate) fn entries(&self, store: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
        let store = Store::builder().read_only().open(self.path(store)).unwrap();
        let mut entries: Vec<_> = store.iter().map(|entry| entry.map(|(k, v)| (k, v.to_vec())).unwrap()).collect();
        entries.sort();
        entries
    }

    /// A store with keys and values of every sort.
    pub(crate) fn with_odd_entries() -> Self {
        let shell = Self::new();
        let store = Store::open(shell.path("store")).unwrap();
        store.insert("", "the empty key").unwrap();
        store.insert("empty", "").unwrap();
        store.insert("text", "zwölf\n\"Boxkämpfer\"\t\0").unwrap();
        store.insert([0xff, 0, b'\n'], (0..=255).collect::<Vec<u8>>()).unwrap();
        store.insert("long", vec![0x89; 300_000]).unwrap();
        store.close().unwrap();
        shell
    }
}

impl Ended {
    /// Checks the code, that stdout is empty, and that stderr is one line of ours with these words.
    #[track_caller]
    pub(crate) fn told(&self, code: i32, words: &[&str]) {
        assert_eq!((self.code, self.stdout.as_slice()), (code, &b""[..]), "{}", self.stderr);
        self.one_line(words);
    }

    #[track_caller]
    pub(crate) fn one_line(&self, words: &[&str]) {
        assert_eq!(self.stderr.lines().count(), 1, "{}", self.stderr);
        assert!(self.stderr.starts_with("thermocline: "), "{}", self.stderr);
        words.iter().for_each(|word| assert!(self.stderr.contains(word), "{word:?} in {}", self.stderr));
    }
}

pub(crate) fn rows(stdout: &[u8]) -> Vec<Value> {
    let text = str::from_utf8(stdout).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Flips a bit of the record that holds `bytes`.
pub(crate) fn damage(store: &Path, bytes: &[u8]) {
    let segments = names(store).into_iter().filter(|name| name.ends_with(".segment"));
    for segment in segments.map(|name| store.join(name)) {
        let mut content = fs::read(&segment).unwrap();
        if let Some(at) = content.windows(bytes.len()).position(|window| window == bytes) {
            content[at] ^= 1;
            return fs::write(&segment, content).unwrap();
        }
    }
    panic!("no segment holds {bytes:?}");
}
