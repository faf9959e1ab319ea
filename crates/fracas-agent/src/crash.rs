//! How the agent ends without warning: what a bug does in any of its processes, and a test switch by which one ends at a
//! numbered boundary between the steps of a plan, or within one of its tasks. Programs built without debug assertions do
//! not have the switch; whatever is done about the end is done elsewhere, as after any other.
//!
//! The variable [`VARIABLE`] says where: `PLACE[:NTH[:WHO[:DEED]]]`. `PLACE` is one of [`BOUNDARIES`], [`TASKS`] or
//! [`RENEWALS`], `NTH` counts the passes of one process from 1, `WHO` is `agent` (unless told) or the role of its guard or a
//! worker, and `DEED` is `kill` (unless told: SIGKILL to itself), `stop` (SIGSTOP to itself, so that somebody else can do
//! worse) or `panic`. Whatever follows only makes it another order, counted anew. A value with a slash is the path of a file with that text,
//! which is read at every place and need not exist; a process that is about to do the deed writes its number into the file
//! of that name with [`REACHED`] behind it.

/// The variable of the environment.
pub const VARIABLE: &str = "FRACAS_CRASH_AT";
/// What is appended to the name of the file with the order once the deed is done.
pub const REACHED: &str = ".reached";

/// A place between the steps of a plan. They are numbered from 1 in the order of [`BOUNDARIES`], which is also the order in
/// which an item passes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Boundary {
    /// Admitted; nothing is written.
    BeforePlanRecord,
    /// The plan is in the journal, synced.
    AfterPlanRecord,
    /// The fact `applying` is made; it is still in memory.
    AfterApplyingFact,
    /// Before the record that a step is about to be applied.
    BeforeStepRecord,
    /// After that record, before the step.
    AfterStepRecord,
    /// In the middle of a step: its worker lives and has no order, the signal or the order to stop is given and not seen to
    /// work, what will stand in for a file is written beside it, two files have changed places and nothing says that this is
    /// on the disk, or the kernel's network is changed and nobody was told.
    AmidStep,
    /// The step is applied; no record says so.
    AfterStep,
    /// The record that it was applied is written.
    AfterDoneRecord,
    /// All steps are applied; before the fact `active` or `spent`.
    BeforeActiveFact,
    /// That fact is made; it is still in memory.
    AfterActiveFact,
    /// Before facts are put into the outbox.
    BeforeFactsKept,
    /// They are in the outbox.
    AfterFactsKept,
    /// An item is to be undone; no record says so.
    BeforeUndoRecord,
    /// The record that its undo began is written.
    AfterUndoRecord,
    /// Before the inverse of a step.
    BeforeInverse,
    /// The inverse was run; nothing was read back, or nobody was told.
    BeforeReadBack,
    /// The inverse was run and read back; no record says so.
    AfterInverse,
    /// The record of that is written.
    AfterInverseRecord,
    /// Before the record that closes an item.
    BeforeCloseRecord,
    /// It is written.
    AfterCloseRecord,
    /// The facts of an item's end are in the outbox; no record says so.
    BeforeToldRecord,
    /// That record is written.
    AfterToldRecord,
}

/// All of them, with their names.
pub const BOUNDARIES: &[(Boundary, &str)] = &[
    (Boundary::BeforePlanRecord, "before-plan-record"),
    (Boundary::AfterPlanRecord, "after-plan-record"),
    (Boundary::AfterApplyingFact, "after-applying-fact"),
    (Boundary::BeforeStepRecord, "before-step-record"),
    (Boundary::AfterStepRecord, "after-step-record"),
    (Boundary::AmidStep, "amid-step"),
    (Boundary::AfterStep, "after-step"),
    (Boundary::AfterDoneRecord, "after-done-record"),
    (Boundary::BeforeActiveFact, "before-active-fact"),
    (Boundary::AfterActiveFact, "after-active-fact"),
    (Boundary::BeforeFactsKept, "before-facts-kept"),
    (Boundary::AfterFactsKept, "after-facts-kept"),
    (Boundary::BeforeUndoRecord, "before-undo-record"),
    (Boundary::AfterUndoRecord, "after-undo-record"),
    (Boundary::BeforeInverse, "before-inverse"),
    (Boundary::BeforeReadBack, "before-read-back"),
    (Boundary::AfterInverse, "after-inverse"),
    (Boundary::AfterInverseRecord, "after-inverse-record"),
    (Boundary::BeforeCloseRecord, "before-close-record"),
    (Boundary::AfterCloseRecord, "after-close-record"),
    (Boundary::BeforeToldRecord, "before-told-record"),
    (Boundary::AfterToldRecord, "after-told-record"),
];

