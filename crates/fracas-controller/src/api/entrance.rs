//! The way in for people without a token: the SignIn service. It knows nobody and records everybody.

use std::time::Duration;

use fracas_proto::v1::{BeginSignInReply, BeginSignInRequest, FinishSignInReply, FinishSignInRequest, sign_in_server};
use tonic::{Request, Response, Status};

use super::Reply;
use crate::{
    audit::{Audit, Call},
    listen::Peer,
    people::PeopleError,
    signin::{SignIn, SignInError, Stand},
};

/// The service.
#[derive(Clone, Debug)]
pub struct Entrance {
    sign_in: SignIn,
    audit: Audit,
}

impl Entrance {
    /// Over the sign-ins of a controller.
    pub fn new(sign_in: SignIn, audit: Audit) -> Self {
        Self { sign_in, audit }
    }
}

#[tonic::async_trait]
impl sign_in_server::SignIn for Entrance {
    async fn begin(&self, request: Request<BeginSignInRequest>) -> Reply<BeginSignInReply> {
        match self.sign_in.begin().await {
            Ok(begun) => Ok(Response::new(BeginSignInReply {
                available: true,
                handle: begun.handle,
                user_code: begun.user_code,
                verification_uri: begun.verification_uri,
                verification_uri_complete: begun.verification_uri_complete,
                interval_ms: ms(begun.interval),
                expires_seconds: u32::try_from(begun.expires_in.as_secs()).unwrap_or(u32::MAX),
            })),
            Err(SignInError::None) => Ok(Response::new(BeginSignInReply::default())),
            Err(error) => {
                self.audit.stranger("SignIn", &from(&request), &error.to_string());
                Err(refused(&error))
            }
        }
    }

    async fn finish(&self, request: Request<FinishSignInRequest>) -> Reply<FinishSignInReply> {
        let (from, peer) = (from(&request), request.extensions().get::<Peer>().cloned());
        // What was agreed to in the browser is carried through, whoever waits for it.
        let (sign_in, handle) = (self.sign_in.clone(), request.into_inner().handle);
        let stand = crate::runs::whole(async move { sign_in.finish(&handle).await }).await;
        match stand {
            Ok(Stand::Waiting(wait)) => {
                Ok(Response::new(FinishSignInReply { wait_ms: ms(wait), ..FinishSignInReply::default() }))
            }
            Ok(Stand::Done { who, token, expires_ns }) => {
                let call = Call { by: who.id.to_string(), method: "SignIn".to_owned(), about: from, ..Call::default() };
                self.audit.looked(call).await;
                if let Some(peer) = peer {
                    peer.pass.prove();
                }
                Ok(Response::new(FinishSignInReply { token, wait_ms: 0, expires_wall_ns: expires_ns }))
            }
            Err(error) => {
                self.audit.stranger("SignIn", &from, &error.to_string());
                Err(refused(&error))
            }
        }
    }
}

fn from<T>(request: &Request<T>) -> String {
    let peer = request.extensions().get::<Peer>().and_then(|peer| peer.address);
    peer.map(|address| address.ip().to_string()).unwrap_or_default()
}

fn ms(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

fn refused(error: &SignInError) -> Status {
    let text = error.to_string();
    match error {
        SignInError::None => Status::failed_precondition(text),
        SignInError::TooMany => Status::resource_exhausted(text),
        SignInError::Over => Status::not_found(text),
        SignInError::Denied(_) | SignInError::NoRole => Status::permission_denied(text),
        SignInError::People(PeopleError::History(error)) => super::status(error),
        // Not for trying again by itself: the person is told what helps.
        SignInError::Provider(_) | SignInError::People(_) => Status::internal(text),
    }
}
