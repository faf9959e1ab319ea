//! What the owner of a host allows. It beats any controller and cannot be changed remotely.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    diagnostic::Diagnostic,
    document::read_generic,
    process::Process,
    shape::{Field, Shape},
    units::Dur,
};

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

/// The form of a policy file: `kind: HostPolicy`.
pub fn policy_shape() -> Shape {
    let list = |of| Shape::List { of: Box::new(of), min: 0, max: 1000 };
    let port = Shape::Integer { min: 1, max: 65_535 };
    let builtin = Policy::builtin();
    Shape::Object(vec![
        Field::required("apiVersion", Shape::choice(&["fracas/v1"]), "Version of this grammar."),
        Field::required("kind", Shape::choice(&["HostPolicy"]), "What this document is."),
        Field::with_default(
            "allowFaults",
            list(Shape::Text { max: 64 }),
            json!(builtin.allow_faults),
            "Names of the faults that are allowed; \"*\" allows all, an empty list none.",
        ),
        Field::with_default(
            "maxDuration",
            Shape::duration(Dur::from_secs(1), Dur::from_secs(31 * 86_400)),
            builtin.max_duration.to_string(),
            "The longest a fault may last here.",
        ),
        Field::with_default(
            "protectProcesses",
            list(Shape::Text { max: 64 }),
            json!(builtin.protect_processes),
            "Names of processes that are never touched, beside init, sshd and the like.",
        ),
        Field::with_default(
            "passPorts",
            list(port),
            json!(builtin.pass_ports),
            "Ports that network faults always let pass, beside the controller's.",
        ),
        Field::with_default(
            "passNetworks",
            list(Shape::Cidr),
            json!(builtin.pass_networks),
            "Networks that network faults always let pass.",
        ),
        Field::with_default(
            "execAllow",
            list(Shape::Path),
            json!(builtin.exec_allow),
            "Programs that `exec` may start.",
        ),
        Field::with_default(
            "execUser",
            Shape::Text { max: 64 },
            builtin.exec_user,
            "The user that programs started by `exec` run as.",
        ),
    ])
}

/// Reads a policy file. The error is every mistake; whoever gets it must go on with [`Policy::nothing`].
pub fn read_policy(name: &str, text: &str) -> Result<Policy, Vec<Diagnostic>> {
    let (mut value, _) = read_generic(name, text, &policy_shape())?;
    if let Value::Object(fields) = &mut value {
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    // Everything the type holds is in the shape, with a default.
    Ok(serde_json::from_value(value).unwrap_or_else(|_| Policy::nothing()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_says_nothing_is_the_builtin() {
        let read = read_policy("p", "apiVersion: fracas/v1\nkind: HostPolicy\n");
        assert_eq!(read, Ok(Policy::builtin()));
    }

    #[test]
    fn what_is_written_counts_and_mistakes_are_told() {
        let text = "apiVersion: fracas/v1\nkind: HostPolicy\nallowFaults: [net-delay]\nmaxDuration: 60s\n\
                    passPorts: [22, 5432]\nexecAllow: [/usr/bin/true]\n";
        let policy = read_policy("p", text).expect("valid");
        assert!(policy.allows("net-delay") && !policy.allows("cpu-load"));
        assert_eq!((policy.max_duration, policy.pass_ports.len()), (Dur::from_secs(60), 2));
        let wrong = read_policy("p", &text.replace("allowFaults", "allowfaults")).expect_err("a mistake");
        assert_eq!((wrong[0].line, wrong[0].help.as_deref().map(|h| h.contains("allowFaults"))), (3, Some(true)));
    }
}
