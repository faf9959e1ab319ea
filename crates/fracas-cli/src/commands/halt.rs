//! `fracas halt` and `fracas halt clear`: the latched stop of everything.

use crate::{
    Session,
    args::{HaltArgs, HaltCommand},
    error::CliError,
    exit, words,
};

pub(crate) async fn halt(session: &Session<'_>, given: HaltArgs) -> Result<u8, CliError> {
    let client = session.client()?;
    let answer = match given.command {
        Some(HaltCommand::Clear { reason }) => client.clear_halt(&reason).await?,
        None => client.halt(&given.reason.unwrap_or_default()).await?,
    };
    if session.output.json {
        session.output.json("fracas.halt/v1", &answer)?;
    } else if answer.halted {
        let ended: Vec<String> = answer.runs.iter().map(ToString::to_string).collect();
        let ended = if ended.is_empty() { String::new() } else { format!(": {}", ended.join(", ")) };
        let runs = words::count(answer.runs.len(), "run");
        session.output.line(&format!("halted; this ended {runs}{ended}"))?;
        session.output.notice("no run starts until: fracas halt clear --reason REASON");
    } else {
        session.output.line("not halted: runs may start")?;
    }
    Ok(exit::PASS)
}
