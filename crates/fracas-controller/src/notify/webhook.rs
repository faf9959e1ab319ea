//! Channel `webhook`: one CloudEvent 1.0 in structured JSON for each notice, signed so that its receiver can trust it.
//!
//! ```text
//! fracas-signature: t=1795488300,v1=HEX
//! HEX = HMAC-SHA256(secret, "1795488300" + "." + body)
//! ```
//! `t` is when this try was made, seconds since the Unix epoch. A receiver computes the same over the bytes that it got,
//! compares in constant time, refuses what is older than a few minutes, and forgets no `id` meanwhile: then nothing can be
//! forged, changed or replayed. The `id` is the same at every try.

use std::{collections::BTreeMap, path::PathBuf};

use fracas_model::shape::{Field, Shape};
use hyper::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING};
use ring::hmac;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Failure, Letter,
    config::{self, Reading},
    http::{Post, post},
    notice::{Notice, instant},
    secret::{Secret, Text},
    template::Words,
};
use crate::chain::hex;

/// The media type of a CloudEvent in structured mode.
const CONTENT: &str = "application/cloudevents+json";
/// The header of the signature.
const SIGNATURE: &str = "fracas-signature";
/// What stands before the kind of a notice in the type of an event.
const TYPES: &str = "dev.fracas.";

/// Where such a channel leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// Where to post to.
    pub url: Text,
    /// Key of the signature.
    pub secret: Secret,
    /// Further headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Text>,
    /// Authorities to trust instead of the platform's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

/// The form of `webhook`.
pub(super) fn shape() -> Shape {
    let either = |plain| Shape::Either(vec![plain, config::secret()]);
    Shape::Object(vec![
        Field::required("url", either(Shape::Url), "Where to post to; by reference if it holds a secret."),
        Field::required("secret", config::secret(), "Key of the signature, by which the receiver knows the sender."),
        Field::optional(
            "headers",
            Shape::Map { of: Box::new(either(Shape::Text { max: 4096 })), max: 32 },
            "Further headers, such as authorization.",
        ),
        config::ca(),
    ])
}

impl Webhook {
    /// What its form alone does not say.
    pub(super) fn review(&self, reading: &mut Reading<'_, '_>) {
        let ours = [HOST, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING];
        for (name, value) in &self.headers {
            let path = ["webhook", "headers", name];
            match HeaderName::try_from(name.as_str()) {
                Err(_) => {
                    reading.wrong(&path, &format!("{name:?} is no name of a header"), "use letters, digits and -");
                }
                Ok(header) if ours.contains(&header) || header == SIGNATURE => {
                    reading.wrong(&path, &format!("the header {header} is set by the controller"), "remove it");
                }
                Ok(_) => {}
            }
            if matches!(value, Text::Plain(text) if HeaderValue::from_str(text).is_err()) {
                reading.wrong(&path, &format!("the value of {name} cannot be in a header"), "write it on one line");
            }
        }
    }

    /// Sends a notice.
    pub(super) async fn send(&self, letter: &Letter<'_>) -> Result<(), Failure> {
        let (url, key) = (self.url.reveal().await?, self.secret.reveal().await?);
        let mut revealed = Vec::new();
        let mut headers = Vec::new();
        for (name, value) in &self.headers {
            let text = value.reveal().await?;
            let bad = || Failure::later(format!("the header {name} cannot be sent"));
            let header = HeaderName::try_from(name.as_str()).map_err(|_| bad())?;
            headers.push((header, HeaderValue::from_str(text.text()).map_err(|_| bad())?));
            if value.secret().is_some() {
                revealed.push(text);
            }
        }
        let body = event(letter.notice, letter.words, letter.source).to_string().into_bytes();
        let signed = signature(key.text().as_bytes(), letter.now_ns / 1_000_000_000, &body);
        let signed = HeaderValue::from_str(&signed).map_err(|_| Failure::later("it cannot be signed"))?;
        headers.push((HeaderName::from_static(SIGNATURE), signed));
        let (ca, now_ns) = (self.ca.as_deref(), letter.now_ns);
        let sent = post(Post { url: url.text(), content_type: CONTENT, headers, body, ca, now_ns }).await;
        revealed.push(key);
        if self.url.secret().is_some() {
            revealed.push(url);
        }
        sent.map_err(|failure| failure.without(&revealed))
    }
}

/// The event: attributes of CloudEvents 1.0, and as `data` what is known.
fn event(notice: &Notice, words: &Words, source: &str) -> Value {
    let mut data = notice.data();
    data.insert("summary".into(), words.subject.clone().into());
    data.insert("text".into(), words.text.clone().into());
    json!({
        "specversion": "1.0",
        "id": notice.id,
        "source": source,
        "type": format!("{TYPES}{}", notice.kind),
        "subject": notice.subject,
        "time": instant(notice.at.wall_ns),
        "datacontenttype": "application/json",
        "data": data,
    })
}

/// The header that signs a body at an instant, seconds since the Unix epoch.
fn signature(key: &[u8], at: i64, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    context.update(format!("{at}.").as_bytes());
    context.update(body);
    format!("t={at},v1={}", hex(context.sign().as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_one_that_is_documented() {
        // From: printf '1795488300.{}' | openssl dgst -sha256 -hmac key
        let expected = "t=1795488300,v1=1541cf2ca6a17714895084c1f611700601ba49df4476b02542845884791bfda6";
        assert_eq!(signature(b"key", 1_795_488_300, b"{}"), expected);
    }
}
