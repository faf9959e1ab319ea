//! The lab of an ordinary user: all trials again as nobody, and a refusal where user namespaces are forbidden.

#![expect(unsafe_code, reason = "the trial enters a user namespace of its own")]

use std::{
    fs,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
};

use fracas_sim::{
    lab::{Lab, LabError, Options},
    need::Need,
};
use libtest_mimic::Trial;

use crate::{
    stage::{self, part_here},
    trial,
};

/// The user `nobody`.
const NOBODY: u32 = 65534;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("all_trials_as_nobody", &[Need::Root], all_trials_as_nobody),
        trial("a_forbidden_lab_is_refused", &[Need::Lab], a_forbidden_lab_is_refused),
    ]
}

fn all_trials_as_nobody() {
    // One after another, and without the demand that nothing be skipped: what an ordinary user cannot have is skipped.
    let output = Command::new("/proc/self/exe")
        .args(["--skip", "as_nobody", "--test-threads", "1", "--format", "pretty"])
        .env_remove("FRACAS_REQUIRE")
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .expect("run");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    eprint!("{err}");
    let ignored: Vec<&str> = out.lines().filter(|line| line.contains("... ignored")).collect();
    let result = out.lines().find(|line| line.starts_with("test result")).unwrap_or_default();
    eprintln!("as nobody: {result}; ignored: {ignored:?}");
    // Cgroups are nobody's; with a lab at all, everything else runs.
    assert!(ignored.iter().all(|line| line.contains("needs cgroups in the lab")), "{ignored:?}");
    let passed = out.lines().filter(|line| line.contains("... ok")).count();
    assert!(passed > 25, "{out}");
}

/// The part `refused`: an ordinary user where user namespaces are forbidden. Says why it gets no lab.
pub(crate) fn refused() {
    if rustix::process::geteuid().as_raw() != 1234 {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        // SAFETY: this process has one thread.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWUSER) }.expect("namespace");
        fs::write("/proc/self/setgroups", "deny").expect("setgroups");
        fs::write("/proc/self/uid_map", format!("1234 {uid} 1")).expect("map");
        fs::write("/proc/self/gid_map", format!("1234 {gid} 1")).expect("map");
        fs::write("/proc/sys/user/max_user_namespaces", "0").expect("limit");
        // Executing takes the privileges away that making the namespace gave.
        panic!("{}", part_here(&["refused"]).exec());
    }
    match Lab::start(Options::default()) {
        Err(LabError::Refused { what, why, fix }) => stage::print(&format!("{what}: {why}; {fix}")),
        other => panic!("{other:?}"),
    }
}

fn a_forbidden_lab_is_refused() {
    let output = part_here(&["refused"]).stderr(Stdio::inherit()).output().expect("run");
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "new namespaces are not permitted here: No space left on device (os error 28); \
         user.max_user_namespaces is 0; run as root, or: sysctl -w user.max_user_namespaces=10000\n"
    );
}
