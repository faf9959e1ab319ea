//! Probe `http`: one request on a fresh connection, judged by status, body and latency. It follows no redirects.

use std::{
    collections::BTreeSet,
    future::Future,
    pin::pin,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use fracas_model::{
    catalogue::{Params, ProbeInfo},
    plan::Refusal,
    policy::Policy,
    shape::{Field, Shape},
    units::Dur,
};
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Method, Request, Uri,
    body::Incoming,
    client::conn::http1,
    header::{CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::{
    LookFuture, Lookout, PrepareFuture, Probe, Seen, brief,
    connect::{connect, world},
    tls::Settings,
};

/// How much of a body is read, in bytes; what follows is neither read nor judged.
const LONGEST_BODY: usize = 64 * 1024;

/// The `http` probe.
#[derive(Debug)]
pub struct Http;

struct Ready {
    request: Request<Empty<Bytes>>,
    host: String,
    port: u16,
    tls: Option<(Settings, ServerName<'static>)>,
    statuses: BTreeSet<u16>,
    body: Option<String>,
    max_latency: Option<Duration>,
}

impl Probe for Http {
    fn info(&self) -> ProbeInfo {
        let status = || Shape::Integer { min: 100, max: 599 };
        ProbeInfo {
            name: "http".into(),
            summary: "Asks an http or https URL and judges status, body and latency.".into(),
            help: HELP.into(),
            params: vec![
                Field::required("url", Shape::Url, "What to ask for, http or https."),
                Field::with_default("method", Shape::choice(&["GET", "HEAD"]), "GET", "GET or HEAD."),
                Field::with_default(
                    "status",
                    Shape::Either(vec![status(), Shape::list(status(), 20)]),
                    200,
                    "Status, or list of statuses, that count as ok.",
                ),
                Field::optional("body", Shape::Text { max: 1024 }, "Text that the first 64 KiB of the body must hold."),
                Field::optional(
                    "maxLatency",
                    Shape::duration(Dur::from_ms(1), Dur::from_secs(60)),
                    "Longest time from the start of the look to the end of the answer.",
                ),
                Field::optional(
                    "headers",
                    Shape::Map { of: Box::new(Shape::Text { max: 4096 }), max: 32 },
                    "Headers of the request.",
                ),
                Field::with_default("insecure", Shape::Bool, false, "Take any certificate (https)."),
                Field::optional(
                    "caFile",
                    Shape::Path,
                    "PEM file of trusted authorities on the host (https), at most 4 MiB.",
                ),
            ],
            example: r#"{ url: "http://127.0.0.1:8080/health", status: 200, maxLatency: 250ms }"#.into(),
        }
    }

    fn ready(&self, params: &Params, _policy: &Policy) -> Result<Box<dyn Lookout>, Refusal> {
        let url = params.text("url").unwrap_or_default();
        let bad = |why: &str| Refusal::new(format!("http: {why}"), "write a URL such as http://127.0.0.1:8080/health");
        let uri: Uri = url.parse().map_err(|e| bad(&format!("{url:?} is not a URL: {e}")))?;
        let authority = uri.authority().ok_or_else(|| bad("the URL names no host"))?;
        if authority.as_str().contains('@') {
            return Err(Refusal::new(
                "http: the URL carries a password",
                "put it into headers: { authorization: \"Basic ...\" }",
            ));
        }
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(bad("the URL is neither http nor https")),
        };
        let host = authority.host().to_owned();
        let tls = if secure {
            let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(bare).map_err(|e| bad(&format!("{host}: {e}")))?;
            Some((Settings::new(params.text("caFile"), params.flag("insecure")), name))
        } else {
            None
        };
        let body = params.text("body").map(str::to_owned);
        if body.is_some() && params.text("method") == Some("HEAD") {
            return Err(Refusal::new("http: an answer to HEAD has no body to hold the text", "use GET, or drop body"));
        }
        Ok(Box::new(Rc::new(Ready {
            request: request(&uri, params)?,
            port: authority.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            host,
            tls,
            statuses: statuses(params),
            body,
            max_latency: params.duration("maxLatency").map(Dur::std),
        })))
    }
}

/// The request without its connection, built once.
fn request(uri: &Uri, params: &Params) -> Result<Request<Empty<Bytes>>, Refusal> {
    let method = if params.text("method") == Some("HEAD") { Method::HEAD } else { Method::GET };
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let mut request = Request::new(Empty::new());
    *request.method_mut() = method;
    *request.uri_mut() =
        path.parse().map_err(|e| Refusal::new(format!("http: path {path:?}: {e}"), "check the URL"))?;
    let headers = request.headers_mut();
    let authority = uri.authority().map_or("", |a| a.as_str());
    if let Ok(host) = HeaderValue::from_str(authority) {
        headers.insert(HOST, host);
    }
    headers.insert(USER_AGENT, HeaderValue::from_static("fracas-probe"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let wanted = params.0.get("headers").and_then(|h| h.as_object());
    for (name, value) in wanted.into_iter().flatten() {
        // The value may be a secret: it is never shown.
        let bad = || Refusal::new(format!("http: header {name:?} cannot be sent"), "check its name and its value");
        let name: HeaderName = name.parse().map_err(|_| bad())?;
        let value = value.as_str().and_then(|v| v.parse().ok()).ok_or_else(bad)?;
        headers.insert(name, value);
    }
    Ok(request)
}

fn statuses(params: &Params) -> BTreeSet<u16> {
    let given = params.0.get("status");
    let list = given.and_then(|s| s.as_array()).map_or(given.into_iter().collect::<Vec<_>>(), |l| l.iter().collect());
    let statuses: BTreeSet<u16> = list.iter().filter_map(|s| s.as_u64().and_then(|s| u16::try_from(s).ok())).collect();
    if statuses.is_empty() { BTreeSet::from([200]) } else { statuses }
}

impl Lookout for Rc<Ready> {
    fn prepare(&self) -> PrepareFuture {
        let tls = self.tls.clone();
        Box::pin(async move {
            match tls {
                Some((settings, _)) => settings.get().await.map(|_| ()),
                None => Ok(()),
            }
        })
    }

    fn look(&self) -> LookFuture {
        let ready = self.clone();
        Box::pin(async move {
            // Long made when the probe was prepared.
            let tls = match ready.tls.clone() {
                Some((settings, name)) => Some((settings.get().await.map_err(|r| brief(r.why))?, name)),
                None => None,
            };
            let begun = Instant::now();
            let stream = connect(&ready.host, ready.port).await?;
            match tls {
                None => exchange(&ready, stream).await?,
                Some((config, name)) => {
                    let secured = TlsConnector::from(config).connect(name, stream).await;
                    exchange(&ready, secured.map_err(|e| brief(format_args!("TLS: {}", world(&e))))?).await?;
                }
            }
            match (ready.max_latency, begun.elapsed()) {
                (Some(most), took) if took > most => {
                    // Rounded down to 10 ms, so that reasons stay few and readings small.
                    Err(format!("took over {} ms", (took.as_millis() / 10 * 10).max(most.as_millis())))
                }
                _ => Ok(()),
            }
        })
    }
}

/// Sends the request and judges the answer, driving the connection beside it: when the look is dropped, all is gone.
async fn exchange(ready: &Ready, stream: impl AsyncRead + AsyncWrite + Unpin + 'static) -> Seen {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| said(&e))?;
    let answer = async {
        let response = sender.send_request(ready.request.clone()).await.map_err(|e| said(&e))?;
        let status = response.status().as_u16();
        if !ready.statuses.contains(&status) {
            return Err(format!("status {status}"));
        }
        judge_body(response.into_body(), ready.body.as_deref()).await
    };
    beside(answer, connection).await
}

/// What a look with these parameters makes of the answer that `stream` gives, for fuzzing.
#[cfg(fuzzing)]
pub async fn judge(params: &Params, stream: impl AsyncRead + AsyncWrite + Unpin + 'static) -> Seen {
    let uri: Uri = "http://127.0.0.1/".parse().map_err(brief)?;
    let ready = Ready {
        request: request(&uri, params).map_err(|refusal| refusal.why)?,
        host: String::new(),
        port: 80,
        tls: None,
        statuses: statuses(params),
        body: params.text("body").map(str::to_owned),
        max_latency: None,
    };
    exchange(&ready, stream).await
}

/// The result of `answer`, while `driver` moves its bytes. The driver may end first, having delivered everything.
async fn beside<T>(answer: impl Future<Output = T>, driver: impl Future) -> T {
    let (mut answer, mut driver) = (pin!(answer), pin!(driver));
    tokio::select! {
        biased;
        done = &mut answer => return done,
        _ = &mut driver => {}
    }
    answer.await
}

async fn judge_body(mut body: Incoming, wanted: Option<&str>) -> Seen {
    let mut read = Vec::new();
    let mut whole = true;
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame.map_err(|e| said(&e))?.data_ref() {
            read.extend_from_slice(&data[..data.len().min(LONGEST_BODY - read.len())]);
        }
        if read.len() == LONGEST_BODY {
            whole = false;
            break;
        }
    }
    match wanted {
        Some(text) if !read.windows(text.len().max(1)).any(|w| w == text.as_bytes()) => {
            Err(if whole { "body lacks the text" } else { "first 64 KiB of the body lack the text" }.into())
        }
        _ => Ok(()),
    }
}

/// What went wrong on the connection, innermost cause first in value.
fn said(error: &hyper::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    loop {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            return world(io);
        }
        match cause.source() {
            Some(inner) => cause = inner,
            None if error.is_incomplete_message() => return "connection closed early".into(),
            None if error.is_parse() => return "the answer is not HTTP".into(),
            None => return brief(error),
        }
    }
}

const HELP: &str = "\
Ok when the answer's status is `status` (or one of them), its first 64 KiB hold `body` (if given), and all of it came \
within `maxLatency` (if given). A latency limit turns slowness into failure; without it only the probe's timeout does.

Each look resolves the name anew, makes a new connection and sends one HTTP/1.1 request with `connection: close`, so a \
reading never rests on an old connection or an old address. Redirects are not followed: name the status (`301`) or the \
final URL. An answer cut short, a reset, a refused connection and a failed TLS handshake are failures with their name.

For https the certificate is checked against `caFile`, else against the host's own bundle of trusted authorities, both \
read when the probe is made ready; `insecure: true` takes any certificate. Sessions are not resumed: every look proves \
a whole handshake.

Cost: one connection per look. At `every: 10ms` that is 100 connections a second from each vantage; choose a cheap \
health endpoint, and remember that the server's own log grows with it.";

#[cfg(test)]
mod tests;
