//! What alerting tools send, and the rules by which alerts are known.

use fracas_model::signal::{MOST_ALERTS, Matcher, alertmanager};

use crate::Target;

pub(crate) const SIGNAL: Target = Target { name: "signal", take, seeds };

/// A matcher, a zero byte, and a payload.
fn take(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (matcher, payload) = data.split_at(at);
    let matcher = Matcher::read(&String::from_utf8_lossy(matcher));
    let Ok(told) = alertmanager(payload.strip_prefix(&[0]).unwrap_or_default()) else { return };
    assert!(told.signals.len() <= MOST_ALERTS);
    for signal in &told.signals {
        let labels: usize = signal.labels.iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!(signal.id.len() <= 1024 && signal.summary.len() <= 200 && labels <= 64 * (128 + 1024));
        assert!(!signal.summary.contains(['\n', '\r', '\t']));
        if let Ok(matcher) = &matcher {
            matcher.fits(&signal.labels);
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let alert = r#"{"status":"resolved","labels":{"alertname":"Down","severity":"page"},"annotations":{"summary":"a\nb"},
        "startsAt":"2026-01-01T00:00:00.5+01:00","endsAt":"2026-01-01T00:00:01Z","fingerprint":"f"}"#;
    let payload = format!(r#"{{"version":"4","truncatedAlerts":2,"alerts":[{alert},{alert}]}}"#);
    let all = ["alertname=Down", "severity=~\"page|critical\"", "team!=x", "a!~b.*"];
    all.iter().map(|matcher| [matcher.as_bytes(), b"\0", payload.as_bytes()].concat()).collect()
}
