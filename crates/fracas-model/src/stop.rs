//! Stop conditions: what of a document ends a run before its time, and when looks of a probe amount to it. Pure.
//!
//! The agent that looks evaluates a condition with every look ([`Meter`]), and tells at once when it is met; the run
//! machine does the same over what is told to it each second, for agents that know nothing of this.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::{
    id::{ProbeId, TargetId},
    units::{Dur, Percent},
};

/// One line of `abortWhen`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AbortWhen {
    /// A probe fails for too long.
    Failing(Failing),
    /// A probe fails too often.
    Budget(Budget),
    /// A vantage is out of contact.
    Lost(Lost),
}

/// A probe fails for too long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Failing {
    /// This probe.
    pub probe: ProbeId,
    /// Failing without a success for this long.
    pub failing_for: Dur,
    /// What when nobody can tell any more.
    #[serde(default, skip_serializing_if = "OnLoss::is_default")]
    pub on_loss: OnLoss,
}

/// A probe fails too often.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Budget {
    /// This probe.
    pub probe: ProbeId,
    /// More of its looks fail than this allows.
    pub error_budget: ErrorBudget,
    /// What when nobody can tell any more.
    #[serde(default, skip_serializing_if = "OnLoss::is_default")]
    pub on_loss: OnLoss,
}

/// How many looks may fail.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ErrorBudget {
    /// This share of the looks that the window holds.
    pub allow: Percent,
    /// The window: always the last so much time.
    pub within: Dur,
}

impl ErrorBudget {
    /// The most looks that may fail within the window, of a probe with this period: rounded down, of all looks that the
    /// window holds, made or not, so that a budget is not used up by the first few.
    pub fn most(&self, every: Dur) -> u64 {
        let looks = self.within.ns() as f64 / every.ns().max(1) as f64;
        // A hair above, so that 5 % of 60 does not depend on the last bit.
        (self.allow.0 / 100.0 * looks + 1e-9).floor() as u64
    }
}

/// A vantage is out of contact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lost {
    /// Any host of this target.
    pub vantage: TargetId,
    /// For this long.
    pub lost_for: Dur,
}

/// What when a stop condition cannot be evaluated any more: its vantage is out of contact, or tells nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnLoss {
    /// The run is aborted.
    #[default]
    Abort,
    /// The run goes on without it.
    Continue,
}

impl OnLoss {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_default(&self) -> bool {
        *self == Self::Abort
    }
}

impl AbortWhen {
    /// The probe whose looks are evaluated, with what becomes of the run when there are none any more.
    pub fn probe(&self) -> Option<(&ProbeId, OnLoss)> {
        match self {
            Self::Failing(one) => Some((&one.probe, one.on_loss)),
            Self::Budget(one) => Some((&one.probe, one.on_loss)),
            Self::Lost(_) => None,
        }
    }

    /// What an agent must know to evaluate it with each look of a probe of this period; nothing for a vantage, which
    /// cannot tell that it is lost.
    pub fn when(&self, every: Dur) -> Option<StopWhen> {
        match self {
            Self::Failing(one) => Some(StopWhen::FailingFor(one.failing_for)),
            Self::Budget(one) => {
                let ErrorBudget { allow, within } = one.error_budget;
                Some(StopWhen::Budget { most: one.error_budget.most(every), allow, within })
            }
            Self::Lost(_) => None,
        }
    }

    /// The condition in words, to follow "when": `up was failing for 2m`.
    pub fn text(&self) -> String {
        let unseen = match self.probe() {
            Some((_, OnLoss::Continue)) => ", but not when nobody can look any more",
            _ => "",
        };
        match self {
            Self::Failing(one) if one.failing_for == Dur::ZERO => format!("{} fails{unseen}", one.probe),
            Self::Failing(one) => format!("{} was failing for {}{unseen}", one.probe, one.failing_for),
            Self::Budget(one) => {
                let ErrorBudget { allow, within } = one.error_budget;
                format!("over {allow} of the looks of {} within {within} failed{unseen}", one.probe)
            }
            Self::Lost(one) => format!("a host of {} was out of contact for {}", one.vantage, one.lost_for),
        }
    }
}

/// A stop condition as the agent knows it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum StopWhen {
    /// Failing without a success for this long.
    FailingFor(Dur),
    /// More failed looks than so many within the last so much time.
    Budget {
        /// The most that may fail.
        most: u64,
        /// Which share of all that is, for words.
        allow: Percent,
        /// The window.
        within: Dur,
    },
}

impl StopWhen {
    /// Why the condition is met by a probe that was seen failing for so long.
    pub fn failing(limit: Dur, seen: Dur) -> String {
        format!("was failing for {} (limit {limit})", seen.human())
    }

    /// Why it is met by so many failed looks.
    pub fn spent(failed: u64, most: u64, allow: Percent, within: Dur) -> String {
        format!("failed {failed} times within {within} (its error budget of {allow} allows {most})")
    }
}

/// Evaluates one condition over the looks of one probe, in order of completion.
#[derive(Clone, Debug)]
pub struct Meter {
    when: StopWhen,
    /// Completions of failed looks within the window, at most one more than the budget allows.
    failed: VecDeque<i64>,
    met: bool,
}

