//! The probe catalogue: one file per probe. A probe looks at something once and says what it saw; it never judges.
//!
//! To add a probe: copy the file that is nearest to it and add one line to [`ALL`]. The fields that its `reading` declares
//! can be compared with the parameter `tolerance`, which [`offered`] adds and [`ready`] applies, for all probes in one place.

mod connect;
pub mod dbus;
pub mod dns;
mod dnswire;
pub mod exec;
mod exits;
pub mod file;
pub mod files;
pub mod grpc;
pub mod http;
pub mod icmp;
pub mod ledger;
pub mod log;
pub mod mysql;
pub mod mywire;
pub mod pgwire;
pub mod postgres;
pub mod pressure;
pub mod process;
mod procevents;
mod proctable;
pub mod prometheus;
pub mod redis;
pub mod resp;
mod scram;
mod secret;
pub mod systemd_unit;
pub mod tcp;
mod tls;
mod tolerated;
mod web;
pub mod webhook;
mod wire;

use std::{cell::Cell, fmt, future::Future, io, os::fd::OwnedFd, pin::Pin, sync::Arc};

use fracas_model::{
    catalogue::{Params, ProbeInfo},
    diagnostic::harmless,
    plan::Refusal,
    policy::Policy,
    tolerance::{Values, offered as with_tolerance},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::Semaphore,
};

/// What one look saw: the fields of its reading when every condition held, else why not in a few words (at most 120 bytes,
/// no secrets).
pub type Seen = Result<Values, String>;

/// A future on the probe thread's own single-threaded runtime.
pub type LookFuture = Pin<Box<dyn Future<Output = Seen>>>;

/// A future that ends when a probe may begin to look.
pub type PrepareFuture = Pin<Box<dyn Future<Output = Result<(), Refusal>>>>;

/// What was so at an instant between two looks, by the kernel's word: as good as a look at that instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dated {
    /// The instant, nanoseconds of `CLOCK_BOOTTIME`.
    pub at: i64,
    /// What a look would have seen then, see [`Seen`].
    pub seen: Result<(), String>,
}

/// What the look that just completed knows beside what it saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Of the time between the look before it and this one, in order.
    pub before: Vec<Dated>,
    /// When it had seen everything, on the same clock, if that was before it completed: what comes after that is news.
    pub complete: Option<i64>,
}

/// A probe made ready: parameters parsed, names not yet resolved.
pub trait Lookout {
    /// Reads what the looks need of this host, off the probe thread; awaited once, before the first look, and bounded
    /// in time by the caller.
    fn prepare(&self) -> PrepareFuture {
        Box::pin(std::future::ready(Ok(())))
    }
    /// Looks once, with a fresh connection and fresh resolution. The caller bounds it in time by dropping the future;
    /// dropping must release everything (sockets, child processes).
    fn look(&self) -> LookFuture;
    /// Ends when this host's kernel told of something that is worth a look at once, not only at the next tick. Most probes
    /// are never told anything.
    fn stirred(&self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(std::future::pending())
    }
    /// What the look that just completed knows beside what it saw. Most probes are never told anything.
    fn told(&self) -> Told {
        Told::default()
    }
}

/// A kind of probe.
pub trait Probe: Sync {
    /// Name, parameters of its own, fields of its readings, help; see [`offered`] for what documents may write.
    fn info(&self) -> ProbeInfo;
    /// Parses checked parameters; opens and asks nothing. Refuses what the host's policy does not allow of an allowed
    /// kind of probe.
    fn ready(&self, params: &Params, policy: &Policy) -> Result<Box<dyn Lookout>, Refusal>;
}

/// Every probe there is.
pub const ALL: &[&dyn Probe] = &[
    &http::Http,
    &tcp::Tcp,
    &process::ProcessProbe,
    &exec::Exec,
    &prometheus::Prometheus,
    &pressure::Pressure,
    &webhook::Webhook,
    &redis::Redis,
    &postgres::Postgres,
    &dns::Dns,
    &grpc::Grpc,
    &icmp::Icmp,
    &file::FileProbe,
    &log::Log,
    &mysql::Mysql,
    &systemd_unit::SystemdUnit,
];

/// A probe as documents see it: with the parameter and the field that all probes have.
pub fn offered(probe: &dyn Probe) -> ProbeInfo {
    with_tolerance(probe.info())
}

/// A probe made ready with all that documents may write: its parameters checked once more, its tolerance applied to each
/// look.
///
/// # Errors
/// Parameters that this version does not know or that do not fit, and what [`Probe::ready`] refuses.
pub fn ready(probe: &dyn Probe, params: &Params, policy: &Policy) -> Result<Box<dyn Lookout>, Refusal> {
    let info = offered(probe);
    info.params_fit(params)?;
    tolerated::tolerated(&info, params, probe.ready(params, policy)?)
}

/// Longest reason of a failed look in bytes: readings travel by the thousand.
const LONGEST_WHY: usize = 120;

/// A text on one line, without anything that steers a terminal: what a service answers goes there as it is.
pub(crate) fn plain(text: &str) -> String {
    harmless(text).replace(['\n', '\t'], " ")
}

/// A reason cut to its longest size, on a character boundary, and [`plain`].
pub(crate) fn brief(why: impl fmt::Display) -> String {
    let mut why = plain(&why.to_string());
    if why.len() > LONGEST_WHY {
        let end = (0..=LONGEST_WHY - 3).rev().find(|at| why.is_char_boundary(*at)).unwrap_or(0);
        why.truncate(end);
        why.push_str("...");
    }
    why
}

/// The descriptor, waited for by the runtime until it is ready for this.
#[expect(deprecated, reason = "sound for an owned descriptor, and its successor takes unsafe code to say so")]
pub(crate) fn watched(descriptor: OwnedFd, until: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, until)
}

