//! The host's next certificate, and the move of the session to it. Both go on beside the session, which neither waits nor
//! ends: the next one is open before the present one is left.
//!
//! ```text
//! waits --half of the life is over--> asks, stores --> opens a session with it --> that one takes over
//!   ^                                    | fails           | fails: the present one goes on, another attempt later
//!   +------------------------------------+                 +---> opens again
//! ```

use std::{future::Future, path::PathBuf, pin::Pin, time::Duration};

use fracas_model::{identity::Renewal, units::Dur};
use fracas_proto::v1::{RenewCertificateRequest, fleet_client::FleetClient};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rcgen::KeyPair;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Code, Status, transport::Channel};

use super::{Broken, Open, Welcome};
use crate::{
    crash::{self, Renewing},
    identity::{Identity, IdentityError, request},
};

/// Longest time for the controller to sign.
const SIGNING: Duration = Duration::from_secs(10);
/// Pause before a session is opened with the next certificate again.
const OPEN_AGAIN: Duration = Duration::from_secs(5);

/// An identity that the agent renews.
#[derive(Debug)]
pub struct Held {
    /// The one that is stored.
    pub identity: Identity,
    /// Where.
    pub dir: PathBuf,
}

/// Why there is no next certificate yet.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotRenewed {
    #[error("no key can be made: {0}")]
    Key(#[from] rcgen::Error),
    #[error("the controller did not answer within {SIGNING:?}")]
    Silent,
    #[error("{}", .0.message())]
    Said(#[from] Status),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("its thread ended")]
    Ended,
}

type Later<T> = Pin<Box<dyn Future<Output = T>>>;

/// What goes on beside the session.
#[derive(Default)]
enum Step {
    #[default]
    Waits,
    Asks(Later<Result<Identity, NotRenewed>>),
    Opens(Later<Result<Open, Broken>>),
    OpensAgain(Instant),
}

/// What has come of it.
pub(super) enum Done {
    /// Half of the life is over.
    Due,
    /// The next certificate is stored.
    Renewed(Box<Identity>),
    NotRenewed(NotRenewed),
    /// A session is open with it.
    Opened(Box<Open>),
    NotOpened(Broken),
    /// It is time to open one again.
    Again,
}

/// See the module.
#[derive(Default)]
pub(super) struct Turn {
    renewal: Renewal,
    step: Step,
}

impl Turn {
    /// A session has begun: the controller says how the certificate stands.
    pub(super) fn told(&mut self, welcome: &Welcome, now_ns: i64, random: &mut ChaCha8Rng) {
        let millis =
            |ms: u64| Dur::from_ms(i64::try_from(ms).unwrap_or(i64::MAX / 1_000_000).min(i64::MAX / 1_000_000));
        let (left, life) = (millis(welcome.certificate_left_ms), millis(welcome.certificate_life_ms));
        self.renewal.told(left, life, now_ns, random.random::<f64>());
    }

    /// Says now and then that little of the certificate's life is left.
    pub(super) fn warn(&mut self, now_ns: i64) {
        if let Some(left) = self.renewal.warning(now_ns) {
            tracing::warn!("the host's certificate ends in {}, and was not renewed so far", left.human_down());
        }
    }

    /// What comes next; waits for ever while there is nothing to wait for. Dropped half-way, it goes on where it was.
    pub(super) async fn next(&mut self, now_ns: i64) -> Done {
        let done = match &mut self.step {
            Step::Waits => {
                let Some(due_ns) = self.renewal.due_ns() else { return std::future::pending().await };
                let ahead = Duration::from_nanos(due_ns.saturating_sub(now_ns).max(0).unsigned_abs());
                // Boot time goes on while the machine sleeps, so it is looked at again now and then by whoever waits.
                sleep_until(Instant::now() + ahead).await;
                Done::Due
            }
            Step::Asks(asked) => match asked.await {
                Ok(identity) => Done::Renewed(Box::new(identity)),
                Err(why) => Done::NotRenewed(why),
            },
            Step::Opens(opened) => match opened.await {
                Ok(open) => Done::Opened(Box::new(open)),
                Err(why) => Done::NotOpened(why),
            },
            Step::OpensAgain(at) => {
                sleep_until(*at).await;
                Done::Again
            }
        };
        self.step = Step::Waits;
        done
    }

    /// Asks for the next certificate over a connection that was made with the present one.
    pub(super) fn ask(&mut self, channel: Channel, held: &Held) {
        self.step = Step::Asks(Box::pin(ask(channel, held.identity.clone(), held.dir.clone())));
    }

    /// It did not come.
    pub(super) fn not_renewed(&mut self, why: &NotRenewed, now_ns: i64, random: &mut ChaCha8Rng) {
        self.renewal.failed(now_ns, random.random::<f64>());
        match why {
            NotRenewed::Said(status) if status.code() == Code::Unimplemented => {
                tracing::info!("the controller is of an older version, which renews no certificates");
            }
            why => tracing::warn!(%why, "the host's certificate could not be renewed; it is tried again"),
        }
    }

    /// It came and is stored.
    pub(super) fn renewed(&mut self, now_ns: i64) {
        self.renewal.done(now_ns);
    }

    /// A session is being opened with it.
    pub(super) fn opens(&mut self, opening: impl Future<Output = Result<Open, Broken>> + 'static) {
        self.step = Step::Opens(Box::pin(opening));
    }

    /// Whether one is.
    pub(super) fn is_opening(&self) -> bool {
        matches!(self.step, Step::Opens(_))
    }

    /// That did not succeed, and is tried again: until then the present session goes on.
    pub(super) fn opens_later(&mut self) {
        self.step = Step::OpensAgain(Instant::now() + OPEN_AGAIN);
    }

    /// No session is to be opened beside another any more: a new one has begun anyway.
    pub(super) fn needs_none(&mut self) {
        if matches!(self.step, Step::Opens(_) | Step::OpensAgain(_)) {
            self.step = Step::Waits;
        }
    }
}

async fn ask(channel: Channel, present: Identity, dir: PathBuf) -> Result<Identity, NotRenewed> {
    let key = KeyPair::generate()?;
    let signing_request_pem = request(&key, present.host.as_str())?;
    crash::renewing(Renewing::Asked);
    let asked = RenewCertificateRequest { signing_request_pem };
    let signed = async { FleetClient::new(channel).renew_certificate(asked).await };
    let reply = timeout(SIGNING, signed).await.map_err(|_| NotRenewed::Silent)??.into_inner();
    let next = present.with(&key.serialize_pem(), &reply.certificate_pem)?;
    // Not on this thread, which a disk that hangs would hold up. Without a limit: there must never be two at it.
    let stored = tokio::task::spawn_blocking(move || next.store_renewed(&dir).map(|()| next)).await;
    stored.map_err(|_| NotRenewed::Ended)?.map_err(NotRenewed::Identity)
}

/// What to say of an identity whose certificate is over, by this host's clock.
pub(super) fn over(held: Option<&Held>, now_s: i64) -> Option<String> {
    held?.identity.validity().ok().filter(|validity| validity.is_over(now_s))?;
    let said = "the host's certificate is over, and no controller accepts it any more: have a token made with `fracas hosts \
                join-token` and start the agent with it, then it joins again, as a new host";
    Some(said.to_owned())
}
