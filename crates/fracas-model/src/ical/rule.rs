//! Recurrence rules (RFC 5545, 3.3.10): read, and the days they give. A part that is not known here is refused, never left
//! out: without it the rule would mean other days.
//!
//! Days come by periods: the days, weeks, months or years of the rule, those of the first occurrence being number 0. Any
//! period can be asked for without the ones before it.

use std::{collections::BTreeSet, ops::Range};

use chrono::{Datelike as _, Days, Months, NaiveDate, NaiveDateTime, Weekday};
use chrono_tz::Tz;

use super::value::{self, YEARS, date, date_time, digits, local};

/// How often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Every {
    Day,
    Week,
    Month,
    Year,
}

/// Until when; the end itself is part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// To the end of a day.
    Day(NaiveDate),
    /// To a time as the clocks of the event show it.
    Local(NaiveDateTime),
    /// To an instant in UTC.
    Utc(NaiveDateTime),
}

/// A rule as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    every: Every,
    interval: u32,
    /// The end, if it says one.
    pub(super) until: Option<Until>,
    /// How many there are, if it says so.
    pub(super) count: Option<u32>,
    /// Bit n: month n.
    months: u16,
    month_days: Vec<i32>,
    /// Bit n: the n-th day of the week from Monday.
    weekdays: u8,
    /// Ordinal and day of the week: `-1SU`.
    nth: Vec<(i32, Weekday)>,
    positions: Vec<i32>,
    week_start: Weekday,
}

/// What is wrong with a rule: where in its text, what, and what to do.
pub(super) type Wrong = (Range<usize>, String, String);

const EVERY: [(&str, Every); 4] =
    [("DAILY", Every::Day), ("WEEKLY", Every::Week), ("MONTHLY", Every::Month), ("YEARLY", Every::Year)];
const WEEKDAYS: [(&str, Weekday); 7] = [
    ("MO", Weekday::Mon),
    ("TU", Weekday::Tue),
    ("WE", Weekday::Wed),
    ("TH", Weekday::Thu),
    ("FR", Weekday::Fri),
    ("SA", Weekday::Sat),
    ("SU", Weekday::Sun),
];
/// What to do about a rule that is beyond this reader.
const WAY_OUT: &str = "list the times one by one (RDATE), or write them as `blackouts` with `from` and `to`";

impl Rule {
    /// Reads the value of an `RRULE`.
    pub(super) fn read(text: &str) -> Result<Self, Vec<Wrong>> {
        let mut rule = Self {
            every: Every::Day,
            interval: 1,
            until: None,
            count: None,
            months: 0,
            month_days: Vec::new(),
            weekdays: 0,
            nth: Vec::new(),
            positions: Vec::new(),
            week_start: Weekday::Mon,
        };
        let (mut wrong, mut seen) = (Vec::new(), BTreeSet::new());
        for (part, place) in super::lines::cut(text, ';').filter(|(part, _)| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (name, value) = (name.to_ascii_uppercase(), value.to_ascii_uppercase());
            if !seen.insert(name.clone()) {
                wrong.push((place, format!("`{name}` stands twice in a rule"), "keep one".into()));
            } else if let Err((message, help)) = rule.part(&name, &value) {
                wrong.push((place, message, help));
            }
        }
        if !seen.contains("FREQ") {
            let help = "write FREQ=DAILY, WEEKLY, MONTHLY or YEARLY";
            wrong.push((0..text.len(), "the rule does not say how often".into(), help.into()));
        }
        wrong.extend(rule.clashes(&seen).into_iter().map(|(message, help)| (0..text.len(), message, help)));
        if wrong.is_empty() { Ok(rule) } else { Err(wrong) }
    }