/// A task, thread or process of the agent that goes on for as long as it lives or something is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// One round of the reconciler.
    Reconcile,
    /// The session with the controller, at each message and renewal.
    Session,
    /// Facts on their way up.
    Upward,
    /// Word to the guard, each second.
    Assure,
    /// What the probes see on its way to the outbox.
    Watch,
    /// The thread of the probes.
    Probes,
    /// One probe, at each look.
    Probe,
    /// The thread that writes to the disk.
    Disk,
    /// The thread that starts workers and the guard.
    Spawner,
    /// Work on a blocking thread.
    Aside,
    /// The thread that times the end of a process.
    Exit,
    /// A worker, or the guard, at each order.
    Orders,
    /// A thread that burns.
    Burn,
    /// The thread that steers those.
    Steer,
    /// The thread that holds disk space.
    Fill,
    /// The network worker's loop.
    Net,
}

/// All of them, with their names.
pub const TASKS: &[(Task, &str)] = &[
    (Task::Reconcile, "task-reconcile"),
    (Task::Session, "task-session"),
    (Task::Upward, "task-upward"),
    (Task::Assure, "task-assure"),
    (Task::Watch, "task-watch"),
    (Task::Probes, "task-probes"),
    (Task::Probe, "task-probe"),
    (Task::Disk, "task-disk"),
    (Task::Spawner, "task-spawner"),
    (Task::Aside, "task-aside"),
    (Task::Exit, "task-exit"),
    (Task::Orders, "task-orders"),
    (Task::Burn, "task-burn"),
    (Task::Steer, "task-steer"),
    (Task::Fill, "task-fill"),
    (Task::Net, "task-net"),
];

/// A place within a change of certificates, in the order in which they are passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewing {
    /// There is a new key; nobody was asked.
    Asked,
    /// The controller has signed; the certificate is in memory.
    Answered,
    /// Key and certificate are on the disk, as one file.
    Kept,
    /// The key is in its place, the certificate is not.
    KeyMoved,
    /// Both are; the one file is still there.
    CertificateMoved,
    /// All is in its place; nothing was opened with it.
    Settled,
    /// The first session with it has begun, and takes over.
    Turned,
}

/// All of them, with their names.
pub const RENEWALS: &[(Renewing, &str)] = &[
    (Renewing::Asked, "renewal-asked"),
    (Renewing::Answered, "renewal-answered"),
    (Renewing::Kept, "renewal-kept"),
    (Renewing::KeyMoved, "renewal-key-moved"),
    (Renewing::CertificateMoved, "renewal-certificate-moved"),
    (Renewing::Settled, "renewal-settled"),
    (Renewing::Turned, "renewal-turned"),
];

/// From here on a bug in any task ends the whole process, as it does in programs that are built to abort: an agent that
/// has lost one of its tasks must not seem to live, and its guard undoes what it did.
pub(crate) fn bugs_end_the_process() {
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |bug| {
        told(bug);
        std::process::abort();
    }));
}

/// Passes a place within a task, as [`at`] does a boundary.
#[inline]
pub fn within(task: Task) {
    #[cfg(debug_assertions)]
    armed::pass(TASKS[task as usize].1);
    #[cfg(not(debug_assertions))]
    let _ = task;
}

/// Passes a boundary. Does nothing unless the switch is set, and in programs without debug assertions nothing at all.
#[inline]
pub fn at(boundary: Boundary) {
    #[cfg(debug_assertions)]
    armed::pass(BOUNDARIES[boundary as usize].1);
    #[cfg(not(debug_assertions))]
    let _ = boundary;
}

/// Passes a place within a change of certificates, as [`at`] does a boundary.
#[inline]
pub fn renewing(place: Renewing) {
    #[cfg(debug_assertions)]
    armed::pass(RENEWALS[place as usize].1);
    #[cfg(not(debug_assertions))]
    let _ = place;
}

/// What processes without an environment of their own, as the guard, are to have of it.
pub(crate) fn inherited() -> Option<(&'static str, std::ffi::OsString)> {
    #[cfg(debug_assertions)]
    return std::env::var_os(VARIABLE).map(|value| (VARIABLE, value));
    #[cfg(not(debug_assertions))]
    None
}

#[cfg(debug_assertions)]
mod armed {
    use std::{
        fs,
        sync::{LazyLock, Mutex, PoisonError},
    };

    use rustix::process::{Signal, getpid, kill_process};

