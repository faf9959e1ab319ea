//! The process tree that stands in for a lab: it ends with its creator, asks its programs first, and takes its directory
//! along.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
};

use fracas_sim::lab::{Bare, End};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal};

use crate::{
    stage::{self, Place as _, part, part_here, wait_for},
    traces::{self, Traces},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_tree_is_asked_to_end_and_leaves_nothing", &[], a_tree_is_asked_to_end_and_leaves_nothing),
        trial("a_tree_ends_with_a_killed_creator", &[], a_tree_ends_with_a_killed_creator),
        trial("the_programs_of_a_tree_end_with_its_root", &[], the_programs_of_a_tree_end_with_its_root),
    ]
}

fn a_tree_is_asked_to_end_and_leaves_nothing() {
    let bare = Bare::start().expect("tree");
    let directory = bare.directory().to_owned();
    assert_eq!(fs::metadata(&directory).expect("directory").permissions().mode() & 0o777, 0o700);
    fs::write(directory.join("file"), "kept as long as the tree").expect("written");
    assert_eq!(bare.run(part(&["exit", "3"])).end, End::Code(3));
    let resting = bare.ready(&["rest"]);
    let other = bare.ready(&["rest"]);
    other.signal(Signal::HUP).expect("sent");
    assert_eq!(other.wait(), Ok(End::Signal(Signal::HUP.as_raw())));
    let stat = format!("/proc/{}", resting.pid());
    assert!(Path::new(&stat).exists());
    bare.stop().expect("nothing is left");
    assert!(!Path::new(&stat).exists() && !directory.exists());
}

/// The part `bare`: a tree with a program, and if wanted one whose parent has ended; says its directory and rests until
/// killed.
pub(crate) fn creator(deserted: bool) {
    let bare = Bare::start().expect("tree");
    let _program = bare.ready(&["rest"]);
    if deserted {
        bare.ready(&["desert"]).wait().expect("ended");
    }
    stage::print(bare.directory().to_str().expect("text"));
    loop {
        thread::park();
    }
}

/// The part `desert`: leaves a child behind.
#[expect(clippy::zombie_processes, reason = "the child is to outlive this process")]
pub(crate) fn desert() {
    let mut child = part_here(&["rest"]).stdout(Stdio::piped()).spawn().expect("child");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("pipe")).read_line(&mut line).expect("line");
    stage::print("ready");
}

/// A creator outside of this process, its mark, and the directory of its tree.
fn creator_outside(deserted: &str, processes: usize) -> (Child, String, PathBuf) {
    let mark = format!("bare-{deserted}-{}", std::process::id());
    let mut command = part_here(&["bare", deserted]);
    let mut creator = command.env(traces::MARK, &mark).stdout(Stdio::piped()).spawn().expect("creator");
    let mut directory = String::new();
    BufReader::new(creator.stdout.as_mut().expect("pipe")).read_line(&mut directory).expect("line");
    let made = Traces::of(&mark);
    assert_eq!(made.processes.len(), processes, "{made:#?}");
    let directory = PathBuf::from(directory.trim());
    assert!(directory.exists());
    (creator, mark, directory)
}

fn a_tree_ends_with_a_killed_creator() {
    // The creator, the root, the program, and the child that was left.
    let (mut creator, mark, directory) = creator_outside("deserted", 4);
    creator.kill().and_then(|()| creator.wait()).expect("killed");
    wait_for("nothing is left", || Traces::of(&mark).processes.is_empty() && !directory.exists());
}

fn the_programs_of_a_tree_end_with_its_root() {
    let (mut creator, mark, directory) = creator_outside("plain", 3);
    let made = Traces::of(&mark).processes;
    let (root, _) = made.iter().find(|(_, line)| line.contains(" bare /")).expect("root");
    rustix::process::kill_process(Pid::from_raw(*root).expect("pid"), Signal::KILL).expect("killed");
    // The creator, and the root that it has not reaped.
    wait_for("the program is gone", || Traces::of(&mark).processes.len() <= 2);
    creator.kill().and_then(|()| creator.wait()).expect("killed");
    wait_for("nothing is left", || Traces::of(&mark).processes.is_empty());
    // Whoever killed both left the directory; a creator that lives removes it.
    fs::remove_dir_all(directory).expect("removed");
}
