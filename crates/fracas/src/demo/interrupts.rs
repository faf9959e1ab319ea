//! Ctrl-C, and the polite end that others ask for, as the demo hears them. What a run makes of them is the command
//! line's affair, which hears the same ones.

use std::io;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// How many there were so far.
#[derive(Debug)]
pub(super) struct Interrupts(watch::Receiver<u32>);

impl Interrupts {
    /// From now on neither ends the process by itself.
    pub(super) fn watch() -> io::Result<Self> {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let (tell, told) = watch::channel(0);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                tell.send_modify(|count| *count += 1);
            }
        });
        Ok(Self(told))
    }

    /// How many there were; after this, [`next`](Self::next) waits for a further one.
    pub(super) fn count(&mut self) -> u32 {
        *self.0.borrow_and_update()
    }

    /// Waits for one that was not seen yet.
    pub(super) async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // The task that listens never ends.
            std::future::pending::<()>().await;
        }
    }
}
