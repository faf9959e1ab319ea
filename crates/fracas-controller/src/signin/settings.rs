//! The identity provider in the controller's configuration: form, typed values, and which claims give which roles.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use fracas_model::{
    access::{self, Grant, Grants, Role},
    diagnostic::Findings,
    shape::{Field, Shape},
    tree::Node,
    units::Dur,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::claims::Claims;
use crate::{notify::secret::Secret, outgoing};

/// An identity provider, and what its word is worth here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// Its name, an `https` URL.
    pub issuer: String,
    /// What it calls this controller.
    pub client_id: String,
    /// Its secret with this controller, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<Secret>,
    /// Authorities to trust instead of the platform's, a PEM file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// What is asked for.
    pub scopes: Vec<String>,
    /// How long a sign-in is good.
    pub session: Dur,
    /// The claim that says what somebody may.
    pub claim: String,
    /// Roles by value of that claim, as `ROLE@ENVIRONMENT`; `*` for whoever signs in.
    pub roles: BTreeMap<String, Vec<String>>,
}

fn secret() -> Shape {
    Shape::OneOf(vec![
        Field::optional("env", Shape::Text { max: 256 }, "A variable of the controller's environment."),
        Field::optional("file", Shape::Path, "A file that holds it."),
    ])
}

/// The form of `signIn`.
pub fn shape() -> Shape {
    let texts = |max| Shape::List { of: Box::new(Shape::Text { max: 256 }), min: 1, max };
    Shape::Object(vec![
        Field::required("issuer", Shape::Url, "The identity provider, by its issuer URL."),
        Field::required("clientId", Shape::Text { max: 256 }, "What it calls this controller."),
        Field::optional(
            "clientSecret",
            secret(),
            "Its secret with this controller; without one it is a public client.",
        ),
        Field::optional("ca", Shape::Path, "Authorities to trust instead of the platform's, a PEM file."),
        Field::with_default(
            "scopes",
            texts(32),
            json!(["openid", "profile", "email"]),
            "What is asked for; many providers want one more for groups.",
        ),
        Field::with_default(
            "session",
            Shape::duration(Dur::from_secs(60), Dur::from_secs(7 * 86_400)),
            "8h",
            "How long a sign-in is good; what somebody may is settled anew at the next.",
        ),
        Field::with_default("claim", Shape::Text { max: 256 }, "groups", "The claim that says what somebody may."),
        Field::required(
            "roles",
            Shape::Map { of: Box::new(texts(64)), max: 1000 },
            "Roles by value of that claim, as ROLE@ENVIRONMENT; under `*` those of whoever signs in.",
        ),
    ])
}

/// Typed values out of checked ones; `node` is where they stand, for what the form cannot tell.
pub fn read(node: Option<&Node>, value: Option<&Value>, findings: &mut Findings<'_>) -> Option<Settings> {
    let value = value?;
    let place = |key: &str| node.and_then(|node| node.get(key)).map_or_else(Default::default, |node| node.span);
    let settings: Settings = match serde_json::from_value(value.clone()) {
        Ok(settings) => settings,
        Err(error) => {
            findings.error(place("issuer"), format!("`signIn` cannot be read: {error}"), "correct it");
            return None;
        }
    };
    if !outgoing::is_sure(&settings.issuer) {
        let help = "write https://; plain HTTP is for providers on loopback";
        findings.error(place("issuer"), "whoever is between could sign in as anybody", help);
    }
    if !settings.scopes.iter().any(|scope| scope == "openid") {
        findings.error(place("scopes"), "without `openid` there is no ID token", "add `openid`");
    }
    for text in settings.roles.values().flatten() {
        if let Err(why) = granted(text) {
            let help = "write a role and where: operator@staging, viewer@*";
            findings.error(place("roles"), format!("{text:?}: {why}"), help);
        }
    }
    Some(settings)
}

fn granted(text: &str) -> Result<Grant, String> {
    let (role, place) = text.split_once('@').unwrap_or((text, access::DEFAULT_ENVIRONMENT));
    let role: Role = role.parse()?;
    let environment = if place == access::EVERYWHERE { place.to_owned() } else { access::environment(place)? };
    Ok(Grant { environment, role })
}

/// As a configuration file gives them again.
pub fn written(settings: &Settings) -> String {
    // JSON text is YAML too.
    format!("signIn: {}\n", serde_json::to_string(settings).expect("only text keys"))
}

impl Settings {
    /// What these claims give.
    pub(super) fn grants(&self, claims: &Claims) -> Grants {
        let values: BTreeSet<&str> = claims.values(&self.claim).into_iter().chain(["*"]).collect();
        let given = self.roles.iter().filter(|(value, _)| values.contains(value.as_str())).flat_map(|(_, roles)| roles);
        Grants(given.filter_map(|text| granted(text).ok()).collect())
    }
}
