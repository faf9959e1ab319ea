//! Channel `pagerduty`: the Events API v2. What needs a person triggers an incident, what ends it resolves it.
//!
//! Both carry the same key, which the history gives: sent twice, they change nothing.

use std::path::PathBuf;

use fracas_model::{
    notice::{Interest, Kind},
    shape::{Field, Shape},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Failure, Letter, config,
    http::{Post, post},
    notice::{Incident, instant, one_line},
    patiently,
    secret::Secret,
};
use crate::chain::{hex, sha256};

/// Where PagerDuty takes events.
const EVENTS: &str = "https://events.pagerduty.com";
/// Longest `dedup_key` and `summary` that PagerDuty takes, in characters.
const LONGEST: (usize, usize) = (255, 1024);

/// Where such a channel leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PagerDuty {
    /// Integration key of the service.
    pub routing_key: Secret,
    /// Where the API is.
    pub url: String,
    /// Authorities to trust instead of the platform's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

/// The form of `pagerduty`.
pub(super) fn shape() -> Shape {
    Shape::Object(vec![
        Field::required("routingKey", config::secret(), "Integration key of the service."),
        Field::with_default("url", Shape::Url, EVENTS, "Where the API is, without its path."),
        config::ca(),
    ])
}

impl PagerDuty {
    /// Sends what of a notice's incidents is wanted, in their order. Where one fails, all of them are sent again.
    pub(super) async fn send(&self, letter: &Letter<'_>, interest: &Interest) -> Result<(), Failure> {
        let key = self.routing_key.reveal().await?;
        let url = format!("{}/v2/enqueue", self.url.trim_end_matches('/'));
        let wanted = |incident: &&Incident| interest.on.contains(&incident.of) || incident.of == Kind::Test;
        for incident in letter.notice.incidents.iter().filter(wanted) {
            let body = event(letter, incident, key.text()).to_string().into_bytes();
            let (ca, now_ns) = (self.ca.as_deref(), letter.now_ns);
            let content_type = "application/json";
            let sent = patiently(post(Post { url: &url, content_type, headers: Vec::new(), body, ca, now_ns })).await;
            sent.map_err(|failure| failure.without([&key]))?;
        }
        Ok(())
    }
}

fn event(letter: &Letter<'_>, incident: &Incident, routing_key: &str) -> Value {
    let Letter { notice, words, source, .. } = letter;
    let mut event = json!({
        "routing_key": routing_key,
        "event_action": if incident.opens { "trigger" } else { "resolve" },
        "dedup_key": dedup_key(source, &incident.key),
    });
    if incident.opens {
        let mut details = notice.data();
        details.insert("id".into(), notice.id.clone().into());
        details.insert("text".into(), words.text.clone().into());
        event["client"] = "Fracas".into();
        event["payload"] = json!({
            "summary": one_line(&words.subject, LONGEST.1),
            "source": source,
            "severity": notice.severity.name(),
            "timestamp": instant(notice.at.wall_ns),
            "component": notice.subject,
            "class": notice.kind.name(),
            "custom_details": details,
        });
    }
    event
}

/// One incident of one controller; several controllers may page by one service.
fn dedup_key(source: &str, key: &str) -> String {
    let whole = format!("{source}/{key}");
    if whole.chars().count() <= LONGEST.0 { whole } else { format!("fracas/{}", hex(&sha256(whole.as_bytes()))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_readable_until_it_is_too_long() {
        assert_eq!(dedup_key("urn:uuid:1", "host/h"), "urn:uuid:1/host/h");
        let (one, other) = ("e".repeat(300), format!("{}f", "e".repeat(299)));
        assert_eq!(dedup_key("s", &one), dedup_key("s", &one));
        assert_ne!(dedup_key("s", &one), dedup_key("s", &other));
        assert!(dedup_key("s", &one).len() <= 255);
    }
}
