//! What a lab here lacks and why, in words; and the refusal where there can be no lab. It looks, and changes nothing.

use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::LabError;

/// Something that works on a real host and not in this lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// What is missing, as a noun.
    pub what: String,
    /// Why.
    pub why: String,
    /// What to do to have it, empty where nothing helps.
    pub fix: String,
}

impl Limit {
    pub(super) fn new(what: &str, why: impl Into<String>, fix: &str) -> Self {
        Self { what: what.into(), why: why.into(), fix: fix.into() }
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.what, self.why)?;
        if self.fix.is_empty() { Ok(()) } else { write!(f, " ({})", self.fix) }
    }
}

/// What every lab lacks, being namespaces of one kernel.
pub(super) fn of_any_lab() -> Vec<Limit> {
    vec![
        Limit::new("process events", "the kernel tells them in the machine's own network namespace only", ""),
        Limit::new(
            "the clock, kernel modules and kernel settings outside the network",
            "they are the machine's; a lab must not touch them",
            "use a virtual machine",
        ),
    ]
}

/// What the lab of an ordinary user lacks besides.
pub(super) fn of_user_namespace() -> Vec<Limit> {
    let fix = "start the lab as root";
    vec![
        Limit::new("BPF programs", "the kernel takes them from root of the machine only", fix),
        Limit::new(
            "other users' processes",
            "all of the lab runs as the one user who started it; other numbers are only names for it",
            fix,
        ),
        Limit::new("socket buffers beyond net.core.rmem_max", "forcing them takes root of the machine", fix),
        Limit::new("higher priority for processes", "raising it takes root of the machine", fix),
    ]
}

/// Why there can be no lab, from the error with which namespaces were refused.
pub(super) fn forbidden(error: &io::Error) -> LabError {
    let setting = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let is = |path: &str, value: &str| setting(path).as_deref() == Some(value);
    let (why, fix) = if is("/proc/sys/user/max_user_namespaces", "0") {
        ("user.max_user_namespaces is 0", "run as root, or: sysctl -w user.max_user_namespaces=10000")
    } else if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        ("kernel.unprivileged_userns_clone is 0", "run as root, or: sysctl -w kernel.unprivileged_userns_clone=1")
    } else if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        (
            "kernel.apparmor_restrict_unprivileged_userns is 1",
            "run as root, or: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        )
    } else {
        (
            "a security module or a container's filter forbids it",
            "run as root; in a container, one that was started with --privileged",
        )
    };
    LabError::Refused {
        what: "new namespaces are not permitted here".into(),
        why: format!("{error}; {why}"),
        fix: fix.into(),
    }
}
