//! Signing in with an identity provider: OAuth 2.0's device flow (RFC 8628) with OpenID Connect, from which an access token
//! of ours comes.
//!
//! The controller speaks with the provider, so that its secret stays here; the person's browser does too; the command line
//! only shows a code and waits. What somebody may is settled anew at each sign-in, from the provider's claims.
//!
//! ```text
//! begin  ->  provider: a code  ->  the person types it in a browser, and agrees
//! finish ->  provider: not yet | no | an ID token, signed  ->  claims  ->  person and roles  ->  access token
//! ```

mod claims;
mod keys;
mod provider;
mod settings;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

pub use self::settings::{Settings, read, shape, written};
use self::{
    claims::Claims,
    keys::Keys,
    provider::{Answer, Provider, ProviderError},
};
use crate::{
    history::History,
    people::{Entry, Known, People, PeopleError},
};

/// Sign-ins under way at once. Whoever begins one is still a stranger.
const PENDING: usize = 256;
/// Pace of asking the provider when it names none (RFC 8628, 3.2).
const INTERVAL: Duration = Duration::from_secs(5);
/// Longest life of a code, whatever the provider says.
const LONGEST: Duration = Duration::from_mins(30);

/// Why nobody is signed in.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// This controller knows no provider.
    #[error(
        "this controller knows no identity provider: sign in with an access token (`fracas login --token-file FILE`)"
    )]
    None,
    /// Too many at once.
    #[error("too many sign-ins are under way: try again in a minute")]
    TooMany,
    /// Nobody began it, or it took too long.
    #[error("the sign-in is over or was never begun: begin again with `fracas login`")]
    Over,
    /// The provider, or the person, said no.
    #[error("the identity provider does not let you in: {0}")]
    Denied(String),
    /// The provider cannot be used now.
    #[error("{0}; an access token signs you in without it (`fracas login --token-file FILE`)")]
    Provider(#[from] ProviderError),
    /// Known there, and nobody here.
    #[error("you are known to the identity provider, and have no role here: ask an administrator of this controller")]
    NoRole,
    /// The person or the token could not be kept.
    #[error(transparent)]
    People(#[from] PeopleError),
}

/// What a person is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Names the sign-in towards us.
    pub handle: String,
    /// What to type.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// The same with the code in it, if the provider has one.
    pub verification_uri_complete: String,
    /// How often to ask.
    pub interval: Duration,
    /// How long the code is good.
    pub expires_in: Duration,
}

/// How a sign-in stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stand {
    /// The person has not agreed yet: ask again after this.
    Waiting(Duration),
    /// Signed in, with an access token that is good until this wall time, nanoseconds since the Unix epoch.
    Done {
        /// Who.
        who: Box<Known>,
        /// The token's text.
        token: String,
        /// When it ends.
        expires_ns: i64,
    },
}

#[derive(Debug)]
struct Pending {
    device_code: String,
    interval: Duration,
    next: Instant,
    until: Instant,
}

/// Sign-ins of a controller. Clones are one and the same.
#[derive(Clone, Debug)]
pub struct SignIn {
    settings: Option<Arc<Settings>>,
    people: People,
    history: History,
    keys: Keys,
    pending: Arc<Mutex<BTreeMap<String, Pending>>>,
}

impl SignIn {
    /// With this provider, or none.
    pub fn new(settings: Option<Settings>, people: People, history: History) -> Self {
        Self { settings: settings.map(Arc::new), people, history, keys: Keys::default(), pending: Arc::default() }
    }

    fn provider(&self) -> Result<(Arc<Settings>, Provider), SignInError> {
        let settings = self.settings.clone().ok_or(SignInError::None)?;
        Ok((Arc::clone(&settings), Provider::new(settings)))
    }

