//! The agent's talk with its controller: one stream, opened again whenever it breaks. It brings desired states down,
//! facts up, and keeps the lease alive; it decides nothing about faults.
//!
//! It runs beside the reconciler, never inside it: a step that takes seconds must not cost the lease.

use std::{cell::RefCell, collections::BTreeSet, net::SocketAddr, rc::Rc, time::Duration};

use fracas_model::{
    catalogue::Catalogue,
    desired::{Desired, Mode},
    event::Rehearsal,
    facts::HostFacts,
    id::ItemKey,
    time::Stamp,
    units::Dur,
};
use fracas_proto::{
    PROTOCOL, from_json, to_json,
    v1::{
        AgentMessage, ControllerMessage, Hello, Rehearsed, Renew, agent_message::Message as Up,
        controller_message::Message as Down, fleet_client::FleetClient,
    },
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::{
    sync::{Mutex, Notify, mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tonic::{Status, Streaming, transport::Channel};

use crate::{
    crash::{self, Renewing, Task},
    dial::{Contact, Opened},
    disk::Disk,
    outbox::Outbox,
    reconcile::{Lease, Newer},
};

pub mod offset;
mod renewing;
mod upward;

pub use renewing::Held;
use renewing::{Done, Turn};
use upward::Upward;

/// Pace of renewals and longest pause between attempts, until the controller says otherwise.
const HEARTBEAT: Duration = Duration::from_secs(5);
const RECONNECT_CAP: Duration = Duration::from_secs(30);
/// DESIGN 5: the lease where the document says nothing.
const DEFAULT_LEASE: Duration = Duration::from_secs(15);
/// Shortest and longest lease of any use: a document may ask for one second to ten minutes.
const LEASES: (Dur, Dur) = (Dur::from_secs(1), Dur::from_secs(86_400));
/// Fastest renewal and slowest, whatever the controller asks for.
const RENEWALS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_hours(1));
/// Longest pause between attempts that a controller may ask for.
const RECONNECT_MOST: Duration = Duration::from_mins(10);
/// First pause between attempts, and the same while a fault waits for its lease.
const RECONNECT_BASE: Duration = Duration::from_secs(1);
const RECONNECT_BASE_ACTIVE: Duration = Duration::from_millis(100);
/// Longest time from dialling to the controller's first word.
const OPENING: Duration = Duration::from_secs(5);
/// How long a leaving agent waits for its last facts to be acknowledged.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What the agent says of itself in each Hello.
#[derive(Clone, Debug)]
pub struct About {
    /// Version of this agent.
    pub version: String,
    /// The host.
    pub facts: HostFacts,
    /// What documents may name here.
    pub catalogue: Catalogue,
    /// Random name of this process: an agent whose name comes back after another was there is one of two.
    pub instance: String,
}

/// What reconciler and session know of each other.
#[derive(Debug, Default)]
pub struct Standing {
    /// Items that may have something on the host.
    pub open: Vec<ItemKey>,
    /// Why there may be more than that, because the journal cannot be trusted; empty when it can.
    pub journal_trouble: String,
    /// The last desired state taken.
    pub taken: (u64, u64),
    /// Some fault is active, or about to be.
    pub needs_lease: bool,
    /// The next end of an active fault (boot time), its lease apart.
    pub next_end_ns: Option<i64>,
    /// Every address of the controllers.
    pub controllers: BTreeSet<SocketAddr>,
    /// Ports of a controller that runs on this very host.
    pub near_ports: BTreeSet<u16>,
}

impl Standing {
    fn renew(&self, now: &Stamp) -> Renew {
        let (open_items, journal_trouble) = (self.open.len() as u32, self.journal_trouble.clone());
        Renew { boot_ns: now.boot_ns, wall_ns: now.wall_ns, bound_ns: now.bound_ns, open_items, journal_trouble }
    }
}

/// What leaves through the session beside facts.
#[derive(Debug)]
pub enum Say {
    /// The answer to a rehearsal.
    Rehearsed(Box<Rehearsal>),
    /// A desired state was taken.
    Taken(u64, u64),
}

/// Shared by everything that runs on the agent's thread.
pub struct Shared<D> {
    /// Facts on their way up.
    pub outbox: Mutex<Outbox<D>>,
    /// Rung when the outbox has grown.
    pub more: Notify,
    /// Rung when the lease begins to run: what waited for it can be applied.
    pub granted: Notify,
    /// See [`Standing`].
    pub standing: RefCell<Standing>,
    /// The faults' lease.
    pub lease: Lease,
    /// Rung with every grant: the controller is in contact and still wants what it wanted.
    pub contact: Notify,
    /// Told of each desired state before it is taken.
    pub newer: Newer,
    /// This host's clock.
    pub now: Rc<dyn Fn() -> Stamp>,
}

/// See the module.
pub struct Session<D> {
    /// Where to.
    pub contact: Contact,
    /// Who we are.
    pub about: About,
    /// The identity that `contact` shows, if it is renewed.
    pub held: Option<Held>,
    /// What is shared.
    pub shared: Rc<Shared<D>>,
    /// Desired states go here; only the last one matters.
    pub desired: mpsc::UnboundedSender<Desired>,
    /// What to say.
    pub say: mpsc::UnboundedReceiver<Say>,
    /// Becomes true when the agent is leaving: what is in the outbox is sent, then the session ends.
    pub leaving: watch::Receiver<bool>,
    /// Seed of the pauses between attempts.
    pub seed: u64,
}

/// Why one connection ended.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("{0}")]
    Line(#[from] std::io::Error),
    #[error("{}", .0.message())]
    Said(#[from] Status),
    #[error("the controller did not answer within {0:?}")]
    Silent(Duration),
    #[error("the controller ended the session")]
    Ended,
    #[error("the controller said what this agent does not understand: {0}")]
    Malformed(#[from] fracas_proto::Malformed),
}

/// Pace and limits that change with what the controller says.
#[derive(Clone, Copy, Debug)]
struct Pace {
    heartbeat: Duration,
    reconnect_cap: Duration,
    /// The lease of the last desired state, when it has faults to apply.
    asked: Option<Duration>,
    /// The lease that something on the host lives on: the one asked for, or, when nothing is desired any more and
    /// something is still active, the default.
    lease: Option<Duration>,
}

impl Pace {
    /// Time between renewals.
    fn renew(&self) -> Duration {
        self.lease.map_or(self.heartbeat, |lease| (lease / 3).min(self.heartbeat)).max(RENEWALS.0)
    }

    /// How long the controller may be silent before the line is given up. Idle lines are left to HTTP/2 pings.
    fn silence(&self) -> Option<Duration> {
        self.lease.map(|lease| lease * 2 / 3)
    }

    /// The longest pause before attempt `attempt` (from 0).
    fn pause(&self, attempt: u32) -> Duration {
        let (base, cap) = match self.lease {
            Some(lease) => (RECONNECT_BASE_ACTIVE, lease / 5),
            None => (RECONNECT_BASE, self.reconnect_cap),
        };
        base.saturating_mul(1 << attempt.min(16)).min(cap.max(RECONNECT_BASE_ACTIVE))
    }

    /// The pause before this attempt: at least a quarter of what is allowed, `drawn` (0 to 1) decides of the rest.
    fn drawn(&self, attempt: u32, drawn: f64) -> Duration {
        self.pause(attempt).mul_f64(0.25 + 0.75 * drawn)
    }

    /// Takes what Welcome says.
    fn told(&mut self, heartbeat: Duration, reconnect_cap: Duration) {
        self.heartbeat = heartbeat.clamp(RENEWALS.0, RENEWALS.1);
        self.reconnect_cap = reconnect_cap.clamp(RECONNECT_BASE, RECONNECT_MOST);
    }
}

/// A session that has begun.
struct Open {
    channel: Channel,
    sender: mpsc::UnboundedSender<AgentMessage>,
    incoming: Streaming<ControllerMessage>,
    welcome: Welcome,
    addresses: Vec<SocketAddr>,
    beside: Option<u16>,
}

/// How a connection ended in good order.
enum Ended {
    /// The agent leaves.
    Left,
    /// Another one took over, which was made with the next certificate.
    Turned(Box<Open>),
}

impl<D: Disk> Session<D> {
    /// Runs until the agent leaves.
    pub async fn run(mut self) {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let mut pace = Pace { heartbeat: HEARTBEAT, reconnect_cap: RECONNECT_CAP, asked: None, lease: None };
        let mut attempt = 0_u32;
        let mut turn = 0_usize;
        let mut leaving = self.leaving.clone();
        let mut told = String::new();
        let (mut next, mut change) = (None, Turn::default());
        loop {
            let Some(address) = self.contact.addresses.get(turn % self.contact.addresses.len().max(1)).cloned() else {
                // Nobody to talk to: the lease is never granted.
                let _ = leaving.wait_for(|leaving| *leaving).await;
                return;
            };
            let mut welcomed = false;
            match self.connection(&address, next.take(), &mut pace, &mut change, &mut random, &mut welcomed).await {
                Ok(Ended::Left) => return,
                Ok(Ended::Turned(open)) => {
                    while self.say.try_recv().is_ok() {}
                    next = Some(open);
                    continue;
                }
                Err(why) => {
                    let now_s = (self.shared.now)().wall_ns.div_euclid(1_000_000_000);
                    let why = renewing::over(self.held.as_ref(), now_s).unwrap_or_else(|| why.to_string());
                    if welcomed || why != told {
                        tracing::warn!(controller = address, why, "no contact with the controller");
                        told = why;
                    }
                }
            }
            if *leaving.borrow() {
                return;
            }
            if welcomed {
                attempt = 0;
                told.clear();
            } else {
                turn += 1;
            }
            self.follow_standing(&mut pace);
            let pause = pace.drawn(attempt, random.random::<f64>());
            attempt = attempt.saturating_add(1);
            tokio::select! {
                biased;
                () = sleep(pause) => {}
                _ = leaving.wait_for(|leaving| *leaving) => {
                    if self.shared.outbox.lock().await.is_empty() {
                        return;
                    }
                    // One more attempt for the last facts.
                }
            }
            // Answers that waited belong to the session that asked; the next one asks again.
            while self.say.try_recv().is_ok() {}
        }
    }

    /// One connection, from dialling, unless it is `open` already, to its end.
    async fn connection(
        &mut self,
        address: &str,
        open: Option<Box<Open>>,
        pace: &mut Pace,
        change: &mut Turn,
        random: &mut ChaCha8Rng,
        welcomed: &mut bool,
    ) -> Result<Ended, Broken> {
        let open = match open {
            Some(open) => {
                crash::renewing(Renewing::Turned);
                *open
            }
            None => self.open(address).await?,
        };
        self.lets_pass(&open);
        let Open { channel, sender, mut incoming, welcome, .. } = open;
        *welcomed = true;
        change.needs_none();
        change.told(&welcome, self.boot_ns(), random);
        tracing::info!(controller = address, version = welcome.controller_version, "in contact with the controller");
        pace.told(millis(welcome.heartbeat_ms), millis(welcome.reconnect_cap_ms));
        let mut upward = Upward::new(sender, self.shared.clone());
        let mut leaving = self.leaving.clone();
        let mut last_words: Option<Instant> = None;
        let mut heard = Instant::now();
        let mut renew_at = Instant::now();
        upward.report().await;
        loop {
            if let Some(limit) = last_words
                && (Instant::now() >= limit || self.shared.outbox.lock().await.is_empty())
            {
                return Ok(Ended::Left);
            }
            crash::within(Task::Session);
            self.follow_standing(pace);
            let now_ns = self.boot_ns();
            change.warn(now_ns);
            let silent_at = pace.silence().map(|limit| heard + limit);
            tokio::select! {
                biased;
                () = sleep_until(renew_at) => {
                    upward.send(Up::Renew(self.renew()))?;
                    renew_at = Instant::now() + pace.renew();
                }
                done = change.next(now_ns), if self.held.is_some() => {
                    if let Some(next) = self.goes_on(done, change, &channel, address, random) {
                        return Ok(Ended::Turned(next));
                    }
                }
                message = incoming.message() => {
                    let message = match message.map_err(Broken::from).and_then(|said| said.ok_or(Broken::Ended)) {
                        Ok(message) => message,
                        // The one that takes over is known to the controller a moment before it is to us.
                        Err(broken) if change.is_opening() => return match change.next(now_ns).await {
                            Done::Opened(next) => Ok(Ended::Turned(next)),
                            _ => Err(broken),
                        },
                        Err(broken) => return Err(broken),
                    };
                    heard = Instant::now();
                    if self.heed(message, &mut upward, pace).await? {
                        renew_at = heard;
                    }
                }
                Some(say) = self.say.recv() => match say {
                    Say::Rehearsed(rehearsal) => {
                        upward.send(Up::Rehearsed(Rehearsed { rehearsal_json: to_json(&rehearsal) }))?;
                    }
                    Say::Taken(epoch, revision) => upward.taken(epoch, revision).await?,
                },
                () = self.shared.more.notified() => upward.report().await,
                () = upward.again() => upward.report().await,
                () = sleep_until(silent_at.unwrap_or(heard)), if silent_at.is_some() => {
                    return Err(Broken::Silent(pace.silence().unwrap_or_default()));
                }
                left = leaving.wait_for(|leaving| *leaving), if last_words.is_none() => {
                    let _ = left;
                    last_words = Some(Instant::now() + LAST_WORDS);
                    upward.report().await;
                }
                () = sleep_until(last_words.unwrap_or(heard)), if last_words.is_some() => {}
            }
        }
    }

    /// Dials, says Hello, and waits for Welcome.
    async fn open(&self, address: &str) -> Result<Open, Broken> {
        let opening = async {
            let line = self.contact.open(address).await?;
            self.shared.standing.borrow_mut().controllers.extend(line.addresses.iter().copied());
            greet(line, self.hello()).await
        };
        timeout(OPENING, opening).await.map_err(|_| Broken::Silent(OPENING))?
    }

    /// Network faults must let pass what the controller is reached by.
    fn lets_pass(&self, open: &Open) {
        let mut standing = self.shared.standing.borrow_mut();
        standing.controllers.extend(open.addresses.iter().copied());
        if let Some(fleet) = open.beside {
            let front = u16::try_from(open.welcome.front_port).ok().filter(|port| *port > 0);
            standing.near_ports.extend([fleet].into_iter().chain(front));
        }
    }

    /// What comes of the change of certificates; a session, when that is to take over.
    fn goes_on(
        &mut self,
        done: Done,
        change: &mut Turn,
        channel: &Channel,
        address: &str,
        random: &mut ChaCha8Rng,
    ) -> Option<Box<Open>> {
        let held = self.held.as_mut()?;
        let now_ns = (self.shared.now)().boot_ns;
        match done {
            Done::Due => change.ask(channel.clone(), held),
            Done::Renewed(identity) => {
                change.renewed(now_ns);
                match identity.client_config() {
                    Ok(tls) => self.contact.tls = Some(tls),
                    Err(error) => tracing::error!(%error, "the host's next certificate cannot be used"),
                }
                held.identity = *identity;
                tracing::info!("the host's certificate was renewed; the session goes on with the next one");
                change.opens(opened(self.contact.clone(), self.hello(), address.to_owned()));
            }
            Done::NotRenewed(why) => change.not_renewed(&why, now_ns, random),
            Done::Opened(open) => return Some(open),
            Done::NotOpened(why) => {
                tracing::warn!(%why, "no session could be opened with the host's next certificate yet; this one goes on");
                change.opens_later();
            }
            Done::Again => change.opens(opened(self.contact.clone(), self.hello(), address.to_owned())),
        }
        None
    }

    fn boot_ns(&self) -> i64 {
        (self.shared.now)().boot_ns
    }

    fn hello(&self) -> Hello {
        let standing = self.shared.standing.borrow();
        Hello {
            protocol: PROTOCOL,
            agent_version: self.about.version.clone(),
            boot_id: (self.shared.now)().clock.boot.as_str().to_owned(),
            facts_json: to_json(&self.about.facts),
            catalogue_json: to_json(&self.about.catalogue),
            epoch: standing.taken.0,
            revision: standing.taken.1,
            active_items: standing.open.iter().map(to_json).collect(),
            journal_trouble: standing.journal_trouble.clone(),
            instance: self.about.instance.clone(),
        }
    }

    fn renew(&self) -> Renew {
        self.shared.standing.borrow().renew(&(self.shared.now)())
    }

    /// Does what a message says; true when the lease should be renewed at once.
    async fn heed(
        &mut self,
        message: ControllerMessage,
        upward: &mut Upward<D>,
        pace: &mut Pace,
    ) -> Result<bool, Broken> {
        match message.message {
            Some(Down::Grant(grant)) => {
                let now = (self.shared.now)();
                let lease = Dur::from_ms(i64::from(grant.lease_ms)).min(LEASES.1);
                let ran = self.shared.lease.runs(now.boot_ns);
                self.shared.lease.grant(now.boot_ns, grant.echo_boot_ns, lease);
                if !ran {
                    self.shared.granted.notify_one();
                }
                self.shared.contact.notify_one();
                let clock = from_json("clock", &grant.clock_json)?;
                upward.clock_read(&now, &clock, &grant).await;
                Ok(false)
            }
            Some(Down::Desired(desired)) => {
                let mut desired: Desired = from_json("desired", &desired.desired_json)?;
                // A lease of nothing would only make this agent dial without pause.
                desired.lease = desired.lease.clamp(LEASES.0, LEASES.1);
                let (offered, taken) = ((desired.epoch, desired.revision), self.shared.standing.borrow().taken);
                if offered < taken {
                    // Its grants must not go on prolonging what its orders cannot end: begin anew, so that it hears where
                    // we stand.
                    let why = format!("desired state {offered:?} is older than {taken:?}, which was taken before");
                    return Err(Status::failed_precondition(why).into());
                }
                let applies = desired.faults.iter().any(|f| f.mode == Mode::Apply);
                let begins = applies && pace.lease.is_none();
                pace.asked = applies.then(|| desired.lease.std());
                let runs = desired.faults.iter().filter(|f| f.mode == Mode::Apply).map(|f| &f.key.run);
                let looks = desired.probes.iter().map(|p| &p.run).chain(desired.ledgers.iter().map(|l| &l.run));
                let fresh = upward.set_runs(runs.chain(looks).cloned().collect());
                self.shared.newer.hear(&desired);
                let _ = self.desired.send(desired);
                Ok(begins || fresh)
            }
            Some(Down::Ack(ack)) => {
                upward.acknowledged(&ack.outbox, ack.seq).await;
                Ok(false)
            }
            Some(Down::Welcome(_)) | None => Ok(false),
        }
    }

    /// Something that is still active needs its lease although nothing is desired any more.
    fn follow_standing(&self, pace: &mut Pace) {
        let needs = self.shared.standing.borrow().needs_lease;
        pace.lease = pace.asked.or(needs.then_some(DEFAULT_LEASE));
    }
}

/// Says Hello over a fresh line, and waits for Welcome.
async fn greet(line: Opened, hello: Hello) -> Result<Open, Broken> {
    let Opened { channel, addresses, beside } = line;
    let (sender, receiver) = mpsc::unbounded_channel();
    let _ = sender.send(AgentMessage { message: Some(Up::Hello(hello)) });
    let outgoing = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|message| (message, receiver))
    });
    let mut incoming = FleetClient::new(channel.clone()).session(outgoing).await?.into_inner();
    match incoming.message().await?.and_then(|m| m.message) {
        Some(Down::Welcome(welcome)) => Ok(Open { channel, sender, incoming, welcome, addresses, beside }),
        Some(_) => Err(Status::failed_precondition("the controller did not begin with Welcome").into()),
        None => Err(Broken::Ended),
    }
}

/// A session beside the present one.
async fn opened(contact: Contact, hello: Hello, address: String) -> Result<Open, Broken> {
    let opening = async { greet(contact.open(&address).await?, hello).await };
    timeout(OPENING, opening).await.map_err(|_| Broken::Silent(OPENING))?
}

type Welcome = fracas_proto::v1::Welcome;

fn millis(ms: u32) -> Duration {
    Duration::from_millis(u64::from(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_on_the_wire_makes_an_agent_dial_or_renew_without_pause() {
        let mut pace =
            Pace { heartbeat: HEARTBEAT, reconnect_cap: RECONNECT_CAP, asked: None, lease: Some(Duration::ZERO) };
        pace.told(Duration::ZERO, Duration::ZERO);
        assert!(pace.renew() >= Duration::from_millis(100));
        for (attempt, drawn) in [(0, 0.0), (9, 0.0), (u32::MAX, 1.0)] {
            let pause = pace.drawn(attempt, drawn);
            assert!((Duration::from_millis(25)..=RECONNECT_BASE).contains(&pause), "{pause:?}");
        }
        pace.lease = None;
        pace.told(Duration::MAX, Duration::MAX);
        assert!(pace.renew() <= RENEWALS.1 && pace.pause(u32::MAX) <= RECONNECT_MOST);
        // What documents may ask for goes through unchanged.
        pace.lease = Some(Duration::from_secs(2));
        assert_eq!((pace.renew(), pace.pause(9)), (Duration::from_secs(2) / 3, Duration::from_secs(2) / 5));
    }
}
