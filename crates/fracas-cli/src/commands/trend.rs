//! `fracas trend`: what many runs say together. The statistics are the model's, the drawings the renderers'.

use std::{fs, path::Path};

use fracas_model::{
    id::RunId,
    trend::{self, Asked, Baseline, ChangeWord, Trend, compare_together, trends},
};
use serde_json::{Value, json};

use crate::{
    Session,
    args::TrendArgs,
    client::{Client, ResultsQuery},
    error::{CliError, unless_closed},
    exit,
    render::{self, Style},
    times::Zone,
};

/// The newest runs among which the order of those without a readable report is looked up.
const LISTED: u32 = 1000;

pub(crate) async fn trend(session: &Session<'_>, given: &TrendArgs) -> Result<u8, CliError> {
    for path in &given.to {
        super::report::writable(path)?;
    }
    let client = session.client()?;
    let query = ResultsQuery {
        experiment: given.experiment.clone().unwrap_or_default(),
        service: given.service.clone().unwrap_or_default(),
        environment: given.environment.clone(),
        limit: given.last,
    };
    let found = client.results(query).await?;
    if !found.unread.is_empty() {
        let runs: Vec<&str> = found.unread.iter().map(RunId::as_str).collect();
        session.output.notice(&format!("no report that can be read, left out: {}", runs.join(", ")));
    }
    let asked = Asked {
        newest: given.newest as usize,
        baseline: whole(&client, given.baseline.clone()).await?,
        alpha: given.alpha,
    };
    let all = trends(found.points, given.all_intents, Some(&asked));
    let (mut shown, earlier) = newest(all);
    compare_together(&mut shown, &asked);
    if !found.unread.is_empty() {
        let listed: Vec<RunId> = client.runs(LISTED).await?.into_iter().map(|row| row.run).collect();
        doubt(&mut shown, &found.unread, &listed);
    }
    for path in &given.to {
        save(path, &shown, &earlier)?;
        session.output.notice(&format!("trend written to {}", path.display()));
    }
    if session.output.json {
        unless_closed(session.output.json(trend::SCHEMA, &data(&shown, &earlier)))?;
    } else if shown.is_empty() {
        session.output.notice("no finished run here that looked at a service; `fracas runs` lists all runs");
    } else {
        let style = Style { colour: session.output.colour, width: session.width(), zone: session.output.zone };
        unless_closed(session.output.text(&render::trends(&shown, &earlier, style)))?;
    }
    Ok(if given.fail_on.is_some() { code(&shown) } else { exit::PASS })
}

/// Ids instead of prefixes and `last`.
async fn whole(client: &Client, baseline: Baseline) -> Result<Baseline, CliError> {
    let Baseline::Between(first, last) = baseline else { return Ok(baseline) };
    let from = client.run(first.as_str()).await?.run;
    let to = if first == last { from.clone() } else { client.run(last.as_str()).await?.run };
    Ok(Baseline::Between(from, to))
}

/// Of each service and experiment the trend of the newest intent, and those of earlier ones.
pub(super) fn newest(all: Vec<Trend>) -> (Vec<Trend>, Vec<Trend>) {
    let mut shown: Vec<Trend> = Vec::new();
    let mut earlier = Vec::new();
    // The one with the newest run comes first.
    for trend in all {
        let known = shown.iter().any(|one| one.service == trend.service && one.experiments == trend.experiments);
        if known { earlier.push(trend) } else { shown.push(trend) }
    }
    (shown, earlier)
}

/// A run without a readable report may be one of the newest: then those that are known are not. `listed` has the newest run
/// first; what it does not hold may be anywhere.
fn doubt(shown: &mut [Trend], unread: &[RunId], listed: &[RunId]) {
    let place = |run: &RunId| listed.iter().position(|one| one == run);
    for change in shown.iter_mut().filter_map(|trend| trend.change.as_mut()) {
        let Some(oldest) = change.later.first().map(place) else { continue };
        let newer = |run: &&RunId| oldest.zip(place(run)).is_none_or(|(oldest, unread)| unread < oldest);
        if let Some(run) = unread.iter().find(newer) {
            change.word = ChangeWord::CannotTell;
            change.why = format!("the report of run {run} cannot be read, and it may be newer");
        }
    }
}

