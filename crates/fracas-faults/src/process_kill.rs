//! The fault `process-kill`: a signal to chosen processes, once.

use fracas_model::{
    catalogue::{Capability, FaultInfo, Nature, Params},
    facts::{Facts, Question},
    plan::{Check, Plan, Refusal, Step},
    shape::{Field, Shape},
};

use crate::{Fault, process};

/// The fault.
pub struct ProcessKill;

/// Names and numbers, as on every architecture this is built for.
const SIGNALS: [(&str, i32); 9] = [
    ("KILL", 9),
    ("TERM", 15),
    ("INT", 2),
    ("QUIT", 3),
    ("HUP", 1),
    ("USR1", 10),
    ("USR2", 12),
    ("ABRT", 6),
    ("SEGV", 11),
];

const HELP: &str = "Sends one signal to each chosen process, through a descriptor that cannot be mistaken for another \
    process. With KILL the process ends at once and runs nothing any more: files stay as they were written, its sockets \
    are closed by the kernel, its children live on (a supervisor usually ends or restarts them). TERM, INT, QUIT and \
    HUP ask for an orderly end or whatever else the program makes of them; ABRT and SEGV look like a crash and may \
    write a core dump.\n\n\
    There is nothing to undo: restarting is the supervisor's or the operator's business, and usually the very thing \
    to be measured. The signal is sent exactly once; an agent that dies in between never repeats it.\n\n\
    The effect is seen when the processes are gone (KILL), else when the signal is no longer pending; a process that \
    ignores the signal makes the fault ineffective.";

impl Fault for ProcessKill {
    fn info(&self) -> FaultInfo {
        let words: Vec<&str> = SIGNALS.iter().map(|(name, _)| *name).collect();
        let mut params = process::fields();
        params.push(Field::with_default("signal", Shape::choice(&words), "KILL", "Which signal, without SIG."));
        FaultInfo {
            name: "process-kill".into(),
            summary: "Kill processes, or send them another signal, once.".into(),
            help: format!("{HELP}\n\n{}", process::CHOOSING),
            params,
            nature: Nature::Spent,
            // Own processes can always be signalled; others are refused by the planner, with the ability's way out.
            needs: Vec::new(),
            example: "{ process-kill: { name: postgres, signal: KILL } }".into(),
        }
    }

    fn asks(&self, params: &Params) -> Vec<Question> {
        process::asks(params)
    }

    fn plan(&self, params: &Params, facts: &Facts) -> Result<Plan, Refusal> {
        let found = process::choose(params, facts)?;
        process::reachable(&found, facts, Capability::SignalAny)?;
        let asked = params.text("signal").unwrap_or("KILL");
        let (name, signal) = SIGNALS.iter().find(|(name, _)| *name == asked).ok_or_else(|| {
            Refusal::new(
                format!("signal {asked} is not offered"),
                "see `fracas faults process-kill` for those that are",
            )
        })?;
        let step = |p: &&_| {
            let process: &fracas_model::process::Process = p;
            Step::Signal { process: process.id.clone(), signal: *signal, signal_name: (*name).to_owned() }
        };
        let processes = found.iter().map(|p| p.id.clone()).collect();
        Ok(Plan {
            steps: found.iter().map(step).collect(),
            // Nothing is held; whoever holds the process otherwise learns that it is gone.
            claims: Vec::new(),
            check: match *name {
                "KILL" => Check::Gone { processes },
                _ => Check::Delivered { processes, signal: *signal },
            },
            summary: format!(
                "send SIG{name} to {} ({})",
                process::described(&process::selector(params)?),
                of(found.len())
            ),
        })
    }
}

fn of(count: usize) -> String {
    if count == 1 { "1 process".into() } else { format!("{count} processes") }
}
