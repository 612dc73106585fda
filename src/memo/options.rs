//! Options of one call.

use std::time::Duration;

/// How one call of a memoized function differs from the others. Given to its companion `with`.
///
/// ```
/// use std::time::Duration;
/// use thermocline::{CallOptions, memoize};
///
/// #[memoize]
/// fn double(number: u64) -> u64 {
///     number * 2
/// }
///
/// # thermocline::set_default(thermocline::Store::builder().in_memory()?);
/// assert_eq!(double::with(CallOptions::new().max_age(Duration::from_secs(60))).call(21), 42);
/// # Ok::<(), thermocline::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallOptions {
    mode: Mode,
    max_age: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Look,
    Skip,
    Overwrite,
    Deep,
}

impl CallOptions {
    /// A call like any other.
    #[inline]
    pub const fn new() -> Self {
        Self { mode: Mode::Look, max_age: None }
    }

    /// Computes, and neither looks nor keeps: what is there stays.
    #[must_use]
    #[inline]
    pub const fn skip(mut self) -> Self {
        self.mode = Mode::Skip;
        self
    }

    /// Computes, and keeps that in the place of what is there.
    #[must_use]
    #[inline]
    pub const fn overwrite(mut self) -> Self {
        self.mode = Mode::Overwrite;
        self
    }

    /// As [`overwrite`](Self::overwrite), and so is every memoized call that the computation makes itself, each once: what a result
    /// was made of is new too. Calls that were made of this one are not; nor are those that it makes in other threads or tasks, nor what another
    /// caller computes of this call at that moment, and answers it with.
    #[must_use]
    #[inline]
    pub const fn refresh_deep(mut self) -> Self {
        self.mode = Mode::Deep;
        self
    }

    /// As [`overwrite`](Self::overwrite).
    #[must_use]
    #[inline]
    pub const fn refresh(self) -> Self {
        self.overwrite()
    }

    /// Takes no result that is older; zero takes none at all. What is computed instead is kept.
    #[must_use]
    #[inline]
    pub const fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    #[doc(hidden)]
    #[inline]
    pub const fn skips(&self) -> bool {
        matches!(self.mode, Mode::Skip)
    }

    #[inline]
    pub(crate) const fn overwrites(&self) -> bool {
        matches!(self.mode, Mode::Overwrite | Mode::Deep)
    }

    #[inline]
    pub(crate) const fn is_deep(&self) -> bool {
        matches!(self.mode, Mode::Deep)
    }

    #[inline]
    pub(crate) const fn oldest(&self) -> Option<Duration> {
        self.max_age
    }
}
