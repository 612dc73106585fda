use std::{fs, process::Command};

use tempfile::TempDir;

use super::*;

const MIB: u64 = 1 << 20;

const MOUNT_1: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n";
const MOUNT_2: &str = "41 31 0:38 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n";
const MOUNT_2_BESIDE: &str = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
const MOUNT_OTHERS: &str = "\
    23 1 8:1 / / rw,relatime - ext4 /dev/root rw\n\
    33 31 0:30 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n";

/// A machine made of files.
struct Files(TempDir);

impl Files {
    fn new(membership: &str, mounts: &[&str]) -> Self {
        let files = Self(TempDir::new().unwrap());
        files.write("proc/self/cgroup", membership).write("proc/self/mountinfo", mounts.concat());
        files
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) -> &Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// A cgroup of version 2 of which `clean` MiB can be dropped.
    fn version_2(&self, at: &str, max: &str, current_mib: u64, clean_mib: u64) -> &Self {
        let (current, half) = (current_mib * MIB, clean_mib * MIB / 2);
        let stat = "anon 1\nfile 99\nshmem 5\nfile_mapped 7\nfile_dirty 0\nfile_writeback 0\n".to_owned()
            + &format!("inactive_file {half}\nactive_file {half}\nslab_reclaimable 0\n");
        self.write(&format!("{at}/memory.max"), format!("{max}\n"))
            .write(&format!("{at}/memory.high"), "max\n")
            .write(&format!("{at}/memory.current"), format!("{current}\n"))
            .write(&format!("{at}/memory.stat"), stat)
    }

    /// The same in version 1.
    fn version_1(&self, at: &str, limit: u64, current_mib: u64, clean_mib: u64) -> &Self {
        let (current, half) = (current_mib * MIB, clean_mib * MIB / 2);
        let stat = format!("cache 1\nhierarchical_memory_limit {limit}\ninactive_file 3\nactive_file 3\n")
            + &format!("total_dirty 0\ntotal_inactive_file {half}\ntotal_active_file {half}\n");
        self.write(&format!("{at}/memory.limit_in_bytes"), format!("{limit}\n"))
            .write(&format!("{at}/memory.usage_in_bytes"), format!("{current}\n"))
            .write(&format!("{at}/memory.stat"), stat)
    }

    fn reader(&self) -> Cgroups {
        let mut cgroups = Cgroups::new(self.0.path());
        cgroups.find();
        cgroups
    }

    /// Limits and what is left of them in MiB, innermost first.
    fn rooms(&self) -> Vec<(u64, u64)> {
        self.reader().rooms().map(|room| (room.limit_bytes / MIB, room.available_bytes / MIB)).collect()
    }
}

fn mib(count: u64) -> String {
    (count * MIB).to_string()
}

#[test]
fn version_2_counts_clean_page_cache_as_available() {
    let files = Files::new("0::/app\n", &[MOUNT_OTHERS, MOUNT_2]);
    files.version_2("sys/fs/cgroup/app", &mib(100), 90, 60);
    assert_eq!(files.rooms(), [(100, 70)]);
    // Of the same cache, 20 MiB are dirty and 10 are being written; 6 MiB of the kernel's own can be dropped.
    let stat = format!(
        "inactive_file {}\nactive_file {}\nfile_dirty {}\nfile_writeback {}\nslab_reclaimable {}\n",
        mib(50),
        mib(10),
        mib(20),
        mib(10),
        mib(6)
    );
    files.write("sys/fs/cgroup/app/memory.stat", stat);
    assert_eq!(files.rooms(), [(100, 46)]);
}

#[test]
fn the_stricter_of_max_and_high_is_the_limit() {
    let files = Files::new("0::/app\n", &[MOUNT_2]);
    files.version_2("sys/fs/cgroup/app", &mib(100), 10, 0).write("sys/fs/cgroup/app/memory.high", mib(80));
    assert_eq!(files.rooms(), [(80, 70)]);
    files.write("sys/fs/cgroup/app/memory.max", "max\n");
    assert_eq!(files.rooms(), [(80, 70)]);
}

#[test]
fn a_stricter_parent_is_seen() {
    let files = Files::new("0::/slice/app/part\n", &[MOUNT_2]);
    files
        .version_2("sys/fs/cgroup/slice", &mib(50), 45, 5)
        .version_2("sys/fs/cgroup/slice/app", "max", 40, 0)
        .version_2("sys/fs/cgroup/slice/app/part", &mib(100), 30, 0)
        .version_2("sys/fs/cgroup/other", &mib(1), 1, 0);
    assert_eq!(files.rooms(), [(100, 70), (50, 10)]);
}

