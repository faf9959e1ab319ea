//! What the kernel's word on processes proves of the time between two looks. Pure.
//!
//! It claims only what must have been so. *Too few ran*: even if every process that may have been one of those meant was
//! one, there were fewer than wanted. *Enough ran*: that many of those which the second look found had by then begun to
//! run what they were found by. Where the tables of two looks differ by something that the kernel did not tell, such as a
//! new title, it claims nothing.
//!
//! The kernel stamps what has happened, never what will: an exit or a start was at its stamp or a moment before, so that
//! what is claimed of a stamp holds from then on. An event that another processor stamped and has not yet told when the
//! second look ends would be missed; a look takes much longer than that.

use std::collections::{BTreeMap, BTreeSet};

use super::{Event, What};

/// One of the processes that are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Matched {
    /// Start in clock ticks since boot, by which a number that was given again is known.
    pub(crate) start_ticks: u64,
    /// Its parent.
    pub(crate) parent: i32,
    /// It counts: its parent is none of those meant.
    pub(crate) root: bool,
    /// It is known by what it can only have got by executing a program or taking a name.
    pub(crate) by_image: bool,
}

/// Those meant that ran at an instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// The instant, up to which all events were known.
    pub(crate) at: i64,
    /// By process number.
    pub(crate) matched: BTreeMap<i32, Matched>,
    /// Others of which it is certain that they were none of those meant since they last executed a program or took a name:
    /// they ran, were not about to end, and nothing but that could make them one.
    pub(crate) others: BTreeSet<i32>,
}

impl Snapshot {
    fn up(&self, count: usize) -> bool {
        self.matched.values().filter(|m| m.root).count() >= count
    }
}

/// What was so at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// The instant, by the clock of the events.
    pub(crate) at: i64,
    /// Whether enough ran.
    pub(crate) up: bool,
}

/// A process that may have been one of those meant, for as long as it may have been.
#[derive(Clone, Copy, Debug)]
struct Life {
    pid: i32,
    /// `None`: since before the first look.
    from: Option<i64>,
    parent: Option<i32>,
    /// It was one of those meant at the first look; and known by what only its image gives.
    was_meant: bool,
    by_image: bool,
    /// The last time it executed a program or took a name.
    changed: Option<i64>,
    changes: usize,
    ended: Option<i64>,
}

/// What is certain between two looks, in order: at most when there were first too few, when there last were too few before
/// there were enough, and since when there have been enough. `events` are all that was told after the first look and up to
/// the second; one that happened before the first came too late for it, which then was not whole.
pub(crate) fn claims(before: &Snapshot, events: &[Event], after: &Snapshot, count: usize) -> Vec<Claim> {
    let whole = events.iter().all(|event| before.at < event.at);
    let mut events: Vec<&Event> = events.iter().filter(|event| event.at <= after.at).collect();
    events.sort_by_key(|event| event.at);
    if !whole || !explained(before, &events, after) {
        return Vec::new();
    }
    let lives = lives(before, &events);
    let last = |pid: &i32| lives.iter().rev().find(|life| life.pid == *pid);
    if after.matched.keys().any(|pid| last(pid).is_some_and(|life| life.ended.is_some())) {
        return Vec::new();
    }
    let too_few = too_few(&lives, after, count);
    let (was_up, is_up) = (before.up(count), after.up(count));
    let enough = if is_up { enough_since(&lives, before, after, count) } else { None };
    let first = too_few.iter().find_map(|span| span.from).filter(|_| was_up);
    let last = too_few.iter().rev().find_map(|span| span.until).filter(|_| is_up);
    let mut claims: Vec<Claim> = [first, last].into_iter().flatten().map(|at| Claim { at, up: false }).collect();
    claims.dedup();
    // Where nothing says that there were ever too few, that there were enough says nothing new.
    let news = !was_up || !claims.is_empty();
    claims.extend(enough.filter(|_| news).map(|at| Claim { at, up: true }));
    if claims.is_sorted_by_key(|claim| claim.at) { claims } else { Vec::new() }
}

/// Whether everything in which the looks differ was told.
fn explained(before: &Snapshot, events: &[&Event], after: &Snapshot) -> bool {
    let told = |pid: i32, which: fn(What) -> bool| events.iter().any(|e| e.pid == pid && which(e.what));
    let began = |what| matches!(what, What::Forked { .. } | What::Executed | What::Renamed);
    let went = |what| matches!(what, What::Ended | What::Executed | What::Renamed);
    let same = |pid: i32, m: &Matched| before.matched.get(&pid).is_some_and(|b| b.start_ticks == m.start_ticks);
    after.matched.iter().all(|(pid, m)| same(*pid, m) || told(*pid, began))
        && before.matched.keys().all(|pid| after.matched.contains_key(pid) || told(*pid, went))
}

