//! Schedules on the wire.

use std::{collections::BTreeSet, sync::Arc};

use fracas_model::{
    access::{self, Right},
    id::RunId,
    schedule::State,
};
use fracas_proto::{
    to_json,
    v1::{GetScheduleReply, GetScheduleRequest, ListSchedulesReply, Schedule, ScheduleRequest, SetScheduleRequest},
};
use tonic::{Response, Status};

use super::{Act, Api, MAX_SOURCE, Reply, environment, reasoned, status};
use crate::{
    access::Principal,
    schedules::{ScheduleError, Schedules, Setting},
};

/// Next dues and facts when nothing is asked, and the most of each.
const DUES: (u32, u32) = (5, 1000);
const FACTS: (u32, u32) = (50, 1000);

impl Api {
    /// The schedule of this name, if the caller may do this to it.
    async fn acts_on_schedule(
        &self,
        by: &Principal,
        method: &'static str,
        name: &str,
        needs: Right,
    ) -> Result<(), Status> {
        let state = match self.visible(by, name) {
            Ok(state) => state,
            Err(why) => return Err(self.missing(by, method, name, why).await),
        };
        let act = Act { method, needs: &[needs], environment: &state.environment, about: name };
        self.may(by, act).await
    }

    /// Those of environments that the caller may not see are not there.
    fn visible(&self, by: &Principal, name: &str) -> Result<Arc<State>, Status> {
        let unknown = || refused(ScheduleError::Unknown(name.to_owned()));
        let state = self.schedules.one(name).map_err(refused)?;
        Some(state).filter(|state| by.grants.allow(Right::View, &state.environment)).ok_or_else(unknown)
    }

    pub(super) async fn set(&self, by: &Principal, wire: SetScheduleRequest) -> Reply<Schedule> {
        let environment = environment(&wire.environment)?;
        // It starts runs by itself, in the name of who set it.
        let needs = &[Right::Design, Right::Run];
        let act = Act { method: "SetSchedule", needs, environment: &environment, about: &wire.source_name };
        self.may(by, act.clone()).await?;
        if let Some(other) = self.schedules.elsewhere(&wire.source, &environment) {
            self.may(by, Act { environment: &other, ..act }).await?;
        }
        if wire.source.len().max(wire.experiment.len() + super::size(&wire.files)) > MAX_SOURCE {
            return Err(Status::invalid_argument("a document, with the files it names, is larger than 1 MiB"));
        }
        let setting = Setting {
            source: wire.source,
            source_name: wire.source_name,
            experiment: wire.experiment,
            experiment_name: wire.experiment_name,
            calendars: wire.calendars.into_iter().collect(),
            files: wire.files.into_iter().collect(),
            environment,
            by: by.id.clone(),
        };
        self.changed(self.schedules.set(setting).await)
    }

    pub(super) async fn paused(&self, by: &Principal, wire: ScheduleRequest) -> Reply<Schedule> {
        // Nothing is started by it: whoever is signed in may.
        let state = match self.schedules.one(&wire.name).map_err(refused) {
            Ok(state) => state,
            Err(why) => return Err(self.missing(by, "PauseSchedule", &wire.name, why).await),
        };
        let act = Act { method: "PauseSchedule", needs: &[], environment: &state.environment, about: &wire.name };
        self.may(by, act).await?;
        let now = self.changed(self.schedules.pause(&wire.name, reasoned(wire.reason)?, by.id.clone()).await)?;
        if by.grants.allow(Right::View, &state.environment) {
            return Ok(now);
        }
        // To stop it is everybody's; what it is, not.
        Ok(Response::new(Schedule { paused: now.into_inner().paused, ..Schedule::default() }))
    }

    pub(super) async fn resumed(&self, by: &Principal, wire: ScheduleRequest) -> Reply<Schedule> {
        self.acts_on_schedule(by, "ResumeSchedule", &wire.name, Right::Run).await?;
        self.changed(self.schedules.unpause(&wire.name, by.id.clone()).await)
    }

    pub(super) async fn removed(&self, by: &Principal, wire: ScheduleRequest) -> Reply<Schedule> {
        self.acts_on_schedule(by, "RemoveSchedule", &wire.name, Right::Design).await?;
        self.changed(self.schedules.remove(&wire.name, reasoned(wire.reason)?, by.id.clone()).await)
    }

    fn changed(&self, state: Result<Arc<State>, ScheduleError>) -> Reply<Schedule> {
        let state = state.map_err(refused)?;
        Ok(Response::new(self.view(&state, DUES.0)))
    }

    pub(super) async fn listed_schedules(&self, by: &Principal) -> Reply<ListSchedulesReply> {
        let act = Act { method: "ListSchedules", needs: &[], environment: access::EVERYWHERE, about: "" };
        self.sees(by, act).await?;
        let all = self.schedules.all();
        let seen = all.values().filter(|state| by.grants.allow(Right::View, &state.environment));
        Ok(Response::new(ListSchedulesReply { schedules: seen.map(|state| self.view(state, 1)).collect() }))
    }

    pub(super) async fn shown_schedule(&self, by: &Principal, wire: GetScheduleRequest) -> Reply<GetScheduleReply> {
        let state = match self.visible(by, &wire.name) {
            Ok(state) => state,
            Err(why) => return Err(self.missing(by, "GetSchedule", &wire.name, why).await),
        };
        let environment = state.environment.as_str();
        let act = Act { method: "GetSchedule", needs: &[Right::View], environment, about: &wire.name };
        self.sees(by, act).await?;
        let asked = |given: u32, (few, most): (u32, u32)| if given == 0 { few } else { given.min(most) };
        // What it is by now may be elsewhere: shown is what was looked at above.
        let events = self.schedules.facts(&wire.name, &state, asked(wire.facts, FACTS) as usize).await;
        let events_json = events.map_err(|e| status(&e))?.iter().map(to_json).collect();
        let schedule = Some(self.view(&state, asked(wire.next, DUES)));
        Ok(Response::new(GetScheduleReply { schedule, events_json }))
    }

    fn view(&self, state: &State, next: u32) -> Schedule {
        let active: BTreeSet<RunId> = self.runs.active().into_iter().collect();
        let dues = Schedules::next(state, self.history.now().wall_ns, next as usize);
        Schedule {
            schedule_json: state.schedule.as_ref().map(to_json).unwrap_or_default(),
            environment: state.environment.clone(),
            by: state.by.clone(),
            paused: state.paused.clone().unwrap_or_default(),
            removed: state.removed,
            next_wall_ns: dues.iter().filter(|_| !state.removed).map(|due| due.at_ns).collect(),
            waiting_json: state.waiting.iter().map(to_json).collect(),
            runs: state.runs.intersection(&active).map(ToString::to_string).collect(),
            last_json: state.last.as_ref().map(to_json).unwrap_or_default(),
        }
    }
}

pub(super) fn refused(error: ScheduleError) -> Status {
    let text = error.to_string();
    match error {
        ScheduleError::Document(diagnostics) => {
            let text = diagnostics.iter().map(|d| d.message.clone()).collect::<Vec<_>>().join("\n");
            Status::with_details(tonic::Code::InvalidArgument, text, to_json(&diagnostics).into_bytes().into())
        }
        ScheduleError::Unknown(_) => Status::not_found(text),
        ScheduleError::TooMany => Status::resource_exhausted(text),
        ScheduleError::History(error) => status(&error),
    }
}
