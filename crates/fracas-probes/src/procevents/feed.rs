//! The kernel's word on processes, kept for every probe of this program that asks: one socket, one bounded list.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use ring::rand::{SecureRandom as _, SystemRandom};
use rustix::time::{ClockId, clock_gettime};

use super::{
    Event,
    connector::{Batch, Connector},
};

/// Most events that are kept for a probe that asks seldom.
const KEPT: usize = 1 << 16;
/// By how much the clocks may part between two readings before one is taken to have been asleep, nanoseconds. The clocks
/// are the same but for the time that the host sleeps.
const ASLEEP: i64 = 100_000;

/// Where the kernel tells of processes, by the boot clock.
#[derive(Debug)]
pub(crate) struct Feed(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    connector: Connector,
    kept: Kept,
}

/// Up to where one asker has read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor(Option<u64>);

/// The last events, each with its running number.
#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<Event>,
    /// The number of the first that is kept.
    first: u64,
    /// Boot clock less the clock of the stamps.
    offset: Option<i64>,
}

static SHARED: Mutex<Weak<Feed>> = Mutex::new(Weak::new());

impl Feed {
    /// The feed of this program; opened when nobody has it, closed when nobody has it any more.
    ///
    /// # Errors
    /// The kernel does not tell us: no right to, or another network namespace than the first. That it will not speak to
    /// this pid or user namespace shows only in [`Feed::since`].
    pub(crate) fn shared() -> io::Result<Arc<Self>> {
        let mut shared = locked(&SHARED);
        if let Some(feed) = shared.upgrade() {
            return Ok(feed);
        }
        let mut token = [0; 4];
        SystemRandom::new().fill(&mut token).map_err(|_| io::Error::other("no randomness"))?;
        let connector = Connector::open(u32::from_ne_bytes(token))?;
        let feed = Arc::new(Self(Mutex::new(Inner { connector, kept: Kept::default() })));
        *shared = Arc::downgrade(&feed);
        Ok(feed)
    }

    /// What happened since this asker asked last, in order, and the instant up to which that is all. `None` where there
    /// may be more: at first, after a loss, after a sleep of the host.
    pub(crate) fn since(&self, cursor: &mut Cursor) -> (i64, Option<Vec<Event>>) {
        let Inner { connector, kept } = &mut *locked(&self.0);
        let (now, offset) = clocks();
        let batch = connector.read();
        let accepted = connector.accepted();
        kept.take(batch, offset);
        (now, if accepted { kept.since(cursor) } else { None })
    }
}

impl Kept {
    fn take(&mut self, batch: Batch, offset: i64) {
        let asleep = self.offset.replace(offset).is_some_and(|known| (known - offset).abs() > ASLEEP);
        if batch.lost || asleep {
            // Whoever has read up to here sees that a number is missing.
            self.first += self.events.len() as u64 + 1;
            self.events.clear();
            return;
        }
        self.events
            .extend(batch.events.into_iter().map(|event| Event { at: event.at.saturating_add(offset), ..event }));
        while self.events.len() > KEPT {
            self.events.pop_front();
            self.first += 1;
        }
    }

    fn since(&self, cursor: &mut Cursor) -> Option<Vec<Event>> {
        let end = self.first + self.events.len() as u64;
        let from = cursor.0.replace(end)?.checked_sub(self.first)?;
        Some(self.events.iter().skip(usize::try_from(from).ok()?).copied().collect())
    }
}

/// Now by the boot clock, nanoseconds, and how far that is ahead of the clock of the stamps.
fn clocks() -> (i64, i64) {
    let ns = |clock| {
        let time = clock_gettime(clock);
        time.tv_sec * 1_000_000_000 + time.tv_nsec
    };
    // The nearest pair of three: in between this thread may have had to wait.
    let pairs = (0..3).map(|_| {
        let (before, boot, after) = (ns(ClockId::Monotonic), ns(ClockId::Boottime), ns(ClockId::Monotonic));
        (after - before, boot, boot - before.midpoint(after))
    });
    pairs.min_by_key(|(width, ..)| *width).map_or((0, 0), |(_, boot, offset)| (boot, offset))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What it guards is whole after each step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::procevents::What;

    fn batch(stamps: std::ops::Range<i64>) -> Batch {
        let event = |at| Event { at, pid: 1, what: What::Executed };
        Batch { events: stamps.map(event).collect(), lost: false }
    }

    #[test]
    fn every_asker_is_told_everything_once_or_that_something_is_missing() {
        let mut kept = Kept::default();
        let (mut one, mut two, mut late) = (Cursor::default(), Cursor::default(), Cursor::default());
        assert_eq!(kept.since(&mut one), None, "what was before is not known");
        kept.take(batch(0..3), 100);
        let at = |events: Option<Vec<Event>>| events.map(|e| e.iter().map(|e| e.at).collect::<Vec<_>>());
        assert_eq!(at(kept.since(&mut one)), Some(vec![100, 101, 102]));
        assert_eq!(at(kept.since(&mut one)), Some(vec![]));
        assert_eq!(kept.since(&mut two), None);
        assert_eq!(kept.since(&mut late), None);
        kept.take(batch(3..5), 100 + ASLEEP);
        assert_eq!(at(kept.since(&mut two)).map(|all| all.len()), Some(2));
        // Lost, although nothing else came.
        kept.take(Batch { events: vec![], lost: true }, 100);
        for asker in [&mut one, &mut two] {
            assert_eq!(kept.since(asker), None);
            assert_eq!(at(kept.since(asker)), Some(vec![]));
        }
        // The host slept.
        kept.take(batch(5..6), 101 + 2 * ASLEEP);
        assert_eq!(kept.since(&mut one), None);
        kept.take(batch(0..i64::try_from(KEPT).unwrap()), 101 + 2 * ASLEEP);
        assert_eq!(kept.since(&mut one).map(|all| all.len()), Some(KEPT));
        kept.take(batch(0..1), 101 + 2 * ASLEEP);
        assert_eq!(kept.since(&mut two), None, "it asks too seldom");
        assert_eq!(kept.since(&mut late), None);
    }

    #[test]
    fn clocks_are_read_together() {
        let ((first, offset), (second, again)) = (clocks(), clocks());
        assert!(first <= second && (offset - again).abs() < ASLEEP, "{offset} {again}");
    }
}
