//! Counting gRPC calls by method and code, as a layer around the services. Only methods that the program was built with
//! have a name here, whatever a client asks for; it changes no call.
//!
//! ```text
//! request -> which method? -> service -> response: grpc-status in its head, or
//!                                        in its trailers, or it is dropped before those: CANCELLED
//! ```

use std::{
    collections::BTreeMap,
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use hyper::{
    HeaderMap, Request, Response,
    body::{Body as HttpBody, Bytes, Frame, SizeHint},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, histogram::Histogram},
    registry::Unit,
};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tokio::time::Instant;
use tonic::body::Body;
use tower::{Layer, Service};

/// Names of the gRPC status codes, by their numbers: <https://grpc.github.io/grpc/core/md_doc_statuscodes.html>.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
/// Number of the code of a call whose answer nobody waited for.
const CANCELLED: usize = 1;
/// Number of the code of an answer without one that is known.
const UNKNOWN: usize = 2;
/// Upper bounds of the time a call takes, seconds. The longest that are not streams wait 10 s for hosts.
const TOOK: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0];

/// Calls of every method. Clones are one.
#[derive(Clone, Debug)]
pub struct Calls(Arc<Methods>);

#[derive(Debug)]
struct Methods {
    /// By path, as `/fracas.v1.Operator/Plan`.
    known: BTreeMap<String, Arc<Method>>,
    /// Whatever else a client asks for.
    other: Arc<Method>,
}

#[derive(Debug)]
struct Method {
    service: String,
    name: String,
    ended: [AtomicU64; CODES.len()],
    /// How long it took; none for streams, which last as long as somebody listens.
    took: Option<Histogram>,
}

impl Default for Calls {
    /// The methods of the services that a controller offers.
    fn default() -> Self {
        let described = [
            fracas_proto::DESCRIPTORS,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let known = described.into_iter().flat_map(methods).collect();
        Self(Arc::new(Methods { known, other: Arc::new(Method::new("other", "other", true)) }))
    }
}

/// The methods of a descriptor set by their paths.
fn methods(descriptors: &[u8]) -> Vec<(String, Arc<Method>)> {
    let set = FileDescriptorSet::decode(descriptors).expect("the descriptors were made from proto files");
    let mut all = Vec::new();
    for file in &set.file {
        for service in &file.service {
            let service_name = format!("{}.{}", file.package(), service.name());
            for method in &service.method {
                let streams = method.client_streaming() || method.server_streaming();
                let path = format!("/{service_name}/{}", method.name());
                all.push((path, Arc::new(Method::new(&service_name, method.name(), streams))));
            }
        }
    }
    all
}

impl Method {
    fn new(service: &str, name: &str, streams: bool) -> Self {
        let ended = std::array::from_fn(|_| AtomicU64::new(0));
        let took = (!streams).then(|| Histogram::new(TOOK));
        Self { service: service.to_owned(), name: name.to_owned(), ended, took }
    }

    fn labels(&self) -> [(&'static str, &str); 2] {
        [("service", &self.service), ("method", &self.name)]
    }
}

impl Calls {
    fn method(&self, path: &str) -> &Arc<Method> {
        self.0.known.get(path).unwrap_or(&self.0.other)
    }

    fn methods(&self) -> impl Iterator<Item = &Arc<Method>> {
        self.0.known.values().chain([&self.0.other])
    }

    /// How many calls of a path ended with this code.
    #[cfg(test)]
    pub(super) fn of(&self, path: &str, code: &str) -> u64 {
        let place = CODES.iter().position(|known| *known == code).expect("a code");
        self.method(path).ended[place].load(Relaxed)
    }
}

impl Collector for Calls {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let help = "Calls that have ended, by method and gRPC code.";
        let mut ended = encoder.encode_descriptor("grpc_calls", help, None, MetricType::Counter)?;
        for method in self.methods() {
            for (code, value) in CODES.iter().zip(&method.ended) {
                let value = value.load(Relaxed);
                // Success is told from the start, of the other codes what there was.
                if value > 0 || *code == CODES[0] {
                    let [service, name] = method.labels();
                    ConstCounter::new(value).encode(ended.encode_family(&[service, name, ("code", code)])?)?;
                }
            }
        }
        let help = "Time from a call to the end of its answer, by method; not of streams.";
        let (unit, kind) = (Unit::Seconds, MetricType::Histogram);
        let mut took = encoder.encode_descriptor("grpc_call_duration", help, Some(&unit), kind)?;
        for method in self.methods() {
            let called = method.ended.iter().any(|value| value.load(Relaxed) > 0);
            if let Some(histogram) = method.took.as_ref().filter(|_| called) {
                histogram.encode(took.encode_family(&method.labels())?)?;
            }
        }
        Ok(())
    }
}

impl<S> Layer<S> for Calls {
    type Service = Counting<S>;

