//! Links for calendar programs on the wire.

use fracas_model::access::Right;
use fracas_proto::v1::{Feed, ListFeedsReply, MakeFeedReply, MakeFeedRequest};
use tonic::{Response, Status};

use super::{Api, Reply, schedules, status};
use crate::{
    access::Principal,
    feeds::{FEED_SECONDS, FeedError, Made},
};

impl Api {
    pub(super) async fn linked(
        &self,
        environment: String,
        wire: MakeFeedRequest,
        by: Principal,
    ) -> Reply<MakeFeedReply> {
        let ttl = match wire.ttl_seconds {
            0 => FEED_SECONDS.0,
            asked => asked.min(FEED_SECONDS.1),
        };
        let (made, path) = self.feeds.make(environment, wire.schedule, ttl, by.id).await.map_err(refused)?;
        let reached = self.feeds.reached();
        let (names, port) = (reached.names.clone(), reached.port.into());
        Ok(Response::new(MakeFeedReply { feed: Some(view(made)), path, names, port }))
    }

    /// Those of environments that the caller may see.
    pub(super) fn links(&self, by: &Principal) -> ListFeedsReply {
        let seen = |made: &Made| by.grants.allow(Right::View, &made.environment);
        ListFeedsReply { feeds: self.feeds.all().into_iter().filter(seen).map(view).collect() }
    }

    pub(super) async fn unlinked(&self, id: &str, reason: String, by: Principal) -> Reply<Feed> {
        let made = self.feeds.revoke(id, reason, by.id).await.map_err(refused)?;
        Ok(Response::new(view(made)))
    }
}

fn view(made: Made) -> Feed {
    let (revoked, revoked_by) = made.revoked.unwrap_or_default();
    Feed {
        id: made.id,
        environment: made.environment,
        schedule: made.schedule,
        by: made.by,
        made_wall_ns: made.made_ns,
        expires_wall_ns: made.expires_ns,
        revoked,
        revoked_by,
    }
}

fn refused(error: FeedError) -> Status {
    let text = error.to_string();
    match error {
        FeedError::Unknown(_) => Status::not_found(text),
        FeedError::TooLong | FeedError::Elsewhere { .. } => Status::invalid_argument(text),
        FeedError::Schedule(error) => schedules::refused(error),
        FeedError::History(error) => status(&error),
    }
}
