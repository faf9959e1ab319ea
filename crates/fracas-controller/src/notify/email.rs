//! Channel `email`: one mail for each notice, over SMTP with STARTTLS or TLS from the start.
//!
//! Its words go through an encoding that no name and no reason can break out of.

mod message;
mod smtp;

use std::path::PathBuf;

use fracas_model::shape::{Field, Shape};
use serde::{Deserialize, Serialize};

use self::{message::Message, smtp::Login};
use super::{
    Failure, Letter,
    config::{self, Reading},
    secret::Secret,
};

/// Most recipients of one mail.
const MOST: usize = 50;

/// Where such a channel leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Email {
    /// The server, `host:port`.
    pub server: String,
    /// How the connection is protected.
    pub tls: Tls,
    /// Who it is from: an address.
    pub from: String,
    /// Whom it is for.
    pub to: Vec<String>,
    /// Whom to log in as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// With which password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Authorities to trust instead of the platform's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

/// How a connection to a mail server is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// Begun in the open, then protected, or not used at all (usually port 587).
    Starttls,
    /// From the first byte (usually port 465).
    Implicit,
    /// Not at all: for a relay on the same machine.
    None,
}

/// The form of `email`.
pub(super) fn shape() -> Shape {
    let address = || Shape::Text { max: 254 };
    Shape::Object(vec![
        Field::required("server", Shape::Address, "The mail server, host:port."),
        Field::with_default(
            "tls",
            Shape::choice(&["starttls", "implicit", "none"]),
            "starttls",
            "starttls (port 587), implicit (port 465), or none for a relay on this machine.",
        ),
        Field::required("from", address(), "Who it is from: an address."),
        Field::required("to", Shape::list(address(), MOST), "Whom it is for: addresses."),
        Field::optional("username", Shape::Text { max: 256 }, "Whom to log in as."),
        Field::optional("password", config::secret(), "With which password."),
        config::ca(),
    ])
}

impl Email {
    /// What its form alone does not say.
    pub(super) fn review(&self, reading: &mut Reading<'_, '_>) {
        let addresses = [("from", &self.from)].into_iter().chain(self.to.iter().map(|to| ("to", to)));
        for (key, address) in addresses.filter(|(_, address)| !is_address(address)) {
            let help = "write it as sre@example.com, without a name";
            reading.wrong(&["email", key], &format!("{address:?} is not a mail address"), help);
        }
        if self.username.is_some() != self.password.is_some() {
            let help = "give both `username` and `password`, or neither";
            reading.wrong(&["email"], "a login needs a name and a password", help);
        }
        if self.password.is_some() && self.tls == Tls::None {
            let help = "write `tls: starttls` or `tls: implicit`, or remove the login";
            reading.wrong(&["email", "tls"], "without TLS the password would travel in the open", help);
        }
    }

    /// Sends a notice.
    pub(super) async fn send(&self, letter: &Letter<'_>) -> Result<(), Failure> {
        let login = match (&self.username, &self.password) {
            (Some(name), Some(password)) => Some(Login { name: name.clone(), password: password.reveal().await? }),
            _ => None,
        };
        let text = Message { email: self, letter }.text();
        let mut talk = smtp::open(self).await?;
        talk.log_in(login.as_ref()).await?;
        let sent = talk.mail(&self.from, &self.to, &text).await;
        sent.map_err(|failure| failure.without(login.as_ref().map(|login| &login.password)))
    }
}

/// The simple form of RFC 5321's `Mailbox`: what could end a command or a header is not part of it.
fn is_address(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let allowed = |c: char, more: &str| c.is_ascii_alphanumeric() || more.contains(c);
    !local.is_empty()
        && local.len() <= 64
        && local.chars().all(|c| allowed(c, ".!#$%&'*+-/=?^_`{|}~"))
        && !domain.is_empty()
        && domain.chars().all(|c| allowed(c, ".-"))
        && domain.starts_with(|c: char| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_nothing_but_an_address() {
        for good in ["sre@example.com", "a.b+fracas@mail", "o'neil_1@x-y.example"] {
            assert!(is_address(good), "{good}");
        }
        let bad = ["", "sre", "@x", "sre@", "S R <s@x>", "a@b>\r\nRCPT TO:<c@d", "a@b c", "ä@x.de", "a@-x", "\"a\"@x"];
        for bad in bad {
            assert!(!is_address(bad), "{bad}");
        }
    }
}
