//! The controller: schedules, drives runs, keeps history.
