//! The parts this program plays in the demo when it is started again with a role: the table, and nothing else of them.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::shop;

/// First argument of a part: `/proc/self/exe __fracas-demo PART WORDS...`.
pub(super) const MARK: &str = "__fracas-demo";
/// Between two looks for a file.
const PAUSE: Duration = Duration::from_millis(10);

/// What a part does with its words.
type Part = fn(&[String]) -> io::Result<()>;

/// Every part there is.
const PARTS: &[(&str, Part)] = &[
    ("access", access),
    ("ask", shop::ask_until_ok),
    ("front", shop::front),
    ("primary", shop::primary),
    ("replica", shop::replica),
    ("supervise", shop::supervise),
];

/// Plays the part this process was started for and returns its exit code; `None` in an ordinary start. To be called
/// first in `main`.
pub(crate) fn role() -> Option<i32> {
    let mut arguments = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned());
    if arguments.next()? != MARK {
        return None;
    }
    let name = arguments.next().unwrap_or_default();
    let words: Vec<String> = arguments.collect();
    let Some((_, part)) = PARTS.iter().find(|(n, _)| *n == name) else { return Some(2) };
    Some(match part(&words) {
        Ok(()) => 0,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{name}: {error}");
            1
        }
    })
}

/// `access DIRECTORY SECONDS`: waits until a controller has made its data directory, then prints its token and, from
/// the next line on, its CA certificate: neither must be an argument, which all users of a machine can read.
fn access(words: &[String]) -> io::Result<()> {
    let unclear = || io::Error::other(format!("unclear arguments: {}", words.join(" ")));
    let [directory, seconds] = words else { return Err(unclear()) };
    let until = Instant::now() + Duration::from_secs(seconds.parse().map_err(|_| unclear())?);
    // The context file is the last thing that a controller writes before it serves.
    while !Path::new(directory).join("admin.yaml").exists() {
        if Instant::now() > until {
            return Err(io::Error::other(format!("no controller came up within {seconds} s")));
        }
        thread::sleep(PAUSE);
    }
    let read = |name: &str| fs::read_to_string(Path::new(directory).join(name));
    write!(io::stdout(), "{}\n{}", read("admin.token")?.trim(), read("ca.pem")?)
}
