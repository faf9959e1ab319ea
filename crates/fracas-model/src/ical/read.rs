//! A text to a checked calendar, with every mistake told at once. Whatever could change when something is closed and is not
//! understood is a mistake: a closed time that is missed is worse than a file that must be mended.

use std::{collections::BTreeMap, sync::Arc};

use chrono_tz::Tz;

use super::{
    Calendar, Spell,
    lines::{Line, lines},
    rule::Rule,
    series::{Effort, Frame, LONGEST_DAYS, Series, Spent, begin},
    value::{Length, Moment, date, date_time, duration, local, text},
};
use crate::{
    diagnostic::{Diagnostic, Findings, Span},
    schedule,
    tree::normalise,
};

/// Longest text, in bytes.
pub const MAX_BYTES: usize = 1 << 20;
const MOST_EVENTS: usize = 10_000;
/// Deepest nesting of components; alarms in events need 3.
const MAX_DEPTH: usize = 8;
/// Longest name of an event, in characters.
const NAME: usize = 200;
/// Days of rules that are looked at while a calendar is read, and for one answer.
const READING: u64 = 5_000_000;
const ANSWERING: u64 = 1_000_000;

/// A calendar as its text says, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadCalendar {
    /// When it is closed.
    pub calendar: Calendar,
    /// What is allowed, but probably not meant.
    pub warnings: Vec<Diagnostic>,
}

/// Whether a text says that it is a calendar, whatever else is wrong with it.
pub fn is_calendar(text: &str) -> bool {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let first = text.split(['\n', '\r']).find(|line| !line.trim().is_empty()).unwrap_or_default();
    first.trim().eq_ignore_ascii_case("BEGIN:VCALENDAR")
}

/// Reads a calendar. `file` is its name for messages and for events without one, `home` the zone of whole days and of times
/// that name none, `zones` the meaning of names of zones that are not IANA's.
///
/// The error is every mistake found, warnings among them, in the order of the text; never empty.
pub fn read(file: &str, source: &str, home: Tz, zones: &BTreeMap<String, Tz>) -> Result<ReadCalendar, Vec<Diagnostic>> {
    let source = normalise(source);
    let mut findings = Findings::new(file, &source);
    let mut calendar = Calendar::default();
    if source.len() > MAX_BYTES {
        let message = format!("the calendar has {} bytes, at most {MAX_BYTES} are read", source.len());
        findings.error(Span::default(), message, "export a shorter time, or fewer calendars");
    } else if is_calendar(&source) {
        let lines = lines(&source, &mut findings);
        let known = BTreeMap::new();
        let mut reading = Reading { file, home, zones, known, findings: &mut findings, effort: Effort::of(READING) };
        let drafts = reading.components(lines);
        let events: Vec<Event> = drafts.into_iter().filter_map(|draft| reading.event(draft)).collect();
        calendar = reading.join(events);
    } else {
        let help =
            "an iCalendar file begins with BEGIN:VCALENDAR; is this another kind of file, or a page instead of one?";
        findings.error(Span::default(), "this is no calendar", help);
    }
    findings.finish().map(|warnings| ReadCalendar { calendar, warnings })
}

/// A `VEVENT` as it is written.
struct Draft {
    span: Span,
    lines: Vec<Line>,
}

/// A `VEVENT` that was understood.
#[derive(Clone, Debug)]
struct Event {
    span: Span,
    uid: Option<String>,
    /// Which occurrence of the event of its UID it replaces.
    instead_of: Option<(Moment, Span)>,
    cancelled: bool,
    times: Option<Times>,
}

/// When it is.
#[derive(Clone, Debug)]
struct Times {
    name: Arc<str>,
    start: Moment,
    frame: Frame,
    rule: Option<(Rule, Span)>,
    more: Vec<(Moment, Frame)>,
    except: Vec<(Moment, Span)>,
}

