//! The command, as a shell sees it: what goes to stdout, what to stderr, and the exit code.
//!
//! Every test runs the real binary in a directory of its own; none shares a store with another.
#![cfg(feature = "cli")]

use std::{
    ffi::OsStr,
    fs,
    io::{Read, Write},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use thermocline::Store;

/// A directory to work in, with `store` as the store.
struct Shell {
    dir: tempfile::TempDir,
}

/// How a command ended.
struct Ended {
    code: i32,
    stdout: Vec<u8>,
    stderr: String,
}

impl Shell {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_thermocline"));
        command.current_dir(self.dir.path()).env("THERMOCLINE_DIR", "store").args(args);
        command
    }

    #[track_caller]
    fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ended {
        self.run_with(args, b"")
    }

    #[track_caller]
    fn run_with<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>, stdin: &[u8]) -> Ended {
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
    fn ok<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Vec<u8> {
        let ended = self.run(args);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        ended.stdout
    }

    #[track_caller]
    fn json<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Vec<Value> {
        rows(&self.ok(args))
    }

    /// Every entry of a store, in the order of the keys.
    #[track_caller]
    fn entries(&self, store: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
        let store = Store::builder().read_only().open(self.path(store)).unwrap();
        let mut entries: Vec<_> = store.iter().map(|entry| entry.map(|(k, v)| (k, v.to_vec())).unwrap()).collect();
        entries.sort();
        entries
    }

    /// A store with keys and values of every sort.
    fn with_odd_entries() -> Self {
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
    fn told(&self, code: i32, words: &[&str]) {
        assert_eq!((self.code, self.stdout.as_slice()), (code, &b""[..]), "{}", self.stderr);
        self.one_line(words);
    }

    #[track_caller]
    fn one_line(&self, words: &[&str]) {
        assert_eq!(self.stderr.lines().count(), 1, "{}", self.stderr);
        assert!(self.stderr.starts_with("thermocline: "), "{}", self.stderr);
        words.iter().for_each(|word| assert!(self.stderr.contains(word), "{word:?} in {}", self.stderr));
    }
}

fn rows(stdout: &[u8]) -> Vec<Value> {
    let text = str::from_utf8(stdout).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Flips a bit of the record that holds `bytes`.
fn damage(store: &Path, bytes: &[u8]) {
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

// What a value is

#[test]
fn a_value_that_was_set_is_written_back_untouched() {
    let shell = Shell::new();
    assert_eq!(shell.ok(["set", "user:1", "{\"name\":\"Alice\"}", "--ttl", "1h"]), b"");
    assert_eq!(shell.ok(["get", "user:1"]), b"{\"name\":\"Alice\"}");
    assert_eq!(shell.ok(["get", "user:1", "--format", "json"]), b"{\"name\":\"Alice\"}");
}

#[test]
fn a_value_comes_from_stdin_to_the_last_byte() {
    let shell = Shell::new();
    let value: Vec<u8> = (0..=255).cycle().take(200_000).collect();
    let ended = shell.run_with(["set", "k", "-"], &value);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    assert_eq!(shell.ok(["get", "k"]), value);
}

#[test]
fn a_value_comes_from_a_file() {
    let shell = Shell::new();
    fs::write(shell.path("value"), b"\xff\n").unwrap();
    shell.ok(["set", "k", "--file", "value"]);
    assert_eq!(shell.ok(["get", "k"]), b"\xff\n");
}

#[test]
fn a_value_that_cannot_be_read_makes_no_store() {
    let shell = Shell::new();
    shell.run(["set", "k", "--file", "absent"]).told(2, &["read absent", "No such file"]);
    assert_eq!(names(shell.dir.path()), [""; 0]);
}

#[test]
fn a_value_may_be_empty_or_a_negative_number() {
    let shell = Shell::new();
    shell.ok(["set", "empty", ""]);
    shell.ok(["set", "number", "-5"]);
    assert_eq!(shell.ok(["get", "empty"]), b"");
    assert_eq!(shell.ok(["get", "number"]), b"-5");
}

#[test]
fn a_value_and_a_file_exclude_each_other() {
    let shell = Shell::new();
    assert_eq!(shell.run(["set", "k", "v", "--file", "value"]).code, 2);
    assert_eq!(shell.run(["set", "k"]).code, 2);
    assert_eq!(names(shell.dir.path()), [""; 0]);
}

#[test]
fn a_write_may_ask_for_its_durability() {
    let shell = Shell::new();
    shell.ok(["set", "a", "1", "--durability", "synced"]);
    shell.ok(["set", "b", "2", "--durability", "buffered"]);
    assert_eq!(shell.ok(["get", "a"]), b"1");
    assert_eq!(shell.run(["set", "c", "3", "--durability", "volatile"]).code, 2);
}

// What a key is

#[test]
fn keys_that_are_no_text_are_typed_in_hexadecimal() {
    let shell = Shell::new();
    shell.ok(["--key-hex", "set", "00FF0a", "v"]);
    assert_eq!(shell.ok(["get", "--key-hex", "00ff0a"]), b"v");
    assert_eq!(shell.entries("store"), [(vec![0, 0xff, 0x0a], b"v".to_vec())]);
    let listed = String::from_utf8(shell.ok(["ls", "--key-hex", "--prefix", "00ff"])).unwrap();
    assert!(listed.contains("00ff0a"), "{listed}");
    shell.run(["get", "--key-hex", "0g"]).told(2, &["0g", "expected"]);
    assert_eq!(shell.ok(["rm", "--key-hex", "00ff0a"]), b"");
}

#[test]
fn keys_in_the_bytes_of_the_command_line_are_taken_as_they_are() {
    let shell = Shell::new();
    shell.ok([OsStr::new("set"), OsStr::from_bytes(b"\xff"), OsStr::from_bytes(b"\xfe")]);
    assert_eq!(shell.entries("store"), [(b"\xff".to_vec(), b"\xfe".to_vec())]);
}

#[test]
fn a_key_that_is_too_long_is_refused_with_both_numbers() {
    let shell = Shell::new();
    shell.run(["set", &"k".repeat(65_536), "v"]).told(2, &["65536", "65535"]);
}

// What is not there

#[test]
fn a_missing_key_exits_1_and_prints_nothing() {
    let shell = Shell::new();
    shell.ok(["set", "k", "v"]);
    shell.run(["get", "nope"]).told(1, &["no such key: nope"]);
    shell.run(["metadata", "nope"]).told(1, &["no such key: nope"]);
}

#[test]
fn rm_removes_those_that_are_there_and_exits_1_for_the_others() {
    let shell = Shell::new();
    shell.ok(["set", "a", "1"]);
    shell.ok(["set", "c", "3"]);
    shell.run(["rm", "a", "b", "c"]).told(1, &["no such key: b"]);
    assert_eq!(shell.entries("store"), []);
    shell.ok(["set", "a", "1"]);
    assert_eq!(shell.ok(["rm", "a"]), b"");
}

#[test]
fn reading_where_no_store_is_exits_2_and_makes_nothing() {
    let shell = Shell::new();
    let readers: [&[&str]; 10] = [
        &["get", "k"],
        &["get-many", "k"],
        &["ls"],
        &["metadata", "k"],
        &["stats"],
        &["verify"],
        &["export"],
        &["export", "file"],
        &["backup", "copy"],
        &["rm", "k"],
    ];
    for args in readers {
        shell.run(args).told(2, &["no store in store"]);
        assert_eq!(names(shell.dir.path()), [""; 0], "{args:?}");
    }
    fs::create_dir(shell.path("store")).unwrap();
    for args in readers {
        shell.run(args).told(2, &["no store in store"]);
        assert_eq!(names(&shell.path("store")), [""; 0], "{args:?}");
    }
}

#[test]
fn the_store_is_where_dir_says_before_the_environment_and_the_default() {
    let shell = Shell::new();
    shell.ok(["set", "k", "environment"]);
    shell.ok(["--dir", "other", "set", "k", "option"]);
    let status = shell.command(["set", "k", "default"]).env_remove("THERMOCLINE_DIR").status().unwrap();
    assert!(status.success());
    assert_eq!(names(shell.dir.path()), ["other", "store", "thermocline.d"]);
    assert_eq!(shell.ok(["get", "k", "--dir", "thermocline.d"]), b"default");
    assert_eq!(shell.ok(["get", "k", "--dir", "other"]), b"option");
    assert_eq!(shell.ok(["get", "k"]), b"environment");
}

#[test]
fn a_store_makes_no_file_anywhere_but_in_its_directory() {
    let [shell, elsewhere] = [(); 2].map(|()| Shell::new());
    let commands: [&[&str]; 5] = [&["set", "k", "v"], &["get", "k"], &["ls"], &["verify"], &["export"]];
    for args in commands {
        let mut command = shell.command(args);
        for name in ["HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"] {
            command.env(name, elsewhere.dir.path());
        }
        assert!(command.output().unwrap().status.success());
    }
    assert_eq!(names(shell.dir.path()), ["store"]);
    assert_eq!(names(elsewhere.dir.path()), [""; 0]);
}

// What is known of entries

#[test]
fn ls_shows_people_a_table() {
    let shell = Shell::with_odd_entries();
    shell.ok(["set", "mortal", "v", "--ttl", "90m"]);
    let table = String::from_utf8(shell.ok(["ls"])).unwrap();
    let line = |key: &str| table.lines().find(|line| line.starts_with(key)).expect(key).to_owned();
    assert!(table.starts_with("key"), "{table}");
    assert_eq!(table.lines().count(), 7);
    assert!(line("text").contains("22 B") && line("text").contains("never"), "{table}");
    assert!(line("mortal").contains("1h 29m "), "{table}");
    assert!(line("long").contains("292.97 KiB"), "{table}");
    assert!(line("\\xff\\0\\n").contains("256 B"), "{table}");
}

#[test]
fn ls_gives_programs_rows_of_json() {
    let shell = Shell::with_odd_entries();
    let rows = shell.json(["ls", "--format", "json"]);
    assert_eq!(rows.len(), 5);
    let text = rows.iter().find(|row| row["key"] == "text").unwrap();
    assert_eq!((&text["size_bytes"], &text["tier"], &text["ttl_ms"]), (&json!(22), &json!("log"), &Value::Null));
    let odd = rows.iter().find(|row| row["key"].is_null()).unwrap();
    assert_eq!(odd["key_base64"], BASE64_STANDARD.encode([0xff, 0, b'\n']));
}

#[test]
fn ls_can_be_narrowed_by_prefix_glob_and_limit() {
    let shell = Shell::new();
    let store = Store::open(shell.path("store")).unwrap();
    (0..3000).for_each(|n| store.insert(format!("user:{n}"), "v").unwrap());
    (0..10).for_each(|n| store.insert(format!("order/{n}/user:1"), "v").unwrap());
    store.close().unwrap();
    let count = |args: &[&str]| shell.json([&["ls", "--format", "json"], args].concat()).len();
    assert_eq!(count(&[]), 3010);
    assert_eq!(count(&["--prefix", "user:"]), 3000);
    assert_eq!(count(&["--glob", "user:?"]), 10);
    assert_eq!(count(&["--glob", "order*:1"]), 10);
    assert_eq!(count(&["--glob", "{order,user}*[12]", "--prefix", "user:1"]), 1 + 2 + 20 + 200);
    assert_eq!(count(&["--limit", "7"]), 7);
    assert_eq!(count(&["--limit", "0"]), 0);
    let pages = String::from_utf8(shell.ok(["ls"])).unwrap();
    assert_eq!(pages.lines().filter(|line| line.contains("never expires")).count(), 3010);
    let ended = shell.run(["ls", "--glob", "["]);
    assert!(ended.code == 2 && ended.stderr.contains("unclosed"), "{}", ended.stderr);
}

#[test]
fn metadata_speaks_of_size_tier_and_what_is_left_to_live() {
    let shell = Shell::new();
    shell.ok(["set", "k", "value", "--ttl", "1h"]);
    let [row] = &shell.json(["metadata", "k", "--format", "json"])[..] else { panic!("one row") };
    assert_eq!((&row["key"], &row["size_bytes"], &row["tier"]), (&json!("k"), &json!(5), &json!("log")));
    assert!((3_500_000..=3_600_000).contains(&row["ttl_ms"].as_u64().unwrap()), "{row}");
    assert!(row["sequence"].as_u64().unwrap() > 0 && row["created_ms"].as_u64().unwrap() > 1_577_836_800_000, "{row}");
    let table = String::from_utf8(shell.ok(["metadata", "k"])).unwrap();
    for field in ["key", "size", "tier", "ttl left", "sequence", "created"] {
        assert!(table.contains(field), "{table}");
    }
}

#[test]
fn a_time_to_live_of_zero_is_refused_and_one_without_a_unit_is_misuse() {
    let shell = Shell::new();
    shell.run(["set", "k", "v", "--ttl", "0s"]).told(2, &["ttl", "0", "expected"]);
    assert_eq!(shell.run(["set", "k", "v", "--ttl", "5 parsecs"]).code, 2);
}

#[test]
fn an_entry_is_gone_when_its_time_to_live_is_over() {
    let shell = Shell::new();
    shell.ok(["set", "k", "v", "--ttl", "1ms"]);
    // Each try takes longer than that.
    let gone = (0..1000).any(|_| shell.run(["get", "k"]).code == 1);
    assert!(gone);
    assert_eq!(shell.json(["ls", "--format", "json"]), [Value::Null; 0]);
    assert_eq!(shell.run(["rm", "k"]).code, 1);
}

#[test]
fn stats_are_a_table_or_one_object() {
    let shell = Shell::with_odd_entries();
    let table = String::from_utf8(shell.ok(["stats"])).unwrap();
    assert!(table.contains("log.segments") && table.contains("index.bytes"), "{table}");
    let [stats] = &shell.json(["stats", "--format", "json"])[..] else { panic!("one row") };
    assert_eq!((&stats["entries"], &stats["log"]["records"]), (&json!(5), &json!(5)), "{stats}");
    assert!(stats["log"]["bytes"].as_u64() > Some(300_000), "{stats}");
}

// Many at once

#[test]
fn set_many_writes_what_comes_in_as_json_lines() {
    let shell = Shell::new();
    let input = concat!(
        "{\"key\":\"a\",\"value\":\"first\"}\n",
        "\n",
        "{\"key\":\"b\",\"value\":\"mortal\",\"ttl_ms\":3600000}\r\n",
        "{\"key_base64\":\"/w==\",\"value_base64\":\"AP8=\"}\n",
        "{\"key\":\"a\",\"value\":\"last\"}",
    );
    let ended = shell.run_with(["set-many"], input.as_bytes());
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    ended.told(0, &["wrote 4 entries"]);
    let [a, b] = [b"a", b"b"].map(|key| key.to_vec());
    let expected = [(a, b"last".to_vec()), (b, b"mortal".to_vec()), (vec![0xff], vec![0, 0xff])];
    assert_eq!(shell.entries("store"), expected);
    let [row] = &shell.json(["metadata", "b", "--format", "json"])[..] else { panic!("one row") };
    assert!(row["ttl_ms"].as_u64().is_some_and(|left| left <= 3_600_000), "{row}");
}

#[test]
fn of_equal_keys_in_a_batch_the_last_wins_whether_it_expires_or_stays() {
    let shell = Shell::new();
    let (stays, expires) =
        ("{\"key\":\"k\",\"value\":\"stays\"}\n", "{\"key\":\"k\",\"value\":\"goes\",\"ttl_ms\":99999}\n");
    shell.run_with(["set-many"], [stays, expires].concat().as_bytes());
    assert_eq!(shell.ok(["get", "k"]), b"goes");
    shell.run_with(["set-many"], [expires, stays].concat().as_bytes());
    assert_eq!(shell.ok(["get", "k"]), b"stays");
}

#[test]
fn get_many_gives_every_key_in_order_and_null_for_the_missing() {
    let shell = Shell::new();
    shell.ok(["set", "k1", "one"]);
    shell.ok(["set", "k2", "two", "--ttl", "1h"]);
    let ended = shell.run(["get-many", "k2", "nope", "k1", "k2"]);
    let rows = rows(&ended.stdout);
    assert_eq!(ended.code, 1);
    assert_eq!(rows.iter().map(|row| &row["key"]).collect::<Vec<_>>(), ["k2", "nope", "k1", "k2"]);
    assert_eq!(rows[1], json!({"key": "nope", "value": null}));
    assert_eq!(rows[2], json!({"key": "k1", "value": "one"}));
    assert!(rows[0]["ttl_ms"].is_u64());
    assert_eq!(shell.json(["get-many", "k1"]), [json!({"key": "k1", "value": "one"})]);
}

#[test]
fn a_broken_line_17_is_named_and_16_entries_are_kept() {
    let shell = Shell::new();
    let line = |n: u32| format!("{{\"key\":\"k{n:02}\",\"value\":\"v\"}}\n");
    let mut input: String = (1..=16).map(line).collect();
    input.push_str("{\"key\":\"k17\"\n");
    input.extend((18..=20).map(line));
    for (store, command) in [("a", "import"), ("b", "set-many")] {
        let ended = shell.run_with(["--dir", store, command], input.as_bytes());
        ended.told(2, &["stdin, line 17:", ", expected", "; kept 16 entries"]);
        assert_eq!(shell.entries(store).len(), 16);
    }
    fs::write(shell.path("rows.jsonl"), &input).unwrap();
    shell.run(["--dir", "c", "import", "rows.jsonl"]).told(2, &["rows.jsonl, line 17:", "kept 16 entries"]);
}

#[test]
fn an_entry_that_the_store_refuses_is_named_by_its_line() {
    let shell = Shell::new();
    let rows = |last: &str| format!("{}{last}\n{}", "{\"key\":\"a\",\"value\":\"1\"}\n".repeat(3), "{}");
    let long = rows(&json!({"key": "k".repeat(65_536), "value": ""}).to_string());
    shell.run_with(["set-many"], long.as_bytes()).told(2, &["line 4:", "65536", "65535", "kept 3 entries"]);
    let zero = rows(&json!({"key": "k", "value": "", "ttl_ms": 0}).to_string());
    shell.run_with(["set-many"], zero.as_bytes()).told(2, &["line 4:", "expected", "kept 3 entries"]);
}

#[test]
fn many_thousand_rows_go_in_and_come_out() {
    let shell = Shell::new();
    let rows: String = (0..20_000).map(|n| format!("{{\"key\":\"k{n}\",\"value\":\"value {n}\"}}\n")).collect();
    shell.run_with(["import"], rows.as_bytes()).told(0, &["imported 20000 entries"]);
    let exported = String::from_utf8(shell.ok(["export"])).unwrap();
    let sorted = |text: &str| -> Vec<String> {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&exported), sorted(&rows));
}

// Whole stores

#[test]
fn an_export_in_either_form_comes_back_byte_for_byte() {
    let shell = Shell::with_odd_entries();
    shell.ok(["set", "mortal", "v", "--ttl", "1h"]);
    let expected = shell.entries("store");
    for (form, copy) in [("json", "rows"), ("binary", "binary")] {
        let file = format!("{copy}.export");
        shell.run(["export", "--format", form, &file]).told(0, &["exported 6 entries"]);
        shell.run(["--dir", copy, "import", &file]).told(0, &["imported 6 entries"]);
        assert_eq!(shell.entries(copy), expected);
        let [row] = &shell.json(["--dir", copy, "metadata", "mortal", "--format", "json"])[..] else {
            panic!("one row")
        };
        assert!((3_500_000..=3_600_000).contains(&row["ttl_ms"].as_u64().unwrap()), "{row}");
        let piped = shell.ok(["export", "--format", form]);
        assert_eq!(shell.run_with(["--dir", &format!("{copy}-piped"), "import", "-"], &piped).code, 0);
        assert_eq!(shell.entries(&format!("{copy}-piped")), expected);
    }
    assert_eq!(names(shell.dir.path()).iter().filter(|name| name.contains("unfinished")).count(), 0);
}

#[test]
fn the_binary_form_is_the_compact_one() {
    let shell = Shell::with_odd_entries();
    assert!(shell.ok(["export", "--format", "binary"]).len() < shell.ok(["export"]).len());
}

#[test]
fn a_binary_import_that_was_cut_keeps_what_came_before() {
    let shell = Shell::new();
    (1..=3).for_each(|n| _ = shell.ok(["set", &format!("k{n}"), &format!("value {n}")]));
    let whole = shell.ok(["export", "--format", "binary"]);
    let cut = &whole[..whole.len() - 10];
    shell.run_with(["--dir", "cut", "import"], cut).told(2, &["stdin, record 3:", "expected", "; kept 2 entries"]);
    assert_eq!(shell.entries("cut").len(), 2);
    let without_end = &whole[..whole.len() - 6];
    shell.run_with(["--dir", "end", "import"], without_end).told(2, &["record 4:", "; kept 3 entries"]);
    let mut flipped = whole.clone();
    flipped[20] ^= 1;
    let ended = shell.run_with(["--dir", "flipped", "import"], &flipped);
    ended.told(2, &["record 1: checksum mismatch", "expected", "; kept 0 entries"]);
}

#[test]
fn an_export_replaces_a_file_only_when_it_is_whole() {
    let shell = Shell::new();
    shell.ok(["set", "k", "v"]);
    fs::write(shell.path("file"), "what was there").unwrap();
    shell.run(["--dir", "absent", "export", "file"]).told(2, &["no store in absent"]);
    assert_eq!(fs::read(shell.path("file")).unwrap(), b"what was there");
    shell.ok(["export", "file"]);
    assert_eq!(rows(&fs::read(shell.path("file")).unwrap()), [json!({"key": "k", "value": "v"})]);
    shell.run(["export", "absent/file"]).told(2, &["absent/file", "No such file"]);
}

#[test]
fn an_import_that_cannot_be_read_makes_no_store() {
    let shell = Shell::new();
    shell.run(["import", "absent"]).told(2, &["open absent", "No such file"]);
    shell.run(["import", "."]).told(2, &["read .", "directory"]);
    assert_eq!(names(shell.dir.path()), [""; 0]);
}

#[test]
fn export_writes_json_or_binary_and_nothing_else_writes_binary() {
    let shell = Shell::new();
    shell.ok(["set", "k", "v"]);
    assert_eq!(shell.run(["export", "--format", "table"]).code, 2);
    assert_eq!(shell.run(["ls", "--format", "binary"]).code, 2);
}

#[test]
fn a_backup_is_a_store_of_its_own() {
    let shell = Shell::with_odd_entries();
    shell.run(["backup", "copy"]).told(0, &["store", "copy"]);
    assert_eq!(shell.entries("copy"), shell.entries("store"));
    assert_eq!(shell.run(["--dir", "copy", "verify"]).code, 0);
    shell.ok(["--dir", "copy", "set", "k", "v"]);
    assert_eq!(shell.run(["get", "k"]).code, 1);
    shell.run(["backup", "copy"]).told(2, &["copy"]);
}

// Bad days

#[test]
fn verify_passes_a_sound_store_and_changes_nothing() {
    let shell = Shell::with_odd_entries();
    let table = String::from_utf8(shell.ok(["verify"])).unwrap();
    assert!(table.contains("damaged"), "{table}");
    let [verified] = &shell.json(["verify", "--format", "json"])[..] else { panic!("one row") };
    assert_eq!((&verified["records"], &verified["damaged"]), (&json!(5), &json!([])));
}

#[test]
fn verify_finds_a_flipped_byte_and_exits_2() {
    let shell = Shell::new();
    shell.ok(["set", "whole", "this stays as it is"]);
    shell.ok(["set", "hurt", "this will be damaged"]);
    shell.ok(["set", "also whole", "this stays too"]);
    damage(&shell.path("store"), b"this will be damaged");
    let ended = shell.run(["verify", "--format", "json"]);
    assert_eq!(ended.code, 2);
    ended.one_line(&["1 damaged record", ".segment", "offset"]);
    let [verified] = &rows(&ended.stdout)[..] else { panic!("one row") };
    assert_eq!(verified["damaged"].as_array().map(Vec::len), Some(1), "{verified}");
    let table = shell.run(["verify"]);
    assert!(table.code == 2 && str::from_utf8(&table.stdout).unwrap().contains(".segment"));
}

#[test]
fn a_damaged_record_is_never_a_value_and_hides_no_other() {
    let shell = Shell::new();
    shell.ok(["set", "whole", "this stays as it is"]);
    shell.ok(["set", "hurt", "this will be damaged"]);
    shell.ok(["set", "also whole", "this stays too"]);
    damage(&shell.path("store"), b"this will be damaged");
    shell.run(["get", "hurt"]).told(2, &[".segment", "offset"]);
    assert_eq!(shell.ok(["get", "whole"]), b"this stays as it is");
    let exported = shell.run(["export"]);
    assert_eq!((exported.code, rows(&exported.stdout).len()), (2, 2), "{}", exported.stderr);
    exported.one_line(&["1 damaged record", ".segment"]);
    let listed = shell.run(["ls", "--format", "json"]);
    assert_eq!((listed.code, rows(&listed.stdout).len()), (2, 2), "{}", listed.stderr);
    shell.ok(["set", "hurt", "healed"]);
    assert_eq!(shell.ok(["get", "hurt"]), b"healed");
}

#[test]
fn get_many_says_which_record_is_damaged_and_exits_2() {
    let shell = Shell::new();
    shell.ok(["set", "hurt", "this will be damaged"]);
    shell.ok(["set", "whole", "this stays as it is"]);
    damage(&shell.path("store"), b"this will be damaged");
    let ended = shell.run(["get-many", "hurt", "whole", "nope"]);
    assert_eq!(ended.code, 2);
    ended.one_line(&["1 damaged record"]);
    let [hurt, whole, nope] = &rows(&ended.stdout)[..] else { panic!("three rows") };
    assert!(hurt["error"].as_str().unwrap().contains(".segment") && hurt.get("value").is_none(), "{hurt}");
    assert_eq!(whole, &json!({"key": "whole", "value": "this stays as it is"}));
    assert_eq!(nope, &json!({"key": "nope", "value": null}));
}

#[test]
fn a_second_opener_is_refused_while_somebody_writes() {
    let shell = Shell::new();
    let store = Store::open(shell.path("store")).unwrap();
    store.insert("k", "v").unwrap();
    shell.run(["get", "k"]).told(2, &["store is in use"]);
    shell.run(["set", "k", "w"]).told(2, &["store is in use"]);
    store.close().unwrap();
    assert_eq!(shell.ok(["get", "k"]), b"v");
}

#[test]
fn readers_do_not_shut_each_other_out() {
    let shell = Shell::new();
    shell.ok(["set", "k", "v"]);
    let _reader = Store::builder().read_only().open(shell.path("store")).unwrap();
    assert_eq!(shell.ok(["get", "k"]), b"v");
    shell.run(["set", "k", "w"]).told(2, &["store is in use"]);
}

#[test]
fn a_file_in_the_place_of_a_directory_is_said_to_be_one() {
    let shell = Shell::new();
    fs::write(shell.path("store"), "no store").unwrap();
    shell.run(["set", "k", "v"]).told(2, &["store"]);
    shell.run(["get", "k"]).told(2, &["store"]);
    shell.run(["--dir", "store/below", "set", "k", "v"]).told(2, &["store/below"]);
    assert_eq!(fs::read(shell.path("store")).unwrap(), b"no store");
}

#[test]
fn a_directory_of_other_things_is_no_store_and_a_broken_one_is_not_repaired() {
    let shell = Shell::new();
    fs::create_dir(shell.path("store")).unwrap();
    fs::write(shell.path("store/notes.txt"), "mine").unwrap();
    shell.run(["get", "k"]).told(2, &["no store in store"]);
    fs::write(shell.path("store/store"), "this is no identity").unwrap();
    shell.run(["get", "k"]).told(2, &["store/store"]);
    shell.run(["set", "k", "v"]).told(2, &["store/store"]);
    assert_eq!(fs::read(shell.path("store/store")).unwrap(), b"this is no identity");
    assert_eq!(fs::read(shell.path("store/notes.txt")).unwrap(), b"mine");
}

#[test]
fn a_reader_that_closes_the_pipe_ends_the_command_quietly() {
    let shell = Shell::new();
    let store = Store::open(shell.path("store")).unwrap();
    store.insert("big", vec![b'x'; 4 << 20]).unwrap();
    (0..20_000).for_each(|n| store.insert(format!("key {n}"), "v").unwrap());
    store.close().unwrap();
    let commands: [&[&str]; 4] = [&["get", "big"], &["export"], &["ls"], &["ls", "--format", "json"]];
    for args in commands {
        let mut command = shell.command(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr), (Some(0), vec![]), "{args:?}");
    }
}

#[test]
fn a_stdout_that_takes_nothing_is_a_failure() {
    let shell = Shell::new();
    shell.ok(["set", "k", "v"]);
    let commands: [&[&str]; 5] = [&["get", "k"], &["ls"], &["export"], &["stats"], &["completions", "fish"]];
    for args in commands {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = shell.command(args).stdout(full).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr.starts_with("thermocline: write stdout: ") && stderr.lines().count() == 1, "{stderr}");
    }
}

