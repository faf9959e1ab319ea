//! The hand of the crash trial on a host: waits for the instant, kills, and watches until nothing of a fault is left. It
//! knows Fracas' processes by their names and its journal by the product's own reader; of what the kernel holds it asks the
//! kernel. What it says of time has a grain of about 2 ms, and of 10 ms where packet rules have to be asked for.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, Lines, StdinLock},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use fracas_agent::{
    crash::REACHED,
    host::netlink::traffic::Traffic,
    journal::{Look, OpenItem, Progress},
};
use fracas_model::plan::Kind;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::ground::Ground;
use crate::{
    residue::HARMFUL,
    stage::{boot_ns, say},
};

/// How often it looks.
const GRAIN: Duration = Duration::from_millis(2);
/// How often it looks for an instant at which a process has just stopped or killed itself.
const FINE: Duration = Duration::from_micros(500);
/// How long it waits for the instant; everything takes longer where the machine itself is emulated.
fn patience() -> Duration {
    Duration::from_secs(if std::env::var_os(crate::guest::VARIABLE).is_some() { 40 } else { 6 })
}
/// How long it waits until a host is clean.
const LIMIT: Duration = Duration::from_secs(30);
/// Names of the targets of a pause begin so.
pub(crate) const CREW: &str = "crew-";

/// One process as `/proc/PID/stat` has it.
struct Seen {
    pid: i32,
    name: String,
    state: char,
    parent: i32,
}

/// What the journal showed of this trial.
#[derive(Default)]
struct Applied {
    size: u64,
    /// Some step was applied, or may have been.
    ever: bool,
    /// Something is open now.
    open: bool,
    /// Something applied is open now.
    now: bool,
    steps: BTreeSet<String>,
    reversible: bool,
}

struct Hand {
    state: PathBuf,
    order: String,
    disk: String,
    /// What stands there, before any fault.
    ground: Ground,
    agent: i32,
    packets: bool,
    seed: Value,
    applied: Applied,
    orders: Lines<StdinLock<'static>>,
}

/// The part `hand`: one order a line on standard input, until that ends.
pub(crate) fn hand(state: &str, file: &str, disk: &str) {
    let mut hand = Hand {
        state: state.into(),
        order: file.to_owned(),
        disk: disk.to_owned(),
        ground: ground(disk, &all()),
        agent: 0,
        packets: false,
        seed: Value::Null,
        applied: Applied::default(),
        orders: std::io::stdin().lock().lines(),
    };
    assert!(!hand.ground.replaced(), "{:?}", hand.ground);
    say(&json!({ "ready": true }));
    while let Some(order) = hand.next() {
        hand.strike(&order);
    }
}

impl Hand {
    fn next(&mut self) -> Option<Value> {
        let line = self.orders.next()?.expect("a line");
        Some(serde_json::from_str(&line).expect("an order"))
    }

    fn strike(&mut self, order: &Value) {
        self.agent = number(&order["agent"]);
        self.packets = order["packets"] == true;
        self.seed = order["seed"].clone();
        self.applied = Applied { size: self.journal_size(), ..Applied::default() };
        let reached = format!("{}{REACHED}", self.order);
        let _ = fs::remove_file(&reached);
        let switch = order["switch"].as_str().unwrap_or_default();
        if !switch.is_empty() {
            fs::write(&self.order, switch).expect("order");
        }
        say(&json!({ "seed": self.seed, "armed": true }));

        let guarded = switch.contains(":guard:");
        let hit = if switch.is_empty() || guarded {
            self.instant(Duration::from_micros(order["afterUs"].as_u64().expect("instant")))
        } else {
            self.wait(FINE, patience(), || Path::new(&reached).exists())
        };
        // Who stops itself is killed by this hand; who kills itself is dead in a moment.
        if hit && switch.contains(":stop:") {
            let agent = self.agent;
            self.wait(FINE, patience(), || state(agent).is_none_or(|s| matches!(s, 'T' | 'Z')));
        }
        let at = boot_ns();
        let workers = workers(self.agent);
        let mut killed = self.kill(order, &workers, !switch.is_empty() && !guarded && hit);
        let (mut hit, mut waited) = (hit, false);
        if guarded && hit {
            // The agent is dead; now its guard gets as far as that, if it has so much to do.
            hit = self.wait(FINE, Duration::from_secs(3), || Path::new(&reached).exists());
            if hit {
                killed.push("guard".into());
            }
            // Meanwhile nobody looked whether the host was clean.
            waited = !hit;
        }
        let again = order["again"].as_str();
        match again {
            // The next agent finds it.
            Some(switch) => fs::write(&self.order, switch).expect("order"),
            None => {
                let _ = fs::remove_file(&self.order);
            }
        }
        self.look();
        say(&json!({
            "seed": self.seed, "struck": at, "hit": hit, "applied": self.applied.ever, "now": self.applied.now,
            "waited": waited,
            "steps": self.applied.steps, "reversible": self.applied.reversible, "killed": killed,
        }));
        if order["wait"] == true {
            // Somebody does elsewhere what is to be done, while the agent stands still.
            self.next();
        }
        if state(self.agent).is_some_and(|s| s == 'T') {
            signal(self.agent, Signal::CONT);
        }
        if order["watch"] == true {
            self.watch(&workers);
        }
        if again.is_some() {
            let _ = fs::remove_file(&self.order);
        }
    }