impl Times {
    /// Whether both say the same, wherever they stand.
    fn same(&self, other: &Self) -> bool {
        let rule = |times: &Self| times.rule.as_ref().map(|(rule, _)| rule.clone());
        let except = |times: &Self| times.except.iter().map(|(at, _)| *at).collect::<Vec<_>>();
        (&self.name, self.start, self.frame, &self.more) == (&other.name, other.start, other.frame, &other.more)
            && rule(self) == rule(other)
            && except(self) == except(other)
    }
}

struct Reading<'r, 'a> {
    file: &'r str,
    home: Tz,
    zones: &'r BTreeMap<String, Tz>,
    /// Names of zones that were met; each that is none is told once.
    known: BTreeMap<String, Option<Tz>>,
    findings: &'r mut Findings<'a>,
    effort: Effort,
}

impl Reading<'_, '_> {
    /// The events of a text.
    fn components(&mut self, lines: Vec<Line>) -> Vec<Draft> {
        let (mut open, mut drafts): (Vec<(String, Span)>, Vec<Draft>) = (Vec::new(), Vec::new());
        let mut version = false;
        for line in lines {
            let value = line.value().trim().to_ascii_uppercase();
            match line.name.as_str() {
                "BEGIN" => {
                    match open.len() {
                        0 if value == "VCALENDAR" => version = false,
                        0 => {
                            self.findings.error(line.span(), format!("{value} stands outside of any calendar"), "");
                            return drafts;
                        }
                        1 => self.component(&value, &line),
                        MAX_DEPTH.. => {
                            let message = format!("components are nested more than {MAX_DEPTH} deep");
                            self.findings.error(line.span(), message, "");
                            return drafts;
                        }
                        _ => {}
                    }
                    if open.len() == 1 && value == "VEVENT" {
                        if drafts.len() == MOST_EVENTS {
                            let message = format!("the calendar has more than {MOST_EVENTS} events");
                            self.findings.error(line.span(), message, "export a shorter time, or fewer calendars");
                            return drafts;
                        }
                        drafts.push(Draft { span: line.value_span(), lines: Vec::new() });
                    }
                    open.push((value, line.value_span()));
                }
                "END" => match open.pop() {
                    Some((begun, _)) if begun == value => {
                        if open.is_empty() && !version {
                            let help = "write VERSION:2.0 below BEGIN:VCALENDAR; 1.0 has other rules";
                            self.findings.error(line.span(), "the calendar does not say its version", help);
                        }
                    }
                    begun => {
                        let begun = begun.map_or("nothing".to_owned(), |(begun, _)| begun);
                        let message = format!("{value} ends where {begun} was begun");
                        self.findings.error(line.value_span(), message, "the file is broken: export it again");
                        return drafts;
                    }
                },
                _ => match open.as_slice() {
                    [] => {
                        self.findings.error(line.span(), "this stands outside of any calendar", "");
                        return drafts;
                    }
                    [_] => version |= self.property(&line),
                    [_, (event, _)] if event == "VEVENT" => {
                        if let Some(draft) = drafts.last_mut() {
                            draft.lines.push(line);
                        }
                    }
                    _ => {}
                },
            }
        }
        if let Some((begun, span)) = open.pop() {
            let help = "the file was cut off: export it again";
            self.findings.error(span, format!("{begun} has no end"), help);
        }
        drafts
    }

    /// Components that are not events.
    fn component(&mut self, name: &str, line: &Line) {
        let span = line.value_span();
        match name {
            "VEVENT" | "VTIMEZONE" => {}
            "VTODO" | "VJOURNAL" => {
                self.findings.warning(span, format!("a {name} closes nothing"), "only events do");
            }
            name if name.starts_with("X-") => {}
            name => {
                let help = "write the times as events (VEVENT), or remove it";
                self.findings.error(span, format!("{name} is not understood"), help);
            }
        }
    }

