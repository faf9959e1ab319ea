//! Join tokens: their text, and which of them may still be used, as a fold over the audit stream.
//!
//! Pure: random bytes, the time and the events are arguments. A token's secret is never kept, only its digest.
//!
//! ```text
//! fjt1.<id>.<secret>.<SHA-256 of the CA's certificate>      all hexadecimal
//! ```

use std::collections::BTreeMap;

use fracas_model::{
    event::{Body, Event},
    id::HostId,
};

use crate::chain::{Digest, digest_from_hex, hex, same, sha256, unhex};

/// Begins every join token, so that people and secret scanners know one.
pub const PREFIX: &str = "fjt1";

/// A join token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinToken {
    /// Public part, which the history names.
    pub id: String,
    /// Secret part, hexadecimal.
    pub secret: String,
    /// Digest of the CA's certificate (DER), by which the host knows the controller.
    pub ca: Digest,
}

/// Why a token is no good. What is said to a stranger does not tell these apart; see [`TokenError::public`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not the text of a token.
    #[error("join token is malformed: it reads `fjt1.ID.SECRET.DIGEST`, copy all of it")]
    Malformed,
    /// Never made here.
    #[error("join token {0} is unknown here: was it made by another controller?")]
    Unknown(String),
    /// The public part is right, the secret is not.
    #[error("join token {0} has a wrong secret")]
    Wrong(String),
    /// Too late.
    #[error("join token {0} has expired: make a new one")]
    Expired(String),
    /// A token is good for one host.
    #[error("join token {0} was used by host {1}: make a new one for each host")]
    Used(String, HostId),
}

impl TokenError {
    /// What a stranger may know.
    pub fn public(&self) -> &'static str {
        "join token is not valid (unknown, expired or used): have a new one made"
    }
}

impl JoinToken {
    /// A token out of 8 public and 32 secret random bytes.
    pub fn make(id: [u8; 8], secret: [u8; 32], ca: Digest) -> Self {
        Self { id: hex(&id), secret: hex(&secret), ca }
    }

    /// A token out of the kernel's random bytes.
    pub fn random(ca: Digest) -> Self {
        Self::make(crate::identity::random(), crate::identity::random(), ca)
    }

    /// The token as it is given to a person.
    pub fn text(&self) -> String {
        format!("{PREFIX}.{}.{}.{}", self.id, self.secret, hex(&self.ca))
    }

    /// Reads a token's text; blanks around it are forgiven.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let parts: Vec<&str> = text.trim().split('.').collect();
        let [PREFIX, id, secret, ca] = parts[..] else { return Err(TokenError::Malformed) };
        let sized = |text: &str, bytes| unhex(text).is_some_and(|found| found.len() == bytes);
        match digest_from_hex(ca) {
            Some(ca) if sized(id, 8) && sized(secret, 32) => {
                Ok(Self { id: id.to_owned(), secret: secret.to_owned(), ca })
            }
            _ => Err(TokenError::Malformed),
        }
    }

    /// What `TokenMade` keeps of the secret.
    pub fn secret_digest(&self) -> String {
        hex(&sha256(self.secret.as_bytes()))
    }
}

/// The tokens of a controller: a fold over its audit stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens(BTreeMap<String, Made>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Made {
    secret_digest: String,
    labels: BTreeMap<String, String>,
    expires_ns: i64,
    /// By which host, and the digest of its key.
    used: Option<(HostId, String)>,
}

/// What a good token opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opens {
    /// A new host may join, with these labels.
    New(BTreeMap<String, String>),
    /// This host has joined with it. Whoever holds the key with this digest may hear the answer once more.
    Again {
        /// The host.
        host: HostId,
        /// SHA-256 of its public key, hexadecimal; empty when it is not known.
        key: String,
    },
}

impl Tokens {
    /// Takes one event of the audit stream; others than those of tokens change nothing.
    pub fn apply(&mut self, event: &Event) {
        match &event.body {
            Body::TokenMade { token, secret_digest, labels, expires_ns, .. } => {
                let (secret_digest, labels) = (secret_digest.clone(), labels.clone());
                let made = Made { secret_digest, labels, expires_ns: *expires_ns, used: None };
                // The first one counts: an id is never made twice.
                self.0.entry(token.clone()).or_insert(made);
            }
            Body::TokenUsed { token, host, key, .. } => {
                if let Some(made) = self.0.get_mut(token) {
                    made.used.get_or_insert_with(|| (host.clone(), key.clone()));
                }
            }
            _ => {}
        }
    }

