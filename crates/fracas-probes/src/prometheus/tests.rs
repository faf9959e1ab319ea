//! The prometheus probe against answers as Prometheus gives them, and against others.

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

const LIMITS: Limits = Limits { above: Some(0.0), below: Some(2.0), empty_is_ok: false };

fn vector(values: &[&str]) -> String {
    let series: Vec<_> = values.iter().map(|v| json!({ "metric": { "job": "a" }, "value": [1.5, v] })).collect();
    json!({ "status": "success", "data": { "resultType": "vector", "result": series } }).to_string()
}

#[test]
fn every_value_must_be_between_the_limits() {
    let judge = |values: &[&str]| LIMITS.judge(vector(values).as_bytes());
    judge(&["1", "0.5", "1.999"]).unwrap();
    assert_eq!(judge(&["1", "2"]).unwrap_err(), "2 is not below 2");
    assert_eq!(judge(&["0"]).unwrap_err(), "0 is not above 0");
    assert_eq!(judge(&["NaN"]).unwrap_err(), "NaN is not above 0");
    assert_eq!(judge(&["+Inf"]).unwrap_err(), "inf is not below 2");
    assert_eq!(judge(&["123456.789"]).unwrap_err(), "123000 is not below 2");
    assert!(judge(&["1e308"]).unwrap_err().len() <= 120);
    assert_eq!(judge(&["x"]).unwrap_err(), "\"x\" is no number");
    assert_eq!(judge(&[]).unwrap_err(), "no series");
    Limits { empty_is_ok: true, ..LIMITS }.judge(vector(&[]).as_bytes()).unwrap();
}

#[test]
fn each_kind_of_answer_is_understood_or_named() {
    let judge = |answer: serde_json::Value| LIMITS.judge(answer.to_string().as_bytes());
    let data = |kind: &str, result| json!({ "status": "success", "data": { "resultType": kind, "result": result } });
    judge(data("scalar", json!([1.0, "1"]))).unwrap();
    let neither = "the expression gives neither a scalar nor a vector";
    assert_eq!(judge(data("matrix", json!([]))).unwrap_err(), neither);
    assert_eq!(judge(data("string", json!([1.0, "1"]))).unwrap_err(), neither);
    let histograms = data("vector", json!([{ "metric": {}, "histogram": [1.0, {}] }]));
    assert_eq!(judge(histograms).unwrap_err(), "a series of histograms cannot be compared");
    let wrong = json!({ "status": "error", "errorType": "bad_data", "error": "1:4: parse error" });
    assert_eq!(judge(wrong).unwrap_err(), "Prometheus says: 1:4: parse error");
    assert_eq!(LIMITS.judge(b"<html>").unwrap_err(), "the answer is not Prometheus's");
}

#[test]
fn a_look_needs_something_to_compare_with() {
    let ready = |params| Prometheus.ready(&serde_json::from_value(params).unwrap(), &Policy::builtin()).err().unwrap();
    assert!(ready(json!({ "url": "http://h/", "query": "up" })).instead.contains("above"));
    let twice = ready(json!({ "url": "http://h/?query=up", "query": "up", "above": 0 }));
    assert!(twice.why.contains("query of its own"));
}

#[tokio::test(flavor = "current_thread")]
async fn the_expression_is_sent_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/prom/", listener.local_addr().unwrap());
    let params = json!({ "url": url, "query": "sum(rate(a{b=\"c d\"}[1m])) + 1 & 2", "below": 2 });
    let lookout = Prometheus.ready(&serde_json::from_value(params).unwrap(), &Policy::builtin()).unwrap();
    let body = vector(&["1"]);
    let wanted =
        "GET /prom/api/v1/query?query=sum%28rate%28a%7Bb%3D%22c%20d%22%7D%5B1m%5D%29%29%20%2B%201%20%26%202 HTTP/1.1";
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = vec![0; wanted.len()];
        stream.read_exact(&mut asked).await.unwrap();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).await.unwrap();
        String::from_utf8(asked).unwrap()
    };
    let (seen, asked) = tokio::join!(lookout.look(), serve);
    assert_eq!(asked, wanted);
    seen.unwrap();
}
