//! Finds the network namespace behind a veth, and looks into it.
//!
//! No descriptor of a container's namespace is ever kept: it would hold the namespace, and with
//! it the container's interfaces, after the container is gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{
    netlink::{Client, Request, attribute, u32_at},
    uapi::nsa,
};

/// Where container engines and `ip netns` keep names for namespaces.
const DIRECTORIES: [&str; 3] = ["/run/netns", "/var/run/netns", "/run/docker/netns"];

/// Files of namespaces found so far, by the identifier that our namespace knows them by.
#[derive(Debug, Default)]
pub struct Finder {
    known: Mutex<BTreeMap<i32, PathBuf>>,
}

impl Finder {
    /// Opens the namespace of that identifier (`IFLA_LINK_NETNSID`), if a file for it can be
    /// found: a named one, or a process that lives in it.
    pub fn open(&self, netlink: &Client, nsid: i32) -> Option<File> {
        let known = self.lock().get(&nsid).cloned();
        // Identifiers and process numbers are used again, so what was found is checked again.
        if let Some(file) = known.and_then(|path| open_if(netlink, &path, nsid)) {
            return Some(file);
        }
        let mut seen = BTreeSet::new();
        for path in candidates() {
            let Ok(metadata) = path.metadata() else { continue };
            if seen.insert((metadata.dev(), metadata.ino()))
                && let Some(file) = open_if(netlink, &path, nsid)
            {
                self.lock().insert(nsid, path);
                return Some(file);
            }
        }
        self.lock().remove(&nsid);
        None
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<i32, PathBuf>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Files that may be network namespaces: named ones, then those of processes.
fn candidates() -> impl Iterator<Item = PathBuf> {
    let named = DIRECTORIES.iter().flat_map(|directory| entries(Path::new(directory)));
    let processes = std::iter::once_with(|| entries(Path::new("/proc"))).flatten();
    let of_process = processes.filter_map(|path| {
        let number = path.file_name()?.to_str()?.bytes().all(|byte| byte.is_ascii_digit());
        number.then(|| path.join("ns/net"))
    });
    named.chain(of_process)
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn open_if(netlink: &Client, path: &Path, nsid: i32) -> Option<File> {
    let file = File::open(path).ok()?;
    (identifier(netlink, &file) == Some(nsid)).then_some(file)
}

/// The identifier that `netlink`'s namespace knows the given namespace by; none when it has
/// none, or the file is no namespace.
fn identifier(netlink: &Client, namespace: &File) -> Option<i32> {
    // struct rtgenmsg: one byte, the address family.
    let request = Request::new(libc::RTM_GETNSID, 0, &[libc::AF_UNSPEC as u8])
        .attr(nsa::FD, &namespace.as_raw_fd().to_ne_bytes());
    let body = netlink.request(request).ok()?;
    let id = attribute(body.get(4..)?, nsa::NSID).and_then(|value| u32_at(value, 0))? as i32;
    (id >= 0).then_some(id)
}

/// Runs `work` in another network namespace, on a thread of its own that ends with it.
///
/// # Errors
/// When the namespace can't be entered (no `CAP_SYS_ADMIN`), or no thread can be made.
pub fn enter<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".to_owned()).spawn_scoped(
            scope,
            || -> io::Result<T> {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(work())
            },
        )?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