    /// A property of the calendar itself; whether it is its version.
    fn property(&mut self, line: &Line) -> bool {
        let (value, span) = (line.value().trim(), line.value_span());
        match line.name.as_str() {
            "VERSION" => {
                if value != "2.0" {
                    let help = "export it as iCalendar (RFC 5545), which is version 2.0";
                    self.findings.error(span, format!("a calendar of version {value} is not understood"), help);
                }
                return true;
            }
            "CALSCALE" if !value.eq_ignore_ascii_case("GREGORIAN") => {
                let help = "export it with Gregorian dates";
                self.findings.error(span, format!("the calendar {value} is not understood"), help);
            }
            "METHOD" if !["PUBLISH", "REQUEST", "ADD"].iter().any(|known| value.eq_ignore_ascii_case(known)) => {
                let help = "it is a message about events; export the calendar itself";
                self.findings.error(span, format!("a file with METHOD:{value} lists no events"), help);
            }
            "X-WR-TIMEZONE" if value.parse::<Tz>().is_ok_and(|zone| zone != self.home) => {
                let message = format!("whole days, and times without a zone, are those of {}", self.home);
                let help = format!(
                    "that is the schedule's zone; X-WR-TIMEZONE is no part of the standard: {value} is not used"
                );
                self.findings.warning(span, message, help);
            }
            _ => {}
        }
        false
    }

    fn event(&mut self, draft: Draft) -> Option<Event> {
        let errors = self.findings.errors();
        let mut only: BTreeMap<&str, &Line> = BTreeMap::new();
        for line in &draft.lines {
            let once = ["UID", "SUMMARY", "STATUS", "DTSTART", "DTEND", "DURATION", "RRULE", "RECURRENCE-ID"];
            if line.name == "EXRULE" {
                let help = "write the days that are excepted as EXDATE";
                self.findings.error(line.span(), "`EXRULE` is not understood", help);
            } else if once.contains(&line.name.as_str()) && only.insert(&line.name, line).is_some() {
                self.findings.error(line.span(), format!("`{}` stands twice in an event", line.name), "keep one");
            }
        }
        let cancelled = only.get("STATUS").is_some_and(|line| line.value().trim().eq_ignore_ascii_case("CANCELLED"));
        let instead_of = match only.get("RECURRENCE-ID") {
            Some(line) => Some((self.instance(line)?, line.value_span())),
            None => None,
        };
        let times = if cancelled { None } else { Some(self.times(&draft, &only, instead_of.is_some())?) };
        let uid = only.get("UID").map(|line| line.value().trim().to_owned());
        let event = Event { span: draft.span, uid, instead_of, cancelled, times };
        (self.findings.errors() == errors).then_some(event)
    }

    /// Which occurrence a `RECURRENCE-ID` means.
    fn instance(&mut self, line: &Line) -> Option<Moment> {
        if let Some(range) = line.param("RANGE") {
            let help = "split the series in the calendar program, so that each part is an event of its own";
            self.findings.error(line.span(), format!("`RANGE={range}` is not understood"), help);
            return None;
        }
        self.moment(line, line.value().trim(), line.value_span())
    }

    fn times(&mut self, draft: &Draft, only: &BTreeMap<&str, &Line>, replaces: bool) -> Option<Times> {
        let Some(dtstart) = only.get("DTSTART") else {
            self.findings.error(draft.span, "the event does not say when it begins", "give it a DTSTART");
            return None;
        };
        let start = self.moment(dtstart, dtstart.value().trim(), dtstart.value_span());
        let name = only.get("SUMMARY").map(|line| text(line.value(), NAME)).filter(|name| !name.is_empty());
        let name = Arc::from(name.unwrap_or_else(|| self.file.to_owned()));
        let length = self.length(draft, only, start)?;
        let start = start?;
        let frame = Frame::of(start, length, self.home);
        let rule = match only.get("RRULE") {
            Some(line) => Some((self.rule(line)?, line.value_span())),
            None => None,
        };
        if let Some((_, span)) = rule.as_ref().filter(|_| frame.reach().num_days() > LONGEST_DAYS) {
            let message = format!("the event recurs and takes more than {LONGEST_DAYS} days each time");
            self.findings.error(*span, message, "write it without a rule");
        }
        let (mut more, mut except) = (Vec::new(), Vec::new());
        for line in &draft.lines {
            match line.name.as_str() {
                "RDATE" if line.param("VALUE").is_some_and(|kind| kind.eq_ignore_ascii_case("PERIOD")) => {
                    for (part, place) in line.parts() {
                        more.extend(self.period(line, part, line.within(place), start));
                    }
                }
                "RDATE" => more
                    .extend(self.dates(line, start).into_iter().map(|(at, _)| (at, Frame::of(at, length, self.home)))),
                "EXDATE" => except.extend(self.dates(line, start)),
                _ => {}
            }
        }
        if replaces && (rule.is_some() || !more.is_empty()) {
            let help = "an event with a RECURRENCE-ID is a single one";
            self.findings.error(draft.span, "the event replaces one of a series and recurs itself", help);
        }
        Some(Times { name, start, frame, rule, more, except })
    }

