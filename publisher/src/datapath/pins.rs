//! The pin directory.
//!
//! ```text
//! DIRECTORY/v1/maps/NAME             a map of the layout
//! DIRECTORY/v1/links/IFINDEX-HOOK    an attachment: its tcx link, or the program of a clsact filter
//! ```

use super::error::{DatapathError, chain};
use super::object::MapShape;
use aya::maps::{MapInfo, MapType};
use publisher_common::layout::{VERSION, older};
use rustix::fs::statfs;
use std::fs::{self, DirEntry};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// `f_type` of a BPF file system (`BPF_FS_MAGIC`).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// The pin directory.
pub(super) struct Pins {
    directory: PathBuf,
}

impl Pins {
    /// Makes the directories where they are missing.
    pub fn open(directory: &Path) -> Result<Self, DatapathError> {
        let existing = directory.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
        let kind =
            statfs(existing).map_err(|errno| DatapathError::io(existing)(errno.into()))?.f_type;
        if kind != BPF_FS_MAGIC {
            return Err(DatapathError::NoBpffs(directory.into()));
        }
        let pins = Self { directory: directory.into() };
        pins.refuse_other_layouts()?;
        for path in [pins.maps(), pins.links()] {
            fs::create_dir_all(&path).map_err(|error| match error.kind() {
                ErrorKind::PermissionDenied => DatapathError::Permission(error.to_string()),
                _ => DatapathError::io(path)(error),
            })?;
        }
        Ok(pins)
    }

    fn refuse_other_layouts(&self) -> Result<(), DatapathError> {
        let known = [VERSION, older::VERSION].map(|version| format!("v{version}"));
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return Err(DatapathError::Permission(error.to_string()));
            }
            Err(error) => return Err(DatapathError::io(&self.directory)(error)),
        };
        let mut others: Vec<_> = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name.starts_with('v') && !known.contains(name))
            .collect();
        if others.is_empty() {
            return Ok(());
        }
        others.sort();
        Err(DatapathError::OtherLayout {
            directory: self.directory.clone(),
            found: others.join(", "),
            ours: VERSION,
        })
    }

    /// The directory of a version.
    pub fn version(&self, version: u32) -> PathBuf {
        self.directory.join(format!("v{version}"))
    }

    fn maps(&self) -> PathBuf {
        self.version(VERSION).join("maps")
    }

    /// Where attachments are pinned.
    pub fn links(&self) -> PathBuf {
        self.version(VERSION).join("links")
    }

    /// Where a map is pinned.
    pub fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    /// Compares a pinned map with what this version makes, and returns its capacity; `None` where it
    /// isn't pinned.
    ///
    /// aya takes a pinned map as it is: one with another value size would corrupt memory.
    pub fn check_map(&self, name: &str, expected: &MapShape) -> Result<Option<u32>, DatapathError> {
        let path = self.map(name);
        if path.exists() { Self::check(&path, expected).map(Some) } else { Ok(None) }
    }

    /// Compares a pinned map with what it should be, and returns its capacity.
    pub fn check(path: &Path, expected: &MapShape) -> Result<u32, DatapathError> {
        let info = Self::check_value(path, expected)?;
        for (what, found, wanted) in [
            ("key size", info.key_size(), expected.key_size),
            ("flags", info.map_flags(), expected.flags),
        ] {
            if found != wanted {
                return Err(mismatch(path, format!("{what} {found}, expected {wanted}")));
            }
        }
        Ok(info.max_entries())
    }

    /// Compares a pinned map's type and values with what they should be.
    pub fn check_value(path: &Path, expected: &MapShape) -> Result<MapInfo, DatapathError> {
        let info = MapInfo::from_pin(path).map_err(|error| mismatch(path, chain(&error)))?;
        let kind = info.map_type().unwrap_or(MapType::Unspecified);
        if kind != expected.kind {
            return Err(mismatch(path, format!("type {kind:?}, expected {:?}", expected.kind)));
        }
        let (found, wanted) = (info.value_size(), expected.value_size);
        if found != wanted {
            return Err(mismatch(path, format!("value size {found}, expected {wanted}")));
        }
        Ok(info)
    }

    /// Removes all pins and the directories.
    pub fn remove(&self) -> Result<(), DatapathError> {
        self.remove_version(VERSION)?;
        // The directory itself may be shared, or a mount point.
        let _ = fs::remove_dir(&self.directory);
        Ok(())
    }

    /// Removes the pins of a version, and their directories.
    pub fn remove_version(&self, version: u32) -> Result<(), DatapathError> {
        let version = self.version(version);
        let (links, maps) = (version.join("links"), version.join("maps"));
        for directory in [&links, &maps] {
            for entry in entries(directory)? {
                fs::remove_file(entry.path()).map_err(DatapathError::io(entry.path()))?;
            }
        }
        for directory in [links, maps, version] {
            match fs::remove_dir(&directory) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(DatapathError::io(directory)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// What is in a directory; nothing where there is none.
pub(super) fn entries(directory: &Path) -> Result<Vec<DirEntry>, DatapathError> {
    match fs::read_dir(directory) {
        Ok(entries) => Ok(entries.flatten().collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(DatapathError::io(directory)(error)),
    }
}

fn mismatch(path: &Path, difference: String) -> DatapathError {
    DatapathError::PinMismatch { path: path.into(), difference }
}
