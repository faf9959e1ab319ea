//! One HTTP request to an identity provider on a fresh connection, and its whole answer, bounded. It follows no redirects.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Uri,
    client::conn::http1,
    header::{ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT},
};
use hyper_util::rt::TokioIo;

use crate::notify::connect::{Wire, connect, secure, world};

/// Longest answer, bytes: a discovery document has a few thousand.
const LONGEST: usize = 256 << 10;
/// Longest time for all of it.
const PATIENCE: Duration = Duration::from_secs(15);

/// What to ask.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    /// `https`, or `http` on loopback.
    pub(crate) url: &'a str,
    /// Authorities to trust instead of the platform's.
    pub(crate) ca: Option<&'a Path>,
    /// Value of `authorization`.
    pub(crate) authorization: Option<String>,
    /// Fields of a form to post; without, it is a GET.
    pub(crate) form: Option<&'a [(&'a str, &'a str)]>,
}

/// Whether nobody in between can read or change what is sent there: HTTPS, or plain HTTP to this very machine.
pub(crate) fn is_sure(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    uri.scheme_str() == Some("https") || (uri.scheme_str() == Some("http") && here)
}

/// A text as a form carries it (`application/x-www-form-urlencoded`).
pub(crate) fn escaped(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(one).collect()
}

/// Asks, and gives status and body.
///
/// # Errors
/// Why there is no answer, in a few words.
pub(crate) async fn ask(asked: Asked<'_>) -> Result<(u16, Vec<u8>), String> {
    match tokio::time::timeout(PATIENCE, answered(asked)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("it did not answer within {} s", PATIENCE.as_secs())),
    }
}

async fn answered(asked: Asked<'_>) -> Result<(u16, Vec<u8>), String> {
    let bad = || "its address cannot be asked".to_owned();
    if !is_sure(asked.url) {
        return Err("it wants to be asked over plain HTTP".to_owned());
    }
    let uri: Uri = asked.url.parse().map_err(|_| bad())?;
    let (host, secured) = (uri.host().ok_or_else(bad)?.to_owned(), uri.scheme_str() == Some("https"));
    let request = request(&uri, &asked).ok_or_else(bad)?;
    let port = uri.port_u16().unwrap_or(if secured { 443 } else { 80 });
    let stream = connect(&host, port).await.map_err(|e| e.why)?;
    let wire: Box<dyn Wire> =
        if secured { secure(stream, &host, asked.ca).await.map_err(|e| e.why)? } else { Box::new(stream) };
    exchange(wire, request).await
}

fn request(uri: &Uri, asked: &Asked<'_>) -> Option<Request<Full<Bytes>>> {
    let field = |(name, value): &(&str, &str)| format!("{}={}", escaped(name), escaped(value));
    let body = asked.form.map(|form| form.iter().map(field).collect::<Vec<_>>().join("&"));
    let mut request = Request::new(Full::new(Bytes::from(body.clone().unwrap_or_default())));
    *request.method_mut() = if body.is_some() { Method::POST } else { Method::GET };
    *request.uri_mut() = uri.path_and_query().map_or("/", |path| path.as_str()).parse().ok()?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_str(uri.authority()?.as_str()).ok()?);
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("fracas/", env!("CARGO_PKG_VERSION"))));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    if body.is_some() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    }
    if let Some(text) = &asked.authorization {
        let mut value = HeaderValue::from_str(text).ok()?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Some(request)
}

async fn exchange(wire: Box<dyn Wire>, request: Request<Full<Bytes>>) -> Result<(u16, Vec<u8>), String> {
    let said = |error: &dyn std::error::Error| {
        let source = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
        source.map_or_else(|| "its answer broke off or is not HTTP".to_owned(), world)
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(wire)).await.map_err(|e| said(&e))?;
    let driver = tokio::spawn(connection);
    let answer = async {
        let response = sender.send_request(request).await.map_err(|e| said(&e))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), LONGEST).collect().await;
        let body = body.map_err(|_| format!("its answer broke off or is longer than {LONGEST} bytes"))?;
        Ok((status, body.to_bytes().to_vec()))
    };
    let answer = answer.await;
    driver.abort();
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_only() {
        for sure in ["https://idp.example", "http://127.0.0.1:1/x", "http://[::1]:1", "http://localhost/"] {
            assert!(is_sure(sure), "{sure}");
        }
        for unsure in
            ["http://idp.example", "ftp://127.0.0.1", "http://127.0.0.1.example", "", "//x", "http://10.0.0.1"]
        {
            assert!(!is_sure(unsure), "{unsure}");
        }
    }

    #[test]
    fn forms_carry_any_text() {
        assert_eq!(escaped("a b&c=ä:~"), "a%20b%26c%3D%C3%A4%3A~");
    }

    #[tokio::test]
    async fn who_does_not_answer_is_told_in_few_words() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        drop(listener);
        let asked = |url| Asked { url, ca: None, authorization: None, form: None };
        assert_eq!(ask(asked(&url)).await, Err("connection refused".to_owned()));
        assert!(ask(asked("http://idp.example/")).await.unwrap_err().contains("plain HTTP"));
    }
}
