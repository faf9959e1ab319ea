//! Doing: plans of new items are journalled and applied step by step. What must be undone meanwhile is not kept waiting.

use fracas_model::{
    desired::{FaultItem, Mode},
    event::{Between, Body, UndoCause},
    id::ItemKey,
    plan::{Kind, Step},
    units::Dur,
};

use super::{DEADLINE_SLACK, Live, Phase, Reconciler, STEP_LIMIT, admit::Admitted, span, within};
use crate::{
    crash::{self, Boundary},
    disk::Disk,
    forget::{self, Sync},
    host::{Failure, Host},
    journal::{Ended, Record},
};

/// How long the outcome of a spent fault is looked for.
const SPENT_LOOKS: Dur = Dur::from_secs(10);

impl<H: Host, D: Disk> Reconciler<H, D> {
    /// Applies every desired item that is not known here, as long as the lease runs.
    pub(super) async fn apply_new(&mut self) {
        let Some(desired) = &self.desired else { return };
        let wanted: Vec<FaultItem> = desired.faults.iter().filter(|i| i.mode == Mode::Apply).cloned().collect();
        for item in wanted {
            let state = self.journal.state();
            let known = state.open.contains_key(&item.key)
                || state.ended(&item.key).is_some()
                || self.refused.contains(&item.key);
            if self.newer.than(self.taken()) {
                // What is wanted now is taken first.
                return;
            }
            if known || !self.lease.runs(self.now_ns()) {
                continue;
            }
            match self.admit(&item).await {
                _ if self.newer.than(self.taken()) => return,
                Ok(_) if !self.lease.runs(self.now_ns()) => {}
                Ok(admitted) => self.apply(&item, admitted).await,
                Err(refusal) => self.refuse(&item, refusal).await,
            }
            self.close_due().await;
        }
    }

    async fn apply(&mut self, item: &FaultItem, admitted: Admitted) {
        let key = &item.key;
        let at = self.host.now();
        let plan = admitted.plan;
        let planned = Record::Planned {
            key: key.clone(),
            fault: item.fault.clone(),
            plan: plan.clone(),
            duration: admitted.duration,
            slot: admitted.slot,
            boot: at.clock.boot.clone(),
            deadline_ns: at.boot_ns.saturating_add(admitted.duration.unwrap_or_default().ns()),
            experiment: item.experiment.clone(),
            at: Some(at.clone()),
        };
        crash::at(Boundary::BeforePlanRecord);
        if let Err(trouble) = self.journal.write(&[planned], forget::keeps(Sync::Intent)).await {
            return self.refuse(item, trouble.refusal()).await;
        }
        crash::at(Boundary::AfterPlanRecord);
        self.live.insert(key.clone(), Live::new(Phase::Applying));
        self.emit(key, Body::Applying { item: key.clone(), plan: plan.clone(), at });
        crash::at(Boundary::AfterApplyingFact);

        if let Some(duration) = admitted.duration {
            let left = duration.min(Dur::from_ns(self.lease.until_ns().saturating_sub(self.now_ns())));
            self.host.deadline(key, left + DEADLINE_SLACK);
        }
        let mut effective: Option<Between> = None;
        for (index, step) in plan.steps.iter().enumerate() {
            if index > 0 {
                self.close_due().await;
            }
            let lost = || (!self.lease.runs(self.now_ns())).then_some(UndoCause::LeaseLost);
            if let Some(cause) = self.newer.ends(key, self.taken()).or_else(lost) {
                return self.undo_these(vec![(key.clone(), cause)]).await;
            }
            match self.apply_step(key, index, step).await {
                Ok(between) => {
                    if !prepares(step) {
                        effective = Some(effective.map_or_else(|| between.clone(), |first| span(&first, &between)));
                    }
                }
                Err(failure) => return self.fail(key, &failure.0, UndoCause::ApplyFailed).await,
            }
        }
        let now = self.host.now();
        let effective = effective.unwrap_or(Between { from: now.clone(), to: now });
        self.applied(key, admitted.duration, effective).await;
    }

    async fn apply_step(&mut self, key: &ItemKey, index: usize, step: &Step) -> Result<Between, Failure> {
        let (key, spent) = (key.clone(), step.kind() == Kind::Spent);
        let before = if spent {
            Record::AboutToFire { key: key.clone(), step: index, at: self.host.now() }
        } else {
            Record::Intent { key: key.clone(), step: index }
        };
        // A held step ends with the power; only its item must be known after a cut.
        let sync = step.kind() != Kind::Held && forget::keeps(Sync::Intent);
        crash::at(Boundary::BeforeStepRecord);
        self.journal.write(&[before], sync).await.map_err(|trouble| Failure(trouble.to_string()))?;
        crash::at(Boundary::AfterStepRecord);
        let (handle, between) = within(STEP_LIMIT, self.host.apply(&key, index, step)).await?;
        crash::at(Boundary::AfterStep);
        let after = if spent {
            Record::Fired { key, step: index, effective: between.clone() }
        } else {
            Record::Done { key, step: index, handle }
        };
        self.journal.note(&[after], spent).await;
        crash::at(Boundary::AfterDoneRecord);
        Ok(between)
    }

    async fn applied(&mut self, key: &ItemKey, duration: Option<Dur>, effective: Between) {
        let spent = self.journal.state().open.get(key).is_some_and(crate::journal::OpenItem::is_spent);
        let since_ns = effective.to.boot_ns;
        let item = key.clone();
        crash::at(Boundary::BeforeActiveFact);
        if spent {
            self.emit_end(key, Body::Spent { item, certain: true, effective });
        } else {
            self.emit(key, Body::Active { item, effective });
        }
        crash::at(Boundary::AfterActiveFact);
        if let Some(live) = self.live.get_mut(key) {
            let lasting = since_ns.saturating_add(duration.unwrap_or_default().ns());
            live.phase = if spent {
                Phase::Fired { until_ns: since_ns.saturating_add(SPENT_LOOKS.ns()) }
            } else {
                Phase::Active { until_ns: lasting }
            };
            live.looks.since_ns = since_ns;
            live.looks.next_ns = since_ns;
        }
        self.tell_deadlines();
        self.look_at(key, STEP_LIMIT).await;
    }

    /// The world said no: says so, and undoes what was done. A spent fault of which something may have fired is closed
    /// as spent, for it can neither be undone nor tried again.
    pub(super) async fn fail(&mut self, key: &ItemKey, failure: &str, cause: UndoCause) {
        let at = self.host.now();
        self.emit_end(key, Body::Failed { item: key.clone(), failure: failure.to_owned(), at: at.clone() });
        if let Some(fired) = self.journal.state().open.get(key).and_then(super::recover::fired) {
            let effective = Between { from: fired.effective.from, to: at };
            self.emit_end(key, Body::Spent { item: key.clone(), certain: false, effective });
            self.close(key, Ended::Spent).await;
        } else {
            self.undo_these(vec![(key.clone(), cause)]).await;
        }
    }
}

/// Whether a step does nothing to the host's work by itself: what comes after it does.
fn prepares(step: &Step) -> bool {
    matches!(step, Step::MakeIfb { .. } | Step::MakeNetem { .. } | Step::MakeClsact { .. })
}
