//! The controller: schedules, drives runs, keeps history.

pub mod fleet;
