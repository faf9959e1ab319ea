//! A client of MySQL's protocol (<https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html>) over one
//! connection: greeting, TLS, passwords, simple queries. It prepares nothing.

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY as SHA1, SHA256, digest};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{connect::Link, tls::Secure, wire::Wire};

/// Longest answer to one message, bytes.
const LONGEST: usize = 256 * 1024;
/// Version of the greeting.
const GREETING: u8 = 10;
/// `CLIENT_*`: long password, protocol 4.1, transactions, secure connection, plugins.
const ABILITIES: u32 = 0x1 | 0x200 | 0x2000 | 0x8000 | 0x8_0000;
const WITH_DATABASE: u32 = 0x8;
const WITH_TLS: u32 = 0x800;
/// `utf8mb4_general_ci`, which MariaDB has too.
const CHARACTERS: u8 = 45;
const NATIVE: &str = "mysql_native_password";
const CACHING: &str = "caching_sha2_password";
/// First byte of answers.
const OK: u8 = 0;
const MORE: u8 = 1;
const SWITCH: u8 = 0xfe;
const ERROR: u8 = 0xff;
const NULL: u8 = 0xfb;
const COM_QUIT: u8 = 1;
const COM_QUERY: u8 = 3;
/// Any byte but 2, which would ask for the server's public key.
const NO_PASSWORD: u8 = 1;

const STRANGE: &str = "the answer is not MySQL's";

/// Who we are to the server.
#[derive(Clone, Copy)]
pub struct Login<'a> {
    /// The user.
    pub user: &'a str,
    /// The database, if one is to be opened.
    pub database: Option<&'a str>,
    /// The password; empty for none.
    pub password: &'a str,
}

/// What one statement gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// How many rows came.
    pub count: usize,
    /// The first of them as text; `None` is NULL.
    pub first: Option<Vec<Option<String>>>,
}

/// One connection.
pub struct Client<S> {
    wire: Wire<S>,
    /// Number of the next message of the present exchange.
    sequence: u8,
    /// What the server said first, where that was read already.
    greeting: Option<Greeting>,
    spoken: Spoken,
}

/// What a password may travel over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoken {
    Clear,
    /// TLS with whoever answers.
    Tls,
    /// TLS with a server that has proven who it is.
    Certain,
}

impl Client<Link> {
    /// Connects, with fresh resolution; over TLS where that is wanted, and then not without.
    ///
    /// # Errors
    /// Why there is no connection, in a few words, or what the server says instead of it.
    pub(crate) async fn connect(host: &str, port: u16, secure: Option<&Secure>) -> Result<Self, String> {
        let client = Self::new(Wire::connect(host, port, LONGEST).await?);
        match secure {
            Some(secure) => client.over_tls(secure).await,
            None => Ok(client),
        }
    }

    async fn over_tls(mut self, secure: &Secure) -> Result<Self, String> {
        let greeting = self.greet().await?;
        if !greeting.speaks_tls {
            return Err("the server speaks no TLS".into());
        }
        self.say(&head(ABILITIES | WITH_TLS)).await?;
        let spoken = if secure.certain() { Spoken::Certain } else { Spoken::Tls };
        Ok(Self { wire: self.wire.secured(secure).await?, sequence: self.sequence, greeting: Some(greeting), spoken })
    }
}