    /// Takes one part; the error is what is wrong with it, and what to do.
    fn part(&mut self, name: &str, value: &str) -> Result<(), (String, String)> {
        let (taken, help) = match name {
            "FREQ" if ["SECONDLY", "MINUTELY", "HOURLY"].contains(&value) => {
                return Err((format!("`FREQ={value}` is more often than blackouts can recur"), WAY_OUT.into()));
            }
            "FREQ" => {
                let every = EVERY.iter().find(|(name, _)| *name == value);
                (every.map(|(_, every)| self.every = *every), "write DAILY, WEEKLY, MONTHLY or YEARLY")
            }
            "INTERVAL" => {
                let interval = digits(value).filter(|n| (1..=10_000).contains(n));
                (interval.map(|n| self.interval = n), "write a whole number from 1 to 10000")
            }
            "COUNT" => {
                let count = digits(value).filter(|n| *n > 0);
                (count.map(|n| self.count = Some(n)), "write a whole number from 1 on")
            }
            "UNTIL" => (until(value).map(|end| self.until = Some(end)), "write 20271231, or 20271231T235959Z"),
            "BYMONTH" => {
                let bits = numbers(value, 12, false).map(|months| months.iter().fold(0, |all, month| all | 1 << month));
                (bits.map(|months| self.months = months), "write months from 1 to 12")
            }
            "BYMONTHDAY" => {
                let days = numbers(value, 31, true);
                (days.map(|days| self.month_days = days), "write days from 1 to 31; -1 is the last of a month")
            }
            "BYDAY" => (self.weekdays(value), "write MO,TU,WE,TH,FR,SA,SU; -1FR is the last Friday"),
            "BYSETPOS" => {
                let positions = numbers(value, 366, true);
                (positions.map(|all| self.positions = all), "write positions from 1 to 366; -1 is the last")
            }
            "WKST" => (weekday(value).map(|day| self.week_start = day), "write one of MO, TU, WE, TH, FR, SA, SU"),
            _ => return Err((format!("`{name}` in a rule is not understood"), WAY_OUT.into())),
        };
        taken.ok_or_else(|| (format!("`{name}` cannot be {value:?}"), help.to_owned()))
    }

    fn weekdays(&mut self, value: &str) -> Option<()> {
        for part in value.split(',') {
            let (ordinal, day) = part.split_at_checked(part.len().checked_sub(2)?)?;
            let day = weekday(day)?;
            match ordinal {
                "" => self.weekdays |= 1 << day.num_days_from_monday(),
                ordinal => {
                    let nth = number(ordinal, 53, true)?;
                    if !self.nth.contains(&(nth, day)) {
                        self.nth.push((nth, day));
                    }
                }
            }
        }
        Some(())
    }

    /// What the standard forbids to stand together.
    fn clashes(&self, seen: &BTreeSet<String>) -> Vec<(String, String)> {
        let mut all = Vec::new();
        let mut clash = |message: &str, help: &str| all.push((message.to_owned(), help.to_owned()));
        if self.until.is_some() && self.count.is_some() {
            clash("`UNTIL` and `COUNT` cannot stand together", "keep one");
        }
        if !self.nth.is_empty() && matches!(self.every, Every::Day | Every::Week) {
            clash("days such as 2MO need months or years to count in", "write FREQ=MONTHLY or FREQ=YEARLY");
        }
        if !self.month_days.is_empty() && self.every == Every::Week {
            clash("`BYMONTHDAY` cannot stand in a weekly rule", "write FREQ=MONTHLY, or FREQ=DAILY to filter days");
        }
        if !self.positions.is_empty() && !["BYMONTH", "BYMONTHDAY", "BYDAY"].iter().any(|name| seen.contains(*name)) {
            clash("`BYSETPOS` has nothing to choose from", "add BYDAY, BYMONTHDAY or BYMONTH");
        }
        all
    }

    /// How many days are looked at in one period.
    pub(super) fn width(&self) -> usize {
        match self.every {
            Every::Day => 1,
            Every::Week => 7,
            Every::Month => 31,
            Every::Year => self.year_months(NaiveDate::MIN).len() * 31,
        }
    }

