//! One channel's lane: what waits for it, one notice after the other, tried until it is taken or too old.
//!
//! What became of each is recorded before the next one; a notice whose record is lost is sent again, with the same id.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fracas_model::{
    event::{Body, Event},
    notice::{Fact, Interest, Kind},
    time::Stamp,
    units::Dur,
};
use tokio::sync::{mpsc, watch};

use super::{
    Again, Channel, Failure,
    listener::{Ask, recent},
    notice::Notice,
};
use crate::history::{History, HistoryError};

/// Notices that wait for one channel; what is more stays in the histories and is looked for when there is room.
const MOST_WAITING: usize = 1000;
/// Settled notices that are remembered before those too old to be found again are forgotten.
const REMEMBERED: usize = 10_000;
/// A receiver that answers and cannot take a notice so often will not take it: the next one has its turn.
const MOST_BLAMED: u32 = 20;

/// How long is looked for a secret before it is needed.
const LONGEST_LOOK: Duration = Duration::from_secs(5);

/// How fast tries follow each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// The longest pause after the first try; it doubles with each ...
    pub(super) first: Duration,
    /// ... up to this.
    pub(super) most: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), most: Duration::from_mins(5) }
    }
}

impl Pace {
    /// The pause after so many tries: a random share of what the exponent gives, so that receivers that were away are not
    /// met by everybody at once. `random` is from 0 to 1.
    fn pause(self, attempts: u32, random: f64) -> Duration {
        let doubled = self.first.saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1)));
        doubled.min(self.most).mul_f64(random.clamp(0.0, 1.0))
    }
}

/// What became of a notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What it was about.
    pub about: Kind,
    /// The notice.
    pub notice: String,
    /// Why it was given up; `None`: it was sent.
    pub gave_up: Option<String>,
    /// How often it was tried.
    pub attempts: u32,
    /// When, wall time, nanoseconds since the Unix epoch.
    pub at_ns: i64,
}

/// How a channel stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its name.
    pub name: String,
    /// How it is reached.
    pub by: &'static str,
    /// What it is told.
    pub interest: Interest,
    /// Notices that wait, the one being tried among them.
    pub waiting: usize,
    /// What became of the last one.
    pub last: Option<Outcome>,
    /// Since when no try succeeded, wall time in nanoseconds, and why the last one failed.
    pub failing: Option<(i64, String)>,
}

/// See the module.
pub(super) struct Lane {
    channel: Channel,
    source: String,
    stream: String,
    history: History,
    pace: Pace,
    asks: mpsc::UnboundedSender<Ask>,
    state: Mutex<State>,
    /// Wakes whoever works or waits.
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Arc<Notice>>,
    /// There was no room for something.
    behind: bool,
    /// Notices that wait or are settled, with their instants.
    taken: BTreeMap<String, Stamp>,
    /// What it was told since when, by all controllers so far.
    interests: Vec<(Stamp, Interest)>,
    last: Option<Outcome>,
    failing: Option<(i64, String)>,
    /// What became of notices and could not be recorded yet.
    unrecorded: Vec<Body>,
}

