//! Probe `http`: one request on a fresh connection, judged by status, body and latency. It follows no redirects.

use std::{
    collections::BTreeSet,
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

use fracas_model::{
    catalogue::{Params, ProbeInfo},
    plan::Refusal,
    policy::Policy,
    shape::{Field, Shape},
    tolerance::{ReadingField, Values},
    units::Dur,
};
use hyper::{Method, Response, body::Incoming};
#[cfg(fuzzing)]
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    LookFuture, Lookout, PrepareFuture, Probe, Seen,
    web::{self, Web},
};

/// How much of a body is read, in bytes; what follows is neither read nor judged.
const LONGEST_BODY: usize = 64 * 1024;

/// The `http` probe.
#[derive(Debug)]
pub struct Http;

struct Ready {
    web: Web,
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
            params: [
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
            ]
            .into_iter()
            .chain(web::fields())
            .collect(),
            reading: vec![
                ReadingField::number("status", "", "Status of the answer."),
                ReadingField::number("bytes", "bytes", "How much of the body was read, at most 64 KiB."),
                ReadingField::text("body", "The first 64 KiB of the body."),
                ReadingField::number(
                    "certificateDays",
                    "days",
                    "Whole days until the server's certificate ends; known for https only.",
                ),
            ],
            example: r#"{ url: "http://127.0.0.1:8080/health", status: 200, maxLatency: 250ms }"#.into(),
        }
    }

    fn ready(&self, params: &Params, policy: &Policy) -> Result<Box<dyn Lookout>, Refusal> {
        let uri = web::url("http", params)?;
        let head = params.text("method") == Some("HEAD");
        let body = params.text("body").map(str::to_owned);
        if body.is_some() && head {
            return Err(Refusal::new("http: an answer to HEAD has no body to hold the text", "use GET, or drop body"));
        }
        let method = if head { Method::HEAD } else { Method::GET };
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        Ok(Box::new(Rc::new(Ready {
            web: Web::new("http", &uri, method, path, params, policy)?,
            statuses: statuses(params),
            body,
            max_latency: params.duration("maxLatency").map(Dur::std),
        })))
    }
}

fn statuses(params: &Params) -> BTreeSet<u16> {
    let given = params.0.get("status");
    let list = given.and_then(|s| s.as_array()).map_or(given.into_iter().collect::<Vec<_>>(), |l| l.iter().collect());
    let statuses: BTreeSet<u16> = list.iter().filter_map(|s| s.as_u64().and_then(|s| u16::try_from(s).ok())).collect();
    if statuses.is_empty() { BTreeSet::from([200]) } else { statuses }
}

impl Lookout for Rc<Ready> {
    fn prepare(&self) -> PrepareFuture {
        self.web.prepare()
    }

    fn look(&self) -> LookFuture {
        let ready = self.clone();
        Box::pin(async move {
            let begun = Instant::now();
            let told = ready.web.ask(async |answer| judge_answer(&ready, answer).await).await?;
            match (ready.max_latency, begun.elapsed()) {
                (Some(most), took) if took > most => {
                    // Rounded down to 10 ms, so that reasons stay few and readings small.
                    Err(format!("took over {} ms", (took.as_millis() / 10 * 10).max(most.as_millis())))
                }
                _ => {
                    let left = told.certificate_ends.map(|ends| days_left(ends, SystemTime::now()));
                    Ok(told.answer.with_known("certificateDays", left))
                }
            }
        })
    }
}

/// Whole days from `now` to an instant in seconds since 1970; negative when it is past.
fn days_left(ends: i64, now: SystemTime) -> f64 {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    ends.saturating_sub(i64::try_from(now).unwrap_or(i64::MAX)).div_euclid(86_400) as f64
}

async fn judge_answer(ready: &Ready, answer: Response<Incoming>) -> Seen {
    let status = answer.status().as_u16();
    if !ready.statuses.contains(&status) {
        return Err(format!("status {status}"));
    }
    let (read, whole) = web::body(answer, LONGEST_BODY).await?;
    match ready.body.as_deref() {
        Some(text) if !read.windows(text.len().max(1)).any(|w| w == text.as_bytes()) => {
            Err(if whole { "body lacks the text" } else { "first 64 KiB of the body lack the text" }.into())
        }
        _ => Ok(Values::new()
            .with("status", u64::from(status))
            .with("bytes", read.len())
            .with("body", String::from_utf8_lossy(&read).into_owned())),
    }
}

/// What a look with these parameters makes of the answer that `stream` gives, for fuzzing.
#[cfg(fuzzing)]
pub async fn judge(params: &Params, stream: impl AsyncRead + AsyncWrite + Unpin + 'static) -> Seen {
    let uri = hyper::Uri::from_static("http://127.0.0.1/");
    let ready = Ready {
        web: Web::new("http", &uri, Method::GET, "/", params, &Policy::builtin()).map_err(|refusal| refusal.why)?,
        statuses: statuses(params),
        body: params.text("body").map(str::to_owned),
        max_latency: None,
    };
    ready.web.exchange(stream, async |answer| judge_answer(&ready, answer).await).await
}

const HELP: &str = "\
Ok when the answer's status is `status` (or one of them), its first 64 KiB hold `body` (if given), and all of it came \
within `maxLatency` (if given). A latency limit turns slowness into failure; without it only the probe's timeout does.

Each look resolves the name anew, makes a new connection and sends one HTTP/1.1 request with `connection: close`, so a \
reading never rests on an old connection or an old address. Redirects are not followed: name the status (`301`) or the \
final URL. `tolerance: { certificateDays: { min: 14 } }` turns a certificate that soon ends into a failure. An answer cut short, a reset, a refused connection and a failed TLS handshake are failures with their name.

For https the certificate is checked against `caFile`, else against the host's own bundle of trusted authorities, both \
read when the probe is made ready; `insecure: true` takes any certificate. What the document holds is in every history: a \
token is written as a reference, `headers: { authorization: { file: /etc/fracas/secrets/token } }`, to a file with all of \
the header's value (`Bearer ...`) on the host that looks, in a folder that its policy names. Sessions are not resumed: every look proves \
a whole handshake.

Cost: one connection per look. At `every: 10ms` that is 100 connections a second from each vantage; choose a cheap \
health endpoint, and remember that the server's own log grows with it.";

#[cfg(test)]
mod tests;