    fn rule(&mut self, line: &Line) -> Option<Rule> {
        match Rule::read(line.value().trim_end()) {
            Ok(rule) => Some(rule),
            Err(wrong) => {
                for (place, message, help) in wrong {
                    self.findings.error(line.within(place), message, help);
                }
                None
            }
        }
    }

    fn length(&mut self, draft: &Draft, only: &BTreeMap<&str, &Line>, start: Option<Moment>) -> Option<Length> {
        match (only.get("DTEND"), only.get("DURATION")) {
            (Some(_), Some(line)) => {
                self.findings.error(line.span(), "`DTEND` and `DURATION` cannot stand together", "keep one");
                None
            }
            (Some(line), None) => {
                let end = self.moment(line, line.value().trim(), line.value_span());
                self.until(start?, end?, line.value_span())
            }
            (None, Some(line)) => self.lasting(line.value().trim(), line.value_span(), start?),
            (None, None) => match start? {
                Moment::Day(_) => Some(Length::Nominal { days: 1, seconds: 0 }),
                Moment::At(..) => {
                    let help = "give it a DTEND or a DURATION";
                    self.findings.error(draft.span, "the event has no length, so it would close nothing", help);
                    None
                }
            },
        }
    }

    /// From a start to an end.
    fn until(&mut self, start: Moment, end: Moment, span: Span) -> Option<Length> {
        let length = match (start, end) {
            (Moment::Day(start), Moment::Day(end)) => Length::Nominal { days: (end - start).num_days(), seconds: 0 },
            (Moment::At(shown, zone), Moment::At(..)) => {
                let (from, to) = (start.instant(self.home), end.instant(self.home));
                let wall = (local(zone, to) - shown).num_seconds();
                Length::Between { wall, elapsed: to - from }
            }
            _ => {
                let help = "write both with a time, or both without";
                self.findings.error(span, "the event begins and ends with different kinds of dates", help);
                return None;
            }
        };
        if matches!(length, Length::Nominal { days: ..=0, .. } | Length::Between { elapsed: ..=0, .. }) {
            let help = "the end is outside: of a whole day it is the day after";
            self.findings.error(span, "the event ends before it has begun", help);
            return None;
        }
        Some(length)
    }

    /// A duration from a start.
    fn lasting(&mut self, text: &str, span: Span, start: Moment) -> Option<Length> {
        match (duration(text), start) {
            (Some(Length::Nominal { days: 0, seconds: 0 }), _) => {
                self.findings.error(span, "the event has no length, so it would close nothing", "write PT1H, or P1D");
                None
            }
            (Some(Length::Nominal { seconds: 1.., .. }), Moment::Day(_)) => {
                let help = "write P1D, or begin at a time";
                self.findings.error(span, "whole days last whole days", help);
                None
            }
            (None, _) => {
                let help = "write PT1H30M, P1D or P2W";
                self.findings.error(span, format!("{text:?} is no length of time"), help);
                None
            }
            (length, _) => length,
        }
    }