    /// Waits until something of this trial is open, and then for so long.
    fn instant(&mut self, after: Duration) -> bool {
        let until = Instant::now() + patience();
        while !self.applied.open {
            if Instant::now() > until {
                return false;
            }
            thread::sleep(FINE);
            self.look();
        }
        let strike = Instant::now() + after;
        while let Some(left) = strike.checked_duration_since(Instant::now()) {
            self.look();
            thread::sleep(left.min(GRAIN));
        }
        true
    }

    fn wait(&mut self, grain: Duration, limit: Duration, so: impl Fn() -> bool) -> bool {
        let until = Instant::now() + limit;
        while !so() {
            if Instant::now() > until {
                return false;
            }
            self.look();
            thread::sleep(grain);
        }
        true
    }

    /// Kills what the order names; says what that was. Where there is no worker to kill, the agent dies.
    fn kill(&self, order: &Value, workers: &[Seen], itself: bool) -> Vec<String> {
        let named = |name: &str| order["kill"].as_array().is_some_and(|kill| kill.iter().any(|k| k == name));
        let mut killed = Vec::new();
        if named("agent") {
            // It may have done so itself.
            signal(self.agent, Signal::KILL);
            killed.push("agent".to_owned());
        }
        if named("guard")
            && let Some(guard) = all().iter().find(|p| p.name == "fracas-guard" && p.state != 'Z')
        {
            signal(guard.pid, Signal::KILL);
            killed.push("guard".to_owned());
        }
        if named("workers") {
            for worker in workers {
                signal(worker.pid, Signal::KILL);
            }
            killed.extend(workers.iter().map(|worker| worker.name.clone()));
        }
        if named("worker") {
            // The packet worker may be an idle one of before.
            let busy: Vec<&Seen> = workers.iter().filter(|w| self.packets || w.name != "fracas-net").collect();
            let pick = order["pick"].as_u64().unwrap_or_default() as usize;
            if let Some(worker) = busy.get(pick % busy.len().max(1)) {
                signal(worker.pid, Signal::KILL);
                killed.push(worker.name.clone());
            } else {
                signal(self.agent, Signal::KILL);
                killed.push("agent".to_owned());
            }
        }
        if killed.is_empty() && itself {
            killed.push("itself".to_owned());
        }
        killed
    }

    /// Says when nothing of a fault was to be seen any more, and when something was seen for the last time: in between it
    /// became clean. On a busy machine looks are rare.
    fn watch(&self, workers: &[Seen]) {
        let until = Instant::now() + LIMIT;
        let (mut freed, mut dirty) = (None, None);
        loop {
            // As it was when the look began: what is gone by then was gone.
            let at = boot_ns();
            let all = all();
            let lives = |seen: &Seen| all.iter().any(|p| p.pid == seen.pid && p.name == seen.name && p.state != 'Z');
            let agent = all.iter().any(|p| p.pid == self.agent && p.state != 'Z');
            let working = |seen: &Seen| lives(seen) && !(agent && seen.name == "fracas-net");
            let held = workers.iter().any(working)
                || all.iter().any(|p| is_worker(p) && p.parent == self.agent && working(p))
                || self.packets && (harmful_rules() || shaped());
            if !held && freed.is_none() {
                freed = Some(at);
            }
            let stopped = all.iter().any(|p| p.name.starts_with(CREW) && matches!(p.state, 'T' | 't'));
            if !held && !stopped && ground(&self.disk, &all) == self.ground {
                say(&json!({ "seed": self.seed, "clean": at, "freed": freed, "dirty": dirty }));
                return;
            }
            dirty = Some(at);
            if Instant::now() > until {
                say(&json!({ "seed": self.seed, "clean": null, "freed": freed }));
                return;
            }
            thread::sleep(GRAIN);
        }
    }

