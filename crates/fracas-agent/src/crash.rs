//! A test switch: the agent, or its guard, ends without warning at a numbered boundary between the steps of a plan. Programs
//! built without debug assertions do not have it; whatever is done about the end is done elsewhere, as after any other.
//!
//! The variable [`VARIABLE`] says where: `BOUNDARY[:NTH[:WHO[:DEED]]]`. `NTH` counts the passes of one process from 1,
//! `WHO` is `agent` (unless told) or `guard`, and `DEED` is `kill` (unless told: SIGKILL to itself) or `stop` (SIGSTOP to
//! itself, so that somebody else can do worse). Whatever follows only makes it another order, counted anew. A value with a
//! slash is the path of a file with that text, which is read at every boundary and need not exist; a process that is about
//! to do the deed writes its number into the file of that name with [`REACHED`] behind it.

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
    /// work, what will stand in for a file is written beside it, or the kernel's network is changed and nobody was told.
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

/// Passes a boundary. Does nothing unless the switch is set, and in programs without debug assertions nothing at all.
#[inline]
pub fn at(boundary: Boundary) {
    #[cfg(debug_assertions)]
    armed::pass(boundary);
    #[cfg(not(debug_assertions))]
    let _ = boundary;
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

    use super::{BOUNDARIES, Boundary, REACHED, VARIABLE};

    /// What the environment said when the program started.
    static TOLD: LazyLock<Option<String>> = LazyLock::new(|| std::env::var(VARIABLE).ok());
    /// The last order seen, and how often its boundary was passed.
    static PASSED: Mutex<(String, u64)> = Mutex::new((String::new(), 0));

    /// An order that was understood.
    #[derive(Debug, PartialEq, Eq)]
    pub(super) struct Order {
        pub(super) boundary: Boundary,
        pub(super) nth: u64,
        pub(super) guard: bool,
        pub(super) stop: bool,
    }

    impl Order {
        /// `None` for what is no order: nobody runs a production host with this switch.
        pub(super) fn read(text: &str) -> Option<Self> {
            let mut words = text.trim().split(':');
            let name = words.next()?;
            let (boundary, _) = BOUNDARIES.iter().find(|(_, known)| *known == name)?;
            let nth = words.next().map_or(Some(1), |nth| nth.parse().ok())?;
            let (who, deed) = (words.next().unwrap_or("agent"), words.next().unwrap_or("kill"));
            (["agent", "guard"].contains(&who) && ["kill", "stop"].contains(&deed)).then_some(())?;
            Some(Self { boundary: *boundary, nth, guard: who == "guard", stop: deed == "stop" })
        }
    }

    pub(super) fn pass(boundary: Boundary) {
        let Some(told) = TOLD.as_ref() else { return };
        let file = told.contains('/').then_some(told);
        let text = match file {
            Some(path) => fs::read_to_string(path).unwrap_or_default(),
            None => told.clone(),
        };
        let Some(order) = Order::read(&text) else { return };
        if order.boundary != boundary || order.guard != is_guard() {
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
        let _ = kill_process(getpid(), if order.stop { Signal::STOP } else { Signal::KILL });
    }

    fn is_guard() -> bool {
        let mut words = std::env::args_os().skip(1);
        words.next().is_some_and(|word| word == crate::reexec::MARK)
            && words.next().is_some_and(|word| word == crate::guard::ROLE)
    }
}

#[cfg(test)]
mod tests {
    use super::{armed::Order, *};

    #[test]
    fn boundaries_stand_in_their_order_under_names_of_their_own() {
        assert!(BOUNDARIES.windows(2).all(|two| two[0].0 < two[1].0));
        assert_eq!(BOUNDARIES.last().map(|last| last.0), Some(Boundary::AfterToldRecord));
        let names: std::collections::BTreeSet<_> = BOUNDARIES.iter().map(|(_, name)| name).collect();
        assert_eq!(names.len(), Boundary::AfterToldRecord as usize + 1);
    }

    #[test]
    fn an_order_says_where_when_who_and_what() {
        let order = |boundary, nth, guard, stop| Some(Order { boundary, nth, guard, stop });
        assert_eq!(Order::read("after-step\n"), order(Boundary::AfterStep, 1, false, false));
        assert_eq!(Order::read("before-inverse:3"), order(Boundary::BeforeInverse, 3, false, false));
        let full = "before-read-back:2:guard:stop:seed 7";
        assert_eq!(Order::read(full), order(Boundary::BeforeReadBack, 2, true, true));
        for wrong in ["", "soon", "after-step:x", "after-step:1:worker", "after-step:1:agent:maim"] {
            assert_eq!(Order::read(wrong), None, "{wrong}");
        }
    }
}
