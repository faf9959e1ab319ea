//! `fracas run`: start, attend, conclude. What Ctrl-C does is in `attend`; what a run does is the controller's business.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use fracas_model::{experiment::Action, id::RunId, report::Report};
use serde_json::json;

use super::{plan, report, series};
use crate::{
    LocalController, Session,
    args::RunArgs,
    attend::{Interrupts, OnInterrupt, Outcome, attend},
    client::{Client, ClientError, PlanAnswer, Submission},
    error::{CliError, unless_closed},
    exit,
    live::Ending,
    output::Output,
    schema::RESULT,
    source, words,
};

/// How often a start is asked for when the connection breaks before the answer; the key makes repeats harmless.
const STARTS: u32 = 3;

pub(crate) async fn run(session: &Session<'_>, given: &RunArgs) -> Result<u8, CliError> {
    // Where nothing is asked and nothing else is to be started first, none is missed from here on.
    let early = (given.yes && !given.local && !given.detach).then(Interrupts::new).transpose()?;
    let submission = source::submission(&given.document)?;
    if let Some(path) = &given.report {
        report::writable(path)?;
    }
    if !given.local {
        return on(session, given, &session.client()?, submission, early).await;
    }
    session.output.notice("starting a controller and an agent inside this command");
    if given.report.is_none() {
        session.output.notice("its history ends with the command; --report FILE keeps a report");
    }
    let mut labels: BTreeMap<String, String> = given.label.iter().cloned().collect();
    labels.entry("local".into()).or_insert_with(|| "true".into());
    let started = session.world.local.start(labels).await;
    let LocalController { access, stop } =
        started.map_err(|e| CliError::failure(format!("the local controller does not start: {e:#}")))?;
    let code = match Client::new(&access) {
        Ok(client) => on(session, given, &client, submission, None).await,
        Err(error) => Err(error.into()),
    };
    stop().await;
    code
}

async fn on(
    session: &Session<'_>,
    given: &RunArgs,
    client: &Client,
    what: Submission,
    early: Option<Interrupts>,
) -> Result<u8, CliError> {
    let output = session.output;
    if output.asks && !given.yes && !given.local && !agreed(output, client, &what, given.repeat).await? {
        output.notice("nothing was started");
        return Ok(exit::REFUSED);
    }
    if given.detach {
        let run = start(client, what).await?;
        if output.json {
            output.json("fracas.started/v1", &json!({ "run": run }))?;
        } else {
            output.line(run.as_str())?;
            output.notice(&format!("it goes on by itself; watch it: fracas watch {run}; end it: fracas stop {run}"));
        }
        return Ok(exit::PASS);
    }
    let mut interrupts = early.map_or_else(Interrupts::new, Ok)?;
    if let Some(times) = given.repeat {
        return series::series(session, client, given, what, times, &mut interrupts).await;
    }
    Ok(one(session, client, what, &mut interrupts, given.report.as_deref()).await?.code)
}

/// One run that was started, attended and concluded.
pub(super) struct Ended {
    /// Its exit code.
    pub(super) code: u8,
    /// Which it was; `None` if we left before that was known.
    pub(super) run: Option<RunId>,
    /// Its end; `None` if we left before.
    pub(super) ending: Option<Ending>,
}

/// Starts one run, attends it to its end and says how it was.
pub(super) async fn one(
    session: &Session<'_>,
    client: &Client,
    what: Submission,
    interrupts: &mut Interrupts,
    to: Option<&Path>,
) -> Result<Ended, CliError> {
    let Some(run) = start_unless_left(client, what, interrupts, session.output).await? else {
        return Ok(Ended { code: exit::LEFT, run: None, ending: None });
    };
    let outcome = match attend(client, &run, 0, OnInterrupt::Stop, interrupts, session.output).await {
        // Nobody reads on, and the verdict is not known: that is no success.
        Err(error) if error.unread() => Outcome::Left,
        other => other?,
    };
    let ending = match &outcome {
        Outcome::Finished(ending) => Some(ending.clone()),
        Outcome::Left => None,
    };
    let code = conclude(session, client, &run, outcome, to).await?;
    Ok(Ended { code, run: Some(run), ending })
}

/// Starts it. A Ctrl-C meanwhile is held for the attendance, which then stops the run; a second one leaves.
async fn start_unless_left(
    client: &Client,
    what: Submission,
    interrupts: &mut Interrupts,
    output: Output,
) -> Result<Option<RunId>, ClientError> {
    let starting = start(client, what);
    tokio::pin!(starting);
    tokio::select! {
        run = &mut starting => return run.map(Some),
        () = interrupts.next() => {}
    }
    output.notice("stopping as soon as the controller has answered; Ctrl-C again leaves");
    tokio::select! {
        run = &mut starting => {
            interrupts.hold();
            run.map(Some)
        }
        () = interrupts.next() => {
            output.notice("left before the controller answered: the run may have been started, see `fracas runs`");
            Ok(None)
        }
    }
}

async fn start(client: &Client, what: Submission) -> Result<RunId, ClientError> {
    let key = uuid::Uuid::new_v4().to_string();
    for _ in 1..STARTS {
        match client.start_run(what.clone(), &key).await {
            Err(error) if error.passing() => {}
            answer => return answer,
        }
    }
    client.start_run(what, &key).await
}

