//! Bad days: damage, stores in use, what is no store, pipes that close.

use std::{fs, io::Read, process::Stdio};

use serde_json::json;
use thermocline::Store;

use crate::shell::{Shell, damage, rows};

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
    let ended = shell.run(["--dir", "store/below", "set", "k", "v"]);
    ended.told(2, &["store/below: Not a directory"]);
    assert!(!ended.stderr.contains("offset"), "{}", ended.stderr);
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
