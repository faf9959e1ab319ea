//! Which processes a selector means, decided purely from a table of processes.

use serde::{Deserialize, Serialize};

/// One process, safe against reuse of its number: a number and the start time belong together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessRef {
    /// Process number in the agent's pid namespace.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`: start in clock ticks since boot.
    pub start_ticks: u64,
    /// `comm`, for people.
    pub name: String,
}

/// What the host knows of one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Identity.
    pub id: ProcessRef,
    /// Parent's number.
    pub parent: i32,
    /// Base name of the executable, when readable.
    pub exe: Option<String>,
    /// First word of the command line, base name.
    pub argv0: Option<String>,
    /// Real user.
    pub uid: u32,
    /// A kernel thread.
    pub kernel: bool,
    /// TCP ports it listens on (only looked up when asked).
    pub ports: Vec<u16>,
    /// The systemd unit of its cgroup.
    pub unit: Option<String>,
}

/// Which processes are meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProcessSelector {
    /// `comm`, executable or first argument has this base name; only *roots* count:
    /// a match whose parent also matches is not counted.
    Name(String),
    /// The process whose number stands in this file.
    PidFile(String),
    /// Whatever listens on this TCP port.
    Port(u16),
    /// Every process in this systemd unit's cgroup; roots only.
    Unit(String),
}

impl Process {
    /// Whether this is one of its names: `comm`, the executable or the first word of the command line. Choosing and
    /// protecting both ask here, so that nothing can be chosen by a name under which it is not protected.
    pub fn is_called(&self, name: &str) -> bool {
        self.names().any(|n| n == name)
    }

    /// The names of [`Process::is_called`].
    pub fn names(&self) -> impl Iterator<Item = &str> {
        // A program that writes its own title ends its name with a colon: `sshd: root@pts/0`.
        let argv0 = self.argv0.as_deref().map(|a| a.trim_end_matches(':'));
        [Some(self.id.name.as_str()), self.exe.as_deref(), argv0].into_iter().flatten()
    }
}

impl ProcessSelector {
    /// Whether this is one of the processes meant, root or not.
    pub fn means(&self, process: &Process, pid_in_file: Option<i32>) -> bool {
        match self {
            Self::Name(name) => !process.kernel && process.is_called(name),
            Self::PidFile(_) => pid_in_file == Some(process.id.pid),
            Self::Port(port) => process.ports.contains(port),
            Self::Unit(unit) => process.unit.as_deref() == Some(unit),
        }
    }

    /// The processes meant, roots only, ordered by number. `pid_in_file` is what the pid file held.
    pub fn select<'a>(&self, table: &'a [Process], pid_in_file: Option<i32>) -> Vec<&'a Process> {
        let mut found: Vec<&Process> = table.iter().filter(|p| self.means(p, pid_in_file)).collect();
        let numbers: Vec<i32> = found.iter().map(|p| p.id.pid).collect();
        found.retain(|p| !numbers.contains(&p.parent));
        found.sort_by_key(|p| p.id.pid);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32, name: &str) -> Process {
        let id = ProcessRef { pid, start_ticks: 1, name: name.into() };
        Process { id, parent, exe: None, argv0: None, uid: 0, kernel: false, ports: vec![], unit: None }
    }

    #[test]
    fn a_match_below_a_match_is_not_counted() {
        let table = [process(10, 1, "postgres"), process(11, 10, "postgres"), process(12, 1, "psql")];
        let found = ProcessSelector::Name("postgres".into()).select(&table, None);
        assert_eq!(found.iter().map(|p| p.id.pid).collect::<Vec<_>>(), [10]);
    }
}
