//! Steps of a plan in words: what is done to a host, and how it is taken back. Decides nothing about either.

use fracas_model::plan::{BurnMode, Direction, Effect, FillGoal, Filter, Kind, Step};

use crate::words;

/// What the step changes.
pub(crate) fn does(step: &Step) -> String {
    match step {
        Step::Burn(burn) => {
            let cores: Vec<String> = burn.cores.iter().map(u32::to_string).collect();
            let how = match burn.mode {
                BurnMode::Total => "bring the load up to",
                BurnMode::Added => "add load of",
            };
            format!("{how} {} on core {}", burn.percent, cores.join(", "))
        }
        Step::Fill(fill) => {
            let how = match fill.goal {
                FillGoal::Used(percent) => format!("until {percent} is used"),
                FillGoal::Size(size) => format!("by {size}"),
                FillGoal::Left(size) => format!("until {size} is left"),
            };
            let keep = if fill.reserve.0 == 0 { String::new() } else { format!(", never below {} left", fill.reserve) };
            format!("fill the disk of {} {how}{keep}, with a file that has no name", fill.directory)
        }
        Step::Impair(impair) => {
            let device = impair.device.as_ref().map(|d| format!(" of {d}")).unwrap_or_default();
            format!("{} {}{device}", effect(&impair.effect), packets(impair.direction, &impair.filter))
        }
        Step::Seize { process } => format!("hold all threads of {} (pid {}) with ptrace", process.name, process.pid),
        Step::Suspend { process } => format!("send SIGSTOP to {} (pid {})", process.name, process.pid),
        Step::MakeIfb { name } => format!("make the device {name}"),
        Step::MakeNetem { device, effect: what, limit_packets } => {
            format!("set netem on {device}: {} packets, at most {limit_packets} queued", effect(what))
        }
        Step::MakeClsact { device } => format!("add a clsact qdisc to {device}"),
        Step::Redirect { device, to, direction, filter, .. } => {
            format!("send {} of {device} through {to}", packets(*direction, filter))
        }
        Step::Lose { device, direction, filter, percent, .. } => {
            format!("drop {percent} of {} of {device}", packets(*direction, filter))
        }
        Step::StopUnit { unit } => format!("stop the unit {unit}"),
        Step::Replace(replace) => format!(
            "put a file of {} in the place of {} ({}), which is kept beside it",
            words::count(replace.content.len(), "byte"),
            replace.path,
            words::count(usize::try_from(replace.was.size_bytes).unwrap_or(usize::MAX), "byte")
        ),
        Step::Signal { process, signal_name, .. } => {
            format!("send SIG{signal_name} to {} (pid {})", process.name, process.pid)
        }
    }
}

/// How it is undone, and what makes sure of that.
pub(crate) fn undo(step: &Step) -> String {
    match (step, step.kind()) {
        (Step::Suspend { .. }, _) => "send SIGCONT".to_owned(),
        (Step::MakeIfb { name }, _) => format!("delete {name}, if it is still ours"),
        (Step::MakeNetem { device, .. }, _) => format!("goes with {device}"),
        (Step::MakeClsact { .. }, _) => "remove it, if we made it and nobody else uses it".to_owned(),
        (Step::Redirect { .. } | Step::Lose { .. }, _) => "remove our filters by handle".to_owned(),
        (Step::StopUnit { unit }, _) => format!("start {unit}, unless somebody else did"),
        (Step::Replace(_), _) => "put the kept file back, if nobody changed what stands in its place".to_owned(),
        (_, Kind::Held) => "the kernel ends it with its worker process, whatever happens".to_owned(),
        (_, Kind::Reversible) => "its inverse from the journal".to_owned(),
        (_, Kind::Spent) => "nothing to undo: it happens once".to_owned(),
    }
}

fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Delay { delay, jitter } if jitter.ns() == 0 => format!("delay by {delay}"),
        Effect::Delay { delay, jitter } => format!("delay by {delay} ± {jitter}"),
        Effect::Loss { percent } => format!("drop {percent} of"),
    }
}

fn packets(direction: Direction, filter: &Filter) -> String {
    let (way, side) = match direction {
        Direction::Ingress => ("incoming", "from"),
        Direction::Egress => ("outgoing", "to"),
    };
    let protocol = filter.protocol.map(|p| format!(" {p:?}").to_lowercase()).unwrap_or_default();
    let remotes =
        if filter.remotes.is_empty() { String::new() } else { format!(" {side} {}", filter.remotes.join(", ")) };
    let port = |(from, to): &(u16, u16)| if from == to { from.to_string() } else { format!("{from}-{to}") };
    let ports: Vec<String> = filter.ports.iter().map(port).collect();
    let ports = if ports.is_empty() { String::new() } else { format!(" on port {}", ports.join(", ")) };
    let exempt = filter.pass_remotes.len() + filter.pass_ports.len();
    let exempt = if exempt == 0 { String::new() } else { format!(", except {}", words::count(exempt, "exemption")) };
    format!("{way}{protocol} packets{remotes}{ports}{exempt}")
}

/// What a network fault leaves alone: the controller, SSH and what the host's policy names.
pub(crate) fn exemptions(step: &Step) -> Option<String> {
    let (Step::Impair(fracas_model::plan::Impair { filter, .. })
    | Step::Redirect { filter, .. }
    | Step::Lose { filter, .. }) = step
    else {
        return None;
    };
    let remotes = filter.pass_remotes.iter().map(|(network, port)| match port {
        0 => network.clone(),
        port => format!("{network} port {port}"),
    });
    let ports = filter.pass_ports.iter().map(|port| format!("port {port}"));
    let all: Vec<String> = remotes.chain(ports).collect();
    (!all.is_empty()).then(|| format!("always passes: {}", all.join(", ")))
}

#[cfg(test)]
mod tests {
    use fracas_model::{
        plan::{Burn, Impair, Protocol},
        process::ProcessRef,
        units::{Dur, Percent},
    };

    use super::*;

    #[test]
    fn steps_and_their_undo_in_words() {
        let process = ProcessRef { pid: 7, start_ticks: 1, name: "postgres".into() };
        let kill = Step::Signal { process: process.clone(), signal: 9, signal_name: "KILL".into() };
        assert_eq!(does(&kill), "send SIGKILL to postgres (pid 7)");
        assert_eq!(undo(&kill), "nothing to undo: it happens once");
        assert_eq!(undo(&Step::Suspend { process }), "send SIGCONT");
        let burn = Step::Burn(Burn { percent: Percent(80.0), mode: BurnMode::Total, cores: vec![0, 1] });
        assert_eq!(does(&burn), "bring the load up to 80% on core 0, 1");
    }

    #[test]
    fn packets_are_named_with_what_passes() {
        let filter = Filter {
            remotes: vec!["10.0.0.0/8".into()],
            ports: vec![(5432, 5432), (8000, 8100)],
            protocol: Some(Protocol::Tcp),
            pass_remotes: vec![("192.0.2.1/32".into(), 7443)],
            pass_ports: vec![22],
        };
        let effect = Effect::Delay { delay: Dur::from_ms(200), jitter: Dur::from_ms(20) };
        let step = Step::Impair(Impair { direction: Direction::Egress, filter, effect, device: None });
        assert_eq!(
            does(&step),
            "delay by 200ms ± 20ms outgoing tcp packets to 10.0.0.0/8 on port 5432, 8000-8100, except 2 exemptions"
        );
        assert_eq!(exemptions(&step).unwrap(), "always passes: 192.0.2.1/32 port 7443, port 22");
        assert!(undo(&step).starts_with("the kernel ends it"));
    }
}
