//! The listener for metrics and health: HTTP/1.1 in plain text, which only reads. Whoever reaches it needs no token, so it
//! is bounded in everything and tells nothing that has a name.

use std::{convert::Infallible, future::Future, pin::pin, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{DoorMeters, Format, Metrics};
use crate::listen::BREATHER;

/// What a listener bears.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Connections at the same time.
    connections: usize,
    /// How long a request's head may take, and a connection may be idle.
    head: Duration,
    /// How long a connection lives, whatever it does.
    life: Duration,
    /// How long its last answer may then take.
    last: Duration,
}

/// A few Prometheus servers and some probes; a connection outlives the usual pause between two scrapes.
const BOUNDS: Bounds = Bounds {
    connections: 32,
    head: Duration::from_secs(75),
    life: Duration::from_mins(10),
    last: Duration::from_secs(10),
};
/// Most bytes and lines of a request's head. The library's buffer has at least 8 KiB.
const HEAD: (usize, usize) = (16 << 10, 64);

/// What there is.
const PATHS: &str = "/metrics /healthz /readyz";
const TEXT: &str = "text/plain; charset=utf-8";

/// Serves until `closed` resolves; then every connection ends at once.
pub async fn serve(listener: TcpListener, metrics: Metrics, closed: impl Future<Output = ()>) {
    serve_within(BOUNDS, listener, metrics, closed).await;
}

async fn serve_within(bounds: Bounds, listener: TcpListener, metrics: Metrics, closed: impl Future<Output = ()>) {
    let [.., door] = metrics.doors();
    let (door, places) = (door.clone(), Arc::new(Semaphore::new(bounds.connections)));
    let mut connections = JoinSet::new();
    let mut closed = pin!(closed);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = connections.join_next(), if !connections.is_empty() => continue,
            () = closed.as_mut() => return,
        };
        match accepted {
            Ok((socket, address)) => {
                door.accepted();
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    door.not_kept("full");
                    tracing::debug!(%address, "connection refused, too many want metrics");
                    continue;
                };
                let (metrics, door) = (metrics.clone(), door.clone());
                connections.spawn(async move {
                    connection(bounds, socket, metrics, &door).await;
                    drop(place);
                });
            }
            Err(error) => {
                door.stuck();
                tracing::warn!(%error, "a connection for metrics could not be accepted");
                sleep(BREATHER).await;
            }
        }
    }
}

async fn connection(bounds: Bounds, socket: TcpStream, metrics: Metrics, door: &DoorMeters) {
    let _open = door.open();
    let service = service_fn(move |request| {
        let metrics = metrics.clone();
        async move { Ok::<_, Infallible>(answer(&metrics, &request).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(bounds.head).max_buf_size(HEAD.0).max_headers(HEAD.1);
    let mut connection = pin!(server.serve_connection(TokioIo::new(socket), service));
    if let Ok(ended) = timeout(bounds.life, connection.as_mut()).await {
        return told(ended);
    }
    connection.as_mut().graceful_shutdown();
    if let Ok(ended) = timeout(bounds.last, connection).await {
        told(ended);
    }
}

fn told(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection for metrics ended badly");
    }
}

async fn answer(metrics: &Metrics, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if !PATHS.split(' ').any(|known| known == path) {
        return response(StatusCode::NOT_FOUND, TEXT, format!("there is nothing here; there are {PATHS}\n"));
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let text = "this only reads: use GET\n".to_owned();
        let mut refused = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, text);
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match path {
        "/metrics" => {
            let accept = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
            let format = Format::asked(&accept.collect::<Vec<_>>().join(","));
            response(StatusCode::OK, format.content_type(), metrics.exposition(format))
        }
        "/healthz" => state(&metrics.ailments()),
        _ => state(&metrics.obstacles().await),
    }
}

/// 200, or 503 with the reasons, one a line.
fn state(reasons: &[String]) -> Response<Full<Bytes>> {
    if reasons.is_empty() {
        return response(StatusCode::OK, TEXT, "ok\n".to_owned());
    }
    response(StatusCode::SERVICE_UNAVAILABLE, TEXT, reasons.iter().map(|reason| format!("{reason}\n")).collect())
}

fn response(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
