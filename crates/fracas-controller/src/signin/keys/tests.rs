//! Tokens that others signed, and what is wrong with those that are not to be trusted.

use ::ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use serde_json::json;

use super::*;

/// Made by Node's `crypto`: a key, and the same claims signed in two ways.
const N: &str = "rgzdl5tWmYqqXoTDb24aAg_FkCZoQ1JsZu3rAycacHx7-2DfH20T2CeViPj7E479Hp16MW07ttlHGinXvCEKAHYDwo8-YGBGSIaewAUXv9gQ6MzSxBRNLVz10UClgnmY4tFD3B7bFTbkjU2zMPYyn8OWIrRnNvudxc-SuE4aw9RszK-P4EJJ72DGWXI3j5VtN13e-eyYb1SIzNRZI6Y30MvKs0koE8gcWTDDeU4ddyssvf1rLvbk2jIgmRkG8KJJi2l30eAcetuO6H_9RIWDKwsHBbEsq5YdbGTP_xLCXEfzH7Y8EKKnjaxHB06ZPQSyMPHjFwEqpi9tx13k7-wHtQ";
const RS256: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6InIxIn0.eyJzdWIiOiJ1MSJ9.duyMuKyxTSBq7zq-E4Yr93RjciHxy5xGLgnPQi6i6o1cemISNRoBpg1zpUHnqskCIPVrjvINwZtVgJWSnpn_yGNMRP0lmHWjv5s9Pz_gi-lTZS9Q8t_P1AzprFIsQzy_FJskEQ53L9wGQbYN2QE1QcfHvHMir9xbzeC1-0vmh_WJJ8PxQNP7Fzi1VdGQy_AfZePU7xZDXh-ZMIhFiM2C3hJDm8ltJ6QJ4XmAjqfBPNAB6RiqNodrCFc1SR7c6O90IFo9axWJO88msnE3gcWfg91krshpRk6Rr-ZafAmRWZyAg5R7IvCbad4Xo1c8vkWs51RDJW-GgiOJHPlIEO85Iw";
const PS256: &str = "eyJhbGciOiJQUzI1NiIsImtpZCI6InIxIn0.eyJzdWIiOiJ1MSJ9.ZGUYEZXsKGa80TbvV4VtI7BVq6eUXup93Zk--25jAtt9LL1qV0Bq8XbJ-mB9hD4Fa0VOjGFPv2fDEQes0DyVdOe3BeWmpNTuI0qnfPUOuHFPU70x6NX_LwHm1bXieJ0c4Kwltff4qw5ApG9-m2Pszsh2-JWwLTgDThNrdNowcop7-SCOgG9s8Lz3t1K3tYn_IBziOb4zzR4wpUKgrX9nPIfkHHW9dqe6zR6hrYnbxehXBs_GFimRkxvE2c8j4uUv7d1r8sVEHs0tv0r6l11O_RHaoo0tTgQcO_gM84DnGsu-6F4bZspXhwPzfe7b5poRohmCpqK9IgwGErBoTAObbQ";

fn rsa(kid: &str) -> Value {
    json!({ "kty": "RSA", "kid": kid, "use": "sig", "n": N, "e": "AQAB" })
}

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn message(alg: &str, kid: &str) -> String {
    format!("{}.{}", encoded(json!({ "alg": alg, "kid": kid }).to_string()), encoded(r#"{"sub":"u1"}"#))
}

fn keys(all: &[Value]) -> Vec<Key> {
    read(&json!({ "keys": all }))
}

#[test]
fn what_a_key_of_the_provider_signed_is_taken() {
    let rsa = keys(&[json!({ "kty": "oct", "k": "AA" }), json!(7), rsa("other"), rsa("r1")]);
    assert_eq!((rsa.len(), signed(RS256, &rsa), signed(PS256, &rsa)), (3, Ok(()), Ok(())));
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
    let (text, point) = (message("ES256", "e1"), pair.public_key().as_ref()[1..].to_vec());
    let token = format!("{text}.{}", encoded(pair.sign(&random, text.as_bytes()).unwrap()));
    let (x, y) = (encoded(&point[..32]), encoded(&point[32..]));
    let curve = json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y });
    assert_eq!(signed(&token, &keys(&[curve])), Ok(()), "a key without a name may be any");
    let short = json!({ "kty": "EC", "crv": "P-256", "x": encoded(&point[1..32]), "y": y });
    assert!(signed(&token, &keys(&[short])).is_err());
    let pair = Ed25519KeyPair::from_pkcs8(Ed25519KeyPair::generate_pkcs8(&random).unwrap().as_ref()).unwrap();
    let text = message("EdDSA", "o1");
    let token = format!("{text}.{}", encoded(pair.sign(text.as_bytes())));
    let curve = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "o1", "x": encoded(pair.public_key()) });
    assert_eq!(signed(&token, &keys(&[curve])), Ok(()));
}

#[test]
fn whatever_else_is_refused() {
    let good = keys(&[rsa("r1")]);
    let (text, signature) = RS256.rsplit_once('.').unwrap();
    let other = text.replace(text.split_once('.').unwrap().1, &encoded(r#"{"sub":"u2"}"#));
    // The public key as a secret, the oldest trick of all.
    let secret = ::ring::hmac::Key::new(::ring::hmac::HMAC_SHA256, N.as_bytes());
    let mac = message("HS256", "r1");
    let mac = format!("{mac}.{}", encoded(::ring::hmac::sign(&secret, mac.as_bytes())));
    let critical = encoded(json!({ "alg": "RS256", "kid": "r1", "crit": ["exp"] }).to_string());
    let critical = format!("{critical}.{}.{signature}", encoded(r#"{"sub":"u1"}"#));
    for (token, why) in [
        (format!("{other}.{signature}"), "none of its keys"),
        (format!("{text}."), "none of its keys"),
        (format!("{text}.{}", encoded([0; 256])), "none of its keys"),
        (format!("{}.", message("none", "r1")), "signed by none: let it use one of RS256"),
        (mac, "signed by HS256"),
        (critical, "signed by RS256"),
        (format!("{}.{signature}", message("\u{1b}[2J", "r1")), "signed by [2J"),
        (text.split_once('.').unwrap().1.to_owned(), "no signed token"),
        (String::new(), "no signed token"),
        ("é.é.é".to_owned(), "no signed token"),
        (format!("{RS256}{}", "A".repeat(LONGEST)), "too long"),
    ] {
        assert!(signed(&token, &good).unwrap_err().contains(why), "{token:.80}");
    }
    // A key of another name, for another purpose, another algorithm or of another kind signs nothing.
    for change in [
        json!({ "kid": "r2" }),
        json!({ "use": "enc" }),
        json!({ "alg": "PS256" }),
        json!({ "kty": "EC", "crv": "P-256" }),
        json!({ "n": "" }),
        json!({ "n": "AAAA" }),
        json!({ "e": "AA" }),
    ] {
        let mut key = rsa("r1");
        key.as_object_mut().unwrap().extend(change.as_object().cloned().unwrap());
        assert!(signed(RS256, &keys(&[key])).is_err(), "{change}");
    }
    assert!(signed(RS256, &[]).is_err() && read(&json!(null)).is_empty());
    assert_eq!(keys(&vec![rsa("x"); 1000]).len(), MOST);
}
