//! Source text to a checked schedule, with every mistake told at once.

use std::collections::BTreeMap;

use chrono::{Datelike as _, NaiveDate, NaiveDateTime, NaiveTime, Weekday};
use chrono_tz::Tz;
use serde_json::{Value, json};

use super::{Blackout, CalendarFile, CatchUp, Clockwork, Concurrency, Hours, Schedule, When, due, exists, instant};
use crate::{
    check::check,
    diagnostic::{Diagnostic, Findings, Span},
    document::API_VERSION,
    shape::{Field, Group, Shape},
    tree::{self, Node},
    units::Dur,
};

/// What a schedule's document says, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadSchedule {
    /// Typed values.
    pub schedule: Schedule,
    /// What is allowed, but probably not meant.
    pub warnings: Vec<Diagnostic>,
}

const DAY: Dur = Dur::from_secs(86_400);
/// Longest period and window: a year.
const YEAR: Dur = Dur::from_secs(366 * 86_400);
const MOST: usize = 1000;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// Years that can be named: those that instants in nanoseconds can hold, with room on both sides.
const YEARS: std::ops::Range<i32> = 1970..2200;
/// Long before anything is scheduled; a pattern that matches nothing after it never does.
const LONG_AGO_NS: i64 = 1_700_000_000_000_000_000;

fn text(max: usize) -> Shape {
    Shape::Text { max }
}

/// A local time.
fn local() -> Shape {
    text(32)
}

fn when() -> Shape {
    Shape::OneOf(vec![
        Field::optional(
            "cron",
            text(128),
            "Whenever this pattern of five fields matches: minute, hour, day of the month, month, day of the week (0 and 7 are \
             Sunday). Also `L`, `W`, `#` and `@daily` and the like.",
        ),
        Field::optional("at", local(), "Once, at this local time such as 2027-03-01T10:00."),
        Field::optional(
            "every",
            Shape::Object(vec![
                Field::required(
                    "period",
                    Shape::duration(Dur::from_secs(1), YEAR),
                    "From one to the next, in elapsed time: changes of the clocks do not matter.",
                ),
                Field::required("from", local(), "The first, as a local time."),
            ]),
            "At equal distances.",
        ),
        Field::optional(
            "random",
            Shape::Object(vec![
                Field::required("opens", text(128), "Cron pattern of the instants at which a window opens."),
                Field::required(
                    "within",
                    Shape::duration(Dur::from_secs(1), YEAR),
                    "How long it is open; it closes earlier where the next one opens.",
                ),
            ]),
            "Once in each window, at a moment drawn by `seed`.",
        ),
    ])
}

fn hours() -> Shape {
    Shape::Object(vec![
        Field::with_default(
            "days",
            text(64),
            "mon-sun",
            "Days of the week such as mon-fri or sat,sun; those on which the hours begin.",
        ),
        Field::with_default(
            "hours",
            text(16),
            "00:00-24:00",
            "From and to, as clocks on the wall show it; 22:00-06:00 passes midnight.",
        ),
    ])
}

fn blackout() -> Shape {
    let zones = Shape::Map { of: Box::new(text(64)), max: 100 };
    Shape::Record {
        fields: vec![
            Field::optional(
                "to",
                local(),
                "With `from`: its last day, which is part of it, or the local time at which it ends.",
            ),
            Field::optional(
                "why",
                text(256),
                "With `from`: what people call it; recorded with every due that it costs.",
            ),
            Field::optional(
                "zones",
                zones,
                "With `file`: what the file calls time zones, with their IANA names: { \"Central Standard Time\": America/Chicago }.",
            ),
        ],
        groups: vec![Group {
            what: "time or file".into(),
            of: vec![
                Field::optional("from", local(), "Its first day, or its first local time."),
                Field::optional(
                    "file",
                    text(1024),
                    "An iCalendar file beside this one: every event of it that is not cancelled is a blackout, also one that is \
                     shown as free, and its summary is the reason. Times without a zone are those of `zone`. When the file \
                     has changed, set the schedule again.",
                ),
            ],
        }],
    }
}

