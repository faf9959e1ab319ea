//! `cargo xtask upgrade-trial`: builds an older revision beside this one, and lets both versions run together for real. It
//! changes nothing outside `target` unless asked for the traces of that version.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::codegen::root;

/// The version whose traces are in `tests/upgrade`: the last one before the work on the promise to undo.
const SPINE: &str = "29aba4f";

const HELP: &str = "usage: cargo xtask upgrade-trial [--old REVISION] [--traces]

Builds the older revision (29aba4f unless told) below target/upgrade, and runs, in namespace labs: older agents with this
controller; a controller and then an agent upgraded in the middle of runs; this agent with the older controller, which
serves it or says why not. With --traces, what tests/upgrade holds is made anew by that revision, which is built with
tests/upgrade/fixture.patch. Needs git and patch.

Example: cargo xtask upgrade-trial --old HEAD~1";

/// The trials, by name.
const TRIALS: [&str; 3] = [
    "older_agents_serve_this_controller",
    "a_fleet_is_upgraded_in_the_middle_of_a_run",
    "this_agent_and_an_older_controller",
];
const TRACES: &str = "an_older_version_leaves_its_traces";

/// Builds, runs; fails if a trial did.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let (mut revision, mut traces) = (SPINE.to_owned(), false);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--help" | "-h" => {
                println!("{HELP}");
                return Ok(());
            }
            "--old" => revision.clone_from(words.next().with_context(|| format!("--old needs a revision\n{HELP}"))?),
            "--traces" => traces = true,
            other => bail!("unknown word {other:?}\n{HELP}"),
        }
    }
    let old = build(&revision, traces)?;
    let mut command = Command::new(env!("CARGO"));
    command.args(["test", "--locked", "-p", "fracas-tests", "--", "--exact", "--nocapture", "--test-threads", "1"]);
    command.env("FRACAS_UPGRADE_OLD", &old).env("FRACAS_REQUIRE", "all").current_dir(root());
    if traces {
        command.arg(TRACES).env("FRACAS_UPGRADE_KEEP", root().join("tests/upgrade"));
    } else {
        command.args(TRIALS);
    }
    if !command.status()?.success() {
        bail!("the trial failed");
    }
    Ok(())
}

/// The program of a revision.
fn build(revision: &str, traces: bool) -> Result<PathBuf> {
    let mut named = Command::new("git");
    let commit = said(named.args(["rev-parse", "--verify", &format!("{revision}^{{commit}}")]), &root())?;
    let patched = if traces { "-traces" } else { "" };
    let place = root().join("target/upgrade").join(format!("{}{patched}", commit.trim()));
    if !place.join("Cargo.toml").exists() {
        fs::create_dir_all(&place)?;
        let mut archive = Command::new("git");
        let mut archive =
            archive.args(["archive", commit.trim()]).current_dir(root()).stdout(Stdio::piped()).spawn()?;
        let from = archive.stdout.take().context("no archive")?;
        let unpacked = Command::new("tar").arg("x").current_dir(&place).stdin(from).status()?;
        if !unpacked.success() || !archive.wait()?.success() {
            bail!("{revision} cannot be unpacked below {}", place.display());
        }
        if traces {
            let patch = fs::File::open(root().join("tests/upgrade/fixture.patch"))?;
            let status = Command::new("patch").arg("-p1").current_dir(&place).stdin(patch).status()?;
            if !status.success() {
                bail!("tests/upgrade/fixture.patch does not fit {revision}");
            }
        }
    }
    // The patch adds a dependency that the lock has, only not there.
    let locked = if traces { "--offline" } else { "--locked" };
    let status = Command::new(env!("CARGO")).args(["build", locked, "-p", "fracas"]).current_dir(&place).status()?;
    if !status.success() {
        bail!("{revision} does not build");
    }
    Ok(place.join("target/debug/fracas"))
}

fn said(command: &mut Command, at: &Path) -> Result<String> {
    let said = command.current_dir(at).output()?;
    if !said.status.success() {
        bail!("{}", String::from_utf8_lossy(&said.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}
