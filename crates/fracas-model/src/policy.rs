//! What the owner of a host allows. It beats any controller and cannot be changed remotely.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    diagnostic::Diagnostic,
    document::read_generic,
    process::Process,
    shape::{Field, Shape},
    units::{Dur, Size},
};

/// Files and directories without which a host does not start, cannot be reached or cannot be trusted: always protected.
/// The first ones are no files at all, but ways to speak to the kernel.
const VITAL: [&str; 38] = [
    "/proc",
    "/sys",
    "/dev",
    "/boot",
    "/efi",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libexec",
    "/run/systemd",
    "/run/dbus",
    "/run/udev",
    "/etc/passwd",
    "/etc/shadow",
    "/etc/group",
    "/etc/gshadow",
    "/etc/nsswitch.conf",
    "/etc/pam.d",
    "/etc/security",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/etc/ssh",
    "/etc/fstab",
    "/etc/crypttab",
    "/etc/machine-id",
    "/etc/systemd",
    "/etc/dbus-1",
    "/etc/ld.so.preload",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/fracas",
];

/// How the names of units begin that keep a host running and reachable, and those of this program itself.
const VITAL_UNITS: [&str; 14] = [
    "systemd-",
    "dbus",
    "ssh.",
    "ssh@",
    "sshd",
    "getty",
    "serial-getty@",
    "user@",
    "polkit",
    "networking.",
    "network.",
    "NetworkManager",
    "containerd",
    "fracas",
];

/// What keeps a host reachable and its other programs alive: always protected. The last two are only names of services.
const REACHABLE: [&str; 24] = [
    "sshd",
    // OpenSSH 9.8 and 10 moved what serves one connection into programs of their own.
    "sshd-session",
    "sshd-auth",
    "dropbear",
    "systemd",
    "systemd-executor",
    "systemd-journald",
    "systemd-logind",
    "systemd-udevd",
    "systemd-networkd",
    "systemd-resolved",
    "dbus-daemon",
    "dbus-broker",
    "dbus-broker-launch",
    "containerd",
    "dockerd",
    "crio",
    "conmon",
    "conmonrs",
    "runc",
    "crun",
    "kubelet",
    "ssh.service",
    "docker.service",
];
/// `TASK_COMM_LEN` of `linux/sched.h` without the closing zero: longer names are cut in `comm`.
const LONGEST_COMM: usize = 15;

/// The host owner's rules; [`Policy::builtin`] where there is no file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    /// Names of allowed faults; `*` allows all, an empty list none.
    pub allow_faults: Vec<String>,
    /// Kinds of allowed probes; `*` allows all, an empty list none.
    pub allow_probes: Vec<String>,
    /// Kinds of allowed ledgers; `*` allows all, an empty list none.
    pub allow_ledgers: Vec<String>,
    /// The longest a fault may last.
    pub max_duration: Dur,
    /// Names or systemd services of processes that are never touched, beside the fixed ones.
    pub protect_processes: Vec<String>,
    /// Files and directories that are never replaced or filled, beside the fixed ones.
    pub protect_paths: Vec<String>,
    /// The largest file that may be replaced.
    pub max_file_size: Size,
    /// What disk faults leave free at least.
    pub disk_reserve: Size,
    /// Remote TCP ports that network faults always let pass, beside the controller's.
    pub pass_ports: Vec<u16>,
    /// Networks that network faults always let pass.
    pub pass_networks: Vec<String>,
    /// Programs (absolute paths) that `exec` may start.
    pub exec_allow: Vec<String>,
    /// The user that `exec` runs as.
    pub exec_user: String,
    /// Folders whose files documents may name as secrets that probes send.
    pub secrets_in: Vec<String>,
    /// Folders whose files probes may look into.
    #[serde(default)]
    pub read_in: Vec<String>,
}

