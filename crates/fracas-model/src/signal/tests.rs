//! Payloads that a real Alertmanager sent, strange ones, and matchers.

use serde_json::json;

use super::*;

/// Captured from Alertmanager 0.25.0 of Debian 12; only `externalURL` was replaced.
const FIRING: &str = include_str!("golden/alertmanager-firing.json");
const RESOLVED: &str = include_str!("golden/alertmanager-resolved.json");

fn labels(all: &[(&str, &str)]) -> BTreeMap<String, String> {
    all.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn payloads_of_a_real_alertmanager_are_read() {
    let told = alertmanager(FIRING.as_bytes()).unwrap();
    assert_eq!((told.signals.len(), told.truncated, told.unreadable), (2, 0, 0));
    let first = &told.signals[0];
    assert_eq!((first.name(), first.state, first.ends_wall_ns), ("CheckoutDown", AlertState::Firing, None));
    assert_eq!((first.id.as_str(), first.summary.as_str()), ("adfc5a912c9d74c8", "checkout does not answer"));
    assert_eq!(first.starts_wall_ns, 1_795_783_400_472_245_917);
    assert_eq!(first.labels["instance"], "web-1:80");

    let told = alertmanager(RESOLVED.as_bytes()).unwrap();
    let [resolved, firing] = &told.signals[..] else { panic!("{told:?}") };
    assert_eq!((resolved.state, resolved.ends_wall_ns), (AlertState::Resolved, Some(1_795_783_402_483_000_000)));
    assert_ne!(resolved.key(), first.key(), "its end is news");
    assert_eq!(firing.key(), alertmanager(FIRING.as_bytes()).unwrap().signals[1].key(), "that it still fires is none");
}

#[test]
fn what_is_strange_in_a_payload_is_bounded_or_refused() {
    let payload = |alerts: serde_json::Value| json!({ "version": "4", "alerts": alerts, "new": { "key": 1 } });
    let read = |value: serde_json::Value| alertmanager(value.to_string().as_bytes());
    let odd = json!([
        { "status": "firing", "startsAt": "2026-01-01T00:00:00Z", "labels": { "a": "\u{e4}".repeat(2000) } },
        { "status": "suppressed", "startsAt": "2026-01-01T00:00:00Z" },
        { "status": "firing", "startsAt": "0001-01-01T00:00:00Z" },
        { "status": "firing" },
        { "status": "resolved", "startsAt": "2026-01-01T01:00:00+01:00", "endsAt": "0001-01-01T00:00:00Z" },
    ]);
    let told = read(payload(odd)).unwrap();
    assert_eq!((told.signals.len(), told.unreadable), (2, 3));
    assert!(told.signals[0].labels["a"].len() <= 1024 && told.signals[0].id.len() <= 1024);
    // One that is resolved and does not say when; zones are understood.
    assert_eq!((told.signals[1].ends_wall_ns, told.signals[1].starts_wall_ns), (None, 1_767_225_600_000_000_000));
    let truncated = json!({ "version": "4", "truncatedAlerts": 7, "alerts": [] });
    assert_eq!(read(truncated).unwrap().truncated, 7);
    for (bad, why) in [
        (json!({ "version": "3", "alerts": [] }), "version \"3\""),
        (json!({ "alerts": [] }), "version \"\""),
        (json!({ "version": "4" }), "missing field `alerts`"),
        (json!([]), "not a payload"),
        (payload(json!(vec![json!({}); MOST_ALERTS + 1])), "set max_alerts"),
    ] {
        let told = read(bad).unwrap_err();
        assert!(told.contains(why), "{told}");
    }
    assert!(alertmanager(&vec![b' '; LONGEST_PAYLOAD + 1]).unwrap_err().contains("at most"));
    assert!(alertmanager(b"\xff{").is_err());
}

#[test]
fn matchers_are_those_of_alertmanager() {
    let of = labels(&[("alertname", "CheckoutDown"), ("severity", "page"), ("text", "a \"b\" c")]);
    for good in [
        "alertname=CheckoutDown",
        "alertname = \"CheckoutDown\"",
        "severity=~critical|page",
        "severity=~\"critical|page\"",
        "severity!=warning",
        "team!~.+",
        "team=",
        "team=~",
        "text=\"a \\\"b\\\" c\"",
    ] {
        assert!(Matcher::read(good).unwrap().fits(&of), "{good}");
    }
    for bad in [
        "alertname=checkoutdown",
        "severity=~crit",
        "severity=~pag",
        "severity!~page",
        "alertname!=CheckoutDown",
        "team=x",
    ] {
        assert!(!Matcher::read(bad).unwrap().fits(&of), "{bad}");
    }
    for none in ["", "alertname", "=x", "a b=c", "x!y", "severity=~(", "x=~a)|(b", "{alertname=\"x\"}", "1a=b"] {
        assert!(Matcher::read(none).is_err(), "{none}");
    }
    let why = Matcher::read("x=~(").unwrap_err();
    assert!(why.starts_with("\"(\" is not a pattern"), "told as it was written: {why}");
    let all_fit = |texts: &[&str]| Matchers::read(&texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>()).fit(&of);
    assert!(all_fit(&["severity=page", "alertname=~Checkout.*"]));
    assert!(!all_fit(&["severity=page", "alertname=~Cart.*"]) && !all_fit(&["nonsense"]));
}
