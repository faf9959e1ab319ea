//! Trials of the workspace's end-to-end tests, asked for more than a test has time for. What they try is theirs. The
//! programs are built by the profile `trial`: optimised, with the numbered boundaries.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::codegen::root;

/// A trial, what may be asked of it, and what each question is to the test.
struct Asked {
    trial: &'static str,
    help: &'static str,
    /// Word of the command line, variable, value unless told.
    words: &'static [(&'static str, &'static str, u64)],
}

const CONTROLLER: Asked = Asked {
    trial: "the_controller_is_killed_at_any_instant",
    help: "usage: cargo xtask controller-trial [--trials N] [--seed S]

Runs N experiments (200 unless told) in namespace labs and kills the controller in each of them, half the time inside
a commit of its store. After each kill its history must verify, the run must end, the hosts must be as they were.
Trial k has seed S+k; FRACAS_SEED=K repeats one. Needs redis-server and nft; as root or as a user who may make user
namespaces. About 3 s for each trial on two cores.",
    words: &[("--trials", "FRACAS_KILL_TRIALS", 200), ("--seed", "FRACAS_SEED_BASE", 0)],
};

const HALT: Asked = Asked {
    trial: "a_halt_reaches_every_host",
    help: "usage: cargo xtask halt-trial [--hosts N] [--rounds N] [--seed S]

Starts a controller and N agents (50 unless told), each on a host of its own in a namespace lab. In each round (300 unless
told) every host loses all datagrams of a port and is probed ten times a second; then `fracas halt`. The time is from before
that command until the last host answers datagrams again, seen from outside. In every fourth round up to three agents are
killed just before, and the halt is said twice.",
    words: &[
        ("--hosts", "FRACAS_HALT_HOSTS", 50),
        ("--rounds", "FRACAS_HALT_ROUNDS", 300),
        ("--seed", "FRACAS_SEED_BASE", 0),
    ],
};

const LOSS: Asked = Asked {
    trial: "a_lost_network_loses_neither_the_lease_nor_ssh",
    help: "usage: cargo xtask loss-trial [--seconds N]

Loses all packets of a host in a namespace lab both ways, for N seconds (120 unless told): its agent must keep a lease of
2 s, and a TCP session on port 22 must go on.",
    words: &[("--seconds", "FRACAS_LOSS_SECONDS", 120)],
};

const SCHEDULE: Asked = Asked {
    trial: "scheduled_runs_start_in_time",
    help: "usage: cargo xtask schedule-trial [--starts N] [--loaded N]

Starts a controller and four agents in a namespace lab, each host with a schedule that is due every two seconds, beside 1,000
schedules (unless told) of every kind that are far away. Prints how long it took from the due instant until the fault was in
effect, over 300 starts (unless told).",
    words: &[("--starts", "FRACAS_SCHEDULE_STARTS", 300), ("--loaded", "FRACAS_SCHEDULE_LOADED", 1000)],
};

/// Runs the trial of this command; fails if it did, or if there is none.
pub(crate) fn run(command: &str, words: &[String]) -> Result<()> {
    let asked = match command {
        "controller-trial" => CONTROLLER,
        "halt-trial" => HALT,
        "loss-trial" => LOSS,
        "schedule-trial" => SCHEDULE,
        other => bail!("no trial {other}"),
    };
    let mut values: Vec<u64> = asked.words.iter().map(|(.., unless)| *unless).collect();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if ["--help", "-h"].contains(&word.as_str()) {
            println!("{}", asked.help);
            return Ok(());
        }
        let place = asked.words.iter().position(|(known, ..)| known == word);
        let Some(place) = place else { bail!("unknown word {word:?}\n{}", asked.help) };
        let text = words.next().with_context(|| format!("{word} needs a number"))?;
        values[place] = text.parse().with_context(|| format!("{word} {text}: not a number"))?;
    }
    let variables = asked.words.iter().zip(&values).map(|((_, variable, _), value)| (*variable, value.to_string()));
    let status = Command::new(env!("CARGO"))
        .args([
            "test",
            "--locked",
            "--profile",
            "trial",
            "-p",
            "fracas-tests",
            "--",
            asked.trial,
            "--exact",
            "--test-threads",
            "1",
        ])
        .envs(variables)
        .env("FRACAS_REQUIRE", "all")
        .current_dir(root())
        .status()?;
    if !status.success() {
        bail!("the trial failed");
    }
    Ok(())
}
