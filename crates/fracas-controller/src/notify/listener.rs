//! Hearing and reading the histories for all channels: each fact as it is recorded, and after a start, or when something was
//! missed, all that may still be owed.
//!
//! It hands notices to lanes and never waits for one.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fracas_model::event::Event;
use tokio::{
    sync::{
        Mutex as AsyncMutex,
        broadcast::{Receiver, error::RecvError},
        mpsc::{UnboundedReceiver, UnboundedSender},
        oneshot,
    },
    task::JoinSet,
};

use super::{
    delivery::Lane,
    derive::{Known, matters},
    notice::Notice,
};
use crate::{
    driver::stream_of,
    history::{History, HistoryError},
    store::StoreError,
};

/// Pause before the next try when the history cannot be used, and after a bug.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// How often a work that hit a bug is begun anew.
const RESTARTS: u32 = 3;
/// Records fetched at once.
const PAGE: u64 = 500;

/// What is asked of the listener.
pub(super) enum Ask {
    /// A lane has room again for what it could not take.
    Look,
    /// To answer when everything that was recorded before is with the lanes.
    Heard(oneshot::Sender<()>),
}

/// What the listener has to do, in this order.
pub(super) enum News {
    /// Something happened.
    Fact(Arc<Event>),
    /// Something happened that was not heard.
    Missed(u64),
    /// See [`Ask`].
    Asked(Ask),
}

/// Hears everything at once and keeps what matters, so that a long look through the histories misses nothing.
pub(super) async fn hear(
    mut told: Receiver<Arc<Event>>,
    mut asked: UnboundedReceiver<Ask>,
    tell: UnboundedSender<News>,
) {
    loop {
        let news = tokio::select! {
            biased;
            heard = told.recv() => match heard {
                Ok(event) if matters(&event.body) => News::Fact(event),
                Ok(_) => continue,
                Err(RecvError::Lagged(missed)) => News::Missed(missed),
                Err(RecvError::Closed) => return,
            },
            ask = asked.recv() => match ask {
                Some(ask) => News::Asked(ask),
                None => return,
            },
        };
        if tell.send(news).is_err() {
            return;
        }
    }
}

/// The one task that reads histories for all channels.
pub(super) struct Listener {
    history: History,
    lanes: BTreeMap<String, Arc<Lane>>,
    known: Known,
}

impl Listener {
    pub(super) fn new(history: History, lanes: BTreeMap<String, Arc<Lane>>) -> Self {
        Self { history, lanes, known: Known::default() }
    }

    /// Opens the lanes and keeps them supplied.
    pub(super) async fn work(mut self, news: Arc<AsyncMutex<UnboundedReceiver<News>>>) {
        let mut news = news.lock().await;
        // They end with this task.
        let mut at_work = JoinSet::new();
        for lane in self.lanes.values() {
            if insist("a channel", || lane.open()).await.is_none() {
                lane.is_broken("its history cannot be used: see the controller's log");
                continue;
            }
            lane.warn_of_missing_secrets().await;
            let lane = Arc::clone(lane);
            at_work.spawn(kept("a channel", move || Arc::clone(&lane).work()));
        }
        self.look().await;
        while let Some(next) = news.recv().await {
            match next {
                News::Fact(event) => self.take(&event).await,
                News::Missed(missed) => {
                    tracing::warn!(missed, "facts came faster than they could be heard: they are read again");
                    self.look().await;
                }
                News::Asked(Ask::Look) => self.look().await,
                News::Asked(Ask::Heard(answer)) => drop(answer.send(())),
            }
        }
    }

    /// Takes the next fact as it is told.
    async fn take(&mut self, event: &Event) {
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
pub(super) async fn kept<F>(what: &'static str, mut work: impl FnMut() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    for _ in 0..=RESTARTS {
        let mut task = JoinSet::new();
        task.spawn(work());
        match task.join_next().await {
            Some(Err(bug)) if bug.is_panic() => {
                tracing::error!(what, %bug, "a bug in the controller: notices are taken up anew");
            }
            _ => return,
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }
    tracing::error!(what, "a bug in the controller: no more notices until its next start");
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
        tokio::time::sleep(TRY_AGAIN).await;
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
pub(super) async fn recent(
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
