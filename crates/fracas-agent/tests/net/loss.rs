//! Loss: how much, how silent, what TCP makes of it, and loss beside delay.

use std::time::Duration;

use fracas_model::plan::{Direction, Filter, Protocol};

use crate::{
    measure::{echo, tcp_echo, train},
    plane::{BOTH, Kind, Plane, delay, loss},
    run::{Case, figure},
    stage::{PEER, Stage, at},
};

const PORT: u16 = 7001;

pub(crate) const CASES: &[Case] = &[
    Case::new("loss_of_udp_is_silent_egress", BOTH, |kind| silent(kind, Direction::Egress)),
    Case::new("loss_of_udp_is_silent_ingress", BOTH, |kind| silent(kind, Direction::Ingress)),
    Case::new("all_is_lost_at_100_percent", BOTH, all),
    Case::new("tcp_goes_on_under_loss", BOTH, tcp_goes_on),
    Case::new("delay_and_loss_on_one_filter_stack", BOTH, stack),
];

fn fault() -> Filter {
    Filter { ports: vec![(PORT, PORT)], protocol: Some(Protocol::Udp), ..Filter::default() }
}

/// 10 % of 5000, within five standard deviations (0.42 points each); no send fails.
fn silent(kind: Kind, direction: Direction) {
    const N: usize = 5000;
    let stage = Stage::new();
    echo(&stage.peer, PORT);
    let mut plane = Plane::open(kind, &stage);
    for address in PEER {
        plane.add("lossy", direction, &fault(), &loss(10.0));
        let under = train(at(address, PORT), N, Duration::from_micros(200), Duration::from_millis(300));
        let figures = plane.figures("lossy");
        plane.remove("lossy");
        let after = train(at(address, PORT), 100, Duration::from_millis(1), Duration::from_secs(1));
        let lost = 100.0 * under.lost();
        figure(&format!(
            "loss of 10 % {:5} {:7} {address}: {lost:.2} %, {} failed sends, n = {N}",
            kind.word(),
            format!("{direction:?}").to_lowercase(),
            under.errors
        ));
        assert!((7.9..12.1).contains(&lost), "{address}: {lost} % lost");
        assert_eq!(under.errors, 0, "{address}: sends failed");
        // The kernel's own counts agree with what the trial's clock saw.
        assert_eq!((figures.matched, figures.unasked), (N as u64, 0), "{figures:?}");
        assert_eq!(figures.lost, (N - under.trips.len()) as u64, "{figures:?}");
        assert_eq!(after.trips.len(), 100, "{address}: lossy after its end");
    }
    plane.close();
}

fn all(kind: Kind) {
    let stage = Stage::new();
    echo(&stage.peer, PORT);
    let mut plane = Plane::open(kind, &stage);
    for direction in [Direction::Egress, Direction::Ingress] {
        plane.add("gone", direction, &fault(), &loss(100.0));
        let under = train(at(PEER[0], PORT), 500, Duration::from_micros(500), Duration::from_millis(300));
        let figures = plane.figures("gone");
        plane.remove("gone");
        assert_eq!((under.trips.len(), under.errors), (0, 0), "{direction:?}");
        assert_eq!((figures.matched, figures.lost), (500, 500), "{direction:?}: {figures:?}");
    }
    plane.close();
}

/// Megabytes arrive whole, by retransmissions. So many that some packet is lost: segments travel in bundles of 64 KiB.
fn tcp_goes_on(kind: Kind) {
    let stage = Stage::new();
    echo(&stage.peer, PORT);
    let mut plane = Plane::open(kind, &stage);
    let tcp = Filter { protocol: Some(Protocol::Tcp), ..fault() };
    for direction in [Direction::Egress, Direction::Ingress] {
        plane.add("lossy", direction, &tcp, &loss(10.0));
        let took = tcp_echo(at(PEER[0], PORT), 8 << 20, Duration::from_mins(1)).expect("TCP goes on");
        let figures = plane.figures("lossy");
        plane.remove("lossy");
        assert!(figures.lost > 0, "{direction:?}: nothing was lost: {figures:?}");
        figure(&format!(
            "8 MiB of TCP there and back under 10 % loss {:5} {:7}: {:.1} s, {} of {} packets lost",
            kind.word(),
            format!("{direction:?}").to_lowercase(),
            took.as_secs_f64(),
            figures.lost,
            figures.matched
        ));
    }
    plane.close();
}

/// Whoever survives the loss is delayed, whichever fault came first.
fn stack(kind: Kind) {
    let stage = Stage::new();
    echo(&stage.peer, PORT);
    let mut plane = Plane::open(kind, &stage);
    let to = at(PEER[0], PORT);
    for direction in [Direction::Egress, Direction::Ingress] {
        for first in ["slow", "lossy"] {
            let second = if first == "slow" { "lossy" } else { "slow" };
            for id in [first, second] {
                plane.add(id, direction, &fault(), &if id == "slow" { delay(40) } else { loss(30.0) });
            }
            let both = train(to, 1000, Duration::from_micros(200), Duration::from_millis(300));
            let lost = 100.0 * both.lost();
            assert!((22.0..38.0).contains(&lost), "{direction:?} {first} first: {lost} % lost");
            assert!(both.least() >= Duration::from_millis(40), "{direction:?} {first} first: {:?}", both.least());
            plane.remove(first);
            let one = train(to, 200, Duration::from_micros(200), Duration::from_millis(300));
            if first == "slow" {
                assert!(one.lost() > 0.1 && one.least() < Duration::from_millis(30), "{direction:?}: loss is left");
            } else {
                assert_eq!(one.trips.len(), 200, "{direction:?}: delay is left");
                assert!(one.least() >= Duration::from_millis(40), "{direction:?}: {:?}", one.least());
            }
            plane.remove(second);
            let none = train(to, 200, Duration::from_micros(200), Duration::from_secs(1));
            assert_eq!(none.trips.len(), 200, "{direction:?}: nothing is left");
        }
    }
    plane.close();
}
