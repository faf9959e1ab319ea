//! Calls about people, their roles and their access tokens.

use fracas_model::{id::PersonId, units::Dur};
use fracas_proto::v1;
use serde::Serialize;

use super::{Client, ClientError};

/// A role in an environment; `*` is every one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleSummary {
    /// `viewer`, `designer`, `runner`, `operator`, `approver`, `signaller`, `admin`.
    pub role: String,
    /// Which environment.
    pub environment: String,
}

/// A person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PersonSummary {
    /// Pseudonym, as histories keep it.
    pub id: PersonId,
    /// Empty when it was erased.
    pub handle: String,
    /// Full name.
    pub name: String,
    /// Address.
    pub email: String,
    /// What they may.
    pub roles: Vec<RoleSummary>,
    /// They may do nothing any more.
    pub removed: bool,
    /// Of the caller: public part of the token that was shown.
    pub token: String,
    /// Of the caller: when that token ends, wall nanoseconds; 0: it does not.
    pub token_expires_wall_ns: i64,
}

/// An access token without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenSummary {
    /// Public part.
    pub id: String,
    /// Whose.
    pub person: PersonId,
    /// That one's handle.
    pub handle: String,
    /// What it is for.
    pub note: String,
    /// When it ends, wall nanoseconds.
    pub expires_wall_ns: i64,
    /// Why it is not good any more; empty: it is, until it ends.
    pub revoked: String,
}

/// A new person, as the caller describes one.
#[derive(Clone, Debug, Default)]
pub struct NewPerson {
    /// How they are called on the command line.
    pub handle: String,
    /// Full name.
    pub name: String,
    /// Address.
    pub email: String,
    /// Roles and their environments.
    pub roles: Vec<(String, String)>,
}

impl Client {
    /// Who the token stands for, and what that one may.
    pub async fn who_am_i(&self) -> Result<PersonSummary, ClientError> {
        let reply = self.calls.clone().who_am_i(v1::WhoAmIRequest {}).await.map_err(|e| self.error(&e))?;
        Ok(person(reply.into_inner()))
    }

    /// Everybody.
    pub async fn people(&self) -> Result<Vec<PersonSummary>, ClientError> {
        let reply = self.calls.clone().list_people(v1::ListPeopleRequest {}).await.map_err(|e| self.error(&e))?;
        Ok(reply.into_inner().people.into_iter().map(person).collect())
    }

    /// Makes somebody known.
    pub async fn add_person(&self, new: NewPerson) -> Result<PersonSummary, ClientError> {
        let grants = new.roles.into_iter().map(|(role, environment)| v1::RoleGrant { role, environment }).collect();
        let request = v1::AddPersonRequest { handle: new.handle, name: new.name, email: new.email, grants };
        let reply = self.calls.clone().add_person(request).await.map_err(|e| self.error(&e))?;
        Ok(person(reply.into_inner()))
    }

    /// Gives a role, or takes it away.
    pub async fn set_role(
        &self,
        name: &str,
        role: &str,
        environment: &str,
        take: bool,
    ) -> Result<PersonSummary, ClientError> {
        let grant = Some(v1::RoleGrant { role: role.to_owned(), environment: environment.to_owned() });
        let request = v1::SetRoleRequest { person: name.to_owned(), grant, take };
        let reply = self.calls.clone().set_role(request).await.map_err(|e| self.error(&e))?;
        Ok(person(reply.into_inner()))
    }

    /// Ends everything somebody may do; `erase` forgets names and address too.
    pub async fn remove_person(&self, name: &str, reason: &str, erase: bool) -> Result<PersonSummary, ClientError> {
        let request = v1::RemovePersonRequest { person: name.to_owned(), reason: reason.to_owned(), erase };
        let reply = self.calls.clone().remove_person(request).await.map_err(|e| self.error(&e))?;
        Ok(person(reply.into_inner()))
    }

    /// A new access token with its secret, its public part, and when it ends, wall nanoseconds.
    pub async fn make_access_token(
        &self,
        name: &str,
        ttl: Dur,
        note: &str,
    ) -> Result<(String, String, i64), ClientError> {
        let ttl_seconds = u32::try_from(ttl.ns() / 1_000_000_000).unwrap_or(u32::MAX);
        let request = v1::MakeAccessTokenRequest { person: name.to_owned(), ttl_seconds, note: note.to_owned() };
        let reply = self.calls.clone().make_access_token(request).await.map_err(|e| self.error(&e))?.into_inner();
        Ok((reply.token, reply.id, reply.expires_wall_ns))
    }

    /// One's own tokens; those of everybody for whoever governs everywhere.
    pub async fn access_tokens(&self) -> Result<Vec<TokenSummary>, ClientError> {
        let request = v1::ListAccessTokensRequest {};
        let reply = self.calls.clone().list_access_tokens(request).await.map_err(|e| self.error(&e))?;
        Ok(reply.into_inner().tokens.into_iter().map(token).collect())
    }

    /// The token opens nothing any more.
    pub async fn revoke_access_token(&self, id: &str, reason: &str) -> Result<(), ClientError> {
        let request = v1::RevokeAccessTokenRequest { id: id.to_owned(), reason: reason.to_owned() };
        self.calls.clone().revoke_access_token(request).await.map_err(|e| self.error(&e)).map(drop)
    }
}

fn person(person: v1::Person) -> PersonSummary {
    let roles = person.grants.into_iter();
    PersonSummary {
        id: PersonId::new(person.id),
        handle: person.handle,
        name: person.name,
        email: person.email,
        roles: roles.map(|grant| RoleSummary { role: grant.role, environment: grant.environment }).collect(),
        removed: person.removed,
        token: person.token,
        token_expires_wall_ns: person.token_expires_wall_ns,
    }
}

fn token(token: v1::AccessToken) -> TokenSummary {
    TokenSummary {
        id: token.id,
        person: PersonId::new(token.person),
        handle: token.handle,
        note: token.note,
        expires_wall_ns: token.expires_wall_ns,
        revoked: token.revoked,
    }
}
