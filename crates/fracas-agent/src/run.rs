//! The agent at work: reconciler, probes and session side by side on one thread, until it is asked to leave.
//!
//! ```text
//! controller -> session --desired--> reconciler --events--+
//!                  ^                      |               v
//!                  |                      +--probes--> watcher
//!                  +------- outbox <------ facts of both --+
//! ```

use std::{cell::RefCell, convert::Infallible, future::Future, rc::Rc, time::Duration};

use fracas_model::{
    desired::{Desired, LedgerItem, Mode, ProbeItem},
    event::UndoCause,
    plan::Refusal,
    policy::Policy,
    time::Stamp,
    units::Dur,
};
use tokio::{
    sync::{Mutex, Notify, mpsc, watch},
    time::{Instant, sleep_until},
};

use crate::{
    crash::{self, Boundary, Task},
    dial::Contact,
    disk::Disk,
    guard::Guard,
    host::Host,
    journal::Trouble,
    notify::Notify as Systemd,
    outbox::Outbox,
    reconcile::{DEADLINE_SLACK, Reconciler},
    rules::Rules,
    session::{About, Held, Say, Session, Shared, Standing},
    watch::{Sight, Watcher},
};

/// The longest sleep while something is open: what ends by itself is noticed, and the guard is looked after.
const LOOK_AROUND: Duration = Duration::from_secs(1);
/// What the guard is told while nothing is open: for ever, near enough.
const IDLE: Duration = Duration::from_hours(24 * 365);
/// How long a leaving agent goes on trying to undo before it leaves the rest to its guard.
const UNDO_LIMIT: Duration = Duration::from_secs(30);

/// Everything an agent is made of.
pub struct Agent<H, D, W> {
    /// Opened, and recovered from its journal.
    pub reconciler: Reconciler<H, D>,
    /// Facts on their way up.
    pub outbox: Outbox<D>,
    /// Probes.
    pub watcher: W,
    /// The host owner's rules, which reconciler and watcher began with.
    pub rules: Rules,
    /// The way to the controller.
    pub contact: Contact,
    /// What the agent says of itself.
    pub about: About,
    /// The identity by which it is known, if it renews that.
    pub held: Option<Held>,
    /// The second process that undoes when this one dies; an observer and a simulated agent have none.
    pub guard: Option<Guard>,
    /// What systemd is told, if it started this agent.
    pub systemd: Systemd,
    /// This host's clock.
    pub now: Rc<dyn Fn() -> Stamp>,
    /// Seed of the pauses between attempts to reconnect.
    pub seed: u64,
}

/// How the agent left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing of it is on the host.
    Clean,
    /// Something could not be undone in time; the guard goes on.
    Open(usize),
}

/// Runs an agent until `shutdown` resolves; then everything is undone, told as far as the controller listens, and left.
pub async fn run<H: Host, D: Disk, W: Watcher>(agent: Agent<H, D, W>, shutdown: impl Future<Output = ()>) -> Left {
    let Agent { reconciler, outbox, watcher, rules, contact, about, held, guard, systemd, now, seed } = agent;
    let shared = Rc::new(Shared {
        outbox: Mutex::new(outbox),
        more: Notify::new(),
        granted: Notify::new(),
        standing: RefCell::new(Standing::default()),
        lease: reconciler.lease(),
        contact: Notify::new(),
        newer: reconciler.newer(),
        now,
    });
    let guard = Rc::new(RefCell::new(guard));
    let (desired, wanted) = mpsc::unbounded_channel();
    let (say, said) = mpsc::unbounded_channel();
    let (sought, seeking) = watch::channel(Sought::default());
    let (policy, allowed) = watch::channel(rules.policy().clone());
    let (leave, leaving) = watch::channel(false);
    let mut reconciling =
        Reconciling { reconciler, guard: guard.clone(), rules, policy, shared: shared.clone(), say, sought };
    reconciling.flush().await;
    let session = Session { contact, about, held, shared: shared.clone(), desired, say: said, leaving, seed };
    let leaves = Notify::new();
    let asked = async {
        shutdown.await;
        systemd.stopping();
        // Also for a tick that is at work.
        shared.newer.leave();
        leaves.notify_one();
    };
    let order = async {
        reconciling.run(wanted, leaves.notified()).await;
        let left = reconciling.undo().await;
        // Dropping the sender stops the probes, which seal what they saw; only then the last words are complete.
        drop(reconciling);
        left
    };
    let work = async {
        let both = async { tokio::join!(order, watching(watcher, seeking, allowed, &shared)).0 };
        let left = tokio::select! {
            left = both => left,
            never = assuring(&guard, &systemd, &shared) => match never {},
        };
        leave.send_replace(true);
        left
    };
    let (left, (), ()) = tokio::join!(work, session.run(), asked);
    if let (Left::Clean, Some(guard)) = (left, guard.take()) {
        guard.end();
    }
    left
}

