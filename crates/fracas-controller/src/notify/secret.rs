//! Secrets by reference: where one stands, and its text for as long as it is used.
//!
//! The text itself is never shown: neither by `Debug` nor in an error nor in what a receiver answered.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Longest file of a secret, in bytes.
const LONGEST: u64 = 64 << 10;
/// So many characters of a secret in a row are no accident.
const FRAGMENT: usize = 6;

/// Where a secret stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Secret {
    /// In this variable of the controller's environment.
    Env(String),
    /// In this file, without the line end that closes it; read whenever it is used.
    File(PathBuf),
}

/// What may stand in the configuration itself, or elsewhere because it is secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Text {
    /// As it is.
    Plain(String),
    /// By reference.
    Secret(Secret),
}

/// The text of a secret.
pub(crate) struct Revealed(String);

impl std::fmt::Debug for Revealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

/// Why a secret is not there. It names where it should be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place} {why}")]
pub(crate) struct Missing {
    place: String,
    why: String,
}

impl Secret {
    /// Its text.
    pub(crate) async fn reveal(&self) -> Result<Revealed, Missing> {
        let secret = self.clone();
        let read = tokio::task::spawn_blocking(move || secret.read()).await;
        let text = read.unwrap_or_else(|_| Err("could not be read: the controller is ending".into()));
        let place = match self {
            Self::Env(name) => format!("the variable {name}"),
            Self::File(path) => format!("the file {}", path.display()),
        };
        text.map(Revealed).map_err(|why| Missing { place, why })
    }

    fn read(&self) -> Result<String, String> {
        use std::io::Read as _;
        let text = match self {
            Self::Env(name) => std::env::var(name).map_err(|_| "is not set for the controller, or is not text")?,
            Self::File(path) => {
                let mut text = String::new();
                let file = std::fs::File::open(path).map_err(|e| format!("cannot be read: {e}"))?;
                let read = file.take(LONGEST + 1).read_to_string(&mut text);
                read.map_err(|e| format!("cannot be read: {e}"))?;
                text
            }
        };
        let text = text.trim_end_matches(['\r', '\n']);
        match text.len() as u64 {
            0 => Err("is empty".into()),
            1..=LONGEST => Ok(text.to_owned()),
            _ => Err(format!("holds more than {LONGEST} bytes")),
        }
    }
}

impl Text {
    /// Its text.
    pub(super) async fn reveal(&self) -> Result<Revealed, Missing> {
        match self {
            Self::Plain(text) => Ok(Revealed(text.clone())),
            Self::Secret(secret) => secret.reveal().await,
        }
    }

    /// The reference, if it is one.
    pub(super) fn secret(&self) -> Option<&Secret> {
        match self {
            Self::Plain(_) => None,
            Self::Secret(secret) => Some(secret),
        }
    }
}

impl Revealed {
    /// The text, for use.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// Whether somebody repeats it, or a part of it. Of a URL the path and what follows is secret: names of servers are
    /// in many texts.
    pub(super) fn is_in(&self, said: &str) -> bool {
        let address = self.0.strip_prefix("https://").or_else(|| self.0.strip_prefix("http://"));
        let secret = address.map_or(self.0.as_str(), |rest| rest.split_once('/').unwrap_or_default().1);
        let whole: Vec<char> = secret.chars().collect();
        let many = FRAGMENT.min(whole.len());
        many > 0 && whole.windows(many).any(|part| said.contains(&part.iter().collect::<String>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_secret_is_read_where_it_stands_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let secret = Secret::File(path.clone());
        let missing = secret.reveal().await.unwrap_err().to_string();
        assert!(missing.starts_with(&format!("the file {} cannot be read", path.display())), "{missing}");
        std::fs::write(&path, "\n").unwrap();
        assert!(secret.reveal().await.unwrap_err().to_string().ends_with("is empty"));
        std::fs::write(&path, "hunter22\n").unwrap();
        let revealed = secret.reveal().await.unwrap();
        assert_eq!(revealed.text(), "hunter22");
        assert_eq!(format!("{revealed:?}"), "(secret)");
        for (said, is_in) in [("no key hunter22", true), ("cut: hunter", true), ("hunt", false), ("", false)] {
            assert_eq!(revealed.is_in(said), is_in, "{said}");
        }
        let url = Revealed("https://hooks.example.com/T0/B0/s3cr3t".into());
        assert!(url.is_in("POST /T0/B0/s") && !url.is_in("https://hooks.example.com knows no such hook"));
        let short = Revealed("abc".into());
        assert!(short.is_in("xabcx") && !short.is_in("ab"));
        // cargo sets it for every test.
        let env = Secret::Env("CARGO_MANIFEST_DIR".into()).reveal().await.unwrap();
        assert_eq!(env.text(), env!("CARGO_MANIFEST_DIR"));
        let unset = Secret::Env("FRACAS_NO_SUCH_VARIABLE".into()).reveal().await.unwrap_err().to_string();
        assert!(unset.starts_with("the variable FRACAS_NO_SUCH_VARIABLE is not set"), "{unset}");
    }

    #[tokio::test]
    async fn an_endless_file_is_no_secret() {
        let endless = Secret::File("/dev/zero".into()).reveal().await.unwrap_err().to_string();
        assert!(endless.contains("holds more than 65536 bytes"), "{endless}");
    }

    #[test]
    fn references_read_as_they_are_written() {
        let text = r#"{"env":"TOKEN"}"#;
        let read: Text = serde_json::from_str(text).unwrap();
        assert_eq!(read, Text::Secret(Secret::Env("TOKEN".into())));
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        assert_eq!(serde_json::from_str::<Text>("\"x\"").unwrap(), Text::Plain("x".into()));
    }
}
