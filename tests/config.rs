//! How the process-wide store is found: `thermocline.toml`, the environment, the user's cache directory.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use tempfile::TempDir;
use thermocline::{Config, Durability, Error, memoize};

fn write(directory: &Path, text: &str) {
    fs::create_dir_all(directory).unwrap();
    fs::write(directory.join("thermocline.toml"), text).unwrap();
}

/// Idea 53: the nearest file wins, `root = true` ends the search, paths are relative to their file.
#[test]
fn the_nearest_file_wins_up_to_the_root() {
    let top = TempDir::new().unwrap();
    let (middle, bottom) = (top.path().join("middle"), top.path().join("middle/bottom"));
    write(top.path(), "directory = \"above\"\ntime_to_live = \"1h\"");
    write(&middle, "root = true\ndirectory = \"here\"\nmemory_capacity = \"64 MiB\"\ndurability = \"synced\"");
    write(&bottom, "memory_capacity = 1_000_000\nenabled = true");
    let config = Config::find(&bottom).unwrap();
    assert_eq!(config.directory.as_deref(), Some(&*middle.join("here")));
    assert_eq!((config.memory_capacity, config.durability), (Some(1_000_000), Some(Durability::Synced)));
    assert_eq!((config.time_to_live, config.enabled, config.files.len()), (None, Some(true), 2));
    write(&middle, "directory = \"here\"");
    let config = Config::find(&bottom).unwrap();
    assert_eq!((config.time_to_live, config.files.len()), (Some(Duration::from_secs(3600)), 3));
    assert_eq!(Config::find(top.path().join("absent")).unwrap().files.len(), 1);
}

/// Idea 53: what cannot be understood is an error that names file and line.
#[test]
fn what_is_wrong_in_a_file_is_an_error_with_its_line() {
    let top = TempDir::new().unwrap();
    let wrong = [
        ("root = true\n\ndirectory = \n", 3, ""),
        ("root = true\nmemory_capacity = \"ten\"\n", 2, "no unit"),
        ("root = true\nmemroy_capacity = 10\n", 2, "memroy_capacity"),
        ("root = true\n\n\ntime_to_live = \"0s\"\n", 4, "zero"),
        ("root = true\ndurability = \"often\"\n", 2, "often"),
        ("root = 1\n", 1, ""),
    ];
    for (text, line_expected, told) in wrong {
        write(top.path(), text);
        let error = Config::find(top.path()).unwrap_err();
        let Error::Config { file, line, what } = &error else { panic!("{text:?}: {error}") };
        assert_eq!(*line, line_expected, "{text:?}: {error}");
        assert!(what.contains(told) && file.ends_with("thermocline.toml"), "{text:?}: {error}");
    }
}

#[memoize]
fn computed(number: u32) -> u32 {
    println!("body {number}");
    number + 1
}

#[memoize(store = thermocline::Store::builder().in_memory())]
fn stored(number: u32) -> u32 {
    println!("stored now {number}");
    number + 1
}

/// What the tests below run in a process of its own.
#[test]
#[ignore = "run by the other tests"]
fn child() {
    if std::env::var_os("SWITCHED_ON").is_some() {
        thermocline::set_enabled(true);
    }
    if std::env::var_os("ASKED").is_some() {
        println!("enabled {}", thermocline::is_enabled());
    }
    println!("stored {}", stored(1));
    println!("stored again {}", stored(1));
    println!("result {}", computed(1));
    println!("again {}", computed(1));
    println!("failures {}", thermocline::memo::failures());
    println!("opened {}", Path::new("memo/store").exists());
    if let Err(error) = thermocline::default_store() {
        println!("error {error}");
    }
}

