//! The time between two looks of one probe: the table of the second is brought up to the kernel's word, and what that
//! proves of the time since the first is claimed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fracas_model::process::{Process, ProcessSelector};

use crate::procevents::{
    Event, What,
    chronicle::{Claim, Matched, Snapshot, claims},
    feed::{Cursor, Feed},
};

/// How often what changed while it was read is read again before nothing is claimed.
const ROUNDS: usize = 5;
/// Most processes that are read again at a time.
const MOST_AGAIN: usize = 256;

/// What was seen last, and the kernel's word since.
#[derive(Debug, Default)]
pub(super) struct Between {
    feed: Option<Arc<Feed>>,
    /// The kernel was asked for its word.
    asked: bool,
    cursor: Cursor,
    before: Option<Snapshot>,
}

/// A table of processes as a probe reads it.
pub(super) struct Reading<'r> {
    /// By process number.
    pub(super) table: BTreeMap<i32, Process>,
    /// Reads one of them again; `None` when it is gone or none that this probe would read.
    pub(super) again: &'r dyn Fn(i32) -> Option<Process>,
    /// What the pid file holds.
    pub(super) pid_in_file: Option<i32>,
}

impl Between {
    /// Reads the table by `read`, brings it up to date and says what is certain since the last one. Without the kernel's
    /// word nothing is.
    pub(super) fn looked<'r>(
        &mut self,
        selector: &ProcessSelector,
        count: usize,
        read: impl FnOnce() -> Reading<'r>,
    ) -> (Vec<Process>, Vec<Claim>) {
        if !self.asked {
            self.asked = true;
            self.feed = Feed::shared().ok();
        }
        // Up to the beginning of the look: where that is not whole, what follows still is.
        let earlier = self.feed.as_ref().and_then(|feed| feed.since(&mut self.cursor).1);
        let mut reading = read();
        let known = self.feed.as_ref().and_then(|feed| caught_up(feed, &mut self.cursor, &mut reading));
        let table: Vec<Process> = reading.table.into_values().collect();
        let Some((at, later)) = known else {
            self.before = None;
            return (table, Vec::new());
        };
        let after = Snapshot { at, matched: matched(selector, &table, reading.pid_in_file) };
        let before = self.before.replace(after.clone());
        let claims = match (before, earlier) {
            (Some(before), Some(mut events)) => {
                events.extend(later);
                claims(&before, &events, &after, count)
            }
            _ => Vec::new(),
        };
        (table, claims)
    }
}

/// Reads again what changed while it was read, until nothing does: then the table is that of one instant, which it gives,
/// with all events until then. `None` where the kernel's word is not whole or the host too busy.
fn caught_up(feed: &Feed, cursor: &mut Cursor, reading: &mut Reading<'_>) -> Option<(i64, Vec<Event>)> {
    let mut events = Vec::new();
    for _ in 0..ROUNDS {
        let (now, new) = feed.since(cursor);
        let new = new?;
        let touched: BTreeSet<i32> = new.iter().filter(|e| e.what != What::ThreadEnded).map(|e| e.pid).collect();
        events.extend(new);
        if touched.is_empty() {
            return Some((now, events));
        }
        if touched.len() > MOST_AGAIN {
            return None;
        }
        for pid in touched {
            match (reading.again)(pid) {
                Some(process) => reading.table.insert(pid, process),
                None => reading.table.remove(&pid),
            };
        }
    }
    None
}

/// Those of a table that are meant.
pub(crate) fn matched(
    selector: &ProcessSelector,
    table: &[Process],
    pid_in_file: Option<i32>,
) -> BTreeMap<i32, Matched> {
    let roots: BTreeSet<i32> = selector.select(table, pid_in_file).iter().map(|p| p.id.pid).collect();
    let by_image = |process: &Process| match selector {
        ProcessSelector::Name(name) => process.id.name == *name || process.exe.as_ref() == Some(name),
        // A service manager puts a process of a service into its group before it executes; those of a scope may run before.
        ProcessSelector::Unit(unit) => unit.ends_with(".service"),
        ProcessSelector::PidFile(_) | ProcessSelector::Port(_) => false,
    };
    let meant = table.iter().filter(|process| selector.means(process, pid_in_file));
    let entry = |process: &Process| Matched {
        start_ticks: process.id.start_ticks,
        parent: process.parent,
        root: roots.contains(&process.id.pid),
        by_image: by_image(process),
    };
    meant.map(|process| (process.id.pid, entry(process))).collect()
}
