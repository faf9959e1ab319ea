//! A lab host is a host of its own: name, processes, files, settings. And the machine is safe from it.

use std::{collections::BTreeSet, fs, path::Path};

use fracas_sim::{
    lab::{DATA, Lab, Options, Program},
    need::Need,
};
use libtest_mimic::Trial;

use crate::{
    stage::{Place, lab, part, wait_for},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("each_host_has_its_own_name", &[Need::Lab], each_host_has_its_own_name),
        trial("each_host_sees_only_its_own_processes", &[Need::Lab], each_host_sees_only_its_own_processes),
        trial("each_host_has_its_own_files", &[Need::Lab], each_host_has_its_own_files),
        trial("hosts_share_no_namespace", &[Need::Lab], hosts_share_no_namespace),
        trial("the_machine_is_out_of_reach", &[Need::Lab], the_machine_is_out_of_reach),
        trial("shared_directories_are_writable", &[Need::Lab], shared_directories_are_writable),
        trial("a_host_loses_power_and_starts_again", &[Need::Lab], a_host_loses_power_and_starts_again),
        trial("hosts_own_their_cgroups", &[Need::LabCgroup], hosts_own_their_cgroups),
        trial("limits_are_told", &[Need::Lab], limits_are_told),
        trial("bad_names_and_twins_are_refused", &[Need::Lab], bad_names_and_twins_are_refused),
    ]
}

fn cat(path: &str) -> Program {
    Program::new("cat").arg(path)
}

fn shell(script: &str) -> Program {
    Program::new("sh").args(["-c", script])
}

fn each_host_has_its_own_name() {
    let outside = fs::read_to_string("/proc/sys/kernel/hostname").expect("name");
    let (lab, hosts) = lab(&["db-1", "db-2"]);
    for host in &hosts {
        assert_eq!(host.read(cat("/proc/sys/kernel/hostname")).trim(), host.name());
    }
    assert_eq!(lab.read(cat("/proc/sys/kernel/hostname")).trim(), "lab");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").expect("name"), outside);

    let list = hosts[0].read(cat("/etc/hosts"));
    for entry in ["10.77.0.1 lab", "fd77::1 lab", "10.77.0.11 db-1", "fd77::12 db-2", "127.0.0.1 localhost"] {
        assert!(list.lines().any(|line| line == entry), "{entry} in:\n{list}");
    }
    assert!(!fs::read_to_string("/etc/hosts").unwrap_or_default().contains("db-2"), "the machine's own is untouched");
    // A host that comes later is known to those that were there before.
    lab.add_host("late").expect("host");
    assert!(hosts[0].read(cat("/etc/hosts")).contains("10.77.0.13 late\n"));
}

fn each_host_sees_only_its_own_processes() {
    let (lab, hosts) = lab(&["a", "b"]);
    let resting = hosts[0].ready(&["rest"]);
    let command_lines = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done";
    let rests = |text: &str| text.lines().any(|line| line.ends_with("lab-trial rest "));
    assert!(rests(&hosts[0].read(shell(command_lines))), "its own");
    let other = hosts[1].read(shell(command_lines));
    assert!(!rests(&other), "{other}");
    assert!(rests(&lab.read(shell(command_lines))), "the outer namespace sees all of the lab");
    let pids = hosts[1].read(shell("echo /proc/[0-9]*"));
    // Its init, and the shell that looks.
    assert_eq!(pids.split_whitespace().count(), 2, "{pids}");
    assert!(resting.pid() < 100, "numbers begin anew: {}", resting.pid());
}

