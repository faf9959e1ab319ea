//! People at work: who is known, what they may, and their access tokens; every change is a fact of the audit stream.
//!
//! A token's secret is never kept, only its digest.
//!
//! ```text
//! fpt1.<id>.<secret>      both hexadecimal, 8 and 32 random bytes
//! ```

mod directory;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fracas_model::{
    access::{self, Fact, Grant, Grants, NotGood, Right},
    event::{Body, Event},
    id::PersonId,
};
use tokio::sync::{Mutex as AsyncMutex, watch};

pub use self::directory::{Directory, DirectoryError, Entry};
use crate::{
    access::Principal,
    chain::{hex, same, sha256},
    history::{History, HistoryError},
};

/// Begins every access token of a person, so that people and secret scanners know one.
pub const PREFIX: &str = "fpt1";

/// The public part of a token, of what may be the whole of it or that part alone.
pub fn public_part(text: &str) -> &str {
    let rest = text.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('.'));
    rest.and_then(|rest| rest.split('.').next()).unwrap_or(text)
}
/// Most tokens and people of a controller.
const MOST: usize = 100_000;

/// Why people were not changed.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    /// There is none of that name.
    #[error("nobody is called {0:?} here: `fracas people list` names everybody")]
    Unknown(String),
    /// The name is taken.
    #[error("somebody is called {0:?} already")]
    Known(String),
    /// The identity provider's name for them is somebody's already.
    #[error("somebody signs in as this one already")]
    SubjectKnown,
    /// There is no such token.
    #[error("no token {0:?} here: `fracas people token list` names them")]
    NoToken(String),
    /// There are too many.
    #[error("there are {MOST} already")]
    TooMany,
    /// Names and addresses could not be kept.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The history cannot be written or read.
    #[error(transparent)]
    History(#[from] HistoryError),
}

/// A person as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The pseudonym.
    pub id: PersonId,
    /// Names and address; empty when they were erased.
    pub entry: Entry,
    /// What they may.
    pub grants: Grants,
    /// They may do nothing any more.
    pub removed: bool,
}

/// An access token as its maker gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeToken {
    /// What is shown with each call.
    pub text: String,
    /// Public part.
    pub id: String,
}

/// Everybody who may call. Clones are one and the same.
#[derive(Clone, Debug)]
pub struct People {
    history: History,
    audit: String,
    directory: Arc<Directory>,
    state: Arc<Mutex<access::People>>,
    /// Held from the look at the state until the change of it is recorded.
    changing: Arc<AsyncMutex<()>>,
    changed: watch::Sender<()>,
}

impl People {
    /// As the audit stream's `events` tell them.
    pub fn new(history: History, audit: &str, directory: Directory, events: &[Event]) -> Self {
        let mut state = access::People::default();
        for event in events {
            if let Body::Access { fact, .. } = &event.body {
                state.apply(fact);
            }
        }
        Self {
            history,
            audit: audit.to_owned(),
            directory: Arc::new(directory),
            state: Arc::new(Mutex::new(state)),
            changing: Arc::default(),
            changed: watch::Sender::new(()),
        }
    }

    /// The same people, whose names are kept in another place.
    #[must_use]
    pub fn named_in(self, directory: Directory) -> Self {
        Self { directory: Arc::new(directory), ..self }
    }

    fn lock(&self) -> MutexGuard<'_, access::People> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose a token is.
    pub fn whose(&self, text: &str) -> Result<Principal, NotGood> {
        let (id, digest) = parse(text).ok_or(NotGood::Unknown)?;
        let now_ns = self.history.now().wall_ns;
        let state = self.lock();
        let equal = |a: &str, b: &str| same(a.as_bytes(), b.as_bytes());
        let (person, known) = state.whose(id, &digest, now_ns, equal)?;
        Ok(Principal { id: person.to_string(), grants: known.grants.clone(), token: Some(id.to_owned()) })
    }

