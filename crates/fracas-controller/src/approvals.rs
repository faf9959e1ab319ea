//! Approvals at work: one stream for each request, folded in memory. What holds and why is the model's business.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fracas_model::{
    approval::{About, Asked, Fact, Request, Standing, Subject, wanting},
    event::Body,
    id::RunId,
    plan::Refusal,
};
use tokio::sync::Mutex as AsyncMutex;

use crate::{
    chain::hex,
    history::{Extra, History, HistoryError},
};

/// Most requests that are kept at hand; of those that are over the oldest make room, and stay in the history.
const MOST: usize = 10_000;
/// Most open ones of whoever asks.
const MOST_OF_ONE: usize = 100;
/// Most bytes of documents that are kept at hand.
const BYTES: usize = 64 << 20;

/// Why a request was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ApprovalError {
    /// There is none of that id.
    #[error("no approval {0:?} here: `fracas approval list` names them")]
    Unknown(String),
    /// The id is the start of several.
    #[error("{0:?} is the start of several approvals: write more of it")]
    Several(String),
    /// It cannot be changed so, now.
    #[error("{0}")]
    Not(String),
    /// What was shown is not what was asked.
    #[error("what you were shown is not what was asked: look at it again with `fracas approval show`")]
    OtherDigest,
    /// Whoever asks has too many open.
    #[error(
        "you have {MOST_OF_ONE} open approvals: withdraw some (`fracas approval withdraw ID`), use them, or wait until they \
         expire"
    )]
    TooManyOfOne,
    /// There are too many open, or their documents are too large together.
    #[error(
        "the open approvals are as many, or their documents as large together, as the controller keeps at hand: have some \
         withdrawn (`fracas approval list`, `fracas approval withdraw ID`), or wait until some expire"
    )]
    TooMany,
    /// The history cannot be written or read.
    #[error(transparent)]
    History(#[from] HistoryError),
}

/// All requests of a controller. Clones are one and the same.
#[derive(Clone, Debug)]
pub struct Approvals {
    history: History,
    /// With the number of each one's last record.
    requests: Arc<Mutex<BTreeMap<String, (u64, Request)>>>,
    /// Held from the look at a request until the change of it is recorded.
    changing: Arc<AsyncMutex<()>>,
}

/// Name of the stream of a request.
pub fn stream_of(id: &str) -> String {
    format!("approval/{id}")
}

impl Approvals {
    /// None yet.
    pub fn new(history: History) -> Self {
        Self { history, requests: Arc::default(), changing: Arc::default() }
    }

