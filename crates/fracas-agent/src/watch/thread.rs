//! The real watcher: probes tick on a thread of their own, which exists from the first probe on and sleeps without one.

use std::{thread, time::Duration};

use fracas_model::{
    desired::{LedgerItem, ProbeItem},
    plan::Refusal,
    policy::Policy,
};
use fracas_probes::Probe;
use tokio::{
    sync::{mpsc, oneshot},
    task::LocalSet,
};

use super::{
    Sight, Watcher,
    pace::BootPace,
    roster::{Roster, refused},
};
use crate::{
    crash::{self, Task},
    host::{Local, clock::Clock},
};

/// Most threads for calls that block (names to resolve, processes to list and start); more calls wait their turn.
const BLOCKING_THREADS: usize = 32;
/// They are kept for ever: the kernel ends a program that a probe runs when the thread that started it ends.
const KEEP_ALIVE: Duration = Duration::from_hours(24 * 365);
/// Longest time that closing waits for the thread: a look that does not come back must not keep the agent.
const CLOSING: Duration = Duration::from_secs(5);

/// Probes on a thread of their own.
pub struct ThreadWatcher {
    table: &'static [&'static dyn Probe],
    policy: Policy,
    pace: BootPace,
    orders: Option<mpsc::UnboundedSender<Order>>,
    out: mpsc::UnboundedSender<Sight>,
    sights: mpsc::UnboundedReceiver<Sight>,
}

enum Order {
    Set(Vec<ProbeItem>),
    Keep(Vec<LedgerItem>),
    Allow(Box<Policy>),
    Close(oneshot::Sender<()>),
}

impl ThreadWatcher {
    /// Knows these kinds of probes, keeps to this policy, stamps with this clock. Starts nothing yet.
    pub fn new(table: &'static [&'static dyn Probe], policy: Policy, clock: Clock) -> Self {
        let (out, sights) = mpsc::unbounded_channel();
        Self { table, policy, pace: BootPace::new(clock), orders: None, out, sights }
    }

    /// Sends an order, starting the thread if it is needed and not there.
    fn order(&mut self, order: Order) -> std::io::Result<()> {
        let order = match &self.orders {
            Some(orders) => match orders.send(order) {
                Ok(()) => return Ok(()),
                Err(unsent) => unsent.0,
            },
            None => order,
        };
        let (orders, wanted) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_keep_alive(KEEP_ALIVE)
            .build()?;
        let (table, policy, pace, out) = (self.table, self.policy.clone(), self.pace.clone(), self.out.clone());
        thread::Builder::new().name("probes".into()).spawn(move || {
            let roster = Roster::new(table, policy, pace);
            LocalSet::new().block_on(&runtime, serve(roster, wanted, out));
            // A call that still blocks (a resolver) must not hold the thread.
            runtime.shutdown_background();
        })?;
        let _ = orders.send(order);
        self.orders = Some(orders);
        Ok(())
    }
}

/// Takes orders and passes on what is seen, until nobody orders any more.
async fn serve(
    mut roster: Roster<BootPace>,
    mut orders: mpsc::UnboundedReceiver<Order>,
    out: mpsc::UnboundedSender<Sight>,
) {
    loop {
        crash::within(Task::Probes);
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                Some(Order::Set(wanted)) => roster.set(&wanted),
                Some(Order::Keep(wanted)) => roster.keep(&wanted),
                Some(Order::Allow(policy)) => roster.allow(&policy),
                Some(Order::Close(done)) => {
                    for sight in roster.close().await {
                        let _ = out.send(sight);
                    }
                    let _ = done.send(());
                }
                None => break,
            },
            sight = roster.next() => {
                let _ = out.send(sight);
            }
        }
    }
}

impl Watcher for ThreadWatcher {
    fn set(&mut self, wanted: &[ProbeItem]) {
        if wanted.is_empty() && self.orders.is_none() {
            return;
        }
        if let Err(e) = self.order(Order::Set(wanted.to_vec())) {
            for item in wanted {
                let refusal = Refusal::new(
                    format!("the thread for probes cannot be started: {e}"),
                    "raise the agent's limits of threads and open files",
                );
                let _ = self.out.send(refused(item, refusal, &self.pace));
            }
        }
    }

    fn keep(&mut self, wanted: &[LedgerItem]) {
        if wanted.is_empty() && self.orders.is_none() {
            return;
        }
        if let Err(e) = self.order(Order::Keep(wanted.to_vec())) {
            for item in wanted {
                let refusal = Refusal::new(
                    format!("the thread for ledgers cannot be started: {e}"),
                    "raise the agent's limits of threads and open files",
                );
                let _ = self.out.send(super::ledger::refused(item, refusal, &self.pace));
            }
        }
    }

    fn allow(&mut self, policy: &Policy) {
        self.policy = policy.clone();
        if let Some(orders) = &self.orders {
            // A thread that is gone is started anew, with these rules, by the next set.
            let _ = orders.send(Order::Allow(Box::new(policy.clone())));
        }
    }

    fn next(&mut self) -> Local<'_, Sight> {
        Box::pin(async {
            match self.sights.recv().await {
                Some(sight) => sight,
                // Never: a sender is kept here.
                None => std::future::pending().await,
            }
        })
    }

    fn close(&mut self) -> Local<'_, Vec<Sight>> {
        Box::pin(async {
            if let Some(orders) = self.orders.take() {
                let (done, closed) = oneshot::channel();
                // An error means that the thread is gone; it has told what it could.
                if orders.send(Order::Close(done)).is_ok() && tokio::time::timeout(CLOSING, closed).await.is_err() {
                    tracing::warn!("the probes did not end in time; their last readings are lost");
                }
            }
            std::iter::from_fn(|| self.sights.try_recv().ok()).collect()
        })
    }
}

#[cfg(test)]
mod tests;
