//! Calls about schedules.

use std::collections::BTreeMap;

use fracas_model::{
    event::Event,
    id::RunId,
    schedule::{Fact, Schedule, Waiting},
};
use fracas_proto::v1;
use serde::Serialize;

use super::{Client, ClientError};

/// A schedule as the controller keeps it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleSummary {
    /// Its rules.
    pub schedule: Schedule,
    /// In which environment its runs are started.
    pub environment: String,
    /// Who set it last.
    pub by: String,
    /// Why it is paused; empty: it is not.
    pub paused: String,
    /// It was removed.
    pub removed: bool,
    /// Its next dues, wall nanoseconds.
    pub next_wall_ns: Vec<i64>,
    /// Dues that wait.
    pub waiting: Vec<Waiting>,
    /// Its runs that have not ended.
    pub runs: Vec<RunId>,
    /// The latest that became of a due.
    pub last: Option<Fact>,
}

/// A schedule and all that belongs to it, as they are sent to a controller.
#[derive(Clone, Debug)]
pub struct ScheduleSubmission {
    /// Text of the schedule, and its file name for messages.
    pub source: (String, String),
    /// The same of its experiment.
    pub experiment: (String, String),
    /// Texts of its calendars, by the names that the schedule writes.
    pub calendars: BTreeMap<String, String>,
    /// Texts of the files that the experiment names, by the names it gives them.
    pub files: BTreeMap<String, String>,
    /// Environment of its runs.
    pub environment: String,
}

impl Client {
    /// Makes a schedule, or changes the one of its name.
    pub async fn set_schedule(&self, what: ScheduleSubmission) -> Result<ScheduleSummary, ClientError> {
        let ((source, source_name), (experiment, experiment_name)) = (what.source, what.experiment);
        let environment = what.environment;
        let (calendars, files) = (what.calendars.into_iter().collect(), what.files.into_iter().collect());
        let request =
            v1::SetScheduleRequest { source, source_name, experiment, experiment_name, environment, calendars, files };
        let reply = self.calls.clone().set_schedule(request).await.map_err(|e| self.error(&e))?;
        self.schedule_of(reply.into_inner())
    }

    /// All of them, by name.
    pub async fn schedules(&self) -> Result<Vec<ScheduleSummary>, ClientError> {
        let reply = self.calls.clone().list_schedules(v1::ListSchedulesRequest {}).await.map_err(|e| self.error(&e))?;
        reply.into_inner().schedules.into_iter().map(|one| self.schedule_of(one)).collect()
    }

    /// One of them, with so many of its next dues and of its latest facts, newest last.
    pub async fn schedule(
        &self,
        name: &str,
        next: u32,
        facts: u32,
    ) -> Result<(ScheduleSummary, Vec<Event>), ClientError> {
        let request = v1::GetScheduleRequest { name: name.to_owned(), next, facts };
        let reply = self.calls.clone().get_schedule(request).await.map_err(|e| self.error(&e))?.into_inner();
        let events: Result<Vec<Event>, _> =
            reply.events_json.iter().map(|text| self.decode("an event", text.as_bytes())).collect();
        Ok((self.schedule_of(reply.schedule.unwrap_or_default())?, events?))
    }

    /// From now on its dues are skipped; what it is, for those who may see it.
    pub async fn pause_schedule(&self, name: &str, reason: &str) -> Result<Option<ScheduleSummary>, ClientError> {
        let reply = self.calls.clone().pause_schedule(asked(name, reason)).await.map_err(|e| self.error(&e))?;
        let now = reply.into_inner();
        (!now.schedule_json.is_empty()).then(|| self.schedule_of(now)).transpose()
    }

    /// Its dues are started again.
    pub async fn resume_schedule(&self, name: &str) -> Result<ScheduleSummary, ClientError> {
        let reply = self.calls.clone().resume_schedule(asked(name, "")).await.map_err(|e| self.error(&e))?;
        self.schedule_of(reply.into_inner())
    }

    /// Ends it for good.
    pub async fn remove_schedule(&self, name: &str, reason: &str) -> Result<ScheduleSummary, ClientError> {
        let reply = self.calls.clone().remove_schedule(asked(name, reason)).await.map_err(|e| self.error(&e))?;
        self.schedule_of(reply.into_inner())
    }

    fn schedule_of(&self, one: v1::Schedule) -> Result<ScheduleSummary, ClientError> {
        let waiting: Result<Vec<Waiting>, _> =
            one.waiting_json.iter().map(|text| self.decode("a schedule", text.as_bytes())).collect();
        let last = (!one.last_json.is_empty()).then(|| self.decode("a schedule", one.last_json.as_bytes()));
        Ok(ScheduleSummary {
            schedule: self.decode("a schedule", one.schedule_json.as_bytes())?,
            environment: one.environment,
            by: one.by,
            paused: one.paused,
            removed: one.removed,
            next_wall_ns: one.next_wall_ns,
            waiting: waiting?,
            runs: one.runs.into_iter().map(RunId::new).collect(),
            last: last.transpose()?,
        })
    }
}

fn asked(name: &str, reason: &str) -> v1::ScheduleRequest {
    v1::ScheduleRequest { name: name.to_owned(), reason: reason.to_owned() }
}
