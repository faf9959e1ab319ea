//! The fault `process-pause`: chosen processes stand still for a while, then go on.

use fracas_model::{
    catalogue::{Capability, FaultInfo, Nature, Params},
    facts::{Facts, Question},
    plan::{Check, Claim, Plan, Refusal, Step},
    process::ProcessRef,
};

use crate::{Fault, process};

/// The fault.
pub struct ProcessPause;

const HELP: &str = "Stops all threads of each chosen process: it answers nothing, but its sockets, locks and memory stay \
    as they are and the kernel still accepts connections for it. That is how a long garbage collection, a stalled disk \
    or a suspended virtual machine looks from outside. Children are not stopped unless chosen themselves.\n\n\
    Where the host allows ptrace, a worker seizes the threads. The kernel lets them go when that worker ends, however \
    it ends: undo needs nobody, and survives kill -9 of the agent. The parent of the process sees nothing and a foreign \
    SIGCONT changes nothing; a debugger cannot attach meanwhile. Elsewhere SIGSTOP is used, undone by SIGCONT from the \
    journal; the parent is then told, and any SIGCONT ends the fault early.\n\n\
    Not invisible to the program: when it goes on, a blocked epoll_wait, sigwaitinfo or recv with a timeout returns \
    EINTR, clocks have jumped and timeouts expire at once. Programs that do not retry on EINTR may fail at that point; \
    that is a finding. If the process is killed while it is paused, it ends and its parent is told.";

impl Fault for ProcessPause {
    fn info(&self) -> FaultInfo {
        FaultInfo {
            name: "process-pause".into(),
            summary: "Stop all threads of processes, then let them go on.".into(),
            help: format!("{HELP}\n\n{}", process::CHOOSING),
            params: process::fields(),
            nature: Nature::Lasting,
            // Own processes can always be stopped; others are refused by the planner, with the ability's way out.
            needs: Vec::new(),
            example: "{ process-pause: { name: redis-server } }".into(),
        }
    }

    fn asks(&self, params: &Params) -> Vec<Question> {
        process::asks(params)
    }

    fn plan(&self, params: &Params, facts: &Facts) -> Result<Plan, Refusal> {
        let found = process::choose(params, facts)?;
        let seize = facts.host.can(Capability::Ptrace);
        if !seize {
            process::reachable(&found, facts, Capability::SignalAny)?;
        }
        let step = |process: ProcessRef| if seize { Step::Seize { process } } else { Step::Suspend { process } };
        let processes: Vec<ProcessRef> = found.iter().map(|p| p.id.clone()).collect();
        Ok(Plan {
            steps: processes.iter().cloned().map(step).collect(),
            claims: processes.iter().map(|p| Claim::Process(p.pid)).collect(),
            check: Check::Stopped { processes },
            summary: format!(
                "stop {} by {}",
                process::described(&process::selector(params)?),
                if seize { "ptrace" } else { "SIGSTOP" }
            ),
        })
    }
}
