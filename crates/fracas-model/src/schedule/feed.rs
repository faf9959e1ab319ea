//! What schedules will do, as a calendar (iCalendar, RFC 5545) that people subscribe to. It shows no parameters, and of a
//! moment that chance draws only the window.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::{Clockwork, Due, Schedule, Skip, State, closed};
use crate::ical::Writer;

/// How far it looks ahead.
pub const FEED_DAYS: i64 = 90;
/// Most events in it; those that come first.
pub const FEED_EVENTS: usize = 500;
const DAY_NS: i64 = 86_400_000_000_000;
/// How long an event is at most that has no length of its own.
const LENGTH_NS: i64 = 15 * 60 * 1_000_000_000;
/// Most characters of a schedule's description in each event.
const DESCRIPTION: usize = 500;

/// The calendar of these schedules, from now on. `controller` makes its ids unique in the world, `title` is what people see.
pub fn feed<'s>(schedules: impl IntoIterator<Item = &'s State>, controller: &str, title: &str, now_ns: i64) -> String {
    let mut writer = Writer::default();
    writer.begin("VCALENDAR");
    writer.word("VERSION", "2.0");
    writer.word("PRODID", "-//Fracas//Schedules//EN");
    writer.word("CALSCALE", "GREGORIAN");
    writer.word("METHOD", "PUBLISH");
    writer.text("X-WR-CALNAME", title);
    let extent = format!("What Fracas starts by itself: the next {FEED_DAYS} days, at most {FEED_EVENTS} times.");
    writer.text("X-WR-CALDESC", &extent);
    writer.word("REFRESH-INTERVAL;VALUE=DURATION", "PT1H");
    // Most programs know only the older name of it.
    writer.word("X-PUBLISHED-TTL", "PT1H");
    let known: Vec<Shown<'_>> = schedules.into_iter().filter_map(Shown::of).collect();
    let mut coming: BinaryHeap<Reverse<(Due, usize)>> = BinaryHeap::new();
    let until_ns = now_ns.saturating_add(FEED_DAYS * DAY_NS);
    let soon = |due: &Due| due.nominal_ns < until_ns;
    for (index, shown) in known.iter().enumerate() {
        coming.extend(shown.first(now_ns).filter(soon).map(|due| Reverse((due, index))));
    }
    let mut written = 0;
    while let Some(Reverse((due, index))) = coming.pop().filter(|_| written < FEED_EVENTS) {
        let shown = &known[index];
        let next = shown.clockwork.next(due.nominal_ns);
        shown.write(&mut writer, due, next, controller);
        written += 1;
        coming.extend(next.filter(soon).map(|due| Reverse((due, index))));
    }
    if written == 0 {
        // A calendar without any component is none.
        writer.begin("VTIMEZONE");
        writer.word("TZID", "UTC");
        writer.begin("STANDARD");
        writer.word("DTSTART", "19700101T000000");
        writer.word("TZOFFSETFROM", "+0000");
        writer.word("TZOFFSETTO", "+0000");
        writer.end("STANDARD");
        writer.end("VTIMEZONE");
    }
    writer.end("VCALENDAR");
    writer.finish()
}

struct Shown<'s> {
    state: &'s State,
    rules: &'s Schedule,
    clockwork: Clockwork,
}

impl<'s> Shown<'s> {
    fn of(state: &'s State) -> Option<Self> {
        let rules = state.schedule.as_ref().filter(|_| !state.removed)?;
        let clockwork = Clockwork::new(&rules.when, rules.zone, rules.seed).ok()?;
        Some(Self { state, rules, clockwork })
    }

    fn first(&self, now_ns: i64) -> Option<Due> {
        self.clockwork.coming(now_ns).find(|due| due.nominal_ns > self.state.settled_ns)
    }

