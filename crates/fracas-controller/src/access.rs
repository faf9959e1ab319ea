//! Who calls the front listener: a bearer token becomes a [`Principal`], or the call ends here. It grants no rights yet.

use std::sync::Arc;

use tonic::{Request, Status, service::Interceptor};

use crate::{identity::Identity, listen::Peer};

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Pseudonymous id, as histories keep it.
    pub id: String,
}

/// Turns tokens into principals.
pub trait Doorkeeper: Send + Sync {
    /// Whose token this is.
    fn whose(&self, token: &str) -> Option<Principal>;
}

impl Doorkeeper for Identity {
    fn whose(&self, token: &str) -> Option<Principal> {
        self.is_admin(token).then(|| Principal { id: "admin".to_owned() })
    }
}

/// Lets only calls with a good token through, with the principal as an extension of the request.
#[derive(Clone)]
pub struct Authenticated(pub Arc<dyn Doorkeeper>);

impl Interceptor for Authenticated {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let token = header.and_then(|h| h.strip_prefix("Bearer ").or_else(|| h.strip_prefix("bearer ")));
        let Some(token) = token else {
            return Err(Status::unauthenticated("no token came with the call: send `authorization: Bearer TOKEN`"));
        };
        let Some(principal) = self.0.whose(token.trim()) else {
            return Err(Status::unauthenticated("the token is not known here: is it the one of this controller?"));
        };
        if request.extensions().get::<Peer>().is_some_and(|peer| !peer.pass.prove()) {
            return Err(Status::resource_exhausted("the controller has no place for another connection now"));
        }
        request.extensions_mut().insert(principal);
        Ok(request)
    }
}
