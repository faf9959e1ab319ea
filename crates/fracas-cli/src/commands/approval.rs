//! `fracas approval`: runs that others must agree to. What an approver agrees to is what was printed, by its digest.

use std::{
    io::{self, Write as _},
    path::Path,
};

use fracas_model::{
    approval::Subject,
    diagnostic::Diagnostic,
    schedule::{is_schedule, read_schedule},
};
use serde_json::json;

use crate::{
    Session,
    args::{ApprovalCommand, AskArgs},
    client::{ApprovalSummary, Submission},
    error::CliError,
    exit, source,
    table::table,
    times,
    words::count,
};

pub(crate) async fn approval(session: &Session<'_>, command: ApprovalCommand) -> Result<u8, CliError> {
    let client = session.client()?;
    match command {
        ApprovalCommand::Ask(given) => ask(session, &given).await,
        ApprovalCommand::List => list(session, &client.approvals().await?),
        ApprovalCommand::Show { id } => {
            let one = client.approval(&id).await?;
            told(session, &one, &page(session, &one))
        }
        ApprovalCommand::Approve { id, note, yes } => {
            let one = client.approval(&id).await?;
            if session.output.asks && !yes && !agreed(session, &one).await? {
                session.output.notice("nothing was approved");
                return Ok(exit::REFUSED);
            }
            let now = client.approve(&one.id, &one.digest, &note).await?;
            let line = format!("{} is {}: {}\n", now.id, now.standing, approvals(&now));
            told(session, &now, &line)
        }
        ApprovalCommand::Reject { id, reason } => {
            let now = client.reject(&id, &reason).await?;
            told(session, &now, &format!("{} is rejected\n", now.id))
        }
        ApprovalCommand::Withdraw { id } => {
            let now = client.withdraw(&id).await?;
            told(session, &now, &format!("{} is withdrawn\n", now.id))
        }
    }
}

fn told(session: &Session<'_>, one: &ApprovalSummary, text: &str) -> Result<u8, CliError> {
    if session.output.json {
        session.output.json("fracas.approval/v1", one)?;
    } else {
        session.output.text(text)?;
    }
    Ok(exit::PASS)
}

async fn ask(session: &Session<'_>, given: &AskArgs) -> Result<u8, CliError> {
    let submission = source::submission(&given.document)?;
    let (submission, scheduled) = if is_schedule(&submission.source) {
        (of_schedule(&given.document.file, submission)?, true)
    } else {
        (submission, false)
    };
    let every_run = scheduled || given.every_run;
    let asked = session.client()?.ask_approval(submission, every_run, given.max_hosts).await?;
    told(session, &asked, &page(session, &asked))?;
    if !session.output.json {
        session.output.notice(&format!("an approver, who is not you: fracas approval approve {}", asked.id));
    }
    Ok(exit::PASS)
}

/// The experiment of a schedule, as the schedule will start it.
fn of_schedule(file: &Path, given: Submission) -> Result<Submission, CliError> {
    let wrong =
        |wrong: Vec<Diagnostic>| CliError::usage(wrong.iter().map(Diagnostic::render).collect::<Vec<_>>().join("\n"));
    let schedule = read_schedule(&given.source_name, &given.source).map_err(wrong)?.schedule;
    let beside = file.parent().unwrap_or(Path::new("")).join(&schedule.experiment);
    let source = source::text(&beside)?;
    Ok(Submission {
        files: source::beside(&beside, &source)?,
        source,
        source_name: schedule.experiment.clone(),
        parameters: schedule.parameters,
        ..given
    })
}

fn list(session: &Session<'_>, all: &[ApprovalSummary]) -> Result<u8, CliError> {
    if session.output.json {
        session.output.json("fracas.approvals/v1", &json!({ "approvals": all }))?;
    } else if all.is_empty() {
        session.output.notice("nothing was asked for yet: fracas approval ask FILE");
    } else {
        let row = |one: &ApprovalSummary| {
            let asked = times::local_second(one.asked_wall_ns, session.output.zone);
            let (name, place) = (one.asked.name.clone(), one.asked.environment.clone());
            vec![one.id.clone(), name, place, state(one), one.by.clone(), asked]
        };
        let rows: Vec<Vec<String>> = all.iter().map(row).collect();
        let head = ["approval", "experiment", "where", "state", "asked by", "at"];
        session.output.text(&table(session.width(), &head, &rows))?;
    }
    Ok(exit::PASS)
}

fn approvals(one: &ApprovalSummary) -> String {
    format!("{} of {}", one.approved.len(), count(one.asked.count as usize, "approval"))
}

fn state(one: &ApprovalSummary) -> String {
    match one.standing.as_str() {
        "waiting" => format!("waiting, {}", approvals(one)),
        standing => standing.to_owned(),
    }
}

/// Everything that an approver agrees to.
fn page(session: &Session<'_>, one: &ApprovalSummary) -> String {
    let asked = &one.asked;
    let at = |ns: i64| times::local_second(ns, session.output.zone);
    let mut page = format!("{}: {}, {} in environment {}\n", one.id, state(one), asked.name, asked.environment);
    page += &format!("asked by {} at {}, expires {}\n", one.by, at(one.asked_wall_ns), at(asked.expires_ns));
    if !asked.rules.is_empty() {
        page += &format!("for guard-rail {}\n", asked.rules.join(", "));
    }
    page += &match &asked.subject {
        Subject::Plan { seed, .. } => format!("for one run, exactly as follows (seed {seed})\n"),
        Subject::Intent { max_hosts } => {
            format!("for every run of it until then, each on at most {}\n", count(*max_hosts as usize, "host"))
        }
    };
    let hosts: Vec<&str> = asked.hosts.values().map(String::as_str).collect();
    page += &format!("\nhosts under fault{}: {}\n", if one_run(one) { "" } else { ", were it now" }, hosts.join(", "));
    page.extend(asked.steps.iter().map(|step| format!("  {step}\n")));
    page.extend(asked.parameters.iter().map(|(name, value)| format!("  parameter {name} = {value}\n")));
    page += &format!("\n--- {}\n{}\n", asked.source_name, asked.source.trim_end());
    page.extend(asked.files.iter().map(|(name, text)| format!("--- {name}\n{}\n", text.trim_end())));
    page += "---\n";
    page.extend(one.approved.iter().map(|(by, note)| format!("approved by {by}{}\n", noted(note))));
    if !one.rejected_by.is_empty() {
        page += &format!("rejected by {}{}\n", one.rejected_by, noted(&one.rejected_because));
    }
    page.extend(one.runs.iter().map(|run| format!("started run {run}\n")));
    page + &format!("digest  sha256:{}\n", one.digest)
}

fn one_run(one: &ApprovalSummary) -> bool {
    matches!(one.asked.subject, Subject::Plan { .. })
}

fn noted(note: &str) -> String {
    if note.is_empty() { String::new() } else { format!(": {note}") }
}

async fn agreed(session: &Session<'_>, one: &ApprovalSummary) -> Result<bool, CliError> {
    session.output.text(&format!("{}approve? [y/N] ", page(session, one)))?;
    io::stdout().flush()?;
    let line = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line)
    });
    let line = line.await.map_err(|e| CliError::failure(e.to_string()))??;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}