    fn write(&self, writer: &mut Writer, due: Due, next: Option<Due>, controller: &str) {
        let Schedule { name, experiment, description, when, zone, .. } = self.rules;
        let window = self.clockwork.window(&due);
        let gap_ns = next.map_or(LENGTH_NS, |next| next.nominal_ns - due.nominal_ns);
        let (from, to) = window.unwrap_or((due.at_ns, due.at_ns + gap_ns.min(LENGTH_NS)));
        let skipped = match &self.state.paused {
            Some(reason) => Some(Skip::Paused { reason: reason.clone() }),
            None => closed(self.rules, &self.state.calendars, due.at_ns).map(Skip::from),
        };
        let (status, remark) = match (&skipped, window) {
            (Some(why), _) => ("CANCELLED", format!(" (skipped, {why})")),
            (None, Some(_)) => ("TENTATIVE", " (at some moment in this window)".to_owned()),
            (None, None) => ("CONFIRMED", String::new()),
        };
        let State { environment, by, .. } = self.state;
        let mut about: Vec<String> = Vec::new();
        about.extend(skipped.as_ref().map(|why| format!("Skipped, {why}.")));
        about.extend(Some(description.chars().take(DESCRIPTION).collect()).filter(|text: &String| !text.is_empty()));
        about
            .push(format!("Experiment: {experiment}\nWhen: {when} ({zone})\nEnvironment: {environment}\nSet by: {by}"));
        writer.begin("VEVENT");
        writer.text("UID", &format!("{name}.{}@{controller}", due.nominal_ns / 1_000_000_000));
        writer.instant("DTSTAMP", self.state.changed_ns);
        writer.instant("DTSTART", from);
        writer.instant("DTEND", to);
        writer.text("SUMMARY", &format!("{name}: {experiment}{remark}"));
        writer.text("DESCRIPTION", &about.join("\n\n"));
        writer.word("STATUS", status);
        // Nobody's time is taken by it.
        writer.word("TRANSP", "TRANSPARENT");
        writer.end("VEVENT");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use chrono_tz::Tz;

    use super::*;
    use crate::{
        ical,
        schedule::{CalendarFile, Fact, When, tests::nightly},
        units::Dur,
    };

    const NOW_NS: i64 = 1_798_000_000_000_000_000; // 2026-12-23T04:26:40Z
    const FREEZE: &str = "BEGIN:VCALENDAR\nVERSION:2.0\nBEGIN:VEVENT\nDTSTART;VALUE=DATE:20261224\nDURATION:P3D\n\
                          SUMMARY:Christmas\\, all of it\nEND:VEVENT\nEND:VCALENDAR\n";

    fn state(rules: Schedule) -> State {
        let calendars = rules.calendars.iter().map(|calendar| (calendar.file.clone(), FREEZE.to_owned())).collect();
        let (source, experiment) = (String::new(), String::new());
        let (environment, by) = ("staging".to_owned(), "p1".to_owned());
        let schedule = Box::new(rules);
        let mut state = State::default();
        state.take(
            &Fact::Set { schedule, source, experiment, calendars, files: BTreeMap::new(), environment, by },
            NOW_NS - DAY_NS,
        );
        state
    }

    fn with_freeze() -> Schedule {
        let calendar = CalendarFile { file: "freeze.ics".into(), zones: BTreeMap::new() };
        Schedule { calendars: vec![calendar], ..nightly() }
    }

    /// The properties of each event, unfolded.
    fn events(text: &str) -> Vec<BTreeMap<String, String>> {
        let text = text.replace("\r\n ", "");
        let events = text.split("BEGIN:VEVENT\r\n").skip(1).map(|event| event.split("END:VEVENT").next().unwrap());
        let pair = |line: &str| line.split_once(':').map(|(name, value)| (name.to_owned(), value.to_owned()));
        events.map(|event| event.lines().filter_map(pair).collect()).collect()
    }

    #[test]
    fn each_time_is_an_event_that_says_what_becomes_of_it() {
        let state = state(with_freeze());
        let text = feed([&state], "c1", "Fracas staging", NOW_NS);
        let events = events(&text);
        assert_eq!(events.len(), FEED_DAYS as usize);
        assert_eq!(events[0]["UID"], "nightly.1798079400@c1");
        assert_eq!(
            (events[0]["DTSTART"].as_str(), events[0]["DTEND"].as_str()),
            ("20261224T023000Z", "20261224T024500Z")
        );
        assert_eq!((events[0]["DTSTAMP"].as_str(), events[0]["STATUS"].as_str()), ("20261222T042640Z", "CANCELLED"));
        assert_eq!(events[0]["SUMMARY"], "nightly: kill.yaml (skipped\\, in a blackout: Christmas\\, all of it)");
        assert_eq!((events[3]["STATUS"].as_str(), events[3]["SUMMARY"].as_str()), ("CONFIRMED", "nightly: kill.yaml"));
        assert!(events[3]["DESCRIPTION"].contains("Environment: staging\\nSet by: p1"), "{}", events[3]["DESCRIPTION"]);
        // Our own reader takes it, too, whatever it thinks of cancelled ones.
        let read = ical::read("feed", &text, Tz::UTC, &BTreeMap::new()).unwrap().calendar;
        assert!(read.at(NOW_NS + 4 * DAY_NS).is_none() && read.at(1_798_338_600_000_000_000).is_some());
        // The same due is the same event whenever it is asked for, and a schedule by itself.
        let later = super::tests::events(&feed([&state], "c1", "x", NOW_NS + DAY_NS));
        assert_eq!(later[0], events[1]);
    }

    #[test]
    fn a_paused_schedule_shows_why_and_a_removed_one_nothing() {
        let mut state = state(nightly());
        state.take(&Fact::Paused { reason: "release week".into(), by: "p2".into() }, NOW_NS - 1);
        let paused = events(&feed([&state], "c1", "x", NOW_NS));
        assert!(paused.iter().all(|event| event["STATUS"] == "CANCELLED"));
        assert!(paused[0]["DESCRIPTION"].starts_with("Skipped\\, paused: release week."));
        assert_eq!(paused[0]["DTSTAMP"], "20261223T042639Z");
        state.take(&Fact::Removed { reason: String::new(), by: String::new() }, NOW_NS);
        let text = feed([&state], "c1", "x", NOW_NS);
        assert!(events(&text).is_empty() && text.contains("BEGIN:VTIMEZONE"), "a calendar has at least one component");
    }

    #[test]
    fn of_a_moment_that_chance_draws_only_the_window_is_shown() {
        let when = When::Random { opens: "0 9 * * *".into(), within: Dur::from_secs(8 * 3600) };
        let state = state(Schedule { when: when.clone(), ..nightly() });
        let events = events(&feed([&state], "c1", "x", NOW_NS));
        let clockwork = Clockwork::new(&when, Tz::UTC, 1).unwrap();
        for (event, due) in events.iter().zip(clockwork.coming(NOW_NS)) {
            assert!(event["DTSTART"].ends_with("T090000Z") && event["DTEND"].ends_with("T170000Z"), "{event:?}");
            assert_eq!(event["STATUS"], "TENTATIVE");
            let moment = chrono::DateTime::from_timestamp_nanos(due.at_ns).format("T%H%M%S").to_string();
            assert!(event.values().all(|value| !value.contains(&moment)), "{event:?}");
        }
        // The window is open, its moment to come: it is still there.
        let opened = clockwork.coming(NOW_NS).find(|due| due.at_ns > due.nominal_ns + 1_000_000_000).unwrap();
        let open = super::tests::events(&feed([&state], "c1", "x", opened.nominal_ns + 1_000_000_000));
        assert_eq!(open[0]["UID"], format!("nightly.{}@c1", opened.nominal_ns / 1_000_000_000));
    }

    #[test]
    fn it_is_bounded_and_the_first_times_of_all_schedules_are_in_it() {
        let often = When::Every { period: Dur::from_secs(60), from: "2026-01-01T00:00:00".parse().unwrap() };
        let often = state(Schedule { name: "often".into(), when: often, ..nightly() });
        let daily = state(nightly());
        let events = events(&feed([&daily, &often], "c1", "x", NOW_NS + 22 * DAY_NS / 24));
        assert_eq!(events.len(), FEED_EVENTS);
        assert_eq!(events.iter().filter(|event| event["UID"].starts_with("nightly.")).count(), 1, "at half past two");
        let ids: BTreeSet<&String> = events.iter().map(|event| &event["UID"]).collect();
        assert_eq!(ids.len(), FEED_EVENTS);
        let minute = |event: &BTreeMap<String, String>| event["DTSTART"][..13] != event["DTEND"][..13];
        assert!(events.iter().all(minute), "they do not overlap the next");
    }

    #[test]
    fn hostile_texts_add_no_line() {
        let bad = "x\r\nEND:VEVENT\r\nBEGIN:VEVENT\r\nUID:evil\u{2028}\u{85}\n;:,\\";
        let parameters = [("password".to_owned(), "s3cret".to_owned())].into();
        let mut rules = Schedule { description: bad.repeat(200), experiment: bad.into(), parameters, ..with_freeze() };
        rules.blackouts.clear();
        let mut state = state(rules);
        (state.environment, state.by) = (bad.into(), bad.into());
        state.take(&Fact::Paused { reason: bad.into(), by: bad.into() }, NOW_NS);
        let text = feed([&state], "c1", bad, NOW_NS);
        assert_eq!(text.matches("\r\nBEGIN:VEVENT\r\n").count(), FEED_DAYS as usize);
        assert!(!text.contains("\nUID:evil") && !text.contains("s3cret"));
        assert!(text.split("\r\n").all(|line| line.len() <= 75 && !line.contains(['\n', '\r'])));
        assert!(text.len() < 1 << 20, "{}", text.len());
    }
}
