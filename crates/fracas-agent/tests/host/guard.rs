//! What an agent leaves behind is undone by its guard, however the agent ends: each time, not most times.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use fracas_agent::{
    disk::FileDisk,
    guard::{Guard, Outcome, take_journal},
    host::{clock::Clock, processes::Stat, worker::Spawner},
    journal::{Journal, Record, Trouble},
    lock::{self, Lock},
    service::{Kind, Options, PolicySource, ServiceError, serve, undo_all},
};
use fracas_model::{
    plan::{Check, Plan, Step},
    policy::Policy,
    process::ProcessRef,
    units::Dur,
};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::{
    stage::{Victim, key, lives, run, wait_for},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_guard_undoes_after_every_death", after_every_death),
        trial("a_guard_is_not_misled_by_who_only_looks_or_fails_to_start", not_misled),
        trial("a_guard_outlives_requests_to_end", outlives_requests),
        trial("an_agent_that_does_not_run_is_ended_and_undone", does_not_run),
        trial("nobody_calls_a_host_clean_whose_journal_is_damaged", damaged_journal),
        trial("an_agent_with_a_damaged_identity_undoes_all_the_same", damaged_identity),
    ]
}

/// The part `guarded DIR PID [MS]`: an agent that has stopped a process, and then does nothing more. It says that all is well
/// for so long.
pub(crate) fn guarded(words: &[String]) -> ! {
    let (dir, pid) = (Path::new(&words[0]), words[1].parse().expect("pid"));
    let _agent = Lock::take(dir, lock::AGENT).expect("agent lock");
    let _journal = run(take_journal(dir)).expect("journal lock");
    let mut guard = Guard::start(&Spawner::start(), dir).expect("guard");
    if let Some(ms) = words.get(2) {
        guard.assure(Duration::from_millis(ms.parse().expect("milliseconds")));
    }
    leave_stopped(dir, pid);
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", guard.pid()).expect("told");
    out.flush().expect("told");
    loop {
        thread::park();
    }
}

/// Stops a process, with all that the journal says of it.
fn leave_stopped(dir: &Path, pid: i32) {
    let process = ProcessRef { pid, start_ticks: Stat::of(pid).expect("victim").start_ticks, name: "victim".into() };
    let now = Clock::of("h".into()).now();
    let key = key("guarded");
    let records = [
        Record::Taken { epoch: 1, revision: 1 },
        Record::Planned {
            key: key.clone(),
            fault: "process-pause".into(),
            plan: Plan {
                steps: vec![Step::Suspend { process: process.clone() }],
                claims: Vec::new(),
                check: Check::Stopped { processes: vec![process] },
                summary: "stop".into(),
            },
            duration: Some(Dur::from_secs(600)),
            slot: 0,
            boot: now.clock.boot,
            deadline_ns: now.boot_ns + 600_000_000_000,
            experiment: "guarded".into(),
            at: None,
        },
        Record::Intent { key: key.clone(), step: 0 },
    ];
    run(async {
        let mut journal = Journal::open(FileDisk::new(dir).expect("disk")).await;
        journal.write(&records, true).await.expect("kept");
        kill_process(Pid::from_raw(pid).expect("pid"), Signal::STOP).expect("stopped");
        let done = Record::Done { key, step: 0, handle: json!({ "stopped": true }) };
        journal.write(&[done], true).await.expect("kept");
    });
}

/// A stand-in for an agent, with a process that it has stopped.
struct Scene {
    dir: tempfile::TempDir,
    victim: Victim,
}

impl Scene {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a folder"), victim: Victim::threads(1) }
    }

    /// Starts the agent; gives it and the number of its guard once the victim stands still.
    fn start(&self, well: &[&str]) -> (Victim, i32) {
        let (dir, pid) = (self.dir.path().display().to_string(), self.victim.pid().to_string());
        let mut agent = Victim::start(&[&["guarded", &dir, &pid], well].concat());
        let mut line = String::new();
        BufReader::new(agent.0.stdout.as_mut().expect("piped")).read_line(&mut line).expect("told");
        wait_for("the victim to stop", || self.stopped());
        (agent, line.trim().parse().expect("guard"))
    }

    fn stopped(&self) -> bool {
        Stat::of(self.victim.pid()).is_some_and(|s| s.state == 'T')
    }

    /// The agent was ended: waits until the guard has undone and left.
    fn undone(&self, guard: i32) {
        wait_for("the guard to end", || !lives(guard));
        assert!(!self.stopped(), "the guard left the victim as it was");
    }
}

