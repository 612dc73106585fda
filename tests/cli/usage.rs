//! The command itself: misuse, help, completions.

use crate::shell::{Shell, names};

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
