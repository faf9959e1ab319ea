//! `fracas notify`: whom the controller tells what happens, how that goes, and whether a channel works.

use serde_json::json;

use crate::{
    Session,
    args::NotifyCommand,
    client::ChannelSummary,
    error::CliError,
    exit,
    table::table,
    times::{self, Zone},
};

pub(crate) async fn notify(session: &Session<'_>, given: NotifyCommand) -> Result<u8, CliError> {
    match given {
        NotifyCommand::List => list(session).await,
        NotifyCommand::Test { name } => test(session, &name).await,
    }
}

async fn list(session: &Session<'_>) -> Result<u8, CliError> {
    let channels = session.client()?.channels().await?;
    if session.output.json {
        session.output.json("fracas.channels/v1", &json!({ "channels": channels }))?;
    } else if channels.is_empty() {
        session.output.notice("nobody is told: name channels below `notifications` in the controller's configuration");
    } else {
        let rows: Vec<Vec<String>> = channels.iter().map(|channel| row(channel, session.output.zone)).collect();
        session.output.text(&table(
            session.width(),
            &["channel", "by", "state", "waiting", "last", "told of"],
            &rows,
        ))?;
    }
    Ok(exit::PASS)
}

fn row(channel: &ChannelSummary, zone: Zone) -> Vec<String> {
    let at = |wall_ns| times::local_second(wall_ns, zone);
    let state = match channel.failing_since_wall_ns {
        0 => "works".to_owned(),
        since => format!("FAILING since {}: {}", at(since), channel.failing),
    };
    let last = channel.last.as_ref().map_or_else(
        || "nothing yet".to_owned(),
        |last| match last.gave_up.as_str() {
            "" => format!("{} sent {}", last.about, at(last.wall_ns)),
            why => format!("{} GIVEN UP {}: {why}", last.about, at(last.wall_ns)),
        },
    );
    let environments = match channel.environments.as_slice() {
        [] => String::new(),
        some => format!(" in {}", some.join(", ")),
    };
    let told = format!("{}{environments}", channel.on.join(" "));
    vec![channel.name.clone(), channel.by.clone(), state, channel.waiting.to_string(), last, told]
}

async fn test(session: &Session<'_>, name: &str) -> Result<u8, CliError> {
    let tried = session.client()?.try_channel(name).await?;
    if session.output.json {
        session.output.json("fracas.triedChannel/v1", &tried)?;
        return Ok(if tried.why.is_empty() { exit::PASS } else { exit::ERROR });
    }
    if !tried.why.is_empty() {
        return Err(CliError::failure(format!("{name} did not take {}: {}", tried.id, tried.why)));
    }
    session.output.line(&format!("{name} took {} within {} ms", tried.id, tried.took_ms))?;
    Ok(exit::PASS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::NoticeOutcome;

    #[test]
    fn a_channel_in_a_row() {
        let mut channel = ChannelSummary {
            name: "ops".into(),
            by: "slack".into(),
            on: vec!["run.finished".into(), "halt.set".into()],
            environments: vec!["production".into()],
            waiting: 2,
            last: None,
            failing_since_wall_ns: 0,
            failing: String::new(),
        };
        let told = "run.finished halt.set in production";
        assert_eq!(row(&channel, Zone::East(0)), ["ops", "slack", "works", "2", "nothing yet", told]);
        let at = crate::fixture::START;
        let outcome = NoticeOutcome {
            notice: "run/r1/9".into(),
            about: "run.finished".into(),
            gave_up: "status 404 Not Found".into(),
            attempts: 1,
            wall_ns: at,
        };
        (channel.last, channel.failing_since_wall_ns, channel.failing) =
            (Some(outcome), at, "connection refused".into());
        let row = row(&channel, Zone::East(0));
        assert_eq!(row[2], "FAILING since 2026-11-24 02:45:00 +00:00: connection refused");
        assert_eq!(row[4], "run.finished GIVEN UP 2026-11-24 02:45:00 +00:00: status 404 Not Found");
    }
}