impl Lane {
    pub(super) fn new(
        channel: Channel,
        source: String,
        history: History,
        pace: Pace,
        asks: mpsc::UnboundedSender<Ask>,
    ) -> Self {
        let stream = format!("notify/{}", channel.name);
        let (state, changed) = (Mutex::default(), watch::Sender::new(()));
        Self { channel, source, stream, history, pace, asks, state, changed }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Instant before which nothing is owed any more, wall time.
    pub(super) fn horizon_ns(&self, now_ns: i64) -> i64 {
        now_ns.saturating_sub(self.channel.give_up_after.ns())
    }

    /// Says which of its secrets are not there, long before somebody misses a notice.
    pub(super) async fn warn_of_missing_secrets(&self) {
        for secret in self.channel.secrets() {
            if let Ok(Err(missing)) = tokio::time::timeout(LONGEST_LOOK, secret.reveal()).await {
                tracing::warn!(channel = self.channel.name, %missing, "a secret of a channel is not there");
            }
        }
    }

    /// Takes in what the channel's history says, and says there what it is told from here on.
    pub(super) async fn open(&self) -> Result<(), HistoryError> {
        let horizon = self.horizon_ns(self.history.now().wall_ns);
        let opened = |event: &Event| matches!(&event.body, Body::Notice { fact: Fact::Opened { .. }, .. });
        // Back to what held for the oldest notice that may still be owed.
        let enough = |events: &[Event]| events.iter().any(|e| opened(e) && e.received.wall_ns < horizon);
        let events = recent(&self.history, &self.stream, enough).await?;
        let fact = Fact::Opened { by: self.channel.to.word().to_owned(), interest: self.channel.interest() };
        let opening = Body::Notice { fact, at: self.history.now() };
        let now = self.history.append(&self.stream, vec![opening]).await?;
        let mut state = State::default();
        for event in events.into_iter().chain(now) {
            state.take(&event);
        }
        *self.lock() = state;
        Ok(())
    }

    /// Nothing will ever be sent.
    pub(super) fn is_broken(&self, why: &str) {
        let now_ns = self.history.now().wall_ns;
        self.lock().failed(now_ns, why);
    }

    /// How long a notice may still be tried; nothing, or less, when it is too old.
    fn left(&self, notice: &Notice) -> Dur {
        let now = self.history.now();
        // Within one boot no setting of the clock makes it older.
        let age = now.since(&notice.at).unwrap_or(Dur::from_ns(now.wall_ns.saturating_sub(notice.at.wall_ns)));
        self.channel.give_up_after - age
    }

    /// Takes a notice if it is owed, and neither waits nor is settled.
    pub(super) fn offer(&self, notice: &Arc<Notice>) {
        let (left, horizon) = (self.left(notice), self.horizon_ns(self.history.now().wall_ns));
        let mut state = self.lock();
        if state.taken.contains_key(&notice.id) || !state.owes(notice) || left <= Dur::ZERO {
            return;
        }
        // What comes later does not overtake.
        if state.behind || state.waiting.len() >= MOST_WAITING {
            state.behind = true;
            return;
        }
        if state.taken.len() >= REMEMBERED {
            state.taken.retain(|_, at| at.wall_ns >= horizon);
        }
        state.taken.insert(notice.id.clone(), notice.at.clone());
        state.waiting.push_back(Arc::clone(notice));
        drop(state);
        self.changed.send_replace(());
    }

    /// Everything that is owed is going to be offered: a lane that is empty has room for it.
    pub(super) fn make_room(&self) {
        let mut state = self.lock();
        state.behind &= !state.waiting.is_empty();
    }

    /// Sends what waits, one after the other, for ever.
    pub(super) async fn work(self: Arc<Self>) {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            let first = self.lock().waiting.front().cloned();
            let Some(notice) = first else {
                if changed.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let outcome = self.deliver(&notice).await;
            self.record(outcome).await;
            let hungry = {
                let mut state = self.lock();
                state.waiting.pop_front();
                state.behind && state.waiting.is_empty()
            };
            if hungry {
                // Nobody listens any more when this fails.
                let _ = self.asks.send(Ask::Look);
            }
            self.changed.send_replace(());
        }
    }

    /// Tries until the notice is taken, refused or too old.
    async fn deliver(&self, notice: &Notice) -> Outcome {
        let name = &self.channel.name;
        let (mut attempts, mut blamed) = (0, 0);
        let gave_up = loop {
            attempts += 1;
            let now_ns = self.history.now().wall_ns;
            let failure = match self.channel.send(notice, &self.source, now_ns).await {
                Ok(()) => break None,
                Err(failure) => failure,
            };
            let first = self.lock().failed(self.history.now().wall_ns, &failure.text());
            self.changed.send_replace(());
            blamed += u32::from(failure.again == Again::Blamed);
            let left = self.left(notice);
            if failure.again == Again::Never || blamed >= MOST_BLAMED || left <= Dur::ZERO {
                break Some(failure);
            }
            let pause =
                self.pace.pause(attempts, rand::random()).max(failure.after.unwrap_or_default()).min(left.std());
            if first {
                tracing::warn!(channel = name, why = failure.text(), "a notice could not be sent; it is tried on");
            } else {
                let why = failure.text();
                tracing::debug!(channel = name, notice = notice.id, attempts, why, ?pause, "trying again");
            }
            tokio::time::sleep(pause).await;
        };
        let at_ns = self.history.now().wall_ns;
        let mut state = self.lock();
        match &gave_up {
            None if state.failing.take().is_some() => tracing::info!(channel = name, "notices are sent again"),
            None => {}
            Some(failure) => {
                let why = failure.text();
                tracing::error!(channel = name, notice = notice.id, attempts, why, "a notice was given up");
            }
        }
        // What receivers say may name people: it is for the log, and not for a history that forgets nothing.
        let gave_up = gave_up.map(|failure| failure.why);
        let outcome = Outcome { about: notice.kind, notice: notice.id.clone(), gave_up, attempts, at_ns };
        state.last = Some(outcome.clone());
        outcome
    }

    /// Records what became of a notice; what cannot be recorded now goes with the next one.
    async fn record(&self, outcome: Outcome) {
        let Outcome { about, notice, gave_up, attempts, .. } = outcome;
        let fact = match gave_up {
            None => Fact::Sent { notice, about, attempts },
            Some(why) => Fact::GaveUp { notice, about, attempts, why },
        };
        let facts = {
            let mut state = self.lock();
            state.unrecorded.push(Body::Notice { fact, at: self.history.now() });
            state.unrecorded.clone()
        };
        let many = facts.len();
        match self.history.append(&self.stream, facts).await {
            Ok(_) => drop(self.lock().unrecorded.drain(..many)),
            Err(error) => {
                let channel = &self.channel.name;
                tracing::error!(channel, %error, "what became of a notice could not be recorded; it may be sent again");
            }
        }
    }

    /// Tries the channel out, beside what waits.
    pub(super) async fn test(&self, id: &str, by: &str) -> Result<(), Failure> {
        let at = self.history.now();
        let now_ns = at.wall_ns;
        let notice = Notice::test(id.to_owned(), at, &self.channel.name, by);
        self.channel.send(&notice, &self.source, now_ns).await
    }

    /// Waits until nothing waits, or the receiver cannot be reached.
    pub(super) async fn settled(&self) {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            {
                let state = self.lock();
                if (state.waiting.is_empty() && !state.behind) || state.failing.is_some() {
                    return;
                }
            }
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    pub(super) fn standing(&self) -> Standing {
        let state = self.lock();
        Standing {
            name: self.channel.name.clone(),
            by: self.channel.to.word(),
            interest: self.channel.interest(),
            waiting: state.waiting.len(),
            last: state.last.clone(),
            failing: state.failing.clone(),
        }
    }
}

impl State {
    /// Takes in a fact of the channel's history.
    fn take(&mut self, event: &Event) {
        let Body::Notice { fact, .. } = &event.body else { return };
        let (at_ns, received) = (event.received.wall_ns, event.received.clone());
        let (about, notice, gave_up, attempts) = match fact {
            Fact::Opened { interest, .. } => {
                self.interests.push((received, interest.clone()));
                return;
            }
            Fact::Sent { notice, about, attempts } => (about, notice, None, attempts),
            Fact::GaveUp { notice, about, attempts, why } => (about, notice, Some(why.clone()), attempts),
        };
        match &gave_up {
            None => self.failing = None,
            Some(why) => drop(self.failed(at_ns, why)),
        }
        self.taken.insert(notice.clone(), received);
        let (about, notice, attempts) = (*about, notice.clone(), *attempts);
        self.last = Some(Outcome { about, notice, gave_up, attempts, at_ns });
    }

    /// Whether this is the first failure in a row.
    fn failed(&mut self, now_ns: i64, why: &str) -> bool {
        let first = self.failing.is_none();
        let since = self.failing.take().map_or(now_ns, |(since, _)| since);
        self.failing = Some((since, why.to_owned()));
        first
    }

    /// Whether a notice concerned the channel when it happened, and has ever since. What a channel is told is never more
    /// than it was meant to be told then: a new channel, or a new wish, is no reason to tell old things.
    fn owes(&self, notice: &Notice) -> bool {
        for (since, interest) in self.interests.iter().rev() {
            if !notice.concerns(interest) {
                return false;
            }
            if !before(&notice.at, since) {
                return true;
            }
        }
        false
    }
}

/// Whether one instant came before another; within one boot no setting of the clock deceives.
fn before(one: &Stamp, other: &Stamp) -> bool {
    match one.since(other) {
        Ok(length) => length < Dur::ZERO,
        Err(_) => one.wall_ns < other.wall_ns,
    }
}

#[cfg(test)]
mod tests;
