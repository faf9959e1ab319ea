//! `cargo xtask controller-trial`: the end-to-end trial that kills the controller at random instants, many times. The trial
//! itself is one of the workspace's tests; this asks it for more than a test has time for.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::codegen::root;

const HELP: &str = "usage: cargo xtask controller-trial [--trials N] [--seed S]

Runs N experiments (200 unless told) in namespace labs and kills the controller in each of them, half the time inside
a commit of its store. After each kill its history must verify, the run must end, the hosts must be as they were.
Trial k has seed S+k; FRACAS_SEED=K repeats one. Needs redis-server and nft; as root or as a user who may make user
namespaces. About 3 s for each trial on two cores.";

/// Runs the trials, fails if one did.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let (mut trials, mut seed) = (200, 0);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let into = match word.as_str() {
            "--trials" => &mut trials,
            "--seed" => &mut seed,
            "--help" | "-h" => {
                eprintln!("{HELP}");
                return Ok(());
            }
            other => bail!("unknown word {other:?}\n{HELP}"),
        };
        let text = words.next().with_context(|| format!("{word} needs a number"))?;
        *into = text.parse::<u64>().with_context(|| format!("{word} {text}: not a number"))?;
    }
    let status = Command::new(env!("CARGO"))
        .args(["test", "--locked", "-p", "fracas-tests", "--", "the_controller_is_killed_at_any_instant"])
        .args(["--exact", "--test-threads", "1"])
        .env("FRACAS_KILL_TRIALS", trials.to_string())
        .env("FRACAS_SEED_BASE", seed.to_string())
        .env("FRACAS_REQUIRE", "all")
        .current_dir(root())
        .status()?;
    if !status.success() {
        bail!("a trial failed");
    }
    Ok(())
}
