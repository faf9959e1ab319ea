//! `fracas runs`: a table of runs, newest first.

use fracas_model::units::Dur;
use serde_json::json;

use crate::{
    Session,
    args::RunsArgs,
    client::RunSummary,
    error::CliError,
    exit,
    table::table,
    times::{self, Zone},
};

pub(crate) async fn runs(session: &Session<'_>, given: &RunsArgs) -> Result<u8, CliError> {
    let runs = session.client()?.runs(given.limit).await?;
    if session.output.json {
        session.output.json("fracas.runs/v1", &json!({ "runs": runs }))?;
    } else if runs.is_empty() {
        session.output.notice("no run yet; start one: fracas run FILE");
    } else {
        let rows: Vec<Vec<String>> = runs.iter().map(|run| row(run, session.output.zone)).collect();
        let heading = ["run", "experiment", "state", "verdict", "started", "took", "reason"];
        session.output.text(&table(session.width(), &heading, &rows))?;
    }
    Ok(exit::PASS)
}

fn row(run: &RunSummary, zone: Zone) -> Vec<String> {
    let took = match run.ended_wall_ns {
        0 => String::new(),
        ended => Dur::from_ns(ended - run.started_wall_ns).human(),
    };
    vec![
        run.run.to_string(),
        run.name.clone(),
        run.state.clone(),
        run.verdict.clone(),
        times::local_second(run.started_wall_ns, zone),
        took,
        run.reason.clone(),
    ]
}
