//! The time between two looks of one probe: the table of the second is brought up to the kernel's word, and what that
//! proves of the time since the first is claimed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use fracas_model::process::{Process, ProcessSelector};

use crate::procevents::{
    Event, What,
    chronicle::{Claim, Matched, Snapshot, claims},
    feed::{Cursor, Feed},
};

/// How often what changed while it was read is read again before nothing is claimed.
const ROUNDS: usize = 5;
/// How often a start is looked at again before it is believed.
const CONFIRMATIONS: usize = 4;
/// How long the kernel may take from showing a program to telling of it, where nobody traces it.
const TOLD_WITHIN: Duration = Duration::from_millis(2);
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
pub(super) struct Table<'r> {
    /// By process number.
    pub(super) processes: BTreeMap<i32, Process>,
    /// Reads one of them again; `None` when it is gone or none that this probe would read.
    pub(super) again: &'r dyn Fn(i32) -> Option<Process>,
    /// What the pid file holds.
    pub(super) pid_in_file: Option<i32>,
}

/// What came of one look.
pub(super) struct Looked {
    /// Every process that this probe reads.
    pub(super) table: Vec<Process>,
    /// When the table was complete, if the kernel's word is whole.
    pub(super) complete: Option<i64>,
    /// What is certain since the last look.
    pub(super) claims: Vec<Claim>,
}

impl Between {
    /// Reads the table by `read`, brings it up to date and says what is certain since the last one. Without the kernel's
    /// word nothing is.
    pub(super) fn looked<'r>(
        &mut self,
        selector: &ProcessSelector,
        count: usize,
        read: impl FnOnce() -> Table<'r>,
    ) -> Looked {
        if !self.asked {
            self.asked = true;
            self.feed = Feed::shared().ok();
        }
        let Some(feed) = self.feed.clone() else {
            let table = read().processes.into_values().collect();
            return Looked { table, complete: None, claims: Vec::new() };
        };
        // Up to the beginning of the look: where that is not whole, what follows still is.
        let (_, mut earlier) = feed.since(&mut self.cursor);
        let mut reading = read();
        let mut claims = Vec::new();
        let (mut now, mut believed) = (None, false);
        for _ in 0..CONFIRMATIONS {
            let Some((at, later)) = caught_up(&feed, &mut self.cursor, &mut reading) else {
                now = None;
                break;
            };
            let table: Vec<Process> = reading.processes.values().cloned().collect();
            let snapshot = snapshot(at, selector, &table, reading.pid_in_file);
            if let Some(events) = &mut earlier {
                events.extend(later);
            }
            let former = claims;
            claims = match (&self.before, &earlier) {
                (Some(before), Some(events)) => self::claims(before, events, &snapshot, count),
                _ => Vec::new(),
            };
            now = Some(snapshot);
            let starts = |claims: &[Claim]| claims.iter().rev().find(|claim| claim.up).copied();
            // The kernel shows a program's name before it tells of it: a start is believed when nothing more was told.
            believed = starts(&claims).is_none() || starts(&claims) == starts(&former);
            if believed {
                break;
            }
            std::thread::sleep(TOLD_WITHIN);
        }
        let table: Vec<Process> = reading.processes.into_values().collect();
        let complete = now.as_ref().map(|snapshot| snapshot.at);
        if !believed || now.as_ref().is_none_or(|now| now.matched.keys().any(|pid| traced(*pid))) {
            claims.retain(|claim| !claim.up);
        }
        if now.is_none() {
            claims.clear();
        }
        self.before = now;
        Looked { table, complete, claims }
    }
}

/// Whether somebody traces this process: then it may be held between the beginning of its program and the word of it.
fn traced(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status.lines().any(|line| line.split_whitespace().eq(["TracerPid:", "0"]))
}

/// Those of a table that are meant, and those that surely are not.
pub(crate) fn snapshot(at: i64, selector: &ProcessSelector, table: &[Process], pid_in_file: Option<i32>) -> Snapshot {
    let matched = matched(selector, table, pid_in_file);
    // Groups and pid files change untold; a process without an executable is one of the kernel's, or about to end.
    let certain = matches!(selector, ProcessSelector::Name(_));
    let others = table.iter().filter(|process| certain && process.exe.is_some()).map(|process| process.id.pid);
    let others = others.filter(|pid| !matched.contains_key(pid)).collect();
    Snapshot { at, matched, others }
}

/// Reads again what changed while it was read, until nothing does: then the table is that of one instant, which it gives,
/// with all events until then. `None` where the kernel's word is not whole or the host too busy.
fn caught_up(feed: &Feed, cursor: &mut Cursor, table: &mut Table<'_>) -> Option<(i64, Vec<Event>)> {
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
            match (table.again)(pid) {
                Some(process) => table.processes.insert(pid, process),
                None => table.processes.remove(&pid),
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
        // While a program is loaded it has its name already, and no arguments yet.
        ProcessSelector::Name(name) => {
            process.argv0.is_some() && (process.id.name == *name || process.exe.as_ref() == Some(name))
        }
        // Who is in a group or a file changes untold.
        ProcessSelector::Unit(_) | ProcessSelector::PidFile(_) | ProcessSelector::Port(_) => false,
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
