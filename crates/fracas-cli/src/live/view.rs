//! What the screen shows, as a fold of a run's events. Pure: it neither draws nor reads a clock.

use std::collections::BTreeMap;

use fracas_model::{
    event::{Body, Event, Look, Measured, Proof, VerdictWord},
    experiment::{Action, Experiment},
    id::{EntryId, HostId, ItemKey, ProbeId, RunId, ServiceId},
    run::Answer,
    time::Stamp,
    units::Dur,
};

use super::strip::Strip;
use crate::{
    lines::{self, Names},
    words,
};

/// Warnings kept for the screen.
const NOTES: usize = 3;

/// Where the run stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Nothing was heard yet.
    #[default]
    Waiting,
    /// Accepted.
    Planned,
    /// Waiting for steady state.
    Gating,
    /// The timeline runs.
    Running,
    /// Services are to become stable.
    Recovering,
    /// Hosts confirm.
    Undoing,
    /// Over.
    Finished,
}

/// Where an entry stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Its trigger has not fired.
    #[default]
    Waiting,
    /// Its trigger has fired.
    Started,
    /// It is over.
    Ended,
    /// It will not start.
    Skipped(String),
    /// Its check was not met, or its question not answered with go.
    Failed(String),
}

/// Where a fault stands on one host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Asked for, not yet answered.
    #[default]
    Asked,
    /// Steps are being done.
    Applying,
    /// In force.
    Active,
    /// A one-shot was fired.
    Fired,
    /// Inverse steps are being done.
    Undoing,
    /// The kernel's state was read back.
    Undone,
    /// The host said no; nothing changed.
    Refused,
    /// The world said no.
    Failed,
    /// Some steps could not be undone yet.
    UndoFailed,
}

/// A fault on one host.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ItemView {
    pub(crate) fate: Fate,
    pub(crate) proof: Option<Proof>,
    pub(crate) measured: Vec<Measured>,
    /// Reason of a refusal or failure; else what is done, in words.
    pub(crate) detail: String,
}

/// A timeline entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct EntryView {
    pub(crate) id: String,
    pub(crate) what: String,
    pub(crate) trigger: String,
    pub(crate) progress: Progress,
    pub(crate) started_wall_ns: Option<i64>,
    pub(crate) lasts: Option<Dur>,
    /// It asks, and waits for an answer.
    pub(crate) asks: bool,
    pub(crate) answer: Option<String>,
    pub(crate) items: BTreeMap<HostId, ItemView>,
}

/// A probe as seen from one vantage.
#[derive(Clone, Debug)]
pub(crate) struct ProbeView {
    pub(crate) probe: ProbeId,
    pub(crate) host: HostId,
    pub(crate) strip: Strip,
    pub(crate) why: String,
}

/// A service under test.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ServiceView {
    pub(crate) id: String,
    pub(crate) rto: Option<Dur>,
    /// When each vantage that says "down" began to say so.
    down: BTreeMap<(ProbeId, HostId), i64>,
    /// When the first of the running outage began.
    pub(crate) down_since: Option<i64>,
    /// Some probe of it has answered.
    pub(crate) seen: bool,
    /// Length of the last outage that ended.
    pub(crate) last_outage: Option<Dur>,
    /// Outages since the start, the running one too.
    pub(crate) outages: u32,
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ending {
    pub(crate) verdict: VerdictWord,
    pub(crate) exit_code: u8,
    pub(crate) reasons: Vec<String>,
}

/// Everything on the screen.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) run: String,
    pub(crate) name: String,
    pub(crate) by: String,
    pub(crate) environment: String,
    pub(crate) stage: Stage,
    pub(crate) names: Names,
    pub(crate) planned_wall_ns: Option<i64>,
    pub(crate) zero_wall_ns: Option<i64>,
    pub(crate) ended_wall_ns: Option<i64>,
    pub(crate) entries: Vec<EntryView>,
    pub(crate) probes: Vec<ProbeView>,
    pub(crate) services: Vec<ServiceView>,
    pub(crate) notes: Vec<String>,
    pub(crate) ending: Option<Ending>,
    pub(crate) seq: u64,
    belongs: BTreeMap<ProbeId, ServiceId>,
}

impl View {
    /// A run of which nothing was heard yet.
    pub(crate) fn of(run: &RunId) -> Self {
        Self { run: run.to_string(), ..Self::default() }
    }

