//! Values in calendars (RFC 5545, 3.3): dates, local times, durations, text. What cannot be read is `None`; who asks says so.

use chrono::{
    Datelike as _, Duration, MappedLocalTime, NaiveDate, NaiveDateTime, NaiveTime, Offset as _, TimeZone as _,
};
use chrono_tz::Tz;

use crate::{diagnostic::turns, schedule};

/// Years that can be named; instants in nanoseconds end in 2262, and some programs date birthdays to 1604.
pub(super) const YEARS: std::ops::Range<i32> = 1600..2200;
const SECOND: i64 = 1_000_000_000;

/// A whole day, or a time in a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// A day wherever one is.
    Day(NaiveDate),
    /// A time as clocks there show it.
    At(NaiveDateTime, Tz),
}

/// How long something takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// So many days of the calendar, then so many seconds.
    Nominal {
        /// At least 0.
        days: i64,
        /// At least 0.
        seconds: i64,
    },
    /// From one time to another, of which the standard keeps the seconds, and calendar programs what the clock on the wall
    /// shows: both, the longer one counts.
    Between {
        /// As clocks show it.
        wall: i64,
        /// Elapsed.
        elapsed: i64,
    },
}

impl Moment {
    /// Its instant in seconds since the Unix epoch; `home` is where a whole day is.
    pub(super) fn instant(self, home: Tz) -> i64 {
        match self {
            Self::Day(day) => midnight(home, day),
            Self::At(local, zone) => instant(zone, local),
        }
    }
}

/// The first instant of a day, seconds since the Unix epoch.
pub(super) fn midnight(zone: Tz, day: NaiveDate) -> i64 {
    // Nanoseconds would not reach back to the first years.
    let local = day.and_time(NaiveTime::MIN);
    if schedule::exists(zone, local) { instant(zone, local) } else { schedule::instant(zone, local) / SECOND }
}

/// The instant of a local time, seconds since the Unix epoch: of two the earlier; one that clocks do not show is read with
/// the offset before they were set (RFC 5545, 3.3.5).
pub(super) fn instant(zone: Tz, local: NaiveDateTime) -> i64 {
    match zone.from_local_datetime(&local) {
        MappedLocalTime::Single(at) | MappedLocalTime::Ambiguous(at, _) => at.timestamp(),
        MappedLocalTime::None => {
            // Offsets are between -12 and +14 hours: in UTC this is surely before.
            let before = zone.offset_from_utc_datetime(&(local - Duration::hours(26)));
            local.and_utc().timestamp() - i64::from(before.fix().local_minus_utc())
        }
    }
}

/// What clocks in a zone show at an instant.
pub(super) fn local(zone: Tz, at: i64) -> NaiveDateTime {
    let utc = chrono::DateTime::from_timestamp(at, 0).unwrap_or_default().naive_utc();
    zone.from_utc_datetime(&utc).naive_local()
}

/// `20270301`.
pub(super) fn date(text: &str) -> Option<NaiveDate> {
    let part = |range: std::ops::Range<usize>| text.get(range).and_then(digits);
    let day = NaiveDate::from_ymd_opt(part(0..4)? as i32, part(4..6)?, part(6..8)?)?;
    (text.len() == 8 && YEARS.contains(&day.year())).then_some(day)
}

/// `20270301T100000`, and whether a `Z` follows.
pub(super) fn date_time(text: &str) -> Option<(NaiveDateTime, bool)> {
    let (day, rest) = text.split_once(['T', 't'])?;
    let (time, utc) = rest.strip_suffix(['Z', 'z']).map_or((rest, false), |time| (time, true));
    let part = |range: std::ops::Range<usize>| time.get(range).and_then(digits);
    // A leap second is taken as the second before.
    let time = NaiveTime::from_hms_opt(part(0..2)?, part(2..4)?, part(4..6).map(|s| if s == 60 { 59 } else { s })?)?;
    (rest.len() == 6 + usize::from(utc)).then_some((date(day)?.and_time(time), utc))
}

