//! Probe `webhook`: asks a program of the user's, over HTTP, whether the run may go on. It sends nothing but the request.

use std::rc::Rc;

use fracas_model::{
    catalogue::{Params, ProbeInfo},
    plan::Refusal,
    policy::Policy,
    shape::{Field, Shape},
    tolerance::{ReadingField, Values},
};
use hyper::{Method, Response, StatusCode, body::Incoming};
use serde::Deserialize;

use crate::{
    LookFuture, Lookout, PrepareFuture, Probe, Seen, brief,
    web::{self, Web},
};

/// Longest answer that is read, in bytes.
const LONGEST_ANSWER: usize = 16 * 1024;

/// The `webhook` probe.
#[derive(Debug)]
pub struct Webhook;

impl Probe for Webhook {
    fn info(&self) -> ProbeInfo {
        ProbeInfo {
            name: "webhook".into(),
            summary: "Asks a program of yours whether all is well.".into(),
            help: HELP.into(),
            params: [Field::required("url", Shape::Url, "Whom to ask, http or https.")]
                .into_iter()
                .chain(web::fields())
                .collect(),
            reading: vec![ReadingField::number("status", "", "Status of the answer, 200 or 204.")],
            example: r#"{ url: "http://127.0.0.1:9000/may-go-on" }"#.into(),
        }
    }

    fn ready(&self, params: &Params, policy: &Policy) -> Result<Box<dyn Lookout>, Refusal> {
        let uri = web::url("webhook", params)?;
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        Ok(Box::new(Rc::new(Web::new("webhook", &uri, Method::GET, path, params, policy)?)))
    }
}

impl Lookout for Rc<Web> {
    fn prepare(&self) -> PrepareFuture {
        Web::prepare(self)
    }

    fn look(&self) -> LookFuture {
        let web = self.clone();
        Box::pin(async move { Ok(web.ask(judge).await?.answer) })
    }
}

#[derive(Deserialize)]
struct Answer {
    stop: bool,
    #[serde(default)]
    reason: String,
}

async fn judge(response: Response<Incoming>) -> Seen {
    let status = response.status();
    let values = Values::new().with("status", u64::from(status.as_u16()));
    match status {
        StatusCode::NO_CONTENT => Ok(values),
        StatusCode::OK => {
            let (body, whole) = web::body(response, LONGEST_ANSWER).await?;
            // An object, not a list of its values, which the derived reader takes too.
            let object = serde_json::from_slice::<serde_json::Map<_, _>>(&body).ok().filter(|_| whole);
            let answer = object.and_then(|object| serde_json::from_value::<Answer>(object.into()).ok());
            match answer.ok_or("the answer is not {\"stop\": true|false, \"reason\": \"...\"}")? {
                Answer { stop: false, .. } => Ok(values),
                Answer { reason, .. } if reason.is_empty() => Err("asked to stop".into()),
                Answer { reason, .. } => Err(brief(format_args!("asked to stop: {reason}"))),
            }
        }
        status => Err(format!("status {}", status.as_u16())),
    }
}

const HELP: &str = "\
Ok when the answer is 204, or 200 with a JSON object whose `stop` is false. With `stop: true` the look fails, with its \
`reason`. Any other answer fails too, and so does none: a program that says nothing does not say that all is well.

It is for stop conditions that no other probe can see: a trading calendar, an incident that was declared elsewhere, a \
lock that somebody took. In `abortWhen`, `failingFor: 0s` stops the run with the first such answer; with a longer time \
one lost answer is forgiven.

Each look is a GET on a fresh connection. Whoever should know which run asks can be told by the URL, with a parameter of \
the document in it. Tokens go into `headers`, by reference. Cost: one request per look.";

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    async fn told(answer: &str) -> Seen {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let params = json!({ "url": format!("http://{}/go?run=7", listener.local_addr().unwrap()) });
        let lookout = Webhook.ready(&serde_json::from_value(params).unwrap(), &Policy::builtin()).unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 14];
            stream.read_exact(&mut asked).await.unwrap();
            assert_eq!(&asked, b"GET /go?run=7 ");
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        tokio::join!(lookout.look(), serve).0
    }

    fn json(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test(flavor = "current_thread")]
    async fn only_a_clear_yes_is_well() {
        told("HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        told(&json("200 OK", r#"{"stop": false, "more": 1}"#)).await.unwrap();
        let stop = told(&json("200 OK", r#"{"stop": true, "reason": "market\nopens"}"#)).await;
        assert_eq!(stop.unwrap_err(), "asked to stop: market opens");
        assert_eq!(told(&json("200 OK", r#"{"stop": true}"#)).await.unwrap_err(), "asked to stop");
        for unclear in ["", "ok", "{}", r#"{"stop": "no"}"#, "[]", "[false]"] {
            let why = told(&json("200 OK", unclear)).await.unwrap_err();
            assert!(why.starts_with("the answer is not"), "{unclear}: {why}");
        }
        let long = json("200 OK", &format!(r#"{{"stop": false, "x": "{}"}}"#, "x".repeat(LONGEST_ANSWER)));
        assert!(told(&long).await.is_err());
        assert_eq!(told(&json("503 Busy", r#"{"stop": false}"#)).await.unwrap_err(), "status 503");
    }
}
