//! Trends for people: as text, as Markdown, as a page, and as drawings. Every run has its line; no number is computed here.

#[cfg(test)]
pub(crate) mod tests;

use fracas_model::{
    report::Judgement,
    trend::{ChangeWord, Percentile, Point, Trend},
};

use super::{
    markdown::{escape as marked, table as marked_table},
    page::{self, escape},
    plot,
    text::Style,
    words::{judgement_name, plain},
};
use crate::{live::span, table, times, words::count};

/// Digits of a digest that tell intents apart for people.
const DIGEST: usize = 8;

/// For a terminal or a text file.
pub fn text(shown: &[Trend], earlier: &[Trend], style: Style) -> String {
    let mut out = String::new();
    for trend in shown {
        if !out.is_empty() {
            out.push('\n');
        }
        let head = span::Line::new().with(span::Style::Bold, plain(trend.service.as_str()));
        let head = head.with(span::Style::Plain, format!("  {}", plain(&trend.experiments.join(", "))));
        out += &format!("{}\n", head.render(style.colour));
        for line in lines(trend) {
            out += &format!("  {}\n", plain(&line));
        }
        if let Some(change) = &trend.change {
            let ink = match change.word {
                ChangeWord::Slower => span::Style::Red,
                ChangeWord::NotSlower => span::Style::Green,
                ChangeWord::CannotTell => span::Style::Yellow,
            };
            let line = span::Line::new().with(span::Style::Plain, "  ").with(ink, plain(&said(trend)));
            out += &format!("{}\n", line.render(style.colour));
        }
        let rows: Vec<Vec<String>> = trend.points.iter().rev().map(|point| row(point, style)).collect();
        out.push('\n');
        out += &table::table(style.width, &HEADS, &rows);
    }
    if !earlier.is_empty() {
        out.push('\n');
    }
    for trend in earlier {
        out += &format!("{}\n", plain(&one_line(trend)));
    }
    out
}

const HEADS: [&str; 6] = ["run", "started", "recovery", "objective", "verdict", "seed"];

/// What stands above the runs, one thing a line.
fn lines(trend: &Trend) -> Vec<String> {
    let short = |digest: &String| digest.get(..DIGEST).unwrap_or(digest).to_owned();
    let intents: Vec<String> = trend.intents.iter().map(short).collect();
    let mixed = if intents.len() > 1 { "intents mixed: " } else { "intent " };
    let aside = trend.points.len() - trend.n;
    let aside = if aside > 0 { format!(", {} without effect not counted", count(aside, "run")) } else { String::new() };
    let mut lines =
        vec![format!("n = {}, {} cut short{aside}; {mixed}{}", trend.n, trend.censored, intents.join(", "))];
    if let Some(rto) = trend.points.last().and_then(|point| point.rto) {
        let bound =
            trend.all_met_bound.map(|bound| format!("; chance to meet it at least {:.0} % (95 %)", bound * 100.0));
        let bound = bound.unwrap_or_default();
        lines.push(format!("objective {rto}: met {}, missed {} of {}{bound}", trend.met, trend.missed, trend.n));
    }
    lines.extend(trend.percentiles.iter().map(percentile));
    lines
}

/// `P95 3.10 s to 3.20 s (of these runs), at most 4.00 s (95 %)`, or why there is none.
fn percentile(one: &Percentile) -> String {
    let name = if one.p > 0.5 { format!("P{:.0}", one.p * 100.0) } else { "median".to_owned() };
    let Some(of_runs) = one.of_runs else { return format!("n too small for {name} ({} needed)", one.needs) };
    let bounds = match (one.at_least, one.at_most) {
        (Some(low), Some(high)) => format!("{} to {} (95 %)", low.human_down(), high.human_up()),
        (Some(low), None) => format!("at least {} (97.5 %)", low.human_down()),
        (None, Some(high)) => format!("at most {} (95 %)", high.human_up()),
        (None, None) => "no bounds: too few runs, or too many cut short".to_owned(),
    };
    format!("{name} {of_runs} in these runs; of all such runs {bounds}")
}

fn said(trend: &Trend) -> String {
    trend.change.as_ref().map(|change| format!("{}: {}", word(change.word), change.why)).unwrap_or_default()
}

fn word(word: ChangeWord) -> &'static str {
    match word {
        ChangeWord::Slower => "SLOWER",
        ChangeWord::NotSlower => "not slower",
        ChangeWord::CannotTell => "cannot tell",
    }
}

fn length(point: &Point) -> String {
    point.length.map_or_else(|| "no fault took effect".to_owned(), |length| length.to_string())
}

