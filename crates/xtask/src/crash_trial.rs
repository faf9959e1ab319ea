//! `cargo xtask crash-trial`: the end-to-end trial that kills agents, guards, workers and controllers in the middle of faults
//! and compares the host before and after, many times. The trial itself is one of the workspace's tests; this asks it for
//! more than a test has time for.

use std::{
    fs,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};

use crate::codegen::root;

const HELP: &str = "usage: cargo xtask crash-trial [--trials N] [--seed S] [--lease 2s]

Plays N trials that count (200 unless told) in namespace labs. Each applies one to four faults by one or two experiments
and then kills one of {agent, guard, a worker, agent and guard, these and all workers, controller}, or cuts the network, or
lets the lease run out: every other time at a numbered boundary between the steps of a plan, else at a random instant. The
host must be as it was. Trial k has seed S+k; FRACAS_SEED=K repeats one. Needs nft, tc and ip; as root or as a user who may
make user namespaces. Touches nothing of the machine. Prints a table, and at last `trials N residues M seed S`; fails
if M > 0 or if nothing had been applied in any trial.";

/// Runs the trials; the program's exit code says whether all went well.
pub(crate) fn run(words: &[String]) -> Result<ExitCode> {
    let (mut trials, mut seed, mut lease) = (200, 0, "2s".to_owned());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if ["--help", "-h"].contains(&word.as_str()) {
            eprintln!("{HELP}");
            return Ok(ExitCode::SUCCESS);
        }
        let text = words.next().with_context(|| format!("{word} needs a value\n{HELP}"))?;
        let number = || text.parse::<u64>().with_context(|| format!("{word} {text}: not a number"));
        match word.as_str() {
            "--trials" => trials = number()?,
            "--seed" => seed = number()?,
            "--lease" => lease.clone_from(text),
            other => bail!("unknown word {other:?}\n{HELP}"),
        }
    }
    let result = root().join("target").join(format!("crash-trial-{}", std::process::id()));
    let status = Command::new(env!("CARGO"))
        .args(["test", "--locked", "-p", "fracas-tests", "--", "whoever_dies_the_host_is_as_it_was"])
        .args(["--exact", "--test-threads", "1"])
        .env("FRACAS_CRASH_TRIALS", trials.to_string())
        .env("FRACAS_CRASH_LEASE", lease)
        .env("FRACAS_CRASH_RESULT", &result)
        .env("FRACAS_SEED_BASE", seed.to_string())
        .env("FRACAS_REQUIRE", "all")
        .current_dir(root())
        .status()?;
    let told = fs::read_to_string(&result);
    let _ = fs::remove_file(&result);
    let told = told.context("the trial did not come to its end")?;
    let (counted, residues) = told.split_once(' ').context("no numbers of trials and residues")?;
    let well = status.success() && residues == "0" && counted != "0";
    if !well {
        eprintln!("xtask crash-trial: a trial failed, or none counted");
    }
    // The last line, whatever it says.
    println!("trials {counted} residues {residues} seed {seed}");
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
