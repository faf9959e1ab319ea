//! The fleet: which hosts there are, who is connected, and the one desired set each of them should have now.
//!
//! It unites what all runs wish, under the latched halt. It decides nothing about runs and talks to no socket:
//! sessions wait on a [`tokio::sync::watch`] for their host's set. A mutex guards short sections without awaits.

mod census;
mod claims;
mod credentials;
mod guard;
mod hosts;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fracas_model::{
    access::DEFAULT_ENVIRONMENT,
    catalogue::Catalogue,
    desired::{Desired, FaultItem, LedgerItem, Mode, ProbeItem},
    event::Rehearsal,
    facts::HostFacts,
    guard::GuardRails,
    id::{HostId, ItemKey, RunId},
    identity::{Instances, Serials, Validity},
    time::Stamp,
    units::Dur,
};
use tokio::sync::{mpsc, watch};

use self::claims::Claims;
pub use self::{
    census::Census,
    claims::{Claimed, NotAdmitted, admit},
    credentials::Caller,
    hosts::{HostError, Offer, OfferKey},
};
use crate::enrol::ENVIRONMENT_LABEL;

/// Lease of hosts on which nothing is active: only its presence matters.
const IDLE_LEASE: Dur = Dur::from_secs(15);
/// Facts of a host that is in contact arrive well within this.
const LAST_FACTS: Dur = Dur::from_secs(10);
/// Runs that are remembered once they are over: more than end within the time that a fact is on its way.
const OVER: usize = 64;

/// What one run wishes of one host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wish {
    /// Faults it should suffer.
    pub faults: Vec<FaultItem>,
    /// Probes it should run.
    pub probes: Vec<ProbeItem>,
    /// Ledgers it should keep.
    pub ledgers: Vec<LedgerItem>,
}

/// A host as the fleet knows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostRecord {
    /// Name, for people.
    pub name: String,
    /// Labels given by tokens and operators; facts are added when asked for.
    pub labels: BTreeMap<String, String>,
    /// As of the last contact.
    pub facts: Option<HostFacts>,
    /// Last sign of life, on the controller's clock.
    pub last_seen: Option<Stamp>,
    /// Whether a session is open.
    pub connected: bool,
    /// The run that was left unconfirmed on it.
    pub quarantined: Option<RunId>,
    /// What is wrong with its journal, as it said last: then nobody can say that it is clean. Empty when all is well.
    pub trouble: String,
    /// Why no new fault may be drawn onto it, as a person said.
    pub cordoned: Option<String>,
    /// The controller's own unprivileged observer.
    pub observer: bool,
    /// What its agent offered last.
    pub offer: Option<OfferKey>,
    /// The run that has it for a fault.
    pub taken: Option<RunId>,
    /// When the certificate that it used last holds; unknown until it is in contact.
    pub certificate: Option<Validity>,
    /// Serial of the certificate of which it was told that little of its life is left.
    pub certificate_low: String,
    /// Why none of its certificates is accepted any more.
    pub revoked: Option<String>,
    /// Why it seems to be two agents with one identity.
    pub duplicate: Option<String>,
    /// Where its agent calls from; empty while it is out of contact.
    pub address: String,
}

impl HostRecord {
    /// Where it belongs: runs of other environments do not draw it.
    pub fn environment(&self) -> &str {
        self.labels.get(ENVIRONMENT_LABEL).map_or(DEFAULT_ENVIRONMENT, String::as_str)
    }

    /// Why no fault may be drawn onto it, if so.
    pub fn distrust(&self) -> Option<String> {
        if let Some(why) = &self.revoked {
            return Some(format!("revoked, {why}"));
        }
        if let Some(why) = &self.duplicate {
            return Some(format!("{why}, end it with fracas hosts revoke or trust"));
        }
        let left = self.quarantined.as_ref().map(|run| format!("run {run} was left unconfirmed on it"));
        left.or_else(|| {
            (!self.trouble.is_empty()).then(|| format!("{}, see it with fracas-agent status", self.trouble))
        })
    }

    /// Labels given to it, and those made from its facts under `fact/`, which it cannot use to claim others.
    pub fn all_labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        labels.retain(|key, _| !key.starts_with("fact/"));
        if let Some(facts) = &self.facts {
            labels.insert("fact/hostname".into(), facts.hostname.clone());
            labels.insert("fact/os".into(), facts.os.clone());
            labels.insert("fact/kernel".into(), facts.kernel.clone());
            labels.insert("fact/arch".into(), facts.arch.clone());
        }
        labels
    }
}

/// How a host stands with its controller now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contact {
    /// Whether it is connected.
    pub connected: bool,
    /// Whether it has taken all that is desired of it now, and what it told before is in the history.
    pub settled: bool,
}

