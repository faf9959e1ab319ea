//! Calls about guard-rails.

use fracas_model::guard::GuardRails;
use fracas_proto::v1;
use serde::Serialize;

use super::{Client, ClientError};

/// The guard-rails that hold.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GuardRailsAnswer {
    /// They.
    pub rails: GuardRails,
    /// The text they were read from; empty: none were ever set.
    pub source: String,
    /// Who set them.
    pub by: String,
    /// When, wall nanoseconds.
    pub at_wall_ns: i64,
}

impl Client {
    /// The guard-rails that hold.
    pub async fn guard_rails(&self) -> Result<GuardRailsAnswer, ClientError> {
        let reply =
            self.calls.clone().get_guard_rails(v1::GetGuardRailsRequest {}).await.map_err(|e| self.error(&e))?;
        self.rails_of(reply.into_inner())
    }

    /// From now on these hold.
    pub async fn set_guard_rails(&self, source: String, source_name: String) -> Result<GuardRailsAnswer, ClientError> {
        let request = v1::SetGuardRailsRequest { source, source_name };
        let reply = self.calls.clone().set_guard_rails(request).await.map_err(|e| self.error(&e))?;
        self.rails_of(reply.into_inner())
    }

    fn rails_of(&self, told: v1::GuardRails) -> Result<GuardRailsAnswer, ClientError> {
        let rails = self.decode("the guard-rails", told.rails_json.as_bytes())?;
        Ok(GuardRailsAnswer { rails, source: told.source, by: told.by, at_wall_ns: told.at_wall_ns })
    }
}
