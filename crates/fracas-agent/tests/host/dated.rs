//! The kernel dates starts and exits of processes: a probe that hardly ever ticks knows them to the millisecond.

use std::{
    path::Path,
    process::{Child, Command},
    time::Duration,
};

use fracas_agent::{
    host::clock::{Clock, boot_ns},
    watch::{Watcher as _, thread::ThreadWatcher},
};
use fracas_model::{
    catalogue::Params,
    desired::ProbeItem,
    event::{Body, Look},
    policy::Policy,
    units::Dur,
};
use fracas_probes::process::kernel_dates;
use libtest_mimic::Trial;
use serde_json::json;

use crate::trial;

/// So slow that what a tick sees is far off.
const EVERY: Dur = Dur::from_ms(1500);
/// A name of its own: the machine runs other things.
const NAME: &str = "fracas-dated";

pub(crate) fn trials() -> Vec<Trial> {
    // Where nothing may be skipped, it fails for want of it.
    let all = std::env::var("FRACAS_REQUIRE").is_ok_and(|require| require == "all");
    let missing = kernel_dates().err().filter(|_| !all);
    if let Some(why) = &missing {
        eprintln!("the kernel dates no processes for us: {why}");
    }
    vec![trial("starts_and_exits_are_dated_between_ticks", dated).with_ignored_flag(missing.is_some())]
}

fn started(program: &Path) -> (Child, (i64, i64)) {
    let asked = boot_ns();
    let child = Command::new(program).arg("60").spawn().expect("started");
    (child, (asked, boot_ns()))
}

fn ended(child: &mut Child) -> (i64, i64) {
    let asked = boot_ns();
    child.kill().expect("killed");
    child.wait().expect("reaped");
    (asked, boot_ns())
}

fn dated() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join(NAME);
    std::fs::copy("/bin/sleep", &program).expect("copied");
    let item = ProbeItem {
        run: "r1".into(),
        probe: "dated".into(),
        kind: "process".into(),
        params: Params(json!({ "name": NAME }).as_object().cloned().expect("an object")),
        every: EVERY,
        at_rest: None,
        timeout: EVERY,
        stop: Vec::new(),
        until: Dur::from_secs(600),
    };
    crate::stage::run(async {
        let mut watcher = ThreadWatcher::new(fracas_probes::ALL, Policy::builtin(), Clock::of("test".into()));
        watcher.set(std::slice::from_ref(&item));
        edge(&mut watcher, false).await;
        for _ in 0..3 {
            let (mut child, start) = started(&program);
            let (before, after) = edge(&mut watcher, true).await;
            let width = holds("start", before, after, start);
            assert!(width < 500_000_000, "both bounds are the kernel's: a tick's would be {width} ns away");

            // Ended, and started anew by somebody who is faster than any look.
            let exit = ended(&mut child);
            let (again, start) = started(&program);
            child = again;
            let (before, after) = edge(&mut watcher, false).await;
            holds("exit", before, after, exit);
            assert!(after.s == after.c && after.c < start.1, "dated before it ran again: {after:?}, {start:?}");
            let (before, after) = edge(&mut watcher, true).await;
            let width = holds("restart", before, after, start);
            assert!(width < 500_000_000, "{width} ns");

            let exit = ended(&mut child);
            let (before, after) = edge(&mut watcher, false).await;
            holds("exit", before, after, exit);
        }
        watcher.close().await;
    });
}

/// The interval holds an instant at which it may have been; its width, nanoseconds.
fn holds(what: &str, before: Option<Look>, after: Look, (asked, done): (i64, i64)) -> i64 {
    let since = before.expect("a look before").s;
    eprintln!("{what}: known {} us after it was done, within {} us", (after.c - done) / 1000, (after.c - since) / 1000);
    assert!(since <= done && asked <= after.c, "{what}: {since} to {} against {asked} to {done}", after.c);
    after.c - since
}

async fn edge(watcher: &mut ThreadWatcher, wanted: bool) -> (Option<Look>, Look) {
    loop {
        let sight = tokio::time::timeout(Duration::from_secs(20), watcher.next()).await.expect("told in time");
        if let Body::Edge { ok, before, after, .. } = sight.body {
            assert_eq!(ok, wanted, "{before:?} {after:?}");
            return (before, after);
        }
    }
}
