//! The controller is killed at random instants of whole runs, half of them inside commits of its store. Whatever the
//! instant: the history is whole, nothing that a user was told is gone, every run ends, no host keeps anything, and what
//! fires once fired once.
//!
//! `FRACAS_KILL_TRIALS=N` asks for so many trials, `FRACAS_SEED_BASE=N` for those after that number, and `FRACAS_SEED=N`
//! for that one alone. `cargo xtask controller-trial` does this with many.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::AddAssign,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use fracas_sim::{lab::Options, need::Need};
use libtest_mimic::Trial;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::{
    residue::Dump,
    rig::{DATA, Going, LIMIT, Rig, until},
    services,
    stage::{MARK, part},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    let needs = &[Need::Lab, Need::Program("redis-server"), Need::Program("nft")];
    vec![trial("the_controller_is_killed_at_any_instant", needs, the_controller_is_killed_at_any_instant)]
}

/// Trials unless told.
const TRIALS: u64 = 6;
/// Trials with one lab: what a lab's fleet went through before must not hide what comes after.
const PER_LAB: usize = 10;
/// Labs at the same time, when there are many trials.
const LABS: usize = 3;
/// From the start of the command until a run that nobody disturbs has ended, about.
const RUN_MS: u64 = 4_500;
/// Longest time between the first write of a commit and the blow, microseconds: commits here take 1 to 3 ms.
const COMMIT_US: u64 = 3_000;
/// The lease in the document.
const LEASE_MS: u64 = 5_000;

const DOCUMENT: &str = r#"
apiVersion: fracas/v1
kind: Experiment
name: three-faults
services:
  cache: {}
targets:
  cache: { select: "role=cache" }
  edge: { select: "role=edge" }
probes:
  answers:
    service: cache
    tcp: { address: "cache:6379", send: "PING\r\n", expect: "PONG" }
    from: edge
    every: 50ms
    timeout: 250ms
steadyState: { probes: [answers], holdFor: 500ms, giveUpAfter: 1m }
timeline:
  - { id: slow, at: 0s, fault: { net-delay: { delay: 30ms, ports: [6379], protocol: tcp } }, target: cache, for: 1s }
  - { id: pause, at: 500ms, fault: { process-pause: { name: redis-server } }, target: cache, for: 800ms }
  - { id: kill, at: 1s, fault: { process-kill: { name: victim } }, target: cache }
recovery: { stableFor: 500ms, giveUpAfter: 20s }
lease: 5s
"#;

/// One trial, drawn from its seed.
#[derive(Clone, Debug)]
struct Plan {
    seed: u64,
    /// Milliseconds after the start of the command, or after the controller was back.
    after_ms: Vec<u64>,
    /// For each of them: so many microseconds after the first write of a commit, or just then.
    inside: Vec<Option<u64>>,
    /// How long the controller is away each time.
    away_ms: Vec<u64>,
}

impl Plan {
    fn draw(seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let kills = if random.random_bool(0.25) { 2 } else { 1 };
        let inside = |n: u64| (seed + n).is_multiple_of(2);
        Self {
            seed,
            after_ms: (0..kills).map(|_| random.random_range(0..RUN_MS)).collect(),
            inside: (0..kills).map(|n| inside(n).then(|| random.random_range(0..COMMIT_US))).collect(),
            away_ms: (0..kills)
                .map(|_| {
                    let long = random.random_bool(0.1);
                    if long { LEASE_MS + random.random_range(0..3_000) } else { random.random_range(0..1_000) }
                })
                .collect(),
        }
    }
}

/// What became of trials.
#[derive(Clone, Debug, Default)]
struct Tally {
    trials: u64,
    kills: u64,
    inside: u64,
    torn: u64,
    resumed: u64,
    by_exit: BTreeMap<i64, u64>,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.trials += other.trials;
        self.kills += other.kills;
        self.inside += other.inside;
        self.torn += other.torn;
        self.resumed += other.resumed;
        for (code, count) in other.by_exit {
            *self.by_exit.entry(code).or_default() += count;
        }
    }
}

/// A number that the environment gives.
pub(crate) fn given(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}, not a number")))
}

