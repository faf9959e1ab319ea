//! Looking: whether the effect of an active or fired item can be seen, and when that is worth telling.

use fracas_model::{
    event::{Body, Measured, Proof},
    id::ItemKey,
    units::Dur,
};

use super::{Phase, Reconciler, STEP_LIMIT, within};
use crate::{disk::Disk, host::Host, journal::Ended};

/// The second look follows after this, later ones after twice the pause before, up to [`LONGEST`].
const SHORTEST: Dur = Dur::from_ms(20);
/// The usual pace.
const LONGEST: Dur = Dur::from_secs(1);
/// So long an effect may take to show before its absence is told.
const SETTLE: Dur = Dur::from_secs(3);

impl<H: Host, D: Disk> Reconciler<H, D> {
    /// Looks at all items whose look is due.
    pub(super) async fn look(&mut self) {
        for key in self.live.keys().cloned().collect::<Vec<_>>() {
            let due = self.live.get(&key).is_some_and(|live| {
                matches!(live.phase, Phase::Active { .. } | Phase::Fired { .. }) && live.looks.next_ns <= self.now_ns()
            });
            if due {
                self.look_at(&key, STEP_LIMIT).await;
                self.close_due().await;
            }
        }
    }

    /// Looks at one item; tells what it saw if that is new, and closes a fired one whose outcome is known.
    pub(super) async fn look_at(&mut self, key: &ItemKey, limit: Dur) {
        let seen = self.see(key, limit).await;
        let now_ns = self.now_ns();
        let Some(live) = self.live.get_mut(key) else { return };
        let looks = &mut live.looks;
        looks.pause = Dur::from_ns((looks.pause.ns() * 2).clamp(SHORTEST.ns(), LONGEST.ns()));
        looks.next_ns = now_ns.saturating_add(looks.pause.ns());
        let settled = now_ns.saturating_sub(looks.since_ns) >= SETTLE.ns();
        let news = looks.told.as_ref().is_none_or(|told| !same(told, &seen.0));
        let verified = seen.0 == Proof::Verified;
        let first = looks.told.is_none();
        looks.last = Some(seen.clone());
        let fired = matches!(live.phase, Phase::Fired { .. });
        if news && (verified || !first || settled) {
            self.tell(key, seen);
        }
        if fired && verified {
            self.close(key, Ended::Spent).await;
        }
    }

    /// The last look at an item before it ends: always told.
    pub(super) async fn last_look(&mut self, key: &ItemKey, limit: Dur) {
        let kept = self.live.get_mut(key).and_then(|live| live.looks.last.take());
        let seen = if limit > Dur::ZERO { Some(self.see(key, limit).await) } else { kept };
        if let Some(seen) = seen {
            self.tell(key, seen);
        }
    }

    async fn see(&self, key: &ItemKey, limit: Dur) -> (Proof, Vec<Measured>) {
        let Some(item) = self.journal.state().open.get(key) else {
            return (Proof::Unverified { why: "the item is closed".into() }, Vec::new());
        };
        let look = async { Ok(self.host.check(key, &item.plan.check).await) };
        within(limit, look)
            .await
            .unwrap_or_else(|failure| (Proof::Unverified { why: format!("the look gave {failure}") }, Vec::new()))
    }

    fn tell(&mut self, key: &ItemKey, (proof, measured): (Proof, Vec<Measured>)) {
        let at = self.host.now();
        let Some(live) = self.live.get_mut(key) else { return };
        live.looks.told = Some(proof.clone());
        let body = Body::Checked { item: key.clone(), proof, measured, at };
        if matches!(live.phase, Phase::Fired { .. }) {
            self.emit_end(key, body);
        } else {
            self.emit(key, body);
        }
    }
}

/// Whether two looks say the same, whatever reasons they give.
fn same(a: &Proof, b: &Proof) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}
