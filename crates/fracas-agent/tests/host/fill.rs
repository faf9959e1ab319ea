//! A disk is as full as was asked and as empty as before afterwards, as `df` has it; and the reserve stays. The disk is a
//! small one in memory, in a mount namespace of a thread of its own.

#![expect(unsafe_code, reason = "a thread gets a mount namespace of its own")]

use std::{fs, path::Path, process::Command, thread, time::Instant};

use fracas_agent::host::{Handle, Host as _, Reverted, files};
use fracas_model::{
    event::Proof,
    plan::{Check, Fill, FillGoal, Step},
    units::{Percent, Size},
};
use libtest_mimic::Trial;
use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    process::{Pid, Signal, kill_process},
    thread::UnshareFlags,
};

use crate::stage::{host, key, lives, run, wait_for};

pub(crate) fn trials() -> Vec<Trial> {
    let root = rustix::process::geteuid().is_root();
    let trial = |name, run: fn(&Path)| super::trial(name, move || on_small_disk(run)).with_ignored_flag(!root);
    vec![
        trial("a_disk_is_filled_and_free_again", filled),
        trial("a_killed_worker_gives_the_disk_back", killed),
        trial("the_reserve_of_a_filled_disk_is_kept", reserved),
        trial("a_disk_that_cannot_be_filled_is_told", refused),
    ]
}

const MIB: u64 = 1 << 20;
/// Size of the disk.
const DISK: u64 = 64;

fn on_small_disk(run: fn(&Path)) {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().to_owned();
    let on = move || {
        // SAFETY: this thread keeps nothing that depends on the namespaces it leaves.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }.expect("a namespace");
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("private");
        mount("tmpfs", &path, "tmpfs", MountFlags::empty(), Some(c"size=64m")).expect("a disk");
        run(&path);
    };
    thread::spawn(on).join().expect("it goes");
}

/// What `df` says: used and left, in MiB.
fn df(path: &Path) -> (u64, u64) {
    let said = Command::new("df").args(["-B1M", "--output=used,avail"]).arg(path).output().expect("df");
    let text = String::from_utf8(said.stdout).expect("UTF-8");
    let mut numbers = text.split_whitespace().filter_map(|word| word.parse().ok());
    (numbers.next().expect("used"), numbers.next().expect("left"))
}

fn fill(path: &Path, goal: FillGoal, reserve_mib: u64) -> (Step, Check) {
    let directory = path.canonicalize().expect("real").to_str().expect("UTF-8").to_owned();
    let fill = Fill { directory, goal, reserve: Size(reserve_mib * MIB) };
    (Step::Fill(fill.clone()), Check::DiskUse(fill))
}

fn names(path: &Path) -> usize {
    fs::read_dir(path).expect("directory").count()
}

fn worker(handle: &Handle) -> i32 {
    i32::try_from(handle["worker"]["pid"].as_i64().expect("pid")).expect("pid")
}

fn filled(path: &Path) {
    fs::write(path.join("data"), vec![1; 8 << 20]).expect("written");
    let before = df(path);
    assert_eq!(before, (8, DISK - 8));
    let goals = [
        (FillGoal::Used(Percent(75.0)), (48, 16)),
        (FillGoal::Size(Size(20 * MIB)), (28, 36)),
        (FillGoal::Left(Size(0)), (DISK, 0)),
    ];
    for (goal, full) in goals {
        let (host, key, (step, check)) = (host(), key("fill"), fill(path, goal, 0));
        let begun = Instant::now();
        let (handle, _) = run(host.apply(&key, 0, &step)).expect("fills");
        eprintln!("{goal:?}: filled after {:?}", begun.elapsed());
        assert_eq!((df(path), names(path)), (full, 1), "{goal:?}");
        let (proof, measured) = run(host.check(&key, &check));
        assert_eq!(proof, Proof::Verified, "{measured:?}");
        assert!((measured[1].got - full.1 as f64).abs() < 1.0, "{measured:?}");
        let wrote = fs::write(path.join("more"), vec![1; (full.1 as usize + 1) << 20]);
        assert!(wrote.is_err_and(|e| e.kind() == std::io::ErrorKind::StorageFull), "others meet a full disk");
        fs::remove_file(path.join("more")).expect("removed");
        assert_eq!(run(host.revert(&key, 0, &step, Some(&handle))), Ok(Reverted::Undone));
        assert_eq!((df(path), names(path)), (before, 1));
        assert!(!lives(worker(&handle)));
        assert_eq!(run(host.revert(&key, 0, &step, None)), Ok(Reverted::NothingThere));
        assert!(matches!(run(host.check(&key, &check)).0, Proof::Unverified { .. }));
    }
    // What is freed by others is theirs: the disk is not so full any more, and that is told.
    let (host, key, (step, check)) = (host(), key("freed"), fill(path, FillGoal::Left(Size(4 * MIB)), 0));
    run(host.apply(&key, 0, &step)).expect("fills");
    fs::remove_file(path.join("data")).expect("removed");
    let (proof, measured) = run(host.check(&key, &check));
    assert!(matches!(proof, Proof::Ineffective { .. }), "{proof:?} {measured:?}");
    assert_eq!(run(host.revert(&key, 0, &step, None)), Ok(Reverted::Undone));
}

