//! What is told to the outside: the kinds of notices, and what became of each, as a channel's own history has it.
//!
//! It does not know how anything is sent.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a notice is about. The names are those of the configuration file, and with `dev.fracas.` before them the types of
/// CloudEvents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A run was accepted and begins.
    #[serde(rename = "run.started")]
    RunStarted,
    /// A run turns to undoing before its timeline was through.
    #[serde(rename = "run.aborted")]
    RunAborted,
    /// A run has its verdict.
    #[serde(rename = "run.finished")]
    RunFinished,
    /// A run asks a question, and waits for the answer.
    #[serde(rename = "decision.wanted")]
    DecisionWanted,
    /// It was answered, or waits for no answer any more.
    #[serde(rename = "decision.made")]
    DecisionMade,
    /// A host of a run went out of contact.
    #[serde(rename = "host.lost")]
    HostLost,
    /// It is in contact again, while the run goes on.
    #[serde(rename = "host.back")]
    HostBack,
    /// A host could not undo something yet, and tries on.
    #[serde(rename = "undo.failed")]
    UndoFailed,
    /// What could not be undone before is undone.
    #[serde(rename = "undo.done")]
    UndoDone,
    /// A host did not confirm its undo, and gets no new fault.
    #[serde(rename = "host.quarantined")]
    HostQuarantined,
    /// It is trusted again.
    #[serde(rename = "host.released")]
    HostReleased,
    /// Two agents use the identity of one host, which gets no fault.
    #[serde(rename = "host.duplicate")]
    HostDuplicate,
    /// It is one again, on the word of a person.
    #[serde(rename = "host.trusted")]
    HostTrusted,
    /// No certificate of a host is accepted any more.
    #[serde(rename = "host.revoked")]
    HostRevoked,
    /// Little is left of the life of a host's certificate, which its agent should have renewed.
    #[serde(rename = "certificate.low")]
    CertificateLow,
    /// The host uses the next one.
    #[serde(rename = "certificate.renewed")]
    CertificateRenewed,
    /// Everything stopped, and nothing starts.
    #[serde(rename = "halt.set")]
    HaltSet,
    /// Runs may start again.
    #[serde(rename = "halt.cleared")]
    HaltCleared,
    /// A due of a schedule became a run.
    #[serde(rename = "schedule.started")]
    ScheduleStarted,
    /// A due should have become a run and did not.
    #[serde(rename = "schedule.skipped")]
    ScheduleSkipped,
    /// A due did not become a run because people had said so: hours, blackout, pause.
    #[serde(rename = "schedule.withheld")]
    ScheduleWithheld,
    /// A schedule was paused.
    #[serde(rename = "schedule.paused")]
    SchedulePaused,
    /// Its pause ended.
    #[serde(rename = "schedule.resumed")]
    ScheduleResumed,
    /// Somebody tries a channel out.
    #[serde(rename = "test")]
    Test,
}

impl Kind {
    /// Every kind that can happen by itself, in the order in which people are told of them.
    pub const ALL: [Self; 23] = [
        Self::RunStarted,
        Self::RunAborted,
        Self::RunFinished,
        Self::DecisionWanted,
        Self::DecisionMade,
        Self::HostLost,
        Self::HostBack,
        Self::UndoFailed,
        Self::UndoDone,
        Self::HostQuarantined,
        Self::HostReleased,
        Self::HostDuplicate,
        Self::HostTrusted,
        Self::HostRevoked,
        Self::CertificateLow,
        Self::CertificateRenewed,
        Self::HaltSet,
        Self::HaltCleared,
        Self::ScheduleStarted,
        Self::ScheduleSkipped,
        Self::ScheduleWithheld,
        Self::SchedulePaused,
        Self::ScheduleResumed,
    ];

    /// Its name, the same as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::RunStarted => "run.started",
            Self::RunAborted => "run.aborted",
            Self::RunFinished => "run.finished",
            Self::DecisionWanted => "decision.wanted",
            Self::DecisionMade => "decision.made",
            Self::HostLost => "host.lost",
            Self::HostBack => "host.back",
            Self::UndoFailed => "undo.failed",
            Self::UndoDone => "undo.done",
            Self::HostQuarantined => "host.quarantined",
            Self::HostReleased => "host.released",
            Self::HostDuplicate => "host.duplicate",
            Self::HostTrusted => "host.trusted",
            Self::HostRevoked => "host.revoked",
            Self::CertificateLow => "certificate.low",
            Self::CertificateRenewed => "certificate.renewed",
            Self::HaltSet => "halt.set",
            Self::HaltCleared => "halt.cleared",
            Self::ScheduleStarted => "schedule.started",
            Self::ScheduleSkipped => "schedule.skipped",
            Self::ScheduleWithheld => "schedule.withheld",
            Self::SchedulePaused => "schedule.paused",
            Self::ScheduleResumed => "schedule.resumed",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a channel is to be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Interest {
    /// Of which kinds.
    pub on: Vec<Kind>,
    /// Of which environments; none: of all.
    pub environments: Vec<String>,
    /// Only what opens or closes an incident: the channel pages people.
    pub incidents: bool,
}

/// A fact of the stream of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "what")]
pub enum Fact {
    /// A controller began to tell it this, and owes it what happens from here on.
    Opened {
        /// How it is reached: `webhook`, `slack`, `email`, `pagerduty`.
        by: String,
        /// What it is to be told.
        interest: Interest,
    },
    /// Its receiver took a notice.
    Sent {
        /// The notice: the stream and the number of the fact that it tells.
        notice: String,
        /// What it is about.
        about: Kind,
        /// How often it was tried.
        attempts: u32,
    },
    /// A notice that will not be told any more.
    GaveUp {
        /// The notice.
        notice: String,
        /// What it is about.
        about: Kind,
        /// How often it was tried.
        attempts: u32,
        /// Why the last try failed.
        why: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_one_name_in_the_code_and_in_json() {
        for kind in Kind::ALL.into_iter().chain([Kind::Test]) {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
        let names: std::collections::BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), Kind::ALL.len());
    }
}
