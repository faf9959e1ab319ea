//! `fracas demo` as a newcomer meets it: what it shows and how it ends, also when somebody ends it, and that only a
//! folder stays. It looks on from the machine itself, where the demo is.

mod playing;
mod witness;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    process::{Child, Stdio},
    thread,
    time::Duration,
};

use fracas_sim::need::Need;
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use self::{
    playing::{Playing, Reader, Room},
    witness::{Core, ask, listens, logs, order_ms, strings_attached, without_primary},
};
use crate::{
    history::{nanoseconds, number},
    offline::here,
    rig::{Heard, LIMIT, Said},
    stage::fracas_here,
    trial,
    truth::Range,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_kept_demo_tells_the_truth", &[Need::Lab, Need::Time], a_kept_demo_tells_the_truth),
        trial("only_a_folder_stays_of_a_demo", &[Need::Lab, Need::Time], only_a_folder_stays_of_a_demo),
        trial("a_killed_demo_leaves_nothing", &[Need::Lab], a_killed_demo_leaves_nothing),
        trial("ctrl_c_ends_a_demo", &[Need::Lab], ctrl_c_ends_a_demo),
        trial("ctrl_c_twice_leaves_a_demo", &[Need::Lab], ctrl_c_twice_leaves_a_demo),
        trial("a_demo_nobody_reads_is_no_pass", &[Need::Lab], a_demo_nobody_reads_is_no_pass),
        trial("a_demo_without_a_folder_says_so", &[Need::Lab], a_demo_without_a_folder_says_so),
    ]
}

/// A first experiment that somebody changed: it is soon under way, and its fault lasts until it is stopped.
const HOLD: &str = r#"
apiVersion: fracas/v1
kind: Experiment
name: hold
parameters:
  shop: { type: string, default: "http://edge-1:8080" }
  primary: { type: string, default: shop-primary }
services: { browsing: {} }
targets: { primary: { select: "role=db,tier=primary", pick: { count: 1 } } }
probes:
  browse: { service: browsing, http: { url: "${shop}/browse" }, every: 100ms, timeout: 2s }
steadyState: { probes: [browse], holdFor: 300ms }
timeline:
  - { id: hold, at: 0s, target: primary, fault: FAULT, for: 5m }
recovery: { stableFor: 300ms, giveUpAfter: 30s }
"#;
/// Whom it hits can be seen to stand still.
const PAUSE: &str = "{ process-pause: { name: \"${primary}\" } }";
/// What works on loopback too, for everybody.
const BURN: &str = "{ cpu-load: { percent: 25%, cores: 1 } }";
/// What the demo's second document does, quickly and until it is stopped.
const SLOW: &str = r#"
apiVersion: fracas/v1
kind: Experiment
name: slow-again
targets: { primary: { select: "role=db,tier=primary" } }
timeline:
  - { id: slow, at: 0s, target: primary, fault: { net-delay: { delay: 80ms, ports: [7001] } }, for: 5m }
"#;

/// How much slower two round trips of 80 ms make an order: 160 ms and what a busy machine adds, but no third one.
const SLOWER_MS: std::ops::Range<f64> = 150.0..230.0;

/// How long what is left of a killed demo may be there.
const GONE: Duration = Duration::from_secs(5);

/// A demo whose first experiment holds until it is stopped, with its fault active.
fn holding(room: &Room, fault: &str, words: &[&str]) -> Playing {
    room.keep("shown/kill-primary.yaml", &HOLD.replace("FAULT", fault));
    let words: Vec<&str> = ["--to", "shown", "--output", "json"].iter().chain(words).copied().collect();
    let demo = Playing::begin(room, &words, Reader::Test);
    demo.says("\"kind\":\"active\"");
    demo
}

/// The results of a demo's experiments, as programs get them.
fn results(out: &str) -> Vec<Value> {
    let lines = out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")));
    lines.filter(|line: &Value| line["schema"] == "fracas.result/v1").collect()
}

/// The last lines of a demo: each verdict and its report, as people get them.
fn verdicts(out: &str) -> Vec<Vec<&str>> {
    let (_, after) = out.split_once("\nThe verdicts\n").unwrap_or_else(|| panic!("no verdicts:\n{out}"));
    let lines = after.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.take_while(|words| words.len() == 3).collect()
}

