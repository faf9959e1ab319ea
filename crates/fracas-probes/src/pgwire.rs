//! A client of PostgreSQL's protocol 3.0 (<https://www.postgresql.org/docs/current/protocol.html>) over one connection:
//! TLS, startup, passwords, simple queries. It prepares and copies nothing.

use std::borrow::Cow;

use md5::{Digest as _, Md5};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{Blocking, connect::Link, scram, tls::Secure, wire::Wire};

/// Longest answer to one message, bytes.
const LONGEST: usize = 256 * 1024;
/// Version 3.0.
const PROTOCOL: i32 = 3 << 16;
/// `SSLRequest`: its length, and 1234 and 5679 as its code.
const SSL_REQUEST: [i32; 2] = [8, 80_877_103];

const STRANGE: &str = "the answer is not PostgreSQL's";

/// Who we are to the server.
#[derive(Clone, Copy)]
pub struct Login<'a> {
    /// The role.
    pub user: &'a str,
    /// The database.
    pub database: &'a str,
    /// Its password, if there is one.
    pub password: Option<&'a str>,
    /// The weakest way in which it may be shown.
    pub by: By,
}

/// How a password is shown, from the weakest to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    /// As it is: whoever answers on that address has it.
    Clear,
    /// Hashed with a salt of the server's: whoever answers may guess at it.
    Md5,
    /// SCRAM-SHA-256: never sent, and the server proves that it knows it too.
    Scram,
}

/// What a query gave: of several statements, all of their rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Each row's columns as text, of as many as were to be kept; `None` is NULL.
    pub rows: Vec<Vec<Option<String>>>,
    /// How many came.
    pub count: usize,
    /// What the last statement did: `SELECT 1`.
    pub tag: String,
}

impl By {
    fn words(self) -> &'static str {
        match self {
            Self::Clear => "as it is",
            Self::Md5 => "as MD5",
            Self::Scram => "by SCRAM-SHA-256",
        }
    }
}

/// One connection.
pub struct Client<S> {
    wire: Wire<S>,
    refused: Option<String>,
    warned: Option<String>,
}

