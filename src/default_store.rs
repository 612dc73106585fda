//! The process-wide store, and whether memoization is on.
//!
//! Holds the store that memoized functions use which name none, opened at first use. Invariant: the switch that every
//! memoized call reads changes with the store, so that no call goes on with another one.

use std::{
    env,
    ffi::OsString,
    path::PathBuf,
    sync::{Mutex, OnceLock, PoisonError, RwLock},
    time::{Duration, Instant},
};

use etcetera::BaseStrategy;
use thermocline_engine::Switch;

use crate::{Error, Result, Store, config::Config};

/// Bit 0: memoization is off. The others count how often the store was set.
pub(crate) static STATE: Switch = Switch::new(0);
pub(crate) const OFF: u32 = 1;
/// One store more was set.
const SET: u32 = 2;

static DEFAULT: RwLock<Default> = RwLock::new(Default { store: None, refused: None });
/// A store that could not be opened is tried again after this: who has it locked may have gone.
pub(crate) const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// The variable that switches memoization from outside.
const VARIABLE: &str = "THERMOCLINE_MEMO";

/// Whether the program has said whether memoization is on: then nobody else says it. Held while the switch is changed.
static SAID: Mutex<bool> = Mutex::new(false);

struct Default {
    store: Option<Store>,
    refused: Option<Instant>,
}

/// Sets the process-wide store, which memoized functions use that name no other. Those that have used another before go on
/// with this one; the other stays open as long as the process lives, because they keep their handles for when it is set again.
///
/// ```
/// # fn main() -> Result<(), thermocline::Error> {
/// thermocline::set_default(thermocline::Store::builder().in_memory()?);
/// # Ok(())
/// # }
/// ```
pub fn set_default(store: Store) {
    let mut default = DEFAULT.write().unwrap_or_else(PoisonError::into_inner);
    *default = Default { store: Some(store), refused: None };
    STATE.change(|state| state.wrapping_add(SET));
}

/// The process-wide store; opens it if nobody has.
///
/// It is the one that was [set](set_default). Else it is in the directory `THERMOCLINE_MEMO_DIR`, or the one that a
/// `thermocline.toml` names in the working directory or above, or in the user's cache directory (XDG), in a directory named
/// after the program: two programs of one name share it, and two packages of one name their results too; a `directory` or the
/// variable keeps them apart.
///
/// # Errors
/// [`Error::Config`] for a `thermocline.toml` that cannot be understood, with its line, [`Error::Option`] for a variable
/// `THERMOCLINE_MEMO` that is none of those below, and as [`crate::Builder::open`].
///
/// # Switching memoization from outside
/// With `THERMOCLINE_MEMO=off` (or `0`, `false`) memoized functions compute, also those that name their store; `on` (`1`, `true`)
/// overrides the `enabled` of a file. With any other value they compute, too, and [`crate::memo::failures`] counts.
pub fn default_store() -> Result<Store> {
    if let Some(store) = &DEFAULT.read().unwrap_or_else(PoisonError::into_inner).store {
        return Ok(store.clone());
    }
    let mut default = DEFAULT.write().unwrap_or_else(PoisonError::into_inner);
    if let Some(store) = &default.store {
        return Ok(store.clone());
    }
    let opened = open();
    match &opened {
        Ok(store) => default.store = Some(store.clone()),
        Err(_) => default.refused = Some(Instant::now()),
    }
    opened
}

/// As [`default_store`]; `None` for a while after that has failed.
pub(crate) fn default_store_unless_refused() -> Option<Result<Store>> {
    let refused = DEFAULT.read().unwrap_or_else(PoisonError::into_inner).refused;
    if refused.is_some_and(|refused| refused.elapsed() < AGAIN_AFTER) {
        return None;
    }
    Some(default_store())
}

