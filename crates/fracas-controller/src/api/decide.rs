//! Answers to the questions of runs on the wire.

use fracas_model::{access::Right, run::Answer};
use fracas_proto::v1::{DecideReply, DecideRequest};
use tonic::{Response, Status};

use super::{Act, Api, Reply, approvals::noted, status};
use crate::{access::Principal, runs::AnswerError, schedules};

impl Api {
    /// Whoever started the run does not decide, nor does whoever set the schedule that did.
    pub(super) async fn decided_entry(&self, by: &Principal, wire: DecideRequest) -> Reply<DecideReply> {
        let row = match self.find(by, &wire.run).await {
            Ok((row, _)) => row,
            Err(why) => return Err(self.missing(by, "Decide", &wire.run, why).await),
        };
        let needs = &[Right::Approve];
        let act = Act { method: "Decide", needs, environment: &row.environment, about: row.run.as_str() };
        self.may(by, act.clone()).await?;
        let note = noted(&wire.note)?;
        let own = match schedules::of(&row.by) {
            Some(name) => self.schedules.was_set_by(name, &by.id).await.map_err(|e| status(&e))?,
            None => false,
        };
        let answered = if own {
            let why = "whoever set the schedule that started the run does not decide: somebody else must";
            Err(AnswerError::Not(why.into()))
        } else {
            self.runs.answer(&row.run, &wire.entry, Answer { go: wire.go, by: by.id.clone(), note }).await
        };
        match answered {
            Ok(entry) => Ok(Response::new(DecideReply { run: row.run.to_string(), entry: entry.to_string() })),
            Err(error) => {
                let why = match error {
                    AnswerError::Not(why) => Status::failed_precondition(why),
                    AnswerError::History(error) => status(&error),
                };
                self.turned_down(by, act, &why).await;
                Err(why)
            }
        }
    }
}
