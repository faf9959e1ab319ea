//! Every comparator on values on both sides of it, and what is said of those beyond.

use serde_json::json;

use super::*;
use crate::check::check_value;

fn probe() -> ProbeInfo {
    let text = String::new;
    offered(ProbeInfo {
        name: "shop".into(),
        summary: text(),
        help: text(),
        params: vec![Field::optional("url", Shape::Url, "Where.")],
        reading: vec![
            ReadingField::number("certificateDays", "days", "Days left."),
            ReadingField::word("role", "Who it is."),
            ReadingField::text("body", "What it keeps."),
            ReadingField::flag("linked", "Whether it follows."),
        ],
        example: text(),
    })
}

fn read(tolerance: Value) -> Result<Option<Tolerance>, Refusal> {
    let info = probe();
    let given = json!({ "tolerance": tolerance });
    let Ok(Value::Object(params)) = check_value(&given, &Shape::Object(info.params.clone())) else {
        return Err(Refusal::new("the form is wrong", ""));
    };
    info.params_fit(&Params(params.clone())).unwrap();
    Tolerance::read(&info.reading, &Params(params))
}

fn judged(tolerance: Value, field: &'static str, value: impl Into<Measured>) -> Result<(), String> {
    read(tolerance).unwrap().unwrap().judge(&Values::new().with(field, value))
}

#[test]
fn numbers_have_limits_and_alternatives() {
    let days = |rule: Value, value: f64| judged(json!({ "certificateDays": rule }), "certificateDays", value);
    days(json!({ "min": 14, "max": 14.5, "notEquals": 14.25 }), 14.0).unwrap();
    assert_eq!(days(json!({ "min": 14 }), 6.0).unwrap_err(), "certificateDays was 6, at least 14 wanted");
    assert_eq!(days(json!({ "max": 2 }), 123_456.0).unwrap_err(), "certificateDays was 123000, at most 2 wanted");
    assert_eq!(days(json!({ "max": 2 }), 2.0001).unwrap_err(), "certificateDays was 2.0001, at most 2 wanted");
    assert_eq!(days(json!({ "equals": 0 }), 1.0).unwrap_err(), "certificateDays was 1, 0 wanted");
    assert_eq!(days(json!({ "notEquals": 1 }), 1.0).unwrap_err(), "certificateDays was 1, anything but 1 wanted");
    days(json!({ "oneOf": [1, 2] }), 2.0).unwrap();
    assert_eq!(days(json!({ "oneOf": [1, 2] }), 3.0).unwrap_err(), "certificateDays was 3, one of 1, 2 wanted");
    for rule in [json!({ "min": 0 }), json!({ "max": 0 }), json!({ "notEquals": 0 }), json!({ "oneOf": [0] })] {
        assert!(days(rule, f64::NAN).is_err());
    }
    assert!(days(json!({ "max": 0 }), f64::INFINITY).is_err());
}

#[test]
fn durations_are_told_in_few_figures_on_the_right_side() {
    let latency = |rule: Value, ns: i64| judged(json!({ "latency": rule }), "latency", Dur::from_ns(ns));
    latency(json!({ "max": "100ms" }), 100_000_000).unwrap();
    let slow = |ns| latency(json!({ "max": "100ms" }), ns).unwrap_err();
    assert_eq!(slow(123_456_789), "latency was 120ms, at most 100ms wanted");
    assert_eq!(slow(100_000_001), "latency was 110ms, at most 100ms wanted");
    assert_eq!(latency(json!({ "min": "1s" }), 0).unwrap_err(), "latency was 0s, at least 1s wanted");
    assert!(slow(i64::MAX).contains("at most"));
}

#[test]
fn texts_and_flags_are_compared_whole_or_in_part() {
    let role = |rule: Value, value: &str| judged(json!({ "role": rule }), "role", value.to_owned());
    role(json!({ "equals": "master", "contains": "ast", "matches": "^m.*r$", "oneOf": ["master"] }), "master").unwrap();
    assert_eq!(role(json!({ "equals": "master" }), "slave").unwrap_err(), "role was \"slave\", \"master\" wanted");
    let long = role(json!({ "notEquals": "x".repeat(50) }), &"x".repeat(50)).unwrap_err();
    assert_eq!(long, format!("role was \"{}\"..., anything else wanted", "x".repeat(SHOWN)));
    assert_eq!(role(json!({ "oneOf": ["a", "b"] }), "c").unwrap_err(), "role was \"c\", one of a, b wanted");
    assert_eq!(role(json!({ "contains": "b" }), "a").unwrap_err(), "role lacks \"b\"");
    assert_eq!(role(json!({ "matches": "[0-9]$" }), "4a").unwrap_err(), "role does not match [0-9]$");
    for rule in [json!({ "equals": "a" }), json!({ "notEquals": "secret" }), json!({ "oneOf": ["a", "b"] })] {
        let why = judged(json!({ "body": rule }), "body", "secret".to_owned()).unwrap_err();
        assert_eq!(why, "body is not what is wanted");
    }
    judged(json!({ "linked": { "equals": true } }), "linked", true).unwrap();
    let apart = judged(json!({ "linked": { "equals": true } }), "linked", false).unwrap_err();
    assert_eq!(apart, "linked was false, true wanted");
}

#[test]
fn what_is_not_known_or_not_compared_is_no_success() {
    let wanted = read(json!({ "role": { "equals": "a" }, "latency": { "max": "1s" } })).unwrap().unwrap();
    let half = Values::new().with("latency", Dur::ZERO);
    assert_eq!(wanted.judge(&half).unwrap_err(), "role is not known");
    wanted.judge(&half.with("role", "a".to_owned())).unwrap();
    assert!(wanted.judge(&Values::new().with("latency", Dur::ZERO).with("role", 1.0)).is_err());
    for empty in [json!({}), json!({ "role": {} })] {
        assert!(read(empty).is_err());
    }
    assert!(read(json!({ "role": { "matches": "(" } })).is_err());
    assert!(read(json!({ "role": { "min": 1 } })).is_err(), "a text has no smallest");
    assert!(read(json!({ "size": { "min": 1 } })).is_err(), "no such field");
    let Value::Object(given) = json!({ "tolerance": { "role": {} } }) else { panic!() };
    assert!(wants(&Params(given.clone()), "role") && !wants(&Params(given), "linked"));
    assert!(Tolerance::read(&probe().reading, &Params::default()).unwrap().is_none());
}
