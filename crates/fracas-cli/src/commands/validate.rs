//! `fracas validate`: all errors of all files, offline, against the catalogue this build carries.

use std::{collections::BTreeMap, path::Path};

use fracas_model::{
    diagnostic::{Diagnostic, Severity},
    document,
    guard::{is_guard_rails, read_guard_rails},
    ical,
    schedule::{self, is_schedule, read_schedule},
};
use serde_json::json;

use super::schedule::beside;
use crate::{Session, args::ValidateArgs, error::CliError, exit, source, words};

pub(crate) fn validate(session: &Session<'_>, given: &ValidateArgs) -> Result<u8, CliError> {
    let parameters = source::parameters(&given.parameters)?;
    let (mut found, mut unreadable) = (Vec::new(), false);
    for path in &given.files {
        let text = match source::text(path) {
            Ok(text) => text,
            Err(error) => {
                // The other files are still checked: one list of everything that is wrong.
                session.output.notice(&format!("fracas: {error}"));
                unreadable = true;
                continue;
            }
        };
        let name = source::name(path);
        let read = if is_schedule(&text) {
            scheduled(path, &name, &text).unwrap_or_else(|error| {
                session.output.notice(&format!("fracas: {error}"));
                unreadable = true;
                Err(Vec::new())
            })
        } else if is_guard_rails(&text) {
            read_guard_rails(&name, &text).map(|(_, warnings)| ("guard-rails".to_owned(), warnings))
        } else if ical::is_calendar(&text) {
            let zone = schedule::zone("UTC").expect("every zone database has it");
            ical::read(&name, &text, zone, &BTreeMap::new()).map(|read| ("the calendar".to_owned(), read.warnings))
        } else {
            let files = source::beside(path, &text)?;
            let read = document::read(&name, &text, &files, &parameters, &session.world.catalogue);
            read.map(|read| (read.experiment.name, read.warnings))
        };
        match read {
            Ok((of, warnings)) => {
                found.extend(warnings);
                if !session.output.json {
                    session.output.notice(&format!("{name}: {of} is valid"));
                }
            }
            Err(diagnostics) => found.extend(diagnostics),
        }
    }
    let errors = found.iter().filter(|d| d.severity == Severity::Error).count();
    print(session, &found, errors)?;
    Ok(if errors > 0 || unreadable { exit::USAGE } else { exit::PASS })
}

/// What a document says, or what is wrong with it: its name and remarks.
type Told = Result<(String, Vec<Diagnostic>), Vec<Diagnostic>>;

/// A schedule, with the calendars that stand beside it.
fn scheduled(path: &Path, name: &str, text: &str) -> Result<Told, CliError> {
    let read = match read_schedule(name, text) {
        Ok(read) => read,
        Err(wrong) => return Ok(Err(wrong)),
    };
    let (mut told, mut well) = (read.warnings, true);
    for (_, _, calendar) in beside(path, &read.schedule)? {
        match calendar {
            Ok(calendar) => told.extend(calendar.warnings),
            Err(wrong) => {
                told.extend(wrong);
                well = false;
            }
        }
    }
    Ok(if well { Ok((read.schedule.name, told)) } else { Err(told) })
}

fn print(session: &Session<'_>, found: &[Diagnostic], errors: usize) -> Result<(), CliError> {
    if session.output.json {
        session.output.json("fracas.validation/v1", &json!({ "errors": errors, "diagnostics": found }))?;
        return Ok(());
    }
    for diagnostic in found {
        session.output.line(&format!("{}\n", diagnostic.render()))?;
    }
    let warnings = found.len() - errors;
    if !found.is_empty() {
        session.output.notice(&format!("{}, {}", words::count(errors, "error"), words::count(warnings, "warning")));
    }
    Ok(())
}
