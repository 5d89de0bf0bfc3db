//! Reading a whole hash map, thousands of entries with each system call (`BPF_MAP_LOOKUP_BATCH`, Linux
//! 5.6), in constant memory. On a kernel without it, entry by entry.
//!
//! A map changes while it is read: an entry that comes or goes meanwhile may be missed. None comes twice:
//! the kernel copies a bucket at a time.

use super::hash::{Element, Hash, NEXT_KEY, address, bpf};
use aya::Pod;
use std::io;
use std::mem::zeroed;

const LOOKUP_BATCH: libc::c_long = 24;
/// Entries of the first chunk.
const CHUNK: usize = 4_096;
/// `ENOTSUPP` of the kernel, which libc doesn't know.
const ENOTSUPP: i32 = 524;

/// `union bpf_attr` of the commands on batches.
#[repr(C)]
#[derive(Default)]
struct Batch {
    /// Where the last one ended; 0 for the first.
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// How a map is being read.
enum Way<K> {
    /// In batches; the token of the last one.
    Batches(Option<u32>),
    /// Entry by entry; the last key.
    Entries(Option<K>),
    /// To its end.
    Done,
}

/// A map that is being read.
pub(super) struct Reader<'a, K, V> {
    map: &'a Hash<K, V>,
    way: Way<K>,
    keys: Vec<K>,
    values: Vec<V>,
}

impl<K: Pod, V: Pod> Hash<K, V> {
    /// Reads the map from its beginning.
    pub(super) fn reader(&self) -> Reader<'_, K, V> {
        Reader::new(self, CHUNK)
    }

    /// Calls `each` with every entry.
    ///
    /// # Errors
    /// When the map can't be read.
    pub(super) fn for_each(&self, mut each: impl FnMut(&K, &V)) -> io::Result<()> {
        let mut reader = self.reader();
        while let Some((keys, values)) = reader.next_chunk()? {
            for (key, value) in keys.iter().zip(values) {
                each(key, value);
            }
        }
        Ok(())
    }
}

impl<'a, K: Pod, V: Pod> Reader<'a, K, V> {
    fn new(map: &'a Hash<K, V>, chunk: usize) -> Self {
        let mut reader =
            Self { map, way: Way::Batches(None), keys: Vec::new(), values: Vec::new() };
        reader.grow(chunk);
        reader
    }

    fn grow(&mut self, chunk: usize) {
        // SAFETY: `Pod` says that all bytes 0 are a value, of both types.
        let (key, value): (K, V) = unsafe { (zeroed(), zeroed()) };
        self.keys.resize(chunk, key);
        self.values.resize(chunk, value);
    }

    /// The next entries, some thousands; `None` at the end.
    ///
    /// # Errors
    /// When the map can't be read.
    pub(super) fn next_chunk(&mut self) -> io::Result<Option<(&[K], &[V])>> {
        loop {
            let (count, next) = match self.way {
                Way::Done => return Ok(None),
                Way::Entries(last) => self.entries(last),
                Way::Batches(token) => match self.batch(token) {
                    Err(error) => match error.raw_os_error() {
                        // One bucket holds more than a chunk.
                        Some(libc::ENOSPC) => {
                            self.grow(self.keys.len() * 2);
                            continue;
                        }
                        Some(libc::EINVAL | ENOTSUPP | libc::EOPNOTSUPP) if token.is_none() => {
                            self.way = Way::Entries(None);
                            continue;
                        }
                        _ => return Err(error),
                    },
                    Ok(read) => read,
                },
            };
            self.way = next;
            if count > 0 {
                return Ok(Some((&self.keys[..count], &self.values[..count])));
            }
        }
    }

    fn batch(&mut self, token: Option<u32>) -> io::Result<(usize, Way<K>)> {
        let (from, mut to) = (token.unwrap_or(0), 0u32);
        let mut batch = Batch {
            in_batch: token.map_or(0, |_| address(&raw const from)),
            out_batch: address(&raw mut to),
            keys: address(self.keys.as_mut_ptr()),
            values: address(self.values.as_mut_ptr()),
            count: self.keys.len() as u32,
            map_fd: self.map.raw(),
            ..Batch::default()
        };
        // SAFETY: there is room for `count` keys and values, and a hash's token is 4 bytes.
        let done = unsafe { bpf(LOOKUP_BATCH, &mut batch) };
        let count = (batch.count as usize).min(self.keys.len());
        match done {
            Ok(_) => Ok((count, Way::Batches(Some(to)))),
            // The last of them.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok((count, Way::Done)),
            Err(error) => Err(error),
        }
    }

    fn entries(&mut self, mut last: Option<K>) -> (usize, Way<K>) {
        let mut count = 0;
        while count < self.keys.len() {
            // SAFETY: `Pod` says that all bytes 0 are a value.
            let mut next: K = unsafe { zeroed() };
            let mut element = Element {
                map_fd: self.map.raw(),
                key: last.as_ref().map_or(0, |key| address(key)),
                value: address(&raw mut next),
                ..Element::default()
            };
            // SAFETY: both keys have the map's size.
            if unsafe { bpf(NEXT_KEY, &mut element) }.is_err() {
                return (count, Way::Done);
            }
            // It may just have gone.
            if let Some(value) = self.map.get(&next) {
                (self.keys[count], self.values[count]) = (next, value);
                count += 1;
            }
            last = Some(next);
        }
        (count, Way::Entries(last))
    }
}

#[cfg(test)]
mod tests {
    use super::super::hash::{Write, tests::create};
    use super::*;
    use std::collections::BTreeSet;

    fn read(mut reader: Reader<'_, u32, u64>) -> BTreeSet<u32> {
        let mut seen = BTreeSet::new();
        while let Some((keys, values)) = reader.next_chunk().unwrap() {
            for (key, value) in keys.iter().zip(values) {
                assert_eq!(*value, u64::from(*key) * 3);
                assert!(seen.insert(*key), "{key} comes twice");
            }
        }
        seen
    }

    #[test]
    fn every_entry_comes_once() {
        for kind in [1, 9] {
            for entries in [0u32, 1, 4_095, 20_000] {
                let map: Hash<u32, u64> = create(kind, 40_000);
                for key in 0..entries {
                    map.insert(&key, &(u64::from(key) * 3), Write::New).unwrap();
                }
                let all: BTreeSet<u32> = (0..entries).collect();
                assert_eq!(read(map.reader()), all, "{entries}");
                let mut one_by_one = Reader::new(&map, 100);
                one_by_one.way = Way::Entries(None);
                assert_eq!(read(one_by_one), all, "{entries}");
            }
        }
    }

    #[test]
    fn a_bucket_larger_than_a_chunk_makes_the_chunk_larger() {
        // 64 buckets with 64 entries: some bucket holds two.
        let map: Hash<u32, u64> = create(1, 64);
        for key in 0..64u32 {
            map.insert(&key, &(u64::from(key) * 3), Write::New).unwrap();
        }
        assert_eq!(read(Reader::new(&map, 1)).len(), 64);
    }
}
