//! The report as Markdown for tickets, wikis and the summary of a CI job: tables that survive a narrow column, long parts
//! folded away. No foreign text can open a tag, a link, a mention or a table cell.

use std::fmt::Write as _;

use fracas_model::{
    event::VerdictWord,
    report::{Judgement, Latency, Report},
    units::Dur,
};

use super::{
    alerts,
    chart::Chart,
    day, instants, intent, ledgers, listed, terms,
    text::{Style, numbers, said, strips},
    words::{self, asked, number, wall_utc},
};
use crate::times::{Zone, from_zero};

/// Events listed at most, so that a job summary (1 MiB) has room for it.
const EVENTS: usize = 1500;
/// Outages listed at most.
const OUTAGES: usize = 100;

/// The whole report.
pub fn markdown(report: &Report) -> String {
    let mut out = verdict(report);
    out += &sections(report);
    out += &services(report);
    out += &data(report);
    out += &alerted(report);
    out += &times_between(report);
    out += &faults(report);
    let style = Style { colour: false, width: 100, zone: Zone::East(0) };
    out += "## Timeline\n\n";
    out += &fenced(&strips(report, &Chart::whole(report), style));
    out += &latency(report);
    out += &folded("Every outage", &outages(report));
    out += &folded("What was asked, clocks, terms", &record(report));
    out += &folded("Events", &events(report));
    let _ = writeln!(
        out,
        "Run {}, {} events, model {} ({}), drawn by Fracas {}.",
        code(report.run.as_str()),
        report.head_seq,
        escape(&report.model),
        code(&report.schema),
        env!("CARGO_PKG_VERSION")
    );
    out
}

/// Foreign text for running text and table cells: everything that Markdown, its tables or HTML could read is escaped.
pub(super) fn escape(text: &str) -> String {
    let text = words::plain(text);
    let text = text.trim();
    let mut safe = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        let (before, after) = (&text[..at], text[at + c.len_utf8()..].chars().next());
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            // Mentions, mathematics, addresses and pictograms are read before backslashes are.
            '@' => safe.push_str("&#64;"),
            '$' => safe.push_str("&#36;"),
            ':' if after.is_some_and(|next| next != ' ') => safe.push_str("&#58;"),
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '#' | '|' | '~' | '!' | '^' => {
                safe.push('\\');
                safe.push(c);
            }
            // Would begin a list or underline a heading where the text begins a line.
            '-' | '+' | '=' if before.is_empty() => {
                safe.push('\\');
                safe.push(c);
            }
            '.' | ')' if before.bytes().all(|b| b.is_ascii_digit()) && after.is_none_or(|next| next == ' ') => {
                safe.push('\\');
                safe.push(c);
            }
            // `www.` would become a link.
            '.' if before.len() >= 3
                && before.is_char_boundary(before.len() - 3)
                && before.to_ascii_lowercase().ends_with("www") =>
            {
                safe.push_str("&#46;");
            }
            c => safe.push(c),
        }
    }
    safe
}

/// Foreign text in bold; never so empty that the signs would stand for something else.
fn bold(text: &str) -> String {
    let safe = escape(text);
    format!("**{}**", if safe.is_empty() { "-" } else { &safe })
}

/// Foreign text between single backticks.
fn code(text: &str) -> String {
    let safe = words::plain(text).replace('`', "'").replace('|', "¦");
    let safe = safe.trim();
    format!("`{}`", if safe.is_empty() { "-" } else { safe })
}

/// A code block with a fence that its content cannot close.
fn fenced(text: &str) -> String {
    let mut longest = 0;
    let mut run = 0;
    for c in text.chars() {
        run = if c == '`' { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    let fence = "`".repeat((longest + 1).max(3));
    format!("{fence}text\n{text}{fence}\n\n")
}

fn folded(title: &str, body: &str) -> String {
    if body.is_empty() {
        return String::new();
    }
    format!("<details>\n<summary>{title}</summary>\n\n{body}\n</details>\n\n")
}

pub(super) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let mut out = format!("| {} |\n|{}\n", heads.join(" | "), " --- |".repeat(heads.len()));
    for row in rows {
        let _ = writeln!(out, "| {} |", row.join(" | "));
    }
    out.push('\n');
    out
}

fn sign(word: &VerdictWord) -> &'static str {
    match word {
        VerdictWord::Pass => "✅",
        VerdictWord::Fail | VerdictWord::Error => "❌",
        VerdictWord::UndoUnconfirmed => "🛑",
        VerdictWord::Inconclusive => "❔",
        VerdictWord::Aborted | VerdictWord::Refused => "⚠️",
    }
}

