//! Who calls the front listener: a bearer token becomes a [`Principal`], or the call ends here.

use std::sync::Arc;

use fracas_model::access::{ADMIN, Grants, NotGood};
use tonic::{Request, Status, service::Interceptor};

use crate::{audit::Audit, identity::Identity, listen::Peer, people::People};

/// Who calls, with what they may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Pseudonymous id, as histories keep it.
    pub id: String,
    /// What they may.
    pub grants: Grants,
    /// Public part of the token; `None`: the administrator's.
    pub token: Option<String>,
}

impl Principal {
    /// Whoever holds the administrator's token.
    pub fn admin() -> Self {
        Self { id: ADMIN.to_owned(), grants: Grants::all(), token: None }
    }
}

/// Knows the administrator, who is there before there are people.
pub trait Doorkeeper: Send + Sync {
    /// Whether this is the administrator's token.
    fn is_admin(&self, token: &str) -> bool;
}

impl Doorkeeper for Identity {
    fn is_admin(&self, token: &str) -> bool {
        Identity::is_admin(self, token)
    }
}

/// Lets only calls with a good token through, with the principal as an extension of the request.
#[derive(Clone)]
pub struct Authenticated {
    /// Knows the administrator.
    pub doors: Arc<dyn Doorkeeper>,
    /// Know everybody else.
    pub people: People,
    /// Where those are recorded who are not let through.
    pub audit: Audit,
}

impl Authenticated {
    fn whose(&self, token: &str) -> Result<Principal, NotGood> {
        if self.doors.is_admin(token) {
            return Ok(Principal::admin());
        }
        self.people.whose(token)
    }
}

impl Interceptor for Authenticated {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
        let refuse = |why: &str, status: Status| {
            let from = peer.address.map(|address| address.ip().to_string()).unwrap_or_default();
            self.audit.stranger("(sign-in)", &from, why);
            Err(status)
        };
        let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let token = header.and_then(|h| h.strip_prefix("Bearer ").or_else(|| h.strip_prefix("bearer ")));
        let Some(token) = token else {
            let said = "no token came with the call: send `authorization: Bearer TOKEN`";
            return refuse("no token", Status::unauthenticated(said));
        };
        let principal = match self.whose(token.trim()) {
            Ok(principal) => principal,
            // The bearer of a bad token is not told why it is bad; the record is.
            Err(why) => {
                let said = "the token is not good here (unknown, expired or revoked): is it the one of this \
                            controller? have a new one made";
                return refuse(&why.to_string(), Status::unauthenticated(said));
            }
        };
        if !peer.pass.prove() {
            return Err(Status::resource_exhausted("the controller has no place for another connection now"));
        }
        request.extensions_mut().insert(principal);
        Ok(request)
    }
}
