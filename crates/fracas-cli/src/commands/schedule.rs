//! `fracas schedule`: experiments that run by themselves: set, looked at beforehand, paused, removed.

use std::path::Path;

use chrono::DateTime;
use fracas_model::{
    diagnostic::Diagnostic,
    document,
    event::Body,
    schedule::{self, Clockwork, Due, Fact, Schedule, Skip, When, closed},
    units::Dur,
};
use serde_json::json;

use crate::{
    Session,
    args::{ScheduleCommand, ScheduleFile},
    client::{ScheduleSubmission, ScheduleSummary},
    error::CliError,
    exit, source,
    table::table,
    times, words,
};

pub(crate) async fn schedule(session: &Session<'_>, given: ScheduleCommand) -> Result<u8, CliError> {
    match given {
        ScheduleCommand::Set(file) => set(session, &file).await,
        ScheduleCommand::List => list(session).await,
        ScheduleCommand::Show { name, limit } => show(session, &name, limit).await,
        ScheduleCommand::Next { file, count, from } => next(session, &file, count, from),
        ScheduleCommand::Pause { name, reason } => {
            let now = session.client()?.pause_schedule(&name, &reason).await?;
            told(session, &now, &format!("{name} is paused: its times are skipped, and that is recorded"))
        }
        ScheduleCommand::Resume { name } => {
            let now = session.client()?.resume_schedule(&name).await?;
            let next = now.next_wall_ns.first().map(|at| in_zone(&now.schedule, *at));
            told(session, &now, &format!("{name} goes on: next {}", next.unwrap_or_else(|| "never".into())))
        }
        ScheduleCommand::Remove { name, reason } => {
            let now = session.client()?.remove_schedule(&name, &reason).await?;
            told(session, &now, &format!("{name} is removed; runs that it started go on"))
        }
    }
}

fn told(session: &Session<'_>, now: &ScheduleSummary, text: &str) -> Result<u8, CliError> {
    if session.output.json {
        session.output.json("fracas.schedule/v1", now)?;
    } else {
        session.output.line(text)?;
    }
    Ok(exit::PASS)
}

/// A schedule's file, and that of its experiment, which stands beside it.
fn read(session: &Session<'_>, file: &Path) -> Result<(Schedule, ScheduleSubmission), CliError> {
    let (text, name) = (source::text(file)?, source::name(file));
    let read = schedule::read_schedule(&name, &text).map_err(|wrong| refused(&wrong))?;
    for warning in &read.warnings {
        session.output.notice(&warning.render());
    }
    let beside = file.parent().unwrap_or(Path::new("")).join(&read.schedule.experiment);
    let experiment = (source::text(&beside)?, source::name(&beside));
    let files = source::beside(&beside, &experiment.0)?;
    let submission = ScheduleSubmission { source: (text, name), experiment, files, environment: String::new() };
    Ok((read.schedule, submission))
}

fn refused(wrong: &[Diagnostic]) -> CliError {
    CliError::usage(wrong.iter().map(Diagnostic::render).collect::<Vec<_>>().join("\n"))
}

async fn set(session: &Session<'_>, given: &ScheduleFile) -> Result<u8, CliError> {
    let (_, mut submission) = read(session, &given.file)?;
    submission.environment.clone_from(&given.environment);
    let now = session.client()?.set_schedule(submission).await?;
    let next = now.next_wall_ns.first().map(|at| in_zone(&now.schedule, *at));
    let name = &now.schedule.name;
    if !now.paused.is_empty() {
        return told(
            session,
            &now,
            &format!("{name} is set, and still paused ({}): fracas schedule resume {name}", now.paused),
        );
    }
    told(session, &now, &format!("{name} is set: next {}", next.unwrap_or_else(|| "never".into())))
}

async fn list(session: &Session<'_>) -> Result<u8, CliError> {
    let all = session.client()?.schedules().await?;
    if session.output.json {
        session.output.json("fracas.schedules/v1", &json!({ "schedules": all }))?;
    } else if all.is_empty() {
        session.output.notice("no schedule yet: fracas schedule set FILE");
    } else {
        let rows: Vec<Vec<String>> = all.iter().map(row).collect();
        session.output.text(&table(session.width(), &["schedule", "when", "next", "state", "last time"], &rows))?;
    }
    Ok(exit::PASS)
}

fn row(one: &ScheduleSummary) -> Vec<String> {
    let next = one.next_wall_ns.first().map_or_else(|| "never".to_owned(), |at| in_zone(&one.schedule, *at));
    let last = one.last.as_ref().map(|fact| became(&one.schedule, fact)).unwrap_or_default();
    vec![one.schedule.name.clone(), when(&one.schedule), next, state(one), last]
}

fn state(one: &ScheduleSummary) -> String {
    if !one.paused.is_empty() {
        return format!("paused: {}", one.paused);
    }
    let runs: Vec<String> = one.runs.iter().map(|run| format!("run {run}")).collect();
    match (runs.is_empty(), one.waiting.first()) {
        (_, Some(waiting)) => format!("waits: {}", waiting.reason),
        (false, None) => runs.join(", "),
        (true, None) => "on".to_owned(),
    }
}

