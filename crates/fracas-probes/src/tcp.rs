//! Probe `tcp`: connects, may send a few bytes, may expect some back. It speaks no protocol beyond that.

use std::rc::Rc;

use fracas_model::{
    catalogue::{Params, ProbeInfo},
    plan::Refusal,
    policy::Policy,
    shape::{Field, Shape},
    tolerance::{ReadingField, Values},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    LookFuture, Lookout, Probe, brief,
    connect::{address, connect, world},
};

/// How much of an answer is read in search of `expect`, in bytes.
const LONGEST_ANSWER: usize = 4096;

/// The `tcp` probe.
#[derive(Debug)]
pub struct Tcp;

#[derive(Debug)]
struct Ready {
    host: String,
    port: u16,
    send: Option<String>,
    expect: Option<String>,
}

impl Probe for Tcp {
    fn info(&self) -> ProbeInfo {
        ProbeInfo {
            name: "tcp".into(),
            summary: "Connects to an address; may send a text and expect another.".into(),
            help: "\
Ok when the connection is made, `send` (if given) is written, and `expect` (if given) is found in the first 4 KiB that \
come back. Without `expect` the far kernel's handshake is enough, so a process that hangs with a full backlog to spare \
still looks up: give `send` and `expect` to see the process itself.

Each look resolves the name anew and makes a new connection; a name with several addresses is tried in order. Fails \
when the connection is refused, reset or closed early, or when the probe's timeout passes first.

A database or a cache often has a cheap exchange: redis answers `PONG` to `PING\\r\\n`. In YAML, line ends need double \
quotes."
                .into(),
            params: vec![
                Field::required("address", Shape::Address, "Host and port; an IPv6 address in brackets."),
                Field::optional("send", Shape::Text { max: 1024 }, "Text written once connected."),
                Field::optional("expect", Shape::Text { max: 1024 }, "Text that must come back."),
            ],
            reading: vec![ReadingField::text(
                "answer",
                "What came back until `expect` was found; known with `expect` only.",
            )],
            example: r#"{ address: "127.0.0.1:6379", send: "PING\r\n", expect: "PONG" }"#.into(),
        }
    }

    fn ready(&self, params: &Params, _policy: &Policy) -> Result<Box<dyn Lookout>, Refusal> {
        let (host, port) = address("tcp", params, 6379)?;
        let text = |name| params.text(name).map(str::to_owned);
        Ok(Box::new(Rc::new(Ready { host, port, send: text("send"), expect: text("expect") })))
    }
}

impl Lookout for Rc<Ready> {
    fn look(&self) -> LookFuture {
        let ready = self.clone();
        Box::pin(async move {
            let mut stream = connect(&ready.host, ready.port).await?;
            if let Some(send) = &ready.send {
                stream.write_all(send.as_bytes()).await.map_err(|e| world(&e))?;
            }
            let Some(expect) = &ready.expect else { return Ok(Values::new()) };
            let mut answer = Vec::new();
            loop {
                let mut piece = [0; 1024];
                let got = stream.read(&mut piece).await.map_err(|e| world(&e))?;
                answer.extend_from_slice(&piece[..got]);
                if answer.windows(expect.len().max(1)).any(|w| w == expect.as_bytes()) {
                    return Ok(Values::new().with("answer", String::from_utf8_lossy(&answer).into_owned()));
                }
                if got == 0 || answer.len() >= LONGEST_ANSWER {
                    let start: String = String::from_utf8_lossy(&answer).chars().take(40).collect();
                    return Err(brief(format_args!("answered {start:?}, which is not what was expected")));
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use fracas_model::policy::Policy;
    use serde_json::json;
    use tokio::net::TcpListener;

    use super::*;

    fn ready(params: serde_json::Value) -> Box<dyn Lookout> {
        let params: Params = serde_json::from_value(params).unwrap();
        Tcp.ready(&params, &Policy::builtin()).unwrap()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn says_what_came_back_instead() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let serve = async {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 6];
                if stream.read_exact(&mut request).await.is_ok() {
                    // Split over two writes: the expected text may come in pieces.
                    stream.write_all(b"+PO").await.unwrap();
                    stream.write_all(b"NG\r\n").await.unwrap();
                }
            }
        };
        let looks = async {
            ready(json!({ "address": address })).look().await.unwrap();
            ready(json!({ "address": address, "send": "PING\r\n", "expect": "PONG" })).look().await.unwrap();
            let wrong = ready(json!({ "address": address, "send": "PING\r\n", "expect": "HELLO" })).look().await;
            assert_eq!(wrong.unwrap_err(), r#"answered "+PONG\r\n", which is not what was expected"#);
        };
        tokio::select! { () = looks => {}, () = serve => {} }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_closed_port_is_refused_and_a_bad_address_too() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let seen = ready(json!({ "address": format!("127.0.0.1:{port}") })).look().await;
        assert_eq!(seen.unwrap_err(), "connection refused");
        let params = serde_json::from_value(json!({ "address": "nowhere" })).unwrap();
        assert!(Tcp.ready(&params, &Policy::builtin()).is_err());
    }
}
