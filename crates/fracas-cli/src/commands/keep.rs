//! `fracas controller prune` and `backup` of a controller that runs: removing what is old, taking a copy of everything.

use std::io::Write as _;

use futures_util::StreamExt as _;
use serde_json::json;

use crate::{
    Session,
    args::{BackupArgs, PruneArgs},
    client::{Client, PruneAnswer, PruneOrder},
    draft::{Draft, told},
    error::CliError,
    exit, words,
};

pub(crate) async fn prune(session: &Session<'_>, given: PruneArgs) -> Result<u8, CliError> {
    let (client, output) = (session.client()?, session.output);
    let PruneArgs { older_than, keep_last, dry_run, reason, yes } = given;
    let order = PruneOrder { older_than, keep_last, dry_run, reason: reason.unwrap_or_default() };
    if output.asks && !yes && !dry_run {
        let would = client.prune(&PruneOrder { dry_run: true, ..order.clone() }).await?;
        let question = format!("{}That cannot be undone. Remove it? [y/N] ", said(&would, "would go"));
        if !output.agreed(&question).await? {
            output.notice("nothing was removed");
            return Ok(exit::REFUSED);
        }
    }
    let answer = client.prune(&order).await?;
    if output.json {
        output.json("fracas.prune/v1", &json!({ "dryRun": dry_run, "pruned": answer }))?;
    } else {
        output.text(&said(&answer, if dry_run { "would go" } else { "are gone" }))?;
    }
    Ok(exit::PASS)
}

fn said(answer: &PruneAnswer, go: &str) -> String {
    let runs = words::count(answer.runs.len(), "run");
    let mut text = format!("{runs}, {} in all, {go}\n", words::count(answer.records as usize, "record"));
    if !answer.schedules.is_empty() {
        text += &format!("the oldest facts of {} {go}\n", answer.schedules.join(", "));
    }
    for (why, runs) in &answer.stay {
        text += &format!("{} stay: {why}\n", words::count(*runs as usize, "run"));
    }
    text
}

pub(crate) async fn backup(session: &Session<'_>, given: &BackupArgs) -> Result<u8, CliError> {
    let client = session.client()?;
    let draft = Draft::new(&given.to)?;
    let fetched = fetched(&client, given, &draft).await;
    draft.settle(fetched)?;
    if session.output.json {
        let to = given.to.display().to_string();
        session.output.json("fracas.backup/v1", &json!({ "to": to, "withKeys": !given.without_keys }))?;
    } else {
        session.output.notice(&told(&given.to, given.without_keys));
    }
    Ok(exit::PASS)
}

async fn fetched(client: &Client, given: &BackupArgs, draft: &Draft) -> Result<(), CliError> {
    let mut pieces = client.backup(given.without_keys).await?;
    while let Some(piece) = pieces.next().await {
        (&draft.file).write_all(&piece?).map_err(|e| draft.failed(&e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_what_goes_and_why_the_rest_stays() {
        let answer = PruneAnswer {
            runs: vec!["a".into(), "b".into()],
            schedules: vec!["nightly".into()],
            records: 40,
            stay: [("not old enough".to_owned(), 3)].into(),
        };
        assert_eq!(
            said(&answer, "would go"),
            "2 runs, 40 records in all, would go\nthe oldest facts of nightly would go\n3 runs stay: not old enough\n"
        );
    }
}