    /// Asks the provider for a code.
    pub async fn begin(&self) -> Result<Begun, SignInError> {
        let (_, provider) = self.provider()?;
        let handle = crate::chain::hex(&crate::identity::random::<16>());
        let now = Instant::now();
        {
            // The place is taken before the provider is asked, so that strangers cannot make it busy.
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            pending.retain(|_, one| one.until > now);
            if pending.len() >= PENDING {
                return Err(SignInError::TooMany);
            }
            let until = now + Duration::from_mins(1);
            let place = Pending { device_code: String::new(), interval: INTERVAL, next: until, until };
            pending.insert(handle.clone(), place);
        }
        let device = match provider.device().await {
            Ok(device) => device,
            Err(error) => {
                self.pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&handle);
                return Err(error.into());
            }
        };
        let interval = device.interval.map_or(INTERVAL, Duration::from_secs).clamp(Duration::from_secs(1), LONGEST);
        let life = Duration::from_secs(device.expires_in).min(LONGEST);
        let place = Pending {
            device_code: device.device_code,
            interval,
            next: Instant::now() + interval,
            until: Instant::now() + life,
        };
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).insert(handle.clone(), place);
        Ok(Begun {
            handle,
            user_code: device.user_code,
            verification_uri: device.verification_uri,
            verification_uri_complete: device.verification_uri_complete.unwrap_or_default(),
            interval,
            expires_in: life,
        })
    }

    /// Asks whether the person has agreed; the provider is asked no more often than it wishes.
    pub async fn finish(&self, handle: &str) -> Result<Stand, SignInError> {
        let (settings, provider) = self.provider()?;
        let device_code = {
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let one = pending.get_mut(handle).filter(|one| one.until > now && !one.device_code.is_empty());
            let one = one.ok_or(SignInError::Over)?;
            if one.next > now {
                return Ok(Stand::Waiting(one.next - now));
            }
            one.next = now + one.interval;
            one.device_code.clone()
        };
        let over = |error: SignInError| {
            self.pending.lock().unwrap_or_else(PoisonError::into_inner).remove(handle);
            error
        };
        match provider.token(&device_code).await? {
            Answer::Pending => Ok(Stand::Waiting(self.pace(handle, Duration::ZERO))),
            // RFC 8628, 3.5: five seconds more between requests, from now on.
            Answer::SlowDown => Ok(Stand::Waiting(self.pace(handle, Duration::from_secs(5)))),
            Answer::Denied(why) => Err(over(SignInError::Denied(why))),
            Answer::Token(id_token) => {
                self.keys.check(&provider, &id_token).await.map_err(over)?;
                let now_ns = self.history.now().wall_ns;
                let claims = Claims::read(&id_token, &settings.issuer, &settings.client_id, now_ns)
                    .map_err(|why| over(SignInError::Denied(why)))?;
                // Whatever becomes of it, the code is spent.
                over(SignInError::Over);
                self.enter(&settings, &claims, now_ns).await
            }
        }
    }

    fn pace(&self, handle: &str, more: Duration) -> Duration {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(one) = pending.get_mut(handle) else { return INTERVAL };
        one.interval = (one.interval + more).min(LONGEST);
        one.next = Instant::now() + one.interval;
        one.interval
    }

    /// The person of these claims, with the roles that they give, and a token for the session.
    async fn enter(&self, settings: &Settings, claims: &Claims, now_ns: i64) -> Result<Stand, SignInError> {
        let grants = settings.grants(claims);
        let subject = format!("{} {}", settings.issuer, claims.subject);
        let source = format!("sign-in: {}", settings.issuer);
        let known = self.people.by_subject(&subject);
        if grants.0.is_empty() {
            if let Some(known) = known {
                // What the provider does not give any more is taken away.
                self.people.set_grants(&known.id, grants, &source).await?;
            }
            return Err(SignInError::NoRole);
        }
        let known = match known {
            Some(known) => {
                self.people.set_grants(&known.id, grants, &source).await?;
                self.people.find(known.id.as_str())?
            }
            // Whoever may do nothing any more does not come back as somebody else.
            None if self.people.was_removed(&subject) => {
                let why = "you were removed here and do not come back this way: an admin has to add you (`fracas people add`) and \
                           make you an access token (`fracas people token make`)";
                return Err(SignInError::Denied(why.into()));
            }
            None => match self.add(claims, subject.clone(), grants).await {
                // Another sign-in of the same person was faster.
                Err(SignInError::People(PeopleError::SubjectKnown)) => {
                    self.people.by_subject(&subject).ok_or(SignInError::Over)?
                }
                added => added?,
            },
        };
        let expires_ns = now_ns.saturating_add(settings.session.ns());
        let made = self.people.make_token(&known.id, expires_ns, "sign-in", known.id.as_str()).await?;
        Ok(Stand::Done { who: Box::new(known), token: made.text, expires_ns })
    }

    async fn add(
        &self,
        claims: &Claims,
        subject: String,
        grants: fracas_model::access::Grants,
    ) -> Result<Known, SignInError> {
        let mut number = 1;
        loop {
            let handle = claims.handle(number);
            let entry = Entry {
                handle,
                name: claims.name.clone(),
                email: claims.email.clone(),
                subject: Some(subject.clone()),
                subject_digest: None,
            };
            let entry = entry.checked().map_err(SignInError::Denied)?;
            match self.people.add(entry, grants.clone(), "sign-in").await {
                // Somebody else is called so already.
                Err(PeopleError::Known(_)) if number < 1000 => number += 1,
                added => return Ok(added?),
            }
        }
    }
}
