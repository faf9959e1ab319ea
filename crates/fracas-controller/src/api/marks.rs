//! Marks on the wire: who may tell when something happened in a run.

use fracas_model::{
    access::Right,
    mark::{Ago, LONGEST_AGO, Mark},
    time::Stamp,
    units::Dur,
};
use fracas_proto::v1::{MarkReply, MarkRequest};
use tonic::{Response, Status};

use super::{Act, Api, Reply, approvals::noted, status};
use crate::{
    access::Principal,
    runs::{AnswerError, marks::Told},
};

impl Api {
    /// Whoever may see a run may tell what happened: it is shown as their word, and judges nothing.
    ///
    /// What others did is told by those who may start runs: it names a person.
    pub(super) async fn marked(&self, by: &Principal, wire: MarkRequest) -> Reply<MarkReply> {
        let at = self.history.now();
        let row = match self.find(by, &wire.run).await {
            Ok((row, _)) => row,
            Err(why) => return Err(self.missing(by, "Mark", &wire.run, why).await),
        };
        let needs: &[Right] = if wire.did.is_empty() { &[Right::View] } else { &[Right::Run] };
        let act = Act { method: "Mark", needs, environment: &row.environment, about: row.run.as_str() };
        self.may(by, act.clone()).await?;
        let told = match self.told(by, &wire, at) {
            Ok(told) => told,
            Err(why) => {
                self.turned_down(by, act, &why).await;
                return Err(why);
            }
        };
        match self.runs.mark(&row.run, told).await {
            Ok(seq) => Ok(Response::new(MarkReply { run: row.run.to_string(), seq })),
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

    fn told(&self, by: &Principal, wire: &MarkRequest, at: Stamp) -> Result<Told, Status> {
        let mark: Mark = wire.mark.parse().map_err(Status::invalid_argument)?;
        let note = noted(&wire.note)?;
        let (least, most) = (wire.least_ago_ns, wire.most_ago_ns);
        if least < 0 || most < least || most > LONGEST_AGO.ns() {
            let why = format!("when it happened is not clear: at least 0s ago, at most {LONGEST_AGO} ago");
            return Err(Status::invalid_argument(why));
        }
        let ago = Ago { least: Dur::from_ns(least), most: Dur::from_ns(most) };
        let did = match wire.did.as_str() {
            "" => None,
            name => {
                let known = self.people.find(name).map_err(|error| {
                    let way_out = "add them with `fracas people add`, or leave --by out";
                    Status::invalid_argument(format!("{error}: only whom the controller knows is named; {way_out}"))
                })?;
                Some(known.id.to_string()).filter(|id| *id != by.id)
            }
        };
        let service = (!wire.service.is_empty()).then(|| wire.service.as_str().into());
        Ok(Told { mark, service, ago, at, by: by.id.clone(), did, note, retract: wire.retract })
    }
}
