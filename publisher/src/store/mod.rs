//! The state directory: the publications, the key of the alias choice, and the lock that keeps a
//! second daemon out.
//!
//! | file | what |
//! |---|---|
//! | `bans.json` | who is kept out of every publication, written anew at every change |
//! | `lock` | held (`flock`) for as long as the daemon lives; holds its process id |
//! | `publications.json` | [`State`], written anew at every change |
//! | `secret.key` | 16 random bytes, made once, readable by its owner only |
//!
//! A file that can't be understood is never overwritten: it is renamed to `NAME.corrupt-SECONDS` and
//! reported, and the daemon starts without it.

mod bans;
mod error;
mod file;
mod lock;
mod secret;
mod state;

use std::io;
use std::path::{Path, PathBuf};

pub use error::StoreError;
pub use secret::SECRET_LEN;
pub use state::State;

use lock::Lock;

const PUBLICATIONS: &str = "publications.json";

/// A state directory that this process holds.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    _lock: Lock,
}

/// What [`Store::open`] finds.
#[derive(Debug)]
pub struct Opened {
    /// The directory, for [`Store::save`].
    pub store: Store,
    /// The publications of before.
    pub state: State,
    /// The key that the choice of a client's alias is hashed with.
    pub secret: [u8; SECRET_LEN],
    /// What was damaged and where it is kept now, one line each. Worth an error in the log and a
    /// warning in `status`.
    pub damage: Vec<String>,
}

impl Store {
    /// Takes the state directory `dir`, which is made where it is missing (0700), and reads it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Locked`] while another process holds the directory, [`StoreError::Io`] for
    /// what can't be read or written. A damaged file is no error: see [`Opened::damage`].
    pub fn open(dir: &Path) -> Result<Opened, StoreError> {
        file::create_dir(dir)?;
        let store = Self { dir: dir.to_owned(), _lock: Lock::take(dir)? };
        let mut damage = Vec::new();
        let secret = secret::load_or_create(dir, &mut damage)?;
        let state = store.load(&mut damage)?;
        Ok(Opened { store, state, secret, damage })
    }

    /// Puts `state` on disk. It is there, whole, when this returns, even if the power fails then;
    /// if it fails before, the state of before is there.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`].
    pub fn save(&self, state: &State) -> Result<(), StoreError> {
        file::write_atomically(&self.dir.join(PUBLICATIONS), &state.to_json(), 0o600)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn load(&self, damage: &mut Vec<String>) -> Result<State, StoreError> {
        let path = self.dir.join(PUBLICATIONS);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::default()),
            Err(error) => return Err(StoreError::io("read", &path, error)),
        };
        State::from_json(&bytes).or_else(|reason| {
            let kept = file::set_aside(&path)?;
            damage.push(format!(
                "{} is damaged ({reason}): kept as {}, starting without publications",
                path.display(),
                kept.display()
            ));
            let state = State::after_damage(&bytes);
            // The ids that are spent must stay spent if the daemon dies before its first change.
            self.save(&state)?;
            Ok(state)
        })
    }
}

#[cfg(test)]
mod tests;