    /// What `token` opens at wall time `now_ns`.
    ///
    /// The caller appends `TokenUsed` on condition that the audit stream still stands where this fold ended, or one
    /// token could let two hosts in.
    pub fn check(&self, token: &JoinToken, now_ns: i64) -> Result<Opens, TokenError> {
        let id = || token.id.clone();
        let made = self.0.get(&token.id).ok_or_else(|| TokenError::Unknown(id()))?;
        if !same(token.secret_digest().as_bytes(), made.secret_digest.as_bytes()) {
            return Err(TokenError::Wrong(id()));
        }
        if now_ns >= made.expires_ns {
            return Err(TokenError::Expired(id()));
        }
        Ok(match &made.used {
            Some((host, key)) => Opens::Again { host: host.clone(), key: key.clone() },
            None => Opens::New(made.labels.clone()),
        })
    }
}

#[cfg(test)]
mod tests {
    use fracas_model::time::{ClockId, Stamp};

    use super::*;

    fn event(body: Body) -> Event {
        Event { stream: "audit/c".to_owned(), seq: 1, received: stamp(), origin: None, body }
    }

    fn stamp() -> Stamp {
        Stamp { clock: ClockId { host: "c".into(), boot: "b".into() }, boot_ns: 0, wall_ns: 0, bound_ns: 0 }
    }

    fn made(token: &JoinToken, expires_ns: i64) -> Event {
        event(Body::TokenMade {
            token: token.id.clone(),
            secret_digest: token.secret_digest(),
            labels: BTreeMap::from([("role".to_owned(), "db".to_owned())]),
            expires_ns,
            by: "admin".to_owned(),
            at: stamp(),
        })
    }

    #[test]
    fn the_text_turns_round_and_nothing_else_is_taken() {
        let token = JoinToken::random([7; 32]);
        let text = token.text();
        assert_eq!(JoinToken::parse(&format!(" {text}\n")), Ok(token.clone()));
        assert_eq!(text.len(), 4 + 1 + 16 + 1 + 64 + 1 + 64);
        let hostile = [
            "",
            "fjt1",
            "fjt1...",
            &text[..text.len() - 1],
            &format!("{text}.x"),
            &text.replace("fjt1", "fjt2"),
            &format!("fjt1.{}.{}.{}", token.id, "z".repeat(64), hex(&token.ca)),
            &"\u{1f600}.".repeat(4),
        ];
        for bad in hostile {
            assert_eq!(JoinToken::parse(bad), Err(TokenError::Malformed), "{bad}");
        }
        assert_ne!(JoinToken::random([7; 32]).secret, token.secret);
    }

    #[test]
    fn a_token_is_for_one_host_until_it_expires() {
        let token = JoinToken::make([1; 8], [2; 32], [3; 32]);
        let forged = JoinToken { secret: "00".repeat(32), ..token.clone() };
        let mut tokens = Tokens::default();
        let id = token.id.clone();
        assert_eq!(tokens.check(&token, 0), Err(TokenError::Unknown(id.clone())));
        tokens.apply(&made(&token, 100));
        assert_eq!(tokens.check(&token, 99), Ok(Opens::New([("role".to_owned(), "db".to_owned())].into())));
        assert_eq!(tokens.check(&token, 100), Err(TokenError::Expired(id.clone())));
        assert_eq!(tokens.check(&forged, 99), Err(TokenError::Wrong(id.clone())));
        let used = |host: &str| Body::TokenUsed { token: id.clone(), host: host.into(), key: "k".into(), at: stamp() };
        tokens.apply(&event(used("h")));
        tokens.apply(&event(used("g")));
        tokens.apply(&made(&token, 1000));
        assert_eq!(
            tokens.check(&token, 99),
            Ok(Opens::Again { host: "h".into(), key: "k".into() }),
            "the first counts"
        );
        assert_eq!(tokens.check(&token, 100), Err(TokenError::Expired(id)));
    }
}
