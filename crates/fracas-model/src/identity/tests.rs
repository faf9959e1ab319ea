//! When certificates are renewed, which of them count, and who is two.

use super::*;

const DAY: i64 = 86_400;
const NOW: i64 = 1_795_000_000;

fn second(n: i64) -> i64 {
    Dur::from_secs(n).ns()
}

#[test]
fn a_certificate_tells_its_life_whatever_it_begins_early() {
    for life_s in [20, 40, 3599, 3600, 3601, DAY, 365 * DAY, 3650 * DAY] {
        let validity = Validity::signed_at(NOW, Dur::from_secs(life_s), i64::MAX);
        assert_eq!(validity.life(), Dur::from_secs(life_s));
        assert_eq!((validity.left(NOW), validity.left(NOW + life_s + 9)), (Dur::from_secs(life_s), Dur::ZERO));
        assert!(validity.from_s < NOW && !validity.is_over(NOW + life_s) && validity.is_over(NOW + life_s + 1));
        assert!(!validity.is_low(NOW + life_s / 2) && validity.is_low(NOW + life_s));
    }
    let ever = Validity { from_s: i64::MIN, until_s: i64::MAX };
    assert!(ever.left(NOW).ns() > 0 && ever.left(i64::MIN) == ever.life() && !ever.is_low(NOW));
    let short = Validity::signed_at(NOW, Dur::from_secs(365 * DAY), NOW + 10 * DAY);
    assert_eq!(short.until_s, NOW + 10 * DAY, "no certificate outlives its authority");
}

#[test]
fn an_agent_asks_at_half_life_and_hosts_spread() {
    let life = Dur::from_secs(1000);
    for (drawn, due) in [(0.0, 500), (1.0, 600)] {
        let mut renewal = Renewal::default();
        assert_eq!(renewal.due_ns(), None, "not before a controller has spoken");
        renewal.told(life, life, second(7), drawn);
        assert_eq!(renewal.due_ns(), Some(second(7 + due)));
        // A session begun later says the same.
        renewal.told(Dur::from_secs(900), life, second(107), drawn);
        assert_eq!(renewal.due_ns(), Some(second(7 + due)));
        renewal.told(Dur::ZERO, Dur::ZERO, second(9), drawn);
        assert_eq!(renewal.due_ns(), None, "an older controller");
    }
}

#[test]
fn attempts_that_fail_are_repeated_slower_and_slower_and_never_at_once() {
    for life_s in [20, 3600, 365 * DAY] {
        let (life, mut renewal, mut now) = (Dur::from_secs(life_s), Renewal::default(), 0);
        let mut asked = 0;
        while now < life.ns() {
            renewal.told(Dur::from_ns(life.ns() - now), life, now, 0.5);
            let due = renewal.due_ns().unwrap();
            assert!(due > now || asked == 0 || due <= life.ns());
            now = due.max(now);
            asked += 1;
            renewal.failed(now, 0.5);
            assert!(renewal.due_ns().unwrap() - now >= second(1));
        }
        assert!((3..6000).contains(&asked), "{asked} attempts in {life_s} s");
    }
}

#[test]
fn a_clock_that_jumps_makes_no_storm() {
    // Whatever a controller whose clock jumps says, an agent that has just renewed waits, and so does one that failed.
    let (mut renewal, life) = (Renewal::default(), Dur::from_secs(100));
    let mut now = 0;
    for _ in 0..50 {
        renewal.told(Dur::ZERO, life, now, 0.0);
        let due = renewal.due_ns().unwrap();
        assert!(now == 0 || due - now >= second(2) - 1_000_000, "{due} {now}");
        now = due + 1_000_000;
        renewal.done(now);
    }
    renewal.told(Dur::from_ns(i64::MAX), Dur::from_ns(i64::MAX), i64::MAX - 5, 0.0);
    renewal.failed(i64::MAX - 5, 1.0);
    assert!(renewal.due_ns().is_some());
}

