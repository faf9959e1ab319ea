//! Who may join: makes one-time tokens and turns a token with a signing request into a host. The history decides which
//! tokens are good; nothing is kept here that it does not say.

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use fracas_model::{
    event::Body,
    id::HostId,
    identity::{Shown, Validity},
    units::Dur,
};
use fracas_proto::v1::{EnrolReply, EnrolRequest, RenewCertificateReply, RenewCertificateRequest};
use tokio::sync::Mutex;
use tonic::Status;

use crate::{
    driver::stream_of_host,
    fleet::{Fleet, HostError},
    history::{Extra, History, HistoryError},
    identity::{HostCertificate, Identity},
    listen::Peer,
    store::StoreError,
    tokens::{JoinToken, Opens, TokenError, Tokens},
};

/// Label of the controller's own observer; only the controller makes tokens with it.
pub const OBSERVER_LABEL: &str = "fracas/observer";

/// Label with the environment of a host; only the controller sets it.
pub const ENVIRONMENT_LABEL: &str = "fracas/environment";

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

    /// Gives the host at the other end of a connection its next certificate, or says why not.
    fn renew(&self, _: Peer, _: RenewCertificateRequest) -> Later<'_, Result<RenewCertificateReply, Status>> {
        Box::pin(std::future::ready(Err(Status::unimplemented("no certificate is renewed here"))))
    }
}

/// The real gate: tokens in the audit stream, certificates by the controller's authority.
pub struct Enrolment {
    history: History,
    fleet: Fleet,
    audit: String,
    identity: Arc<Identity>,
    life: Dur,
    /// The fold of the audit stream so far.
    tokens: Mutex<(u64, Tokens)>,
}

impl Enrolment {
    /// Over a history and a fleet; certificates live for `life`.
    pub fn new(history: History, fleet: Fleet, audit: String, identity: Arc<Identity>, life: Dur) -> Self {
        Self { history, fleet, audit, identity, life, tokens: Mutex::default() }
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
        let opened = self.look_up(&token).await?;
        // The token is known to be good before anything is signed for a stranger, and spent after: a request that is
        // no good must not cost it.
        let host = match &opened.opens {
            Opens::New(_) => HostId::new(uuid::Uuid::new_v4().to_string()),
            Opens::Again { host, .. } => host.clone(),
        };
        let now_ns = self.history.now().wall_ns;
        let certificate = self
            .identity
            .sign_csr(&request.signing_request_pem, &host, &hostname, self.life, now_ns)
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        let reply = EnrolReply {
            host_id: host.to_string(),
            certificate_pem: certificate.pem.clone(),
            ca_pem: self.identity.ca_pem().to_owned(),
        };
        match opened.opens {
            Opens::New(labels) => {
                self.spend(&token, opened.seq, host, hostname, labels, certificate).await?;
            }
            Opens::Again { key, .. } => self.certify_again(&token, &host, &key, certificate).await?,
        }
        Ok(reply)
    }

    /// What the token opens now.
    async fn look_up(&self, token: &JoinToken) -> Result<Opened, Status> {
        let mut folded = self.tokens.lock().await;
        for event in self.history.read(&self.audit, folded.0).await.map_err(|e| busy(&e))? {
            folded.0 = event.seq;
            folded.1.apply(&event);
        }
        let opens = folded.1.check(token, self.history.now().wall_ns).map_err(|error| refused(&error))?;
        Ok(Opened { seq: folded.0, opens })
    }

