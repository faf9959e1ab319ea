//! Calls that change the host on blocking threads. One that is not waited for any more is called off, but its thread may
//! still be in the middle of it: so the undo of its item waits until the thread has ended, and reads back only then.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fracas_model::id::ItemKey;

use super::{LinuxHost, aside, held::until};
use crate::host::Failure;

/// How long an undo waits for a call that was cut off before it says that it is still busy. An undo is cut off itself after
/// five seconds, and tried again.
const BUSY: Duration = Duration::from_secs(2);

/// Whether a call is still wanted.
#[derive(Debug, Default)]
pub(super) struct Go {
    called_off: AtomicBool,
}

impl Go {
    /// To be asked before anything is changed.
    pub(super) fn on(&self) -> Result<(), Failure> {
        if self.called_off.load(Ordering::SeqCst) { Err(Failure("it was called off".into())) } else { Ok(()) }
    }
}

/// The calls of each item. A thread has the only strong reference to its own, for as long as it has to do with it.
#[derive(Debug, Default)]
pub(super) struct Calls(BTreeMap<ItemKey, Vec<Weak<Go>>>);

impl Calls {
    fn busy(&mut self, key: &ItemKey) -> bool {
        let Some(calls) = self.0.get_mut(key) else { return false };
        calls.retain(|call| call.strong_count() > 0);
        if calls.is_empty() {
            self.0.remove(key);
            return false;
        }
        true
    }
}

/// Calls off when it is dropped before the call has ended.
struct Wanted(Weak<Go>);

impl Drop for Wanted {
    fn drop(&mut self) {
        if let Some(go) = self.0.upgrade() {
            go.called_off.store(true, Ordering::SeqCst);
        }
    }
}

impl LinuxHost {
    /// Changes something for an item, on a blocking thread.
    pub(super) async fn act<T: Send + 'static>(
        &self,
        key: &ItemKey,
        work: impl FnOnce(&Arc<Go>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let go = Arc::new(Go::default());
        self.calls.borrow_mut().0.entry(key.clone()).or_default().push(Arc::downgrade(&go));
        let _wanted = Wanted(Arc::downgrade(&go));
        // The result comes first: should nobody take it, it is dropped (and with it a worker) before the call counts as over.
        let (done, _over) = aside(move || (work(&go), go)).await?;
        done
    }

    /// Waits until nothing changes the host for this item any more.
    pub(super) async fn settled(&self, key: &ItemKey) -> Result<(), Failure> {
        if until(BUSY, || !self.calls.borrow_mut().busy(key)).await {
            return Ok(());
        }
        Err(Failure("still busy: a call that was cut off has not come back".into()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_call_that_is_cut_off_changes_nothing_more_and_is_waited_for() {
        let host = LinuxHost::start("h".into(), "0.0.0");
        let key = |entry: &str| ItemKey {
            run: "r".into(),
            entry: entry.into(),
            occurrence: 0,
            host: "h".into(),
            generation: 1,
        };
        let (begun, has_begun) = mpsc::channel();
        let (come_back, back) = mpsc::channel();
        let (told, tells) = mpsc::channel();
        let key_a = key("a");
        let call = host.act(&key_a, move |go| {
            begun.send(go.on()).expect("the test listens");
            back.recv().expect("the test says so");
            let _ = told.send(go.on());
            go.on()
        });
        let begins = async move {
            while has_begun.try_recv() != Ok(Ok(())) {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            ended = call => panic!("{ended:?}"),
            () = begins => {}
        }
        assert!(host.settled(&key_a).await.is_err_and(|e| e.0.contains("still busy")));
        assert_eq!(host.settled(&key("b")).await, Ok(()), "only its own item waits");
        come_back.send(()).expect("the thread waits");
        assert_eq!(host.settled(&key_a).await, Ok(()));
        assert!(tells.try_recv().is_ok_and(|on| on.is_err()), "it knew that it was called off");
        assert_eq!(host.act(&key_a, |go| go.on()).await, Ok(()), "the next call goes on");
        assert!(host.calls.borrow().0.values().flatten().all(|call| call.strong_count() == 0));
    }
}
