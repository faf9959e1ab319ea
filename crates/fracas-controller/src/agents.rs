//! The Fleet service: one stream per agent. It translates, acknowledges what is durable, and grants leases.
//!
//! It decides nothing: what a host should suffer comes from [`crate::fleet`], what it reported goes to the history.

use std::{pin::Pin, sync::Arc, time::Duration};

use fracas_model::{
    catalogue::{AgentVersion, Catalogue},
    event::{Body, Rehearsal},
    facts::HostFacts,
    id::{HostId, RunId},
    identity::Shown,
    time::ClockId,
    units::Dur,
};
use fracas_proto::{
    from_json, to_json,
    v1::{
        Ack, AgentMessage, ControllerMessage, Desired, EnrolReply, EnrolRequest, Grant, Hello, Renew,
        RenewCertificateReply, RenewCertificateRequest, Report, Welcome, agent_message::Message as FromAgent,
        controller_message::Message as ToAgent, fleet_server,
    },
};
use futures_util::Stream;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::{
    chain::sha256,
    driver::stream_of_host,
    enrol::{Gate, counts, shown_superseded, superseded},
    fleet::{Caller, Connection, Fleet, Offer},
    history::{History, HistoryError, Reported},
    listen::Peer,
    metrics::SessionMeters,
};

/// Pace of Renew while nothing is active.
const HEARTBEAT_MS: u32 = 5_000;
/// Longest pause between an idle agent's attempts to reconnect.
const RECONNECT_CAP_MS: u32 = 30_000;
/// Lease of a host without faults: only shown, nothing lives on it.
const IDLE_LEASE: Dur = Dur::from_secs(15);
/// Silence after which an idle host counts as out of contact: a few renewals that did not come.
const IDLE_SILENCE: Duration = Duration::from_millis(4 * HEARTBEAT_MS as u64);
/// Longest text of a host's facts and catalogue in its Hello, bytes: ours are about 2 and 30 kB.
const HELLO_TEXTS: (usize, usize) = (64 << 10, 512 << 10);
/// How long an agent whose place another took may need to come back, if it lives: it tries again within a second, dials,
/// and answers.
const PROBATION: Duration = Duration::from_secs(3);
/// Reports that are kept for so long: agents have at most four on their way.
const UNHEARD: usize = 16;
/// Longest wait for the end of a certificate; then it is looked at again.
const LONGEST_LEFT: Duration = Duration::from_hours(1);
/// No controller starts so often, and sums with it stay far from any limit.
const HIGHEST_EPOCH: u64 = 1 << 53;
/// Messages that may wait for a slow agent; a full queue ends the session.
const OUTGOING: usize = 64;

/// The service.
#[derive(Clone)]
pub struct Agents {
    history: History,
    fleet: Fleet,
    gate: Arc<dyn Gate>,
    front_port: u16,
    closing: watch::Receiver<bool>,
    meters: SessionMeters,
}

impl std::fmt::Debug for Agents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agents").finish_non_exhaustive()
    }
}

impl Agents {
    /// A service over one history and one fleet. `front_port` is where operators reach this controller, 0 when that is
    /// nowhere. Sessions end when `closing` becomes true, or nobody holds its other end.
    pub fn new(
        history: History,
        fleet: Fleet,
        gate: Arc<dyn Gate>,
        front_port: u16,
        closing: watch::Receiver<bool>,
        meters: SessionMeters,
    ) -> Self {
        Self { history, fleet, gate, front_port, closing, meters }
    }
}

type Outgoing = mpsc::Sender<Result<ControllerMessage, Status>>;

#[tonic::async_trait]
impl fleet_server::Fleet for Agents {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolReply>, Status> {
        self.gate.enrol(request.into_inner()).await.map(Response::new)
    }

    type SessionStream = Pin<Box<dyn Stream<Item = Result<ControllerMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
        let host = peer.host.clone();
        let host = host.ok_or_else(|| Status::unauthenticated("a session needs a host certificate: enrol first"))?;
        self.fleet.admitted(&host).map_err(|e| Status::permission_denied(e.to_string()))?;
        let (sender, receiver) = mpsc::channel(OUTGOING);
        let session = Session { agents: self.clone(), host, peer, outgoing: sender };
        tokio::spawn(session.run(request.into_inner()));
        let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|message| (message, receiver))
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn renew_certificate(
        &self,
        request: Request<RenewCertificateRequest>,
    ) -> Result<Response<RenewCertificateReply>, Status> {
        let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
        self.gate.renew(peer, request.into_inner()).await.map(Response::new)
    }
}

