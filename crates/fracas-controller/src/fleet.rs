//! The fleet: which hosts there are, who is connected, and the one desired set each of them should have now.
//!
//! It unites what all runs wish, under the latched halt. It decides nothing about runs and talks to no socket:
//! sessions wait on a [`tokio::sync::watch`] for their host's set. A mutex guards short sections without awaits.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fracas_model::{
    catalogue::Catalogue,
    desired::{Desired, FaultItem, Mode, ProbeItem},
    event::Rehearsal,
    facts::HostFacts,
    id::{HostId, ItemKey, RunId},
    time::Stamp,
    units::Dur,
};
use tokio::sync::{mpsc, watch};

/// Lease of hosts on which nothing is active: only its presence matters.
const IDLE_LEASE: Dur = Dur::from_secs(15);
/// Runs that are remembered once they are over: more than end within the time that a fact is on its way.
const OVER: usize = 64;

/// What one run wishes of one host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wish {
    /// Faults it should suffer.
    pub faults: Vec<FaultItem>,
    /// Probes it should run.
    pub probes: Vec<ProbeItem>,
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
    /// The controller's own unprivileged observer.
    pub observer: bool,
}

impl HostRecord {
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
    /// Revision that the host has taken.
    taken: Option<u64>,
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
    catalogue: Catalogue,
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
            catalogue: Catalogue::default(),
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
        self.lock().hosts.clone()
    }

    /// Everything documents may name, as far as agents have told.
    pub fn catalogue(&self) -> Catalogue {
        self.lock().catalogue.clone()
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
        Contact { connected: true, settled: session.taken == Some(session.desired.borrow().revision) }
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

    /// Opens a session; an older one of the same host no longer counts.
    pub fn connect(&self, host: &HostId, facts: HostFacts, catalogue: &Catalogue, now: Stamp) -> Connection {
        let mut state = self.lock();
        state.catalogue.merge(catalogue);
        state.next_session += 1;
        let number = state.next_session;
        let record = state.hosts.entry(host.clone()).or_default();
        if record.name.is_empty() {
            record.name.clone_from(&facts.hostname);
        }
        record.facts = Some(facts);
        record.connected = true;
        record.last_seen = Some(now);
        let (sender, desired) = watch::channel(state.desired_for(host));
        state.sessions.insert(host.clone(), Session { number, desired: sender, taken: None });
        drop(state);
        self.changed.send_replace(());
        Connection { desired, number }
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

    /// A run has no wish any more.
    pub fn forget(&self, run: &RunId) {
        let mut state = self.lock();
        state.rehearsals.remove(run);
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
        let mut lease = None;
        for (run_lease, wishes) in self.wishes.values() {
            let Some(wish) = wishes.get(host) else { continue };
            let faults = wish.faults.iter().filter(|f| self.halted.is_none() || f.mode == Mode::Rehearse);
            let before = desired.faults.len();
            desired.faults.extend(faults.cloned());
            if desired.faults[before..].iter().any(|f| f.mode == Mode::Apply) {
                lease = Some(lease.map_or(*run_lease, |known: Dur| known.min(*run_lease)));
            }
            desired.probes.extend(wish.probes.iter().cloned());
        }
        desired.lease = lease.unwrap_or(IDLE_LEASE);
        desired
    }

    fn push(&mut self) {
        self.revision += 1;
        for (host, Session { desired: sender, .. }) in &self.sessions {
            let desired = self.desired_for(host);
            sender.send_if_modified(|known| {
                let changed = known.faults != desired.faults
                    || known.probes != desired.probes
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
mod tests {
    use fracas_model::{catalogue::Params, time::ClockId};

    use super::*;

    fn now() -> Stamp {
        Stamp { clock: ClockId { host: "c".into(), boot: "b".into() }, boot_ns: 0, wall_ns: 0, bound_ns: 0 }
    }

    fn fault(run: &str, host: &str) -> FaultItem {
        let key = ItemKey { run: run.into(), entry: "e".into(), occurrence: 0, host: host.into(), generation: 1 };
        FaultItem {
            key,
            mode: Mode::Apply,
            fault: "f".into(),
            params: Params::default(),
            duration: None,
            plan_digest: None,
        }
    }

    fn wish(run: &str, host: &str) -> BTreeMap<HostId, Wish> {
        [(host.into(), Wish { faults: vec![fault(run, host)], probes: vec![] })].into()
    }

    #[test]
    fn a_host_gets_the_union_of_all_runs_with_the_shortest_lease() {
        let fleet = Fleet::new(7);
        let host = HostId::from("h");
        let session = fleet.connect(&host, HostFacts::default(), &Catalogue::default(), now());
        fleet.wish(&"r1".into(), Dur::from_secs(15), wish("r1", "h"));
        fleet.wish(&"r2".into(), Dur::from_secs(5), wish("r2", "h"));
        let desired = session.desired.borrow().clone();
        assert_eq!((desired.epoch, desired.faults.len(), desired.lease), (7, 2, Dur::from_secs(5)));
        fleet.forget(&"r1".into());
        assert_eq!(session.desired.borrow().faults.len(), 1);
    }

    #[test]
    fn who_took_part_may_be_late_for_a_while() {
        let fleet = Fleet::new(1);
        let (host, run) = ("h".into(), RunId::from("r"));
        let takes_part = |host: &HostId| fleet.takes_part(host, &run);
        assert!(!takes_part(&host));
        fleet.wish(&run, IDLE_LEASE, wish("r", "h"));
        fleet.forget(&run);
        assert!(takes_part(&host) && !takes_part(&"g".into()));
        for n in 0..OVER {
            let other = RunId::from(format!("r{n}").as_str());
            fleet.join(&other, IDLE_LEASE, &["h".into()]);
            fleet.forget(&other);
        }
        assert!(!takes_part(&host));
    }

    #[test]
    fn revisions_rise_and_repeats_do_not_wake_a_host() {
        let fleet = Fleet::new(1);
        let mut session = fleet.connect(&"h".into(), HostFacts::default(), &Catalogue::default(), now());
        fleet.wish(&"r".into(), IDLE_LEASE, wish("r", "h"));
        let first = session.desired.borrow_and_update().revision;
        fleet.wish(&"r".into(), IDLE_LEASE, wish("r", "h"));
        fleet.wish(&"other".into(), IDLE_LEASE, wish("other", "g"));
        assert!(!session.desired.has_changed().unwrap());
        fleet.forget(&"r".into());
        assert!(session.desired.borrow_and_update().revision > first);
    }

    #[test]
    fn a_halt_takes_every_fault_away_until_it_is_cleared() {
        let fleet = Fleet::new(1);
        let session = fleet.connect(&"h".into(), HostFacts::default(), &Catalogue::default(), now());
        fleet.wish(&"r".into(), IDLE_LEASE, wish("r", "h"));
        fleet.halt(Some("enough".into()));
        assert!(session.desired.borrow().faults.is_empty());
        fleet.forget(&"r".into());
        fleet.halt(None);
        assert!(session.desired.borrow().faults.is_empty(), "what the runs gave up does not come back");
    }

    #[test]
    fn a_host_is_settled_once_it_has_taken_what_is_desired_of_it_now() {
        let fleet = Fleet::new(1);
        let host = HostId::from("h");
        assert_eq!(fleet.contact(&host), Contact::default());
        let session = fleet.connect(&host, HostFacts::default(), &Catalogue::default(), now());
        let revision = || session.desired.borrow().revision;
        let first = revision();
        fleet.taken(&host, 1, first);
        assert_eq!(fleet.contact(&host), Contact { connected: true, settled: true });
        fleet.wish(&"r".into(), IDLE_LEASE, wish("r", "h"));
        fleet.taken(&host, 1, first);
        fleet.taken(&host, 0, revision());
        assert!(!fleet.contact(&host).settled, "an older word, and a word to an older controller");
        fleet.taken(&host, 1, revision());
        fleet.wish(&"other".into(), IDLE_LEASE, wish("other", "g"));
        assert!(fleet.contact(&host).settled, "what is asked of others is no matter");
    }

    #[test]
    fn an_old_session_cannot_close_a_new_one() {
        let fleet = Fleet::new(1);
        let host = HostId::from("h");
        let old = fleet.connect(&host, HostFacts::default(), &Catalogue::default(), now());
        let new = fleet.connect(&host, HostFacts::default(), &Catalogue::default(), now());
        fleet.disconnect(&host, old.number);
        assert!(fleet.hosts()[&host].connected);
        fleet.disconnect(&host, new.number);
        assert!(!fleet.hosts()[&host].connected);
    }

    #[test]
    fn a_host_answers_a_rehearsal_only_for_itself() {
        let fleet = Fleet::new(1);
        let mut answers = fleet.rehearse(&"r".into(), vec![fault("r", "h")]);
        let answer = Rehearsal { item: fault("r", "h").key, plan: None, refusals: vec![], digest: String::new() };
        fleet.rehearsed(&"g".into(), answer.clone());
        assert!(answers.try_recv().is_err());
        fleet.rehearsed(&"h".into(), answer.clone());
        assert_eq!(answers.try_recv().unwrap(), answer);
    }
}
