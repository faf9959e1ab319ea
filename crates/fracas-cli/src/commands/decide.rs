//! `fracas decide`: the answer to the question of a run. Whether it counts is the controller's business.

use serde_json::json;

use crate::{
    Session,
    args::{DecideArgs, GoNoGo},
    error::CliError,
    exit,
};

pub(crate) async fn decide(session: &Session<'_>, given: &DecideArgs) -> Result<u8, CliError> {
    let go = given.answer == GoNoGo::Go;
    let (run, entry) = session.client()?.decide(&given.run.run, &given.entry, go, &given.note).await?;
    if session.output.json {
        session.output.json("fracas.decision/v1", &json!({ "run": run, "entry": entry, "go": go }))?;
    } else {
        let word = if go { "go" } else { "no-go" };
        session.output.line(&format!("{entry} of run {run} is answered: {word}"))?;
    }
    Ok(exit::PASS)
}