/// One open session of a host.
#[derive(Debug)]
pub struct Connection {
    /// The set the host should have; changes wake the session.
    pub desired: watch::Receiver<Desired>,
    /// Tells this session from an older one of the same host.
    pub number: u64,
    /// Another agent, which may live yet, had a session until now: see [`Fleet::end_probation`].
    pub probation: bool,
}

/// Shared handle.
#[derive(Clone, Debug)]
pub struct Fleet {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<()>,
}

/// A host's newest session.
#[derive(Debug)]
struct Session {
    number: u64,
    desired: watch::Sender<Desired>,
    caller: Caller,
    /// Its agent has answered what it was told in this session.
    lives: bool,
    /// It is asked for no fault yet.
    probation: bool,
    /// Revision that the host has taken.
    taken: Option<u64>,
    /// Since when it says that nothing of ours is on it, without a break.
    clean: Option<Stamp>,
}

impl Session {
    fn settled(&self) -> bool {
        !self.probation && self.taken == Some(self.desired.borrow().revision)
    }
}

#[derive(Debug)]
struct State {
    epoch: u64,
    revision: u64,
    next_session: u64,
    halted: Option<String>,
    hosts: BTreeMap<HostId, HostRecord>,
    sessions: BTreeMap<HostId, Session>,
    wishes: BTreeMap<RunId, (Dur, BTreeMap<HostId, Wish>)>,
    /// Runs forgotten last, oldest first, with their hosts.
    over: VecDeque<(RunId, BTreeSet<HostId>)>,
    rehearsals: BTreeMap<RunId, mpsc::UnboundedSender<Rehearsal>>,
    claims: Claims,
    rails: Arc<GuardRails>,
    /// The certificates of each host.
    serials: BTreeMap<HostId, Serials>,
    /// The agents of each host, as long as this controller has lived.
    instances: BTreeMap<HostId, Instances>,
    /// Hosts that were taken out of the fleet.
    forgotten: BTreeSet<HostId>,
    /// What agents offer, each kind once, whoever it comes from.
    offers: BTreeMap<OfferKey, Arc<Catalogue>>,
}

