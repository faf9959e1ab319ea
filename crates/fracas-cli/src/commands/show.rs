//! `fracas show`: one run as it stands: summary, entries, faults per host, and the history so far.

use fracas_model::{event::Event, units::Dur};
use futures_util::StreamExt as _;
use serde_json::json;

use crate::{
    Session,
    args::RunName,
    client::{Client, RunSummary},
    error::CliError,
    exit,
    follow::Source as _,
    lines::{self, Names},
    live::{Frame, View, frame},
    times,
};

pub(crate) async fn show(session: &Session<'_>, given: &RunName) -> Result<u8, CliError> {
    let client = session.client()?;
    let run = client.run(&given.run).await?;
    let history = history(&client, &run).await?;
    if session.output.json {
        session.output.json("fracas.run/v1", &json!({ "run": run, "history": history }))?;
        return Ok(exit::PASS);
    }
    session.output.text(&summary(session, &run))?;
    session.output.text(&state(session, &history))?;
    session.output.text(&story(session, &history))?;
    Ok(exit::PASS)
}

/// Everything up to the head of the moment; a running run has more to come, which `watch` shows.
async fn history(client: &Client, run: &RunSummary) -> Result<Vec<Event>, CliError> {
    let mut history = Vec::new();
    if run.head_seq == 0 {
        return Ok(history);
    }
    let mut events = client.open(&run.run, 0).await?;
    while let Some(event) = events.next().await {
        let event = event?;
        let last = event.seq >= run.head_seq;
        history.push(event);
        if last {
            break;
        }
    }
    Ok(history)
}

fn summary(session: &Session<'_>, run: &RunSummary) -> String {
    let zone = session.output.zone;
    let mut text = format!("run          {}\nexperiment   {}\n", run.run, run.name);
    let verdict = if run.verdict.is_empty() { String::new() } else { format!(", {}", run.verdict) };
    let code = if run.ended_wall_ns == 0 { String::new() } else { format!(" (exit code {})", run.exit_code) };
    text += &format!("state        {}{verdict}{code}\n", run.state);
    if !run.reason.is_empty() {
        text += &format!("reason       {}\n", run.reason);
    }
    text += &format!("started      {} by {}\n", times::both(run.started_wall_ns, zone), run.by);
    if run.ended_wall_ns != 0 {
        let took = Dur::from_ns(run.ended_wall_ns - run.started_wall_ns).human();
        text += &format!("ended        {} after {took}\n", times::both(run.ended_wall_ns, zone));
    }
    text + &format!("environment  {}\n\n", run.environment)
}

fn state(session: &Session<'_>, history: &[Event]) -> String {
    let mut view = View::default();
    for event in history {
        view.apply(event);
    }
    let colour = session.output.colour;
    let (width, height) = (session.width(), usize::MAX);
    let lines = frame(&view, Frame { now: times::now(), width, height, colour, lost: None, hint: "" });
    lines.iter().map(|line| format!("{}\n", line.render(colour).trim_end())).collect()
}

fn story(session: &Session<'_>, history: &[Event]) -> String {
    let mut names = Names::default();
    let mut text = "\nhistory (UTC, local, from the start of the timeline)\n".to_owned();
    for event in history {
        names.learn(event);
        if let Some(line) = lines::line(event, &names, session.output.zone) {
            text += &format!("{:>5} {line}\n", event.seq);
        }
    }
    text
}
