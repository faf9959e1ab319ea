//! `fracas schedule feed`: links by which calendar programs show what is due: made, listed, revoked.

use std::net::IpAddr;

use serde_json::json;

use crate::{
    Session,
    args::FeedArgs,
    client::{FeedSummary, MadeFeed},
    error::CliError,
    exit,
    table::table,
    times,
};

pub(super) async fn feed(session: &Session<'_>, given: FeedArgs) -> Result<u8, CliError> {
    if given.list {
        return list(session).await;
    }
    match given.revoke {
        Some(id) => revoke(session, &id, &given.reason.unwrap_or_default()).await,
        None => make(session, given).await,
    }
}

async fn make(session: &Session<'_>, given: FeedArgs) -> Result<u8, CliError> {
    let (access, client) = (session.access()?, session.client()?);
    let (environment, name) = (given.environment.unwrap_or_default(), given.name.unwrap_or_default());
    let made = client.make_feed(&environment, &name, given.ttl).await?;
    let address = address(&made, &access.address);
    let url = format!("https://{address}{}", made.path);
    let feed = &made.feed;
    if session.output.json {
        session.output.json("fracas.feed/v1", &json!({ "url": url, "feed": feed, "caFile": access.ca_source }))?;
        return Ok(exit::PASS);
    }
    // The link alone on standard output: it is a secret, and may go into a file.
    session.output.line(&url)?;
    let until = times::local_second(feed.expires_wall_ns, session.output.zone);
    let whence = match made.names.first() {
        Some(_) => "the first of the names that the controller was configured with",
        None => "the address at which this command reached the controller; with `--name` a controller has names",
    };
    let mut told = format!(
        "shows {} until {until} to whoever has it, without a token; it is for a calendar program (subscribe by URL)\n\
         end it with: fracas schedule feed --revoke {} --reason ...\n\
         {address} is {whence}\n\
         the calendar program must trust the controller's CA: {}",
        shown(feed),
        feed.id,
        access.ca_source
    );
    if local(&address) {
        told.push_str("\nonly this machine reaches that address: see `fracas controller --front-listen` and `--name`");
    }
    session.output.notice(&told);
    Ok(exit::PASS)
}

/// Where calendar programs find the controller.
fn address(made: &MadeFeed, dialled: &str) -> String {
    match made.names.first() {
        None => dialled.to_owned(),
        Some(name) if name.contains(':') && name.parse::<IpAddr>().is_ok() => format!("[{name}]:{}", made.port),
        Some(name) => format!("{name}:{}", made.port),
    }
}

/// Whether other machines cannot reach an address.
fn local(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn shown(feed: &FeedSummary) -> String {
    match feed.schedule.as_str() {
        "" => format!("the schedules of environment {}", feed.environment),
        name => format!("schedule {name} of environment {}", feed.environment),
    }
}

async fn list(session: &Session<'_>) -> Result<u8, CliError> {
    let all = session.client()?.feeds().await?;
    if session.output.json {
        session.output.json("fracas.feeds/v1", &json!({ "feeds": all }))?;
    } else if all.is_empty() {
        session.output.notice("no link is good: fracas schedule feed makes one");
    } else {
        let zone = session.output.zone;
        let row = |feed: &FeedSummary| {
            let state = match feed.revoked.as_str() {
                "" => format!("good until {}", times::local_second(feed.expires_wall_ns, zone)),
                reason => format!("revoked by {}: {reason}", feed.revoked_by),
            };
            vec![feed.id.clone(), shown(feed), feed.by.clone(), times::local_second(feed.made_wall_ns, zone), state]
        };
        let rows: Vec<Vec<String>> = all.iter().map(row).collect();
        session.output.text(&table(session.width(), &["link", "shows", "made by", "at", "state"], &rows))?;
    }
    Ok(exit::PASS)
}

async fn revoke(session: &Session<'_>, id: &str, reason: &str) -> Result<u8, CliError> {
    let feed = session.client()?.revoke_feed(id, reason).await?;
    if session.output.json {
        session.output.json("fracas.feed/v1", &json!({ "feed": feed }))?;
    } else {
        let text = format!("link {} is revoked by {}: {}", feed.id, feed.revoked_by, feed.revoked);
        session.output.line(&text)?;
    }
    Ok(exit::PASS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(names: &[&str]) -> MadeFeed {
        let feed = FeedSummary {
            id: "0a".into(),
            environment: "prod".into(),
            schedule: String::new(),
            by: "admin".into(),
            made_wall_ns: 0,
            expires_wall_ns: 1,
            revoked: String::new(),
            revoked_by: String::new(),
        };
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        MadeFeed { feed, path: "/schedules.ics?x".into(), names, port: 7766 }
    }

    #[test]
    fn the_address_is_the_first_name_or_the_one_that_was_dialled() {
        assert_eq!(address(&made(&["fracas.internal", "10.0.0.5"]), "10.0.0.5:1"), "fracas.internal:7766");
        assert_eq!(address(&made(&["2001:db8::1"]), "x:1"), "[2001:db8::1]:7766");
        assert_eq!(address(&made(&[]), "[::1]:7000"), "[::1]:7000");
        let near = ["localhost:1", "127.0.0.1:7766", "[::1]:7766"].map(local);
        assert_eq!((near, ["10.0.0.5:1", "fracas.internal:1", "[2001:db8::1]:1"].map(local)), ([true; 3], [false; 3]));
    }
}
