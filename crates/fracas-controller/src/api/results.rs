//! What finished runs showed of services, on the wire: which runs, in which environments, and no more than a bounded number.

use fracas_model::{
    access::{self, Right},
    trend::Point,
};
use fracas_proto::{
    to_json,
    v1::{ListResultsReply, ListResultsRequest},
};
use tonic::{Response, Status};

use super::{Act, Api, Reply, status};
use crate::{access::Principal, store::RunIndex};

/// Runs told when no limit is given, and the most that are.
const TOLD: (u32, u32) = (100, 1000);
/// So many rows of the run index are looked through, the newest.
const LOOKED_THROUGH: usize = 20_000;
/// Of so many runs the reports are opened at most, if they hold no such service.
const OPENED: usize = 2000;

impl Api {
    pub(super) async fn listed_results(&self, by: &Principal, wire: &ListResultsRequest) -> Reply<ListResultsReply> {
        let place = if wire.environment.is_empty() { access::EVERYWHERE } else { &wire.environment };
        let needs: &[Right] = if wire.environment.is_empty() { &[] } else { &[Right::View] };
        let about = if wire.experiment.is_empty() { &wire.service } else { &wire.experiment };
        self.sees(by, Act { method: "ListResults", needs, environment: place, about }).await?;
        let rows = self.rows_for(by, &wire.environment).await?;
        let all_rows = rows.len();
        let limit = if wire.limit == 0 { TOLD.0 } else { wire.limit.min(TOLD.1) } as usize;
        let meant =
            |row: &RunIndex| row.state == "finished" && (wire.experiment.is_empty() || row.name == wire.experiment);
        let mut reply = ListResultsReply { more: all_rows == LOOKED_THROUGH, ..ListResultsReply::default() };
        let (mut told, mut opened) = (0, 0);
        for (row, head) in rows.iter().filter(|(row, _)| meant(row)) {
            if told == limit || opened == OPENED {
                reply.more = true;
                break;
            }
            opened += 1;
            match self.results.of(row, *head).await.map_err(|e| status(&e))? {
                Some(points) => {
                    let mine = points.iter().filter(|point| is_of(point, &wire.service));
                    let before = reply.points_json.len();
                    reply.points_json.extend(mine.map(to_json));
                    told += usize::from(reply.points_json.len() > before);
                }
                None => reply.unread.push(row.run.to_string()),
            }
        }
        Ok(Response::new(reply))
    }

    async fn rows_for(&self, by: &Principal, environment: &str) -> Result<Vec<(RunIndex, u64)>, Status> {
        if environment.is_empty() {
            return self.seen_runs(by, LOOKED_THROUGH).await;
        }
        let rows = self.history.store().runs_in(vec![environment.to_owned()], LOOKED_THROUGH).await;
        rows.map_err(|e| status(&e.into()))
    }
}

/// Whether a point is of this service: by its whole name, or by the name that its section's own document gives it.
fn is_of(point: &Point, service: &str) -> bool {
    let whole = point.service.as_str();
    service.is_empty() || whole == service || whole.split_once('.').is_some_and(|(_, own)| own == service)
}
