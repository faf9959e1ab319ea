//! Two parts for stop conditions: a web server that answers as it is told from moment to moment, and a heart whose beats
//! show from outside when its process stood still.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use super::{boot_ns, say};

/// Between two beats of the heart.
const BEAT: Duration = Duration::from_millis(1);
/// A pause that is told. Some are the scheduler's: whoever asks knows an instant that lies in the one that is meant.
const STILL_NS: i64 = 5_000_000;

/// The present answer; `true` while it was not given to anybody yet.
static ANSWER: Mutex<(Value, bool)> = Mutex::new((Value::Null, true));

/// The part `oracle`: each line of standard input is `{"code", "body"}`, the answer to all that ask from then on. Tells
/// the instant at which each was given for the first time.
pub(super) fn oracle(address: &str) {
    let listener = TcpListener::bind(address).expect("port");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A thread for each: Prometheus keeps its connection for the next time.
            thread::spawn(move || while answer(&stream).is_some() {});
        }
    });
    say(&json!({ "ready": true }));
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let told = serde_json::from_str(&line).expect("an answer");
        *ANSWER.lock().unwrap_or_else(PoisonError::into_inner) = (told, true);
    }
}

/// `None` when the other side goes away.
fn answer(mut stream: &TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
    }
    let (answer, fresh) = {
        let mut held = ANSWER.lock().unwrap_or_else(PoisonError::into_inner);
        (held.0.clone(), std::mem::replace(&mut held.1, false))
    };
    let at = boot_ns();
    let (code, body) = (answer["code"].as_u64().unwrap_or(503), answer["body"].as_str().unwrap_or_default());
    let kind = "content-type: text/plain; version=0.0.4";
    write!(stream, "HTTP/1.1 {code} So\r\n{kind}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).ok()?;
    if fresh {
        say(&json!({ "given": answer, "bootNs": at }));
    }
    Some(())
}

/// The part `heart`: a process of this name that beats every millisecond, and tells each time it had to stand still.
pub(super) fn heart(name: &str) {
    rustix::thread::set_name(&std::ffi::CString::new(name).expect("name")).expect("named");
    say(&json!({ "ready": true }));
    let mut last = boot_ns();
    loop {
        thread::sleep(BEAT);
        let now = boot_ns();
        if now - last > STILL_NS {
            say(&json!({ "still": { "from": last, "to": now } }));
        }
        last = now;
    }
}
