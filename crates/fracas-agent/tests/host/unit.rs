//! Units are stopped and started at a bus that this test plays, and a real bus takes what is said for D-Bus. Real units are
//! not touched: whoever wants to see those runs this against a systemd of their own.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use fracas_agent::host::{Host as _, Reverted, linux::LinuxHost, systemd::Systemd};
use fracas_model::{
    event::Proof,
    facts::{Facts, HostFacts, Question, UnitSeen},
    plan::{Check, Step},
    policy::Policy,
};
use fracas_probes::systemd_unit;
use libtest_mimic::Trial;
use tempfile::TempDir;

use self::wire::{answer, field, number, text, texts, variant};
use crate::{
    stage::{host, key, run, wait_for},
    trial,
};

#[path = "../bus/wire.rs"]
mod wire;

pub(crate) fn trials() -> Vec<Trial> {
    // Where nothing may be skipped, it fails for want of one.
    let all = std::env::var("FRACAS_REQUIRE").is_ok_and(|require| require == "all");
    let daemon = all || Path::new("/usr/bin/dbus-daemon").exists();
    vec![
        trial("a_unit_is_stopped_and_started", stopped),
        trial("a_unit_that_others_stopped_or_started_is_left_alone", others),
        trial("a_unit_is_started_from_whatever_a_death_left", cut_short),
        trial("a_unit_is_seen_with_what_needs_it", seen),
        trial("a_bus_that_answers_nonsense_or_nothing_is_told_in_time", nonsense),
        trial("a_real_bus_understands_what_is_said", real).with_ignored_flag(!daemon),
    ]
}

/// What the bus knows of a unit.
#[derive(Clone, Debug)]
struct Unit {
    active: &'static str,
    needed_by: Vec<String>,
    /// It does not stop, or start, at once.
    slow: bool,
}

type Units = Arc<Mutex<BTreeMap<String, Unit>>>;

/// A bus with a systemd, and what it was asked to do.
struct Bus {
    _dir: TempDir,
    socket: PathBuf,
    units: Units,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Bus {
    fn start() -> Self {
        let dir = TempDir::new().expect("directory");
        let socket = dir.path().join("bus");
        let listener = UnixListener::bind(&socket).expect("socket");
        let (units, asked) = (Units::default(), Arc::<Mutex<Vec<String>>>::default());
        let (known, log) = (units.clone(), asked.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                // Whoever asks may leave at any time.
                let _ = stream.and_then(|stream| serve(stream, &known, &log));
            }
        });
        let bus = Self { _dir: dir, socket, units, asked };
        bus.put("web.service", "active");
        bus
    }

    fn put(&self, name: &str, active: &'static str) {
        let unit = Unit { active, needed_by: Vec::new(), slow: false };
        self.units.lock().expect("units").insert(name.into(), unit);
    }

    fn change(&self, change: impl FnOnce(&mut Unit)) {
        change(self.units.lock().expect("units").get_mut("web.service").expect("unit"));
    }

    fn active(&self) -> &'static str {
        self.units.lock().expect("units")["web.service"].active
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().expect("log"))
    }

    fn host(&self) -> LinuxHost {
        host().speaking_to(Systemd::at(&self.socket))
    }
}

fn serve(stream: UnixStream, units: &Units, asked: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut out = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    let mut line = Vec::new();
    input.read_until(b'\n', &mut line)?;
    assert!(line.starts_with(b"\0AUTH EXTERNAL "), "{line:?}");
    line.clear();
    // As systemd does at its own socket, which would overlook a call that came together with it.
    input.read_until(b'\n', &mut line)?;
    assert_eq!(line, b"BEGIN\r\n");
    out.write_all(b"OK 0123456789abcdef0123456789abcdef\r\n")?;
    loop {
        let mut bytes = vec![0; 16];
        input.read_exact(&mut bytes)?;
        let (body, serial, fields) = (number(&bytes, 4), number(&bytes, 8), number(&bytes, 12));
        bytes.resize(16 + fields.next_multiple_of(8) + body, 0);
        input.read_exact(&mut bytes[16..])?;
        let (path, member) = (field(&bytes, 1, b'o'), field(&bytes, 3, b's'));
        let words = texts(&bytes[bytes.len() - body..]);
        // A signal that concerns nobody comes before the answer.
        out.write_all(b"l\x04\x01\x01\0\0\0\0\x05\0\0\0\x0f\0\0\0\x01\x01o\0\x06\0\0\0/a/b/c\0\0")?;
        out.write_all(&reply(serial, &path, &member, &words, units, asked))?;
    }
}

