//! Datagrams that are counted: one side answers each, the other numbers them and says how many were answered.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use serde_json::json;

use super::{boot_ns, say};

/// How long the last answers may be on their way.
const LATE: Duration = Duration::from_millis(500);

/// The part `answer`: sends every datagram back.
pub(super) fn answer(port: u16) {
    let socket = UdpSocket::bind(("0.0.0.0", port)).expect("socket");
    say(&json!({ "ready": true }));
    let mut buffer = [0; 64];
    loop {
        let (n, from) = socket.recv_from(&mut buffer).expect("received");
        let _ = socket.send_to(&buffer[..n], from);
    }
}

/// The part `count`: sends so many numbered datagrams, one each `pause_us`, and counts the different answers.
pub(super) fn count(address: &str, how_many: u64, pause_us: u64) {
    let address: SocketAddr = address.parse().expect("address");
    let socket = UdpSocket::bind("0.0.0.0:0").expect("socket");
    socket.connect(address).expect("connected");
    let receiver = socket.try_clone().expect("clone");
    receiver.set_read_timeout(Some(LATE)).expect("timeout");
    let begun = boot_ns();
    let answered = thread::scope(|scope| {
        let listening = scope.spawn(|| {
            let (mut seen, mut buffer) = (BTreeSet::new(), [0; 64]);
            let mut idle = 0;
            // Silence for longer than the pauses and the way back: nothing comes any more.
            while idle < 2 {
                match receiver.recv(&mut buffer) {
                    Ok(n) => {
                        seen.insert(buffer[..n].to_vec());
                        idle = 0;
                    }
                    Err(_) => idle += 1,
                }
            }
            seen.len()
        });
        for number in 0..how_many {
            socket.send(&number.to_be_bytes()).expect("sent");
            thread::sleep(Duration::from_micros(pause_us));
        }
        listening.join().expect("counted")
    });
    say(&json!({ "sent": how_many, "answered": answered, "begun": begun, "ended": boot_ns() }));
}
