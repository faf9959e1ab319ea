//! What a trial measures with its own clock: round trips of UDP, echoes of TCP, throughput. Knows nothing of faults.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use crate::stage::Place;

/// Echo servers for UDP and TCP on this port, for both IP versions, in a place.
pub(crate) fn echo(place: &Place, port: u16) {
    place.run(move || {
        // One socket for both versions would answer from an address of its choice: with a mapped one replies keep the
        // address that was asked only for TCP. So one socket per address.
        for address in addresses() {
            let at = SocketAddr::new(address, port);
            let socket = UdpSocket::bind(at).expect("a port");
            roomy(&socket);
            thread::spawn(move || {
                let mut buffer = [0; 2048];
                while let Ok((n, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&buffer[..n], from);
                }
            });
            let listener = TcpListener::bind(at).expect("a port");
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    thread::spawn(move || answer(stream));
                }
            });
        }
    });
}

fn answer(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut buffer = vec![0; 65_536];
    while let Ok(n) = stream.read(&mut buffer) {
        if n == 0 || stream.write_all(&buffer[..n]).is_err() {
            return;
        }
    }
}

/// All addresses of this thread's namespace but loopback and link-local ones.
fn addresses() -> Vec<std::net::IpAddr> {
    use crate::stage::{CONTAINER, HOST, OTHER, PEER};
    let known = [HOST, PEER, OTHER, CONTAINER].concat();
    let known = known.iter().map(|a| a.parse().expect("an address"));
    known.filter(|a| UdpSocket::bind((*a, 0)).is_ok()).collect()
}

/// What became of a train of datagrams that are sent back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Train {
    /// Round trips of those that came back, in order of sending.
    pub(crate) trips: Vec<Duration>,
    /// How many were sent.
    pub(crate) sent: usize,
    /// Sends that failed.
    pub(crate) errors: usize,
    /// Came back after one that was sent later.
    pub(crate) overtaken: usize,
}

impl Train {
    /// A quantile of the round trips.
    pub(crate) fn quantile(&self, q: f64) -> Duration {
        let mut sorted = self.trips.clone();
        sorted.sort();
        let rank = ((q * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len().max(1));
        sorted.get(rank - 1).copied().unwrap_or_default()
    }

    pub(crate) fn least(&self) -> Duration {
        self.quantile(0.0)
    }

    /// The share that did not come back.
    pub(crate) fn lost(&self) -> f64 {
        1.0 - self.trips.len() as f64 / self.sent as f64
    }
}

/// Sends `n` datagrams at a fixed pace and collects what comes back, until nothing has been sent or come for `patience`.
pub(crate) fn train(to: SocketAddr, n: usize, every: Duration, patience: Duration) -> Train {
    let socket = client(to);
    let begun = Instant::now();
    let back = socket.try_clone().expect("a socket");
    back.set_read_timeout(Some(Duration::from_millis(20))).expect("a limit");
    let mut until = begun + every * n as u32 + patience;
    let receiver = thread::spawn(move || {
        let (mut came, mut buffer) = (vec![None; n], [0; 64]);
        let (mut left, mut overtaken, mut highest) = (n, 0, 0);
        while left > 0 && Instant::now() < until {
            let Ok(length) = back.recv(&mut buffer) else { continue };
            let at = begun.elapsed();
            until = until.max(begun + at + patience);
            let Some(number) = buffer[..length].first_chunk::<4>().map(|b| u32::from_be_bytes(*b) as usize) else {
                continue;
            };
            if let Some(slot @ None) = came.get_mut(number) {
                *slot = Some(at);
                left -= 1;
                overtaken += usize::from(number < highest);
                highest = highest.max(number);
            }
        }
        (came, overtaken)
    });
    let (mut departed, mut errors) = (Vec::with_capacity(n), 0);
    for number in 0..n {
        if let Some(early) = (every * number as u32).checked_sub(begun.elapsed()) {
            thread::sleep(early);
        }
        departed.push(begun.elapsed());
        errors += usize::from(socket.send(&(number as u32).to_be_bytes()).is_err());
    }
    let (came, overtaken) = receiver.join().expect("it does not panic");
    let trips = departed.iter().zip(came).filter_map(|(sent, came)| came?.checked_sub(*sent)).collect();
    Train { trips, sent: n, errors, overtaken }
}

/// A socket that speaks to this address.
pub(crate) fn client(to: SocketAddr) -> UdpSocket {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).expect("a port");
    socket.connect(to).expect("an address");
    roomy(&socket);
    socket
}

/// Room for all that comes while nobody reads: a busy machine must not lose packets by itself. False where it is not
/// granted; then there is as much as anybody may have.
pub(crate) fn roomy(socket: &UdpSocket) -> bool {
    use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
    let forced = set_socket_recv_buffer_size_force(socket, 16 << 20).is_ok();
    if !forced {
        let _ = set_socket_recv_buffer_size(socket, 16 << 20);
    }
    forced
}

/// One datagram there and back; `None` if it did not come back in time.
pub(crate) fn once(to: SocketAddr, patience: Duration) -> Option<Duration> {
    train(to, 1, Duration::ZERO, patience).trips.first().copied()
}

/// Sends bytes over TCP and reads them back; how long that took.
pub(crate) fn tcp_echo(to: SocketAddr, bytes: usize, patience: Duration) -> std::io::Result<Duration> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect_timeout(&to, patience)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let sent: Vec<u8> = (0..bytes).map(|i| (i * 31 % 251) as u8).collect();
    let mut writer = stream.try_clone()?;
    let copy = sent.clone();
    let writing = thread::spawn(move || writer.write_all(&copy));
    let mut back = vec![0; bytes];
    stream.read_exact(&mut back)?;
    writing.join().expect("it does not panic")?;
    assert!(back == sent, "TCP delivered other bytes than were sent");
    Ok(begun.elapsed())
}

/// Bytes per second of one TCP connection from here into a place, measured where they arrive, after a second of start.
pub(crate) fn tcp_rate(place: &Place, to: SocketAddr, measured: Duration) -> f64 {
    let listener = place.run(move || TcpListener::bind(to).expect("a port"));
    let reader = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut buffer = vec![0; 1 << 20];
        let warm = Instant::now() + Duration::from_secs(1);
        while Instant::now() < warm && stream.read(&mut buffer).is_ok_and(|n| n > 0) {}
        let (begun, mut bytes) = (Instant::now(), 0);
        while begun.elapsed() < measured {
            match stream.read(&mut buffer) {
                Ok(n) if n > 0 => bytes += n,
                _ => break,
            }
        }
        bytes as f64 / begun.elapsed().as_secs_f64()
    });
    let mut stream = TcpStream::connect(to).expect("a connection");
    let chunk = vec![7; 1 << 18];
    while !reader.is_finished() && stream.write_all(&chunk).is_ok() {}
    reader.join().expect("it does not panic")
}
