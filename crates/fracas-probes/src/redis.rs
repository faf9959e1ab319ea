//! Probe `redis`: asks a Redis server (or one that speaks as it does) for a sign of life, a key, its role. It writes nothing.

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
    resp::{Client, Value},
};

pub(crate) mod access;

/// Fields that only `INFO replication` gives.
const REPLICATION: [&str; 4] = ["role", "connectedReplicas", "masterLinkUp", "replicationOffset"];

/// The `redis` probe.
#[derive(Debug)]
pub struct Redis;

#[derive(Debug)]
struct Ready {
    access: Access,
    question: Question,
}

/// What is asked once the connection stands.
#[derive(Debug)]
struct Question {
    key: Option<String>,
    replication: bool,
}

impl Probe for Redis {
    fn info(&self) -> ProbeInfo {
        ProbeInfo {
            name: "redis".into(),
            summary: "Asks Redis for a sign of life, a key or its role in replication.".into(),
            help: HELP.into(),
            params: access::fields()
                .into_iter()
                .chain([Field::optional(
                    "key",
                    Shape::Text { max: 512 },
                    "Key that must hold a text, instead of a PING.",
                )])
                .collect(),
            reading: vec![
                ReadingField::text("answer", "What PING answers, or what the key holds."),
                ReadingField::word("role", "As the server says: master or slave."),
                ReadingField::number("connectedReplicas", "", "Replicas that are connected to it."),
                ReadingField::flag("masterLinkUp", "Whether its link to its master is up; known of replicas only."),
                ReadingField::number("replicationOffset", "bytes", "How far it is in the stream of replication."),
            ],
            example: r#"{ address: "127.0.0.1:6379", tolerance: { role: { equals: master } } }"#.into(),
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
        Box::pin(
            async move { ready.access.session(async |client, hushed| ready.question.ask(client, hushed).await).await },
        )
    }
}

impl Question {
    fn of(params: &Params) -> Self {
        let replication = REPLICATION.iter().any(|field| tolerance::wants(params, field));
        Self { key: params.text("key").map(str::to_owned), replication }
    }

    async fn ask<S>(&self, client: &mut Client<S>, hushed: &dyn Fn(String) -> String) -> Seen
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let answer = match &self.key {
            Some(key) => match client.command(&[b"GET", key.as_bytes()]).await? {
                Value::Nil => return Err("there is no such key".into()),
                value => value,
            },
            None => match client.command(&[b"PING"]).await? {
                Value::Text(text) if text == b"PONG" => Value::Text(text),
                other => return Err(format!("answered \"{other}\" to PING")),
            },
        };
        let values = Values::new().with("answer", answer.to_string());
        if !self.replication {
            return Ok(values);
        }
        Ok(replication(values, &client.command(&[b"INFO", b"replication"]).await?.to_string(), hushed))
    }
}

/// What a look with these parameters, whose password may stand there as it is, makes of what `stream` answers, for fuzzing.
#[cfg(fuzzing)]
pub async fn judge(params: &Params, stream: impl AsyncRead + AsyncWrite + Unpin) -> Seen {
    let access = Access::new(params, &Policy::builtin()).map_err(|refusal| refusal.why)?;
    let (question, password) = (Question::of(params), access.password().await?);
    let ask = async |client: &mut Client<_>, hushed: &dyn Fn(String) -> String| question.ask(client, hushed).await;
    let seen = access.over(Client::over(stream), password.as_deref(), ask).await;
    crate::tolerated::compared(&Redis, params, seen)
}

/// The fields that `INFO replication` gives: lines of `name:value` (<https://redis.io/docs/latest/commands/info/>).
fn replication(values: Values, info: &str, hushed: impl Fn(String) -> String) -> Values {
    let line = |name: &str| info.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'));
    let number = |name: &str| line(name).and_then(|text| text.parse::<u64>().ok());
    values
        // Reasons show it.
        .with_known("role", line("role").map(|role| hushed(role.to_owned())))
        .with_known("connectedReplicas", number("connected_slaves"))
        .with_known("masterLinkUp", line("master_link_status").map(|status| status == "up"))
        // A replica counts in its master's stream, a master in its own.
        .with_known("replicationOffset", number("slave_repl_offset").or(number("master_repl_offset")))
}

const HELP: &str = "\
Ok when the connection is made, the password (if given) is taken, and PING is answered with PONG or, with `key`, the key \
holds a text. So a server that still loads its data, that refuses because it lost its master, or that has no connection \
left for clients fails with what it says, where a mere connection would look well. A full memory (maxmemory) refuses \
writes only, and is not seen.

The other fields come from INFO replication, which is asked only when `tolerance` compares one of them: `{ role: { equals: \
master } }` sees a failover end, `{ masterLinkUp: { equals: true } }` a replica that follows again.