    /// Spends the token and makes the host in one commit, on condition that nobody else spent it meanwhile.
    async fn spend(
        &self,
        token: &JoinToken,
        mut seen: u64,
        host: HostId,
        name: String,
        labels: BTreeMap<String, String>,
        certificate: HostCertificate,
    ) -> Result<(), Status> {
        let HostCertificate { serial, key, validity, .. } = certificate;
        let stream = stream_of_host(&host);
        loop {
            let at = self.history.now();
            let used =
                Body::TokenUsed { token: token.id.clone(), host: host.clone(), key: key.clone(), at: at.clone() };
            let enrolled = Body::HostEnrolled {
                host: host.clone(),
                name: name.clone(),
                labels: labels.clone(),
                serial: serial.clone(),
                at,
            };
            let facts = [(self.audit.clone(), vec![used]), (stream.clone(), vec![enrolled])].into();
            let expected = [(self.audit.clone(), seen), (stream.clone(), 0)].into();
            match self.history.append_together(facts, expected, Extra::default()).await {
                Ok(_) => break,
                // Something else was audited in between: read it, check again.
                Err(HistoryError::Store(StoreError::Conflict { .. })) => match self.look_up(token).await? {
                    Opened { seq, opens: Opens::New(_) } => seen = seq,
                    Opened { opens: Opens::Again { host, .. }, .. } => {
                        return Err(refused(&TokenError::Used(token.id.clone(), host)));
                    }
                },
                Err(error) => return Err(busy(&error)),
            }
        }
        tracing::info!(%host, name, token = token.id, "host enrolled");
        self.fleet.record(&host, |record| {
            record.name = name;
            record.observer = labels.contains_key(OBSERVER_LABEL);
            record.labels = labels;
        });
        self.signed(&host, &serial, validity);
        Ok(())
    }

    fn signed(&self, host: &HostId, serial: &str, validity: Validity) {
        let now_s = self.history.now().wall_ns.div_euclid(1_000_000_000);
        self.fleet.certificate_signed(host, serial, Some(validity.until_s), now_s);
    }

    /// The next certificate for the host at the other end. Whose it is, and that it may, the connection's certificate says,
    /// and nothing in the request.
    async fn next_certificate(
        &self,
        peer: Peer,
        request: RenewCertificateRequest,
    ) -> Result<RenewCertificateReply, Status> {
        let (host, name) = {
            let Peer { host, .. } = &peer;
            let host =
                host.clone().ok_or_else(|| Status::unauthenticated("only a host with a certificate has it renewed"))?;
            let record = self.fleet.admitted(&host).map_err(|e| Status::permission_denied(e.to_string()))?;
            (host, record.name)
        };
        let now = self.history.now();
        let now_s = now.wall_ns.div_euclid(1_000_000_000);
        let validity = counts(&peer, &host, now_s)?;
        let serial = peer.serial.clone().unwrap_or_default();
        if self.fleet.certificate_shown(&host, &serial) == Shown::Superseded {
            if let Some(why) = shown_superseded(&self.fleet, &host, &peer) {
                tracing::warn!(%host, why, "the host seems to be two: it gets no fault until a person has seen to it");
                let two = Body::HostDuplicated { why, at: now };
                self.history.append(&stream_of_host(&host), vec![two]).await.map_err(|e| busy(&e))?;
            }
            return Err(superseded(&host));
        }
        if let Some(why) = self.fleet.admitted(&host).ok().and_then(|record| record.duplicate) {
            return Err(Status::permission_denied(HostError::Duplicate { host, why }.to_string()));
        }
        let may = self.fleet.certificate_may_renew(&host, validity, now_s, now.boot_ns);
        may.map_err(|e| Status::resource_exhausted(e.to_string()))?;
        let signed = self.identity.sign_csr(&request.signing_request_pem, &host, &name, self.life, now.wall_ns);
        let certificate = signed.map_err(|e| Status::invalid_argument(e.to_string()))?;
        let (serial, until_s) = (certificate.serial.clone(), certificate.validity.until_s);
        let renewed = Body::HostRenewed { serial, until_s, at: now };
        self.history.append(&stream_of_host(&host), vec![renewed]).await.map_err(|e| busy(&e))?;
        self.signed(&host, &certificate.serial, certificate.validity);
        tracing::info!(%host, name, serial = certificate.serial, "host got its next certificate");
        Ok(RenewCertificateReply { certificate_pem: certificate.pem, ca_pem: self.identity.ca_pem().to_owned() })
    }

