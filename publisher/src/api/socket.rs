//! The unix socket that the API listens on: who may connect, and what to do about one that is there.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// The group whose members may use the API.
pub const GROUP: &str = "publisher";

/// Why the daemon can't listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A daemon answers there.
    #[error("another publisherd answers on {}", .0.display())]
    InUse(PathBuf),
    /// A file that isn't a socket is in the way, and none of ours to remove.
    #[error("{} is in the way: it is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The path is longer than the kernel takes (107 bytes).
    #[error("socket path {} is too long: at most 107 bytes", .0.display())]
    TooLong(PathBuf),
    /// The operating system refused.
    #[error("can't {doing} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl BindError {
    fn io(doing: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { doing, path: path.to_owned(), source: source.into() }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::InUse(_) => {
                Some("stop the other daemon, or give this one its own --socket".into())
            }
            Self::NotASocket(_) => Some("remove it, or choose another --socket".into()),
            Self::TooLong(_) => Some("choose a shorter --socket".into()),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("run publisherd as root, or choose another --socket".into())
            }
            Self::Io { .. } => None,
        }
    }
}

/// A bound socket. Dropping it removes its file, unless another one has taken its place.
#[derive(Debug)]
pub struct Listener {
    path: PathBuf,
    /// Device and inode of the file.
    identity: (u64, u64),
    listener: Option<UnixListener>,
}

impl Listener {
    /// Listens on `path`: made readable and writable for root and, where it exists, for the group
    /// [`GROUP`]; never open to anybody else, not even for a moment. Missing parent directories are
    /// made. A socket that nobody answers on is replaced.
    ///
    /// # Errors
    ///
    /// [`BindError`].
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        if path.as_os_str().as_bytes().len() > 107 {
            return Err(BindError::TooLong(path.to_owned()));
        }
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)
            .map_err(|error| BindError::io("create", parent, error))?;
        // Between finding a dead socket and taking its place, another daemon could take it too.
        let directory = File::open(parent)
            .and_then(|directory| directory.lock().map(|()| directory))
            .map_err(|error| BindError::io("lock", parent, error))?;
        remove_dead(path)?;
        let socket = bind_private(path)?;
        let opened = open_to_group(path);
        drop(directory);
        let file = opened
            .and_then(|()| fs::symlink_metadata(path))
            .map_err(|error| BindError::io("set the owner of", path, error))?;
        let listener = UnixListener::from(socket);
        listener.set_nonblocking(true).map_err(|error| BindError::io("listen on", path, error))?;
        Ok(Self {
            path: path.to_owned(),
            identity: (file.dev(), file.ino()),
            listener: Some(listener),
        })
    }

    /// The socket's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The socket, non-blocking, for the server to take once.
    pub(super) fn take(&mut self) -> Option<UnixListener> {
        self.listener.take()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|file| (file.dev(), file.ino()) == self.identity);
        if ours {
            // A file that can't be removed is found dead by the next daemon.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes the socket `path` if nobody answers on it.
fn remove_dead(path: &Path) -> Result<(), BindError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(BindError::io("look at", path, error)),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(BindError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match connect_without_waiting(path) {
        Err(Errno::CONNREFUSED) => {
            fs::remove_file(path).map_err(|error| BindError::io("remove", path, error))
        }
        // Its owner removed it just now.
        Err(Errno::NOENT) => Ok(()),
        // A queue that is full is an answer too: somebody lives there, however slowly.
        Ok(()) | Err(Errno::AGAIN) => Err(BindError::InUse(path.to_owned())),
        Err(error) => Err(BindError::io("connect to", path, error)),
    }
}

/// Whether `path` can be connected to. Waits for nobody: a daemon that hangs must not hang this one.
fn connect_without_waiting(path: &Path) -> Result<(), Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)
}

