//! The instants at which a schedule is due: an endless, strictly rising sequence, the same for everybody who computes it.
//!
//! All instants are nanoseconds since the Unix epoch. Cron patterns and written times are read in the schedule's zone; at a
//! change of the clocks a pattern of one time of day follows Vixie cron: what falls into an hour that does not exist is due at
//! the first instant after it, what falls into an hour that comes twice is due in the first one. Patterns of several times go
//! by the clock on the wall: through both hours, and over the one that is not there. A period is elapsed time and does not
//! know zones.

use chrono::{DateTime, Duration, MappedLocalTime, NaiveDateTime, TimeZone as _, Timelike as _, Utc};
use chrono_tz::Tz;
use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::units::Dur;

/// When a schedule is due, as its document says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum When {
    /// Whenever a cron pattern of five fields matches.
    Cron(String),
    /// Once, at this local time.
    At(NaiveDateTime),
    /// At this local time and every `period` of elapsed time after it.
    Every {
        /// At least a second.
        period: Dur,
        /// The first.
        from: NaiveDateTime,
    },
    /// Once in each window, at a moment drawn by chance.
    Random {
        /// Cron pattern of the instants at which a window opens.
        opens: String,
        /// How long it is open; it closes earlier where the next one opens.
        within: Dur,
    },
}

/// One instant at which a schedule is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Due {
    /// What identifies it: the instant itself, or when its window opens.
    pub nominal_ns: i64,
    /// When it is due.
    pub at_ns: i64,
}

/// A [`When`] that can be asked.
#[derive(Clone, Debug)]
pub struct Clockwork {
    rule: Rule,
    zone: Tz,
    seed: u64,
}

#[derive(Clone, Debug)]
enum Rule {
    Cron(Box<Cron>),
    At(i64),
    Every { period_ns: i64, from_ns: i64 },
    Random { opens: Box<Cron>, within_ns: i64 },
}

const SECOND: i64 = 1_000_000_000;
/// The longest time that a clock was ever set forward at once: a whole day, where the date line moved.
const LONGEST_GAP_MINUTES: i64 = 25 * 60;

impl std::fmt::Display for When {
    /// In words.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let said = |pattern: &str| described(pattern).unwrap_or_else(|_| pattern.to_owned());
        match self {
            Self::Cron(pattern) => write!(f, "{}", said(pattern)),
            Self::At(at) => write!(f, "once, {at}"),
            Self::Every { period, from } => write!(f, "every {period} from {from}"),
            Self::Random { opens, within } => write!(f, "once within {within}: {}", said(opens)),
        }
    }
}

impl Clockwork {
    /// Reads patterns and places local times; `seed` draws the moments in windows.
    ///
    /// # Errors
    /// What is wrong with a pattern, in words.
    pub fn new(when: &When, zone: Tz, seed: u64) -> Result<Self, String> {
        let rule = match when {
            When::Cron(pattern) => Rule::Cron(Box::new(cron(pattern)?)),
            When::At(at) => Rule::At(instant(zone, *at)),
            When::Every { period, from } => {
                Rule::Every { period_ns: period.ns().max(SECOND), from_ns: instant(zone, *from) }
            }
            When::Random { opens, within } => {
                Rule::Random { opens: Box::new(cron(opens)?), within_ns: within.ns().max(SECOND) }
            }
        };
        Ok(Self { rule, zone, seed })
    }

    /// The zone that patterns are read in.
    pub fn zone(&self) -> Tz {
        self.zone
    }

    /// The first due whose nominal instant is later than `nominal_ns`; `None` when there is none any more.
    pub fn next(&self, nominal_ns: i64) -> Option<Due> {
        let plain = |ns: i64| Due { nominal_ns: ns, at_ns: ns };
        match &self.rule {
            Rule::Cron(cron) => self.match_after(cron, nominal_ns).map(plain),
            Rule::At(at) => (*at > nominal_ns).then(|| plain(*at)),
            Rule::Every { period_ns, from_ns } => {
                if nominal_ns < *from_ns {
                    return Some(plain(*from_ns));
                }
                let passed = (nominal_ns - from_ns) / period_ns;
                from_ns.checked_add(passed.checked_add(1)?.checked_mul(*period_ns)?).map(plain)
            }
            Rule::Random { opens, .. } => {
                let opened = self.match_after(opens, nominal_ns)?;
                let seconds = (self.closing(opened) - opened) / SECOND;
                // Each window has a draw of its own, so that it does not matter who asks for which first.
                let mut random = ChaCha8Rng::seed_from_u64(self.seed);
                random.set_stream(opened.cast_unsigned());
                let offset = random.random_range(0..seconds.max(1));
                Some(Due { nominal_ns: opened, at_ns: opened + offset * SECOND })
            }
        }
    }

