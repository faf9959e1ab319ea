//! Objectives judged: met, missed, inconclusive, or not measured with the reason. Numbers are never withheld, judgements are.
//!
//! - **Met** only if the longest time the observations allow is within the objective, **missed** only if the shortest is
//!   beyond it, else **inconclusive**, with the probe period that would settle it.
//! - When the tool itself lifted a fault before the service was back, nobody knows how long the service would have needed:
//!   a short fault would fake a good recovery time, and a long one a bad one. Such an outage is *not measured*, with the
//!   cause, but for two cases that hold whatever would have happened:
//!   - A fault that lasted its full asked time was *held on purpose*: the service was to stay inside its objective while
//!     it was active. If it was out for longer than the objective before the fault ended, it did not: missed.
//!   - A service that stays out for longer than the objective *after* everything was lifted missed it by any count.
//! - No outage meets the objective, as far as the probe could see: a dip shorter than the time between two looks, or than
//!   the longest hole in the readings, may have been missed. If that is longer than the objective, it is inconclusive.

use super::Judgement;
use crate::{event::UndoCause, experiment::RtoFrom, time::Interval, units::Dur};

/// How a lasting fault ended, as far as an outage is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Nothing was lifted before the service was back, or there was nothing to lift.
    ByItself,
    /// Lifted first, after its full asked time.
    FullTime,
    /// Lifted first, early: by stop condition, guard-rail, stop, failure or loss of contact.
    Early(String),
    /// Which came first cannot be told.
    Unknown {
        /// If it was lifted first, then after its full asked time.
        full_time: bool,
    },
}

/// One outage against an objective.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub rto: Option<Dur>,
    pub from: RtoFrom,
    pub outage: Interval,
    pub recovery_from_fault: Option<Interval>,
    pub residual: Option<Interval>,
    pub ending: Ending,
    /// The shortest it was out while the fault was still active, counted from where the objective is.
    pub while_active: Option<Dur>,
    pub every: Dur,
    /// The period at which it was really seen: longer than `every` where the probe was at rest.
    pub grain: Dur,
}

/// Judges one outage.
pub(super) fn outage(case: &Case) -> Judgement {
    let Some(rto) = case.rto else { return Judgement::NoObjective };
    let measured = match case.from {
        RtoFrom::Impact => case.outage,
        RtoFrom::Fault => {
            if let Some(interval) = case.recovery_from_fault {
                interval
            } else {
                let why =
                    "the objective counts from the fault, and no clock map links the fault's host with the vantage";
                return Judgement::NotMeasured { why: why.into() };
            }
        }
    };
    if case.ending == Ending::ByItself {
        return plain(rto, measured, case);
    }
    if let Some(residual) = case.residual
        && residual.lo > rto
    {
        let why = format!("still out {residual} after the fault was lifted, beyond {rto}");
        return Judgement::Missed { why };
    }
    match &case.ending {
        Ending::FullTime if case.while_active.is_some_and(|lo| lo > rto) => Judgement::Missed {
            why: format!(
                "out for at least {} while the fault was held, beyond {rto}",
                case.while_active.unwrap_or_default().human_down()
            ),
        },
        // It came back with the lifting or just before: either way it was out for this long while the fault was held.
        Ending::Unknown { full_time: true } if case.while_active.is_some_and(|lo| lo.min(measured.lo) > rto) => {
            let least = case.while_active.unwrap_or_default().min(measured.lo).human_down();
            Judgement::Missed { why: format!("out for at least {least} while the fault was held, beyond {rto}") }
        }
        Ending::FullTime => Judgement::NotMeasured {
            why: "the fault ended by its own duration before the service recovered: hold it longer".into(),
        },
        Ending::Early(cause) => {
            Judgement::NotMeasured { why: format!("the fault was lifted before the service recovered: {cause}") }
        }
        Ending::Unknown { .. } | Ending::ByItself => Judgement::NotMeasured {
            why: "whether the service recovered before the fault was lifted cannot be told from the clocks".into(),
        },
    }
}

fn plain(rto: Dur, measured: Interval, case: &Case) -> Judgement {
    match measured.hi {
        Some(hi) if hi <= rto => Judgement::Met { why: format!("{measured}, within {rto}") },
        _ if measured.lo > rto => Judgement::Missed { why: format!("{measured}, beyond {rto}") },
        Some(hi) => {
            let settled_by_period = settling_period(rto, measured.lo, hi, case.grain);
            let at_rest = if case.grain > case.every { ", at rest too," } else { "" };
            let how = settled_by_period.map_or_else(
                || "no shorter probe period would settle it: shorten the timeout, or repeat the run".to_owned(),
                |period| format!("a probe period of {}{at_rest} would settle it", period.human()),
            );
            Judgement::Inconclusive {
                why: format!("{measured} spans the objective of {rto}; {how}"),
                settled_by_period,
            }
        }
        None => Judgement::Inconclusive {
            why: format!("not recovered when the run ended, out for {measured}; the objective is {rto}"),
            settled_by_period: None,
        },
    }
}

