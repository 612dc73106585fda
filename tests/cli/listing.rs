//! What is known of entries: `ls`, `metadata`, `stats`, times to live.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use thermocline::Store;

use crate::shell::Shell;

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