/// Shows who would suffer what and asks. A plan that cannot run is shown with its reasons instead.
async fn agreed(output: Output, client: &Client, what: &Submission, repeat: Option<u32>) -> Result<bool, CliError> {
    let answer = client.plan(what.clone()).await?;
    if plan::refused(&answer) {
        return Err(CliError { exit: exit::REFUSED, text: plan::refusals(&answer).trim().to_owned() });
    }
    output.agreed(&question(&answer, repeat)).await
}

fn question(answer: &PlanAnswer, repeat: Option<u32>) -> String {
    let mut by_host: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for entry in &answer.experiment.timeline {
        let Action::Fault { target, .. } = &entry.action else { continue };
        for host in answer.targets.get(target).into_iter().flatten() {
            let name = answer.hosts.get(host).map_or(host.as_str(), String::as_str);
            by_host.entry(name).or_default().insert(words::action(entry));
        }
    }
    let mut text =
        format!("{} would put {} under fault:\n", answer.experiment.name, words::count(by_host.len(), "host"));
    for (host, faults) in by_host {
        text += &format!("  {host}: {}\n", faults.into_iter().collect::<Vec<_>>().join(", "));
    }
    if let Some(times) = repeat {
        text += &format!("{} one after another, each on hosts drawn anew\n", words::count(times as usize, "run"));
    }
    text + "start? [y/N] "
}

/// Prints how it ended, writes the report that was asked for, and gives the exit code.
pub(crate) async fn conclude(
    session: &Session<'_>,
    client: &Client,
    run: &RunId,
    outcome: Outcome,
    to: Option<&Path>,
) -> Result<u8, CliError> {
    let Outcome::Finished(ending) = outcome else { return Ok(exit::LEFT) };
    let report = client.report::<Report>(run).await;
    let name = report.as_ref().map(|(r, _)| r.name.clone()).unwrap_or_default();
    let written = match (&report, to) {
        (Ok((report, _)), Some(path)) => Some(report::write(session, client, report, path).await),
        _ => None,
    };
    if session.output.json {
        let to = to.filter(|_| matches!(written, Some(Ok(()))));
        unless_closed(session.output.json(RESULT, &result(run, &name, &ending, to)))?;
    } else if let Ok((report, _)) = &report {
        unless_closed(session.output.text(&report::summary(report, session)))?;
    } else {
        unless_closed(session.output.line(&format!("{}: {}", ending.verdict.name(), ending.reasons.join("; "))))?;
    }
    if let Err(error) = &report {
        session.output.notice(&format!("the report could not be fetched: {error}; later: fracas report {run}"));
    }
    if let (Some(Ok(())), Some(path)) = (&written, to) {
        session.output.notice(&format!("report written to {}", path.display()));
    }
    // The run's verdict is what callers act on: a report that could not be written is said, and hides nothing.
    if let Some(Err(error)) = written {
        session.output.notice(&format!("fracas: {error}"));
    }
    Ok(ending.exit_code)
}

fn result(run: &RunId, name: &str, ending: &Ending, report: Option<&Path>) -> serde_json::Value {
    let verdict = ending.verdict.name().replace(' ', "-");
    let mut result = json!({
        "run": run, "name": name, "verdict": verdict, "exitCode": ending.exit_code, "reasons": ending.reasons,
    });
    if let Some(path) = report {
        result["report"] = path.display().to_string().into();
    }
    result
}

#[cfg(test)]
mod tests {
    use fracas_model::event::{Body, VerdictWord};

    use super::*;
    use crate::{fixture, output::tagged, schema};

    #[test]
    fn the_result_line_meets_its_schema() {
        let schema = jsonschema::validator_for(&schema::result()).unwrap();
        let verdicts =
            [VerdictWord::Pass, VerdictWord::UndoUnconfirmed, VerdictWord::Refused, VerdictWord::Inconclusive];
        for verdict in verdicts {
            let ending = Ending { verdict, exit_code: 6, reasons: vec!["a host is silent".into()] };
            let line = tagged(RESULT, &result(&"r1".into(), "shop", &ending, Some(Path::new("a.html"))));
            assert!(schema.is_valid(&line), "{line}");
        }
    }

    #[test]
    fn the_question_names_hosts_and_what_they_suffer() {
        let Body::Planned { document, targets, hosts, .. } = fixture::history().remove(0).body else { panic!() };
        let answer = PlanAnswer {
            seed: 7,
            intent: String::new(),
            plan: String::new(),
            experiment: serde_json::from_value(document).unwrap(),
            targets,
            hosts,
            canaries: BTreeMap::new(),
            rehearsals: Vec::new(),
            refusals: Vec::new(),
            warnings: Vec::new(),
            notes: Vec::new(),
        };
        assert_eq!(
            question(&answer, None),
            "shop-survives would put 1 host under fault:\n  db-1: crash on primary, lag on primary for 20s\nstart? [y/N] "
        );
        assert!(
            question(&answer, Some(3)).ends_with("3 runs one after another, each on hosts drawn anew\nstart? [y/N] ")
        );
    }
}