fn only_a_folder_stays_of_a_demo() {
    let (lab, loopback) = (Room::new("lab"), Room::new("loopback"));
    thread::scope(|both| {
        both.spawn(|| on_loopback(&loopback));
        let demo = Playing::begin(&lab, &["--to", "shown"], Reader::Test);
        demo.says("Experiment 2 of 2");
        assert!(demo.processes().len() > 10, "there is what could be left: {:#?}", demo.processes());
        assert_eq!(demo.traces().groups.len(), usize::from(demo.sees_groups()), "there is what could be left");
        let ended = demo.end().with(0);
        shown(&lab, &ended.out, [("PASS", "kill-primary"), ("PASS", "slow-network")], "");
        eprintln!("{}", ended.out.lines().last().unwrap_or_default());

        // Somebody changes the documents and runs it again.
        let first = lab.text("shown/kill-primary.html");
        for name in ["kill-primary", "slow-network"] {
            let file = format!("shown/{name}.yaml");
            let quick =
                [("holdFor: 4s", "holdFor: 300ms"), ("for: 10s", "for: 1s"), ("stableFor: 3s", "stableFor: 500ms")];
            lab.keep(&file, &quick.iter().fold(lab.text(&file), |text, (long, short)| text.replace(long, short)));
        }
        let ended = Playing::begin(&lab, &["--to", "shown"], Reader::Test).end().with(0);
        assert_eq!(ended.out.matches("was there already and has been changed: used as it").count(), 2, "{}", ended.out);
        shown(&lab, &ended.out, [("PASS", "kill-primary"), ("PASS", "slow-network")], "-2");
        assert_eq!(lab.text("shown/kill-primary.html"), first, "nothing is overwritten");
    });
}

fn on_loopback(room: &Room) {
    let demo = Playing::begin(room, &["--loopback", "--to", "shown"], Reader::Test);
    demo.says("burn on db-1 active");
    let then = Core::now();
    assert_eq!(demo.traces().temporary.len(), 1, "there is what could be left");
    demo.says("burn on db-1 undone");
    let idle = Core::now().idle_since(then);
    let ended = demo.end();
    assert!(ended.out.contains("left out:\n") && ended.out.contains("on this machine's loopback"), "{}", ended.out);
    // Without privilege nobody gets a quarter of a core of which others leave less, and the demo must not say so.
    let starved = idle < 0.25 && ended.out.contains("burn on db-1 had no effect: asked 25 % of core 0, measured");
    let (code, second) = if starved { (3, "INCONCLUSIVE") } else { (0, "PASS") };
    eprintln!("on loopback: {second}, the first core was idle for {:.1} % of the burn", idle * 100.0);
    shown(room, &ended.with(code).out, [("PASS", "kill-primary"), (second, "busy-host")], "");
}

/// The demo has given these verdicts, and its folder holds what it says: valid documents, and pages that stand on their
/// own.
fn shown(room: &Room, out: &str, given: [(&str, &str); 2], number: &str) {
    let experiments = given.map(|(_, name)| name);
    let page = |name: &str, number: &str| format!("shown/{name}{number}.html");
    let pages = experiments.map(|name| page(name, number));
    let told: Vec<Vec<&str>> = (0..2).map(|n| vec![given[n].0, given[n].1, pages[n].as_str()]).collect();
    assert_eq!(verdicts(out), told, "{out}");
    let documents = experiments.map(|name| format!("shown/{name}.yaml"));
    let earlier = experiments.map(|name| page(name, ""));
    let all: BTreeSet<&String> = documents.iter().chain(&earlier).chain(&pages).collect();
    assert_eq!(room.names("."), ["shown"]);
    let there: Vec<String> = room.names("shown").iter().map(|name| format!("shown/{name}")).collect();
    assert_eq!(there.iter().collect::<BTreeSet<_>>(), all, "nothing else");
    for (page, document) in pages.iter().zip(&documents) {
        here(&["validate", room.at(document).to_str().expect("text")], "", &[]).good();
        let page = room.text(page);
        assert_eq!(strings_attached(&page), [""; 0]);
        assert!(page.starts_with("<!DOCTYPE html>") && page.trim_end().ends_with("</html>"), "half a page");
        assert!(page.contains("browsing") && page.contains("Exit code"), "{page}");
    }
}

/// What a demo that stays up says of how to use it from another terminal.
struct Outside {
    context: String,
    shop: SocketAddr,
    /// The command lines to type, without the program's name.
    lines: Vec<String>,
}

