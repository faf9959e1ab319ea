//! Workers end with their agent, however that ends, and by themselves.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use fracas_agent::host::{Host as _, linux::LinuxHost, worker::Spawner};
use fracas_model::plan::Step;
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::{
    stage::{Victim, key, lives, run, wait_for},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_worker_answers_and_ends", answers_and_ends),
        trial("a_reply_belongs_to_its_order", replies_belong_to_orders),
        trial("an_undo_waits_for_a_call_that_was_cut_off", undo_waits),
        trial("a_worker_dies_with_its_agent", dies_with_its_agent),
        trial("a_worker_obeys_its_deadline", obeys_its_deadline),
        trial("a_worker_holds_no_foreign_descriptor", holds_no_foreign_descriptor),
        trial("facts_are_gathered_by_trying", facts_are_gathered),
    ]
}

fn answers_and_ends() {
    let spawner = Spawner::start();
    let mut worker = spawner.spawn("rest").expect("worker");
    let pid = worker.pid();
    assert_eq!(spawner.pids(), [pid]);
    let order = json!({ "hello": [1, 2] });
    assert_eq!(worker.call(&order, Duration::from_secs(5)), Ok(order));
    assert!(worker.call(&json!({ "error": "no" }), Duration::from_secs(5)).is_err());
    assert!(worker.alive());
    let begun = Instant::now();
    worker.end().expect("ends");
    let took = begun.elapsed();
    assert!(took < Duration::from_millis(490), "ended after {took:?}: not by its lifeline");
    assert!(!lives(pid) && spawner.pids().is_empty());
    assert!(spawner.spawn("no-such-role").expect("starts").reply(Duration::from_secs(5)).is_err());
    let worker = spawner.spawn("rest").expect("worker");
    let pid = worker.pid();
    drop((worker, spawner));
    assert!(!lives(pid), "a dropped worker lives");
}

fn replies_belong_to_orders() {
    let spawner = Spawner::start();
    let mut worker = spawner.spawn("rest").expect("worker");
    // Its answer comes first and is not the one that is waited for.
    worker.send(&json!({ "order": "add" })).expect("sent");
    let remove = json!({ "order": "remove" });
    assert_eq!(worker.call(&remove, Duration::from_secs(5)), Ok(remove));
    // Whoever missed a reply cannot know what the worker did: it is ended.
    kill_process(Pid::from_raw(worker.pid()).expect("pid"), Signal::STOP).expect("it cannot reply");
    let missed = worker.call(&json!({ "order": "add" }), Duration::from_millis(20));
    assert!(missed.as_ref().is_err_and(|e| e.0.contains("did not reply")), "{missed:?}");
    wait_for("the worker's end", || !worker.alive());
    assert!(worker.call(&json!({ "order": "remove" }), Duration::from_secs(5)).is_err());
}

/// The worker is a program that never answers, so that applying takes for ever and is cut off.
fn undo_waits() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("mute");
    fs::write(&program, "#!/bin/sh\nexec sleep 60\n").expect("written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
    let host = LinuxHost::with_spawner("h".into(), "0.0.0", Spawner::with_program(program));
    let (key, process) = (key("cut-off"), Victim::start(&["spin"]).who());
    let step = Step::Seize { process };
    run(async {
        let begun = async {
            while host.spawner().pids().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            applied = host.apply(&key, 0, &step) => panic!("{applied:?}"),
            () = begun => {}
        }
        let limit = Instant::now() + Duration::from_secs(20);
        let mut busy = 0;
        while let Err(failure) = host.revert(&key, 0, &step, None).await {
            assert!(failure.0.contains("still busy") && Instant::now() < limit, "{failure}");
            busy += 1;
        }
        assert!(busy > 0, "the worker was given four seconds");
        assert_eq!(host.spawner().pids(), [0; 0], "the undo said nothing too early");
    });
}

fn dies_with_its_agent() {
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        let mut agent = Victim::start(&["agent"]);
        let mut line = String::new();
        BufReader::new(agent.0.stdout.as_mut().expect("piped")).read_line(&mut line).expect("told");
        let workers: Vec<i32> = line.split_whitespace().map(|w| w.parse().expect("pid")).collect();
        assert!(workers.len() == 2 && workers.iter().all(|pid| lives(*pid)));
        agent.0.kill().expect("killed");
        longest = longest.max(wait_for("both workers to end", || !workers.iter().any(|pid| lives(*pid))));
    }
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    eprintln!("20 agents killed: both workers gone after at most {longest:?}");
}

fn obeys_its_deadline() {
    let spawner = Spawner::start();
    let mut worker = spawner.spawn("rest").expect("worker");
    worker.deadline(Duration::from_hours(1)).expect("told");
    worker.call(&json!({}), Duration::from_secs(5)).expect("lives");
    let begun = Instant::now();
    worker.deadline(Duration::from_millis(30)).expect("told");
    wait_for("the deadline", || !worker.alive());
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(30) && took < Duration::from_secs(2), "{took:?}");
    assert!(worker.fate().contains("rest worker"), "{}", worker.fate());
}

fn holds_no_foreign_descriptor() {
    // A descriptor without close-on-exec, as a careless library would open it.
    let leak = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).expect("open");
    let spawner = Spawner::start();
    let mut worker = spawner.spawn("rest").expect("worker");
    worker.call(&json!({}), Duration::from_secs(5)).expect("answers");
    let folder = format!("/proc/{}/fd", worker.pid());
    let mut open: Vec<String> = fs::read_dir(&folder)
        .expect("readable")
        .flatten()
        .filter(|e| e.file_name().to_str().is_some_and(|n| n.parse::<i32>().is_ok_and(|n| n > 2)))
        .map(|e| fs::read_link(e.path()).expect("link").to_string_lossy().into_owned())
        .collect();
    open.sort();
    assert_eq!(open, ["anon_inode:[timerfd]"]);
    drop(leak);
    worker.end().expect("ends");
}

fn facts_are_gathered() {
    use fracas_model::catalogue::Capability;
    let host = crate::stage::host();
    let begun = Instant::now();
    let facts = run(host.facts());
    eprintln!("facts after {:?}: {facts:#?}", begun.elapsed());
    assert!(facts.cpus > 0 && facts.cores.len() == facts.cpus as usize && facts.memory_bytes > 0);
    assert!(!facts.kernel.is_empty() && !facts.hostname.is_empty() && !facts.os.is_empty());
    assert!(facts.can(Capability::Cpu));
    assert!(facts.abilities.values().all(|a| a.works || !(a.why.is_empty() || a.fix.is_empty())));
    assert!(host.spawner().pids().is_empty(), "trials leave workers");
}