/// As data, in the shape that `fracas schema --kind trend` describes.
pub(super) fn data(shown: &[Trend], earlier: &[Trend]) -> Value {
    json!({ "trends": shown, "earlier": earlier })
}

/// Slower fails; what cannot be told, or is not there, settles nothing.
fn code(shown: &[Trend]) -> u8 {
    match trend::worst(shown) {
        Some(ChangeWord::NotSlower) => exit::PASS,
        Some(ChangeWord::Slower) => exit::FAIL,
        Some(ChangeWord::CannotTell) | None => exit::INCONCLUSIVE,
    }
}

fn save(path: &Path, shown: &[Trend], earlier: &[Trend]) -> Result<(), CliError> {
    let style = Style { colour: false, width: 100, zone: Zone::Local };
    let bytes = match path.extension().and_then(|e| e.to_str()) {
        Some("json") => format!("{:#}\n", crate::output::tagged(trend::SCHEMA, &data(shown, earlier))).into_bytes(),
        Some("md" | "markdown") => render::trends_markdown(shown, earlier).into_bytes(),
        Some("html" | "htm") => render::trends_html(shown, earlier).into_bytes(),
        Some("svg") => render::trends_svg(shown).into_bytes(),
        Some("png") => render::trends_png(shown),
        Some("txt") => render::trends(shown, earlier, style).into_bytes(),
        _ => {
            let text = format!("{}: name a file that ends in .svg, .png, .html, .md, .json or .txt", path.display());
            return Err(CliError::usage(text));
        }
    };
    fs::write(path, bytes).map_err(|e| CliError::file("write", path, &e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{output::tagged, render::trend_fixture, schema};

    fn folded(runs: usize, last_ms: i64) -> Vec<Trend> {
        let asked = Asked { newest: 1, baseline: Baseline::Last(20), alpha: trend::ALPHA };
        trends(trend_fixture(runs, last_ms), false, Some(&asked))
    }

    #[test]
    fn the_exit_code_is_that_of_the_worst_service() {
        assert_eq!(code(&folded(21, 9000)), exit::FAIL);
        assert_eq!(code(&folded(21, 3000)), exit::PASS);
        assert_eq!(code(&folded(5, 9000)), exit::INCONCLUSIVE);
        assert_eq!(code(&[]), exit::INCONCLUSIVE);
    }

    #[test]
    fn a_newest_run_without_a_report_is_not_passed_over() {
        let listed: Vec<RunId> = (0..23).rev().map(|number| RunId::new(format!("r{number:03}"))).collect();
        // Of the runs 0 to 20 the last is compared.
        for (unread, expected) in [("r021", exit::INCONCLUSIVE), ("r003", exit::PASS), ("x", exit::INCONCLUSIVE)] {
            let mut shown = folded(21, 3000);
            doubt(&mut shown, &[unread.into()], &listed);
            assert_eq!(code(&shown), expected, "{unread}");
        }
    }

    #[test]
    fn data_meets_its_published_schema() {
        let schema = jsonschema::validator_for(&schema::trend()).unwrap();
        let (shown, earlier) = newest(folded(21, 9000));
        let value = tagged(trend::SCHEMA, &data(&shown, &earlier));
        let wrong: Vec<String> = schema.iter_errors(&value).map(|e| e.to_string()).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
        assert!(!schema.is_valid(&json!({ "schema": trend::SCHEMA, "trends": [{}], "earlier": [] })));
    }

    #[test]
    fn a_files_ending_decides_its_form() {
        let folder = tempfile::tempdir().unwrap();
        let (shown, earlier) = newest(folded(21, 9000));
        let forms = [
            ("a.svg", &b"<svg "[..]),
            ("a.png", &b"\x89PNG\r\n\x1a\n"[..]),
            ("a.html", &b"<!DOCTYPE html>"[..]),
            ("a.md", &b"## "[..]),
            ("a.json", &b"{"[..]),
            ("a.txt", &b"shop"[..]),
        ];
        for (name, start) in forms {
            let path = folder.path().join(name);
            save(&path, &shown, &earlier).unwrap();
            assert!(fs::read(&path).unwrap().starts_with(start), "{name}");
        }
        assert_eq!(save(&folder.path().join("a"), &shown, &earlier).unwrap_err().exit, exit::USAGE);
    }
}
