//! The loop both inits run: requests in, programs started, children reaped, ends told. One thread, nothing blocks.
//! What only the outer init can do is its own affair, see [`Duties`].

use std::{
    collections::BTreeMap,
    io,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Command, Stdio},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{AddressFamily, SocketFlags, SocketType},
    process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait},
};

use super::{
    LabError, Limit,
    channel::Replied,
    kernel,
    program::End,
    roles::MARK,
    wire::{self, Answer, Ask, Order, Request, Word},
};

/// What an init does beside serving programs.
pub(super) trait Duties {
    /// Answers a request that is not about programs; `None` when the reply comes later.
    fn asked(&mut self, ticket: u64, ask: Ask) -> Option<Replied>;
    /// A child that was not started on request has ended. Returns a reply that waited for this.
    fn reaped(&mut self, pid: i32) -> Option<(u64, Replied)>;
}

/// No duties: a host's init.
pub(super) struct Nothing;

impl Duties for Nothing {
    fn asked(&mut self, _ticket: u64, _ask: Ask) -> Option<Replied> {
        Some(Err(LabError::failed("only the outer init of the lab can do this")))
    }

    fn reaped(&mut self, _pid: i32) -> Option<(u64, Replied)> {
        None
    }
}

/// An init's end of the control socket, and its children.
#[derive(Debug)]
pub(super) struct Server {
    socket: OwnedFd,
    signals: OwnedFd,
    user_namespace: bool,
    /// Process number to ticket.
    children: BTreeMap<i32, u64>,
}

impl Server {
    /// Takes over the socket and, from now on, `SIGCHLD`.
    pub(super) fn new(socket: OwnedFd, user_namespace: bool) -> io::Result<Self> {
        Ok(Self { socket, signals: kernel::child_signals()?, user_namespace, children: BTreeMap::new() })
    }

    /// Says that it is ready and serves until the other end is closed. Ending this process ends everybody else in its
    /// process namespace.
    pub(super) fn run(mut self, limits: Vec<Limit>, duties: &mut impl Duties) -> i32 {
        let served = wire::send(self.socket.as_fd(), &Word::Ready { limits }, &[]).and_then(|()| self.serve(duties));
        i32::from(served.is_err())
    }

    fn serve(&mut self, duties: &mut impl Duties) -> io::Result<()> {
        loop {
            let mut fds = [
                PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
            ];
            match poll(&mut fds, None::<&Timespec>) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            let (asked, ended) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
            if ended {
                // One signal may stand for several children; what it says is not needed.
                let _ = rustix::io::read(&self.signals, &mut [0; 128]);
                self.reap(duties)?;
            }
            if asked {
                let Some((request, fds)) = wire::receive::<Request>(&self.socket)? else { return Ok(()) };
                self.answer(request, fds, duties)?;
            }
        }
    }

    fn answer(&mut self, request: Request, fds: Vec<OwnedFd>, duties: &mut impl Duties) -> io::Result<()> {
        let ticket = request.ticket;
        let replied = match request.ask {
            Ask::Spawn(order) => Some(self.spawn(ticket, order, fds).map(|answer| (answer, Vec::new()))),
            Ask::Signal { process, signal } => Some(self.signal(process, signal).map(|()| (Answer::Done, Vec::new()))),
            Ask::Socket { v6, datagram } => Some(socket(v6, datagram)),
            other => duties.asked(ticket, other),
        };
        replied.map_or(Ok(()), |replied| self.reply(ticket, replied))
    }

    fn reply(&self, ticket: u64, replied: Replied) -> io::Result<()> {
        let (result, fds) = match replied {
            Ok((answer, fds)) => (Ok(answer), fds),
            Err(error) => (Err(error), Vec::new()),
        };
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(OwnedFd::as_fd).collect();
        wire::send(self.socket.as_fd(), &Word::Reply { ticket, result }, &fds)
    }

    fn spawn(&mut self, ticket: u64, order: Order, fds: Vec<OwnedFd>) -> Result<Answer, LabError> {
        let mut command = self.command(&order);
        let mut fds = fds.into_iter();
        let mut stream = |n: usize| match order.given[n].then(|| fds.next()).flatten() {
            Some(fd) => Stdio::from(fd),
            None => Stdio::null(),
        };
        command.stdin(stream(0)).stdout(stream(1)).stderr(stream(2));
        let child = kernel::spawn(&mut command)
            .map_err(|e| LabError::failed(format!("{} cannot be started: {e}", order.program)))?;
        let pid = child.id().cast_signed();
        self.children.insert(pid, ticket);
        Ok(Answer::Spawned { pid })
    }

    fn command(&self, order: &Order) -> Command {
        let mut command = match order.user {
            Some((uid, gid)) if self.user_namespace => {
                let mut command = Command::new("/proc/self/exe");
                command.args([MARK, "as", &uid.to_string(), &gid.to_string(), &order.program]);
                command
            }
            Some((uid, gid)) => {
                let mut command = Command::new(&order.program);
                command.uid(uid).gid(gid);
                command
            }
            None => Command::new(&order.program),
        };
        if order.clear {
            command.env_clear();
        }
        command.args(&order.arguments).envs(order.environment.iter().map(|(name, value)| (name, value)));
        command.current_dir(&order.directory).process_group(0);
        command
    }

    fn signal(&self, process: u64, signal: i32) -> Result<(), LabError> {
        // A child in this table is not reaped, so its number is its own.
        let (pid, _) = self
            .children
            .iter()
            .find(|(_, ticket)| **ticket == process)
            .ok_or_else(|| LabError::failed("the process has ended"))?;
        let signal =
            Signal::from_named_raw(signal).ok_or_else(|| LabError::failed(format!("signal {signal} is unknown")))?;
        let pid = Pid::from_raw(*pid).ok_or_else(|| LabError::failed("the process has no number"))?;
        kill_process(pid, signal).map_err(|e| LabError::failed(format!("process {pid:?} cannot be signalled: {e}")))
    }

    /// Reaps whoever has ended: programs started here, and orphans that fell to this init.
    fn reap(&mut self, duties: &mut impl Duties) -> io::Result<()> {
        loop {
            let (pid, status) = match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => (pid.as_raw_nonzero().get(), status),
                Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(()),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if let Some(process) = self.children.remove(&pid) {
                let ended = Word::Ended { process, end: end(status) };
                wire::send(self.socket.as_fd(), &ended, &[])?;
            } else if let Some((ticket, replied)) = duties.reaped(pid) {
                self.reply(ticket, replied)?;
            }
        }
    }
}

fn end(status: WaitStatus) -> End {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => End::Code(code),
        (None, signal) => End::Signal(signal.unwrap_or_default()),
    }
}

fn socket(v6: bool, datagram: bool) -> Replied {
    let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
    let kind = if datagram { SocketType::DGRAM } else { SocketType::STREAM };
    rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)
        .map(|fd| (Answer::Socket, vec![fd]))
        .map_err(|e| LabError::failed(format!("no socket: {e}")))
}