/// Tells the guard again and again how long all is well, and systemd that this agent lives. It runs beside the reconciler:
/// a tick may take long, and as long as this thread runs, every call in it has an end.
async fn assuring<D>(guard: &RefCell<Option<Guard>>, systemd: &Systemd, shared: &Shared<D>) -> Infallible {
    loop {
        crash::within(Task::Assure);
        assure(guard, shared);
        systemd.alive();
        systemd.status(&open_in_words(shared.standing.borrow().open.len()));
        sleep_until(Instant::now() + systemd.pause()).await;
    }
}

fn open_in_words(open: usize) -> String {
    match open {
        0 => "nothing is open on this host".into(),
        1 => "1 fault is open on this host".into(),
        open => format!("{open} faults are open on this host"),
    }
}

fn assure<D>(guard: &RefCell<Option<Guard>>, shared: &Shared<D>) {
    if let Some(guard) = &mut *guard.borrow_mut() {
        let now_ns = (shared.now)().boot_ns;
        guard.assure(all_well(&shared.standing.borrow(), shared.lease.until_ns(), now_ns));
    }
}

/// How long from now the guard need not mind: until the next item should end, and some slack for ending it.
fn all_well(standing: &Standing, lease_ns: i64, now_ns: i64) -> Duration {
    if !standing.needs_lease && standing.open.is_empty() {
        return IDLE;
    }
    let lease_ns = standing.needs_lease.then_some(lease_ns);
    let next_ns = [lease_ns, standing.next_end_ns].into_iter().flatten().filter(|at| *at > now_ns).min();
    // Without an end ahead something is being undone, or late.
    next_ns.map_or(UNDO_LIMIT, |at| (Dur::from_ns(at - now_ns) + DEADLINE_SLACK).std())
}

/// Lets probes run as wanted and puts what they see into the outbox, until nobody can want any more.
async fn watching<D: Disk, W: Watcher>(
    mut watcher: W,
    mut wanted: watch::Receiver<Sought>,
    mut allowed: watch::Receiver<Policy>,
    shared: &Shared<D>,
) {
    loop {
        crash::within(Task::Watch);
        let sight = tokio::select! {
            biased;
            changed = wanted.changed() => match changed {
                Ok(()) => None,
                Err(_) => break,
            },
            () = shared.contact.notified() => {
                // Asked again, so to speak: a probe goes on for as long as the controller is in contact.
                seek(&mut watcher, &wanted.borrow_and_update());
                continue;
            }
            Ok(()) = allowed.changed() => {
                watcher.allow(&allowed.borrow_and_update());
                continue;
            }
            sight = watcher.next() => Some(sight),
        };
        match sight {
            None => seek(&mut watcher, &wanted.borrow_and_update()),
            Some(sight) => keep(shared, sight).await,
        }
    }
    for sight in watcher.close().await {
        keep(shared, sight).await;
    }
}

/// Probes and ledgers that are wanted.
type Sought = (Vec<ProbeItem>, Vec<LedgerItem>);

fn seek(watcher: &mut impl Watcher, (probes, ledgers): &Sought) {
    watcher.set(probes);
    watcher.keep(ledgers);
}

async fn keep<D: Disk>(shared: &Shared<D>, sight: Sight) {
    let blob = sight.blob.unwrap_or_default();
    shared.outbox.lock().await.append(&sight.stream, &sight.body, &blob).await;
    shared.more.notify_one();
}

