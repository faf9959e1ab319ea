//! One conversation with a mail server (RFC 5321): greeting, STARTTLS, login, one mail.
//!
//! What the server says is bounded. A reply of 4xx is tried again later, one of 5xx is final.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Email, Tls};
use crate::notify::{
    Failure,
    connect::{Wire, connect, secure, world},
    notice::one_line,
    secret::Revealed,
};

/// Longest reply, in bytes; real ones have some hundred.
const LONGEST_REPLY: usize = 16 << 10;
/// How much of one is shown, in characters.
const SHOWN: usize = 200;

/// Whom to log in as.
pub(super) struct Login {
    pub(super) name: String,
    pub(super) password: Revealed,
}

/// A conversation after its greeting.
pub(super) struct Talk {
    wire: Box<dyn Wire>,
    /// What came and was not read yet.
    ahead: Vec<u8>,
    /// What the server offers, a keyword and its parameters each.
    offers: Vec<String>,
    secured: bool,
}

struct Reply {
    code: u16,
    lines: Vec<String>,
}

impl Reply {
    fn class(&self) -> u16 {
        self.code / 100
    }

    fn failure(&self, to: &str) -> Failure {
        let why = format!("the mail server answered {} to {to}", self.code);
        let failure = if self.class() == 5 { Failure::never(why) } else { Failure::later(why) };
        Failure { said: one_line(&self.lines.join(" "), SHOWN), ..failure }
    }
}

/// Connects, says hello and protects the connection as the configuration wants.
pub(super) async fn open(email: &Email) -> Result<Talk, Failure> {
    let (host, port) = email.server.rsplit_once(':').unwrap_or((&email.server, "25"));
    let port = port.parse().map_err(|_| Failure::never("its server has no port"))?;
    let stream = connect(host, port).await?;
    let me = stream.local_addr().map_err(|e| Failure::later(world(&e)))?.ip().to_canonical();
    // Addresses stand in brackets there, those of IPv6 with a tag (RFC 5321, 4.1.3).
    let me = if me.is_ipv6() { format!("[IPv6:{me}]") } else { format!("[{me}]") };
    let ca = email.ca.as_deref();
    let implicit = email.tls == Tls::Implicit;
    let wire: Box<dyn Wire> = if implicit { secure(stream, host, ca).await? } else { Box::new(stream) };
    let mut talk = Talk { wire, ahead: Vec::new(), offers: Vec::new(), secured: implicit };
    let greeting = talk.reply().await?;
    if greeting.class() != 2 {
        return Err(greeting.failure("the connection"));
    }
    talk.hello(&me).await?;
    if email.tls == Tls::Starttls {
        if !talk.offers("STARTTLS") {
            return Err(Failure::later(
                "the mail server does not offer STARTTLS: see whether `tls: implicit` is meant",
            ));
        }
        talk.ask("STARTTLS", "STARTTLS", 2).await?;
        // What was said before the handshake is not the server's, whoever said it.
        if !talk.ahead.is_empty() {
            return Err(Failure::later("the mail server went on talking before TLS: somebody may be in between"));
        }
        talk.wire = secure(talk.wire, host, ca).await?;
        talk.secured = true;
        talk.hello(&me).await?;
    }
    Ok(talk)
}

impl Talk {
    async fn hello(&mut self, me: &str) -> Result<(), Failure> {
        let reply = self.ask(&format!("EHLO {me}"), "EHLO", 2).await?;
        self.offers = reply.lines.into_iter().skip(1).map(|line| line.to_ascii_uppercase()).collect();
        Ok(())
    }

    fn offers(&self, keyword: &str) -> bool {
        self.offers.iter().any(|offer| offer.split(' ').next() == Some(keyword))
    }

    /// Logs in, by whichever of the two ways the server offers.
    pub(super) async fn log_in(&mut self, login: Option<&Login>) -> Result<(), Failure> {
        let Some(Login { name, password }) = login else { return Ok(()) };
        if !self.secured {
            return Err(Failure::never("without TLS there is no login"));
        }
        let ways = self.offers.iter().find_map(|offer| offer.strip_prefix("AUTH ")).unwrap_or_default();
        let offered = |way: &str| ways.split(' ').any(|offered| offered == way);
        let reply = if offered("PLAIN") {
            let secret = STANDARD.encode(format!("\0{name}\0{}", password.text()));
            self.say(&format!("AUTH PLAIN {secret}")).await?
        } else if offered("LOGIN") {
            self.ask("AUTH LOGIN", "AUTH", 3).await?;
            self.said(&STANDARD.encode(name), "the login", 3).await?;
            self.say(&STANDARD.encode(password.text())).await?
        } else {
            return Err(Failure::later("the mail server offers neither AUTH PLAIN nor AUTH LOGIN"));
        };
        // A server may repeat what it was told: its words are not passed on.
        let said = Reply { lines: Vec::new(), ..reply };
        if said.class() == 2 { Ok(()) } else { Err(said.failure("the login")) }
    }

