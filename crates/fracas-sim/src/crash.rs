//! Crashes at numbered places: every operation of the fake host and disk has boundaries, and one of them may be fatal.
//! Nothing is unwound: the operation at which the process dies simply never returns.

use std::{
    cell::Cell,
    future::{Future, pending, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
};

/// Counts boundaries and says at which one the process dies. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Crash(Rc<Counter>);

#[derive(Debug, Default)]
struct Counter {
    passed: Cell<u64>,
    fatal: Cell<Option<u64>>,
    dead: Cell<bool>,
}

/// The process died before its work was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Died;

impl Crash {
    /// Starts counting from 0 and dies at boundary number `fatal`, the first being 0; never when `None`.
    pub fn arm(&self, fatal: Option<u64>) {
        self.0.passed.set(0);
        self.0.fatal.set(fatal);
        self.0.dead.set(false);
    }

    /// Boundaries passed since [`Crash::arm`].
    pub fn passed(&self) -> u64 {
        self.0.passed.get()
    }

    /// A place where the process may die; then this never returns.
    pub async fn boundary(&self) {
        let number = self.0.passed.get();
        self.0.passed.set(number + 1);
        if self.0.fatal.get() == Some(number) {
            self.0.dead.set(true);
        }
        if self.0.dead.get() {
            pending::<()>().await;
        }
    }

    /// Runs `work` until it is done or the process dies at a boundary.
    pub async fn run<T>(&self, work: impl Future<Output = T>) -> Result<T, Died> {
        let mut work = pin!(work);
        poll_fn(|context| match work.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending if self.0.dead.get() => Poll::Ready(Err(Died)),
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}
