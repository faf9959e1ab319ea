//! Who may join: makes one-time tokens and turns a token with a signing request into a host. The history decides which
//! tokens are good; nothing is kept here that it does not say.

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use fracas_model::{event::Body, id::HostId};
use fracas_proto::v1::{EnrolReply, EnrolRequest};
use tokio::sync::Mutex;
use tonic::Status;

use crate::{
    driver::stream_of_host,
    fleet::Fleet,
    history::{Extra, History, HistoryError},
    identity::{HostCertificate, Identity},
    store::StoreError,
    tokens::{JoinToken, Tokens},
};

/// Label of the controller's own observer; only the controller makes tokens with it.
pub const OBSERVER_LABEL: &str = "fracas/observer";

/// Longest host name taken, bytes (`HOST_NAME_MAX` is 64; a full domain name has at most 253).
const MAX_HOSTNAME: usize = 253;

/// A token as its maker gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeToken {
    /// What the host must show.
    pub text: String,
    /// Until when, wall time, nanoseconds since the Unix epoch.
    pub expires_wall_ns: i64,
}

/// An answer, later.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The gate to the fleet.
pub trait Gate: Send + Sync {
    /// Makes a token for one host that gets these labels.
    fn make<'a>(
        &'a self,
        ttl_seconds: u32,
        labels: BTreeMap<String, String>,
        by: &'a str,
    ) -> Later<'a, Result<MadeToken, HistoryError>>;

    /// Lets a host in, or says why not, for the person at the host.
    fn enrol(&self, request: EnrolRequest) -> Later<'_, Result<EnrolReply, Status>>;
}

/// The real gate: tokens in the audit stream, certificates by the controller's authority.
pub struct Enrolment {
    history: History,
    fleet: Fleet,
    audit: String,
    identity: Arc<Identity>,
    days: u32,
    /// The fold of the audit stream so far.
    tokens: Mutex<(u64, Tokens)>,
}

impl Enrolment {
    /// Over a history and a fleet; certificates live `days` days.
    pub fn new(history: History, fleet: Fleet, audit: String, identity: Arc<Identity>, days: u32) -> Self {
        Self { history, fleet, audit, identity, days, tokens: Mutex::default() }
    }

    async fn make_token(
        &self,
        ttl_seconds: u32,
        labels: BTreeMap<String, String>,
        by: &str,
    ) -> Result<MadeToken, HistoryError> {
        let token = JoinToken::random(self.identity.ca_digest());
        let at = self.history.now();
        let expires_ns = at.wall_ns.saturating_add(i64::from(ttl_seconds) * 1_000_000_000);
        let made = Body::TokenMade {
            token: token.id.clone(),
            secret_digest: token.secret_digest(),
            labels,
            expires_ns,
            by: by.to_owned(),
            at,
        };
        self.history.append(&self.audit, vec![made]).await?;
        Ok(MadeToken { text: token.text(), expires_wall_ns: expires_ns })
    }

    async fn let_in(&self, request: EnrolRequest) -> Result<EnrolReply, Status> {
        let hostname = hostname(&request.hostname)?;
        let token = JoinToken::parse(&request.token).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let host = HostId::new(uuid::Uuid::new_v4().to_string());
        let now_ns = self.history.now().wall_ns;
        // Signed before the token is spent: a request that is no good must not cost it.
        let HostCertificate { pem, serial } = self
            .identity
            .sign_csr(&request.signing_request_pem, &host, &hostname, self.days, now_ns)
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        let labels = self.spend(&token, &host).await?;
        let enrolled = Body::HostEnrolled {
            host: host.clone(),
            name: hostname.clone(),
            labels: labels.clone(),
            serial,
            at: self.history.now(),
        };
        self.history.append(&stream_of_host(&host), vec![enrolled]).await.map_err(|e| busy(&e))?;
        self.fleet.record(&host, |record| {
            record.name.clone_from(&hostname);
            record.observer = labels.contains_key(OBSERVER_LABEL);
            record.labels = labels;
        });
        tracing::info!(%host, hostname, token = token.id, "host enrolled");
        Ok(EnrolReply { host_id: host.to_string(), certificate_pem: pem, ca_pem: self.identity.ca_pem().to_owned() })
    }

    /// Uses a token up for a host, on condition that nobody else did meanwhile; gives the host's labels.
    async fn spend(&self, token: &JoinToken, host: &HostId) -> Result<BTreeMap<String, String>, Status> {
        let mut folded = self.tokens.lock().await;
        loop {
            for event in self.history.read(&self.audit, folded.0).await.map_err(|e| busy(&e))? {
                folded.0 = event.seq;
                folded.1.apply(&event);
            }
            let at = self.history.now();
            let labels = folded.1.check(token, at.wall_ns).map_err(|error| {
                tracing::warn!(%error, "enrolment refused");
                Status::permission_denied(error.public())
            })?;
            let labels = labels.clone();
            let used = Body::TokenUsed { token: token.id.clone(), host: host.clone(), at };
            let extra = Extra { expected: Some(folded.0), ..Extra::default() };
            match self.history.append_with(&self.audit, vec![used], extra).await {
                Ok(_) => return Ok(labels),
                // Something else was audited in between: read it, check again.
                Err(HistoryError::Store(StoreError::Conflict { .. })) => {}
                Err(error) => return Err(busy(&error)),
            }
        }
    }
}

impl Gate for Enrolment {
    fn make<'a>(
        &'a self,
        ttl_seconds: u32,
        labels: BTreeMap<String, String>,
        by: &'a str,
    ) -> Later<'a, Result<MadeToken, HistoryError>> {
        Box::pin(self.make_token(ttl_seconds, labels, by))
    }

    fn enrol(&self, request: EnrolRequest) -> Later<'_, Result<EnrolReply, Status>> {
        Box::pin(self.let_in(request))
    }
}

fn hostname(text: &str) -> Result<String, Status> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if text.is_empty() || text.len() > MAX_HOSTNAME || !text.chars().all(fits) {
        return Err(Status::invalid_argument("the host's name must be 1 to 253 letters, digits, `.`, `-` or `_`"));
    }
    Ok(text.to_owned())
}

fn busy(error: &HistoryError) -> Status {
    Status::unavailable(error.to_string())
}