fn verdict(report: &Report) -> String {
    let v = &report.verdict;
    let sign = sign(&v.word);
    let mut out = format!("# {sign} {}: {}\n\n", escape(&report.name), v.word.name());
    if !report.description.is_empty() {
        let _ = writeln!(out, "{}\n", escape(&report.description));
    }
    let _ = writeln!(out, "**{}** Exit code {}.\n", words::verdict_meaning(&v.word), v.exit_code);
    for reason in &v.reasons {
        let _ = writeln!(out, "- {}", escape(reason));
    }
    out.push('\n');
    let mut doubts: Vec<String> = report.warnings.iter().map(|w| escape(w)).collect();
    if !report.times.finished {
        doubts.push("The run has not ended: everything here may still change.".into());
    }
    if !doubts.is_empty() {
        out += "**Know this before you trust the numbers:**\n\n";
        for doubt in doubts {
            let _ = writeln!(out, "- {doubt}");
        }
        out.push('\n');
    }
    let t = &report.times;
    let lasted = Dur::from_ns(t.last_ns.saturating_sub(t.first_ns)).human();
    let gate = if t.gate_passed { wall_utc(t.origin_wall_ns) } else { "never".into() };
    let ended = if t.finished { format!("{}, after {lasted}", wall_utc(t.ended_wall_ns)) } else { "not yet".into() };
    out += &table(
        &["Run", "Accepted", "Steady state (offset 0)", "Ended", "Asked by", "Environment"],
        &[vec![
            code(report.run.as_str()),
            wall_utc(t.planned_wall_ns),
            gate,
            ended,
            escape(&report.by),
            escape(&report.environment),
        ]],
    );
    out
}

/// The sections of a game day; nothing for a single experiment.
fn sections(report: &Report) -> String {
    let rows = day::rows(report);
    if rows.is_empty() {
        return String::new();
    }
    let mut out = String::from("## Sections\n\n");
    for (term, said) in day::about(report) {
        let _ = writeln!(out, "- **{term}**: {}", escape(&said));
    }
    out.push('\n');
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let why: Vec<String> = row.answers.iter().chain(row.reasons).map(|why| escape(why)).collect();
            let word = format!("{} {}", sign(row.word), row.word.name());
            vec![bold(row.id), escape(&row.what), row.started.clone(), row.ended.clone(), word, why.join("<br>")]
        })
        .collect();
    out + &table(&["Section", "Experiment", "Started", "Ended", "Verdict", "Why"], &cells)
}

fn services(report: &Report) -> String {
    if report.services.is_empty() {
        return String::new();
    }
    let mut rows = Vec::new();
    for service in &report.services {
        let sign = match service.judgement {
            Judgement::Met { .. } => "✅ ",
            Judgement::Missed { .. } => "❌ ",
            Judgement::Inconclusive { .. } | Judgement::NotMeasured { .. } => "❔ ",
            Judgement::NoObjective => "",
        };
        let objective =
            service.rto.map_or_else(|| "none".into(), |rto| format!("{rto} {}", words::rto_from(service.rto_from)));
        let mut row = vec![
            bold(service.service.as_str()),
            objective,
            format!("{sign}{}", words::judgement_name(&service.judgement)),
        ];
        row.extend(
            words::three(service).iter().map(|l| if l.judged { format!("**{}**", l.shown()) } else { l.shown() }),
        );
        rows.push(row);
    }
    let mut out = String::from("## Services\n\n");
    out += &table(&["Service", "Objective", "Judgement", "Outage", "Recovery from fault", "Residual"], &rows);
    for service in report.services.iter().filter(|s| s.judgement != Judgement::NoObjective) {
        let rests = report
            .worst_episode(&service.service)
            .map(|(p, e)| {
                let place = escape(&format!("longest seen by {} from {}", p.probe, report.host_name(&p.host)));
                format!("; {place}, events {}", escape(&numbers(&e.events)))
            })
            .unwrap_or_default();
        let _ = writeln!(
            out,
            "- {} {}: {}{rests}",
            bold(service.service.as_str()),
            words::judgement_name(&service.judgement),
            escape(words::judgement_why(&service.judgement))
        );
    }
    for service in &report.services {
        let told = [
            ("down at once", words::together(service)),
            ("failing looks", words::failing(service)),
            ("up but degraded", words::degraded(service)),
            ("recovery point", ledgers::recovery_point(service)),
        ];
        for (what, text) in told.into_iter().filter_map(|(what, text)| Some((what, text?))) {
            let _ = writeln!(out, "- {} {what}: {}", bold(service.service.as_str()), escape(&text));
        }
    }
    out + "\nOutage: first impact to recovery, on one vantage's clock. Recovery from fault: fault taking effect to recovery. \
           Residual: fault lifted to recovery. Each as the shortest and longest time that the observations allow; the judged \
           one is bold.\n\n"
}

