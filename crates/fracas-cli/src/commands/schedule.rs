//! `fracas schedule`: experiments that run by themselves: set, looked at beforehand, paused, removed.

mod feed;

use std::{collections::BTreeMap, path::Path};

use chrono::DateTime;
use fracas_model::{
    diagnostic::Diagnostic,
    document,
    event::Body,
    ical::{self, ReadCalendar},
    schedule::{self, Calendars, Clockwork, Closed, Due, Fact, Schedule, Skip, closed},
    units::Dur,
};
use serde::Serialize;
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
            let text = format!("{name} is paused: its times are skipped, and that is recorded");
            match now {
                Some(now) => told(session, &now, &text),
                // Everybody may pause it; what it is, not everybody sees.
                None => told(session, &json!({ "paused": reason }), &text),
            }
        }
        ScheduleCommand::Resume { name } => {
            let now = session.client()?.resume_schedule(&name).await?;
            let next = now.next_wall_ns.first().map(|at| in_zone(&now.schedule, *at));
            told(session, &now, &format!("{name} goes on: next {}", next.unwrap_or_else(|| "never".into())))
        }
        ScheduleCommand::Feed(given) => feed::feed(session, given).await,
        ScheduleCommand::Remove { name, reason } => {
            let now = session.client()?.remove_schedule(&name, &reason).await?;
            told(session, &now, &format!("{name} is removed; runs that it started go on"))
        }
    }
}

fn told(session: &Session<'_>, now: &impl Serialize, text: &str) -> Result<u8, CliError> {
    if session.output.json {
        session.output.json("fracas.schedule/v1", now)?;
    } else {
        session.output.line(text)?;
    }
    Ok(exit::PASS)
}

/// A schedule's file, with its experiment and calendars, which stand beside it.
fn read(session: &Session<'_>, file: &Path) -> Result<(Schedule, Calendars, ScheduleSubmission), CliError> {
    let (text, name) = (source::text(file)?, source::name(file));
    let read = schedule::read_schedule(&name, &text).map_err(|wrong| refused(&wrong))?;
    let (mut calendars, mut texts, mut wrong) = (Vec::new(), BTreeMap::new(), Vec::new());
    let mut warnings = read.warnings;
    for (named, text, read) in beside(file, &read.schedule)? {
        texts.insert(named, text);
        match read {
            Ok(read) => {
                warnings.extend(read.warnings);
                calendars.push(read.calendar);
            }
            Err(mistakes) => wrong.extend(mistakes),
        }
    }
    if !wrong.is_empty() {
        return Err(refused(&wrong));
    }
    for warning in &warnings {
        session.output.notice(&warning.render());
    }
    let experiment = file.parent().unwrap_or(Path::new("")).join(&read.schedule.experiment);
    let folder = experiment.clone();
    let experiment = (source::text(&experiment)?, source::name(&experiment));
    let files = source::beside(&folder, &experiment.0)?;
    let submission =
        ScheduleSubmission { source: (text, name), experiment, calendars: texts, files, environment: String::new() };
    Ok((read.schedule, calendars.into(), submission))
}

/// The calendars of a schedule: the name it writes, the text, and what that says.
type Beside = Vec<(String, String, Result<ReadCalendar, Vec<Diagnostic>>)>;

/// Reads the calendars that stand beside the file of a schedule.
pub(super) fn beside(file: &Path, rules: &Schedule) -> Result<Beside, CliError> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let one = |calendar: &schedule::CalendarFile| {
        let path = folder.join(&calendar.file);
        let text = source::text(&path)?;
        let read = ical::read(&source::name(&path), &text, rules.zone, &calendar.zones);
        Ok((calendar.file.clone(), text, read))
    };
    rules.calendars.iter().map(one).collect()
}

fn refused(wrong: &[Diagnostic]) -> CliError {
    CliError::usage(wrong.iter().map(Diagnostic::render).collect::<Vec<_>>().join("\n"))
}

async fn set(session: &Session<'_>, given: &ScheduleFile) -> Result<u8, CliError> {
    let (_, _, mut submission) = read(session, &given.file)?;
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
    vec![one.schedule.name.clone(), one.schedule.when.to_string(), next, state(one), last]
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
    session.output.line(&format!("{name}: {experiment}, {} ({})", one.schedule.when, one.schedule.zone))?;
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
        Fact::Skipped { from, count: 1, reason, .. } => format!("{}: skipped, {reason}", due(from)),
        Fact::Skipped { from, to, count, reason } => {
            format!("{} to {}: {count} times skipped, {reason}", due(from), due(to))
        }
        Fact::Queued { due: at, reason } => format!("{}: waits, {reason}", due(at)),
        Fact::Paused { reason, by } => format!("paused by {by}: {reason}"),
        Fact::Resumed { by } => format!("goes on, by {by}"),
        Fact::SetBack { settled_ns } => format!(
            "the clock had been ahead, at least until {}: from here on times are owed again",
            in_zone(rules, *settled_ns)
        ),
        Fact::Removed { reason, by } => format!("removed by {by}: {reason}"),
        Fact::Summary(summary) => format!("the first {} records were summed up, so that they can go", summary.upto),
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
    let (rules, calendars, submission) = read(session, file)?;
    let (text, name) = submission.experiment;
    document::read(&name, &text, &submission.files, &rules.parameters, &session.world.catalogue)
        .map_err(|wrong| refused(&wrong))?;
    let clockwork = Clockwork::new(&rules.when, rules.zone, rules.seed).map_err(CliError::usage)?;
    let from = from.unwrap_or_else(times::now);
    let dues: Vec<(Due, Option<Closed>)> =
        clockwork.coming(from).take(count).map(|due| (due, closed(&rules, &calendars, due.at_ns))).collect();
    if session.output.json {
        let dues: Vec<_> = dues
            .iter()
            .map(|(due, why)| {
                let skipped = why.clone().map(|why| Skip::from(why).to_string());
                let until = why.as_ref().and_then(until);
                json!({ "atWallNs": due.at_ns, "at": in_zone(&rules, due.at_ns), "skipped": skipped, "untilWallNs": until })
            })
            .collect();
        session.output.json("fracas.dues/v1", &json!({ "schedule": rules.name, "dues": dues }))?;
        return Ok(exit::PASS);
    }
    session.output.notice(&format!("{}: {} ({})", rules.name, rules.when, rules.zone));
    for (due, why) in dues.iter().cloned() {
        let end = why.as_ref().and_then(until).map(|at| format!(", until {}", in_zone(&rules, at)));
        let skipped = why.map(|why| format!("  skipped, {}{}", Skip::from(why), end.unwrap_or_default()));
        let away = away(due.at_ns - from);
        session.output.line(&format!("{}  in {away}{}", in_zone(&rules, due.at_ns), skipped.unwrap_or_default()))?;
    }
    if dues.len() < count {
        session.output.notice(&format!("no more: {} in all", words::count(dues.len(), "time")));
    }
    Ok(exit::PASS)
}

/// When what closes ends, where it says so.
fn until(closed: &Closed) -> Option<i64> {
    match closed {
        Closed::Hours => None,
        Closed::Blackout { until_ns, .. } => Some(*until_ns),
    }
}