    /// The window of a due whose moment is drawn, its end outside; `None` for one whose moment is written.
    pub fn window(&self, due: &Due) -> Option<(i64, i64)> {
        matches!(self.rule, Rule::Random { .. }).then(|| (due.nominal_ns, self.closing(due.nominal_ns)))
    }

    /// When a window closes that opened then.
    fn closing(&self, opened: i64) -> i64 {
        let Rule::Random { opens, within_ns } = &self.rule else { return opened };
        let next = self.match_after(opens, opened).unwrap_or(i64::MAX);
        next.min(opened.saturating_add(*within_ns))
    }

    /// The dues from the first after `nominal_ns` on, in order.
    pub fn after(&self, nominal_ns: i64) -> impl Iterator<Item = Due> + '_ {
        std::iter::successors(self.next(nominal_ns), |due| self.next(due.nominal_ns))
    }

    /// The dues whose moment is after this instant, of windows that are open already too.
    pub fn coming(&self, now_ns: i64) -> impl Iterator<Item = Due> + '_ {
        let open_ns = if let Rule::Random { within_ns, .. } = &self.rule { *within_ns } else { 0 };
        self.after(now_ns.saturating_sub(open_ns)).filter(move |due| due.at_ns > now_ns)
    }

    fn match_after(&self, cron: &Cron, ns: i64) -> Option<i64> {
        // Whole seconds first: of a local time that comes twice nobody could say which is meant.
        let at = self.zone.from_utc_datetime(&utc(ns.div_euclid(SECOND).checked_mul(SECOND)?).naive_utc());
        let found = cron.find_next_occurrence(&at, false).ok()?;
        found.timestamp().checked_mul(SECOND)
    }
}

/// An instant as calendars have it.
pub(super) fn utc(ns: i64) -> DateTime<Utc> {
    DateTime::<Utc>::from_timestamp_nanos(ns)
}

/// Reads a pattern of five fields, in Vixie's grammar with `L`, `W` and `#`.
fn cron(pattern: &str) -> Result<Cron, String> {
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    parser.parse(pattern).map_err(|error| {
        let text = error.to_string();
        let text = text.trim_end_matches('.');
        format!("{pattern:?} is not a cron pattern: {}{}", text[..1].to_lowercase(), &text[1..])
    })
}

/// What a pattern means, in words.
pub fn described(pattern: &str) -> Result<String, String> {
    cron(pattern).map(|cron| cron.describe())
}

/// The instant of a local time: of two the earlier, of none the first that exists after it.
pub fn instant(zone: Tz, local: NaiveDateTime) -> i64 {
    for minutes in 0..=LONGEST_GAP_MINUTES {
        let later = local.checked_add_signed(Duration::minutes(minutes)).unwrap_or(local);
        match zone.from_local_datetime(&later) {
            // Beyond a gap only whole minutes count: clocks were never set within one.
            MappedLocalTime::Single(at) | MappedLocalTime::Ambiguous(at, _) => {
                let beyond = if minutes == 0 { 0 } else { i64::from(later.second()) * SECOND };
                return at.timestamp_nanos_opt().unwrap_or(i64::MAX) - beyond;
            }
            MappedLocalTime::None => {}
        }
    }
    local.and_utc().timestamp_nanos_opt().unwrap_or(i64::MAX)
}

/// Whether a local time exists in a zone.
pub fn exists(zone: Tz, local: NaiveDateTime) -> bool {
    !matches!(zone.from_local_datetime(&local), MappedLocalTime::None)
}

/// A zone by its IANA name.
///
/// # Errors
/// With the name that was probably meant, if one is near.
pub fn zone(name: &str) -> Result<Tz, Option<&'static str>> {
    name.parse().map_err(|_| {
        let known = || chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
        // People write the city, or what a desktop calls the zone.
        let city = |zone: &&'static str| zone.rsplit('/').next().is_some_and(|last| last.eq_ignore_ascii_case(name));
        let cased = |zone: &&'static str| zone.eq_ignore_ascii_case(&name.replace(' ', "_"));
        known().find(cased).or_else(|| known().find(city)).or_else(|| crate::diagnostic::nearest(name, known()))
    })
}
