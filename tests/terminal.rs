//! A run on a terminal: it asks, draws itself in place, and an interrupt shows the undo. The terminal is a real one to the
//! command, and a text with escape sequences to the test.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use fracas_sim::{
    lab::{End, LinkState, Stream},
    need::Need,
};
use libtest_mimic::Trial;
use rustix::{
    fs::{Mode, OFlags},
    process::Signal,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use crate::{
    rig::{LIMIT, Rig, until},
    stage::part,
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("a_run_is_alive_on_a_terminal", &[Need::Lab], a_run_is_alive_on_a_terminal)]
}

const DOCUMENT: &str = r#"
apiVersion: fracas/v1
kind: Experiment
name: stand-still
targets: { box: { select: "role=box" } }
probes:
  crew: { process: { name: crew }, from: box, every: 100ms, timeout: 1s }
timeline:
  - { id: pause, at: 0s, fault: { process-pause: { name: crew } }, target: box, for: 5m }
recovery: { stableFor: 500ms, giveUpAfter: 10s }
"#;

/// The far side of a terminal.
struct Terminal {
    keys: File,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// A terminal of 100 columns, and its near side.
    fn open() -> (Self, OwnedFd) {
        let far = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&far).and_then(|()| unlockpt(&far)).expect("granted");
        let name = ptsname(&far, Vec::new()).expect("its name");
        let near = rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty());
        let near = near.expect("its near side");
        tcsetwinsize(&near, Winsize { ws_row: 40, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 }).expect("its size");
        let keys = File::from(far);
        let mut reading = keys.try_clone().expect("clone");
        let screen = Arc::new(Mutex::new(Vec::new()));
        let shown = Arc::clone(&screen);
        thread::spawn(move || {
            let mut piece = [0; 4096];
            // An error is the end of the near side.
            while let Ok(n @ 1..) = reading.read(&mut piece) {
                shown.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&piece[..n]);
            }
        });
        (Self { keys, screen }, near)
    }

    /// All that was ever written to it.
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    fn shows(&self, words: &str) {
        until(words, || self.text().contains(words));
    }
}

fn a_run_is_alive_on_a_terminal() {
    let rig = Rig::start(&[("box", &[("role", "box")])]);
    let crew = rig.go("box", "crew", part(&["rest", "crew"])).ready();
    let path = rig.document("experiment", DOCUMENT);
    let begin = || {
        let (terminal, near) = Terminal::open();
        let near = || Stream::File(near.try_clone().expect("clone"));
        let program = Rig::command(&["run", &path]).env("TERM", "xterm").stdin(near()).stdout(near()).stderr(near());
        (terminal, rig.host("ctl").spawn(program).expect("started"))
    };

    // No is no.
    let (mut terminal, running) = begin();
    terminal.shows("stand-still would put 1 host under fault:");
    terminal.shows("box: process-pause on box for 5m");
    terminal.shows("start? [y/N] ");
    terminal.keys.write_all(b"n\r").expect("typed");
    assert_eq!(running.wait_for(LIMIT), Ok(Some(End::Code(7))), "{}", terminal.text());
    terminal.shows("nothing was started");

    let (mut terminal, running) = begin();
    terminal.shows("start? [y/N] ");
    terminal.keys.write_all(b"y\r").expect("typed");
    terminal.shows("\x1b[?25l");
    terminal.shows("Ctrl-C stops and undoes");
    until("the crew stands still", || rig.process("box", crew.pid()).is_some_and(|process| process["state"] == "t"));
    let drawn = || terminal.text().matches("\x1b[J").count();
    let frames = drawn();
    until("it is drawn again and again", || drawn() > frames + 3);
    // Long enough to be seen: the host cannot confirm yet.
    rig.host("box").set_link(LinkState::Cut).expect("cut");
    running.signal(Signal::INT).expect("interrupted");
    terminal.shows("stopping: everything is being undone; Ctrl-C again leaves");
    rig.host("box").set_link(LinkState::Up).expect("up");
    assert_eq!(running.wait_for(LIMIT), Ok(Some(End::Code(4))), "{}", terminal.text());
    until("the summary stands below, with the cursor back", || {
        let text = terminal.text();
        let after = text.rsplit_once("\x1b[?25h").map_or("", |(_, after)| after);
        after.contains("ABORTED") && after.contains("stopped by admin: Ctrl-C")
    });
    assert!(!terminal.text().contains("panicked"), "{}", terminal.text());
    assert!(crew.runs());
    rig.stop();
}
