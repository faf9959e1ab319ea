//! Agents inside this process: each on a thread of its own, for the observer and for `run --local`.

use std::{io, thread};

use fracas_agent::{
    run::Left,
    service::{self, Options, ServiceError},
};
use tokio::sync::oneshot;

/// An agent on its own thread.
pub(crate) struct Inside {
    leave: Option<oneshot::Sender<()>>,
    left: oneshot::Receiver<Result<Left, ServiceError>>,
}

/// Starts an agent; what becomes of it is told by [`Inside::leave`] or [`Inside::left`].
pub(crate) fn start(name: &str, options: Options) -> io::Result<Inside> {
    let (leave, leaving) = oneshot::channel::<()>();
    let (tell, left) = oneshot::channel();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let result = match runtime {
            Ok(runtime) => runtime.block_on(Box::pin(service::serve(options, async {
                let _ = leaving.await;
            }))),
            Err(error) => Err(ServiceError::Guard(error)),
        };
        // Nobody waits any more when this fails.
        let _ = tell.send(result);
    })?;
    Ok(Inside { leave: Some(leave), left })
}

impl Inside {
    /// Asks it to undo everything and leave, and waits for that.
    pub(crate) async fn leave(mut self) -> Option<Result<Left, ServiceError>> {
        self.leave.take();
        self.left.await.ok()
    }

    /// Waits until it ends by itself, which is an error or a panic.
    pub(crate) async fn left(&mut self) -> Option<Result<Left, ServiceError>> {
        (&mut self.left).await.ok()
    }
}

/// The runtime of everything but agents.
pub(crate) fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// Tells why nothing works, and the exit code.
pub(crate) fn fatal(error: &dyn std::fmt::Display) -> u8 {
    use std::io::Write as _;
    let _ = writeln!(io::stderr(), "fracas: {}", fracas_model::diagnostic::harmless(&error.to_string()));
    fracas_cli::exit::ERROR
}
