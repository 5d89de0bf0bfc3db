//! A publication as the daemon keeps it.

use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{PublicationSpec, timestamp};

/// A publication that was added. One `add` of a range is one publication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publication {
    /// Its number, from 1. Never given to another publication, not even after `rm`.
    pub id: u32,
    /// Counts up when sessions of before must end, for instance as the target changed.
    pub generation: u32,
    /// What is published to where.
    pub spec: PublicationSpec,
    /// When it was added, to the second.
    #[serde(with = "timestamp")]
    pub created: SystemTime,
}

/// As its [`PublicationSpec`].
impl fmt::Display for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.spec.fmt(f)
    }
}
