//! Channel `slack`: a message to an incoming webhook of Slack, or of anything that takes the same.
//!
//! Foreign text comes into it as plain text only: it can name nobody and link to nothing.

use std::path::PathBuf;

use fracas_model::shape::{Field, Shape};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Failure, Letter, config,
    http::{Post, post},
    notice::{Notice, Severity},
    secret::Secret,
    template::Words,
};

/// Longest text of a block, in characters (Slack takes 3000).
const LONGEST: usize = 2900;

/// Where such a channel leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Slack {
    /// The webhook's URL: whoever has it may post, so it is a secret.
    pub url: Secret,
    /// Authorities to trust instead of the platform's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

/// The form of `slack`.
pub(super) fn shape() -> Shape {
    Shape::Object(vec![
        Field::required("url", config::secret(), "URL of the incoming webhook; whoever has it may post."),
        config::ca(),
    ])
}

impl Slack {
    /// Sends a notice.
    pub(super) async fn send(&self, letter: &Letter<'_>) -> Result<(), Failure> {
        let url = self.url.reveal().await?;
        let body = message(letter.notice, letter.words).to_string().into_bytes();
        let (ca, now_ns) = (self.ca.as_deref(), letter.now_ns);
        let content_type = "application/json";
        let sent = post(Post { url: url.text(), content_type, headers: Vec::new(), body, ca, now_ns }).await;
        sent.map_err(|failure| failure.without([&url]))
    }
}

/// `text` is for notifications and for receivers that know no blocks.
fn message(notice: &Notice, words: &Words) -> Value {
    let mark = match notice.severity {
        Severity::Info => ":information_source:",
        Severity::Warning => ":warning:",
        Severity::Error => ":x:",
        Severity::Critical => ":rotating_light:",
    };
    let head = format!("{mark} *{}*", escaped(&words.subject));
    let mut blocks = vec![json!({ "type": "section", "text": { "type": "mrkdwn", "text": shortened(&head) } })];
    if !words.text.trim().is_empty() {
        // Plain text needs no escapes, and forms nothing.
        let text = shortened(&words.text);
        blocks.push(json!({ "type": "section", "text": { "type": "plain_text", "text": text, "emoji": false } }));
    }
    json!({ "text": escaped(&words.subject), "blocks": blocks })
}

/// The three characters that Slack gives a meaning, and those that would end the bold type.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace(['*', '`'], "'")
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= LONGEST {
        return text.to_owned();
    }
    text.chars().take(LONGEST).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use fracas_model::time::{ClockId, Stamp};

    use super::*;

    fn sent(subject: &str, text: &str) -> Value {
        let clock = ClockId { host: "c".into(), boot: "b".into() };
        let at = Stamp { clock, boot_ns: 0, wall_ns: 0, bound_ns: 0 };
        let notice = Notice::test("test/1".into(), at, "ops", "admin");
        message(&notice, &Words { subject: subject.into(), text: text.into() })
    }

    #[test]
    fn foreign_text_can_call_nobody() {
        let message = sent("reason: <!channel> & *x*", "<@U1>");
        assert_eq!(message["text"], "reason: &lt;!channel&gt; &amp; 'x'");
        assert_eq!(message["blocks"][0]["text"]["text"], ":information_source: *reason: &lt;!channel&gt; &amp; 'x'*");
        assert_eq!(message["blocks"][1]["text"]["type"], "plain_text");
        assert_eq!(message["blocks"][1]["text"]["text"], "<@U1>");
    }

    #[test]
    fn no_block_is_empty_or_longer_than_slack_takes() {
        assert_eq!(sent("s", " \n")["blocks"].as_array().unwrap().len(), 1);
        let long = sent("s", &"é".repeat(5000));
        assert_eq!(long["blocks"][1]["text"]["text"].as_str().unwrap().chars().count(), LONGEST + 1);
    }
}
