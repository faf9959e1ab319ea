//! The report for a terminal: wrapped to its width, coloured on request, with the events of the run at the end.

mod paper;
mod strips;

use fracas_model::{
    event::{Proof, VerdictWord},
    report::{
        EntryReport, Episode, EventLine, ItemReport, Judgement, Latency, ProbeReport, Report, ServiceReport,
        asked_and_measured,
    },
    units::Dur,
};

use self::paper::Paper;
pub(super) use self::strips::strips;
use super::{
    alerts,
    chart::Chart,
    day, instants, intent, ledgers, listed, terms,
    words::{self, asked, offset},
};
use crate::{
    live::span::{Line, Style as Ink},
    times::{self, Zone},
    words::count,
};

/// How text is laid out.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// With ANSI colours.
    pub colour: bool,
    /// Columns; fewer than 40 are taken as 40.
    pub width: usize,
    /// What "local time" means to the reader.
    pub zone: Zone,
}

/// Events listed at most; the JSON form has all.
const EVENTS: usize = 5000;
/// Hosts of one fault that a summary tells one by one.
const HOSTS: usize = 4;
/// Probes whose latency a summary tells; of more, only the report does.
const PROBES: usize = 2;

/// The whole report.
pub fn text(report: &Report, style: Style) -> String {
    let mut paper = Paper::new(style);
    verdict(&mut paper, report);
    head(&mut paper, report);
    sections(&mut paper, report);
    paper.heading("Services");
    for service in &report.services {
        one_service(&mut paper, report, service);
    }
    if report.services.is_empty() {
        paper.words(2, Ink::Plain, "the document names no service: nothing was to recover");
    }
    data(&mut paper, report);
    alerted(&mut paper, report);
    times_between(&mut paper, report);
    paper.heading("Faults: asked and measured");
    for entry in &report.entries {
        one_entry(&mut paper, report, entry);
    }
    paper.heading("Timeline");
    paper.raw(strips(report, &Chart::whole(report), style));
    latency(&mut paper, report);
    record(&mut paper, report);
    events(&mut paper, report);
    paper.done()
}

/// What `fracas run` prints at its end: the verdict and why, each service against its objective, each fault and its undo.
pub fn summary(report: &Report, style: Style) -> String {
    let mut paper = Paper::new(style);
    verdict(&mut paper, report);
    for row in day::rows(report) {
        section_line(&mut paper, &row);
    }
    for service in &report.services {
        service_line(&mut paper, service);
        let lengths =
            words::three(service).into_iter().filter_map(|l| l.value.map(|v| format!("{} {v}", l.name.to_lowercase())));
        let lengths: Vec<String> = lengths.collect();
        if !lengths.is_empty() {
            paper.words(4, Ink::Plain, &lengths.join(", "));
        }
        if let Some(point) = ledgers::recovery_point(service) {
            paper.words(4, ink_of_point(service), &format!("recovery point {point}"));
        }
    }
    for entry in report.entries.iter().filter(|e| e.target.is_some()) {
        summed(&mut paper, report, entry);
    }
    slowed(&mut paper, report);
    paper.words(0, Ink::Dim, &format!("run {}; the whole report: fracas report {}", report.run, report.run));
    paper.done()
}

/// An entry's hosts one by one while they are few, else in one line and then those that need a look.
fn summed(paper: &mut Paper, report: &Report, entry: &EntryReport) {
    if entry.items.is_empty() {
        let why = entry.skipped.clone().unwrap_or_else(|| "not applied".into());
        paper.words(0, Ink::Yellow, &format!("{} {}: {why}", entry.entry, entry.action));
        return;
    }
    let well = |item: &&ItemReport| tone_of(item) == Ink::Green;
    let mut shown: Vec<&ItemReport> = entry.items.iter().collect();
    if shown.len() > HOSTS {
        let (n, verified) = (shown.len(), shown.iter().filter(|i| well(i)).count());
        let undone = shown.iter().filter(|i| !i.unconfirmed).count();
        let text = format!("{} {}: verified on {verified} of {n} hosts, clean on {undone}", entry.entry, entry.action);
        paper.words(0, if verified == n && undone == n { Ink::Green } else { Ink::Yellow }, &text);
        shown.retain(|item| !well(item));
        let more = shown.len().saturating_sub(HOSTS);
        shown.truncate(HOSTS);
        if more > 0 {
            paper.words(4, Ink::Yellow, &format!("{more} more need a look"));
        }
    }
    for item in shown {
        let place = format!(" {} on {}: ", entry.action, report.host_name(&item.host));
        let line =
            Line::new().with(Ink::Bold, words::plain(entry.entry.as_str())).with(Ink::Plain, words::plain(&place));
        paper.line(&line.with(tone_of(item), words::plain(&words::proof(item))));
        for measured in &item.measured {
            paper.words(4, Ink::Plain, &asked_and_measured(measured));
        }
        paper.words(4, if item.unconfirmed { Ink::Red } else { Ink::Plain }, &words::undo(item));
    }
}