fn objective(point: &Point) -> String {
    let rto = point.rto.map(|rto| format!(" ({rto})")).unwrap_or_default();
    format!("{}{rto}", judgement_name(&point.judgement))
}

fn row(point: &Point, style: Style) -> Vec<String> {
    vec![
        plain(point.run.as_str()),
        times::local_second(point.started_wall_ns, style.zone),
        length(point),
        objective(point),
        point.verdict.name().to_owned(),
        point.seed.to_string(),
    ]
}

fn one_line(trend: &Trend) -> String {
    let digest = trend.intents.first().map_or("", |digest| digest.get(..DIGEST).unwrap_or(digest));
    let median = trend.percentiles.first().and_then(|one| one.of_runs);
    let median = median.map(|median| format!(", median {median}")).unwrap_or_default();
    format!(
        "earlier, with another document, parameters or target rules (intent {digest}): {}, {}{median}; --all-intents mixes them",
        trend.service,
        count(trend.points.len(), "run")
    )
}

/// For tickets and the summary of a CI job.
pub fn markdown(shown: &[Trend], earlier: &[Trend]) -> String {
    let mut out = String::new();
    for trend in shown {
        let sign = match trend.change.as_ref().map(|change| change.word) {
            Some(ChangeWord::Slower) => "❌ ",
            Some(ChangeWord::NotSlower) => "✅ ",
            Some(ChangeWord::CannotTell) => "❔ ",
            None => "",
        };
        let (service, experiments) = (marked(trend.service.as_str()), marked(&trend.experiments.join(", ")));
        out += &format!("## {sign}{service}: recovery in {experiments}\n\n");
        if trend.change.is_some() {
            out += &format!("**{}**\n\n", marked(&said(trend)));
        }
        for line in lines(trend) {
            out += &format!("- {}\n", marked(&line));
        }
        out.push('\n');
        let style = Style { colour: false, width: 100, zone: times::Zone::East(0) };
        let cells = |point: &Point| row(point, style).iter().map(|cell| marked(cell)).collect();
        let rows: Vec<Vec<String>> = trend.points.iter().rev().map(cells).collect();
        out += &marked_table(&HEADS, &rows);
    }
    for trend in earlier {
        out += &format!("{}\n\n", marked(&one_line(trend)));
    }
    out
}

/// One self-contained page with the drawings.
pub fn html(shown: &[Trend], earlier: &[Trend]) -> String {
    let mut body =
        String::from("<header>\n<p class=\"kicker\">Fracas trend</p>\n<h1>Recovery over runs</h1>\n</header>\n");
    body += "<main>\n";
    body += &sections(shown, earlier);
    body += "</main>\n";
    page::page("Recovery over runs", &body)
}

/// The part of a page that shows trends.
pub(super) fn sections(shown: &[Trend], earlier: &[Trend]) -> String {
    let mut out = String::new();
    for trend in shown {
        let (service, experiments) = (escape(trend.service.as_str()), escape(&trend.experiments.join(", ")));
        out += &format!("<section>\n<h2>{service}: recovery in {experiments}</h2>\n");
        if trend.change.is_some() {
            out += &format!("<p><b>{}</b></p>\n", escape(&said(trend)));
        }
        let facts: String = lines(trend).iter().map(|line| format!("<li>{}</li>", escape(line))).collect();
        out +=
            &format!("<ul>{facts}</ul>\n<figure>{}</figure>\n", plot::svg(&plot::drawing(std::slice::from_ref(trend))));
        let style = Style { colour: false, width: 100, zone: times::Zone::East(0) };
        let cells = |point: &Point| {
            let mut cells: Vec<String> = row(point, style).iter().map(|cell| escape(cell)).collect();
            cells[3] = format!("<span class=\"pill {}\">{}</span>", class(&point.judgement), cells[3]);
            cells
        };
        let rows: Vec<Vec<String>> = trend.points.iter().rev().map(cells).collect();
        out += &page::table("Every run, the newest first", "stacked", &HEADS, &rows);
        out += "</section>\n";
    }
    for trend in earlier {
        out += &format!("<p class=\"note\">{}</p>\n", escape(&one_line(trend)));
    }
    out
}

fn class(judgement: &Judgement) -> &'static str {
    match judgement {
        Judgement::Met { .. } => "pass",
        Judgement::Missed { .. } => "fail",
        Judgement::Inconclusive { .. } | Judgement::NotMeasured { .. } => "doubt",
        Judgement::NoObjective => "calm",
    }
}

/// A drawing that stands alone.
pub fn svg(shown: &[Trend]) -> String {
    plot::svg(&plot::drawing(shown))
}

/// The same as a picture.
pub fn png(shown: &[Trend]) -> Vec<u8> {
    plot::png(&plot::drawing(shown))
}