/// Switches memoization on or off for the whole process; it is on at first. While it is off, memoized functions compute; what
/// is kept stays. From here on the variable `THERMOCLINE_MEMO` and the `enabled` of a `thermocline.toml` say nothing.
pub fn set_enabled(is_enabled: bool) {
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    *said = true;
    STATE.change(|state| if is_enabled { state & !OFF } else { state | OFF });
}

/// Whether memoization is on for functions of the process-wide store, which is not opened for that: if nobody has opened it, its
/// file may say something.
pub(crate) fn is_enabled_by_file() -> bool {
    let default = DEFAULT.read().unwrap_or_else(PoisonError::into_inner);
    if default.store.is_none() && default.refused.is_none() {
        // A file that cannot be understood is told of when the store is opened.
        let _ = heeded();
    }
    STATE.get() & OFF == 0
}

/// Whether memoization is on.
pub fn is_enabled() -> bool {
    // A variable that cannot be understood is told of by memoized functions.
    let _ = heed_variable();
    STATE.get() & OFF == 0
}

/// Whether memoization is on as far as the program and the variable say.
///
/// # Errors
/// For a variable that cannot be understood, unless the program has said it.
pub(crate) fn is_enabled_by_variable() -> Result<bool> {
    heed_variable()?;
    Ok(STATE.get() & OFF == 0)
}

/// What the variable says, which is nothing if the program has said it. Memoization is off if it says so.
fn heed_variable() -> Result<Option<bool>> {
    let said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if *said {
        return Ok(None);
    }
    let is_enabled = by_variable()?;
    if is_enabled == Some(false) {
        STATE.change(|state| state | OFF);
    }
    Ok(is_enabled)
}

/// The variable, as it was when it was read first.
fn by_variable() -> Result<Option<bool>> {
    static VALUE: OnceLock<Option<OsString>> = OnceLock::new();
    let Some(value) = VALUE.get_or_init(|| env::var_os(VARIABLE).filter(|value| !value.is_empty())) else {
        return Ok(None);
    };
    match value.to_str() {
        Some("off" | "0" | "false") => Ok(Some(false)),
        Some("on" | "1" | "true") => Ok(Some(true)),
        _ => Err(Error::Option {
            option: VARIABLE,
            found: value.to_string_lossy().into_owned(),
            expected: "on, 1, true, off, 0 or false".to_owned(),
        }),
    }
}

/// The settings; memoization is off if they or the variable say so, and the program says nothing.
fn heeded() -> Result<Config> {
    let config = match env::current_dir() {
        Ok(directory) => Config::find(directory)?,
        // A working directory that is gone has no files.
        Err(_) => Config::default(),
    };
    let by_variable = heed_variable()?;
    let said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if by_variable.or(config.enabled) == Some(false) && !*said {
        STATE.change(|state| state | OFF);
    }
    Ok(config)
}

fn open() -> Result<Store> {
    let config = heeded()?;
    let named = env::var_os("THERMOCLINE_MEMO_DIR").filter(|directory| !directory.is_empty()).map(PathBuf::from);
    let directory = match named.or_else(|| config.directory.clone()) {
        Some(directory) => directory,
        None => of_the_user()?,
    };
    if let Some(above) = directory.parent() {
        let io = |source| Error::Io { action: "create", file: above.display().to_string(), offset: 0, source };
        std::fs::create_dir_all(above).map_err(io)?;
    }
    config.apply(Store::builder()).open(directory)
}

/// `thermocline/PROGRAM` in the user's cache directory.
fn of_the_user() -> Result<PathBuf> {
    let missing = |what: &str| Error::Option {
        option: "THERMOCLINE_MEMO_DIR",
        found: "not set".to_owned(),
        expected: format!("a directory, because {what}"),
    };
    let base = etcetera::choose_base_strategy().map_err(|_| missing("the user has no home directory"))?;
    let program = env::current_exe().map_err(|_| missing("the program has no name"))?;
    let program = program.file_stem().ok_or_else(|| missing("the program has no name"))?;
    Ok(base.cache_dir().join("thermocline").join(program))
}