/// How long answers took before and under fault, where few probes have both medians; the report has them all.
fn slowed(paper: &mut Paper, report: &Report) {
    let both = report.probes.iter().filter_map(|p| {
        let (before, under) = (p.baseline.as_ref()?, p.under_fault.as_ref()?);
        Some((p, before.n, before.p50_ms?, under.n, under.p50_ms?))
    });
    let both: Vec<_> = both.collect();
    for (probe, n_before, before, n_under, under) in both.iter().take_while(|_| both.len() <= PROBES) {
        let place = format!("{} from {}", probe.probe, report.host_name(&probe.host));
        let (before, under) = (words::number(*before), words::number(*under));
        let text = format!(": median {before} ms before (n = {n_before}), {under} ms under fault (n = {n_under})");
        paper.line(&Line::new().with(Ink::Bold, words::plain(&place)).with(Ink::Plain, &text));
    }
}

fn verdict(paper: &mut Paper, report: &Report) {
    let verdict = &report.verdict;
    let ink = ink_of(&verdict.word);
    let line = Line::new()
        .with(ink, verdict.word.name().to_uppercase())
        .with(Ink::Bold, format!("  {}", words::plain(&report.name)));
    paper.line(&line.with(Ink::Dim, format!("  exit code {}", verdict.exit_code)));
    paper.words(0, Ink::Plain, words::verdict_meaning(&verdict.word));
    for reason in &verdict.reasons {
        paper.item("-", Ink::Plain, reason);
    }
    for warning in &report.warnings {
        paper.item("!", Ink::Yellow, warning);
    }
    if !report.times.finished {
        paper.item("!", Ink::Yellow, "the run has not ended: everything here may still change");
    }
}

fn ink_of(word: &VerdictWord) -> Ink {
    match word {
        VerdictWord::Pass => Ink::Green,
        VerdictWord::Inconclusive | VerdictWord::Aborted | VerdictWord::Refused => Ink::Yellow,
        VerdictWord::Fail | VerdictWord::Error | VerdictWord::UndoUnconfirmed => Ink::Red,
    }
}

/// The sections of a game day; nothing for a single experiment.
fn sections(paper: &mut Paper, report: &Report) {
    let rows = day::rows(report);
    if rows.is_empty() {
        return;
    }
    paper.heading("Sections");
    for row in &rows {
        section_line(paper, row);
        if !row.description.is_empty() {
            paper.words(4, Ink::Plain, row.description);
        }
        paper.words(4, Ink::Dim, &format!("started at {}, ended at {}", row.started, row.ended));
        for answer in &row.answers {
            paper.words(4, Ink::Plain, answer);
        }
        for reason in row.reasons {
            paper.item("-", Ink::Plain, reason);
        }
    }
}

fn section_line(paper: &mut Paper, row: &day::Row<'_>) {
    let line = Line::new().with(Ink::Plain, "section ").with(Ink::Bold, words::plain(row.id));
    let line = line.with(Ink::Plain, words::plain(&format!(" {}: ", row.what)));
    paper.line(&line.with(ink_of(row.word), row.word.name()));
}

fn head(paper: &mut Paper, report: &Report) {
    let (t, zone) = (&report.times, paper.style.zone);
    let both = |wall_ns| format!("{} ({})", words::wall_utc(wall_ns), times::local_second(wall_ns, zone));
    paper.heading("Run");
    if !report.description.is_empty() {
        paper.pair(if report.sections.is_empty() { "purpose" } else { "about" }, &report.description);
    }
    for (term, said) in day::about(report) {
        paper.pair(&term.to_lowercase(), &said);
    }
    paper.pair(
        "run",
        &format!("{} in {}, asked by {}, from {}", report.run, report.environment, report.by, report.source_name),
    );
    paper.pair("accepted", &both(t.planned_wall_ns));
    paper.pair(
        "gate",
        &if t.gate_passed { format!("{}: offset 0", both(t.origin_wall_ns)) } else { "never passed".into() },
    );
    let lasted = Dur::from_ns(t.last_ns.saturating_sub(t.first_ns)).human();
    paper.pair(
        "ended",
        &if t.finished { format!("{} after {lasted}", both(t.ended_wall_ns)) } else { "not yet".into() },
    );
}

