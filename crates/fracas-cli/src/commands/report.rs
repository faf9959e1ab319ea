//! `fracas report`: fetch a report as data, render it here, print or write it.

use std::{fs, path::Path};

use fracas_model::{
    report::Report,
    trend::{Trend, trends},
};

use crate::{
    Session,
    args::{ReportArgs, ReportForm},
    client::{Client, ResultsQuery},
    error::CliError,
    exit,
    render::{self, Style},
    times::Zone,
};

/// So many runs, the newest, are looked through for those before a run.
const BEFORE: u32 = 200;

pub(crate) async fn report(session: &Session<'_>, given: &ReportArgs) -> Result<u8, CliError> {
    let form = given.format.unwrap_or_else(|| match &given.to {
        Some(path) => form_of(path),
        None if session.output.json => ReportForm::Json,
        None => ReportForm::Text,
    });
    let client = session.client()?;
    let run = client.run(&given.run.run).await?;
    let (report, complete) = client.report::<Report>(&run.run).await?;
    if !complete {
        session.output.notice("the run has not ended: this report is a snapshot");
    }
    let text = match (form, &given.to) {
        (ReportForm::Html, _) => render::html_among(&report, &among(session, &client, &report).await),
        (_, None) => rendered(&report, form, session),
        (_, Some(_)) => rendered_for_file(&report, form),
    };
    match &given.to {
        None if form == ReportForm::Text => session.output.text(&text)?,
        None => session.output.raw(&text)?,
        Some(path) => {
            save(path, &text)?;
            session.output.notice(&format!("report written to {}", path.display()));
        }
    }
    Ok(exit::PASS)
}

/// What this run and those of the same intent before it show together; nothing when it is the first, or when the controller
/// cannot tell.
async fn among(session: &Session<'_>, client: &Client, report: &Report) -> Vec<Trend> {
    let query = ResultsQuery {
        experiment: report.name.clone(),
        environment: report.environment.clone(),
        limit: BEFORE,
        ..ResultsQuery::default()
    };
    let mut points = match client.results(query).await {
        Ok(found) => found.points,
        Err(error) => {
            session.output.notice(&format!("the runs before this one are not in the report: {error}"));
            return Vec::new();
        }
    };
    points.retain(|point| point.intent == report.intent && point.started_wall_ns <= report.times.planned_wall_ns);
    let mut all = trends(points, false, None);
    all.retain(|trend| trend.points.len() > 1);
    all
}

/// The form that a file's ending means.
fn form_of(path: &Path) -> ReportForm {
    match path.extension().and_then(|e| e.to_str()) {
        Some("json") => ReportForm::Json,
        Some("md" | "markdown") => ReportForm::Markdown,
        Some("xml") => ReportForm::Junit,
        Some("txt") => ReportForm::Text,
        _ => ReportForm::Html,
    }
}

/// Says before a run is started that its report could not be written.
pub(crate) fn writable(path: &Path) -> Result<(), CliError> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() || !folder.is_dir() {
        let why = if path.is_dir() { "it is a directory" } else { "its directory does not exist" };
        return Err(CliError::usage(format!("the report cannot be written to {}: {why}", path.display())));
    }
    Ok(())
}

/// Writes the report in the form that the file's ending means; a page shows the runs before it as well.
pub(crate) async fn write(
    session: &Session<'_>,
    client: &Client,
    report: &Report,
    path: &Path,
) -> Result<(), CliError> {
    let text = match form_of(path) {
        ReportForm::Html => render::html_among(report, &among(session, client, report).await),
        form => rendered_for_file(report, form),
    };
    save(path, &text)
}

fn save(path: &Path, text: &str) -> Result<(), CliError> {
    fs::write(path, text).map_err(|e| CliError::file("write", path, &e))
}

/// For standard output: as wide and as colourful as it is.
fn rendered(report: &Report, form: ReportForm, session: &Session<'_>) -> String {
    of(report, form, style(session))
}

/// For a file: no colours, and a width that mails and editors show.
fn rendered_for_file(report: &Report, form: ReportForm) -> String {
    of(report, form, Style { colour: false, width: 100, zone: Zone::Local })
}

fn of(report: &Report, form: ReportForm, style: Style) -> String {
    match form {
        ReportForm::Text => render::text(report, style),
        ReportForm::Json => render::json(report),
        ReportForm::Html => render::html(report),
        ReportForm::Markdown => render::markdown(report),
        ReportForm::Junit => render::junit(report),
    }
}

/// The end of a run in a few lines.
pub(crate) fn summary(report: &Report, session: &Session<'_>) -> String {
    render::summary(report, style(session))
}

fn style(session: &Session<'_>) -> Style {
    Style { colour: session.output.colour, width: session.width(), zone: session.output.zone }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fracas_model::report::build;

    use super::*;
    use crate::fixture;

    #[test]
    fn a_files_ending_decides_its_form() {
        let folder = tempfile::tempdir().unwrap();
        let report = build(&fixture::history(), &BTreeMap::new());
        let forms = [
            ("a.html", "<!DOCTYPE html>"),
            ("a.md", "# ✅ "),
            ("a.txt", "PASS"),
            ("a.json", "{"),
            ("a", "<!DOCTYPE"),
            ("a.xml", "<?xml"),
        ];
        for (name, start) in forms {
            let path = folder.path().join(name);
            writable(&path).unwrap();
            save(&path, &rendered_for_file(&report, form_of(&path))).unwrap();
            let written = fs::read_to_string(&path).unwrap();
            assert!(written.starts_with(start) && written.contains("shop-survives"), "{name}: {written}");
            assert!(name == "a.json" || !written.contains('\x1b'), "{name}");
        }
        assert!(writable(folder.path()).is_err() && writable(&folder.path().join("no/a.html")).is_err());
    }
}
