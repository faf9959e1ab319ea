//! Delay: how exact it is, how it spreads, what TCP makes of it.

use std::time::Duration;

use fracas_model::plan::{Direction, Filter, Protocol};

use crate::{
    measure::{Train, echo, tcp_echo, tcp_rate, train},
    plane::{BOTH, Kind, Plane, delay, jittered},
    run::{Case, emulated, figure},
    stage::{PEER, Stage, at},
};

const PORT: u16 = 7001;
/// No fault is on this one.
const SPARED: u16 = 7002;

pub(crate) const CASES: &[Case] = &[
    Case::new("delay_1ms_egress", BOTH, |kind| exact(kind, Direction::Egress, 1)),
    Case::new("delay_1ms_ingress", BOTH, |kind| exact(kind, Direction::Ingress, 1)),
    Case::new("delay_20ms_egress", BOTH, |kind| exact(kind, Direction::Egress, 20)),
    Case::new("delay_20ms_ingress", BOTH, |kind| exact(kind, Direction::Ingress, 20)),
    Case::new("delay_200ms_egress", BOTH, |kind| exact(kind, Direction::Egress, 200)),
    Case::new("delay_200ms_ingress", BOTH, |kind| exact(kind, Direction::Ingress, 200)),
    Case::new("jitter_is_drawn_evenly_egress", BOTH, |kind| even(kind, Direction::Egress)),
    Case::new("jitter_is_drawn_evenly_ingress", BOTH, |kind| even(kind, Direction::Ingress)),
    Case::new("jitter_above_the_delay_ends_at_none", BOTH, at_none),
    Case::new("tcp_is_delayed_in_both_versions", BOTH, tcp_in_both_versions),
    Case::new("a_connection_that_is_there_already_is_delayed", BOTH, there_already),
    Case::native("bulk_tcp_goes_on_under_egress_delay", &[Kind::Owner], bulk),
];