fn killed(path: &Path) {
    let before = df(path);
    let (host, key, (step, check)) = (host(), key("fill"), fill(path, FillGoal::Left(Size(MIB)), 0));
    let (handle, _) = run(host.apply(&key, 0, &step)).expect("fills");
    assert_eq!(df(path).1, 1);
    let begun = Instant::now();
    kill_process(Pid::from_raw(worker(&handle)).expect("pid"), Signal::KILL).expect("sent");
    let free = || files::space(path.to_str().expect("UTF-8")).expect("looked").left_bytes == before.1 * MIB;
    wait_for("the space to be free", free);
    eprintln!("63 MiB free again {:?} after SIGKILL of the worker", begun.elapsed());
    assert_eq!(df(path), before);
    let mut lost = Vec::new();
    wait_for("the loss", || {
        lost = run(host.lost());
        !lost.is_empty()
    });
    assert!(lost[0].0 == key && lost[0].1.contains("signal: 9"), "{lost:?}");
    assert!(matches!(run(host.check(&key, &check)).0, Proof::Ineffective { .. }));
    assert_eq!(run(host.revert(&key, 0, &step, Some(&handle))), Ok(Reverted::Undone));
}

fn reserved(path: &Path) {
    // Asked for all of it, it stops at the reserve.
    let (host, key, (step, check)) = (host(), key("fill"), fill(path, FillGoal::Left(Size(0)), 16));
    run(host.apply(&key, 0, &step)).expect("fills");
    assert_eq!(df(path), (DISK - 16, 16));
    assert!(matches!(run(host.check(&key, &check)).0, Proof::Ineffective { .. }), "that is not what was asked");
    // Others may write more than the reserve, if they give the worker the time to make room.
    for n in 0..4 {
        fs::write(path.join(n.to_string()), vec![1; 12 << 20]).expect("there is room");
        wait_for("the reserve to be back", || df(path).1 >= 16 || n == 3);
    }
    wait_for("the worker to have given all it has", || df(path) == (48, 16));
    assert_eq!(run(host.revert(&key, 0, &step, None)), Ok(Reverted::Undone));
    assert_eq!(df(path), (48, 16), "what others wrote is theirs");
}

fn refused(path: &Path) {
    let (host, key) = (host(), key("fill"));
    fs::write(path.join("data"), vec![1; 60 << 20]).expect("written");
    for (goal, reserve) in [(FillGoal::Used(Percent(90.0)), 0), (FillGoal::Left(Size(0)), 8)] {
        let refused = run(host.apply(&key, 0, &fill(path, goal, reserve).0)).expect_err("full already");
        assert!(refused.0.contains("so full already"), "{refused}");
        assert_eq!(run(host.revert(&key, 0, &fill(path, goal, reserve).0, None)), Ok(Reverted::NothingThere));
    }
    assert_eq!(df(path), (60, 4));
    let volume = |path: &str| files::volume(path).expect("looked");
    let here = volume(path.to_str().expect("UTF-8")).expect("there");
    assert_eq!((here.unnamed, here.space.left_bytes), (None, 4 * MIB));
    assert!(volume("/proc").expect("there").unnamed.is_some());
    assert_eq!((volume("/none"), volume(path.join("data").to_str().expect("UTF-8"))), (None, None));
}
