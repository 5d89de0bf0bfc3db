//! The kernel's side, as the daemon holds it: the loaded programs, where they are attached, and the
//! maps.
//!
//! Everything is pinned below one directory of a bpffs, in a directory named after the version of the
//! map layout: the datapath goes on when the daemon ends, and the next daemon takes it over.

mod access;
mod attach;
mod batch;
mod counts;
mod error;
mod expiry;
mod hash;
mod log;
mod loopback;
mod memory;
mod object;
mod orphans;
mod pace;
mod pins;
#[cfg(test)]
mod scene;
mod sessions;
mod tables;
mod takeover;

pub use access::AccessPrefix;
pub use attach::{Attachment, Hook, Means};
pub use counts::{Counts, Differences};
pub use error::DatapathError;
pub use expiry::{EndReason, Seen};
pub use log::SessionLog;
pub use memory::{NoRoom, check_room};
pub use object::{Capacities, OBJECT, ProgramStatistics};
pub use pace::Pace;
pub use sessions::{Entry, Sessions};
pub use tables::{LocalPrefix, TableUse};

use attach::Attachments;
use aya::Ebpf;
use error::chain;
use pins::Pins;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use tables::Tables;
use takeover::Older;

/// The loaded datapath.
pub struct Datapath {
    /// Keeps the programs; attachments are pinned and don't depend on it.
    programs: Ebpf,
    attachments: Attachments,
    tables: Tables,
    pins: Pins,
}

impl Datapath {
    /// Loads the programs and takes over what is pinned below `directory`.
    ///
    /// # Errors
    /// When `directory` isn't on a bpffs, privileges are missing, the kernel refuses a program, or what is
    /// pinned has neither this version's layout nor the one before.
    pub fn open(directory: &Path, capacities: &Capacities) -> Result<Self, DatapathError> {
        let pins = Pins::open(directory)?;
        let older = Older::find(&pins)?;
        let mut programs = object::load(&pins, older.as_ref(), capacities)?;
        let mut tables = Tables::take(&mut programs)?;
        if let Some(older) = &older {
            older.prepare(&mut tables)?;
            older.hand_over_links(&pins)?;
        }
        let attachments = Attachments::take_over(&pins, &mut programs)?;
        if let Some(older) = older {
            older.finish(&pins, &mut tables)?;
        }
        Ok(Self { programs, attachments, tables, pins })
    }

    /// Finds out whether local processes can be served at the loopback interface. Where they are, by an
    /// earlier daemon's doing, they can.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn probe_loopback(&mut self) -> Result<(), String> {
        if self.attachments().any(|(at, _)| at.hook == Hook::Loopback) {
            return Ok(());
        }
        loopback::probe(&mut self.programs)
    }

    /// Attaches a program to an interface; nothing happens where it is attached.
    ///
    /// # Errors
    /// When the interface is gone or the kernel refuses.
    pub fn attach(&mut self, at: &Attachment) -> Result<Means, DatapathError> {
        self.attachments.attach(at, &self.pins, &mut self.programs)
    }

    /// Detaches a program from an interface; nothing happens where it isn't attached.
    pub fn detach(&mut self, at: &Attachment) {
        self.attachments.detach(at, &self.pins);
    }

    /// Where programs are attached, and by what means.
    pub fn attachments(&self) -> impl Iterator<Item = (&Attachment, Means)> {
        self.attachments.iter()
    }

    /// The maps.
    pub const fn tables(&mut self) -> &mut Tables {
        &mut self.tables
    }

    /// What the kernel knows about each program.
    pub fn statistics(&self) -> Vec<ProgramStatistics> {
        object::statistics(&self.programs)
    }

    /// A loaded program, for `BPF_PROG_TEST_RUN`.
    ///
    /// # Errors
    /// When the object doesn't have it.
    pub fn program(&mut self, hook: Hook) -> Result<BorrowedFd<'_>, DatapathError> {
        let program = object::program(&mut self.programs, hook.program())?;
        let fd = program.fd().map_err(|error| DatapathError::Missing(chain(&error)))?;
        Ok(fd.as_fd())
    }

    /// Detaches everything and removes all pins: the end of all sessions.
    ///
    /// # Errors
    /// When a pin can't be removed.
    pub fn uninstall(mut self) -> Result<(), DatapathError> {
        self.attachments.detach_all(&self.pins);
        self.pins.remove()
    }
}
