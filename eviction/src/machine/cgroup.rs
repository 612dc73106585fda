//! The limits of the cgroups that the process is in, from its own up to the outermost that can be seen.
//!
//! Holds a reader of files; version 1, version 2, and both beside each other. Everything is looked for below a root, so
//! that tests can make the files up. Invariant: a file that is missing, unreadable or nonsense means "no limit from
//! here".

use std::{
    fs::File,
    io::Read,
    path::{Component, Path, PathBuf},
};

use super::{Stall, stall};

/// As many bytes of a file are read; a machine with ten thousand mounts needs about two million.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// From here on a number is no limit: version 1 writes the largest multiple of a page that fits 63 bits.
const LIMIT_BYTES_NONE: u64 = 1 << 62;

/// What one cgroup leaves to those in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Its limit.
    pub(super) limit_bytes: u64,
    /// What is left of it; page cache that can be dropped is.
    pub(super) available_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Where the process is in one hierarchy: `own` is its cgroup, `top` the outermost that can be seen.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    version: Version,
    own: PathBuf,
    top: PathBuf,
}

/// The reader.
#[derive(Debug)]
pub(super) struct Cgroups {
    root: PathBuf,
    /// `/proc/self/cgroup` when the places were found.
    membership: String,
    places: Vec<Place>,
}

impl Cgroups {
    /// A reader of the files below `root`, which is `/` but in tests. Reads nothing yet.
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), membership: String::new(), places: Vec::new() }
    }

    /// Finds the process's cgroups, again if it was moved to others.
    pub(super) fn find(&mut self) {
        let membership = text(&self.root.join("proc/self/cgroup")).unwrap_or_default();
        // The table of mounts is long on some machines, and reading it holds up who mounts.
        if membership != self.membership {
            let mounts = text(&self.root.join("proc/self/mountinfo")).unwrap_or_default();
            self.places = membership.lines().filter_map(|line| place(line, &mounts, &self.root)).collect();
            self.membership = membership;
        }
    }

    /// The rooms of all cgroups in the chain that limit memory.
    pub(super) fn rooms(&self) -> impl Iterator<Item = Room> {
        self.places.iter().flat_map(|place| {
            let chain = place.own.ancestors().take_while(|at| at.starts_with(&place.top));
            chain.enumerate().take_while(|&(height, at)| height == 0 || binds_children(at)).filter_map(|(_, at)| {
                match place.version {
                    Version::One => room_of_version_1(at),
                    Version::Two => room_of_version_2(at),
                }
            })
        })
    }

    /// The stalls of the process's own cgroup, or else those of the whole machine.
    pub(super) fn stall(&self) -> Option<Stall> {
        // What stalls because of an outer limit is counted in the innermost too, so it is enough to ask that.
        let own = self.places.iter().filter(|place| place.version == Version::Two);
        let own = own.map(|place| place.own.join("memory.pressure"));
        own.chain([self.root.join("proc/pressure/memory")]).find_map(|path| stall::parse(&text(&path)?))
    }
}

/// Where a line of `/proc/self/cgroup` says that the process is: `0::/path`, `4:cpu,memory:/path`.
fn place(line: &str, mounts: &str, root: &Path) -> Option<Place> {
    let mut fields = line.splitn(3, ':');
    let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let version = match controllers {
        "" if id == "0" => Version::Two,
        _ if controllers.split(',').any(|controller| controller == "memory") => Version::One,
        _ => return None,
    };
    let mounts = mounts.lines().filter_map(Mount::parse).filter(|mount| mount.version == version);
    let found = mounts.filter_map(|mount| Some((mount.way(path)?, mount)));
    // Of several mounts the one that shows most of the chain, and rather one that shows it by its name.
    let (way, mount) = found.min_by_key(|(way, mount)| (*way == Way::Here, mount.root.len()))?;
    let top = root.join(mount.point.trim_start_matches('/'));
    let own = match way {
        Way::Below(below) => top.join(below),
        Way::Here => top.clone(),
    };
    Some(Place { version, own, top })
}

/// A line of `/proc/self/mountinfo` that mounts a hierarchy with memory in it, or with all there is.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    version: Version,
    /// The cgroup that is shown at `point`.
    root: String,
    point: String,
}

/// From a mount to a cgroup.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// So far down, or no way at all.
    Below(PathBuf),
    /// A container is shown a cgroup and told another name of its own: what it is shown is its own.
    Here,
}

