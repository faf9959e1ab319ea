//! `fracas run --repeat`: one run after another, and what they show together. When a series goes on is the model's to say.

use std::path::{Path, PathBuf};

use fracas_model::{
    id::RunId,
    series,
    trend::{Trend, trends},
};
use serde_json::{Value, json};

use super::{run, trend};
use crate::{
    Session,
    args::RunArgs,
    attend::Interrupts,
    client::{Client, ClientError, ResultsQuery, Submission},
    error::{CliError, unless_closed},
    exit,
    live::Ending,
    render::{self, Style},
    schema::SERIES,
    words,
};

/// A run of the series.
struct Member {
    run: RunId,
    seed: u64,
    ending: Ending,
}

pub(super) async fn series(
    session: &Session<'_>,
    client: &Client,
    given: &RunArgs,
    what: Submission,
    times: u32,
    interrupts: &mut Interrupts,
) -> Result<u8, CliError> {
    let first = if what.seed == 0 { drawn() } else { what.seed };
    let mut members: Vec<Member> = Vec::new();
    let mut codes = Vec::new();
    let mut ended = None;
    for number in 0..times {
        let seed = series::seed(first, number);
        session.output.notice(&format!("run {} of {times}, seed {seed}", number + 1));
        let to = given.report.as_deref().map(|path| numbered(path, number + 1));
        let one = run::one(session, client, Submission { seed, ..what.clone() }, interrupts, to.as_deref()).await;
        let one = match one {
            Ok(one) => one,
            // What the runs before have shown is not lost because the next one could not be started.
            Err(error) if !members.is_empty() => {
                session.output.notice(&format!("fracas: {error}"));
                codes.push(error.exit);
                ended = Some("the next run could not be started".to_owned());
                break;
            }
            Err(error) => return Err(error),
        };
        codes.push(one.code);
        let (Some(run), Some(ending)) = (one.run, one.ending) else {
            ended = Some("left".to_owned());
            break;
        };
        let verdict = ending.verdict.clone();
        members.push(Member { run, seed, ending });
        if interrupts.heard() {
            ended = Some("Ctrl-C".to_owned());
            break;
        }
        if number + 1 < times && !series::goes_on(&verdict, given.keep_going) {
            ended = Some(format!("run {} ended with {}", number + 1, verdict.name()));
            break;
        }
    }
    let code = series::worst(codes);
    sum_up(session, client, &what, &members, times, ended.as_deref(), code).await?;
    Ok(code)
}

/// Says what the runs show together.
async fn sum_up(
    session: &Session<'_>,
    client: &Client,
    what: &Submission,
    members: &[Member],
    times: u32,
    ended: Option<&str>,
    code: u8,
) -> Result<(), CliError> {
    let output = session.output;
    let shown = match together(client, what, members).await {
        Ok(shown) => shown,
        Err(error) => {
            output.notice(&format!("what the runs show together could not be fetched: {error}"));
            Vec::new()
        }
    };
    if output.json {
        return unless_closed(output.json(SERIES, &data(members, times, ended, code, &shown)));
    }
    let passed = members.iter().filter(|member| member.ending.exit_code == exit::PASS).count();
    let early = ended.map(|why| format!("; ended early: {why}")).unwrap_or_default();
    let runs = words::count(members.len(), "run");
    let head = format!("\nseries: {runs} of {times}, {passed} passed{early}\n");
    let style = Style { colour: output.colour, width: session.width(), zone: output.zone };
    unless_closed(output.text(&format!("{head}{}", render::trends(&shown, &[], style))))
}

/// Trends of the series' runs alone.
async fn together(client: &Client, what: &Submission, members: &[Member]) -> Result<Vec<Trend>, ClientError> {
    let Some(last) = members.last() else { return Ok(Vec::new()) };
    let experiment = client.run(last.run.as_str()).await?.name;
    let query =
        ResultsQuery { experiment, environment: what.environment.clone(), limit: 1000, ..ResultsQuery::default() };
    let mut points = client.results(query).await?.points;
    points.retain(|point| members.iter().any(|member| member.run == point.run));
    Ok(trends(points, false, None))
}

fn data(members: &[Member], times: u32, ended: Option<&str>, code: u8, shown: &[Trend]) -> Value {
    let runs: Vec<Value> = members
        .iter()
        .map(|member| {
            let verdict = member.ending.verdict.name().replace(' ', "-");
            json!({ "run": member.run, "seed": member.seed, "verdict": verdict, "exitCode": member.ending.exit_code })
        })
        .collect();
    let mut data = trend::data(shown, &[]);
    data["asked"] = times.into();
    data["exitCode"] = code.into();
    data["runs"] = runs.into();
    if let Some(why) = ended {
        data["endedEarly"] = why.into();
    }
    data
}

/// A seed by chance; 0 would let the controller draw each anew, and the series could not be repeated.
fn drawn() -> u64 {
    let bits = uuid::Uuid::new_v4().as_u128();
    ((bits >> 64) as u64 ^ bits as u64).max(1)
}

/// `a.html` for the second run: `a.2.html`.
fn numbered(path: &Path, number: u32) -> PathBuf {
    match path.extension().and_then(|e| e.to_str()) {
        Some(ending) => path.with_extension(format!("{number}.{ending}")),
        None => path.with_extension(number.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use fracas_model::event::VerdictWord;

    use super::*;
    use crate::{output::tagged, render::trend_fixture, schema};

    #[test]
    fn the_last_line_meets_its_schema() {
        let schema = jsonschema::validator_for(&schema::series()).unwrap();
        let ending = |verdict, exit_code| Ending { verdict, exit_code, reasons: Vec::new() };
        let members = [
            Member { run: "r1".into(), seed: 7, ending: ending(VerdictWord::Pass, 0) },
            Member { run: "r2".into(), seed: 9, ending: ending(VerdictWord::UndoUnconfirmed, 6) },
        ];
        let shown = trends(trend_fixture(2, 3000), false, None);
        for ended in [None, Some("Ctrl-C")] {
            let line = tagged(SERIES, &data(&members, 5, ended, 6, &shown));
            let wrong: Vec<String> = schema.iter_errors(&line).map(|e| e.to_string()).collect();
            assert!(wrong.is_empty(), "{wrong:?}");
        }
    }

    #[test]
    fn each_run_has_a_report_of_its_own() {
        assert_eq!(numbered(Path::new("x/a.html"), 2), Path::new("x/a.2.html"));
        assert_eq!(numbered(Path::new("a.b.md"), 1), Path::new("a.b.1.md"));
        assert_eq!(numbered(Path::new("a"), 3), Path::new("a.3"));
        assert_ne!(drawn(), drawn());
    }
}
