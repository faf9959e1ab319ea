//! Signals reach whom they are meant for, once, and their effect is seen and timed.

use fracas_agent::host::Host as _;
use fracas_model::{
    event::Proof,
    facts::{Facts, HostFacts, Question},
    plan::{Check, Step},
    policy::Policy,
    process::ProcessSelector,
};
use libtest_mimic::Trial;

use crate::{
    stage::{Victim, host, key, run},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_killed_process_is_seen_to_be_gone", killed),
        trial("an_ignored_signal_is_ineffective", ignored),
        trial("questions_are_answered_from_the_process_table", answered),
    ]
}

fn killed() {
    let mut victim = Victim::threads(20);
    let (host, key, who) = (host(), key("kill"), victim.who());
    let check = Check::Gone { processes: vec![who.clone()] };
    assert!(matches!(run(host.check(&key, &check)).0, Proof::Ineffective { .. }));
    let step = Step::Signal { process: who, signal: 9, signal_name: "KILL".into() };
    run(host.apply(&key, 0, &step)).expect("sent");
    let mut measured = Vec::new();
    crate::stage::wait_for("the proof", || {
        let (proof, seen) = run(host.check(&key, &check));
        measured = seen;
        proof == Proof::Verified && !measured.is_empty()
    });
    eprintln!("killed: {measured:?}");
    assert!(measured[0].what == "time to exit" && measured[0].got < 1000.0);
    assert!(victim.0.wait().expect("reaped").code().is_none());
    assert!(run(host.apply(&key, 0, &step)).is_err(), "gone");
}

fn ignored() {
    // The test program ignores SIGPIPE, as every Rust program does.
    let victim = Victim::threads(1);
    let (host, key, who) = (host(), key("hup"), victim.who());
    let signal = |signal: i32| {
        let step = Step::Signal { process: who.clone(), signal, signal_name: "X".into() };
        run(host.apply(&key, 0, &step)).expect("sent");
        run(host.check(&key, &Check::Delivered { processes: vec![who.clone()], signal })).0
    };
    let seen = signal(13);
    assert!(matches!(&seen, Proof::Ineffective { why } if why.contains("ignores")), "{seen:?}");
    assert_eq!(signal(15), Proof::Verified);
}

fn answered() {
    let victim = Victim::threads(1);
    let base = Facts {
        host: HostFacts::default(),
        policy: Policy::builtin(),
        processes: vec![],
        pid_in_file: None,
        file: None,
        volume: None,
        unit: None,
        own_paths: vec![],
        devices: vec![],
        own_pids: vec![],
        controllers: vec![],
        near_ports: vec![],
        slot: 0,
    };
    let host = host();
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("victim.pid");
    std::fs::write(&file, format!("{}\n", victim.pid())).expect("written");
    let selector = ProcessSelector::PidFile(file.to_string_lossy().into_owned());
    let questions = [Question::Processes(selector.clone()), Question::Devices];
    let facts = run(host.answer(base, &questions)).expect("answered");
    let found = selector.select(&facts.processes, facts.pid_in_file);
    assert_eq!(found.iter().map(|p| &p.id).collect::<Vec<_>>(), [&victim.who()]);
    assert_eq!(found[0].parent, std::process::id().cast_signed());
    assert!(facts.own_pids.contains(&std::process::id().cast_signed()));
    assert!(facts.devices.iter().any(|d| d.loopback));
    assert!(facts.processes.iter().filter(|p| p.kernel).all(|p| p.exe.is_none()));
}