/// The period at which an outage like this one would fall on one side of the objective.
///
/// The width is `2 (I + L)` for period I and latency L, half of it on either side of the middle; it has to shrink until
/// the objective, at distance d of the middle, lies outside: `I' + L < d`. Whole milliseconds, rounded down.
fn settling_period(rto: Dur, lo: Dur, hi: Dur, every: Dur) -> Option<Dur> {
    let middle = lo.ns() / 2 + hi.ns() / 2;
    let latency = ((hi - lo).ns() / 2 - every.ns()).max(0);
    let period = middle.saturating_sub(rto.ns()).saturating_abs().saturating_sub(latency) / 1_000_000;
    (period > 0).then(|| Dur::from_ms(period).min(every))
}

/// What a track without any outage shows.
pub(super) struct Calm {
    pub rto: Option<Dur>,
    /// A fault took effect.
    pub fault: bool,
    /// The probe looked until every fault was over.
    pub watched: bool,
    /// Longest time in which an outage may have gone unseen.
    pub blind: Dur,
    /// The same where the probe was at rest, after services were stable, if it ever was.
    pub at_rest: Option<Dur>,
    pub every: Dur,
}

/// Judges a track that saw no outage after the first fault.
pub(super) fn calm(case: &Calm) -> Judgement {
    let Some(rto) = case.rto else { return Judgement::NoObjective };
    if !case.fault {
        return Judgement::NotMeasured { why: "no fault took effect".into() };
    }
    if !case.watched {
        return Judgement::NotMeasured { why: "the probe did not look while the fault was active".into() };
    }
    let blind = case.blind.human();
    if case.blind > rto {
        let settled_by_period = Some(Dur::from_ns(rto.ns() / 2).min(case.every)).filter(|p| *p > Dur::ZERO);
        let why = format!("no outage seen, but one of up to {blind} may have been missed; the objective is {rto}");
        return Judgement::Inconclusive { why, settled_by_period };
    }
    let at_rest = case.at_rest.map_or_else(String::new, |at_rest| format!(" ({} at rest)", at_rest.human()));
    Judgement::Met { why: format!("no outage seen; dips shorter than {blind}{at_rest} may be missed") }
}

/// Of several probes, vantages and outages the worst counts; of equally bad ones the one with the longest outage, so that
/// the reason speaks of the length that is shown.
pub(super) fn worst(judged: impl IntoIterator<Item = (Option<Interval>, Judgement)>) -> Option<Judgement> {
    let rank = |j: &Judgement| match j {
        Judgement::NoObjective => 0,
        Judgement::Met { .. } => 1,
        Judgement::Inconclusive { .. } => 2,
        Judgement::NotMeasured { .. } => 3,
        Judgement::Missed { .. } => 4,
    };
    // No outage at all is shorter than any; one whose end was not seen is longer than any.
    let length = |i: &Option<Interval>| i.map_or((-1, -1), |i| (i.hi.map_or(i64::MAX, Dur::ns), i.lo.ns()));
    let key = |(i, j): &(Option<Interval>, Judgement)| (rank(j), length(i));
    judged.into_iter().reduce(|a, b| if key(&b) > key(&a) { b } else { a }).map(|(_, judgement)| judgement)
}

