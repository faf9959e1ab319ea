//! Links by which calendar programs, which cannot send tokens, read what schedules will do. The history says which were made
//! and revoked, a key in the data directory signs them; what they show is the model's.
//!
//! ```text
//! MakeFeed -> audited -> link, signed          GET link -> signature, expiry, revocation -> schedule::feed -> text/calendar
//! ```

mod http;
mod key;
mod link;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use fracas_model::{
    access::Right,
    event::{Body, Event},
    schedule::{self, State},
};

pub(crate) use self::http::calendar;
pub use self::{http::PATH, key::FeedKey};
use self::{key::LONGEST_QUERY, link::Link};
use crate::{
    history::{History, HistoryError},
    people::People,
    schedules::{ScheduleError, Schedules},
};

/// Life of a link when none is asked for, and the longest, seconds.
pub const FEED_SECONDS: (u32, u32) = (365 * 86_400, 10 * 366 * 86_400);
/// Random bytes of a link's id.
const ID_BYTES: usize = 8;

/// The id of a link, of what may be the whole of it or the id alone. Empty: there is none in it.
pub fn public_part(text: &str) -> &str {
    let text = text.trim();
    let query = text.split_once('?').map_or(text, |(_, query)| query);
    let id = query.split('&').find_map(|pair| pair.strip_prefix("id=")).unwrap_or(text);
    let fits = id.len() == 2 * ID_BYTES && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if fits { id } else { "" }
}

/// The links of a controller. Clones are one and the same.
#[derive(Clone, Debug)]
pub struct Feeds {
    history: History,
    schedules: Schedules,
    people: Option<People>,
    audit: String,
    key: Arc<FeedKey>,
    links: Arc<Mutex<Links>>,
    reached: Arc<Reached>,
    /// One calendar at a time is written, off the runtime's threads.
    turn: Arc<tokio::sync::Semaphore>,
}

/// How clients reach the front listener, as far as the controller was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Names and addresses, the first one first.
    pub names: Vec<String>,
    /// Its port.
    pub port: u16,
}

/// The links that were made, by id: a fold over the audit stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links(BTreeMap<String, Made>);

/// A link as the history has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Its id.
    pub id: String,
    /// Whose schedules it shows.
    pub environment: String,
    /// Only this one; empty: all of the environment.
    pub schedule: String,
    /// Who made it.
    pub by: String,
    /// When, wall time, nanoseconds since the Unix epoch.
    pub made_ns: i64,
    /// Until when.
    pub expires_ns: i64,
    /// Why it opens nothing any more, and who said so.
    pub revoked: Option<(String, String)>,
}

/// Why a link was not made or revoked.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// There is none of that id.
    #[error("no link {0:?} here: `fracas schedule feed --list` names those there are")]
    Unknown(String),
    /// The environment's name cannot stand in a link.
    #[error("the name of the environment is too long for a link")]
    TooLong,
    /// The schedule is elsewhere.
    #[error("schedule {name} is in environment {environment}: ask with `--environment {environment}`, or with none")]
    Elsewhere {
        /// The schedule.
        name: String,
        /// Its environment.
        environment: String,
    },
    /// There is no such schedule.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// The history cannot be written or read.
    #[error(transparent)]
    History(#[from] HistoryError),
}

impl Links {
    /// Takes one event of the audit stream; others than those of links change nothing.
    pub fn apply(&mut self, event: &Event) {
        match &event.body {
            Body::FeedMade { feed, environment, schedule, expires_ns, by, at } => {
                let made = Made {
                    id: feed.clone(),
                    environment: environment.clone(),
                    schedule: schedule.clone(),
                    by: by.clone(),
                    made_ns: at.wall_ns,
                    expires_ns: *expires_ns,
                    revoked: None,
                };
                // The first one counts: an id is never made twice.
                self.0.entry(feed.clone()).or_insert(made);
            }
            Body::FeedRevoked { feed, reason, by, .. } => {
                if let Some(made) = self.0.get_mut(feed) {
                    made.revoked.get_or_insert_with(|| (reason.clone(), by.clone()));
                }
            }
            _ => {}
        }
    }
}

impl Feeds {
    /// Over a history and its schedules; `links` are those of the audit stream so far. Its key ends with the process.
    pub fn new(history: History, schedules: Schedules, audit: String, links: Links) -> Self {
        Self {
            history,
            schedules,
            people: None,
            audit,
            key: Arc::new(FeedKey::passing()),
            links: Arc::new(Mutex::new(links)),
            reached: Arc::default(),
            turn: Arc::new(tokio::sync::Semaphore::new(1)),
        }
    }

    /// The same links, signed by a key that is kept.
    #[must_use]
    pub fn signed_by(self, key: FeedKey, reached: Reached) -> Self {
        Self { key: Arc::new(key), reached: Arc::new(reached), ..self }
    }

