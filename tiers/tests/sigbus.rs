//! A fault that is none of ours goes to whoever handled it before us, with all its arguments. Each case is a process of its own: this
//! binary, started again.

use std::{
    env, fs,
    os::unix::process::ExitStatusExt,
    process::{self, Command},
    ptr,
    sync::atomic::{AtomicUsize, Ordering},
};

use thermocline_tiers::log::medium::{Disk, Medium};

const ROLE: &str = "THERMOCLINE_TEST_SIGBUS";
/// Where the next fault is to come from.
static ADDRESS: AtomicUsize = AtomicUsize::new(0);

fn install(action: usize, flags: libc::c_int) {
    // SAFETY: the action is `SIG_DFL`, `SIG_IGN`, or a handler below that only asks and exits.
    unsafe {
        let mut new: libc::sigaction = std::mem::zeroed();
        new.sa_sigaction = action;
        new.sa_flags = flags;
        assert_eq!(libc::sigaction(libc::SIGBUS, &raw const new, ptr::null_mut()), 0);
    }
}

extern "C" fn full(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the arguments are the system's.
    let address = unsafe { (*info).si_addr() }.addr();
    let is_right = signal == libc::SIGBUS && address == ADDRESS.load(Ordering::SeqCst) && !context.is_null();
    // SAFETY: exits.
    unsafe { libc::_exit(if is_right { 42 } else { 1 }) }
}

extern "C" fn plain(signal: libc::c_int) {
    // SAFETY: exits.
    unsafe { libc::_exit(if signal == libc::SIGBUS { 43 } else { 1 }) }
}

/// Reads from a mapping that its file does not reach.
fn fault() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(8192).unwrap();
    // SAFETY: nobody relies on the bytes.
    let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
    file.set_len(0).unwrap();
    ADDRESS.store(map.as_ptr().addr() + 4096, Ordering::SeqCst);
    println!("survived, and read {}", std::hint::black_box(&map)[4096]);
}

/// Runs only as the child of the test below.
#[test]
fn child() {
    let Ok(role) = env::var(ROLE) else { return };
    let full: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = full;
    let plain: extern "C" fn(libc::c_int) = plain;
    match role.as_str() {
        "default" | "sent" => install(libc::SIG_DFL, 0),
        "ignored" => install(libc::SIG_IGN, 0),
        "full" => install(full as usize, libc::SA_SIGINFO | libc::SA_ONSTACK),
        "plain" => install(plain as usize, 0),
        _ => {}
    }
    let dir = tempfile::tempdir().unwrap();
    let file = Disk::open(dir.path()).unwrap().create("mapped").unwrap();
    file.set_bytes(8192).unwrap();
    let _map = file.map(8192, true).unwrap().expect("a filesystem that can be mapped");
    // Whoever ends by a signal removes nothing.
    fs::remove_dir_all(dir.path()).unwrap();
    // SAFETY: sends a signal to this thread.
    if matches!(role.as_str(), "sent" | "ignored") && unsafe { libc::raise(libc::SIGBUS) } == 0 {
        assert_eq!(role, "ignored", "a signal that was sent ends the process");
    }
    fault();
    process::exit(0);
}

#[test]
fn a_fault_of_others_is_theirs() {
    let run = |role: &str| {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "child", "--test-threads=1"]).env(ROLE, role).output().unwrap()
    };
    for role in ["default", "runtime", "ignored", "sent"] {
        let output = run(role);
        assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{role}: {output:?}");
    }
    for (role, code) in [("full", 42), ("plain", 43)] {
        let output = run(role);
        assert_eq!(output.status.code(), Some(code), "{role}: {output:?}");
    }
}
