//! One ledger's life on this host: its place made, markers written tick by tick, read back, removed.
//!
//! ```text
//! open -> write ... -> read -> drop
//! ```
//! Each stage goes on, again and again, until it is done or something else is desired. What is not desired any more is left
//! as it is: only a run that has all it needs says that a place is to be removed.

use std::{cell::Cell, future::Future, rc::Rc, time::Duration};

use fracas_model::{
    desired::{LedgerItem, LedgerWork},
    event::{Body, Look},
    ledger::{Found, MOST_FOUND, MOST_MARKERS, Marker, Markers, Outcome, stretches},
    plan::Refusal,
    units::Dur,
};
use fracas_probes::ledger::{Book, NotOpen, Written};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    Sight,
    pace::{Alarm, Pace},
    tend::{FASTEST, MOST_OUT, SEAL_AFTER},
};
use crate::crash::{self, Task};

/// How long is waited before what failed is tried again.
const AGAIN: Duration = Duration::from_millis(500);
/// Longest time that opening a place, or removing it, may take.
const OPENING: Duration = Duration::from_secs(10);
/// Longest time that reading a ledger back may take: it may hold as many markers as one ever has.
const READING: Duration = Duration::from_secs(30);
/// Longest reason that is told, bytes.
const LONGEST_WHY: usize = 300;

/// What is to be done about a ledger, and until when by this host's boot time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) work: LedgerWork,
    pub(super) until_ns: i64,
}

/// What one ledger needs.
pub(super) struct Kept<P> {
    pub(super) item: LedgerItem,
    pub(super) book: Rc<dyn Book>,
    pub(super) pace: P,
    pub(super) out: mpsc::UnboundedSender<Sight>,
    /// It ends at once when the sender is gone.
    pub(super) order: watch::Receiver<Order>,
}

/// Nobody desires it any more.
struct Over;

impl<P: Pace> Kept<P> {
    /// Lives until it is removed or not desired any more.
    pub(super) async fn run(mut self) {
        let _ = self.live().await;
    }

    async fn live(&mut self) -> Result<(), Over> {
        // Whether a former life of this agent made it, nobody may have heard.
        let touched = Cell::new(self.item.made || self.item.work != LedgerWork::Write);
        let opened = self.open(&touched).await?;
        if opened {
            self.write().await?;
        }
        self.wanted(|work| work != LedgerWork::Write).await?;
        if touched.get() {
            self.read().await?;
        }
        self.wanted(|work| work == LedgerWork::Drop).await?;
        if touched.get() {
            self.remove().await?;
        }
        self.tell(Body::LedgerDropped {
            ledger: self.item.ledger.clone(),
            place: self.item.place.clone(),
            at: self.pace.now(),
        });
        Ok(())
    }

    fn work(&self) -> LedgerWork {
        self.order.borrow().work
    }

    /// Waits until such work is desired.
    async fn wanted(&mut self, such: impl Fn(LedgerWork) -> bool) -> Result<(), Over> {
        self.order.wait_for(|order| such(order.work)).await.map(|_| ()).map_err(|_| Over)
    }

    /// Opens the place while it is to be written; whether it is open. Whether anything may have been made is told in
    /// `touched`.
    async fn open(&mut self, touched: &Cell<bool>) -> Result<bool, Over> {
        let mut told = String::new();
        while self.work() == LedgerWork::Write {
            // A writer that is started anew: whatever became of the place, it is not made a second time.
            let book = self.book.clone();
            let opened = self.unless_changed(timeout(OPENING, book.open(!self.item.made, touched))).await?;
            let why = match opened {
                None => continue,
                Some(Ok(Ok(()))) => {
                    touched.set(true);
                    return Ok(true);
                }
                Some(Ok(Err(NotOpen::Refused(refusal)))) => {
                    let _ = self.out.send(refused(&self.item, refusal, &self.pace));
                    return Err(Over);
                }
                Some(Ok(Err(NotOpen::Unreachable(why)))) => why,
                Some(Err(_)) => format!("no answer within {} s", OPENING.as_secs()),
            };
            self.trouble(&mut told, why);
            self.pause().await?;
        }
        Ok(false)
    }

