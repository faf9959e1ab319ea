//! Names and addresses of people, outside of every history so that they can be erased.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use fracas_model::id::PersonId;
use serde::{Deserialize, Serialize};

use crate::{
    chain::{hex, sha256},
    datadir::{Access, DataDir, DataDirError},
};

/// The file in the data directory.
const FILE: &str = "people.json";
/// Longest name and address, characters.
const MAX_TEXT: usize = 200;

/// What is known of a person beside the pseudonym.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Entry {
    /// How they are called on the command line.
    pub handle: String,
    /// Full name.
    #[serde(default)]
    pub name: String,
    /// Address.
    #[serde(default)]
    pub email: String,
    /// Name by which an identity provider knows them: `ISSUER SUBJECT`.
    #[serde(default)]
    pub subject: Option<String>,
    /// Of somebody who was erased, SHA-256 of that name, hexadecimal: whoever has left does not come back unseen, and it
    /// tells nobody's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_digest: Option<String>,
}

impl Entry {
    /// Checks the texts.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn checked(self) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_');
        let handle = &self.handle;
        // Nobody may pass for a pseudonym, for the administrator or for the controller.
        let taken = handle.starts_with("p-") || matches!(handle.as_str(), "admin" | "controller");
        if handle.is_empty() || handle.len() > 64 || !handle.chars().all(fits) || taken {
            return Err(format!(
                "{:?} cannot be a handle: write 1 to 64 lower-case letters, digits, `.`, `-` or `_`, not beginning \
                 with `p-`, and not `admin` or `controller`",
                handle.chars().take(80).collect::<String>()
            ));
        }
        for text in [&self.name, &self.email] {
            if text.chars().count() > MAX_TEXT || text.chars().any(char::is_control) {
                return Err(format!("names and addresses have at most {MAX_TEXT} characters on one line"));
            }
        }
        Ok(self)
    }
}

/// What is kept of the name of somebody at an identity provider after they were erased.
pub(super) fn subject_digest(subject: &str) -> String {
    hex(&sha256(subject.as_bytes()))
}

/// Why names could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The file.
    #[error(transparent)]
    File(#[from] DataDirError),
    /// It is not what was written.
    #[error("people.json cannot be read ({0}): correct it or restore it from a backup")]
    Malformed(String),
}

/// Entries by pseudonym; kept in a file, or in memory only.
#[derive(Debug, Default)]
pub struct Directory {
    entries: Mutex<BTreeMap<PersonId, Entry>>,
    file: Option<Arc<DataDir>>,
}

impl Directory {
    /// The directory kept in a data directory.
    pub fn open(dir: Arc<DataDir>) -> Result<Self, DirectoryError> {
        let entries = match dir.read(FILE, Access::Private)? {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|e| DirectoryError::Malformed(e.to_string()))?,
            None => BTreeMap::new(),
        };
        Ok(Self { entries: Mutex::new(entries), file: Some(dir) })
    }

    /// What is known of a person.
    pub fn entry(&self, person: &PersonId) -> Option<Entry> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).get(person).cloned()
    }

    /// Keeps an entry. A file is written by few and seldom, so this may block for a moment.
    pub fn set(&self, person: &PersonId, entry: Entry) -> Result<(), DirectoryError> {
        self.change(|entries| drop(entries.insert(person.clone(), entry)))
    }

    /// Forgets an entry for good, but for the digest of the name at an identity provider.
    pub fn erase(&self, person: &PersonId) -> Result<(), DirectoryError> {
        self.change(|entries| {
            let Some(entry) = entries.remove(person) else { return };
            let of_name = entry.subject.map(|subject| subject_digest(&subject));
            if let Some(digest) = of_name.or(entry.subject_digest) {
                entries.insert(person.clone(), Entry { subject_digest: Some(digest), ..Entry::default() });
            }
        })
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<PersonId, Entry>)) -> Result<(), DirectoryError> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = entries.clone();
        change(&mut changed);
        if let Some(dir) = &self.file {
            let bytes = serde_json::to_vec_pretty(&changed).expect("only text keys");
            dir.write(FILE, &bytes, Access::Private)?;
        }
        *entries = changed;
        Ok(())
    }
}