    /// The shortest time from a period to the next, in days.
    pub(super) fn stride(&self) -> i64 {
        i64::from(self.interval) * [1, 7, 28, 365][self.every as usize]
    }

    /// The number of the period that has a day, or the last one before it; of days before the first period below 0.
    pub(super) fn period(&self, first: NaiveDate, day: NaiveDate) -> i64 {
        let months = |day: NaiveDate| i64::from(day.year()) * 12 + i64::from(day.month0());
        let passed = match self.every {
            Every::Day => (day - first).num_days(),
            Every::Week => (self.week(day) - self.week(first)).num_days() / 7,
            Every::Month => months(day) - months(first),
            Every::Year => i64::from(day.year()) - i64::from(first.year()),
        };
        passed.div_euclid(self.interval.into())
    }

    /// The first day of its week.
    fn week(&self, day: NaiveDate) -> NaiveDate {
        day - Days::new(day.weekday().days_since(self.week_start).into())
    }

    /// The days of a period, rising; none where it is out of the years that can be named. Some of the first period may be
    /// before the first occurrence.
    pub(super) fn days(&self, first: NaiveDate, period: i64) -> Vec<NaiveDate> {
        let Some(steps) = u32::try_from(period).ok().and_then(|period| period.checked_mul(self.interval)) else {
            return Vec::new();
        };
        let mut days = Vec::new();
        let begin = match self.every {
            Every::Day => first.checked_add_days(Days::new(steps.into())),
            Every::Week => self.week(first).checked_add_days(Days::new(u64::from(steps) * 7)),
            Every::Month => first.with_day(1).and_then(|day| day.checked_add_months(Months::new(steps))),
            Every::Year => NaiveDate::from_ymd_opt(first.year().saturating_add_unsigned(steps), 1, 1),
        };
        let Some(begin) = begin.filter(|begin| begin.year() < YEARS.end) else { return days };
        match self.every {
            Every::Day => {
                let day = Some(begin).filter(|day| self.takes_month(*day) && self.takes(*day, first, (0, 0)));
                days.extend(day);
            }
            Every::Week => {
                let week = begin.iter_days().take(7);
                days.extend(week.filter(|day| self.takes_month(*day) && self.takes(*day, first, (0, 0))));
            }
            Every::Month if self.takes_month(begin) => self.month(begin, first, None, &mut days),
            Every::Month => {}
            Every::Year => {
                let year = (self.months == 0).then_some(begin);
                for month in self.year_months(first) {
                    if let Some(begin) = begin.with_month(month) {
                        self.month(begin, first, year, &mut days);
                    }
                }
            }
        }
        self.chosen(days)
    }

    /// Months in which a yearly rule looks for days.
    fn year_months(&self, first: NaiveDate) -> Vec<u32> {
        let plain = self.month_days.is_empty() && self.weekdays == 0 && self.nth.is_empty();
        match self.months {
            0 if plain => vec![first.month()],
            0 => (1..=12).collect(),
            months => (1..=12).filter(|month| months & 1 << month != 0).collect(),
        }
    }

    /// Days of a month; ordinals count in the month, or in the year that begins with `year`.
    fn month(&self, begin: NaiveDate, first: NaiveDate, year: Option<NaiveDate>, days: &mut Vec<NaiveDate>) {
        let length = i32::from(begin.num_days_in_month());
        let frame = match year {
            None => (0, length),
            Some(year) => (begin.ordinal0() as i32, if year.leap_year() { 366 } else { 365 }),
        };
        for (n, day) in begin.iter_days().take(length as usize).enumerate() {
            if self.takes(day, first, (frame.0 + n as i32, frame.1)) {
                days.push(day);
            }
        }
    }

    fn takes_month(&self, day: NaiveDate) -> bool {
        self.months == 0 || self.months & 1 << day.month() != 0
    }

