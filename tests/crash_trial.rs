//! Agent, guard, workers and controller die in the middle of faults, at random instants and at every numbered boundary
//! between the steps of a plan; networks are cut and leases run out. Whatever it is: the host must be as it was.
//!
//! `FRACAS_CRASH_TRIALS=N` asks for so many trials that count, `FRACAS_SEED_BASE=N` for those after that number,
//! `FRACAS_SEED=N` for that one alone, `FRACAS_CRASH_LEASE=2s` for that lease, `FRACAS_CRASH_KILL=agent` for that death in
//! every one, `FRACAS_CRASH_FAULTS=net` for faults that begin like this alone, and `FRACAS_CRASH_LABS=N` for so many labs at
//! the same time. `FRACAS_CRASH_RESULT=FILE` is given the numbers of trials and of residues. `cargo xtask crash-trial` does
//! this with many.
//!
//! Numbered boundaries are a switch of programs with debug assertions. Without them every instant is a random one.

mod draw;
pub(crate) mod ground;
pub(crate) mod hand;
mod tally;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use fracas_model::units::Dur;
use fracas_sim::{
    lab::{LinkState, Options, Stream},
    need::Need,
};
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::{Value, json};

use self::{
    draw::{Kill, Narrow, Plan},
    ground::{DISK, VOLUME},
    hand::CREW,
    tally::{Record, Tally},
};
use crate::{
    controller_trial::given,
    residue::Dump,
    rig::{Going, LIMIT, Rig, STATE},
    stage::{MARK, boot_ns, part},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    let needs = &[
        Need::Lab,
        Need::Program("nft"),
        Need::Program("tc"),
        Need::Program("ip"),
        Need::Program("mount"),
        Need::Program("sleep"),
    ];
    vec![trial("whoever_dies_the_host_is_as_it_was", needs, whoever_dies_the_host_is_as_it_was)]
}

/// Trials unless told.
const TRIALS: u64 = 20;
/// Trials with one lab: what a host went through before must not hide what comes after.
const PER_LAB: usize = 12;
/// Labs at the same time unless told.
const LABS: u64 = 3;
/// Of the trials that were asked for, at most so many times as many are played: those that do not count are played anew.
const MOST: u64 = 3;
/// The lease unless told.
const LEASE: &str = "2s";
/// Where the order to crash is kept on a host; dumps do not see it, since it lies beside the agent's own files.
const ORDER: &str = "/run/data/agent.crash";
/// How long a host may take until it shows no difference: a supervisor starts a victim again, a guard ends.
const SETTLE: Duration = Duration::from_secs(4);

/// A guard that takes longer than this is looked at.
const SLOW: Duration = Duration::from_millis(200);

/// The hosts: on the second, the agent may trace nobody, so that a pause is a SIGSTOP from the journal.
const HOSTS: [&str; 2] = ["box", "plain"];

/// Which seeds are still to be played.
struct Queue {
    next: u64,
    last: u64,
    wanted: u64,
    /// Trials that count, and those under way.
    counted: u64,
    playing: u64,
}

impl Queue {
    fn take(&mut self) -> Option<u64> {
        if self.counted + self.playing >= self.wanted || self.next > self.last {
            return None;
        }
        self.playing += 1;
        self.next += 1;
        Some(self.next - 1)
    }
}

fn whoever_dies_the_host_is_as_it_was() {
    let alone = given("FRACAS_SEED");
    let wanted = if alone.is_some() { 1 } else { given("FRACAS_CRASH_TRIALS").unwrap_or(TRIALS) };
    let base = given("FRACAS_SEED_BASE").unwrap_or(0);
    let lease: Dur = std::env::var("FRACAS_CRASH_LEASE").as_deref().unwrap_or(LEASE).parse().expect("a lease");
    let first = alone.unwrap_or(base + 1);
    let last = if alone.is_some() { first } else { base + wanted * MOST };
    let queue = Mutex::new(Queue { next: first, last, wanted, counted: 0, playing: 0 });
    let tally = Mutex::new(Tally::default());
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..given("FRACAS_CRASH_LABS").unwrap_or(LABS).min(wanted.div_ceil(3)) {
            scope.spawn(|| {
                loop {
                    let Some(seed) = queue.lock().expect("lock").take() else { break };
                    in_a_lab(seed, lease, &queue, &tally, begun);
                }
            });
        }
    });
    let tally = tally.into_inner().expect("lock");
    eprintln!("{}", tally.table(lease, begun.elapsed()));
    let result = format!("{} {}", tally.counted(), tally.residues());
    if let Ok(path) = std::env::var("FRACAS_CRASH_RESULT") {
        std::fs::write(path, &result).expect("result");
    }
    // For whoever has nothing but this program's output.
    eprintln!("fracas-crash: {result}");
    assert!(tally.residues() == 0, "{} residues; their seeds and differences are told above", tally.residues());
    assert!(alone.is_some() || tally.counted() > 0, "nothing had been applied in any trial");
    assert!(tally.counted() >= wanted || alone.is_some(), "only {} trials counted", tally.counted());
}

