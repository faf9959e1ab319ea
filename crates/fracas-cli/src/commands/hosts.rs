//! `fracas hosts`: the fleet as a table, labels, tokens for new hosts, and the end of old ones.

use std::collections::BTreeMap;

use fracas_model::units::Dur;
use serde_json::json;

use crate::{
    Session,
    args::{HostsArgs, HostsCommand, LabelChange},
    client::HostSummary,
    error::CliError,
    exit,
    table::table,
    times,
};

pub(crate) async fn hosts(session: &Session<'_>, given: HostsArgs) -> Result<u8, CliError> {
    match given.command {
        None => list(session, &given.selector).await,
        Some(HostsCommand::Label { host, changes }) => label(session, &host, changes).await,
        Some(HostsCommand::Forget { host, reason }) => forget(session, &host, &reason).await,
        Some(HostsCommand::WriteOff { host, reason }) => write_off(session, &host, &reason).await,
        Some(HostsCommand::Revoke { host, reason }) => revoke(session, &host, &reason).await,
        Some(HostsCommand::Trust { host, reason }) => trust(session, &host, &reason).await,
        Some(HostsCommand::JoinToken { ttl, labels, environment }) => {
            join_token(session, ttl, labels, &environment).await
        }
        Some(HostsCommand::Move { host, to }) => moved(session, &host, &to).await,
        Some(HostsCommand::Cordon { host, reason }) => cordon(session, &host, &reason, false).await,
        Some(HostsCommand::Drain { host, reason }) => cordon(session, &host, &reason, true).await,
        Some(HostsCommand::Uncordon { host }) => uncordon(session, &host).await,
    }
}

async fn list(session: &Session<'_>, selector: &str) -> Result<u8, CliError> {
    let mut hosts = session.client()?.hosts(selector).await?;
    hosts.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    if session.output.json {
        session.output.json("fracas.hosts/v1", &json!({ "hosts": hosts }))?;
    } else if hosts.is_empty() && selector.is_empty() {
        session.output.notice("no host yet; let one join: fracas hosts join-token");
    } else if hosts.is_empty() {
        session.output.notice(&format!("no host matches {selector}; all hosts: fracas hosts"));
    } else {
        let now = times::now();
        let rows: Vec<Vec<String>> = hosts.iter().map(|host| row(host, now)).collect();
        session.output.text(&table(
            session.width(),
            &["host", "id", "where", "state", "labels", "faults", "cannot"],
            &rows,
        ))?;
    }
    Ok(exit::PASS)
}

fn row(host: &HostSummary, now: i64) -> Vec<String> {
    let state = match (host.connected, host.last_seen_wall_ns) {
        _ if !host.revoked.is_empty() => format!("REVOKED: {}", host.revoked),
        _ if !host.duplicate.is_empty() => format!("DUPLICATE: {}", host.duplicate),
        _ if !host.quarantined.is_empty() => format!("QUARANTINED: {}", host.quarantined),
        _ if !host.cordoned.is_empty() => format!("cordoned: {}", host.cordoned),
        (true, _) if host.observer => "connected, observer".to_owned(),
        (true, _) => "connected".to_owned(),
        (false, 0) => "never seen".to_owned(),
        (false, seen) => format!("out of contact for {}", times::running(Dur::from_ns(now - seen))),
    };
    let state = if host.certificate_low && host.revoked.is_empty() {
        let left = Dur::from_secs(host.certificate_until_s.saturating_sub(now.div_euclid(1_000_000_000)).max(0));
        format!("{state}; CERTIFICATE ENDS in {}, and its agent does not renew it", times::running(left))
    } else {
        state
    };
    let runs: Vec<String> = host.runs.iter().map(|run| format!("run {run}")).collect();
    // Facts are labels too, but would drown those that people gave.
    let labels: Vec<String> = host
        .labels
        .iter()
        .filter(|(name, _)| !name.starts_with("fact/") && !name.starts_with("fracas/"))
        .map(|(n, v)| format!("{n}={v}"))
        .collect();
    let lacking = host.facts.iter().flat_map(|f| &f.abilities).filter(|(_, ability)| !ability.works);
    let lacking: Vec<String> = lacking.map(|(capability, _)| capability.word()).collect();
    let id = host.id.as_str().split('-').next().unwrap_or_default().to_owned();
    vec![host.name.clone(), id, host.environment.clone(), state, labels.join(","), runs.join(", "), lacking.join(", ")]
}

async fn label(session: &Session<'_>, host: &str, changes: Vec<LabelChange>) -> Result<u8, CliError> {
    let (mut set, mut remove) = (BTreeMap::new(), Vec::new());
    for change in changes {
        match change {
            LabelChange::Set(name, value) => drop(set.insert(name, value)),
            LabelChange::Remove(name) => remove.push(name),
        }
    }
    let host = session.client()?.label_host(host, set, remove).await?;
    if session.output.json {
        session.output.json("fracas.host/v1", &host)?;
    } else {
        let labels: Vec<String> = host.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        session.output.line(&format!("{}: {}", host.name, labels.join(",")))?;
    }
    Ok(exit::PASS)
}

async fn forget(session: &Session<'_>, host: &str, reason: &str) -> Result<u8, CliError> {
    let (id, name) = session.client()?.forget_host(host, reason).await?;
    if session.output.json {
        session.output.json("fracas.forgotten/v1", &json!({ "id": id, "name": name, "reason": reason }))?;
    } else {
        session.output.notice(&format!("host {name} is forgotten; to come back it needs a new join token"));
    }
    Ok(exit::PASS)
}

