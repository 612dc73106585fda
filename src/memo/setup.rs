//! How a memoized function wants to be kept: what the macro found in its attribute, until it is called first.
//!
//! Holds names and numbers. Invariant: two functions have one namespace only if their users gave it the same name.

use std::{
    fmt::Write,
    sync::{Arc, LazyLock, OnceLock},
    time::Duration,
};

use crate::{Error, Result, Store};

/// Makes the store that a memoized function names. A plain function, so that it is asked when there is need only.
pub(super) type MakeStore = fn() -> Result<Store>;

/// Where a memoized function stands, as the macro found it.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The package.
    pub package: Option<&'static str>,
    /// The program, if it belongs to one: that may have a module path that the package's library has too.
    pub program: Option<&'static str>,
    /// The file.
    pub file: &'static str,
    /// The path of the module.
    pub module: &'static str,
    /// The function's own name.
    pub function: &'static str,
    /// The type that has its companions.
    pub home: &'static str,
    /// A number made of its tokens.
    pub digest: u64,
    /// What its key is made of, in order.
    pub arguments: &'static [&'static str],
    /// Whether it stands in an `impl` block.
    pub is_associated: bool,
}

/// The options of a memoized function.
#[derive(Debug)]
pub struct Setup {
    place: Place,
    name: Option<String>,
    pub(super) store: Option<MakeStore>,
    pub(super) ttl: Option<Duration>,
    pub(super) stale_after: Option<Duration>,
    pub(super) wait_timeout: Option<Duration>,
    pub(super) max_entries: Option<u64>,
    pub(super) version: Option<u64>,
    pub(super) hash_code: Option<u64>,
    pub(super) is_isolated: bool,
}

impl Setup {
    /// Those of the function at `place`, without any option.
    pub fn new(place: Place) -> Self {
        Self {
            place,
            name: None,
            store: None,
            ttl: None,
            stale_after: None,
            wait_timeout: None,
            max_entries: None,
            version: None,
            hash_code: None,
            is_isolated: false,
        }
    }

    /// The namespace.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How its store is made.
    #[must_use]
    pub fn store(mut self, make: MakeStore) -> Self {
        self.store = Some(make);
        self
    }

    /// How long results are kept. What the attribute says of that is checked when the function is compiled:
    ///
    /// ```compile_fail
    /// #[thermocline::memoize(ttl = std::time::Duration::ZERO)]
    /// fn double(number: u32) -> u32 {
    ///     number * 2
    /// }
    /// ```
    ///
    /// ```
    /// #[thermocline::memoize(ttl = std::time::Duration::from_secs(1))]
    /// fn double(number: u32) -> u32 {
    ///     number * 2
    /// }
    /// ```
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// After how long they are stale.
    #[must_use]
    pub fn stale_after(mut self, stale_after: Duration) -> Self {
        self.stale_after = Some(stale_after);
        self
    }

    /// How long a caller waits for others. Default: as long as one of a cache.
    #[must_use]
    pub fn wait_timeout(mut self, timeout: Duration) -> Self {
        self.wait_timeout = Some(timeout);
        self
    }

    /// The most results that are kept.
    #[must_use]
    pub fn max_entries(mut self, most: u64) -> Self {
        self.max_entries = Some(most);
        self
    }

    /// A number that is part of the namespace.
    #[must_use]
    pub fn version(mut self, version: u64) -> Self {
        self.version = Some(version);
        self
    }

    /// The digest of the function's tokens as a part of the namespace.
    #[must_use]
    pub fn hash_code(mut self, digest: u64) -> Self {
        self.hash_code = Some(digest);
        self
    }

    /// The working directory as a part of the key.
    #[must_use]
    pub fn isolate(mut self) -> Self {
        self.is_isolated = true;
        self
    }

    /// The namespace of an instance: of the function for certain types, and nothing for one that is not generic. Another
    /// version, other code, and a key of other arguments have another one, so that limits, queries and figures are of this one alone.
    pub(super) fn namespace(&self, instance: &str) -> String {
        let mut namespace = self.base(instance);
        let _ = write!(namespace, "#a{:08x}", self.place.arguments_digest());
        let _ = self.version.map(|version| write!(namespace, "#v{version}"));
        let _ = self.hash_code.map(|digest| write!(namespace, "#c{digest:016x}"));
        namespace
    }

    fn base(&self, instance: &str) -> String {
        // The types in a generic function's name, `…<u32>`.
        let types = instance.find('<').map_or("", |place| &instance[place..]);
        if let Some(name) = &self.name {
            return format!("{name}{types}");
        }
        let Place { package, program, file, module, function, home, digest, .. } = self.place;
        let mut namespace = package.map_or_else(String::new, |package| format!("{package}/"));
        let _ = program.map(|program| write!(namespace, "{program}/"));
        match (instance, home == format!("{module}::{function}")) {
            ("", true) => _ = write!(namespace, "{module}::{function}"),
            ("", false) => namespace.push_str(home),
            _ => namespace.push_str(instance),
        }
        // `src/lib.rs` and `src/main.rs` of a package have the same paths.
        let _ = write!(namespace, "@{file}");
        if self.place.is_within_a_body(instance) {
            // A function or type in a function's body may have namesakes there, which the path does not tell apart.
            let _ = write!(namespace, "#{digest:016x}");
        }
        namespace
    }
}

