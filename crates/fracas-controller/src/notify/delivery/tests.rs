//! Pauses between tries, and what a channel is owed.

use fracas_model::time::ClockId;

use super::*;

fn stamp(boot: &str, boot_s: i64, wall_s: i64) -> Stamp {
    let clock = ClockId { host: "c".into(), boot: boot.into() };
    Stamp { clock, boot_ns: boot_s * 1_000_000_000, wall_ns: wall_s * 1_000_000_000, bound_ns: 0 }
}

#[test]
fn pauses_double_up_to_a_limit_and_chance_takes_any_share_of_them() {
    let pace = Pace::default();
    let longest: Vec<u64> = (1..=12).map(|attempts| pace.pause(attempts, 1.0).as_secs()).collect();
    assert_eq!(longest, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
    assert_eq!(pace.pause(5, 0.25), Duration::from_secs(4));
    assert_eq!(pace.pause(5, 0.0), Duration::ZERO);
    for odd in [u32::MAX, 0] {
        assert!(pace.pause(odd, 2.0) <= pace.most);
    }
}

fn interest(on: Kind) -> Interest {
    Interest { on: vec![on], environments: vec![], incidents: false }
}

/// A channel that was told tests from 10 s on, and halts besides from 20 s on.
fn state() -> State {
    let later = Interest { on: vec![Kind::Test, Kind::HaltSet], ..interest(Kind::Test) };
    let interests = vec![(stamp("b", 10, 1010), interest(Kind::Test)), (stamp("b", 20, 1020), later)];
    State { interests, ..State::default() }
}

fn notice(kind: Kind, at: Stamp) -> Notice {
    Notice { kind, ..Notice::test("n".into(), at, "ops", "admin") }
}

#[test]
fn a_channel_is_owed_what_it_was_meant_to_be_told_then_and_is_still_now() {
    let owes = |kind, at| state().owes(&notice(kind, at));
    assert!(!owes(Kind::Test, stamp("b", 9, 1009)), "before there was such a channel");
    assert!(owes(Kind::Test, stamp("b", 10, 1010)));
    assert!(owes(Kind::Test, stamp("b", 25, 1025)));
    assert!(!owes(Kind::HaltSet, stamp("b", 15, 1015)), "before it wanted such");
    assert!(owes(Kind::HaltSet, stamp("b", 21, 1021)));
    assert!(!owes(Kind::RunFinished, stamp("b", 25, 1025)));
    assert!(!State::default().owes(&notice(Kind::Test, stamp("b", 9, 9))));
}

#[test]
fn a_clock_that_is_set_takes_nothing_away() {
    // Set back by a thousand seconds since the channel was opened, within one boot.
    assert!(state().owes(&notice(Kind::Test, stamp("b", 30, 30))));
    // Across boots the wall clock is all there is.
    assert!(state().owes(&notice(Kind::Test, stamp("b2", 1, 1015))));
    assert!(!state().owes(&notice(Kind::Test, stamp("b2", 1, 1000))));
}

#[test]
fn a_channels_history_says_how_it_stands() {
    let mut state = State::default();
    let mut take = |seconds, fact| {
        let body = Body::Notice { fact, at: stamp("b", seconds, seconds) };
        let received = stamp("b", seconds, seconds);
        state.take(&Event { stream: "notify/ops".into(), seq: 1, received, origin: None, body });
        (state.failing.clone(), state.last.clone().and_then(|last| last.gave_up), state.taken.len())
    };
    let gave_up = |notice: &str, why: &str| Fact::GaveUp {
        notice: notice.into(),
        about: Kind::RunFinished,
        attempts: 3,
        why: why.into(),
    };
    assert_eq!(take(1, gave_up("run/r/1", "a")), (Some((1_000_000_000, "a".into())), Some("a".into()), 1));
    assert_eq!(take(2, gave_up("run/r/2", "b")), (Some((1_000_000_000, "b".into())), Some("b".into()), 2));
    let sent = Fact::Sent { notice: "run/r/3".into(), about: Kind::RunFinished, attempts: 1 };
    assert_eq!(take(3, sent), (None, None, 3));
}