fn each_host_has_its_own_files() {
    let (lab, hosts) = lab(&["a", "b"]);
    for place in ["/tmp", "/run", "/dev/shm", DATA] {
        hosts[0].read(shell(&format!("echo mine > {place}/trial")));
        assert_eq!(hosts[0].read(cat(&format!("{place}/trial"))), "mine\n");
        assert!(!hosts[1].run(cat(&format!("{place}/trial"))).end.success(), "{place} of another host");
        assert!(!lab.run(cat(&format!("{place}/trial"))).end.success(), "{place} of the lab");
        assert!(!Path::new(place).join("trial").exists(), "{place} of the machine");
    }
    // A full disk is one host's trouble.
    let full = hosts[0].run(shell(&format!("head -c 1100m /dev/zero > {DATA}/much")));
    assert!(String::from_utf8_lossy(&full.stderr).contains("No space left"), "{full:?}");
    hosts[1].read(shell(&format!("echo room > {DATA}/trial")));
    lab.read(shell(&format!("echo room > {DATA}/trial")));
    let entries = hosts[0].read(shell("ls /dev"));
    let expected = ["fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero"];
    assert_eq!(entries.split_whitespace().collect::<Vec<_>>(), expected);
    assert_eq!(hosts[0].read(shell("head -c 3 /dev/zero | tr '\\0' x > /dev/stdout; echo lost > /dev/null")), "xxx");
}

fn hosts_share_no_namespace() {
    let (lab, hosts) = lab(&["a", "b"]);
    let namespaces = |text: String| -> BTreeSet<String> { text.lines().map(str::to_owned).collect() };
    let look = || shell("for n in net pid mnt uts ipc; do readlink /proc/self/ns/$n; done");
    let mut all: Vec<BTreeSet<String>> = hosts.iter().map(|host| namespaces(host.read(look()))).collect();
    all.push(namespaces(lab.read(look())));
    let own = ["net", "pid", "mnt", "uts", "ipc"];
    all.push(
        own.iter().map(|n| fs::read_link(format!("/proc/self/ns/{n}")).expect("link").display().to_string()).collect(),
    );
    let together: BTreeSet<&String> = all.iter().flatten().collect();
    assert_eq!(together.len(), 4 * 5, "{all:#?}");
}

fn the_machine_is_out_of_reach() {
    let (lab, hosts) = lab(&["a"]);
    let probe = format!("/var/tmp/fracas-lab-trial-{}", std::process::id());
    let forbidden = [
        format!("echo x > {probe}"),
        "echo x > /etc/fracas-lab-trial".into(),
        "cat /proc/sys/vm/swappiness > /proc/sys/vm/swappiness".into(),
        "cat /proc/sys/kernel/panic > /proc/sys/kernel/panic".into(),
        "touch /sys/class/net".into(),
        "touch /dev/trial".into(),
        "mknod /tmp/disk b 254 0".into(),
        // To its own value: harmless should it be permitted.
        "date -s \"$(date)\"".into(),
    ];
    for script in &forbidden {
        assert!(!hosts[0].run(shell(script)).end.success(), "host: {script}");
        assert!(!lab.run(shell(script)).end.success(), "lab: {script}");
    }
    assert!(!Path::new(&probe).exists());
    // A trial that could not fail would prove nothing: its own network's settings are its own.
    hosts[0].read(shell("echo 1 > /proc/sys/net/ipv4/ip_forward && grep -q 1 /proc/sys/net/ipv4/ip_forward"));
    assert_eq!(lab.read(cat("/proc/sys/net/ipv4/ip_forward")), "0\n");
    // Devices of the machine's network are not even seen.
    assert_eq!(hosts[0].read(shell("ls /sys/class/net")).split_whitespace().collect::<Vec<_>>(), ["eth0", "lo"]);
    let devices = hosts[0].read(shell("tail -n +3 /proc/net/dev | cut -d: -f1"));
    assert_eq!(devices.split_whitespace().collect::<BTreeSet<_>>(), BTreeSet::from(["eth0", "lo"]));
}

fn shared_directories_are_writable() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().to_str().expect("text");
    fs::write(directory.path().join("in"), "from outside\n").expect("written");
    let lab = Lab::start(Options::default().share(path)).expect("lab");
    let host = lab.add_host("a").expect("host");
    assert_eq!(host.read(cat(&format!("{path}/in"))), "from outside\n");
    host.read(shell(&format!("echo from the host > {path}/out")));
    assert_eq!(lab.read(cat(&format!("{path}/out"))), "from the host\n");
    assert_eq!(fs::read_to_string(directory.path().join("out")).expect("read"), "from the host\n");

    let missing = Lab::start(Options::default().share("/no/such/directory")).expect_err("nothing to share");
    assert!(missing.to_string().contains("/no/such/directory"), "{missing}");
}

