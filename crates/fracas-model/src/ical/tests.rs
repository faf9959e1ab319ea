//! Calendars against an oracle of another language, against a plain reading of the standard day by day, against mistakes and
//! against hostile files.
//!
//! `golden.jsonl` was made from random events in Python: one JSON object a line, with the zone that a calendar is read in and
//! the times at which it must close within a window, in seconds since the Unix epoch. Those with `lines` of one VEVENT come
//! from dateutil 2.9 (rules) and zoneinfo (clocks; zone data 2025b, as here), with an end that is the later one of elapsed
//! and wall time; those with a whole `text` from recurring-ical-events 3.8 (what is moved, cancelled, excepted).
//! `FRACAS_ICAL_CASES=FILE` tries the cases of another such file too.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration as Time,
};

use chrono::{Datelike as _, Days, NaiveDate, Weekday};
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use super::*;
use crate::diagnostic::Diagnostic;

fn calendar(events: &[&[&str]]) -> String {
    let events: String =
        events.iter().map(|lines| format!("BEGIN:VEVENT\r\n{}\r\nEND:VEVENT\r\n", lines.join("\r\n"))).collect();
    format!("BEGIN:VCALENDAR\r\nVERSION:2.0\r\n{events}END:VCALENDAR\r\n")
}

fn try_read(text: &str, home: Tz) -> Result<ReadCalendar, Vec<Diagnostic>> {
    read("c.ics", text, home, &BTreeMap::new())
}

/// The calendar of a text that has no mistakes.
fn good(text: &str, home: Tz) -> Calendar {
    let told = |wrong: Vec<Diagnostic>| wrong.iter().map(Diagnostic::render).collect::<Vec<_>>().join("\n");
    try_read(text, home).unwrap_or_else(|wrong| panic!("{}\n{text}", told(wrong))).calendar
}

fn utc(text: &str) -> i64 {
    text.parse::<NaiveDateTime>().unwrap().and_utc().timestamp() * SECOND
}

/// When a calendar is closed: the name and the end.
fn at(calendar: &Calendar, text: &str) -> Option<(String, i64)> {
    calendar.at(utc(text)).map(|spell| (spell.name.to_string(), spell.to_ns()))
}

fn check(case: &Value, random: &mut ChaCha8Rng) {
    let home = case["home"].as_str().unwrap().parse().unwrap();
    let text = text_of(case);
    let calendar = good(&text, home);
    let pair = |pair: &Value| (pair[0].as_i64().unwrap(), pair[1].as_i64().unwrap());
    let spells: Vec<(i64, i64)> = case["spells"].as_array().unwrap().iter().map(pair).collect();
    let (from, to) = pair(&case["window"]);
    let edges = spells.iter().flat_map(|(from, to)| [*from - 1, *from, *to - 1, *to]);
    let anywhere: Vec<i64> = (0..20).map(|_| random.random_range(from..to)).collect();
    for at in edges.chain(anywhere).filter(|at| (from..to).contains(at)) {
        let expected = spells.iter().filter(|(from, to)| *from <= at && at < *to).map(|(_, to)| *to).max();
        let got = calendar.at(at * SECOND).map(|spell| spell.to);
        assert_eq!(got, expected, "at {} in {home}: {}", value::local(Tz::UTC, at), text);
    }
}