/// What was written and is there; nothing without a ledger.
fn data(report: &Report) -> String {
    let rows = ledgers::rows(report);
    if rows.is_empty() {
        return String::new();
    }
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let result = [Some(&row.result), row.left.as_ref()].into_iter().flatten().chain(&row.spans);
            let result: Vec<String> = result.map(|text| escape(text)).collect();
            vec![bold(&row.name), result.join("<br>"), escape(&row.counts), escape(&row.how)]
        })
        .collect();
    String::from("## Data: what was written and is there\n\n") + &table(&["Ledger", "Lost", "Markers", "How"], &cells)
}

/// What alerting tools told; nothing when they told nothing.
fn alerted(report: &Report) -> String {
    let rows = alerts::rows(report);
    if rows.is_empty() {
        return String::new();
    }
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| vec![bold(&row.name), escape(&row.standing), escape(&row.when), escape(&row.whose)])
        .collect();
    let more = alerts::more(report).map(|more| format!("\n{}.\n", escape(&more))).unwrap_or_default();
    String::from("## Alerts: what alerting tools told\n\n")
        + &table(&["Alert", "Standing", "When", "Whose"], &cells)
        + &more
}

fn times_between(report: &Report) -> String {
    let shown = instants::shown(report);
    if shown.is_empty() {
        return String::new();
    }
    let mut out = String::from("## Times\n\n");
    for timing in shown {
        let rows = instants::metrics(report, timing).into_iter().map(|row| {
            let caveat = if row.caveat.is_empty() { String::new() } else { format!(" ({})", escape(&row.caveat)) };
            let length = escape(&row.length);
            let shown = if row.known { format!("**{length}**{caveat}") } else { length };
            vec![escape(&row.name), shown, escape(&row.definition), escape(&row.clocks)]
        });
        let of = escape(&instants::title(timing));
        out += &table(&[&format!("Of {of}"), "Length", "What it is", "Clocks"], &rows.collect::<Vec<_>>());
        let rows = instants::instants(report, timing).into_iter().map(|row| {
            vec![escape(&row.id), escape(&row.name), escape(&row.when), escape(&row.clock), escape(&row.how)]
        });
        // A title is HTML, not Markdown: no foreign text stands in it.
        let body = table(&["Id", "Instant", "When", "Clock", "How it is known"], &rows.collect::<Vec<_>>());
        out += &folded("Their instants", &body);
    }
    out
}

