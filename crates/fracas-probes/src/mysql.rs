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
    LookFuture, Lookout, Probe, Seen, brief,
    connect::split,
    mywire::{Client, Login},
    secret::{self, Secret},
};

/// The `mysql` probe.
#[derive(Debug)]
pub struct Mysql;

#[derive(Debug)]
struct Ready {
    host: String,
    port: u16,
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
            ],
            reading: vec![
                ReadingField::text("answer", "First column of the first row, as text; not known when it is NULL."),
                ReadingField::number("rows", "", "Rows that came."),
                ReadingField::word("version", "What the server says that it is, such as 8.4.1."),
            ],
            example: r#"{ address: "127.0.0.1:3306", user: fracas, query: "select @@read_only", tolerance: { answer: { equals: "0" } } }"#.into(),
        }
    }

    fn ready(&self, params: &Params, policy: &Policy) -> Result<Box<dyn Lookout>, Refusal> {
        let address = params.text("address").unwrap_or_default();
        let (host, port) = split(address).ok_or_else(|| {
            Refusal::new(format!("mysql: {address:?} is not an address"), "write host:port, for example 127.0.0.1:3306")
        })?;
        let text = |name| params.text(name).map(str::to_owned);
        let secret = |value| Secret::new("mysql: password", value, policy);
        Ok(Box::new(Rc::new(Ready {
            host: host.to_owned(),
            port,
            user: text("user").unwrap_or_default(),
            database: text("database"),
            password: params.0.get("password").map(secret).transpose()?,
            query: text("query").unwrap_or_else(|| "select 1".into()),
        })))
    }
}

impl Lookout for Rc<Ready> {
    fn look(&self) -> LookFuture {
        let ready = self.clone();
        Box::pin(async move {
            let password = match &ready.password {
                Some(secret) => secret.reveal().await.map_err(brief)?,
                None => String::new(),
            };
            let client = Client::connect(&ready.host, ready.port).await?;
            let login = Login { user: &ready.user, database: ready.database.as_deref(), password: &password };
            // A server may repeat what it was told, at any time; of a reason that is cut already a part would be left.
            ask(client, login, &ready.query).await.map_err(|why| brief(secret::hushed(why, Some(&password))))
        })
    }
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(mut client: Client<S>, login: Login<'_>, query: &str) -> Seen {
    let version = client.authenticate(login).await?;
    let rows = client.query(query).await;
    client.quit().await;
    let rows = rows?;
    let values = Values::new().with("version", version).with("rows", rows.count);
    Ok(values.with_known("answer", rows.first.and_then(|row| row.into_iter().next()?)))
}

const HELP: &str = "\
Ok when the session opens and the query runs without an error, whatever it gives: what must come is said by `tolerance`. \
So a server that starts up, shuts down or has no connection left fails with what it says, where a mere connection would \
look well. `select @@read_only` with `{ answer: { equals: \"0\" } }` sees a failover end.

Passwords: mysql_native_password, and caching_sha2_password where the server still keeps the user's hash in its memory; \
after a restart of the server it does not, until the user logs in once over TLS or a Unix socket. TLS is not spoken here, \
and without it the whole exchange is refused, so that the password itself is never sent: the look then fails and says so. \
For a probe that must see a restart, use a user of mysql_native_password, or one without a password and without rights.

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

    #[tokio::test(flavor = "current_thread")]
    async fn a_look_is_a_session_and_a_query() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let params = json!({ "address": listener.local_addr().unwrap().to_string(), "user": "me" });
        let lookout = crate::ready(&Mysql, &serde_json::from_value(params).unwrap(), &Policy::builtin()).unwrap();
        let mut greeting = b"\x0a11.4-MariaDB\0\x01\0\0\0abcdefgh".to_vec();
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
        let values = tokio::join!(lookout.look(), serve).0.unwrap();
        let wanted = Values::new().with("version", "11.4-MariaDB".to_owned()).with("rows", 1.0);
        assert_eq!(values, wanted.with("answer", "1".to_owned()));
    }
}