    /// Takes up those of the history.
    pub async fn resume(&self) -> Result<(), HistoryError> {
        for stream in self.history.store().streams("approval/").await? {
            let id = stream.trim_start_matches("approval/").to_owned();
            for event in self.history.read(&stream, 0).await? {
                self.take(&id, event.seq, &event.body);
            }
            self.make_room(0);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, (u64, Request)>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, id: &str, seq: u64, body: &Body) {
        let Body::Approval { fact, at } = body else { return };
        let mut requests = self.lock();
        let (known, request) = requests.entry(id.to_owned()).or_default();
        *known = seq;
        request.apply(fact, at.wall_ns);
    }

    /// Lets go of those that are over, the oldest first, until there is room for one more of so many bytes. False: there
    /// is none, because too many are open.
    fn make_room(&self, bytes: usize) -> bool {
        let now_ns = self.history.now().wall_ns;
        let size = |request: &Request| request.asked.as_ref().map_or(0, |asked| asked.size());
        let mut requests = self.lock();
        let mut kept: usize = requests.values().map(|(_, request)| size(request)).sum();
        if requests.len() < MOST && kept + bytes <= BYTES {
            return true;
        }
        let over = requests.iter().filter(|(_, (_, request))| !request.is_open(now_ns));
        let mut over: Vec<(i64, String)> = over.map(|(id, (_, request))| (request.at_ns, id.clone())).collect();
        over.sort_unstable();
        for (_, id) in over {
            if requests.len() < MOST && kept + bytes <= BYTES {
                break;
            }
            kept -= requests.remove(&id).map_or(0, |(_, request)| size(&request));
        }
        requests.len() < MOST && kept + bytes <= BYTES
    }

    /// Every request that is kept at hand, by id. Their documents are shared.
    pub fn all(&self) -> Vec<(String, Request)> {
        self.lock().iter().map(|(id, (_, request))| (id.clone(), request.clone())).collect()
    }

    /// The one of this id, or of which this is the only start.
    pub fn find(&self, id: &str) -> Result<(String, Request), ApprovalError> {
        let requests = self.lock();
        let mut found = requests.range(id.to_owned()..).take_while(|(known, _)| known.starts_with(id));
        let first = found.next().ok_or_else(|| ApprovalError::Unknown(id.to_owned()))?;
        // What is written whole comes before what it is the start of.
        if first.0 != id && (id.is_empty() || found.next().is_some()) {
            return Err(ApprovalError::Several(id.to_owned()));
        }
        Ok((first.0.clone(), first.1.1.clone()))
    }

    /// Asks for an approval.
    pub async fn ask(&self, asked: Asked, by: &str) -> Result<(String, Request), ApprovalError> {
        let _changing = self.changing.lock().await;
        let now_ns = self.history.now().wall_ns;
        let open = |request: &Request| request.by == by && request.is_open(now_ns);
        if self.lock().values().filter(|(_, request)| open(request)).count() >= MOST_OF_ONE {
            return Err(ApprovalError::TooManyOfOne);
        }
        if !self.make_room(asked.size()) {
            return Err(ApprovalError::TooMany);
        }
        let id = {
            let requests = self.lock();
            loop {
                let id = format!("a-{}", hex(&crate::identity::random::<4>()));
                if !requests.contains_key(&id) {
                    break id;
                }
            }
        };
        self.record(&id, Fact::Asked { asked: Box::new(asked), by: by.to_owned() }).await
    }

    /// Agrees to exactly what has this digest.
    pub async fn approve(
        &self,
        id: &str,
        digest: &str,
        note: &str,
        by: &str,
    ) -> Result<(String, Request), ApprovalError> {
        let _changing = self.changing.lock().await;
        let (id, request) = self.find(id)?;
        self.is(&request, Standing::Waiting)?;
        request.may_approve(by).map_err(ApprovalError::Not)?;
        if request.digest().as_deref() != Some(digest) {
            return Err(ApprovalError::OtherDigest);
        }
        let (by, digest, note) = (by.to_owned(), digest.to_owned(), note.to_owned());
        self.record(&id, Fact::Approved { by, digest, note }).await
    }

    /// Does not agree, also to what others have approved: that is the end of it.
    pub async fn reject(&self, id: &str, reason: &str, by: &str) -> Result<(String, Request), ApprovalError> {
        let _changing = self.changing.lock().await;
        let (id, request) = self.find(id)?;
        if self.is(&request, Standing::Waiting).is_err() {
            self.is(&request, Standing::Approved)?;
        }
        self.record(&id, Fact::Rejected { by: by.to_owned(), reason: reason.to_owned() }).await
    }

    /// Whoever asked takes it back.
    pub async fn withdraw(&self, id: &str, by: &str) -> Result<(String, Request), ApprovalError> {
        let _changing = self.changing.lock().await;
        let (id, request) = self.find(id)?;
        if self.is(&request, Standing::Waiting).is_err() {
            self.is(&request, Standing::Approved)?;
        }
        self.record(&id, Fact::Withdrawn { by: by.to_owned() }).await
    }

    fn is(&self, request: &Request, standing: Standing) -> Result<(), ApprovalError> {
        let now = request.standing(self.history.now().wall_ns);
        if now == standing {
            return Ok(());
        }
        Err(ApprovalError::Not(format!("it is {}: ask for a new one", now.word())))
    }

    /// Whoever calls holds `changing`.
    async fn record(&self, id: &str, fact: Fact) -> Result<(String, Request), ApprovalError> {
        let body = Body::Approval { fact, at: self.history.now() };
        let expected = self.lock().get(id).map_or(0, |(seq, _)| *seq);
        let extra = Extra { expected: Some(expected), ..Extra::default() };
        let events = self.history.append_with(&stream_of(id), vec![body], extra).await?;
        for event in &events {
            self.take(id, event.seq, &event.body);
        }
        let request = self.lock().get(id).map(|(_, request)| request.clone()).unwrap_or_default();
        Ok((id.to_owned(), request))
    }

    /// The seed by which the hosts of an approved plan of this document were drawn.
    pub fn seed(&self, intent: &str, environment: &str) -> Option<u64> {
        let now_ns = self.history.now().wall_ns;
        let fits = |request: &Request| {
            let asked = request.asked.as_ref()?;
            let same = asked.intent == intent && asked.environment == environment;
            let holds = request.standing(now_ns) == Standing::Approved;
            match &asked.subject {
                Subject::Plan { seed, .. } if same && holds => Some((request.at_ns, *seed)),
                _ => None,
            }
        };
        // An older one may be of a fleet that has changed since.
        self.lock().values().filter_map(|(_, request)| fits(request)).max().map(|(_, seed)| seed)
    }

    /// The request that lets a run start, with the number of its last record.
    ///
    /// # Errors
    /// Why there is none, for whoever wants to start it.
    pub fn covering(&self, about: &About<'_>, rules: &[&str]) -> Result<(String, u64), Box<Refusal>> {
        let now_ns = self.history.now().wall_ns;
        let requests = self.lock();
        let all = || requests.iter().map(|(id, (_, request))| (id.as_str(), request));
        let found = requests.iter().find(|(_, (_, request))| request.covers(about, now_ns));
        match found {
            Some((id, (seq, _))) => Ok((id.clone(), *seq)),
            None => Err(Box::new(wanting(all(), about, rules, now_ns).expect("none covers it"))),
        }
    }

    /// A run was started by a request: `seq` is the number of the record that says so.
    pub fn used(&self, id: &str, seq: u64, run: &RunId) {
        let mut requests = self.lock();
        let (known, request) = requests.entry(id.to_owned()).or_default();
        *known = seq;
        request.apply(&Fact::Used { run: run.clone() }, 0);
    }
}

#[cfg(test)]
mod tests;
