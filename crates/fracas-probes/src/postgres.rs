//! Probe `postgres`: opens a session with PostgreSQL and runs one query. It checks no table of its own and keeps no session.

use std::rc::Rc;

use fracas_model::{
    catalogue::{Params, ProbeInfo},
    plan::Refusal,
    policy::Policy,
    shape::{Field, Shape},
    tolerance::{self, ReadingField, Values},
};
use tokio::io::{AsyncRead, AsyncWrite};

use self::access::Access;
use crate::{
    LookFuture, Lookout, PrepareFuture, Probe, Seen,
    pgwire::{Client, Rows},
};

pub(crate) mod access;

/// Whether the server is a standby, asked of itself.
const RECOVERY: &str = "select pg_is_in_recovery()";

/// The `postgres` probe.
#[derive(Debug)]
pub struct Postgres;

#[derive(Debug)]
struct Ready {
    access: Access,
    question: Question,
}

/// What is asked once the session stands.
#[derive(Debug)]
struct Question {
    query: String,
    recovery: bool,
}

impl Probe for Postgres {
    fn info(&self) -> ProbeInfo {
        ProbeInfo {
            name: "postgres".into(),
            summary: "Opens a session with PostgreSQL and runs one query.".into(),
            help: HELP.into(),
            params: access::fields()
                .into_iter()
                .chain([Field::with_default(
                    "query",
                    Shape::Text { max: 4096 },
                    "select 1",
                    "What is run; read only, please.",
                )])
                .collect(),
            reading: vec![
                ReadingField::text("answer", "First column of the first row, as text; not known when it is NULL."),
                ReadingField::number("rows", "", "Rows that came."),
                ReadingField::flag("recovery", "Whether the server is a standby (pg_is_in_recovery)."),
            ],
            example: r#"{ address: "127.0.0.1:5432", user: fracas, tolerance: { recovery: { equals: false } } }"#
                .into(),
        }
    }

    fn ready(&self, params: &Params, policy: &Policy) -> Result<Box<dyn Lookout>, Refusal> {
        Ok(Box::new(Rc::new(Ready { access: Access::new(params, policy)?, question: Question::of(params) })))
    }
}

impl Lookout for Rc<Ready> {
    fn prepare(&self) -> PrepareFuture {
        self.access.prepare()
    }

    fn look(&self) -> LookFuture {
        let ready = self.clone();
        Box::pin(async move { ready.access.session(async |client| ready.question.ask(client).await).await })
    }
}

impl Question {
    fn of(params: &Params) -> Self {
        let query = params.text("query").unwrap_or("select 1").to_owned();
        Self { query, recovery: tolerance::wants(params, "recovery") }
    }

    async fn ask<S: AsyncRead + AsyncWrite + Unpin>(&self, client: &mut Client<S>) -> Seen {
        let Rows { rows, count, .. } = client.query(&self.query, 1).await?;
        let values = Values::new().with("rows", count);
        let first = |rows: Vec<Vec<Option<String>>>| rows.into_iter().next()?.into_iter().next()?;
        let values = values.with_known("answer", first(rows));
        if !self.recovery {
            return Ok(values);
        }
        match first(client.query(RECOVERY, 1).await?.rows).as_deref() {
            Some(told @ ("t" | "f")) => Ok(values.with("recovery", told == "t")),
            _ => Err("the server does not say whether it is a standby".into()),
        }
    }
}

/// What a look with these parameters, whose password may stand there as it is, and this nonce makes of what `stream` answers, for fuzzing.
#[cfg(fuzzing)]
pub async fn judge(params: &Params, nonce: &str, stream: impl AsyncRead + AsyncWrite + Unpin) -> Seen {
    let access = Access::new(params, &Policy::builtin()).map_err(|refusal| refusal.why)?;
    let (question, password) = (Question::of(params), access.password().await?);
    let ask = async |client: &mut Client<_>| question.ask(client).await;
    let seen = access.over(Client::over(stream), password.as_deref(), nonce, ask).await;
    crate::tolerated::compared(&Postgres, params, seen)
}

