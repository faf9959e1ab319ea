//! One POST on a fresh connection, and what the answer means for the next try. It follows no redirects.

use std::{future::Future, path::Path, pin::pin, time::Duration};

use bytes::Bytes;
use chrono::DateTime;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode, Uri,
    body::Incoming,
    client::conn::http1,
    header::{CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT},
};
use hyper_util::rt::TokioIo;

use super::{
    Failure,
    connect::{Wire, connect, secure, world},
    notice::one_line,
};

/// How much of an answer is read, in bytes; what follows is of no use.
const LONGEST_ANSWER: usize = 4 << 10;
/// How much of it is shown, in characters.
const SHOWN: usize = 200;

/// What to send, and to whom.
#[derive(Debug)]
pub(super) struct Post<'p> {
    /// `http` or `https`.
    pub(super) url: &'p str,
    /// Of the body.
    pub(super) content_type: &'static str,
    /// Further headers.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub(super) body: Vec<u8>,
    /// Authorities to trust.
    pub(super) ca: Option<&'p Path>,
    /// Wall time, for an answer that names an instant, nanoseconds since the Unix epoch.
    pub(super) now_ns: i64,
}

/// Sends it. The error says what became of it and whether another try makes sense.
pub(super) async fn post(post: Post<'_>) -> Result<(), Failure> {
    // It may stand elsewhere and be mended there: nothing is lost meanwhile.
    let bad = |why: &str| Failure::later(format!("its URL {why}"));
    let uri: Uri = post.url.parse().map_err(|_| bad("cannot be read"))?;
    let authority = uri.authority().ok_or_else(|| bad("names no host"))?.clone();
    let secured = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(bad("is neither http nor https")),
    };
    if authority.as_str().contains('@') {
        return Err(bad("carries a password: use a header"));
    }
    let request = request(&uri, &post)?;
    let port = authority.port_u16().unwrap_or(if secured { 443 } else { 80 });
    let stream = connect(authority.host(), port).await?;
    let answered = if secured {
        exchange(secure(stream, authority.host(), post.ca).await?, request).await
    } else {
        exchange(Box::new(stream), request).await
    };
    let (status, after, said) = answered.map_err(|e| Failure::later(said(&e)))?;
    judged(status, after.as_deref().and_then(|text| wait(text, post.now_ns)), said)
}

fn request(uri: &Uri, post: &Post<'_>) -> Result<Request<Full<Bytes>>, Failure> {
    let bad = || Failure::later("its URL cannot be asked for");
    let mut request = Request::new(Full::new(Bytes::from(post.body.clone())));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri.path_and_query().map_or("/", |p| p.as_str()).parse().map_err(|_| bad())?;
    let headers = request.headers_mut();
    let host = uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    headers.insert(HOST, host.ok_or_else(bad)?);
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("fracas/", env!("CARGO_PKG_VERSION"))));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(post.content_type));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.extend(post.headers.iter().cloned());
    Ok(request)
}

/// Status, what it says of another try, and the beginning of the answer.
type Answer = (StatusCode, Option<String>, String);

/// Sends the request, driving the connection beside it: when this is dropped, all is gone.
async fn exchange(wire: Box<dyn Wire>, request: Request<Full<Bytes>>) -> Result<Answer, hyper::Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(wire)).await?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let (status, headers) = (response.status(), response.headers());
        let after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        // It was taken: whatever else the receiver says, and however slowly, does not matter.
        let said = if status.is_success() { String::new() } else { beginning(response).await };
        Ok((status, after, said))
    };
    beside(answer, connection).await
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

/// The status has come: what breaks from here on breaks only words.
async fn beginning(response: Response<Incoming>) -> String {
    let (mut body, mut read) = (response.into_body(), Vec::new());
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(data) = frame.data_ref() {
            read.extend_from_slice(&data[..data.len().min(LONGEST_ANSWER - read.len())]);
        }
        if read.len() == LONGEST_ANSWER {
            break;
        }
    }
    one_line(&String::from_utf8_lossy(&read), SHOWN)
}

/// What an answer means. Only what may be otherwise the next time is tried again.
fn judged(status: StatusCode, after: Option<Duration>, said: String) -> Result<(), Failure> {
    let why = format!("status {status}");
    let failure = match status.as_u16() {
        200..=299 => return Ok(()),
        300..=399 => Failure::never(format!("{why} (redirects are not followed: name the final URL)")),
        408 | 429 | 502..=504 => Failure::later(why),
        500..=599 => Failure::blamed(why),
        _ => Failure::never(why),
    };
    Err(Failure { said, after, ..failure })
}

/// How long `Retry-After` asks to wait: seconds, or an instant (RFC 9110, 10.2.3).
fn wait(text: &str, now_ns: i64) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let at = DateTime::parse_from_rfc2822(text.trim()).ok()?.timestamp_nanos_opt()?;
    Some(Duration::from_nanos(at.saturating_sub(now_ns).max(0).unsigned_abs()))
}

/// What went wrong on the connection.
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
            None => return one_line(&error.to_string(), SHOWN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::Again;

    #[test]
    fn only_what_may_be_otherwise_next_time_is_tried_again() {
        let judge = |status: u16| judged(StatusCode::from_u16(status).unwrap(), None, "no".into()).map_err(|f| f.again);
        for fine in [200, 202, 204] {
            assert_eq!(judge(fine), Ok(()), "{fine}");
        }
        for over in [301, 400, 401, 404, 410, 413, 425] {
            assert_eq!(judge(over), Err(Again::Never), "{over}");
        }
        for later in [408, 429, 502, 503, 504] {
            assert_eq!(judge(later), Err(Again::Later), "{later}");
        }
        for blamed in [500, 501, 599] {
            assert_eq!(judge(blamed), Err(Again::Blamed), "{blamed}");
        }
    }

    #[test]
    fn both_forms_of_retry_after_are_read() {
        // 1994-11-06T08:49:37Z, the instant of the example in RFC 9110.
        let then = 784_111_777_000_000_000;
        assert_eq!(wait(" 120", 0), Some(Duration::from_mins(2)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT", then - 5_000_000_000), Some(Duration::from_secs(5)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT", then + 1), Some(Duration::ZERO));
        for none in ["", "-1", "soon", "99999999999999"] {
            assert_eq!(wait(none, then), None, "{none}");
        }
    }
}