fn service_line(paper: &mut Paper, service: &ServiceReport) {
    let ink = match service.judgement {
        Judgement::Met { .. } => Ink::Green,
        Judgement::Missed { .. } => Ink::Red,
        Judgement::Inconclusive { .. } | Judgement::NotMeasured { .. } => Ink::Yellow,
        Judgement::NoObjective => Ink::Dim,
    };
    let objective = service.rto.map(|rto| format!("objective {rto} {}: ", words::rto_from(service.rto_from)));
    let line = Line::new()
        .with(Ink::Bold, words::plain(service.service.as_str()))
        .with(Ink::Plain, format!(" {}", objective.unwrap_or_default()))
        .with(ink, words::judgement_name(&service.judgement));
    paper.line(&line);
}

fn one_service(paper: &mut Paper, report: &Report, service: &ServiceReport) {
    service_line(paper, service);
    if service.judgement != Judgement::NoObjective {
        paper.words(4, Ink::Plain, words::judgement_why(&service.judgement));
    }
    if let Some(promises) = words::promises(service) {
        paper.words(4, Ink::Plain, &promises);
    }
    for length in words::three(service) {
        let judged = if length.judged { " (judged)" } else { "" };
        let ink = if length.judged { Ink::Bold } else { Ink::Plain };
        paper.hanging(&format!("    {}", length.name), 25, ink, &format!("{}{judged}", length.shown()));
        paper.words(25, Ink::Dim, length.meaning);
    }
    let counts = [
        (service.outages, "outage"),
        (service.blips, "blip"),
        (service.down_edges, "change down"),
        (service.pre_existing, "outage before any fault"),
    ];
    let told = counts.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| match what.split_once(' ') {
        Some((first, rest)) => format!("{} {rest}", count(n as usize, first)),
        None => count(n as usize, what),
    });
    let mut told: Vec<String> = told.collect();
    if let Some(downtime) = service.downtime {
        told.push(format!("down {downtime} in all"));
    }
    if service.outage.is_some() {
        told.push(format!("up again while the fault was active: {}", words::before_revert(service)));
    }
    paper.words(4, Ink::Dim, &told.join(", "));
    if let Some(together) = words::together(service) {
        paper.words(4, Ink::Dim, &format!("down at once: {together}"));
    }
    if let Some(failing) = words::failing(service) {
        paper.words(4, Ink::Plain, &format!("failing looks: {failing}"));
    }
    if let Some(degraded) = words::degraded(service) {
        paper.words(4, Ink::Plain, &format!("up but degraded: {degraded}"));
    }
    if let Some(point) = ledgers::recovery_point(service) {
        paper.words(4, ink_of_point(service), &format!("recovery point: {point}"));
    }
    if let Some((probe, episode)) = report.worst_episode(&service.service) {
        let seen = format!("longest seen by {} from {}: ", probe.probe, report.host_name(&probe.host));
        paper.words(4, Ink::Dim, &(seen + &words::episode_line(episode) + &rests_on(episode)));
    }
}

fn ink_of_point(service: &ServiceReport) -> Ink {
    match service.recovery_point.as_ref().map(|point| &point.judgement) {
        Some(Judgement::Met { .. }) => Ink::Green,
        Some(Judgement::Missed { .. }) => Ink::Red,
        Some(Judgement::Inconclusive { .. } | Judgement::NotMeasured { .. }) => Ink::Yellow,
        Some(Judgement::NoObjective) | None => Ink::Plain,
    }
}

/// What was written and is there; nothing without a ledger.
fn data(paper: &mut Paper, report: &Report) {
    let rows = ledgers::rows(report);
    if rows.is_empty() {
        return;
    }
    paper.heading("Data: what was written and is there");
    for row in &rows {
        paper.line(&Line::new().with(Ink::Bold, words::plain(&row.name)));
        paper.words(4, Ink::Plain, &row.result);
        paper.words(4, Ink::Dim, &row.counts);
        for span in &row.spans {
            paper.item("-", Ink::Plain, span);
        }
        paper.words(4, Ink::Dim, &row.how);
        paper.words(4, Ink::Red, row.left.as_deref().unwrap_or_default());
    }
}