    fn journal_size(&self) -> u64 {
        fs::metadata(self.state.join(fracas_agent::journal::FILE)).map_or(0, |meta| meta.len())
    }

    /// Looks at the journal, if it has grown.
    fn look(&mut self) {
        let size = self.journal_size();
        if size == self.applied.size {
            return;
        }
        let look = Look::into_dir(&self.state);
        let applied = &mut self.applied;
        applied.size = size;
        applied.open = !look.state.open.is_empty();
        applied.now = false;
        for item in look.state.open.values() {
            for (step, kind) in done(item) {
                applied.ever = true;
                applied.now = true;
                applied.reversible |= kind == Kind::Reversible;
                applied.steps.insert(step);
            }
        }
    }
}

/// Steps that were applied, or may have been, by their names.
fn done(item: &OpenItem) -> impl Iterator<Item = (String, Kind)> {
    let steps = item.plan.steps.iter().zip(&item.steps).filter(|(_, progress)| **progress != Progress::Untouched);
    steps.map(|(step, _)| {
        let value = serde_json::to_value(step).expect("a step");
        let name = value.as_object().and_then(|map| map.keys().next().cloned()).unwrap_or_default();
        (name, step.kind())
    })
}

fn number(value: &Value) -> i32 {
    value.as_i64().and_then(|n| i32::try_from(n).ok()).expect("a number")
}

fn signal(pid: i32, signal: Signal) {
    // Nobody to hit is no mistake: the kernel may have been quicker.
    let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, signal));
}

fn state(pid: i32) -> Option<char> {
    seen(pid).map(|seen| seen.state)
}

fn seen(pid: i32) -> Option<Seen> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (open, close) = (stat.find('(')?, stat.rfind(')')?);
    let mut rest = stat.get(close + 1..)?.split_ascii_whitespace();
    let state = rest.next()?.chars().next()?;
    Some(Seen { pid, name: stat.get(open + 1..close)?.to_owned(), state, parent: rest.next()?.parse().ok()? })
}

fn all() -> Vec<Seen> {
    let numbers = fs::read_dir("/proc").expect("processes").flatten();
    numbers.filter_map(|entry| seen(entry.file_name().to_str()?.parse().ok()?)).collect()
}

fn is_worker(seen: &Seen) -> bool {
    ["fracas-burn", "fracas-fill", "fracas-seize", "fracas-net"].contains(&seen.name.as_str()) && seen.state != 'Z'
}

fn workers(agent: i32) -> Vec<Seen> {
    all().into_iter().filter(|seen| is_worker(seen) && seen.parent == agent).collect()
}

fn ground(disk: &str, all: &[Seen]) -> Ground {
    Ground::seen(disk, all.iter().filter(|p| p.state != 'Z').map(|p| p.name.as_str()))
}

/// Whether there is a device of ours, or a clsact.
fn shaped() -> bool {
    let devices = fs::read_dir("/sys/class/net").expect("devices").flatten();
    if devices.filter(|d| d.file_name().to_string_lossy().starts_with("frc")).count() > 0 {
        return true;
    }
    let disciplines = Traffic::open().and_then(|mut traffic| traffic.disciplines()).expect("netlink");
    disciplines.iter().any(|discipline| discipline.kind == "clsact")
}

/// Whether a rule does something to packets. An agent that starts tries what it can in a table of its own.
fn harmful_rules() -> bool {
    let said = Command::new("nft").args(["list", "ruleset"]).output().expect("nft");
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    text.split("table ").any(|table| !table.contains("fracas_trial") && HARMFUL.iter().any(|word| table.contains(word)))
}