    /// The result of this work; `None` when something else is desired meanwhile.
    async fn unless_changed<T>(&mut self, work: impl Future<Output = T>) -> Result<Option<T>, Over> {
        tokio::pin!(work);
        let before = self.work();
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(Some(done)),
                changed = self.order.changed() => {
                    changed.map_err(|_| Over)?;
                    if self.work() != before {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Writes markers while that is desired, then waits for those that are still out.
    async fn write(&mut self) -> Result<(), Over> {
        let opened = self.pace.now();
        // Later lives have later starts: one agent writes at a time.
        let life = opened.boot_ns.max(1).unsigned_abs();
        let every = self.item.every.ns().max(FASTEST);
        let cap = ((self.item.timeout.ns().max(0) / every) + 2).clamp(4, MOST_OUT) as usize;
        let mut due = opened.boot_ns;
        let ledger = self.item.ledger.clone();
        self.tell(Body::LedgerOpened { ledger, place: self.item.place.clone(), life, at: opened });
        let mut alarm = self.pace.alarm().ok();
        let (mut writes, mut done, mut why, mut told) =
            (FuturesUnordered::new(), Vec::new(), String::new(), String::new());
        let (mut number, mut seal_at, mut over) = (0, None::<Instant>, false);
        let mut armed = false;
        loop {
            crash::within(Task::Probe);
            let order = *self.order.borrow_and_update();
            let wanted = order.work == LedgerWork::Write && !over;
            if !wanted && writes.is_empty() {
                break;
            }
            let stopped = self.stopped(order, number, alarm.is_some());
            if wanted && let Some(why) = stopped {
                self.trouble(&mut told, why);
                armed = false;
            }
            let writing = wanted && stopped.is_none();
            if writing && !armed {
                // Also after a pause: what was due meanwhile is not made up for.
                due = due.max(self.pace.boot_ns());
                armed = alarm.as_mut().is_some_and(|alarm| alarm.arm(due).is_ok());
                if !armed {
                    alarm = None;
                    continue;
                }
            }
            tokio::select! {
                biased;
                rang = rang(&mut alarm), if writing => {
                    if rang.is_err() {
                        alarm = None;
                        continue;
                    }
                    let late = ((self.pace.boot_ns() - due) / every).max(0);
                    due += late * every;
                    if writes.len() < cap {
                        number += 1;
                        let (pace, book, limit) = (self.pace.clone(), self.book.clone(), self.item.timeout);
                        writes.push(write(pace, book, life, number, limit));
                    }
                    due += every;
                    armed = alarm.as_mut().is_some_and(|alarm| alarm.arm(due).is_ok());
                }
                Some((marker, failed)) = writes.next(), if !writes.is_empty() => {
                    done.push(marker);
                    if let Some(failed) = failed {
                        why = failed;
                    }
                }
                () = sleep_until(seal_at.unwrap_or_else(Instant::now)), if seal_at.is_some() => {
                    self.seal(life, &mut done, &mut why);
                    seal_at = None;
                }
                changed = self.order.changed(), if !over => over = changed.is_err(),
            }
            if seal_at.is_none() && !done.is_empty() {
                seal_at = Some(Instant::now() + SEAL_AFTER);
            }
        }
        self.seal(life, &mut done, &mut why);
        if over { Err(Over) } else { Ok(()) }
    }

    /// Why no marker is written though that is desired.
    fn stopped(&self, order: Order, number: u64, timed: bool) -> Option<&'static str> {
        if !timed {
            Some("the host gives no timer: raise the agent's limit of open files")
        } else if number >= MOST_MARKERS {
            Some("it holds as many markers as a ledger takes, 200000: write them further apart")
        } else if self.pace.boot_ns() >= order.until_ns {
            Some("there was no contact with the controller for too long")
        } else {
            None
        }
    }

    fn seal(&self, life: u64, done: &mut Vec<Marker>, why: &mut String) {
        if done.is_empty() {
            return;
        }
        done.sort_by_key(|marker| marker.number);
        let markers = Markers::pack(&std::mem::take(done));
        let (ledger, why, at) = (self.item.ledger.clone(), std::mem::take(why), self.pace.now());
        self.tell(Body::MarkersWritten { ledger, life, markers, why, at });
    }

    /// Reads back what is there, until it is read or nobody wants it.
    async fn read(&mut self) -> Result<(), Over> {
        let mut told = String::new();
        // When writing was to end, however long it takes to read.
        let s = self.pace.boot_ns();
        while self.work() == LedgerWork::Read {
            let book = self.book.clone();
            let why = match self.unless_changed(timeout(READING, book.read())).await? {
                None => continue,
                Some(Ok(Ok(records))) => {
                    self.tell_found(&stretches(records), Look { s, c: self.pace.boot_ns() });
                    return Ok(());
                }
                Some(Ok(Err(why))) => why,
                Some(Err(_)) => format!("no answer within {} s", READING.as_secs()),
            };
            self.trouble(&mut told, why);
            self.pause().await?;
        }
        Ok(())
    }

    fn tell_found(&self, found: &[Found], between: Look) {
        let mut parts = found.chunks(MOST_FOUND).peekable();
        loop {
            let part = parts.next().unwrap_or_default().to_vec();
            let last = parts.peek().is_none();
            let (ledger, at) = (self.item.ledger.clone(), self.pace.now());
            self.tell(Body::LedgerRead { ledger, found: part, last, between, at });
            if last {
                return;
            }
        }
    }

    async fn remove(&mut self) -> Result<(), Over> {
        let mut told = String::new();
        loop {
            let why = match timeout(OPENING, self.book.remove()).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(why)) => why,
                Err(_) => format!("no answer within {} s", OPENING.as_secs()),
            };
            self.trouble(&mut told, why);
            self.pause().await?;
        }
    }

