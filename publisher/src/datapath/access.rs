//! Access rules.
//!
//! Rules are changed so that each client goes from its old rule to its new one in one step: new ones are
//! written longest first, which hides what is shorter, and old ones go shortest first.

use super::error::DatapathError;
use super::tables::{Tables, failed};
use aya::maps::{MapError, lpm_trie::Key};
use publisher_common::layout::{AccessKey, Rule, names};
use std::collections::BTreeMap;

/// A prefix in the access rules: bits of the key, and the key. Shorter ones are less.
pub type AccessPrefix = (u32, AccessKey);

impl Tables {
    /// Writes the rules that are missing or say something else.
    ///
    /// # Errors
    /// When the map can't be written.
    pub fn set_access(
        &mut self,
        wanted: &BTreeMap<AccessPrefix, Rule>,
    ) -> Result<(), DatapathError> {
        let there = self.access()?;
        for ((bits, key), rule) in wanted.iter().rev() {
            if there.get(&(*bits, *key)) != Some(rule) {
                self.access
                    .insert(&Key::new(*bits, *key), rule, 0)
                    .map_err(failed(names::ACCESS))?;
            }
        }
        Ok(())
    }

    /// Removes the rules that aren't wanted.
    ///
    /// # Errors
    /// When the map can't be written.
    pub fn tidy_access(
        &mut self,
        wanted: &BTreeMap<AccessPrefix, Rule>,
    ) -> Result<(), DatapathError> {
        for (bits, key) in self.access()?.into_keys() {
            if !wanted.contains_key(&(bits, key)) {
                self.access.remove(&Key::new(bits, key)).map_err(failed(names::ACCESS))?;
            }
        }
        Ok(())
    }

    /// All rules.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn access(&self) -> Result<BTreeMap<AccessPrefix, Rule>, DatapathError> {
        let mut rules = BTreeMap::new();
        for item in self.access.iter() {
            if let Some((key, rule)) = present(item).map_err(failed(names::ACCESS))? {
                rules.insert((key.prefix_len(), key.data()), rule);
            }
        }
        Ok(rules)
    }
}

/// An entry that was there when it was read: one may go between its key and its value.
fn present<T>(item: Result<T, MapError>) -> Result<Option<T>, MapError> {
    match item {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error),
    }
}