/// What is allowed at all.
fn allowed(builtin: &Policy) -> [Field; 3] {
    let list = |of| Shape::List { of: Box::new(of), min: 0, max: 1000 };
    [
        Field::with_default(
            "allowFaults",
            list(Shape::Text { max: 64 }),
            json!(builtin.allow_faults),
            "Names of the faults that are allowed; \"*\" allows all, an empty list none.",
        ),
        Field::with_default(
            "allowProbes",
            list(Shape::Text { max: 64 }),
            json!(builtin.allow_probes),
            "Kinds of the probes that are allowed; \"*\" allows all, an empty list none. `exec` needs execAllow besides.",
        ),
        Field::with_default(
            "allowLedgers",
            list(Shape::Text { max: 64 }),
            json!(builtin.allow_ledgers),
            "Kinds of the ledgers that are allowed, which write markers into services; \"*\" allows all, an empty list none. \
             `exec` needs execAllow besides.",
        ),
    ]
}

/// The form of a policy file: `kind: HostPolicy`.
pub fn policy_shape() -> Shape {
    let list = |of| Shape::List { of: Box::new(of), min: 0, max: 1000 };
    let port = Shape::Integer { min: 1, max: 65_535 };
    let builtin = Policy::builtin();
    let allow = allowed(&builtin);
    let mut fields = vec![
        Field::required("apiVersion", Shape::choice(&["fracas/v1"]), "Version of this grammar."),
        Field::required("kind", Shape::choice(&["HostPolicy"]), "What this document is."),
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
            "Processes that are never touched, beside init, sshd and the like: by name, program file, first word of the \
             command line, or systemd service.",
        ),
        Field::with_default(
            "protectPaths",
            list(Shape::Path),
            json!(builtin.protect_paths),
            "Files and directories that are never touched, with all below them, beside those the system itself needs.",
        ),
        Field::with_default(
            "maxFileSize",
            Shape::Size { min: Size(0), max: Size(1 << 30) },
            builtin.max_file_size.to_string(),
            "The largest file that may be replaced; it is read once.",
        ),
        Field::with_default(
            "diskReserve",
            Shape::Size { min: Size(0), max: Size(1 << 50) },
            builtin.disk_reserve.to_string(),
            "What disk faults leave free for programs without privilege at least; 0B lets a disk be filled to the brim.",
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
        Field::with_default(
            "secretsIn",
            list(Shape::Path),
            json!(builtin.secrets_in),
            "Folders whose files documents may name as secrets, such as tokens, that probes send to where the document says: \
             whoever may start runs here can have them sent anywhere.",
        ),
        Field::with_default(
            "readIn",
            list(Shape::Path),
            json!(builtin.read_in),
            "Folders whose files the probes `file` and `log` may look into, with all below them: whoever may start runs here \
             can learn what stands there, bit by bit.",
        ),
    ];
    // After version and kind.
    fields.splice(2..2, allow);
    Shape::Object(fields)
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
    /// Every fault for at most an hour; SSH and the metadata address pass; every probe, but no program for `exec`.
    pub fn builtin() -> Self {
        Self {
            allow_faults: vec!["*".into()],
            allow_probes: vec!["*".into()],
            allow_ledgers: vec!["*".into()],
            max_duration: Dur::from_secs(3600),
            protect_processes: Vec::new(),
            protect_paths: Vec::new(),
            max_file_size: Size(16 << 20),
            disk_reserve: Size(64 << 20),
            pass_ports: vec![22],
            pass_networks: vec!["169.254.169.254/32".into(), "fd00:ec2::254/128".into()],
            exec_allow: Vec::new(),
            exec_user: "nobody".into(),
            secrets_in: Vec::new(),
            read_in: vec!["/var/log".into()],
        }
    }

    /// Nothing at all, neither harm nor looks: what stands when a policy file cannot be read.
    pub fn nothing() -> Self {
        Self {
            allow_faults: Vec::new(),
            allow_probes: Vec::new(),
            allow_ledgers: Vec::new(),
            exec_allow: Vec::new(),
            ..Self::builtin()
        }
    }

    /// Whether a fault of this name is allowed.
    pub fn allows(&self, fault: &str) -> bool {
        self.allow_faults.iter().any(|f| f == "*" || f == fault)
    }

    /// Whether a probe of this kind is allowed.
    pub fn allows_probe(&self, kind: &str) -> bool {
        self.allow_probes.iter().any(|p| p == "*" || p == kind)
    }

    /// Whether a ledger of this kind is allowed.
    pub fn allows_ledger(&self, kind: &str) -> bool {
        self.allow_ledgers.iter().any(|l| l == "*" || l == kind)
    }

    /// Whether documents may name this file as a secret.
    pub fn allows_secret(&self, path: &str) -> bool {
        lies_below(path, &self.secrets_in)
    }

    /// Whether probes may look into this file; `path` has no symbolic link in it.
    pub fn allows_reading(&self, path: &str) -> bool {
        lies_below(path, &self.read_in)
    }

    /// Why what is at or below this path must not be touched, if so. `path` has no symbolic link in it; `own` are the
    /// agent's files and directories.
    pub fn protects_path(&self, path: &str, own: &[String]) -> Option<String> {
        let within = |place: &str| path == place || path.strip_prefix(place).is_some_and(|rest| rest.starts_with('/'));
        if own.iter().any(|place| within(place)) {
            Some("it belongs to the agent".into())
        } else if let Some(place) = VITAL.into_iter().find(|place| within(place)) {
            Some(format!("the system needs what is in {place}"))
        } else if path.split('/').any(|part| part == ".ssh") {
            Some("keys keep the host reachable".into())
        } else {
            let named = self.protect_paths.iter().find(|place| within(place.trim_end_matches('/')))?;
            Some(format!("the host's policy protects {named}"))
        }
    }

    /// Why this systemd unit must not be touched, if so.
    pub fn protects_unit(&self, unit: &str) -> Option<String> {
        let bare = unit.rsplit_once('.').map_or(unit, |(name, _)| name);
        let called = |name: &str| name == unit || name == bare;
        let vital = VITAL_UNITS.into_iter().find(|prefix| unit.starts_with(prefix));
        if let Some(name) = vital.or_else(|| REACHABLE.into_iter().find(|name| called(name))) {
            Some(format!("{} keeps the host reachable", name.trim_end_matches(['-', '@', '.'])))
        } else {
            let named = self.protect_processes.iter().find(|name| called(name))?;
            Some(format!("the host's policy protects {named}"))
        }
    }

    /// Why this process must not be touched, if so. `own` are the agent, its guard and its workers.
    pub fn protects(&self, process: &Process, own: &[i32]) -> Option<String> {
        let runtime = || process.names().find(|n| n.starts_with("containerd-shim"));
        if process.id.pid == 1 {
            Some("it is the init process".into())
        } else if process.kernel {
            Some("it is a kernel thread".into())
        } else if own.contains(&process.id.pid) {
            Some("it belongs to the agent".into())
        } else if let Some(name) = REACHABLE.into_iter().find(|name| is_meant(process, name)).or_else(runtime) {
            Some(format!("{name} keeps the host reachable"))
        } else {
            let named = self.protect_processes.iter().find(|name| is_meant(process, name))?;
            Some(format!("the host's policy protects {named}"))
        }
    }
}