    /// Lets some time pass, unless something else is desired.
    async fn pause(&mut self) -> Result<(), Over> {
        tokio::select! {
            () = sleep(AGAIN) => Ok(()),
            changed = self.order.changed() => changed.map_err(|_| Over),
        }
    }

    /// Tells what failed, once for each reason.
    fn trouble(&self, told: &mut String, why: impl Into<String>) {
        let mut why = why.into();
        let end = (0..=LONGEST_WHY).rev().find(|at| why.is_char_boundary(*at)).unwrap_or_default();
        why.truncate(end);
        if *told != why {
            told.clone_from(&why);
            let (ledger, place, at) = (self.item.ledger.clone(), self.item.place.clone(), self.pace.now());
            self.tell(Body::LedgerTroubled { ledger, place, why, at });
        }
    }

    fn tell(&self, body: Body) {
        // Nobody listens only when the whole agent ends.
        let _ = self.out.send(sight(&self.item, body));
    }
}

/// The fact that a ledger cannot be kept.
pub(super) fn refused(item: &LedgerItem, refusal: Refusal, pace: &impl Pace) -> Sight {
    sight(item, Body::LedgerRefused { ledger: item.ledger.clone(), refusal, at: pace.now() })
}

fn sight(item: &LedgerItem, body: Body) -> Sight {
    Sight { stream: format!("run/{}", item.run), body, blob: None }
}

/// Waits for the alarm; for ever without one.
async fn rang(alarm: &mut Option<impl Alarm>) -> std::io::Result<()> {
    match alarm {
        Some(alarm) => alarm.rang().await,
        None => std::future::pending().await,
    }
}

/// One marker, bounded by the ledger's timeout; one that is given up is unknown from that moment, if the service
/// may have it.
async fn write(pace: impl Pace, book: Rc<dyn Book>, life: u64, number: u64, limit: Dur) -> (Marker, Option<String>) {
    let sent = Cell::new(false);
    let s = pace.boot_ns();
    let written = timeout(limit.std(), book.write(life, number, &sent)).await;
    let look = Look { s, c: pace.boot_ns().max(s) };
    let (outcome, why) = match written {
        Ok(Written::Acknowledged) => (Outcome::Acknowledged, None),
        Ok(Written::Failed(why)) => (Outcome::Failed, Some(why)),
        Ok(Written::Unknown(why)) => (Outcome::Unknown, Some(why)),
        Err(_) => {
            let outcome = if sent.get() { Outcome::Unknown } else { Outcome::Failed };
            (outcome, Some(format!("no answer within {limit}")))
        }
    };
    (Marker { number, look, outcome }, why)
}

#[cfg(test)]
mod tests;
