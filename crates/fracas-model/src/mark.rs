//! Marks: instants of a run that people tell, such as when they detected or mitigated it. What is made of them is the
//! report's business.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::units::Dur;

/// What a person says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mark {
    /// An alert fired.
    Alerted,
    /// A responder was notified.
    Notified,
    /// Somebody, or something, noticed.
    Detected,
    /// A responder took it on.
    Acknowledged,
    /// An incident was declared.
    Declared,
    /// The impact was stopped.
    Mitigated,
    /// Data were checked and the backlog was worked off.
    Verified,
    /// The alert was resolved.
    Resolved,
}

impl Mark {
    /// Every one, in the order in which they come.
    pub const ALL: [Self; 8] = [
        Self::Alerted,
        Self::Notified,
        Self::Detected,
        Self::Acknowledged,
        Self::Declared,
        Self::Mitigated,
        Self::Verified,
        Self::Resolved,
    ];

    /// Its word: `detected`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Alerted => "alerted",
            Self::Notified => "notified",
            Self::Detected => "detected",
            Self::Acknowledged => "acknowledged",
            Self::Declared => "declared",
            Self::Mitigated => "mitigated",
            Self::Verified => "verified",
            Self::Resolved => "resolved",
        }
    }

    /// What it says, for people.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Alerted => "an alert fired",
            Self::Notified => "a responder was notified",
            Self::Detected => "the trouble was noticed",
            Self::Acknowledged => "a responder took it on",
            Self::Declared => "an incident was declared",
            Self::Mitigated => "the impact was stopped",
            Self::Verified => "data were checked and the backlog was worked off",
            Self::Resolved => "the alert was resolved",
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Mark {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|mark| mark.word() == text).ok_or_else(|| {
            let words: Vec<&str> = Self::ALL.iter().map(|mark| mark.word()).collect();
            format!("{text:?} is no mark: write one of {}", words.join(", "))
        })
    }
}

/// How long before it is told something happened, at the shortest and at the longest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ago {
    /// At least so long before.
    pub least: Dur,
    /// At most so long before.
    pub most: Dur,
}

/// Longest time for which a person's memory is taken.
pub const LONGEST_AGO: Dur = Dur::from_secs(24 * 3600);

impl Ago {
    /// `ago` before now, give or take `give`: never in the future.
    pub fn about(ago: Dur, give: Dur) -> Result<Self, String> {
        if ago < Dur::ZERO || give < Dur::ZERO {
            return Err("a time ago cannot be negative".into());
        }
        let most = ago.ns().saturating_add(give.ns());
        if most > LONGEST_AGO.ns() {
            return Err(format!("nothing longer than {LONGEST_AGO} ago can be marked"));
        }
        Ok(Self { least: Dur::from_ns((ago.ns() - give.ns()).max(0)), most: Dur::from_ns(most) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back() {
        for mark in Mark::ALL {
            assert_eq!(mark.word().parse(), Ok(mark));
            assert_eq!(serde_json::to_value(mark).unwrap(), mark.word());
        }
        assert!("seen".parse::<Mark>().unwrap_err().contains("detected, acknowledged"));
    }

    #[test]
    fn memory_has_bounds_and_no_future() {
        let s = Dur::from_secs;
        assert_eq!(Ago::about(s(60), s(10)), Ok(Ago { least: s(50), most: s(70) }));
        assert_eq!(Ago::about(s(5), s(10)), Ok(Ago { least: s(0), most: s(15) }));
        assert!(Ago::about(s(-1), s(0)).is_err() && Ago::about(LONGEST_AGO, s(1)).is_err());
        assert!(Ago::about(Dur::from_ns(i64::MAX), Dur::from_ns(i64::MAX)).is_err());
    }
}
