//! A real ufw for a namespace of a test.
//!
//! It is unpacked, not installed (see [`crate::fetched`]): rules and settings are in the case's directory,
//! and those of the machine aren't met.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::case::Case;
use crate::fetched;
use crate::shell;

/// Its files, once for all that a case asks of it.
#[derive(Debug)]
pub struct Ufw(PathBuf);

impl Ufw {
    /// Copies its files, as the package's installation would lay them out.
    ///
    /// # Errors
    /// When the setup hasn't brought it.
    pub fn new(case: &Case) -> Result<Self> {
        let from = fetched::tree("PUBLISHER_UFW", "ufw-0.36")?;
        let root = case.directory().join("ufw");
        shell::run(Command::new("cp").arg("-r").args([&from, &root]))?;
        let (templates, settings) = (root.join("usr/share/ufw"), root.join("etc/ufw"));
        fs::copy(templates.join("ufw.conf"), settings.join("ufw.conf"))?;
        for entry in fs::read_dir(templates.join("iptables"))? {
            let entry = entry?;
            fs::copy(entry.path(), settings.join(entry.file_name()))?;
        }
        // It would set sysctls, which aren't its rules.
        let defaults = root.join("etc/default/ufw");
        let text = fs::read_to_string(&defaults)?;
        fs::write(defaults, text.replace("IPT_SYSCTL=/etc/ufw/sysctl.conf", "IPT_SYSCTL="))?;
        Ok(Self(root))
    }

    /// The command line of `ufw ARGUMENTS`.
    pub fn line(&self, arguments: &str) -> String {
        let root = self.0.display();
        format!(
            "env PYTHONPATH={root}/usr/lib/python3/dist-packages PYTHONDONTWRITEBYTECODE=1 \
             /usr/bin/python3 {root}/usr/sbin/ufw --rootdir={root} --datadir={root} {arguments}"
        )
    }
}