    /// The same host asks again, which only the holder of its key can: it did not hear the answer.
    async fn certify_again(
        &self,
        token: &JoinToken,
        host: &HostId,
        key: &str,
        certificate: HostCertificate,
    ) -> Result<(), Status> {
        if certificate.key != key || self.fleet.admitted(host).is_err() {
            return Err(refused(&TokenError::Used(token.id.clone(), host.clone())));
        }
        let certified = Body::HostCertified { serial: certificate.serial.clone(), at: self.history.now() };
        self.history.append(&stream_of_host(host), vec![certified]).await.map_err(|e| busy(&e))?;
        self.signed(host, &certificate.serial, certificate.validity);
        tracing::info!(%host, token = token.id, "host asked again and got another certificate");
        Ok(())
    }
}

/// What a token opens, as of record `seq` of the audit stream.
struct Opened {
    seq: u64,
    opens: Opens,
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

    fn renew(&self, peer: Peer, request: RenewCertificateRequest) -> Later<'_, Result<RenewCertificateReply, Status>> {
        Box::pin(self.next_certificate(peer, request))
    }
}

/// When the certificate of a connection holds, if it still does: a connection may outlive it.
pub(crate) fn counts(peer: &Peer, host: &HostId, now_s: i64) -> Result<Validity, Status> {
    let validity = peer.validity.unwrap_or(Validity { from_s: i64::MIN, until_s: i64::MAX });
    if validity.is_over(now_s) {
        let said = format!("the certificate of host {host} is over: its next one is needed, or it must join again");
        return Err(Status::unauthenticated(said));
    }
    Ok(validity)
}

/// Somebody has shown an earlier certificate of a host than the one used last: nothing is desired of the host any more.
/// What was seen, if that is news.
pub(crate) fn shown_superseded(fleet: &Fleet, host: &HostId, peer: &Peer) -> Option<String> {
    let from = peer.address.map_or_else(|| "an unknown address".to_owned(), |address| address.to_string());
    let other = fleet.admitted(host).map(|record| record.address).unwrap_or_default();
    let other = if other.is_empty() { "is out of contact".to_owned() } else { format!("is at {other}") };
    fleet.duplicate(host, &format!("a certificate that it has renewed since was shown from {from}; its agent {other}"))
}

/// What the bearer of an earlier certificate is told.
pub(crate) fn superseded(host: &HostId) -> Status {
    Status::permission_denied(format!(
        "this certificate of host {host} was renewed, and the next one was used since: if this agent runs from a copy or an \
         older state of its disk, stop it; the host is to be enrolled anew with a new token"
    ))
}

fn hostname(text: &str) -> Result<String, Status> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if text.is_empty() || text.len() > MAX_HOSTNAME || !text.chars().all(fits) {
        return Err(Status::invalid_argument("the host's name must be 1 to 253 letters, digits, `.`, `-` or `_`"));
    }
    Ok(text.to_owned())
}

/// The operator sees why, a stranger only that.
fn refused(error: &TokenError) -> Status {
    tracing::warn!(%error, "enrolment refused");
    Status::permission_denied(error.public())
}

fn busy(error: &HistoryError) -> Status {
    Status::unavailable(error.to_string())
}

/// A gate through which nobody comes, for tests of what is behind it.
#[cfg(test)]
pub(crate) struct NoGate;

#[cfg(test)]
impl Gate for NoGate {
    fn make<'a>(
        &'a self,
        _: u32,
        _: BTreeMap<String, String>,
        _: &'a str,
    ) -> Later<'a, Result<MadeToken, HistoryError>> {
        Box::pin(std::future::ready(Err(StoreError::Closed.into())))
    }

    fn enrol(&self, _: EnrolRequest) -> Later<'_, Result<EnrolReply, Status>> {
        Box::pin(std::future::ready(Err(Status::unimplemented("nobody joins here"))))
    }
}

#[cfg(test)]
mod tests;