async fn write_off(session: &Session<'_>, host: &str, reason: &str) -> Result<u8, CliError> {
    let host = session.client()?.write_off_host(host, reason).await?;
    if session.output.json {
        session.output.json("fracas.host/v1", &host)?;
    } else {
        session.output.notice(&format!("host {} is not quarantined any more: it may be drawn again", host.name));
    }
    Ok(exit::PASS)
}

async fn revoke(session: &Session<'_>, host: &str, reason: &str) -> Result<u8, CliError> {
    let host = session.client()?.revoke_host(host, reason).await?;
    if session.output.json {
        session.output.json("fracas.host/v1", &host)?;
    } else {
        session.output.notice(&format!(
            "host {} is revoked; what is on it ends with its lease. To come back it needs a new join token; it is listed \
             until fracas hosts forget",
            host.name
        ));
    }
    Ok(exit::PASS)
}

async fn trust(session: &Session<'_>, host: &str, reason: &str) -> Result<u8, CliError> {
    let host = session.client()?.trust_host(host, reason).await?;
    if session.output.json {
        session.output.json("fracas.host/v1", &host)?;
    } else {
        session.output.notice(&format!("host {} may be drawn again", host.name));
    }
    Ok(exit::PASS)
}

async fn moved(session: &Session<'_>, host: &str, to: &str) -> Result<u8, CliError> {
    let host = session.client()?.move_host(host, to).await?;
    if session.output.json {
        session.output.json("fracas.host/v1", &host)?;
    } else {
        session.output.line(&format!("{} belongs to environment {}", host.name, host.environment))?;
    }
    Ok(exit::PASS)
}

async fn cordon(session: &Session<'_>, host: &str, reason: &str, drain: bool) -> Result<u8, CliError> {
    let (host, runs) = session.client()?.cordon_host(host, reason, drain).await?;
    if session.output.json {
        session.output.json("fracas.cordoned/v1", &json!({ "host": host, "runs": runs }))?;
        return Ok(exit::PASS);
    }
    session.output.line(&format!("{} is cordoned: {}", host.name, host.cordoned))?;
    for run in &runs {
        session.output.line(&format!("run {run} ends; watch its undo: fracas watch {run}"))?;
    }
    if !drain && !host.runs.is_empty() {
        session.output.notice("runs that have it go on; end them too: fracas hosts drain");
    }
    Ok(exit::PASS)
}

async fn uncordon(session: &Session<'_>, host: &str) -> Result<u8, CliError> {
    let host = session.client()?.uncordon_host(host).await?;
    if session.output.json {
        session.output.json("fracas.host/v1", &host)?;
    } else {
        session.output.line(&format!("{} may be drawn again", host.name))?;
    }
    Ok(exit::PASS)
}

async fn join_token(
    session: &Session<'_>,
    ttl: Dur,
    labels: Vec<(String, String)>,
    environment: &str,
) -> Result<u8, CliError> {
    let client = session.client()?;
    let (token, expires_wall_ns) = client.join_token(ttl, labels.into_iter().collect(), environment).await?;
    if session.output.json {
        let answer = json!({ "token": token, "expiresWallNs": expires_wall_ns });
        session.output.json("fracas.joinToken/v1", &answer)?;
    } else {
        let until = times::local_second(expires_wall_ns, session.output.zone);
        // The token alone on standard output, so that it can go into a file; never into an argument, which others see.
        session.output.line(&token)?;
        session.output.notice(&format!(
            "good for one host until {until}; put it into a file there, then, as root:\n  \
             fracas-agent --controller HOST:PORT --join-token-file FILE\nHOST:PORT is the controller's fleet address"
        ));
    }
    Ok(exit::PASS)
}

#[cfg(test)]
mod tests {
    use fracas_model::{
        catalogue::Capability,
        facts::{Ability, HostFacts},
    };

    use super::*;

    #[test]
    fn a_host_in_a_row() {
        let ability = Ability { works: false, why: "no module".into(), fix: "modprobe".into() };
        let facts = HostFacts { abilities: [(Capability::Netem, ability)].into(), ..HostFacts::default() };
        let labels = [("role".to_owned(), "db".to_owned()), ("fact/arch".to_owned(), "x86_64".to_owned())];
        let mut host = HostSummary {
            id: "0b1c2d3e-aaaa-bbbb-cccc-000000000000".into(),
            name: "db-1".into(),
            connected: false,
            labels: labels.into(),
            facts: Some(facts),
            last_seen_wall_ns: 1_000_000_000,
            runs: vec!["r1".into()],
            quarantined: String::new(),
            observer: false,
            environment: "default".into(),
            cordoned: String::new(),
            revoked: String::new(),
            duplicate: String::new(),
            address: String::new(),
            certificate_until_s: 121,
            certificate_low: false,
        };
        let now = 91_000_000_000;
        assert_eq!(
            row(&host, now),
            ["db-1", "0b1c2d3e", "default", "out of contact for 1m30s", "role=db", "run r1", "netem"]
        );
        host.quarantined = "run r0 left its undo open".into();
        assert_eq!(row(&host, now)[3], "QUARANTINED: run r0 left its undo open");
        host.duplicate = "two agents use its certificate, one at 10.0.0.1:5 and one at 10.0.0.2:5".into();
        assert!(row(&host, now)[3].starts_with("DUPLICATE: two agents"), "{}", row(&host, now)[3]);
        host.certificate_low = true;
        assert!(row(&host, now)[3].contains("CERTIFICATE ENDS in 30s"), "{}", row(&host, now)[3]);
        host.revoked = "by admin, stolen".into();
        assert_eq!(row(&host, now)[3], "REVOKED: by admin, stolen");
    }
}