impl Outside {
    fn of(out: &str) -> Self {
        let (_, said) = out.split_once("\nThe lab stays up until Ctrl-C\n").expect("it stays");
        let after =
            |start: &str| said.lines().find_map(|line| line.strip_prefix(start)).unwrap_or_else(|| panic!("{said}"));
        let shop = after("The shop: http://").split('/').next().unwrap_or_default();
        Self {
            context: after("  export FRACAS_CONTEXT=").to_owned(),
            shop: shop.parse().unwrap_or_else(|e| panic!("{e}: {shop}")),
            lines: said.lines().filter_map(|line| line.strip_prefix("  fracas ")).map(str::to_owned).collect(),
        }
    }

    fn fracas(&self, words: &[&str]) -> Said {
        here(words, "", &[("FRACAS_CONTEXT", &self.context)])
    }

    fn report(&self, run: &Value) -> Value {
        let said = self.fracas(&["report", run["run"].as_str().expect("run"), "--format", "json"]).good();
        serde_json::from_str(&said.out).expect("a report")
    }
}

fn a_kept_demo_tells_the_truth() {
    let room = Room::new("kept");
    let demo = Playing::begin(&room, &["--to", "shown", "--keep"], Reader::Test);
    demo.says("Experiment 1 of 2");
    let gap = without_primary(&demo);
    demo.says("The shop: http://");
    let outside = Outside::of(&demo.out());

    // Another process of the same user has all of it.
    let hosts = outside.fracas(&["hosts", "--output", "json"]).good().json().remove(0);
    let hosts: Vec<&Value> = hosts["hosts"].as_array().expect("hosts").iter().collect();
    assert!(hosts.len() == 4 && hosts.iter().all(|host| host["connected"] == true), "{hosts:#?}");
    let runs = outside.fracas(&["runs", "--output", "json"]).good().json().remove(0);
    let mut runs: Vec<&Value> = runs["runs"].as_array().expect("runs").iter().collect();
    runs.sort_by_key(|run| run["name"].as_str().map(str::to_owned));
    assert_eq!(
        runs.iter().map(|run| run["name"].as_str()).collect::<Vec<_>>(),
        [Some("kill-primary"), Some("slow-network")]
    );
    the_primary_was_away(&outside.report(runs[0]), gap);
    let told_ms = orders_were_slow(&outside.report(runs[1]));
    for run in runs {
        let page = room.text(&format!("shown/{}.html", run["name"].as_str().expect("name")));
        assert!(page.contains(run["run"].as_str().expect("run")) && strings_attached(&page).is_empty());
    }

    // The command lines it prints work as they stand, in this directory; a plan instead of a run takes less time.
    assert_eq!(outside.lines.len(), 5, "{:?}", outside.lines);
    for line in &outside.lines {
        let line = line.replace("run shown/", &format!("plan {}/", room.at("shown").display()));
        outside.fracas(&line.split(' ').collect::<Vec<_>>()).good();
    }

    let felt_ms = slow_again(&room, &outside);
    eprintln!("orders under 80 ms each way: {told_ms:.1} ms more in the report, {felt_ms:.1} ms more for a customer");
    assert_eq!(ask(outside.shop, "/browse").0, 200);

    // The controller is among those who logged, and lost nothing that a host reported.
    let logs = logs(&demo);
    assert!(logs.contains("controller ready"), "{logs}");
    assert!(!logs.contains("fact dropped"), "{logs}");

    demo.interrupt();
    demo.end().with(0);
    assert!(!listens(outside.shop), "the door is closed");
    assert_ne!(outside.fracas(&["hosts"]).code, 0, "the context is gone");
}

/// Nobody could take an order while there was no primary; browsing never needed one.
fn the_primary_was_away(report: &Value, gap: i64) {
    let service = |name: &str| {
        let services = report["services"].as_array().expect("services").iter();
        services.clone().find(|service| service["service"] == name).unwrap_or_else(|| panic!("no {name}"))
    };
    let orders = service("orders");
    let (outage, from_fault) = (Range::of(&orders["outage"]), Range::of(&orders["recoveryFromFault"]));
    eprintln!("orders: outage {outage}, recovery from fault {from_fault}; no primary for {:.0} ms", gap as f64 / 1e6);
    assert!(gap > 900_000_000, "the supervisor waits for a second: {gap} ns");
    assert!(outage.lo >= 800_000_000, "{outage}");
    assert!(outage.hi >= gap && from_fault.hi >= gap, "no primary for {gap} ns: {outage}, {from_fault}");
    assert!(from_fault.lo <= from_fault.hi && outage.lo <= outage.hi && from_fault.hi <= nanoseconds(&orders["rto"]));
    assert_eq!((orders["outages"].as_u64(), orders["judgement"]["word"].as_str()), (Some(1), Some("met")), "{orders}");
    let browsing = service("browsing");
    assert_eq!((&browsing["outage"], browsing["outages"].as_u64()), (&Value::Null, Some(0)), "{browsing}");
}