fn faults(report: &Report) -> String {
    let mut rows = Vec::new();
    for entry in report.entries.iter().filter(|e| e.target.is_some()) {
        let name = format!("{} {}", bold(entry.entry.as_str()), escape(&asked(entry)));
        if entry.items.is_empty() {
            let why = entry.skipped.clone().unwrap_or_else(|| "not applied".into());
            rows.push(vec![name.clone(), "none".into(), escape(&why), "-".into(), "-".into()]);
        }
        for item in &entry.items {
            let measured: Vec<String> = item
                .measured
                .iter()
                .map(|m| {
                    let unit = escape(&m.unit);
                    let asked = m.asked.map(|a| format!("asked {} {unit}, ", number(a))).unwrap_or_default();
                    let p99 = m.p99.map(|p| format!(", p99 {} {unit}", number(p))).unwrap_or_default();
                    let (what, by) = (escape(&m.what), escape(&m.by));
                    format!(
                        "{what}: {asked}measured {}{p99} (n = {}, {by})",
                        bold(&format!("{} {}", number(m.got), m.unit)),
                        m.n
                    )
                })
                .collect();
            rows.push(vec![
                name.clone(),
                escape(report.host_name(&item.host)),
                escape(&words::proof(item)),
                if measured.is_empty() { "no number".into() } else { measured.join("<br>") },
                if item.unconfirmed { format!("🛑 {}", words::undo(item)) } else { words::undo(item) },
            ]);
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    format!("## Faults\n\n{}", table(&["Fault", "Host", "Effect", "Asked and measured", "Undo"], &rows))
}

fn latency(report: &Report) -> String {
    let rows: Vec<Vec<String>> = report
        .probes
        .iter()
        .map(|p| {
            let beside = |show: &dyn Fn(&Latency) -> String| {
                let one = |of: &Option<Latency>| of.as_ref().map_or_else(|| "-".into(), show);
                format!("{} / {}", one(&p.baseline), one(&p.under_fault))
            };
            let ms = |value: Option<f64>| value.map_or_else(|| "-".into(), |ms| format!("{} ms", number(ms)));
            vec![
                format!("{} from {}", escape(p.probe.as_str()), escape(report.host_name(&p.host))),
                beside(&|l| l.n.to_string()),
                beside(&|l| format!("{} ({})", l.failed, words::failed_share(l))),
                beside(&|l| ms(l.p50_ms)),
                beside(&|l| ms(l.p99_ms)),
                p.missed.to_string(),
            ]
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    format!(
        "## Baseline / under fault\n\n{}",
        table(&["Probe", "Looks", "Failed", "Median", "99th percentile", "Missed ticks"], &rows)
    )
}

fn outages(report: &Report) -> String {
    let all: Vec<_> = report.probes.iter().flat_map(|p| p.episodes.iter().map(move |e| (p, e))).collect();
    if all.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<String>> = all
        .iter()
        .take(OUTAGES)
        .map(|(p, e)| {
            let after = e.after_entry.as_ref().map_or_else(|| "before any fault".into(), |x| format!("after {x}"));
            vec![
                escape(&format!("{} from {}, {after}", p.probe, report.host_name(&p.host))),
                words::episode_line(e),
                e.outage.to_string(),
                words::interval(e.recovery_from_fault),
                words::interval(e.residual),
                e.blips.to_string(),
                escape(&numbers(&e.events)),
            ]
        })
        .collect();
    let hidden = all.len().saturating_sub(OUTAGES);
    let rest = if hidden > 0 { format!("{hidden} more are in the JSON form.\n\n") } else { String::new() };
    table(&["Seen by", "When", "Outage", "From fault", "Residual", "Blips", "Events"], &rows) + &rest
}

fn record(report: &Report) -> String {
    let mut out = String::new();
    for (target, hosts) in &report.targets {
        let names: Vec<String> = hosts.iter().map(|h| escape(report.host_name(h))).collect();
        let drawn = if names.is_empty() { "no host".to_owned() } else { names.join(", ") };
        let _ =
            writeln!(out, "- Target {} ({}): {drawn}", escape(target.as_str()), code(&intent::rule(report, target)));
    }
    for (term, said) in report.experiment.iter().flat_map(intent::conditions) {
        let _ = writeln!(out, "- {term}: {}", escape(&said));
    }
    let _ = writeln!(out, "- Document: {}", code(&report.source_name));
    let _ = writeln!(out, "- Seed: {}", report.seed);
    let _ = writeln!(out, "- Digest of intent: {}", code(&report.intent));
    let _ = writeln!(out, "- Digest of the plan: {}\n", code(&report.plan));
    let rows: Vec<Vec<String>> = report
        .clocks
        .iter()
        .map(|c| {
            vec![
                escape(report.host_name(&c.host)),
                c.map_width.map_or_else(|| "no map".into(), Dur::human),
                c.wall_bound.map_or_else(|| "unsynchronised".into(), |b| format!("within {}", b.human())),
            ]
        })
        .collect();
    out += &table(&["Host", "Width of the clock's map", "Wall clock"], &rows);
    out += "What this does not show:\n\n";
    for line in terms::not_shown(report) {
        let _ = writeln!(out, "- {line}");
    }
    out.push('\n');
    for (term, meaning) in terms::definitions(report) {
        let _ = writeln!(out, "- **{term}**: {meaning}");
    }
    out
}

fn events(report: &Report) -> String {
    let (lines, left_out) = listed::events(report, EVENTS);
    let rows: Vec<Vec<String>> = lines
        .into_iter()
        .map(|line| {
            let at = from_zero(Dur::from_ns(line.at_ns));
            vec![line.seq.to_string(), at, words::clock_utc(report, line.at_ns), escape(&said(report, line))]
        })
        .collect();
    let rest = format!("{left_out} of {} events are left out here; the JSON form has all.\n", report.events.len());
    table(&["No.", "From the gate", "UTC", "What"], &rows) + if left_out > 0 { &rest } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_signs_are_escaped_and_plain_words_are_left_alone() {
        assert_eq!(
            escape(" <b> a|b *c* @d $e http://f www.g #1 "),
            r"&lt;b&gt; a\|b \*c\* &#64;d &#36;e http&#58;//f www&#46;g \#1"
        );
        assert_eq!(escape("met: 3.25 s to 3.35 s, within 30s (n = 50)"), "met: 3.25 s to 3.35 s, within 30s (n = 50)");
        assert_eq!((escape("1. x"), escape("- x"), escape("3.5 x")), (r"1\. x".into(), r"\- x".into(), "3.5 x".into()));
        assert_eq!((code("a`b|c"), code(" "), bold("")), ("`a'b¦c`".into(), "`-`".into(), "**-**".into()));
    }

    #[test]
    fn a_fence_is_longer_than_any_in_it() {
        assert_eq!(fenced("a ```` b\n"), "`````text\na ```` b\n`````\n\n");
    }
}
