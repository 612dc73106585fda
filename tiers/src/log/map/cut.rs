//! What happens when a page of a mapped file is missing: the file was cut behind our back, or the disk failed.
//!
//! Holds the handler of SIGBUS and the table of mapped ranges that it looks into. The handler puts zeros in the place of the
//! page, after it has marked the range; whoever reads or writes through the map looks at the mark afterwards. Never
//! holds a lock, allocates, or touches `errno` in the handler. Invariant: a range is in the table from its mapping until just before its
//! unmapping; any other address is answered by whatever handled the signal before.

use std::{
    mem::MaybeUninit,
    ptr,
    sync::{
        Mutex, Once, PoisonError,
        atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicUsize, Ordering},
    },
};

/// Faults of all ranges, so that who looks for a mark, and that is every reader, looks at one word that hardly ever changes.
static FAULTS: AtomicU32 = AtomicU32::new(0);
/// The table, in parts that are never freed: the handler may look at any of them at any time.
static TABLE: AtomicPtr<Part> = AtomicPtr::new(ptr::null_mut());
/// Guards who adds to the table. The handler does not ask.
static ADDING: Mutex<()> = Mutex::new(());
static INSTALLED: Once = Once::new();
/// What handled the signal before: a function, `SIG_DFL` or `SIG_IGN`, and how it wants to be called.
static BEFORE: AtomicUsize = AtomicUsize::new(libc::SIG_DFL);
static BEFORE_FLAGS: AtomicI32 = AtomicI32::new(0);
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(4096);

const PART: usize = 256;

struct Part {
    ranges: [Range; PART],
    next: AtomicPtr<Part>,
}

/// A mapped range, or a free place in the table (`start` is 0).
pub(super) struct Range {
    start: AtomicUsize,
    end: AtomicUsize,
    writable: AtomicBool,
    faults: AtomicU32,
}

/// A range that is guarded while this lives. To be dropped before the range is unmapped.
pub(super) struct Guarded(&'static Range);

impl Guarded {
    /// Guards the mapping of a file at `start`. The first call of the process installs the handler.
    pub(super) fn new(start: *const u8, bytes: usize, writable: bool) -> Self {
        INSTALLED.call_once(install);
        let _one = ADDING.lock().unwrap_or_else(PoisonError::into_inner);
        let range = free_range();
        range.faults.store(0, Ordering::Relaxed);
        range.writable.store(writable, Ordering::Relaxed);
        range.end.store(start.addr() + bytes, Ordering::Relaxed);
        // Release: pairs with the Acquire in `find`; who sees the start sees the rest.
        range.start.store(start.addr(), Ordering::Release);
        Self(range)
    }

    /// Whether a page was missing, once [`any_cut`] said so.
    pub(super) fn is_cut(&self) -> bool {
        self.0.faults.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.0.start.store(0, Ordering::Release);
    }
}

/// Whether a page was missing in any range of this process, before the bytes were read or written that the caller did read or write.
#[inline]
pub(super) fn any_cut() -> bool {
    // Acquire: neither the compiler nor the processor may look here before the bytes were read. Whoever saw a zero of the
    // handler's comes after its mark.
    std::sync::atomic::fence(Ordering::Acquire);
    FAULTS.load(Ordering::Relaxed) > 0
}

/// A free place; the caller holds `ADDING`.
fn free_range() -> &'static Range {
    let mut link = &TABLE;
    loop {
        let part = link.load(Ordering::Acquire);
        // SAFETY: parts are leaked boxes, so a pointer that is not null is valid for ever; nobody has a unique reference to one.
        let Some(part) = (unsafe { part.as_ref() }) else { break };
        if let Some(free) = part.ranges.iter().find(|range| range.start.load(Ordering::Relaxed) == 0) {
            return free;
        }
        link = &part.next;
    }
    let free = || Range {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        writable: AtomicBool::new(false),
        faults: AtomicU32::new(0),
    };
    let ranges = std::array::from_fn(|_| free());
    let part = Box::leak(Box::new(Part { ranges, next: AtomicPtr::new(ptr::null_mut()) }));
    // Release: pairs with the Acquire here and in `find`.
    link.store(part, Ordering::Release);
    &part.ranges[0]
}