/// Each order makes two round trips to the primary. Gives what the median order took more, milliseconds.
fn orders_were_slow(report: &Value) -> f64 {
    let probes = report["probes"].as_array().expect("probes").iter();
    let order = probes.clone().find(|probe| probe["probe"] == "order").expect("orders");
    let median = |when: &str| order[when]["p50Ms"].as_f64().unwrap_or_else(|| panic!("no median: {order}"));
    let more = median("underFault") - median("baseline");
    assert!(SLOWER_MS.contains(&more), "{more} ms more: {order}");
    more
}

/// Runs an experiment of somebody else in the demo's lab, until it is stopped. What the median order took more then for a
/// customer outside of it, milliseconds.
fn slow_again(room: &Room, outside: &Outside) -> f64 {
    let free = order_ms(outside.shop, 21);
    room.keep("slow-again.yaml", SLOW);
    let path = room.at("slow-again.yaml");
    let mut command = fracas_here(&["run", path.to_str().expect("text"), "--yes", "--output", "json"]);
    command.env("FRACAS_CONTEXT", &outside.context).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut going = Typed(command.spawn().expect("started"));
    let said = Heard::listen(std::os::fd::OwnedFd::from(going.0.stdout.take().expect("pipe")).into());
    said.find("the delay", LIMIT, |line| (line["body"]["kind"] == "active").then_some(())).expect("active");
    let slow = order_ms(outside.shop, 15);
    outside.fracas(&["stop", "last"]).good();
    assert_eq!(going.0.wait().expect("ended").code(), Some(4), "{}", said.text());
    let after = order_ms(outside.shop, 21);
    let more = slow - free;
    assert!(SLOWER_MS.contains(&more), "{free} ms without, {slow} ms with, {after} ms after");
    assert!(after < slow - 100.0, "{free} ms without, {slow} ms with, {after} ms after");
    more
}

/// A command of the test's own, which ends with the test.
struct Typed(Child);

impl Drop for Typed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn a_killed_demo_leaves_nothing() {
    // At each step of its start, and while a fault is active.
    let killed = |room: &Room, words: &[&str], moments: &[&str], fault: &str| {
        for moment in moments {
            let words: Vec<&str> = ["--to", "killed"].iter().chain(words).copied().collect();
            let demo = Playing::begin(room, &words, Reader::Test);
            demo.says(moment);
            gone(demo, moment);
        }
        let demo = holding(room, fault, words);
        gone(demo, fault);
    };
    thread::scope(|both| {
        both.spawn(|| killed(&Room::new("killed-loopback"), &["--loopback"], &["The stage", "\nagents "], BURN));
        killed(&Room::new("killed"), &[], &["The stage", "\nhosts ", "\ncontroller ", "\nagents ", "\nshop "], PAUSE);
    });
}

fn gone(demo: Playing, moment: &str) {
    demo.kill();
    let ended = demo.end();
    assert_eq!(ended.code, 128 + i64::from(Signal::KILL.as_raw()), "{}", ended.err);
    assert!(ended.lingered < GONE, "killed at {moment:?}, and something was left for {:?}", ended.lingered);
    eprintln!("killed at {:?}: all gone {} ms later", moment.trim(), ended.lingered.as_millis());
}

