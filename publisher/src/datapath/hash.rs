//! Hash maps by bpf(2) itself, for what aya's don't offer: changes through a shared reference, so that a
//! pass over the sessions needs no lock, and reading in batches (`batch`).

use aya::Pod;
use std::io;
use std::marker::PhantomData;
use std::mem::zeroed;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

const LOOKUP: libc::c_long = 1;
const UPDATE: libc::c_long = 2;
const DELETE: libc::c_long = 3;
pub(super) const NEXT_KEY: libc::c_long = 4;

/// When an entry is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Write {
    /// Whether or not there is one.
    Any = 0,
    /// Where there is none.
    New = 1,
    /// Where there is one.
    Existing = 2,
}

/// A hash map, LRU or not, whose keys are `K` and whose values are `V` in the kernel.
pub(super) struct Hash<K, V> {
    fd: OwnedFd,
    kind: PhantomData<fn() -> (K, V)>,
}

/// `union bpf_attr` of the commands on one element.
#[repr(C)]
#[derive(Default)]
pub(super) struct Element {
    pub(super) map_fd: u32,
    pub(super) padding: u32,
    pub(super) key: u64,
    /// The value, or the next key.
    pub(super) value: u64,
    pub(super) flags: u64,
}

/// Calls bpf(2).
///
/// # Safety
/// Whatever `attribute` points to must be as large as the command reads or writes.
pub(super) unsafe fn bpf<T>(command: libc::c_long, attribute: &mut T) -> io::Result<libc::c_long> {
    let size = size_of::<T>() as libc::c_uint;
    // SAFETY: the attribute is as large as told and outlives the call; the rest is the caller's promise.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The address of something that the kernel reads or writes.
pub(super) fn address<T>(of: *const T) -> u64 {
    of.addr() as u64
}

impl<K: Pod, V: Pod> Hash<K, V> {
    /// The map behind a file descriptor.
    ///
    /// # Errors
    /// When the descriptor can't be copied.
    ///
    /// # Safety
    /// The map's keys must be as large as `K`, its values as large as `V`.
    pub(super) unsafe fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self { fd: fd.try_clone_to_owned()?, kind: PhantomData })
    }

    pub(super) fn raw(&self) -> u32 {
        self.fd.as_raw_fd() as u32
    }

    fn element(&self, key: &K, value: u64, flags: u64) -> Element {
        Element { map_fd: self.raw(), key: address(key), value, flags, ..Element::default() }
    }

    /// An entry's value; `None` where there is none.
    pub(super) fn get(&self, key: &K) -> Option<V> {
        // SAFETY: `Pod` says that all bytes 0 are a value.
        let mut value: V = unsafe { zeroed() };
        let mut element = self.element(key, address(&raw mut value), 0);
        // SAFETY: key and value have the map's sizes.
        unsafe { bpf(LOOKUP, &mut element) }.ok().map(|_| value)
    }

    /// Writes an entry.
    ///
    /// # Errors
    /// The kernel's: `EEXIST`, `ENOENT`, and `E2BIG` for a full map.
    pub(super) fn insert(&self, key: &K, value: &V, when: Write) -> io::Result<()> {
        let mut element = self.element(key, address(value), when as u64);
        // SAFETY: key and value have the map's sizes.
        unsafe { bpf(UPDATE, &mut element) }.map(drop)
    }

    /// Removes an entry; says whether it was there.
    pub(super) fn remove(&self, key: &K) -> bool {
        let mut element = self.element(key, 0, 0);
        // SAFETY: the key has the map's size.
        unsafe { bpf(DELETE, &mut element) }.is_ok()
    }

    /// Bytes that the map takes in the kernel, as it says itself; 0 where it doesn't.
    pub(super) fn memory(&self) -> u64 {
        let path = format!("/proc/self/fdinfo/{}", self.raw());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
        line.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(0)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::os::fd::FromRawFd as _;

    /// `union bpf_attr` of `BPF_MAP_CREATE`, as far as needed.
    #[repr(C)]
    struct Create {
        kind: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        flags: u32,
    }

    /// A new map of `BPF_MAP_TYPE_HASH` (1) or `BPF_MAP_TYPE_LRU_HASH` (9).
    pub(crate) fn create<K: Pod, V: Pod>(kind: u32, max_entries: u32) -> Hash<K, V> {
        let (key_size, value_size) = (size_of::<K>() as u32, size_of::<V>() as u32);
        let mut create = Create { kind, key_size, value_size, max_entries, flags: 0 };
        // SAFETY: the command reads nothing but the attribute.
        let fd = unsafe { bpf(0, &mut create) }.expect("a map; this test needs root");
        // SAFETY: the kernel has just given it to us.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        Hash { fd, kind: PhantomData }
    }

    #[test]
    fn entries_are_written_read_and_removed() {
        let map: Hash<u32, u64> = create(1, 4);
        assert_eq!(map.get(&1), None);
        map.insert(&1, &10, Write::New).unwrap();
        let again = map.insert(&1, &11, Write::New).unwrap_err();
        assert_eq!(again.raw_os_error(), Some(libc::EEXIST));
        let missing = map.insert(&2, &11, Write::Existing).unwrap_err();
        assert_eq!(missing.raw_os_error(), Some(libc::ENOENT));
        map.insert(&1, &12, Write::Any).unwrap();
        assert_eq!(map.get(&1), Some(12));
        assert!(map.remove(&1));
        assert!(!map.remove(&1));
        assert!(map.memory() > 0);
    }
}