    /// Hands over one mail. Recipients that the server refuses are left out, as long as it takes some.
    pub(super) async fn mail(&mut self, from: &str, to: &[String], text: &str) -> Result<(), Failure> {
        self.ask(&format!("MAIL FROM:<{from}>"), "MAIL FROM", 2).await?;
        let (mut taken, mut refused) = (0, None);
        for recipient in to {
            let reply = self.say(&format!("RCPT TO:<{recipient}>")).await?;
            match reply.class() {
                2 => taken += 1,
                5 => {
                    tracing::warn!(recipient, code = reply.code, "the mail server refuses a recipient");
                    refused = Some(reply.failure("RCPT TO"));
                }
                // Those that were taken would get it twice.
                _ => return Err(reply.failure("RCPT TO")),
            }
        }
        if let Some(refused) = refused.filter(|_| taken == 0) {
            return Err(refused);
        }
        self.ask("DATA", "DATA", 3).await?;
        self.ask(&format!("{}.", dotted(text)), "the mail", 2).await?;
        // It has the mail: what it says to the farewell does not matter.
        let _ = self.wire.write_all(b"QUIT\r\n").await;
        Ok(())
    }

    /// Says something and expects a reply of this class.
    async fn ask(&mut self, line: &str, what: &str, class: u16) -> Result<Reply, Failure> {
        let reply = self.say(line).await?;
        if reply.class() == class { Ok(reply) } else { Err(reply.failure(what)) }
    }

    /// The same for what must not be shown again.
    async fn said(&mut self, line: &str, what: &str, class: u16) -> Result<(), Failure> {
        let reply = Reply { lines: Vec::new(), ..self.say(line).await? };
        if reply.class() == class { Ok(()) } else { Err(reply.failure(what)) }
    }

    async fn say(&mut self, line: &str) -> Result<Reply, Failure> {
        let all = async {
            self.wire.write_all(line.as_bytes()).await?;
            self.wire.write_all(b"\r\n").await?;
            self.wire.flush().await
        };
        all.await.map_err(|e| Failure::later(world(&e)))?;
        self.reply().await
    }

    /// One reply: lines of `250-...`, the last one `250 ...`.
    async fn reply(&mut self) -> Result<Reply, Failure> {
        let odd = || Failure::later("the mail server does not speak SMTP");
        let (mut lines, mut read) = (Vec::new(), 0);
        loop {
            let line = self.line().await?;
            read += line.len();
            if read > LONGEST_REPLY {
                return Err(odd());
            }
            let code: u16 = line.get(..3).and_then(|code| code.parse().ok()).ok_or_else(odd)?;
            if !(200..600).contains(&code) {
                return Err(odd());
            }
            lines.push(line.get(4..).unwrap_or_default().to_owned());
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(Reply { code, lines });
            }
        }
    }

    async fn line(&mut self) -> Result<String, Failure> {
        loop {
            if let Some(end) = self.ahead.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.ahead.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if self.ahead.len() > LONGEST_REPLY {
                return Err(Failure::later("the mail server does not speak SMTP"));
            }
            let mut more = [0; 1024];
            match self.wire.read(&mut more).await {
                Ok(0) => return Err(Failure::later("the mail server closed the connection")),
                Ok(n) => self.ahead.extend_from_slice(&more[..n]),
                Err(error) => return Err(Failure::later(world(&error))),
            }
        }
    }
}

/// A line that begins with a dot gets another, so that none ends the mail (RFC 5321, 4.5.2). `text` ends with CRLF.
fn dotted(text: &str) -> String {
    let lines = text.split_inclusive("\r\n");
    lines.map(|line| if line.starts_with('.') { format!(".{line}") } else { line.to_owned() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_a_mail_ends_it() {
        assert_eq!(dotted("a\r\n.\r\n..b\r\nc.\r\n"), "a\r\n..\r\n...b\r\nc.\r\n");
    }
}
