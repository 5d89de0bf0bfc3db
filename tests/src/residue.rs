//! What a case may not leave behind: pins, BPF programs, maps and links, namespaces, processes,
//! and changed sysctls, queueing disciplines, links or routes of the host.
//!
//! BPF objects are compared by id. The ids are taken from the daemon's open descriptors and from
//! its pins while it lives, so programs of others on the machine don't disturb the check.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::netns::{self, Netns};
use crate::shell;

/// Ids of BPF programs, maps and links.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Objects {
    /// Program ids.
    pub programs: BTreeSet<u32>,
    /// Map ids.
    pub maps: BTreeSet<u32>,
    /// Link ids (tcx attachments; clsact ones have none).
    pub links: BTreeSet<u32>,
}

impl Objects {
    /// The objects that a process holds open, by its `/proc/PID/fdinfo`. Empty when it is gone.
    pub fn of_process(pid: u32) -> Self {
        let mut objects = Self::default();
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return objects };
        for entry in entries.flatten() {
            objects.read(&fs::read_to_string(entry.path()).unwrap_or_default());
        }
        objects
    }

    /// The objects pinned below `directory`. Empty when it doesn't exist.
    ///
    /// # Errors
    /// When a pin can't be opened.
    pub fn pinned_below(directory: &Path) -> Result<Self> {
        let mut objects = Self::default();
        let Ok(entries) = fs::read_dir(directory) else { return Ok(objects) };
        for entry in entries.flatten() {
            if entry.file_type()?.is_dir() {
                objects.merge(Self::pinned_below(&entry.path())?);
            } else {
                let fd = open_pin(&entry.path())?;
                let info = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
                objects.read(&fs::read_to_string(info)?);
            }
        }
        Ok(objects)
    }

    /// Adds the ids of `other`.
    pub fn merge(&mut self, other: Self) {
        let Self { programs, maps, links } = other;
        self.programs.extend(programs);
        self.maps.extend(maps);
        self.links.extend(links);
    }

    fn read(&mut self, fdinfo: &str) {
        for line in fdinfo.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let Ok(id) = value.trim().parse() else { continue };
            match key {
                "prog_id" => self.programs.insert(id),
                "map_id" => self.maps.insert(id),
                "link_id" => self.links.insert(id),
                _ => continue,
            };
        }
    }

    /// Those that still exist in the kernel.
    pub fn alive(&self) -> Self {
        let programs = aya::programs::loaded_programs().flatten().map(|info| info.id()).collect();
        let maps = aya::maps::loaded_maps().flatten().map(|info| info.id()).collect();
        let links = aya::programs::loaded_links().flatten().map(|info| info.id()).collect();
        Self {
            programs: &self.programs & &programs,
            maps: &self.maps & &maps,
            links: &self.links & &links,
        }
    }

    /// True when it names no object.
    pub fn is_empty(&self) -> bool {
        self.programs.is_empty() && self.maps.is_empty() && self.links.is_empty()
    }
}

/// Opens a pinned BPF object, whatever its kind (`BPF_OBJ_GET`).
fn open_pin(path: &Path) -> Result<OwnedFd> {
    const BPF_OBJ_GET: libc::c_long = 7;
    #[repr(C)]
    struct Attr {
        pathname: u64,
        fd: u32,
        flags: u32,
    }
    let name = CString::new(path.as_os_str().as_bytes())?;
    let attr = Attr { pathname: name.as_ptr() as u64, fd: 0, flags: 0 };
    // SAFETY: the attributes are those of BPF_OBJ_GET, and the path outlives the call.
    let fd =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, &raw const attr, size_of::<Attr>()) };
    if fd < 0 {
        let error = io::Error::last_os_error();
        anyhow::bail!("open the pin {}: {error}", path.display());
    }
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// What is on the host that a daemon may have changed and must have put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostState {
    sysctls: BTreeMap<String, String>,
    tables: BTreeMap<&'static str, BTreeSet<String>>,
}