    use super::{BOUNDARIES, REACHED, RENEWALS, TASKS, VARIABLE};

    const AGENT: &str = "agent";
    /// What the environment said when the program started.
    static TOLD: LazyLock<Option<String>> = LazyLock::new(|| std::env::var(VARIABLE).ok());
    /// The last order seen, and how often its boundary was passed.
    static PASSED: Mutex<(String, u64)> = Mutex::new((String::new(), 0));

    /// An order that was understood.
    #[derive(Debug, PartialEq, Eq)]
    pub(super) struct Order {
        pub(super) place: &'static str,
        pub(super) nth: u64,
        pub(super) who: String,
        pub(super) deed: Deed,
    }

    /// How it ends.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) enum Deed {
        Kill,
        Stop,
        Panic,
    }

    impl Order {
        /// `None` for what is no order: nobody runs a production host with this switch.
        pub(super) fn read(text: &str) -> Option<Self> {
            let mut words = text.trim().split(':');
            let name = words.next()?;
            let places = BOUNDARIES.iter().map(|(_, known)| *known).chain(TASKS.iter().map(|(_, known)| *known));
            let place = places.chain(RENEWALS.iter().map(|(_, known)| *known)).find(|known| *known == name)?;
            let nth = words.next().map_or(Some(1), |nth| nth.parse().ok())?;
            let who = words.next().unwrap_or(AGENT).to_owned();
            let deed = match words.next().unwrap_or("kill") {
                "kill" => Deed::Kill,
                "stop" => Deed::Stop,
                "panic" => Deed::Panic,
                _ => return None,
            };
            Some(Self { place, nth, who, deed })
        }
    }

    pub(super) fn pass(place: &'static str) {
        let Some(told) = TOLD.as_ref() else { return };
        let file = told.contains('/').then_some(told);
        let text = match file {
            Some(path) => fs::read_to_string(path).unwrap_or_default(),
            None => told.clone(),
        };
        let Some(order) = Order::read(&text) else { return };
        if order.place != place || order.who != role() {
            return;
        }
        let nth = {
            let mut passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
            if passed.0 != text {
                *passed = (text, 0);
            }
            passed.1 += 1;
            passed.1
        };
        if nth != order.nth {
            return;
        }
        if let Some(path) = file {
            let _ = fs::write(format!("{path}{REACHED}"), getpid().as_raw_nonzero().to_string());
        }
        // To a thread of the own process the signal comes before the call returns.
        let _ = match order.deed {
            Deed::Kill => kill_process(getpid(), Signal::KILL),
            Deed::Stop => kill_process(getpid(), Signal::STOP),
            Deed::Panic => panic!("asked by the test switch: {place}"),
        };
    }

    fn role() -> String {
        let mut words = std::env::args().skip(1);
        let marked = words.next().is_some_and(|word| word == crate::reexec::MARK);
        words.next().filter(|_| marked).unwrap_or_else(|| AGENT.into())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        armed::{Deed, Order},
        *,
    };

    #[test]
    fn boundaries_stand_in_their_order_under_names_of_their_own() {
        assert!(BOUNDARIES.windows(2).all(|two| two[0].0 < two[1].0));
        assert_eq!(BOUNDARIES.last().map(|last| last.0), Some(Boundary::AfterToldRecord));
        let names: std::collections::BTreeSet<_> = BOUNDARIES.iter().map(|(_, name)| name).collect();
        assert_eq!(names.len(), Boundary::AfterToldRecord as usize + 1);
        assert!(RENEWALS.iter().enumerate().all(|(place, (renewing, _))| *renewing as usize == place));
        assert!(TASKS.iter().enumerate().all(|(place, (task, _))| *task as usize == place));
    }

    #[test]
    fn an_order_says_where_when_who_and_what() {
        let order = |place, nth, who: &str, deed| Some(Order { place, nth, who: who.into(), deed });
        assert_eq!(Order::read("after-step\n"), order("after-step", 1, "agent", Deed::Kill));
        assert_eq!(Order::read("before-inverse:3"), order("before-inverse", 3, "agent", Deed::Kill));
        let full = "before-read-back:2:guard:stop:seed 7";
        assert_eq!(Order::read(full), order("before-read-back", 2, "guard", Deed::Stop));
        assert_eq!(Order::read("task-burn:1:burn:panic"), order("task-burn", 1, "burn", Deed::Panic));
        for wrong in ["", "soon", "after-step:x", "after-step:1:agent:maim"] {
            assert_eq!(Order::read(wrong), None, "{wrong}");
        }
    }
}
