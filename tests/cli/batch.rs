//! Many entries at once: rows in, rows out, and the line that is broken.

use std::fs;

use serde_json::json;

use crate::shell::{Shell, rows};

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
