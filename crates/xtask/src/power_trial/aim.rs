//! Where the power is to be cut, drawn from a seed; and what the guest must be told for it.

use fracas_agent::crash::{BOUNDARIES, Boundary};
use rand::{Rng as _, RngExt as _, SeedableRng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;

/// When the power goes in one life of the guest.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum When {
    /// So far (0 to 1) into a phase of this cycle, as long as that phase usually takes.
    Instant { phase: &'static str, cycle: u32, share: f64 },
    /// As soon as the agent has passed a boundary so often, while it applies and undoes.
    Boundary { name: &'static str, nth: u32 },
    /// The same while it undoes at its start.
    Recovery { name: &'static str, nth: u32 },
    /// The agent is killed at a boundary and started again; the power goes at the next plan of that second life.
    AfterDeath { name: &'static str, nth: u32 },
    /// Not at all.
    Never,
}

/// One life.
#[derive(Clone, Debug)]
pub(crate) struct Aim {
    pub(crate) when: When,
    /// Options of the disks' file systems.
    pub(crate) mount: String,
    /// How long, in hundredths of a second, what is written stays in memory alone.
    pub(crate) dirty: u32,
    /// Which faults are drawn; `None` for the same few in each cycle, a file on the second disk first.
    pub(crate) seed: Option<u64>,
}

/// What is passed in an undo at the start; the others are not, or only with the power on.
const IN_RECOVERY: [&str; 6] = [
    "before-undo-record",
    "after-undo-record",
    "before-inverse",
    "before-read-back",
    "after-inverse",
    "after-close-record",
];
/// Where a death leaves the most to do for the next start.
const DEATHS: [&str; 4] = ["amid-step", "after-step", "before-read-back", "after-inverse"];

impl Aim {
    /// The aim of life `number`: every other one at a random instant. `before` is the last one's, for a cut in the undo at
    /// the start needs something that was left by the cut before.
    pub(crate) fn draw(seed: u64, number: u32, before: Option<&When>) -> Self {
        let mut dice = ChaCha8Rng::seed_from_u64(seed.wrapping_add(u64::from(number)));
        let left = matches!(before, Some(When::Instant { phase: "apply" | "undo", .. } | When::Boundary { .. }));
        let name = |names: &[&'static str], dice: &mut ChaCha8Rng| names.choose(dice).copied().unwrap_or_default();
        let when = if number.is_multiple_of(2) {
            let phases: &[&'static str] =
                if left { &["apply", "apply", "undo", "undo", "recover"] } else { &["apply", "undo"] };
            let phase = name(phases, &mut dice);
            let cycle = if phase == "recover" { 0 } else { dice.random_range(1..=2) };
            When::Instant { phase, cycle, share: dice.random() }
        } else {
            match dice.random_range(0..10) {
                0..=1 if left => When::Recovery { name: name(&IN_RECOVERY, &mut dice), nth: dice.random_range(1..=2) },
                2 => When::AfterDeath { name: name(&DEATHS, &mut dice), nth: dice.random_range(1..=4) },
                _ => {
                    let all: Vec<&'static str> = BOUNDARIES.iter().map(|(_, name)| *name).collect();
                    When::Boundary { name: name(&all, &mut dice), nth: dice.random_range(1..=9) }
                }
            }
        };
        let commit = [1, 300].choose(&mut dice).copied().unwrap_or(300);
        let data = ["ordered", "writeback", "ordered,nodelalloc"].choose(&mut dice).copied().unwrap_or_default();
        let barrier = ["barrier", "nobarrier"].choose(&mut dice).copied().unwrap_or_default();
        let dirty = [0, 0, 10].choose(&mut dice).copied().unwrap_or(0);
        Self { when, mount: format!("commit={commit},data={data},{barrier}"), dirty, seed: Some(dice.next_u64()) }
    }

    /// An aim at a boundary, with disks that keep what is written in memory for as long as they can.
    pub(crate) fn hostile(when: When, seed: Option<u64>) -> Self {
        Self { when, mount: "commit=300,data=ordered,barrier".into(), dirty: 0, seed }
    }

    /// For the guest.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = vec![format!("mount={}", self.mount), format!("dirty={}", self.dirty)];
        words.extend(self.seed.map(|seed| format!("seed={seed}")));
        match &self.when {
            When::Instant { .. } => {}
            When::Boundary { name, nth } => words.push(format!("work={name}:{nth}:agent:stop")),
            When::Recovery { name, nth } => words.push(format!("recover={name}:{nth}:agent:stop")),
            When::AfterDeath { name, nth } => {
                words.push(format!("work={name}:{nth}:agent:kill"));
                words.push("then=after-plan-record:1:agent:stop".into());
            }
            When::Never => words.push("last=1".into()),
        }
        words
    }
}

impl When {
    /// As on the command line: `BOUNDARY[:NTH[:recovery|death]]`.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut words = text.split(':');
        let asked = words.next()?;
        let (_, name) = *BOUNDARIES.iter().find(|(_, name)| *name == asked)?;
        let nth = words.next().map_or(Some(1), |nth| nth.parse().ok())?;
        match words.next() {
            None => Some(Self::Boundary { name, nth }),
            Some("recovery") => Some(Self::Recovery { name, nth }),
            Some("death") => Some(Self::AfterDeath { name, nth }),
            Some(_) => None,
        }
    }

    /// For tables: how the instant was chosen, and in the middle of what.
    pub(crate) fn kind(&self) -> (&'static str, &'static str) {
        match self {
            Self::Instant { phase: "recover", .. } => ("random instant", "undo at the start"),
            Self::Instant { phase, .. } => ("random instant", phase),
            Self::Boundary { name, .. } => {
                let boundary = BOUNDARIES.iter().find(|(_, known)| known == name).map(|(boundary, _)| *boundary);
                let undo = boundary.is_some_and(|boundary| boundary >= Boundary::BeforeUndoRecord);
                ("boundary", if undo { "undo" } else { "apply" })
            }
            Self::Recovery { .. } => ("boundary", "undo at the start"),
            Self::AfterDeath { .. } => ("boundary", "plan after the agent's death"),
            Self::Never => ("", ""),
        }
    }

    /// In words.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Instant { phase, cycle, share } => format!("{:.0} % into {phase} {cycle}", share * 100.0),
            Self::Boundary { name, nth } => format!("{name} {nth}"),
            Self::Recovery { name, nth } => format!("{name} {nth} of the undo at the start"),
            Self::AfterDeath { name, nth } => format!("agent killed at {name} {nth}, then the next plan"),
            Self::Never => "not cut".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_the_cuts_are_at_random_instants_and_a_seed_repeats() {
        let before = When::Boundary { name: "after-step", nth: 1 };
        let draw = |number| Aim::draw(7, number, Some(&before));
        let random = (0..100).filter(|n| draw(*n).when.kind().0 == "random instant").count();
        assert_eq!(random, 50);
        assert!((0..100).all(|n| draw(n).words() == draw(n).words()));
        assert!((0..100).any(|n| matches!(draw(n).when, When::Recovery { .. })));
        assert_eq!(When::read("after-step"), Some(before.clone()));
        assert_eq!(When::read("amid-step:2:death"), Some(When::AfterDeath { name: "amid-step", nth: 2 }));
        assert_eq!(
            (When::read("soon"), When::read("after-step:x"), When::read("after-step:1:now")),
            (None, None, None)
        );
        let known = |name: &str| BOUNDARIES.iter().any(|(_, known)| *known == name);
        assert!(IN_RECOVERY.iter().chain(&DEATHS).all(|name| known(name)));
    }
}
