//! The audit stream for people: who did what, from whatever kind of record says so.

use fracas_model::{
    access,
    event::{Body, Event},
};
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Session, args::AuditListArgs, error::CliError, exit, table::table, times, words};

/// A record of the audit stream, also of a kind that a later controller writes.
#[derive(Deserialize)]
struct Line {
    seq: u64,
    received: Wall,
    body: Value,
}

#[derive(Deserialize)]
struct Wall {
    #[serde(rename = "wallNs")]
    wall_ns: i64,
}

/// What a record says in the terms of a list.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    by: String,
    method: String,
    about: String,
    refused: Option<String>,
}

pub(super) async fn list(session: &Session<'_>, given: &AuditListArgs) -> Result<u8, CliError> {
    let client = session.client()?;
    let since = given.since.map_or(i64::MIN, |since| since.wall_ns(times::now()));
    let mut rows = Vec::new();
    for one in client.streams("audit/").await? {
        let mut records = client.records(&one.stream, 0, false).await?;
        while let Some(record) = records.next().await {
            let (record, _) = record?;
            let Ok(line) = serde_json::from_slice::<Line>(&record.stored) else {
                session.output.notice(&format!("record {} of {} cannot be read", record.seq, one.stream));
                continue;
            };
            let event = serde_json::from_slice::<Event>(&record.stored).ok();
            let told = event.as_ref().map_or_else(|| strange(&line.body), |event| told(&event.body));
            if line.received.wall_ns < since || !wanted(given, &told) {
                continue;
            }
            if session.output.json {
                session.output.json("fracas.audit/v1", &object(&one.stream, &line, &told))?;
            } else {
                rows.push(row(&line, told, session.output.zone));
            }
        }
    }
    if session.output.json {
        return Ok(exit::PASS);
    }
    if rows.is_empty() {
        session.output.notice("nothing of that kind is in the audit stream");
    } else {
        session.output.text(&table(session.width(), &["when", "who", "did", "about", "refused"], &rows))?;
    }
    Ok(exit::PASS)
}

fn wanted(given: &AuditListArgs, told: &Told) -> bool {
    let by = given.by.as_ref().is_none_or(|by| *by == told.by);
    let method = given.method.as_ref().is_none_or(|method| method.eq_ignore_ascii_case(&told.method));
    by && method && (!given.refused || told.refused.is_some())
}

fn row(line: &Line, told: Told, zone: times::Zone) -> Vec<String> {
    let at = times::local_second(line.received.wall_ns, zone);
    vec![at, told.by, told.method, told.about, told.refused.unwrap_or_default()]
}

fn object(stream: &str, line: &Line, told: &Told) -> Value {
    let Told { by, method, about, refused } = told;
    json!({
        "stream": stream, "seq": line.seq, "atWallNs": line.received.wall_ns, "by": by, "method": method,
        "about": about, "refused": refused, "body": line.body,
    })
}

/// A kind that this build does not know: as much as can be guessed.
fn strange(body: &Value) -> Told {
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let refused = body.get("refused").and_then(Value::as_str).map(str::to_owned);
    Told { by: text("by"), method: text("kind"), about: text("reason"), refused }
}