impl Meter {
    /// Nothing was seen yet.
    pub fn new(when: StopWhen) -> Self {
        Self { when, failed: VecDeque::new(), met: false }
    }

    /// Takes a look that was completed at `c_ns` of the vantage's boot time. `failing_since` is the send instant of the
    /// first look of the present stretch of failures, if there is one. Gives the reason when the condition is met by this
    /// look and was not by the one before.
    pub fn looked(&mut self, c_ns: i64, ok: bool, failing_since: Option<i64>) -> Option<String> {
        let why = match self.when {
            StopWhen::FailingFor(limit) => {
                let seen = failing_since.filter(|_| !ok).map(|since| Dur::from_ns(c_ns.saturating_sub(since)));
                seen.filter(|seen| *seen >= limit).map(|seen| StopWhen::failing(limit, seen))
            }
            StopWhen::Budget { most, allow, within } => {
                let begin = c_ns.saturating_sub(within.ns());
                while self.failed.front().is_some_and(|c| *c <= begin) {
                    self.failed.pop_front();
                }
                if !ok {
                    self.failed.push_back(c_ns);
                }
                let failed = self.failed.len() as u64;
                if failed > most.saturating_add(1) {
                    self.failed.pop_front();
                }
                (failed > most).then(|| StopWhen::spent(failed.min(most.saturating_add(1)), most, allow, within))
            }
        };
        let was = std::mem::replace(&mut self.met, why.is_some());
        why.filter(|_| !was)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn budget(allow: f64, within: Dur, every: Dur) -> StopWhen {
        let error_budget = ErrorBudget { allow: Percent(allow), within };
        StopWhen::Budget { most: error_budget.most(every), allow: Percent(allow), within }
    }

    #[test]
    fn what_was_written_before_still_reads_and_keeps_its_digest() {
        let old = serde_json::json!({ "probe": "up", "failingFor": "20s" });
        let read: AbortWhen = serde_json::from_value(old.clone()).unwrap();
        assert_eq!(read.probe(), Some((&"up".into(), OnLoss::Abort)));
        assert_eq!(serde_json::to_value(&read).unwrap(), old);
        for wrong in [
            serde_json::json!({ "probe": "up" }),
            serde_json::json!({ "probe": "up", "failingFor": "1s", "lostFor": "1s" }),
        ] {
            assert!(serde_json::from_value::<AbortWhen>(wrong).is_err());
        }
    }

    #[test]
    fn a_stretch_of_failures_is_told_once_and_again_only_after_a_success() {
        let mut meter = Meter::new(StopWhen::FailingFor(Dur::from_ns(100)));
        assert_eq!(meter.looked(50, false, Some(0)), None);
        assert_eq!(meter.looked(100, false, Some(0)), Some("was failing for 100 ns (limit 100ns)".into()));
        assert_eq!(meter.looked(150, false, Some(0)), None, "told already");
        assert_eq!(meter.looked(200, true, None), None);
        assert_eq!(meter.looked(250, false, Some(240)), None);
        assert!(meter.looked(350, false, Some(240)).is_some());
    }

    #[test]
    fn a_budget_is_of_the_looks_that_the_window_holds() {
        let most = |allow, within, every| match budget(allow, within, every) {
            StopWhen::Budget { most, .. } => most,
            StopWhen::FailingFor(_) => unreachable!("a budget"),
        };
        assert_eq!(most(5.0, Dur::from_secs(60), Dur::from_secs(1)), 3);
        assert_eq!(most(0.1, Dur::from_secs(60), Dur::from_secs(1)), 0, "the first failure is one too many");
        assert_eq!(most(100.0, Dur::from_secs(60), Dur::from_ms(100)), 600, "everything may fail");
        let mut meter = Meter::new(budget(50.0, Dur::from_ns(40), Dur::from_ns(10)));
        let told: Vec<bool> = [false, false, true, false, false, false]
            .into_iter()
            .enumerate()
            .map(|(i, ok)| meter.looked(10 * i as i64, ok, None).is_some())
            .collect();
        // At 30 the window (-10, 30] holds three failures of two that are allowed; it stays spent.
        assert_eq!(told, [false, false, false, true, false, false]);
    }

    proptest! {
        /// The bounded queue says the same as counting over everything.
        #[test]
        fn a_budget_counts_as_if_it_remembered_everything(
            looks in prop::collection::vec((1_i64..40, any::<bool>()), 0..200),
            most in 0_u64..6,
            within in 1_i64..200,
        ) {
            let within = Dur::from_ns(within);
            let mut meter = Meter::new(StopWhen::Budget { most, allow: Percent(1.0), within });
            let (mut at, mut all, mut was) = (0, Vec::new(), false);
            for (step, ok) in looks {
                at += step;
                all.push((at, ok));
                let failed = all.iter().filter(|(c, ok)| !ok && *c > at - within.ns()).count() as u64;
                let met = failed > most;
                prop_assert_eq!(meter.looked(at, ok, None).is_some(), met && !was);
                was = met;
            }
        }
    }
}
