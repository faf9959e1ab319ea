//! Schedules on the wire.

use std::{collections::BTreeSet, sync::Arc};

use fracas_model::{id::RunId, schedule::State};
use fracas_proto::{
    to_json,
    v1::{GetScheduleReply, GetScheduleRequest, ListSchedulesReply, Schedule, SetScheduleRequest},
};
use tonic::{Response, Status};

use super::{Api, MAX_SOURCE, Reply, status};
use crate::{
    access::Principal,
    schedules::{ScheduleError, Schedules, Setting},
};

/// Next dues and facts when nothing is asked, and the most of each.
const DUES: (u32, u32) = (5, 1000);
const FACTS: (u32, u32) = (50, 1000);

impl Api {
    pub(super) async fn set(&self, wire: SetScheduleRequest, by: Principal) -> Reply<Schedule> {
        if wire.source.len().max(wire.experiment.len()) > MAX_SOURCE {
            return Err(Status::invalid_argument("a document is larger than 1 MiB"));
        }
        let setting = Setting {
            source: wire.source,
            source_name: wire.source_name,
            experiment: wire.experiment,
            experiment_name: wire.experiment_name,
            calendars: wire.calendars.into_iter().collect(),
            environment: if wire.environment.is_empty() { "default".into() } else { wire.environment },
            by: by.id,
        };
        self.changed(self.schedules.set(setting).await)
    }

    pub(super) fn changed(&self, state: Result<Arc<State>, ScheduleError>) -> Reply<Schedule> {
        let state = state.map_err(refused)?;
        Ok(Response::new(self.view(&state, DUES.0)))
    }

    pub(super) fn listed(&self) -> ListSchedulesReply {
        ListSchedulesReply { schedules: self.schedules.all().values().map(|state| self.view(state, 1)).collect() }
    }

    pub(super) async fn shown(&self, wire: GetScheduleRequest) -> Reply<GetScheduleReply> {
        let asked = |given: u32, (few, most): (u32, u32)| if given == 0 { few } else { given.min(most) };
        let state = self.schedules.one(&wire.name).map_err(refused)?;
        let events = self.schedules.facts(&wire.name, asked(wire.facts, FACTS) as usize).await;
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
