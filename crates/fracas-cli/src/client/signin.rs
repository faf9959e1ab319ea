//! Calls of somebody who has no token yet.

use std::time::Duration;

use fracas_proto::v1::{self, sign_in_client};
use tonic::{Status, transport::Channel};

use super::{ClientError, channel, explained};
use crate::context::Access;

/// A code for a person to type into a browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserCode {
    /// Names the sign-in.
    pub handle: String,
    /// What to type.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// The same with the code in it; may be empty.
    pub verification_uri_complete: String,
    /// How often to ask.
    pub interval: Duration,
    /// How long the code is good.
    pub expires_in: Duration,
}

/// A connection without a token.
#[derive(Clone)]
pub struct SignInClient {
    calls: sign_in_client::SignInClient<Channel>,
    address: String,
}

impl SignInClient {
    /// Makes ready; the token in `access` is not looked at.
    pub fn new(access: &Access) -> Result<Self, ClientError> {
        let calls = sign_in_client::SignInClient::new(channel(access)?);
        Ok(Self { calls, address: access.address.clone() })
    }

    fn error(&self, status: &Status) -> ClientError {
        explained(status, &self.address, "the sign-in")
    }

    /// A code; `None` where the controller knows no identity provider.
    pub async fn begin(&self) -> Result<Option<UserCode>, ClientError> {
        let reply = self.calls.clone().begin(v1::BeginSignInRequest {}).await.map_err(|e| self.error(&e))?.into_inner();
        let code = || UserCode {
            handle: reply.handle.clone(),
            user_code: reply.user_code.clone(),
            verification_uri: reply.verification_uri.clone(),
            verification_uri_complete: reply.verification_uri_complete.clone(),
            interval: Duration::from_millis(reply.interval_ms.into()),
            expires_in: Duration::from_secs(reply.expires_seconds.into()),
        };
        Ok(reply.available.then(code))
    }

    /// The token, or how long to wait before the next question.
    pub async fn finish(&self, handle: &str) -> Result<Result<String, Duration>, ClientError> {
        let request = v1::FinishSignInRequest { handle: handle.to_owned() };
        let reply = self.calls.clone().finish(request).await.map_err(|e| self.error(&e))?.into_inner();
        Ok(match reply.token.as_str() {
            "" => Err(Duration::from_millis(reply.wait_ms.into())),
            token => Ok(token.to_owned()),
        })
    }
}
