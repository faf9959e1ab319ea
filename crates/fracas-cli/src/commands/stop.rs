//! `fracas stop`: asks the controller to end one run. It does not wait for the undo.

use serde_json::json;

use crate::{Session, args::StopArgs, error::CliError, exit};

pub(crate) async fn stop(session: &Session<'_>, given: &StopArgs) -> Result<u8, CliError> {
    let client = session.client()?;
    let run = client.run(&given.run.run).await?;
    client.stop_run(&run.run, &given.reason).await?;
    if session.output.json {
        session.output.json("fracas.stop/v1", &json!({ "run": run.run, "reason": given.reason }))?;
    } else {
        session.output.notice(&format!("run {} is stopping; see the undo: fracas watch {}", run.run, run.run));
    }
    Ok(exit::PASS)
}
