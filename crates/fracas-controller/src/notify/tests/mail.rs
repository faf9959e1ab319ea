//! Mail against a server that speaks SMTP as servers do, with TLS and logins, and as servers should not.

use std::{collections::VecDeque, sync::Mutex};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;

use super::{
    receiver::{acceptor, certificate},
    *,
};
use crate::notify::connect::Wire;

/// What a server offers and does.
#[derive(Clone, Default)]
struct Manners {
    /// TLS, and whether from the first byte.
    tls: Option<(TlsAcceptor, bool)>,
    /// Ways to log in, and as whom.
    auth: Option<(&'static str, &'static str, &'static str)>,
    /// It hides STARTTLS.
    stripped: bool,
    /// It says this right behind its consent to STARTTLS.
    injected: &'static str,
    /// What it answers to the next commands that begin so, instead of the usual.
    instead: Arc<Mutex<VecDeque<(&'static str, &'static str)>>>,
}

/// A conversation that a server had: every command, and the mails.
#[derive(Debug, Default)]
pub(super) struct Had {
    pub(super) said: Vec<String>,
    mail: Option<String>,
}

/// A mail server on loopback.
pub(super) struct Server {
    pub(super) port: u16,
    had: mpsc::UnboundedReceiver<Had>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, had) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let mut had = Had::default();
                // A client that goes away ends it.
                let _ = match &manners.tls {
                    Some((tls, true)) => match tls.accept(stream).await {
                        Ok(stream) => converse(Box::new(stream), &manners, &mut had, true).await,
                        Err(_) => None,
                    },
                    _ => converse(Box::new(stream), &manners, &mut had, true).await,
                };
                let _ = tell.send(had);
            }
        });
        Self { port, had, task }
    }

    pub(super) async fn next(&mut self) -> Had {
        within(self.had.recv()).await.expect("it listens")
    }
}

/// `None`: the other side went away.
fn converse<'c>(stream: Box<dyn Wire>, manners: &'c Manners, had: &'c mut Had, greet: bool) -> Later<'c> {
    Box::pin(async move {
        let mut stream = BufReader::new(stream);
        if greet {
            stream.write_all(b"220 mail.example ESMTP\r\n").await.ok()?;
        }
        let secured = !greet || manners.tls.as_ref().is_some_and(|(_, implicit)| *implicit);
        let mut logged_in = manners.auth.is_none();
        loop {
            let line = line(&mut stream).await?;
            had.said.push(line.clone());
            let special = {
                let mut instead = manners.instead.lock().unwrap();
                let fits = instead.front().is_some_and(|(command, _)| line.starts_with(command));
                fits.then(|| instead.pop_front().unwrap().1)
            };
            if let Some(special) = special {
                stream.write_all(special.as_bytes()).await.ok()?;
                continue;
            }
            let answer = match line.split(' ').next()? {
                "EHLO" => {
                    let tls =
                        if manners.tls.is_some() && !secured && !manners.stripped { "250-STARTTLS\r\n" } else { "" };
                    let auth = manners.auth.filter(|_| secured).map(|(ways, ..)| format!("250-AUTH {ways}\r\n"));
                    format!("250-mail.example\r\n{tls}{}250 8BITMIME\r\n", auth.unwrap_or_default())
                }
                "STARTTLS" => {
                    let (tls, _) = manners.tls.as_ref()?;
                    stream.write_all(format!("220 go\r\n{}", manners.injected).as_bytes()).await.ok()?;
                    let secured = tls.accept(stream.into_inner()).await.ok()?;
                    return converse(Box::new(secured), manners, had, false).await;
                }
                "AUTH" => {
                    let (_, name, password) = manners.auth?;
                    let given = match line.as_str() {
                        "AUTH LOGIN" => {
                            stream.write_all(b"334 VXNlcm5hbWU6\r\n").await.ok()?;
                            let name = plain(&self::line(&mut stream).await?)?;
                            stream.write_all(b"334 UGFzc3dvcmQ6\r\n").await.ok()?;
                            format!("\0{name}\0{}", plain(&self::line(&mut stream).await?)?)
                        }
                        other => plain(other.strip_prefix("AUTH PLAIN ")?)?,
                    };
                    logged_in = given == format!("\0{name}\0{password}");
                    // Some repeat what they were told.
                    if logged_in { "235 welcome\r\n".into() } else { format!("535 not you: {given:?} {line}\r\n") }
                }
                "MAIL" | "RCPT" if !logged_in => "530 log in first\r\n".into(),
                "MAIL" | "RCPT" => "250 ok\r\n".into(),
                "DATA" => {
                    stream.write_all(b"354 go ahead\r\n").await.ok()?;
                    let mut mail = String::new();
                    loop {
                        match self::line(&mut stream).await?.as_str() {
                            "." => break,
                            line => mail.push_str(&format!("{}\r\n", line.strip_prefix('.').unwrap_or(line))),
                        }
                    }
                    had.mail = Some(mail);
                    "250 queued\r\n".into()
                }
                "QUIT" => return Some(()),
                _ => "500 what?\r\n".into(),
            };
            stream.write_all(answer.as_bytes()).await.ok()?;
        }
    })
}