async fn show(session: &Session<'_>, name: &str, limit: u32) -> Result<u8, CliError> {
    let (one, events) = session.client()?.schedule(name, 5, limit).await?;
    if session.output.json {
        session.output.json("fracas.schedule/v1", &json!({ "schedule": one, "events": events }))?;
        return Ok(exit::PASS);
    }
    let Schedule { experiment, description, .. } = &one.schedule;
    session.output.line(&format!("{name}: {experiment}, {} ({})", when(&one.schedule), one.schedule.zone))?;
    if !description.is_empty() {
        session.output.line(description)?;
    }
    session.output.line(&format!("state: {}; set by {}, environment {}", state(&one), one.by, one.environment))?;
    let next: Vec<String> = one.next_wall_ns.iter().map(|at| in_zone(&one.schedule, *at)).collect();
    session.output.line(&format!("next: {}\n", if next.is_empty() { "never".into() } else { next.join(", ") }))?;
    for event in &events {
        let Body::Schedule { fact, .. } = &event.body else { continue };
        let at = times::local_second(event.received.wall_ns, session.output.zone);
        session.output.line(&format!("{at}  {}", became(&one.schedule, fact)))?;
    }
    Ok(exit::PASS)
}

/// What a fact says, in words.
fn became(rules: &Schedule, fact: &Fact) -> String {
    let due = |due: &Due| in_zone(rules, due.at_ns);
    match fact {
        Fact::Set { by, .. } => format!("set by {by}"),
        Fact::Started { due: at, run } => format!("{}: run {run}", due(at)),
        Fact::Skipped { from, count: 1, reason, .. } => format!("{}: skipped, {}", due(from), why(reason)),
        Fact::Skipped { from, to, count, reason } => {
            format!("{} to {}: {count} times skipped, {}", due(from), due(to), why(reason))
        }
        Fact::Queued { due: at, reason } => format!("{}: waits, {reason}", due(at)),
        Fact::Paused { reason, by } => format!("paused by {by}: {reason}"),
        Fact::Resumed { by } => format!("goes on, by {by}"),
        Fact::Removed { reason, by } => format!("removed by {by}: {reason}"),
    }
}

fn why(reason: &Skip) -> String {
    match reason {
        Skip::Missed => "nobody was there to start it in time".into(),
        Skip::NotAllowedThen => "out of the allowed hours".into(),
        Skip::Blackout { name } => format!("in a blackout: {name}"),
        Skip::Paused { reason } => format!("paused: {reason}"),
        Skip::StillRunning { run } => format!("run {run} had not ended"),
        Skip::AnotherWaits => "another waited already".into(),
        Skip::Replaced => "a later one took its place".into(),
        Skip::WaitedTooLong { reason } => format!("it waited too long: {reason}"),
        Skip::Refused { reasons } => format!("refused: {}", reasons.join("; ")),
        Skip::Withdrawn => "the schedule was changed while it waited".into(),
    }
}

fn when(rules: &Schedule) -> String {
    let said = |pattern: &str| schedule::described(pattern).unwrap_or_else(|_| pattern.to_owned());
    match &rules.when {
        When::Cron(pattern) => said(pattern),
        When::At(at) => format!("once, {at}"),
        When::Every { period, from } => format!("every {period} from {from}"),
        When::Random { opens, within } => format!("once within {within}: {}", said(opens)),
    }
}

/// `Mon 2027-03-01 10:00:00 GMT`.
fn in_zone(rules: &Schedule, at_ns: i64) -> String {
    DateTime::from_timestamp_nanos(at_ns).with_timezone(&rules.zone).format("%a %Y-%m-%d %H:%M:%S %Z").to_string()
}

/// `2h03m`, and from two days on in days.
fn away(ns: i64) -> String {
    const DAY: i64 = 86_400_000_000_000;
    if ns < 2 * DAY { times::running(Dur::from_ns(ns)) } else { format!("{} days", ns / DAY) }
}

/// What would come of the next times, without a controller.
fn next(session: &Session<'_>, file: &Path, count: usize, from: Option<i64>) -> Result<u8, CliError> {
    let (rules, submission) = read(session, file)?;
    let (text, name) = submission.experiment;
    document::read(&name, &text, &submission.files, &rules.parameters, &session.world.catalogue)
        .map_err(|wrong| refused(&wrong))?;
    let clockwork = Clockwork::new(&rules.when, rules.zone, rules.seed).map_err(CliError::usage)?;
    let from = from.unwrap_or_else(times::now);
    let dues: Vec<(Due, Option<schedule::Closed>)> = clockwork
        .coming(from)
        .take(count)
        .map(|due| (due, closed(&rules.allowed, &rules.blackouts, rules.zone, due.at_ns)))
        .collect();
    let skip = |why: &schedule::Closed| match why {
        schedule::Closed::Hours => self::why(&Skip::NotAllowedThen),
        schedule::Closed::Blackout(name) => self::why(&Skip::Blackout { name: name.clone() }),
    };
    if session.output.json {
        let dues: Vec<_> = dues
            .iter()
            .map(|(due, why)| json!({ "atWallNs": due.at_ns, "at": in_zone(&rules, due.at_ns), "skipped": why.as_ref().map(skip) }))
            .collect();
        session.output.json("fracas.dues/v1", &json!({ "schedule": rules.name, "dues": dues }))?;
        return Ok(exit::PASS);
    }
    session.output.notice(&format!("{}: {} ({})", rules.name, when(&rules), rules.zone));
    for (due, why) in &dues {
        let away = away(due.at_ns - from);
        let skipped = why.as_ref().map_or_else(String::new, |why| format!("  skipped, {}", skip(why)));
        session.output.line(&format!("{}  in {away}{skipped}", in_zone(&rules, due.at_ns)))?;
    }
    if dues.len() < count {
        session.output.notice(&format!("no more: {} in all", words::count(dues.len(), "time")));
    }
    Ok(exit::PASS)
}