Each look resolves the name anew, makes a new connection and closes it. Values of up to 256 KiB are read. The password \
is read for each look, from the host, and travels as it is: where the network is not trusted, write `tls: true`, with which \
TLS is spoken from the first byte (the server's `tls-port`) and its certificate checked against `caFile` or the host's own \
authorities. A user of Redis 6 needs `+ping`, for `key` `+get` and a \
pattern of keys that holds it (`~shop:*`), for `database` `+select`, for the other fields `+info`, and no more.

Cost: one connection and two to five short commands per look.";

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::secret;

    /// Whatever is given as the password, it is `hush`.
    fn ready(mut params: serde_json::Value) -> Result<(Box<dyn Lookout>, tempfile::TempDir), Refusal> {
        let (kept, reference, policy) = secret::kept("hush");
        if params.get("password").is_some() {
            params["password"] = reference;
        }
        Ok((crate::ready(&Redis, &serde_json::from_value(params).unwrap(), &policy)?, kept))
    }

    /// A server that answers one command after another with these, and what it was asked.
    async fn against(answers: &[&str], mut params: serde_json::Value) -> (Seen, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        params["address"] = listener.local_addr().unwrap().to_string().into();
        let (lookout, _kept) = ready(params).unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            for answer in answers {
                let mut piece = [0; 1024];
                let got = stream.read(&mut piece).await.unwrap();
                asked.extend_from_slice(&piece[..got]);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            String::from_utf8(asked).unwrap()
        };
        tokio::join!(lookout.look(), serve)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn life_keys_and_roles_are_told() {
        let (seen, asked) = against(&["+PONG\r\n"], json!({})).await;
        assert_eq!(seen.unwrap(), Values::new().with("answer", "PONG".to_owned()));
        assert_eq!(asked, "*1\r\n$4\r\nPING\r\n");
        let info =
            "# Replication\r\nrole:slave\r\nmaster_link_status:down\r\nslave_repl_offset:7\r\nconnected_slaves:2\r\n";
        let info = format!("${}\r\n{info}\r\n", info.len());
        let (ok, master) = ("+OK\r\n", json!({ "masterLinkUp": { "equals": true }, "role": { "equals": "slave" } }));
        let with_password = json!({ "password": "hush", "tolerance": master });
        let why = against(&[ok, "+PONG\r\n", &info], with_password).await.0.unwrap_err();
        assert_eq!(why, "masterLinkUp was false, true wanted");
        let wanted = json!({ "database": 3, "key": "k", "tolerance": { "masterLinkUp": { "equals": true } } });
        let (seen, asked) = against(&["+OK\r\n", "$1\r\nv\r\n", &info], wanted).await;
        assert_eq!(seen.unwrap_err(), "masterLinkUp was false, true wanted");
        assert!(asked.contains("SELECT\r\n$1\r\n3\r\n") && asked.contains("GET\r\n$1\r\nk\r\n"), "{asked}");
        let values =
            replication(Values::new(), "role:master\r\nconnected_slaves:2\r\nmaster_repl_offset:9\r\n", |role| role);
        let master = Values::new().with("role", "master".to_owned()).with("connectedReplicas", 2.0);
        assert_eq!(values, master.with("replicationOffset", 9.0));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn each_way_to_fail_has_its_name() {
        for (answers, params, why) in [
            (&["$-1\r\n"][..], json!({ "key": "k" }), "there is no such key"),
            (&["-WRONGTYPE x\r\n"], json!({ "key": "k" }), "Redis says: WRONGTYPE x"),
            (&["-NOAUTH Authentication required.\r\n"], json!({}), "Redis says: NOAUTH Authentication required."),
            (&["+OK\r\n"], json!({}), "answered \"OK\" to PING"),
            (&["-WRONGPASS x\r\n"], json!({ "password": "hush" }), "the server refused the password"),
            (&[""], json!({}), "connection closed early"),
            // A server that knows the password may repeat it, also where the reason is cut.
            (&["+OK\r\n", "-ERR hush\r\n"], json!({ "password": "hush" }), "Redis says: ERR ..."),
            (&["+OK\r\n", "+hush\r\n"], json!({ "password": "hush" }), "answered \"...\" to PING"),
            (
                &["+OK\r\n", &format!("-{}hush!\r\n", "x".repeat(104))],
                json!({ "password": "hush" }),
                &format!("Redis says: {}...!", "x".repeat(104)),
            ),
            (
                &["+OK\r\n", "+PONG\r\n", "$9\r\nrole:hush\r\n"],
                json!({ "password": "hush", "tolerance": { "role": { "equals": "master" } } }),
                "role was \"...\", \"master\" wanted",
            ),
        ] {
            assert_eq!(against(answers, params).await.0.unwrap_err(), why);
        }
        assert!(ready(json!({ "address": "h:1", "user": "me" })).err().unwrap().why.contains("without a password"));
    }
}
