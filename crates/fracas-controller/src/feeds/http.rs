//! The one page that the front listener serves without a token: the calendar of a signed link.

use axum::{
    body::Body,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{ALLOW, CACHE_CONTROL, ETAG, IF_NONE_MATCH},
    },
    response::Response,
    routing::{MethodRouter, any},
};

use super::Feeds;
use crate::{
    chain::{hex, sha256},
    pages::{closing, plain, spent, typed},
};

/// Path of the page.
pub const PATH: &str = "/schedules.ics";
const CALENDAR: &str = "text/calendar; charset=utf-8";
/// Said to whoever has no good link, whatever is wrong with his.
const CLOSED: &str = "This link opens nothing: it was altered, has expired or was revoked, or whoever made it may not look there any more. Have a new one made.\n";
/// Programs need not ask more often.
const KEPT: &str = "private, max-age=300";

/// The page.
pub(crate) fn calendar(feeds: Feeds) -> MethodRouter {
    any(page).with_state(feeds)
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

/// The same answer without its body.
fn bodiless(response: Response) -> Response {
    response.map(|_| Body::empty())
}