    /// Whether a token that was good is good still, and with it what its bearer is just being shown.
    pub fn stands(&self, principal: &Principal) -> bool {
        let Some(token) = &principal.token else { return true };
        let state = self.lock();
        let digest = state.tokens.get(token).map(|token| token.secret_digest.clone()).unwrap_or_default();
        let whose = state.whose(token, &digest, self.history.now().wall_ns, |a, b| a == b);
        whose.is_ok_and(|(_, person)| person.grants == principal.grants)
    }

    /// Whether somebody, by pseudonym, has a right now.
    pub fn still_may(&self, id: &str, right: Right, environment: &str) -> bool {
        if id == access::ADMIN {
            return true;
        }
        let state = self.lock();
        let person = state.people.get(&PersonId::from(id));
        person.is_some_and(|person| !person.removed && person.grants.allow(right, environment))
    }

    /// How long the principal's token is still good; `None`: it does not expire.
    pub fn expires_in(&self, principal: &Principal) -> Option<Duration> {
        let expires_ns = self.lock().tokens.get(principal.token.as_ref()?)?.expires_ns;
        Some(Duration::from_nanos(expires_ns.saturating_sub(self.history.now().wall_ns).max(0).unsigned_abs()))
    }

    /// Wakes whenever somebody's rights or tokens have changed.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Everybody, those who were removed too.
    pub fn all(&self) -> Vec<Known> {
        let people = self.lock().people.clone();
        let known = people.into_iter().map(|(id, person)| {
            let entry = self.directory.entry(&id).unwrap_or_default();
            Known { id, entry, grants: person.grants, removed: person.removed }
        });
        known.collect()
    }

    /// Every token with its public part.
    pub fn tokens(&self) -> Vec<(String, access::Token)> {
        self.lock().tokens.iter().map(|(id, token)| (id.clone(), token.clone())).collect()
    }

    /// The one of this handle or pseudonym.
    pub fn find(&self, name: &str) -> Result<Known, PeopleError> {
        let unknown = || PeopleError::Unknown(name.to_owned());
        let mut found: Vec<Known> = self.all();
        // Those who were erased are called nothing.
        found.retain(|known| (!name.is_empty() && known.entry.handle == name) || known.id.as_str() == name);
        // Somebody else may be called by now as one was who has left.
        found.sort_by_key(|known| known.removed);
        found.into_iter().next().ok_or_else(unknown)
    }

    /// Whoever an identity provider knows by this name.
    pub fn by_subject(&self, subject: &str) -> Option<Known> {
        self.all().into_iter().find(|known| !known.removed && known.entry.subject.as_deref() == Some(subject))
    }

    /// Whether whoever an identity provider knows by this name was removed, erased or not, and is not here again.
    pub fn was_removed(&self, subject: &str) -> bool {
        let digest = directory::subject_digest(subject);
        let same = |entry: &Entry| {
            entry.subject.as_deref() == Some(subject) || entry.subject_digest.as_deref() == Some(digest.as_str())
        };
        self.by_subject(subject).is_none() && self.all().iter().any(|known| known.removed && same(&known.entry))
    }

    /// A new person, with these roles.
    pub async fn add(&self, entry: Entry, grants: Grants, by: &str) -> Result<Known, PeopleError> {
        let _changing = self.changing.lock().await;
        let all = self.all();
        if all.iter().any(|known| !known.removed && known.entry.handle == entry.handle) {
            return Err(PeopleError::Known(entry.handle));
        }
        let same = |known: &&Known| !known.removed && known.entry.subject == entry.subject;
        if entry.subject.is_some() && all.iter().any(|known| same(&known)) {
            return Err(PeopleError::SubjectKnown);
        }
        if all.len() >= MOST {
            return Err(PeopleError::TooMany);
        }
        let id = loop {
            let id = PersonId::generate(u32::from_le_bytes(crate::identity::random()));
            if !all.iter().any(|known| known.id == id) {
                break id;
            }
        };
        // First the name: one without a person is nothing, a person without a name could not be found.
        self.directory.set(&id, entry.clone())?;
        let given = grants.0.iter().map(|grant| Fact::Granted { person: id.clone(), grant: grant.clone() });
        let facts = std::iter::once(Fact::PersonAdded { person: id.clone() }).chain(given).collect();
        self.record(facts, by).await?;
        Ok(Known { id, entry, grants, removed: false })
    }

