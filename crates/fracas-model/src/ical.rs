//! Calendars (iCalendar, RFC 5545): when a calendar file says that something is closed, and calendars written for others to
//! read. Bounded, for hostile files; it opens none.
//!
//! Every event of a file closes the times at which it is, also one that is shown as free (`TRANSP:TRANSPARENT`): published
//! calendars of holidays mark theirs so. Not so what is cancelled. Whole days, and times without a zone, are those of the
//! zone that the caller gives. Where programs and the standard disagree, the wider reading counts: a recurring event ends
//! when its time has elapsed *and* the clock on the wall shows its end; a start that its own rule does not give is one all
//! the same; an `UNTIL` that is a day ends with that day.

mod lines;
mod read;
mod rule;
mod series;
#[cfg(test)]
mod tests;
mod value;
mod write;

use std::sync::Arc;

use chrono::NaiveDateTime;
use chrono_tz::Tz;

use self::series::Series;
pub use self::{
    read::{MAX_BYTES, ReadCalendar, is_calendar, read},
    write::Writer,
};

const SECOND: i64 = 1_000_000_000;

/// Times of a calendar at which it is closed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calendar {
    /// Single ones, by their beginning.
    spells: Vec<Spell>,
    /// Those that recur.
    series: Vec<Series>,
}

/// One such time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spell {
    /// What people call it.
    pub name: Arc<str>,
    /// Its first instant, seconds since the Unix epoch.
    from: i64,
    /// Its end, which is outside.
    to: i64,
}

impl Spell {
    /// Its end, which is outside, nanoseconds since the Unix epoch.
    pub fn to_ns(&self) -> i64 {
        self.to.saturating_mul(SECOND)
    }

    /// Its first instant, nanoseconds since the Unix epoch.
    pub fn from_ns(&self) -> i64 {
        self.from.saturating_mul(SECOND)
    }
}

impl Calendar {
    /// What closes this instant, nanoseconds since the Unix epoch: of several the one that ends last.
    pub fn at(&self, at_ns: i64) -> Option<Spell> {
        let at = at_ns.div_euclid(SECOND);
        let begun = &self.spells[..self.spells.partition_point(|spell| spell.from <= at)];
        let single = begun.iter().filter(|spell| at < spell.to).max_by_key(|spell| spell.to).cloned();
        let mut shown: Option<(Tz, NaiveDateTime)> = None;
        let recurring = self.series.iter().filter_map(|series| {
            let zone = series.frame.zone;
            let local = match shown {
                Some((known, local)) if known == zone => local,
                _ => value::local(zone, at),
            };
            shown = Some((zone, local));
            series.at(at, local).map(|(from, to)| Spell { name: series.name.clone(), from, to })
        });
        single.into_iter().chain(recurring).max_by_key(|spell| spell.to)
    }
}