impl Mount {
    /// `35 31 0:32 /root /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory`
    fn parse(line: &str) -> Option<Self> {
        let (place, kind) = line.split_once(" - ")?;
        let (mut place, mut kind) = (place.split(' ').skip(3), kind.split(' '));
        let (root, point) = (unescape(place.next()?)?, unescape(place.next()?)?);
        let version = match (kind.next()?, kind.nth(1)) {
            ("cgroup2", _) => Version::Two,
            ("cgroup", Some(options)) if options.split(',').any(|option| option == "memory") => Version::One,
            _ => return None,
        };
        Some(Self { version, root, point })
    }

    /// The way to the cgroup at `path`; nothing if it is out of sight.
    fn way(&self, path: &str) -> Option<Way> {
        match Path::new(path).strip_prefix(&self.root) {
            Ok(below) if below.components().all(|part| matches!(part, Component::Normal(_))) => {
                Some(Way::Below(below.to_owned()))
            }
            Err(_) if self.root != "/" => Some(Way::Here),
            _ => None,
        }
    }
}

/// Undoes what mountinfo does to blanks: `\040`. Nothing if what comes out is no text.
fn unescape(text: &str) -> Option<String> {
    let mut pieces = text.split('\\');
    let mut bytes = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let (code, rest) = piece.split_at_checked(3)?;
        bytes.push(u8::from_str_radix(code, 8).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

/// Whether the cgroup at `at` counts what those in it use. Only version 1 can say no, and only old kernels do.
fn binds_children(at: &Path) -> bool {
    number(&at.join("memory.use_hierarchy")) != Some(0)
}

fn room_of_version_2(at: &Path) -> Option<Room> {
    let limits = ["memory.max", "memory.high"].map(|name| limit(number(&at.join(name))));
    let limit_bytes = limits.into_iter().flatten().min()?;
    let current_bytes = number(&at.join("memory.current"))?;
    let stat = text(&at.join("memory.stat"))?;
    let cache_bytes = field(&stat, "inactive_file")?.saturating_add(field(&stat, "active_file")?);
    let busy = ["file_dirty", "file_writeback"].map(|name| field(&stat, name).unwrap_or(0));
    let kernel_bytes = field(&stat, "slab_reclaimable").unwrap_or(0);
    let reclaimable_bytes = reclaimable(cache_bytes, busy).saturating_add(kernel_bytes);
    Some(Room::new(limit_bytes, current_bytes, reclaimable_bytes))
}

fn room_of_version_1(at: &Path) -> Option<Room> {
    let stat = text(&at.join("memory.stat"))?;
    // The second is that of an outer cgroup, which may be out of sight; then what others use of it is too.
    let limits = [number(&at.join("memory.limit_in_bytes")), field(&stat, "hierarchical_memory_limit")];
    let limit_bytes = limits.into_iter().filter_map(limit).min()?;
    let current_bytes = number(&at.join("memory.usage_in_bytes"))?;
    let cache_bytes = field(&stat, "total_inactive_file")?.saturating_add(field(&stat, "total_active_file")?);
    let busy = ["total_dirty", "total_writeback"].map(|name| field(&stat, name).unwrap_or(0));
    Some(Room::new(limit_bytes, current_bytes, reclaimable(cache_bytes, busy)))
}

/// What can be dropped of the page cache at once. Files in memory (`shmem`) are not in `cache_bytes`, and a page that
/// was written through a map is dirty from the first write on.
fn reclaimable(cache_bytes: u64, busy: [u64; 2]) -> u64 {
    busy.into_iter().fold(cache_bytes, u64::saturating_sub)
}

fn limit(bytes: Option<u64>) -> Option<u64> {
    bytes.filter(|&bytes| bytes < LIMIT_BYTES_NONE)
}

impl Room {
    /// The files are read one after the other, so they may disagree a little.
    fn new(limit_bytes: u64, current_bytes: u64, reclaimable_bytes: u64) -> Self {
        let used_bytes = current_bytes.saturating_sub(reclaimable_bytes);
        Self { limit_bytes, available_bytes: limit_bytes.saturating_sub(used_bytes) }
    }
}

/// The number after `name` in a file of lines `name number`.
fn field(stat: &str, name: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?.trim().parse().ok()
}

/// The number that is all of a file; `max` is none.
fn number(path: &Path) -> Option<u64> {
    text(path)?.trim().parse().ok()
}

/// A file's text. What is no UTF-8 in it stands out as such, and is nonsense where it matters.
fn text(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests;
