//! The way that a publication's packets take, as asked for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::{SpecError, quoted};

/// The way that packets are to take.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "&'static str")]
pub enum PathMode {
    /// The kernel's where it serves, the proxy for the rest. The port is held by a socket.
    #[default]
    Auto,
    /// The kernel's only. No socket holds the port: another process may have it.
    Kernel,
    /// The proxy's only.
    Proxy,
}

impl PathMode {
    /// The word of the command line and the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Kernel => "kernel",
            Self::Proxy => "proxy",
        }
    }

    /// Whether it is the default.
    pub fn is_auto(&self) -> bool {
        *self == Self::Auto
    }
}

impl fmt::Display for PathMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl From<PathMode> for &'static str {
    fn from(mode: PathMode) -> Self {
        mode.name()
    }
}

impl FromStr for PathMode {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        [Self::Auto, Self::Kernel, Self::Proxy]
            .into_iter()
            .find(|mode| mode.name() == text)
            .ok_or_else(|| SpecError::BadPath(quoted(text)))
    }
}

impl TryFrom<String> for PathMode {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        text.parse()
    }
}

/// How the container is told who the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum ProxyProtocol {
    /// The PROXY protocol's binary form.
    V2,
}

impl From<ProxyProtocol> for &'static str {
    fn from(version: ProxyProtocol) -> Self {
        match version {
            ProxyProtocol::V2 => "v2",
        }
    }
}

impl fmt::Display for ProxyProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad((*self).into())
    }
}

impl FromStr for ProxyProtocol {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        if text == "v2" { Ok(Self::V2) } else { Err(SpecError::BadProxyProtocol(quoted(text))) }
    }
}

impl TryFrom<String> for ProxyProtocol {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        text.parse()
    }
}
