//! Marks of runs: what people tell of when something happened is recorded, while the run goes on.

use fracas_model::{
    event::{Between, Body},
    id::{RunId, ServiceId},
    mark::{Ago, Mark},
    run::Run,
    units::Dur,
};

use super::{AnswerError, Runs};
use crate::{driver::stream_of, history::HistoryError};

/// What somebody tells.
#[derive(Clone, Debug)]
pub struct Told {
    /// What happened.
    pub mark: Mark,
    /// Of which service; of the whole run when absent.
    pub service: Option<ServiceId>,
    /// How long ago.
    pub ago: Ago,
    /// Who tells it.
    pub by: String,
    /// Who did it, if somebody else.
    pub did: Option<String>,
    /// In a few words.
    pub note: String,
    /// Such marks as were told before do not count.
    pub retract: bool,
}

impl Runs {
    /// Records what is told; the record's number.
    pub async fn mark(&self, run: &RunId, told: Told) -> Result<u64, AnswerError> {
        let stream = stream_of(run);
        if let Some(service) = &told.service {
            let events = self.history.read(&stream, 0).await?;
            let folded = Run::fold(&events).map_err(|error| AnswerError::Not(error.to_string()))?;
            let known: Vec<&str> = folded.experiment.services.keys().map(ServiceId::as_str).collect();
            if !known.contains(&service.as_str()) {
                let known =
                    if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
                return Err(AnswerError::Not(format!("run {run} has no service `{service}`: {known}")));
            }
        }
        let at = self.history.now();
        let Told { mark, service, ago, by, did, note, retract } = told;
        let body = if retract {
            Body::MarkRetracted { mark, service, by, note, at }
        } else {
            let before = |ago: Dur| at.later(Dur::from_ns(-ago.ns()));
            let when = Between { from: before(ago.most), to: before(ago.least) };
            Body::Marked { mark, service, when, by, did, note, at }
        };
        match self.history.append(&stream, vec![body]).await {
            Ok(events) => Ok(events.last().map_or(0, |event| event.seq)),
            Err(HistoryError::Closed { .. }) => {
                Err(AnswerError::Not(format!("run {run} is over: what happened in it is marked while it goes on")))
            }
            Err(error) => Err(error.into()),
        }
    }
}
