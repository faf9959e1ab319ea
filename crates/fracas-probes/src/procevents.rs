//! What the kernel tells of all processes of this host, each with the instant at which it happened: processes that begin,
//! that take another image or name, and that end. So the instant of a start or an exit need not lie between two looks.
//!
//! [`connector`] reads the kernel's messages, [`feed`] keeps them for every probe that asks, [`chronicle`] says what they
//! prove of the time between two looks.

pub(crate) mod chronicle;
pub(crate) mod connector;
pub(crate) mod feed;

/// One thing that happened to a process, as a whole: threads come and go without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// When, by the clock that the holder speaks of. The kernel stamps an event once it has happened, a moment later.
    pub(crate) at: i64,
    /// The process.
    pub(crate) pid: i32,
    /// What happened.
    pub(crate) what: What,
}

/// What happened to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// It began, as a copy of another.
    Forked {
        /// Its parent.
        parent: i32,
    },
    /// It runs another program.
    Executed,
    /// It gave itself another name.
    Renamed,
    /// Its first thread ended, and with it the process, unless other threads go on.
    Ended,
    /// Another of its threads ended.
    ThreadEnded,
}
