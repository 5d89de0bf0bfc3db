//! The pin directory.
//!
//! ```text
//! DIRECTORY/v1/maps/NAME             a map of the layout
//! DIRECTORY/v1/links/IFINDEX-HOOK    an attachment: its tcx link, or the program of a clsact filter
//! ```

use super::error::{DatapathError, chain};
use super::object::MapShape;
use aya::maps::{MapInfo, MapType};
use publisher_common::layout::VERSION;
use rustix::fs::statfs;
use std::fs;
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
        let ours = format!("v{VERSION}");
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
            .filter(|name| name.starts_with('v') && *name != ours)
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

    fn version(&self) -> PathBuf {
        self.directory.join(format!("v{VERSION}"))
    }

    fn maps(&self) -> PathBuf {
        self.version().join("maps")
    }

    /// Where attachments are pinned.
    pub fn links(&self) -> PathBuf {
        self.version().join("links")
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
        if !path.exists() {
            return Ok(None);
        }
        let fail =
            |difference: String| DatapathError::PinMismatch { path: path.clone(), difference };
        let info = MapInfo::from_pin(&path).map_err(|error| fail(chain(&error)))?;
        let kind = info.map_type().unwrap_or(MapType::Unspecified);
        if kind != expected.kind {
            return Err(fail(format!("type {kind:?}, expected {:?}", expected.kind)));
        }
        for (what, found, wanted) in [
            ("key size", info.key_size(), expected.key_size),
            ("value size", info.value_size(), expected.value_size),
            ("flags", info.map_flags(), expected.flags),
        ] {
            if found != wanted {
                return Err(fail(format!("{what} {found}, expected {wanted}")));
            }
        }
        Ok(Some(info.max_entries()))
    }

    /// Removes all pins and the directories.
    pub fn remove(&self) -> Result<(), DatapathError> {
        for directory in [self.links(), self.maps()] {
            let entries = fs::read_dir(&directory).map_err(DatapathError::io(&directory))?;
            for entry in entries.flatten() {
                fs::remove_file(entry.path()).map_err(DatapathError::io(entry.path()))?;
            }
        }
        for directory in [self.links(), self.maps(), self.version()] {
            fs::remove_dir(&directory).map_err(DatapathError::io(&directory))?;
        }
        // The directory itself may be shared, or a mount point.
        let _ = fs::remove_dir(&self.directory);
        Ok(())
    }
}