impl HostState {
    /// Reads the sysctls of IPv4 and IPv6, the queueing disciplines, links, rules, routes and
    /// addresses of a namespace.
    ///
    /// # Errors
    /// When iproute2 is missing.
    pub fn of(ns: &Netns) -> Result<Self> {
        let mut sysctls = BTreeMap::new();
        ns.run(|| {
            for family in ["ipv4", "ipv6", "core"] {
                read_tree(&Path::new("/proc/sys/net").join(family), &mut sysctls);
            }
        });
        let mut tables = BTreeMap::new();
        let links = ns.ip("-br link")?;
        let names = |text: &str| text.lines().map(|l| first_word(l).to_owned()).collect();
        tables.insert("link", names(&links));
        tables.insert("qdisc", lines(&ns.sh("tc qdisc show")?));
        for (name, args) in [
            ("rule", "rule"),
            ("rule -6", "-6 rule"),
            ("route", "route show table all"),
            ("route -6", "-6 route show table all"),
        ] {
            tables.insert(name, lines(&ns.ip(args)?));
        }
        Ok(Self { sysctls, tables })
    }

    /// The differences of `self` (before) and `after`, in words. Sysctls of interfaces that exist
    /// only on one side don't count.
    pub fn changes(&self, after: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        for (key, old) in &self.sysctls {
            if let Some(new) = after.sysctls.get(key).filter(|new| *new != old) {
                changes.push(format!("sysctl {key}: was {old:?}, is {new:?}"));
            }
        }
        for (table, old) in &self.tables {
            let new = &after.tables[table];
            changes.extend(old.difference(new).map(|line| format!("{table} gone: {line}")));
            changes.extend(new.difference(old).map(|line| format!("{table} left: {line}")));
        }
        changes
    }
}

impl HostState {
    /// Takes over what differs between two later states: a change that the test itself made.
    pub fn take_over(&mut self, from: &Self, to: &Self) {
        for (key, value) in &to.sysctls {
            if from.sysctls.get(key) != Some(value) {
                self.sysctls.insert(key.clone(), value.clone());
            }
        }
        self.sysctls
            .retain(|key, _| to.sysctls.contains_key(key) || !from.sysctls.contains_key(key));
        for (table, lines) in &mut self.tables {
            let (from, to) = (&from.tables[table], &to.tables[table]);
            lines.retain(|line| to.contains(line) || !from.contains(line));
            lines.extend(to.difference(from).cloned());
        }
    }
}

fn first_word(line: &str) -> &str {
    let word = line.split_whitespace().next().unwrap_or_default();
    word.split('@').next().unwrap_or(word)
}

fn lines(text: &str) -> BTreeSet<String> {
    // Multicast and expiring entries come and go by themselves.
    let lines = text.lines().filter(|l| !l.contains("expires") && !l.contains("multicast"));
    lines.map(|line| line.trim().to_owned()).collect()
}

fn read_tree(directory: &Path, into: &mut BTreeMap<String, String>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            read_tree(&path, into);
        } else if let Ok(value) = fs::read_to_string(&path) {
            into.insert(path.display().to_string(), value.trim().to_owned());
        }
    }
}

/// What a case must have ended when it is over.
#[derive(Debug, Default)]
pub struct Left {
    /// BPF objects seen while the daemon ran.
    pub objects: Objects,
    /// Processes started.
    pub processes: Vec<u32>,
    /// Paths made: pin directories, sockets.
    pub paths: Vec<PathBuf>,
    /// What was found before the end already.
    pub findings: Vec<String>,
}

impl Left {
    /// Looks for all of it, waiting up to 5 s for what the kernel frees late (objects of a
    /// namespace that has just been deleted). Returns what is left, in words.
    pub fn check(&mut self) -> Vec<String> {
        let mut residue = std::mem::take(&mut self.findings);
        let ours = format!("{}{}-", netns::PREFIX, std::process::id());
        residue.extend(netns::existing(&ours).into_iter().map(|name| format!("namespace {name}")));
        for pid in &self.processes {
            if Path::new("/proc").join(pid.to_string()).exists() {
                residue.push(format!("process {pid}"));
            }
        }
        let paths = self.paths.iter().filter(|path| path.exists());
        residue.extend(paths.map(|path| format!("path {}", path.display())));
        if !shell::wait_until(Duration::from_secs(5), || self.objects.alive().is_empty()) {
            residue.push(format!("BPF objects {:?}", self.objects.alive()));
        }
        residue
    }
}
