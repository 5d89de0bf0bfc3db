//! The bans as they lie on disk: `bans.json`.

use std::io;

use serde::{Deserialize, Serialize};

use super::{Store, StoreError, file};
use crate::model::{Ban, timestamp};

const FILE: &str = "bans.json";

/// The version of the file's form.
const SCHEMA: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<B> {
    schema: u32,
    bans: B,
}

impl Store {
    /// Puts `bans` on disk, as [`save`](Self::save) does with publications.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`].
    pub fn save_bans(&self, bans: &[Ban]) -> Result<(), StoreError> {
        let document = Document { schema: SCHEMA, bans };
        let mut bytes = serde_json::to_vec(&document).expect("bans have a JSON form");
        bytes.push(b'\n');
        file::write_atomically(&self.dir.join(FILE), &bytes, 0o600)
    }

    /// The bans of before that still hold. A damaged file is set aside and reported in `damage`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`].
    pub fn load_bans(&self, damage: &mut Vec<String>) -> Result<Vec<Ban>, StoreError> {
        let path = self.dir.join(FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(StoreError::io("read", &path, error)),
        };
        let read = serde_json::from_slice::<Document<Vec<Ban>>>(&bytes)
            .map_err(|error| error.to_string())
            .and_then(|it| match it.schema {
                SCHEMA => Ok(it.bans),
                other => Err(format!("schema {other}, this publisherd knows {SCHEMA}")),
            });
        let mut bans = match read {
            Ok(bans) => bans,
            Err(reason) => {
                let kept = file::set_aside(&path)?;
                damage.push(format!(
                    "{} is damaged ({reason}): kept as {}, starting without bans",
                    path.display(),
                    kept.display()
                ));
                return Ok(Vec::new());
            }
        };
        let now = timestamp::now();
        bans.retain(|ban| !ban.is_over(now));
        Ok(bans)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Opened;
    use std::time::Duration;

    fn ban(clients: &str, ends_in: Option<i64>) -> Ban {
        let now = timestamp::now();
        let until = ends_in.map(|seconds| match u64::try_from(seconds) {
            Ok(ahead) => now + Duration::from_secs(ahead),
            Err(_) => now - Duration::from_secs(seconds.unsigned_abs()),
        });
        let clients = clients.parse().unwrap();
        Ban { clients, alias: None, alias_port: None, created: now, until }
    }

    #[test]
    fn what_still_holds_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let Opened { store, .. } = Store::open(dir.path()).unwrap();
        let mut damage = Vec::new();
        assert_eq!(store.load_bans(&mut damage).unwrap(), []);
        let bans =
            [ban("::1", None), ban("::2", Some(600)), ban("::3", Some(0)), ban("::4", Some(-9))];
        store.save_bans(&bans).unwrap();
        assert_eq!(store.load_bans(&mut damage).unwrap(), bans[..2]);
        assert_eq!(damage, Vec::<String>::new());
    }

    #[test]
    fn a_damaged_file_is_kept_aside() {
        let dir = tempfile::tempdir().unwrap();
        let Opened { store, .. } = Store::open(dir.path()).unwrap();
        for bytes in [&b""[..], b"{\"schema\":1,\"bans\":[{", b"{\"schema\":2,\"bans\":[]}"] {
            std::fs::write(dir.path().join(FILE), bytes).unwrap();
            let mut damage = Vec::new();
            assert_eq!(store.load_bans(&mut damage).unwrap(), []);
            assert!(damage[0].contains("bans.json is damaged"), "{damage:?}");
            assert!(!dir.path().join(FILE).exists());
        }
    }
}