/// The beginning of what a client says: its abilities, the longest message that it takes, and its characters.
fn head(abilities: u32) -> Vec<u8> {
    let mut head = abilities.to_le_bytes().to_vec();
    head.extend_from_slice(&(1_u32 << 24).to_le_bytes());
    head.push(CHARACTERS);
    head.extend_from_slice(&[0; 23]);
    head
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// The same over a stream that is there.
    pub fn over(stream: S) -> Self {
        Self::new(Wire::over(stream, LONGEST))
    }

    fn new(wire: Wire<S>) -> Self {
        Self { wire, sequence: 0, greeting: None, spoken: Spoken::Clear }
    }

    async fn greet(&mut self) -> Result<Greeting, String> {
        let greeting = self.message().await?;
        if greeting.first() == Some(&ERROR) {
            return Err(said(&greeting));
        }
        Ok(Greeting::read(&greeting).ok_or(STRANGE)?)
    }

    /// Whether what is said is said over TLS.
    pub fn secured(&self) -> bool {
        self.spoken != Spoken::Clear
    }

    /// Opens the session, and gives the server's version, as long and as strange as the server likes.
    ///
    /// # Errors
    /// What the server says, or wants and we cannot.
    pub async fn authenticate(&mut self, login: Login<'_>) -> Result<String, String> {
        let greeting = match self.greeting.take() {
            Some(greeting) => greeting,
            None => self.greet().await?,
        };
        let (mut plugin, mut salt) = (greeting.plugin, greeting.salt);
        // What we cannot do the server will ask us to change.
        if plugin != NATIVE && plugin != CACHING {
            NATIVE.clone_into(&mut plugin);
        }
        let with_database = if login.database.is_some() { WITH_DATABASE } else { 0 };
        let with_tls = if self.spoken == Spoken::Clear { 0 } else { WITH_TLS };
        let mut message = head(ABILITIES | with_database | with_tls);
        terminated(&mut message, login.user)?;
        let proof = proof(&plugin, login.password, &salt)?;
        message.push(proof.len() as u8);
        message.extend_from_slice(&proof);
        if let Some(database) = login.database {
            terminated(&mut message, database)?;
        }
        terminated(&mut message, &plugin)?;
        self.say(&message).await?;
        loop {
            let answer = self.message().await?;
            match answer.split_first() {
                Some((&OK, _)) => return Ok(greeting.version),
                Some((&ERROR, _)) => return Err(said(&answer)),
                Some((&SWITCH, rest)) => {
                    let (name, after) = until_zero(rest).ok_or("the server wants a password of before MySQL 4.1")?;
                    (plugin, salt) = (name, after.strip_suffix(b"\0").unwrap_or(after).to_vec());
                    let proof = self::proof(&plugin, login.password, &salt)?;
                    self.say(&proof).await?;
                }
                // The hash that the server keeps in its memory fits.
                Some((&MORE, [3])) if plugin == CACHING => {}
                Some((&MORE, [4])) if plugin == CACHING && self.spoken == Spoken::Certain => {
                    let mut password = Vec::new();
                    terminated(&mut password, login.password)?;
                    self.say(&password).await?;
                }
                Some((&MORE, [4])) if plugin == CACHING => {
                    // Hung up on now, the server would count it against this host, and lock it out after
                    // max_connect_errors; one that was told something wrong refuses us alone.
                    self.say(&[NO_PASSWORD]).await?;
                    let _ = self.message().await;
                    return Err(match self.spoken {
                        Spoken::Clear => "the server has not kept this user's hash and wants TLS: write tls: true",
                        _ => "the server wants the password itself, which insecure shows to nobody: give caFile",
                    }
                    .into());
                }
                _ => return Err(STRANGE.into()),
            }
        }
    }

    /// Ends the session, so that the server does not count it as aborted.
    pub async fn quit(mut self) {
        self.sequence = 0;
        // Whoever is gone needs no farewell.
        let _ = self.say(&[COM_QUIT]).await;
    }

    /// Runs one statement, and reads all of its rows.
    ///
    /// # Errors
    /// What the server says, or rows without measure.
    pub async fn query(&mut self, sql: &str) -> Result<Rows, String> {
        self.sequence = 0;
        self.say(&[&[COM_QUERY], sql.as_bytes()].concat()).await?;
        let head = self.message().await?;
        let columns = match head.first() {
            Some(&OK) => return Ok(Rows::default()),
            Some(&ERROR) => return Err(said(&head)),
            Some(&NULL) | None => return Err(STRANGE.into()),
            Some(_) => number(&head).ok_or(STRANGE)?.0,
        };
        for _ in 0..columns {
            self.message().await?;
        }
        if !is_end(&self.message().await?) {
            return Err(STRANGE.into());
        }
        let mut rows = Rows::default();
        loop {
            let message = self.message().await?;
            if is_end(&message) {
                return Ok(rows);
            }
            if message.first() == Some(&ERROR) {
                return Err(said(&message));
            }
            let row = row(&message, columns).ok_or(STRANGE)?;
            rows.count += 1;
            rows.first.get_or_insert(row);
        }
    }

    async fn message(&mut self) -> Result<Vec<u8>, String> {
        let head = self.wire.exact(4).await?;
        if head[3] != self.sequence {
            return Err(STRANGE.into());
        }
        self.sequence = self.sequence.wrapping_add(1);
        self.wire.exact(usize::from(head[0]) | usize::from(head[1]) << 8 | usize::from(head[2]) << 16).await
    }

    async fn say(&mut self, message: &[u8]) -> Result<(), String> {
        let length = u32::try_from(message.len()).ok().filter(|length| *length < 1 << 24);
        let length = length.ok_or("the message is too long")?.to_le_bytes();
        let head = [length[0], length[1], length[2], self.sequence];
        self.sequence = self.sequence.wrapping_add(1);
        self.wire.send(&[&head, message].concat()).await
    }
}

