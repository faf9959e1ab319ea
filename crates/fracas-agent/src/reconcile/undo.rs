//! Undoing: the one path by which every item ends, whatever the cause. It never gives up.

use fracas_model::{
    event::{Between, Body, UndoCause},
    id::ItemKey,
    plan::Kind,
    units::Dur,
};

use super::{FINAL_LOOKS, Live, Phase, Reconciler, STEP_LIMIT, within};
use crate::{
    crash::{self, Boundary},
    disk::Disk,
    host::{Host, Reverted},
    journal::{Ended, Progress, Record},
};

/// After a failed attempt the next one follows after this, then after twice the pause before ...
const RETRY_FIRST: Dur = Dur::from_ms(250);
/// ... up to this.
const RETRY_MOST: Dur = Dur::from_secs(5);

impl<H: Host, D: Disk> Reconciler<H, D> {
    /// Undoes what must not be any more, and tries again what could not be undone.
    pub(super) async fn close_due(&mut self) {
        let now_ns = self.now_ns();
        let due =
            self.live.iter().filter_map(|(key, live)| Some((key.clone(), self.due(key, live, now_ns)?))).collect();
        self.undo_these(due).await;
    }

    /// Why an item must end now, if it must.
    fn due(&self, key: &ItemKey, live: &Live, now_ns: i64) -> Option<UndoCause> {
        let wanted = || self.desired.as_ref().is_some_and(|d| d.faults.iter().any(|i| i.key == *key));
        let unwanted = || self.newer.ends(key, self.taken()).or_else(|| (!wanted()).then_some(UndoCause::NotDesired));
        match live.phase {
            Phase::Active { until_ns } | Phase::Fired { until_ns } if until_ns <= now_ns => Some(UndoCause::Expired),
            Phase::Active { .. } => {
                let kept = self.allowed(key, live, now_ns);
                let leased = self.lease.runs(now_ns);
                let cause =
                    || (!kept).then_some(UndoCause::Policy).or_else(|| (!leased).then_some(UndoCause::LeaseLost));
                unwanted().or_else(cause)
            }
            Phase::Fired { .. } => unwanted(),
            Phase::Applying => None,
            Phase::Undoing { cause, retry_ns, .. } => (retry_ns <= now_ns).then_some(cause),
        }
    }

    /// Whether the host's owner still allows it, and for so long.
    fn allowed(&self, key: &ItemKey, live: &Live, now_ns: i64) -> bool {
        let policy = &self.setup.policy;
        let named = self.journal.state().open.get(key).is_none_or(|open| policy.allows(&open.fault));
        named && now_ns < live.looks.since_ns.saturating_add(policy.max_duration.ns())
    }

    /// Ends these items. Those that only have to be looked at for the last time (spent faults) are closed.
    pub(super) async fn undo_these(&mut self, due: Vec<(ItemKey, UndoCause)>) {
        let begun_ns = self.now_ns();
        for (key, cause) in due {
            let left = Dur::from_ns((begun_ns + FINAL_LOOKS.ns() - self.now_ns()).max(0));
            match self.live.get(&key).map(|live| live.phase.clone()) {
                Some(Phase::Fired { .. }) => {
                    self.last_look(&key, left).await;
                    self.close(&key, Ended::Spent).await;
                    continue;
                }
                Some(Phase::Active { .. }) => self.last_look(&key, left).await,
                _ => {}
            }
            self.begin_undo(&key, cause).await;
            self.undo_once(&key).await;
        }
    }

    /// From here on the item is being undone, also for whoever finds the journal.
    pub(super) async fn begin_undo(&mut self, key: &ItemKey, cause: UndoCause) {
        let at = self.host.now();
        let Some(live) = self.live.get_mut(key) else { return };
        if matches!(live.phase, Phase::Undoing { .. }) {
            return;
        }
        live.phase = Phase::Undoing { cause, retry_ns: at.boot_ns, pause: RETRY_FIRST };
        live.undo_from = Some(at.clone());
        crash::at(Boundary::BeforeUndoRecord);
        self.journal.note(&[Record::Undoing { key: key.clone(), cause }], false).await;
        crash::at(Boundary::AfterUndoRecord);
        self.emit(key, Body::Undoing { item: key.clone(), cause, at });
    }

