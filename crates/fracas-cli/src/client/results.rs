//! Calls about what finished runs showed of services.

use fracas_model::{id::RunId, trend::Point};
use fracas_proto::v1;

use super::{Client, ClientError};

/// Which results.
#[derive(Clone, Debug, Default)]
pub struct ResultsQuery {
    /// Of this experiment or game day; empty: of all.
    pub experiment: String,
    /// Of this service; empty: of all.
    pub service: String,
    /// Of this environment; empty: of all that may be seen.
    pub environment: String,
    /// Of so many runs, the newest.
    pub limit: u32,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Results {
    /// A point for each run and service, newest run first.
    pub points: Vec<Point>,
    /// Runs whose report is missing or cannot be read.
    pub unread: Vec<RunId>,
    /// Older runs were not looked at.
    pub more: bool,
}

impl Client {
    /// What finished runs showed.
    pub async fn results(&self, of: ResultsQuery) -> Result<Results, ClientError> {
        let ResultsQuery { experiment, service, environment, limit } = of;
        let request = v1::ListResultsRequest { experiment, service, environment, limit };
        let reply = self.calls.clone().list_results(request).await.map_err(|e| self.error(&e))?.into_inner();
        let points = reply.points_json.iter().map(|json| self.decode("a result", json.as_bytes()));
        Ok(Results {
            points: points.collect::<Result<_, _>>()?,
            unread: reply.unread.into_iter().map(RunId::new).collect(),
            more: reply.more,
        })
    }
}
