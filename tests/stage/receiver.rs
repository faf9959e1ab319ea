//! A web server that takes whatever is posted to it and says what it got.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
};

use serde_json::{Value, json};

use super::say;

/// The part `receive`: tells each request as a line until killed.
pub(super) fn receive(address: &str) {
    let listener = TcpListener::bind(address).expect("port");
    say(&json!({ "ready": true }));
    for stream in listener.incoming().flatten() {
        if let Some(request) = take(&stream) {
            say(&request);
        }
    }
}

/// `None` when the other side goes away.
fn take(mut stream: &TcpStream) -> Option<Value> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    stream.write_all(b"HTTP/1.1 202 Taken\r\ncontent-length: 0\r\n\r\n").ok()?;
    let body: Value = serde_json::from_slice(&body).ok()?;
    Some(json!({ "path": path, "headers": headers, "body": body }))
}
