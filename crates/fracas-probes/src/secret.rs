//! Secrets that probes send, by reference: where one stands on this host, and its text while it is sent. The text itself is
//! never in a document, a history, a reason or a log.

use fracas_model::{
    plan::Refusal,
    policy::Policy,
    shape::{Field, Shape},
};
use serde_json::Value;

use crate::{Blocking, files, plain};

/// Longest file of a secret, in bytes: tokens of identity providers have some thousand.
const LONGEST: usize = 16 * 1024;
/// What the name of a variable must begin with, so that no document can ask for whatever else the agent was started with.
const PREFIX: &str = "FRACAS_SECRET_";

/// A text, or where it stands.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Secret {
    /// As the document has it.
    Plain(String),
    /// In this file, without the line end that closes it; read for each look, so that it may be changed at any time.
    File(String),
    /// In this variable of the agent's environment.
    Env(String),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain(_) => f.write_str("(text)"),
            Self::File(path) => write!(f, "file {path}"),
            Self::Env(name) => write!(f, "variable {name}"),
        }
    }
}

/// A text of at most `max` bytes, or a reference to one: for what is a secret only sometimes.
pub(crate) fn shape(max: usize) -> Shape {
    Shape::Either(vec![Shape::Text { max }, reference()])
}

/// A reference to a text, which is never in a document itself.
pub(crate) fn reference() -> Shape {
    Shape::OneOf(vec![
        Field::optional(
            "file",
            Shape::Path,
            "File on the host that looks, in a folder that its policy names as secretsIn.",
        ),
        Field::optional(
            "env",
            Shape::Text { max: 255 },
            "Variable of the agent's environment, whose name begins with FRACAS_SECRET_.",
        ),
    ])
}

impl Secret {
    /// A checked parameter of this form. `what` names it for the refusal.
    ///
    /// # Errors
    /// The host's policy does not let it be read.
    pub(crate) fn new(what: &str, value: &Value, policy: &Policy) -> Result<Self, Refusal> {
        let of = |key| value.get(key).and_then(Value::as_str).map(str::to_owned);
        if let Some(path) = of("file") {
            if policy.allows_secret(&path) {
                return Ok(Self::File(path));
            }
            return Err(Refusal::new(
                format!("{what}: this host's policy does not allow that {path} is read as a secret"),
                format!(
                    "put it into {}, or ask the owner of the host to add its folder to secretsIn",
                    policy.secrets_in.first().map_or("a folder", String::as_str)
                ),
            ));
        }
        if let Some(name) = of("env") {
            if name.starts_with(PREFIX) {
                return Ok(Self::Env(name));
            }
            let instead = format!("let its name begin with {PREFIX}");
            return Err(Refusal::new(format!("{what}: the variable {name} is not for documents"), instead));
        }
        Ok(Self::Plain(value.as_str().unwrap_or_default().to_owned()))
    }

    /// Its text.
    ///
    /// # Errors
    /// It is not there; the error names where it should be, and nothing of it.
    pub(crate) async fn reveal(&self) -> Result<String, String> {
        match self {
            Self::Plain(text) => Ok(text.clone()),
            Self::Env(name) => whole(std::env::var(name).map_err(|_| "it is not set, or is not text"))
                .map_err(|why| format!("the variable {name}: {why}")),
            Self::File(path) => {
                let file = path.clone();
                let read = Blocking::start(move || files::small(&file, LONGEST)).done().await?;
                let text = read.map_err(|e| format!("the secret {path}: {e}"))?;
                whole(String::from_utf8(text).map_err(|_| "it is not text"))
                    .map_err(|why| format!("the secret {path}: {why}"))
            }
        }
    }
}

/// A reason without the secret: a peer may repeat what it was told. As it will be shown, since a secret of several words may
/// come back on several lines.
pub(crate) fn hushed(why: String, secret: Option<&str>) -> String {
    match secret.filter(|secret| !secret.is_empty()) {
        Some(secret) => plain(&why).replace(&plain(secret), "..."),
        None => why,
    }
}

fn whole(text: Result<String, &'static str>) -> Result<String, &'static str> {
    let text = text?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err("it is empty"),
        text => Ok(text.to_owned()),
    }
}

/// A secret of this text in a folder of its own: a parameter that names it, and a policy that lets it be read.
#[cfg(test)]
pub(crate) fn kept(text: &str) -> (tempfile::TempDir, Value, Policy) {
    let dir = tempfile::tempdir().expect("a folder");
    let place = |name: &str| dir.path().join(name).to_str().expect("a path").to_owned();
    std::fs::write(place("secret"), text).expect("a file");
    let policy = Policy { secrets_in: vec![place("")], ..Policy::builtin() };
    let reference = serde_json::json!({ "file": place("secret") });
    (dir, reference, policy)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_is_hushed_as_it_would_be_shown() {
        let hush = |why: &str, secret: &str| hushed(why.to_owned(), Some(secret));
        assert_eq!(hush("no: hush-hush-hush!", "hush-hush-hush"), "no: ...!");
        assert_eq!(hush("no: hush\nhush\thush", "hush hush hush"), "no: ...");
        assert_eq!(hush("no: hush\thush", "hush\thush"), "no: ...");
        assert_eq!((hush("no", ""), hushed("no".into(), None)), ("no".into(), "no".to_owned()));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_file_is_read_anew_each_time_and_only_where_the_owner_allows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let place = |path: &std::path::Path| path.to_str().unwrap().to_owned();
        let policy = Policy { secrets_in: vec![place(folder.path())], ..Policy::builtin() };
        let secret = Secret::new("h", &json!({ "file": place(&path) }), &policy).unwrap();
        assert!(secret.reveal().await.unwrap_err().starts_with("the secret "));
        for text in ["one\n", "two"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(secret.reveal().await.unwrap(), text.trim());
        }
        std::fs::write(&path, "\n").unwrap();
        assert!(secret.reveal().await.unwrap_err().ends_with("it is empty"));
        assert!(!format!("{:?}", Secret::Plain("hush".into())).contains("hush"));
        for elsewhere in ["/etc/shadow", &format!("{}x/token", place(folder.path())), &place(folder.path())] {
            let refusal = Secret::new("h", &json!({ "file": elsewhere }), &policy).unwrap_err();
            assert!(refusal.why.contains(elsewhere) && refusal.instead.contains("secretsIn"), "{refusal:?}");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn only_variables_that_are_meant_for_it_are_read() {
        let policy = Policy::builtin();
        assert!(Secret::new("h", &json!({ "env": "PATH" }), &policy).unwrap_err().instead.contains(PREFIX));
        let absent = Secret::new("h", &json!({ "env": "FRACAS_SECRET_NONE" }), &policy).unwrap();
        assert!(absent.reveal().await.unwrap_err().contains("it is not set"));
        assert_eq!(Secret::new("h", &json!("as it is"), &policy).unwrap().reveal().await.unwrap(), "as it is");
    }
}
