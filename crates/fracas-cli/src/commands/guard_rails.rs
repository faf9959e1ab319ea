//! `fracas guard-rails`: what bounds all runs together, and which of them need approval.

use crate::{Session, args::GuardRailsCommand, client::GuardRailsAnswer, error::CliError, exit, source, times};

pub(crate) async fn guard_rails(session: &Session<'_>, command: GuardRailsCommand) -> Result<u8, CliError> {
    match command {
        GuardRailsCommand::Show => show(session, &session.client()?.guard_rails().await?),
        GuardRailsCommand::Set { file } => {
            let text = source::text(&file)?;
            let set = session.client()?.set_guard_rails(text, source::name(&file)).await?;
            if session.output.json {
                session.output.json("fracas.guardRails/v1", &set)?;
            } else {
                let (limits, rules) = (set.rails.limits.len(), set.rails.approvals.len());
                session.output.line(&format!("guard-rails hold: {limits} limits, {rules} rules for approval"))?;
            }
            Ok(exit::PASS)
        }
    }
}

fn show(session: &Session<'_>, rails: &GuardRailsAnswer) -> Result<u8, CliError> {
    if session.output.json {
        session.output.json("fracas.guardRails/v1", rails)?;
    } else if rails.source.is_empty() {
        session
            .output
            .notice("no guard-rails: only the limits of each document hold; set some: fracas guard-rails set FILE");
    } else {
        session.output.text(&rails.source)?;
        let at = times::local_second(rails.at_wall_ns, session.output.zone);
        session.output.notice(&format!("set by {} at {at}", rails.by));
    }
    Ok(exit::PASS)
}