/// Some trials in a lab of their own, beginning with this seed.
fn in_a_lab(first: u64, lease: Dur, queue: &Mutex<Queue>, tally: &Mutex<Tally>, begun: Instant) {
    let mut seed = Some(first);
    let narrow = Narrow::asked();
    let (mut stage, mut well) = (None, true);
    for n in 0..PER_LAB {
        let Some(now) = seed.take() else { break };
        let plan = Plan::draw(now, &narrow);
        let whole = catch_unwind(AssertUnwindSafe(|| stage.get_or_insert_with(Stage::set).play(&plan, lease)));
        let record = whole.unwrap_or_else(|_| Record::broken(&plan));
        let (bad, counts) = (record.residue.is_some(), record.counts());
        if let Some(residue) = &record.residue {
            eprintln!("RESIDUE {plan:?}: FRACAS_SEED={now} repeats it\n{residue}");
        }
        {
            let mut queue = queue.lock().expect("lock");
            queue.playing -= 1;
            queue.counted += u64::from(counts);
            if !bad && n + 1 < PER_LAB {
                seed = queue.take();
            }
        }
        let mut tally = tally.lock().expect("lock");
        tally.add(record);
        if tally.played().is_multiple_of(10) {
            eprintln!("crash trial: {} in {} s", tally.line(), begun.elapsed().as_secs());
        }
        if bad {
            well = false;
            break;
        }
    }
    // After a residue, what the lab does at its end proves nothing.
    if let Some(stage) = stage.filter(|_| well) {
        let ended = catch_unwind(AssertUnwindSafe(|| stage.end()));
        if ended.is_err() {
            let mut record = Record::broken(&Plan::draw(first, &narrow));
            record.residue = Some("the lab of this and the trials after it did not end well".into());
            eprintln!("RESIDUE at the end of the lab that began with seed {first}");
            tally.lock().expect("lock").add(record);
        }
    }
}

/// A lab with everything that faults hit.
struct Stage {
    rig: Rig,
    /// On a disk of the machine: a directory for each host.
    disk: Folder,
    hands: [Going; 2],
    before: [Dump; 2],
    /// Programs that live as long as the lab.
    _cast: Vec<Going>,
}

impl Stage {
    fn set() -> Self {
        let disk = Folder::make();
        let rig = Rig::bare_with(Options::default().share(&disk.0), &HOSTS);
        rig.start_controller();
        let mut cast = Vec::new();
        for host in HOSTS {
            let given = rig.say(host, part(&["ground", &disk.of(host)])).good().out;
            assert!(given.contains("given"), "{given}");
            rig.shell(host, &format!("mount -i -n -t tmpfs -o size=96m volume {VOLUME}"));
            cast.push(rig.go(host, "units", part(&["units"])).ready());
            for n in ["a", "b"] {
                let name = format!("{CREW}{n}");
                cast.push(rig.go(host, &name, part(&["rest", &name])).ready());
            }
            let victim = part(&["supervise", "50", "/proc/self/exe", MARK, "rest", "victim"]);
            let victim = rig.go(host, "victim", victim);
            victim.find("the victim lives", |line| (line["ready"] == true).then_some(()));
            cast.push(victim);
        }
        let tokens = HOSTS.map(|host| rig.token(&[("role", host)]));
        for (host, token) in HOSTS.iter().zip(tokens) {
            rig.start_agent_as(host, agent(&rig, host).env("FRACAS_JOIN_TOKEN", token));
        }
        rig.until_connected(&HOSTS);
        let hand = |host| rig.go(host, "hand", part(&["hand", STATE, ORDER, &disk.of(host)]).stdin(Stream::Pipe));
        let hands = HOSTS.map(|host| hand(host).ready());
        let before = HOSTS.map(|host| dump(&rig, host, &disk));
        Self { rig, disk, hands, before, _cast: cast }
    }