// The command itself

#[test]
fn misuse_exits_2_and_says_what_would_be_right() {
    let shell = Shell::new();
    for args in
        [&["frobnicate"][..], &[], &["get"], &["rm"], &["get-many"], &["ls", "--limit", "few"], &["set", "--oops"]]
    {
        let ended = shell.run(args);
        assert_eq!((ended.code, ended.stdout.as_slice()), (2, &b""[..]), "{args:?}");
        assert!(ended.stderr.contains("Usage") || ended.stderr.contains("--help"), "{}", ended.stderr);
    }
    assert_eq!(names(shell.dir.path()), [""; 0]);
}

#[test]
fn a_name_with_a_line_break_still_makes_one_line() {
    let shell = Shell::new();
    shell.run(["get", "k", "--dir", "a\nb"]).told(2, &["no store in a\\nb"]);
}

#[test]
fn completions_and_help_need_no_store() {
    let shell = Shell::new();
    for name in ["bash", "zsh", "fish"] {
        let script = String::from_utf8(shell.ok(["completions", name])).unwrap();
        assert!(script.contains("thermocline") && script.contains("get-many"));
    }
    assert!(String::from_utf8(shell.ok(["--help"])).unwrap().contains("thermocline get user:1"));
    assert!(shell.ok(["--version"]).starts_with(b"thermocline "));
    assert_eq!(names(shell.dir.path()), [""; 0]);
}
