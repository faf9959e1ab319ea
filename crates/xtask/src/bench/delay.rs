//! Added delay against what was asked: the conformance suite's own measurement, for the way that works on this kernel,
//! and, in the virtual machine, for both.

use std::process::Command;

use anyhow::bail;

use super::say;

pub(super) fn run(quick: bool) -> anyhow::Result<()> {
    say("delay (added delay less what was asked, datagrams between two namespaces of our own)")?;
    // The suite prints its figures one a line, each with its n.
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args([
        "test",
        "--quiet",
        "--locked",
        "--package",
        "fracas-agent",
        "--test",
        "net",
        "--",
        "ms_",
        "--nocapture",
    ]);
    told(&command.output()?, "here")?;
    if quick {
        return say("");
    }
    // Emulated processors: compare the two ways with each other, not with the figures above.
    told(&Command::new(std::env::current_exe()?).args(["vm", "ms_"]).output()?, "in the virtual machine")?;
    say("")
}

fn told(output: &std::process::Output, place: &str) -> anyhow::Result<()> {
    let text = String::from_utf8_lossy(&output.stdout);
    let figures: Vec<&str> = text.lines().map(str::trim).filter(|l| l.contains("n = ") && l.contains("ms")).collect();
    if !output.status.success() || figures.is_empty() {
        bail!("{place}: {}\n{text}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    for figure in figures {
        say(&format!("  {place:<22}  {figure}"))?;
    }
    Ok(())
}