struct Reconciling<H, D> {
    reconciler: Reconciler<H, D>,
    guard: Rc<RefCell<Option<Guard>>>,
    rules: Rules,
    /// Tells the watcher of new rules.
    policy: watch::Sender<Policy>,
    shared: Rc<Shared<D>>,
    say: mpsc::UnboundedSender<Say>,
    sought: watch::Sender<Sought>,
}

impl<H: Host, D: Disk> Reconciling<H, D> {
    async fn run(&mut self, mut wanted: mpsc::UnboundedReceiver<Desired>, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        loop {
            let wake = self.wake();
            tokio::select! {
                biased;
                () = &mut shutdown => return,
                Some(mut desired) = wanted.recv() => {
                    // Only the last one matters: it is the whole of what is desired.
                    while let Ok(later) = wanted.try_recv() {
                        desired = later;
                    }
                    self.take(desired).await;
                }
                () = self.shared.granted.notified() => {}
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
            self.look_after_guard();
            self.round().await;
        }
    }

    /// When the next round is due; `None` while nothing is open and nobody guards.
    fn wake(&self) -> Option<Instant> {
        let around = Instant::now() + LOOK_AROUND;
        match self.reconciler.next_wake() {
            Some(at_ns) => {
                let ahead = at_ns.saturating_sub((self.shared.now)().boot_ns).max(0);
                Some(around.min(Instant::now() + Duration::from_nanos(ahead.unsigned_abs())))
            }
            None => self.guard.borrow().is_some().then_some(around),
        }
    }

    async fn take(&mut self, desired: Desired) {
        let mark = (desired.epoch, desired.revision);
        let sought = (desired.probes.clone(), desired.ledgers.clone());
        let applies = desired.faults.iter().any(|f| f.mode == Mode::Apply);
        let taken = self.reconciler.take(desired).await;
        self.flush().await;
        self.shared.standing.borrow_mut().needs_lease |= applies;
        // Before anything is applied.
        assure(&self.guard, &self.shared);
        match taken {
            Ok(()) => {
                // Asked again, unchanged: that too prolongs what runs.
                self.sought.send_replace(sought);
                let _ = self.say.send(Say::Taken(mark.0, mark.1));
            }
            Err(outdated) => tracing::warn!(%outdated, "a desired state was not taken"),
        }
    }

    /// Without a guard nothing new is applied: it is refused, with the reason, until there is one again.
    fn look_after_guard(&mut self) {
        let looked = self.guard.borrow_mut().as_mut().map(Guard::ensure);
        match looked {
            None => {}
            Some(Ok(fresh)) => {
                if fresh {
                    tracing::warn!("the guard had died; there is a new one");
                    assure(&self.guard, &self.shared);
                }
                self.reconciler.bar(None);
            }
            Some(Err(error)) => {
                tracing::error!(%error, "there is no guard, so nothing new is applied");
                let why = format!("the guard, which undoes when this host's agent dies, cannot be started: {error}");
                let instead =
                    "look at the agent's log and at the host's limits of processes and memory, then ask again";
                self.reconciler.bar(Some(Refusal::new(why, instead)));
            }
        }
    }

    async fn round(&mut self) {
        crash::within(Task::Reconcile);
        {
            let standing = self.shared.standing.borrow();
            let controllers = standing.controllers.iter().map(ToString::to_string).collect();
            self.reconciler.set_controllers(controllers, standing.near_ports.iter().copied().collect());
        }
        if let Some(policy) = self.rules.refresh() {
            self.reconciler.set_policy(policy.clone());
            self.policy.send_replace(policy.clone());
        }
        self.reconciler.tick().await;
        self.flush().await;
    }

    /// Puts what happened into the outbox, before anything else is asked of the reconciler.
    async fn flush(&mut self) {
        let events = self.reconciler.drain_events();
        if !events.is_empty() {
            crash::at(Boundary::BeforeFactsKept);
            let mut outbox = self.shared.outbox.lock().await;
            for (stream, body) in events {
                outbox.append(&stream, &body, &[]).await;
            }
            crash::at(Boundary::AfterFactsKept);
            self.shared.more.notify_one();
        }
        for rehearsal in self.reconciler.drain_rehearsals() {
            let _ = self.say.send(Say::Rehearsed(Box::new(rehearsal)));
        }
        let mut standing = self.shared.standing.borrow_mut();
        standing.open = self.reconciler.open_items();
        let hidden = self.reconciler.trouble().filter(Trouble::hides);
        standing.journal_trouble = hidden.map(|trouble| trouble.to_string()).unwrap_or_default();
        standing.taken = self.reconciler.taken();
        standing.needs_lease = self.reconciler.needs_lease();
        standing.next_end_ns = self.reconciler.next_end();
    }

    /// Undoes everything before leaving, and goes on trying for a while.
    async fn undo(&mut self) -> Left {
        let limit = Instant::now() + UNDO_LIMIT;
        self.reconciler.undo_all(UndoCause::AgentRestart).await;
        self.flush().await;
        while !self.reconciler.open_items().is_empty() && Instant::now() < limit {
            sleep_until(self.wake().unwrap_or_else(|| Instant::now() + LOOK_AROUND)).await;
            // Nothing is desired of an agent that leaves: whatever else is open is undone too.
            self.reconciler.undo_all(UndoCause::AgentRestart).await;
            self.flush().await;
        }
        match self.reconciler.open_items().len() {
            0 => Left::Clean,
            open => Left::Open(open),
        }
    }
}

#[cfg(test)]
mod tests {
    use fracas_model::catalogue::Params;