fn reply(
    serial: usize,
    path: &str,
    member: &str,
    words: &[String],
    units: &Units,
    asked: &Mutex<Vec<String>>,
) -> Vec<u8> {
    let mut units = units.lock().expect("units");
    let named = |name: &str| format!("/u/{}", name.replace(['.', '-'], "_"));
    match member {
        "Hello" => answer(serial, 2, "s", &text(":1.7")),
        "LoadUnit" => answer(serial, 2, "o", &text(&named(&words[0]))),
        "Get" => {
            let found = units.iter().find(|(name, _)| named(name) == path);
            let truth = |yes: bool| variant("b", &u32::from(yes).to_le_bytes());
            let value = match (words[1].as_str(), found) {
                ("Id", Some((name, _))) => variant("s", &text(name)),
                ("Id", None) => variant("s", &text("none.service")),
                ("LoadState", found) => variant("s", &text(if found.is_some() { "loaded" } else { "not-found" })),
                ("ActiveState", found) => variant("s", &text(found.map_or("inactive", |(_, unit)| unit.active))),
                ("CanStop", _) => truth(true),
                ("RefuseManualStop", _) => truth(false),
                (relation, found) => {
                    let others = found.filter(|_| relation == "RequiredBy").map(|(_, unit)| unit.needed_by.clone());
                    let mut list: Vec<u8> = Vec::new();
                    for other in others.unwrap_or_default() {
                        list.resize(list.len().next_multiple_of(4), 0);
                        list.extend(text(&other));
                    }
                    let mut value = (list.len() as u32).to_le_bytes().to_vec();
                    value.extend(list);
                    variant("as", &value)
                }
            };
            answer(serial, 2, "v", &value)
        }
        "StopUnit" | "StartUnit" => {
            asked.lock().expect("log").push(format!("{member} {}", words.join(" ")));
            let Some(unit) = units.get_mut(&words[0]) else {
                return answer(serial, 3, "s", &text("there is no such unit"));
            };
            unit.active = match (member, unit.slow) {
                ("StopUnit", false) => "inactive",
                ("StopUnit", true) => "deactivating",
                (_, false) => "active",
                (_, true) => "activating",
            };
            answer(serial, 2, "o", &text("/job/1"))
        }
        other => panic!("nobody calls {other}"),
    }
}

fn step() -> Step {
    Step::StopUnit { unit: "web.service".into() }
}

fn check(host: &LinuxHost) -> Proof {
    run(host.check(&key("unit"), &Check::UnitStopped { unit: "web.service".into() })).0
}

fn stopped() {
    let bus = Bus::start();
    let (host, key) = (bus.host(), key("unit"));
    assert!(matches!(check(&host), Proof::Ineffective { .. }));
    let (handle, _) = run(host.apply(&key, 0, &step())).expect("stops");
    assert_eq!((bus.active(), check(&host)), ("inactive", Proof::Verified));
    assert_eq!(run(host.revert(&key, 0, &step(), Some(&handle))), Ok(Reverted::Undone));
    assert_eq!(
        (bus.active(), bus.asked()),
        ("active", vec!["StopUnit web.service replace".to_owned(), "StartUnit web.service replace".to_owned()])
    );
    assert_eq!(run(host.revert(&key, 0, &step(), Some(&handle))), Ok(Reverted::Undone), "again");
    assert_eq!(bus.asked(), [""; 0]);
}

fn others() {
    let bus = Bus::start();
    let (host, key) = (bus.host(), key("unit"));
    bus.change(|unit| unit.active = "inactive");
    let refused = run(host.apply(&key, 0, &step())).expect_err("stopped already");
    assert!(refused.0.contains("is inactive already"), "{refused}");
    assert_eq!(run(host.revert(&key, 0, &step(), None)), Ok(Reverted::NothingThere));
    assert_eq!((bus.active(), bus.asked()), ("inactive", vec![]), "not ours to start");
    bus.change(|unit| unit.active = "active");
    let (host, key) = (bus.host(), crate::stage::key("other"));
    let (handle, _) = run(host.apply(&key, 0, &step())).expect("stops");
    bus.change(|unit| unit.active = "active");
    assert!(matches!(check(&host), Proof::Ineffective { .. }));
    bus.asked();
    let reverted = run(host.revert(&key, 0, &step(), Some(&handle)));
    assert!(matches!(reverted, Ok(Reverted::Superseded(_))), "{reverted:?}");
    assert_eq!(bus.asked(), [""; 0]);
    // Taken away altogether.
    bus.units.lock().expect("units").clear();
    let reverted = run(host.revert(&key, 0, &step(), Some(&handle)));
    assert!(matches!(&reverted, Ok(Reverted::Superseded(what)) if what.contains("not-found")), "{reverted:?}");
}

