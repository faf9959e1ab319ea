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
pub(crate) mod connect;
mod delivery;
mod derive;
mod email;
mod http;
mod pagerduty;
pub(crate) mod secret;
mod slack;
mod template;
mod webhook;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fracas_model::{event::Event, id::HostId};
use tokio::{
    sync::{
        Mutex as AsyncMutex,
        broadcast::{Receiver, error::RecvError},
        mpsc, oneshot,
    },
    task::JoinSet,
};

pub(crate) use self::config::{read, shape, written};
pub use self::{
    config::{Channel, To},
    delivery::{Outcome, Standing},
    derive::{Incident, Known, Notice, PLACEHOLDERS, Severity},
    email::{Email, Tls},
    pagerduty::PagerDuty,
    secret::{Secret, Text},
    slack::Slack,
    template::{BadPattern, Pattern, Template},
    webhook::Webhook,
};
use self::{
    delivery::{Lane, Pace},
    secret::{Missing, Revealed},
    template::Words,
};
use crate::{
    driver::stream_of,
    history::{History, HistoryError},
    store::StoreError,
};

/// How long one try may take in all.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause before the next try when the history cannot be used.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Records fetched at once.
const PAGE: u64 = 500;

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
pub(crate) struct Failure {
    /// For people; without addresses and secrets.
    pub(crate) why: String,
    /// What the receiver said to it; empty: nothing.
    said: String,
    again: Again,
    /// The receiver wants to be left alone for so long.
    after: Option<Duration>,
}

