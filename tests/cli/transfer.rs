//! Whole stores: export, import, backup.

use std::fs;

use serde_json::json;

use crate::shell::{Shell, names, rows};

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

#[test]
fn compacting_gives_space_back_and_says_how_much() {
    let shell = Shell::new();
    let value = "v".repeat(100_000);
    for _ in 0..3 {
        shell.ok(["set", "k", &value]);
    }
    let done = &shell.json(["compact", "--format", "json"])[0];
    assert!(done["bytes_reclaimed"].as_u64() > done["bytes_written"].as_u64(), "{done}");
    shell.ok(["compact"]);
    assert_eq!(shell.ok(["get", "k"]), value.as_bytes());
}

#[test]
fn compacting_compresses_as_it_is_told() {
    let shell = Shell::new();
    let value = "as often as before ".repeat(5_000);
    shell.ok(["set", "k", &value]);
    let live_bytes = || shell.json(["stats", "--format", "json"])[0]["log"]["live_bytes"].as_u64().unwrap();
    shell.ok(["compact", "--compression", "none"]);
    assert!(live_bytes() > value.len() as u64);
    shell.ok(["compact", "--compression", "zstd:9"]);
    assert!(live_bytes() < value.len() as u64 / 10);
    assert_eq!(shell.ok(["get", "k"]), value.as_bytes());
    shell.run(["compact", "--compression", "zstd:99"]).told(2, &["compression", "99"]);
    assert_eq!(shell.run(["compact", "--compression", "gzip"]).code, 2);
    shell.run(["compact", "--disk-capacity", "1"]).told(2, &["disk_capacity"]);
}