    /// One attempt: all steps that may have something on the host, last first, whatever fails.
    pub(super) async fn undo_once(&mut self, key: &ItemKey) {
        let Some(item) = self.journal.state().open.get(key).cloned() else { return };
        let mut failures = Vec::new();
        for (index, step) in item.plan.steps.iter().enumerate().rev() {
            let handle = match &item.steps[index] {
                Progress::Done(handle) => Some(handle),
                Progress::Intended => None,
                Progress::Untouched | Progress::Reverted | Progress::AboutToFire(_) | Progress::Fired(_) => continue,
            };
            debug_assert_ne!(step.kind(), Kind::Spent, "a spent step has no handle");
            crash::at(Boundary::BeforeInverse);
            match within(STEP_LIMIT, self.host.revert(key, index, step, handle)).await {
                Ok(reverted) => {
                    crash::at(Boundary::AfterInverse);
                    if let (Reverted::Superseded(what), Some(live)) = (reverted, self.live.get_mut(key))
                        && !live.superseded.contains(&what)
                    {
                        live.superseded.push(what);
                    }
                    // Beneath a step that is still there, "nothing of ours" may only mean "still in use":
                    // such steps are reverted again with it.
                    if failures.is_empty() {
                        self.journal.note(&[Record::Reverted { key: key.clone(), step: index }], false).await;
                        crash::at(Boundary::AfterInverseRecord);
                    }
                }
                Err(failure) => failures.push(format!("step {}: {failure}", index + 1)),
            }
        }
        if failures.is_empty() { self.undone(key).await } else { self.try_later(key, failures) }
    }

    async fn undone(&mut self, key: &ItemKey) {
        let to = self.host.now();
        let Some(live) = self.live.get_mut(key) else { return };
        let Phase::Undoing { cause, .. } = live.phase else { return };
        let from = live.undo_from.take().unwrap_or_else(|| to.clone());
        let superseded = std::mem::take(&mut live.superseded);
        let body = Body::Undone { item: key.clone(), cause, between: Between { from, to }, superseded };
        self.emit_end(key, body);
        self.close(key, Ended::Undone(cause)).await;
    }

    fn try_later(&mut self, key: &ItemKey, failures: Vec<String>) {
        let at = self.host.now();
        let Some(live) = self.live.get_mut(key) else { return };
        if let Phase::Undoing { retry_ns, pause, .. } = &mut live.phase {
            *retry_ns = at.boot_ns.saturating_add(pause.ns());
            *pause = Dur::from_ns((pause.ns() * 2).min(RETRY_MOST.ns()));
        }
        // The same failures again are no news.
        if live.failures != failures {
            live.failures.clone_from(&failures);
            // Of a guard, nobody hears otherwise before the next agent tells it.
            tracing::warn!(item = %key, failures = failures.join("; "), "not undone yet, trying again");
            self.emit(key, Body::UndoFailed { item: key.clone(), failures, at });
        }
    }

    /// Items whose worker died: what is left of them is undone, and their failure told.
    pub(super) async fn notice_lost(&mut self) {
        let Ok(lost) = within(STEP_LIMIT, async { Ok(self.host.lost().await) }).await else { return };
        for (key, why) in lost {
            if self.live.get(&key).is_some_and(|live| matches!(live.phase, Phase::Active { .. })) {
                let at = self.host.now();
                self.emit_end(&key, Body::Failed { item: key.clone(), failure: why, at });
                self.begin_undo(&key, UndoCause::ApplyFailed).await;
                self.undo_once(&key).await;
            }
        }
    }
}
