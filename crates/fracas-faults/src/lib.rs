//! The fault catalogue: one file per fault, each a pure planner; one table.
//!
//! To add a fault: copy the file that is nearest to it, write its `info` and `plan`, and add one line to [`ALL`].
//! Command line, help, schema, journal, dry run and undo follow by themselves. Nobody writes undo code here:
//! a plan is made of [`fracas_model::plan::Step`]s, and each step knows its own inverse.

use fracas_model::{
    catalogue::{FaultInfo, Params},
    facts::{Facts, Question},
    plan::{Plan, Refusal},
};

pub mod cpu_load;
pub mod disk_fill;
pub mod file_replace;
pub mod net_delay;
pub mod net_loss;
mod network;
mod process;
pub mod process_kill;
pub mod process_pause;
pub mod service_stop;

#[cfg(test)]
mod tests;

/// A kind of trouble. Every function is pure: same arguments, same answer.
pub trait Fault: Sync {
    /// Name, parameters, needs, help.
    fn info(&self) -> FaultInfo;
    /// What must be looked up on the host before planning.
    fn asks(&self, params: &Params) -> Vec<Question>;
    /// What to do to this host, or why not. `params` were checked against `info().params`.
    fn plan(&self, params: &Params, facts: &Facts) -> Result<Plan, Refusal>;
}

/// Every fault there is.
pub const ALL: &[&dyn Fault] = &[
    &cpu_load::CpuLoad,
    &disk_fill::DiskFill,
    &file_replace::FileReplace,
    &net_delay::NetDelay,
    &net_loss::NetLoss,
    &process_kill::ProcessKill,
    &process_pause::ProcessPause,
    &service_stop::ServiceStop,
];