/// What alerting tools told; nothing when they told nothing.
fn alerted(paper: &mut Paper, report: &Report) {
    let rows = alerts::rows(report);
    if rows.is_empty() {
        return;
    }
    paper.heading("Alerts: what alerting tools told");
    for row in &rows {
        paper.line(&Line::new().with(Ink::Bold, words::plain(&row.name)));
        paper.words(4, if row.strange { Ink::Yellow } else { Ink::Plain }, &row.standing);
        paper.words(4, Ink::Plain, &row.when);
        paper.words(4, Ink::Dim, &row.whose);
    }
    paper.words(0, Ink::Dim, alerts::more(report).as_deref().unwrap_or_default());
}

fn times_between(paper: &mut Paper, report: &Report) {
    let shown = instants::shown(report);
    if shown.is_empty() {
        return;
    }
    paper.heading("Instants and the times between them");
    for timing in shown {
        paper.line(&Line::new().with(Ink::Bold, words::plain(&instants::title(timing))));
        for row in instants::instants(report, timing) {
            let stem = format!("  {:<9} {}", row.id, words::plain(&row.name));
            paper.hanging(&stem, 34, Ink::Plain, &row.when);
            paper.words(6, Ink::Dim, &format!("on the clock of {}; {}", row.clock, row.how));
        }
        for row in instants::metrics(report, timing) {
            let ink = if row.known { Ink::Bold } else { Ink::Dim };
            paper.hanging(&format!("  {}", words::plain(&row.name)), 34, ink, &row.length);
            if row.known {
                paper.words(6, Ink::Dim, &format!("{}; clocks: {}", row.definition, row.clocks));
            }
            paper.words(6, Ink::Yellow, &row.caveat);
        }
    }
}

fn rests_on(episode: &Episode) -> String {
    format!("; events {}", numbers(&episode.events))
}

/// `#9 #11`, a long list with a gap.
pub(super) fn numbers(seqs: &[u64]) -> String {
    let (first, last) = listed::few(seqs);
    let list = |seqs: &[u64]| seqs.iter().map(|s| format!("#{s}")).collect::<Vec<_>>().join(" ");
    let gap = if last.is_empty() { String::new() } else { format!(" ... {}", list(last)) };
    list(first) + &gap
}

fn tone_of(item: &ItemReport) -> Ink {
    match &item.proof {
        _ if item.unconfirmed || !item.trouble.is_empty() => Ink::Red,
        Some(Proof::Verified) => Ink::Green,
        _ => Ink::Yellow,
    }
}

fn one_entry(paper: &mut Paper, report: &Report, entry: &EntryReport) {
    let target = entry.target.as_ref().map(|t| format!(" on {t}")).unwrap_or_default();
    let trigger = intent::trigger(report, entry);
    let when = if trigger.is_empty() { String::new() } else { format!(", {trigger}") };
    let line = Line::new().with(Ink::Bold, words::plain(entry.entry.as_str()));
    paper.line(&line.with(Ink::Plain, words::plain(&format!("  {}{target}{when}", asked(entry)))));
    let said = entry.answer.as_ref().or(entry.failed.as_ref()).map(|said| format!(": {said}")).unwrap_or_default();
    let ran = match (entry.started_ns, entry.ended_ns, &entry.skipped) {
        (_, _, Some(why)) => format!("skipped: {why}"),
        (Some(from), Some(to), _) => format!("started at {}, ended at {}", offset(from), offset(to)),
        (Some(from), None, _) => format!("started at {}", offset(from)),
        (None, ..) => "not started".into(),
    };
    paper.words(4, Ink::Dim, &(ran + &said));
    for item in &entry.items {
        let mut line = Line::new().with(Ink::Plain, "    ").with(Ink::Bold, words::plain(report.host_name(&item.host)));
        if item.generation > 1 {
            line = line.with(Ink::Dim, format!(" attempt {}", item.generation));
        }
        paper.line(&line.with(Ink::Plain, " ").with(tone_of(item), words::plain(&words::proof(item))));
        paper.words(8, Ink::Plain, &item.summary);
        for measured in &item.measured {
            paper.words(8, Ink::Plain, &asked_and_measured(measured));
        }
        let life: Vec<String> =
            item.moments.iter().map(|m| format!("{} {} #{}", words::step(m.step), offset(m.at_ns), m.seq)).collect();
        paper.words(8, Ink::Dim, &life.join(", "));
        paper.words(8, if item.unconfirmed { Ink::Red } else { Ink::Plain }, &words::undo(item));
        for trouble in item.trouble.iter().chain(&item.superseded) {
            paper.words(8, Ink::Red, trouble);
        }
    }
}

