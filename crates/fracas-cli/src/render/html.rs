//! The report as one self-contained page: no script, no request, readable on paper, on a phone and by ear.
//!
//! The verdict comes first, then what to know before trusting it, then numbers, drawings and the events behind them.

mod day;
mod faults;
mod instants;
mod record;
mod services;

use std::{collections::BTreeSet, fmt::Write as _};

use fracas_model::{
    event::VerdictWord,
    report::{Judgement, Report},
    trend::Trend,
    units::Dur,
};

use super::{
    chart::Chart,
    listed,
    page::{self, escape, facts},
    svg, trend,
    words::{self, offset, verdict_meaning, wall_utc},
};

/// Events listed one by one at most: some ten megabytes of page.
const EVENTS: usize = 20_000;

/// The whole page.
pub fn html(report: &Report) -> String {
    html_among(report, &[])
}

/// The same with what this run and those before it show together.
pub fn html_among(report: &Report, trends: &[Trend]) -> String {
    let page = Page::new(report);
    let mut body = String::from("<a class=\"skip\" href=\"#events\">To the events</a>\n");
    body += svg::patterns();
    body += &page.head();
    body += "<main>\n";
    body += &page.verdict();
    body += &page.warnings();
    body += &contents(report);
    body += &page.run_facts();
    body += &day::section(&page);
    body += &services::section(&page);
    body += &instants::section(&page);
    if !trends.is_empty() {
        body += "<div id=\"runs\">\n";
        body += &trend::sections(trends, &[]);
        body += "</div>\n";
    }
    body += &page.timeline();
    body += &faults::section(&page);
    body += &services::latency(&page);
    body += &record::section(&page);
    body += "</main>\n";
    body += &page.foot();
    page::page(&format!("{}: {} (run {})", report.name, report.verdict.word.name(), report.run), &body)
}

fn contents(report: &Report) -> String {
    let sections = if report.sections.is_empty() { "" } else { "<li><a href=\"#sections\">Sections</a></li>" };
    let known = !super::instants::shown(report).is_empty();
    let times = if known { "<li><a href=\"#times\">Times</a></li>" } else { "" };
    format!("<nav aria-label=\"Contents\"><ul>{sections}<li><a href=\"#services\">Services</a></li>{times}{CONTENTS}")
}

const CONTENTS: &str = "\
    <li><a href=\"#timeline\">Timeline</a></li>\
    <li><a href=\"#faults\">Faults</a></li><li><a href=\"#baseline\">Baseline and fault</a></li>\
    <li><a href=\"#asked\">What was asked</a></li><li><a href=\"#clocks\">Clocks</a></li>\
    <li><a href=\"#limits\">Limits</a></li><li><a href=\"#terms\">Terms</a></li>\
    <li><a href=\"#events\">Events</a></li></ul></nav>\n";

/// What the sections share.
struct Page<'a> {
    report: &'a Report,
    /// Events that have a row, so that links never lead nowhere.
    listed: BTreeSet<u64>,
}

impl<'a> Page<'a> {
    fn new(report: &'a Report) -> Self {
        Self { report, listed: listed::events(report, EVENTS).0.into_iter().map(|e| e.seq).collect() }
    }

    /// A host's name.
    fn host(&self, host: &fracas_model::id::HostId) -> String {
        escape(self.report.host_name(host))
    }

    /// Links to the rows of events.
    fn refs(&self, seqs: &[u64]) -> String {
        if seqs.is_empty() {
            return String::new();
        }
        let (first, last) = listed::few(seqs);
        let links = |seqs: &[u64]| seqs.iter().map(|seq| self.link(*seq)).collect::<Vec<_>>().join(" ");
        let gap = if last.is_empty() {
            String::new()
        } else {
            format!(" … {} more … {}", seqs.len() - first.len() - last.len(), links(last))
        };
        let word = if seqs.len() == 1 { "event" } else { "events" };
        format!("<span class=\"refs\">{word} {}{gap}</span>", links(first))
    }

    fn link(&self, seq: u64) -> String {
        if self.listed.contains(&seq) { format!("<a href=\"#e{seq}\">#{seq}</a>") } else { format!("#{seq}") }
    }

    fn head(&self) -> String {
        let r = self.report;
        let lead = if r.description.is_empty() {
            String::new()
        } else {
            format!("<p class=\"lead\">{}</p>\n", escape(&r.description))
        };
        format!("<header>\n<p class=\"kicker\">Fracas report</p>\n<h1>{}</h1>\n{lead}</header>\n", escape(&r.name))
    }

    fn verdict(&self) -> String {
        let verdict = &self.report.verdict;
        let (class, sign) = tone(&verdict.word);
        let mut out = format!(
            "<section class=\"verdict {class}\" aria-label=\"Verdict\">\n<p class=\"word\"><span aria-hidden=\"true\">{sign}\
             </span> {}</p>\n<p>{} <span class=\"note\">Exit code {}.</span></p>\n",
            sentence(verdict.word.name()),
            verdict_meaning(&verdict.word),
            verdict.exit_code
        );
        if !self.report.times.finished {
            out += "<p><b>The run has not ended: this is how it stands, and everything may still change.</b></p>\n";
        }
        out += "<ol>";
        for reason in &verdict.reasons {
            let _ = write!(out, "<li>{}</li>", escape(reason));
        }
        out + "</ol>\n</section>\n"
    }

