//! The synchronisation that the index and the computations in the air use: std, or the doubles of who explores them: loom's under
//! `cfg(loom)`; for the computations shuttle's too, under `cfg(shuttle)`.

#[cfg(not(loom))]
pub(crate) use std::{
    sync::{
        Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    thread::yield_now,
};

#[cfg(loom)]
pub(crate) use loom::{
    sync::{
        Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    thread::yield_now,
};

/// What computations in the air use.
pub(crate) mod in_air {
    #[cfg(not(any(loom, shuttle)))]
    pub(crate) use std::{
        sync::{
            Condvar, Mutex, MutexGuard,
            atomic::{AtomicU64, Ordering, fence},
        },
        thread::{ThreadId, current, yield_now},
        thread_local,
    };

    #[cfg(all(loom, not(shuttle)))]
    pub(crate) use loom::{
        sync::{
            Condvar, Mutex, MutexGuard,
            atomic::{AtomicU64, Ordering, fence},
        },
        thread::{ThreadId, current, yield_now},
        thread_local,
    };

    #[cfg(shuttle)]
    pub(crate) use shuttle::{
        sync::{
            Condvar, Mutex, MutexGuard,
            atomic::{AtomicU64, Ordering, fence},
        },
        thread::{ThreadId, current, yield_now},
        thread_local,
    };
}
