//! Programs in a lab: streams, codes, signals, environment, users, and many at a time.

use std::{
    io::{Read as _, Write as _},
    thread,
    time::Duration,
};

use fracas_sim::{
    lab::{End, Program, Stream},
    need::Need,
};
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::{
    stage::{LIMIT, Place, lab, part, wait_for},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("streams_lead_where_they_should", &[Need::Lab], streams_lead_where_they_should),
        trial("ends_are_told", &[Need::Lab], ends_are_told),
        trial("signals_arrive", &[Need::Lab], signals_arrive),
        trial("environment_directory_and_user", &[Need::Lab], environment_directory_and_user),
        trial("many_at_a_time", &[Need::Lab], many_at_a_time),
        trial("waiting_without_blocking", &[Need::Lab], waiting_without_blocking),
        trial("orphans_are_reaped", &[Need::Lab], orphans_are_reaped),
        trial("no_descriptor_is_inherited", &[Need::Lab], no_descriptor_is_inherited),
        trial("too_much_is_refused", &[Need::Lab], too_much_is_refused),
    ]
}

fn streams_lead_where_they_should() {
    let (lab, hosts) = lab(&["a"]);
    let program = part(&["copy"]).stdin(Stream::Pipe).stdout(Stream::Pipe);
    let mut copy = hosts[0].spawn(program).expect("started");
    let (mut to, mut from) = (copy.stdin.take().expect("pipe"), copy.stdout.take().expect("pipe"));
    let mut line = [0; 6];
    to.write_all(b"there\n").expect("written");
    from.read_exact(&mut line).expect("read");
    assert_eq!(&line, b"there\n");
    // More than a pipe holds.
    let much = vec![b'x'; 1 << 20];
    let writer = thread::spawn(move || to.write_all(&much));
    let mut back = Vec::new();
    from.read_to_end(&mut back).expect("read");
    writer.join().expect("thread").expect("written");
    assert_eq!((back.len(), copy.wait()), (1 << 20, Ok(End::Code(0))));

    let output = lab.run(part(&["say", "out", "err"]));
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (b"out\n".as_slice(), b"err".as_slice()));

    let mut file = tempfile::tempfile().expect("file");
    let program = part(&["say", "into a file", ""]).stdout(Stream::File(file.try_clone().expect("clone").into()));
    assert!(hosts[0].spawn(program).expect("started").wait().expect("ended").success());
    let mut text = String::new();
    std::io::Seek::rewind(&mut file).and_then(|()| file.read_to_string(&mut text)).expect("read");
    assert_eq!(text, "into a file\n");
    // By default there is nothing to read.
    assert_eq!(hosts[0].read(part(&["copy"])), "");
}

fn ends_are_told() {
    let (lab, hosts) = lab(&["a"]);
    for code in [0, 1, 42, 255] {
        let words = ["exit", &code.to_string()];
        assert_eq!(hosts[0].run(part(&words)).end, End::Code(code));
        assert_eq!(lab.run(part(&words)).end, End::Code(code));
    }
    let error = hosts[0].spawn(Program::new("/no/such/program")).expect_err("absent");
    assert!(error.to_string().starts_with("/no/such/program cannot be started: No such file"), "{error}");
    let error = hosts[0].spawn(part(&["rest"]).directory("/no/such")).expect_err("absent");
    assert!(error.to_string().contains("No such file"), "{error}");
}

fn signals_arrive() {
    let (_lab, hosts) = lab(&["a"]);
    for signal in [Signal::KILL, Signal::TERM, Signal::INT, Signal::USR1] {
        let resting = hosts[0].ready(&["rest"]);
        assert_eq!(resting.end(), None);
        assert_eq!(resting.wait_for(Duration::from_millis(1)), Ok(None), "it rests");
        resting.signal(signal).expect("sent");
        assert_eq!(resting.wait_for(LIMIT), Ok(Some(End::Signal(signal.as_raw()))));
        assert_eq!(resting.end(), Some(End::Signal(signal.as_raw())));
        assert_eq!(resting.signal(signal).expect_err("too late").to_string(), "the process has ended");
    }
    // Stopping is not ending.
    let resting = hosts[0].ready(&["rest"]);
    resting.signal(Signal::STOP).expect("sent");
    let state = || hosts[0].read(Program::new("cat").arg(format!("/proc/{}/stat", resting.pid())));
    wait_for("it stops", || state().contains(") T "));
    assert_eq!(resting.end(), None);
    resting.signal(Signal::CONT).expect("sent");
    wait_for("it goes on", || state().contains(") S "));
    resting.signal(Signal::KILL).expect("sent");
    assert_eq!(resting.wait(), Ok(End::Signal(9)));
}

