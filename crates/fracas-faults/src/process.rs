//! How faults on processes choose them: the shared parameters, and the checks every such fault makes before it plans.
//! What is done to the processes is each fault's own file.

use fracas_model::{
    catalogue::{Capability, Params},
    facts::{Facts, Question},
    plan::Refusal,
    process::{Process, ProcessSelector},
    shape::{Field, Shape},
};

/// Most process roots one fault may be allowed to reach.
const MOST: i64 = 1000;

/// `name`, `pidFile`, `port`, `unit` and `count`.
pub(crate) fn fields() -> Vec<Field> {
    let port = Shape::Integer { min: 1, max: 65_535 };
    vec![
        Field::optional(
            "name",
            Shape::Text { max: 255 },
            "Name of the processes, as `ps -o comm`, the program's file or the first word of the command line has it. \
             A match below another match (a worker of the same server) is not counted.",
        ),
        Field::optional("pidFile", Shape::Path, "File on whose first line the process number stands."),
        Field::optional("port", port, "TCP port the process listens on."),
        Field::optional(
            "unit",
            Shape::Text { max: 255 },
            "The systemd service the processes belong to: nginx.service.",
        ),
        Field::with_default(
            "count",
            Shape::Integer { min: 1, max: MOST },
            1,
            "How many processes may be hit at most; when more match, nothing is done at all.",
        ),
    ]
}

/// The paragraph on choosing, for help.
pub(crate) const CHOOSING: &str = "Choose the processes by exactly one of name, pidFile, port and unit. \
    If more match than count (default 1) the fault is refused and names them; nothing is ever trimmed silently. \
    Init, kernel threads, the agent and what started it, sshd, systemd, dbus, kubelet and container runtimes are refused, \
    and so is whatever the host's policy protects, by whichever of its names it is chosen. Processes are held by number and start time together: should the number \
    pass to another process in the meantime, that one is left alone.";

/// What the parameters ask for; exactly one way of choosing.
pub(crate) fn selector(params: &Params) -> Result<ProcessSelector, Refusal> {
    let port = params.integer("port").and_then(|p| u16::try_from(p).ok());
    let unit = |u: &str| if u.contains('.') { u.to_owned() } else { format!("{u}.service") };
    let mut given = [
        params.text("name").map(|n| ProcessSelector::Name(n.into())),
        params.text("pidFile").map(|f| ProcessSelector::PidFile(f.into())),
        port.map(ProcessSelector::Port),
        params.text("unit").map(|u| ProcessSelector::Unit(unit(u))),
    ]
    .into_iter()
    .flatten();
    match (given.next(), given.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(Refusal::new("no process is chosen", "give one of name, pidFile, port or unit")),
        (Some(_), Some(_)) => {
            Err(Refusal::new("processes are chosen in two ways", "give only one of name, pidFile, port and unit"))
        }
    }
}

/// The question that goes with the parameters.
pub(crate) fn asks(params: &Params) -> Vec<Question> {
    selector(params).ok().map(Question::Processes).into_iter().collect()
}

/// The way of choosing, for summaries: `postgres`, `the listener on port 5432`.
pub(crate) fn described(selector: &ProcessSelector) -> String {
    match selector {
        ProcessSelector::Name(name) => name.clone(),
        ProcessSelector::PidFile(path) => format!("the process of {path}"),
        ProcessSelector::Port(port) => format!("the listener on port {port}"),
        ProcessSelector::Unit(unit) => format!("the processes of {unit}"),
    }
}

/// The processes meant, ordered by number: at least one, at most `count`, none protected.
pub(crate) fn choose<'f>(params: &Params, facts: &'f Facts) -> Result<Vec<&'f Process>, Refusal> {
    let selector = selector(params)?;
    let found = selector.select(&facts.processes, facts.pid_in_file);
    if found.is_empty() {
        return Err(none(&selector, facts));
    }
    let ancestors = ancestors(facts);
    for process in &found {
        let started = ancestors.contains(&process.id.pid).then(|| "it started the agent".to_owned());
        if let Some(why) = facts.policy.protects(process, &facts.own_pids).or(started) {
            return Err(Refusal::new(
                format!("{} (pid {}) is protected: {why}", process.id.name, process.id.pid),
                "choose another process; protection is up to the owner of the host",
            ));
        }
    }
    let most = usize::try_from(params.integer("count").unwrap_or(1)).unwrap_or(1);
    if found.len() > most {
        let pids: Vec<String> = found.iter().take(20).map(|p| p.id.pid.to_string()).collect();
        let more = if found.len() > 20 { ", ..." } else { "" };
        return Err(Refusal::new(
            format!(
                "{} processes match {}, count allows {most}: pids {}{more}",
                found.len(),
                described(&selector),
                pids.join(", ")
            ),
            format!("set count to {} if all are meant, or choose more narrowly by pidFile, port or unit", found.len()),
        ));
    }
    Ok(found)
}

/// Refuses processes of other users where the host cannot reach them by this ability.
pub(crate) fn reachable(found: &[&Process], facts: &Facts, ability: Capability) -> Result<(), Refusal> {
    let Some(foreign) = found.iter().find(|p| p.uid != facts.host.uid) else { return Ok(()) };
    if facts.host.can(ability) {
        return Ok(());
    }
    let who = format!("{} (pid {}) belongs to user {}", foreign.id.name, foreign.id.pid, foreign.uid);
    Err(match facts.host.abilities.get(&ability) {
        Some(a) => Refusal::new(format!("{who}, and {}", a.why), a.fix.clone()),
        None => Refusal::new(
            format!("{who}, and this agent may not touch other users' processes"),
            "run the agent as root, or as that user",
        ),
    })
}

fn none(selector: &ProcessSelector, facts: &Facts) -> Refusal {
    match selector {
        ProcessSelector::Name(name) => Refusal::new(
            format!("no process matches name {name}"),
            "is it running on this host? `ps -e -o pid,comm,args` lists the names",
        ),
        ProcessSelector::PidFile(path) => match facts.pid_in_file {
            None => Refusal::new(
                format!("{path} holds no process number"),
                "is the service running on this host, and does it write this file?",
            ),
            Some(pid) => Refusal::new(
                format!("{path} names process {pid}, which does not exist"),
                "the file is stale: is the service running on this host?",
            ),
        },
        ProcessSelector::Port(port) => {
            let blind = facts.host.abilities.get(&Capability::PortOwner).filter(|a| !a.works);
            let why = format!("no process is known to listen on TCP port {port}");
            match blind {
                Some(ability) => Refusal::new(format!("{why}, and {}", ability.why), ability.fix.clone()),
                None => {
                    Refusal::new(why, "is it running on this host, in the agent's network namespace? see `ss -ltnp`")
                }
            }
        }
        ProcessSelector::Unit(unit) => Refusal::new(
            format!("no process belongs to unit {unit}"),
            format!("is it running on this host? see `systemctl status {unit}`"),
        ),
    }
}

/// Everything above the agent in the process tree; hitting it may take the agent along.
fn ancestors(facts: &Facts) -> Vec<i32> {
    let mut above = Vec::new();
    for own in &facts.own_pids {
        let mut pid = *own;
        while let Some(process) = facts.processes.iter().find(|p| p.id.pid == pid) {
            pid = process.parent;
            if above.contains(&pid) {
                break;
            }
            above.push(pid);
        }
    }
    above
}
