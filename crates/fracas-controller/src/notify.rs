//! Telling people and programs what happens: each fact that is worth it, to each channel that wants it, at least once.
//!
//! It listens to the history and never stands in anybody's way: no run waits for a notice, no channel for another.
//!
//! ```text
//! history -> derive (what is told, in which words) -> a lane for each channel -> its receiver
//!    ^                                                          |
//!    '----------- stream notify/CHANNEL: sent, given up <-------'
//! ```
//! What a channel is owed is what the histories of the last hours hold and its own stream does not have as settled. So a
//! controller that is killed, a listener that was too slow and a queue that was full are one case: look again.

mod config;
mod connect;
mod delivery;
mod derive;
mod email;
mod http;
mod listener;
mod notice;
mod pagerduty;
mod secret;
mod slack;
mod template;
mod webhook;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fracas_model::id::HostId;
use tokio::{
    sync::{Mutex as AsyncMutex, mpsc, oneshot},
    task::JoinSet,
};

pub(crate) use self::config::{read, shape, written};
pub use self::{
    config::{Channel, To},
    delivery::{Outcome, Standing},
    derive::Known,
    email::{Email, Tls},
    notice::{Incident, Notice, PLACEHOLDERS, Severity},
    pagerduty::PagerDuty,
    secret::{Secret, Text},
    slack::Slack,
    template::{BadPattern, Pattern, Template},
    webhook::Webhook,
};
use self::{
    delivery::{Lane, Pace},
    listener::{Ask, Listener, hear, kept},
    secret::{Missing, Revealed},
    template::Words,
};
use crate::history::History;

/// How long one try may take in all.
const PATIENCE: Duration = Duration::from_secs(30);

/// One notice on its way to one channel.
struct Letter<'l> {
    notice: &'l Notice,
    words: &'l Words,
    /// Which controller, as a URI.
    source: &'l str,
    /// Wall time of this try, nanoseconds since the Unix epoch.
    now_ns: i64,
}

/// Why a try failed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Failure {
    /// For people; without addresses and secrets.
    why: String,
    /// What the receiver said to it; empty: nothing.
    said: String,
    again: Again,
    /// The receiver wants to be left alone for so long.
    after: Option<Duration>,
}

/// Whether another try makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    /// No: the receiver said so.
    Never,
    /// Yes.
    Later,
    /// A few times: the receiver is there, and it may be this very notice that it cannot take.
    Blamed,
}

impl Failure {
    fn never(why: impl Into<String>) -> Self {
        Self { why: why.into(), said: String::new(), again: Again::Never, after: None }
    }

    fn later(why: impl Into<String>) -> Self {
        Self { why: why.into(), said: String::new(), again: Again::Later, after: None }
    }

    fn blamed(why: impl Into<String>) -> Self {
        Self { why: why.into(), said: String::new(), again: Again::Blamed, after: None }
    }

    /// The same without the receiver's words, should they repeat one of these.
    fn without<'r>(self, secrets: impl IntoIterator<Item = &'r Revealed>) -> Self {
        let repeats = secrets.into_iter().any(|secret| secret.is_in(&self.said));
        let said = if repeats { "its answer repeats a secret and is not shown".to_owned() } else { self.said };
        Self { said, ..self }
    }

    /// All of it, for people.
    fn text(&self) -> String {
        if self.said.is_empty() { self.why.clone() } else { format!("{}: {}", self.why, self.said) }
    }
}

impl From<Missing> for Failure {
    fn from(missing: Missing) -> Self {
        Self::later(missing.to_string())
    }
}

impl Channel {
    /// One try.
    async fn send(&self, notice: &Notice, source: &str, now_ns: i64) -> Result<(), Failure> {
        let words = self.template.words(notice);
        let letter = Letter { notice, words: &words, source, now_ns };
        // Boxed, since a TLS handshake is large.
        match &self.to {
            To::Webhook(webhook) => patiently(Box::pin(webhook.send(&letter))).await,
            To::Slack(slack) => patiently(Box::pin(slack.send(&letter))).await,
            To::Email(email) => patiently(Box::pin(email.send(&letter))).await,
            // It may have much to say, each of it with patience.
            To::PagerDuty(pagerduty) => Box::pin(pagerduty.send(&letter, &self.interest())).await,
        }
    }
}

