//! SCRAM-SHA-256 as a client (RFC 5802, RFC 7677), without channel binding: texts in, texts out. It sends nothing and draws
//! no random number.

use std::num::NonZeroU32;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use ring::{digest, hmac, pbkdf2};

/// Fewest rounds of hashing that a server may ask for (RFC 7677, section 4): with fewer, whoever poses as the server could
/// guess the password from the answer.
const FEWEST_ROUNDS: u32 = 4096;
/// Most of them: 4,096, as is usual, take a millisecond.
const MOST_ROUNDS: u32 = 100_000;
/// The header that says: no channel binding.
const HEADER: &str = "n,,";

const STRANGE: &str = "the server's SCRAM is not understood";

/// The first message, with a nonce of printable characters other than commas. The user is told elsewhere.
pub(crate) fn first(nonce: &str) -> String {
    format!("{HEADER}n=,r={nonce}")
}

/// The second message and, in base64, the signature by which the server must prove that it knows the password too. Takes a
/// millisecond, or some tens of them. Passwords are used as they are: RFC 4013 changes none that is ASCII.
///
/// # Errors
/// The server's message is none, or asks for too much.
pub(crate) fn second(nonce: &str, challenge: &str, password: &str) -> Result<(String, String), String> {
    prove(&format!("n=,r={nonce}"), nonce, challenge, password)
}

/// The same, with all of the first message but its header.
fn prove(first: &str, nonce: &str, challenge: &str, password: &str) -> Result<(String, String), String> {
    let part = |name: &str| challenge.split(',').find_map(|part| part.strip_prefix(name)).ok_or(STRANGE);
    let (joint, salt, rounds) = (part("r=")?, part("s=")?, part("i=")?);
    let salt = BASE64.decode(salt).map_err(|_| STRANGE)?;
    let rounds: NonZeroU32 = rounds.parse().map_err(|_| STRANGE)?;
    if !joint.starts_with(nonce) || joint.len() == nonce.len() {
        return Err("the server's SCRAM answers somebody else".into());
    }
    if !(FEWEST_ROUNDS..=MOST_ROUNDS).contains(&rounds.get()) {
        return Err(format!(
            "the server wants {rounds} rounds of hashing: from {FEWEST_ROUNDS} to {MOST_ROUNDS} are taken"
        ));
    }
    let mut salted = [0; digest::SHA256_OUTPUT_LEN];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, password.as_bytes(), &mut salted);
    let key = |secret: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, secret);
    let client = hmac::sign(&key(&salted), b"Client Key");
    let stored = digest::digest(&digest::SHA256, client.as_ref());
    let bare = format!("c={},r={joint}", BASE64.encode(HEADER));
    let all = format!("{first},{challenge},{bare}");
    let signature = hmac::sign(&key(stored.as_ref()), all.as_bytes());
    let proof: Vec<u8> = client.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
    let server = hmac::sign(&key(hmac::sign(&key(&salted), b"Server Key").as_ref()), all.as_bytes());
    Ok((format!("{bare},p={}", BASE64.encode(proof)), BASE64.encode(server)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_7677_section_3() {
        let (nonce, salt) = ("rOprNGfwEbeRWgbNEkqO", "W22ZaJ0SNY7soEsUEjb6gQ==");
        let joint = format!("{nonce}%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0");
        let proved = prove(&format!("n=user,r={nonce}"), nonce, &format!("r={joint},s={salt},i=4096"), "pencil");
        let (message, signature) = proved.unwrap();
        assert_eq!(message, format!("c=biws,r={joint},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="));
        assert_eq!(signature, "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn a_challenge_is_answered_for_this_nonce_only() {
        let challenge = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let (message, signature) = second("rOprNGfwEbeRWgbNEkqO", challenge, "pencil").unwrap();
        assert!(message.starts_with("c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p="), "{message}");
        assert_eq!((first("x").as_str(), signature.len()), ("n,,n=,r=x", 44));
        // Another password, another proof and another signature.
        let other = second("rOprNGfwEbeRWgbNEkqO", challenge, "pencils").unwrap();
        assert!(other.0 != message && other.1 != signature);
        assert!(second("other", challenge, "pencil").unwrap_err().contains("somebody else"));
        for bad in [
            "",
            "r=a,s=,i=1",
            "r=ab,s=!,i=1",
            "r=ab,s=AA==,i=0",
            "r=ab,s=AA==,i=x",
            "r=ab,s=AA==,i=4000000000",
            "r=ab,s=AA==,i=4095",
        ] {
            assert!(second("a", bad, "p").is_err(), "{bad}");
        }
    }
}
