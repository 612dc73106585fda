//! What a key is: text, bytes of the command line, hexadecimal.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use crate::shell::Shell;

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