/// No receiver, and no file of a secret, is waited for longer than that.
async fn patiently(sending: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let late = || Failure::later(format!("no answer within {} s", PATIENCE.as_secs()));
    tokio::time::timeout(PATIENCE, sending).await.unwrap_or_else(|_| Err(late()))
}

/// All channels of a controller. Clones are one and the same.
#[derive(Clone)]
pub struct Notices(Arc<Shared>);

struct Shared {
    lanes: BTreeMap<String, Arc<Lane>>,
    /// To whoever listens.
    asks: mpsc::UnboundedSender<Ask>,
    tasks: Mutex<JoinSet<()>>,
}

/// There is no channel of that name.
#[derive(Debug, thiserror::Error)]
#[error("no channel {0:?} here: `fracas notify list` names those there are")]
pub struct UnknownChannel(String);

/// What came of trying a channel out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// The id of the notice.
    pub id: String,
    /// How long it took.
    pub took: Duration,
    /// Why its receiver did not take it; `None`: it did.
    pub failed: Option<String>,
}

impl std::fmt::Debug for Notices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notices").field("channels", &self.0.lanes.keys()).finish_non_exhaustive()
    }
}

impl Notices {
    /// Begins to tell these channels what happens from now on, and what they are owed. `controller` is its own id, a UUID.
    /// Call it within a runtime, before anything is done with the history.
    pub fn begin(history: &History, controller: &HostId, channels: Vec<Channel>) -> Self {
        Self::at(history, controller, channels, Pace::default())
    }

    fn at(history: &History, controller: &HostId, channels: Vec<Channel>, pace: Pace) -> Self {
        let (asks, asked) = mpsc::unbounded_channel();
        let lane = |channel: Channel| {
            let source = format!("urn:uuid:{controller}");
            (channel.name.clone(), Arc::new(Lane::new(channel, source, history.clone(), pace, asks.clone())))
        };
        let lanes: BTreeMap<String, Arc<Lane>> = channels.into_iter().map(lane).collect();
        let mut tasks = JoinSet::new();
        if !lanes.is_empty() {
            let (tell, news) = mpsc::unbounded_channel();
            // From this very moment on.
            tasks.spawn(hear(history.listen(), asked, tell));
            let (history, all, news) = (history.clone(), lanes.clone(), Arc::new(AsyncMutex::new(news)));
            tasks.spawn(kept("the listener", move || {
                Listener::new(history.clone(), all.clone()).work(Arc::clone(&news))
            }));
        }
        Self(Arc::new(Shared { lanes, asks, tasks: Mutex::new(tasks) }))
    }

    /// How each channel stands, by name.
    pub fn standings(&self) -> Vec<Standing> {
        self.0.lanes.values().map(|lane| lane.standing()).collect()
    }

    /// Sends a notice to one channel to try it out, once and at once. No other test has this `id`.
    pub async fn test(&self, name: &str, id: &str, by: &str) -> Result<Trial, UnknownChannel> {
        let lane = self.0.lanes.get(name).ok_or_else(|| UnknownChannel(name.to_owned()))?;
        let (begun, id) = (tokio::time::Instant::now(), format!("test/{id}"));
        let failed = lane.test(&id, by).await.err().map(|failure| failure.text());
        Ok(Trial { id, took: begun.elapsed(), failed })
    }

    /// Waits until everything that was recorded before is settled by every channel that can be reached.
    pub async fn settled(&self) {
        let (answer, answered) = oneshot::channel();
        if self.0.lanes.is_empty() || self.0.asks.send(Ask::Heard(answer)).is_err() || answered.await.is_err() {
            return;
        }
        for lane in self.0.lanes.values() {
            lane.settled().await;
        }
    }

    /// Ends. What was not settled is owed by the next controller.
    pub fn end(&self) {
        self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}

#[cfg(test)]
mod tests;