struct Session {
    agents: Agents,
    host: HostId,
    /// Its connection.
    peer: Peer,
    outgoing: Outgoing,
}

impl Session {
    async fn run(self, mut incoming: Streaming<AgentMessage>) {
        let opened = match incoming.message().await {
            Ok(Some(AgentMessage { message: Some(FromAgent::Hello(hello)) })) => self.open(&hello).await,
            Ok(_) => Err(Status::invalid_argument("a session begins with Hello")),
            Err(status) => Err(status),
        };
        let ended = match opened {
            Ok(connection) => {
                let number = connection.number;
                self.agents.meters.opened.inc();
                let ended = self.serve(&mut incoming, connection).await;
                self.agents.meters.closed.one(end_word(&ended, *self.agents.closing.borrow()));
                self.agents.fleet.disconnect(&self.host, number);
                ended
            }
            Err(status) => Err(status),
        };
        if let Err(status) = ended {
            tracing::info!(host = %self.host, reason = status.message(), "session ended");
            let _ = self.outgoing.send(Err(status)).await;
        }
    }

    async fn open(&self, hello: &Hello) -> Result<Connection, Status> {
        if hello.protocol != fracas_proto::PROTOCOL {
            return Err(Status::failed_precondition(format!(
                "agent speaks protocol {}, this controller {}: upgrade the older of the two",
                hello.protocol,
                fracas_proto::PROTOCOL
            )));
        }
        let facts: HostFacts =
            from_json("facts", bounded("facts", &hello.facts_json, HELLO_TEXTS.0)?).map_err(malformed)?;
        let offer = offer(hello)?;
        let validity = counts(&self.peer, &self.host, self.now_s())?;
        self.shows_certificate().await?;
        self.outrank((hello.epoch, hello.revision)).await?;
        let now = self.agents.history.now();
        let address = self.peer.address.map(|address| address.to_string()).unwrap_or_default();
        let caller = Caller { instance: told(&hello.instance), address };
        let connected = self.agents.fleet.connect_as(&self.host, caller, facts, offer, now);
        let connection = connected.map_err(|e| Status::permission_denied(e.to_string()))?;
        self.agents.fleet.record(&self.host, |record| {
            record.trouble = told(&hello.journal_trouble);
            record.certificate = self.peer.validity;
        });
        let millis = |dur: Dur| u64::try_from(dur.ns() / 1_000_000).unwrap_or_default();
        let known = self.peer.validity.is_some();
        let welcome = Welcome {
            controller_version: env!("CARGO_PKG_VERSION").to_owned(),
            heartbeat_ms: HEARTBEAT_MS,
            reconnect_cap_ms: RECONNECT_CAP_MS,
            front_port: self.agents.front_port.into(),
            certificate_left_ms: if known { millis(validity.left(self.now_s())) } else { 0 },
            certificate_life_ms: if known { millis(validity.life()) } else { 0 },
        };
        self.send(ToAgent::Welcome(welcome)).await?;
        tracing::info!(host = %self.host, version = hello.agent_version, "agent connected");
        if !hello.journal_trouble.is_empty() {
            tracing::warn!(host = %self.host, trouble = hello.journal_trouble, "nobody can say whether the host is clean");
        }
        Ok(connection)
    }

