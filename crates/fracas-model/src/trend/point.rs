//! One point of a trend: what one finished run showed of one service, taken from the run's report.
//!
//! It judges nothing anew and drops no run: one that ended too early is told as a length that is longer than it was seen.

use serde::{Deserialize, Serialize};

use crate::{
    event::{Proof, UndoCause, VerdictWord},
    experiment::RtoFrom,
    id::{RunId, SectionId, ServiceId},
    report::{EntryReport, ItemReport, Judgement, RecoveryPoint, Report, Seen, ServiceReport},
    time::Interval,
    units::Dur,
};

/// What one run showed of one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Point {
    /// The run.
    pub run: RunId,
    /// Name of its experiment or game day.
    pub experiment: String,
    /// The service.
    pub service: ServiceId,
    /// Where it ran.
    pub environment: String,
    /// When it was accepted, wall nanoseconds.
    pub started_wall_ns: i64,
    /// When it had finished.
    pub ended_wall_ns: i64,
    /// Seed of its random choices.
    pub seed: u64,
    /// Digest of what was meant; only runs of one intent are alike.
    pub intent: String,
    /// The faults of its timeline, as asked for.
    pub faults: Vec<String>,
    /// Verdict of the run.
    pub verdict: VerdictWord,
    /// How the service stood against its objective then.
    pub judgement: Judgement,
    /// Its recovery time objective then.
    pub rto: Option<Dur>,
    /// From where that is counted, and so is [`Self::length`].
    pub rto_from: RtoFrom,
    /// Its recovery point objective then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpo: Option<Dur>,
    /// Its maximum tolerable period of disruption then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtpd: Option<Dur>,
    /// How often its objective is to be proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prove_every: Option<Dur>,
    /// How long recovery took, within bounds, counted from where the objective is; without an upper bound where it was cut
    /// short. `None`: no fault took effect, so that there was nothing to recover from.
    pub length: Option<Interval>,
    /// Impact to recovery, as the report has it.
    pub outage: Option<Interval>,
    /// Fault effective to recovery, as the report has it.
    pub recovery_from_fault: Option<Interval>,
    /// Fault reverted to recovery, as the report has it.
    pub residual: Option<Interval>,
    /// How much of its data was lost, as the report has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_point: Option<RecoveryPoint>,
}

impl Point {
    /// Whether the end of the recovery was not seen: the truth is longer, nobody knows how much.
    pub fn censored(&self) -> bool {
        self.length.is_some_and(|length| length.hi.is_none())
    }
}

/// A point for each service of a finished run; none of a run that is not over.
pub fn points(report: &Report) -> Vec<Point> {
    if !report.times.finished {
        return Vec::new();
    }
    let faults: Vec<String> = report.entries.iter().filter(|entry| entry.target.is_some()).map(asked).collect();
    report
        .services
        .iter()
        .map(|service| Point {
            run: report.run.clone(),
            experiment: report.name.clone(),
            service: service.service.clone(),
            environment: report.environment.clone(),
            started_wall_ns: report.times.planned_wall_ns,
            ended_wall_ns: report.times.ended_wall_ns,
            seed: report.seed,
            intent: report.intent.clone(),
            faults: faults.clone(),
            verdict: report.verdict.word.clone(),
            judgement: service.judgement.clone(),
            rto: service.rto,
            rto_from: service.rto_from,
            rpo: service.rpo,
            mtpd: service.mtpd,
            prove_every: service.prove_every,
            length: length(report, service),
            outage: service.outage,
            recovery_from_fault: service.recovery_from_fault,
            residual: service.residual,
            recovery_point: service.recovery_point.clone(),
        })
        .collect()
}

fn asked(entry: &EntryReport) -> String {
    let mut text = entry.action.clone();
    if !entry.params.is_empty() {
        text += &format!(" ({})", entry.params);
    }
    if let Some(duration) = entry.duration {
        text += &format!(" for {duration}");
    }
    text
}

/// The items that had an effect, with their entries: in a game day those of the service's own section.
fn effects<'a>(
    report: &'a Report,
    service: &'a ServiceReport,
) -> impl Iterator<Item = (&'a EntryReport, &'a ItemReport)> {
    let of = |name: &str| section_of(report, name);
    let section = of(service.service.as_str());
    let mine = report.entries.iter().filter(move |entry| section.is_none() || section == of(entry.entry.as_str()));
    let items = mine.flat_map(|entry| entry.items.iter().map(move |item| (entry, item)));
    items.filter(|(_, item)| item.effective_ns.is_some() && !matches!(item.proof, Some(Proof::Ineffective { .. })))
}