/// The form of a schedule.
pub fn schedule_shape() -> Shape {
    let list = |of| Shape::List { of: Box::new(of), min: 0, max: MOST };
    let policy = || Shape::choice(&["forbid", "queue", "replace"]);
    Shape::Object(vec![
        Field::required("apiVersion", Shape::choice(&[API_VERSION]), "Version of this grammar."),
        Field::required("kind", Shape::choice(&["Schedule"]), "What this document is."),
        Field::required("name", Shape::Name, "Name of the schedule; setting another of that name changes it."),
        Field::with_default("description", text(4096), "", "What it is for."),
        Field::required("experiment", text(1024), "File of the experiment, beside this one."),
        Field::with_default(
            "parameters",
            Shape::Map { of: Box::new(Shape::Scalar), max: 100 },
            json!({}),
            "Values of the experiment's parameters.",
        ),
        Field::required("when", when(), "When it is due."),
        Field::with_default(
            "zone",
            text(64),
            "UTC",
            "IANA name of the time zone, such as Europe/London, in which all local times of this document are read.",
        ),
        Field::with_default(
            "seed",
            Shape::Integer { min: 0, max: i64::MAX },
            0,
            "Draws the moments in windows: the same seed, the same moments.",
        ),
        Field::with_default("allowed", list(hours()), json!([]), "Hours in which it may start; none means all."),
        Field::with_default("blackouts", list(blackout()), json!([]), "Times in which it may not start."),
        Field::with_default(
            "concurrency",
            policy(),
            "forbid",
            "What when its last run has not ended: skip this time, let it wait, or stop that run for it.",
        ),
        Field::with_default(
            "whenHostsAreTaken",
            policy(),
            "forbid",
            "What when other runs have its hosts: skip this time, let it wait, or stop those runs for it, where schedules of \
             the same environment started them. A run that somebody started by hand is never stopped for it: then this time \
             is skipped.",
        ),
        Field::with_default(
            "waitAtMost",
            Shape::duration(Dur::from_secs(1), Dur::from_secs(31 * 86_400)),
            "1h",
            "How long it may wait for either.",
        ),
        Field::with_default(
            "catchUp",
            Shape::Either(vec![
                Shape::choice(&["skip", "latest"]),
                Shape::OneOf(vec![Field::optional(
                    "all",
                    Shape::Integer { min: 1, max: 1000 },
                    "All that were missed, the latest so many, one after the other.",
                )]),
            ]),
            "skip",
            "What is done about times at which nobody was there to start it: nothing, the latest of them, or all.",
        ),
        Field::with_default(
            "startWithin",
            Shape::duration(Dur::from_secs(1), DAY),
            "1m",
            "A start that is later than this is no longer on time: that time was missed.",
        ),
    ])
}

/// Whether a text says that it is a schedule, whatever else is wrong with it.
pub fn is_schedule(text: &str) -> bool {
    let text = tree::normalise(text);
    let root = tree::parse(&text, &mut Findings::new("", &text));
    root.is_some_and(|root| root.get("kind").and_then(Node::text) == Some("Schedule"))
}

/// Reads a schedule. `file` is its name for messages.
///
/// The error is every mistake found, warnings among them, in the order of the text; never empty.
pub fn read_schedule(file: &str, text: &str) -> Result<ReadSchedule, Vec<Diagnostic>> {
    let text = tree::normalise(text);
    let mut findings = Findings::new(file, &text);
    let Some(root) = tree::parse(&text, &mut findings) else { return Err(told(findings)) };
    let document = check(&root, &schedule_shape(), &mut findings).unwrap_or(Value::Null);
    let schedule = Reading { root: &root, document: &document, findings: &mut findings }.schedule();
    match (findings.finish()?, schedule) {
        (warnings, Some(schedule)) => Ok(ReadSchedule { schedule, warnings }),
        (mut told, None) => {
            debug_assert!(false, "nothing was wrong, and still there is no schedule");
            let mut findings = Findings::new(file, "");
            findings.error(
                Span::default(),
                "the schedule could not be read",
                "please report this as a mistake of fracas",
            );
            told.extend(findings.finish().err().unwrap_or_default());
            Err(told)
        }
    }
}