fn environment_directory_and_user() {
    let (lab, hosts) = lab(&["a"]);
    let environment = hosts[0].read(Program::new("env").env_clear().env("PATH", "/usr/bin:/bin").env("A", "b c"));
    assert_eq!(environment, "A=b c\nPATH=/usr/bin:/bin\n");
    assert!(hosts[0].read(Program::new("env").env("A", "b")).contains("PATH="), "otherwise as the creator's");
    assert_eq!(hosts[0].read(Program::new("pwd")), "/\n");
    assert_eq!(hosts[0].read(Program::new("pwd").directory("/tmp")), "/tmp\n");
    let id = |place: &dyn Fn(Program) -> String| place(Program::new("id").arg("-u").user(1234, 1234));
    assert_eq!(id(&|program| hosts[0].read(program)), "1234\n");
    assert_eq!(id(&|program| lab.read(program)), "1234\n");
    assert_eq!(hosts[0].read(Program::new("id").arg("-u")), "0\n");
    // Without privileges: not even of its own network.
    let script = "grep -q 'CapEff:.0000000000000000' /proc/self/status";
    hosts[0].read(Program::new("sh").args(["-c", script]).user(1234, 1234));
}

fn many_at_a_time() {
    let (lab, hosts) = lab(&["a", "b"]);
    thread::scope(|scope| {
        for n in 0..16_u8 {
            let place: &(dyn Place + Sync) = if n % 4 == 0 { &lab } else { &hosts[usize::from(n % 2)] };
            scope.spawn(move || {
                for round in 0..5 {
                    let code = n * 10 + round;
                    let output = place.run(part(&["exit", &code.to_string()]));
                    assert_eq!(output.end, End::Code(code.into()));
                }
            });
        }
    });
}

fn waiting_without_blocking() {
    let (lab, hosts) = lab(&["a", "b"]);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    runtime.block_on(async {
        let (first, second) = (hosts[0].ready(&["rest"]), hosts[1].ready(&["rest"]));
        // One thread waits for both, so neither may block it.
        let both = async { tokio::join!(first.ended(), second.ended()) };
        let kill = async {
            tokio::task::yield_now().await;
            second.signal(Signal::TERM).expect("sent");
            first.signal(Signal::KILL).expect("sent");
        };
        let (ends, ()) = tokio::join!(both, kill);
        assert_eq!(ends, (Ok(End::Signal(9)), Ok(End::Signal(15))));
        assert_eq!(first.ended().await, Ok(End::Signal(9)), "told again");

        let third = hosts[0].ready(&["rest"]);
        let (end, ()) = tokio::join!(third.ended(), async { drop(lab) });
        assert!(end.is_err(), "the lab ended first");
    });
}

fn orphans_are_reaped() {
    let (lab, hosts) = lab(&["a"]);
    for place in [&lab as &dyn Place, &hosts[0]] {
        for _ in 0..10 {
            assert!(place.run(part(&["orphan"])).end.success());
        }
        let zombies = || place.read(Program::new("sh").args(["-c", "grep -l '^State:.Z' /proc/[0-9]*/status || true"]));
        wait_for("no zombie is left", || zombies().is_empty());
    }
}

fn no_descriptor_is_inherited() {
    // Without close-on-exec, as a careless creator might have it.
    let careless = rustix::pipe::pipe().expect("pipe");
    let (lab, hosts) = lab(&["a"]);
    let descriptors = |place: &dyn Place| place.read(Program::new("ls").arg("/proc/self/fd"));
    for place in [&lab as &dyn Place, &hosts[0]] {
        // The fourth is the directory it reads.
        assert_eq!(descriptors(place).split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    }
    drop(careless);
}

fn too_much_is_refused() {
    let (_lab, hosts) = lab(&["a"]);
    let error = hosts[0].spawn(part(&["exit", "0"]).arg("x".repeat(200_000))).expect_err("too long");
    assert!(error.to_string().contains("exceed 128 KiB"), "{error}");
    assert!(hosts[0].run(part(&["exit", "0"])).end.success(), "the host still works");
}
