//! Probe `grpc`: asks a gRPC server for its health by the standard service. It calls no other method.

use std::rc::Rc;

use bytes::Bytes;
use fracas_model::{
    catalogue::{Params, ProbeInfo},
    plan::Refusal,
    policy::Policy,
    shape::{Field, Shape},
    tolerance::{ReadingField, Values},
};
use h2::{RecvStream, client};
use hyper::{
    Method, Request, Uri, Version,
    header::{CONTENT_TYPE, HeaderMap, TE, USER_AGENT},
};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    LookFuture, Lookout, PrepareFuture, Probe, Seen, brief,
    connect::{connect, world},
    tls::{self, Secure},
    web::{self, beside},
};

/// The method of <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>.
const METHOD: &str = "/grpc.health.v1.Health/Check";
/// The values of its answer's first and only field.
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
/// Longest answer that is read, bytes; an honest one has seven.
const LONGEST_ANSWER: usize = 1024;
/// Most bytes of headers that are taken.
const LONGEST_HEADERS: u32 = 16 * 1024;
/// Longest name of a service, bytes.
const LONGEST_SERVICE: usize = 1024;

const STRANGE: &str = "the answer is not of a health service";

/// The `grpc` probe.
#[derive(Debug)]
pub struct Grpc;

struct Ready {
    uri: Uri,
    host: String,
    port: u16,
    tls: Option<Secure>,
    service: String,
}

impl Probe for Grpc {
    fn info(&self) -> ProbeInfo {
        let [_, insecure, ca_file] = web::fields();
        ProbeInfo {
            name: "grpc".into(),
            summary: "Asks a gRPC server for its health by the standard service.".into(),
            help: HELP.into(),
            params: vec![
                Field::required("url", Shape::Url, "Server to ask, as http(s)://host:port without a path."),
                Field::with_default(
                    "service",
                    Shape::Text { max: LONGEST_SERVICE },
                    "",
                    "Whole name of one of its services; empty for the server as a whole.",
                ),
                insecure,
                ca_file,
            ],
            reading: vec![ReadingField::word("status", "SERVING: anything else fails.")],
            example: r#"{ url: "http://127.0.0.1:50051", service: shop.v1.Checkout }"#.into(),
        }
    }

    fn ready(&self, params: &Params, _policy: &Policy) -> Result<Box<dyn Lookout>, Refusal> {
        let uri = web::url("grpc", params)?;
        if uri.path_and_query().is_some_and(|path| path.as_str() != "/") {
            return Err(Refusal::new(
                "grpc: the URL has a path",
                "name the server only, such as http://127.0.0.1:50051",
            ));
        }
        let host = uri.host().unwrap_or_default().to_owned();
        let secure = uri.scheme_str() == Some("https");
        let tls = if secure { Some(Secure::new("grpc", &host, params)?) } else { None };
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let mut parts = uri.into_parts();
        parts.path_and_query = METHOD.parse().ok();
        let uri = Uri::from_parts(parts).map_err(|e| Refusal::new(format!("grpc: {e}"), "check the URL"))?;
        let service = params.text("service").unwrap_or_default().to_owned();
        Ok(Box::new(Rc::new(Ready { uri, host, port, tls, service })))
    }
}

impl Lookout for Rc<Ready> {
    fn prepare(&self) -> PrepareFuture {
        Box::pin(tls::prepare(self.tls.clone()))
    }

    fn look(&self) -> LookFuture {
        let ready = self.clone();
        Box::pin(async move {
            tls::prepare(ready.tls.clone()).await.map_err(|refusal| brief(refusal.why))?;
            let stream = connect(&ready.host, ready.port).await?;
            let Some(secure) = &ready.tls else { return ask(stream, &ready.uri, &ready.service).await };
            ask(secure.over(stream, &[b"h2"]).await?, &ready.uri, &ready.service).await
        })
    }
}