fn run_child(directory: &Path, variables: &[(&str, &Path)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--ignored", "--nocapture", "--test-threads", "1"]).current_dir(directory);
    command
        .env_remove("THERMOCLINE_MEMO_DIR")
        .env_remove("THERMOCLINE_MEMO")
        .env("XDG_CACHE_HOME", directory.join("cache"))
        .env("HOME", directory);
    command.envs(variables.iter().copied());
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

#[test]
fn the_store_is_where_the_environment_or_a_file_or_xdg_says() {
    let directory = TempDir::new().unwrap();
    let at = directory.path();
    let told = run_child(at, &[]);
    assert!(told.contains("body 1\nresult 2\nagain 2\nfailures 0"), "{told}");
    let of_the_user: Vec<_> =
        fs::read_dir(at.join("cache/thermocline")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(of_the_user.len(), 1);
    assert!(of_the_user[0].to_str().unwrap().starts_with("config"), "named after the program: {of_the_user:?}");
    assert!(!run_child(at, &[]).contains("body"), "what is kept survives the process");

    write(at, "root = true\ndirectory = \"memo/of file\"");
    assert!(run_child(at, &[]).contains("body 1"));
    assert!(at.join("memo/of file/store").exists());
    let named = at.join("of variable");
    assert!(run_child(at, &[("THERMOCLINE_MEMO_DIR", &named)]).contains("body 1"));
    assert!(named.join("store").exists());

    write(at, "root = true\nenabled = false\ndirectory = \"memo\"");
    fs::remove_dir_all(at.join("memo")).unwrap();
    let told = run_child(at, &[]);
    assert!(
        told.contains("result 2\n") && told.matches("body 1").count() == 2 && told.contains("failures 0"),
        "{told}"
    );
    assert!(told.contains("opened false"), "a store that nobody needs is not opened: {told}");
    let told = run_child(at, &[("SWITCHED_ON", at)]);
    assert!(
        told.matches("body 1").count() == 1 && told.contains("opened true"),
        "the program has the last word: {told}"
    );
}

/// Idea 27: without a store that can be used the call still returns its value, and a counter rises.
#[test]
fn trouble_never_reaches_the_caller() {
    let directory = TempDir::new().unwrap();
    let at = directory.path();
    let in_the_way = at.join("file");
    fs::write(&in_the_way, "").unwrap();
    write(at, "root = true\n");
    let told = run_child(at, &[("THERMOCLINE_MEMO_DIR", &in_the_way)]);
    assert!(told.contains("result 2\n") && told.contains("again 2\n"), "{told}");
    assert!(told.matches("body 1").count() == 2 && told.contains("failures 2") && told.contains("error "), "{told}");
    write(at, "root = true\ndirectory = [");
    let told = run_child(at, &[]);
    assert!(
        told.contains("result 2\n") && told.contains("failures 2") && told.contains("thermocline.toml, line 2"),
        "{told}"
    );
}

/// Idea 5: two programs on one store whose functions have one name share nothing.
#[test]
fn namesakes_in_two_programs_share_nothing() {
    let target = std::env::current_exe().unwrap();
    let examples = target.ancestors().nth(2).unwrap().join("examples");
    let programs = ["namesake_one", "namesake_other"];
    // Who runs all tests has them built.
    if !programs.iter().all(|program| examples.join(program).exists()) {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet"]).args(programs.iter().flat_map(|program| ["--example", program]));
        assert!(build.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
    }
    let directory = TempDir::new().unwrap();
    let run = |program: &str| {
        let mut command = Command::new(examples.join(program));
        let told = command
            .env("THERMOCLINE_MEMO_DIR", directory.path().join("memo"))
            .current_dir(directory.path())
            .output()
            .unwrap();
        String::from_utf8(told.stdout).unwrap()
    };
    assert_eq!(run("namesake_one"), "computed\none 1\n");
    assert_eq!(run("namesake_other"), "computed\nother 1\n");
    assert_eq!(run("namesake_one"), "one 1\n");
    assert_eq!(run("namesake_other"), "other 1\n");
}

/// Memoization is switched from outside: of functions that name their store, too, and against a file, not against the program.
#[test]
fn the_environment_switches_memoization() {
    let directory = TempDir::new().unwrap();
    let at = directory.path();
    write(at, "root = true\ndirectory = \"memo\"");
    let run = |value: &str, more: &[(&str, &Path)]| {
        for store in ["memo", "other"] {
            let _ = fs::remove_dir_all(at.join(store));
        }
        let variables = [&[("THERMOCLINE_MEMO", Path::new(value))], more].concat();
        run_child(at, &variables)
    };
    let computed_each_time =
        "stored now 1\nstored 2\nstored now 1\nstored again 2\nbody 1\nresult 2\nbody 1\nagain 2\n";
    for off in ["off", "0", "false"] {
        let told = run(off, &[]);
        assert!(told.contains(&format!("{computed_each_time}failures 0\nopened false")), "{told}");
        assert!(!told.contains("error"), "the store opens all the same: {told}");
    }
    assert!(run("off", &[("ASKED", Path::new("1"))]).contains("enabled false\n"));

    let told = run("of", &[]);
    assert!(told.contains(&format!("{computed_each_time}failures 4\nopened false")), "{told}");
    assert!(told.contains("error") && told.contains("THERMOCLINE_MEMO") && told.contains("of"), "{told}");

    let kept = "stored now 1\nstored 2\nstored again 2\n";
    let told = run("off", &[("SWITCHED_ON", Path::new("1"))]);
    assert!(told.contains(&format!("{kept}body 1\nresult 2\nagain 2\n")), "{told}");
    write(at, "root = true\nenabled = false\ndirectory = \"other\"");
    assert!(run("", &[]).contains(&format!("{kept}body 1\nresult 2\nbody 1\n")), "set to nothing it says nothing");
    for on in ["on", "1", "true"] {
        assert!(run(on, &[]).contains("result 2\nagain 2\nfailures 0"), "{on}");
    }
}