/// Why a fault ended, for people; `None` when it lasted its full asked time.
pub(super) fn early_end(cause: UndoCause, aborted: Option<&str>) -> Option<String> {
    match cause {
        UndoCause::Expired => None,
        UndoCause::NotDesired => aborted.map(str::to_owned),
        UndoCause::LeaseLost => Some("its lease ran out (contact with the controller was lost)".into()),
        UndoCause::AgentRestart => Some("the agent was restarted".into()),
        UndoCause::Reboot => Some("the host was booted".into()),
        UndoCause::Local => Some("a person on the host undid it".into()),
        UndoCause::ApplyFailed => Some("it could not be applied completely".into()),
        UndoCause::Policy => Some("the host's policy no longer allowed it".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(lo: f64, hi: f64) -> Interval {
        Interval::new(Dur::from_ns((lo * 1e9) as i64), Dur::from_ns((hi * 1e9) as i64))
    }

    fn case(outage: Interval) -> Case {
        Case {
            rto: Some(Dur::from_secs(30)),
            from: RtoFrom::Impact,
            outage,
            recovery_from_fault: None,
            residual: None,
            ending: Ending::ByItself,
            while_active: None,
            every: Dur::from_secs(1),
            grain: Dur::from_secs(1),
        }
    }

    #[test]
    fn bounds_decide() {
        assert!(matches!(outage(&case(secs(27.0, 30.0))), Judgement::Met { .. }));
        assert!(matches!(outage(&case(secs(30.0, 32.0))), Judgement::Inconclusive { .. }));
        assert!(matches!(outage(&case(secs(30.1, 32.0))), Judgement::Missed { .. }));
        assert!(matches!(outage(&case(Interval::at_least(Dur::from_secs(31)))), Judgement::Missed { .. }));
        assert!(matches!(outage(&case(Interval::at_least(Dur::from_secs(3)))), Judgement::Inconclusive { .. }));
        assert_eq!(outage(&Case { rto: None, ..case(secs(1.0, 2.0)) }), Judgement::NoObjective);
    }

    #[test]
    fn the_settling_period_settles() {
        let Judgement::Inconclusive { settled_by_period: Some(period), .. } = outage(&case(secs(28.7, 30.9))) else {
            panic!("must be inconclusive with a period")
        };
        // Middle 29.8 s, latency 0.1 s: 2 (I + L) must fit twice into 0.2 s.
        assert_eq!(period, Dur::from_ms(100));
    }

    #[test]
    fn a_lifted_fault_withholds_the_judgement() {
        let lifted = |ending, residual, active: i64| {
            outage(&Case {
                ending,
                residual: Some(residual),
                while_active: Some(Dur::from_secs(active)),
                ..case(secs(40.0, 41.0))
            })
        };
        let soon = secs(0.5, 1.0);
        assert!(matches!(lifted(Ending::FullTime, soon, 10), Judgement::NotMeasured { .. }));
        assert!(matches!(lifted(Ending::FullTime, soon, 39), Judgement::Missed { .. }));
        assert!(matches!(lifted(Ending::Early("guard-rail".into()), soon, 39), Judgement::NotMeasured { .. }));
        assert!(matches!(lifted(Ending::Early("stop".into()), secs(31.0, 32.0), 1), Judgement::Missed { .. }));
        assert!(matches!(lifted(Ending::Unknown { full_time: false }, soon, 39), Judgement::NotMeasured { .. }));
    }

    #[test]
    fn what_both_possible_orders_show_is_judged() {
        // As after a pause: the service is back the moment the fault is lifted, and no probe can tell which was first.
        let paused = |outage, active| {
            let (ending, residual) = (Ending::Unknown { full_time: true }, Some(secs(0.0, 0.1)));
            super::outage(&Case { ending, residual, while_active: Some(Dur::from_secs(active)), ..case(outage) })
        };
        let Judgement::Missed { why } = paused(secs(38.9, 39.2), 39) else { panic!("it was out for too long") };
        assert_eq!(why, "out for at least 38.9 s while the fault was held, beyond 30s");
        assert!(matches!(paused(secs(29.0, 39.2), 39), Judgement::NotMeasured { .. }));
        assert!(matches!(paused(secs(38.9, 39.2), 30), Judgement::NotMeasured { .. }));
    }

    #[test]
    fn of_equally_bad_outages_the_longest_speaks() {
        let met = |outage| (Some(outage), super::outage(&case(outage)));
        let why = |judged: Vec<_>| match worst(judged) {
            Some(Judgement::Met { why }) => why,
            other => panic!("{other:?}"),
        };
        let calm = || (None, Judgement::Met { why: "no outage".into() });
        assert_eq!(why(vec![calm(), met(secs(1.0, 2.0)), met(secs(3.0, 4.0)), calm()]), "3.00 s to 4.00 s, within 30s");
        let missed = outage(&case(secs(31.0, 32.0)));
        assert_eq!(worst(vec![met(secs(1.0, 2.0)), (Some(secs(31.0, 32.0)), missed.clone())]), Some(missed));
    }

    #[test]
    fn no_outage_is_met_as_far_as_one_could_see() {
        let base = |rto: i64, blind: i64| Calm {
            rto: Some(Dur::from_ms(rto)),
            fault: true,
            watched: true,
            blind: Dur::from_ms(blind),
            at_rest: None,
            every: Dur::from_ms(blind / 2),
        };
        assert!(matches!(calm(&base(1000, 100)), Judgement::Met { .. }));
        assert!(matches!(calm(&base(50, 100)), Judgement::Inconclusive { .. }));
        assert!(matches!(calm(&Calm { fault: false, ..base(1000, 100) }), Judgement::NotMeasured { .. }));
        assert!(matches!(calm(&Calm { watched: false, ..base(1000, 100) }), Judgement::NotMeasured { .. }));
    }
}
