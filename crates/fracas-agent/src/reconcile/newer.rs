//! What was heard while a tick is at work: a newer desired state, or that the agent is to leave. It decides nothing; the
//! tick looks here before each item and each step, so that nothing is applied that is known not to be wanted any more.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use fracas_model::{
    desired::{Desired, Mode},
    event::UndoCause,
    id::ItemKey,
};

/// Shared with whoever hears it first. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Newer(Rc<Heard>);

#[derive(Debug, Default)]
struct Heard {
    desired: RefCell<Option<Desired>>,
    leaving: Cell<bool>,
}

impl Newer {
    /// A desired state came; it will be taken as soon as the tick is over.
    pub fn hear(&self, desired: &Desired) {
        let mut last = self.0.desired.borrow_mut();
        if last.as_ref().is_none_or(|last| mark(last) <= mark(desired)) {
            *last = Some(desired.clone());
        }
    }

    /// The agent is to leave: nothing is wanted any more.
    pub fn leave(&self) {
        self.0.leaving.set(true);
    }

    /// Whether something came after the desired state with this (epoch, revision).
    pub(super) fn than(&self, taken: (u64, u64)) -> bool {
        self.0.leaving.get() || self.0.desired.borrow().as_ref().is_some_and(|last| mark(last) > taken)
    }

    /// Why an item of the desired state with this (epoch, revision) is not wanted any more, if so.
    pub(super) fn ends(&self, key: &ItemKey, taken: (u64, u64)) -> Option<UndoCause> {
        if self.0.leaving.get() {
            return Some(UndoCause::AgentRestart);
        }
        let last = self.0.desired.borrow();
        let newer = last.as_ref().filter(|last| mark(last) > taken)?;
        let wanted = newer.faults.iter().any(|item| item.key == *key && item.mode == Mode::Apply);
        (!wanted).then_some(UndoCause::NotDesired)
    }
}

fn mark(desired: &Desired) -> (u64, u64) {
    (desired.epoch, desired.revision)
}
