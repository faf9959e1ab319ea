//! Programs to start in a lab, and programs that run there, seen from the creator. How they are started lives in
//! [`super::serve`].

use std::{
    io::{self, PipeReader, PipeWriter, Read as _},
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::{
    LabError,
    channel::Channel,
    wire::{Answer, Ask, Order},
};

/// Where one of a program's standard streams leads.
#[derive(Debug, Default)]
pub enum Stream {
    /// To `/dev/null`.
    #[default]
    Null,
    /// Where the creator's own stream of the same number leads.
    Inherit,
    /// Into a pipe whose other end is in [`Running`].
    Pipe,
    /// To this open file.
    File(OwnedFd),
}

/// A program to be started by [`Host::spawn`](super::Host::spawn) or [`Lab::spawn`](super::Lab::spawn).
///
/// It starts in `/`, in a process group of its own, with the environment the lab was started in. Standard input and
/// output are `/dev/null` and standard error is the creator's unless said otherwise.
#[derive(Debug)]
pub struct Program {
    order: Order,
    streams: [Stream; 3],
}

impl Program {
    /// A program by absolute path, or by name to be looked up in `PATH`.
    pub fn new(program: impl Into<String>) -> Self {
        let order = Order {
            program: program.into(),
            arguments: Vec::new(),
            clear: false,
            environment: Vec::new(),
            directory: "/".into(),
            user: None,
            given: [false; 3],
        };
        Self { order, streams: [Stream::Null, Stream::Null, Stream::Inherit] }
    }

    /// The program that created the lab, whatever has become of its file. Its `main` sees the arguments added here.
    pub fn this() -> Self {
        Self::new("/proc/self/exe")
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.order.arguments.push(argument.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<T: Into<String>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.order.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.order.environment.push((name.into(), value.into()));
        self
    }

    /// Starts without the environment the lab was started in.
    #[must_use]
    pub fn env_clear(mut self) -> Self {
        self.order.clear = true;
        self
    }

    /// The working directory, as the host sees it.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<String>) -> Self {
        self.order.directory = directory.into();
        self
    }

    /// Runs as another user and group, without further groups and without privileges.
    ///
    /// In the lab of an ordinary user there is only that one user: the program then lives in a user namespace of its
    /// own, where it appears under these numbers and so do the files of the lab's user. A program that cannot be found
    /// ends with 127 there, where otherwise `spawn` fails.
    #[must_use]
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.order.user = Some((uid, gid));
        self
    }

    /// Where standard input comes from.
    #[must_use]
    pub fn stdin(mut self, stream: Stream) -> Self {
        self.streams[0] = stream;
        self
    }

    /// Where standard output goes.
    #[must_use]
    pub fn stdout(mut self, stream: Stream) -> Self {
        self.streams[1] = stream;
        self
    }

    /// Where standard error goes.
    #[must_use]
    pub fn stderr(mut self, stream: Stream) -> Self {
        self.streams[2] = stream;
        self
    }

    /// Starts it behind this control socket.
    pub(super) fn spawn(mut self, channel: &Arc<Channel>) -> Result<Running, LabError> {
        let failed = |e: io::Error| LabError::failed(format!("no streams for {}: {e}", self.order.program));
        let [stdin, stdout, stderr] = std::mem::take(&mut self.streams);
        let (stdin, writer) = input(stdin).map_err(failed)?;
        let (stdout, out) = output(stdout, rustix::stdio::stdout()).map_err(failed)?;
        let (stderr, err) = output(stderr, rustix::stdio::stderr()).map_err(failed)?;
        let ends = [stdin, stdout, stderr];
        self.order.given = std::array::from_fn(|n| ends[n].is_some());
        let fds: Vec<_> = ends.iter().flatten().map(|fd| fd.as_fd()).collect();
        let (process, fate) = channel.expect();
        let answer = channel.ask_with(process, Ask::Spawn(self.order), &fds);
        match answer {
            Ok((Answer::Spawned { pid }, _)) => {
                Ok(Running { pid, process, fate, channel: channel.clone(), stdin: writer, stdout: out, stderr: err })
            }
            Ok(_) => Err(LabError::failed("the lab gave an answer to another question")),
            Err(error) => {
                channel.forget(process);
                Err(error)
            }
        }
    }
}

fn input(stream: Stream) -> io::Result<(Option<OwnedFd>, Option<PipeWriter>)> {
    Ok(match stream {
        Stream::Null => (None, None),
        Stream::Inherit => (Some(rustix::stdio::stdin().try_clone_to_owned()?), None),
        Stream::File(fd) => (Some(fd), None),
        Stream::Pipe => {
            let (reader, writer) = io::pipe()?;
            (Some(reader.into()), Some(writer))
        }
    })
}