fn ctrl_c_ends_a_demo() {
    // Before there is anything to stop.
    let room = Room::new("interrupted-early");
    let demo = Playing::begin(&room, &["--to", "shown"], Reader::Test);
    demo.says("\nhosts ");
    demo.interrupt();
    let ended = demo.end().with(130);
    assert!(ended.out.contains("Stopped before the experiments."), "{}", ended.out);
    assert_eq!(room.names("shown"), ["kill-primary.yaml", "slow-network.yaml"]);

    // While a fault is active: it is undone, which is shown, and nothing further is started.
    let room = Room::new("interrupted");
    let demo = holding(&room, PAUSE, &[]);
    demo.process("the primary stands still", |process| process["name"] == "shop-primary" && process["state"] == "t");
    demo.interrupt();
    let ended = demo.end().with(4);
    let kinds: Vec<Value> = ended.out.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")).collect();
    let at =
        |kind: &str| kinds.iter().position(|line| line["body"]["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"));
    assert!(at("active") < at("stopRequested") && at("stopRequested") < at("undone") && at("undone") < at("finished"));
    let results = results(&ended.out);
    assert_eq!(results.len(), 1, "the second was not started: {results:#?}");
    assert_eq!((results[0]["name"].as_str(), results[0]["exitCode"].as_u64()), (Some("hold"), Some(4)));
    assert!(
        ended.err.contains("not started\n") && ended.err.contains("1 of 2 experiments did not run"),
        "{}",
        ended.err
    );
    assert_eq!(room.names("shown"), ["kill-primary.html", "kill-primary.yaml", "slow-network.yaml"]);
}

fn ctrl_c_twice_leaves_a_demo() {
    let (agent, controller) = (["agent", "--controller"], ["controller", "--data-dir"]);
    thread::scope(|both| {
        both.spawn(|| left(&Room::new("left-by-agent"), agent));
        left(&Room::new("left-by-controller"), controller);
    });
}

/// Ctrl-C twice, while the undo cannot be had since whoever was started with these words stands still.
fn left(room: &Room, words: [&str; 2]) {
    let demo = holding(room, PAUSE, &[]);
    let still: Vec<Value> =
        demo.processes().into_iter().filter(|p| p["command"][1] == words[0] && p["command"][2] == words[1]).collect();
    assert!(!still.is_empty(), "{:#?}", demo.processes());
    for process in &still {
        let pid = Pid::from_raw(i32::try_from(number(process, "/pid")).expect("a number")).expect("a number");
        kill_process(pid, Signal::STOP).expect("stopped");
    }
    demo.interrupt();
    demo.says("stopping: everything is being undone; Ctrl-C again leaves");
    demo.interrupt();
    let begun = crate::stage::boot_ns();
    let ended = demo.end().with(130);
    let took = Duration::from_nanos((crate::stage::boot_ns() - begun).unsigned_abs());
    assert!(took < GONE, "it leaves at once, not after {took:?}");
    assert!(ended.err.contains("not yet undone: hold on db-1"), "{}", ended.err);
    assert!(ended.err.contains("Here the controller and its hosts end at once"), "{}", ended.err);
    assert_eq!(results(&ended.out), [Value::Null; 0]);
    assert_eq!(room.names("shown"), ["kill-primary.yaml", "slow-network.yaml"], "no report of what has not ended");
}

fn a_demo_nobody_reads_is_no_pass() {
    let room = Room::new("unread");
    room.keep("shown/kill-primary.yaml", &HOLD.replace("FAULT", PAUSE));
    let ended = Playing::begin(&room, &["--to", "shown"], Reader::Nobody).end().with(130);
    assert!(!ended.err.contains("panicked"), "{}", ended.err);
    assert_eq!(room.names("shown"), ["kill-primary.yaml", "slow-network.yaml"]);
}

fn a_demo_without_a_folder_says_so() {
    let room = Room::new("no-folder");
    room.keep("file", "mine");
    room.keep("shown/kill-primary.yaml/mine", "mine");
    for (to, what, starts) in [
        ("file/shown", "the folder file/shown cannot be made; choose another with --to DIR", false),
        ("/proc/shown", "the folder /proc/shown cannot be made; choose another with --to DIR", false),
        ("/proc/sys", "/proc/sys/kill-primary.yaml cannot be written; choose another folder with --to DIR", true),
        ("shown", "shown/kill-primary.yaml cannot be written; choose another folder with --to DIR", true),
    ] {
        let ended = Playing::begin(&room, &["--to", to], Reader::Test).end().with(5);
        assert!(ended.err.contains(what), "{}", ended.err);
        assert_eq!(ended.out.contains("The stage"), starts, "{}", ended.out);
        assert!(!ended.out.contains("Experiment 1"), "{}", ended.out);
    }
    assert_eq!((room.names("."), room.text("file").as_str()), (vec!["file".into(), "shown".into()], "mine"));
    assert_eq!(room.names("shown"), ["kill-primary.yaml"]);
    // Words of the command line.
    let said = here(&["demo", "--to"], "", &[]);
    assert!(said.code == 2 && said.err.contains("--to <DIR>"), "{said:?}");
}
