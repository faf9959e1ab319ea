//! What a lab could leave on the machine, each kind looked for by its own means: processes by a mark in their
//! environment, namespaces by their numbers, devices, mounts and cgroups as the machine lists them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use fracas_agent::host::{netlink::link::Links, trials::own_cgroup};
use fracas_sim::need::Need;
use libtest_mimic::Trial;

use crate::{
    stage::{self, Place, lab, part},
    trial,
};

/// Variable that a creator passes on to everything in its lab.
pub(crate) const MARK: &str = "FRACAS_LAB_TRIAL";

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("planted_residue_is_found", &[Need::Lab], planted_residue_is_found)]
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traces {
    /// Command lines of the marked processes, zombies as `?`.
    pub(crate) processes: BTreeMap<i32, String>,
    /// Namespaces of the marked processes that this process is not in, like `net:[4026531840]`.
    pub(crate) namespaces: BTreeSet<String>,
    /// Network devices here.
    pub(crate) devices: BTreeSet<String>,
    /// Mounts here.
    pub(crate) mounts: BTreeSet<String>,
    /// Cgroups of labs whose keeper was a marked process.
    pub(crate) cgroups: BTreeSet<PathBuf>,
    /// Cgroups of labs whose keeper is gone.
    pub(crate) orphans: BTreeSet<PathBuf>,
}

impl Traces {
    /// Of the labs with this mark, and of the machine.
    pub(crate) fn of(mark: &str) -> Self {
        let wanted = format!("{MARK}={mark}");
        let marked = |pid: i32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|b| *b == 0).any(|v| v == wanted.as_bytes())
        };
        let processes: BTreeMap<i32, String> = pids().into_iter().filter(|pid| marked(*pid)).map(describe).collect();
        let own = namespaces(std::process::id().cast_signed());
        let namespaces = processes.keys().flat_map(|pid| namespaces(*pid)).filter(|n| !own.contains(n)).collect();
        let cgroups = cgroups().into_iter().filter(|p| processes.contains_key(&keeper(p))).collect();
        Self { processes, namespaces, cgroups, ..Self::of_machine() }
    }

    /// Of the machine alone.
    pub(crate) fn of_machine() -> Self {
        let links = Links::open().and_then(|mut links| links.list()).expect("devices");
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        Self {
            devices: links.into_iter().map(|link| link.name).collect(),
            mounts: mounts.lines().map(str::to_owned).collect(),
            orphans: orphans(),
            ..Self::default()
        }
    }

    /// What of this is still there: marked processes, namespaces that anybody is in, cgroups; and what the machine has
    /// now that it had not `before`. Empty when nothing is left.
    pub(crate) fn left(&self, mark: &str, before: &Self) -> Vec<String> {
        let now = Self::of(mark);
        let inhabited: BTreeSet<String> = pids().into_iter().flat_map(namespaces).collect();
        let mut left: Vec<String> = now.processes.iter().map(|(pid, line)| format!("process {pid}: {line}")).collect();
        left.extend(self.namespaces.intersection(&inhabited).map(|n| format!("namespace {n}")));
        left.extend(self.cgroups.iter().filter(|p| p.exists()).map(|p| format!("cgroup {}", p.display())));
        left.extend(orphans().difference(&before.orphans).map(|p| format!("cgroup {}", p.display())));
        left.extend(now.devices.difference(&before.devices).map(|d| format!("device {d}")));
        left.extend(now.mounts.difference(&before.mounts).map(|m| format!("mount {m}")));
        left
    }
}

fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("processes").flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

fn describe(pid: i32) -> (i32, String) {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    (pid, String::from_utf8_lossy(&line).replace('\0', " "))
}

/// Those that may be seen of this process.
fn namespaces(pid: i32) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/ns")) else { return BTreeSet::new() };
    let links = entries.flatten().filter_map(|e| fs::read_link(e.path()).ok());
    links.map(|link| link.display().to_string()).collect()
}

/// The keeper a lab's cgroup is named after.
fn keeper(cgroup: &Path) -> i32 {
    let name = cgroup.to_str().and_then(|path| path.rsplit_once("fracas-lab-"));
    name.and_then(|(_, keeper)| keeper.parse().ok()).unwrap_or_default()
}

fn orphans() -> BTreeSet<PathBuf> {
    let orphan = |cgroup: &PathBuf| !Path::new(&format!("/proc/{}", keeper(cgroup))).exists();
    // A keeper removes the cgroup before it ends, so one that is still there afterwards is left over.
    cgroups().into_iter().filter(orphan).filter(|cgroup| cgroup.exists()).collect()
}

/// All cgroups of labs beside this process.
pub(crate) fn cgroups() -> BTreeSet<PathBuf> {
    let beside = own_cgroup().and_then(|own| fs::read_dir(own).ok()).into_iter().flatten().flatten();
    beside.map(|e| e.path()).filter(|p| p.to_string_lossy().contains("fracas-lab-")).collect()
}

/// In a host, which is its machine: plants what must be found, and says `found` for each.
pub(crate) fn plant() {
    let before = Traces::of_machine();
    assert_eq!(Traces::default().left("planted", &before), Vec::<String>::new(), "nothing was planted yet");
    let found = |what: &str, mark: &str, traces: &Traces| {
        let left = traces.left(mark, &before);
        assert!(left.iter().any(|l| l.starts_with(what)), "{what} in {left:?}");
        stage::print(&format!("found {what}"));
    };
    let mut links = Links::open().expect("links");
    links.add_bridge("residue").expect("bridge");
    found("device residue", "", &Traces::default());
    links.delete("residue").expect("deleted");

    fs::create_dir_all("/tmp/residue").expect("directory");
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", "/tmp/residue", "tmpfs", flags, None).expect("mount");
    found("mount", "", &Traces::default());
    rustix::mount::unmount("/tmp/residue", rustix::mount::UnmountFlags::empty()).expect("unmounted");

    let child = stage::part_here(&["rest"]).env(MARK, "planted").stdout(std::process::Stdio::null()).spawn();
    let mut child = child.expect("child");
    stage::wait_for("it has started", || Traces::of("planted").processes.values().any(|line| line.contains("rest")));
    found("process", "planted", &Traces::default());
    // Its namespaces are found when somebody is in them, be it not their maker.
    let own = namespaces(child.id().cast_signed());
    found("namespace", "", &Traces { namespaces: own, ..Traces::default() });
    child.kill().and_then(|()| child.wait()).expect("killed");

    if own_cgroup().is_some_and(|own| fs::create_dir(own.join("fracas-lab-1")).is_ok()) {
        found("cgroup", "", &Traces { cgroups: cgroups(), ..Traces::default() });
        let orphan = own_cgroup().expect("own").join("fracas-lab-999999");
        fs::create_dir(&orphan).expect("made");
        found("cgroup", "", &Traces::default());
        fs::remove_dir(orphan).expect("removed");
        fs::remove_dir(own_cgroup().expect("own").join("fracas-lab-1")).expect("removed");
    }
    assert!(!Path::new("/tmp/residue/x").exists());
    assert_eq!(Traces::default().left("planted", &before), Vec::<String>::new(), "all is taken away");
}

fn planted_residue_is_found() {
    let (lab, hosts) = lab(&["a"]);
    let found = hosts[0].read(part(&["plant"]));
    let mut expected = vec!["found device residue", "found mount", "found process", "found namespace"];
    if !lab.limits().iter().any(|limit| limit.what.contains("cgroups")) {
        expected.extend(["found cgroup", "found cgroup"]);
    }
    assert_eq!(found.lines().collect::<Vec<_>>(), expected);
}