/// The range that `address` is in, and where it ends. Called by the handler.
fn find(address: usize) -> Option<(&'static Range, usize)> {
    let mut link = &TABLE;
    loop {
        let part = link.load(Ordering::Acquire);
        // SAFETY: as in `free_range`.
        let part = unsafe { part.as_ref() }?;
        for range in &part.ranges {
            let start = range.start.load(Ordering::Acquire);
            let end = range.end.load(Ordering::Relaxed);
            // The range of an address that somebody reads does not go meanwhile. Another's place may be given up and taken
            // again, which shows in its start.
            if start != 0 && start <= address && address < end && range.start.load(Ordering::Acquire) == start {
                return Some((range, end));
            }
        }
        link = &part.next;
    }
}

/// Puts zeros in the place of a missing page. `false` if it is none of ours, or the system refuses.
fn replace(address: usize) -> bool {
    let Some((range, end)) = find(address) else { return false };
    let page = PAGE_BYTES.load(Ordering::Relaxed);
    let start = address - address % page;
    // The mark comes first: whoever meets the zeros finds it.
    let before = range.faults.fetch_add(1, Ordering::SeqCst);
    FAULTS.fetch_add(1, Ordering::SeqCst);
    // What is behind the end of a file is missing as well: twice as much each time, so that a file of very many pages does not take
    // as many mappings as the system gives. A disk that fails here and there loses no more than a page at first.
    let bytes = page.saturating_mul(1 << before.min(30)).min(end.next_multiple_of(page) - start);
    let writable = range.writable.load(Ordering::Relaxed);
    let protection = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
    // SAFETY: the pages are inside a mapping of our own, which stays in the table, and mapped, while somebody accesses it,
    // and this thread does. Nobody relies on their bytes without a look at the mark (`segment.rs`).
    let mapped = unsafe { libc::mmap(ptr::without_provenance_mut(start), bytes, protection, flags, -1, 0) };
    mapped != libc::MAP_FAILED
}

/// Installs the handler, and remembers what was there before.
fn install() {
    // SAFETY: `sysconf` reads; `sigaction` with a null pointer for one side reads or writes the other, which is ours. The handler
    // does what is allowed in one: atomics and system calls.
    unsafe {
        if let Ok(page) = usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)) {
            PAGE_BYTES.store(page.max(4096), Ordering::Relaxed);
        }
        let mut before = MaybeUninit::<libc::sigaction>::zeroed();
        if libc::sigaction(libc::SIGBUS, ptr::null(), before.as_mut_ptr()) != 0 {
            return;
        }
        let mut action = before.assume_init();
        BEFORE.store(action.sa_sigaction, Ordering::SeqCst);
        BEFORE_FLAGS.store(action.sa_flags, Ordering::SeqCst);
        // The mask stays that of the handler before, which may be called from ours.
        let kept = action.sa_flags & (libc::SA_NODEFER | libc::SA_RESTART);
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = handle;
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = kept | libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut());
    }
}

extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the system gives a valid `info` to a handler that was installed with `SA_SIGINFO`, and an address with a fault of
    // its own making, whose codes are positive. `errno` is this thread's.
    unsafe {
        let errno = libc::__errno_location();
        let saved = *errno;
        let is_fault = matches!((*info).si_code, libc::BUS_ADRERR | libc::BUS_OBJERR | libc::BUS_MCEERR_AR);
        if !(is_fault && replace((*info).si_addr().addr())) {
            pass_on(signal, info, context);
        }
        *errno = saved;
    }
}

/// Does what would have happened without us.
///
/// # Safety
/// To be called by a handler of `signal` with its own arguments.
unsafe fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let (flags, mut before) = (BEFORE_FLAGS.load(Ordering::SeqCst), BEFORE.load(Ordering::SeqCst));
    if flags & libc::SA_RESETHAND != 0 && before != libc::SIG_IGN {
        before = BEFORE.swap(libc::SIG_DFL, Ordering::SeqCst);
    }
    // SAFETY: a function that was installed with these flags takes these arguments. Otherwise the action before is installed again:
    // a fault is repeated then and meets it; a signal that somebody sent is sent again.
    unsafe {
        let was_sent = (*info).si_code <= 0;
        match before {
            libc::SIG_IGN if was_sent => {}
            libc::SIG_DFL | libc::SIG_IGN => {
                let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
                action.sa_sigaction = before;
                libc::sigaction(signal, &raw const action, ptr::null_mut());
                if was_sent {
                    libc::raise(signal);
                }
            }
            function if flags & libc::SA_SIGINFO != 0 => {
                type Full = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
                std::mem::transmute::<usize, Full>(function)(signal, info, context);
            }
            function => std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(function)(signal),
        }
    }
}
