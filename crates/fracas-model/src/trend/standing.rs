//! How a service stands: its objectives, when they were last proven, and whether that is too long ago.
//!
//! Only what runs showed counts; it schedules nothing.

use serde::{Deserialize, Serialize};

use super::Point;
use crate::{
    id::{RunId, ServiceId},
    report::Judgement,
    time::Interval,
    units::Dur,
};

/// How one service of one environment stands. Objectives are those of its newest run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// The service.
    pub service: ServiceId,
    /// Where.
    pub environment: String,
    /// The experiment of its newest run.
    pub experiment: String,
    /// What it amounts to.
    pub state: State,
    /// In plain words.
    pub why: String,
    /// Recovery time objective.
    pub rto: Option<Dur>,
    /// Recovery point objective.
    pub rpo: Option<Dur>,
    /// Maximum tolerable period of disruption.
    pub mtpd: Option<Dur>,
    /// How often it is to be proven.
    pub prove_every: Option<Dur>,
    /// The newest run that met the objective of today.
    pub last_proof: Option<Proven>,
    /// Whole days since then.
    pub days_since: Option<i64>,
    /// When the next proof is due, wall nanoseconds.
    pub due_wall_ns: Option<i64>,
    /// The newest run, whatever it showed.
    pub last_run: RunId,
    /// When that had finished, wall nanoseconds.
    pub last_run_wall_ns: i64,
    /// What the newest run said.
    pub last_judgement: Judgement,
}

/// A run that proved an objective.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proven {
    /// The run.
    pub run: RunId,
    /// When it had finished, wall nanoseconds.
    pub wall_ns: i64,
    /// How long recovery took; `None` where only data are to be kept.
    pub achieved: Option<Interval>,
    /// How much time of acknowledged writes was lost; `None` without a recovery point objective.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Interval>,
}

/// What a standing amounts to, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// The newest run that could tell missed the objective.
    Missed,
    /// No run has met the objective.
    NeverProven,
    /// The last proof is older than asked.
    Overdue,
    /// Proven, and recently enough.
    Proven,
    /// There is none to prove.
    NoObjective,
}

impl State {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Missed => "missed",
            Self::NeverProven => "never proven",
            Self::Overdue => "overdue",
            Self::Proven => "proven",
            Self::NoObjective => "no objective",
        }
    }
}

const DAY_NS: i64 = 86_400_000_000_000;

/// How every service that has points stands at `now_wall_ns`; the worst first, then by name. Points come as the store tells
/// them, those of the newest run first: a clock that stood wrong makes no run the newest.
pub fn standings(points: Vec<Point>, now_wall_ns: i64) -> Vec<Standing> {
    let mut groups: Vec<Vec<Point>> = Vec::new();
    for point in points {
        let alike = |one: &Point| one.service == point.service && one.environment == point.environment;
        match groups.iter_mut().find(|group| alike(&group[0])) {
            Some(group) => group.push(point),
            None => groups.push(vec![point]),
        }
    }
    let mut all: Vec<Standing> = groups.iter().filter_map(|points| standing(points, now_wall_ns)).collect();
    all.sort_by(|a, b| (a.state, &a.environment, &a.service).cmp(&(b.state, &b.environment, &b.service)));
    all
}