/// Every process that was meant at first, or that began or changed since.
fn lives(before: &Snapshot, events: &[&Event]) -> Vec<Life> {
    let life = |pid, from| Life {
        pid,
        from,
        parent: None,
        was_meant: false,
        by_image: false,
        changed: None,
        changes: 0,
        ended: None,
    };
    let meant = |(pid, m): (&i32, &Matched)| Life { was_meant: true, by_image: m.by_image, ..life(*pid, None) };
    let mut lives: Vec<Life> = before.matched.iter().map(meant).collect();
    // Of each number the last life.
    let mut latest: BTreeMap<i32, usize> = lives.iter().enumerate().map(|(i, life)| (life.pid, i)).collect();
    for event in events {
        let known = latest.get(&event.pid).and_then(|i| lives.get_mut(*i));
        match (event.what, known) {
            (What::Forked { parent }, _) => {
                latest.insert(event.pid, lives.len());
                lives.push(Life { parent: Some(parent), ..life(event.pid, Some(event.at)) });
            }
            (What::Executed | What::Renamed, Some(known)) => {
                known.changed = Some(event.at);
                known.changes += 1;
                // When another thread than the first executes, the first ends, and the process does not.
                known.ended = None;
            }
            (What::Executed | What::Renamed, None) => {
                latest.insert(event.pid, lives.len());
                lives.push(Life { changed: Some(event.at), changes: 1, ..life(event.pid, None) });
            }
            (What::Ended, Some(known)) => known.ended = Some(event.at),
            // Its last thread may end after its first.
            (What::ThreadEnded, Some(known)) => known.ended = known.ended.map(|_| event.at),
            (What::Ended | What::ThreadEnded, None) => {}
        }
    }
    lives
}

/// A stretch during which there were certainly too few.
#[derive(Clone, Copy, Debug)]
struct Span {
    /// From this exit on; `None`: from the first look on.
    from: Option<i64>,
    /// Until just before this start; `None`: until the second look.
    until: Option<i64>,
}

fn too_few(lives: &[Life], after: &Snapshot, count: usize) -> Vec<Span> {
    let mut steps: BTreeMap<i64, i64> = BTreeMap::new();
    let mut possible = 0_i64;
    for life in lives {
        let Some(until) = until(life, after) else { continue };
        match life.from {
            Some(from) => *steps.entry(from).or_default() += 1,
            None => possible += 1,
        }
        if until != STILL {
            *steps.entry(until).or_default() -= 1;
        }
    }
    let wanted = i64::try_from(count).unwrap_or(i64::MAX);
    let mut spans = Vec::new();
    let mut open = (possible < wanted).then_some(Span { from: None, until: None });
    for (at, step) in steps {
        possible += step;
        match (possible < wanted, open) {
            (true, None) => open = Some(Span { from: Some(at), until: None }),
            (false, Some(span)) => {
                spans.push(Span { until: Some(at - 1), ..span });
                open = None;
            }
            _ => {}
        }
    }
    spans.extend(open);
    spans
}

/// Up to the second look.
const STILL: i64 = i64::MAX;

/// Up to when this life may have been one of those meant; `None`: never.
fn until(life: &Life, after: &Snapshot) -> Option<i64> {
    if life.ended.is_some() {
        return life.ended;
    }
    // One that was known by its title may have lost and found it again, and of one that is about to end nobody can tell.
    let titled = life.was_meant && !life.by_image;
    if titled || !after.others.contains(&life.pid) {
        return Some(STILL);
    }
    // It runs and is not meant: not since it last changed, and not before if it was not meant then and changed once.
    let never = !life.was_meant && life.from.is_none() && life.changes < 2;
    if never { None } else { life.changed }
}

/// The earliest instant from which on enough certainly ran, unless they did at the first look already.
fn enough_since(lives: &[Life], before: &Snapshot, after: &Snapshot, count: usize) -> Option<i64> {
    let possible: BTreeSet<i32> = lives.iter().filter(|l| until(l, after).is_some()).map(|l| l.pid).collect();
    let mut since: Vec<i64> = Vec::new();
    for (pid, matched) in after.matched.iter().filter(|(_, m)| m.root) {
        let life = lives.iter().rev().find(|life| life.pid == *pid);
        // It was meant already, nothing happened to it, and no parent of its was meant for a while.
        if (count == 1 || !possible.contains(&matched.parent))
            && before.matched.get(pid).is_some_and(|b| b.root)
            && life.is_some_and(|l| l.from.is_none() && l.changes == 0)
        {
            since.push(before.at);
            continue;
        }
        let Some(life) = life.filter(|_| matched.by_image) else { continue };
        // Among several, each must have counted by itself since then: one whose parent was meant did not.
        let alone = count == 1 || life.parent.is_some_and(|p| p == matched.parent && !possible.contains(&p));
        since.extend(life.changed.filter(|_| alone));
    }
    since.sort_unstable();
    since.get(count.checked_sub(1)?).copied().filter(|at| *at > before.at)
}

#[cfg(test)]
mod tests;