#[test]
fn version_1_is_read_with_limits_of_parents() {
    let files = Files::new("9:name=systemd:/x\n4:cpu,memory:/slice/app\n1:cpuset:/\n", &[MOUNT_OTHERS, MOUNT_1]);
    files
        .version_1("sys/fs/cgroup/memory", 9_223_372_036_854_771_712, 900, 0)
        .version_1("sys/fs/cgroup/memory/slice", 60 * MIB, 50, 20)
        .version_1("sys/fs/cgroup/memory/slice/app", 100 * MIB, 40, 0);
    assert_eq!(files.rooms(), [(100, 60), (60, 30)]);
}

#[test]
fn version_1_knows_of_limits_that_are_out_of_sight() {
    let files = Files::new("4:memory:/\n", &[MOUNT_1]);
    files.version_1("sys/fs/cgroup/memory", u64::MAX >> 1, 30, 10);
    let stat = format!("hierarchical_memory_limit {}\ntotal_inactive_file 0\ntotal_active_file {}\n", mib(64), mib(10));
    files.write("sys/fs/cgroup/memory/memory.stat", stat);
    assert_eq!(files.rooms(), [(64, 44)]);
}

#[test]
fn version_1_parents_that_do_not_count_their_children_do_not_limit_them() {
    let files = Files::new("4:memory:/slice/app\n", &[MOUNT_1]);
    files
        .version_1("sys/fs/cgroup/memory", 10 * MIB, 10, 0)
        .version_1("sys/fs/cgroup/memory/slice", 20 * MIB, 20, 0)
        .version_1("sys/fs/cgroup/memory/slice/app", 100 * MIB, 40, 0)
        .write("sys/fs/cgroup/memory/slice/memory.use_hierarchy", "0\n")
        .write("sys/fs/cgroup/memory/slice/app/memory.use_hierarchy", "0\n");
    assert_eq!(files.rooms(), [(100, 60)]);
}

#[test]
fn both_versions_beside_each_other_are_read() {
    let files = Files::new("4:memory:/app\n0::/job\n", &[MOUNT_1, MOUNT_2_BESIDE]);
    files
        .version_1("sys/fs/cgroup/memory/app", 100 * MIB, 40, 0)
        .version_2("sys/fs/cgroup/unified/job", &mib(70), 1, 0)
        .write("sys/fs/cgroup/unified/job/memory.pressure", "some avg10=4.00\nfull avg10=2.00\n");
    assert_eq!(files.rooms(), [(100, 60), (70, 69)]);
    assert_eq!(files.reader().stall(), Some(Stall { some_percent_avg10: 4.0, full_percent_avg10: 2.0 }));
}

#[test]
fn a_container_that_is_mounted_its_own_cgroup_reads_it_at_the_mount() {
    let mount = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
    // By the host's name, by the container's name, and by a name that does not fit.
    for path in ["/docker/abc", "/", "/docker/xyz"] {
        let files = Files::new(&format!("4:memory:{path}\n"), &[mount]);
        files.version_1("sys/fs/cgroup/memory", 100 * MIB, 40, 0);
        assert_eq!(files.rooms(), [(100, 60)], "{path}");
    }
    let files = Files::new("4:memory:/docker/abc/child\n", &[mount]);
    files.version_1("sys/fs/cgroup/memory/child", 50 * MIB, 40, 0);
    assert_eq!(files.rooms(), [(50, 10)]);
    let files = Files::new("0::/\n", &[MOUNT_2]);
    files.version_2("sys/fs/cgroup", &mib(100), 40, 10);
    assert_eq!(files.rooms(), [(100, 70)]);
}

#[test]
fn a_cgroup_out_of_sight_is_no_limit() {
    let files = Files::new("0::/../neighbour\n", &[MOUNT_2]);
    files.version_2("sys/fs/cgroup", &mib(1), 1, 0).version_2("sys/fs/neighbour", &mib(1), 1, 0);
    assert_eq!(files.rooms(), []);
}

