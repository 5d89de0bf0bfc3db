//! Bans, as `deny` shows them.

use serde::{Deserialize, Serialize};

use crate::model::Ban;

/// What `deny add` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanResult {
    /// The ban as it holds now.
    pub ban: Ban,
    /// There was one of the same clients before.
    pub again: bool,
    /// Sessions that it ended.
    pub ended: u64,
}
