//! The fault `cpu-load`: processor time is burned on chosen cores.

use fracas_model::{
    catalogue::{Capability, FaultInfo, Nature, Params},
    facts::{Facts, Question},
    plan::{Burn, BurnMode, Check, Claim, Plan, Refusal, Step},
    shape::{Field, Shape},
};
use serde_json::Value;

use crate::Fault;

/// The fault.
pub struct CpuLoad;

const HELP: &str = "A worker burns processor time with one thread pinned to each chosen core, in slices of 10 to 20 ms \
    of random length, and corrects itself by the time it really got. `percent` is of each core: 50 % on four cores is \
    200 % in `top`.\n\n\
    mode added (the default) burns this much beside whatever else runs. mode total looks at the idle time of each core \
    and burns only what is missing, so that all use together reaches the percentage; it steers ten times a second and \
    leaves alone a core that others use more than that.\n\n\
    The worker asks for a raised priority (nice -10), so that it gets its share also when the core is busy; without the \
    right to that it competes like any other process, and a busy core gives it less than asked: then the fault is \
    reported as ineffective, with what was measured. Cgroup limits on the agent's own unit (CPUQuota, CPUWeight) bind \
    the worker too.\n\n\
    The kernel ends it with the worker: nothing stays behind, also after kill -9 of the agent.";

impl Fault for CpuLoad {
    fn info(&self) -> FaultInfo {
        let number = Shape::Integer { min: 0, max: 1023 };
        let count = Shape::Integer { min: 1, max: 1024 };
        FaultInfo {
            name: "cpu-load".into(),
            summary: "Burn a share of processor time on some or all cores.".into(),
            help: HELP.into(),
            params: vec![
                Field::required("percent", Shape::Percent { min: 1.0, max: 100.0 }, "How much of each core."),
                Field::with_default(
                    "mode",
                    Shape::choice(&["added", "total"]),
                    "added",
                    "Whether the percentage is added to what others use, or all use together is brought up to it.",
                ),
                Field::optional(
                    "cores",
                    Shape::Either(vec![count, Shape::list(number, 1024)]),
                    "How many cores (the first of them), or a list of core numbers; all when absent.",
                ),
            ],
            nature: Nature::Lasting,
            needs: vec![vec![Capability::Cpu]],
            example: "{ cpu-load: { percent: 80%, cores: 1 } }".into(),
        }
    }

    fn asks(&self, _params: &Params) -> Vec<Question> {
        Vec::new()
    }

    fn plan(&self, params: &Params, facts: &Facts) -> Result<Plan, Refusal> {
        let percent =
            params.percent("percent").ok_or_else(|| Refusal::new("percent is missing", "give percent: 80%"))?;
        let (mode, word) = match params.text("mode") {
            Some("total") => (BurnMode::Total, "use"),
            _ => (BurnMode::Added, "add"),
        };
        let (cores, which) = cores(params, facts)?;
        let burn = Burn { percent, mode, cores: cores.clone() };
        Ok(Plan {
            claims: cores.iter().map(|core| Claim::Core(*core)).collect(),
            steps: vec![Step::Burn(burn)],
            check: Check::CpuUse { percent, cores, mode },
            summary: format!("{word} {percent} of {which}"),
        })
    }
}

/// Core numbers, ascending, and how they were chosen.
fn cores(params: &Params, facts: &Facts) -> Result<(Vec<u32>, String), Refusal> {
    let known = if facts.host.cores.is_empty() { (0..facts.host.cpus).collect() } else { facts.host.cores.clone() };
    let list = |cores: &[u32]| cores.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let chosen: Vec<u32> = match params.0.get("cores") {
        None => return Ok((known, "every core".into())),
        Some(Value::Array(numbers)) => {
            let mut numbers: Vec<u32> =
                numbers.iter().filter_map(Value::as_u64).filter_map(|n| u32::try_from(n).ok()).collect();
            numbers.sort_unstable();
            numbers.dedup();
            numbers
        }
        Some(count) => {
            let count = count.as_u64().and_then(|c| usize::try_from(c).ok()).unwrap_or(usize::MAX);
            if count > known.len() {
                return Err(Refusal::new(
                    format!("{count} cores are asked, the agent may use {}", known.len()),
                    format!("set cores to at most {}, or leave it out for all of them", known.len()),
                ));
            }
            let which = if count == 1 { "1 core".into() } else { format!("{count} cores") };
            return Ok((known[..count].to_vec(), which));
        }
    };
    match chosen.iter().find(|core| !known.contains(core)) {
        Some(core) => Err(Refusal::new(
            format!("core {core} is not one the agent may use"),
            format!("choose from {}", list(&known)),
        )),
        None => Ok((chosen.clone(), format!("core {}", list(&chosen)))),
    }
}
