//! The first program of the guest: disks, processes that suffer, and the player, which it starts again should it die.
//! It says what it sees and does nothing to a player that stands still: then the plug is about to be pulled.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitCode},
    thread,
    time::Duration,
};

use fracas_agent::{crash, forget, host::netlink::link::Links};
use rustix::{
    mount::{MountFlags, UnmountFlags, mount, unmount},
    process::{WaitOptions, wait},
};

use crate::{
    items::{DEVICE, DISKS, VICTIMS},
    player, start,
    words::{Words, say},
};

/// First word of the other processes' arguments.
const ROLES: [&str; 2] = ["victim", "player"];
/// What the player's crash switch is told, read anew at each boundary.
pub(crate) const ORDER: &str = "/run/order";
/// No life of a guest is longer, should nobody pull the plug.
const LONGEST: Duration = Duration::from_mins(4);

/// Never returns: powers the machine off, unless the power goes first.
#[expect(clippy::zombie_processes, reason = "whatever ends is reaped by its number")]
pub(crate) fn run() -> ! {
    start::found();
    thread::spawn(|| {
        thread::sleep(LONGEST);
        say("fail nobody pulled the plug");
        start::off()
    });
    let words = Words::given();
    for (at, from) in DISKS.iter().zip(["/dev/vda", "/dev/vdb"]) {
        fs::create_dir(at).expect("a place for the disk");
        let options = std::ffi::CString::new(words.text("mount").unwrap_or_default()).expect("no zero");
        mount(from, *at, "ext4", MountFlags::empty(), Some(options.as_c_str()))
            .unwrap_or_else(|e| panic!("cannot mount {from}: {e}"));
    }
    // How long what is written stays in memory alone unless somebody syncs, in hundredths of a second.
    for (file, value) in [("dirty_expire_centisecs", "dirty"), ("dirty_writeback_centisecs", "dirty")] {
        fs::write(format!("/proc/sys/vm/{file}"), words.text(value).expect("dirty=")).expect("written");
    }
    let mut links = Links::open().expect("netlink");
    let device = links.index(DEVICE).expect("the device");
    links.set_up(device, true).expect("up");
    let mut victims: Vec<Child> = VICTIMS.iter().map(|name| victim(name)).collect();
    let mut player = player(&words, false);
    loop {
        let (pid, status) = match wait(WaitOptions::UNTRACED) {
            Ok(Some((pid, status))) => (pid.as_raw_nonzero().get(), status),
            Ok(None) | Err(rustix::io::Errno::INTR) => continue,
            Err(error) => panic!("cannot wait: {error}"),
        };
        let is = |child: &Child| child.id().cast_signed() == pid;
        if is(&player) {
            if status.stopped() {
                say("stopped");
            } else if let Some(code) = status.exit_status() {
                for at in DISKS {
                    if let Err(error) = unmount(at, UnmountFlags::empty()) {
                        say(&format!("fail {at} cannot be unmounted: {error}"));
                    }
                }
                say(&format!("ended {code}"));
                start::off();
            } else {
                say("died");
                player = self::player(&words, true);
            }
        } else if let Some(at) = victims.iter().position(is)
            && !status.stopped()
        {
            say(&format!("reaped {}", VICTIMS[at]));
            victims[at] = victim(VICTIMS[at]);
        }
    }
}

fn victim(name: &str) -> Child {
    Command::new("/proc/self/exe").arg0(name).args([ROLES[0], name]).spawn().expect("a victim")
}

fn player(words: &Words, again: bool) -> Child {
    let mut command = Command::new("/proc/self/exe");
    command.arg(ROLES[1]).args(std::env::args().skip(1)).env_clear().env(crash::VARIABLE, ORDER);
    if let Some(sync) = words.text("forget") {
        command.env(forget::VARIABLE, sync);
    }
    if again {
        command.arg("again=1");
    }
    command.spawn().expect("the player")
}

/// The other parts this program plays.
pub(crate) fn play() -> Option<ExitCode> {
    let mut words = std::env::args().skip(1);
    let role = words.next()?;
    if role == ROLES[0] {
        let name = std::ffi::CString::new(words.next()?).ok()?;
        rustix::thread::set_name(&name).expect("a name");
        loop {
            thread::park();
        }
    }
    if role != ROLES[1] {
        return None;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(player::play(&Words::given()));
    Some(ExitCode::SUCCESS)
}