fn the_controller_is_killed_at_any_instant() {
    let count = given("FRACAS_KILL_TRIALS").unwrap_or(TRIALS);
    let base = given("FRACAS_SEED_BASE").unwrap_or(0);
    let seeds: Vec<u64> = given("FRACAS_SEED").map_or_else(|| (base + 1..=base + count).collect(), |seed| vec![seed]);
    let total = seeds.len();
    let waiting = Mutex::new(seeds.chunks(PER_LAB).map(<[u64]>::to_vec).collect::<Vec<_>>());
    let tally = Mutex::new(Tally::default());
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..LABS {
            scope.spawn(|| {
                loop {
                    let Some(seeds) = waiting.lock().expect("lock").pop() else { break };
                    let more = in_a_lab(&seeds);
                    let mut tally = tally.lock().expect("lock");
                    *tally += more;
                    let took = begun.elapsed().as_secs();
                    eprintln!("controller killed: {} of {total} trials, {took} s: {tally:?}", tally.trials);
                }
            });
        }
    });
    let tally = tally.into_inner().expect("lock");
    assert_eq!(tally.trials, total as u64, "a lab failed; its trial is told above");
    assert!(tally.kills >= tally.trials, "{tally:?}");
}

/// Some trials in a lab of their own.
fn in_a_lab(seeds: &[u64]) -> Tally {
    // The store stands on a disk: only there a commit takes its time.
    let disk = Disk::make(seeds[0]);
    let rig = Rig::bare_with(Options::default().share(&disk.0), &["cache", "edge"]);
    rig.shell("ctl", &format!("ln -s {} {DATA}", disk.0.display()));
    rig.start_controller();
    rig.join("cache", &[("role", "cache")]);
    rig.join("edge", &[("role", "edge")]);
    rig.until_connected(&["cache", "edge"]);
    let _redis = services::redis(&rig, "cache");
    let victim = rig.go("cache", "victim", part(&["supervise", "200", "/proc/self/exe", MARK, "rest", "victim"]));
    victim.find("the victim lives", |line| (line["ready"] == true).then_some(()));
    // The worker for packets stays with its agent after the first fault: it belongs to what was before.
    rig.run(DOCUMENT).ended("pass", 0);
    let mut state = State { before: Dump::of(&rig, "cache"), deaths: deaths(&victim), runs: runs(&rig).len() };
    let mut tally = Tally::default();
    for seed in seeds {
        tally += state.play(&rig, &victim, &Plan::draw(*seed));
    }
    rig.stop();
    tally
}

/// A directory on the disk for temporary files.
struct Disk(std::path::PathBuf);