/// Aborts a blocking call that has not begun when its look is given up; one that has begun ends by itself.
pub(crate) struct Blocking<T>(tokio::task::JoinHandle<T>);

impl<T: Send + 'static> Blocking<T> {
    /// Starts the call on the runtime's blocking threads, so that the ticks of other probes are not held up.
    pub(crate) fn start(call: impl FnOnce() -> T + Send + 'static) -> Self {
        Self(tokio::task::spawn_blocking(call))
    }

    /// Its result.
    pub(crate) async fn done(mut self) -> Result<T, String> {
        (&mut self.0).await.map_err(|e| brief(format_args!("the look broke off: {e}")))
    }
}

impl<T> Drop for Blocking<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The one blocking call that a lookout may have out. A call that has begun cannot be ended: one that a disk holds goes on
/// after its look was given up, and without this every further look would take another of the blocking threads, until no
/// probe has any.
#[derive(Debug)]
pub(crate) struct OneCall {
    free: Arc<Semaphore>,
    /// Whether the look of the call that is out was given up.
    given_up: Cell<bool>,
}

impl Default for OneCall {
    fn default() -> Self {
        Self { free: Arc::new(Semaphore::new(1)), given_up: Cell::new(false) }
    }
}

impl OneCall {
    /// The result of this call. It waits for the call before it, so that looks may overlap as their probe ticks.
    ///
    /// # Errors
    /// The look of the call before it was given up, and that call is still out; or this one broke off.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        let free = self.free.clone();
        let permit = match free.clone().try_acquire_owned() {
            Err(_) if self.given_up.get() => return Err("the last look still reads".into()),
            Err(_) => free.acquire_owned().await.map_err(|e| brief(format_args!("the look broke off: {e}")))?,
            Ok(permit) => permit,
        };
        self.given_up.set(false);
        let mut until_done = GivenUp(Some(&self.given_up));
        // Given back by the call itself, however long it outlives its look.
        let call = move || {
            let result = call();
            drop(permit);
            result
        };
        let result = Blocking::start(call).done().await;
        until_done.0 = None;
        result
    }
}

/// Says that a look was given up, when it is dropped before its call was done.
struct GivenUp<'c>(Option<&'c Cell<bool>>);

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        if let Some(given_up) = self.0 {
            given_up.set(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use fracas_model::{document::read_generic, shape::Shape};

    use super::*;

    #[test]
    fn names_are_unique_and_help_teaches() {
        let mut names: Vec<String> = ALL.iter().map(|p| p.info().name).collect();
        for info in ALL.iter().map(|p| offered(*p)) {
            assert!(info.help.len() > 200, "{}: help is a stub", info.name);
            assert!(!info.summary.is_empty() && info.example.starts_with('{'), "{}", info.name);
            assert!(info.params.iter().all(|f| f.not_built.is_some() || f.doc.ends_with('.')), "{}", info.name);
            assert!(info.reading.iter().all(|f| f.doc.ends_with('.')), "{}", info.name);
            let mut fields: Vec<&str> = info.reading.iter().map(|f| f.name.as_str()).collect();
            fields.sort_unstable();
            fields.dedup();
            assert_eq!(fields.len(), info.reading.len(), "{}", info.name);
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn examples_are_what_documents_may_write() {
        // Programs need the owner's word.
        let policy =
            Policy { exec_allow: vec!["/usr/bin/pg_isready".into()], exec_user: "0".into(), ..Policy::builtin() };
        for probe in ALL {
            let info = offered(*probe);
            let read = read_generic("example", &info.example, &Shape::Object(info.params));
            let (value, warnings) = read.unwrap_or_else(|mistakes| panic!("{}: {mistakes:?}", info.name));
            assert!(warnings.is_empty(), "{}: {warnings:?}", info.name);
            let ready = ready(*probe, &serde_json::from_value(value).unwrap(), &policy);
            if let Err(refusal) = ready {
                // Without root nobody else can be become.
                assert!(info.name == "exec" && refusal.why.contains("cannot become"), "{}: {refusal:?}", info.name);
            }
        }
    }

    /// With the faults it must go through the door of every controller, which takes 512 KiB of it.
    #[test]
    fn the_whole_table_is_small() {
        let sizes = ALL.iter().map(|probe| serde_json::to_string(&offered(*probe)).unwrap().len());
        let size: usize = sizes.sum();
        assert!(size < 192 << 10, "{size} bytes");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_call_that_a_disk_holds_takes_one_thread_and_overlapping_looks_wait() {
        let one = OneCall::default();
        let (first, second) = tokio::join!(one.blocking(|| 1), one.blocking(|| 2));
        assert_eq!((first, second), (Ok(1), Ok(2)));
        let (let_go, held) = std::sync::mpsc::channel::<()>();
        let (began, begun) = tokio::sync::oneshot::channel();
        let look = one.blocking(move || {
            let _ = began.send(());
            let _ = held.recv();
        });
        tokio::select! {
            biased;
            _ = look => panic!("it is held"),
            begun = begun => begun.unwrap(),
        }
        for _ in 0..100 {
            assert_eq!(one.blocking(|| ()).await.unwrap_err(), "the last look still reads");
        }
        drop(let_go);
        drop(one.free.acquire().await.unwrap());
        assert_eq!(one.blocking(|| 3).await, Ok(3));
    }

    #[test]
    fn reasons_stay_short_and_whole() {
        assert_eq!(brief("status 503"), "status 503");
        assert_eq!(brief("a\u{1b}[2J\u{202e}b\nc"), "a\u{fffd}[2J\u{fffd}b c");
        let long = brief("\u{e4}".repeat(100));
        assert!(long.len() <= LONGEST_WHY && long.ends_with("..."), "{long}");
    }
}
