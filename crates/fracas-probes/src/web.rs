//! One HTTP/1.1 request on a fresh connection, plain or over TLS, as every look of a probe that speaks HTTP makes it.
//! It follows no redirects and judges nothing.

use std::{cell::Cell, future::Future, pin::pin};

use bytes::Bytes;
use fracas_model::{
    catalogue::Params,
    plan::Refusal,
    policy::Policy,
    shape::{Field, Shape},
};
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Method, Request, Response, Uri,
    body::Incoming,
    client::conn::http1,
    header::{CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT},
    http::uri::Authority,
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    PrepareFuture, brief,
    connect::{connect, world},
    secret::{self, Secret},
    tls::{self, Secure},
};

/// Whom to ask and what for. Clones share what was read of the host.
#[derive(Clone)]
pub(crate) struct Web {
    request: Request<Empty<Bytes>>,
    host: String,
    port: u16,
    tls: Option<Secure>,
    /// Headers whose values are read for each look.
    secrets: Vec<(HeaderName, Secret)>,
}

/// What was made of an answer, and what was learned before it came.
pub(crate) struct Told<T> {
    pub(crate) answer: T,
    /// When the server's certificate ends, in seconds since 1970; only over TLS.
    pub(crate) certificate_ends: Option<i64>,
}

/// When a certificate in DER ends, in seconds since 1970; `None` when it cannot be read.
fn ends(leaf: &[u8]) -> Option<i64> {
    let (_, leaf) = x509_parser::parse_x509_certificate(leaf).ok()?;
    Some(leaf.validity().not_after.timestamp())
}

/// The parameters that [`Web::new`] reads beside the URL.
pub(crate) fn fields() -> [Field; 3] {
    [
        Field::optional(
            "headers",
            Shape::Map { of: Box::new(secret::shape(4096)), max: 32 },
            "Headers of the request; a secret one as { file: PATH } or { env: NAME } on the host that looks.",
        ),
        Field::with_default("insecure", Shape::Bool, false, "Take any certificate (https)."),
        Field::optional("caFile", Shape::Path, "PEM file of trusted authorities on the host (https), at most 4 MiB."),
    ]
}

/// A URL in its parts.
///
/// # Errors
/// It is none, or not one to ask; `kind` is the probe that wants it.
pub(crate) fn url(kind: &str, params: &Params) -> Result<Uri, Refusal> {
    let url = params.text("url").unwrap_or_default();
    let bad = |why: &str| Refusal::new(format!("{kind}: {why}"), "write a URL such as http://127.0.0.1:8080/health");
    let uri: Uri = url.parse().map_err(|e| bad(&format!("{url:?} is not a URL: {e}")))?;
    let authority = uri.authority().ok_or_else(|| bad("the URL names no host"))?;
    if authority.as_str().contains('@') {
        return Err(Refusal::new(
            format!("{kind}: the URL carries a password"),
            "put it into headers: { authorization: \"Basic ...\" }",
        ));
    }
    match uri.scheme_str() {
        Some("http" | "https") => Ok(uri),
        _ => Err(bad("the URL is neither http nor https")),
    }
}