    fn play(&mut self, plan: &Plan, lease: Dur) -> Record {
        let host = HOSTS[plan.host];
        let rig = &self.rig;
        let hand = &mut self.hands[plan.host];
        let agent_pid = rig.agent_pid(host);
        hand.order(&plan.order(agent_pid));
        let heard = |hand: &Going, key: &str| {
            let of = |line: &Value| (line["seed"] == plan.seed && line.get(key).is_some()).then(|| line.clone());
            hand.find(&format!("{key} of seed {}", plan.seed), of)
        };
        heard(hand, "armed");
        let mut runs = Vec::new();
        for (host, document) in plan.experiments(HOSTS, lease) {
            let document = document.replace(DISK, &self.disk.of(host));
            let path = rig.document(host, &document);
            runs.push(rig.fracas_going(&["run", &path, "--yes", "--output", "json"]));
        }
        let struck = heard(hand, "struck");
        let mut deed_ns = struck["struck"].as_i64().expect("an instant");
        if plan.kill.elsewhere() {
            deed_ns = boot_ns();
            match plan.kill {
                Kill::Controller => rig.kill_controller(),
                Kill::Cut => rig.host(host).set_link(LinkState::Cut).expect("cut"),
                _ => rig.signal_controller(Signal::STOP),
            }
            hand.order(&json!({ "go": true }));
        }
        let killed: Vec<String> = serde_json::from_value(struck["killed"].clone()).expect("names");
        let dead = killed.iter().any(|k| k == "agent");
        let alone = dead && !killed.iter().any(|k| k == "guard");
        let mut started_ns = None;
        if dead && !alone {
            // Nobody is left to undo: the next start must.
            started_ns = Some(boot_ns());
            rig.start_agent_as(host, agent(rig, host));
        }
        let cleaned = plan.watched().then(|| heard(hand, "clean"));
        // Who was there when it did not become clean, before anybody helps.
        let dirty = cleaned.as_ref().is_some_and(|cleaned| cleaned["clean"].is_null());
        let scene = dirty.then(|| {
            let look = format!("head -c 200 {STATE}/*.lock; cat /proc/locks; {}", look_at_agents());
            let processes: Vec<String> = rig.processes(host).iter().map(ToString::to_string).collect();
            format!("the host did not become clean\n{}\n{}", processes.join("\n"), rig.shell(host, &look))
        });
        if dead && alone {
            rig.start_agent_as(host, agent(rig, host));
        }
        match plan.kill {
            Kill::Controller => rig.start_controller(),
            Kill::Cut => rig.host(host).set_link(LinkState::Up).expect("up"),
            Kill::Lease => rig.signal_controller(Signal::CONT),
            _ => {}
        }
        // Nobody waits for what is still to come of the runs.
        runs.iter().for_each(Going::interrupt);
        let mut residue = Vec::new();
        let mut again = false;
        // The second life may be a short one too, and the third one not.
        if dead && !rig.agent_reports(host) {
            again = plan.dies_again();
            if !again {
                residue.push(format!("the agent did not start again: {}", rig.agent_log(host)));
            }
            rig.start_agent_as(host, agent(rig, host));
            if !rig.agent_reports(host) {
                residue.push(format!("the agent did not start a third time: {}", rig.agent_log(host)));
            }
        }
        for run in runs {
            let said = run.end(LIMIT);
            if ![0, 1, 3, 4, 5, 7, 130].contains(&said.code) {
                residue.push(format!("a run ended with {}: {}", said.code, said.text()));
            }
        }
        residue.extend(scene);
        let (left, late) = self.differences(plan.host);
        residue.extend(left);
        if plan.beside() {
            residue.extend(self.differences(1 - plan.host).0);
        }
        if plan.kill.elsewhere() {
            // A controller that was away learns from its agents what faults there are.
            rig.until_connected(&HOSTS);
        }
        if !residue.is_empty() {
            let log = rig.agent_log(host);
            let lines: Vec<&str> = log.lines().collect();
            residue.push(format!("log of the agent:\n{}", lines[lines.len().saturating_sub(40)..].join("\n")));
            residue.push(format!("what the hand saw: {struck} {cleaned:?}"));
        }
        let since = |from: i64, key: &str| -> Option<Duration> {
            let at = cleaned.as_ref().filter(|_| struck["waited"] != true)?[key].as_i64()?;
            Some(Duration::from_nanos((at - from).max(0).unsigned_abs()))
        };
        let clean = since(deed_ns, "clean");
        if alone && clean > Some(SLOW) {
            let log = rig.agent_log(host);
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(30)..].join("\n");
            eprintln!("SLOW {clean:?} {plan:?}: {struck} {cleaned:?}\n{last}");
        }
        Record {
            seed: plan.seed,
            kill: plan.kill.done(&killed),
            boundary: plan.boundary().filter(|_| struck["hit"] == true),
            at_boundary: plan.boundary().is_some(),
            faults: plan.faults(),
            steps: serde_json::from_value(struck["steps"].clone()).expect("steps"),
            reversible: struck["reversible"] == true,
            applied: struck["applied"] == true,
            present: struck["now"] == true,
            freed: since(deed_ns, "freed"),
            clean,
            // Never seen: clean at the first look, however late.
            dirty: clean.map(|_| since(deed_ns, "dirty").unwrap_or_default()),
            after_start: started_ns.and_then(|at| since(at, "clean")),
            again,
            late,
            residue: (!residue.is_empty()).then(|| residue.join("\n")),
        }
    }

    /// What is otherwise than before on a host and stays so; and whether it took a while to be as it was.
    fn differences(&self, n: usize) -> (Option<String>, bool) {
        let until = Instant::now() + SETTLE;
        let mut late = false;
        loop {
            let left = dump(&self.rig, HOSTS[n], &self.disk).residue(&self.before[n]);
            if left.is_empty() {
                return (None, late);
            }
            if Instant::now() > until {
                return (Some(format!("host {} is not as it was: {left:#?}", HOSTS[n])), late);
            }
            late = true;
        }
    }

    /// Every agent leaves with nothing open, every run has ended, and the history is whole.
    fn end(self) {
        self.rig.until_connected(&HOSTS);
        let told = self.rig.fracas(&["runs", "--limit", "100", "--output", "json"]).good().json().remove(0);
        let runs = told["runs"].as_array().expect("runs");
        assert!(runs.iter().all(|run| run["state"] == "finished"), "{told}");
        self.rig.stop();
    }
}

