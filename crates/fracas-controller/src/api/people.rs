//! People, their roles and access tokens on the wire.

use std::collections::BTreeSet;

use fracas_model::access::{self, Grant, Grants, Right, Role};
use fracas_proto::v1::{
    AccessToken, AddPersonRequest, ListAccessTokensReply, ListPeopleReply, MakeAccessTokenReply,
    MakeAccessTokenRequest, Person, RemovePersonRequest, RevokeAccessTokenReply, RevokeAccessTokenRequest, RoleGrant,
    SetRoleRequest,
};
use tonic::{Response, Status};

use super::{Act, Api, Reply, reasoned, status};
use crate::{
    access::Principal,
    people::{self, Entry, Known, PeopleError},
};

/// Life of an access token when none is asked for, and the longest, seconds.
const TOKEN_SECONDS: (u32, u32) = (90 * 86_400, 400 * 86_400);
/// Longest note, characters.
const NOTE: usize = 100;

impl Api {
    pub(super) async fn myself(&self, by: &Principal) -> Reply<Person> {
        let act = Act { method: "WhoAmI", needs: &[], environment: access::EVERYWHERE, about: "" };
        self.sees(by, act).await?;
        let known = self.people.find(&by.id).unwrap_or_else(|_| Known {
            id: by.id.as_str().into(),
            entry: Entry { handle: by.id.clone(), ..Entry::default() },
            grants: by.grants.clone(),
            removed: false,
        });
        let token = by.token.clone().unwrap_or_default();
        let tokens = self.people.tokens();
        let expires = tokens.iter().find(|(id, _)| *id == token).map_or(0, |(_, token)| token.expires_ns);
        Ok(Response::new(Person { token, token_expires_wall_ns: expires, ..person(known) }))
    }

    /// Whoever may govern somewhere sees everybody, to give roles there.
    pub(super) async fn listed_people(&self, by: &Principal) -> Reply<ListPeopleReply> {
        self.governs(by, "ListPeople").await?;
        Ok(Response::new(ListPeopleReply { people: self.people.all().into_iter().map(person).collect() }))
    }

    pub(super) async fn added(&self, by: &Principal, wire: AddPersonRequest) -> Reply<Person> {
        self.governs(by, "AddPerson").await?;
        let grants: Result<BTreeSet<Grant>, Status> = wire.grants.iter().map(granted).collect();
        let grants = Grants(grants?);
        for grant in &grants.0 {
            self.gives(by, "AddPerson", grant, "somebody new").await?;
        }
        let entry = Entry { handle: wire.handle, name: wire.name, email: wire.email, ..Entry::default() };
        let entry = entry.checked().map_err(Status::invalid_argument)?;
        let known = self.people.add(entry, grants, &by.id).await.map_err(refused)?;
        Ok(Response::new(person(known)))
    }

    pub(super) async fn role_set(&self, by: &Principal, wire: SetRoleRequest) -> Reply<Person> {
        let grant = granted(&wire.grant.unwrap_or_default())?;
        self.gives(by, "SetRole", &grant, &self.pseudonym(&wire.person)).await?;
        let known = self.people.grant(&wire.person, grant, !wire.take, &by.id).await.map_err(refused)?;
        Ok(Response::new(person(known)))
    }

    pub(super) async fn person_removed(&self, by: &Principal, wire: RemovePersonRequest) -> Reply<Person> {
        self.rules(by, "RemovePerson", &self.pseudonym(&wire.person)).await?;
        let reason = reasoned(wire.reason)?;
        let known = self.people.remove(&wire.person, &reason, wire.erase, &by.id).await.map_err(refused)?;
        Ok(Response::new(person(known)))
    }

    /// Only for those who govern everywhere: a token speaks for its owner, whatever that one may.
    pub(super) async fn token_made(&self, by: &Principal, wire: MakeAccessTokenRequest) -> Reply<MakeAccessTokenReply> {
        self.rules(by, "MakeAccessToken", &self.pseudonym(&wire.person)).await?;
        let note = wire.note;
        if note.chars().count() > NOTE || note.chars().any(char::is_control) {
            return Err(Status::invalid_argument(format!("a note has at most {NOTE} characters on one line")));
        }
        let ttl = match wire.ttl_seconds {
            0 => TOKEN_SECONDS.0,
            asked => asked.min(TOKEN_SECONDS.1),
        };
        let expires_ns = self.history.now().wall_ns.saturating_add(i64::from(ttl) * 1_000_000_000);
        let owner = self.people.find(&wire.person).map_err(refused)?.id;
        let made = self.people.make_token(&owner, expires_ns, &note, &by.id).await.map_err(refused)?;
        Ok(Response::new(MakeAccessTokenReply { token: made.text, id: made.id, expires_wall_ns: expires_ns }))
    }