impl Disk {
    fn make(seed: u64) -> Self {
        let path = std::env::temp_dir().join(format!("fracas-trial-{}-{seed}", std::process::id()));
        std::fs::create_dir_all(&path).expect("directory");
        Self(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The hosts of the lab wrote there as the same user.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a lab was like before a trial.
struct State {
    before: Dump,
    deaths: usize,
    runs: usize,
}

fn deaths(victim: &Going) -> usize {
    victim.out.lines().iter().filter(|line| line.contains("\"ended\"")).count()
}

/// Summaries of the runs, newest first.
fn runs(rig: &Rig) -> Vec<Value> {
    let told = rig.fracas(&["runs", "--limit", "100", "--output", "json"]).good().json().remove(0);
    told["runs"].as_array().expect("runs").clone()
}

impl State {
    fn play(&mut self, rig: &Rig, victim: &Going, plan: &Plan) -> Tally {
        let mut tally = Tally { trials: 1, ..Tally::default() };
        let told = || format!("{plan:?}: FRACAS_SEED={} repeats it", plan.seed);
        let going = rig.begin(DOCUMENT, &[]);
        for (n, after_ms) in plan.after_ms.iter().enumerate() {
            strike(rig, *after_ms, plan.inside[n], &mut tally);
            thread::sleep(Duration::from_millis(plan.away_ms[n]));
            rig.start_controller();
        }
        let said = going.end(LIMIT);
        rig.until_connected(&["cache", "edge"]);

        // Every run ends, and a command that was told of a run exits with what became of it.
        until("every run has ended", || runs(rig).iter().all(|run| run["state"] == "finished"));
        let all = runs(rig);
        assert!(all.len() <= self.runs + 1, "one order, one run: {}", told());
        if all.len() == self.runs {
            // It was killed before it had taken the order: then the command must not pretend.
            assert!([5, 7].contains(&said.code), "{}\n{}", said.text(), told());
            tally.by_exit.entry(-1).or_default().add_assign(1);
        } else {
            let run = &all[0];
            let code = run["exitCode"].as_i64().expect("code");
            tally.by_exit.entry(code).or_default().add_assign(1);
            let story = history(rig, run["run"].as_str().expect("run"), code, &said.out);
            let story = || format!("{}\n{}\n{}", story.join("\n"), said.err, told());
            // A command that never heard of its run says that it failed.
            let heard = said.out.contains("fracas.result/v1");
            let fits = if heard { code == i64::from(said.code) } else { [5, 7].contains(&said.code) };
            assert!(fits, "{code}, not {}\n{}", said.code, story());
            assert!([0, 3, 4, 5].contains(&code), "{code}: {}\n{}", run["reason"], story());
            let fired = story().matches("\"spent\"").count();
            let died = deaths(victim) - self.deaths;
            assert!(died <= 1, "what fires once fired {died} times\n{}", story());
            assert_eq!(fired, died, "what the history says of the kill is what happened\n{}", story());
            tally.resumed += u64::from(story().contains("\"resumed\""));
        }
        self.runs = all.len();
        until("the victim is back", || {
            rig.processes("cache").iter().any(|p| p["name"] == "victim" && p["state"] == "S")
        });
        self.deaths = deaths(victim);
        Dump::of(rig, "cache").expect_same(&self.before);
        tally
    }
}

/// Kills the controller and proves its history as it lies there.
fn strike(rig: &Rig, after_ms: u64, inside: Option<u64>, tally: &mut Tally) {
    tally.kills += 1;
    if let Some(delay_us) = inside {
        let log = format!("{DATA}/{}-wal", fracas_controller::server::STORE_FILE);
        let words = [log, rig.controller_pid().to_string(), after_ms.to_string(), delay_us.to_string()];
        let words: Vec<&str> = ["strike"].into_iter().chain(words.iter().map(String::as_str)).collect();
        let said = rig.say("ctl", part(&words)).good().json();
        let blow = said.last().expect("blow");
        assert_eq!(blow["struck"], true, "{blow}");
        tally.inside += u64::from(blow["wrote"] == true);
        tally.torn += u64::from(blow["torn"] == true);
        assert_eq!(rig.end_controller(LIMIT).code, 128 + 9);
    } else {
        thread::sleep(Duration::from_millis(after_ms));
        rig.kill_controller();
    }
    rig.verify_data(DATA);
}

/// The run's history, as lines: whole, with everything the command was told before, and with an end for all that began.
fn history(rig: &Rig, run: &str, code: i64, told: &str) -> Vec<String> {
    let watched = rig.fracas(&["watch", run, "--output", "json"]);
    assert_eq!(i64::from(watched.code), code, "{}", watched.text());
    let mut events = watched.json();
    events.pop();
    let seen: Vec<u64> = events.iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert_eq!(seen, (1..=events.len() as u64).collect::<Vec<_>>(), "{}", watched.out);
    for line in told.lines().filter(|line| line.contains("\"seq\"")) {
        let line: Value = serde_json::from_str(line).expect("a line");
        assert!(events.contains(&line), "told, then gone: {line}\n{}", watched.out);
    }
    let items = |kinds: &[&str]| -> BTreeSet<String> {
        let of =
            events.iter().map(|event| &event["body"]).filter(|body| kinds.iter().any(|kind| body["kind"] == *kind));
        of.map(|body| body["item"].to_string()).collect()
    };
    let open = items(&["applying"]).difference(&items(&["undone", "spent"])).cloned().collect::<Vec<_>>();
    assert!(open.is_empty(), "began and never ended: {open:?}\n{}", watched.out);
    events.iter().map(|event| format!("{} {}", event["seq"], event["body"])).collect()
}
