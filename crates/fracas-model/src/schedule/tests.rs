//! Years of schedules under a simulated clock: whatever happens, each due is settled once.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{Datelike as _, NaiveDate, NaiveDateTime, Offset as _, TimeZone as _, Timelike as _, Utc};
use chrono_tz::Tz;
use rand::{Rng, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::{diagnostic::Diagnostic, id::RunId};

const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEARS: std::ops::Range<i32> = 2026..2036;

fn begin() -> i64 {
    Utc.with_ymd_and_hms(YEARS.start, 1, 1, 0, 0, 0).unwrap().timestamp() * SECOND
}

fn end() -> i64 {
    Utc.with_ymd_and_hms(YEARS.end, 1, 1, 0, 0, 0).unwrap().timestamp() * SECOND
}

fn offset(zone: Tz, ns: i64) -> i64 {
    let at = Utc.timestamp_nanos(ns).naive_utc();
    i64::from(zone.offset_from_utc_datetime(&at).fix().local_minus_utc())
}

/// Instants at which a zone's clocks are set, by the zone database alone.
fn transitions(zone: Tz) -> Vec<(i64, i64)> {
    let (mut found, mut at) = (Vec::new(), begin());
    while at < end() {
        let next = at + 6 * DAY;
        let (before, after) = (offset(zone, at), offset(zone, next));
        if before != after {
            let (mut low, mut high) = (at, next);
            while high - low > SECOND {
                let middle = i64::midpoint(low, high) / SECOND * SECOND;
                if offset(zone, middle) == before { low = middle } else { high = middle }
            }
            found.push((high, after - before));
        }
        at = next;
    }
    found
}

/// One zone for each way in which clocks are set in the next ten years.
fn moving_zones() -> Vec<(Tz, Vec<(i64, i64)>)> {
    let mut ways: BTreeMap<Vec<(i64, i64)>, Tz> = BTreeMap::new();
    for zone in chrono_tz::TZ_VARIANTS {
        let moves = transitions(zone);
        if !moves.is_empty() {
            let key = moves.iter().copied().chain([(0, offset(zone, begin()))]).collect();
            ways.entry(key).or_insert(zone);
        }
    }
    ways.into_values().map(|zone| (zone, transitions(zone))).collect()
}

fn cron(pattern: &str, zone: Tz) -> Clockwork {
    Clockwork::new(&When::Cron(pattern.into()), zone, 7).unwrap()
}

fn local(zone: Tz, ns: i64) -> NaiveDateTime {
    zone.from_utc_datetime(&Utc.timestamp_nanos(ns).naive_utc()).naive_local()
}

/// What a daily pattern must give: one due for each day of the calendar, at its time; where that does not exist, at the
/// first instant that does; where it comes twice, the first time.
fn daily(zone: Tz, hour: u32, minute: u32) -> Vec<i64> {
    let mut all = Vec::new();
    let mut day = NaiveDate::from_ymd_opt(YEARS.start, 1, 2).unwrap();
    while day.year() < YEARS.end {
        let wanted = day.and_hms_opt(hour, minute, 0).unwrap();
        // Without the library's own resolution: the first instant whose local time is at least the wanted one.
        let as_utc = wanted.and_utc().timestamp() * SECOND;
        let mut low = as_utc - offset(zone, as_utc) * SECOND - 3 * HOUR;
        let mut at = None;
        while at.is_none() {
            // Whole minutes of the day around it, coarse first.
            low += HOUR / 4;
            if local(zone, low) >= wanted {
                let fine = (0..=15).map(|m| low - HOUR / 4 + m * MINUTE).find(|at| local(zone, *at) >= wanted);
                at = fine;
            }
        }
        all.extend(at);
        day = day.succ_opt().unwrap();
    }
    all
}

#[test]
fn a_daily_due_comes_once_a_day_in_every_zone_whose_clocks_are_set() {
    let zones = moving_zones();
    assert!(zones.len() > 25, "{}", zones.len());
    for (zone, moves) in zones {
        // In the hour that does not exist or comes twice, and a quiet one.
        let forward = moves.iter().find(|(_, by)| *by > 0).map_or(0, |(at, _)| *at);
        let gap = local(zone, forward - SECOND) + chrono::Duration::seconds(1);
        let backward = moves.iter().find(|(_, by)| *by < 0).map_or(0, |(at, _)| *at);
        let twice = local(zone, backward);
        for time in [gap + chrono::Duration::minutes(15), twice + chrono::Duration::minutes(10)] {
            let (hour, minute) = (time.hour(), time.minute());
            let expected = daily(zone, hour, minute);
            let clockwork = cron(&format!("{minute} {hour} * * *"), zone);
            let first = expected[0];
            let got: Vec<i64> =
                clockwork.after(first - 1).map(|due| due.at_ns).take_while(|at| *at < end() - DAY).collect();
            let expected: Vec<i64> = expected.into_iter().filter(|at| *at < end() - DAY).collect();
            let wrong = got.iter().zip(&expected).find(|(got, expected)| got != expected);
            assert!(
                got == expected,
                "{zone} {hour}:{minute:02}: {} of {} dues, first wrong {:?}",
                got.len(),
                expected.len(),
                wrong.map(|(got, expected)| (local(zone, *got), local(zone, *expected)))
            );
        }
    }
}

#[test]
fn a_pattern_of_every_half_hour_goes_through_both_hours_and_over_the_gap() {
    for (zone, moves) in moving_zones() {
        let clockwork = cron("*/30 * * * *", zone);
        for (at, _) in moves {
            let (from, to) = (at - 3 * HOUR, at + 3 * HOUR);
            let got: Vec<i64> = clockwork.after(from - 1).map(|due| due.at_ns).take_while(|at| *at <= to).collect();
            let matches = |ns: &i64| local(zone, *ns).minute().is_multiple_of(30) && local(zone, *ns).second() == 0;
            let expected: Vec<i64> = (0..=(to - from) / MINUTE).map(|m| from + m * MINUTE).filter(matches).collect();
            assert_eq!(got, expected, "{zone} at {}", local(zone, at));
        }
    }
}

#[test]
fn moments_in_windows_lie_within_them_and_are_the_same_whoever_asks() {
    let when = When::Random { opens: "0 9 * * mon-fri".into(), within: Dur::from_secs(8 * 3600) };
    let zone = chrono_tz::Europe::London;
    let clockwork = Clockwork::new(&when, zone, 11).unwrap();
    let dues: Vec<Due> = clockwork.after(begin()).take(1000).collect();
    assert!(dues.iter().all(|due| due.at_ns >= due.nominal_ns && due.at_ns < due.nominal_ns + 8 * HOUR));
    assert!(dues.windows(2).all(|pair| pair[0].at_ns < pair[1].nominal_ns));
    let alone = clockwork.next(dues[500].nominal_ns - 1).unwrap();
    assert_eq!(alone, dues[500], "asked for alone it is the same");
    let hours: BTreeSet<i64> = dues.iter().map(|due| (due.at_ns - due.nominal_ns) / HOUR).collect();
    assert_eq!(hours.len(), 8, "all of the window is used");
    let other = Clockwork::new(&when, zone, 12).unwrap();
    assert!(other.after(begin()).zip(&dues).any(|(a, b)| a != *b), "another seed, other moments");
    // Windows that would overlap end where the next begins.
    let dense = When::Random { opens: "*/10 * * * *".into(), within: Dur::from_secs(3600) };
    let dense: Vec<Due> = Clockwork::new(&dense, zone, 1).unwrap().after(begin()).take(500).collect();
    assert!(dense.windows(2).all(|pair| pair[0].at_ns < pair[1].nominal_ns));
}

#[test]
fn a_period_is_elapsed_time_and_a_single_time_comes_once() {
    let zone = chrono_tz::America::New_York;
    let from: NaiveDateTime = "2027-03-13T12:00:00".parse().unwrap();
    let every = Clockwork::new(&When::Every { period: Dur::from_secs(86_400), from }, zone, 0).unwrap();
    let first = instant(zone, from);
    let dues: Vec<i64> = every.after(0).map(|due| due.at_ns).take(3).collect();
    assert_eq!(dues, [first, first + DAY, first + 2 * DAY], "over the change of the clocks");
    assert_eq!(every.next(first + 10_000 * DAY).map(|due| (due.at_ns - first) % DAY), Some(0));
    let once = Clockwork::new(&When::At(from), zone, 0).unwrap();
    assert_eq!((once.next(0).map(|due| due.at_ns), once.next(first)), (Some(first), None));
}

/// A plain schedule, to be changed by tests.
pub(super) fn nightly() -> Schedule {
    schedule(When::Cron("30 2 * * *".into()))
}

fn schedule(when: When) -> Schedule {
    Schedule {
        name: "nightly".into(),
        description: String::new(),
        experiment: "kill.yaml".into(),
        parameters: BTreeMap::new(),
        when,
        zone: Tz::UTC,
        seed: 1,
        allowed: Vec::new(),
        blackouts: Vec::new(),
        calendars: Vec::new(),
        concurrency: Concurrency::Forbid,
        when_hosts_are_taken: Concurrency::Forbid,
        wait_at_most: Dur::from_secs(3600),
        catch_up: CatchUp::Skip,
        start_within: Dur::from_secs(60),
    }
}

/// A schedule that lives through its history, and runs that end.
struct Life {
    state: State,
    clockwork: Clockwork,
    now_ns: i64,
    /// When each run ends.
    ends: BTreeMap<RunId, i64>,
    facts: Vec<(i64, Fact)>,
    changed: bool,
}

impl Life {
    fn of(schedule: Schedule, now_ns: i64) -> Self {
        let clockwork = Clockwork::new(&schedule.when, schedule.zone, schedule.seed).unwrap();
        let set = Fact::Set {
            schedule: Box::new(schedule),
            source: String::new(),
            experiment: String::new(),
            calendars: BTreeMap::new(),
            files: BTreeMap::new(),
            environment: "default".into(),
            by: "somebody".into(),
        };
        let (state, facts) = (State::default(), Vec::new());
        let mut life = Self { state, clockwork, now_ns, ends: BTreeMap::new(), facts, changed: true };
        life.note(set);
        life
    }

    fn note(&mut self, fact: Fact) {
        self.state.take(&fact, self.now_ns);
        self.facts.push((self.now_ns, fact));
    }

    fn alive(&self) -> BTreeSet<RunId> {
        self.ends.iter().filter(|(_, end)| **end > self.now_ns).map(|(run, _)| run.clone()).collect()
    }

    /// What has ended is not asked for again.
    fn bury(&mut self) {
        let alive = self.alive();
        self.state.forget_ended(&alive);
        self.ends.retain(|run, _| alive.contains(run));
    }

    /// Decides and does until nothing is left to do now; when to wake. `start` says what becomes of a start: how long the
    /// run lasts, why it is refused, or that its hosts are taken.
    fn settle(&mut self, start: &mut impl FnMut(Due) -> Start) -> Option<i64> {
        loop {
            let alive = self.alive();
            let now = Now { ns: self.now_ns, alive: &alive, changed: std::mem::take(&mut self.changed) };
            let decision = decide(&self.state, &self.clockwork, now);
            assert!(decision.acts.iter().rev().skip(1).all(|act| !matches!(act, Act::Start(_))), "a start comes last");
            let quiet = decision.acts.is_empty();
            for act in decision.acts {
                match act {
                    Act::Note(fact) => self.note(fact),
                    Act::Stop(runs) => {
                        for run in runs {
                            self.ends.insert(run, self.now_ns);
                        }
                        self.changed = true;
                    }
                    Act::Start(due) => match start(due) {
                        Start::Lasts(ns) => {
                            let run = RunId::new(format!("r{}", self.facts.len()));
                            self.ends.insert(run.clone(), self.now_ns + ns);
                            self.note(Fact::Started { due, run });
                        }
                        Start::Refused => {
                            let reason = Skip::Refused { reasons: vec!["no".into()] };
                            self.note(Fact::Skipped { from: due, to: due, count: 1, reason });
                        }
                        Start::Taken if self.state.waiting.iter().any(|waiting| waiting.due == due) => {}
                        Start::Taken => self.note(Fact::Queued { due, reason: "its hosts are taken".into() }),
                    },
                }
            }
            if quiet || decision.wake_ns.is_none_or(|at| at > self.now_ns) && !self.changed {
                assert!(decision.wake_ns.is_none_or(|at| at > self.now_ns), "it would be asked again and again");
                return decision.wake_ns;
            }
        }
    }

    /// What became of each due, in their order.
    fn fates(&self) -> Vec<(Due, &'static str)> {
        let mut fates: BTreeMap<i64, (Due, &'static str)> = BTreeMap::new();
        let mut put = |due: Due, what| {
            let before = fates.insert(due.nominal_ns, (due, what));
            assert!(before.is_none(), "{due:?} was settled twice: {before:?} and {what}");
        };
        for (_, fact) in &self.facts {
            match fact {
                Fact::Started { due, .. } => put(*due, "started"),
                Fact::Skipped { from, to, count, reason } => {
                    let between =
                        self.clockwork.after(from.nominal_ns - 1).take_while(|d| d.nominal_ns <= to.nominal_ns);
                    let all: Vec<Due> = between.collect();
                    assert_eq!(all.len() as u64, *count, "{fact:?}");
                    let what = match reason {
                        Skip::Missed => "missed",
                        Skip::StillRunning { .. } => "still running",
                        Skip::AnotherWaits => "another waits",
                        Skip::Replaced => "replaced",
                        Skip::WaitedTooLong { .. } => "waited too long",
                        Skip::Refused { .. } => "refused",
                        Skip::Blackout { .. } | Skip::NotAllowedThen => "not allowed",
                        Skip::Paused { .. } => "paused",
                        Skip::Withdrawn => "withdrawn",
                    };
                    for due in all {
                        put(due, what);
                    }
                }
                _ => {}
            }
        }
        fates.into_values().collect()
    }
}

enum Start {
    Lasts(i64),
    Refused,
    Taken,
}

fn drawn(random: &mut impl Rng) -> Schedule {
    let zone = chrono_tz::TZ_VARIANTS[random.random_range(0..chrono_tz::TZ_VARIANTS.len())];
    let patterns = ["0 3 * * *", "*/20 * * * *", "30 2 * * sun", "0 9-17 * * mon-fri", "0 0 1 * *", "15 1,13 * * *"];
    let pattern = patterns[random.random_range(0..patterns.len())].to_owned();
    let when = match random.random_range(0..4) {
        0 => When::Every {
            period: Dur::from_secs(random.random_range(60..200_000)),
            from: local(zone, begin() + random.random_range(0..90) * DAY),
        },
        1 => When::Random { opens: pattern, within: Dur::from_secs(random.random_range(60..20_000)) },
        _ => When::Cron(pattern),
    };
    let policies = [Concurrency::Forbid, Concurrency::Queue, Concurrency::Replace];
    let allowed =
        Hours { days: vec![chrono::Weekday::Mon], from: "22:00:00".parse().unwrap(), to: "04:00:00".parse().unwrap() };
    let freeze = |year: i32| Blackout {
        from: NaiveDate::from_ymd_opt(year, 12, 20).unwrap().and_hms_opt(0, 0, 0).unwrap(),
        to: NaiveDate::from_ymd_opt(year + 1, 1, 4).unwrap().and_hms_opt(0, 0, 0).unwrap(),
        why: "freeze".into(),
    };
    Schedule {
        zone,
        allowed: if random.random_bool(0.1) { vec![allowed] } else { Vec::new() },
        blackouts: YEARS.map(freeze).collect(),
        concurrency: policies[random.random_range(0..3)],
        wait_at_most: Dur::from_secs(random.random_range(60..7200)),
        catch_up: match random.random_range(0..3) {
            0 => CatchUp::Skip,
            1 => CatchUp::Latest,
            _ => CatchUp::All { max: random.random_range(1..6) },
        },
        ..schedule(when)
    }
}

#[test]
fn over_ten_years_of_anything_each_due_is_settled_once_and_none_is_left() {
    let base = std::env::var("FRACAS_SEED_BASE").ok().and_then(|text| text.parse().ok()).unwrap_or(0_u64);
    for seed in base..base + 8 {
        let random = &mut ChaCha8Rng::seed_from_u64(seed);
        let mut life = Life::of(drawn(random), begin());
        let mut steps = 0;
        while life.now_ns < end() && steps < 20_000 {
            steps += 1;
            let mut fate = ChaCha8Rng::seed_from_u64(random.random());
            let wake = life.settle(&mut |_| match fate.random_range(0..10) {
                0 => Start::Refused,
                1 => Start::Taken,
                2 => Start::Lasts(fate.random_range(0..3 * DAY)),
                _ => Start::Lasts(fate.random_range(0..2 * HOUR)),
            });
            let ends = life.ends.values().filter(|end| **end > life.now_ns).min().copied();
            life.bury();
            let next = match (wake, ends) {
                (Some(wake), Some(end)) => wake.min(end),
                (wake, end) => wake.or(end).unwrap_or(i64::MAX),
            };
            let away = random.random_bool(0.01);
            let late = if away { random.random_range(0..40 * DAY) } else { random.random_range(0..20 * SECOND) };
            life.now_ns = next.saturating_add(late).min(end());
            life.changed = life.changed || ends.is_some_and(|end| end <= life.now_ns) || away;
            // Clocks are set, also back.
            if random.random_bool(0.005) {
                life.now_ns -= random.random_range(0..2 * HOUR);
            }
            match (&life.state.paused, random.random_range(0..400)) {
                (None, 0) => life.note(Fact::Paused { reason: "holidays".into(), by: "somebody".into() }),
                (Some(_), 0..40) => life.note(Fact::Resumed { by: "somebody".into() }),
                _ => {}
            }
        }
        life.settle(&mut |_| Start::Refused);
        let until = life.state.settled_ns;
        let fates = life.fates();
        let waiting: BTreeSet<Due> = life.state.waiting.iter().map(|waiting| waiting.due).collect();
        let settled: BTreeSet<Due> = fates.iter().map(|(due, _)| *due).chain(waiting).collect();
        let owed: BTreeSet<Due> = life.clockwork.after(begin()).take_while(|due| due.nominal_ns <= until).collect();
        assert_eq!(settled.len(), owed.len(), "seed {seed}");
        assert_eq!(settled, owed, "seed {seed}");
        let first_left = life.clockwork.next(until);
        assert!(
            first_left.is_none_or(|due| due.at_ns > life.now_ns),
            "seed {seed}: {first_left:?} is owed and not settled"
        );
    }
}

#[test]
fn ten_thousand_missed_do_not_delay_the_next() {
    for catch_up in [CatchUp::Skip, CatchUp::Latest, CatchUp::All { max: 3 }] {
        let every = When::Every { period: Dur::from_secs(60), from: local(Tz::UTC, begin() + MINUTE) };
        // Twice as many as one decision looks at, and more.
        for missed in [10_000, 50_000] {
            let rules = Schedule { catch_up, start_within: Dur::from_secs(30), ..schedule(every.clone()) };
            let mut life = Life::of(rules, begin());
            life.now_ns = begin() + (missed + 1) * MINUTE;
            let mut started = Vec::new();
            life.settle(&mut |due| {
                started.push(due.at_ns);
                Start::Lasts(SECOND)
            });
            assert!(!started.is_empty(), "{catch_up:?}");
            let fates = life.fates();
            assert_eq!(fates.len() as i64, missed + 1, "{catch_up:?}");
            match catch_up {
                CatchUp::Skip | CatchUp::Latest => assert_eq!(started, [life.now_ns], "the one that is due now"),
                // The first of the three stands in the way of the others, which the policy forbids.
                CatchUp::All { .. } => assert_eq!(started, [life.now_ns - 3 * MINUTE]),
            }
            // And it goes on.
            life.now_ns += MINUTE;
            let now_ns = life.now_ns;
            life.settle(&mut |due| {
                assert_eq!(due.at_ns, now_ns);
                started.push(due.at_ns);
                Start::Lasts(SECOND)
            });
            assert_eq!(started.last(), Some(&now_ns), "{catch_up:?}");
        }
    }
}

/// Forbid, a deadline for starting, a run that outlasts it: where a peer's schedule sleeps for ever.
#[test]
fn a_forbidden_due_past_its_deadline_does_not_put_the_schedule_to_sleep() {
    let mut life =
        Life::of(Schedule { start_within: Dur::from_secs(1), ..schedule(When::Cron("*/5 * * * *".into())) }, begin());
    let mut lasts = [12 * MINUTE, MINUTE, MINUTE, MINUTE].into_iter();
    let mut wake = life.settle(&mut |_| unreachable!("nothing is due yet"));
    for _ in 0..6 {
        life.now_ns = wake.expect("it always says when") + 3 * SECOND;
        wake = life.settle(&mut |_| Start::Lasts(lasts.next().unwrap()));
    }
    // Each was three seconds late, which is beyond its second.
    assert!(life.fates().iter().all(|(_, what)| *what == "missed"), "{:?}", life.fates());
    for _ in 0..4 {
        life.now_ns = wake.expect("it always says when");
        wake = life.settle(&mut |_| Start::Lasts(lasts.next().unwrap()));
    }
    let last: Vec<&str> = life.fates().iter().rev().take(4).rev().map(|(_, what)| *what).collect();
    assert_eq!(last, ["started", "still running", "still running", "started"]);
}

#[test]
fn each_policy_does_what_it_says() {
    let play = |concurrency, catch_up| {
        let rules = Schedule { concurrency, catch_up, ..schedule(When::Cron("*/10 * * * *".into())) };
        let mut life = Life::of(rules, begin());
        let mut wake = life.settle(&mut |_| unreachable!());
        for _ in 0..200 {
            let end = life.ends.values().filter(|end| **end > life.now_ns).min().copied();
            life.now_ns = [wake, end].into_iter().flatten().min().unwrap();
            life.changed = true;
            if life.now_ns > begin() + 65 * MINUTE {
                break;
            }
            wake = life.settle(&mut |_| Start::Lasts(25 * MINUTE));
        }
        let fates: Vec<&str> = life.fates().into_iter().map(|(_, what)| what).collect();
        (fates, life)
    };
    let (fates, _) = play(Concurrency::Forbid, CatchUp::Skip);
    assert_eq!(fates, ["started", "still running", "still running", "started", "still running", "still running"]);
    let (fates, life) = play(Concurrency::Queue, CatchUp::Skip);
    assert_eq!(fates, ["started", "started", "another waits", "started", "another waits", "another waits"]);
    let starts: Vec<i64> = life
        .facts
        .iter()
        .filter(|(_, f)| matches!(f, Fact::Started { .. }))
        .map(|(at, _)| (at - begin()) / MINUTE)
        .collect();
    assert_eq!(starts, [10, 35, 60], "each when the one before has ended");
    let (fates, life) = play(Concurrency::Replace, CatchUp::Skip);
    assert_eq!(fates, ["started"; 6]);
    assert_eq!(
        life.ends.values().filter(|end| (**end - begin()) % (10 * MINUTE) == 0).count(),
        5,
        "stopped for the next"
    );
}

#[test]
fn all_that_were_missed_run_one_after_the_other_however_long_ago_they_were_due() {
    let rules = Schedule {
        concurrency: Concurrency::Queue,
        catch_up: CatchUp::All { max: 3 },
        ..schedule(When::Cron("0 3 * * *".into()))
    };
    let mut life = Life::of(rules, begin());
    life.now_ns = begin() + 5 * DAY;
    life.settle(&mut |_| Start::Lasts(20 * MINUTE));
    for _ in 0..3 {
        life.now_ns += 20 * MINUTE;
        life.changed = true;
        life.settle(&mut |_| Start::Lasts(20 * MINUTE));
    }
    let fates: Vec<&str> = life.fates().into_iter().map(|(_, what)| what).collect();
    assert_eq!(fates, ["missed", "missed", "started", "started", "started"]);
}

#[test]
fn other_times_withdraw_what_is_owed_and_the_same_times_do_not() {
    let daily = schedule(When::Random { opens: "0 9 * * *".into(), within: Dur::from_secs(8 * 3600) });
    let mut life = Life::of(daily.clone(), begin());
    // The window is open, its moment may be to come.
    life.now_ns = begin() + 9 * HOUR + SECOND;
    let owed = life.clockwork.next(life.state.settled_ns).unwrap();
    assert!(owed.at_ns > life.now_ns);
    let again = |life: &mut Life, rules: Schedule| {
        let mut facts = if life.state.goes_on(&rules, life.now_ns) {
            Vec::new()
        } else {
            life.state.withdrawn(&life.clockwork, life.now_ns)
        };
        facts.push(Fact::Set {
            schedule: Box::new(rules),
            source: String::new(),
            experiment: String::new(),
            calendars: BTreeMap::new(),
            files: BTreeMap::new(),
            environment: String::new(),
            by: String::new(),
        });
        for fact in facts {
            life.note(fact);
        }
    };
    again(&mut life, Schedule { description: "said better".into(), ..daily.clone() });
    assert_eq!(life.clockwork.next(life.state.settled_ns), Some(owed), "still owed");
    again(&mut life, Schedule { seed: 2, ..daily.clone() });
    assert_eq!(life.fates(), [(owed, "withdrawn")]);
    // What a clock that was ahead had settled is settled no more.
    life.now_ns += 400 * DAY;
    life.settle(&mut |_| Start::Refused);
    life.now_ns -= 399 * DAY;
    again(&mut life, Schedule { seed: 2, ..daily });
    assert_eq!(life.state.settled_ns, life.now_ns);
}

#[test]
fn after_a_clock_that_was_far_ahead_dues_are_owed_again() {
    let mut life = Life::of(schedule(When::Cron("0 3 * * *".into())), begin());
    let started = |life: &Life| life.facts.iter().filter(|(_, fact)| matches!(fact, Fact::Started { .. })).count();
    let go_to = |life: &mut Life, at: i64| {
        life.now_ns = at;
        life.changed = true;
        life.bury();
        life.settle(&mut |_| Start::Lasts(MINUTE))
    };
    go_to(&mut life, begin() + 400 * DAY + 3 * HOUR);
    assert_eq!(started(&life), 1);
    // A clock that is set right by some hours changes nothing.
    let settled = life.state.settled_ns;
    go_to(&mut life, begin() + 399 * DAY + 23 * HOUR);
    assert_eq!((life.state.settled_ns, started(&life)), (settled, 1));
    let wake = go_to(&mut life, begin() + 2 * DAY);
    assert!(life.facts.iter().any(|(_, fact)| *fact == Fact::SetBack { settled_ns: settled }), "{:?}", life.facts);
    assert_eq!(wake, Some(begin() + 2 * DAY + 3 * HOUR), "the next morning");
    // What was started then has ended meanwhile, whatever the clock says.
    life.ends.clear();
    go_to(&mut life, begin() + 2 * DAY + 3 * HOUR);
    assert_eq!((started(&life), life.state.settled_ns), (2, begin() + 2 * DAY + 3 * HOUR));
}

const DOCUMENT: &str = "\
apiVersion: fracas/v1
kind: Schedule
name: nightly
experiment: kill.yaml
parameters: { delay: 200ms, many: 3 }
when: { cron: 30 2 * * mon-fri }
zone: Europe/London
allowed: [{ days: mon-fri, hours: 22:00-06:00 }, { days: 'sat, sunday' }]
blackouts:
  - { from: 2026-12-20, to: 2027-01-03, why: year-end freeze }
  - { file: holidays.ics, zones: { Büro: Europe/Berlin } }
concurrency: queue
catchUp: { all: 3 }
";

#[test]
fn a_document_is_read() {
    let read = read_schedule("s.yaml", DOCUMENT).expect("it is right");
    assert!(read.warnings.is_empty(), "{:?}", read.warnings);
    let schedule = read.schedule;
    assert_eq!(schedule.when, When::Cron("30 2 * * mon-fri".into()));
    assert_eq!(schedule.parameters["many"], "3");
    assert_eq!((schedule.zone, schedule.catch_up), (chrono_tz::Europe::London, CatchUp::All { max: 3 }));
    assert_eq!(schedule.allowed[1].days, [chrono::Weekday::Sat, chrono::Weekday::Sun]);
    assert_eq!(schedule.blackouts[0].to, "2027-01-04T00:00:00".parse().unwrap(), "the last day is part of it");
    let zones = [("Büro".to_owned(), chrono_tz::Europe::Berlin)].into();
    assert_eq!(
        (schedule.blackouts.len(), &schedule.calendars),
        (1, &vec![CalendarFile { file: "holidays.ics".into(), zones }])
    );
    let kept: Schedule = serde_json::from_value(serde_json::to_value(&schedule).unwrap()).unwrap();
    assert_eq!(kept, schedule);
}

#[test]
fn mistakes_are_told_at_their_places_with_a_way_out() {
    let told = |from: &str, to: &str| {
        assert!(DOCUMENT.contains(from), "{from}");
        let all = read_schedule("s.yaml", &DOCUMENT.replace(from, to)).map_or_else(|told| told, |read| read.warnings);
        all.iter().map(Diagnostic::render).collect::<Vec<_>>().join("\n")
    };
    for (from, to, expected) in [
        ("Europe/London", "Europe/Londn", "did you mean `Europe/London`?"),
        ("Europe/London", "berlin", "did you mean `Europe/Berlin`?"),
        ("Europe/London", "nowhere at all", "write the IANA name"),
        ("30 2 * * mon-fri", "0 30 2 * * *", "five fields, without seconds"),
        ("30 2 * * mon-fri", "61 2 * * *", "is not a cron pattern"),
        ("30 2 * * mon-fri", "0 0 30 2 *", "never matches"),
        ("cron: 30 2 * * mon-fri", "at: tomorrow", "write it as 2027-03-01T10:00"),
        ("cron: 30 2 * * mon-fri", "at: 2027-03-28T01:30", "it is taken as 02:00"),
        ("{ cron: 30 2 * * mon-fri }", "{}", "`when` needs"),
        ("22:00-06:00", "22-6", "write 09:00-17:00"),
        ("days: mon-fri", "days: mon-fry", "\"fry\" is no day"),
        ("2027-01-03", "2026-12-01", "swap `from` and `to`"),
        (", why: year-end freeze", "", "`why` is missing beside `from`"),
        ("to: 2027-01-03, ", "", "`to` is missing beside `from`"),
        ("from: 2026-12-20, ", "", "needs a time or file"),
        ("why: year-end freeze }", "why: x, file: a.ics }", "`from` and `file` cannot stand together"),
        ("file: holidays.ics,", "file: holidays.ics, why: x,", "`why` and `file` cannot stand together"),
        ("why: year-end freeze }", "why: x, zones: {} }", "`zones` and `from` cannot stand together"),
        ("Europe/Berlin", "berlin", "did you mean `Europe/Berlin`?"),
        ("concurrency: queue", "  - { file: holidays.ics }\nconcurrency: queue", "is named twice"),
        ("concurrency: queue", "concurrency: forbid", "`concurrency: queue`, or `catchUp: latest`"),
        ("concurrency: queue", "concurency: queue", "did you mean `concurrency`?"),
    ] {
        let told = told(from, to);
        assert!(told.contains(expected), "{to}: {told}");
    }
}