fn section_of<'a>(report: &'a Report, name: &str) -> Option<&'a SectionId> {
    report.experiment.as_ref().and_then(|experiment| Some(&experiment.section_of(name)?.id))
}

/// Whether a lasting fault was lifted before its asked time: by a stop, a stop condition, a lost agent.
fn cut_short(report: &Report, service: &ServiceReport) -> bool {
    let section = section_of(report, service.service.as_str());
    let judged = report.sections.iter().find(|one| Some(&one.id) == section).map(|one| &one.verdict);
    let ended_early = !matches!(
        judged.unwrap_or(&report.verdict).word,
        VerdictWord::Pass | VerdictWord::Fail | VerdictWord::Inconclusive | VerdictWord::Refused
    );
    effects(report, service).filter(|(_, item)| !item.one_shot).any(|(entry, item)| match item.cause {
        None | Some(UndoCause::Expired) => false,
        Some(UndoCause::NotDesired) => ended_early || entry.failed.is_some(),
        Some(_) => true,
    })
}

/// See [`Point::length`].
fn length(report: &Report, service: &ServiceReport) -> Option<Interval> {
    effects(report, service).next()?;
    let Some(outage) = service.outage else { return Some(calm(report, service)) };
    let measured = match service.rto_from {
        RtoFrom::Impact => outage,
        RtoFrom::Fault => from_fault(report, service, outage),
    };
    if !cut_short(report, service) || service.recovered_before_revert == Some(true) {
        return Some(measured);
    }
    // It may have recovered only because the fault was taken away: without that it was out until then at least.
    let helped = service.residual.map_or(Dur::ZERO, |residual| residual.hi.unwrap_or(Dur::ZERO));
    Some(Interval::at_least((measured.lo - helped).max(Dur::ZERO)))
}

/// Recovery from the fault. Nothing is hit before the fault is there, so it is at least as long as the outage; and a vantage
/// whose clock nobody could link to the fault's may have seen a longer one than those that could tell.
fn from_fault(report: &Report, service: &ServiceReport, outage: Interval) -> Interval {
    let Some(told) = service.recovery_from_fault else { return Interval::at_least(outage.lo) };
    let probes = report.probes.iter().filter(|probe| probe.service.as_ref() == Some(&service.service));
    let mut episodes = probes.flat_map(|probe| &probe.episodes).filter(|episode| !episode.pre_existing);
    let all_told = episodes.all(|episode| episode.recovery_from_fault.is_some());
    let lo = told.lo.max(outage.lo);
    Interval { lo, hi: told.hi.filter(|_| all_told).map(|hi| hi.max(lo)) }
}

/// What no outage says: none was longer than what the probes could have missed, if they looked from the first fault on until
/// the last one was over. What a look may miss at either end is what the judgement of a calm run grants too: one period
/// before the first look, one timeout after the last.
fn calm(report: &Report, service: &ServiceReport) -> Interval {
    let probes = report.probes.iter().filter(|probe| probe.service.as_ref() == Some(&service.service));
    let first = effects(report, service).filter_map(|(_, item)| item.effective_ns).min().unwrap_or_default();
    let over = effects(report, service).filter_map(|(_, item)| item.effective_ns.max(item.undone_ns)).max();
    let over = over.unwrap_or_default();
    let unseen = probes.map(|probe| {
        let from = probe.strip.iter().map(|segment| segment.from_ns).min()?;
        let until = probe.strip.iter().map(|segment| segment.to_ns).max()?;
        let gaps = probe.strip.iter().filter(|segment| segment.state == Seen::Gap);
        let hole = gaps.map(|gap| gap.to_ns.saturating_sub(gap.from_ns)).max().unwrap_or_default();
        let (every, timeout) = (probe.rested.unwrap_or(probe.every).ns(), probe.timeout.ns());
        let throughout = from <= first.saturating_add(every) && until.saturating_add(timeout) >= over;
        let seen = probe.looks > 0 && throughout;
        seen.then(|| hole.saturating_add(every).saturating_add(timeout))
    });
    let blind = unseen.collect::<Option<Vec<i64>>>().and_then(|all| all.into_iter().max());
    match blind.filter(|_| !matches!(service.judgement, Judgement::NotMeasured { .. })) {
        Some(blind) => Interval { lo: Dur::ZERO, hi: Some(Dur::from_ns(blind)) },
        None => Interval::at_least(Dur::ZERO),
    }
}
