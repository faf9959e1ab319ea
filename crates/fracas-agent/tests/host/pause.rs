//! Paused processes stand still and go on: at undo, at the death of the worker, and not by the hands of others.

use std::time::{Duration, Instant};

use fracas_agent::host::{Host as _, Reverted, processes::Stat};
use fracas_model::{
    event::Proof,
    plan::{Check, Step},
    process::ProcessRef,
};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    stage::{Victim, host, key, lives, run, wait_for},
    trial,
};

const STILL: Duration = Duration::from_millis(60);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_seized_process_stands_still_and_goes_on", seized),
        trial("a_killed_worker_lets_the_process_go_on", killed_worker),
        trial("the_death_of_a_seized_process_reaches_its_parent", killed_target),
        trial("a_later_agent_waits_for_the_old_worker", later_agent),
        trial("a_suspended_process_is_resumed", suspended),
        trial("a_suspended_process_that_waits_in_the_kernel_goes_on", waiting),
        trial("a_suspended_process_without_its_first_thread_goes_on", headless),
        trial("what_others_resumed_or_stopped_is_left_alone", others),
        trial("a_reused_number_is_refused", reused),
    ]
}

fn check_of(who: &ProcessRef) -> Check {
    Check::Stopped { processes: vec![who.clone()] }
}

fn assert_still(victim: &mut Victim) {
    victim.drain();
    assert!(!victim.heard(STILL), "it writes although it is stopped");
}

fn seized() {
    let mut victim = Victim::threads(20);
    let (host, key, who) = (host(), key("seize"), victim.who());
    let step = Step::Seize { process: who.clone() };
    let (handle, between) = run(host.apply(&key, 0, &step)).expect("seizes");
    eprintln!("21 threads seized within {}", between.to.since(&between.from).expect("one clock").human());
    assert_still(&mut victim);
    let (proof, measured) = run(host.check(&key, &check_of(&who)));
    assert_eq!(proof, Proof::Verified, "{measured:?}");
    assert!((measured[0].got - 21.0).abs() < 0.1, "{measured:?}");
    // Others cannot end it.
    kill_process(Pid::from_raw(who.pid).expect("pid"), Signal::CONT).expect("sent");
    assert_still(&mut victim);
    let begun = Instant::now();
    assert_eq!(run(host.revert(&key, 0, &step, Some(&handle))), Ok(Reverted::Undone));
    assert!(victim.heard(Duration::from_secs(5)));
    eprintln!("undone and heard again after {:?}", begun.elapsed());
    let (proof, _) = run(host.check(&key, &check_of(&who)));
    assert!(matches!(proof, Proof::Ineffective { .. }));
    assert_eq!(run(host.revert(&key, 0, &step, None)), Ok(Reverted::NothingThere));
}

fn killed_worker() {
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        let mut victim = Victim::threads(20);
        let (host, key) = (host(), key("seize"));
        let step = Step::Seize { process: victim.who() };
        let (handle, _) = run(host.apply(&key, 0, &step)).expect("seizes");
        assert_still(&mut victim);
        let worker = i32::try_from(handle["worker"]["pid"].as_i64().expect("pid")).expect("pid");
        assert!(run(host.lost()).is_empty());
        let begun = Instant::now();
        kill_process(Pid::from_raw(worker).expect("pid"), Signal::KILL).expect("sent");
        assert!(victim.heard(Duration::from_secs(5)));
        longest = longest.max(begun.elapsed());
        let mut lost = Vec::new();
        wait_for("the loss", || {
            lost = run(host.lost());
            !lost.is_empty()
        });
        assert!(lost[0].0 == key && lost[0].1.contains("signal: 9"), "{lost:?}");
        assert!(run(host.lost()).is_empty(), "told once");
        assert_eq!(run(host.revert(&key, 0, &step, Some(&handle))), Ok(Reverted::Undone));
    }
    eprintln!("20 workers killed: 21 threads heard again after at most {longest:?}");
    assert!(longest < Duration::from_secs(2), "{longest:?}");
}

