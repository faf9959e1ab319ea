//! Probe `mysql`: opens a session with MySQL or MariaDB and runs one query. It checks no table of its own and keeps no
//! session.

use std::rc::Rc;

use fracas_model::{
    catalogue::{Params, ProbeInfo},
    plan::Refusal,
    policy::Policy,
    shape::{Field, Shape},
    tolerance::{ReadingField, Values},
};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    LookFuture, Lookout, PrepareFuture, Probe, Seen, brief,
    connect::address,
    mywire::{Client, Login},
    secret::{self, Secret},
    tls::{self, Secure},
};

/// The `mysql` probe.
#[derive(Debug)]
pub struct Mysql;

#[derive(Debug)]
struct Ready {
    host: String,
    port: u16,
    secure: Option<Secure>,
    user: String,
    database: Option<String>,
    password: Option<Secret>,
    query: String,
}

impl Probe for Mysql {
    fn info(&self) -> ProbeInfo {
        ProbeInfo {
            name: "mysql".into(),
            summary: "Opens a session with MySQL or MariaDB and runs one query.".into(),
            help: HELP.into(),
            params: vec![
                Field::required("address", Shape::Address, "Host and port; an IPv6 address in brackets."),
                Field::required("user", Shape::Text { max: 80 }, "User to be."),
                Field::optional("database", Shape::Text { max: 64 }, "Database to open."),
                Field::optional(
                    "password",
                    secret::reference(),
                    "Password, as { file: PATH } or { env: NAME } on the host that looks.",
                ),
                Field::with_default("query", Shape::Text { max: 4096 }, "select 1", "What is run; read only, please."),
            ]
            .into_iter()
            .chain(tls::fields())
            .collect(),
            reading: vec![
                ReadingField::text("answer", "First column of the first row, as text; not known when it is NULL."),
                ReadingField::number("rows", "", "Rows that came."),
                ReadingField::word("version", "What the server says that it is, such as 8.4.1."),
            ],
            example: r#"{ address: "127.0.0.1:3306", user: fracas, query: "select @@read_only", tolerance: { answer: { equals: "0" } } }"#.into(),
        }
    }

    fn ready(&self, params: &Params, policy: &Policy) -> Result<Box<dyn Lookout>, Refusal> {
        let (host, port) = address("mysql", params, 3306)?;
        let text = |name| params.text(name).map(str::to_owned);
        let secret = |value| Secret::new("mysql: password", value, policy);
        let secure = Secure::wanted("mysql", &host, params)?;
        Ok(Box::new(Rc::new(Ready {
            host,
            port,
            secure,
            user: text("user").unwrap_or_default(),
            database: text("database"),
            password: params.0.get("password").map(secret).transpose()?,
            query: text("query").unwrap_or_else(|| "select 1".into()),
        })))
    }
}

impl Lookout for Rc<Ready> {
    fn prepare(&self) -> PrepareFuture {
        Box::pin(tls::prepare(self.secure.clone()))
    }

    fn look(&self) -> LookFuture {
        let ready = self.clone();
        Box::pin(async move {
            let password = match &ready.password {
                Some(secret) => secret.reveal().await.map_err(brief)?,
                None => String::new(),
            };
            let client = Client::connect(&ready.host, ready.port, ready.secure.as_ref()).await;
            let client = client.map_err(|why| brief(secret::hushed(why, Some(&password))))?;
            let login = Login { user: &ready.user, database: ready.database.as_deref(), password: &password };
            session(client, login, &ready.query).await
        })
    }
}