fn cut_short() {
    // Nothing done yet; stopped; still stopping: another life finds each.
    for (left, started) in [("active", false), ("inactive", true), ("failed", true), ("deactivating", true)] {
        let bus = Bus::start();
        bus.change(|unit| unit.active = left);
        let reverted = run(bus.host().revert(&key("unit"), 0, &step(), None));
        assert_eq!(reverted, Ok(if started { Reverted::Undone } else { Reverted::NothingThere }), "{left}");
        assert_eq!((bus.active(), bus.asked().len()), ("active", usize::from(started)), "{left}");
    }
    // One that takes its time is not called stopped, nor started, before it is.
    let bus = Bus::start();
    bus.change(|unit| unit.slow = true);
    let (host, key) = (bus.host(), key("unit"));
    let (handle, _) = run(host.apply(&key, 0, &step())).expect("stops");
    assert!(matches!(check(&host), Proof::Unverified { .. }));
    let failed = run(host.revert(&key, 0, &step(), Some(&handle))).expect_err("not yet");
    assert!(failed.0.contains("is activating"), "{failed}");
    bus.change(|unit| unit.active = "active");
    assert_eq!(run(host.revert(&key, 0, &step(), Some(&handle))), Ok(Reverted::Undone));
}

fn ask(host: &LinuxHost, unit: &str) -> Result<UnitSeen, String> {
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
    run(host.answer(base, &[Question::Unit(unit.into())])).expect("facts").unit.expect("asked")
}

fn seen() {
    let bus = Bus::start();
    bus.put("app.service", "active");
    bus.put("idle.service", "inactive");
    let needed_by = ["app.service", "idle.service", "multi-user.target"].map(str::to_owned).to_vec();
    bus.change(|unit| unit.needed_by = needed_by);
    let seen = ask(&bus.host(), "web.service").expect("answered");
    assert_eq!(
        (seen.load.as_str(), seen.active.as_str(), seen.stoppable, seen.ours),
        ("loaded", "active", true, false)
    );
    assert_eq!(seen.dependents, ["app.service"], "only what runs would stop");
    assert_eq!(ask(&bus.host(), "none.service").expect("answered").load, "not-found");
    if !Path::new("/run/systemd/system").exists() {
        let why = ask(&host(), "web.service").expect_err("no systemd");
        assert!(why.contains("systemd does not run this host"), "{why}");
    }
}

fn nonsense() {
    let endless = vec![b'x'; 10_000];
    let mut huge = b"OK 0\r\nl\x02\x01\x01\xff\xff\xff\x7f\x01\0\0\0\xff\xff\xff\x7f".to_vec();
    huge.extend([0; 64]);
    let cases: [&[u8]; 6] =
        [b"", b"REJECTED EXTERNAL\r\n", b"OK 0\r\n", b"OK 0\r\nHTTP/1.1 400 Bad Request\r\n\r\n", &endless, &huge];
    for said in cases {
        for stays in [false, true] {
            let dir = TempDir::new().expect("directory");
            let socket = dir.path().join("bus");
            let listener = UnixListener::bind(&socket).expect("socket");
            let said = said.to_vec();
            let speaks = thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("a caller");
                let _ = stream.write_all(&said);
                if stays {
                    let _ = io::copy(&mut stream, &mut io::sink());
                }
            });
            let begun = Instant::now();
            let why = Systemd::at(&socket).talk().expect_err("no bus");
            assert!(why.contains("does not answer") && begun.elapsed() < Duration::from_secs(4), "{why}");
            speaks.join().expect("spoken");
        }
    }
}

/// The bus of the distribution has no systemd behind it, but reads every call and says so.
fn real() {
    let dir = TempDir::new().expect("directory");
    let socket = dir.path().join("bus");
    let config = format!(
        "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
         \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\"><busconfig><listen>unix:path={}</listen>\
         <auth>EXTERNAL</auth><policy context=\"default\"><allow user=\"*\"/><allow send_destination=\"*\" eavesdrop=\"true\"/><allow eavesdrop=\"true\"/>\
         <allow own=\"*\"/></policy></busconfig>",
        socket.display()
    );
    std::fs::write(dir.path().join("config"), config).expect("written");
    let option = format!("--config-file={}", dir.path().join("config").display());
    let mut daemon =
        Command::new("/usr/bin/dbus-daemon").args(["--nofork", &option]).stderr(Stdio::null()).spawn().expect("starts");
    // The socket is there a moment before somebody listens.
    wait_for("the bus", || UnixStream::connect(&socket).is_ok());
    let said = Systemd::at(&socket).talk().and_then(|mut talk| talk.active("web.service"));
    let params = serde_json::from_str(r#"{ "unit": "web" }"#).expect("parameters");
    let looked = run(systemd_unit::at(&params, &socket).expect("a unit").look());
    daemon.kill().expect("killed");
    daemon.wait().expect("reaped");
    let why = said.expect_err("there is no systemd behind it");
    assert!(why.contains("org.freedesktop.DBus.Error.ServiceUnknown"), "{why}");
    let why = looked.expect_err("there is no systemd behind it for a probe either");
    assert!(why.starts_with("LoadUnit: The name org.freedesktop.systemd1 was not provided"), "{why}");
}