impl Web {
    /// The request of a look, built once; `path` is the path with its query.
    ///
    /// # Errors
    /// What cannot be sent.
    pub(crate) fn new(
        kind: &str,
        uri: &Uri,
        method: Method,
        path: &str,
        params: &Params,
        policy: &Policy,
    ) -> Result<Self, Refusal> {
        let authority = uri.authority();
        let host = authority.map_or("", |a| a.host()).to_owned();
        let secure = uri.scheme_str() == Some("https");
        let tls = if secure { Some(Secure::new(kind, &host, params)?) } else { None };
        let mut request = Request::new(Empty::new());
        *request.method_mut() = method;
        *request.uri_mut() =
            path.parse().map_err(|e| Refusal::new(format!("{kind}: path {path:?}: {e}"), "check the URL"))?;
        let headers = request.headers_mut();
        if let Ok(host) = HeaderValue::from_str(authority.map_or("", |a| a.as_str())) {
            headers.insert(HOST, host);
        }
        headers.insert(USER_AGENT, HeaderValue::from_static("fracas-probe"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        let wanted = params.0.get("headers").and_then(|h| h.as_object());
        let mut secrets = Vec::new();
        for (name, value) in wanted.into_iter().flatten() {
            // The value may be a secret: it is never shown.
            let bad =
                || Refusal::new(format!("{kind}: header {name:?} cannot be sent"), "check its name and its value");
            let name: HeaderName = name.parse().map_err(|_| bad())?;
            match Secret::new(&format!("{kind}: header {name}"), value, policy)? {
                Secret::Plain(text) => drop(headers.insert(name, text.parse().map_err(|_| bad())?)),
                secret => secrets.push((name, secret)),
            }
        }
        let port = authority.and_then(Authority::port_u16).unwrap_or(if secure { 443 } else { 80 });
        Ok(Self { request, host, port, tls, secrets })
    }

    /// The same whom, asked in another way for another path.
    ///
    /// # Errors
    /// A path that cannot be sent.
    pub(crate) fn at(&self, method: Method, path: &str) -> Result<Self, String> {
        let mut other = self.clone();
        *other.request.method_mut() = method;
        *other.request.uri_mut() = path.parse().map_err(|e| brief(format_args!("path {path:?}: {e}")))?;
        Ok(other)
    }

    /// Reads what https needs of the host.
    pub(crate) fn prepare(&self) -> PrepareFuture {
        Box::pin(tls::prepare(self.tls.clone()))
    }

    /// Asks once; `judge` makes of the answer what it will, while its bytes come.
    pub(crate) async fn ask<T>(
        &self,
        judge: impl AsyncFnOnce(Response<Incoming>) -> Result<T, String>,
    ) -> Result<Told<T>, String> {
        self.ask_saying_so(&Cell::new(false), judge).await
    }

    /// The same, and sets `sent` from when on the server may have the request.
    pub(crate) async fn ask_saying_so<T>(
        &self,
        sent: &Cell<bool>,
        judge: impl AsyncFnOnce(Response<Incoming>) -> Result<T, String>,
    ) -> Result<Told<T>, String> {
        // Long made where the probe was prepared; what is wrong with it is no fault of the server's.
        tls::prepare(self.tls.clone()).await.map_err(|refusal| brief(refusal.why))?;
        let stream = connect(&self.host, self.port).await?;
        match &self.tls {
            None => {
                sent.set(true);
                Ok(Told { answer: self.exchange(stream, judge).await?, certificate_ends: None })
            }
            Some(secure) => {
                let stream = secure.over(stream, &[]).await?;
                let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                sent.set(true);
                let certificate_ends = shown.and_then(|leaf| ends(leaf));
                Ok(Told { answer: self.exchange(stream, judge).await?, certificate_ends })
            }
        }
    }

    async fn request(&self) -> Result<Request<Empty<Bytes>>, String> {
        let mut request = self.request.clone();
        for (name, secret) in &self.secrets {
            let text = secret.reveal().await.map_err(brief)?;
            let value =
                HeaderValue::from_str(&text).map_err(|_| brief(format_args!("header {name} cannot be sent")))?;
            request.headers_mut().insert(name, value);
        }
        Ok(request)
    }

    /// The same over a connection that is made, which is driven beside it: when the look is dropped, all is gone.
    pub(crate) async fn exchange<T>(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
        judge: impl AsyncFnOnce(Response<Incoming>) -> Result<T, String>,
    ) -> Result<T, String> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| said(&e))?;
        let answer = async {
            let response = sender.send_request(self.request().await?).await.map_err(|e| said(&e))?;
            judge(response).await
        };
        beside(answer, connection).await
    }
}

/// The first `most` bytes of an answer's body, and whether that is all of it.
pub(crate) async fn body(response: Response<Incoming>, most: usize) -> Result<(Vec<u8>, bool), String> {
    let mut body = response.into_body();
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame.map_err(|e| said(&e))?.data_ref() {
            read.extend_from_slice(&data[..data.len().min(most - read.len())]);
        }
        if read.len() == most {
            return Ok((read, false));
        }
    }
    Ok((read, true))
}

/// The result of `answer`, while `driver` moves its bytes. The driver may end first, having delivered everything.
pub(crate) async fn beside<T>(answer: impl Future<Output = T>, driver: impl Future) -> T {
    let (mut answer, mut driver) = (pin!(answer), pin!(driver));
    tokio::select! {
        biased;
        done = &mut answer => return done,
        _ = &mut driver => {}
    }
    answer.await
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