fn a_host_loses_power_and_starts_again() {
    let (lab, hosts) = lab(&["a", "b"]);
    let echo = hosts[0].ready(&["echo"]);
    assert!(hosts[1].reaches("tcp", hosts[0].v4()));
    hosts[0].read(shell(&format!("echo kept > {DATA}/file; echo lost > /tmp/file")));

    hosts[0].power_off().expect("off");
    assert!(echo.wait().is_err(), "its programs are gone");
    assert!(hosts[0].spawn(part(&["exit", "0"])).is_err());
    assert!(hosts[0].power_off().is_err(), "it is off already");
    assert!(!hosts[1].reaches("tcp", hosts[0].v4()));

    let again = lab.add_host("a").expect("started again");
    assert_eq!((again.v4(), again.v6()), (hosts[0].v4(), hosts[0].v6()));
    assert_eq!(again.read(cat(&format!("{DATA}/file"))), "kept\n");
    assert!(!again.run(cat("/tmp/file")).end.success(), "memory is lost");
    let _echo = again.ready(&["echo"]);
    wait_for("it is found again", || hosts[1].reaches("tcp", again.v4()) && hosts[1].reaches("udp", again.v6()));
}

fn hosts_own_their_cgroups() {
    let (_lab, hosts) = lab(&["a", "b"]);
    for host in &hosts {
        // The root of its own, in which it makes, freezes and removes others as an agent does.
        assert!(host.read(cat("/proc/self/cgroup")).lines().any(|line| line == "0::/"));
        host.read(shell(
            "mkdir /sys/fs/cgroup/x && sh -c 'echo 0 > /sys/fs/cgroup/x/cgroup.procs' && rmdir /sys/fs/cgroup/x",
        ));
        host.read(shell("mkdir /sys/fs/cgroup/stays"));
    }
    // The agent's own way to find it.
    let mounts = hosts[0].read(cat("/proc/self/mountinfo"));
    let points: Vec<_> = mounts.lines().filter(|line| line.contains(" - cgroup2 ")).collect();
    assert!(points.iter().all(|line| line.split(' ').nth(4) == Some("/sys/fs/cgroup")), "{points:#?}");
}

fn limits_are_told() {
    let (lab, _) = lab(&[]);
    let told: Vec<&str> = lab.limits().iter().map(|limit| limit.what.as_str()).collect();
    assert!(told.contains(&"process events"), "{told:?}");
    let user = !rustix::process::geteuid().is_root();
    for what in ["BPF programs", "other users' processes"] {
        assert_eq!(told.contains(&what), user, "{what} in {told:?}");
    }
    if user {
        assert!(told.contains(&"own cgroups") || !cgroup_here().is_empty(), "{told:?}");
    }
    for limit in lab.limits() {
        eprintln!("limit: {limit}");
        assert!(!limit.why.is_empty());
    }
}

/// Cgroups of labs of this user.
fn cgroup_here() -> Vec<std::path::PathBuf> {
    let own = fracas_agent::host::trials::own_cgroup();
    let entries = own.and_then(|own| fs::read_dir(own).ok()).into_iter().flatten().flatten();
    entries.map(|e| e.path()).filter(|p| p.to_string_lossy().contains("fracas-lab-")).collect()
}

fn bad_names_and_twins_are_refused() {
    let (lab, _) = lab(&["a"]);
    for name in ["", "A", "a/../b", "lab"] {
        let error = lab.add_host(name).expect_err(name);
        assert!(error.to_string().contains("cannot be a host's name"), "{error}");
    }
    let twin = lab.add_host("a").expect_err("twin");
    assert_eq!(twin.to_string(), "there is a host a already");
    lab.add_host("b").expect("the lab still works");
}
