//! `fracas people` and `fracas whoami`: who may do what, and the tokens that prove who one is.

use fracas_model::{access, units::Dur};
use serde_json::json;

use crate::{
    Session,
    args::{PeopleCommand, TokenCommand},
    client::{NewPerson, PersonSummary},
    error::CliError,
    exit,
    table::table,
    times,
};

pub(crate) async fn people(session: &Session<'_>, command: PeopleCommand) -> Result<u8, CliError> {
    let client = session.client()?;
    match command {
        PeopleCommand::List => list(session, &client.people().await?),
        PeopleCommand::Add { handle, name, email, roles } => {
            let new = NewPerson { handle, name, email, roles: roles.into_iter().map(placed).collect() };
            let added = client.add_person(new).await?;
            told(session, &added)?;
            session.output.notice(&format!("a token to sign in with: fracas people token make {}", added.handle));
            Ok(exit::PASS)
        }
        PeopleCommand::Grant { person, role } => {
            let (role, environment) = placed(role);
            told(session, &client.set_role(&person, &role, &environment, false).await?)
        }
        PeopleCommand::Revoke { person, role } => {
            let (role, environment) = placed(role);
            told(session, &client.set_role(&person, &role, &environment, true).await?)
        }
        PeopleCommand::Remove { person, reason, erase } => {
            told(session, &client.remove_person(&person, &reason, erase).await?)
        }
        PeopleCommand::Token { command } => token(session, command).await,
    }
}

pub(crate) async fn whoami(session: &Session<'_>) -> Result<u8, CliError> {
    let me = session.client()?.who_am_i().await?;
    told(session, &me)?;
    if !session.output.json && me.token_expires_wall_ns > 0 {
        let until = times::local_second(me.token_expires_wall_ns, session.output.zone);
        session.output.notice(&format!("the token {} is good until {until}", me.token));
    }
    Ok(exit::PASS)
}

async fn token(session: &Session<'_>, command: TokenCommand) -> Result<u8, CliError> {
    let client = session.client()?;
    match command {
        TokenCommand::Make { person, ttl, note } => made(session, &person, ttl, &note).await,
        TokenCommand::List => {
            let tokens = client.access_tokens().await?;
            if session.output.json {
                session.output.json("fracas.accessTokens/v1", &json!({ "tokens": tokens }))?;
                return Ok(exit::PASS);
            }
            let now = times::now();
            let row = |token: &crate::client::TokenSummary| {
                let until = times::local_second(token.expires_wall_ns, session.output.zone);
                let state = match token.revoked.as_str() {
                    "" if token.expires_wall_ns <= now => format!("expired {until}"),
                    "" => format!("good until {until}"),
                    why => format!("revoked: {why}"),
                };
                let whose = if token.handle.is_empty() { token.person.to_string() } else { token.handle.clone() };
                vec![token.id.clone(), whose, state, token.note.clone()]
            };
            let rows: Vec<Vec<String>> = tokens.iter().map(row).collect();
            session.output.text(&table(session.width(), &["token", "of", "state", "note"], &rows))?;
            Ok(exit::PASS)
        }
        TokenCommand::Revoke { id, reason } => {
            client.revoke_access_token(&id, &reason).await?;
            if session.output.json {
                session.output.json("fracas.accessTokenRevoked/v1", &json!({ "id": id, "reason": reason }))?;
            } else {
                session.output.notice(&format!("token {id} opens nothing any more"));
            }
            Ok(exit::PASS)
        }
    }
}

async fn made(session: &Session<'_>, person: &str, ttl: Dur, note: &str) -> Result<u8, CliError> {
    let (token, id, expires_wall_ns) = session.client()?.make_access_token(person, ttl, note).await?;
    if session.output.json {
        let answer = json!({ "token": token, "id": id, "expiresWallNs": expires_wall_ns });
        session.output.json("fracas.accessToken/v1", &answer)?;
    } else {
        let until = times::local_second(expires_wall_ns, session.output.zone);
        // The token alone on standard output, so that it can go into a file; never into an argument, which others see.
        session.output.line(&token)?;
        session.output.notice(&format!(
            "good for {person} until {until}; it is shown this once. There, with the CA certificate of this \
             controller:\n  fracas login --controller HOST:PORT --ca ca.pem --token-file FILE"
        ));
    }
    Ok(exit::PASS)
}

/// `ROLE` or `ROLE@ENVIRONMENT`.
fn placed(text: String) -> (String, String) {
    match text.split_once('@') {
        Some((role, environment)) => (role.to_owned(), environment.to_owned()),
        None => (text, access::DEFAULT_ENVIRONMENT.to_owned()),
    }
}

fn roles(person: &PersonSummary) -> String {
    let roles: Vec<String> = person.roles.iter().map(|one| format!("{}@{}", one.role, one.environment)).collect();
    roles.join(", ")
}

fn list(session: &Session<'_>, people: &[PersonSummary]) -> Result<u8, CliError> {
    if session.output.json {
        session.output.json("fracas.people/v1", &json!({ "people": people }))?;
    } else if people.is_empty() {
        session.output.notice("nobody yet beside the administrator; make somebody known: fracas people add HANDLE");
    } else {
        let row = |person: &PersonSummary| {
            let roles = if person.removed { "removed".to_owned() } else { roles(person) };
            vec![person.handle.clone(), person.id.to_string(), roles, person.name.clone(), person.email.clone()]
        };
        let rows: Vec<Vec<String>> = people.iter().map(row).collect();
        session.output.text(&table(session.width(), &["who", "pseudonym", "roles", "name", "address"], &rows))?;
    }
    Ok(exit::PASS)
}

fn told(session: &Session<'_>, person: &PersonSummary) -> Result<u8, CliError> {
    if session.output.json {
        session.output.json("fracas.person/v1", person)?;
        return Ok(exit::PASS);
    }
    let who =
        if person.handle.is_empty() { person.id.to_string() } else { format!("{} ({})", person.handle, person.id) };
    let may = match roles(person) {
        _ if person.removed => "removed".to_owned(),
        none if none.is_empty() => "no role yet: fracas people grant WHO ROLE@ENVIRONMENT".to_owned(),
        roles => roles,
    };
    session.output.line(&format!("{who}: {may}"))?;
    Ok(exit::PASS)
}