    /// A host that has taken later orders than any of ours would refuse them all, the one that ends its faults too: this
    /// history is then a restored copy. The epoch is raised above the host's, durably, before anything is granted.
    async fn outrank(&self, taken: (u64, u64)) -> Result<(), Status> {
        let Agents { history, fleet, .. } = &self.agents;
        if taken <= fleet.mark() {
            return Ok(());
        }
        let ahead =
            format!("the host has taken orders of epoch {} and this controller is at {}", taken.0, fleet.mark().0);
        if taken.0 > HIGHEST_EPOCH {
            return Err(Status::failed_precondition(format!("{ahead}, which no controller can have reached")));
        }
        let raised = history.raise_epoch(taken.0).await.map_err(|error| {
            tracing::error!(host = %self.host, %error, "{ahead}; ours could not be raised above that");
            Status::unavailable(format!("{ahead}; raising it failed: {error}"))
        })?;
        fleet.raise_epoch(raised);
        tracing::warn!(host = %self.host, epoch = raised, "{ahead}: its history was restored from a copy; epoch raised");
        let body = Body::EpochRaised { taken, epoch: raised, at: history.now() };
        if let Err(error) = history.append(&stream_of_host(&self.host), vec![body]).await {
            tracing::error!(host = %self.host, %error, "that the epoch was raised could not be recorded");
        }
        Ok(())
    }

    fn now_s(&self) -> i64 {
        self.agents.history.now().wall_ns.div_euclid(1_000_000_000)
    }

    /// Takes the certificate of this connection as the host's, unless a later one was used before; those before it do not
    /// count from now on, which is recorded first.
    async fn shows_certificate(&self) -> Result<(), Status> {
        let Some(serial) = &self.peer.serial else { return Ok(()) };
        let Agents { history, fleet, .. } = &self.agents;
        match fleet.certificate_shown(&self.host, serial) {
            Shown::Current => {}
            Shown::Newer(superseded) => {
                let body = Body::HostCertificateUsed { serial: serial.clone(), superseded, at: history.now() };
                let told = history.append(&stream_of_host(&self.host), vec![body]).await;
                told.map_err(|e| Status::unavailable(e.to_string()))?;
            }
            Shown::Superseded => {
                if let Some(why) = shown_superseded(fleet, &self.host, &self.peer) {
                    self.is_two(&why).await?;
                }
                return Err(superseded(&self.host));
            }
        }
        fleet.certificate_used(&self.host, serial);
        Ok(())
    }

    /// Records that the host seems to be two; nothing is desired of it since that was seen.
    async fn is_two(&self, why: &str) -> Result<(), Status> {
        tracing::warn!(host = %self.host, why, "the host seems to be two: it gets no fault until a person has seen to it");
        let history = &self.agents.history;
        let body = Body::HostDuplicated { why: why.to_owned(), at: history.now() };
        let told = history.append(&stream_of_host(&self.host), vec![body]).await;
        told.map(drop).map_err(|e| Status::unavailable(e.to_string()))
    }

    /// Records, once for each certificate, that an agent in contact does not renew it.
    async fn look_at_certificate(&self) -> Result<(), Status> {
        let (Some(validity), Some(serial)) = (self.peer.validity, &self.peer.serial) else { return Ok(()) };
        let Agents { history, fleet, .. } = &self.agents;
        if !validity.is_low(self.now_s()) {
            return Ok(());
        }
        let mut told = false;
        fleet.record(&self.host, |record| {
            told = record.certificate_low == *serial;
            record.certificate_low.clone_from(serial);
        });
        if told {
            return Ok(());
        }
        let (serial, until_s, at) = (serial.clone(), validity.until_s, history.now());
        tracing::warn!(host = %self.host, serial, "little is left of the life of the host's certificate, and its agent did not renew it");
        let body = Body::HostCertificateLow { serial, until_s, at };
        let told = history.append(&stream_of_host(&self.host), vec![body]).await;
        told.map(drop).map_err(|e| Status::unavailable(e.to_string()))
    }