async fn session<S: AsyncRead + AsyncWrite + Unpin>(client: Client<S>, login: Login<'_>, query: &str) -> Seen {
    // A server may repeat what it was told, at any time; of a reason that is cut already a part would be left.
    ask(client, login, query).await.map_err(|why| brief(secret::hushed(why, Some(login.password))))
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(mut client: Client<S>, login: Login<'_>, query: &str) -> Seen {
    let mut version = Some(client.authenticate(login).await?);
    if client.secured() {
        // What was said in clear may be anybody's word.
        version = client.query("select version()").await?.first.and_then(|row| row.into_iter().next()?);
    }
    let rows = client.query(query).await;
    client.quit().await;
    let rows = rows?;
    // Reasons show the version, and a server may call itself by what it was told in another session. Half a password is
    // one too: it is taken out before anything is cut.
    let version = version.map(|version| brief(secret::hushed(version, Some(login.password))));
    let values = Values::new().with_known("version", version).with("rows", rows.count);
    Ok(values.with_known("answer", rows.first.and_then(|row| row.into_iter().next()?)))
}

/// What a look with these parameters and this password, which may be empty, makes of what `stream` answers, for fuzzing.
#[cfg(fuzzing)]
pub async fn judge(params: &Params, password: &str, stream: impl AsyncRead + AsyncWrite + Unpin) -> Seen {
    let login = Login { user: "me", database: params.text("database"), password };
    let seen = session(Client::over(stream), login, "select 1").await;
    crate::tolerated::compared(&Mysql, params, seen)
}

const HELP: &str = "\
Ok when the session opens and the query runs without an error, whatever it gives: what must come is said by `tolerance`. \
So a server that starts up, shuts down or has no connection left fails with what it says, where a mere connection would \
look well. `select @@read_only` with `{ answer: { equals: \"0\" } }` sees a failover end.

Passwords: mysql_native_password and caching_sha2_password. Of the latter the server keeps the user's hash in its memory; \
after a restart it does not, and wants the password itself, which is sent to a server that has proven who it is, with \
`tls: true` and without `insecure`, and to no other: the look then fails and says so. For a probe that must see a restart \
without TLS, use a user of mysql_native_password, or one without a password and without rights.

With `tls: true` the server's certificate is checked against `caFile` or the host's own authorities, as the probe `http` \
does it; a server that speaks no TLS fails. It costs some milliseconds more per look.

A query runs with all the rights of `user`: for `select 1` none is needed. One that waits fails with the probe's timeout. \
Cost: one session per look, some milliseconds of the server: count it against max_connections. A \
server locks a host out whose connections break too often before the session stands (max_connect_errors): looks that \
their timeout ends then count, a wrong password does not. Answers of up to 256 KiB are read.";

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// A server may repeat the password after many words, where a reason is cut.
    #[tokio::test(flavor = "current_thread")]
    async fn a_password_is_not_in_the_reason_whoever_repeats_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (_kept, password, policy) = secret::kept("hush-hush-hush");
        let address = listener.local_addr().unwrap().to_string();
        let params = json!({ "address": address, "user": "me", "password": password });
        let lookout = crate::ready(&Mysql, &serde_json::from_value(params).unwrap(), &policy).unwrap();
        let said = format!("{}hush-hush-hush", "x".repeat(94));
        let body = [&[0xff, 0x15, 0x04][..], said.as_bytes()].concat();
        let message = [&[u8::try_from(body.len()).unwrap(), 0, 0, 0][..], &body].concat();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(&message).await.unwrap();
        };
        let why = tokio::join!(lookout.look(), serve).0.unwrap_err();
        assert!(why.starts_with("MySQL says: xxx") && !why.contains("hu"), "{why}");
    }

    /// What a look sees of a server that calls itself so and answers one row.
    async fn looked(version: &str, mut params: serde_json::Value, policy: &Policy) -> Seen {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        params["address"] = listener.local_addr().unwrap().to_string().into();
        let lookout = crate::ready(&Mysql, &serde_json::from_value(params).unwrap(), policy).unwrap();
        let mut greeting = [b"\x0a", version.as_bytes(), b"\0\x01\0\0\0abcdefgh"].concat();
        greeting.extend_from_slice(&[0; 19]);
        greeting.extend_from_slice(b"ijklmnopqrst\0mysql_native_password\0");
        let greeting = [&[u8::try_from(greeting.len()).unwrap(), 0, 0, 0][..], &greeting].concat();
        let answers: [&[u8]; 2] = [
            b"\x03\0\0\x02\0\0\0",
            b"\x01\0\0\x01\x01\x03\0\0\x02def\x05\0\0\x03\xfe\0\0\0\0\x02\0\0\x04\x011\x05\0\0\x05\xfe\0\0\0\0",
        ];
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(&greeting).await.unwrap();
            for answer in answers {
                let _ = stream.read(&mut [0; 1024]).await.unwrap();
                stream.write_all(answer).await.unwrap();
            }
        };
        tokio::join!(lookout.look(), serve).0
    }

    /// A server that has not kept the hash wants the password itself: it gets it once it has proven who it is, and not before.
    #[tokio::test(flavor = "current_thread")]
    async fn the_password_itself_is_for_a_server_that_is_certain() {
        let (acceptor, ca) = crate::tls::tests::server();
        let (_kept, password, policy) = secret::kept("hush");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("localhost:{}", listener.local_addr().unwrap().port());
        let numbered =
            |sequence: u8, body: &[u8]| [&[u8::try_from(body.len()).unwrap(), 0, 0, sequence][..], body].concat();
        let mut greeting = b"\x0a8.4.1\0\x01\0\0\0abcdefgh\0\0\x08".to_vec();
        greeting.extend_from_slice(&[0; 16]);
        greeting.extend_from_slice(b"ijklmnopqrst\0caching_sha2_password\0");
        let serve = async || {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(&numbered(0, &greeting)).await.unwrap();
            let mut asked = [0; 36];
            stream.read_exact(&mut asked).await.unwrap();
            assert_eq!((asked[3], asked[5] & 8), (1, 8), "TLS is asked for");
            let mut stream = acceptor.accept(stream).await.unwrap();
            let mut said = vec![0; 1024];
            let length = stream.read(&mut said).await.unwrap();
            assert_eq!(said[3], 2);
            assert!(!said[..length].windows(4).any(|part| part == b"hush"));
            stream.write_all(&numbered(3, &[1, 4])).await.unwrap();
            let length = stream.read(&mut said).await.unwrap();
            let answer = said[..length].to_vec();
            stream.write_all(&numbered(5, b"\xff\x15\x04#28000over")).await.unwrap();
            stream.flush().await.unwrap();
            answer
        };
        let looks = |more: serde_json::Value| {
            let mut params = json!({ "address": address, "user": "me", "password": password, "tls": true });
            params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            crate::ready(&Mysql, &serde_json::from_value(params).unwrap(), &policy).unwrap()
        };
        let certain = looks(json!({ "caFile": ca.path() }));
        let (seen, answer) = tokio::join!(certain.look(), serve());
        assert_eq!(answer, b"\x05\0\0\x04hush\0");
        assert_eq!(seen.unwrap_err(), "MySQL says: over (1045)");
        let anybody = looks(json!({ "insecure": true }));
        let (seen, answer) = tokio::join!(anybody.look(), serve());
        assert_eq!(answer, b"\x01\0\0\x04\x01", "something wrong");
        assert!(seen.unwrap_err().contains("give caFile"));
        // One that does not speak it is not spoken to without.
        let clear = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut plain = greeting.clone();
            let at = plain.windows(3).position(|part| part == b"\0\0\x08").unwrap();
            plain[at + 2] = 0;
            stream.write_all(&numbered(0, &plain)).await.unwrap();
            stream.read(&mut [0; 64]).await.unwrap()
        };
        let (seen, heard) = tokio::join!(looks(json!({ "insecure": true })).look(), clear);
        assert_eq!((seen.unwrap_err().as_str(), heard), ("the server speaks no TLS", 0));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_look_is_a_session_and_a_query() {
        let values = looked("11.4-MariaDB", json!({ "user": "me" }), &Policy::builtin()).await.unwrap();
        let wanted = Values::new().with("version", "11.4-MariaDB".to_owned()).with("rows", 1.0);
        assert_eq!(values, wanted.with("answer", "1".to_owned()));
    }

    /// Reasons show the version, which may be what the server was told in another session, also where it is cut.
    #[tokio::test(flavor = "current_thread")]
    async fn a_password_is_no_version() {
        let (_kept, password, policy) = secret::kept("hush-hush-hush");
        let params = json!({ "user": "me", "password": password, "tolerance": { "version": { "equals": "8.4.1" } } });
        let why = looked("8-hush-hush-hush", params.clone(), &policy).await.unwrap_err();
        assert_eq!(why, "version was \"8-...\", \"8.4.1\" wanted");
        let values = looked(&format!("{}hush-hush-hush", "8".repeat(110)), params, &policy).await;
        assert!(values.unwrap_err().starts_with("version was \"888"));
        let params = json!({ "user": "me", "password": password });
        let values = looked(&format!("{}hush-hush-hush", "8".repeat(110)), params, &policy).await.unwrap();
        assert_eq!(values.get("version"), Some(&format!("{}...", "8".repeat(110)).into()));
    }
}