fn told(body: &Body) -> Told {
    const CONTROLLER: &str = "controller";
    let told = |by: &str, method: &str, about: String| {
        let (by, method) = (by.to_owned(), method.to_owned());
        Told { by, method, about, refused: None }
    };
    match body {
        Body::Called { by, method, environment, about, refused, times, .. } => {
            let place = if matches!(environment.as_str(), "default" | "*") { "" } else { environment };
            let place = if place.is_empty() { String::new() } else { format!("in {place}") };
            let often = if *times > 1 { format!("{times} times") } else { String::new() };
            let parts = [about.as_str(), place.as_str(), often.as_str()];
            let about = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
            let by = if by.is_empty() { "(nobody)" } else { by };
            Told { refused: refused.clone(), ..told(by, method, about) }
        }
        Body::Access { fact, by, .. } => {
            let about = match fact {
                access::Fact::PersonAdded { person } => format!("{person} is known"),
                access::Fact::PersonRemoved { person, reason } => format!("{person} removed: {reason}"),
                access::Fact::Granted { person, grant } => {
                    format!("{person} is {} in {}", grant.role, grant.environment)
                }
                access::Fact::GrantTaken { person, grant } => {
                    format!("{person} is no longer {} in {}", grant.role, grant.environment)
                }
                access::Fact::GrantsSet { person, source, .. } => format!("roles of {person} as {source} says"),
                access::Fact::TokenMade { token, person, .. } => format!("token {token} for {person}"),
                access::Fact::TokenRevoked { token, reason } => format!("token {token} revoked: {reason}"),
            };
            told(by, "Access", about)
        }
        Body::GuardRailsSet { by, .. } => told(by, "SetGuardRails", String::new()),
        Body::Halted { by, reason, .. } => told(by, "Halt", reason.clone()),
        Body::HaltCleared { by, reason, .. } => told(by, "ClearHalt", reason.clone()),
        Body::TokenMade { token, by, labels, .. } => {
            let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let labels = if labels.is_empty() { String::new() } else { format!(" for {}", labels.join(",")) };
            told(by, "MakeJoinToken", format!("token {token}{labels}"))
        }
        Body::TokenUsed { token, host, .. } => told(host.as_str(), "Enrol", format!("joined with token {token}")),
        Body::ControllerStarted { version, epoch, .. } => {
            told(CONTROLLER, "Start", format!("version {version}, epoch {epoch}"))
        }
        Body::StreamClosed { stream, seq, .. } => told(CONTROLLER, "Close", format!("{stream} ends with record {seq}")),
        Body::Pruned { gone, by, reason, .. } => {
            told(by, "Prune", format!("{} removed: {reason}", words::count(gone.len(), "stream")))
        }
        Body::BackedUp { by, with_keys, .. } => {
            told(by, "Backup", if *with_keys { "with all keys" } else { "without keys" }.to_owned())
        }
        Body::Restored { made_wall_ns, .. } => {
            told(CONTROLLER, "Restore", format!("from a backup of {}", times::utc_second(*made_wall_ns)))
        }
        other => strange(&serde_json::to_value(other).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{args::Since, fixture::stamp};

    fn called(by: &str, method: &str, refused: Option<&str>) -> Body {
        let (by, method, environment) = (by.to_owned(), method.to_owned(), "staging".to_owned());
        let (about, refused) = (String::new(), refused.map(str::to_owned));
        Body::Called { by, method, environment, about, refused, times: 1, at: stamp(0) }
    }

    fn asked(by: Option<&str>, method: Option<&str>, refused: bool) -> AuditListArgs {
        AuditListArgs { since: None, by: by.map(str::to_owned), method: method.map(str::to_owned), refused }
    }

    #[test]
    fn whoever_did_something_can_be_asked_for_however_it_is_recorded() {
        let halted = Body::Halted { by: "ann".into(), reason: "incident".into(), at: stamp(0) };
        let all = [called("ann", "StartRun", None), called("bob", "StartRun", Some("not allowed")), halted];
        let told: Vec<Told> = all.iter().map(told).collect();
        let count = |given: AuditListArgs| told.iter().filter(|told| wanted(&given, told)).count();
        assert_eq!(count(asked(None, None, false)), 3);
        assert_eq!(count(asked(Some("ann"), None, false)), 2);
        assert_eq!(count(asked(None, Some("startrun"), false)), 2);
        assert_eq!(count(asked(Some("ann"), Some("Halt"), false)), 1);
        assert_eq!(count(asked(None, None, true)), 1);
        assert_eq!((told[0].about.as_str(), told[1].refused.as_deref()), ("in staging", Some("not allowed")));
        assert_eq!(Since::Ago(fracas_model::units::Dur::from_secs(5)).wall_ns(7_000_000_000), 2_000_000_000);
    }

    #[test]
    fn what_a_later_controller_writes_is_shown_by_its_kind() {
        let told = strange(&json!({ "kind": "keyRotated", "by": "ann", "reason": "yearly", "refused": null }));
        assert_eq!((told.by.as_str(), told.method.as_str(), told.about.as_str()), ("ann", "keyRotated", "yearly"));
        assert_eq!(strange(&json!([])).method, "");
    }
}
