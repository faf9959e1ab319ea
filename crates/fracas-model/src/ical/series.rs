//! Times that recur, looked at by instant: any one can be asked about without the ones before it.

use std::{collections::BTreeSet, sync::Arc};

use chrono::{Days, Duration, NaiveDate, NaiveDateTime};
use chrono_tz::Tz;

use super::{
    rule::Rule,
    value::{Length, Moment, YEARS, instant, midnight},
};

/// The most that a local time and the instant it stands for can be apart beyond the zone's offset, hours: a whole day, where
/// the date line moved.
const SLACK_HOURS: i64 = 25;
/// Longest time that may recur, days.
pub(super) const LONGEST_DAYS: i64 = 366;

/// How many days of rules may still be looked at while a calendar is read: a rule that yields nothing must not take for ever.
#[derive(Debug)]
pub(super) struct Effort(u64);

/// There was too little of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Spent;

impl Effort {
    pub(super) fn of(days: u64) -> Self {
        Self(days)
    }

    pub(super) fn spend(&mut self, days: usize) -> Result<(), Spent> {
        self.0 = self.0.checked_sub(days as u64).ok_or(Spent)?;
        Ok(())
    }
}

/// Where and how long something takes place each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Zone of its local times; of whole days that where they are.
    pub(super) zone: Tz,
    /// Whether it is made of whole days.
    pub(super) whole: bool,
    pub(super) length: Length,
}

impl Frame {
    pub(super) fn of(start: Moment, length: Length, home: Tz) -> Self {
        match start {
            Moment::Day(_) => Self { zone: home, whole: true, length },
            Moment::At(_, zone) => Self { zone, whole: false, length },
        }
    }

    /// First and last instant of what begins at this local time, seconds since the Unix epoch; the last is outside.
    pub(super) fn spell(&self, begin: NaiveDateTime) -> (i64, i64) {
        let from = self.instant(begin);
        let after = |days: i64| begin.checked_add_days(Days::new(days.unsigned_abs())).unwrap_or(NaiveDateTime::MAX);
        let to = match self.length {
            Length::Nominal { days: 0, seconds } => from.saturating_add(seconds),
            Length::Nominal { days, seconds } => self.instant(after(days)).saturating_add(seconds),
            Length::Between { wall, elapsed } => {
                let shown = begin.checked_add_signed(Duration::seconds(wall)).unwrap_or(NaiveDateTime::MAX);
                from.saturating_add(elapsed).max(self.instant(shown))
            }
        };
        (from, to)
    }

    fn instant(&self, local: NaiveDateTime) -> i64 {
        if self.whole { midnight(self.zone, local.date()) } else { instant(self.zone, local) }
    }

    /// The longest that it can take by the clock on the wall.
    pub(super) fn reach(&self) -> Duration {
        let seconds = match self.length {
            Length::Nominal { days, seconds } => days.saturating_mul(86_400).saturating_add(seconds),
            Length::Between { wall, elapsed } => wall.max(elapsed),
        };
        Duration::try_seconds(seconds).unwrap_or(Duration::MAX)
    }
}

/// Times of one name that recur by a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Series {
    pub(super) name: Arc<str>,
    pub(super) frame: Frame,
    first: NaiveDateTime,
    rule: Rule,
    /// After this none begins.
    last: Option<NaiveDateTime>,
    /// Instants at which one would begin and none does.
    pub(super) except: BTreeSet<i64>,
}

impl Series {
    /// Makes one; a rule that says how many there are is counted out here.
    pub(super) fn new(
        name: Arc<str>,
        start: Moment,
        frame: Frame,
        mut rule: Rule,
        effort: &mut Effort,
    ) -> Result<Self, Spent> {
        let first = begin(start);
        if frame.whole {
            rule.until = rule.until.map(super::rule::Until::of_days);
        }
        let until = rule.until.map(|until| until.shown(frame.zone) + Duration::hours(SLACK_HOURS));
        let mut series = Self { name, frame, first, rule, last: until, except: BTreeSet::new() };
        if let Some(count) = series.rule.count {
            series.last = Some(series.count(count, effort)?);
        }
        Ok(series)
    }

