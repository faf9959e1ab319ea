//! `cargo xtask crash-trial`: the end-to-end trial that kills agents, guards, workers and controllers in the middle of faults
//! and compares the host before and after, many times. The trial itself is one of the workspace's tests; this asks it for
//! more than a test has time for.

use std::{
    fs,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};

use crate::{codegen::root, vm};

const HELP: &str = "usage: cargo xtask crash-trial [--trials N] [--seed S] [--lease 2s] [--kill WHO] [--faults WORD] [--vm]

Plays N trials that count (200 unless told) in namespace labs. Each applies one to four faults by one or two experiments
and then kills one of {agent, guard, a worker, agent and guard, these and all workers, controller}, or cuts the network, or
lets the lease run out: every other time at a numbered boundary between the steps of a plan, else at a random instant. The
host must be as it was. Trial k has seed S+k; FRACAS_SEED=K repeats one. Needs nft, tc, ip and mount; as root or as a user
who may make user namespaces. Touches nothing of the machine but a folder for temporary files. Prints a table, and at last
`trials N residues M seed S`; fails if M > 0 or if nothing had been applied in any trial.

  --kill WHO     that death in every trial: agent, guard, worker, agentandguard, all, controller, cut, lease
  --faults WORD  only faults whose name begins so, such as net or file-replace
  --vm           in a virtual machine whose kernel has netem, clsact and ifb; emulated, so slow and its times mean little

The programs are built by the profile `trial`: optimised, with the numbered boundaries.";

/// Its name among the tests.
const TRIAL: &str = "whoever_dies_the_host_is_as_it_was";
/// Seconds that a guest may take for each trial, beside those for all of it.
const GUEST_SECONDS: (u64, u64) = (30, 300);

/// What was asked for.
struct Asked {
    trials: u64,
    seed: u64,
    lease: String,
    kill: Option<String>,
    faults: Option<String>,
    guest: bool,
}

impl Asked {
    /// `None` when only help is wanted.
    fn read(words: &[String]) -> Result<Option<Self>> {
        let mut asked = Self { trials: 200, seed: 0, lease: "2s".into(), kill: None, faults: None, guest: false };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut text = || words.next().with_context(|| format!("{word} needs a value\n{HELP}"));
            let number = |text: &String| text.parse::<u64>().with_context(|| format!("{word} {text}: not a number"));
            match word.as_str() {
                "--help" | "-h" => return Ok(None),
                "--trials" => asked.trials = number(text()?)?,
                "--seed" => asked.seed = number(text()?)?,
                "--lease" => asked.lease.clone_from(text()?),
                "--kill" => asked.kill = Some(text()?.clone()),
                "--faults" => asked.faults = Some(text()?.clone()),
                "--vm" => asked.guest = true,
                other => bail!("unknown word {other:?}\n{HELP}"),
            }
        }
        Ok(Some(asked))
    }

    /// For the trial.
    fn environment(&self) -> Vec<(&'static str, String)> {
        let mut all = vec![
            ("FRACAS_CRASH_TRIALS", self.trials.to_string()),
            ("FRACAS_CRASH_LEASE", self.lease.clone()),
            ("FRACAS_SEED_BASE", self.seed.to_string()),
            ("FRACAS_REQUIRE", "all".into()),
        ];
        all.extend(self.kill.clone().map(|kill| ("FRACAS_CRASH_KILL", kill)));
        all.extend(self.faults.clone().map(|faults| ("FRACAS_CRASH_FAULTS", faults)));
        // Its memory holds no more of them.
        all.extend(self.guest.then(|| ("FRACAS_CRASH_LABS", "2".into())));
        all
    }
}

/// Runs the trials; the program's exit code says whether all went well.
pub(crate) fn run(words: &[String]) -> Result<ExitCode> {
    let Some(asked) = Asked::read(words)? else {
        eprintln!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    };
    let (success, told) = if asked.guest {
        let (each, all) = GUEST_SECONDS;
        let words = [TRIAL, "--exact"];
        let (passed, told) =
            vm::labs::run(&words, &asked.environment(), "trial", each * asked.trials + all, "fracas-crash: ")?;
        (passed, told.context("the trial did not come to its end")?)
    } else {
        here(&asked)?
    };
    let (counted, residues) = told.split_once(' ').context("no numbers of trials and residues")?;
    let well = success && residues == "0" && counted != "0";
    if !well {
        eprintln!("xtask crash-trial: a trial failed, or none counted");
    }
    // The last line, whatever it says.
    println!("trials {counted} residues {residues} seed {}", asked.seed);
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// In namespaces of this machine: whether the trial passed, and what it told as its result.
fn here(asked: &Asked) -> Result<(bool, String)> {
    let result = root().join("target").join(format!("crash-trial-{}", std::process::id()));
    let mut command = Command::new(env!("CARGO"));
    command.args(["test", "--locked", "--profile", "trial", "-p", "fracas-tests"]);
    command.args(["--", TRIAL, "--exact", "--test-threads", "1"]);
    let status = command.envs(asked.environment()).env("FRACAS_CRASH_RESULT", &result).current_dir(root()).status()?;
    let told = fs::read_to_string(&result);
    let _ = fs::remove_file(&result);
    Ok((status.success(), told.context("the trial did not come to its end")?))
}
