//! Experiments that run by themselves: when they are due, when they may start, and what becomes of each due instant.
//!
//! Every due instant ends as a run or as a recorded skip. What was settled is a mark in the history that only moves forward;
//! everything after the mark is still owed, whatever happened meanwhile. So nothing can be lost by a crash, a long absence,
//! a clock that jumped or a decision that forgot to ask to be woken.
//!
//! ```text
//! due  ->  missed by too much?  ->  allowed now?  ->  one running already?  ->  start
//!              catch-up                calendar           concurrency             \-> refused: skipped, with the reasons
//! ```

mod calendar;
mod decide;
mod due;
mod feed;
mod read;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt};

use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use crate::{id::RunId, units::Dur};

pub use self::{
    calendar::{Blackout, Calendars, Closed, Hours, closed},
    decide::{Act, Decision, MOST_AT_ONCE, Now, State, Waiting, decide},
    due::{Clockwork, Due, When, described, exists, instant, zone},
    feed::{FEED_DAYS, FEED_EVENTS, feed},
    read::{ReadSchedule, is_schedule, read_schedule, schedule_shape},
};

/// A schedule as its document says, checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// Its name; there is one schedule of a name.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// The file of the experiment, beside the schedule's own.
    pub experiment: String,
    /// Values of the experiment's parameters.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// When it is due.
    pub when: When,
    /// The zone in which patterns, hours and blackouts are read.
    pub zone: Tz,
    /// Draws the moments in windows.
    pub seed: u64,
    /// Hours in which it may start; none: all.
    #[serde(default)]
    pub allowed: Vec<Hours>,
    /// Times in which it may not.
    #[serde(default)]
    pub blackouts: Vec<Blackout>,
    /// Files of more such times.
    #[serde(default)]
    pub calendars: Vec<CalendarFile>,
    /// What when its last run has not ended.
    pub concurrency: Concurrency,
    /// What when another run has its hosts.
    pub when_hosts_are_taken: Concurrency,
    /// How long a due that waits for one of them may wait.
    pub wait_at_most: Dur,
    /// What is done about dues that were missed.
    pub catch_up: CatchUp,
    /// A start that is later than this is no longer on time: the due was missed.
    pub start_within: Dur,
}

/// A calendar whose events are blackouts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CalendarFile {
    /// The iCalendar file, beside the schedule's own.
    pub file: String,
    /// What it calls zones, where that is no IANA name.
    #[serde(default)]
    pub zones: BTreeMap<String, Tz>,
}

/// What becomes of a due while something stands in its way that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Concurrency {
    /// It is skipped.
    Forbid,
    /// It waits; one that comes while another waits is skipped, unless as many may wait as may be caught up.
    Queue,
    /// What is in the way is stopped, and it starts when that has undone everything; one that waits for that gives way to a
    /// newer one.
    Replace,
}

/// What is done about dues that nobody was there to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CatchUp {
    /// Nothing.
    Skip,
    /// The latest one is started, if no other is due.
    Latest,
    /// The latest ones are started, one after the other.
    All {
        /// At most so many.
        max: u32,
    },
}

/// Why a due did not become a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "why")]
pub enum Skip {
    /// Nobody was there to start it in time.
    Missed,
    /// Out of the allowed hours.
    NotAllowedThen,
    /// In a blackout.
    Blackout {
        /// What people call it.
        name: String,
    },
    /// The schedule was paused.
    Paused {
        /// With this reason.
        reason: String,
    },
    /// The run before it has not ended.
    StillRunning {
        /// That one.
        run: RunId,
    },
    /// As many as may wait do so already.
    AnotherWaits,
    /// It waited, and a newer due took its place.
    Replaced,
    /// It waited for as long as it might.
    WaitedTooLong {
        /// For what.
        reason: String,
    },
    /// The run was refused.
    Refused {
        /// Everything that stood in its way, each with what to do.
        reasons: Vec<String>,
    },
    /// The schedule was changed or removed while it waited.
    Withdrawn,
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missed => f.write_str("nobody was there to start it in time"),
            Self::NotAllowedThen => f.write_str("out of the allowed hours"),
            Self::Blackout { name } => write!(f, "in a blackout: {name}"),
            Self::Paused { reason } => write!(f, "paused: {reason}"),
            Self::StillRunning { run } => write!(f, "run {run} had not ended"),
            Self::AnotherWaits => f.write_str("another waited already"),
            Self::Replaced => f.write_str("a later one took its place"),
            Self::WaitedTooLong { reason } => write!(f, "it waited too long: {reason}"),
            Self::Refused { reasons } => write!(f, "refused: {}", reasons.join("; ")),
            Self::Withdrawn => f.write_str("the schedule was changed while it waited"),
        }
    }
}

/// A fact of the stream of a schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "what")]
pub enum Fact {
    /// It is made, or changed: dues from here on are owed by these rules.
    Set {
        /// The rules.
        schedule: Box<Schedule>,
        /// Text of its document.
        source: String,
        /// Text of the experiment.
        experiment: String,
        /// Texts of its calendars, by the names of their files.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        calendars: BTreeMap<String, String>,
        /// Texts of the files that it names, by the names it gives them.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        files: BTreeMap<String, String>,
        /// In which environment its runs are started.
        environment: String,
        /// Who did it.
        by: String,
    },
    /// A due became a run.
    Started {
        /// The due.
        due: Due,
        /// The run.
        run: RunId,
    },
    /// Dues that did not, all for one reason.
    Skipped {
        /// The first.
        from: Due,
        /// The last.
        to: Due,
        /// How many.
        count: u64,
        /// Why.
        reason: Skip,
    },
    /// A due waits.
    Queued {
        /// The due.
        due: Due,
        /// For what.
        reason: String,
    },
    /// Dues are skipped from here on.
    Paused {
        /// Why.
        reason: String,
        /// Who did it.
        by: String,
    },
    /// No longer.
    Resumed {
        /// Who did it.
        by: String,
    },
    /// The clock had been far ahead, and was set back: dues are owed again from the present on.
    SetBack {
        /// Up to which nominal instant they had been settled.
        settled_ns: i64,
    },
    /// It is no more.
    Removed {
        /// Why.
        reason: String,
        /// Who did it.
        by: String,
    },
    /// What its first records say together, so that they can go.
    Summary(Box<Summary>),
}

/// The fold of the beginning of a schedule's history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Number of the last record it is about.
    pub upto: u64,
    /// Number of the record since which its times are what they were then.
    pub timed_by: u64,
    /// Text of its document.
    pub source: String,
    /// The fold.
    pub state: State,
}