/// One call over a connection that is made, which is driven beside it.
async fn ask(stream: impl AsyncRead + AsyncWrite + Unpin, uri: &Uri, service: &str) -> Seen {
    let mut builder = client::Builder::new();
    builder.max_header_list_size(LONGEST_HEADERS).enable_push(false);
    let (sender, connection) = builder.handshake::<_, Bytes>(stream).await.map_err(|e| said(&e))?;
    let call = async {
        let request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .version(Version::HTTP_2)
            .header(CONTENT_TYPE, "application/grpc")
            .header(TE, "trailers")
            .header(USER_AGENT, "fracas-probe")
            .body(())
            .map_err(brief)?;
        let mut sender = sender.ready().await.map_err(|e| said(&e))?;
        let (response, mut body) = sender.send_request(request, false).map_err(|e| said(&e))?;
        body.send_data(message(service), true).map_err(|e| said(&e))?;
        let (head, answer) = response.await.map_err(|e| said(&e))?.into_parts();
        if head.status != 200 {
            return Err(format!("status {}", head.status.as_u16()));
        }
        // An error may come without a body, in the head alone.
        outcome(&head.headers).unwrap_or(Ok(()))?;
        let (bytes, trailers) = whole(answer).await?;
        outcome(&trailers.unwrap_or_default()).unwrap_or_else(|| Err(STRANGE.into()))?;
        match status(&bytes).ok_or(STRANGE)? {
            "SERVING" => Ok(Values::new().with("status", "SERVING".to_owned())),
            other => Err(other.to_owned()),
        }
    };
    beside(call, connection).await
}

/// What a look for this service makes of what `stream` answers, for fuzzing.
#[cfg(fuzzing)]
pub async fn judge(params: &Params, stream: impl AsyncRead + AsyncWrite + Unpin) -> Seen {
    let uri = Uri::from_static("http://127.0.0.1/grpc.health.v1.Health/Check");
    let seen = ask(stream, &uri, params.text("service").unwrap_or_default()).await;
    crate::tolerated::compared(&Grpc, params, seen)
}

/// The request: a frame that is not compressed, with the service's name as field 1.
fn message(service: &str) -> Bytes {
    let mut field = Vec::new();
    if !service.is_empty() {
        field.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            field.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        field.push(length as u8);
        field.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(field.len()).unwrap_or_default();
    [&[0], &length.to_be_bytes()[..], &field].concat().into()
}

/// All of the body and its trailers.
async fn whole(mut answer: RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), String> {
    let mut bytes = Vec::new();
    while let Some(piece) = answer.data().await {
        let piece = piece.map_err(|e| said(&e))?;
        // Unreadable to a server that keeps to its window; a larger answer is none of ours anyway.
        let _ = answer.flow_control().release_capacity(piece.len());
        if bytes.len() + piece.len() > LONGEST_ANSWER {
            return Err(STRANGE.into());
        }
        bytes.extend_from_slice(&piece);
    }
    Ok((bytes, answer.trailers().await.map_err(|e| said(&e))?))
}

/// What `grpc-status` says, where it stands.
fn outcome(headers: &HeaderMap) -> Option<Result<(), String>> {
    let code = headers.get("grpc-status")?.to_str().unwrap_or_default();
    Some(match code {
        "0" => Ok(()),
        "5" => Err("the server knows no such service (NOT_FOUND)".into()),
        "12" => Err("the server has no health service (UNIMPLEMENTED)".into()),
        other => {
            let text = headers.get("grpc-message").and_then(|text| text.to_str().ok()).unwrap_or_default();
            Err(brief(format_args!("gRPC status {other}: {text}")))
        }
    })
}

/// The status of a frame with one message, whose field 1 is it; zero stands for itself by its absence.
fn status(bytes: &[u8]) -> Option<&'static str> {
    let (head, message) = bytes.split_first_chunk::<5>()?;
    let length = usize::try_from(u32::from_be_bytes([head[1], head[2], head[3], head[4]])).ok()?;
    if head[0] != 0 || length != message.len() {
        return None;
    }
    match message {
        [] => STATUSES.first().copied(),
        [0x08, number] => STATUSES.get(usize::from(*number)).copied(),
        _ => None,
    }
}

