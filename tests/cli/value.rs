//! What a value is: arguments, files and stdin, to the last byte.

use std::fs;

use crate::shell::{Shell, names};

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