/// Whether the path leads below one of the folders.
fn lies_below(path: &str, folders: &[String]) -> bool {
    let below = |folder: &String| {
        let rest = path.strip_prefix(folder.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'))
    };
    folders.iter().any(below) && !path.split('/').any(|part| part == "..")
}

/// Whether a protected name means this process: by any of its names, by the 15 bytes that the kernel keeps of one, or by
/// the systemd service it belongs to, with or without `.service`.
fn is_meant(process: &Process, name: &str) -> bool {
    let cut = || name.get(..LONGEST_COMM).is_some_and(|cut| process.id.name == cut);
    let unit = process.unit.as_deref();
    process.is_called(name) || cut() || unit.is_some_and(|u| u == name || u.strip_suffix(".service") == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(comm: &str, exe: &str, argv0: &str, unit: &str) -> Process {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let id = crate::process::ProcessRef { pid: 42, start_ticks: 1, name: comm.into() };
        let (exe, argv0, unit) = (given(exe), given(argv0), given(unit));
        Process { id, parent: 1, exe, argv0, uid: 0, kernel: false, ports: vec![], unit }
    }

    #[test]
    fn nothing_is_chosen_by_a_name_under_which_it_is_not_protected() {
        let all = [
            process("kube-controller", "kube-controller-manager", "kube-controller-manager", ""),
            process("kube-controller", "", "", ""),
            process("java", "java", "kafka", ""),
            process("java", "java", "java", "kafka.service"),
            process("python3", "kafka", "kafka:", ""),
        ];
        let names = ["kube-controller-manager".to_owned(), "kafka".to_owned()];
        let policy = Policy { protect_processes: names.to_vec(), ..Policy::builtin() };
        for process in &all {
            assert!(policy.protects(process, &[]).is_some(), "{process:?}");
            assert_eq!(Policy::builtin().protects(process, &[]), None);
        }
        let service = Policy { protect_processes: vec!["kafka.service".into()], ..Policy::builtin() };
        assert!(service.protects(&all[3], &[]).is_some() && service.protects(&all[2], &[]).is_none());
    }

    #[test]
    fn what_keeps_a_host_reachable_is_protected_under_all_its_names() {
        for (comm, exe, argv0, unit) in [
            ("sshd-session", "sshd-session", "sshd-session:", ""),
            ("x", "sshd", "", ""),
            ("x", "", "sshd:", ""),
            ("systemd-journal", "", "", ""),
            ("(sd-pam)", "systemd", "", "user@0.service"),
            ("kubelet", "kubelet", "kubelet", "kubelet.service"),
            ("conmon", "conmon", "conmon", ""),
            ("containerd-shim", "containerd-shim-runc-v2", "", ""),
            ("docker-proxy", "docker-proxy", "docker-proxy", "docker.service"),
        ] {
            assert!(Policy::builtin().protects(&process(comm, exe, argv0, unit), &[]).is_some(), "{comm} {exe}");
        }
        assert_eq!(Policy::builtin().protects(&process("nginx", "nginx", "nginx:", "nginx.service"), &[]), None);
    }

    #[test]
    fn units_are_protected_by_any_of_their_names() {
        let policy = Policy { protect_processes: vec!["kafka".into(), "pg@13.service".into()], ..Policy::builtin() };
        for unit in [
            "ssh.service",
            "sshd.socket",
            "ssh@7.service",
            "systemd-journald.socket",
            "dbus.service",
            "dbus-broker.service",
            "docker.service",
            "kubelet.service",
            "fracas-agent.service",
            "kafka.service",
            "pg@13.service",
        ] {
            assert!(policy.protects_unit(unit).is_some(), "{unit}");
        }
        for unit in ["nginx.service", "kafka2.service", "pg@14.service", "sshguard-like.timer"] {
            let guarded = unit.starts_with("ssh");
            assert_eq!(policy.protects_unit(unit).is_some(), guarded && unit.starts_with("sshd"), "{unit}");
        }
    }

    #[test]
    fn paths_are_protected_with_all_below_them() {
        let policy = Policy { protect_paths: vec!["/srv/keep/".into(), "/opt/one".into()], ..Policy::builtin() };
        let own = ["/var/lib/fracas".to_owned()];
        for path in [
            "/etc/passwd",
            "/etc/ssh/sshd_config",
            "/proc/1/environ",
            "/root/.ssh/authorized_keys",
            "/var/lib/fracas/journal",
            "/srv/keep/a/b",
            "/srv/keep",
            "/opt/one",
        ] {
            assert!(policy.protects_path(path, &own).is_some(), "{path}");
        }
        for path in ["/etc/passwd-", "/etc/nginx/nginx.conf", "/srv/keeper", "/opt/one.bak", "/var/lib/fracas2/x"] {
            assert_eq!(policy.protects_path(path, &own), None, "{path}");
        }
    }

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
        assert!(policy.allows_probe("http"));
        let few = read_policy("p", &format!("{text}allowProbes: [tcp]\n")).expect("valid");
        assert!(few.allows_probe("tcp") && !few.allows_probe("http") && !Policy::nothing().allows_probe("tcp"));
        assert_eq!((policy.max_duration, policy.pass_ports.len()), (Dur::from_secs(60), 2));
        let wrong = read_policy("p", &text.replace("allowFaults", "allowfaults")).expect_err("a mistake");
        assert_eq!((wrong[0].line, wrong[0].help.as_deref().map(|h| h.contains("allowFaults"))), (3, Some(true)));
    }
}
