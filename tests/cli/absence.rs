//! What is not there: missing keys, missing stores, and which store is meant.

use std::fs;

use crate::shell::{Shell, names};

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
    let readers: [&[&str]; 11] = [
        &["get", "k"],
        &["get-many", "k"],
        &["ls"],
        &["metadata", "k"],
        &["stats"],
        &["verify"],
        &["export"],
        &["export", "file"],
        &["backup", "copy"],
        &["compact"],
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