/// The kernel closes a dying agent's pipe before its locks, or after: often enough for both.
fn after_every_death() {
    let scene = Scene::new();
    for _ in 0..150 {
        let (mut agent, guard) = scene.start(&[]);
        agent.0.kill().expect("killed");
        scene.undone(guard);
    }
}

/// Somebody looks whether an agent is there, all the time; and somebody becomes an agent for a moment, and fails.
fn not_misled() {
    let scene = Scene::new();
    let (dir, over) = (scene.dir.path().to_owned(), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                Lock::is_held(&dir, lock::AGENT);
            }
        });
        for _ in 0..40 {
            let (mut agent, guard) = scene.start(&[]);
            let failing = scope.spawn(|| {
                wait_for("the place to be free", || Lock::take(&dir, lock::AGENT).is_ok());
            });
            agent.0.kill().expect("killed");
            failing.join().expect("started and failed");
            scene.undone(guard);
        }
        over.store(true, Ordering::Relaxed);
    });
}

fn outlives_requests() {
    let scene = Scene::new();
    let (mut agent, guard) = scene.start(&[]);
    let who = Pid::from_raw(guard).expect("pid");
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        kill_process(who, signal).expect("sent");
    }
    // What is not ignored is delivered before this is told.
    let pending = || fs::read_to_string(format!("/proc/{guard}/status")).expect("the guard lives");
    assert!(pending().contains("ShdPnd:\t0000000000000000"), "{}", pending());
    agent.0.kill().expect("killed");
    scene.undone(guard);
}

/// Stopped, it keeps its pipe and its locks; only its guard can know.
fn does_not_run() {
    let scene = Scene::new();
    let (mut agent, guard) = scene.start(&["50"]);
    kill_process(Pid::from_raw(agent.pid()).expect("pid"), Signal::STOP).expect("stopped");
    scene.undone(guard);
    let ended = agent.0.wait().expect("ended");
    assert_eq!(ended.signal(), Some(9), "{ended:?}");
}

fn damaged_journal() {
    let scene = Scene::new();
    let dir = scene.dir.path();
    leave_stopped(dir, scene.victim.pid());
    wait_for("the victim to stop", || scene.stopped());
    let journal = dir.join(fracas_agent::journal::FILE);
    let mut bytes = fs::read(&journal).expect("read");
    bytes[20] ^= 1;
    fs::write(&journal, &bytes).expect("damaged");
    let undone = run(undo_all(dir)).expect("undone");
    assert_eq!(undone, Outcome::Unknown(Trouble::Damaged(0)));
    assert!(!scene.stopped(), "what can be read of it is undone");
    assert_eq!(fs::read(&journal).expect("read"), bytes, "and it is kept");
    // As the refusal says.
    fs::remove_file(&journal).expect("moved away");
    assert_eq!(run(undo_all(dir)).expect("undone"), Outcome::Clean);
}

fn damaged_identity() {
    let scene = Scene::new();
    let dir = scene.dir.path();
    leave_stopped(dir, scene.victim.pid());
    wait_for("the victim to stop", || scene.stopped());
    fs::write(dir.join("cert.pem"), "damaged").expect("written");
    let options = Options {
        state_dir: dir.to_owned(),
        controllers: Vec::new(),
        token: None,
        name: None,
        policy: PolicySource::Given(Box::new(Policy::builtin())),
        // Without a guard, which would undo too.
        kind: Kind::Observer,
    };
    let refused = run(serve(options, std::future::pending()));
    assert!(matches!(refused, Err(ServiceError::Identity(_))), "{refused:?}");
    assert!(!scene.stopped(), "the victim still stands");
}