    /// Whether a day is one of the rule's; it is the `n`-th of so many in which ordinals count.
    fn takes(&self, day: NaiveDate, first: NaiveDate, (n, of): (i32, i32)) -> bool {
        let by_weekday = self.weekdays != 0 || !self.nth.is_empty();
        if !self.month_days.is_empty() {
            let from_end = day.day() as i32 - i32::from(day.num_days_in_month()) - 1;
            if !self.month_days.contains(&(day.day() as i32)) && !self.month_days.contains(&from_end) {
                return false;
            }
        } else if !by_weekday {
            return match self.every {
                Every::Day => true,
                Every::Week => day.weekday() == first.weekday(),
                Every::Month | Every::Year => day.day() == first.day(),
            };
        }
        if !by_weekday {
            return true;
        }
        let weekday = day.weekday();
        let (from_begin, from_end) = (n / 7 + 1, -((of - 1 - n) / 7 + 1));
        self.weekdays & 1 << weekday.num_days_from_monday() != 0
            || self.nth.contains(&(from_begin, weekday))
            || self.nth.contains(&(from_end, weekday))
    }

    /// Those at the asked positions.
    fn chosen(&self, days: Vec<NaiveDate>) -> Vec<NaiveDate> {
        if self.positions.is_empty() {
            return days;
        }
        let at = |position: i32| {
            let index = if position > 0 { position - 1 } else { days.len() as i32 + position };
            usize::try_from(index).ok().and_then(|index| days.get(index)).copied()
        };
        let chosen: BTreeSet<NaiveDate> = self.positions.iter().filter_map(|position| at(*position)).collect();
        chosen.into_iter().collect()
    }
}

impl Until {
    /// Whether an occurrence that begins then is not beyond it; `zone` is the event's.
    pub(super) fn reaches(self, begin: NaiveDateTime, zone: Tz) -> bool {
        match self {
            Self::Day(day) => begin.date() <= day,
            Self::Local(local) => begin <= local,
            Self::Utc(utc) => value::instant(zone, begin) <= utc.and_utc().timestamp(),
        }
    }

    /// The same for whole days, which know no zone: that of the end as it is written.
    pub(super) fn of_days(self) -> Self {
        match self {
            Self::Day(day) => Self::Day(day),
            Self::Local(at) | Self::Utc(at) => Self::Day(at.date()),
        }
    }

    /// What clocks in a zone show then.
    pub(super) fn shown(self, zone: Tz) -> NaiveDateTime {
        match self {
            Self::Day(day) => day.and_hms_opt(23, 59, 59).unwrap_or_default(),
            Self::Local(at) => at,
            Self::Utc(at) => local(zone, at.and_utc().timestamp()),
        }
    }
}

fn until(text: &str) -> Option<Until> {
    if let Some(day) = date(text) {
        return Some(Until::Day(day));
    }
    date_time(text).map(|(at, utc)| if utc { Until::Utc(at) } else { Until::Local(at) })
}

fn weekday(text: &str) -> Option<Weekday> {
    WEEKDAYS.iter().find(|(name, _)| *name == text).map(|(_, day)| *day)
}

/// Numbers from 1 to `most`, or with a sign; each once.
fn numbers(text: &str, most: i32, signed: bool) -> Option<Vec<i32>> {
    let all: Option<BTreeSet<i32>> = text.split(',').map(|part| number(part, most, signed)).collect();
    all.map(|all| all.into_iter().collect())
}

fn number(text: &str, most: i32, signed: bool) -> Option<i32> {
    let (sign, plain) = match text.split_at_checked(1) {
        Some(("-", rest)) if signed => (-1, rest),
        Some(("+", rest)) if signed => (1, rest),
        _ => (1, text),
    };
    let number = i32::try_from(digits(plain)?).ok().filter(|n| (1..=most).contains(n))?;
    Some(sign * number)
}