fn killed_target() {
    let mut victim = Victim::threads(5);
    let (host, key) = (host(), key("seize"));
    let step = Step::Seize { process: victim.who() };
    let (handle, _) = run(host.apply(&key, 0, &step)).expect("seizes");
    let begun = Instant::now();
    victim.0.kill().expect("sent");
    wait_for("the parent to learn of it", || victim.0.try_wait().expect("wait").is_some());
    eprintln!("the parent of a seized and killed process knew after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(2));
    let mut lost = Vec::new();
    wait_for("the loss", || {
        lost = run(host.lost());
        !lost.is_empty()
    });
    assert_eq!(lost[0].1, "the process itself has ended");
    assert_eq!(run(host.revert(&key, 0, &step, Some(&handle))), Ok(Reverted::Undone));
}

fn later_agent() {
    let mut victim = Victim::threads(3);
    let (first, key) = (host(), key("seize"));
    let step = Step::Seize { process: victim.who() };
    let (handle, _) = run(first.apply(&key, 0, &step)).expect("seizes");
    assert_still(&mut victim);
    // The worker still lives while the first host holds it, so a second one must not say that it is undone.
    let early = run(host().revert(&key, 0, &step, Some(&handle)));
    assert!(early.as_ref().is_err_and(|e| e.0.contains("still lives")), "{early:?}");
    drop(first);
    assert_eq!(run(host().revert(&key, 0, &step, Some(&handle))), Ok(Reverted::Undone));
    assert!(victim.heard(Duration::from_secs(5)));
}

fn suspended() {
    let mut victim = Victim::threads(20);
    let (host, key, who) = (host(), key("suspend"), victim.who());
    let step = Step::Suspend { process: who.clone() };
    let (handle, _) = run(host.apply(&key, 0, &step)).expect("stops");
    assert_still(&mut victim);
    assert_eq!(run(host.check(&key, &check_of(&who))).0, Proof::Verified);
    assert_eq!(run(host.revert(&key, 0, &step, Some(&handle))), Ok(Reverted::Undone));
    assert!(victim.heard(Duration::from_secs(5)));
    // As after a crash between the journal entry and its completion: known to be begun, nothing more.
    let _ = run(host.apply(&key, 0, &step)).expect("stops");
    assert_eq!(run(host.revert(&key, 0, &step, None)), Ok(Reverted::Undone));
    assert_eq!(run(host.revert(&key, 0, &step, None)), Ok(Reverted::NothingThere));
    assert!(victim.heard(Duration::from_secs(5)));
}

/// The stop is pending for as long as the process waits in the kernel: nothing of it is to be seen in its state.
fn waiting() {
    for handled in [true, false] {
        let mut victim = Victim::start(&["waiting"]);
        wait_for("the victim to wait", || Stat::of(victim.pid()).is_some_and(|s| s.state == 'D'));
        let (host, key, who) = (host(), key("waiting"), victim.who());
        let step = Step::Suspend { process: who.clone() };
        let (handle, _) = run(host.apply(&key, 0, &step)).expect("stops");
        assert_eq!(Stat::of(who.pid).expect("victim").state, 'D');
        assert_eq!(run(host.revert(&key, 0, &step, handled.then_some(&handle))), Ok(Reverted::Undone));
        victim.0.stdin = None;
        assert!(victim.heard(Duration::from_secs(5)), "it stopped when it came back");
    }
}

fn headless() {
    let mut victim = Victim::start(&["headless"]);
    wait_for("the first thread to end", || Stat::of(victim.pid()).is_some_and(|s| s.state == 'Z'));
    assert!(victim.heard(Duration::from_secs(5)));
    let (host, key, who) = (host(), key("headless"), victim.who());
    let step = Step::Suspend { process: who };
    let (handle, _) = run(host.apply(&key, 0, &step)).expect("stops");
    assert_still(&mut victim);
    assert_eq!(run(host.revert(&key, 0, &step, Some(&handle))), Ok(Reverted::Undone));
    assert!(victim.heard(Duration::from_secs(5)));
}

fn others() {
    let victim = Victim::threads(2);
    let (host, key, who) = (host(), key("suspend"), victim.who());
    let step = Step::Suspend { process: who.clone() };
    let pid = Pid::from_raw(who.pid).expect("pid");
    let (handle, _) = run(host.apply(&key, 0, &step)).expect("stops");
    kill_process(pid, Signal::CONT).expect("sent");
    wait_for("the victim to go on", || matches!(run(host.check(&key, &check_of(&who))).0, Proof::Ineffective { .. }));
    let reverted = run(host.revert(&key, 0, &step, Some(&handle)));
    assert!(matches!(reverted, Ok(Reverted::Superseded(_))), "{reverted:?}");
    kill_process(pid, Signal::STOP).expect("sent");
    wait_for("the victim to stop", || run(host.check(&key, &check_of(&who))).0 == Proof::Verified);
    let refused = run(host.apply(&key, 0, &step)).expect_err("stopped by others");
    assert!(refused.0.contains("stopped already"), "{refused}");
    assert_eq!(run(host.revert(&key, 0, &step, None)), Ok(Reverted::NothingThere), "not ours to resume");
    assert_eq!(run(host.check(&key, &check_of(&who))).0, Proof::Verified);
}

fn reused() {
    let mut victim = Victim::threads(2);
    let (host, key) = (host(), key("reused"));
    let other = ProcessRef { start_ticks: victim.who().start_ticks + 1, ..victim.who() };
    let steps = [
        Step::Seize { process: other.clone() },
        Step::Suspend { process: other.clone() },
        Step::Signal { process: other.clone(), signal: 9, signal_name: "KILL".into() },
    ];
    for step in &steps {
        let refused = run(host.apply(&key, 0, step)).expect_err("another process");
        assert!(refused.0.contains("is gone"), "{refused}");
    }
    victim.drain();
    assert!(victim.heard(Duration::from_secs(5)) && lives(victim.pid()));
}
