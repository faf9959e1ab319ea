//! The parts this program plays inside labs and beside them, and what the trials share.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use fracas_sim::lab::{Bare, Host, Lab, LabError, Options, Output, Program, Running, Stream};

use crate::{bare, ends, traces, user};

/// First argument of every part.
const MARK: &str = "lab-trial";
/// Where echoes are served: below 1024, which needs a privilege in the host's own network.
pub(crate) const PORT: u16 = 7;
/// How long anything may take that takes milliseconds.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// Plays a part and returns its exit code; `None` in an ordinary start.
pub(crate) fn play() -> Option<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [MARK, part @ ..] = words.as_slice() else { return None };
    match part {
        ["echo"] => echo(),
        ["call", kind, address] => return Some(call(kind, address.parse().expect("address"))),
        ["rest"] => rest(),
        ["copy"] => {
            std::io::copy(&mut std::io::stdin().lock(), &mut std::io::stdout().lock()).expect("copied");
        }
        ["say", out, err] => {
            print(out);
            std::io::stderr().lock().write_all(err.as_bytes()).expect("said");
        }
        ["exit", code] => return Some(ExitCode::from(code.parse::<u8>().expect("code"))),
        ["orphan"] => drop(std::process::Command::new("/proc/self/exe").args([MARK, "exit", "0"]).spawn()),
        ["creator", hosts] => ends::creator(hosts.parse().expect("number")),
        ["many", labs] => ends::many(labs.parse().expect("number")),
        ["bereaved"] => ends::bereaved(),
        ["heir"] => ends::heir(),
        ["times", labs] => ends::times(labs.parse().expect("number")),
        ["bare", how] => bare::creator(*how == "deserted"),
        ["desert"] => bare::desert(),
        ["plant"] => traces::plant(),
        ["refused"] => user::refused(),
        other => panic!("no part {other:?}"),
    }
    Some(ExitCode::SUCCESS)
}

/// This program in a part.
pub(crate) fn part(words: &[&str]) -> Program {
    Program::this().arg(MARK).args(words.iter().copied())
}

/// The same outside of any lab.
pub(crate) fn part_here(words: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new("/proc/self/exe");
    command.arg(MARK).args(words);
    command
}

pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        // The creator was killed, as it was to be.
        std::process::exit(1);
    }
}

/// Answers every datagram and every connection with what it brings, on both address families, after saying `ready`.
fn echo() {
    let any = (Ipv6Addr::UNSPECIFIED, PORT);
    let (tcp, udp) = (TcpListener::bind(any).expect("tcp"), UdpSocket::bind(any).expect("udp"));
    thread::spawn(move || {
        let mut buffer = [0; 100];
        loop {
            let (n, from) = udp.recv_from(&mut buffer).expect("received");
            // A cut link may refuse it.
            let _ = udp.send_to(&buffer[..n], from);
        }
    });
    print("ready");
    for stream in tcp.incoming() {
        let mut stream = stream.expect("stream");
        thread::spawn(move || {
            let mut read = stream.try_clone().expect("clone");
            let _ = std::io::copy(&mut read, &mut stream);
        });
    }
}

/// Calls an echo once: 0 when it answers within a second, 3 when it does not.
fn call(kind: &str, address: IpAddr) -> ExitCode {
    let (address, limit) = (SocketAddr::new(address, PORT), Duration::from_secs(1));
    let mut answer = [0; 5];
    let called = match kind {
        "udp" => {
            let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).expect("socket");
            socket.set_read_timeout(Some(limit)).expect("timeout");
            socket.send_to(b"hello", address).and_then(|_| socket.recv(&mut answer)).map(|_| ())
        }
        "tcp" => TcpStream::connect_timeout(&address, limit).and_then(|mut stream| {
            stream.set_read_timeout(Some(limit))?;
            stream.write_all(b"hello")?;
            stream.read_exact(&mut answer)
        }),
        other => panic!("no kind {other}"),
    };
    match called {
        Ok(()) if &answer == b"hello" => ExitCode::SUCCESS,
        _ => ExitCode::from(3),
    }
}

/// Says `ready` and rests until killed.
fn rest() {
    print("ready");
    loop {
        thread::park();
    }
}

/// A lab with these hosts.
pub(crate) fn lab(hosts: &[&str]) -> (Lab, Vec<Host>) {
    let lab = Lab::start(Options::default()).expect("lab");
    let hosts = lab.add_hosts(hosts).expect("hosts");
    (lab, hosts)
}

/// Something programs can be started in.
pub(crate) trait Place {
    fn start(&self, program: Program) -> Result<Running, LabError>;

    /// Runs a program to its end.
    fn run(&self, program: Program) -> Output {
        let running = self.start(program.stdout(Stream::Pipe).stderr(Stream::Pipe)).expect("started");
        running.output().expect("output")
    }

    /// Runs a program that must succeed; what it wrote.
    fn read(&self, program: Program) -> String {
        let output = self.run(program);
        assert!(output.end.success(), "{:?}: {}", output.end, String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Starts a part that says `ready`, and waits for that.
    fn ready(&self, words: &[&str]) -> Running {
        let mut running = self.start(part(words).stdout(Stream::Pipe)).expect("started");
        let mut line = String::new();
        let pipe = running.stdout.as_mut().expect("pipe");
        BufReader::new(pipe).read_line(&mut line).expect("line");
        assert_eq!(line, "ready\n");
        running
    }

    /// Whether an echo at this address answers.
    fn reaches(&self, kind: &str, address: IpAddr) -> bool {
        self.run(part(&["call", kind, &address.to_string()])).end.success()
    }
}

impl Place for Host {
    fn start(&self, program: Program) -> Result<Running, LabError> {
        self.spawn(program)
    }
}

impl Place for Bare {
    fn start(&self, program: Program) -> Result<Running, LabError> {
        self.spawn(program)
    }
}

impl Place for Lab {
    fn start(&self, program: Program) -> Result<Running, LabError> {
        self.spawn(program)
    }
}

/// Waits until something is so.
pub(crate) fn wait_for(what: &str, mut so: impl FnMut() -> bool) {
    let until = Instant::now() + LIMIT;
    while !so() {
        assert!(Instant::now() < until, "waited {} s for: {what}", LIMIT.as_secs());
        thread::sleep(Duration::from_millis(2));
    }
}
