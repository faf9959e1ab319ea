//! After a crash: undoes what the journal says may be on the host, settles what may have fired, and tells again what
//! may not have been told. Nothing is ever applied here.

use fracas_model::{
    event::{Between, Body, UndoCause},
    id::ItemKey,
    plan::Kind,
    time::Stamp,
};

use super::{Live, Phase, Reconciler, span};
use crate::{
    disk::Disk,
    host::Host,
    journal::{Ended, OpenItem, Progress, Record},
};

/// What a plan of spent steps did.
pub(super) struct Fired {
    /// All steps surely fired.
    pub(super) certain: bool,
    /// From the first to the last that fired or may have.
    pub(super) effective: Between,
}

/// What an item of spent steps did; `None` when nothing can have fired, or when it has other steps too.
pub(super) fn fired(item: &OpenItem) -> Option<Fired> {
    if !item.is_spent() {
        return None;
    }
    let mut effective: Option<Between> = None;
    for progress in &item.steps {
        let between = match progress {
            Progress::Fired(between) => between.clone(),
            Progress::AboutToFire(at) => Between { from: at.clone(), to: at.clone() },
            _ => continue,
        };
        effective = Some(effective.map_or_else(|| between.clone(), |first| span(&first, &between)));
    }
    let certain = item.steps.iter().all(|p| matches!(p, Progress::Fired(_)));
    effective.map(|effective| Fired { certain, effective })
}

impl<H: Host, D: Disk> Reconciler<H, D> {
    /// Call once, before anything else. Afterwards nothing is left of an earlier life, except what could not be undone
    /// yet: [`Reconciler::tick`] goes on with that.
    pub async fn recover(&mut self) {
        let now = self.host.now();
        let opened = Record::Opened {
            boot: now.clock.boot.clone(),
            agent_version: self.setup.agent_version.clone(),
            fleet: self.setup.fleet.clone(),
        };
        self.journal.note(&[opened], false).await;
        self.tell_again();
        let open: Vec<(ItemKey, OpenItem)> =
            self.journal.state().open.iter().map(|(key, item)| (key.clone(), item.clone())).collect();
        for (key, item) in open {
            self.live.insert(key.clone(), Live::new(Phase::Applying));
            match fired(&item) {
                Some(fired) => self.settle(&key, fired, &now).await,
                None => self.undo_found(&key, &item, &now).await,
            }
        }
    }

    /// Facts of ends that a crash may have kept from the outbox.
    fn tell_again(&mut self) {
        let untold: Vec<(ItemKey, Vec<Body>)> =
            self.journal.state().untold().map(|(key, tell)| (key.clone(), tell.to_vec())).collect();
        for (key, tell) in untold {
            for body in tell {
                self.emit(&key, body);
            }
            self.closing.push(key);
        }
    }

    async fn settle(&mut self, key: &ItemKey, fired: Fired, now: &Stamp) {
        let Fired { certain, mut effective } = fired;
        if !certain {
            // It fired, if at all, before the agent died; all that bounds it is that the agent is here again.
            effective.to = now.clone();
        }
        self.emit_end(key, Body::Spent { item: key.clone(), certain, effective });
        self.close(key, Ended::Spent).await;
    }

    async fn undo_found(&mut self, key: &ItemKey, item: &OpenItem, now: &Stamp) {
        debug_assert!(!item.plan.steps.iter().all(|s| s.kind() == Kind::Spent) || fired(item).is_none());
        let cause = item.undoing.unwrap_or(if item.boot == now.clock.boot {
            UndoCause::AgentRestart
        } else {
            UndoCause::Reboot
        });
        self.begin_undo(key, cause).await;
        self.undo_once(key).await;
    }
}
