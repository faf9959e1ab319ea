//! What stands in for a lab where there can be none: one process tree on the machine's own network, and one directory,
//! both of which end with the creator. It isolates nothing: programs see the machine and each other.
//!
//! ```text
//! creator (this process)
//! └─ root    starts the programs, takes in their orphans; at the end it ends them all and removes the directory
//!    └─ programs by Bare::spawn
//! ```

use std::{
    fs, io,
    os::{
        fd::AsFd as _,
        unix::{fs::DirBuilderExt as _, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use fracas_agent::host::processes::{Stat, numbers};
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, wait};

use super::{
    LabError,
    channel::Channel,
    kernel,
    program::{Program, Running},
    roles::{self, MARK},
    serve::{Nothing, Server},
    wire::{self, Word},
};

/// How long programs may take to end when they are asked to; an agent undoes everything meanwhile.
const POLITE: Duration = Duration::from_secs(10);
/// How long the kernel may take to end those that are killed.
const DIE: Duration = Duration::from_secs(5);
/// Between two looks for children that are left.
const PAUSE: Duration = Duration::from_millis(5);

/// A process tree that ends when this is dropped, or when this process is gone.
#[derive(Debug)]
pub struct Bare {
    channel: Arc<Channel>,
    root: Option<Child>,
    listener: Option<JoinHandle<()>>,
    directory: PathBuf,
}

impl Bare {
    /// Starts a tree without programs, with a directory below the machine's temporary one.
    pub fn start() -> Result<Self, LabError> {
        let failed = |e: io::Error| LabError::failed(format!("no process tree can be started: {e}"));
        let unique = fs::read_to_string("/proc/sys/kernel/random/uuid").map_err(failed)?;
        let directory = std::env::temp_dir().join(format!("fracas-{}", unique.trim()));
        let Some(path) = directory.to_str() else {
            return Err(LabError::failed("the temporary directory has a name that is no text; set TMPDIR"));
        };
        let (ours, theirs) = wire::pair().map_err(failed)?;
        let mut command = Command::new("/proc/self/exe");
        command.args([MARK, "bare", path]).stdin(theirs).stdout(Stdio::null());
        command.current_dir("/").process_group(0);
        let mut root = command.spawn().map_err(failed)?;
        // It holds the root's end, which must not stay open here.
        drop(command);
        match Channel::open(ours) {
            Ok((channel, _, listener)) => {
                Ok(Self { channel: Arc::new(channel), root: Some(root), listener: Some(listener), directory })
            }
            Err(error) => {
                let _ = root.wait();
                Err(error)
            }
        }
    }

    /// Where programs may keep what goes with them; only this user sees into it.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Starts a program.
    pub fn spawn(&self, program: Program) -> Result<Running, LabError> {
        program.spawn(&self.channel)
    }

    /// Ends everything, asking first. When it returns, nothing is left; an error says what is.
    pub fn stop(mut self) -> Result<(), LabError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), LabError> {
        self.channel.close();
        let Some(mut root) = self.root.take() else { return Ok(()) };
        let status = root.wait().map_err(|e| LabError::failed(format!("the process tree: {e}")))?;
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        if status.success() {
            return Ok(());
        }
        // Somebody killed the root: its programs are killed with it, and the directory falls to us.
        let _ = fs::remove_dir_all(&self.directory);
        Err(LabError::failed(format!("not everything could be cleared away: {status}")))
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // The root has said on standard error what is left.
        let _ = self.end();
    }
}

/// Runs the role: the control socket is standard input, the directory to make the argument. Returns 0 when nothing is
/// left.
pub(super) fn role(arguments: &[String]) -> i32 {
    let [directory] = arguments else { return 2 };
    kernel::close_inherited();
    // The end of the control socket is the one way to end.
    let _ = kernel::block(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGPIPE]);
    let Ok(socket) = roles::take(rustix::stdio::stdin()) else { return 1 };
    let directory = Path::new(directory);
    let made = || -> io::Result<Server> {
        set_child_subreaper(Some(getpid()))?;
        fs::DirBuilder::new().mode(0o700).create(directory)?;
        Server::new(socket.try_clone()?, false)
    };
    let server = match made() {
        Ok(server) => server,
        Err(error) => {
            let why = LabError::failed(format!("{} cannot be made: {error}", directory.display()));
            let _ = wire::send(socket.as_fd(), &Word::Refused(why), &[]);
            return 1;
        }
    };
    drop(socket);
    let _ = server.run(Vec::new(), &mut Nothing);
    let gone = end_children(Signal::TERM, POLITE) || end_children(Signal::KILL, DIE);
    if !gone {
        complain("some processes do not die");
    }
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            complain(&format!("{} cannot be removed: {error}", directory.display()));
            1
        }
        _ => i32::from(!gone),
    }
}

/// Sends the signal once to every child there is or comes to be, and waits until there is none.
fn end_children(signal: Signal, limit: Duration) -> bool {
    let (until, mut told) = (Instant::now() + limit, Vec::new());
    loop {
        loop {
            match wait(WaitOptions::NOHANG) {
                // The number may come again now, for another child.
                Ok(Some((pid, _))) => told.retain(|known| *known != pid),
                Ok(None) | Err(rustix::io::Errno::INTR) => break,
                Err(_) => return true,
            }
        }
        // Those whose parents have ended since are children of this process now.
        for pid in children().into_iter().filter(|pid| !told.contains(pid)).collect::<Vec<_>>() {
            // It is not reaped, so the number is its own.
            let _ = kill_process(pid, signal);
            told.push(pid);
        }
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(PAUSE);
    }
}

fn children() -> Vec<Pid> {
    let own = getpid().as_raw_nonzero().get();
    let mine = |pid: &i32| Stat::of(*pid).is_some_and(|stat| stat.parent == own && !stat.dead());
    numbers(Path::new("/proc")).into_iter().filter(mine).filter_map(Pid::from_raw).collect()
}

#[expect(clippy::print_stderr, reason = "the creator may be gone, there is nobody else to tell")]
fn complain(what: &str) {
    eprintln!("fracas: {what}");
}
