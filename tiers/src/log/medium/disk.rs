//! The real directory. Opens everything relative to the directory's own handle and follows no link, so
//! a directory that is renamed or replaced under a live store stays the one that was opened.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags};

use super::{File, Lock, Map, Medium};

/// Filesystems whose maps are not coherent with their files or whose locks and errors come too late:
/// NFS, SMB, CIFS, FUSE, 9p. Numbers from `linux/magic.h`.
const UNMAPPABLE: [i64; 5] = [0x6969, 0x517b, 0xff53_4d42, 0x6573_5546, 0x0102_1997];

/// A directory of the operating system.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    handle: fs::File,
    mapped: bool,
}

impl Disk {
    /// Opens the directory at `path`; its last component may be a link.
    ///
    /// # Errors
    /// What the system says: not found, not a directory, not permitted.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = fs::File::from(rustix::fs::open(path, flags, Mode::empty())?);
        #[cfg(target_os = "linux")]
        let mapped = !UNMAPPABLE.contains(&(rustix::fs::fstatfs(&handle)?.f_type as i64));
        #[cfg(not(target_os = "linux"))]
        let mapped = false;
        Ok(Self { path: path.to_owned(), handle, mapped })
    }

    /// Makes the directory, mode 0700, and those above it if they are missing, then opens it.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn create(path: &Path) -> io::Result<Self> {
        if !path.is_dir() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
            // The umask may have taken our own rights away.
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
            // Its name is durable before anything in it is.
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            fs::File::open(parent)?.sync_all()?;
        }
        Self::open(path)
    }

    /// Uses `pread` and `pwrite` only, whatever the filesystem could do.
    #[must_use]
    pub fn without_maps(mut self) -> Self {
        self.mapped = false;
        self
    }

    fn open_at(&self, name: &str, flags: OFlags) -> io::Result<fs::File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::File::from(rustix::fs::openat(&self.handle, name, flags, Mode::from_raw_mode(0o600))?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        Ok(file)
    }
}

impl Medium for Disk {
    fn directory(&self) -> String {
        self.path.display().to_string()
    }

    fn is_mapped(&self) -> bool {
        self.mapped
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.handle)? {
            // A name that is no UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().to_str() {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let file = self.open_at(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)?;
        // The umask may have taken our own rights away.
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        Ok(Box::new(DiskFile { file, mapped: self.mapped }))
    }

    fn open(&self, name: &str, writable: bool) -> io::Result<Box<dyn File>> {
        let flags = if writable { OFlags::RDWR } else { OFlags::RDONLY };
        Ok(Box::new(DiskFile { file: self.open_at(name, flags | OFlags::NONBLOCK)?, mapped: self.mapped }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.handle, from, &self.handle, to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.handle, name, AtFlags::empty())?)
    }

    fn flush_directory(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn lock(&self, name: &str, exclusive: bool) -> io::Result<Option<Lock>> {
        let file = match self.open_at(name, OFlags::RDWR | OFlags::CREATE) {
            // A shared lock needs no right to write: a store on a read-only filesystem can be read.
            Err(error) if !exclusive => self.open_at(name, OFlags::RDONLY | OFlags::NONBLOCK).map_err(|_| error)?,
            other => other?,
        };
        if exclusive && file.metadata()?.permissions().mode() & 0o777 != 0o600 {
            // The umask may have taken our own rights away when it was made.
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
        }
        let locked = if exclusive { file.try_lock() } else { file.try_lock_shared() };
        match locked {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

#[derive(Debug)]
struct DiskFile {
    file: fs::File,
    mapped: bool,
}

impl File for DiskFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, bytes) {
            // Where blocks cannot be reserved, `write_at` of the zeros finds a full disk.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => self.file.set_len(bytes),
            other => Ok(other?),
        }
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn map(&self, bytes: u64, writable: bool) -> io::Result<Option<Map>> {
        if !self.mapped || bytes == 0 {
            return Ok(None);
        }
        Map::file(&self.file, bytes, writable).map(Some)
    }

    fn is_removed(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.nlink() == 0)
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
