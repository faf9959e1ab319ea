//! What the owner of a host allows. It beats any controller and cannot be changed remotely.

use serde::{Deserialize, Serialize};

use crate::{process::Process, units::Dur};

/// The host owner's rules; [`Policy::builtin`] where there is no file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    /// Names of allowed faults; `*` allows all, an empty list none.
    pub allow_faults: Vec<String>,
    /// The longest a fault may last.
    pub max_duration: Dur,
    /// Names of processes that are never touched, beside the fixed ones.
    pub protect_processes: Vec<String>,
    /// Remote TCP ports that network faults always let pass, beside the controller's.
    pub pass_ports: Vec<u16>,
    /// Networks that network faults always let pass.
    pub pass_networks: Vec<String>,
    /// Programs (absolute paths) that `exec` may start.
    pub exec_allow: Vec<String>,
    /// The user that `exec` runs as.
    pub exec_user: String,
}

impl Policy {
    /// Every fault for at most an hour; SSH and the metadata address pass; no `exec`.
    pub fn builtin() -> Self {
        Self {
            allow_faults: vec!["*".into()],
            max_duration: Dur::from_secs(3600),
            protect_processes: Vec::new(),
            pass_ports: vec![22],
            pass_networks: vec!["169.254.169.254/32".into(), "fd00:ec2::254/128".into()],
            exec_allow: Vec::new(),
            exec_user: "nobody".into(),
        }
    }

    /// Nothing at all: what stands when a policy file cannot be read.
    pub fn nothing() -> Self {
        Self { allow_faults: Vec::new(), exec_allow: Vec::new(), ..Self::builtin() }
    }

    /// Whether a fault of this name is allowed.
    pub fn allows(&self, fault: &str) -> bool {
        self.allow_faults.iter().any(|f| f == "*" || f == fault)
    }

    /// Why this process must not be touched, if so. `own` are the agent, its guard and its workers.
    pub fn protects(&self, process: &Process, own: &[i32]) -> Option<String> {
        const FIXED: [&str; 14] = [
            "sshd",
            "systemd",
            "systemd-journald",
            "systemd-journal",
            "systemd-logind",
            "systemd-udevd",
            "systemd-networkd",
            "systemd-network",
            "systemd-resolved",
            "systemd-resolve",
            "dbus-daemon",
            "dbus-broker",
            "containerd",
            "dockerd",
        ];
        let name = process.id.name.as_str();
        if process.id.pid == 1 {
            Some("it is the init process".into())
        } else if process.kernel {
            Some("it is a kernel thread".into())
        } else if own.contains(&process.id.pid) {
            Some("it belongs to the agent".into())
        } else if FIXED.contains(&name) || name.starts_with("containerd-shim") || name == "crio" {
            Some(format!("{name} keeps the host reachable"))
        } else if self.protect_processes.iter().any(|p| p == name) {
            Some(format!("the host's policy protects {name}"))
        } else {
            None
        }
    }
}
