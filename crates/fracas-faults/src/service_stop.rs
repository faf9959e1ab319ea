//! The fault `service-stop`: a systemd unit is stopped in good order, and started again.

use fracas_model::{
    catalogue::{Capability, FaultInfo, Nature, Params},
    facts::{Facts, Question, UnitSeen},
    plan::{Check, Claim, Plan, Refusal, Step},
    shape::{Field, Shape},
};

use crate::Fault;

/// The fault.
pub struct ServiceStop;

/// Units that are started again as they were. Others stand for more than themselves.
const KINDS: [&str; 4] = [".service", ".socket", ".timer", ".path"];
/// Longest name of a unit: `UNIT_NAME_MAX` of systemd, less the closing zero.
const LONGEST: usize = 255;

const HELP: &str = "Asks systemd to stop the unit, as systemctl stop does: its processes are told to end and get the time \
    their unit gives them (TimeoutStopSec), nothing is killed at once, and Restart= does not bring it back. To see a crash \
    rather than a stop, use process-kill.\n\n\
    Undo asks systemd to start the unit, and waits until it is active. Only a unit that was active is stopped, so only \
    that is started. When somebody else started it meanwhile it is left alone. The undo is in the journal before \
    anything is done; it survives kill -9 of the agent. After a reboot systemd starts what is enabled; a unit that is not \
    is started by the undo, as it had been.\n\n\
    Refused where a running unit needs this one (Requires=, BindsTo=, PartOf=) and would be stopped along, because the \
    undo would not bring that one back. A socket, timer or path that starts the unit may do so while it is stopped: stop \
    that one too, or the fault is reported as ineffective. Refused are units that keep the host running and reachable \
    (systemd's own, dbus, ssh, the network, container runtimes), the agent's own, and what the policy's protectProcesses \
    names.\n\n\
    systemd must run the host and the agent must be root. It is spoken to at the system bus, or at systemd's own socket \
    where there is no bus; no other program is started.";

impl Fault for ServiceStop {
    fn info(&self) -> FaultInfo {
        FaultInfo {
            name: "service-stop".into(),
            summary: "Stop a systemd unit, then start it again.".into(),
            help: HELP.into(),
            params: vec![Field::required(
                "unit",
                Shape::Text { max: LONGEST },
                "Name of the unit; nginx is nginx.service.",
            )],
            nature: Nature::Lasting,
            needs: vec![vec![Capability::Systemd]],
            example: "{ service-stop: { unit: nginx } }".into(),
        }
    }

    fn asks(&self, params: &Params) -> Vec<Question> {
        name(params).ok().map(Question::Unit).into_iter().collect()
    }

    fn plan(&self, params: &Params, facts: &Facts) -> Result<Plan, Refusal> {
        let asked = name(params)?;
        protected(&asked, facts)?;
        if facts.host.uid != 0 {
            return Err(Refusal::new(
                format!("{asked} cannot be stopped by user {}", facts.host.uid),
                "run the agent as root",
            ));
        }
        let seen = match &facts.unit {
            Some(Ok(seen)) => seen,
            Some(Err(why)) => {
                return Err(Refusal::new(
                    format!("{asked} cannot be stopped: {why}"),
                    "choose hosts that systemd runs, or use process-kill",
                ));
            }
            None => return Err(Refusal::new(format!("nothing is known of {asked}"), "plan again")),
        };
        restartable(&asked, seen)?;
        protected(&seen.name, facts)?;
        let unit = seen.name.clone();
        Ok(Plan {
            steps: vec![Step::StopUnit { unit: unit.clone() }],
            claims: vec![Claim::Unit(unit.clone())],
            summary: format!("stop {unit}"),
            check: Check::UnitStopped { unit },
        })
    }
}

/// The whole name of the unit.
fn name(params: &Params) -> Result<String, Refusal> {
    let given = params.text("unit").unwrap_or_default();
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":_.\\@-".contains(c);
    if given.is_empty() || !given.chars().all(allowed) {
        return Err(Refusal::new(format!("{given:?} is not the name of a unit"), "write it as systemctl prints it"));
    }
    let whole = if given.contains('.') { given.to_owned() } else { format!("{given}.service") };
    if KINDS.iter().any(|kind| whole.ends_with(kind)) {
        return Ok(whole);
    }
    Err(Refusal::new(format!("{whole} is not a service, socket, timer or path"), "name the unit that is really meant"))
}

fn protected(unit: &str, facts: &Facts) -> Result<(), Refusal> {
    facts.policy.protects_unit(unit).map_or(Ok(()), |why| {
        Err(Refusal::new(
            format!("{unit} is protected: {why}"),
            "choose another unit; protection is up to the owner of the host",
        ))
    })
}

/// Refuses what is not running, or would not be as it was after a stop and a start.
fn restartable(asked: &str, seen: &UnitSeen) -> Result<(), Refusal> {
    let name = &seen.name;
    let no = |why: String, instead: &str| Err(Refusal::new(why, instead));
    if seen.load != "loaded" {
        return match seen.load.as_str() {
            "not-found" => no(format!("there is no unit {asked}"), "`systemctl list-units` names those there are"),
            load => no(format!("{name} is {load}"), "choose a unit that systemd has loaded"),
        };
    }
    if seen.active != "active" {
        return no(format!("{name} is {}: there is nothing to stop", seen.active), "start it first, or choose another");
    }
    if seen.ours {
        return no(format!("{name} is protected: the agent runs in it"), "choose another unit");
    }
    if !seen.stoppable {
        return no(format!("{name} may not be stopped by hand"), "choose a unit without RefuseManualStop=");
    }
    if !seen.dependents.is_empty() {
        return no(
            format!(
                "{name} is needed by {}, which would be stopped along and not started again",
                seen.dependents.join(", ")
            ),
            "stop those first as faults of their own, or use process-kill",
        );
    }
    Ok(())
}