    /// Takes the next event.
    pub(crate) fn apply(&mut self, event: &Event) {
        self.seq = event.seq;
        self.names.learn(event);
        match &event.body {
            Body::Planned { run, document, by, environment, at, .. } => {
                (self.by, self.environment) = (by.clone(), environment.clone());
                self.plan(run.as_str(), document, at);
            }
            Body::GateStarted { .. } => self.stage = Stage::Gating,
            Body::GatePassed { at } => {
                self.zero_wall_ns = Some(at.wall_ns);
                self.stage = Stage::Running;
            }
            Body::EntryStarted { entry, at, .. } => {
                let entry = self.entry(entry);
                entry.progress = Progress::Started;
                entry.started_wall_ns.get_or_insert(at.wall_ns);
            }
            Body::EntrySkipped { entry, why, .. } => self.entry(entry).progress = Progress::Skipped(why.clone()),
            Body::EntryEnded { entry, .. } => self.entry(entry).progress = Progress::Ended,
            Body::EntryFailed { entry, why, .. } => self.entry(entry).progress = Progress::Failed(why.clone()),
            Body::Decided { entry, go, by, note, .. } if *by != self.by => {
                let answer = Answer { go: *go, by: by.clone(), note: note.clone() };
                self.entry(entry).answer.get_or_insert_with(|| answer.text());
            }
            Body::RecoveryStarted { .. } => self.stage = Stage::Recovering,
            Body::UndoStarted { .. } => self.stage = Stage::Undoing,
            Body::Finished { verdict, exit_code, reasons, at } => {
                self.stage = Stage::Finished;
                self.ended_wall_ns = Some(at.wall_ns);
                self.ending =
                    Some(Ending { verdict: verdict.clone(), exit_code: *exit_code, reasons: reasons.clone() });
            }
            Body::StopRequested { .. }
            | Body::RolloutWidened { .. }
            | Body::Aborted { .. }
            | Body::GaveUp { .. }
            | Body::HostContact { .. }
            | Body::Resumed { .. }
            | Body::StopConditionMet { .. }
            | Body::ProbeRefused { .. } => self.note(event),
            _ => self.apply_host(event),
        }
    }

    /// Faults that a host has begun and not confirmed as undone, as `entry on host`.
    pub(crate) fn open_items(&self) -> Vec<String> {
        let open = |i: &ItemView| matches!(i.fate, Fate::Applying | Fate::Active | Fate::Undoing | Fate::UndoFailed);
        self.entries
            .iter()
            .flat_map(|e| e.items.iter().filter(|(_, i)| open(i)).map(|(h, _)| (e.id.clone(), h)))
            .map(|(entry, host)| format!("{entry} on {}", self.names.host(host)))
            .collect()
    }

    fn plan(&mut self, run: &str, document: &serde_json::Value, at: &Stamp) {
        run.clone_into(&mut self.run);
        self.stage = Stage::Planned;
        self.planned_wall_ns = Some(at.wall_ns);
        // A document of a newer controller is still watched: entries and services then appear as events name them.
        let Ok(experiment) = serde_json::from_value::<Experiment>(document.clone()) else { return };
        for entry in &experiment.timeline {
            let lasts = match &entry.action {
                Action::Fault { duration, .. } => *duration,
                Action::Wait { duration } | Action::Approval { deadline: duration, .. } => Some(*duration),
                Action::Check { give_up_after, .. } => Some(*give_up_after),
                Action::Recovery { .. } => Some(experiment.recovery.give_up_after),
            };
            self.entries.push(EntryView {
                id: entry.id.to_string(),
                what: words::action(entry),
                trigger: words::trigger(&entry.trigger),
                lasts,
                asks: matches!(entry.action, Action::Approval { .. }),
                ..EntryView::default()
            });
        }
        let services = experiment.services.iter();
        self.services = services
            .map(|(id, service)| ServiceView { id: id.to_string(), rto: service.rto, ..ServiceView::default() })
            .collect();
        let probes = experiment.probes.iter();
        self.belongs = probes.filter_map(|(id, p)| Some((id.clone(), p.service.clone()?))).collect();
        self.name = experiment.name;
    }

    fn entry(&mut self, id: &EntryId) -> &mut EntryView {
        let index = self.entries.iter().position(|e| e.id == id.as_str()).unwrap_or_else(|| {
            self.entries.push(EntryView { id: id.to_string(), ..EntryView::default() });
            self.entries.len() - 1
        });
        &mut self.entries[index]
    }

    fn item(&mut self, key: &ItemKey) -> &mut ItemView {
        self.entry(&key.entry).items.entry(key.host.clone()).or_default()
    }

    fn note(&mut self, event: &Event) {
        let Some(words) = lines::wording(event, &self.names) else { return };
        self.notes.push(words);
        if self.notes.len() > NOTES {
            self.notes.remove(0);
        }
    }

    fn apply_host(&mut self, event: &Event) {
        if let Some(key) = event.body.item() {
            self.apply_item(&key.clone(), &event.body);
            if matches!(event.body, Body::UndoFailed { .. } | Body::Failed { .. }) {
                self.note(event);
            }
            return;
        }
        let Some(host) = event.origin.as_ref().map(|o| o.host.clone()) else { return };
        match &event.body {
            Body::Edge { probe, ok, after, at, why, .. } => {
                let wall_ns = wall(at, after.s);
                let view = self.probe(probe, &host);
                view.strip.change(wall_ns, *ok);
                view.why.clone_from(why);
                self.apply_service(probe, &host, wall_ns, *ok);
            }
            Body::Gap { probe, between: Look { s, c }, at, .. } => {
                let (from, to) = (wall(at, *s), wall(at, *c));
                self.probe(probe, &host).strip.gap(from, to);
            }
            _ => {}
        }
    }