/// Of points of one service, newest first.
fn standing(points: &[Point], now_wall_ns: i64) -> Option<Standing> {
    let newest = points.first()?;
    let proven = |point: &Point| {
        let within = |achieved: Option<Interval>, objective: Option<Dur>| {
            achieved.filter(|length| length.hi.zip(objective).is_some_and(|(hi, objective)| hi <= objective))
        };
        let (mut achieved, mut data) = (None, None);
        if newest.rto.is_some() {
            achieved = Some(within(point.length, newest.rto)?);
            // What was counted from elsewhere proves nothing about the objective of today.
            if !matches!(point.judgement, Judgement::Met { .. }) || point.rto_from != newest.rto_from {
                return None;
            }
        }
        if newest.rpo.is_some() {
            let kept = point.recovery_point.as_ref()?;
            data = Some(within(kept.achieved, newest.rpo)?);
            if !matches!(kept.judgement, Judgement::Met { .. }) {
                return None;
            }
        }
        (achieved.is_some() || data.is_some()).then(|| Proven {
            run: point.run.clone(),
            wall_ns: point.ended_wall_ns,
            achieved,
            data,
        })
    };
    let last_proof = points.iter().find_map(proven);
    let last_settled = points.iter().find_map(|point| Some((point, settled(point, newest)?)));
    let missed = last_settled.filter(|(_, met)| !met).map(|(point, _)| point);
    let age = last_proof.as_ref().map(|proof| now_wall_ns.saturating_sub(proof.wall_ns).max(0));
    let due_wall_ns =
        last_proof.as_ref().zip(newest.prove_every).map(|(p, every)| p.wall_ns.saturating_add(every.ns()));
    let overdue = due_wall_ns.is_some_and(|due| now_wall_ns > due);
    let state = match (newest.rto.or(newest.rpo), missed, &last_proof) {
        (None, ..) => State::NoObjective,
        (_, Some(_), _) => State::Missed,
        (_, None, None) => State::NeverProven,
        (_, None, Some(_)) if overdue => State::Overdue,
        _ => State::Proven,
    };
    let why = why(state, newest, missed, last_proof.as_ref(), due_wall_ns.map(|due| due.saturating_sub(now_wall_ns)));
    Some(Standing {
        service: newest.service.clone(),
        environment: newest.environment.clone(),
        experiment: newest.experiment.clone(),
        state,
        why,
        rto: newest.rto,
        rpo: newest.rpo,
        mtpd: newest.mtpd,
        prove_every: newest.prove_every,
        last_proof,
        days_since: age.map(|age| age / DAY_NS),
        due_wall_ns,
        last_run: newest.run.clone(),
        last_run_wall_ns: newest.ended_wall_ns,
        last_judgement: newest.judgement.clone(),
    })
}

/// Whether a run met every objective of today, or missed one; `None` where it settled neither.
fn settled(point: &Point, newest: &Point) -> Option<bool> {
    let word = |judgement: &Judgement| match judgement {
        Judgement::Met { .. } => Some(true),
        Judgement::Missed { .. } => Some(false),
        _ => None,
    };
    let time = newest.rto.map(|_| word(&point.judgement));
    let data = newest.rpo.map(|_| point.recovery_point.as_ref().and_then(|kept| word(&kept.judgement)));
    let mut words = time.into_iter().chain(data).peekable();
    words.peek()?;
    let words: Vec<Option<bool>> = words.collect();
    if words.contains(&Some(false)) {
        Some(false)
    } else {
        words.into_iter().all(|word| word.is_some()).then_some(true)
    }
}

fn why(state: State, newest: &Point, missed: Option<&Point>, proof: Option<&Proven>, due_in: Option<i64>) -> String {
    let mut text = match (state, missed, proof) {
        (State::Missed, Some(point), _) => {
            let beyond = point.length.zip(newest.mtpd).is_some_and(|(length, mtpd)| length.lo > mtpd);
            let mtpd = if beyond { ", beyond even the maximum tolerable period of disruption" } else { "" };
            let data = point.recovery_point.as_ref().map(|kept| &kept.judgement);
            if let (Some(Judgement::Missed { why }), Some(_)) = (data, newest.rpo) {
                format!("run {} missed its recovery point: {why}", point.run)
            } else {
                let achieved = point.length.map_or_else(String::new, |length| format!(": {length}"));
                format!("run {} missed it{achieved}{mtpd}", point.run)
            }
        }
        (State::NeverProven, ..) => match unsettled(newest) {
            Judgement::Met { .. } => "what was met was a wider objective than that of today".to_owned(),
            Judgement::Inconclusive { why, .. } | Judgement::NotMeasured { why } => format!("last: {why}"),
            _ => "no run has shown it".to_owned(),
        },
        (State::NoObjective, ..) => "its document sets no objective".to_owned(),
        (_, _, Some(proof)) => {
            let data = proof.data.map(|data| format!("data lost {data}"));
            let told: Vec<String> = proof.achieved.map(|time| time.to_string()).into_iter().chain(data).collect();
            format!("achieved {} in run {}", told.join(", "), proof.run)
        }
        _ => String::new(),
    };
    match due_in {
        Some(left) if left < 0 => text += &format!("; due {} ago", days(left.saturating_neg())),
        Some(left) => text += &format!("; due in {}", days(left)),
        None => {}
    }
    text
}

/// The judgement of the objective that the newest run did not show to be met.
fn unsettled(newest: &Point) -> &Judgement {
    let met = matches!(newest.judgement, Judgement::Met { .. } | Judgement::NoObjective);
    match &newest.recovery_point {
        Some(kept) if met && newest.rpo.is_some() => &kept.judgement,
        _ => &newest.judgement,
    }
}

/// Days from two on, else the length itself.
fn days(ns: i64) -> String {
    if ns >= 2 * DAY_NS { format!("{} days", ns / DAY_NS) } else { Dur::from_ns(ns).human() }
}
