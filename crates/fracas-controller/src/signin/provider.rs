//! Four questions to an identity provider: where things are (OpenID Connect Discovery 1.0), a code for a person (RFC 8628),
//! whether the person has agreed, and which keys it signs with. Answers are bounded; redirects are not followed.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    Settings,
    keys::{self, Key},
};
use crate::outgoing::{self, Asked};

/// What ends a name of an issuer to make the address of its discovery document.
const DISCOVERY: &str = "/.well-known/openid-configuration";
/// The grant of the device flow (RFC 8628, 3.4).
const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// Why a provider cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the identity provider {issuer} cannot be used: {why}")]
pub struct ProviderError {
    issuer: String,
    why: String,
}

/// A code for a person.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Device {
    pub(super) device_code: String,
    pub(super) user_code: String,
    pub(super) verification_uri: String,
    #[serde(default)]
    pub(super) verification_uri_complete: Option<String>,
    pub(super) expires_in: u64,
    #[serde(default)]
    pub(super) interval: Option<u64>,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The person has not answered.
    Pending,
    /// Ask less often.
    SlowDown,
    /// The person, or the provider, says no; or it took too long.
    Denied(String),
    /// An ID token.
    Token(String),
}

#[derive(Debug, Deserialize)]
struct Places {
    issuer: String,
    token_endpoint: String,
    jwks_uri: String,
    #[serde(default)]
    device_authorization_endpoint: Option<String>,
}

/// A provider.
#[derive(Clone, Debug)]
pub(super) struct Provider(Arc<Settings>);

impl Provider {
    pub(super) fn new(settings: Arc<Settings>) -> Self {
        Self(settings)
    }

    fn failed(&self, why: impl Into<String>) -> ProviderError {
        ProviderError { issuer: self.0.issuer.clone(), why: why.into() }
    }

    /// A code for a person.
    pub(super) async fn device(&self) -> Result<Device, ProviderError> {
        let places = self.places().await?;
        let endpoint = places.device_authorization_endpoint;
        let endpoint = endpoint.ok_or_else(|| self.failed("it has no device flow; switch it on for this client"))?;
        let (status, text) = self.post(&endpoint, &[("scope", &self.0.scopes.join(" "))]).await?;
        if status != 200 {
            return Err(self.failed(format!("it gives no code: {}", refusal(status, &text))));
        }
        let device: Device = self.parse("a code", &text)?;
        let shown = [Some(&device.verification_uri), device.verification_uri_complete.as_ref()];
        let plain = |text: &str| text.len() <= 2048 && !text.chars().any(|c| c.is_control() || c.is_whitespace());
        let address = |text: &&String| plain(text) && (text.starts_with("https://") || text.starts_with("http://"));
        let right = plain(&device.user_code) && shown.iter().flatten().all(address);
        if right { Ok(device) } else { Err(self.failed("its answer holds what nobody should be shown")) }
    }

    /// Whether the person has agreed.
    pub(super) async fn token(&self, device_code: &str) -> Result<Answer, ProviderError> {
        let places = self.places().await?;
        let (status, text) =
            self.post(&places.token_endpoint, &[("grant_type", GRANT), ("device_code", device_code)]).await?;
        if status == 200 {
            let answer: Value = self.parse("tokens", &text)?;
            let token = answer.get("id_token").and_then(Value::as_str);
            let token = token.ok_or_else(|| self.failed("it sends no ID token: is `openid` among the scopes?"))?;
            return Ok(Answer::Token(token.to_owned()));
        }
        let error: Value = serde_json::from_slice(&text).unwrap_or_default();
        Ok(match error.get("error").and_then(Value::as_str) {
            Some("authorization_pending") => Answer::Pending,
            Some("slow_down") => Answer::SlowDown,
            Some("access_denied") => Answer::Denied("it was refused in the browser".to_owned()),
            Some("expired_token") => Answer::Denied("the code has expired".to_owned()),
            _ => return Err(self.failed(format!("it gives no tokens: {}", refusal(status, &text)))),
        })
    }

    /// The keys by which it signs.
    pub(super) async fn keys(&self) -> Result<Vec<Key>, ProviderError> {
        let url = self.places().await?.jwks_uri;
        let asked = Asked { url: &url, ca: self.0.ca.as_deref(), authorization: None, form: None };
        let (status, text) = outgoing::ask(asked).await.map_err(|why| self.failed(why))?;
        if status != 200 {
            return Err(self.failed(format!("it tells its keys with status {status}")));
        }
        let published: Value = self.parse("a set of keys", &text)?;
        Ok(keys::read(&published))
    }

    async fn places(&self) -> Result<Places, ProviderError> {
        let url = format!("{}{DISCOVERY}", self.0.issuer.trim_end_matches('/'));
        let asked = Asked { url: &url, ca: self.0.ca.as_deref(), authorization: None, form: None };
        let (status, text) = outgoing::ask(asked).await.map_err(|why| self.failed(why))?;
        if status != 200 {
            return Err(self.failed(format!("its discovery document answers with status {status}")));
        }
        let places: Places = self.parse("a discovery document", &text)?;
        // Whoever answers in its name must say so (OpenID Connect Discovery 1.0, 4.3).
        if places.issuer != self.0.issuer {
            return Err(self.failed(format!("it calls itself {:.200}", places.issuer)));
        }
        let sure = |url: &String| outgoing::is_sure(url);
        let all = [Some(&places.token_endpoint), Some(&places.jwks_uri), places.device_authorization_endpoint.as_ref()];
        if !all.into_iter().flatten().all(sure) {
            return Err(self.failed("it wants to be asked over plain HTTP"));
        }
        Ok(places)
    }

    async fn post(&self, url: &str, fields: &[(&str, &str)]) -> Result<(u16, Vec<u8>), ProviderError> {
        let settings = &self.0;
        let mut form: Vec<(&str, &str)> = fields.to_vec();
        let mut authorization = None;
        if let Some(secret) = &settings.client_secret {
            let secret = secret.reveal().await.map_err(|e| self.failed(format!("its client secret: {e}")))?;
            // RFC 6749, 2.3.1: both parts are form-encoded first.
            let pair = format!("{}:{}", outgoing::escaped(&settings.client_id), outgoing::escaped(secret.text()));
            authorization = Some(format!("Basic {}", STANDARD.encode(pair)));
        } else {
            form.push(("client_id", &settings.client_id));
        }
        let asked = Asked { url, ca: settings.ca.as_deref(), authorization, form: Some(&form) };
        outgoing::ask(asked).await.map_err(|why| self.failed(why))
    }

    fn parse<T: DeserializeOwned>(&self, what: &str, text: &[u8]) -> Result<T, ProviderError> {
        serde_json::from_slice(text).map_err(|error| self.failed(format!("its answer is not {what}: {error}")))
    }
}

/// What a provider says of its refusal, as far as it may be shown.
fn refusal(status: u16, text: &[u8]) -> String {
    let error: Value = serde_json::from_slice(text).unwrap_or_default();
    let word = |name: &str| {
        let text = error.get(name).and_then(Value::as_str).unwrap_or_default();
        text.chars().filter(|c| !c.is_control()).take(200).collect::<String>()
    };
    match (word("error"), word("error_description")) {
        (error, _) if error.is_empty() => format!("status {status}"),
        (error, more) if more.is_empty() => error,
        (error, more) => format!("{error}, {more}"),
    }
}
