//! What an ID token says, checked: for us, of this issuer, still good (OpenID Connect Core 1.0, 3.1.3.7). That the issuer
//! signed it is settled before, in [`super::keys`].

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

/// Longest ID token, bytes.
pub(super) const LONGEST: usize = 64 << 10;
/// How far the two clocks may be apart.
const LEEWAY_NS: i64 = 60_000_000_000;

/// What is known of a person who signs in.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Claims {
    /// Name of the person at the issuer, for ever the same.
    pub(super) subject: String,
    /// Full name.
    pub(super) name: String,
    /// Address.
    pub(super) email: String,
    /// What they like to be called.
    preferred: String,
    /// All of it.
    all: Value,
}

impl Claims {
    /// Reads an ID token at wall time `now_ns`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(token: &str, issuer: &str, client: &str, now_ns: i64) -> Result<Self, String> {
        if token.len() > LONGEST {
            return Err("its ID token is too long".to_owned());
        }
        let payload = token.split('.').nth(1).ok_or("its ID token is no token")?;
        let bytes = URL_SAFE_NO_PAD.decode(payload).map_err(|_| "its ID token is not in base64")?;
        let all: Value = serde_json::from_slice(&bytes).map_err(|_| "its ID token holds no JSON")?;
        let text = |name: &str| all.get(name).and_then(Value::as_str).unwrap_or_default();
        if text("iss") != issuer {
            return Err(format!("its ID token is of another issuer than {issuer}"));
        }
        let ours = match all.get("aud") {
            Some(Value::String(one)) => one == client,
            Some(Value::Array(several)) => {
                several.iter().any(|one| one == client) && (several.len() == 1 || text("azp") == client)
            }
            _ => false,
        };
        if !ours {
            return Err("its ID token is for another client".to_owned());
        }
        let seconds = |name: &str| all.get(name).and_then(Value::as_f64).map(|s| (s * 1e9) as i64);
        match seconds("exp") {
            Some(end_ns) if now_ns < end_ns.saturating_add(LEEWAY_NS) => {}
            Some(_) => return Err("its ID token has expired: are both clocks right?".to_owned()),
            None => return Err("its ID token never expires".to_owned()),
        }
        if seconds("iat").is_some_and(|at_ns| at_ns > now_ns.saturating_add(LEEWAY_NS)) {
            return Err("its ID token is of the future: are both clocks right?".to_owned());
        }
        let subject = text("sub");
        if subject.is_empty() || subject.len() > 255 || subject.chars().any(char::is_control) {
            return Err("its ID token names nobody".to_owned());
        }
        let plain = |name: &str| text(name).chars().filter(|c| !c.is_control()).take(200).collect::<String>();
        let preferred = [plain("preferred_username"), plain("email"), subject.to_owned()];
        let preferred = preferred.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
        Ok(Self { subject: subject.to_owned(), name: plain("name"), email: plain("email"), preferred, all })
    }

    /// The values of a claim that holds one text or several.
    pub(super) fn values(&self, claim: &str) -> Vec<&str> {
        match self.all.get(claim) {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// A handle out of the name; the `number`th try at one that is free, from 1.
    pub(super) fn handle(&self, number: u32) -> String {
        let local = self.preferred.split('@').next().unwrap_or_default().to_lowercase();
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_');
        let name: String = local.chars().map(|c| if fits(c) { c } else { '-' }).take(48).collect();
        let name = name.trim_matches(['-', '.', '_']);
        // Not somebody's pseudonym, and not who is there anyway.
        let taken = name.is_empty() || name.starts_with("p-") || matches!(name, "admin" | "controller");
        let name = if taken { format!("user-{name}").trim_end_matches('-').to_owned() } else { name.to_owned() };
        if number == 1 { name } else { format!("{name}-{number}") }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) fn token(claims: &Value) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    fn read(change: impl FnOnce(&mut Value)) -> Result<Claims, String> {
        let mut claims = json!({
            "iss": "https://idp", "aud": "fracas", "sub": "u1", "exp": 100, "iat": 50, "name": "Anna",
            "preferred_username": "Anna.Berg@example.org", "groups": ["sre", 7, "ops"]
        });
        change(&mut claims);
        Claims::read(&token(&claims), "https://idp", "fracas", 90_000_000_000)
    }

    #[test]
    fn a_good_token_says_who_it_is() {
        let claims = read(|_| {}).unwrap();
        assert_eq!((claims.subject.as_str(), claims.values("groups")), ("u1", vec!["sre", "ops"]));
        assert_eq!((claims.handle(1), claims.handle(3)), ("anna.berg".into(), "anna.berg-3".into()));
        assert!(read(|c| c["aud"] = json!(["fracas"])).is_ok());
        assert!(read(|c| (c["aud"], c["azp"]) = (json!(["fracas", "x"]), json!("fracas"))).is_ok());
    }

    #[test]
    fn whatever_is_not_for_us_or_not_now_is_refused() {
        for (why, change) in [
            ("another issuer", json!({ "iss": "https://idp/" })),
            ("another client", json!({ "aud": "other" })),
            ("another client", json!({ "aud": ["fracas", "other"] })),
            ("another client", json!({ "aud": null })),
            ("expired", json!({ "exp": 29 })),
            ("never expires", json!({ "exp": null })),
            ("of the future", json!({ "iat": 151 })),
            ("names nobody", json!({ "sub": "" })),
            ("names nobody", json!({ "sub": "a\nb" })),
        ] {
            let refused = read(|claims| {
                let change = change.as_object().cloned().unwrap_or_default();
                claims.as_object_mut().unwrap().extend(change);
            });
            assert!(refused.unwrap_err().contains(why), "{why}: {change}");
        }
        for junk in ["", "a", "a.b", "a.!!.c", "a.bm8.c", &"x".repeat(LONGEST + 1)] {
            assert!(Claims::read(junk, "i", "c", 0).is_err(), "{junk:.20}");
        }
    }

    #[test]
    fn handles_are_plain_whatever_the_provider_says() {
        let named = |name: &str| {
            let claims = read(|c| c["preferred_username"] = json!(name)).unwrap();
            crate::people::Entry { handle: claims.handle(1), ..Default::default() }.checked().unwrap().handle
        };
        assert_eq!(named("ADMIN"), "user-admin");
        assert_eq!(named("p-12ab"), "user-p-12ab");
        assert_eq!(named("Ünal Ö"), "nal");
        assert_eq!(named("../../x"), "x");
        assert_eq!(named("日本"), "user");
    }
}
