//! What alerting tools tell: taken from them over HTTP, and recorded in every run that goes on in an environment in which
//! whoever tells may. What it means is the model's.
//!
//! ```text
//! POST /signals/alertmanager -> token -> read, bounded -> what a run has not heard of -> events -> committed -> 200
//! ```
//! An answer of 200 comes after the commit: a source that hears anything else tells it again, and what is told twice is
//! recorded once.

mod http;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fracas_model::{
    access::Right,
    event::{Body, Event},
    experiment::Experiment,
    id::RunId,
    signal::{AlertState, Matchers, Signal, Told},
    time::Stamp,
};
use tokio::sync::Mutex;

pub(crate) use self::http::{PATH, door};
use crate::{
    access::{Authenticated, Principal},
    driver::stream_of,
    history::{Extra, History, HistoryError},
    runs::Runs,
    store::StoreError,
};

/// What the events call who told it.
const SOURCE: &str = "alertmanager";
/// Most alerts that one run records without a rule that knows them: a storm of others must not fill the history.
const MOST_UNKNOWN: usize = 1000;
/// Most that it records with one.
const MOST_KNOWN: usize = 100_000;
/// Most bytes of a history that alerts of one run take, about.
const MOST_BYTES: usize = 64 << 20;
/// Most bytes of one event, about.
const MOST_AT_ONCE: usize = 128 << 10;

/// Where alerts come in. Clones are one and the same.
#[derive(Clone)]
pub(crate) struct Signals(Arc<Inner>);

struct Inner {
    runs: Runs,
    history: History,
    doors: Authenticated,
    /// What each run that goes on has heard of.
    heard: Mutex<BTreeMap<RunId, Heard>>,
}

/// What one run has heard of: a fold over its history.
#[derive(Default)]
struct Heard {
    seq: u64,
    environment: Option<String>,
    rules: Vec<Matchers>,
    /// Two of a cluster tell the same, so it does not matter who did.
    signals: BTreeSet<(String, i64, AlertState)>,
    unknown: usize,
    bytes: usize,
    /// It is known that some were left out.
    left_out: bool,
    over: bool,
}

/// What became of what was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Taken {
    /// Runs that go on where it may be told.
    runs: usize,
    /// Alerts that at least one of them had not heard of.
    news: usize,
}

impl Signals {
    /// Over these runs and their histories; `doors` know whose token is whose.
    pub(crate) fn new(runs: Runs, history: History, doors: Authenticated) -> Self {
        Self(Arc::new(Inner { runs, history, doors, heard: Mutex::default() }))
    }

    /// Records what is news to each run.
    async fn take(&self, by: &Principal, told: &Told, at: &Stamp) -> Result<Taken, HistoryError> {
        let (mut taken, mut failed) = (Taken::default(), None);
        let mut heard = self.0.heard.lock().await;
        let active = self.0.runs.active();
        heard.retain(|run, _| active.contains(run));
        for run in active {
            let known = heard.entry(run.clone()).or_default();
            // One run whose history is broken does not keep it from the others.
            match self.tell(&run, known, by, told, at).await {
                Ok(Some(news)) => {
                    taken.runs += 1;
                    taken.news = taken.news.max(news);
                }
                Ok(None) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(taken), Err)
    }

    /// How much of it was news; `None` where the run is over, or not theirs to tell.
    async fn tell(
        &self,
        run: &RunId,
        heard: &mut Heard,
        by: &Principal,
        told: &Told,
        at: &Stamp,
    ) -> Result<Option<usize>, HistoryError> {
        let stream = stream_of(run);
        loop {
            for event in self.0.history.read(&stream, heard.seq).await? {
                heard.apply(&event);
            }
            let may = heard.environment.as_ref().is_some_and(|environment| by.grants.allow(Right::Signal, environment));
            if heard.over || !may {
                return Ok(None);
            }
            let (signals, left_out) = heard.news(told);
            let news = signals.len();
            // What is left out is told of again and again, and recorded once.
            if news == 0 && (left_out == 0 || heard.left_out) {
                return Ok(Some(0));
            }
            let bodies: Vec<Body> = parts(signals)
                .into_iter()
                .map(|signals| {
                    let (source, by, at) = (SOURCE.to_owned(), by.id.clone(), at.clone());
                    Body::Signalled { source, by, signals, left_out, at }
                })
                .collect();
            let extra = Extra { expected: Some(heard.seq), ..Extra::default() };
            match self.0.history.append_with(&stream, bodies, extra).await {
                Ok(events) => {
                    for event in &events {
                        heard.apply(event);
                    }
                    return Ok(Some(news));
                }
                // Something happened meanwhile: perhaps the end.
                Err(HistoryError::Store(StoreError::Conflict { .. })) => {}
                Err(HistoryError::Closed { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

/// As many events as keep each of them small; one at least.
fn parts(signals: Vec<Signal>) -> Vec<Vec<Signal>> {
    let (mut parts, mut size) = (vec![Vec::new()], 0);
    for signal in signals {
        if size > MOST_AT_ONCE {
            parts.push(Vec::new());
            size = 0;
        }
        size += signal.size();
        if let Some(part) = parts.last_mut() {
            part.push(signal);
        }
    }
    parts
}

impl Heard {
    fn apply(&mut self, event: &Event) {
        self.seq = event.seq;
        match &event.body {
            Body::Planned { document, environment, .. } => {
                self.environment = Some(environment.clone());
                let experiment: Option<Experiment> = serde_json::from_value(document.clone()).ok();
                let rules = experiment.into_iter().flat_map(|one| one.detections.into_values());
                self.rules = rules.map(|rule| Matchers::read(&rule.matching)).collect();
            }
            Body::Signalled { signals, left_out, .. } => {
                self.left_out |= *left_out > 0;
                for signal in signals {
                    self.bytes += signal.size();
                    self.unknown += usize::from(!self.knows(signal));
                    let (id, starts, state) = signal.key();
                    self.signals.insert((id.to_owned(), starts, state));
                }
            }
            Body::Finished { .. } => self.over = true,
            _ => {}
        }
    }

    fn knows(&self, signal: &Signal) -> bool {
        self.rules.iter().any(|rule| rule.fit(&signal.labels))
    }

    /// What is news and has room, and how much has none or could not be read.
    fn news(&self, told: &Told) -> (Vec<Signal>, u64) {
        let (mut news, mut left_out) = (Vec::new(), told.truncated.saturating_add(told.unreadable));
        let mut bytes = self.bytes;
        let mut now: BTreeSet<(&str, i64, AlertState)> = BTreeSet::new();
        let (mut unknown, mut known) = (self.unknown, self.signals.len() - self.unknown.min(self.signals.len()));
        for signal in &told.signals {
            let (id, starts, state) = signal.key();
            let again = self.signals.contains(&(id.to_owned(), starts, state));
            if again || !now.insert((id, starts, state)) {
                continue;
            }
            let (count, most) =
                if self.knows(signal) { (&mut known, MOST_KNOWN) } else { (&mut unknown, MOST_UNKNOWN) };
            if *count >= most || bytes > MOST_BYTES {
                left_out = left_out.saturating_add(1);
                continue;
            }
            *count += 1;
            bytes += signal.size();
            news.push(signal.clone());
        }
        (news, left_out)
    }
}

#[cfg(test)]
mod tests;