/// All of a host, with its directory on the machine's disk and its small file system.
fn dump(rig: &Rig, host: &str, disk: &Folder) -> Dump {
    Dump::with(rig, host, &[&disk.of(host), VOLUME])
}

/// What names of such directories begin with; a process number follows.
const FOLDER: &str = "fracas-crash-";

/// A directory of the machine that goes with the lab.
struct Folder(PathBuf);

impl Folder {
    fn make() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (all, n) = (std::env::temp_dir(), NEXT.fetch_add(1, Ordering::Relaxed));
        // What trials that were killed themselves have left.
        for entry in std::fs::read_dir(&all).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let pid = name.strip_prefix(FOLDER).and_then(|rest| rest.split('-').next());
            if pid.is_some_and(|pid| !PathBuf::from(format!("/proc/{pid}")).exists()) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        let path = all.join(format!("{FOLDER}{}-{n}", std::process::id()));
        std::fs::create_dir(&path).expect("a directory");
        Self(path)
    }

    fn of(&self, host: &str) -> String {
        self.0.join(host).to_str().expect("UTF-8").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A script: where everybody of Fracas waits.
fn look_at_agents() -> &'static str {
    "for p in /proc/[0-9]*; do \
     case $(cat $p/comm 2>/dev/null) in fracas*|exe) echo $p $(cat $p/comm $p/wchan 2>/dev/null) $(grep -e State -e PPid $p/status); \
     ls -l $p/fd | sed 's/.*[0-9] //';; esac; done; true"
}

/// The agent's program on a host, with the switch for crashes.
fn agent(rig: &Rig, host: &str) -> fracas_sim::lab::Program {
    let program = if host == HOSTS[1] {
        let fleet = format!("{}:7767", rig.address("ctl"));
        let words = ["fracas", "agent", "--controller", &fleet, "--state-dir", STATE, "--name", host];
        part(&["without-ptrace"]).args(words)
    } else {
        rig.agent_program(host)
    };
    program.env(fracas_agent::crash::VARIABLE, ORDER)
}
