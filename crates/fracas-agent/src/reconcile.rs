//! The heart of the agent: makes the host suffer what is desired, and nothing else. Stop, expiry, lost contact,
//! restart and undo-all are one path: not to be any more, so undo. It talks to nobody; the session feeds and drains it.
//!
//! One task owns a [`Reconciler`] and calls `take` and `tick`; nothing is spawned and nothing happens in between. While
//! a tick waits for the host, contact can still be kept alive through [`Lease`]. **Bound:** every call of the host is
//! cut off after [`STEP_LIMIT`], and what is due for undo is undone between any two steps that are applied; so an undo
//! begins at most one `STEP_LIMIT` (plus [`FINAL_LOOKS`] and the undos before it) after it is due. A cut-off call
//! counts as failed: its step is reverted, and tried again until that succeeds. What comes while a tick is at work
//! ([`Newer`]) ends items in the same way, and nothing more is applied.

mod admit;
mod apply;
mod lease;
mod look;
mod newer;
mod recover;
mod undo;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
};

pub use fracas_faults::{ALL, Fault};
use fracas_model::{
    desired::{Desired, FaultItem, Mode},
    event::{Between, Body, Measured, Proof, Rehearsal, UndoCause},
    facts::HostFacts,
    id::ItemKey,
    plan::Refusal,
    policy::Policy,
    time::Stamp,
    units::Dur,
};

pub use self::{lease::Lease, newer::Newer};
use crate::{
    crash::{self, Boundary},
    disk::Disk,
    host::{Failure, Host},
    journal::{Ended, Journal, JournalState, Past, Record, Trouble},
};

/// The longest one call of the host may take.
pub const STEP_LIMIT: Dur = Dur::from_secs(5);
/// All last looks of one round of undoing together take no longer than this.
pub const FINAL_LOOKS: Dur = Dur::from_secs(1);

/// How much later than the agent a worker ends its item by itself, so that an orderly undo is never taken for a death.
pub const DEADLINE_SLACK: Dur = Dur::from_secs(5);

/// What a reconciler is made with.
pub struct Setup {
    /// The host owner's rules.
    pub policy: Policy,
    /// The host, as it described itself.
    pub facts: HostFacts,
    /// Faults this agent knows.
    pub faults: &'static [&'static dyn Fault],
    /// The agent's version, for the journal.
    pub agent_version: String,
    /// Which fleet the host belongs to, as in [`Record::Opened`].
    pub fleet: String,
}

/// A desired state that is older than one taken before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("desired state {offered:?} is older than {taken:?}, which was taken before; another controller may be running")]
pub struct Outdated {
    /// (epoch, revision) that was offered.
    pub offered: (u64, u64),
    /// The last one taken.
    pub taken: (u64, u64),
}

/// See the module.
pub struct Reconciler<H, D> {
    host: H,
    journal: Journal<D>,
    setup: Setup,
    controllers: Vec<String>,
    near_ports: Vec<u16>,
    lease: Lease,
    newer: Newer,
    /// Why nothing new is applied at the moment, if so.
    barred: Option<Refusal>,
    desired: Option<Desired>,
    /// Items of the last desired state that wait for the answer to their rehearsal.
    to_rehearse: Vec<FaultItem>,
    /// Items of this life of the agent, beside what the journal says of them.
    live: BTreeMap<ItemKey, Live>,
    /// Refusals that the journal did not take.
    refused: BTreeSet<ItemKey>,
    events: Vec<(String, Body)>,
    rehearsals: Vec<Rehearsal>,
    /// Closed items whose facts are in `events`.
    closing: Vec<ItemKey>,
    /// Closed items whose facts were drained; at the next call they count as being in the outbox.
    drained: Vec<ItemKey>,
}

/// Where an item is.
///
/// ```text
/// Applying -> Active -> Undoing -> (closed: undone)
///     |                    ^
///     +--- apply failed ---+
/// Applying -> Fired -> (closed: spent)
/// ```
#[derive(Clone, Debug, PartialEq)]
enum Phase {
    /// Steps are being applied, within one tick.
    Applying,
    /// It lasts until then (boot time).
    Active { until_ns: i64 },
    /// A spent fault fired; its outcome is looked for until then.
    Fired { until_ns: i64 },
    /// It is being undone; the next attempt is due then.
    Undoing { cause: UndoCause, retry_ns: i64, pause: Dur },
}

#[derive(Clone, Debug)]
struct Live {
    phase: Phase,
    /// Boot time of the end the host was told.
    deadline_ns: Option<i64>,
    looks: Looks,
    /// When the first inverse step began.
    undo_from: Option<Stamp>,
    superseded: Vec<String>,
    /// What the last attempt to undo reported.
    failures: Vec<String>,
    /// Facts that tell of the end.
    tell: Vec<Body>,
}

/// What was seen of an item's effect.
#[derive(Clone, Debug)]
struct Looks {
    /// When it became effective.
    since_ns: i64,
    next_ns: i64,
    pause: Dur,
    last: Option<(Proof, Vec<Measured>)>,
    told: Option<Proof>,
}