    /// Gives or takes a role.
    pub async fn grant(&self, name: &str, grant: Grant, give: bool, by: &str) -> Result<Known, PeopleError> {
        let _changing = self.changing.lock().await;
        let person = self.find(name)?.id;
        let fact = if give { Fact::Granted { person, grant } } else { Fact::GrantTaken { person, grant } };
        self.record(vec![fact], by).await?;
        self.find(name)
    }

    /// All roles are these, if they are not already.
    pub async fn set_grants(&self, person: &PersonId, grants: Grants, source: &str) -> Result<(), PeopleError> {
        let _changing = self.changing.lock().await;
        if self.lock().people.get(person).is_some_and(|known| known.grants == grants) {
            return Ok(());
        }
        let fact = Fact::GrantsSet { person: person.clone(), grants, source: source.to_owned() };
        self.record(vec![fact], person.as_str()).await
    }

    /// Ends everything a person may do; `erase` forgets names and address too.
    pub async fn remove(&self, name: &str, reason: &str, erase: bool, by: &str) -> Result<Known, PeopleError> {
        let _changing = self.changing.lock().await;
        let mut known = self.find(name)?;
        if !known.removed {
            let fact = Fact::PersonRemoved { person: known.id.clone(), reason: reason.to_owned() };
            self.record(vec![fact], by).await?;
        }
        if erase {
            self.directory.erase(&known.id)?;
            known.entry = Entry::default();
        }
        known.removed = true;
        Ok(known)
    }

    /// Makes an access token that is good until `expires_ns`.
    pub async fn make_token(
        &self,
        person: &PersonId,
        expires_ns: i64,
        note: &str,
        by: &str,
    ) -> Result<MadeToken, PeopleError> {
        let _changing = self.changing.lock().await;
        let good = self.lock().people.get(person).is_some_and(|known| !known.removed);
        if !good {
            return Err(PeopleError::Unknown(person.to_string()));
        }
        if self.lock().tokens.len() >= MOST {
            return Err(PeopleError::TooMany);
        }
        let (id, secret) = (hex(&crate::identity::random::<8>()), hex(&crate::identity::random::<32>()));
        let fact = Fact::TokenMade {
            token: id.clone(),
            person: person.clone(),
            secret_digest: digest(&secret),
            expires_ns,
            note: note.to_owned(),
        };
        self.record(vec![fact], by).await?;
        Ok(MadeToken { text: format!("{PREFIX}.{id}.{secret}"), id })
    }

    /// A token opens nothing any more, and what it opened ends.
    pub async fn revoke(&self, token: &str, reason: &str, by: &str) -> Result<(), PeopleError> {
        let _changing = self.changing.lock().await;
        if !self.lock().tokens.contains_key(token) {
            return Err(PeopleError::NoToken(token.to_owned()));
        }
        let fact = Fact::TokenRevoked { token: token.to_owned(), reason: reason.to_owned() };
        self.record(vec![fact], by).await
    }

    /// Whoever calls holds `changing`.
    async fn record(&self, facts: Vec<Fact>, by: &str) -> Result<(), PeopleError> {
        let at = self.history.now();
        let body = |fact: &Fact| Body::Access { fact: fact.clone(), by: by.to_owned(), at: at.clone() };
        self.history.append(&self.audit, facts.iter().map(body).collect()).await?;
        let mut state = self.lock();
        for fact in &facts {
            state.apply(fact);
        }
        drop(state);
        self.changed.send_replace(());
        Ok(())
    }
}

/// Public part and digest of the secret of a token's text.
fn parse(text: &str) -> Option<(&str, String)> {
    let mut parts = text.trim().split('.');
    let (prefix, id, secret) = (parts.next()?, parts.next()?, parts.next()?);
    let right = prefix == PREFIX && id.len() == 16 && secret.len() == 64 && parts.next().is_none();
    right.then(|| (id, digest(secret)))
}

fn digest(secret: &str) -> String {
    hex(&sha256(secret.as_bytes()))
}

#[cfg(test)]
mod tests;