impl Place {
    /// A short digest of the names of the arguments in the key.
    fn arguments_digest(&self) -> u32 {
        let mut hasher = blake3::Hasher::new();
        for name in self.arguments {
            hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
        }
        hasher.finalize().as_bytes().first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    fn is_within_a_body(&self, instance: &str) -> bool {
        let Self { module, function, home, .. } = self;
        if !self.is_associated {
            return *home != format!("{module}::{function}");
        }
        // `Type::method`, or `<impl other::Type>::method`.
        let inner = instance.strip_prefix(module).and_then(|rest| rest.strip_prefix("::"));
        inner.is_none_or(|inner| steps(inner) != 1)
    }
}

/// How many `::` there are outside of `<…>`.
fn steps(path: &str) -> usize {
    let (mut depth, mut steps) = (0_usize, 0);
    for pair in path.as_bytes().windows(2) {
        match pair {
            b"::" if depth == 0 => steps += 1,
            [b'<', _] => depth += 1,
            [b'>', _] => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    steps
}

/// What a memoized function may be told as its store.
pub trait AsStore {
    /// A handle to it.
    ///
    /// # Errors
    /// If it is not open.
    fn as_store(&self) -> Result<Store>;
}

impl AsStore for Store {
    fn as_store(&self) -> Result<Store> {
        Ok(self.clone())
    }
}

impl<S: AsStore + ?Sized> AsStore for &S {
    fn as_store(&self) -> Result<Store> {
        (**self).as_store()
    }
}

impl<S: AsStore + ?Sized> AsStore for Arc<S> {
    fn as_store(&self) -> Result<Store> {
        (**self).as_store()
    }
}

impl<S: AsStore, F: FnOnce() -> S> AsStore for LazyLock<S, F> {
    fn as_store(&self) -> Result<Store> {
        (**self).as_store()
    }
}

impl<S: AsStore> AsStore for OnceLock<S> {
    fn as_store(&self) -> Result<Store> {
        let unset = || Error::Option {
            option: "store",
            found: "not set".to_owned(),
            expected: "a store before the first call".to_owned(),
        };
        self.get().ok_or_else(unset)?.as_store()
    }
}

impl<S: AsStore> AsStore for Result<S> {
    fn as_store(&self) -> Result<Store> {
        match self {
            Ok(store) => store.as_store(),
            Err(error) => Err(Error::Option {
                option: "store",
                found: error.to_string(),
                expected: "a store that is open".to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place {
        package: Some("package"),
        program: None,
        file: "src/lib.rs",
        module: "package::inner",
        function: "load",
        home: "package::inner::load",
        digest: 7,
        arguments: &["number"],
        is_associated: false,
    };

    /// The namespace without what the arguments add.
    fn namespace(place: Place, instance: &str) -> String {
        let mut namespace = Setup::new(place).namespace(instance);
        let arguments = namespace.split_off(namespace.rfind("#a").expect("a digest of the arguments"));
        assert_eq!(arguments.len(), "#a01234567".len(), "{arguments}");
        namespace
    }

    #[test]
    fn namesakes_in_another_file_or_program_have_another_namespace() {
        assert_eq!(namespace(PLACE, ""), "package/package::inner::load@src/lib.rs");
        let other = Place { file: "src/main.rs", ..PLACE };
        assert_eq!(namespace(other, ""), "package/package::inner::load@src/main.rs");
        let other = Place { program: Some("package"), ..PLACE };
        assert_eq!(namespace(other, ""), "package/package/package::inner::load@src/lib.rs");
    }

    #[test]
    fn a_key_of_other_arguments_has_another_namespace() {
        let all: [&[&str]; 6] = [&[], &["a"], &["b"], &["a", "b"], &["b", "a"], &["ab"]];
        for (first, second) in all.iter().flat_map(|first| all.iter().map(move |second| (*first, *second))) {
            let named = |arguments| Setup::new(Place { arguments, ..PLACE }).name("name").version(1).namespace("");
            let plain = |arguments| Setup::new(Place { arguments, ..PLACE }).namespace("");
            assert_eq!(
                (named(first) == named(second), plain(first) == plain(second)),
                (first == second, first == second)
            );
        }
    }

    #[test]
    fn only_what_stands_within_a_body_is_told_apart_by_its_tokens() {
        let is_local = |place, instance: &str| namespace(place, instance).ends_with("#0000000000000007");
        assert!(!is_local(PLACE, "package::inner::load<package::other::Type>"));
        let within = Place { home: "package::inner::outer::load", ..PLACE };
        assert!(is_local(within, "") && is_local(within, "package::inner::outer::load<u8>"));
        let method = Place { is_associated: true, home: "package::inner::Shape<u8>", ..PLACE };
        assert!(!is_local(method, "package::inner::Shape<alloc::vec::Vec<u8>>::load<u8>"));
        assert!(!is_local(method, "package::inner::<impl package::other::Shape>::load"));
        assert!(is_local(method, "package::inner::outer::Shape::load"));
        assert!(is_local(method, "package::inner::outer::<impl package::inner::Shape>::load"));
    }
}
