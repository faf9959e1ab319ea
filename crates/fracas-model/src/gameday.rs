//! Game days: several experiments in order, compiled into one experiment with sections, so that there is one run, one
//! history, one stop and one report. It reads no file and runs nothing.
//!
//! ```text
//! for each section:  [wait] -> [go or no-go] -> [steady state] -> its timeline -> recovery -> the next section
//! ```
//! What a section's own document calls NAME is `SECTION.NAME` in the day; entries that the day adds are `SECTION:NAME`.

mod compile;
mod form;
mod read;
#[cfg(test)]
mod tests;

pub use self::{
    form::game_day_shape,
    read::{files, is_game_day, read_game_day},
};

/// A commented game day to start from: it is valid beside the experiment that [`crate::document::starter`] gives, under the
/// name `kill-db.yaml`.
pub fn starter() -> &'static str {
    include_str!("gameday/starter.yaml")
}