fn udp() -> Filter {
    Filter { ports: vec![(PORT, PORT)], protocol: Some(Protocol::Udp), ..Filter::default() }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// How much longer than asked the median may be, milliseconds, beyond what the way takes by itself. An emulated machine
/// wakes sleepers late.
fn late() -> f64 {
    if emulated() { 20.0 } else { 1.5 }
}

/// A train under a fault and, at the same time, one on a port that the fault spares: what that one suffers, the machine
/// does to everybody.
fn beside(n: usize, pace: Duration, patience: Duration) -> (Train, Train) {
    let spared = std::thread::spawn(move || train(at(PEER[0], SPARED), n, pace, patience));
    let under = train(at(PEER[0], PORT), n, pace, patience);
    (under, spared.join().expect("it does not panic"))
}

/// UDP there and back under a delay one way: never shorter than asked, and not much longer.
fn exact(kind: Kind, direction: Direction, asked: i64) {
    const N: usize = 300;
    let stage = Stage::new();
    echo(&stage.peer, PORT);
    echo(&stage.peer, SPARED);
    let mut plane = Plane::open(kind, &stage);
    let (pace, patience) = (Duration::from_millis(2), Duration::from_millis(2000 + asked as u64));
    // Who comes first wakes everything; that is not counted.
    train(at(PEER[0], PORT), 20, pace, patience);
    let before = train(at(PEER[0], PORT), N, pace, patience);
    assert_eq!((before.trips.len(), before.errors), (N, 0));
    plane.add("slow", direction, &udp(), &delay(asked));
    let (under, spared) = beside(N, pace, patience);
    assert_eq!((under.trips.len(), under.errors), (N, 0));
    let figures = plane.figures("slow");
    plane.remove("slow");
    let after = train(at(PEER[0], PORT), 50, pace, patience);
    plane.close();

    let error = |q| ms(under.quantile(q)) - ms(before.quantile(0.5)) - asked as f64;
    figure(&format!(
        "added delay {:5} {:7} {asked:3} ms: error p50 {:+.3} ms, p99 {:+.3} ms, n = {N} (by itself the way takes p50 \
         {:.3} ms, at the same time p99 {:.3} ms)",
        kind.word(),
        format!("{direction:?}").to_lowercase(),
        error(0.5),
        error(0.99),
        ms(before.quantile(0.5)),
        ms(spared.quantile(0.99)),
    ));
    assert!(under.least() >= Duration::from_millis(asked as u64), "earlier than asked: {:?}", under.least());
    // One way is one more sleeper to be woken than the other: twice the spared one's trouble is the machine's. Median and
    // tail are printed only: one stall of the machine makes them, for all packets were sent within a second.
    assert!(error(0.25) <= late() + 2.0 * ms(spared.quantile(0.25)), "{}", error(0.25));
    assert_eq!((figures.matched, figures.unasked, figures.passed), (N as u64, 0, 0), "{figures:?}");
    assert_eq!(after.trips.len(), 50);
    assert!(after.least() < Duration::from_millis(asked as u64), "still slow: {:?}", after.least());
}

/// Uniform on `delay - jitter ..= delay + jitter`: quartiles and ends where they must be, and packets overtake others.
fn even(kind: Kind, direction: Direction) {
    const N: usize = 1500;
    let (stage, middle, spread) = (Stage::new(), 60, 40);
    echo(&stage.peer, PORT);
    echo(&stage.peer, SPARED);
    let mut plane = Plane::open(kind, &stage);
    let pace = Duration::from_millis(1);
    let way = train(at(PEER[0], PORT), 100, pace, Duration::from_secs(2)).quantile(0.5);
    plane.add("spread", direction, &udp(), &jittered(middle, spread));
    let (under, spared) = beside(N, pace, Duration::from_secs(2));
    plane.close();
    assert_eq!(under.trips.len(), N);
    let quartile = |q| ms(under.quantile(q)) - ms(way);
    figure(&format!(
        "jitter 60 ± 40 ms {:5} {:7}: quartiles {:.1}, {:.1}, {:.1} ms, {} of {N} overtaken",
        kind.word(),
        format!("{direction:?}").to_lowercase(),
        quartile(0.25),
        quartile(0.5),
        quartile(0.75),
        under.overtaken,
    ));
    let (late, noise) = (late(), 2.0 * ms(spared.quantile(0.9)));
    assert!(under.least() >= Duration::from_millis(20), "{:?}", under.least());
    // A quantile of 1500 even draws out of 80 ms scatters by at most 1 ms (one deviation).
    for (q, expected) in [(0.02, 21.6), (0.25, 40.0), (0.5, 60.0), (0.75, 80.0), (0.98, 98.4)] {
        let off = quartile(q) - expected;
        assert!(off > -4.0 && off < 4.0 + late + noise, "{q}: {} ms instead of {expected}", quartile(q));
    }
    assert!(under.overtaken > 100, "only {} overtaken", under.overtaken);
}

/// `10ms ± 30ms`: what would have to leave before it came leaves at once, a third of all.
fn at_none(kind: Kind) {
    const N: usize = 900;
    let stage = Stage::new();
    echo(&stage.peer, PORT);
    echo(&stage.peer, SPARED);
    let mut plane = Plane::open(kind, &stage);
    plane.add("odd", Direction::Egress, &udp(), &jittered(10, 30));
    let (under, spared) = beside(N, Duration::from_millis(1), Duration::from_secs(2));
    plane.close();
    assert_eq!(under.trips.len(), N);
    // Half of the even draws above none lie below 20 ms.
    let noise = 2.0 * ms(spared.quantile(0.9)) + late();
    let third = ms(under.quantile(0.3));
    let two_thirds = ms(under.quantile(0.67));
    assert!(third < 2.0 + noise, "{third} ms: what was due before it came is held");
    assert!((17.0..23.0 + noise).contains(&two_thirds), "{two_thirds} ms");
}

/// Data, acknowledgements and the handshake, IPv4 and IPv6, both ways; what arrives is what was sent.
fn tcp_in_both_versions(kind: Kind) {
    let stage = Stage::new();
    echo(&stage.peer, PORT);
    let mut plane = Plane::open(kind, &stage);
    let tcp = Filter { ports: vec![(PORT, PORT)], protocol: Some(Protocol::Tcp), ..Filter::default() };
    for direction in [Direction::Egress, Direction::Ingress] {
        for address in PEER {
            let to = at(address, PORT);
            let patience = Duration::from_secs(10);
            let before = tcp_echo(to, 300_000, patience).expect("TCP works");
            plane.add("slow", direction, &tcp, &delay(50));
            let under = tcp_echo(to, 300_000, patience).expect("TCP works under delay");
            let figures = plane.figures("slow");
            plane.remove("slow");
            // One round trip for the handshake, one at least for the data.
            assert!(under >= Duration::from_millis(100), "{address} {direction:?}: {under:?}");
            assert!(under < Duration::from_secs(4) && before < under, "{address} {direction:?}: {before:?} {under:?}");
            assert_eq!((figures.passed, figures.unasked), (0, 0), "{address} {direction:?}: {figures:?}");
        }
    }
    plane.close();
}

/// Established before the fault began; it needs no new connection to suffer, nor to be well again.
fn there_already(kind: Kind) {
    use std::io::{Read as _, Write as _};
    let stage = Stage::new();
    echo(&stage.peer, PORT);
    let mut plane = Plane::open(kind, &stage);
    for address in PEER {
        let mut stream = std::net::TcpStream::connect(at(address, PORT)).expect("a connection");
        stream.set_nodelay(true).expect("an option");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a limit");
        let mut trip = || {
            let begun = std::time::Instant::now();
            stream.write_all(b"x").expect("written");
            stream.read_exact(&mut [0]).expect("read");
            begun.elapsed()
        };
        trip();
        assert!(trip() < Duration::from_millis(50));
        plane.add("slow", Direction::Egress, &Filter::default(), &delay(100));
        let under = trip();
        plane.remove("slow");
        trip();
        let after = trip();
        assert!(under >= Duration::from_millis(100) && under < Duration::from_millis(400), "{address}: {under:?}");
        assert!(after < Duration::from_millis(50), "{address}: {after:?}");
    }
    plane.close();
}

/// Held packets stay charged to their socket, which would leave 2 Mbit/s; copies do not.
fn bulk(kind: Kind) {
    let stage = Stage::new();
    let mut plane = Plane::open(kind, &stage);
    let fault = Filter { ports: vec![(PORT, PORT)], ..Filter::default() };
    plane.add("slow", Direction::Egress, &fault, &delay(20));
    for address in PEER {
        let rate = tcp_rate(&stage.peer, at(address, PORT), Duration::from_secs(2)) * 8.0 / 1e6;
        figure(&format!("bulk TCP under 20 ms egress delay, owner, {address}: {rate:.0} Mbit/s"));
        assert!(rate > 100.0, "{address}: {rate:.1} Mbit/s");
    }
    let stats = plane.figures("slow");
    assert_eq!((stats.passed, stats.unasked), (0, 0), "{stats:?}");
    plane.close();
}