fn told(findings: Findings<'_>) -> Vec<Diagnostic> {
    findings.finish().err().unwrap_or_default()
}

struct Reading<'r, 'a> {
    root: &'r Node,
    document: &'r Value,
    findings: &'r mut Findings<'a>,
}

impl Reading<'_, '_> {
    /// `None` where anything is missing or cannot be read; that was told.
    fn schedule(&mut self) -> Option<Schedule> {
        let zone = self.zone();
        let when = self.when(zone);
        let allowed = self.allowed();
        let blackouts = self.blackouts(zone);
        let calendars = self.calendars();
        let text = |key: &str| self.document.get(key)?.as_str().map(str::to_owned);
        let duration = |key: &str| text(key)?.parse::<Dur>().ok();
        let typed = |key: &str| serde_json::from_value::<Concurrency>(self.document.get(key)?.clone()).ok();
        let catch_up = match self.document.get("catchUp")? {
            Value::String(word) if word == "latest" => CatchUp::Latest,
            Value::Object(all) => CatchUp::All { max: u32::try_from(all.get("all")?.as_u64()?).ok()? },
            _ => CatchUp::Skip,
        };
        let parameters = self.document.get("parameters")?.as_object()?.iter();
        let written = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let parameters: BTreeMap<String, String> =
            parameters.map(|(name, value)| (name.clone(), written(value))).collect();
        let schedule = Schedule {
            name: text("name")?,
            description: text("description")?,
            experiment: text("experiment")?,
            parameters,
            when: when?,
            zone: zone?,
            seed: self.document.get("seed")?.as_u64()?,
            allowed: allowed?,
            blackouts: blackouts?,
            calendars: calendars?,
            concurrency: typed("concurrency")?,
            when_hosts_are_taken: typed("whenHostsAreTaken")?,
            wait_at_most: duration("waitAtMost")?,
            catch_up,
            start_within: duration("startWithin")?,
        };
        self.contradictions(&schedule);
        Some(schedule)
    }

    /// The text at a path, and where it stands.
    fn at(&self, path: &[&str]) -> Option<(String, Span)> {
        let node = path.iter().try_fold(self.root, |node, key| node.get(key))?;
        Some((node.text()?.to_owned(), node.span))
    }

    fn zone(&mut self) -> Option<Tz> {
        let Some((name, span)) = self.at(&["zone"]) else { return Some(Tz::UTC) };
        self.named_zone(&name, span)
    }

    fn named_zone(&mut self, name: &str, span: Span) -> Option<Tz> {
        match due::zone(name) {
            Ok(zone) => Some(zone),
            Err(near) => {
                let help = match near {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "write the IANA name, such as Europe/London or America/New_York".into(),
                };
                self.findings.error(span, format!("there is no time zone {name:?}"), help);
                None
            }
        }
    }

    fn when(&mut self, zone: Option<Tz>) -> Option<When> {
        let length = |value: Option<&Value>| value?.as_str()?.parse::<Dur>().ok();
        let read = self.document.get("when")?.clone();
        if let Some((pattern, span)) = self.at(&["when", "cron"]) {
            return self.pattern(pattern, span, zone).map(When::Cron);
        }
        if let Some((text, span)) = self.at(&["when", "at"]) {
            return self.local(&text, span, zone, "at").map(When::At);
        }
        if let Some((text, span)) = self.at(&["when", "every", "from"]) {
            let from = self.local(&text, span, zone, "from");
            return Some(When::Every { period: length(read.pointer("/every/period"))?, from: from? });
        }
        let (pattern, span) = self.at(&["when", "random", "opens"])?;
        let opens = self.pattern(pattern, span, zone);
        Some(When::Random { opens: opens?, within: length(read.pointer("/random/within"))? })
    }