type Later<'c> = std::pin::Pin<Box<dyn Future<Output = Option<()>> + Send + 'c>>;

async fn line(stream: &mut (impl AsyncBufRead + Unpin)) -> Option<String> {
    let mut line = String::new();
    let read = stream.read_line(&mut line).await.ok()?;
    // Every line of this protocol ends with both characters.
    (read > 0).then(|| line.strip_suffix("\r\n").expect("CRLF").to_owned())
}

fn plain(base64: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(base64).ok()?).ok()
}

/// A mail as a mail program reads it: headers by name, unfolded, and the text.
fn read(mail: &str) -> (BTreeMap<String, String>, String) {
    let (head, body) = mail.split_once("\r\n\r\n").expect("an empty line");
    let head = head.replace("\r\n ", " ");
    let header = |line: &str| line.split_once(": ").map(|(n, v)| (n.to_owned(), v.to_owned())).expect("a header");
    let headers: Vec<(String, String)> = head.split("\r\n").map(header).collect();
    let count = headers.len();
    let headers: BTreeMap<String, String> = headers.into_iter().collect();
    assert_eq!(headers.len(), count, "no header stands twice");
    (headers, plain(&body.replace("\r\n", "")).expect("text"))
}

fn mail(port: u16, more: &str) -> String {
    format!(
        "  - name: mail\n    email: {{ server: \"127.0.0.1:{port}\", from: fracas@example.com, \
         to: [sre@example.com, lead@example.com]{more} }}\n"
    )
}

/// A server that knows nobody, and repeats what it was told; and the file of the authority to trust.
pub(super) async fn suspicious(folder: &Path) -> (Server, String) {
    let (authority, certificate, key) = certificate();
    let tls = Some((acceptor(&certificate, &key), true));
    let auth = Some(("PLAIN", "fracas", "another password"));
    (Server::start(Manners { tls, auth, ..Manners::default() }).await, secret(folder, "ca.pem", &authority))
}

struct Keys {
    folder: tempfile::TempDir,
    ca: String,
    tls: TlsAcceptor,
    password: String,
}

fn keys() -> Keys {
    let folder = tempfile::tempdir().unwrap();
    let (authority, certificate, key) = certificate();
    let ca = secret(folder.path(), "ca.pem", &authority);
    let password = secret(folder.path(), "password", "hunter2-hunter2");
    Keys { folder, ca, tls: acceptor(&certificate, &key), password }
}

impl Keys {
    fn login(&self) -> String {
        format!(", ca: \"{}\", username: fracas, password: {{ file: \"{}\" }}", self.ca, self.password)
    }
}