/// The calendar of a case: the whole text, or the lines of its one event.
fn text_of(case: &Value) -> String {
    let lines = || case["lines"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect::<Vec<_>>();
    case["text"].as_str().map_or_else(|| calendar(&[&lines()]), str::to_owned)
}

#[test]
fn events_close_when_another_language_says_they_do() {
    let random = &mut ChaCha8Rng::seed_from_u64(1);
    let mut text = include_str!("golden.jsonl").to_owned();
    if let Ok(more) = std::env::var("FRACAS_ICAL_CASES") {
        text.push_str(&std::fs::read_to_string(more).unwrap());
    }
    let cases: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(cases.len() >= 150, "{}", cases.len());
    for case in &cases {
        check(case, random);
    }
}

/// A rule as numbers, of which the standard is read word by word.
#[derive(Clone, Debug)]
struct Drawn {
    first: NaiveDate,
    every: usize,
    interval: i64,
    months: BTreeSet<u32>,
    month_days: BTreeSet<i64>,
    /// Ordinal, 0 for none, and day of the week from Monday.
    weekdays: BTreeSet<(i64, u8)>,
    positions: BTreeSet<i64>,
    week_start: u8,
    count: Option<usize>,
    until: Option<NaiveDate>,
}

const EVERY: [&str; 4] = ["DAILY", "WEEKLY", "MONTHLY", "YEARLY"];
const WEEKDAYS: [&str; 7] = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"];

fn drawn() -> impl Strategy<Value = Drawn> {
    let some = |range: std::ops::Range<i64>, most| prop::collection::btree_set(range, 0..most);
    let ordinals = prop_oneof![4 => Just(0_i64), 2 => -5..6_i64, 1 => -53..54_i64];
    let weekdays = prop::collection::btree_set((ordinals, 0..7_u8), 0..4);
    let end = (prop::option::of(1..30_usize), prop::option::of(0..900_u64));
    let by = (prop::collection::btree_set(1..13_u32, 0..4), some(-31..32, 4), weekdays, some(-6..7, 3));
    (0..1500_u64, 0..4_usize, 1..5_i64, by, 0..7_u8, end).prop_map(|(first, every, interval, by, week_start, end)| {
        let first = NaiveDate::from_ymd_opt(2023, 12, 1).unwrap() + Days::new(first);
        let (months, mut month_days, mut weekdays, mut positions) = by;
        month_days.remove(&0);
        positions.remove(&0);
        if every == 1 {
            month_days.clear();
        }
        if every < 2 {
            weekdays = weekdays.into_iter().map(|(_, day)| (0, day)).collect();
        }
        if months.is_empty() && month_days.is_empty() && weekdays.is_empty() {
            positions.clear();
        }
        let until = end.1.filter(|_| end.0.is_none()).map(|days| first + Days::new(days));
        Drawn { first, every, interval, months, month_days, weekdays, positions, week_start, count: end.0, until }
    })
}

impl Drawn {
    fn text(&self) -> String {
        fn list<T: ToString>(name: &str, all: impl IntoIterator<Item = T>) -> String {
            let all: Vec<String> = all.into_iter().map(|one| one.to_string()).collect();
            if all.is_empty() { String::new() } else { format!(";{name}={}", all.join(",")) }
        }
        let weekday = |(nth, day): &(i64, u8)| {
            let nth = if *nth == 0 { String::new() } else { nth.to_string() };
            format!("{nth}{}", WEEKDAYS[usize::from(*day)])
        };
        [
            format!("FREQ={};INTERVAL={}", EVERY[self.every], self.interval),
            list("BYMONTH", &self.months),
            list("BYMONTHDAY", &self.month_days),
            list("BYDAY", self.weekdays.iter().map(weekday)),
            list("BYSETPOS", &self.positions),
            list("WKST", [WEEKDAYS[usize::from(self.week_start)]]),
            list("COUNT", self.count),
            list("UNTIL", self.until.map(|day| day.format("%Y%m%d").to_string())),
        ]
        .concat()
    }

    /// A number that all days of a period share.
    fn period(&self, day: NaiveDate) -> i64 {
        match self.every {
            0 => day.num_days_from_ce().into(),
            1 => {
                // 0001-01-01 was a Monday.
                (i64::from(day.num_days_from_ce()) - 1 - i64::from(self.week_start)).div_euclid(7)
            }
            2 => i64::from(day.year()) * 12 + i64::from(day.month()),
            _ => day.year().into(),
        }
    }

    /// Whether the parts but positions, counts and ends let a day through.
    fn lets(&self, day: NaiveDate) -> bool {
        let all = |of: fn(NaiveDate) -> (i32, u32), wanted: (i32, u32)| {
            let first = NaiveDate::from_ymd_opt(day.year(), 1, 1).unwrap();
            first.iter_days().take_while(move |d| d.year() == day.year()).filter(move |d| of(*d) == wanted)
        };
        let of_month = || all(|d| (d.year(), d.month()), (day.year(), day.month()));
        let in_year = self.every == 3 && self.months.is_empty();
        let in_frame = || if in_year { all(|d| (d.year(), 0), (day.year(), 0)) } else { of_month() };
        let length = i64::from(day.num_days_in_month());
        let number = i64::from(day.day());
        let month_day = self.month_days.contains(&number) || self.month_days.contains(&(number - length - 1));
        let weekday = |(nth, wanted): &(i64, u8)| {
            let same: Vec<NaiveDate> =
                in_frame().filter(|d| d.weekday() == Weekday::try_from(*wanted).unwrap()).collect();
            let place = same.iter().position(|d| *d == day);
            place.is_some_and(|place| {
                let (place, all) = (place as i64, same.len() as i64);
                *nth == 0 || *nth == place + 1 || *nth == place - all
            })
        };
        let plain = self.month_days.is_empty() && self.weekdays.is_empty();
        let by_default = match self.every {
            0 => true,
            1 => day.weekday() == self.first.weekday(),
            2 => day.day() == self.first.day(),
            _ => day.day() == self.first.day() && (!self.months.is_empty() || day.month() == self.first.month()),
        };
        (self.months.is_empty() || self.months.contains(&day.month()))
            && (self.month_days.is_empty() || month_day)
            && (self.weekdays.is_empty() || self.weekdays.iter().any(weekday))
            && (!plain || by_default)
    }

    /// The days of the rule among so many from the beginning of the first one's year on.
    fn days(&self, many: usize) -> Vec<NaiveDate> {
        let begin = NaiveDate::from_ymd_opt(self.first.year(), 1, 1).unwrap() - Days::new(7);
        let mut periods: BTreeMap<i64, Vec<NaiveDate>> = BTreeMap::new();
        for day in begin.iter_days().take(many).filter(|day| self.lets(*day)) {
            periods.entry(self.period(day)).or_default().push(day);
        }
        periods.retain(|period, _| (period - self.period(self.first)) % self.interval == 0);
        let chosen = periods.into_values().flat_map(|days| {
            let at = |position: &i64| if *position > 0 { position - 1 } else { days.len() as i64 + position };
            let chosen: BTreeSet<i64> = self.positions.iter().map(at).collect();
            let keep = |n: usize| self.positions.is_empty() || chosen.contains(&(n as i64));
            days.iter().enumerate().filter(|(n, _)| keep(*n)).map(|(_, day)| *day).collect::<Vec<_>>()
        });
        let meant = chosen.filter(|day| *day >= self.first && self.until.is_none_or(|until| *day <= until));
        meant.take(self.count.unwrap_or(usize::MAX)).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn rules_give_the_days_that_the_standard_describes(drawn in drawn()) {
        let start = format!("DTSTART;VALUE=DATE:{}", drawn.first.format("%Y%m%d"));
        let calendar = good(&calendar(&[&[&start, &format!("RRULE:{}", drawn.text())]]), Tz::UTC);
        let mut days: BTreeSet<NaiveDate> = drawn.days(366 * 7).into_iter().collect();
        days.insert(drawn.first);
        for day in (drawn.first - Days::new(40)).iter_days().take(366 * 4) {
            let noon = day.and_hms_opt(12, 0, 0).unwrap().and_utc().timestamp() * SECOND;
            prop_assert_eq!(calendar.at(noon).is_some(), days.contains(&day), "{} {}", drawn.text(), day);
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "(BEGIN:VCALENDAR\nVERSION:2.0\n)?((BEGIN|END):V(EVENT|CALENDAR|ALARM)\n|(DTSTART|DTEND|RRULE|RDATE|EXDATE|DURATION|RECURRENCE-ID|UID)(;(TZID|VALUE)=[a-zA-Z/]{0,8})?:[-+0-9A-Z=;,/]{0,30}\n|[ -~\u{e9}]{0,20}\r?\n){0,30}") {
        let _ = try_read(&text, Tz::Europe__London);
    }

    #[test]
    fn no_change_of_a_good_file_makes_it_panic(at in 0..2000_usize, put in any::<char>(), cut in 0..40_usize) {
        let cases = include_str!("golden.jsonl").lines().take(6);
        let text: String = cases.map(|line| text_of(&serde_json::from_str(line).unwrap())).collect();
        let mut letters: Vec<char> = text.chars().collect();
        let at = at % letters.len();
        letters.splice(at..(at + cut).min(letters.len()), [put]);
        if let Ok(read) = try_read(&letters.into_iter().collect::<String>(), Tz::UTC) {
            let _ = read.calendar.at(utc("2027-01-01T00:00:00"));
        }
    }
}

const SHIFT: &[&str] = &[
    "UID:s",
    "SUMMARY:night shift",
    "DTSTART;TZID=Europe/London:20270301T220000",
    "DTEND;TZID=Europe/London:20270302T060000",
    "RRULE:FREQ=DAILY",
];

#[test]
fn a_night_over_the_change_of_the_clocks_ends_by_the_later_reading() {
    let shift = good(&calendar(&[SHIFT]), Tz::UTC);
    // In spring eight hours have passed at seven, in autumn the clock on the wall shows six after nine hours.
    for (inside, end) in
        [("2027-03-28T05:59:59", "2027-03-28T06:00:00"), ("2027-10-31T05:59:59", "2027-10-31T06:00:00")]
    {
        assert_eq!(at(&shift, inside), Some(("night shift".into(), utc(end))));
        assert_eq!(at(&shift, end), None);
    }
}

#[test]
fn occurrences_are_excepted_moved_and_cancelled_one_by_one() {
    let with = |more: &[&[&str]]| {
        let events: Vec<&[&str]> = [SHIFT].iter().chain(more).copied().collect();
        good(&calendar(&events), Tz::UTC)
    };
    let closed = |calendar: &Calendar, text| calendar.at(utc(text)).is_some();
    let moved = with(&[&[
        "UID:s",
        "SUMMARY:moved",
        "RECURRENCE-ID;TZID=Europe/London:20270303T220000",
        "DTSTART:20270304T120000Z",
        "DURATION:PT1H",
    ]]);
    assert!(!closed(&moved, "2027-03-03T23:00:00") && closed(&moved, "2027-03-02T23:00:00"));
    assert_eq!(at(&moved, "2027-03-04T12:30:00"), Some(("moved".into(), utc("2027-03-04T13:00:00"))));
    // Named by its instant in UTC, in summer.
    let cancelled = with(&[&["UID:s", "STATUS:CANCELLED", "RECURRENCE-ID:20270701T210000Z"]]);
    assert!(!closed(&cancelled, "2027-07-01T22:00:00") && closed(&cancelled, "2027-07-02T22:00:00"));
    // An event of which only a moved occurrence was exported.
    let alone = good(
        &calendar(&[&["UID:x", "RECURRENCE-ID:20270701T210000Z", "DTSTART:20270702T000000Z", "DURATION:PT1H"]]),
        Tz::UTC,
    );
    assert_eq!(
        at(&alone, "2027-07-02T00:30:00"),
        Some(("c.ics".into(), utc("2027-07-02T01:00:00"))),
        "named by its file"
    );
    // A series that is cancelled as a whole; one that was copied twice.
    let gone = try_read(&calendar(&[&["UID:g", "STATUS:CANCELLED"]]), Tz::UTC).unwrap();
    assert!(gone.warnings[0].message.contains("closes nothing"), "{:?}", gone.warnings);
    assert_eq!(with(&[SHIFT]), with(&[]));
    let except = [
        "EXDATE;TZID=Europe/London:20270301T220000,20270302T220000",
        "RDATE;VALUE=PERIOD:20270302T120000Z/PT1H,20270303T120000Z/20270303T140000Z",
    ];
    let lines: Vec<&str> = SHIFT.iter().chain(&except).copied().collect();
    let except = good(&calendar(&[&lines]), Tz::UTC);
    assert!(
        !closed(&except, "2027-03-01T23:00:00")
            && !closed(&except, "2027-03-02T23:00:00")
            && closed(&except, "2027-03-03T23:00:00")
    );
    assert_eq!(at(&except, "2027-03-03T13:30:00").unwrap().1, utc("2027-03-03T14:00:00"));
}

#[test]
fn what_shows_as_free_closes_too_and_zones_are_the_files_or_the_callers() {
    let free = &["TRANSP:TRANSPARENT", "DTSTART;VALUE=DATE:20270329", "SUMMARY;LANGUAGE=en:Easter\\, Monday"];
    let day = good(&calendar(&[free]), Tz::America__New_York);
    assert_eq!(at(&day, "2027-03-29T04:00:00"), Some(("Easter, Monday".into(), utc("2027-03-30T04:00:00"))));
    assert_eq!(at(&day, "2027-03-29T03:59:59"), None);
    let private = &["DTSTART;TZID=\"Büro, EG\":20270301T100000", "DURATION:PT1H", "UID:1"];
    let zones = [("Büro, EG".to_owned(), Tz::Europe__Berlin)].into();
    let read = read("c.ics", &calendar(&[private]), Tz::UTC, &zones).unwrap();
    assert!(at(&read.calendar, "2027-03-01T09:30:00").is_some());
    let prefixed = &["DTSTART;TZID=/example.org/20260101_1/America/Argentina/Salta:20270301T100000", "DURATION:PT1H"];
    assert!(at(&good(&calendar(&[prefixed]), Tz::UTC), "2027-03-01T13:30:00").is_some());
}

#[test]
fn mistakes_are_told_at_their_places_with_a_way_out() {
    let event = |lines: &[&str]| calendar(&[lines]);
    let rule = |rule: &str| event(&["DTSTART:20270301T100000Z", "DURATION:PT1H", rule]);
    let start = |line: &str| event(&[line, "DURATION:PT1H"]);
    for (text, place, expected) in [
        (rule("RRULE:FREQ=DAILY;BYHOUR=9"), "6:18", "`BYHOUR` in a rule is not understood"),
        (rule("RRULE:FREQ=YEARLY;BYWEEKNO=20"), "6:19", "list the times one by one (RDATE)"),
        (rule("RRULE:FREQ=YEARLY;BYYEARDAY=1"), "6:19", "not understood"),
        (rule("RRULE:FREQ=HOURLY"), "6:7", "more often than blackouts"),
        (rule("RRULE:INTERVAL=2"), "6:7", "does not say how often"),
        (rule("RRULE:FREQ=DAILY;COUNT=0"), "6:18", "from 1 on"),
        (rule("RRULE:FREQ=DAILY;FREQ=DAILY"), "6:18", "stands twice"),
        (rule("RRULE:FREQ=DAILY;COUNT=2;UNTIL=20270401T000000Z"), "6:7", "keep one"),
        (rule("RRULE:FREQ=WEEKLY;BYDAY=2MO"), "6:7", "write FREQ=MONTHLY"),
        (rule("RRULE:FREQ=WEEKLY;BYMONTHDAY=3"), "6:7", "cannot stand in a weekly rule"),
        (rule("RRULE:FREQ=DAILY;BYSETPOS=1"), "6:7", "nothing to choose from"),
        (rule("RRULE:FREQ=MONTHLY;BYMONTHDAY=32"), "6:20", "from 1 to 31"),
        (rule("RRULE:RSCALE=HEBREW;FREQ=YEARLY"), "6:7", "`RSCALE` in a rule is not understood"),
        (rule("RRULE:FREQ=YEARLY;\r\n BYEASTER=0"), "7:2", "`BYEASTER`"),
        (rule("EXRULE:FREQ=DAILY"), "6:1", "as EXDATE"),
        (rule("RRULE:FREQ=DAILY\r\nRRULE:FREQ=WEEKLY"), "7:1", "`RRULE` stands twice"),
        (rule("EXDATE;VALUE=DATE:20270301"), "6:19", "as the event's DTSTART is written"),
        (rule("RDATE:20270301"), "6:7", "another kind of date"),
        (rule("RDATE;VALUE=PERIOD:20270301T100000Z"), "6:20", "no period"),
        (rule("RDATE;VALUE=URI:x"), "6:1", "write DATE or DATE-TIME"),
        (rule("DTEND:20270301T110000Z"), "5:1", "cannot stand together"),
        (rule("RECURRENCE-ID;RANGE=THISANDFUTURE:20270301T100000Z"), "6:1", "split the series"),
        (rule("RECURRENCE-ID:20270301T100000Z\r\nRRULE:FREQ=DAILY"), "3:7", "recurs itself"),
        (
            start("DTSTART;TZID=W. Europe Standard Time:20270301T100000"),
            "4:1",
            "zones: { \"W. Europe Standard Time\": Europe/London }",
        ),
        (start("DTSTART;TZID=Europe/Lundon:20270301T100000"), "4:1", "did you mean `Europe/London`?"),
        (start("DTSTART:20270229T100000Z"), "4:9", "is no time"),
        (start("DTSTART;VALUE=DATE:20270301T100000"), "4:20", "is no day"),
        (start("DTSTART;VALUE=DATE:20270301"), "5:10", "whole days last whole days"),
        (event(&["DURATION:PT1H"]), "3:7", "give it a DTSTART"),
        (event(&["DTSTART:20270301T100000Z"]), "3:7", "has no length"),
        (event(&["DTSTART:20270301T100000Z", "DURATION:PT0S"]), "5:10", "has no length"),
        (event(&["DTSTART:20270301T100000Z", "DURATION:-PT1H"]), "5:10", "no length of time"),
        (event(&["DTSTART:20270301T100000Z", "DTEND:20270301T100000Z"]), "5:7", "ends before it has begun"),
        (event(&["DTSTART;VALUE=DATE:20270301", "DTEND;VALUE=DATE:20270301"]), "5:18", "the day after"),
        (event(&["DTSTART;VALUE=DATE:20270301", "DTEND:20270302T000000Z"]), "5:7", "different kinds"),
        (event(&["DTSTART;VALUE=DATE:20270301", "DURATION:P367D", "RRULE:FREQ=YEARLY"]), "6:7", "more than 366 days"),
        (calendar(&[SHIFT, &["UID:s", "DTSTART:20270301T100000Z", "DURATION:PT1H"]]), "10:7", "a UID of its own"),
        (
            calendar(&[SHIFT, &["UID:s", "STATUS:CANCELLED", "RECURRENCE-ID;VALUE=DATE:20270301"]]),
            "13:26",
            "another kind",
        ),
        ("BEGIN:VCALENDAR\nVERSION:1.0\nEND:VCALENDAR\n".into(), "2:9", "version 2.0"),
        ("BEGIN:VCALENDAR\nEND:VCALENDAR\n".into(), "2:1", "write VERSION:2.0"),
        ("BEGIN:VCALENDAR\nVERSION:2.0\nCALSCALE:HEBREW\nEND:VCALENDAR\n".into(), "3:10", "Gregorian"),
        ("BEGIN:VCALENDAR\nVERSION:2.0\nMETHOD:CANCEL\nEND:VCALENDAR\n".into(), "3:8", "lists no events"),
        (
            "BEGIN:VCALENDAR\nVERSION:2.0\nBEGIN:VFREEBUSY\nEND:VFREEBUSY\nEND:VCALENDAR\n".into(),
            "3:7",
            "as events (VEVENT)",
        ),
        ("BEGIN:VCALENDAR\nVERSION:2.0\nBEGIN:VEVENT\nUID:1\n".into(), "3:7", "the file was cut off"),
        (
            "BEGIN:VCALENDAR\nVERSION:2.0\nBEGIN:VEVENT\nEND:VCALENDAR\n".into(),
            "4:5",
            "VCALENDAR ends where VEVENT was begun",
        ),
        ("<!DOCTYPE html>\n<html>\n".into(), "1:1", "a page instead of one"),
        (String::new(), "1:1", "this is no calendar"),
        (calendar(&[&["DTSTART;VALUE=DATE:20270301", "not a line"]]), "5:1", "begins with a blank"),
        (format!("{}{}", event(&["X:y"]), "x".repeat(MAX_BYTES)), "1:1", "export a shorter time"),
    ] {
        let wrong =
            try_read(&text, Tz::UTC).map_or_else(|wrong| wrong, |read| panic!("taken: {text}\n{:?}", read.warnings));
        let told = wrong.iter().map(Diagnostic::render).collect::<Vec<_>>().join("\n");
        assert!(told.contains(expected) && told.contains(&format!("c.ics:{place}: error: ")), "{text}\n{told}");
    }
}

#[test]
fn what_is_probably_not_meant_is_said() {
    let said = |lines: &[&str], home| {
        let read = try_read(&calendar(&[lines]), home).unwrap();
        read.warnings.iter().map(Diagnostic::render).collect::<Vec<_>>().join("\n")
    };
    let shift = |more: &'static str| said(&[SHIFT, &[more]].concat(), Tz::UTC);
    assert!(shift("EXDATE:20270302T220000").is_empty(), "in winter the zone's time is UTC");
    assert!(shift("EXDATE:20270702T220000").contains("is it of the right zone"), "{}", shift("EXDATE:20270702T220000"));
    let monday = ["DTSTART;VALUE=DATE:20270302", "RRULE:FREQ=WEEKLY;BYDAY=MO"];
    assert!(said(&monday, Tz::UTC).contains("own start is none"));
    let text = "BEGIN:VCALENDAR\nVERSION:2.0\nX-WR-TIMEZONE:Europe/Paris\nBEGIN:VTODO\nEND:VTODO\nEND:VCALENDAR\n";
    let read = try_read(text, Tz::UTC).unwrap();
    assert_eq!(read.warnings.len(), 3, "{:?}", read.warnings);
}

/// Events with rules of every kind, one in eight of them single.
fn many(events: usize) -> String {
    let rules = [
        "RRULE:FREQ=DAILY;INTERVAL=377",
        "RRULE:FREQ=WEEKLY;INTERVAL=52;BYDAY=MO,TU,WE,TH,FR",
        "RRULE:FREQ=MONTHLY;BYMONTH=6;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1",
        "RRULE:FREQ=YEARLY;BYMONTH=11;BYDAY=4TH",
        "RRULE:FREQ=YEARLY",
        "RRULE:FREQ=MONTHLY;INTERVAL=6;BYMONTHDAY=13,-1;COUNT=500",
        "RRULE:FREQ=WEEKLY;INTERVAL=30;UNTIL=20350101T000000Z",
        "SUMMARY:once",
    ];
    let zones = ["Europe/London", "America/New_York", "Asia/Tokyo"];
    let event = |n: usize| {
        let day = NaiveDate::from_ymd_opt(2020, 1, 1).unwrap() + Days::new(n as u64 % 700);
        format!(
            "BEGIN:VEVENT\nUID:{n}\nDTSTART;TZID={}:{}T{:02}0000\nDURATION:PT{}H\n{}\nEND:VEVENT\n",
            zones[n % zones.len()],
            day.format("%Y%m%d"),
            n % 24,
            n % 10 + 1,
            rules[n % rules.len()]
        )
    };
    format!("BEGIN:VCALENDAR\nVERSION:2.0\n{}END:VCALENDAR\n", (0..events).map(event).collect::<String>())
}

#[test]
fn a_thousand_rules_answer_at_once_however_far_away() {
    let begun = busy();
    let calendar = good(&many(1000), Tz::UTC);
    let reading = busy().saturating_sub(begun);
    let from = utc("2027-01-01T00:00:00");
    let step = 10 * 366 * 86_400 / 2000 * SECOND;
    let begun = busy();
    let closed = (0..2000).filter(|n| calendar.at(from + n * step).is_some()).count();
    let each = busy().saturating_sub(begun) / 2000;
    eprintln!(
        "1000 events: read in {reading:?}, {each:?} for each of 2000 instants of 10 years, {closed} of them closed"
    );
    assert!((200..1800).contains(&closed) && each < Time::from_millis(20), "{each:?}, {closed}");
}

/// What this thread has had of a processor so far: other work on the machine costs no more for that.
fn busy() -> Time {
    let said = std::fs::read_to_string("/proc/thread-self/schedstat").expect("a kernel that counts");
    Time::from_nanos(said.split(' ').next().and_then(|ns| ns.parse().ok()).expect("nanoseconds"))
}

#[test]
fn a_hostile_file_costs_little() {
    let begun = busy();
    let rules = |rule: &str| {
        let event = format!("BEGIN:VEVENT\nDTSTART:19700101T000000Z\nDURATION:PT1H\nRRULE:{rule}\nEND:VEVENT\n");
        format!("BEGIN:VCALENDAR\nVERSION:2.0\n{}END:VCALENDAR\n", event.repeat(1_000_000 / event.len()))
    };
    let told = |text: &str| {
        let wrong = try_read(text, Tz::UTC).map_or_else(|wrong| wrong, |read| read.warnings);
        wrong.iter().map(Diagnostic::render).collect::<Vec<_>>().join("\n")
    };
    // Rules that never yield anything, and are to be counted out.
    assert!(told(&rules("FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30;COUNT=9")).contains("take too long to count out"));
    let never = told(&rules("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30"));
    assert!(never.contains("own start is none") && never.contains("more are not listed"), "{never}");
    assert!(told(&rules("FREQ=YEARLY;BYDAY=MO,TU,WE;BYSETPOS=-300")).contains("too long to look through"));
    let days: Vec<String> = (0..100_000).map(|n| format!("{:08}", 19_700_101 + n % 28)).collect();
    let dates = calendar(&[&[
        "DTSTART;VALUE=DATE:19700101",
        "RRULE:FREQ=YEARLY;BYDAY=MO,TU,WE",
        &format!("EXDATE;VALUE=DATE:{}", days.join(",")),
    ]]);
    assert!(told(&dates).contains("too long to count out"));
    assert!(told(&calendar(&[&["BEGIN:A\r\n".repeat(100_000).trim_end()]])).contains("nested more than 8 deep"));
    assert!(told(&calendar(&vec![&["UID:1"][..]; 20_000])).contains("more than 10000 events"));
    assert!(told(&format!("BEGIN:VCALENDAR\n{}", " \n".repeat(500_000))).contains("has no end"));
    assert!(told(&format!("BEGIN:VCALENDAR\nX{}", ";A=b".repeat(200_000))).contains("this is no line"));
    // What may be looked at for one answer, all of it.
    let full = good(&rules("FREQ=DAILY;UNTIL=20270101T000000Z").replace("PT1H", "PT1M"), Tz::UTC);
    assert_eq!(full.at(utc("2026-06-01T12:00:00")), None);
    let took = busy().saturating_sub(begun);
    assert!(took < Time::from_secs(20), "{took:?}");
}