    /// A pattern that can be read and matches some day.
    fn pattern(&mut self, pattern: String, span: Span, zone: Option<Tz>) -> Option<String> {
        match Clockwork::new(&When::Cron(pattern.clone()), zone.unwrap_or(Tz::UTC), 0) {
            Err(why) => {
                let help = match pattern.split_whitespace().count() {
                    6 | 7 => "it has five fields, without seconds and years: minute, hour, day, month, day of the week",
                    _ => {
                        "five fields: minute, hour, day, month, day of the week; `30 3 * * mon-fri` is half past three on weekdays"
                    }
                };
                self.findings.error(span, why, help);
                None
            }
            Ok(clockwork) if clockwork.next(LONG_AGO_NS).is_none() => {
                let help = "no day has that date; look at the day and the month";
                self.findings.error(span, format!("{pattern:?} never matches"), help);
                None
            }
            Ok(_) => Some(pattern),
        }
    }

    fn local(&mut self, text: &str, span: Span, zone: Option<Tz>, key: &str) -> Option<NaiveDateTime> {
        let Some(local) = date_time(text).filter(|local| YEARS.contains(&local.year())) else {
            let help = "write it as 2027-03-01T10:00, without a zone: that is the document's `zone`";
            self.findings.error(span, format!("`{key}`: {text:?} is not a local time"), help);
            return None;
        };
        if let Some(zone) = zone.filter(|zone| !exists(*zone, local)) {
            let at = due::utc(instant(zone, local)).with_timezone(&zone).format("%H:%M");
            let message = format!("clocks in {zone} never show {text}: they are set forward then");
            self.findings.warning(span, message, format!("it is taken as {at}"));
        }
        Some(local)
    }

    fn allowed(&mut self) -> Option<Vec<Hours>> {
        let (mut all, mut well) = (Vec::new(), true);
        let read = self.document.get("allowed").and_then(Value::as_array).cloned().unwrap_or_default();
        let nodes = self.root.get("allowed").map(Node::items).unwrap_or_default();
        for (value, node) in read.iter().zip(nodes) {
            let span = |key: &str| node.get(key).map_or(node.span, |n| n.span);
            let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (days, hours) = (days(&text("days")), clock_hours(&text("hours")));
            if let Err(word) = &days {
                let help = "write mon-fri, or sat,sun";
                self.findings.error(span("days"), format!("{word:?} is no day of the week"), help);
            }
            if hours.is_none() {
                let message = format!("{:?} are no hours of a day", text("hours"));
                self.findings.error(span("hours"), message, "write 09:00-17:00; 22:00-06:00 passes midnight");
            }
            match (days, hours) {
                (Ok(days), Some((from, to))) => all.push(Hours { days, from, to }),
                _ => well = false,
            }
        }
        well.then_some(all)
    }

    /// What may not stand beside a key, and what must.
    fn beside(&mut self, node: &Node, key: &str, never: &[&str], needs: &[&str]) {
        for other in never.iter().filter_map(|other| node.pair(other)) {
            let message = format!("`{}` and `{key}` cannot stand together", other.key);
            self.findings.error(other.span, message, "remove one");
        }
        for missing in needs.iter().filter(|missing| node.get(missing).is_none()) {
            let message = format!("`{missing}` is missing beside `{key}`");
            self.findings.error(node.span, message, "{ from: 2026-12-20, to: 2027-01-03, why: year-end freeze }");
        }
    }