    /// The same links, each of which shows what whoever made it may see now.
    #[must_use]
    pub fn answering_to(self, people: People) -> Self {
        Self { people: Some(people), ..self }
    }

    /// How clients reach the page.
    pub fn reached(&self) -> &Reached {
        &self.reached
    }

    /// The environment that is meant where perhaps only a schedule was named.
    pub fn environment(&self, asked: &str, schedule: &str) -> String {
        let of_schedule = || self.schedules.one(schedule).ok().map(|state| state.environment.clone());
        let known = Some(asked.to_owned()).filter(|asked| !asked.is_empty());
        known.or_else(of_schedule).unwrap_or_else(|| "default".to_owned())
    }

    /// Makes a link; what the history has of it, and its path and query.
    pub async fn make(
        &self,
        environment: String,
        schedule: String,
        ttl_seconds: u32,
        by: String,
    ) -> Result<(Made, String), FeedError> {
        if !schedule.is_empty() {
            let known = self.schedules.one(&schedule)?.environment.clone();
            if known != environment {
                return Err(FeedError::Elsewhere { name: schedule, environment: known });
            }
        }
        let at = self.history.now();
        let expires_s = at.wall_ns / 1_000_000_000 + i64::from(ttl_seconds);
        let id = crate::chain::hex(&crate::identity::random::<ID_BYTES>());
        let link = Link { id, environment, schedule, expires_s, key: self.key.id().to_owned() };
        let query = self.key.query(&link);
        if query.len() > LONGEST_QUERY {
            return Err(FeedError::TooLong);
        }
        let made = Body::FeedMade {
            feed: link.id.clone(),
            environment: link.environment,
            schedule: link.schedule,
            expires_ns: expires_s.saturating_mul(1_000_000_000),
            by,
            at,
        };
        let made = self.record(&link.id, made).await?;
        Ok((made, format!("{PATH}?{query}")))
    }

    /// A link by its id.
    pub fn one(&self, id: &str) -> Result<Made, FeedError> {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.0.get(id).cloned().ok_or_else(|| FeedError::Unknown(id.to_owned()))
    }

    /// Every link that has not expired, the newest last.
    pub fn all(&self) -> Vec<Made> {
        let now_ns = self.history.now().wall_ns;
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<Made> = links.0.values().filter(|made| now_ns < made.expires_ns).cloned().collect();
        all.sort_by(|a, b| (a.made_ns, &a.id).cmp(&(b.made_ns, &b.id)));
        all
    }

    /// From now on the link opens nothing; one that was revoked before stays so.
    pub async fn revoke(&self, id: &str, reason: String, by: String) -> Result<Made, FeedError> {
        let made = self.one(id)?;
        if made.revoked.is_some() {
            return Ok(made);
        }
        self.record(id, Body::FeedRevoked { feed: id.to_owned(), reason, by, at: self.history.now() }).await
    }

    /// Records a fact about a link, and takes it in; whoever asked may have gone away meanwhile.
    async fn record(&self, id: &str, body: Body) -> Result<Made, FeedError> {
        let (feeds, id) = (self.clone(), id.to_owned());
        crate::runs::whole(async move {
            let events = feeds.history.append(&feeds.audit, vec![body]).await?;
            {
                let mut links = feeds.links.lock().unwrap_or_else(PoisonError::into_inner);
                for event in &events {
                    links.apply(event);
                }
            }
            feeds.one(&id)
        })
        .await
    }

    /// What a query opens. Whatever is wrong with it, the same is looked at.
    fn opened(&self, query: &str) -> Option<Link> {
        let now_ns = self.history.now().wall_ns;
        let (link, signed) = self.key.check(query);
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let made = links.0.get(&link.id);
        let in_time = now_ns < link.expires_s.saturating_mul(1_000_000_000);
        // Not even of a link that is signed: the history must have it.
        let alive = made.is_some_and(|made| made.revoked.is_none());
        let sees = |made: &Made| {
            let may = |people: &People| people.still_may(&made.by, Right::View, &made.environment);
            self.people.as_ref().is_none_or(may)
        };
        (signed & in_time & alive & made.is_some_and(sees)).then_some(link)
    }

    /// The calendar of a link.
    fn calendar(&self, link: &Link) -> String {
        let meant = |state: &&Arc<State>| {
            let name = state.schedule.as_ref().map(|rules| rules.name.as_str());
            state.environment == link.environment && (link.schedule.is_empty() || name == Some(&link.schedule))
        };
        let all = self.schedules.all();
        let shown = all.values().filter(meant).map(Arc::as_ref);
        let what = if link.schedule.is_empty() { &link.environment } else { &link.schedule };
        let controller = self.audit.trim_start_matches("audit/");
        schedule::feed(shown, controller, &format!("Fracas: {what}"), self.history.now().wall_ns)
    }
}

#[cfg(test)]
mod tests;
