//! Something to be ill-treated: answers on a TCP port, with its process number.

use std::{io::Write as _, net::TcpListener, process::ExitCode};

/// Serves for ever on the port that its arguments name.
pub(crate) fn serve(words: &[String]) -> ExitCode {
    let port: u16 = words.first().and_then(|word| word.parse().ok()).expect("a port");
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let _ = writeln!(stream, "{}", std::process::id());
    }
    ExitCode::SUCCESS
}
