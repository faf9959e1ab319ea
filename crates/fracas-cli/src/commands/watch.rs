//! `fracas watch`: attends a run that somebody started, and ends with its exit code.

use crate::{
    Session,
    args::WatchArgs,
    attend::{Interrupts, OnInterrupt, attend},
    error::CliError,
};

pub(crate) async fn watch(session: &Session<'_>, given: &WatchArgs) -> Result<u8, CliError> {
    let client = session.client()?;
    let run = client.run(&given.run.run).await?;
    let mut interrupts = Interrupts::new()?;
    let outcome = attend(&client, &run.run, given.after, OnInterrupt::Leave, &mut interrupts, session.output).await?;
    super::run::conclude(session, &client, &run.run, outcome, None).await
}