    fn calendars(&mut self) -> Option<Vec<CalendarFile>> {
        let (mut all, mut well): (Vec<CalendarFile>, _) = (Vec::new(), true);
        let nodes = self.root.get("blackouts").map(Node::items).unwrap_or_default();
        for node in nodes {
            let Some((file, span)) = node.get("file").and_then(|file| Some((file.text()?, file.span))) else {
                continue;
            };
            self.beside(node, "file", &["to", "why"], &[]);
            if all.iter().any(|known| known.file == file) {
                self.findings.error(span, format!("the calendar {file:?} is named twice"), "keep one");
            }
            let mut zones = BTreeMap::new();
            for pair in node.get("zones").map(Node::pairs).unwrap_or_default() {
                match self.named_zone(pair.value.text().unwrap_or_default(), pair.value.span) {
                    Some(zone) => drop(zones.insert(pair.key.clone(), zone)),
                    None => well = false,
                }
            }
            all.push(CalendarFile { file: file.to_owned(), zones });
        }
        well.then_some(all)
    }

    fn blackouts(&mut self, zone: Option<Tz>) -> Option<Vec<Blackout>> {
        let (mut all, mut well) = (Vec::new(), true);
        let read = self.document.get("blackouts").and_then(Value::as_array).cloned().unwrap_or_default();
        let nodes = self.root.get("blackouts").map(Node::items).unwrap_or_default();
        for (value, node) in read.iter().zip(nodes).filter(|(_, node)| node.get("from").is_some()) {
            self.beside(node, "from", &["zones"], &["to", "why"]);
            let mut edge = |key: &str, last_day: bool| {
                let (text, span) = (node.get(key)?.text()?.to_owned(), node.get(key)?.span);
                match text.parse::<NaiveDate>() {
                    Ok(day) if YEARS.contains(&day.year()) => {
                        if last_day { day.succ_opt()? } else { day }.and_hms_opt(0, 0, 0)
                    }
                    _ => self.local(&text, span, zone, key),
                }
            };
            let (from, to) = (edge("from", false), edge("to", true));
            let why = value.get("why").and_then(Value::as_str);
            let (Some(from), Some(to), Some(why)) = (from, to, why) else {
                well = false;
                continue;
            };
            if to <= from {
                let message = format!("the blackout {why:?} ends before it begins");
                self.findings.error(node.span, message, "swap `from` and `to`");
            }
            all.push(Blackout { from, to, why: why.to_owned() });
        }
        well.then_some(all)
    }

    /// What stands against itself.
    fn contradictions(&mut self, schedule: &Schedule) {
        let span = |key: &str| self.root.pair(key).map_or(Span::default(), |pair| pair.span);
        if matches!(schedule.catch_up, CatchUp::All { max } if max > 1) && schedule.concurrency == Concurrency::Forbid {
            let message =
                "of all that were missed only one can start: the others come while it runs, and are forbidden";
            self.findings.warning(span("catchUp"), message, "write `concurrency: queue`, or `catchUp: latest`");
        }
    }
}

fn date_time(text: &str) -> Option<NaiveDateTime> {
    ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S"]
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
}

/// `mon-fri,sun`; the error is the word that is none.
fn days(text: &str) -> Result<Vec<Weekday>, String> {
    let day = |word: &str| {
        let word = word.trim().to_lowercase();
        let at = DAYS.iter().position(|day| word == *day || (word.starts_with(day) && word.ends_with("day")));
        at.ok_or(word)
    };
    let mut all = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        let many = (last + 7 - first) % 7;
        all.extend((first..=first + many).map(|n| Weekday::try_from((n % 7) as u8).unwrap_or(Weekday::Mon)));
    }
    Ok(all)
}

/// `09:00-17:00`; 24:00 is the end of the day.
fn clock_hours(text: &str) -> Option<(NaiveTime, NaiveTime)> {
    let (from, to) = text.split_once('-')?;
    let time = |text: &str| NaiveTime::parse_from_str(text.trim(), "%H:%M").ok();
    let to = if to.trim() == "24:00" { Some(NaiveTime::MIN) } else { time(to) };
    Some((time(from)?, to?))
}
