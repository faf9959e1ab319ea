//! Everything again as an ordinary user, in the lab that such a user can have: what needs more says so and is skipped.

use std::{os::unix::process::CommandExt as _, process::Command};

use fracas_sim::need::Need;
use libtest_mimic::Trial;

use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("all_as_nobody", &[Need::Root, Need::Time], all_as_nobody)]
}

/// The user `nobody`.
const NOBODY: u32 = 65534;

fn all_as_nobody() {
    // With time, but without the demand that nothing be skipped. What only waits for half a minute is as long for anybody.
    let output = Command::new("/proc/self/exe")
        .args(["--skip", "as_nobody", "--skip", "never_comes_back", "--test-threads", "2", "--format", "pretty"])
        .env("FRACAS_REQUIRE", "time")
        .env("HOME", "/nonexistent")
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .expect("run");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    let ignored: Vec<&str> = out.lines().filter(|line| line.contains("... ignored")).collect();
    let result = out.lines().find(|line| line.starts_with("test result")).unwrap_or_default();
    eprintln!("as nobody: {result}\n{}", ignored.join("\n"));
    let passed = out.lines().filter(|line| line.ends_with("... ok")).count();
    assert!(passed > 35, "{out}");
}