impl<H: Host, D: Disk> Reconciler<H, D> {
    /// Opens the journal. Call [`Reconciler::recover`] before anything else.
    pub async fn open(host: H, disk: D, setup: Setup) -> Self {
        Self {
            host,
            journal: Journal::open(disk).await,
            setup,
            controllers: Vec::new(),
            near_ports: Vec::new(),
            lease: Lease::default(),
            newer: Newer::default(),
            barred: None,
            desired: None,
            to_rehearse: Vec::new(),
            live: BTreeMap::new(),
            refused: BTreeSet::new(),
            events: Vec::new(),
            rehearsals: Vec::new(),
            closing: Vec::new(),
            drained: Vec::new(),
        }
    }

    /// Takes a new desired state; it has effect at the next tick. The same (epoch, revision) may come again.
    pub async fn take(&mut self, desired: Desired) -> Result<(), Outdated> {
        let (offered, taken) = ((desired.epoch, desired.revision), self.taken());
        if offered < taken {
            return Err(Outdated { offered, taken });
        }
        if offered > taken {
            // Even if this cannot be kept: a new desired state may be the one that ends the harm.
            let record = Record::Taken { epoch: offered.0, revision: offered.1 };
            self.journal.note(&[record], true).await;
        }
        let applies = desired.faults.iter().any(|item| item.mode == Mode::Apply);
        self.lease.ask(applies.then_some(desired.lease));
        self.to_rehearse = desired.faults.iter().filter(|i| i.mode == Mode::Rehearse).cloned().collect();
        self.desired = Some(desired);
        Ok(())
    }

    /// The last (epoch, revision) taken.
    pub fn taken(&self) -> (u64, u64) {
        self.journal.state().taken
    }

    /// The lease, which the session grants; clones are the same lease.
    pub fn lease(&self) -> Lease {
        self.lease.clone()
    }

    /// Where to say what comes while a tick is at work.
    pub fn newer(&self) -> Newer {
        self.newer.clone()
    }

    /// From now on new items are refused for this reason, or not any more.
    pub fn bar(&mut self, why: Option<Refusal>) {
        self.barred = why;
    }

    /// The next end of an active item (boot time), its lease apart.
    pub fn next_end(&self) -> Option<i64> {
        let ends = self.live.values().filter_map(|live| match live.phase {
            Phase::Active { until_ns } => Some(until_ns),
            _ => None,
        });
        ends.min()
    }

    /// What the host can do, once that was tried.
    pub fn set_facts(&mut self, facts: HostFacts) {
        self.setup.facts = facts;
    }

    /// The host owner's rules have changed. What they no longer allow is undone at the next tick.
    pub fn set_policy(&mut self, policy: Policy) {
        self.setup.policy = policy;
    }

    /// Addresses (`ip:port`) of the controller, which network faults must let pass, and the ports of one that runs on
    /// this very host.
    pub fn set_controllers(&mut self, controllers: Vec<String>, near_ports: Vec<u16>) {
        (self.controllers, self.near_ports) = (controllers, near_ports);
    }

    /// One round: notices what ended, undoes what must not be, looks at what is, rehearses and applies what is new.
    /// Call it after `take`, and when [`Reconciler::next_wake`] has come.
    pub async fn tick(&mut self) {
        self.settle_told().await;
        self.notice_lost().await;
        self.close_due().await;
        self.tell_deadlines();
        self.look().await;
        self.rehearse().await;
        self.apply_new().await;
        self.journal.tidy().await;
    }

    /// Boot time of the next tick that is needed if nothing happens before.
    pub fn next_wake(&self) -> Option<i64> {
        let times = self.live.values().filter_map(|live| match live.phase {
            Phase::Applying => None,
            Phase::Active { until_ns } => Some(until_ns.min(live.looks.next_ns).min(self.lease.until_ns())),
            Phase::Fired { until_ns } => Some(until_ns.min(live.looks.next_ns)),
            Phase::Undoing { retry_ns, .. } => Some(retry_ns),
        });
        times.min()
    }

    /// Undoes everything, whatever is desired: a person on the host said so, or the agent ends.
    pub async fn undo_all(&mut self, cause: UndoCause) {
        let keys: Vec<ItemKey> = self.live.keys().cloned().collect();
        self.undo_these(keys.into_iter().map(|key| (key, cause)).collect()).await;
    }

    /// Facts since the last call, each with its stream (`run/ID`). Put them in the outbox before calling anything else
    /// here: the next call takes them as being there, and only until then a crash makes them be told again.
    pub fn drain_events(&mut self) -> Vec<(String, Body)> {
        self.drained.append(&mut self.closing);
        std::mem::take(&mut self.events)
    }

    /// Answers to rehearsals since the last call. They belong to no history.
    pub fn drain_rehearsals(&mut self) -> Vec<Rehearsal> {
        std::mem::take(&mut self.rehearsals)
    }