fn output(stream: Stream, own: rustix::fd::BorrowedFd<'_>) -> io::Result<(Option<OwnedFd>, Option<PipeReader>)> {
    Ok(match stream {
        Stream::Null => (None, None),
        Stream::Inherit => (Some(own.try_clone_to_owned()?), None),
        Stream::File(fd) => (Some(fd), None),
        Stream::Pipe => {
            let (reader, writer) = io::pipe()?;
            (Some(writer.into()), Some(reader))
        }
    })
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// It exited with this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

impl End {
    /// It exited with code 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

/// A program's end with all it wrote into pipes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub end: End,
    /// What it wrote to standard output, if that was a pipe.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error, if that was a pipe.
    pub stderr: Vec<u8>,
}

/// A program started in a lab. Dropping it leaves the program alone; all ends with the lab.
#[derive(Debug)]
pub struct Running {
    pid: i32,
    process: u64,
    fate: Arc<Fate>,
    channel: Arc<Channel>,
    /// The writing end of its standard input, if that is a pipe.
    pub stdin: Option<PipeWriter>,
    /// The reading end of its standard output, if that is a pipe.
    pub stdout: Option<PipeReader>,
    /// The reading end of its standard error, if that is a pipe.
    pub stderr: Option<PipeReader>,
}

impl Running {
    /// Its process number, as the host sees it.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// How it ended; `None` while it runs, and also when the lab ended first.
    pub fn end(&self) -> Option<End> {
        match self.fate.now() {
            Some(Ok(end)) => Some(end),
            _ => None,
        }
    }

    /// Sends it a signal. Fails when it has ended already.
    pub fn signal(&self, signal: Signal) -> Result<(), LabError> {
        self.channel.ask(Ask::Signal { process: self.process, signal: signal.as_raw() }).map(|_| ())
    }

    /// Blocks until it ends. Does not close its standard input: see [`output`](Self::output).
    pub fn wait(&self) -> Result<End, LabError> {
        self.fate.wait(None).unwrap_or(Err(LabError::Gone))
    }

    /// Blocks until it ends, but not longer than this; `None` when it still runs then.
    pub fn wait_for(&self, limit: Duration) -> Result<Option<End>, LabError> {
        self.fate.wait(Some(limit)).transpose()
    }

    /// Waits until it ends, without blocking the thread.
    pub async fn ended(&self) -> Result<End, LabError> {
        loop {
            let changed = self.fate.news.notified();
            tokio::pin!(changed);
            // From here on no news can be missed.
            changed.as_mut().enable();
            if let Some(end) = self.fate.now() {
                return end;
            }
            changed.await;
        }
    }

    /// Closes its standard input, reads its pipes to their ends and blocks until it ends.
    pub fn output(mut self) -> Result<Output, LabError> {
        self.stdin = None;
        let (out, err) = (self.stdout.take(), self.stderr.take());
        let read = |pipe: Option<PipeReader>| {
            let mut all = Vec::new();
            pipe.map_or(Ok(0), |mut pipe| pipe.read_to_end(&mut all)).map(|_| all)
        };
        let both = thread::scope(|scope| {
            let err = scope.spawn(move || read(err));
            (read(out), err.join())
        });
        let failed = |e: io::Error| LabError::failed(format!("a pipe of process {} cannot be read: {e}", self.pid));
        let stdout = both.0.map_err(failed)?;
        let stderr = both.1.unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map_err(failed)?;
        Ok(Output { end: self.wait()?, stdout, stderr })
    }
}

/// What is known of a program's end; filled in by the thread that listens to its init.
#[derive(Debug, Default)]
pub(super) struct Fate {
    end: Mutex<Option<Result<End, LabError>>>,
    changed: Condvar,
    news: Notify,
}

impl Fate {
    pub(super) fn set(&self, end: Result<End, LabError>) {
        let mut known = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() {
            *known = Some(end);
        }
        drop(known);
        self.changed.notify_all();
        self.news.notify_waiters();
    }

    fn now(&self) -> Option<Result<End, LabError>> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn wait(&self, limit: Option<Duration>) -> Option<Result<End, LabError>> {
        let until = limit.map(|limit| Instant::now() + limit);
        let mut known = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        while known.is_none() {
            known = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => self.changed.wait(known).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return None,
                Some(left) => self.changed.wait_timeout(known, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        known.clone()
    }
}
