//! Marks of runs: what people tell of when something happened is recorded, while the run goes on.

use fracas_model::{
    event::{Between, Body, Event},
    id::{RunId, ServiceId},
    mark::{Ago, Mark},
    run::Run,
    time::Stamp,
    units::Dur,
};

use super::{AnswerError, Runs};
use crate::{
    driver::stream_of,
    history::{Extra, HistoryError},
    store::StoreError,
};

/// What somebody tells.
#[derive(Clone, Debug)]
pub struct Told {
    /// What happened.
    pub mark: Mark,
    /// Of which service; of the whole run when absent.
    pub service: Option<ServiceId>,
    /// How long before `at`.
    pub ago: Ago,
    /// When the call was taken.
    pub at: Stamp,
    /// Who tells it.
    pub by: String,
    /// Who did it, if somebody else.
    pub did: Option<String>,
    /// In a few words.
    pub note: String,
    /// Such marks as were told before do not count.
    pub retract: bool,
}

/// Most marks of a run: whoever may see it may tell them.
const MOST: usize = 1000;

impl Runs {
    /// Records what is told; the record's number.
    pub async fn mark(&self, run: &RunId, told: Told) -> Result<u64, AnswerError> {
        let stream = stream_of(run);
        let not = |why: String| Err(AnswerError::Not(why));
        let over = format!("run {run} is over: what happened in it is marked while it goes on");
        loop {
            let events = self.history.read(&stream, 0).await?;
            let folded = Run::fold(&events).map_err(|error| AnswerError::Not(error.to_string()))?;
            // Its report is being made: every record that comes now would have it made anew.
            if events.iter().any(|event| matches!(event.body, Body::Finished { .. })) {
                return not(over);
            }
            let marks = |event: &&Event| matches!(event.body, Body::Marked { .. } | Body::MarkRetracted { .. });
            if events.iter().filter(marks).count() >= MOST {
                return not(format!("run {run} has {MOST} marks already, which is the most of one run"));
            }
            if let Some(service) = told.service.as_ref().filter(|id| !folded.experiment.services.contains_key(*id)) {
                let known: Vec<&str> = folded.experiment.services.keys().map(ServiceId::as_str).collect();
                let known =
                    if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
                return not(format!("run {run} has no service `{service}`: {known}"));
            }
            let extra = Extra { expected: Some(folded.seq), ..Extra::default() };
            match self.history.append_with(&stream, vec![told.body()], extra).await {
                // Something was told meanwhile: perhaps the end.
                Err(HistoryError::Store(StoreError::Conflict { .. })) => {}
                Err(HistoryError::Closed { .. }) => return not(over),
                Err(error) => return Err(error.into()),
                Ok(events) => return Ok(events.last().map_or(0, |event| event.seq)),
            }
        }
    }
}

impl Told {
    fn body(&self) -> Body {
        let Self { mark, service, ago, at, by, did, note, retract } = self.clone();
        if retract {
            return Body::MarkRetracted { mark, service, by, note, at };
        }
        let before = |ago: Dur| at.later(Dur::from_ns(-ago.ns()));
        let when = Between { from: before(ago.most), to: before(ago.least) };
        Body::Marked { mark, service, when, by, did, note, at }
    }
}
