//! The agent at work: reconciler, probes and session side by side on one thread, until it is asked to leave.
//!
//! ```text
//! controller -> session --desired--> reconciler --events--+
//!                  ^                      |               v
//!                  |                      +--probes--> watcher
//!                  +------- outbox <------ facts of both --+
//! ```

use std::{future::Future, rc::Rc, time::Duration};

use fracas_model::{
    desired::{Desired, Mode, ProbeItem},
    event::UndoCause,
    policy::Policy,
    time::Stamp,
};
use tokio::{
    sync::{Mutex, Notify, mpsc, watch},
    time::{Instant, sleep_until},
};

use crate::{
    dial::Contact,
    disk::Disk,
    guard::Guard,
    host::Host,
    outbox::Outbox,
    reconcile::Reconciler,
    rules::Rules,
    session::{About, Say, Session, Shared, Standing},
    watch::{Sight, Watcher},
};

/// The longest sleep while something is open: what ends by itself is noticed, and the guard is looked after.
const LOOK_AROUND: Duration = Duration::from_secs(1);
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
    /// The second process that undoes when this one dies; an observer and a simulated agent have none.
    pub guard: Option<Guard>,
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
    let Agent { reconciler, outbox, watcher, rules, contact, about, guard, now, seed } = agent;
    let shared = Rc::new(Shared {
        outbox: Mutex::new(outbox),
        more: Notify::new(),
        granted: Notify::new(),
        standing: std::cell::RefCell::new(Standing::default()),
        lease: reconciler.lease(),
        now,
    });
    let (desired, wanted) = mpsc::unbounded_channel();
    let (say, said) = mpsc::unbounded_channel();
    let (probes, probed) = watch::channel(Vec::new());
    let (policy, allowed) = watch::channel(rules.policy().clone());
    let (leave, leaving) = watch::channel(false);
    let shared_too = shared.clone();
    let mut reconciling =
        Reconciling { reconciler, guard, rules, policy, shared: shared_too, say, probes, latest: None };
    reconciling.flush().await;
    let session = Session { contact, about, shared: shared.clone(), desired, say: said, leaving, seed };
    let order = async {
        reconciling.run(wanted, shutdown).await;
        let left = reconciling.undo().await;
        // Dropping the sender stops the probes, which seal what they saw; only then the last words are complete.
        let Reconciling { guard, probes, .. } = reconciling;
        drop(probes);
        (left, guard, leave)
    };
    let work = async {
        let ((left, guard, leave), ()) = tokio::join!(order, watching(watcher, probed, allowed, &shared));
        leave.send_replace(true);
        (left, guard)
    };
    let ((left, guard), ()) = tokio::join!(work, session.run());
    if let (Left::Clean, Some(guard)) = (left, guard) {
        guard.end();
    }
    left
}

/// Lets probes run as wanted and puts what they see into the outbox, until nobody can want any more.
async fn watching<D: Disk, W: Watcher>(
    mut watcher: W,
    mut wanted: watch::Receiver<Vec<ProbeItem>>,
    mut allowed: watch::Receiver<Policy>,
    shared: &Shared<D>,
) {
    loop {
        let sight = tokio::select! {
            biased;
            changed = wanted.changed() => match changed {
                Ok(()) => None,
                Err(_) => break,
            },
            Ok(()) = allowed.changed() => {
                watcher.allow(&allowed.borrow_and_update());
                continue;
            }
            sight = watcher.next() => Some(sight),
        };
        match sight {
            None => watcher.set(&wanted.borrow_and_update()),
            Some(sight) => keep(shared, sight).await,
        }
    }
    for sight in watcher.close().await {
        keep(shared, sight).await;
    }
}

async fn keep<D: Disk>(shared: &Shared<D>, sight: Sight) {
    let blob = sight.blob.unwrap_or_default();
    shared.outbox.lock().await.append(&sight.stream, &sight.body, &blob).await;
    shared.more.notify_one();
}

struct Reconciling<H, D> {
    reconciler: Reconciler<H, D>,
    guard: Option<Guard>,
    rules: Rules,
    /// Tells the watcher of new rules.
    policy: watch::Sender<Policy>,
    shared: Rc<Shared<D>>,
    say: mpsc::UnboundedSender<Say>,
    probes: watch::Sender<Vec<ProbeItem>>,
    /// The last desired state, for when the guard is lost or comes back.
    latest: Option<Desired>,
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
            self.look_after_guard().await;
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
            None => self.guard.is_some().then_some(around),
        }
    }

    async fn take(&mut self, desired: Desired) {
        let mark = (desired.epoch, desired.revision);
        let probes = desired.probes.clone();
        self.shared.standing.borrow_mut().needs_lease |= desired.faults.iter().any(|f| f.mode == Mode::Apply);
        let taken = self.reconciler.take(desired.clone()).await;
        self.flush().await;
        match taken {
            Ok(()) => {
                self.latest = Some(desired);
                // Asked again, unchanged: that too prolongs what runs.
                self.probes.send_replace(probes);
                let _ = self.say.send(Say::Taken(mark.0, mark.1));
            }
            Err(outdated) => tracing::warn!(%outdated, "a desired state was not taken"),
        }
    }

    /// Without a guard nothing new is applied: what is not open yet is taken out of the desired state until it is back.
    async fn look_after_guard(&mut self) {
        let Some(guard) = &mut self.guard else { return };
        match guard.ensure() {
            Ok(false) => {}
            Ok(true) => {
                tracing::warn!("the guard had died; there is a new one");
                if let Some(desired) = self.latest.clone() {
                    let _ = self.reconciler.take(desired).await;
                }
            }
            Err(error) => {
                tracing::error!(%error, "there is no guard, so nothing new is applied");
                if let Some(mut desired) = self.latest.clone() {
                    let open = self.reconciler.open_items();
                    desired.faults.retain(|f| f.mode == Mode::Rehearse || open.contains(&f.key));
                    let _ = self.reconciler.take(desired).await;
                }
            }
        }
    }

    async fn round(&mut self) {
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
            let mut outbox = self.shared.outbox.lock().await;
            for (stream, body) in events {
                outbox.append(&stream, &body, &[]).await;
            }
            self.shared.more.notify_one();
        }
        for rehearsal in self.reconciler.drain_rehearsals() {
            let _ = self.say.send(Say::Rehearsed(Box::new(rehearsal)));
        }
        let mut standing = self.shared.standing.borrow_mut();
        standing.open = self.reconciler.open_items();
        standing.taken = self.reconciler.taken();
        standing.needs_lease = self.reconciler.needs_lease();
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