    fn layer(&self, inner: S) -> Counting<S> {
        Counting { calls: self.clone(), inner }
    }
}

/// A service whose calls are counted.
#[derive(Clone, Debug)]
pub struct Counting<S> {
    calls: Calls,
    inner: S,
}

impl<S> Service<Request<Body>> for Counting<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Counted>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Counted>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut call =
            Call { method: Some(Arc::clone(self.calls.method(request.uri().path()))), begun: Instant::now() };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let (head, body) = answer.await?.into_parts();
            if let Some(code) = code(&head.headers) {
                call.end(code);
            }
            Ok(Response::from_parts(head, Counted { body, call }))
        })
    }
}

/// One call until its end is counted; dropping it is an end too.
#[derive(Debug)]
struct Call {
    method: Option<Arc<Method>>,
    begun: Instant,
}

impl Call {
    fn end(&mut self, code: usize) {
        let Some(method) = self.method.take() else { return };
        method.ended[code].fetch_add(1, Relaxed);
        if let Some(took) = &method.took {
            took.observe(self.begun.elapsed().as_secs_f64());
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(CANCELLED);
    }
}

/// Number of the code in headers or trailers, if there is one.
fn code(headers: &HeaderMap) -> Option<usize> {
    let status = headers.get("grpc-status")?.to_str().ok().and_then(|text| text.parse().ok());
    Some(status.filter(|code| *code < CODES.len()).unwrap_or(UNKNOWN))
}

/// The body of an answer, which is counted with its trailers.
#[derive(Debug)]
pub struct Counted {
    body: Body,
    call: Call,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(code) = frame.trailers_ref().and_then(code) {
                    self.call.end(code);
                }
            }
            Some(Err(status)) => self.call.end(status.code() as usize),
            // An answer that ends without a word on how.
            None => self.call.end(UNKNOWN),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_that_is_served_has_a_name_and_nothing_else_does() {
        let calls = Calls::default();
        let proto = concat!(
            include_str!("../../../../proto/fracas/v1/operator.proto"),
            include_str!("../../../../proto/fracas/v1/agent.proto"),
            include_str!("../../../../proto/fracas/v1/sign_in.proto")
        );
        let written: Vec<&str> = proto
            .lines()
            .filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next())
            .map(str::trim)
            .collect();
        let named = |service: &str| {
            let of = calls.methods().filter(|method| method.service.starts_with(service));
            of.map(|method| method.name.clone()).collect::<std::collections::BTreeSet<_>>()
        };
        assert!(written.len() > 15, "{written:?}");
        assert_eq!(named("fracas."), written.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(named("grpc.reflection.v1.").len() + named("grpc.reflection.v1alpha.").len(), 2);
        assert!(named("grpc.health.v1.Health").contains("Check"));
        for path in ["/", "", "/fracas.v1.Operator/Nonsense", "/x".repeat(5000).as_str()] {
            assert_eq!(calls.method(path).name, "other", "{path}");
        }
        let streams = |path: &str| calls.method(path).took.is_none();
        assert!(streams("/fracas.v1.Fleet/Session") && streams("/fracas.v1.Operator/WatchRun"));
        assert!(!streams("/fracas.v1.Operator/StartRun"));
    }

    #[test]
    fn codes_are_numbers_that_are_known() {
        let of = |text: &str| code(&HeaderMap::from_iter([("grpc-status".parse().unwrap(), text.parse().unwrap())]));
        assert_eq!((of("0"), of("16"), of("17"), of("-1"), of("x")), (Some(0), Some(16), Some(2), Some(2), Some(2)));
        assert_eq!(code(&HeaderMap::new()), None);
    }
}
