//! What a program in a lab says, line by line as it comes, kept for whoever waits for a line or asks afterwards.

use std::{
    io::{BufRead as _, BufReader, PipeReader},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// How long anything may take that needs no more than the machine's attention.
pub(crate) const LIMIT: Duration = Duration::from_mins(1);

/// The lines of one stream so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard(Arc<(Mutex<Lines>, Condvar)>);

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    ended: bool,
}

impl Heard {
    /// Listens on a thread of its own until the stream ends.
    pub(crate) fn listen(pipe: PipeReader) -> Self {
        let heard = Self::default();
        let hearing = heard.clone();
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n') {
                let Ok(line) = line else { break };
                hearing.change(|lines| lines.lines.push(String::from_utf8_lossy(&line).into_owned()));
            }
            hearing.change(|lines| lines.ended = true);
        });
        heard
    }

    fn change(&self, change: impl FnOnce(&mut Lines)) {
        change(&mut self.0.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.1.notify_all();
    }

    /// Everything so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).lines.clone()
    }

    /// Everything so far as one text.
    pub(crate) fn text(&self) -> String {
        self.lines().join("\n")
    }

    /// Everything until the stream has ended.
    pub(crate) fn all(&self, limit: Duration) -> Vec<String> {
        let whole = self.wait(limit, |lines| lines.ended.then(|| lines.lines.clone()));
        whole.unwrap_or_else(|| panic!("the stream did not end within {limit:?}; so far:\n{}", self.text()))
    }

    /// The first thing `find` finds in the JSON lines, or why `what` did not come.
    pub(crate) fn find<T>(&self, what: &str, limit: Duration, find: impl Fn(&Value) -> Option<T>) -> Result<T, String> {
        let mut read = 0;
        let mut look = |lines: &Lines| {
            let fresh = &lines.lines[read..];
            let found = fresh.iter().filter_map(|line| serde_json::from_str(line).ok()).find_map(|value| find(&value));
            read = lines.lines.len();
            found.map(Some).or_else(|| lines.ended.then_some(None))
        };
        match self.wait(limit, &mut look) {
            Some(Some(found)) => Ok(found),
            Some(None) => Err(format!("{what} did not come before the end")),
            None => Err(format!("{what} did not come within {limit:?}")),
        }
    }

    fn wait<T>(&self, limit: Duration, mut look: impl FnMut(&Lines) -> Option<T>) -> Option<T> {
        let until = Instant::now() + limit;
        let mut lines = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = look(&lines) {
                return Some(found);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            lines = self.0.1.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Waits until there is something, looking a hundred times a second.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited {} s in vain: {what}", LIMIT.as_secs());
        thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    wait_for(what, || so().then_some(()));
}
