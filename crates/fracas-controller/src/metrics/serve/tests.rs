//! Real connections over loopback: what is answered, and what a listener does not bear.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

async fn start(bounds: Bounds) -> (SocketAddr, Metrics) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (address, metrics) = (listener.local_addr().unwrap(), Metrics::new(1));
    tokio::spawn(serve_within(bounds, listener, metrics.clone(), std::future::pending()));
    (address, metrics)
}

/// Everything that comes back until the connection ends.
async fn said(address: SocketAddr, request: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // Whoever is cut off may hear that as a reset.
    let _ = socket.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

async fn asked(address: SocketAddr, line: &str, more: &str) -> (u16, String) {
    let answer = said(address, &format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n")).await;
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.unwrap_or_else(|| panic!("{answer}")), answer)
}

#[tokio::test]
async fn there_are_three_pages_which_can_only_be_read() {
    let (address, _) = start(BOUNDS).await;
    let (code, page) = asked(address, "GET /metrics", "").await;
    assert!(code == 200 && page.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{page}");
    assert!(page.contains("# TYPE fracas_build_info gauge") && !page.contains("# EOF"), "{page}");
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let (code, page) = asked(address, "GET /metrics?x=y", accept).await;
    assert!(code == 200 && page.contains("application/openmetrics-text; version=1.0.0"), "{page}");
    assert!(page.contains("# TYPE fracas_build info") && page.ends_with("# EOF\n"), "{page}");
    let (code, page) = asked(address, "GET /healthz", "").await;
    assert!(code == 200 && page.ends_with("\r\n\r\nok\n"), "{page}");
    let (code, page) = asked(address, "GET /readyz", "").await;
    assert!(code == 503 && page.ends_with("\r\n\r\nstarting: runs and schedules are being taken up\n"), "{page}");
    let (code, page) = asked(address, "HEAD /metrics", "").await;
    assert!(code == 200 && page.ends_with("\r\n\r\n"), "{page}");
    for line in ["POST /metrics", "DELETE /healthz", "OPTIONS /readyz"] {
        let (code, page) = asked(address, line, "").await;
        assert!(code == 405 && page.contains("allow: GET, HEAD"), "{page}");
    }
    for path in ["/", "/metrics/", "//metrics", "/METRICS", "/healthz/x", "/%6detrics"] {
        let (code, page) = asked(address, &format!("GET {path}"), "").await;
        assert!(code == 404 && page.contains("/metrics /healthz /readyz"), "{path}: {page}");
    }
}

#[tokio::test]
async fn a_connection_serves_many_requests() {
    let (address, metrics) = start(BOUNDS).await;
    let one = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let last = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answers = said(address, &format!("{}{last}", one.repeat(4))).await;
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 5);
    let [.., door] = metrics.doors();
    assert_eq!(door.counted().1, 1);
}

#[tokio::test]
async fn heads_that_are_large_or_wrong_are_refused() {
    let (address, _) = start(BOUNDS).await;
    let (code, _) = asked(address, &format!("GET /{}", "x".repeat(60_000)), "").await;
    assert!([414, 431].contains(&code), "{code}");
    let (code, _) = asked(address, "GET /metrics", &format!("X: {}\r\n", "x".repeat(60_000))).await;
    assert_eq!(code, 431);
    let (code, _) = asked(address, "GET /metrics", &"X: x\r\n".repeat(100)).await;
    assert_eq!(code, 431);
    for rude in ["\x16\x03\x01\x02\x00\x01", "nonsense\r\n\r\n", "GET /metrics HTTP/1.1\r\nbad header\r\n\r\n"] {
        let answer = said(address, rude).await;
        assert!(answer.is_empty() || answer.contains(" 400 "), "{answer}");
    }
    assert_eq!(asked(address, "GET /healthz", "").await.0, 200, "and the others do not suffer");
}

#[tokio::test]
async fn the_slow_the_many_and_the_eternal_are_cut_off() {
    let short = Duration::from_millis(100);
    let (address, metrics) = start(Bounds { connections: 1, head: short, ..BOUNDS }).await;
    let begun = tokio::time::Instant::now();
    let (slow, refused) = tokio::join!(said(address, "GET /metrics HTTP/1.1\r\nHost:"), async {
        let [.., door] = metrics.doors();
        while door.counted().0 == 0 {
            tokio::task::yield_now().await;
        }
        said(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await
    });
    assert!(!slow.contains(" 200 ") && refused.is_empty(), "{slow}{refused}");
    assert!(begun.elapsed() >= short);
    let [.., door] = metrics.doors();
    assert!(door.refusals().any(|refusal| refusal == ("full", 1)));
    // Whoever has had his time is let go after the answer that is under way.
    let (address, _) = start(Bounds { life: short, last: short, ..BOUNDS }).await;
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains(" 200 "), "{answer}");
}

#[tokio::test]
async fn what_is_closed_ends_at_once() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (close, closed) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(serve(listener, Metrics::new(1), async {
        let _ = closed.await;
    }));
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert_eq!(idle.read_u8().await.unwrap(), b'H');
    drop(close);
    serving.await.unwrap();
    let mut rest = Vec::new();
    let _ = idle.read_to_end(&mut rest).await;
    assert!(TcpStream::connect(address).await.is_err());
}