/// `P1DT2H`, `P2W`; never negative.
pub(super) fn duration(text: &str) -> Option<Length> {
    let upper = text.to_ascii_uppercase();
    let rest = upper.strip_prefix('+').unwrap_or(&upper).strip_prefix('P')?;
    if let Some(weeks) = rest.strip_suffix('W') {
        return Some(Length::Nominal { days: i64::from(digits(weeks)?) * 7, seconds: 0 });
    }
    let (day, time) = rest.split_once('T').map_or((rest, None), |(day, time)| (day, Some(time)));
    let days = if day.is_empty() { 0 } else { i64::from(digits(day.strip_suffix('D')?)?) };
    let mut seconds = 0;
    if let Some(mut time) = time {
        let mut units = [('H', 3600), ('M', 60), ('S', 1)].into_iter();
        while !time.is_empty() {
            let unit = time.find(|c: char| !c.is_ascii_digit())?;
            let (_, worth) = units.by_ref().find(|(letter, _)| time[unit..].starts_with(*letter))?;
            seconds += i64::from(digits(&time[..unit])?) * worth;
            time = &time[unit + 1..];
        }
    }
    let said = time.map_or(!day.is_empty(), |time| !time.is_empty());
    said.then_some(Length::Nominal { days, seconds })
}

/// A number of at most nine digits and nothing else.
pub(super) fn digits(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// Text in one line, escapes resolved, at most so many characters: it is shown on terminals and in histories.
pub(super) fn text(value: &str, most: usize) -> String {
    let (mut all, mut escaped) = (String::new(), false);
    for c in value.chars() {
        match (escaped, c) {
            (false, '\\') => {
                escaped = true;
                continue;
            }
            (true, 'n' | 'N') => all.push(' '),
            (_, c) if steers(c) => all.push(' '),
            (_, c) => all.push(c),
        }
        escaped = false;
    }
    let words: Vec<&str> = all.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Whether a character moves the cursor, hides or turns round what follows instead of being read.
pub(super) fn steers(c: char) -> bool {
    c.is_control() || turns(c) || matches!(c, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> NaiveDateTime {
        text.parse().unwrap()
    }

    #[test]
    fn dates_and_times_are_read_to_the_letter() {
        assert_eq!(date("20280229"), NaiveDate::from_ymd_opt(2028, 2, 29));
        assert_eq!(date_time("20270301T103000"), Some((at("2027-03-01T10:30:00"), false)));
        assert_eq!(date_time("20270301T235960Z"), Some((at("2027-03-01T23:59:59"), true)));
        for bad in [
            "20270229",
            "2027030",
            "202703011",
            "2027-03-01",
            "15990101",
            "22000101",
            "",
            "２０２７０３０１",
            "+0270301",
        ] {
            assert_eq!(date(bad), None, "{bad}");
        }
        for bad in [
            "20270301",
            "20270301T1030",
            "20270301T240000",
            "20270301T103000z0",
            "20270301T10300é",
            "T",
            "20270301T103061",
        ] {
            assert_eq!(date_time(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_are_days_of_the_calendar_and_seconds() {
        let nominal = |days, seconds| Some(Length::Nominal { days, seconds });
        assert_eq!(duration("P1DT2H"), nominal(1, 7200));
        assert_eq!((duration("+P2W"), duration("PT1H30M5S")), (nominal(14, 0), nominal(0, 5405)));
        for bad in ["-P1D", "P", "PT", "P1H", "1D", "P1DT", "PT1M1H", "PT1", "P1W1D", "P9999999999D", "PT1H1H", ""] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_time_that_clocks_do_not_show_is_read_by_the_offset_before() {
        let london = Tz::Europe__London;
        let utc = |text: &str| at(text).and_utc().timestamp();
        assert_eq!(instant(london, at("2027-03-28T01:30:00")), utc("2027-03-28T01:30:00"), "half past two in summer");
        assert_eq!(instant(london, at("2027-10-31T01:30:00")), utc("2027-10-31T00:30:00"), "the first of two");
        let samoa = Tz::Pacific__Apia;
        assert_eq!(instant(samoa, at("2011-12-30T10:00:00")), utc("2011-12-30T20:00:00"), "a day that was left out");
        // A day begins with its first instant, also where that is not midnight.
        let day = NaiveDate::from_ymd_opt(2018, 11, 4).unwrap();
        assert_eq!(midnight(Tz::America__Sao_Paulo, day), utc("2018-11-04T03:00:00"));
        assert_eq!(
            midnight(Tz::Europe__London, NaiveDate::from_ymd_opt(1600, 1, 2).unwrap()),
            utc("1600-01-02T00:01:15")
        );
    }

    #[test]
    fn text_is_one_line_that_steers_nothing() {
        assert_eq!(text("Freeze\\, year\\nend\\;  \\\\o/", 80), "Freeze, year end; \\o/");
        assert_eq!(text("a\u{1b}[31m\u{202e}b\u{2028}c", 80), "a [31m b c");
        assert_eq!(text("aééé", 2), "aé…");
        assert_eq!(text("end\\", 80), "end");
    }
}
