//! Published ports inside the ephemeral range, kept from the host's own outgoing connections.

use crate::topology::reserved_ports::{
    PortSet, Reservation, read_ephemeral, read_reserved, reserve, write_reserved,
};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The file that says which reserved ports are ours.
const FILE: &str = "reserved-ports";

/// Which reserved ports are ours, on disk.
pub(super) struct Reserved {
    path: PathBuf,
    ours: PortSet,
}

impl Reserved {
    /// Reads what an earlier daemon has reserved.
    pub fn open(state_dir: &Path) -> Self {
        let path = state_dir.join(FILE);
        let ours = fs::read_to_string(&path).ok().and_then(|text| text.parse().ok());
        Self { path, ours: ours.unwrap_or_default() }
    }

    /// Reserves what of `ports` the host might use for itself, and gives back the rest of ours.
    pub fn update(&mut self, ports: &PortSet) -> io::Result<()> {
        let current = read_reserved()?;
        let Reservation { next, ours } = reserve(&current, &self.ours, ports, read_ephemeral()?);
        if ours != self.ours {
            // First the note that they will be ours: one that was not reserved is given back for
            // nothing, one that was not noted would stay for ever.
            self.note(&ours.union(&self.ours))?;
        }
        if next != current {
            write_reserved(&next)?;
        }
        if ours != self.ours {
            self.note(&ours)?;
            self.ours = ours;
        }
        Ok(())
    }

    fn note(&self, ports: &PortSet) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        writeln!(file, "{ports}")?;
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        fs::File::open(directory)?.sync_all()
    }
}