/// Binds and listens; the file is 0600 from its first moment.
fn bind_private(path: &Path) -> Result<OwnedFd, BindError> {
    let failed = |error: Errno| BindError::io("listen on", path, error);
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(failed)?;
    // The file that bind(2) makes has the socket's own mode, less the umask (unix_bind_bsd).
    rustix::fs::fchmod(socket.as_fd(), Mode::RUSR | Mode::WUSR).map_err(failed)?;
    let address = SocketAddrUnix::new(path).map_err(failed)?;
    rustix::net::bind(&socket, &address).map_err(failed)?;
    rustix::net::listen(&socket, 128).map_err(failed)?;
    Ok(socket)
}

/// Lets the members of [`GROUP`] in, if there is such a group in `/etc/group`.
fn open_to_group(path: &Path) -> io::Result<()> {
    let groups = match fs::read_to_string("/etc/group") {
        Ok(groups) => groups,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    group_id(&groups, GROUP).map_or(Ok(()), |group| give_to_group(path, group))
}

fn give_to_group(path: &Path, group: u32) -> io::Result<()> {
    match std::os::unix::fs::lchown(path, None, Some(group)) {
        // Somebody's own daemon, for a test: the file stays their own.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(error),
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(0o660)),
    }
}

/// The id of the group `name` in the text of `/etc/group`.
fn group_id(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        let groups = "root:x:0:\npublishers:x:7:\npublisher:x:998:alice,bob\n";
        assert_eq!(group_id(groups, "publisher"), Some(998));
        assert_eq!(group_id(groups, "publish"), None);
        assert_eq!(group_id("publisher:x:many:", "publisher"), None);
    }

    #[test]
    fn nobody_but_owner_and_group_gets_in_and_the_file_goes_with_the_listener() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/p.sock");
        let listener = Listener::bind(&path).unwrap();
        assert_eq!(mode(&path) & 0o007, 0);
        assert!(matches!(mode(&path), 0o600 | 0o660));
        assert!(UnixStream::connect(&path).is_ok());
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn the_group_gets_in_only_where_the_file_can_be_given_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.sock");
        let socket = bind_private(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        // Nobody's group: only root can give a file to it.
        give_to_group(&path, 54_321).unwrap();
        let given = fs::symlink_metadata(&path).unwrap().gid() == 54_321;
        assert_eq!(given, rustix::process::geteuid().is_root());
        assert_eq!(mode(&path), if given { 0o660 } else { 0o600 });
        drop(socket);
    }

    #[test]
    fn a_living_daemon_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.sock");
        let first = Listener::bind(&path).unwrap();
        let error = Listener::bind(&path).unwrap_err();
        assert!(matches!(error, BindError::InUse(_)), "{error}");
        assert!(error.hint().unwrap().contains("--socket"));
        assert!(UnixStream::connect(&path).is_ok());
        drop(first);
    }

    #[test]
    fn a_daemon_that_hangs_is_left_alone_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.sock");
        let daemon = UnixListener::bind(&path).unwrap();
        // A backlog of 0, and the one connection that still fits.
        rustix::net::listen(&daemon, 0).unwrap();
        let waiting = UnixStream::connect(&path).unwrap();
        assert_eq!(connect_without_waiting(&path), Err(Errno::AGAIN));
        assert!(matches!(Listener::bind(&path), Err(BindError::InUse(_))));
        drop((daemon, waiting));
    }

    #[test]
    fn a_dead_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.sock");
        // Without listen(2): a listening one could live on for a moment in a process that another
        // test is just starting.
        let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        drop(socket);
        assert!(path.exists());
        let listener = Listener::bind(&path).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        drop(listener);
    }

    #[test]
    fn somebody_elses_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.sock");
        fs::write(&path, "mine").unwrap();
        let error = Listener::bind(&path).unwrap_err();
        assert!(matches!(error, BindError::NotASocket(_)), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn a_socket_that_took_our_place_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.sock");
        let ours = Listener::bind(&path).unwrap();
        fs::rename(&path, dir.path().join("away")).unwrap();
        let other = UnixListener::bind(&path).unwrap();
        drop(ours);
        assert!(UnixStream::connect(&path).is_ok());
        drop(other);
    }

    #[test]
    fn a_path_that_is_too_long() {
        let path = Path::new("/tmp").join("x".repeat(200));
        assert!(matches!(Listener::bind(&path), Err(BindError::TooLong(_))));
    }
}
