//! Calls about links for calendar programs.

use fracas_model::units::Dur;
use fracas_proto::v1;
use serde::Serialize;

use super::{Client, ClientError};

/// A link as the controller has it, without what opens it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FeedSummary {
    /// Its id.
    pub id: String,
    /// Whose schedules it shows.
    pub environment: String,
    /// Only this one; empty: all of the environment.
    pub schedule: String,
    /// Who made it.
    pub by: String,
    /// When, wall nanoseconds.
    pub made_wall_ns: i64,
    /// Until when, wall nanoseconds.
    pub expires_wall_ns: i64,
    /// Why it was revoked; empty: it was not.
    pub revoked: String,
    /// By whom.
    pub revoked_by: String,
}

/// A link that was just made.
#[derive(Clone, Debug)]
pub struct MadeFeed {
    /// What the controller has of it.
    pub feed: FeedSummary,
    /// Path and query: a secret.
    pub path: String,
    /// Names under which the controller was told that it is reached.
    pub names: Vec<String>,
    /// Port of its front listener.
    pub port: u32,
}

impl Client {
    /// Makes a link to what is due in an environment, or by one schedule.
    pub async fn make_feed(&self, environment: &str, schedule: &str, ttl: Dur) -> Result<MadeFeed, ClientError> {
        let ttl_seconds = u32::try_from(ttl.ns() / 1_000_000_000).unwrap_or(u32::MAX);
        let (environment, schedule) = (environment.to_owned(), schedule.to_owned());
        let request = v1::MakeFeedRequest { environment, schedule, ttl_seconds };
        let reply = self.calls.clone().make_feed(request).await.map_err(|e| self.error(&e))?.into_inner();
        let feed = summary(reply.feed.unwrap_or_default());
        Ok(MadeFeed { feed, path: reply.path, names: reply.names, port: reply.port })
    }

    /// Links that have not expired, the newest last.
    pub async fn feeds(&self) -> Result<Vec<FeedSummary>, ClientError> {
        let reply = self.calls.clone().list_feeds(v1::ListFeedsRequest {}).await.map_err(|e| self.error(&e))?;
        Ok(reply.into_inner().feeds.into_iter().map(summary).collect())
    }

    /// Lets a link open nothing any more.
    pub async fn revoke_feed(&self, id: &str, reason: &str) -> Result<FeedSummary, ClientError> {
        let request = v1::RevokeFeedRequest { id: id.to_owned(), reason: reason.to_owned() };
        self.calls.clone().revoke_feed(request).await.map_err(|e| self.error(&e)).map(|r| summary(r.into_inner()))
    }
}

fn summary(feed: v1::Feed) -> FeedSummary {
    FeedSummary {
        id: feed.id,
        environment: feed.environment,
        schedule: feed.schedule,
        by: feed.by,
        made_wall_ns: feed.made_wall_ns,
        expires_wall_ns: feed.expires_wall_ns,
        revoked: feed.revoked,
        revoked_by: feed.revoked_by,
    }
}
