//! The first and the last trials: a host without Fracas, a controller and an agent on it, and a host without Fracas again.

use std::fs;

use crate::{
    deaths::connected,
    faults::{PAGE, STOPPED, reached},
    guest::{Case, say, until},
    look::{AGENT, Dump, active, answers, main_pid, property},
};

/// In this order, before all others.
pub(crate) const TRIALS: &[Case] = &[
    ("controller_starts_as_a_service", controller_starts),
    ("agent_is_installed_on_a_host_without_anything", installed),
    ("installed_again_nothing_changes", installed_again),
];
/// After all others.
pub(crate) const LAST: &[Case] =
    &[("uninstall_is_refused_while_something_is_left", refused), ("uninstall_leaves_nothing", uninstalled)];

/// The guest as it was before anything was installed.
const BEFORE: &str = "/var/lib/trials-over-before";
const TOKEN: &str = "/run/token";
const INSTALL: &[&str] = &["install", "--controller", "127.0.0.1:7767", "--join-token-file", TOKEN, "--name", "guest"];

/// Another host, in a network namespace of its own, with a cable between.
pub(crate) fn cable() {
    for line in [
        "netns add peer",
        "link add cable address 02:00:00:00:00:01 type veth peer name eth0 netns peer",
        "address add 10.9.0.1/24 dev cable",
        "link set cable up",
        "-n peer address add 10.9.0.2/24 dev eth0",
        "-n peer link set eth0 up",
    ] {
        say("/bin/ip", &line.split(' ').collect::<Vec<_>>()).good();
    }
    until("the peer answers", reached);
}

fn controller_starts() {
    // The watchdog is stricter than the unit that is shipped, so that three of its periods are over soon.
    let dropin = "/etc/systemd/system/fracas-agent.service.d";
    fs::create_dir_all(dropin).expect("a directory");
    fs::write(format!("{dropin}/trial.conf"), "[Service]\nWatchdogSec=5s\n").expect("a file");
    fs::write(PAGE, "as it was\n").expect("a file");
    cable();
    say("/bin/systemctl", &["start", "fracas-controller.service", "victim@8080.service"]).good();
    say("/bin/systemctl", &["enable", "--now", STOPPED.0]).good();
    assert!(active("fracas-controller.service"));
    until("the controller answers", || say("/usr/local/bin/fracas", &["hosts"]).code == 0);
    until("the victims answer", || answers(8080).is_some() && answers(STOPPED.1).is_some());
    let token = say("/usr/local/bin/fracas", &["hosts", "join-token", "--label", "role=guest"]).good();
    fs::write(TOKEN, token).expect("a file");
    let dump = Dump::take();
    dump.keep(BEFORE);
    assert!(Dump::kept(BEFORE).differences(&dump).is_empty());
}

fn installed() {
    let said = say("/opt/fracas-agent", INSTALL).good();
    println!("{said}");
    assert!(active(AGENT), "{said}");
    assert_eq!(property(AGENT, "UnitFileState"), "enabled");
    assert_eq!(property(AGENT, "WatchdogUSec"), "5s");
    connected();
    until("it says how it is", || property(AGENT, "StatusText") == "nothing is open on this host");
    let differences = Dump::take().differences(&Dump::kept(BEFORE));
    assert!(differences.iter().any(|line| line.contains("/usr/local/bin/fracas-agent ")), "{differences:?}");
    let check = say("/usr/local/bin/fracas-agent", &["check"]);
    println!("{}", check.out);
}

fn installed_again() {
    let pid = main_pid(AGENT);
    let said = say("/opt/fracas-agent", INSTALL).good();
    assert!(!["wrote", "replaced", "started", "made"].iter().any(|word| said.contains(word)), "{said}");
    assert_eq!(main_pid(AGENT), pid);
}

fn refused() {
    // What looks like ours: nobody can say that it is not.
    say("/usr/sbin/nft", &["add", "table", "inet", "fracas_left"]).good();
    let said = say("/usr/local/bin/fracas-agent", &["uninstall", "--purge"]);
    assert!(said.code == 6 && said.out.contains("inet fracas_left"), "{said:?}");
    until("the agent is there again", || active(AGENT));
    connected();
    say("/usr/sbin/nft", &["delete", "table", "inet", "fracas_left"]).good();
}

fn uninstalled() {
    let said = say("/usr/local/bin/fracas-agent", &["uninstall", "--purge"]).good();
    println!("{said}");
    let differences = Dump::take().differences(&Dump::kept(BEFORE));
    assert!(differences.is_empty(), "{differences:#?}");
}
