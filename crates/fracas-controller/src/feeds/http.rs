//! The one page that the front listener serves without a token: the calendar of a signed link. Everything else there is gRPC.

use std::time::Duration;

use axum::{
    body::{self, Body},
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue, Method, StatusCode, Version,
        header::{
            ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH, X_CONTENT_TYPE_OPTIONS,
        },
    },
    middleware::{self, Next},
    response::Response,
    routing::any,
};
use tonic::service::Routes;

use super::Feeds;
use crate::chain::{hex, sha256};

/// Path of the page.
pub const PATH: &str = "/schedules.ics";
const CALENDAR: &str = "text/calendar; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
/// Said to whoever has no good link, whatever is wrong with his.
const CLOSED: &str = "This link opens nothing: it was altered, has expired or was revoked, or whoever made it may not look there any more. Have a new one made.\n";
/// What is read of a body that nobody wants, bytes, and for how long.
const MAX_BODY: usize = 4096;
const BODY_PATIENCE: Duration = Duration::from_secs(1);
/// Programs need not ask more often.
const KEPT: &str = "private, max-age=300";

/// The services of the front listener with the page beside them.
pub(crate) fn serve(services: Routes, feeds: Feeds) -> Routes {
    let page = any(page).with_state(feeds);
    services.into_axum_router().route(PATH, page).layer(middleware::from_fn(old_http)).into()
}

/// HTTP/1 is there for the page alone: gRPC needs HTTP/2, as it did before there was a page.
async fn old_http(request: Request, next: Next) -> Response {
    if request.version() < Version::HTTP_2 && request.uri().path() != PATH {
        let version = request.version();
        spent(request.into_body()).await;
        return closing(version, plain(StatusCode::NOT_FOUND, "There is nothing here.\n"));
    }
    next.run(request).await
}

/// A small body is taken before it is refused: where a stream is reset because of the rest, some programs lose the answer.
async fn spent(body: Body) {
    drop(tokio::time::timeout(BODY_PATIENCE, body::to_bytes(body, MAX_BODY)).await);
}

async fn page(State(feeds): State<Feeds>, request: Request) -> Response {
    let (asked, body) = request.into_parts();
    let head = asked.method == Method::HEAD;
    let response = if head || asked.method == Method::GET {
        answer(&feeds, asked.uri.query().unwrap_or_default(), &asked.headers).await
    } else {
        spent(body).await;
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD.\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        refused
    };
    closing(asked.version, if head { bodiless(response) } else { response })
}

async fn answer(feeds: &Feeds, query: &str, headers: &HeaderMap) -> Response {
    let Some(link) = feeds.opened(query) else {
        return plain(StatusCode::FORBIDDEN, CLOSED);
    };
    let Ok(_turn) = feeds.turn.acquire().await else {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "The controller is shutting down.\n");
    };
    let writing = feeds.clone();
    let Ok(text) = tokio::task::spawn_blocking(move || writing.calendar(&link)).await else {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "The calendar could not be written.\n");
    };
    let tag = format!("\"{}\"", hex(&sha256(text.as_bytes())[..16]));
    let known = seen(headers, &tag);
    let mut response = if known { Response::new(Body::empty()) } else { typed(CALENDAR, text) };
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(ETAG, HeaderValue::from_str(&tag).expect("hexadecimal in quotes is a header's value"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(KEPT));
    response
}

/// Whether the asker has what he would get (RFC 9110, 13.1.2).
fn seen(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    known.flat_map(|value| value.split(',')).any(|one| {
        let one = one.trim();
        one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag
    })
}

fn plain(status: StatusCode, text: &str) -> Response {
    let mut response = typed(TEXT, text.to_owned());
    *response.status_mut() = status;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn typed(kind: &'static str, text: String) -> Response {
    let length = text.len();
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_LENGTH, length.into());
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The same answer without its body.
fn bodiless(response: Response) -> Response {
    response.map(|_| Body::empty())
}

/// Whoever has only a link is a stranger to the listener, and gives its place there back at once.
fn closing(version: Version, mut response: Response) -> Response {
    if version < Version::HTTP_2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
