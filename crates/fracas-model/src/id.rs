//! Names of things: runs, hosts, entries, items. Newtypes, so that one can never stand for another.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes the text as it is; validity is checked where the text enters the program.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The text of the name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
    };
}

name_type!(
    /// One execution of a document: 12 characters of Crockford base32, sortable by start second.
    RunId
);
name_type!(
    /// A host's identity, a UUID made at enrolment and carried in its certificate.
    HostId
);
name_type!(
    /// One boot of one host, the kernel's random boot id.
    BootId
);
name_type!(
    /// A timeline entry, unique in its document.
    EntryId
);
name_type!(
    /// A probe, unique in its document.
    ProbeId
);
name_type!(
    /// A marker ledger, unique in its document.
    LedgerId
);
name_type!(
    /// A detection rule, unique in its document.
    DetectionId
);
name_type!(
    /// A service under test, unique in its document.
    ServiceId
);
name_type!(
    /// A target rule, unique in its document.
    TargetId
);

name_type!(
    /// A section of a game day, unique in its document.
    SectionId
);

name_type!(
    /// A person's pseudonym, as histories keep it; names and addresses are kept where they can be erased.
    PersonId
);

impl PersonId {
    /// Makes one from 30 random bits: `p-` and 6 characters of Crockford base32.
    pub fn generate(random: u32) -> Self {
        let digit = |place: u32| char::from(ALPHABET[(random >> (5 * place) & 31) as usize]);
        Self(format!("p-{}", (0..6).map(digit).collect::<String>()))
    }
}

/// Crockford's base32, without letters that look like digits.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

impl RunId {
    /// Makes an id from the start second (Unix time) and 25 random bits: 7 characters of time, 5 of chance.
    pub fn generate(unix_seconds: u64, random: u32) -> Self {
        let value = (u128::from(unix_seconds) & ((1 << 35) - 1)) << 25 | u128::from(random & ((1 << 25) - 1));
        let digit = |place: u32| char::from(ALPHABET[((value >> (5 * place)) & 31) as usize]);
        Self((0..12).rev().map(digit).collect())
    }
}

/// What one fault of one run does on one host. `generation` rises only when the driver decides to apply anew.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ItemKey {
    /// The run that asks.
    pub run: RunId,
    /// The timeline entry.
    pub entry: EntryId,
    /// Counts repeats of the entry, from 0.
    pub occurrence: u32,
    /// The host that suffers.
    pub host: HostId,
    /// Counts attempts, from 1.
    pub generation: u32,
}

impl fmt::Display for ItemKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}#{}.{}", self.run, self.entry, self.occurrence, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_ids_sort_by_time() {
        let early = RunId::generate(1_795_000_000, u32::MAX);
        let late = RunId::generate(1_795_000_001, 0);
        assert!(early < late, "{early} {late}");
        assert_eq!(early.as_str().len(), 12);
    }
}