    use super::*;
    use crate::{
        disk::FileDisk,
        host::{Local, clock::Clock},
        reconcile::{Lease, Newer},
    };

    /// Counts how often it is told what is wanted.
    struct Told(mpsc::UnboundedSender<usize>);

    impl Watcher for Told {
        fn set(&mut self, wanted: &[ProbeItem]) {
            self.0.send(wanted.len()).expect("the test listens");
        }

        fn keep(&mut self, _: &[LedgerItem]) {}

        fn allow(&mut self, _: &Policy) {}

        fn next(&mut self) -> Local<'_, Sight> {
            Box::pin(std::future::pending())
        }

        fn close(&mut self) -> Local<'_, Vec<Sight>> {
            Box::pin(async { Vec::new() })
        }
    }

    #[tokio::test]
    async fn probes_go_on_for_as_long_as_the_controller_grants() {
        let dir = tempfile::tempdir().unwrap();
        let disk = FileDisk::new(dir.path()).unwrap();
        let clock = Clock::of("h".into());
        let shared = Shared {
            outbox: Mutex::new(Outbox::open(disk, &clock.now().clock.boot, "o".into()).await),
            more: Notify::new(),
            granted: Notify::new(),
            standing: RefCell::default(),
            lease: Lease::default(),
            contact: Notify::new(),
            newer: Newer::default(),
            now: Rc::new(move || clock.now()),
        };
        let probe = ProbeItem {
            run: "r".into(),
            probe: "up".into(),
            kind: "tcp".into(),
            params: Params::default(),
            every: Dur::from_secs(1),
            at_rest: None,
            timeout: Dur::from_secs(1),
            stop: Vec::new(),
            until: Dur::from_secs(60),
        };
        let (told, mut tells) = mpsc::unbounded_channel();
        let (wanted, wants) = watch::channel(Sought::default());
        let driver = async {
            let wanted = wanted;
            wanted.send_replace((vec![probe], Vec::new()));
            assert_eq!(tells.recv().await, Some(1));
            for _ in 0..3 {
                shared.contact.notify_one();
                assert_eq!(tells.recv().await, Some(1), "asked again with each grant");
            }
            drop(wanted);
        };
        let (_policy, allowed) = watch::channel(Policy::builtin());
        tokio::join!(watching(Told(told), wants, allowed, &shared), driver);
    }

    #[test]
    fn the_guard_minds_the_next_end_and_nothing_while_nothing_is_open() {
        let second = |n: i64| Dur::from_secs(n).ns();
        let mut standing = Standing::default();
        assert_eq!(all_well(&standing, i64::MIN, 0), IDLE);
        standing.needs_lease = true;
        assert_eq!(all_well(&standing, second(15), second(5)), Duration::from_secs(10 + 5));
        standing.next_end_ns = Some(second(7));
        assert_eq!(all_well(&standing, second(15), second(5)), Duration::from_secs(2 + 5));
        // Over and not undone yet: it is being undone, or about to be.
        assert_eq!(all_well(&standing, i64::MIN, second(8)), UNDO_LIMIT);
    }
}