/// What a server says first.
struct Greeting {
    version: String,
    salt: Vec<u8>,
    plugin: String,
    speaks_tls: bool,
}

impl Greeting {
    fn read(message: &[u8]) -> Option<Self> {
        let (first, rest) = message.split_first()?;
        let (version, rest) = until_zero(rest)?;
        // The number of the connection, then the salt in two parts.
        let (head, rest) = rest.get(4..)?.split_at_checked(8)?;
        let speaks_tls = rest.get(2).is_some_and(|abilities| u32::from(*abilities) << 8 & WITH_TLS != 0);
        // A zero, half of the abilities, characters, state, the other half, the salt's length, ten zeros.
        let tail = rest.get(1 + 2 + 1 + 2 + 2 + 1 + 10..)?;
        let (second, rest) = tail.split_at_checked(12)?;
        let (plugin, _) = until_zero(rest.get(1..)?)?;
        (*first == GREETING).then_some(Self { version, salt: [head, second].concat(), plugin, speaks_tls })
    }
}

/// What shows that we know the password, without telling it.
fn proof(plugin: &str, password: &str, salt: &[u8]) -> Result<Vec<u8>, String> {
    let password = password.as_bytes();
    let (mask, key) = match plugin {
        _ if password.is_empty() => return Ok(Vec::new()),
        NATIVE => {
            let once = digest(&SHA1, password);
            let twice = digest(&SHA1, once.as_ref());
            (digest(&SHA1, &[salt, twice.as_ref()].concat()), once)
        }
        CACHING => {
            let once = digest(&SHA256, password);
            let twice = digest(&SHA256, once.as_ref());
            (digest(&SHA256, &[twice.as_ref(), salt].concat()), once)
        }
        other => return Err(format!("the server wants {other}, which is not built")),
    };
    Ok(mask.as_ref().iter().zip(key.as_ref()).map(|(a, b)| a ^ b).collect())
}

fn terminated(message: &mut Vec<u8>, text: &str) -> Result<(), String> {
    if text.contains('\0') {
        return Err("a text with a zero byte cannot be sent".into());
    }
    message.extend_from_slice(text.as_bytes());
    message.push(0);
    Ok(())
}

fn until_zero(bytes: &[u8]) -> Option<(String, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((String::from_utf8_lossy(&bytes[..end]).into_owned(), &bytes[end + 1..]))
}

/// A number of one to nine bytes (`int<lenenc>`), and the rest.
fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let width = match first {
        0..=0xfa => return Some((usize::from(*first), rest)),
        0xfc => 2,
        0xfd => 3,
        0xfe => 8,
        _ => return None,
    };
    let (number, rest) = rest.split_at_checked(width)?;
    let number = number.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    Some((usize::try_from(number).ok()?, rest))
}

/// Whether a message ends a list: a short one, so that no long text is taken for it.
fn is_end(message: &[u8]) -> bool {
    message.first() == Some(&SWITCH) && message.len() < 9
}

fn row(message: &[u8], columns: usize) -> Option<Vec<Option<String>>> {
    let (mut row, mut rest) = (Vec::new(), message);
    for _ in 0..columns {
        if let Some((&NULL, after)) = rest.split_first() {
            row.push(None);
            rest = after;
            continue;
        }
        let (length, after) = number(rest)?;
        let (text, after) = after.split_at_checked(length)?;
        row.push(Some(String::from_utf8_lossy(text).into_owned()));
        rest = after;
    }
    Some(row)
}

/// All of what an error message tells: a number, and after it `#` with a state of five letters, and a text.
fn said(message: &[u8]) -> String {
    let code = message.get(1..3).map_or(0, |code| u16::from_le_bytes([code[0], code[1]]));
    let text = message.get(3..).unwrap_or_default();
    let text = if text.first() == Some(&b'#') { text.get(6..).unwrap_or_default() } else { text };
    format!("MySQL says: {} ({code})", String::from_utf8_lossy(text))
}

#[cfg(test)]
mod tests;
