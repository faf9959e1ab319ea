//! `fracas stop`: asks the controller to end one run. It does not wait for the undo.

use serde_json::json;

use crate::{Session, args::StopArgs, error::CliError, exit};

pub(crate) async fn stop(session: &Session<'_>, given: &StopArgs) -> Result<u8, CliError> {
    let (run, ended) = session.client()?.stop_run(&given.run.run, &given.reason).await?;
    if session.output.json {
        let answer = json!({ "run": run, "reason": given.reason, "alreadyEnded": ended.is_some() });
        session.output.json("fracas.stop/v1", &answer)?;
    } else if let Some(verdict) = ended {
        let see = format!("see: fracas report {run}");
        session.output.notice(&format!("run {run} had already ended ({verdict}), nothing was stopped; {see}"));
    } else {
        session.output.notice(&format!("run {run} is stopping; see the undo: fracas watch {run}"));
    }
    Ok(exit::PASS)
}
