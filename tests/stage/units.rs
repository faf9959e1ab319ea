//! A stand-in for systemd on a lab host: two services that are real processes, started and stopped over D-Bus at the
//! system bus's own place. Of systemd it knows only what it takes to stop and start a unit; nothing of it is the product's.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{
        net::{UnixListener, UnixStream},
        process::CommandExt as _,
    },
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use self::wire::{answer, field, number, text, texts, variant};
use super::say;

#[path = "../../crates/fracas-agent/tests/bus/wire.rs"]
mod wire;

/// The units: a name, how long it takes to stop, and to start, milliseconds.
const UNITS: [(&str, u64, u64); 2] = [("web.service", 0, 0), ("app.service", 30, 20)];
/// What every unit runs; nobody else on the host runs it.
pub(crate) const SERVICE: &str = "sleep";
/// What sd_booted(3) looks at, and where the bus is.
const BOOTED: &str = "/run/systemd/system";
const BUS: &str = "/run/dbus/system_bus_socket";

/// A unit as its own thread knows it.
struct Unit {
    name: &'static str,
    /// What somebody asked for last, and what it is.
    state: Mutex<(bool, &'static str)>,
    changed: Condvar,
}

/// The part `units`.
pub(super) fn units() {
    fs::create_dir_all(BOOTED).expect("a directory");
    fs::create_dir_all("/run/dbus").expect("a directory");
    let units: Arc<Vec<Unit>> = Arc::new(
        UNITS
            .iter()
            .map(|(name, ..)| Unit { name, state: Mutex::new((true, "inactive")), changed: Condvar::new() })
            .collect(),
    );
    for (n, (_, stop_ms, start_ms)) in UNITS.iter().enumerate() {
        let units = units.clone();
        let pauses = [*stop_ms, *start_ms].map(Duration::from_millis);
        thread::spawn(move || units[n].live(pauses));
    }
    for unit in units.iter() {
        let mut state = unit.state.lock().expect("a unit");
        while state.1 != "active" {
            state = unit.changed.wait(state).expect("a unit");
        }
    }
    let listener = UnixListener::bind(BUS).expect("the bus");
    say(&json!({ "ready": true }));
    for stream in listener.incoming() {
        let units = units.clone();
        // Whoever asks may leave, or be killed, at any time.
        thread::spawn(move || stream.and_then(|stream| serve(stream, &units)));
    }
}

impl Unit {
    /// Makes it be what is asked for, for ever.
    fn live(&self, [stop, start]: [Duration; 2]) {
        let mut child: Option<Child> = None;
        loop {
            let wanted = {
                let mut state = self.state.lock().expect("a unit");
                while state.0 == child.is_some() {
                    state = self.changed.wait(state).expect("a unit");
                }
                state.1 = if state.0 { "activating" } else { "deactivating" };
                state.0
            };
            if let Some(mut child) = child.take() {
                thread::sleep(stop);
                let pid = Pid::from_raw(child.id().cast_signed()).expect("a number");
                kill_process(pid, Signal::TERM).expect("it is not reaped");
                child.wait().expect("waited");
            } else {
                thread::sleep(start);
                let mut command = Command::new(SERVICE);
                command.arg0(self.name).arg("1000000").process_group(0).stdin(Stdio::null()).stdout(Stdio::null());
                child = Some(command.spawn().expect("started"));
            }
            self.state.lock().expect("a unit").1 = if wanted { "active" } else { "inactive" };
            self.changed.notify_all();
        }
    }

    fn ask(&self, wanted: bool) {
        let mut state = self.state.lock().expect("a unit");
        state.0 = wanted;
        // As systemd has it: a job is under way as soon as it is asked for.
        match (wanted, state.1) {
            (true, "inactive") => state.1 = "activating",
            (false, "active") => state.1 = "deactivating",
            _ => {}
        }
        self.changed.notify_all();
    }

    fn path(&self) -> String {
        format!("/org/freedesktop/systemd1/unit/{}", self.name.replace('.', "_2e"))
    }
}

fn serve(stream: UnixStream, units: &[Unit]) -> io::Result<()> {
    let mut out = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    for greeting in ["\0AUTH EXTERNAL ", "BEGIN\r\n"] {
        let mut line = Vec::new();
        input.read_until(b'\n', &mut line)?;
        if !line.starts_with(greeting.as_bytes()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if greeting.starts_with('\0') {
            out.write_all(b"OK 0123456789abcdef0123456789abcdef\r\n")?;
        }
    }
    loop {
        let mut bytes = vec![0; 16];
        input.read_exact(&mut bytes)?;
        let (body, serial, fields) = (number(&bytes, 4), number(&bytes, 8), number(&bytes, 12));
        bytes.resize(16 + fields.next_multiple_of(8) + body, 0);
        input.read_exact(&mut bytes[16..])?;
        let (path, member) = (field(&bytes, 1, b'o'), field(&bytes, 3, b's'));
        let words = texts(&bytes[bytes.len() - body..]);
        out.write_all(&reply(serial, &path, &member, &words, units))?;
    }
}

fn reply(serial: usize, path: &str, member: &str, words: &[String], units: &[Unit]) -> Vec<u8> {
    let named = |name: &str| units.iter().find(|unit| unit.name == name);
    match member {
        "Hello" => answer(serial, 2, "s", &text(":1.7")),
        "LoadUnit" => {
            let path = named(&words[0]).map_or_else(|| "/org/freedesktop/systemd1/unit/none".into(), Unit::path);
            answer(serial, 2, "o", &text(&path))
        }
        "Get" => {
            let unit = units.iter().find(|unit| unit.path() == path);
            let truth = |yes: bool| variant("b", &u32::from(yes).to_le_bytes());
            let value = match words[1].as_str() {
                "Id" => variant("s", &text(unit.map_or("none.service", |unit| unit.name))),
                "LoadState" => variant("s", &text(if unit.is_some() { "loaded" } else { "not-found" })),
                "ActiveState" => {
                    variant("s", &text(unit.map_or("inactive", |unit| unit.state.lock().expect("a unit").1)))
                }
                "CanStop" => truth(true),
                "RefuseManualStop" => truth(false),
                _ => variant("as", &0_u32.to_le_bytes()),
            };
            answer(serial, 2, "v", &value)
        }
        "StopUnit" | "StartUnit" => match named(&words[0]) {
            Some(unit) => {
                unit.ask(member == "StartUnit");
                answer(serial, 2, "o", &text("/org/freedesktop/systemd1/job/1"))
            }
            None => answer(serial, 3, "s", &text("there is no such unit")),
        },
        other => panic!("nobody calls {other}"),
    }
}
