//! The exec probe with real programs: judged by code and output, refused when not allowed, gone with its whole group.

use std::{
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{child::Running, *};

fn policy(allow: &[&str]) -> Policy {
    let exec_user = if rustix::process::geteuid().is_root() {
        "nobody".to_owned()
    } else {
        rustix::process::geteuid().as_raw().to_string()
    };
    Policy { exec_allow: allow.iter().map(|a| (*a).to_owned()).collect(), exec_user, ..Policy::builtin() }
}

fn ready(params: serde_json::Value, allow: &[&str]) -> Result<Box<dyn Lookout>, Refusal> {
    Exec.ready(&serde_json::from_value(params).unwrap(), &policy(allow))
}

async fn shell(script: &str, extra: serde_json::Value) -> Seen {
    let mut params = json!({ "command": ["/bin/sh", "-c", script] });
    params.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    ready(params, &["/bin/sh"]).unwrap().look().await
}

#[tokio::test(flavor = "current_thread")]
async fn code_and_output_are_judged() {
    shell("exit 0", json!({})).await.unwrap();
    shell("exit 3", json!({ "exitCode": 3 })).await.unwrap();
    assert_eq!(shell("exit 3", json!({})).await.unwrap_err(), "exit code 3");
    assert_eq!(shell("kill -9 $$", json!({})).await.unwrap_err(), "ended by signal 9");
    shell("echo accepting connections", json!({ "stdout": "accepting" })).await.unwrap();
    assert_eq!(shell("echo no", json!({ "stdout": "accepting" })).await.unwrap_err(), "output lacks the text");
    // More than is kept, and more than a pipe holds: the program must not block on it.
    let flood = "i=0; while [ $i -lt 3000 ]; do echo 0123456789012345678901234567890123456789; i=$((i+1)); done";
    shell(flood, json!({ "stdout": "0123" })).await.unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn it_runs_bare_and_limited() {
    shell("[ -z \"$HOME$USER\" ] && [ \"$(pwd)\" = / ]", json!({})).await.unwrap();
    shell("read x; [ $? -ne 0 ]", json!({})).await.unwrap();
    shell("ulimit -n; ulimit -c", json!({ "stdout": "256\n0\n" })).await.unwrap();
    if rustix::process::geteuid().is_root() {
        shell("[ $(id -un) = nobody ] && [ $(id -G) = $(id -g) ]", json!({})).await.unwrap();
    }
}

#[test]
fn what_is_not_allowed_is_refused_with_the_way_out() {
    let refusal = |params, allow: &[&str]| ready(params, allow).err().unwrap();
    let relative = refusal(json!({ "command": ["sh"] }), &["sh"]);
    assert!(relative.why.contains("absolute"), "{relative}");
    let unlisted = refusal(json!({ "command": ["/bin/sh"] }), &["/bin/true"]);
    assert!(unlisted.instead.contains("execAllow"), "{unlisted}");
    assert!(ready(json!({ "command": ["/bin/../bin/sh"] }), &["/bin/sh"]).is_err());
    let stranger = Policy { exec_user: "no-such-user".into(), ..policy(&["/bin/sh"]) };
    let params = serde_json::from_value(json!({ "command": ["/bin/sh"] })).unwrap();
    assert!(Exec.ready(&params, &stranger).err().unwrap().why.contains("no-such-user"));
}

#[tokio::test(flavor = "current_thread")]
async fn a_missing_program_is_a_failure() {
    let missing = ready(json!({ "command": ["/nonexistent/probe"] }), &["/nonexistent/probe"]).unwrap();
    assert!(missing.look().await.unwrap_err().starts_with("/nonexistent/probe does not start"));
}

#[tokio::test(flavor = "current_thread")]
async fn giving_up_kills_the_whole_group() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let file: PathBuf = dir.path().join("pids");
    // The shell, its child in the background and the one in front; the file is complete when it has its end mark.
    let script = format!("sleep 600 & echo $$ $! > {0}.part; mv {0}.part {0}; sleep 600", file.display());
    let params = json!({ "command": ["/bin/sh", "-c", script] });
    let lookout = ready(params, &["/bin/sh"]).unwrap();
    let started = async {
        let mut pace = tokio::time::interval(Duration::from_millis(2));
        while !file.exists() {
            pace.tick().await;
        }
    };
    tokio::select! {
        seen = lookout.look() => panic!("it ended: {seen:?}"),
        () = started => {} // drops the look, as a timeout does
    }
    let pids = std::fs::read_to_string(&file).unwrap();
    let pids: Vec<i32> = pids.split_whitespace().map(|p| p.parse().unwrap()).collect();
    assert_eq!(pids.len(), 2);
    let deadline = Instant::now() + Duration::from_secs(10);
    while pids.iter().any(|pid| crate::proctable::one(*pid, false).is_some()) {
        assert!(Instant::now() < deadline, "{pids:?} still run");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "current_thread")]
async fn what_outlives_the_program_is_killed_with_its_group() {
    // The grandchild keeps the output open: the look must end with the program all the same.
    let begun = Instant::now();
    shell("sleep 600 & echo done", json!({ "stdout": "done" })).await.unwrap();
    assert!(begun.elapsed() < Duration::from_mins(1));
}

#[tokio::test(flavor = "current_thread")]
async fn a_grandchild_that_writes_for_ever_holds_nothing_up() {
    let begun = Instant::now();
    shell("(while :; do echo 0123456789; done) & sleep 0.1; exit 0", json!({ "stdout": "0123" })).await.unwrap();
    assert!(begun.elapsed() < Duration::from_mins(1));
}

#[tokio::test(flavor = "current_thread")]
async fn it_keeps_no_ability_of_the_agent() {
    shell("cat /proc/self/status", json!({ "stdout": "NoNewPrivs:\t1" })).await.unwrap();
    if !rustix::process::geteuid().is_root() {
        return; // Nobody else has abilities to pass on.
    }
    let order = Order {
        program: "/bin/cat".into(),
        arguments: vec!["/proc/self/status".into()],
        user: None,
        keep: child::LONGEST_OUTPUT,
    };
    // On a thread of its own, for abilities are a thread's.
    let seen = std::thread::spawn(move || {
        use rustix::thread::{CapabilitySet, capabilities, configure_capability_in_ambient_set, set_capabilities};
        let mut sets = capabilities(None).unwrap();
        sets.inheritable |= CapabilitySet::KILL;
        set_capabilities(None, sets).unwrap();
        configure_capability_in_ambient_set(rustix::thread::CapabilitySet::KILL, true).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { order.start().unwrap().ended().await.unwrap() })
    });
    let status = String::from_utf8(seen.join().unwrap().stdout).unwrap();
    assert!(status.contains("CapAmb:\t0000000000000000"), "{status}");
}