impl Fleet {
    /// An empty fleet of a controller's epoch.
    pub fn new(epoch: u64) -> Self {
        let state = State {
            epoch,
            revision: 0,
            next_session: 0,
            halted: None,
            hosts: BTreeMap::new(),
            sessions: BTreeMap::new(),
            wishes: BTreeMap::new(),
            over: VecDeque::new(),
            rehearsals: BTreeMap::new(),
            claims: Claims::new(),
            rails: Arc::default(),
            serials: BTreeMap::new(),
            instances: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            offers: BTreeMap::new(),
        };
        Self { state: Arc::new(Mutex::new(state)), changed: watch::Sender::new(()) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes a host's record, making it first if need be.
    pub fn record(&self, host: &HostId, change: impl FnOnce(&mut HostRecord)) {
        change(self.lock().hosts.entry(host.clone()).or_default());
    }

    /// All hosts.
    pub fn hosts(&self) -> BTreeMap<HostId, HostRecord> {
        let state = self.lock();
        let mut hosts = state.hosts.clone();
        for (run, theirs) in &state.claims {
            for host in theirs {
                if let Some(record) = hosts.get_mut(host) {
                    record.taken = Some(run.clone());
                }
            }
        }
        hosts
    }

    /// Epoch and revision of what is desired now.
    pub fn mark(&self) -> (u64, u64) {
        let state = self.lock();
        (state.epoch, state.revision)
    }

    /// What is desired is from now on of this epoch, if it is higher; every session sends it anew.
    pub fn raise_epoch(&self, epoch: u64) {
        let mut state = self.lock();
        if epoch > state.epoch {
            state.epoch = epoch;
            state.push();
        }
    }

    /// Runs with a wish for a fault on this host.
    pub fn runs_on(&self, host: &HostId) -> Vec<RunId> {
        let state = self.lock();
        let hurts =
            |(_, wishes): &(Dur, BTreeMap<HostId, Wish>)| wishes.get(host).is_some_and(|w| !w.faults.is_empty());
        state.wishes.iter().filter(|(_, wish)| hurts(wish)).map(|(run, _)| run.clone()).collect()
    }

    /// Wakes whoever holds it when the [`contact`](Self::contact) of some host has changed.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// How a host stands now.
    pub fn contact(&self, host: &HostId) -> Contact {
        let state = self.lock();
        let Some(session) = state.sessions.get(host) else { return Contact::default() };
        Contact { connected: true, settled: session.settled() }
    }

    /// A host says whether something of ours may be on it.
    pub fn says_clean(&self, host: &HostId, clean: bool, now: &Stamp) {
        let mut state = self.lock();
        let Some(session) = state.sessions.get_mut(host) else { return };
        let since = session.clean.take().or_else(|| Some(now.clone()));
        session.clean = since.filter(|_| clean && session.settled());
    }

    /// Whether a host has taken all that is desired of it now, and has said since then, for longer than its last facts take
    /// to arrive, that nothing of ours is on it.
    pub fn is_clean(&self, host: &HostId, now: &Stamp) -> bool {
        let state = self.lock();
        let session = state.sessions.get(host).filter(|session| session.settled());
        let since = session.and_then(|session| session.clean.as_ref());
        since.and_then(|since| now.since(since).ok()).is_some_and(|lasted| lasted >= LAST_FACTS)
    }

    /// A host says that it has taken a desired state.
    pub fn taken(&self, host: &HostId, epoch: u64, revision: u64) {
        let mut state = self.lock();
        if epoch != state.epoch {
            return;
        }
        let Some(session) = state.sessions.get_mut(host) else { return };
        session.taken = session.taken.max(Some(revision));
        drop(state);
        self.changed.send_replace(());
    }

    /// Opens a session of an agent that says nothing of itself; see [`connect_as`](Self::connect_as).
    pub fn connect(&self, host: &HostId, facts: HostFacts, offer: Offer, now: Stamp) -> Result<Connection, HostError> {
        self.connect_as(host, Caller::default(), facts, offer, now)
    }

    /// Opens a session; an older one of the same host no longer counts.
    ///
    /// # Errors
    /// [`HostError::Forgotten`], [`HostError::Revoked`], [`HostError::Duplicate`].
    pub fn connect_as(
        &self,
        host: &HostId,
        caller: Caller,
        facts: HostFacts,
        offer: Offer,
        now: Stamp,
    ) -> Result<Connection, HostError> {
        let mut state = self.lock();
        if state.forgotten.contains(host) {
            return Err(HostError::Forgotten(host.clone()));
        }
        let probation = state.takes_over(host, &caller)?;
        state.next_session += 1;
        let number = state.next_session;
        let record = state.hosts.entry(host.clone()).or_default();
        if record.name.is_empty() {
            record.name.clone_from(&facts.hostname);
        }
        record.facts = Some(facts);
        record.connected = true;
        record.address.clone_from(&caller.address);
        record.last_seen = Some(now);
        record.offer = Some(offer.key);
        if state.offers.insert(offer.key, offer.catalogue).is_none() {
            state.prune_offers();
        }
        let (sender, desired) = watch::channel(Desired::default());
        let session = Session { number, desired: sender, caller, lives: false, probation, taken: None, clean: None };
        state.sessions.insert(host.clone(), session);
        let wanted = state.desired_for(host);
        if let Some(session) = state.sessions.get(host) {
            session.desired.send_replace(wanted);
        }
        drop(state);
        self.changed.send_replace(());
        Ok(Connection { desired, number, probation })
    }

    /// Closes a session, if it is still the host's newest.
    pub fn disconnect(&self, host: &HostId, number: u64) {
        let mut state = self.lock();
        if state.sessions.get(host).is_none_or(|session| session.number != number) {
            return;
        }
        state.sessions.remove(host);
        if let Some(record) = state.hosts.get_mut(host) {
            record.connected = false;
            record.address.clear();
        }
        drop(state);
        self.changed.send_replace(());
    }

    /// Replaces all a run wishes, with the lease its faults live on.
    pub fn wish(&self, run: &RunId, lease: Dur, wishes: BTreeMap<HostId, Wish>) {
        let mut state = self.lock();
        let same = state.wishes.get(run).is_some_and(|(l, w)| *l == lease && *w == wishes);
        if !same {
            state.wishes.insert(run.clone(), (lease, wishes));
            state.push();
        }
    }

    /// Lets hosts take part in a run that has no wish yet, so that what they report finds its history.
    pub fn join(&self, run: &RunId, lease: Dur, hosts: &[HostId]) {
        let mut state = self.lock();
        let entry = state.wishes.entry(run.clone()).or_insert_with(|| (lease, BTreeMap::new()));
        for host in hosts {
            entry.1.entry(host.clone()).or_default();
        }
    }

    /// Wishes nothing of a run's hosts, which still take part.
    pub fn spare(&self, run: &RunId) {
        let mut state = self.lock();
        let Some((_, wishes)) = state.wishes.get_mut(run) else { return };
        for wish in wishes.values_mut() {
            *wish = Wish::default();
        }
        state.push();
    }

    /// A run has no wish any more, and no claim to any host.
    pub fn forget(&self, run: &RunId) {
        let mut state = self.lock();
        state.rehearsals.remove(run);
        state.claims.remove(run);
        if let Some((_, wishes)) = state.wishes.remove(run) {
            state.over.push_back((run.clone(), wishes.into_keys().collect()));
            if state.over.len() > OVER {
                state.over.pop_front();
            }
            state.push();
        }
    }

    /// Asks hosts what they would do; answers come through the receiver. End it with [`Self::forget`].
    pub fn rehearse(&self, run: &RunId, items: Vec<FaultItem>) -> mpsc::UnboundedReceiver<Rehearsal> {
        let (sender, answers) = mpsc::unbounded_channel();
        let mut wishes: BTreeMap<HostId, Wish> = BTreeMap::new();
        for item in items {
            let item = FaultItem { mode: Mode::Rehearse, ..item };
            wishes.entry(item.key.host.clone()).or_default().faults.push(item);
        }
        self.lock().rehearsals.insert(run.clone(), sender);
        self.wish(run, IDLE_LEASE, wishes);
        answers
    }

    /// A host's answer to a rehearsal; a host speaks only for itself.
    pub fn rehearsed(&self, host: &HostId, rehearsal: Rehearsal) {
        let state = self.lock();
        if rehearsal.item.host == *host
            && let Some(waiting) = state.rehearsals.get(&rehearsal.item.run)
        {
            let _ = waiting.send(rehearsal);
        }
    }

    /// Latches or lifts the halt. While it is latched no host is desired to suffer anything.
    pub fn halt(&self, reason: Option<String>) {
        let mut state = self.lock();
        state.halted = reason;
        state.push();
    }

    /// Why nothing may start, if so.
    pub fn halted(&self) -> Option<String> {
        self.lock().halted.clone()
    }

    /// The shortest lease of the faults a host has now; `None` when it has none.
    pub fn lease_of(&self, host: &HostId) -> Option<Dur> {
        let state = self.lock();
        let desired = state.desired_for(host);
        desired.faults.iter().any(|f| f.mode == Mode::Apply).then_some(desired.lease)
    }

    /// Whether a host takes part in a run, and so may write to its history; or did until a short while ago, so that its
    /// last words about the run, which is over for the host a moment later, are only late.
    pub fn takes_part(&self, host: &HostId, run: &RunId) -> bool {
        let state = self.lock();
        let did = || state.over.iter().any(|(over, hosts)| over == run && hosts.contains(host));
        state.wishes.get(run).is_some_and(|(_, wishes)| wishes.contains_key(host)) || did()
    }

    /// Items that hosts still had at contact although no run wishes them: they will be undone by the empty set.
    pub fn strangers(&self, host: &HostId, active: &[ItemKey]) -> BTreeSet<RunId> {
        let state = self.lock();
        active.iter().filter(|k| k.host == *host && !state.wishes.contains_key(&k.run)).map(|k| k.run.clone()).collect()
    }
}

impl State {
    fn desired_for(&self, host: &HostId) -> Desired {
        let mut desired =
            Desired { epoch: self.epoch, revision: self.revision, lease: IDLE_LEASE, ..Desired::default() };
        if self.hosts.get(host).is_some_and(|record| record.duplicate.is_some()) {
            return desired;
        }
        let withheld = self.halted.is_some() || self.sessions.get(host).is_some_and(|session| session.probation);
        let mut lease = None;
        for (run_lease, wishes) in self.wishes.values() {
            let Some(wish) = wishes.get(host) else { continue };
            let faults = wish.faults.iter().filter(|f| !withheld || f.mode == Mode::Rehearse);
            let before = desired.faults.len();
            desired.faults.extend(faults.cloned());
            if desired.faults[before..].iter().any(|f| f.mode == Mode::Apply) {
                lease = Some(lease.map_or(*run_lease, |known: Dur| known.min(*run_lease)));
            }
            desired.probes.extend(wish.probes.iter().cloned());
            desired.ledgers.extend(wish.ledgers.iter().cloned());
        }
        desired.lease = lease.unwrap_or(IDLE_LEASE);
        desired
    }

    /// Keeps only what some host offers.
    fn prune_offers(&mut self) {
        let offered: BTreeSet<OfferKey> = self.hosts.values().filter_map(|record| record.offer).collect();
        self.offers.retain(|key, _| offered.contains(key));
    }

    fn push(&mut self) {
        self.revision += 1;
        for (host, Session { desired: sender, .. }) in &self.sessions {
            let desired = self.desired_for(host);
            sender.send_if_modified(|known| {
                let changed = known.faults != desired.faults
                    || known.probes != desired.probes
                    || known.ledgers != desired.ledgers
                    || known.lease != desired.lease
                    || known.epoch != desired.epoch;
                if changed {
                    *known = desired;
                }
                changed
            });
        }
    }
}

#[cfg(test)]
mod tests;