    fn apply_item(&mut self, key: &ItemKey, body: &Body) {
        let item = self.item(key);
        match body {
            Body::Refused { refusal, .. } => {
                (item.fate, item.detail) = (Fate::Refused, refusal.to_string());
            }
            Body::Applying { plan, .. } => {
                *item = ItemView { fate: Fate::Applying, detail: plan.summary.clone(), ..ItemView::default() };
            }
            Body::Active { .. } => item.fate = Fate::Active,
            Body::Checked { proof, measured, .. } => {
                item.proof = Some(proof.clone());
                item.measured.clone_from(measured);
            }
            Body::Spent { .. } => item.fate = Fate::Fired,
            Body::Undoing { .. } => item.fate = Fate::Undoing,
            Body::Undone { .. } if item.fate != Fate::Failed => item.fate = Fate::Undone,
            Body::UndoFailed { failures, .. } => {
                (item.fate, item.detail) = (Fate::UndoFailed, failures.join("; "));
            }
            Body::Failed { failure, .. } => (item.fate, item.detail) = (Fate::Failed, failure.clone()),
            _ => {}
        }
    }

    fn probe(&mut self, probe: &ProbeId, host: &HostId) -> &mut ProbeView {
        let index = self.probes.iter().position(|p| p.probe == *probe && p.host == *host).unwrap_or_else(|| {
            let (probe, host) = (probe.clone(), host.clone());
            self.probes.push(ProbeView { probe, host, strip: Strip::default(), why: String::new() });
            self.probes.len() - 1
        });
        &mut self.probes[index]
    }

    fn apply_service(&mut self, probe: &ProbeId, host: &HostId, wall_ns: i64, ok: bool) {
        let Some(id) = self.belongs.get(probe) else { return };
        let Some(service) = self.services.iter_mut().find(|s| s.id == id.as_str()) else { return };
        service.seen = true;
        let key = (probe.clone(), host.clone());
        if ok {
            service.down.remove(&key);
        } else {
            service.down.entry(key).or_insert(wall_ns);
        }
        match (service.down_since, service.down.is_empty()) {
            (None, false) => {
                service.down_since = Some(wall_ns);
                service.outages += 1;
            }
            (Some(since), true) => {
                service.down_since = None;
                service.last_outage = Some(Dur::from_ns(wall_ns - since));
            }
            _ => {}
        }
    }
}

/// The wall time of an instant given in boot time of the clock that `at` was read from.
fn wall(at: &Stamp, boot_ns: i64) -> i64 {
    at.wall_ns - (at.boot_ns - boot_ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn after(seq: u64) -> View {
        let mut view = View::default();
        for event in fixture::history().iter().filter(|e| e.seq <= seq) {
            view.apply(event);
        }
        view
    }

    #[test]
    fn the_plan_gives_names_entries_and_services() {
        let view = after(1);
        assert_eq!((view.name.as_str(), view.stage), ("shop-survives", Stage::Planned));
        assert_eq!(view.entries[1].what, "lag on primary for 20s");
        assert_eq!(view.entries[1].trigger, "after shop recovered");
        assert_eq!(view.services[0].rto, Some(Dur::from_secs(30)));
        assert!(!view.services[0].seen);
    }

    #[test]
    fn an_outage_runs_and_ends() {
        let view = after(9);
        assert_eq!(view.services[0].down_since, Some(fixture::START + 10_200_000_000));
        let view = after(10);
        assert_eq!((view.services[0].down_since, view.services[0].last_outage), (None, Some(Dur::from_ms(3200))));
        assert_eq!(view.services[0].outages, 1);
    }

    #[test]
    fn a_fault_goes_through_its_states_and_is_open_until_undone() {
        let open = |seq| after(seq).open_items();
        assert_eq!(open(12), Vec::<String>::new());
        assert_eq!(open(13), ["slow on db-1"]);
        let slow = after(15).entries[1].items[&"h1".into()].clone();
        assert_eq!((slow.fate, slow.proof), (Fate::Active, Some(Proof::Verified)));
        assert!((slow.measured[0].got - 201.3).abs() < 1e-9);
        assert_eq!(open(16), ["slow on db-1"]);
        assert_eq!(open(17), Vec::<String>::new());
    }

    #[test]
    fn the_end_carries_the_verdict() {
        let view = after(u64::MAX);
        let ending = view.ending.clone().unwrap();
        assert_eq!((view.stage, ending.verdict, ending.exit_code), (Stage::Finished, VerdictWord::Pass, 0));
        assert!(view.entries.iter().all(|e| e.progress == Progress::Ended));
    }

    #[test]
    fn a_document_of_another_version_is_still_watched() {
        let mut view = View::default();
        for mut event in fixture::history() {
            if let Body::Planned { document, .. } = &mut event.body {
                *document = serde_json::json!({"kind": "FutureThing"});
            }
            view.apply(&event);
        }
        assert_eq!(view.entries.len(), 2);
        assert_eq!(view.stage, Stage::Finished);
    }
}
