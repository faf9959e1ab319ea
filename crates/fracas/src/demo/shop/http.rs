//! Just enough HTTP/1.1 for the demo's shop: one request a connection, a thread each. It is no web server for anybody
//! else.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// How long a client may take to send its request.
const REQUEST: Duration = Duration::from_secs(5);
/// Longest message, head and body, bytes.
const LONGEST: usize = 8 * 1024;

/// Status and body of an answer.
pub(super) type Answer = (u16, String);

/// Answers requests for as long as the process lives; `answer` is given method and path: `GET /health`.
pub(super) fn serve(listen: SocketAddr, answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> io::Result<()> {
    let (listener, answer) = (TcpListener::bind(listen)?, Arc::new(answer));
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let answer = answer.clone();
        // Without a thread the connection is closed, which its client notices.
        let _ = thread::Builder::new().stack_size(128 * 1024).spawn(move || {
            // A client that went away needs no answer.
            let _ = converse(stream, &*answer);
        });
    }
    Ok(())
}

fn converse(mut stream: TcpStream, answer: &dyn Fn(&str) -> Answer) -> io::Result<()> {
    let head = read(&mut stream, Instant::now() + REQUEST, |text| text.contains("\r\n\r\n"))?;
    let asked = head.split(" HTTP/").next().unwrap_or_default();
    let (status, body) = answer(asked);
    let length = body.len() + 1;
    let head = format!("HTTP/1.1 {status} -\r\ncontent-type: text/plain\r\ncontent-length: {length}");
    // In one piece: what is sent in several waits for the acknowledgement of the first.
    stream.write_all(format!("{head}\r\nconnection: close\r\n\r\n{body}\n").as_bytes())
}

/// Asks once, over a new connection; all of it within `patience`.
pub(super) fn ask(address: SocketAddr, request: &str, patience: Duration) -> io::Result<Answer> {
    let until = Instant::now() + patience;
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_nodelay(true)?;
    stream.write_all(format!("{request} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let text = read(&mut stream, until, |_| false)?;
    let nonsense = || io::Error::new(io::ErrorKind::InvalidData, "no HTTP answer");
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(nonsense)?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or_else(nonsense)?;
    Ok((status, body.trim().to_owned()))
}

/// Reads until it is enough, or the other side ends.
fn read(stream: &mut TcpStream, until: Instant, enough: impl Fn(&str) -> bool) -> io::Result<String> {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 1024]);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || bytes.len() > LONGEST {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let n = stream.read(&mut chunk)?;
        bytes.extend_from_slice(&chunk[..n]);
        let text = String::from_utf8_lossy(&bytes);
        if n == 0 || enough(&text) {
            return Ok(text.into_owned());
        }
    }
}
