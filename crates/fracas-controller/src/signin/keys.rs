//! The keys by which an identity provider signs ID tokens (RFC 7517), and whether one of them signed this one (RFC 7515).
//! They are kept for a while, so that a sign-in seldom asks for them; which token is for us is not looked at here.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ::ring::signature::{self as ring, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::{SignInError, claims::LONGEST, provider::Provider};

/// How long keys are good without being asked for again.
const KEPT: Duration = Duration::from_hours(1);
/// For a token that none of them has signed they are asked for again, but not more often than this.
const AGAIN: Duration = Duration::from_mins(1);
/// Most keys that are looked at.
const MOST: usize = 64;

/// A public key; those of kinds that sign no ID tokens are read too, and fit none.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Key {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    r#use: Option<String>,
    crv: String,
    n: String,
    e: String,
    x: String,
    y: String,
}

/// The keys of a provider out of what it publishes.
pub(super) fn read(published: &Value) -> Vec<Key> {
    let keys = published.get("keys").and_then(Value::as_array).into_iter().flatten().take(MOST);
    keys.filter_map(|key| serde_json::from_value(key.clone()).ok()).collect()
}

/// The keys of the provider, as they were last asked for. Clones are one and the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys(Arc<Mutex<Option<Kept>>>);

/// Keys, and when they were asked for.
#[derive(Clone, Debug)]
struct Kept {
    at: Instant,
    keys: Arc<Vec<Key>>,
}

impl Keys {
    /// Whether the provider has signed this token.
    pub(super) async fn check(&self, provider: &Provider, token: &str) -> Result<(), SignInError> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(Kept { at, keys }) = kept.filter(|kept| kept.at.elapsed() < KEPT) {
            match signed(token, &keys) {
                // The key may be a new one.
                Err(_) if at.elapsed() >= AGAIN => {}
                known => return known.map_err(SignInError::Denied),
            }
        }
        let keys = Arc::new(provider.keys().await?);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Kept { at: Instant::now(), keys: Arc::clone(&keys) });
        signed(token, &keys).map_err(SignInError::Denied)
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

/// Whether one of these keys has signed a token.
///
/// # Errors
/// Why that cannot be said.
pub(super) fn signed(token: &str, keys: &[Key]) -> Result<(), String> {
    if token.len() > LONGEST {
        return Err("its ID token is too long".to_owned());
    }
    let bad = || "its ID token is no signed token".to_owned();
    let (message, signature) = token.rsplit_once('.').ok_or_else(bad)?;
    let header = message.split_once('.').and_then(|(header, _)| decoded(header)).ok_or_else(bad)?;
    let Header { alg, kid, crit } = serde_json::from_slice(&header).map_err(|_| bad())?;
    let signature = decoded(signature).ok_or_else(bad)?;
    if crit.is_some() || !KNOWN.contains(&alg.as_str()) {
        let alg = alg.chars().filter(char::is_ascii_graphic).take(20).collect::<String>();
        return Err(format!("its ID token is signed by {alg}: let it use one of {}", KNOWN.join(", ")));
    }
    let fits = |key: &&Key| {
        let named = kid.is_none() || key.kid.is_none() || key.kid == kid;
        named && key.alg.as_ref().is_none_or(|of| *of == alg) && key.r#use.as_ref().is_none_or(|of| of == "sig")
    };
    let mut fitting = keys.iter().filter(fits);
    let signs = |key: &Key| key.signed(&alg, message.as_bytes(), &signature) == Some(true);
    if fitting.any(signs) { Ok(()) } else { Err("none of its keys has signed its ID token".to_owned()) }
}

/// Algorithms by which a token may be signed (RFC 7518, 3.1; RFC 8037).
const KNOWN: [&str; 6] = ["RS256", "RS512", "PS256", "ES256", "ES384", "EdDSA"];

impl Key {
    /// Whether this key has signed it so; `None` where it is of another kind.
    fn signed(&self, alg: &str, message: &[u8], signature: &[u8]) -> Option<bool> {
        let rsa = |how| {
            let [n, e] = [&self.n, &self.e].map(|number| decoded(number));
            let (n, e) = (n?, e?);
            let bare = |number: &[u8]| number.iter().position(|byte| *byte != 0).map(|at| number[at..].to_vec());
            let key = RsaPublicKeyComponents { n: bare(&n)?, e: bare(&e)? };
            Some(key.verify(how, message, signature).is_ok())
        };
        let point = |how: &'static dyn VerificationAlgorithm, size: usize| {
            let (x, y) = (decoded(&self.x)?, decoded(&self.y)?);
            // SEC 1, 2.3.3: uncompressed.
            let key = [&[4], x.as_slice(), y.as_slice()].concat();
            let right = x.len() == size && y.len() == size;
            right.then(|| UnparsedPublicKey::new(how, key).verify(message, signature).is_ok())
        };
        match (alg, self.kty.as_str(), self.crv.as_str()) {
            ("RS256", "RSA", _) => rsa(&ring::RSA_PKCS1_2048_8192_SHA256),
            ("RS512", "RSA", _) => rsa(&ring::RSA_PKCS1_2048_8192_SHA512),
            ("PS256", "RSA", _) => rsa(&ring::RSA_PSS_2048_8192_SHA256),
            ("ES256", "EC", "P-256") => point(&ring::ECDSA_P256_SHA256_FIXED, 32),
            ("ES384", "EC", "P-384") => point(&ring::ECDSA_P384_SHA384_FIXED, 48),
            ("EdDSA", "OKP", "Ed25519") => {
                Some(UnparsedPublicKey::new(&ring::ED25519, decoded(&self.x)?).verify(message, signature).is_ok())
            }
            _ => None,
        }
    }
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests;