    /// A period among dates: from a time to another, or for so long.
    fn period(&mut self, line: &Line, part: &str, span: Span, start: Moment) -> Option<(Moment, Frame)> {
        let Some((from, to)) = part.split_once('/') else {
            self.findings.error(span, format!("{part:?} is no period"), "write 20270301T100000Z/PT1H");
            return None;
        };
        let from = self.time(line, from, span)?;
        let length = if to.trim_start_matches('+').starts_with(['P', 'p']) {
            self.lasting(to, span, from)?
        } else {
            let to = self.time(line, to, span)?;
            self.until(from, to, span)?
        };
        self.alike(start, from, span).then(|| (from, Frame::of(from, length, self.home)))
    }

    /// All dates of a line, of the same kind as the event's start.
    fn dates(&mut self, line: &Line, start: Moment) -> Vec<(Moment, Span)> {
        let mut all = Vec::new();
        for (part, place) in line.parts() {
            let span = line.within(place);
            if let Some(at) = self.moment(line, part.trim(), span)
                && self.alike(start, at, span)
            {
                all.push((at, span));
            }
        }
        all
    }

    fn alike(&mut self, start: Moment, at: Moment, span: Span) -> bool {
        let alike = matches!((start, at), (Moment::Day(_), Moment::Day(_)) | (Moment::At(..), Moment::At(..)));
        if !alike {
            let help = "write it as the event's DTSTART is written: with a time, or without";
            self.findings.error(span, "this is another kind of date than the event's start", help);
        }
        alike
    }

    /// A date, or a time in its zone.
    fn moment(&mut self, line: &Line, text: &str, span: Span) -> Option<Moment> {
        let kind = line.param("VALUE").unwrap_or_default().to_ascii_uppercase();
        if let Some(day) = date(text).filter(|_| kind.is_empty() || kind == "DATE") {
            return Some(Moment::Day(day));
        }
        if kind == "DATE" {
            self.findings.error(span, format!("{text:?} is no day"), "write 20270301");
            return None;
        }
        if !["", "DATE-TIME"].contains(&kind.as_str()) {
            self.findings.error(
                line.span(),
                format!("`VALUE={kind}` is not understood here"),
                "write DATE or DATE-TIME",
            );
            return None;
        }
        self.time(line, text, span)
    }

    fn time(&mut self, line: &Line, text: &str, span: Span) -> Option<Moment> {
        let Some((at, utc)) = date_time(text) else {
            let help = "write 20270301T100000, 20270301T100000Z in UTC, or 20270301 for a whole day";
            self.findings.error(span, format!("{text:?} is no time"), help);
            return None;
        };
        let zone = match line.param("TZID") {
            _ if utc => Tz::UTC,
            Some(name) => self.zone(name, line.span())?,
            None => self.home,
        };
        Some(Moment::At(at, zone))
    }

    fn zone(&mut self, name: &str, span: Span) -> Option<Tz> {
        if let Some(known) = self.known.get(name) {
            return *known;
        }
        // Some programs put their own name before it: /example.org/Europe/London.
        let tails = || name.match_indices('/').map(|(at, _)| &name[at + 1..]).filter(|tail| tail.contains('/'));
        let prefixed = || tails().find_map(|tail| tail.parse::<Tz>().ok()).filter(|_| name.starts_with('/'));
        let found = self.zones.get(name).copied().map_or_else(|| schedule::zone(name), Ok);
        let zone = found.or_else(|near| prefixed().ok_or(near));
        if let Err(near) = zone {
            let near = near.map_or_else(String::new, |near| format!("did you mean `{near}`? "));
            let help = format!(
                "{near}say what it is where the schedule names this file: zones: {{ {}: Europe/London }}",
                serde_json::Value::from(name)
            );
            self.findings.error(span, format!("there is no time zone {name:?} among IANA's"), help);
        }
        self.known.insert(name.to_owned(), zone.ok());
        zone.ok()
    }

