//! `fracas mark`: somebody tells when something happened. What follows from it is the report's business.

use fracas_model::mark::Ago;
use serde_json::json;

use crate::{Session, args::MarkArgs, client::ToldMark, error::CliError, exit};

pub(crate) async fn mark(session: &Session<'_>, given: &MarkArgs) -> Result<u8, CliError> {
    let ago = Ago::about(given.ago, given.give_or_take)
        .map_err(|why| CliError::usage(format!("--ago {} --give-or-take {}: {why}", given.ago, given.give_or_take)))?;
    let told = ToldMark {
        run: &given.run.run,
        mark: given.mark,
        service: given.service.as_deref(),
        ago,
        did: given.did.as_deref(),
        note: &given.note,
        retract: given.retract,
    };
    let (run, seq) = session.client()?.mark(&told).await?;
    if session.output.json {
        let told = json!({
            "run": run, "mark": given.mark, "service": given.service, "retracted": given.retract, "event": seq,
            "leastAgo": ago.least, "mostAgo": ago.most,
        });
        session.output.json("fracas.mark/v1", &told)?;
    } else {
        let of = given.service.as_ref().map(|service| format!(" of {service}")).unwrap_or_default();
        let what = if given.retract { "taken back" } else { "recorded" };
        session.output.line(&format!("{}{of} in run {run} is {what} (event {seq})", given.mark))?;
    }
    Ok(exit::PASS)
}
