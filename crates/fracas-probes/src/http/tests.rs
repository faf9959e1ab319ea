//! The http probe against servers that misbehave in each way a service can.

use std::time::Duration;

use fracas_model::tolerance::Measured;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;

async fn look(params: serde_json::Value) -> Seen {
    let params: Params = serde_json::from_value(params).unwrap();
    Http.ready(&params, &Policy::builtin()).unwrap().look().await
}

fn refusal(params: serde_json::Value) -> Refusal {
    let params: Params = serde_json::from_value(params).unwrap();
    Http.ready(&params, &Policy::builtin()).err().unwrap()
}

/// Reads one request up to its empty line.
async fn request(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        read.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(read).unwrap()
}

/// Serves one connection with fixed bytes, then closes it; gives the probe's reading and the request it sent.
async fn against(answer: &'static [u8], mut params: serde_json::Value) -> (Seen, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    params["url"] = format!("http://{}/health?deep=1", listener.local_addr().unwrap()).into();
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let asked = request(&mut stream).await;
        // The probe may have seen enough and gone.
        let _ = stream.write_all(answer).await;
        asked
    };
    tokio::join!(look(params), serve)
}

#[tokio::test(flavor = "current_thread")]
async fn a_good_answer_is_ok_and_the_request_is_plain() {
    let params = json!({ "status": 200, "body": "up", "headers": { "x-probe": "1" } });
    let (seen, asked) = against(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nis up", params).await;
    seen.unwrap();
    assert!(asked.starts_with("GET /health?deep=1 HTTP/1.1\r\n"), "{asked}");
    for header in ["host: 127.0.0.1:", "user-agent: fracas-probe", "connection: close", "x-probe: 1"] {
        assert!(asked.contains(header), "{header} in {asked}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_secret_header_comes_from_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "Bearer hush\n").unwrap();
    let policy = Policy { secrets_in: vec![folder.path().to_str().unwrap().to_owned()], ..Policy::builtin() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let params = json!({ "url": url, "headers": { "authorization": { "file": file } } });
    let lookout = Http.ready(&serde_json::from_value(params).unwrap(), &policy).unwrap();
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let asked = request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        asked
    };
    let (seen, asked) = tokio::join!(lookout.look(), serve);
    seen.unwrap();
    assert!(asked.contains("authorization: Bearer hush\r\n"), "{asked}");
    std::fs::write(&file, "two\nlines").unwrap();
    let (stream, seen) = tokio::join!(listener.accept(), lookout.look());
    drop(stream);
    assert_eq!(seen.unwrap_err(), "header authorization cannot be sent");
}

#[tokio::test(flavor = "current_thread")]
async fn each_way_to_fail_has_its_name() {
    let cases: [(&'static [u8], serde_json::Value, &str); 6] = [
        (b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", json!({ "status": [200, 204] }), "status 503"),
        (b"HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n", json!({}), "status 302"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nup", json!({ "body": "down" }), "body lacks the text"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nup", json!({}), "connection closed early"),
        (b"", json!({}), "connection closed early"),
        (b"+PONG\r\n\r\n", json!({}), "the answer is not HTTP"),
    ];
    for (answer, params, why) in cases {
        assert_eq!(against(answer, params).await.0.unwrap_err(), why);
    }
    against(b"HTTP/1.1 204 None\r\n\r\n", json!({ "status": [200, 204] })).await.0.unwrap();
    against(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", json!({ "method": "HEAD" })).await.0.unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn a_good_answer_gives_its_fields() {
    let values = against(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nup", json!({})).await.0.unwrap();
    let wanted = Values::new().with("status", 200.0).with("bytes", 2.0).with("body", "up".to_owned());
    assert_eq!(values, wanted);
}

#[test]
fn days_are_whole_and_may_be_past() {
    let at = |secs| SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
    let left = |ends, now| format!("{}", days_left(ends, at(now)));
    assert_eq!([left(86_400 * 3, 0), left(86_400 * 3, 1), left(0, 1)], ["3", "2", "-1"]);
    assert_eq!(left(i64::MIN, 1), left(i64::MIN, 0));
}

#[tokio::test(flavor = "current_thread")]
async fn a_refused_connection_and_bad_parameters() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    assert_eq!(look(json!({ "url": format!("http://127.0.0.1:{port}/") })).await.unwrap_err(), "connection refused");
    assert!(refusal(json!({ "url": "http://me:secret@host/" })).why.contains("password"));
    assert!(refusal(json!({ "url": "ftp://host/" })).why.contains("neither"));
    assert!(refusal(json!({ "url": "http://h/", "method": "HEAD", "body": "x" })).instead.contains("GET"));
    for bad in ["/nonexistent.pem", "/dev/zero"] {
        let params = serde_json::from_value(json!({ "url": "https://h/", "caFile": bad })).unwrap();
        let lookout = Http.ready(&params, &Policy::builtin()).unwrap();
        assert!(lookout.prepare().await.unwrap_err().why.contains(bad));
        assert!(lookout.look().await.unwrap_err().contains(bad));
    }
    let secret = refusal(json!({ "url": "http://h/", "headers": { "authorization": "hush\nhush" } }));
    assert!(!secret.why.contains("hush"), "{secret}");
}

#[tokio::test(flavor = "current_thread")]
async fn a_huge_body_is_read_to_the_limit_only() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let flood = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        while stream.write_all(&[b'x'; 8192]).await.is_ok() {}
    };
    let (seen, ()) = tokio::join!(look(json!({ "url": url, "body": "needle" })), flood);
    assert_eq!(seen.unwrap_err(), "first 64 KiB of the body lack the text");
}

#[tokio::test(flavor = "current_thread")]
async fn a_dripping_body_ends_with_the_timeout_and_releases_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let drip = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let mut pace = tokio::time::interval(Duration::from_millis(5));
        // Ends only because dropping the look closes the connection.
        while stream.write_all(b".").await.is_ok() {
            pace.tick().await;
        }
    };
    let bounded = async { tokio::time::timeout(Duration::from_millis(60), look(json!({ "url": url }))).await };
    let (seen, ()) = tokio::join!(bounded, drip);
    assert!(seen.is_err(), "the body never ended, and yet: {seen:?}");
}

#[tokio::test(flavor = "current_thread")]
async fn a_slow_answer_breaks_the_latency_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let slow = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        tokio::time::sleep(Duration::from_millis(45)).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    };
    let (seen, ()) = tokio::join!(look(json!({ "url": url, "maxLatency": "30ms" })), slow);
    let why = seen.unwrap_err();
    assert!(why.starts_with("took over ") && why.ends_with(" ms"), "{why}");
}

#[tokio::test(flavor = "current_thread")]
async fn https_checks_the_certificate_unless_told_not_to() {
    let (acceptor, ca) = crate::tls::tests::server();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
    let serve = async {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut first = [0; 1024];
            let _ = stream.read(&mut first).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            let _ = stream.shutdown().await;
        }
    };
    let looks = async {
        let values = look(json!({ "url": url, "caFile": ca.path() })).await.unwrap();
        // What the generator of certificates gives when it is not told: until the year 4096.
        let Some(Measured::Number(days)) = values.get("certificateDays") else { panic!("{values:?}") };
        assert!((700_000.0..800_000.0).contains(days), "{days}");
        look(json!({ "url": url, "insecure": true })).await.unwrap();
        let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(ca.path(), other.cert.pem()).unwrap();
        let why = look(json!({ "url": url, "caFile": ca.path() })).await.unwrap_err();
        assert!(why.starts_with("TLS: invalid peer certificate"), "{why}");
    };
    tokio::select! { () = looks => {}, () = serve => {} }
}
