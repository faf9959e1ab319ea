//! The page to which alerting tools send what they tell: bearer token, JSON in, a line of JSON out.

use std::time::Duration;

use axum::{
    body::{self, Body},
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::Response,
    routing::{MethodRouter, any},
};
use fracas_model::{
    access::Right,
    signal::{LONGEST_PAYLOAD, alertmanager},
};
use serde_json::{Value, json};
use tonic::{Code, metadata::MetadataValue, service::Interceptor as _};

use super::{Signals, Taken};
use crate::{
    access::Principal,
    listen::Peer,
    pages::{closing, spent},
};

/// Path of the page.
pub(crate) const PATH: &str = "/signals/alertmanager";
/// How long the whole of a payload may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// The page.
pub(crate) fn door(signals: Signals) -> MethodRouter {
    any(page).with_state(signals)
}

async fn page(State(signals): State<Signals>, request: Request) -> Response {
    let at = signals.0.history.now();
    let (asked, body) = request.into_parts();
    let peer = asked.extensions.get::<Peer>().cloned().unwrap_or_default();
    let by = match whose(&signals, &asked.headers, peer) {
        Ok(by) => by,
        Err((status, why)) => {
            spent(body).await;
            let mut refused = said(status, &json!({ "error": why }));
            if status == StatusCode::UNAUTHORIZED {
                refused.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            return closing(asked.version, refused);
        }
    };
    if asked.method != Method::POST {
        let mut refused = said(StatusCode::METHOD_NOT_ALLOWED, &json!({ "error": "only POST" }));
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return refused;
    }
    let payload = match tokio::time::timeout(PATIENCE, body::to_bytes(body, LONGEST_PAYLOAD)).await {
        Ok(Ok(payload)) => payload,
        Ok(Err(_)) => {
            let why = format!("a payload has at most {LONGEST_PAYLOAD} bytes: set max_alerts of the receiver");
            return said(StatusCode::PAYLOAD_TOO_LARGE, &json!({ "error": why }));
        }
        // Alertmanager tells again after errors of ours only.
        Err(_) => return said(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": "the payload did not come" })),
    };
    let told = match alertmanager(&payload) {
        Ok(told) => told,
        Err(why) => return said(StatusCode::BAD_REQUEST, &json!({ "error": why })),
    };
    match signals.take(&by, &told, &at).await {
        Ok(Taken { runs, news }) => {
            said(StatusCode::OK, &json!({ "alerts": told.signals.len(), "runs": runs, "news": news }))
        }
        // It is told again then.
        Err(error) => {
            tracing::error!(%error, source = by.id, "alerts were not recorded: their source is asked to tell them again");
            let mut refused =
                said(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": "the history cannot be written now" }));
            refused.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            refused
        }
    }
}

/// Whose token came along, if that may tell of alerts anywhere; else what is answered.
fn whose(signals: &Signals, headers: &HeaderMap, peer: Peer) -> Result<Principal, (StatusCode, String)> {
    let mut call = tonic::Request::new(());
    let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Some(token) = token.and_then(|token| MetadataValue::try_from(token).ok()) {
        call.metadata_mut().insert("authorization", token);
    }
    call.extensions_mut().insert(peer.clone());
    let let_in = signals.0.doors.clone().call(call).map_err(|status| match status.code() {
        Code::ResourceExhausted => (StatusCode::SERVICE_UNAVAILABLE, status.message().to_owned()),
        _ => (StatusCode::UNAUTHORIZED, status.message().to_owned()),
    })?;
    let by = let_in.extensions().get::<Principal>().cloned();
    by.filter(|by| by.grants.allow_somewhere(Right::Signal)).ok_or_else(|| {
        let from = peer.address.map(|address| address.ip().to_string()).unwrap_or_default();
        signals.0.doors.audit.stranger("(signals)", &from, "the token may not tell of alerts");
        (StatusCode::FORBIDDEN, "this token may not tell of alerts: that takes the role signaller".to_owned())
    })
}

fn said(status: StatusCode, what: &Value) -> Response {
    let mut response = Response::new(Body::from(format!("{what}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