    async fn serve(&self, incoming: &mut Streaming<AgentMessage>, connection: Connection) -> Result<(), Status> {
        let Connection { mut desired, number, probation } = connection;
        desired.mark_changed();
        let mut probation = probation.then(|| Instant::now() + PROBATION);
        let mut unheard = Vec::new();
        let mut closing = self.agents.closing.clone();
        // A host with faults renews several times within its lease. Once it should have undone everything for want of
        // contact, it is out of contact, whatever the network's own timers say.
        let mut since = Instant::now();
        loop {
            // Wall time may jump, so what is left is asked anew each time: the host says something every few seconds.
            let left = counts(&self.peer, &self.host, self.now_s())?.left(self.now_s());
            let over = Instant::now() + left.std().min(LONGEST_LEFT) + Duration::from_secs(1);
            let silence = self.agents.fleet.lease_of(&self.host).map_or(IDLE_SILENCE, Dur::std);
            tokio::select! {
                biased;
                () = closed(&mut closing) => {
                    return Err(Status::unavailable("the controller is shutting down"));
                }
                changed = desired.changed() => {
                    if changed.is_err() {
                        self.agents.fleet.admitted(&self.host).map_err(|e| Status::permission_denied(e.to_string()))?;
                        return Err(Status::aborted("a newer session of this host took over"));
                    }
                    let desired_json = to_json(&*desired.borrow_and_update());
                    self.send(ToAgent::Desired(Desired { desired_json })).await?;
                    // From now on it renews at the pace of this lease.
                    since = Instant::now();
                }
                message = incoming.message() => {
                    since = Instant::now();
                    match message? {
                        Some(AgentMessage { message: Some(message) }) => {
                            if let Some(why) = self.agents.fleet.lives(&self.host, number) {
                                self.is_two(&why).await?;
                            }
                            match message {
                                // A copy tells what became of the faults that it was copied with, and they are elsewhere.
                                FromAgent::Report(report) if probation.is_some() && unheard.len() < UNHEARD => {
                                    unheard.push(report);
                                }
                                FromAgent::Report(_) if probation.is_some() => {
                                    return Err(Status::invalid_argument("more reports at once than any agent sends"));
                                }
                                FromAgent::Renew(renew) => self.renew(renew, probation.is_none()).await?,
                                message => self.take(message).await?,
                            }
                        }
                        Some(_) => {}
                        None => return Ok(()),
                    }
                }
                () = sleep_until(over) => {}
                () = sleep_until(probation.unwrap_or(over)), if probation.is_some() => {
                    probation = None;
                    self.agents.fleet.end_probation(&self.host, number);
                    for report in unheard.drain(..) {
                        self.report(report).await?;
                    }
                }
                () = sleep_until(since + silence) => {
                    return Err(Status::deadline_exceeded(format!("nothing was heard of the host for {silence:?}")));
                }
            }
        }
    }

    async fn take(&self, message: FromAgent) -> Result<(), Status> {
        match message {
            FromAgent::Hello(_) => Err(Status::invalid_argument("Hello comes once")),
            FromAgent::Renew(renew) => self.renew(renew, true).await,
            FromAgent::Report(report) => self.report(report).await,
            FromAgent::Rehearsed(rehearsed) => {
                let rehearsal: Rehearsal = from_json("rehearsal", &rehearsed.rehearsal_json).map_err(malformed)?;
                self.agents.fleet.rehearsed(&self.host, rehearsal);
                Ok(())
            }
            FromAgent::Taken(taken) if (taken.epoch, taken.revision) > self.agents.fleet.mark() => {
                Err(Status::aborted("the host took another controller's orders meanwhile: it is to begin anew"))
            }
            FromAgent::Taken(taken) => {
                self.agents.fleet.taken(&self.host, taken.epoch, taken.revision);
                Ok(())
            }
        }
    }

    /// `counts`: whether its word that it is clean is the host's.
    async fn renew(&self, renew: Renew, counts: bool) -> Result<(), Status> {
        let received = self.agents.history.now();
        self.look_at_certificate().await?;
        let mut quarantined = false;
        self.agents.fleet.record(&self.host, |record| {
            record.last_seen = Some(received.clone());
            record.trouble = told(&renew.journal_trouble);
            quarantined = record.quarantined.is_some();
        });
        self.agents.fleet.says_clean(&self.host, says_clean(&renew), &received);
        if counts && quarantined && says_clean(&renew) {
            self.release().await?;
        }
        let lease = self.agents.fleet.lease_of(&self.host).unwrap_or(IDLE_LEASE);
        let sent = self.agents.history.now();
        let clock: &ClockId = &sent.clock;
        let grant = Grant {
            echo_boot_ns: renew.boot_ns,
            lease_ms: u32::try_from(lease.ns() / 1_000_000).unwrap_or(u32::MAX),
            received_ns: received.boot_ns,
            sent_ns: sent.boot_ns,
            clock_json: to_json(clock),
        };
        self.send(ToAgent::Grant(grant)).await?;
        self.agents.meters.leases.inc();
        Ok(())
    }

