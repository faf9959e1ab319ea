//! The test's own eye: looks as fast as answers come, on the clock all hosts share, and tells each change of what it
//! sees. It judges nothing and knows nothing of the product's probes.

use std::{
    io::{self, Read, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::json;

use super::{boot_ns, say};

/// Between two looks, so that a refused connection does not take a whole core.
const BREATH: Duration = Duration::from_millis(1);

/// Standard input has ended.
static LEAVE: AtomicBool = AtomicBool::new(false);

/// A look: when it began and ended.
type Look = (i64, i64);

/// The part `ask`: `http` asks for a page, `ping` asks a redis and `psql` has psql ask a PostgreSQL whether it is a primary,
/// each look on a fresh connection and bad when it takes longer than the timeout. Ends when its standard input does.
pub(super) fn ask(kind: &str, address: &str, timeout_ms: u64) {
    let address: SocketAddr = address.parse().expect("address");
    let timeout = Duration::from_millis(timeout_ms);
    let (question, answer): (&[u8], &[u8]) = match kind {
        "http" => (b"GET / HTTP/1.0\r\n\r\n", b" 200 OK\r\n"),
        "ping" => (b"PING\r\n", b"+PONG\r\n"),
        "psql" => (b"", b""),
        other => panic!("no kind {other}"),
    };
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        LEAVE.store(true, Ordering::Relaxed);
    });
    let (mut last, mut looks): (Option<(bool, Look)>, u64) = (None, 0);
    while !LEAVE.load(Ordering::Relaxed) {
        let begun = boot_ns();
        let seen = match kind {
            "psql" => is_primary(address),
            _ => look(address, timeout, question, answer).is_ok_and(|good| good),
        };
        let ended = boot_ns();
        // What came too late is no answer: the timeout of a socket is that of each read.
        let (ok, now) = (
            seen && ended - begun <= i64::from(timeout.subsec_nanos()) + timeout.as_secs() as i64 * 1_000_000_000,
            (begun, ended),
        );
        match last {
            None => say(&json!({ "ok": ok, "now": now })),
            Some((was, before)) if was != ok => say(&json!({ "ok": ok, "before": before, "now": now })),
            Some(_) => {}
        }
        (last, looks) = (Some((ok, now)), looks + 1);
        thread::sleep(BREATH);
    }
    say(&json!({ "looks": looks, "last": last.map(|(_, look)| look) }));
}

fn is_primary(address: SocketAddr) -> bool {
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let words = ["-h", &host, "-p", &port, "-U", "postgres", "-XqAtc", "select pg_is_in_recovery()"];
    let said = std::process::Command::new("/usr/bin/psql").args(words).env("PGCONNECT_TIMEOUT", "2").output();
    said.is_ok_and(|said| said.status.success() && said.stdout == b"f\n")
}

fn look(address: SocketAddr, timeout: Duration, question: &[u8], answer: &[u8]) -> io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(question)?;
    let (mut got, mut piece) = (Vec::new(), [0; 512]);
    loop {
        match stream.read(&mut piece)? {
            0 => return Ok(false),
            n => got.extend_from_slice(&piece[..n]),
        }
        if got.windows(answer.len()).any(|window| window == answer) {
            return Ok(true);
        }
    }
}
