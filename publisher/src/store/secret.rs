//! The key of the alias choice. It stays the same for the life of the state directory, so that a
//! client gets the same alias after a restart, and nobody outside can compute whose alias is whose.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{StoreError, file};

/// The key's length, in bytes.
pub const SECRET_LEN: usize = 16;

const NAME: &str = "secret.key";

/// Reads the key of `dir`; makes one where there is none, or none of the right length.
pub(super) fn load_or_create(
    dir: &Path,
    damage: &mut Vec<String>,
) -> Result<[u8; SECRET_LEN], StoreError> {
    let path = dir.join(NAME);
    match fs::read(&path) {
        Ok(bytes) => match <[u8; SECRET_LEN]>::try_from(bytes.as_slice()) {
            Ok(secret) => {
                // A copy made by hand may have been left readable.
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
                    .map_err(|error| StoreError::io("protect", &path, error))?;
                return Ok(secret);
            }
            Err(_) => {
                let kept = file::set_aside(&path)?;
                damage.push(format!(
                    "{} is damaged ({} bytes instead of {SECRET_LEN}): kept as {}, \
                     clients get other aliases than before",
                    path.display(),
                    bytes.len(),
                    kept.display()
                ));
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(StoreError::io("read", &path, error)),
    }
    let secret = random()?;
    file::write_atomically(&path, &secret, 0o600)?;
    Ok(secret)
}

fn random() -> Result<[u8; SECRET_LEN], StoreError> {
    let source = Path::new("/dev/urandom");
    let mut secret = [0; SECRET_LEN];
    File::open(source)
        .and_then(|mut random| random.read_exact(&mut secret))
        .map_err(|error| StoreError::io("read", source, error))?;
    Ok(secret)
}