    /// Puts events and what replaces some of their occurrences together.
    fn join(&mut self, events: Vec<Event>) -> Calendar {
        let mut calendar = Calendar::default();
        let mut masters: BTreeMap<String, Times> = BTreeMap::new();
        let mut lone = Vec::new();
        let mut replaced: BTreeMap<String, Vec<(Moment, Span)>> = BTreeMap::new();
        for event in events {
            if let (Some(uid), Some(instead_of)) = (&event.uid, event.instead_of) {
                replaced.entry(uid.clone()).or_default().push(instead_of);
            }
            let Some(times) = event.times.filter(|_| !event.cancelled) else { continue };
            match event.uid.filter(|_| event.instead_of.is_none()) {
                None => lone.push(times),
                Some(uid) => match masters.get(&uid) {
                    Some(known) if known.same(&times) => {}
                    Some(_) => {
                        let message = format!("a second event has the UID {uid:?}");
                        let help = "keep the newer one, or give each a UID of its own";
                        self.findings.error(event.span, message, help);
                    }
                    None => drop(masters.insert(uid, times)),
                },
            }
        }
        for (uid, mut times) in masters {
            let replaced = replaced.remove(&uid).unwrap_or_default();
            for (at, span) in &replaced {
                self.alike(times.start, *at, *span);
            }
            times.except.extend(replaced);
            if self.add(&mut calendar, times).is_err() {
                return calendar;
            }
        }
        for times in lone {
            if self.add(&mut calendar, times).is_err() {
                return calendar;
            }
        }
        if calendar.series.iter().map(Series::cost).sum::<u64>() > ANSWERING {
            let help = "export fewer calendars, or write single events instead of rules";
            self.findings.error(Span::default(), "the rules of the calendar take too long to look through", help);
        }
        if calendar.spells.is_empty() && calendar.series.is_empty() && self.findings.errors() == 0 {
            self.findings.warning(Span::default(), "the calendar has no events: it closes nothing", "");
        }
        calendar.spells.sort_by_key(|spell| (spell.from, spell.to));
        calendar
    }

    fn add(&mut self, calendar: &mut Calendar, times: Times) -> Result<(), Spent> {
        let Times { name, start, frame, rule, more, except } = times;
        let mut series = None;
        if let Some((rule, span)) = rule {
            match Series::new(name.clone(), start, frame, rule, &mut self.effort) {
                Ok(made) => series = Some((made, span)),
                Err(spent) => return Err(self.tired(span, spent)),
            }
        }
        let mut single: Vec<(i64, i64)> =
            more.iter().chain([&(start, frame)]).map(|(at, frame)| frame.spell(begin(*at))).collect();
        let own = frame.spell(begin(start)).0;
        if let Some((series, span)) = &series
            && !series.occurs(start, &mut self.effort).map_err(|spent| self.tired(*span, spent))?
            && !except.iter().any(|(at, _)| at.instant(self.home) == own)
        {
            let help = "it is closed then as well; begin it on one of its days if that is not meant";
            self.findings.warning(*span, "the event's own start is none of the rule's times", help);
        }
        for (at, span) in except {
            let from = at.instant(self.home);
            let before = single.len();
            single.retain(|spell| spell.0 != from);
            let mut met = single.len() < before;
            if let Some((series, _)) = &mut series {
                met |= series.occurs(at, &mut self.effort).map_err(|spent| self.tired(span, spent))?;
                series.except.insert(from);
            }
            if !met {
                let help = "is it of the right zone and time of day?";
                self.findings.warning(span, "no occurrence of the event begins then", help);
            }
        }
        calendar.spells.extend(single.into_iter().map(|(from, to)| Spell { name: name.clone(), from, to }));
        calendar.series.extend(series.map(|(series, _)| series));
        Ok(())
    }

    fn tired(&mut self, span: Span, spent: Spent) -> Spent {
        let help = "write UNTIL instead of COUNT, and fewer EXDATEs";
        self.findings.error(span, "the rules of the calendar take too long to count out", help);
        spent
    }
}