/// What went wrong on the connection.
fn said(error: &h2::Error) -> String {
    match error.get_io() {
        Some(io) => world(io),
        None if error.is_go_away() && error.is_remote() => "the server is going away".into(),
        None => brief(format_args!("HTTP/2: {error}")),
    }
}

const HELP: &str = "\
Ok when the method Check of grpc.health.v1.Health answers SERVING for `service`, or for the server as a whole when it is \
empty. NOT_SERVING, a service that the server does not know and a server without that method fail, each with its name.

Each look resolves the name anew, makes a new connection and a new HTTP/2 session and makes one call, so a reading never \
rests on an old connection. With https the certificate is checked as the probe `http` does it, against `caFile` or the \
host's own authorities; `insecure: true` takes any. Without TLS, HTTP/2 is spoken from the first byte, as gRPC servers do.

Health is what the server says of itself: most set it once, when they start. To see real calls fail, watch their rate with \
the probe `prometheus` beside it. Cost: one connection and one call per look, about a millisecond of the server.";

#[cfg(test)]
mod tests {
    use hyper::Response;
    use serde_json::json;
    use tokio::{io::AsyncWriteExt as _, net::TcpListener};

    use super::*;

    fn ready(params: serde_json::Value) -> Result<Box<dyn Lookout>, Refusal> {
        crate::ready(&Grpc, &serde_json::from_value(params).unwrap(), &Policy::builtin())
    }

    /// A server that answers one call with this body and this status; gives what it was asked too.
    async fn against(body: &'static [u8], code: &'static str, service: &str) -> (Seen, String, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let lookout = ready(json!({ "url": url, "service": service })).unwrap();
        let serve = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let (request, mut respond) = connection.accept().await.unwrap().unwrap();
            let path = request.uri().path().to_owned();
            let talk = async {
                let (asked, _) = whole(request.into_body()).await.unwrap();
                let mut answer = respond.send_response(Response::new(()), false).unwrap();
                answer.send_data(Bytes::from_static(body), false).unwrap();
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", code.parse().unwrap());
                answer.send_trailers(trailers).unwrap();
                asked
            };
            let driven = async { while connection.accept().await.is_some() {} };
            let (asked, ()) = tokio::join!(talk, driven);
            (path, asked)
        };
        let (seen, (path, asked)) = tokio::join!(lookout.look(), serve);
        (seen, path, asked)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn only_serving_is_well() {
        let (seen, path, asked) = against(b"\0\0\0\0\x02\x08\x01", "0", "shop").await;
        assert_eq!(seen.unwrap(), Values::new().with("status", "SERVING".to_owned()));
        assert_eq!((path.as_str(), &asked[..]), (METHOD, &b"\0\0\0\0\x06\x0a\x04shop"[..]));
        assert_eq!(against(b"\0\0\0\0\x02\x08\x02", "0", "").await.0.unwrap_err(), "NOT_SERVING");
        assert_eq!(against(b"\0\0\0\0\0", "0", "").await.0.unwrap_err(), "UNKNOWN");
        let none = "the server has no health service (UNIMPLEMENTED)";
        assert_eq!(against(b"", "12", "").await.0.unwrap_err(), none);
        assert!(against(b"", "5", "x").await.0.unwrap_err().contains("NOT_FOUND"));
        assert_eq!(against(b"", "14", "x").await.0.unwrap_err(), "gRPC status 14: ");
        for strange in
            [&b""[..], b"\x01\0\0\0\x02\x08\x01", b"\0\0\0\0\x03\x08\x01", b"\0\0\0\0\x02\x08\x04", &[0; 2000]]
        {
            assert_eq!(against(strange, "0", "").await.0.unwrap_err(), STRANGE);
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn who_speaks_no_http2_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let lookout = ready(json!({ "url": url })).unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            stream
        };
        let (seen, _stream) = tokio::join!(lookout.look(), serve);
        assert!(seen.unwrap_err().starts_with("HTTP/2: "));
        assert!(ready(json!({ "url": "http://h:1/path" })).err().unwrap().why.contains("a path"));
        let long = message(&"x".repeat(300));
        assert_eq!((long.len(), &long[5..8]), (308, &b"\x0a\xac\x02"[..]));
    }
}