#[test]
fn of_several_mounts_the_one_that_shows_most_is_read() {
    let part = "35 31 0:38 /slice /mnt/part rw - cgroup2 cgroup2 rw\n";
    let other = "36 31 0:38 /elsewhere /mnt/other rw - cgroup2 cgroup2 rw\n";
    for mounts in [[part, MOUNT_2, other], [other, part, MOUNT_2]] {
        let files = Files::new("0::/slice/app\n", &mounts);
        files.version_2("sys/fs/cgroup/slice", &mib(50), 45, 5).version_2("mnt/part", &mib(7), 0, 0);
        files.version_2("mnt/other", &mib(8), 0, 0);
        assert_eq!(files.rooms(), [(50, 10)]);
    }
}

#[test]
fn blanks_in_the_names_of_mounts_are_understood() {
    let mount = "35 31 0:38 /a\\040b /mnt/c\\134d\\011 rw - cgroup2 cgroup2 rw\n";
    let files = Files::new("0::/a b/c:d\n", &[mount]);
    files.version_2("mnt/c\\d\t/c:d", &mib(100), 40, 0);
    assert_eq!(files.rooms(), [(100, 60)]);
    for text in ["\\", "\\04", "\\049", "\\999", "\\777", "\\0é", "\\303"] {
        assert_eq!(unescape(text), None, "{text}");
    }
}

#[test]
fn a_process_that_is_moved_is_followed() {
    let files = Files::new("0::/app\n", &[MOUNT_2]);
    files.version_2("sys/fs/cgroup/app", &mib(100), 40, 0).version_2("sys/fs/cgroup/new", &mib(50), 40, 0);
    let mut cgroups = files.reader();
    files.write("proc/self/cgroup", "0::/new\n");
    cgroups.find();
    assert_eq!(cgroups.rooms().map(|room| room.limit_bytes).collect::<Vec<_>>(), [50 * MIB]);
}

#[test]
fn what_is_missing_or_nonsense_is_no_limit() {
    assert_eq!(Cgroups::new(Path::new("/nowhere")).rooms().count(), 0);
    let app = "sys/fs/cgroup/app";
    for name in ["memory.max", "memory.current", "memory.stat"] {
        let files = Files::new("0::/app\n", &[MOUNT_2]);
        for text in
            ["", "\n", "max", "-1", "1.5", "12 13", "99999999999999999999999", "\0", "inactive_file", "\u{fffd}"]
        {
            files.version_2(app, &mib(100), 40, 0).write(&format!("{app}/{name}"), text);
            assert_eq!(files.rooms(), [], "{name}: {text:?}");
        }
        files.write(&format!("{app}/{name}"), [0xff, 0xfe, b'1']);
        assert_eq!(files.rooms(), [], "{name}");
        fs::remove_file(files.0.path().join(app).join(name)).unwrap();
        assert_eq!(files.rooms(), [], "{name} is missing");
        // A directory opens, and does not read.
        fs::create_dir(files.0.path().join(app).join(name)).unwrap();
        assert_eq!(files.rooms(), [], "{name} is a directory");
    }
}

#[test]
fn nonsense_about_where_the_process_is_is_no_limit() {
    for membership in
        ["", "0", "0:", "0::", "::", "0::app", "x", "4:memory", "4:memory:", "1::/app", "\0\n:\n::\n:::\n"]
    {
        let files = Files::new(membership, &[MOUNT_1, MOUNT_2]);
        files.version_2("sys/fs/cgroup/app", &mib(1), 1, 0);
        assert_eq!(files.rooms(), [], "{membership:?}");
    }
    for mounts in ["", " - ", "- -", "1 2 3 / - cgroup2", "1 2 3 / /sys - ", "41 31 0:38 / /sys/fs/cgroup rw cgroup2"] {
        let files = Files::new("0::/app\n4:memory:/app\n", &[mounts]);
        files.version_2("sys/fs/cgroup/app", &mib(1), 1, 0);
        assert_eq!(files.rooms(), [], "{mounts:?}");
    }
}