fn latency(paper: &mut Paper, report: &Report) {
    paper.heading("Baseline beside the time under fault");
    let cell = |of: &Option<Latency>| match of {
        Some(l) => vec![
            l.n.to_string(),
            format!("{} ({})", l.failed, words::failed_share(l)),
            l.p50_ms.map_or_else(|| "-".into(), |ms| format!("{} ms", words::number(ms))),
            l.p99_ms.map_or_else(|| "-".into(), |ms| format!("{} ms", words::number(ms))),
        ],
        None => vec!["-".into(); 4],
    };
    let row = |p: &ProbeReport, when: &str, of: &Option<Latency>| {
        let place = format!("{} from {}", p.probe, report.host_name(&p.host));
        [vec![words::plain(&place), when.to_owned()], cell(of)].concat()
    };
    let rows: Vec<Vec<String>> = report
        .probes
        .iter()
        .flat_map(|p| [row(p, "baseline", &p.baseline), row(p, "under fault", &p.under_fault)])
        .collect();
    paper.table(&["probe", "when", "n", "failed", "median", "p99"], &rows);
    for probe in report.probes.iter().filter(|p| p.refused.is_some()) {
        let why = probe.refused.clone().unwrap_or_default();
        paper.item("!", Ink::Yellow, &format!("{} could not look: {why}", probe.probe));
    }
}

fn record(paper: &mut Paper, report: &Report) {
    paper.heading("What was asked");
    for (target, hosts) in &report.targets {
        let names: Vec<&str> = hosts.iter().map(|h| report.host_name(h)).collect();
        let drawn = if names.is_empty() { "no host".to_owned() } else { names.join(", ") };
        paper.pair("target", &format!("{target} ({}): {drawn}", intent::rule(report, target)));
    }
    if let Some(asked) = &report.experiment {
        for (term, said) in intent::conditions(asked) {
            paper.pair(&term.to_lowercase(), &said);
        }
    }
    paper.pair("seed", &report.seed.to_string());
    paper.pair("intent", &report.intent);
    paper.pair("plan", &report.plan);
    paper.heading("Clocks");
    for clock in &report.clocks {
        let width = clock.map_width.map_or_else(|| "no map".into(), |w| format!("known within {}", w.human()));
        let wall = clock.wall_bound.map_or_else(|| "unsynchronised".into(), |b| format!("within {}", b.human()));
        let maps = count(clock.maps as usize, "map");
        paper.item("-", Ink::Plain, &format!("{}: {width} ({maps}), wall clock {wall}", report.host_name(&clock.host)));
    }
    paper.heading("What this does not show");
    for line in terms::not_shown(report) {
        paper.item("-", Ink::Plain, &line);
    }
    paper.heading("Terms");
    for (term, meaning) in terms::definitions(report) {
        paper.pair(&term.to_lowercase(), &meaning);
    }
}

fn events(paper: &mut Paper, report: &Report) {
    let (lines, left_out) = listed::events(report, EVENTS);
    paper.heading("Events");
    paper.words(0, Ink::Dim, "number, time from the gate, UTC, what");
    for line in lines {
        paper.hanging(&stem(report, line), 34, Ink::Plain, &said(report, line));
    }
    if left_out > 0 {
        let text = format!("{left_out} routine events are left out; --format json has all {}", report.events.len());
        paper.words(0, Ink::Dim, &text);
    }
    let version = env!("CARGO_PKG_VERSION");
    let text = format!("model {} ({}), fracas {version}, from {} events", report.model, report.schema, report.head_seq);
    paper.words(0, Ink::Dim, &text);
}

fn stem(report: &Report, line: &EventLine) -> String {
    let at = times::from_zero(Dur::from_ns(line.at_ns));
    format!("{:>6} {at:>13} {}", format!("#{}", line.seq), words::clock_utc(report, line.at_ns))
}

/// An event in words, with where it was seen.
pub(super) fn said(report: &Report, line: &EventLine) -> String {
    let place = listed::where_seen(report, line).map(|host| format!("{host}: ")).unwrap_or_default();
    let late = listed::known_later(report, line).map(|late| format!(" (known {late} later)")).unwrap_or_default();
    format!("{place}{}{late}", line.text)
}
