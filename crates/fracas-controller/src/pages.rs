//! The pages that the front listener serves beside gRPC, over HTTP/1 too. What they show is not its business.

use std::time::Duration;

use axum::{
    body::{self, Body},
    extract::{Request, State},
    http::{
        HeaderValue, StatusCode, Version,
        header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
    },
    middleware::{self, Next},
    response::Response,
    routing::MethodRouter,
};
use tonic::service::Routes;

/// Plain text.
const TEXT: &str = "text/plain; charset=utf-8";
/// What is read of a body that nobody wants, bytes, and for how long.
const MAX_BODY: usize = 4096;
const BODY_PATIENCE: Duration = Duration::from_secs(1);

/// A page and its path.
pub(crate) type Page = (&'static str, MethodRouter);

/// The services of the front listener with the pages beside them.
pub(crate) fn serve(services: Routes, pages: Vec<Page>) -> Routes {
    let paths: Vec<&'static str> = pages.iter().map(|(path, _)| *path).collect();
    let router = pages.into_iter().fold(services.into_axum_router(), |router, (path, page)| router.route(path, page));
    router.layer(middleware::from_fn_with_state(paths, old_http)).into()
}

/// HTTP/1 is there for the pages alone: gRPC needs HTTP/2, as it did before there were pages.
async fn old_http(State(paths): State<Vec<&'static str>>, request: Request, next: Next) -> Response {
    if request.version() < Version::HTTP_2 && !paths.contains(&request.uri().path()) {
        let version = request.version();
        spent(request.into_body()).await;
        return closing(version, plain(StatusCode::NOT_FOUND, "There is nothing here.\n"));
    }
    next.run(request).await
}

/// A small body is taken before it is refused: where a stream is reset because of the rest, some programs lose the answer.
pub(crate) async fn spent(body: Body) {
    drop(tokio::time::timeout(BODY_PATIENCE, body::to_bytes(body, MAX_BODY)).await);
}

/// A few words, kept by nobody.
pub(crate) fn plain(status: StatusCode, text: &str) -> Response {
    let mut response = typed(TEXT, text.to_owned());
    *response.status_mut() = status;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A text of this type.
pub(crate) fn typed(kind: &'static str, text: String) -> Response {
    let length = text.len();
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_LENGTH, length.into());
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Whoever has shown no token is a stranger to the listener, and gives its place there back at once.
pub(crate) fn closing(version: Version, mut response: Response) -> Response {
    if version < Version::HTTP_2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