#[tokio::test]
async fn a_mail_arrives_over_starttls_with_either_way_to_log_in() {
    let keys = keys();
    let _ = &keys.folder;
    for (ways, command) in [("PLAIN LOGIN", "AUTH PLAIN "), ("LOGIN", "AUTH LOGIN")] {
        let auth = Some((ways, "fracas", "hunter2-hunter2"));
        let tls = Some((keys.tls.clone(), false));
        let mut server = Server::start(Manners { tls, auth, ..Manners::default() }).await;
        let (history, _, _) = history().await;
        let notices = begin(&history, &mail(server.port, &keys.login())).await;
        quarantine(&history, "wéb-1").await;
        let had = server.next().await;
        assert_eq!(had.said[0], "EHLO [127.0.0.1]");
        assert_eq!(had.said[1], "STARTTLS");
        assert!(had.said.iter().any(|said| said.starts_with(command)), "{:?}", had.said);
        let said: Vec<&str> = had.said.iter().map(String::as_str).filter(|s| !s.starts_with("AUTH")).collect();
        let to = ["RCPT TO:<sre@example.com>", "RCPT TO:<lead@example.com>"];
        assert_eq!(said[2..], ["EHLO [127.0.0.1]", "MAIL FROM:<fracas@example.com>", to[0], to[1], "DATA", "QUIT"]);
        let (headers, text) = read(&had.mail.unwrap());
        assert_eq!(headers["From"], "fracas@example.com");
        assert_eq!(headers["To"], "sre@example.com, lead@example.com");
        assert_eq!(headers["Date"], "Tue, 24 Nov 2026 02:45:00 +0000");
        assert_eq!(headers["Auto-Submitted"], "auto-generated");
        assert_eq!(headers["Content-Type"], "text/plain; charset=utf-8");
        let words = headers["Subject"]
            .split(' ')
            .map(|word| plain(word.strip_prefix("=?utf-8?B?").unwrap().strip_suffix("?=").unwrap()).unwrap());
        let summary = "host wéb-1 is quarantined: run r1 was left unconfirmed on it";
        assert_eq!(words.collect::<String>(), summary);
        assert!(text.starts_with(&format!("{summary}\r\n\r\nevent: host.quarantined\r\n")), "{text}");
        within(notices.settled()).await;
    }
}

#[tokio::test]
async fn tls_from_the_first_byte_and_a_relay_without_any() {
    let keys = keys();
    let auth = Some(("PLAIN", "fracas", "hunter2-hunter2"));
    let mut server = Server::start(Manners { tls: Some((keys.tls.clone(), true)), auth, ..Manners::default() }).await;
    let (history, _, _) = history().await;
    let notices = begin(&history, &mail(server.port, &format!(", tls: implicit{}", keys.login()))).await;
    assert_eq!(within(notices.test("mail", "1", "admin")).await.unwrap().failed, None);
    assert!(server.next().await.mail.is_some());
    let mut relay = Server::start(Manners::default()).await;
    let notices = begin(&history, &mail(relay.port, ", tls: none")).await;
    assert_eq!(within(notices.test("mail", "1", "admin")).await.unwrap().failed, None);
    let (headers, _) = read(&relay.next().await.mail.unwrap());
    assert_eq!(headers["Subject"], "test of the channel mail, asked for by admin: nothing has happened");
}

#[tokio::test]
async fn no_name_and_no_reason_becomes_a_header_or_ends_the_mail() {
    let mut relay = Server::start(Manners::default()).await;
    let (history, _, _) = history().await;
    let evil = "x\r\nBcc: victim@example.com\r\n\r\n.\r\nMAIL FROM:<evil@example.com>";
    let template = "    template: { subject: \"${reason}\", text: \"${reason}\\r\\n.\\r\\n${by}\" }\n";
    let list = format!("{}{template}", mail(relay.port, ", tls: none"));
    let _notices = begin(&history, &list).await;
    halt(&history, evil).await;
    let had = relay.next().await;
    let from = had.said.iter().filter(|said| said.starts_with("MAIL")).count();
    assert_eq!((from, had.said.last().unwrap().as_str()), (1, "QUIT"), "{:?}", had.said);
    let (headers, text) = read(&had.mail.unwrap());
    assert_eq!(headers.keys().filter(|name| name.as_str() == "Bcc").count(), 0, "{headers:?}");
    assert!(text.ends_with("\r\n.\r\nadmin\r\n"), "{text:?}");
}