    /// One's own; those of everybody for whoever governs everywhere.
    pub(super) async fn listed_tokens(&self, by: &Principal) -> Reply<ListAccessTokensReply> {
        let act = Act { method: "ListAccessTokens", needs: &[], environment: access::EVERYWHERE, about: "" };
        self.sees(by, act).await?;
        let all = by.grants.allow_everywhere(Right::Govern);
        let tokens = self.people.tokens().into_iter().filter(|(_, token)| all || token.person.as_str() == by.id);
        let tokens = tokens.map(|(id, token)| AccessToken {
            id,
            handle: self.people.find(token.person.as_str()).map(|known| known.entry.handle).unwrap_or_default(),
            person: token.person.to_string(),
            note: token.note,
            expires_wall_ns: token.expires_ns,
            revoked: token.revoked.unwrap_or_default(),
        });
        Ok(Response::new(ListAccessTokensReply { tokens: tokens.collect() }))
    }

    /// One's own, or any for whoever governs everywhere.
    pub(super) async fn token_revoked(
        &self,
        by: &Principal,
        wire: RevokeAccessTokenRequest,
    ) -> Reply<RevokeAccessTokenReply> {
        // Whoever finds a token has the whole of it; its secret part belongs in no record.
        let id = people::public_part(&wire.id);
        let own = self.people.tokens().iter().any(|(known, token)| known == id && token.person.as_str() == by.id);
        if own {
            let act = Act { method: "RevokeAccessToken", needs: &[], environment: access::EVERYWHERE, about: id };
            self.may(by, act).await?;
        } else {
            self.rules(by, "RevokeAccessToken", id).await?;
        }
        let reason = reasoned(wire.reason)?;
        self.people.revoke(id, &reason, &by.id).await.map_err(refused)?;
        Ok(Response::new(RevokeAccessTokenReply {}))
    }

    /// Histories name nobody: what was typed may be a name.
    fn pseudonym(&self, name: &str) -> String {
        self.people.find(name).map_or_else(|_| "nobody".to_owned(), |known| known.id.to_string())
    }

    /// Whether the caller may govern in some environment.
    async fn governs(&self, by: &Principal, method: &'static str) -> Result<(), Status> {
        let places = by.grants.0.iter().filter(|grant| grant.role.rights().contains(&Right::Govern));
        let place = places.map(|grant| grant.environment.clone()).next().unwrap_or(access::EVERYWHERE.to_owned());
        self.may(by, Act { method, needs: &[Right::Govern], environment: &place, about: "" }).await
    }

    /// Whether the caller may govern everywhere.
    pub(super) async fn rules(&self, by: &Principal, method: &'static str, about: &str) -> Result<(), Status> {
        self.may(by, Act { method, needs: &[Right::Govern], environment: access::EVERYWHERE, about }).await
    }

    /// Whether the caller may give or take this role: nobody gives what one could not do oneself.
    async fn gives(&self, by: &Principal, method: &'static str, grant: &Grant, to: &str) -> Result<(), Status> {
        let about = format!("{to}: {} in {}", grant.role, grant.environment);
        let act = Act { method, needs: &[Right::Govern], environment: &grant.environment, about: &about };
        self.may(by, act).await
    }
}

fn granted(wire: &RoleGrant) -> Result<Grant, Status> {
    let role: Role = wire.role.parse().map_err(Status::invalid_argument)?;
    let environment = match wire.environment.as_str() {
        access::EVERYWHERE => access::EVERYWHERE.to_owned(),
        named => super::environment(named)?,
    };
    Ok(Grant { environment, role })
}

fn person(known: Known) -> Person {
    let grants = known.grants.0.iter();
    Person {
        id: known.id.to_string(),
        handle: known.entry.handle,
        name: known.entry.name,
        email: known.entry.email,
        grants: grants
            .map(|grant| RoleGrant { role: grant.role.word().to_owned(), environment: grant.environment.clone() })
            .collect(),
        removed: known.removed,
        token: String::new(),
        token_expires_wall_ns: 0,
    }
}

fn refused(error: PeopleError) -> Status {
    let text = error.to_string();
    match error {
        PeopleError::Unknown(_) | PeopleError::NoToken(_) => Status::not_found(text),
        PeopleError::Known(_) | PeopleError::SubjectKnown => Status::already_exists(text),
        PeopleError::TooMany => Status::resource_exhausted(text),
        PeopleError::Directory(_) => Status::unavailable(text),
        PeopleError::History(error) => status(&error),
    }
}
