//! Calls about channels: whom the controller tells what happens.

use fracas_proto::v1;
use serde::Serialize;

use super::{Client, ClientError};

/// A channel and how it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChannelSummary {
    /// Its name.
    pub name: String,
    /// How it is reached: `webhook`, `slack`, `email`, `pagerduty`.
    pub by: String,
    /// What it is told.
    pub on: Vec<String>,
    /// Of which environments; none: of all.
    pub environments: Vec<String>,
    /// Notices that wait.
    pub waiting: u32,
    /// What became of the last one.
    pub last: Option<NoticeOutcome>,
    /// Since when no try succeeded, wall nanoseconds; 0: it works, as far as is known.
    pub failing_since_wall_ns: i64,
    /// Why the last try failed.
    pub failing: String,
}

/// What became of a notice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NoticeOutcome {
    /// Stream and number of the fact it tells.
    pub notice: String,
    /// Its kind.
    pub about: String,
    /// Why it was given up; empty: it was sent.
    pub gave_up: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When, wall nanoseconds.
    pub wall_ns: i64,
}

/// A channel that was tried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TriedChannel {
    /// Its name.
    pub channel: String,
    /// The id of the notice.
    pub id: String,
    /// How long it took, milliseconds.
    pub took_ms: u32,
    /// Why its receiver did not take it; empty: it did.
    pub why: String,
}

impl Client {
    /// All channels, by name.
    pub async fn channels(&self) -> Result<Vec<ChannelSummary>, ClientError> {
        let request = v1::ListNotificationsRequest {};
        let reply = self.calls.clone().list_notifications(request).await.map_err(|e| self.error(&e))?;
        Ok(reply.into_inner().channels.into_iter().map(channel).collect())
    }

    /// Sends a notice to one channel.
    pub async fn try_channel(&self, name: &str) -> Result<TriedChannel, ClientError> {
        let request = v1::TestNotificationRequest { channel: name.to_owned() };
        let reply = self.calls.clone().test_notification(request).await.map_err(|e| self.error(&e))?.into_inner();
        Ok(TriedChannel { channel: name.to_owned(), id: reply.id, took_ms: reply.took_ms, why: reply.why })
    }
}

fn channel(one: v1::NotificationChannel) -> ChannelSummary {
    let outcome = |o: v1::NotificationOutcome| NoticeOutcome {
        notice: o.notice,
        about: o.about,
        gave_up: o.gave_up,
        attempts: o.attempts,
        wall_ns: o.wall_ns,
    };
    ChannelSummary {
        name: one.name,
        by: one.by,
        on: one.on,
        environments: one.environments,
        waiting: one.waiting,
        last: one.last.map(outcome),
        failing_since_wall_ns: one.failing_since_wall_ns,
        failing: one.failing,
    }
}