const HELP: &str = "\
Ok when the session opens and the query runs without an error, whatever it gives: what must come is said by `tolerance`, \
`{ answer: { equals: \"1\" } }` or `{ rows: { min: 1 } }`. So a server that starts up, shuts down, recovers or has no \
connection left fails with what it says, where a mere connection would look well.

`recovery` is asked for, with a query of its own, only when `tolerance` compares it: `{ recovery: { equals: false } }` \
sees a failover end. A query runs with all the rights of `user`: give the probe a role that may do nothing else, for \
`select 1` none is needed. A query that waits (for a lock, for a synchronous standby) fails with the probe's timeout, and \
the server may go on with it for a while.

Passwords are shown by SCRAM-SHA-256, which never sends them; the file is read for each look. A server that wants MD5, or \
the password as it is, gets it only where `passwordBy` says so: whoever answers on that address could ask for it, unless \
`tls: true` makes sure of the server first. Its certificate is then checked against `caFile` or the host's own authorities, \
as with `sslmode=verify-full`; a server that speaks no TLS fails. Without `tls`, one that insists on it (`hostssl`) refuses \
and says so.

Cost: one session per look, that is one new process of the server and some milliseconds: ask at `every: 200ms` or slower, \
and count it against max_connections. Answers of up to 256 KiB are read.";

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::secret;

    /// `R` 0 and `Z`: the session is open.
    const OPEN: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";

    fn row(text: &str) -> Vec<u8> {
        let length = u8::try_from(text.len()).unwrap();
        [b"D\0\0\0", &[length + 10][..], b"\0\x01\0\0\0", &[length], text.as_bytes(), b"Z\0\0\0\x05I"].concat()
    }

    async fn against(answers: &[&[u8]], mut params: serde_json::Value) -> Seen {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        params["address"] = listener.local_addr().unwrap().to_string().into();
        params["user"] = "me".into();
        let (_kept, reference, policy) = secret::kept("hush");
        if params.get("password").is_some() {
            params["password"] = reference;
        }
        let lookout = crate::ready(&Postgres, &serde_json::from_value(params).unwrap(), &policy).unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            for answer in answers {
                let mut piece = [0; 1024];
                let _ = stream.read(&mut piece).await.unwrap();
                stream.write_all(answer).await.unwrap();
            }
        };
        tokio::join!(lookout.look(), serve).0
    }

    #[tokio::test(flavor = "current_thread")]
    async fn answers_and_standbys_are_told() {
        let values = against(&[OPEN, &row("1")], json!({})).await.unwrap();
        assert_eq!(values, Values::new().with("rows", 1.0).with("answer", "1".to_owned()));
        let primary = json!({ "tolerance": { "recovery": { "equals": false } } });
        against(&[OPEN, &row("1"), &row("f")], primary.clone()).await.unwrap();
        let standby = against(&[OPEN, &row("1"), &row("t")], primary.clone()).await;
        assert_eq!(standby.unwrap_err(), "recovery was true, false wanted");
        assert!(against(&[OPEN, &row("1"), &row("x")], primary).await.unwrap_err().contains("standby"));
        assert_eq!(against(&[OPEN, b"Z\0\0\0\x05I"], json!({})).await.unwrap(), Values::new().with("rows", 0.0));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_the_server_says_is_the_reason_without_the_password() {
        let error = |text: &str| {
            [b"E\0\0\0", &[u8::try_from(text.len()).unwrap() + 8][..], b"M", text.as_bytes(), b"\0C\0"].concat()
        };
        let starting = against(&[&error("the database system is starting up")], json!({})).await.unwrap_err();
        assert_eq!(starting, "PostgreSQL says: the database system is starting up ()");
        let wrong = against(&[&error("hush is wrong")], json!({ "password": {} })).await.unwrap_err();
        assert!(!wrong.contains("hush") && wrong.contains("is wrong"), "{wrong}");
        assert_eq!(against(&[b""], json!({})).await.unwrap_err(), "connection closed early");
    }
}
