//! Attending a run to its end: news in, presentation out, Ctrl-C turned into a stop. It starts nothing.

use std::time::Duration;

use fracas_model::id::RunId;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task::JoinHandle,
    time::{Interval, MissedTickBehavior, interval},
};

use crate::{
    client::{Client, ClientError},
    error::CliError,
    exit,
    face::Face,
    follow::{News, follow},
    live::{Ending, View},
    output::Output,
};

/// Between two frames: faster than the eye, slow enough for a serial line.
const FRAME: Duration = Duration::from_millis(100);
/// Between two attempts to stop over a broken connection.
const STOP_PAUSE: Duration = Duration::from_secs(1);

/// What Ctrl-C means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnInterrupt {
    /// The first one stops the run, the second leaves.
    Stop,
    /// The first one leaves; the run goes on.
    Leave,
}

/// How it ended, for us.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The run ended.
    Finished(Ending),
    /// We left before it ended.
    Left,
}

/// Ctrl-C, or the polite end that a service manager or a pipeline asks for.
///
/// From the first of these on, neither ends the process by itself: make one before a run is started, so that none is
/// lost between the start and the attendance.
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    held: bool,
    heard: bool,
}

impl Interrupts {
    pub(crate) fn new() -> Result<Self, CliError> {
        let watch = |kind| signal(kind).map_err(|e| CliError::failure(format!("cannot watch for Ctrl-C: {e}")));
        let (interrupt, terminate) = (watch(SignalKind::interrupt())?, watch(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate, held: false, heard: false })
    }

    /// Waits for one; those that came since the last call count as one.
    pub(crate) async fn next(&mut self) {
        if std::mem::take(&mut self.held) {
            return;
        }
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        self.heard = true;
    }

    /// Whether there ever was one.
    pub(crate) fn heard(&self) -> bool {
        self.heard
    }

    /// The one that was just heard is for whoever asks next.
    pub(crate) fn hold(&mut self) {
        self.held = true;
    }
}

/// Follows `run` from its beginning and tells everything after number `after`.
pub(crate) async fn attend(
    client: &Client,
    run: &RunId,
    after: u64,
    on_interrupt: OnInterrupt,
    interrupts: &mut Interrupts,
    output: Output,
) -> Result<Outcome, CliError> {
    let hint = match on_interrupt {
        OnInterrupt::Stop => "Ctrl-C stops and undoes",
        OnInterrupt::Leave => "Ctrl-C leaves, the run goes on",
    };
    let mut face = Face::new(output, hint);
    let mut view = View::of(run);
    let (listener, mut news) = mpsc::channel(64);
    let follower = tokio::spawn(follow(client.clone(), run.clone(), 0, listener));
    let mut frames = frames();
    let mut stopping: Option<JoinHandle<Result<Option<String>, ClientError>>> = None;
    let mut asked = false;
    let outcome = loop {
        tokio::select! {
            biased;
            () = interrupts.next() => {
                if asked || on_interrupt == OnInterrupt::Leave {
                    break Outcome::Left;
                }
                asked = true;
                face.say("stopping: everything is being undone; Ctrl-C again leaves", output);
                stopping = Some(tokio::spawn(stop(client.clone(), run.clone())));
            }
            done = async { stopping.as_mut().expect("checked by the guard").await }, if stopping.is_some() => {
                stopping = None;
                if let Ok(Err(error)) = done {
                    face.say(&format!("the stop was not taken: {error}"), output);
                }
            }
            heard = news.recv() => match heard {
                Some(News::Event(event)) => {
                    view.apply(&event);
                    face.event(&event, event.seq > after, output)?;
                }
                Some(News::Lost { why, pause }) => face.lost(&why.to_string(), pause, output),
                Some(News::Back) => {
                    if !matches!(face, Face::Live(_)) {
                        face.say("connection to the controller is back", output);
                    }
                }
                Some(News::Failed(error)) => {
                    face.draw(&view)?;
                    return Err(error.into());
                }
                Some(News::End) | None => match view.ending.clone() {
                    Some(ending) => break Outcome::Finished(ending),
                    None => return Err(CliError::failure(format!("the history of run {run} ended without a verdict"))),
                },
            },
            _ = frames.tick() => face.draw(&view)?,
        }
    };
    follower.abort();
    face.draw(&view)?;
    drop(face);
    if matches!(outcome, Outcome::Left) {
        output.notice(&leaving(&view, run));
    }
    Ok(outcome)
}

fn frames() -> Interval {
    let mut frames = interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Skip);
    frames
}

/// Asks until the controller has heard it. Asking twice is harmless.
async fn stop(client: Client, run: RunId) -> Result<Option<String>, ClientError> {
    loop {
        match client.stop_run(run.as_str(), "Ctrl-C").await {
            Err(error) if error.passing() => tokio::time::sleep(STOP_PAUSE).await,
            answer => return Ok(answer?.1),
        }
    }
}

fn leaving(view: &View, run: &RunId) -> String {
    let open = view.open_items();
    let faults = if open.is_empty() {
        "no fault is known to be active".to_owned()
    } else {
        format!("not yet undone: {}", open.join(", "))
    };
    format!(
        "left with exit code {}; run {run} goes on at the controller; {faults}\nsee: fracas watch {run}",
        exit::LEFT
    )
}
