//! The creator's end of a control socket: any thread asks, one thread listens and hands out what comes.
//! What is asked lives in the modules that ask.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{
    LabError, Limit,
    program::{End, Fate},
    wire::{self, Answer, Ask, Request, Word},
};

/// How long an init may take to answer. It does nothing that takes longer than milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long an init may take until it serves.
const START: Duration = Duration::from_secs(30);

/// What comes back for a request: an answer and the descriptors beside it.
pub(super) type Replied = Result<(Answer, Vec<OwnedFd>), LabError>;

/// The creator's end.
#[derive(Debug)]
pub(super) struct Channel {
    socket: Arc<OwnedFd>,
    tickets: AtomicU64,
    desk: Arc<Mutex<Desk>>,
}

/// Who waits for what.
#[derive(Debug, Default)]
struct Desk {
    waiting: BTreeMap<u64, mpsc::SyncSender<Replied>>,
    running: BTreeMap<u64, Arc<Fate>>,
    gone: bool,
}

impl Channel {
    /// Waits for the first word of the init behind this socket, then listens on a thread of its own. Returns what the
    /// init says is missing.
    pub(super) fn open(socket: OwnedFd) -> Result<(Self, Vec<Limit>, JoinHandle<()>), LabError> {
        let failed = |e: io::Error| LabError::failed(format!("the lab's control socket failed: {e}"));
        if !fracas_agent::host::worker::readable(socket.as_fd(), START) {
            return Err(LabError::failed(format!("the lab was not set up within {} s", START.as_secs())));
        }
        let limits = match wire::receive(&socket).map_err(failed)? {
            Some((Word::Ready { limits }, _)) => limits,
            Some((Word::Refused(error), _)) => return Err(error),
            Some(_) => return Err(LabError::failed("the lab spoke out of turn")),
            None => return Err(LabError::failed("the lab's init ended before it was set up")),
        };
        let (socket, desk) = (Arc::new(socket), Arc::new(Mutex::new(Desk::default())));
        let (ears, notes) = (socket.clone(), desk.clone());
        let listener = thread::Builder::new().name("lab".into()).stack_size(256 * 1024);
        let listener = listener.spawn(move || listen(&ears, &notes)).map_err(failed)?;
        Ok((Self { socket, tickets: AtomicU64::new(1), desk }, limits, listener))
    }

    fn ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Ordering::Relaxed)
    }

    /// A number for a program about to be started, and what will be known of its end.
    pub(super) fn expect(&self) -> (u64, Arc<Fate>) {
        let (ticket, fate) = (self.ticket(), Arc::new(Fate::default()));
        lock(&self.desk).running.insert(ticket, fate.clone());
        (ticket, fate)
    }

    /// A program that was expected was not started.
    pub(super) fn forget(&self, process: u64) {
        lock(&self.desk).running.remove(&process);
    }

    /// Asks and waits for the reply.
    pub(super) fn ask(&self, ask: Ask) -> Replied {
        self.ask_with(self.ticket(), ask, &[])
    }

    /// The same with a ticket taken before and descriptors to hand over.
    pub(super) fn ask_with(&self, ticket: u64, ask: Ask, fds: &[BorrowedFd<'_>]) -> Replied {
        let (reply, replied) = mpsc::sync_channel(1);
        {
            let mut desk = lock(&self.desk);
            if desk.gone {
                return Err(LabError::Gone);
            }
            desk.waiting.insert(ticket, reply);
        }
        if let Err(error) = wire::send(self.socket.as_fd(), &Request { ticket, ask }, fds) {
            lock(&self.desk).waiting.remove(&ticket);
            return Err(match error.kind() {
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => LabError::Gone,
                _ => LabError::failed(format!("the lab cannot be asked: {error}")),
            });
        }
        match replied.recv_timeout(PATIENCE) {
            Ok(replied) => replied,
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(LabError::Gone),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                lock(&self.desk).waiting.remove(&ticket);
                Err(LabError::failed(format!("the lab did not answer within {} s", PATIENCE.as_secs())))
            }
        }
    }

    /// Ends the conversation, at both ends: the init behind it ends.
    pub(super) fn close(&self) {
        // It fails when the other end is gone already.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }
}

fn lock(desk: &Mutex<Desk>) -> MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands out what comes until the other end is gone; then nobody waits any longer.
fn listen(socket: &OwnedFd, desk: &Mutex<Desk>) {
    while let Ok(Some((word, fds))) = wire::receive::<Word>(socket) {
        match word {
            Word::Reply { ticket, result } => {
                if let Some(waiting) = lock(desk).waiting.remove(&ticket) {
                    let _ = waiting.send(result.map(|answer| (answer, fds)));
                }
            }
            Word::Ended { process, end } => settle(desk, process, end),
            Word::Ready { .. } | Word::Refused(_) => {}
        }
    }
    let mut desk = lock(desk);
    desk.gone = true;
    desk.waiting.clear();
    for fate in std::mem::take(&mut desk.running).into_values() {
        fate.set(Err(LabError::Gone));
    }
}

fn settle(desk: &Mutex<Desk>, process: u64, end: End) {
    if let Some(fate) = lock(desk).running.remove(&process) {
        fate.set(Ok(end));
    }
}
