//! A host's init: process 1 of a lab host. It makes the host's namespaces, plugs in its cable and runs its programs.
//! It knows only its own host.

use std::{io, os::fd::AsFd as _, path::PathBuf};

use rustix::process::{Pid, Signal, getpid, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};

use super::{
    LabError,
    cables::Socket,
    cgroup, kernel, limits, mounts, outside, roles,
    serve::{Nothing, Server},
    wire::{self, Word},
};

/// What a host is to be; its init's argument.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Layout {
    pub(super) name: String,
    /// Last part of its addresses.
    pub(super) number: u8,
    /// Its device in the outer network namespace.
    pub(super) cable: String,
    /// Its data directory, as seen in the outer mount namespace.
    pub(super) data: PathBuf,
    pub(super) share: Vec<PathBuf>,
    pub(super) user_namespace: bool,
    /// The directory of the lab's cgroup is standard output.
    pub(super) cgroup: bool,
}

/// Runs the role: the host's control socket is standard input.
pub(super) fn role(arguments: &[String]) -> i32 {
    let [layout] = arguments else { return 2 };
    if getpid() != Pid::INIT {
        return 2;
    }
    // A help: the end of the lab's process namespace ends this one too.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let (Ok(layout), Ok(socket)) = (serde_json::from_str::<Layout>(layout), roles::take(rustix::stdio::stdin())) else {
        return 2;
    };
    match found(&layout) {
        Ok(()) => match Server::new(socket, layout.user_namespace) {
            Ok(server) => server.run(Vec::new(), &mut Nothing),
            Err(_) => 1,
        },
        Err(error) => {
            let _ = wire::send(socket.as_fd(), &Word::Refused(error), &[]);
            1
        }
    }
}

fn found(layout: &Layout) -> Result<(), LabError> {
    let failed = |what: &'static str| move |e: io::Error| LabError::failed(format!("{what}: {e}"));
    if layout.cgroup {
        let dir = roles::take(rustix::stdio::stdout()).map_err(failed("no cgroup"))?;
        cgroup::join(dir.as_fd(), &format!("host-{}", layout.name)).map_err(failed("the cgroup cannot be joined"))?;
    }
    let socket = Socket::open()?;
    kernel::unshare(outside::namespaces(layout.cgroup)).map_err(|e| limits::forbidden(&e))?;
    rustix::system::sethostname(layout.name.as_bytes()).map_err(|e| failed("no host name")(e.into()))?;
    let Layout { user_namespace, cgroup, share, .. } = layout;
    mounts::host(mounts::Ground { user_namespace: *user_namespace, cgroup: *cgroup, share }, &layout.data)?;
    socket.connect(&layout.cable, layout.number)
}
