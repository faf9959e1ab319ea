//! Channels on the wire.

use fracas_model::access::{self, Right};
use fracas_proto::v1::{ListNotificationsReply, NotificationChannel, NotificationOutcome, TestNotificationReply};
use tonic::{Response, Status};

use super::{Act, Api, Reply};
use crate::{
    access::Principal,
    notify::{Outcome, Standing, Trial},
};

impl Api {
    pub(super) async fn channels(&self, by: &Principal) -> Reply<ListNotificationsReply> {
        let act = Act { method: "ListNotifications", needs: &[], environment: access::EVERYWHERE, about: "" };
        self.sees(by, act).await?;
        let channels = self.notices.standings().into_iter().map(channel).collect();
        Ok(Response::new(ListNotificationsReply { channels }))
    }

    pub(super) async fn tried(&self, by: &Principal, channel: &str) -> Reply<TestNotificationReply> {
        let needs = &[Right::Govern];
        let act = Act { method: "TestNotification", needs, environment: access::EVERYWHERE, about: channel };
        self.may(by, act).await?;
        let id = uuid::Uuid::new_v4().to_string();
        let Trial { id, took, failed } =
            self.notices.test(channel, &id, &by.id).await.map_err(|e| Status::not_found(e.to_string()))?;
        let (took_ms, why) = (u32::try_from(took.as_millis()).unwrap_or(u32::MAX), failed.unwrap_or_default());
        Ok(Response::new(TestNotificationReply { id, took_ms, why }))
    }
}

fn channel(standing: Standing) -> NotificationChannel {
    let (failing_since_wall_ns, failing) = standing.failing.unwrap_or_default();
    NotificationChannel {
        name: standing.name,
        by: standing.by.to_owned(),
        on: standing.interest.on.iter().map(ToString::to_string).collect(),
        environments: standing.interest.environments,
        waiting: u32::try_from(standing.waiting).unwrap_or(u32::MAX),
        last: standing.last.map(outcome),
        failing_since_wall_ns,
        failing,
    }
}

fn outcome(outcome: Outcome) -> NotificationOutcome {
    NotificationOutcome {
        notice: outcome.notice,
        about: outcome.about.to_string(),
        gave_up: outcome.gave_up.unwrap_or_default(),
        attempts: outcome.attempts,
        wall_ns: outcome.at_ns,
    }
}