#[test]
fn little_life_is_told_now_and_then() {
    let (mut renewal, life) = (Renewal::default(), Dur::from_secs(1000));
    renewal.told(life, life, 0, 0.0);
    assert_eq!(renewal.warning(second(749)), None);
    assert_eq!(renewal.warning(second(751)), Some(Dur::from_secs(249)));
    assert_eq!(renewal.warning(second(752)), None, "just said");
    assert_eq!(renewal.warning(second(802)), Some(Dur::from_secs(198)));
    renewal.done(second(803));
    assert_eq!(renewal.warning(second(900)), None);
}

#[test]
fn a_certificate_counts_until_a_later_one_was_used() {
    let mut serials = Serials::default();
    assert_eq!(serials.look("a"), Shown::Current, "of a history that knows none");
    serials.signed("a", None, NOW);
    assert_eq!(serials.look("a"), Shown::Current);
    // The answer may have been lost: both are good.
    serials.signed("b", Some(NOW + 10), NOW);
    serials.signed("b", Some(NOW + 10), NOW);
    assert_eq!((serials.look("a"), serials.look("b")), (Shown::Current, Shown::Newer("a".into())));
    serials.signed("c", Some(NOW + 20), NOW);
    serials.used("c");
    for earlier in ["a", "b"] {
        assert_eq!(serials.look(earlier), Shown::Superseded, "{earlier}");
    }
    assert_eq!(serials.look("c"), Shown::Current);
    serials.used("a");
    assert_eq!(serials.look("c"), Shown::Current, "nothing makes an earlier one good again");
    // Of a life of the controller that this history knows nothing of.
    assert_eq!(serials.look("z"), Shown::Newer("c".into()));
    serials.used("z");
    assert_eq!((serials.look("c"), serials.look("z")), (Shown::Superseded, Shown::Current));
}

#[test]
fn what_is_over_is_forgotten_and_the_rest_keeps_its_order() {
    let mut serials = Serials::default();
    for n in 0..1000 {
        let serial = format!("s{n}");
        serials.signed(&serial, Some(NOW + n + 20), NOW + n);
        serials.used(&serial);
        if n > 0 {
            assert_eq!(serials.look(&format!("s{}", n - 1)), Shown::Superseded);
        }
        assert_eq!(serials.look(&serial), Shown::Current);
    }
    assert!(serials.known.len() < 30, "{}", serials.known.len());
}

#[test]
fn nobody_gets_certificates_by_the_dozen() {
    let (mut serials, life) = (Serials::default(), Dur::from_secs(1000));
    let validity = Validity::signed_at(NOW, life, i64::MAX);
    assert!(matches!(serials.may_renew(validity, NOW + 200, 0), Err(NotNow::Early(_))));
    let mut got = 0;
    for tenth in 0..1000 {
        got += i32::from(serials.may_renew(validity, NOW + 600, tenth * second(1) / 10).is_ok());
    }
    assert_eq!(got, 10, "in 100 s, of a life of 1000 s");
}

#[test]
fn an_instance_that_comes_back_after_another_lived_is_one_of_two() {
    let mut seen = Instances::default();
    // Starts, reconnects, restarts: any number of them is one host.
    for n in 0..200 {
        for _ in 0..3 {
            assert_eq!(seen.lives(&format!("i{n}"), "10.0.0.1"), None);
        }
    }
    assert_eq!(seen.lives("copy", "10.0.0.9"), None);
    let twins = seen.lives("i199", "10.0.0.1").expect("it lives after the other one did");
    assert_eq!(twins, Twins { first: "10.0.0.1".into(), second: "10.0.0.9".into() });
    assert_eq!(twins.to_string(), "two agents use its certificate, one at 10.0.0.1 and one at 10.0.0.9");
}

#[test]
fn older_agents_have_no_instance_and_are_never_told_apart() {
    let mut seen = Instances::default();
    // Upgraded and downgraded again.
    for instance in ["", "", "a", "", "b", ""] {
        assert_eq!(seen.lives(instance, "x"), None, "{instance:?}");
    }
    // Yet nobody hides by leaving it out.
    assert!(seen.lives("b", "x").is_some());
}