impl Client<Link> {
    /// Connects, with fresh resolution; over TLS where that is wanted, and then not without.
    ///
    /// # Errors
    /// Why there is no connection, in a few words.
    pub(crate) async fn connect(host: &str, port: u16, secure: Option<&Secure>) -> Result<Self, String> {
        let mut wire = Wire::connect(host, port, LONGEST).await?;
        if let Some(secure) = secure {
            wire.send(&SSL_REQUEST.map(i32::to_be_bytes).concat()).await?;
            wire = match wire.byte().await? {
                b'S' => wire.secured(secure).await?,
                b'N' => return Err("the server speaks no TLS".into()),
                // One that has no room says so as it can, and whoever is between us may say anything.
                b'E' => return Err("the server refused before TLS".into()),
                _ => return Err(STRANGE.into()),
            };
        }
        Ok(Self { wire, refused: None, warned: None })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// The same over a stream that is there.
    pub fn over(stream: S) -> Self {
        Self { wire: Wire::over(stream, LONGEST), refused: None, warned: None }
    }

    /// Opens the session: without a password, with one as it is, MD5 or SCRAM-SHA-256, as the server wants. `nonce` is
    /// random and printable, without commas.
    ///
    /// # Errors
    /// What the server says, or wants and we cannot.
    pub async fn authenticate(&mut self, login: Login<'_>, nonce: &str) -> Result<(), String> {
        let mut startup = PROTOCOL.to_be_bytes().to_vec();
        let parameters = [
            ("user", login.user),
            ("database", login.database),
            ("application_name", "fracas-probe"),
            ("client_encoding", "UTF8"),
        ];
        for text in parameters.into_iter().flat_map(|(name, value)| [name, value]) {
            startup.extend_from_slice(&terminated(text)?);
        }
        startup.push(0);
        let length = i32::try_from(startup.len() + 4).map_err(|_| "the login is too long")?;
        self.wire.send(&[&length.to_be_bytes()[..], &startup].concat()).await?;
        let password = |by: By| match login.password {
            None => Err("the server wants a password, and none is given".to_owned()),
            Some(password) if by >= login.by => Ok(password),
            Some(_) => Err(format!("the server wants the password {}: see passwordBy", by.words())),
        };
        let mut proved = false;
        loop {
            let (kind, body) = self.message(b"RKSNZE").await?;
            match (kind, code(&body)) {
                // All is well; the session's key, settings and notices.
                (b'R', Some((0, _))) | (b'K' | b'S' | b'N', _) => {}
                (b'R', Some((3, _))) => self.say(b'p', &terminated(password(By::Clear)?)?).await?,
                (b'R', Some((5, salt))) => {
                    self.say(b'p', &terminated(&md5_answer(login.user, password(By::Md5)?, salt))?).await?;
                }
                (b'R', Some((10, offers))) if offers.split(|b| *b == 0).any(|offer| offer == b"SCRAM-SHA-256") => {
                    // Hashing is work: once for a session.
                    if std::mem::replace(&mut proved, true) {
                        return Err(STRANGE.into());
                    }
                    self.scram(password(By::Scram)?, nonce).await?;
                }
                (b'R', Some(_)) => return Err("the server wants an authentication that is not built".into()),
                (b'Z', _) => return Ok(()),
                (b'E', _) => return Err(said(&body)),
                _ => return Err(STRANGE.into()),
            }
        }
    }

    async fn scram(&mut self, password: &str, nonce: &str) -> Result<(), String> {
        let first = scram::first(nonce);
        let length = i32::try_from(first.len()).map_err(|_| STRANGE)?;
        self.say(b'p', &[b"SCRAM-SHA-256\0", &length.to_be_bytes()[..], first.as_bytes()].concat()).await?;
        let challenge = self.sasl(11).await?;
        // Hashing takes a millisecond or more, which other probes' ticks must not feel.
        let (nonce, password) = (nonce.to_owned(), password.to_owned());
        let answer = Blocking::start(move || scram::second(&nonce, &challenge, &password)).done().await?;
        let (second, signature) = answer?;
        self.say(b'p', second.as_bytes()).await?;
        match self.sasl(12).await?.strip_prefix("v=") {
            Some(shown) if shown == signature => Ok(()),
            _ => Err("the server does not know the password either".into()),
        }
    }

    /// The text of an authentication message of this kind.
    async fn sasl(&mut self, wanted: i32) -> Result<String, String> {
        let (kind, body) = self.message(b"RE").await?;
        match (kind, code(&body)) {
            (b'R', Some((code, text))) if code == wanted => {
                String::from_utf8(text.to_vec()).map_err(|_| STRANGE.to_owned())
            }
            (b'E', _) => Err(said(&body)),
            _ => Err(STRANGE.into()),
        }
    }

    /// Runs statements that take no parameters, and gives up to `keep` of their rows as text. What is not ours must be quoted
    /// by the caller.
    ///
    /// # Errors
    /// What the server says, or rows without measure.
    pub async fn query(&mut self, sql: &str, keep: usize) -> Result<Rows, String> {
        self.say(b'Q', &terminated(sql)?).await?;
        let (mut all, mut error) = (Rows::default(), None);
        loop {
            let (kind, body) = match self.message(b"DCETISNAZGHW").await {
                Ok(message) => message,
                // A server that shuts down says so and closes.
                Err(why) => return Err(error.unwrap_or(why)),
            };
            match kind {
                b'D' => {
                    let row = row(&body).ok_or(STRANGE)?;
                    all.count += 1;
                    if all.rows.len() < keep {
                        all.rows.push(row);
                    }
                }
                b'C' => all.tag = String::from_utf8_lossy(body.strip_suffix(b"\0").unwrap_or(&body)).into_owned(),
                b'E' => {
                    self.refused = field(&body, b'C').map(Cow::into_owned);
                    error = Some(said(&body));
                }
                b'N' if field(&body, b'V').is_some_and(|severity| severity == "WARNING") => {
                    self.warned = Some(said(&body));
                }
                // The form of rows, an empty query, settings, notices, notifications.
                b'T' | b'I' | b'S' | b'N' | b'A' => {}
                b'Z' => return error.map_or(Ok(all), Err),
                b'G' | b'H' | b'W' => return Err("the query copies, which is not built".into()),
                _ => return Err(STRANGE.into()),
            }
        }
    }

    /// SQLSTATE of the error with which the server answered last (PostgreSQL's documentation, appendix A).
    pub fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// What the server warned of while it answered, of which the last.
    pub fn warned(&self) -> Option<&str> {
        self.warned.as_deref()
    }

    /// The next message, which must be one of these kinds: another one is somebody else's, and so is its length.
    async fn message(&mut self, kinds: &[u8]) -> Result<(u8, Vec<u8>), String> {
        let kind = self.wire.byte().await?;
        if !kinds.contains(&kind) {
            return Err(STRANGE.into());
        }
        let length = self.wire.exact(4).await?;
        let length = <[u8; 4]>::try_from(length).map(i32::from_be_bytes).map_err(|_| STRANGE)?;
        let length = length.checked_sub(4).and_then(|length| usize::try_from(length).ok()).ok_or(STRANGE)?;
        Ok((kind, self.wire.exact(length).await?))
    }

    async fn say(&mut self, kind: u8, body: &[u8]) -> Result<(), String> {
        let length = i32::try_from(body.len() + 4).map_err(|_| "the message is too long")?;
        self.wire.send(&[&[kind], &length.to_be_bytes()[..], body].concat()).await
    }
}

fn terminated(text: &str) -> Result<Vec<u8>, String> {
    if text.contains('\0') {
        return Err("a text with a zero byte cannot be sent".into());
    }
    Ok([text.as_bytes(), b"\0"].concat())
}

/// The number with which a message begins, and the rest.
fn code(body: &[u8]) -> Option<(i32, &[u8])> {
    let (code, rest) = body.split_first_chunk::<4>()?;
    Some((i32::from_be_bytes(*code), rest))
}

/// `md5` and the hash of the hash of password and user, with the salt.
fn md5_answer(user: &str, password: &str, salt: &[u8]) -> String {
    let hex = |bytes: &[&[u8]]| {
        let mut hash = Md5::new();
        for part in bytes {
            hash.update(part);
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    format!("md5{}", hex(&[hex(&[password.as_bytes(), user.as_bytes()]).as_bytes(), salt]))
}

/// What an error message tells: fields of a letter and a text each. It is as long and as strange as the server likes.
fn said(body: &[u8]) -> String {
    let (message, code) = (field(body, b'M').unwrap_or_default(), field(body, b'C').unwrap_or_default());
    format!("PostgreSQL says: {message} ({code})")
}

/// A field of an error or a notice.
fn field(body: &[u8], wanted: u8) -> Option<Cow<'_, str>> {
    let mut fields = body.split(|byte| *byte == 0).filter_map(|field| field.split_first());
    fields.find(|(name, _)| **name == wanted).map(|(_, text)| String::from_utf8_lossy(text))
}

/// The columns of a row; `None` when it is cut short.
fn row(body: &[u8]) -> Option<Vec<Option<String>>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut columns = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = code(rest)?;
        rest = after;
        columns.push(match usize::try_from(length) {
            Ok(length) => {
                let (text, after) = rest.split_at_checked(length)?;
                rest = after;
                Some(String::from_utf8_lossy(text).into_owned())
            }
            // -1 is NULL.
            Err(_) => None,
        });
    }
    Some(columns)
}

#[cfg(test)]
mod tests;
