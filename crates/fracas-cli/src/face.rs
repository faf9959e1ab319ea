//! How a run's news reach the outside: live view, plain lines, JSON Lines or silence. One of them per command.

use std::{io, time::Duration};

use fracas_model::event::Event;
use serde_json::json;

use crate::{
    lines::{self, Names},
    live::{Live, View},
    output::{Output, tagged},
    schema::{EVENT, NOTICE},
};

/// The chosen form.
pub(crate) enum Face {
    /// Redrawn in place.
    Live(Box<Live>),
    /// A line per significant event.
    Lines(Names),
    /// An object per event.
    Json,
    /// Results only.
    Silent,
}

impl Face {
    /// What suits the output.
    pub(crate) fn new(output: Output, hint: &str) -> Self {
        match output {
            Output { json: true, .. } => Self::Json,
            Output { quiet: true, .. } => Self::Silent,
            Output { live: true, .. } => Self::Live(Box::new(Live::new(output, hint))),
            _ => Self::Lines(Names::default()),
        }
    }

    /// Tells an event; one that was asked to be left out (`shown` false) only teaches names and clocks.
    pub(crate) fn event(&mut self, event: &Event, shown: bool, output: Output) -> io::Result<()> {
        match self {
            Self::Live(live) => live.event(event),
            Self::Lines(names) => {
                names.learn(event);
                if let Some(line) = lines::line(event, names, output.zone).filter(|_| shown) {
                    output.line(&line)?;
                }
            }
            Self::Json if shown => output.json(EVENT, event)?,
            Self::Json | Self::Silent => {}
        }
        Ok(())
    }

    /// Says something about the connection or the command itself.
    pub(crate) fn say(&mut self, what: &str, output: Output) {
        match self {
            Self::Live(live) => live.hint(what),
            // On standard error, so that standard output holds the history and the result and nothing else.
            Self::Json => output.notice(&tagged(NOTICE, &json!({ "text": what })).to_string()),
            Self::Lines(_) => output.notice(&format!("fracas: {what}")),
            Self::Silent => {}
        }
    }

    /// The connection is gone.
    pub(crate) fn lost(&mut self, why: &str, pause: Duration, output: Output) {
        if let Self::Live(live) = self {
            live.lost(why);
            return;
        }
        let (why, pause) = (why.lines().next().unwrap_or_default(), pause.as_millis());
        self.say(&format!("connection lost: {why}; the run goes on, trying again in {pause} ms"), output);
    }

    /// It is time for a new frame.
    pub(crate) fn draw(&mut self, view: &View) -> io::Result<()> {
        match self {
            Self::Live(live) => live.draw(view),
            _ => Ok(()),
        }
    }
}