#[test]
fn huge_and_contradicting_numbers_overflow_nothing() {
    let files = Files::new("4:memory:/app\n0::/app\n", &[MOUNT_1, MOUNT_2_BESIDE]);
    let (one, two) = ("sys/fs/cgroup/memory/app", "sys/fs/cgroup/unified/app");
    let max = u64::MAX;
    files.version_1(one, 100 * MIB, 0, 0).write(&format!("{one}/memory.usage_in_bytes"), max.to_string());
    files.version_2(two, &mib(100), 200, 0);
    assert_eq!(files.rooms(), [(100, 0), (100, 0)]);
    let stat = format!("total_inactive_file {max}\ntotal_active_file {max}\ntotal_dirty 1\ntotal_writeback {max}\n");
    files.write(&format!("{one}/memory.stat"), stat);
    let stat = format!("inactive_file {max}\nactive_file {max}\nfile_dirty 1\nslab_reclaimable {max}\n");
    files.write(&format!("{two}/memory.stat"), stat);
    assert_eq!(files.rooms(), [(100, 0), (100, 100)]);
    files.version_2(two, &max.to_string(), 1, 0).version_1(one, max, 1, 0);
    assert_eq!(files.rooms(), []);
}

#[test]
fn the_stalls_of_the_own_cgroup_come_before_those_of_the_machine() {
    let files = Files::new("0::/app\n", &[MOUNT_2]);
    assert_eq!(files.reader().stall(), None);
    files.write("proc/pressure/memory", "some avg10=9.00 avg60=0\nfull avg10=1.00 avg60=0\n");
    assert_eq!(files.reader().stall(), Some(Stall { some_percent_avg10: 9.0, full_percent_avg10: 1.0 }));
    files.write("sys/fs/cgroup/app/memory.pressure", "nonsense");
    assert_eq!(files.reader().stall(), Some(Stall { some_percent_avg10: 9.0, full_percent_avg10: 1.0 }));
    files.write("sys/fs/cgroup/app/memory.pressure", "some avg10=3.00 avg60=0\n");
    assert_eq!(files.reader().stall(), Some(Stall { some_percent_avg10: 3.0, full_percent_avg10: 0.0 }));
}

/// A cgroup of the real machine, taken away at the end.
struct RealCgroup(PathBuf);

impl RealCgroup {
    /// Below the cgroup that the process is in.
    fn new(limit_bytes: u64) -> Result<Self, String> {
        let mut cgroups = Cgroups::new(Path::new("/"));
        cgroups.find();
        let limits = |place: &Place| match place.version {
            Version::One => Some("memory.limit_in_bytes"),
            Version::Two => place.own.join("memory.stat").exists().then_some("memory.max"),
        };
        let found = cgroups.places.iter().find_map(|place| Some((place, limits(place)?)));
        let (place, limit) = found.ok_or("no hierarchy with memory")?;
        let made = Self(place.own.join(format!("thermocline-test-{}", std::process::id())));
        fs::create_dir(&made.0).map_err(|error| format!("{}: {error}", made.0.display()))?;
        fs::write(made.0.join(limit), limit_bytes.to_string()).map_err(|error| format!("{limit}: {error}"))?;
        Ok(made)
    }

    /// What a process in it would read.
    fn room(&self) -> Option<Room> {
        room_of_version_2(&self.0).or_else(|| room_of_version_1(&self.0))
    }

    /// Runs a command in it.
    fn run(&self, command: &str) -> bool {
        let script = format!("echo $$ > '{}/cgroup.procs' && {command}", self.0.display());
        Command::new("sh").args(["-c", &script]).status().is_ok_and(|status| status.success())
    }
}

impl Drop for RealCgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn page_cache_of_a_real_cgroup_is_available() {
    let limit_bytes = 64 * MIB;
    let cgroup = match RealCgroup::new(limit_bytes) {
        Ok(cgroup) => cgroup,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let room = cgroup.room().expect("the limit that was just set");
    assert_eq!(room.limit_bytes, limit_bytes);
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    let write = format!("dd if=/dev/zero of='{}' bs=1M count=32 conv=fsync 2>/dev/null", file.display());
    if !cgroup.run(&write) {
        return println!("skipped: no command may run in {}", cgroup.0.display());
    }
    let used_bytes = ["memory.current", "memory.usage_in_bytes"].map(|name| number(&cgroup.0.join(name)));
    let used_bytes = used_bytes.into_iter().flatten().next().expect("what the cgroup uses");
    let stat = text(&cgroup.0.join("memory.stat")).unwrap();
    if used_bytes < 32 * MIB || field(&stat, "shmem").is_some_and(|bytes| bytes >= 32 * MIB) {
        return println!("skipped: {} is not on a disk", dir.path().display());
    }
    let room = cgroup.room().unwrap();
    assert!(room.available_bytes >= limit_bytes - 8 * MIB, "{room:?} with {used_bytes} bytes used\n{stat}");
}