    /// A host that was left open says that nothing of ours is on it any more.
    async fn release(&self) -> Result<(), Status> {
        let body = Body::HostReleased { why: "it reported that it is clean".into(), at: self.agents.history.now() };
        let released = self.agents.history.append(&stream_of_host(&self.host), vec![body]).await;
        released.map_err(|e| Status::unavailable(e.to_string()))?;
        self.agents.fleet.record(&self.host, |record| record.quarantined = None);
        tracing::info!(host = %self.host, "quarantine lifted: the host is clean");
        Ok(())
    }

    async fn report(&self, report: Report) -> Result<(), Status> {
        let reported = report.events.into_iter().map(|event| Reported {
            seq: event.seq,
            stream: event.stream,
            body: event.body,
            blob: (!event.blob.is_empty()).then_some(event.blob),
        });
        let takes_part = |stream: &str| {
            let run = stream.strip_prefix("run/").map(RunId::from);
            run.is_some_and(|run| self.agents.fleet.takes_part(&self.host, &run))
        };
        let ingested = self.agents.history.ingest(&self.host, &report.outbox, reported.collect(), &takes_part).await;
        match ingested {
            Ok(ingested) => self.send(ToAgent::Ack(Ack { outbox: report.outbox, seq: ingested.acked })).await,
            Err(error @ HistoryError::BadReport { .. }) => Err(Status::invalid_argument(error.to_string())),
            // The agent keeps what was not acknowledged and sends it again after it has reconnected.
            Err(error) => Err(Status::unavailable(error.to_string())),
        }
    }

    async fn send(&self, message: ToAgent) -> Result<(), Status> {
        let message = ControllerMessage { message: Some(message) };
        self.outgoing.send(Ok(message)).await.map_err(|_| Status::cancelled("the agent left"))
    }
}

/// Why a session ended, as it is counted; `closing` is whether the controller ends.
fn end_word(ended: &Result<(), Status>, closing: bool) -> &'static str {
    match ended.as_ref().map_err(Status::code) {
        Ok(()) => "left",
        Err(Code::Unavailable) if closing => "shutdown",
        Err(Code::Unavailable) => "history",
        Err(Code::DeadlineExceeded) => "silent",
        Err(Code::Aborted) => "superseded",
        Err(Code::InvalidArgument) => "rules",
        Err(Code::Unauthenticated) => "certificate",
        Err(Code::PermissionDenied) => "revoked",
        Err(_) => "broken",
    }
}

/// A host whose journal cannot be trusted does not know whether it is clean.
fn says_clean(renew: &Renew) -> bool {
    renew.open_items == 0 && renew.journal_trouble.is_empty()
}

/// Longest text about the journal of a host that is kept.
const TROUBLE_CHARS: usize = 300;

/// What an agent says of its journal, as far as it is kept.
fn told(trouble: &str) -> String {
    trouble.chars().filter(|c| !c.is_control()).take(TROUBLE_CHARS).collect()
}

async fn closed(closing: &mut watch::Receiver<bool>) {
    // An error means that nobody serves any more.
    let _ = closing.wait_for(|closing| *closing).await;
}

fn bounded<'a>(what: &str, text: &'a str, most: usize) -> Result<&'a str, Status> {
    if text.len() > most {
        return Err(Status::invalid_argument(format!("{what} of {} bytes, at most {most} may be", text.len())));
    }
    Ok(text)
}

fn offer(hello: &Hello) -> Result<Offer, Status> {
    let text = bounded("catalogue", &hello.catalogue_json, HELLO_TEXTS.1)?;
    let catalogue: Catalogue = from_json("catalogue", text).map_err(malformed)?;
    if !catalogue.is_sane() {
        return Err(Status::invalid_argument("a catalogue of more faults or probes than there can be"));
    }
    let key = (AgentVersion::read(&hello.agent_version), sha256(text.as_bytes()));
    Ok(Offer { key, catalogue: Arc::new(catalogue) })
}

fn malformed(error: fracas_proto::Malformed) -> Status {
    Status::invalid_argument(error.to_string())
}

#[cfg(test)]
mod tests;
