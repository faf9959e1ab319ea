//! Exits of processes, told by the kernel: a pidfd becomes readable when its process ends. What an exit means is for the
//! look that follows.

use std::{cell::RefCell, collections::BTreeMap, future::poll_fn, io, os::fd::OwnedFd, task::Poll};

use fracas_model::process::ProcessRef;
use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::watched;

/// Most processes of one probe whose exits are told at once; those of the others are seen at the next tick. Each takes a
/// descriptor.
const MOST: usize = 64;

/// Processes whose exits are waited for.
#[derive(Debug, Default)]
pub(crate) struct Exits(RefCell<Known>);

#[derive(Debug, Default)]
struct Known {
    running: BTreeMap<(i32, u64), AsyncFd<OwnedFd>>,
    /// Whether one was gone before its exit could be waited for.
    gone: bool,
}

impl Exits {
    /// From now on these, and no others. One that has ended since it was seen is told of at once; where the kernel gives no
    /// descriptor, the next tick has to do.
    pub(crate) fn set(&self, running: &[ProcessRef]) {
        let Known { running: known, gone } = &mut *self.0.borrow_mut();
        known.retain(|key, _| running.iter().any(|process| (process.pid, process.start_ticks) == *key));
        for process in running.iter().take(MOST) {
            if known.len() >= MOST {
                return;
            }
            let key = (process.pid, process.start_ticks);
            if known.contains_key(&key) {
                continue;
            }
            match open(process.pid) {
                Ok(descriptor) => {
                    known.insert(key, descriptor);
                }
                Err(e) => *gone |= Errno::from_io_error(&e) == Some(Errno::SRCH),
            }
        }
    }

    /// Ends when one of them has ended, which is then waited for no more; for ever when there are none.
    pub(crate) async fn next(&self) {
        poll_fn(|cx| {
            let Known { running: known, gone } = &mut *self.0.borrow_mut();
            if std::mem::take(gone) {
                return Poll::Ready(());
            }
            let ended = known.iter().find(|(_, fd)| fd.poll_read_ready(cx).is_ready()).map(|(key, _)| *key);
            match ended {
                Some(key) => {
                    known.remove(&key);
                    Poll::Ready(())
                }
                None => Poll::Pending,
            }
        })
        .await;
    }
}

fn open(pid: i32) -> io::Result<AsyncFd<OwnedFd>> {
    let pid = Pid::from_raw(pid).ok_or(Errno::INVAL)?;
    watched(pidfd_open(pid, PidfdFlags::NONBLOCK)?, Interest::READABLE)
}

#[cfg(test)]
mod tests {
    use std::{
        process::{Child, Command},
        time::Duration,
    };

    use super::*;

    fn started() -> (Child, ProcessRef) {
        let child = Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        (child, ProcessRef { pid, start_ticks: 1, name: "sleep".into() })
    }

    async fn told(exits: &Exits) -> bool {
        tokio::time::timeout(Duration::from_secs(20), exits.next()).await.is_ok()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn each_exit_is_told_once() {
        let exits = Exits::default();
        let (mut one, first) = started();
        let (mut two, second) = started();
        exits.set(&[first.clone(), second.clone()]);
        let not_yet = tokio::time::timeout(Duration::from_millis(20), exits.next()).await;
        assert!(not_yet.is_err(), "both run");
        // A zombie has ended.
        one.kill().unwrap();
        assert!(told(&exits).await);
        exits.set(std::slice::from_ref(&second));
        assert_eq!(exits.0.borrow().running.len(), 1);
        two.kill().unwrap();
        two.wait().unwrap();
        assert!(told(&exits).await);
        // Nobody is left: a process that is gone cannot be waited for, and that is told at once, and once.
        exits.set(std::slice::from_ref(&second));
        assert!(exits.0.borrow().running.is_empty());
        assert!(told(&exits).await);
        let no_more = tokio::time::timeout(Duration::from_millis(20), exits.next()).await;
        assert!(no_more.is_err(), "nobody is waited for");
        one.wait().unwrap();
    }
}
