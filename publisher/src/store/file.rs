//! Files that are there whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::StoreError;
use crate::model::timestamp;

/// Makes `dir` and its parents, 0700, unless they are there.
pub(super) fn create_dir(dir: &Path) -> Result<(), StoreError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| StoreError::io("create", dir, error))
}

/// Replaces `path` with `contents`: written beside it, synced, renamed over it, the rename synced.
///
/// The name of the temporary file is fixed. Only the holder of the directory's lock writes here, so
/// what an earlier process left under that name is worthless.
pub(super) fn write_atomically(path: &Path, contents: &[u8], mode: u32) -> Result<(), StoreError> {
    let temporary = with_suffix(path, ".new");
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&temporary)?;
        // The mode above only counts for a new file, and after the umask.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    written.map_err(|error| {
        // A file system that is full has no use for half of it.
        let _ = fs::remove_file(&temporary);
        StoreError::io("write", path, error)
    })?;
    sync_parent(path)
}

/// Renames `path` to `path.corrupt-SECONDS`, or with a number behind it if that is taken too.
pub(super) fn set_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let seconds = timestamp::seconds(SystemTime::now());
    let mut aside = with_suffix(path, &format!(".corrupt-{seconds}"));
    for count in 1.. {
        match aside.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(StoreError::io("look at", &aside, error)),
            Ok(_) => aside = with_suffix(path, &format!(".corrupt-{seconds}-{count}")),
        }
    }
    fs::rename(path, &aside).map_err(|error| StoreError::io("rename", path, error))?;
    sync_parent(path)?;
    Ok(aside)
}

fn sync_parent(path: &Path) -> Result<(), StoreError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    File::open(parent)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| StoreError::io("sync", parent, error))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