    /// When the last of so many begins; the end of all years when there are fewer.
    fn count(&self, count: u32, effort: &mut Effort) -> Result<NaiveDateTime, Spent> {
        let end = NaiveDate::from_ymd_opt(YEARS.end, 1, 1).unwrap_or(NaiveDate::MAX);
        let mut left = count as usize;
        for period in 0..=self.rule.period(self.first.date(), end) {
            effort.spend(self.rule.width())?;
            let days = self.rule.days(self.first.date(), period);
            let mut begins = days.iter().map(|day| day.and_time(self.first.time())).filter(|at| *at >= self.first);
            match begins.clone().count() {
                n if n < left => left -= n,
                _ => return Ok(begins.nth(left - 1).unwrap_or(NaiveDateTime::MAX)),
            }
        }
        Ok(NaiveDateTime::MAX)
    }

    /// Whether the rule has one that begins then.
    pub(super) fn occurs(&self, at: Moment, effort: &mut Effort) -> Result<bool, Spent> {
        effort.spend(self.rule.width())?;
        let at = match at {
            Moment::Day(_) => begin(at),
            // It may be written in another zone.
            Moment::At(local, zone) => super::value::local(self.frame.zone, instant(zone, local)),
        };
        let near = Duration::hours(SLACK_HOURS);
        let wanted = self.frame.spell(at).0;
        Ok(self.back(at + near, at - near, |begin| (self.frame.spell(begin).0 == wanted).then_some(())).is_some())
    }

    /// How many days are looked at to answer for one instant, at most.
    pub(super) fn cost(&self) -> u64 {
        let days = self.frame.reach().num_days().unsigned_abs() + 3;
        (days / self.rule.stride().unsigned_abs().max(1) + 2) * self.rule.width() as u64
    }

    /// The one that holds an instant, if any does: its first instant and its end. `shown` is what clocks in its zone show
    /// then.
    pub(super) fn at(&self, at: i64, shown: NaiveDateTime) -> Option<(i64, i64)> {
        let near = Duration::hours(SLACK_HOURS);
        let earliest = shown.checked_sub_signed(self.frame.reach() + near)?;
        self.back(shown + near, earliest, |begin| {
            let (from, to) = self.frame.spell(begin);
            (from <= at && at < to && !self.except.contains(&from)).then_some((from, to))
        })
    }

    /// What `visit` finds among the local times at which one begins, from the latest to the earliest of a stretch.
    fn back<T>(
        &self,
        latest: NaiveDateTime,
        earliest: NaiveDateTime,
        mut visit: impl FnMut(NaiveDateTime) -> Option<T>,
    ) -> Option<T> {
        let latest = self.last.map_or(latest, |last| latest.min(last));
        let earliest = earliest.max(self.first);
        if latest < earliest {
            return None;
        }
        let first = self.first.date();
        let lowest = self.rule.period(first, earliest.date());
        let mut period = self.rule.period(first, latest.date());
        while period >= lowest {
            for day in self.rule.days(first, period).into_iter().rev() {
                let begin = day.and_time(self.first.time());
                let meant = earliest <= begin && begin <= latest;
                if meant && self.rule.until.is_none_or(|until| until.reaches(begin, self.frame.zone)) {
                    let found = visit(begin);
                    if found.is_some() {
                        return found;
                    }
                }
            }
            period -= 1;
        }
        None
    }
}

/// The local time at which it begins.
pub(super) fn begin(start: Moment) -> NaiveDateTime {
    match start {
        Moment::Day(day) => day.and_time(chrono::NaiveTime::MIN),
        Moment::At(local, _) => local,
    }
}