    fn warnings(&self) -> String {
        if self.report.warnings.is_empty() {
            return String::new();
        }
        let lines: String = self.report.warnings.iter().map(|w| format!("<li>{}</li>", escape(w))).collect();
        format!(
            "<section class=\"warnings\">\n<h2>Know this before you trust the numbers</h2>\n<ul>{lines}</ul>\n</section>\n"
        )
    }

    fn run_facts(&self) -> String {
        let (r, t) = (self.report, &self.report.times);
        let lasted = Dur::from_ns(t.last_ns.saturating_sub(t.first_ns)).human();
        let gate = if t.gate_passed { wall_utc(t.origin_wall_ns) } else { "never".into() };
        let ended = if t.finished { wall_utc(t.ended_wall_ns) } else { "not yet".into() };
        facts(&[
            ("Run", format!("<code>{}</code>", escape(r.run.as_str()))),
            ("Accepted", wall_utc(t.planned_wall_ns)),
            ("Steady state held (offset 0)", gate),
            ("Ended", ended),
            ("Lasted", lasted),
            ("Asked by", escape(&r.by)),
            ("Environment", escape(&r.environment)),
            ("Document", format!("<code>{}</code>", escape(&r.source_name))),
        ])
    }

    fn timeline(&self) -> String {
        let r = self.report;
        let whole = Chart::whole(r);
        let mut out = String::from("<section id=\"timeline\">\n<div class=\"together\">\n<h2>Timeline</h2>\n");
        let caption = |title: &str, chart: &Chart| {
            format!("<figcaption>{title} <span>{}</span></figcaption>\n", svg::span(r, chart))
        };
        out += "<p class=\"note\">Offsets count from the gate; below them, the time of day in UTC. All is drawn on the \
            controller's clock. What would be thinner than a pixel is drawn one pixel wide.</p>\n";
        let closer: Vec<(String, Chart)> =
            whole.windows.iter().map(|w| (format!("{}: {}", w.letter, w.title), Chart::closer(r, w))).collect();
        let _ = write!(
            out,
            "<figure>\n{}{}\n",
            caption("The whole run", &whole),
            svg::timeline(r, &whole, "whole", "Timeline of the whole run")
        );
        let mut charts = vec![whole];
        charts.extend(closer.iter().map(|(_, chart)| chart.clone()));
        out += &svg::legend(&charts);
        out += "\n</figure>\n</div>\n";
        for (index, (title, chart)) in closer.iter().enumerate() {
            let drawing = svg::timeline(r, chart, &format!("closer{index}"), &format!("Closer look {title}"));
            let _ = write!(out, "<figure>\n{}{drawing}\n</figure>\n", caption(&escape(title), chart));
        }
        out + "</section>\n"
    }

    fn foot(&self) -> String {
        let r = self.report;
        format!(
            "<footer>\n<p>Folded from {} events of stream <code>run/{}</code> by model {} as <code>{}</code>, drawn by \
             Fracas {}. The verdict and every number follow from these events alone.</p>\n</footer>\n",
            r.head_seq,
            escape(r.run.as_str()),
            escape(&r.model),
            escape(&r.schema),
            env!("CARGO_PKG_VERSION")
        )
    }
}

/// Colour and sign of a verdict.
fn tone(word: &VerdictWord) -> (&'static str, &'static str) {
    match word {
        VerdictWord::Pass => ("pass", "✓"),
        VerdictWord::Fail => ("fail", "✗"),
        VerdictWord::UndoUnconfirmed | VerdictWord::Error => ("fail", "!"),
        VerdictWord::Inconclusive => ("doubt", "?"),
        VerdictWord::Aborted => ("doubt", "■"),
        VerdictWord::Refused => ("calm", "–"),
    }
}

/// A judgement as a coloured word.
fn pill(judgement: &Judgement, what: &str) -> String {
    let (class, sign) = match judgement {
        Judgement::Met { .. } => ("pass", format!("✓ {what} ")),
        Judgement::Missed { .. } => ("fail", format!("✗ {what} ")),
        Judgement::Inconclusive { .. } => ("doubt", "? ".to_owned()),
        Judgement::NotMeasured { .. } => ("doubt", format!("? {what} ")),
        Judgement::NoObjective => ("calm", String::new()),
    };
    format!("<span class=\"pill {class}\">{sign}{}</span>", words::judgement_name(judgement))
}

/// With a capital.
fn sentence(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// An offset, or a dash.
fn at(ns: Option<i64>) -> String {
    ns.map_or_else(|| "–".into(), offset)
}
