//! The publications as they lie on disk.

use std::collections::BTreeSet;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::model::{Publication, PublicationSpec, timestamp};

/// The version of the file's form. Changes when an older daemon can't read the newer file.
const SCHEMA: u32 = 1;

/// The publications, and the id that the next one gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    next_id: u32,
    publications: Vec<Publication>,
}

impl Default for State {
    fn default() -> Self {
        Self { next_id: 1, publications: Vec::new() }
    }
}

/// `next_id` comes before the publications: [`State::after_damage`] finds it in a torn file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<P> {
    schema: u32,
    next_id: u32,
    publications: P,
}

impl State {
    /// The publications, in the order of their ids.
    pub fn publications(&self) -> &[Publication] {
        &self.publications
    }

    /// The id that the next publication gets.
    pub fn next_id(&self) -> u32 {
        self.next_id
    }

    /// Adds `spec` under a new id, created now. The caller looks for
    /// [`conflicts`](crate::model::conflicts) first.
    ///
    /// # Errors
    ///
    /// [`StoreError::IdsExhausted`].
    pub fn add(&mut self, spec: PublicationSpec) -> Result<Publication, StoreError> {
        let id = self.next_id;
        self.next_id = id.checked_add(1).ok_or(StoreError::IdsExhausted)?;
        let publication = Publication { id, generation: 1, spec, created: timestamp::now() };
        self.publications.push(publication.clone());
        Ok(publication)
    }

    /// Gives the publication `id` another spec, which publishes the same to the same target; returns it.
    /// `None` if there is no such publication.
    pub fn guard(&mut self, id: u32, spec: PublicationSpec) -> Option<Publication> {
        let publication = self.publications.iter_mut().find(|publication| publication.id == id)?;
        publication.spec = spec;
        Some(publication.clone())
    }

    /// Removes the publication `id` and returns it. Its id isn't given out again.
    pub fn remove(&mut self, id: u32) -> Option<Publication> {
        let at = self.publications.iter().position(|publication| publication.id == id)?;
        Some(self.publications.remove(at))
    }

    /// Removes every publication and returns them.
    pub fn clear(&mut self) -> Vec<Publication> {
        std::mem::take(&mut self.publications)
    }

    /// Counts up the generation of the publication `id` and returns the new one; `None` if there is
    /// no such publication. After `u32::MAX` comes 1.
    pub fn next_generation(&mut self, id: u32) -> Option<u32> {
        let publication = self.publications.iter_mut().find(|publication| publication.id == id)?;
        publication.generation = publication.generation.checked_add(1).unwrap_or(1);
        Some(publication.generation)
    }

    /// The file's contents.
    pub(super) fn to_json(&self) -> Vec<u8> {
        let Self { next_id, publications } = self;
        let document = Document { schema: SCHEMA, next_id: *next_id, publications };
        let mut bytes = serde_json::to_vec(&document).expect("a state has a JSON form");
        bytes.push(b'\n');
        bytes
    }

    /// Reads the file's contents, or says in a few words what is wrong with them.
    pub(super) fn from_json(bytes: &[u8]) -> Result<Self, String> {
        /// Says no more than the version, so that a newer file is told from a broken one.
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        let Version { schema } = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        if schema != SCHEMA {
            return Err(format!("schema {schema}, this publisherd knows {SCHEMA}"));
        }
        let document: Document<Vec<Publication>> =
            serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let Document { schema: _, next_id, mut publications } = document;
        publications.sort_by_key(|publication| publication.id);
        let state = Self { next_id, publications };
        state.check()?;
        Ok(state)
    }

    /// What must hold between publications: ids are unique and spent, and none is in another's way.
    fn check(&self) -> Result<(), String> {
        if self.next_id == 0 {
            return Err("next id 0 can't be".into());
        }
        let mut seen = BTreeSet::new();
        for Publication { id, .. } in &self.publications {
            if *id == 0 || *id >= self.next_id || !seen.insert(id) {
                return Err(format!("publication id {id} can't be"));
            }
        }
        // Side by side in this order, or in nobody's way: the rule of `conflicts` for many at once.
        let mut sorted: Vec<_> = self.publications.iter().map(|it| (it.id, &it.spec)).collect();
        sorted.sort_by_key(|(_, spec)| (spec.protocol(), spec.host(), spec.ports()));
        for pair in sorted.windows(2) {
            let [(first, a), (second, b)] = [pair[0], pair[1]];
            if (a.protocol(), a.host()) == (b.protocol(), b.host()) && a.ports().overlaps(b.ports())
            {
                return Err(format!("publications {first} ({a}) and {second} ({b}) overlap"));
            }
        }
        Ok(())
    }

    /// An empty state for after the loss of `damaged`, which doesn't give out its ids again: sessions
    /// and maps that outlived the daemon may still name them.
    ///
    /// Where `damaged` doesn't tell the next id, ids go on from the present second of the clock, which
    /// no daemon reaches by counting.
    pub(super) fn after_damage(damaged: &[u8]) -> Self {
        let clock = timestamp::seconds(SystemTime::now());
        let next_id = salvage_next_id(damaged)
            .unwrap_or_else(|| u32::try_from(clock).unwrap_or(u32::MAX / 2));
        Self { next_id, publications: Vec::new() }
    }
}

/// The value of `"next_id":` in a torn file, if it is there up to its last digit.
fn salvage_next_id(bytes: &[u8]) -> Option<u32> {
    const KEY: &[u8] = br#""next_id":"#;
    let start = bytes.windows(KEY.len()).position(|window| window == KEY)? + KEY.len();
    let rest = &bytes[start..];
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !matches!(rest.get(digits), Some(b',' | b'}')) {
        return None;
    }
    // A high number is as likely to be damage as to be an id.
    std::str::from_utf8(&rest[..digits]).ok()?.parse().ok().filter(|&id| id > 0 && id < 1 << 31)
}