    /// Items that may have something on the host now.
    pub fn open_items(&self) -> Vec<ItemKey> {
        self.journal.state().open.keys().cloned().collect()
    }

    /// Whether some fault is active and so needs its lease renewed.
    pub fn needs_lease(&self) -> bool {
        self.live.values().any(|l| matches!(l.phase, Phase::Active { .. } | Phase::Applying))
    }

    /// Why no orders are taken at the moment, if so.
    pub fn trouble(&self) -> Option<Trouble> {
        self.journal.trouble()
    }

    /// Tells the log what opening the journal found.
    pub fn report_journal(&self) {
        if self.journal.torn() > 0 {
            let bytes = self.journal.torn();
            tracing::warn!(
                bytes,
                "the journal's last record was unfinished and was cut off: a crash cut its write short"
            );
        }
        if let Some(trouble) = self.trouble() {
            let refusal = trouble.refusal();
            tracing::error!(%trouble, instead = refusal.instead, "this host takes no orders");
        }
    }

    /// The fold of the journal.
    pub fn state(&self) -> &JournalState {
        self.journal.state()
    }

    /// The host.
    pub fn host(&self) -> &H {
        &self.host
    }

    fn now_ns(&self) -> i64 {
        self.host.now().boot_ns
    }

    fn emit(&mut self, key: &ItemKey, body: Body) {
        self.events.push((format!("run/{}", key.run), body));
    }

    /// Emits a fact that belongs to the item's end, and keeps it for telling it again.
    fn emit_end(&mut self, key: &ItemKey, body: Body) {
        if let Some(live) = self.live.get_mut(key) {
            live.tell.push(body.clone());
        }
        self.emit(key, body);
    }

    async fn close(&mut self, key: &ItemKey, ended: Ended) {
        let tell = self.live.remove(key).map(|l| l.tell).unwrap_or_default();
        let past = self.journal.state().open.get(key).map(|open| Past {
            experiment: open.experiment.clone(),
            fault: open.fault.clone(),
            what: open.plan.summary.clone(),
            from: open.at.clone(),
            to: self.host.now(),
        });
        crash::at(Boundary::BeforeCloseRecord);
        // Not synced: an item whose end is lost with the power is found open, undone again and closed then.
        self.journal.note(&[Record::Closed { key: key.clone(), ended, tell, past }], false).await;
        crash::at(Boundary::AfterCloseRecord);
        self.closing.push(key.clone());
    }

    async fn refuse(&mut self, item: &FaultItem, refusal: Refusal) {
        let (key, at) = (&item.key, self.host.now());
        let past = Past {
            experiment: item.experiment.clone(),
            fault: item.fault.clone(),
            what: refusal.why.clone(),
            from: None,
            to: at.clone(),
        };
        let body = Body::Refused { item: key.clone(), refusal, at };
        self.emit(key, body.clone());
        // Synced: after a power cut it must not be applied although it was said to be refused.
        let closed = Record::Closed { key: key.clone(), ended: Ended::Refused, tell: vec![body], past: Some(past) };
        self.journal.note(&[closed], true).await;
        self.refused.insert(key.clone());
        self.closing.push(key.clone());
    }

    /// Tells the host how long active items may still last, where that changed: their workers end by themselves
    /// [`DEADLINE_SLACK`] after the agent should have undone them.
    fn tell_deadlines(&mut self) {
        let (now_ns, lease_ns) = (self.now_ns(), self.lease.until_ns());
        for (key, live) in &mut self.live {
            let Phase::Active { until_ns } = live.phase else { continue };
            let end_ns = until_ns.min(lease_ns);
            if live.deadline_ns.replace(end_ns) != Some(end_ns) {
                self.host.deadline(key, Dur::from_ns(end_ns.saturating_sub(now_ns)) + DEADLINE_SLACK);
            }
        }
    }

    async fn settle_told(&mut self) {
        if self.drained.is_empty() {
            return;
        }
        let told: Vec<Record> = self.drained.drain(..).map(|key| Record::Reported { key }).collect();
        crash::at(Boundary::BeforeToldRecord);
        self.journal.note(&told, false).await;
        crash::at(Boundary::AfterToldRecord);
    }
}

impl Live {
    fn new(phase: Phase) -> Self {
        let looks = Looks { since_ns: 0, next_ns: 0, pause: Dur::ZERO, last: None, told: None };
        Self {
            phase,
            deadline_ns: None,
            looks,
            undo_from: None,
            superseded: Vec::new(),
            failures: Vec::new(),
            tell: Vec::new(),
        }
    }
}

/// A call of the host with an end.
async fn within<T>(limit: Dur, call: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    match tokio::time::timeout(limit.std(), call).await {
        Ok(answer) => answer,
        Err(_) => Err(Failure(format!("no answer within {}", limit.human()))),
    }
}

/// From the beginning of one to the end of the other.
fn span(first: &Between, last: &Between) -> Between {
    Between { from: first.from.clone(), to: last.to.clone() }
}