/// Whether another try makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
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
        match &self.to {
            To::Webhook(webhook) => patiently(webhook.send(&letter)).await,
            To::Slack(slack) => patiently(slack.send(&letter)).await,
            To::Email(email) => patiently(email.send(&letter)).await,
            // It may have much to say, each of it with patience.
            To::PagerDuty(pagerduty) => pagerduty.send(&letter, &self.interest()).await,
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

/// What is asked of the listener.
enum Ask {
    /// A lane has room again for what it could not take.
    Look,
    /// To answer when everything that was recorded before is with the lanes.
    Heard(oneshot::Sender<()>),
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
            let (history, all, asked) = (history.clone(), lanes.clone(), Arc::new(AsyncMutex::new(asked)));
            // From this very moment on.
            let mut told = Some(history.listen());
            tasks.spawn(kept("the listener", move || {
                let told = told.take().unwrap_or_else(|| history.listen());
                let listener = Listener { history: history.clone(), lanes: all.clone(), known: Known::default() };
                listener.listen(told, Arc::clone(&asked))
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

/// The one task that reads histories for all channels.
struct Listener {
    history: History,
    lanes: BTreeMap<String, Arc<Lane>>,
    known: Known,
}

impl Listener {
    async fn listen(mut self, mut told: Receiver<Arc<Event>>, asked: Arc<AsyncMutex<mpsc::UnboundedReceiver<Ask>>>) {
        let mut asked = asked.lock().await;
        // They end with this task.
        let mut at_work = JoinSet::new();
        for lane in self.lanes.values() {
            if insist("a channel", || lane.open()).await.is_none() {
                continue;
            }
            lane.warn_of_missing_secrets().await;
            let lane = Arc::clone(lane);
            at_work.spawn(kept("a channel", move || Arc::clone(&lane).work()));
        }
        self.look().await;
        loop {
            tokio::select! {
                biased;
                heard = told.recv() => match heard {
                    Ok(event) => self.hear(&event).await,
                    Err(RecvError::Lagged(missed)) => {
                        tracing::warn!(missed, "facts came faster than notices could be made of them: reading them again");
                        self.look().await;
                    }
                    Err(RecvError::Closed) => return,
                },
                ask = asked.recv() => match ask {
                    Some(Ask::Look) => self.look().await,
                    Some(Ask::Heard(answer)) => drop(answer.send(())),
                    None => return,
                },
            }
        }
    }

    /// Takes the next fact as it is told.
    async fn hear(&mut self, event: &Event) {
        if self.known.lacks(event) {
            let history = &self.history;
            let earlier = insist(&event.stream, || history.read(&event.stream, 0)).await.unwrap_or_default();
            for earlier in earlier.iter().take_while(|earlier| earlier.seq < event.seq) {
                self.known.take(earlier);
            }
        }
        if let Some(notice) = self.known.take(event) {
            self.offer(notice);
        }
    }

    fn offer(&self, notice: Notice) {
        let notice = Arc::new(notice);
        for lane in self.lanes.values() {
            lane.offer(&notice);
        }
    }

    /// Looks through the histories for what is owed. Whatever a lane has or has settled it does not take again.
    async fn look(&mut self) {
        let now_ns = self.history.now().wall_ns;
        let oldest_ns = self.lanes.values().map(|lane| lane.horizon_ns(now_ns)).min().unwrap_or(now_ns);
        let history = &self.history;
        let streams = insist("the streams", || streams(history, oldest_ns)).await.unwrap_or_default();
        let (mut known, mut owed) = (Known::default(), Vec::new());
        for stream in &streams {
            let events = insist(stream, || events(history, stream, oldest_ns)).await.unwrap_or_default();
            let told = events.iter().filter_map(|event| known.take(event));
            // Whatever was done to the clock meanwhile, those of one stream keep their order.
            let mut last_ns = i64::MIN;
            for notice in told.filter(|notice| notice.at.wall_ns >= oldest_ns) {
                last_ns = last_ns.max(notice.at.wall_ns);
                owed.push((last_ns, notice));
            }
        }
        self.known = known;
        for lane in self.lanes.values() {
            lane.make_room();
        }
        owed.sort_by_key(|(at_ns, _)| *at_ns);
        for (_, notice) in owed {
            self.offer(notice);
        }
    }
}

/// Does a work that does not end, anew after a bug; nothing of it is left when this is dropped.
async fn kept<F>(what: &'static str, mut work: impl FnMut() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let mut task = JoinSet::new();
        task.spawn(work());
        match task.join_next().await {
            Some(Err(bug)) if bug.is_panic() => {
                tracing::error!(what, %bug, "a bug in the controller: notices are taken up anew");
            }
            _ => return,
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Tries until it succeeds, since a disk that is full does not stay so. `None`: it never will.
async fn insist<T, F>(what: &str, mut attempt: impl FnMut() -> F) -> Option<T>
where
    F: Future<Output = Result<T, HistoryError>>,
{
    loop {
        match attempt().await {
            Ok(done) => return Some(done),
            Err(error @ HistoryError::Store(StoreError::Full { .. } | StoreError::Failed { .. })) => {
                tracing::error!(what, %error, "notices wait until the history can be used again");
            }
            Err(error) => {
                tracing::error!(what, %error, "nothing is told of it");
                return None;
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The streams in which something not older than that may be.
async fn streams(history: &History, oldest_ns: i64) -> Result<Vec<String>, HistoryError> {
    let store = history.store();
    let runs = store.runs(usize::MAX).await?;
    let recent = runs.iter().filter(|(row, _)| row.ended_wall_ns.is_none_or(|ended| ended >= oldest_ns));
    let mut streams: Vec<String> = recent.map(|(row, _)| stream_of(&row.run)).collect();
    for kind in ["host/", "schedule/", "audit/"] {
        streams.extend(store.streams(kind).await?);
    }
    Ok(streams)
}

/// The facts of a stream that are not older than that, and as many before as are needed to tell them.
async fn events(history: &History, stream: &str, oldest_ns: i64) -> Result<Vec<Event>, HistoryError> {
    if stream.starts_with("run/") {
        return history.read(stream, 0).await;
    }
    let enough = |events: &[Event]| events.first().is_some_and(|first| first.received.wall_ns < oldest_ns);
    let recent = recent(history, stream, enough).await?;
    let known = Known::default();
    if recent.iter().any(|event| known.lacks(event)) { history.read(stream, 0).await } else { Ok(recent) }
}

/// The last facts of a stream in their order, going back until those at hand are `enough` or there are no more.
async fn recent(
    history: &History,
    stream: &str,
    enough: impl Fn(&[Event]) -> bool,
) -> Result<Vec<Event>, HistoryError> {
    let mut end = history.store().head(stream).await?.seq;
    let mut events: Vec<Event> = Vec::new();
    while end > 0 && !enough(&events) {
        let start = end.saturating_sub(PAGE);
        let page = history.read_part(stream, start, (end - start) as usize).await?;
        events.splice(0..0, page);
        end = start;
    }
    Ok(events)
}

#[cfg(test)]
mod tests;
