//! What the entry of a computed value says of itself.
//!
//! Holds what a computation may ask for. Never applies it: that is `stored.rs`.

use std::time::Duration;

use crate::Durability;

/// What a computed value's entry is to say of itself; what it does not say is as the cache has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kept {
    /// How long it lives.
    pub ttl: Option<Duration>,
    /// After how long it is stale.
    pub stale_after: Option<Duration>,
    /// What it can be removed by.
    pub tags: Vec<String>,
    /// What its write survives.
    pub durability: Option<Durability>,
    /// What it was computed from, encoded by whoever asks for that later.
    #[doc(hidden)]
    pub arguments: Option<Vec<u8>>,
    /// Whether it is kept at all.
    #[doc(hidden)]
    pub keep: bool,
}

impl Default for Kept {
    fn default() -> Self {
        Self { ttl: None, stale_after: None, tags: Vec::new(), durability: None, arguments: None, keep: true }
    }
}

impl Kept {
    /// As the cache has it.
    pub fn new() -> Self {
        Self::default()
    }

    /// The entry expires `ttl` after it was computed.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// The entry is stale `stale_after` after it was computed.
    #[must_use]
    pub fn stale_after(mut self, stale_after: Duration) -> Self {
        self.stale_after = Some(stale_after);
        self
    }

    /// The entry can be removed by these.
    #[must_use]
    pub fn tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags = tags.into_iter().map(Into::into).collect();
        self
    }

    /// What the entry's write survives.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// The value goes to those who asked, and is not kept; neither is what was there before.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "reads as what it means: kept, not")]
    pub fn not(mut self) -> Self {
        self.keep = false;
        self
    }
}
