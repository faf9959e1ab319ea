//! A halt reaches every host at once, also while the controller is losing agents and when it is said twice. Seen from
//! outside: datagrams to every host are lost until the fault is gone, and the time is from before the command to the first
//! answer of the last host.
//!
//! `FRACAS_HALT_HOSTS=N` and `FRACAS_HALT_ROUNDS=N` ask for more than a test has time for; `cargo xtask halt-trial` does.

use std::time::Instant;

use fracas_sim::need::Need;
use libtest_mimic::Trial;
use rand::{RngExt as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use rustix::process::Signal;

use crate::{
    controller_trial::given,
    rig::{Going, LIMIT, RUN_LIMIT, Rig, until},
    stage::{boot_ns, part},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("a_halt_reaches_every_host", &[Need::Lab], a_halt_reaches_every_host)]
}

/// Hosts and rounds unless told.
const FEW: (u64, u64) = (6, 4);
/// Every so many rounds the controller loses agents just before the halt, and the halt is said twice.
const LOSING: u64 = 4;
/// How many it loses then, at most.
const LOST: usize = 3;
/// All hosts are asked once in this time.
const PERIOD_MS: u64 = 20;

const DOCUMENT: &str = r#"
apiVersion: fracas/v1
kind: Experiment
name: everybody-deaf
targets: { all: { select: "role=box" } }
probes:
  echo: { tcp: { address: "ctl:2222", send: "x", expect: "x" }, every: 100ms, timeout: 1s, from: all }
timeline:
  - { id: lose, at: 0s, fault: { net-loss: { percent: 100%, ports: [7007], protocol: udp } }, target: all, for: 5m }
limits: { maxTargets: 1000, maxPercent: 100 }
recovery: { stableFor: 1s, giveUpAfter: 5s }
"#;

/// Whom the roll call hears.
struct Roll {
    going: Going,
    hosts: usize,
    /// Lines read so far.
    read: usize,
    silent: Vec<bool>,
    back: Vec<i64>,
}

impl Roll {
    fn look(&mut self) {
        let lines = self.going.out.lines();
        for line in &lines[self.read..] {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let number = |key: &str| line[key].as_u64().and_then(|n| usize::try_from(n).ok());
            if let Some(host) = number("silent") {
                self.silent[host] = true;
            }
            if let Some(host) = number("back") {
                self.silent[host] = false;
                self.back[host] = line["at"].as_i64().expect("at");
            }
        }
        self.read = lines.len();
    }

    fn until_silent(&mut self) {
        until("every host is deaf", || {
            self.look();
            self.silent.iter().all(|silent| *silent)
        });
    }

    /// Waits until all answer again; when the last began to.
    fn until_back(&mut self) -> i64 {
        until("every host answers", || {
            self.look();
            self.silent.iter().all(|silent| !silent)
        });
        (0..self.hosts).map(|host| self.back[host]).max().expect("a host")
    }
}

fn a_halt_reaches_every_host() {
    let (hosts, rounds) = (given("FRACAS_HALT_HOSTS").unwrap_or(FEW.0), given("FRACAS_HALT_ROUNDS").unwrap_or(FEW.1));
    let seed = given("FRACAS_SEED_BASE").unwrap_or(0);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let names: Vec<String> = (0..hosts).map(|n| format!("h{n}")).collect();
    let named: Vec<&str> = names.iter().map(String::as_str).collect();
    let rig = Rig::bare(&named);
    rig.start_controller();
    let _echo = rig.go("ctl", "echo", part(&["echo", "0.0.0.0:2222"])).ready();
    let mut answering = Vec::new();
    for name in &named {
        rig.join(name, &[("role", "box")]);
        answering.push(rig.go(name, "answer", part(&["answer", "7007"])).ready());
    }
    rig.until_connected(&named);
    let addresses: Vec<String> = named.iter().map(|name| format!("{}:7007", rig.address(name))).collect();
    let period = PERIOD_MS.to_string();
    let words: Vec<&str> =
        ["roll-call", period.as_str()].into_iter().chain(addresses.iter().map(String::as_str)).collect();
    // Its end is the end of its standard input, which is the lab's.
    let going = rig.go("ctl", "roll-call", part(&words).stdin(fracas_sim::lab::Stream::Pipe)).ready();
    let count = named.len();
    let mut roll = Roll { going, hosts: count, read: 0, silent: vec![false; count], back: vec![0; count] };
    let (mut quiet, mut losing): (Vec<f64>, Vec<f64>) = (Vec::new(), Vec::new());
    let begun = Instant::now();
    for round in 1..=rounds {
        let run = rig.begin(DOCUMENT, &[]);
        roll.until_silent();
        let mut lost = Vec::new();
        if round % LOSING == 0 {
            let mut order = named.clone();
            order.shuffle(&mut random);
            lost = order.into_iter().take(random.random_range(1..=LOST.min(count))).collect();
        }
        let from = boot_ns();
        for name in &lost {
            rig.signal_agent(name, Signal::KILL);
        }
        let halt = || rig.fracas_going(&["halt", "--reason", "enough", "--output", "json"]);
        // Said again while the first is still at work, and once more afterwards: one halt.
        let again = (!lost.is_empty()).then(halt);
        let first = halt();
        for said in [Some(first), again].into_iter().flatten() {
            assert_eq!(said.end(LIMIT).good().json()[0]["halted"], true, "seed {seed}, round {round}");
        }
        let took = (roll.until_back() - from) as f64 / 1e6;
        if lost.is_empty() { &mut quiet } else { &mut losing }.push(took);
        // Only an agent can say that its host is clean.
        for name in &lost {
            assert_eq!(rig.end_agent(name, LIMIT).code, 128 + 9);
            rig.start_agent(name);
        }
        let ended = run.end(RUN_LIMIT);
        assert!([4, 5].contains(&ended.code), "seed {seed}, round {round}: {} {}", ended.code, ended.err);
        let refused = rig.begin(DOCUMENT, &[]).end(LIMIT);
        assert!(refused.code == 7 && refused.err.contains("enough"), "it is latched: {}", refused.err);
        if !lost.is_empty() {
            rig.until_connected(&named);
            assert!(rig.fracas(&["halt", "--reason", "still"]).code == 0, "seed {seed}, round {round}");
        }
        rig.fracas(&["halt", "clear", "--reason", "go on"]).good();
        if round % 20 == 0 {
            let all = quiet.len();
            let mut last = quiet[all.saturating_sub(15)..].to_vec();
            let seconds = begun.elapsed().as_secs();
            eprintln!("halt: round {round} of {rounds}, {seconds} s; the latest: {}", figures(&mut last));
        }
    }
    drop(roll);
    let told = [("halt to last host answering", &mut quiet), ("the same, agents killed just before", &mut losing)];
    for (what, times) in told {
        eprintln!("{what}: {hosts} hosts, {}", figures(times));
    }
    eprintln!("halt rounds {rounds} hosts {hosts} seed {seed}");
    for answer in answering {
        answer.kill();
    }
    rig.stop();
}

/// Median, and what else `n` supports, in milliseconds.
pub(crate) fn figures(times: &mut [f64]) -> String {
    times.sort_by(f64::total_cmp);
    let Some(last) = times.last() else { return "n = 0".into() };
    let at = |share: f64| times[((times.len() as f64 * share).ceil() as usize).clamp(1, times.len()) - 1];
    let p99 = if times.len() >= 299 { format!("p99 {:.0}, ", at(0.99)) } else { String::new() };
    format!("n = {}, p50 {:.0}, {p99}max {last:.0} ms", times.len(), at(0.5))
}
