//! A `fracas` command in a lab: under way, heard line by line, and at its end.

use std::{io::Write as _, time::Duration};

use fracas_sim::lab::{End, Host, Program, Running, Stream};
use rustix::process::Signal;
use serde_json::Value;

use super::heard::{Heard, LIMIT};

/// A program under way.
#[derive(Debug)]
pub(crate) struct Going {
    running: Running,
    /// Its standard output.
    pub(crate) out: Heard,
    /// Its standard error.
    pub(crate) err: Heard,
}

/// What a program said until its end.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    /// Its exit code; 128 and the signal's number when a signal killed it.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

impl Going {
    /// Starts a program on a host. Its standard input is a pipe when `input` is given, and ends with that.
    pub(crate) fn start(host: &Host, program: Program) -> Self {
        let mut running = host.spawn(program.stdout(Stream::Pipe).stderr(Stream::Pipe)).expect("started");
        let out = Heard::listen(running.stdout.take().expect("pipe"));
        let err = Heard::listen(running.stderr.take().expect("pipe"));
        Self { running, out, err }
    }

    /// Its process number on its host.
    pub(crate) fn pid(&self) -> i32 {
        self.running.pid()
    }

    /// Whether it has not ended.
    pub(crate) fn runs(&self) -> bool {
        self.running.end().is_none()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.running.signal(signal).expect("signalled");
    }

    /// Waits for the first event of a kind that an experiment under way tells; gives its body.
    pub(crate) fn event(&self, kind: &str) -> Value {
        self.event_with(kind, |_| true)
    }

    /// Waits for the first such event for which `fits` holds.
    pub(crate) fn event_with(&self, kind: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let wanted = |line: &Value| Some(line["body"].clone()).filter(|body| body["kind"] == kind && fits(body));
        self.out
            .find(kind, LIMIT, wanted)
            .unwrap_or_else(|why| panic!("{why}\n{}\n{}", self.out.text(), self.err.text()))
    }

    /// Waits for the first thing `find` finds in its JSON lines.
    pub(crate) fn find<T>(&self, what: &str, find: impl Fn(&Value) -> Option<T>) -> T {
        self.out.find(what, LIMIT, find).unwrap_or_else(|why| panic!("{why}\n{}\n{}", self.out.text(), self.err.text()))
    }

    /// Waits until it says that it is ready.
    pub(crate) fn ready(self) -> Self {
        self.find("ready", |line| (line["ready"] == true).then_some(()));
        self
    }

    /// Closes its standard input.
    pub(crate) fn close(&mut self) {
        self.running.stdin = None;
    }

    /// Sends it an order as a line of its standard input.
    pub(crate) fn order(&mut self, order: &Value) {
        let input = self.running.stdin.as_mut().expect("a pipe");
        writeln!(input, "{order}").expect("it listens");
    }

    /// As Ctrl-C, to whoever may have ended by itself.
    pub(crate) fn interrupt(&self) {
        let _ = self.running.signal(Signal::INT);
    }

    /// Kills it and waits until it is gone.
    pub(crate) fn kill(&self) {
        // It may have ended by itself.
        let _ = self.running.signal(Signal::KILL);
        self.running.wait_for(LIMIT).expect("lab").expect("SIGKILL ends it");
    }

    /// Waits for its end, but not for ever.
    pub(crate) fn end(self, limit: Duration) -> Said {
        let Some(end) = self.running.wait_for(limit).expect("lab") else {
            let _ = self.running.signal(Signal::KILL);
            panic!("it did not end within {limit:?}; it said:\n{}\n{}", self.out.text(), self.err.text());
        };
        let code = match end {
            End::Code(code) => code,
            End::Signal(signal) => 128 + signal,
        };
        Said { code, out: self.out.all(LIMIT).join("\n"), err: self.err.all(LIMIT).join("\n") }
    }
}

impl Said {
    /// The program must have succeeded.
    pub(crate) fn good(self) -> Self {
        assert_eq!(self.code, 0, "it failed: {self:?}");
        self
    }

    /// Its JSON lines.
    pub(crate) fn json(&self) -> Vec<Value> {
        let lines = self.out.lines().filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }

    /// All it said, for messages.
    pub(crate) fn text(&self) -> String {
        format!("{}\n{}", self.out, self.err)
    }
}