#[tokio::test(flavor = "current_thread")]
async fn it_is_not_spared_when_memory_is_short_nor_of_the_agents_groups() {
    let own = Path::new("/proc/self/oom_score_adj");
    let before = fs::read(own).unwrap();
    if !rustix::process::geteuid().is_root() || fs::write(own, "-100").is_err() {
        return; // Nobody else may ask to be spared, or change user.
    }
    let look = |file: &str| Order {
        program: "/bin/cat".into(),
        arguments: vec![file.into()],
        user: Some((65534, 65534)),
        keep: child::LONGEST_OUTPUT,
    };
    let (oom, status) = (look("/proc/self/oom_score_adj").start(), look("/proc/self/status").start());
    fs::write(own, before).unwrap();
    let text = async |running: Result<Running, String>| {
        String::from_utf8(running.unwrap().ended().await.unwrap().stdout).unwrap()
    };
    assert_eq!(text(oom).await, "0\n");
    let status = text(status).await;
    for line in ["Uid:\t65534\t65534\t65534\t65534", "Gid:\t65534\t65534\t65534\t65534", "Groups:\t \n"] {
        assert!(status.contains(line), "{line}: {status}");
    }
}

#[test]
fn it_dies_with_the_thread_that_started_it() {
    let order = Order { program: "/bin/sleep".into(), arguments: vec!["600".into()], user: None, keep: 0 };
    let running = std::thread::spawn(move || order.start().unwrap()).join().unwrap();
    let pid = running.pid();
    let deadline = Instant::now() + Duration::from_secs(10);
    while crate::proctable::one(pid, false).is_some() {
        assert!(Instant::now() < deadline, "{pid} outlived its starter");
        std::thread::yield_now();
    }
}

/// What ran away into a session of its own writes its number here.
fn runaway(dir: &tempfile::TempDir) -> (PathBuf, String) {
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let file = dir.path().join("pid");
    let at = file.display();
    let script = format!(
        "(setsid sh -c 'echo $$ > {at}.part; mv {at}.part {at}; exec sleep 600' &); while ! [ -e {at} ]; do :; done"
    );
    (file, script)
}

fn is_soon_gone(file: &PathBuf) {
    let pid = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while crate::proctable::one(pid, false).is_some() {
        assert!(Instant::now() < deadline, "{pid} still runs");
        std::thread::yield_now();
    }
}

#[tokio::test(flavor = "current_thread")]
async fn nothing_runs_away_from_a_look_that_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (file, script) = runaway(&dir);
    shell(&format!("{script}; exit 3"), json!({ "exitCode": 3 })).await.unwrap();
    is_soon_gone(&file);
}

#[tokio::test(flavor = "current_thread")]
async fn nothing_runs_away_from_a_look_that_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let (file, script) = runaway(&dir);
    let lookout = ready(json!({ "command": ["/bin/sh", "-c", format!("{script}; sleep 600")] }), &["/bin/sh"]).unwrap();
    let started = async {
        let mut pace = tokio::time::interval(Duration::from_millis(2));
        while !file.exists() {
            pace.tick().await;
        }
    };
    tokio::select! {
        seen = lookout.look() => panic!("it ended: {seen:?}"),
        () = started => {}
    }
    is_soon_gone(&file);
}
