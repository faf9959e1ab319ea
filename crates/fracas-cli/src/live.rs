//! The live view of a run: events in, frames out, about ten a second. The fold, the lines and the terminal are parts of it.

mod draw;
mod screen;
pub(crate) mod span;
mod strip;
mod view;

use std::io::{self, Stdout};

use fracas_model::event::Event;

use self::screen::Screen;
pub(crate) use self::{
    draw::{Frame, frame},
    view::{Ending, View},
};
use crate::{output::Output, times};

/// A region of the terminal that shows a run.
pub(crate) struct Live {
    screen: Screen<Stdout>,
    output: Output,
    /// How far the controller's clock is behind ours, at most; the smallest delivery decides.
    skew_ns: Option<i64>,
    lost: Option<String>,
    hint: String,
}

impl Live {
    /// Starts below the cursor.
    pub(crate) fn new(output: Output, hint: &str) -> Self {
        let screen = Screen::new(io::stdout(), output.colour);
        Self { screen, output, skew_ns: None, lost: None, hint: hint.to_owned() }
    }

    /// Takes the clock difference from an event that just arrived.
    pub(crate) fn event(&mut self, event: &Event) {
        let skew = times::now() - event.received.wall_ns;
        self.skew_ns = Some(self.skew_ns.map_or(skew, |known| known.min(skew)));
        self.lost = None;
    }

    /// Nothing arrives at the moment.
    pub(crate) fn lost(&mut self, why: &str) {
        self.lost = Some(why.lines().next().unwrap_or_default().to_owned());
    }

    /// What keys do from now on.
    pub(crate) fn hint(&mut self, hint: &str) {
        hint.clone_into(&mut self.hint);
    }

    /// Draws what is known now.
    pub(crate) fn draw(&mut self, view: &View) -> io::Result<()> {
        let (width, rows) = Output::size();
        let at = Frame {
            now: times::now() - self.skew_ns.unwrap_or(0),
            // The last column stays free: some terminals wrap when it is written.
            width: width.saturating_sub(1).max(20),
            height: rows.saturating_sub(1).max(4),
            colour: self.output.colour,
            lost: self.lost.as_deref(),
            hint: &self.hint,
        };
        self.screen.draw(&frame(view, at), width)
    }
}
