//! Who answers: datagrams to many hosts, round and round, and a line whenever one falls silent or answers again; and one TCP
//! session that must not end, with the longest pause in it.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::json;

use super::{boot_ns, say};

/// Without an answer for so long a host counts as silent.
const SILENT_NS: i64 = 200_000_000;
/// Between two bytes of a session.
const BEAT: Duration = Duration::from_millis(20);

/// Becomes true when standard input ends.
fn leaving() -> Arc<AtomicBool> {
    let leave = Arc::new(AtomicBool::new(false));
    let ended = leave.clone();
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        ended.store(true, Ordering::Relaxed);
    });
    leave
}

/// The part `roll-call`: asks each address again and again, all of them once in `period_ms`.
pub(super) fn roll_call(period_ms: u64, addresses: &[&str]) {
    let addresses: Vec<SocketAddr> = addresses.iter().map(|address| address.parse().expect("address")).collect();
    let socket = UdpSocket::bind("0.0.0.0:0").expect("socket");
    let heard: Arc<Vec<AtomicI64>> = Arc::new(addresses.iter().map(|_| AtomicI64::new(0)).collect());
    // When the first answer after a silence came; the watching loop takes it away.
    let back: Arc<Vec<AtomicI64>> = Arc::new(addresses.iter().map(|_| AtomicI64::new(0)).collect());
    let (receiver, answers, returns) = (socket.try_clone().expect("clone"), heard.clone(), back.clone());
    thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok(n) = receiver.recv(&mut buffer) {
            let now = boot_ns();
            let number = buffer.get(..8).filter(|_| n == 8).map(|b| u64::from_be_bytes(b.try_into().expect("eight")));
            let Some(number) = number.and_then(|n| usize::try_from(n).ok()).filter(|n| *n < answers.len()) else {
                continue;
            };
            let _ = returns[number].compare_exchange(0, now, Ordering::SeqCst, Ordering::SeqCst);
            answers[number].store(now, Ordering::SeqCst);
        }
    });
    let leave = leaving();
    let pause = Duration::from_millis(period_ms) / u32::try_from(addresses.len().max(1)).expect("few");
    let mut silent = vec![false; addresses.len()];
    let mut ready = false;
    while !leave.load(Ordering::Relaxed) {
        for (number, address) in addresses.iter().enumerate() {
            // A full queue is one question less.
            let _ = socket.send_to(&(number as u64).to_be_bytes(), address);
            let last = heard[number].load(Ordering::SeqCst);
            if !silent[number] && last != 0 && boot_ns() - last > SILENT_NS {
                silent[number] = true;
                back[number].store(0, Ordering::SeqCst);
                say(&json!({ "silent": number, "last": last }));
            } else if silent[number] && back[number].load(Ordering::SeqCst) != 0 {
                silent[number] = false;
                say(&json!({ "back": number, "at": back[number].load(Ordering::SeqCst) }));
            }
            thread::sleep(pause);
        }
        if !ready && heard.iter().all(|last| last.load(Ordering::SeqCst) != 0) {
            ready = true;
            say(&json!({ "ready": true }));
        }
    }
}

/// The part `echo`: sends back every byte of every TCP connection.
pub(super) fn echo(address: &str) {
    let listener = TcpListener::bind(address).expect("listener");
    say(&json!({ "ready": true }));
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        thread::spawn(move || {
            let _ = stream.set_nodelay(true);
            let mut buffer = [0; 64];
            while let Ok(n) = stream.read(&mut buffer) {
                if n == 0 || stream.write_all(&buffer[..n]).is_err() {
                    break;
                }
            }
        });
    }
}

/// The part `session`: one TCP connection on which a byte goes there and back all the time, until standard input ends.
pub(super) fn session(address: &str) {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_nodelay(true).expect("set");
    let leave = leaving();
    say(&json!({ "ready": true }));
    let (mut beats, mut longest_ns, mut byte) = (0_u64, 0, [0_u8]);
    while !leave.load(Ordering::Relaxed) {
        let begun = boot_ns();
        let there_and_back = stream.write_all(&byte).and_then(|()| stream.read_exact(&mut byte));
        if let Err(error) = there_and_back {
            say(&json!({ "beats": beats, "broke": error.to_string() }));
            return;
        }
        beats += 1;
        longest_ns = longest_ns.max(boot_ns() - begun);
        thread::sleep(BEAT);
    }
    say(&json!({ "beats": beats, "longestNs": longest_ns }));
}