#[tokio::test]
async fn nothing_is_sent_in_the_open_when_tls_was_meant() {
    let keys = keys();
    let auth = Some(("PLAIN", "fracas", "hunter2-hunter2"));
    let tls = Some((keys.tls.clone(), false));
    let stripped = Manners { tls: tls.clone(), auth, stripped: true, ..Manners::default() };
    let injected = Manners { tls, auth, injected: "250 injected\r\n", ..Manners::default() };
    for (manners, wanted) in [(stripped, "does not offer STARTTLS"), (injected, "went on talking before TLS")] {
        let mut server = Server::start(manners).await;
        let (history, _, _) = history().await;
        let notices = begin(&history, &mail(server.port, &keys.login())).await;
        let failed = within(notices.test("mail", "1", "admin")).await.unwrap().failed.unwrap();
        assert!(failed.contains(wanted), "{failed}");
        let had = server.next().await;
        assert!(had.said.iter().all(|said| said.starts_with("EHLO") || said == "STARTTLS"), "{:?}", had.said);
    }
}

#[tokio::test]
async fn what_a_server_says_decides_whether_it_is_asked_again() {
    let instead = |all: &[(&'static str, &'static str)]| Arc::new(Mutex::new(all.iter().copied().collect()));
    let (history, _, _) = history().await;
    // Not now, then yes: a mail comes once.
    let later = instead(&[("RCPT TO:<lead", "451 come back later\r\n"), ("DATA", "452 no room\r\n")]);
    let mut server = Server::start(Manners { instead: later, ..Manners::default() }).await;
    let notices = begin(&history, &mail(server.port, ", tls: none")).await;
    quarantine(&history, "h1").await;
    let had = [server.next().await, server.next().await, server.next().await];
    assert_eq!(had.map(|had| had.mail.is_some()), [false, false, true]);
    within(notices.settled()).await;
    notices.end();
    // One recipient of two is unknown: the other gets it.
    let one = instead(&[("RCPT TO:<lead", "550 no such user\r\n")]);
    let mut server = Server::start(Manners { instead: one, ..Manners::default() }).await;
    let notices = begin(&history, &mail(server.port, ", tls: none")).await;
    assert_eq!(within(notices.test("mail", "1", "admin")).await.unwrap().failed, None);
    assert!(server.next().await.mail.is_some());
    notices.end();
    // Both are, or the server wants none of it: that is final.
    let refusals = [
        vec![("RCPT TO:<sre", "550 no such user\r\n"), ("RCPT TO:<lead", "550 no such user\r\n")],
        vec![("MAIL", "550 5.7.1 go\x07 away\r\n")],
    ];
    for (host, refusal) in ["h2", "h3"].into_iter().zip(refusals) {
        let mut server = Server::start(Manners { instead: instead(&refusal), ..Manners::default() }).await;
        let notices = begin(&history, &mail(server.port, ", tls: none")).await;
        quarantine(&history, host).await;
        assert!(server.next().await.mail.is_none());
        let given_up = async {
            while !became(&history, "mail")
                .await
                .iter()
                .any(|(id, n, why)| id.contains(host) && *n == 1 && why.is_some())
            {
                tokio::task::yield_now().await;
            }
        };
        within(given_up).await;
        notices.end();
    }
    let why = became(&history, "mail").await.pop().unwrap().2.unwrap();
    assert_eq!(why, "the mail server answered 550 to MAIL FROM");
}

#[tokio::test]
async fn who_does_not_speak_smtp_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (history, _, _) = history().await;
    let notices = begin(&history, &mail(port, ", tls: none")).await;
    let endless = "2".repeat(64 << 10);
    for said in [b"HTTP/1.1 200 OK\r\n", endless.as_bytes(), b"2\xc3\xa50 hello\r\n", b"999 x\r\n", b"22"] {
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            // It may have heard enough before the end.
            let _ = stream.write_all(said).await;
            let _ = stream.shutdown().await;
        };
        let (trial, ()) = within(async { tokio::join!(notices.test("mail", "1", "admin"), serve) }).await;
        let failed = trial.unwrap().failed.unwrap();
        assert!(["SMTP", "closed the connection", "connection reset"].iter().any(|w| failed.contains(w)), "{failed}");
    }
}
