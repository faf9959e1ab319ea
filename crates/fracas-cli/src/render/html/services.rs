//! Services on the page: the three intervals against the objective, every outage, and latency beside latency under fault.

use std::fmt::Write as _;

use fracas_model::{
    report::{Judgement, Latency, ProbeReport, ServiceReport},
    units::Dur,
};

use super::{Page, pill, sentence};
use crate::{
    render::{
        alerts, ledgers,
        page::{escape, facts, table},
        svg,
        words::{self, before_revert, episode_line, judgement_why, rto_from, three},
    },
    words::count,
};

/// Outages listed one by one at most.
const OUTAGES: usize = 200;

pub(super) fn section(page: &Page<'_>) -> String {
    let mut out = String::from("<section id=\"services\">\n<h2>Services</h2>\n");
    if page.report.services.is_empty() {
        out += "<p>The document names no service: nothing was to recover.</p>\n";
        return out + &alerted(page) + "</section>\n";
    }
    out += "<p class=\"note\">Every length is given as the shortest and the longest time that the observations allow; the \
        truth lies in between. In the bars, the pale part is certain and the strong part is where the length ends.</p>\n";
    for (index, service) in page.report.services.iter().enumerate() {
        out += &card(page, index, service);
    }
    out += &outages(page);
    out += &data(page);
    out += &alerted(page);
    out + "</section>\n"
}

/// What was written and is there; nothing without a ledger.
fn data(page: &Page<'_>) -> String {
    let rows = ledgers::rows(page.report);
    if rows.is_empty() {
        return String::new();
    }
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let small = |text: &String| format!("<small>{}</small>", escape(text));
            let spans: String = row.left.iter().chain(&row.spans).map(small).collect();
            vec![
                format!("{}{}", escape(&row.name), small(&row.how)),
                format!("{}{spans}", escape(&row.result)),
                escape(&row.counts),
            ]
        })
        .collect();
    let caption =
        "Markers that ledgers wrote through the services' own client paths, and read back after all was undone";
    format!(
        "<h3 id=\"data\">Data: what was written and is there</h3>\n{}",
        table(caption, "stacked", &["Ledger", "Lost", "Markers"], &cells)
    )
}

/// What alerting tools told; nothing when they told nothing.
fn alerted(page: &Page<'_>) -> String {
    let rows = alerts::rows(page.report);
    if rows.is_empty() {
        return String::new();
    }
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            vec![
                format!("{}<small>{}</small>", escape(&row.name), escape(&row.whose)),
                escape(&row.standing),
                escape(&row.when),
            ]
        })
        .collect();
    let more = alerts::more(page.report).map(|more| format!("<p class=\"note\">{}.</p>\n", escape(&more)));
    format!(
        "<h3 id=\"alerts\">Alerts: what alerting tools told</h3>\n{}{}",
        table("Each firing of an alert once, by its own time", "stacked", &["Alert", "Standing", "When"], &cells),
        more.unwrap_or_default()
    )
}

fn card(page: &Page<'_>, index: usize, service: &ServiceReport) -> String {
    let objective = match service.rto {
        Some(rto) => format!("Objective: back within <b>{rto}</b>, counted {}.", rto_from(service.rto_from)),
        None => "No objective.".into(),
    };
    let point = service.recovery_point.as_ref().map(|point| &point.judgement);
    let point = point.filter(|judgement| **judgement != Judgement::NoObjective);
    let mut out = format!(
        "<article class=\"card\" id=\"service{index}\">\n<header><h3>{}</h3>{}{}</header>\n<p>{objective} {}</p>\n",
        escape(service.service.as_str()),
        pill(&service.judgement, "objective"),
        point.map(|judgement| pill(judgement, "recovery point")).unwrap_or_default(),
        match &service.judgement {
            Judgement::NoObjective => String::new(),
            judgement =>
                format!("{}: {}.", sentence(words::judgement_name(judgement)), escape(judgement_why(judgement))),
        }
    );
    if let Some(promises) = words::promises(service) {
        let _ = writeln!(out, "<p class=\"note\">{}.</p>", sentence(&escape(&promises)));
    }
    if let Some(drawing) = svg::intervals(service, &format!("service{index}-lengths")) {
        let _ = writeln!(out, "<figure>{drawing}</figure>");
    }
    out += &lengths(service);
    let mut told = vec![
        ("Outages after the first fault", service.outages.to_string()),
        ("Up again while the fault was active", before_revert(service).to_owned()),
        ("Down in all", words::interval(service.downtime)),
        ("Returns that did not last (blips)", service.blips.to_string()),
        ("Changes", format!("{} down, {} up", service.down_edges, service.up_edges)),
        ("Outages before the first fault", service.pre_existing.to_string()),
    ];
    if service.span.is_some() {
        told.insert(1, ("First impact to last recovery", words::interval(service.span)));
    }
    told.extend(words::together(service).map(|seen| ("Down at once", seen)));
    told.extend(words::failing(service).map(|share| ("Failing looks", share)));
    told.extend(words::degraded(service).map(|slow| ("Up but degraded", slow)));
    let point = ledgers::recovery_point(service).map(|point| escape(&point));
    if let Some(point) = &point {
        told.push(("Recovery point", point.clone()));
    }
    out += &facts(&told);
    if let Some((probe, episode)) = page.report.worst_episode(&service.service) {
        let _ = writeln!(
            out,
            "<p class=\"note\">The longest outage was seen by {} from {}: {}. {}</p>",
            escape(probe.probe.as_str()),
            page.host(&probe.host),
            episode_line(episode),
            page.refs(&episode.events)
        );
    }
    out + "</article>\n"
}

fn lengths(service: &ServiceReport) -> String {
    let row = |length: &words::Length| {
        let judged = if length.judged { " <b>(judged)</b>" } else { "" };
        let name = format!("{}{judged}<small>{}</small>", length.name, length.meaning);
        match length.value {
            Some(value) => {
                let hi = value.hi.map_or_else(|| "no end was seen".into(), Dur::human_up);
                vec![name, value.lo.human_down(), hi]
            }
            None => vec![name, length.absent.to_owned()],
        }
    };
    let rows: Vec<Vec<String>> = three(service).iter().map(row).collect();
    let caption = format!(
        "The three intervals of {}; of several outages, probes and vantages the worst",
        escape(service.service.as_str())
    );
    table(&caption, "", &["Interval", "Shortest", "Longest"], &rows)
}

fn outages(page: &Page<'_>) -> String {
    let all: Vec<_> = page.report.probes.iter().flat_map(|p| p.episodes.iter().map(move |e| (p, e))).collect();
    if all.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<String>> = all
        .iter()
        .take(OUTAGES)
        .map(|(probe, e)| {
            let cause = match &e.after_entry {
                _ if e.pre_existing => "before any fault".to_owned(),
                Some(entry) => format!("after {}", escape(entry.as_str())),
                None => String::new(),
            };
            let extra = |name: &str, value| match value {
                Some(value) => format!("<small>{name} {value}</small>"),
                None => String::new(),
            };
            let blips = if e.blips > 0 {
                format!("<small>{}, down {} of it</small>", count(e.blips as usize, "blip"), e.downtime)
            } else {
                String::new()
            };
            vec![
                format!(
                    "{}<small>from {}</small><small>{cause}</small>",
                    escape(probe.probe.as_str()),
                    page.host(&probe.host)
                ),
                episode_line(e),
                format!(
                    "{}{}{}{blips}",
                    e.outage,
                    extra("from fault", e.recovery_from_fault),
                    extra("residual", e.residual)
                ),
                words::judgement_name(&e.judgement).to_owned(),
                page.refs(&e.events),
            ]
        })
        .collect();
    let hidden = all.len().saturating_sub(OUTAGES);
    let rest = if hidden > 0 { format!("; {hidden} more are in the JSON form") } else { String::new() };
    let caption = format!("By probe and vantage, as offsets from the gate{rest}");
    format!(
        "<h3>Every outage</h3>\n{}",
        table(&caption, "stacked outages", &["Seen by", "When", "Length", "Judgement", "Rests on"], &rows)
    )
}

/// Latency and failures before the first fault beside those under fault, per probe and vantage.
pub(super) fn latency(page: &Page<'_>) -> String {
    let mut out = String::from(
        "<section id=\"baseline\">\n<h2>Baseline beside the time under fault</h2>\n<p class=\"note\">Baseline: all looks before \
         the first fault. Under fault: looks while a fault was active or the service was out. Latencies are those of looks \
         that succeeded.</p>\n<div class=\"cards\">\n",
    );
    for probe in &page.report.probes {
        out += &beside(page, probe);
    }
    if page.report.probes.is_empty() {
        out += "<p>No probe looked.</p>";
    }
    out + "</div>\n</section>\n"
}

fn beside(page: &Page<'_>, probe: &ProbeReport) -> String {
    let title = format!("{} from {}", escape(probe.probe.as_str()), page.host(&probe.host));
    let mut out = format!("<div class=\"card\">\n<h3>{title}</h3>\n");
    if let Some(why) = &probe.refused {
        let _ = write!(out, "<p class=\"trouble-note\">It could not look: {}</p>\n</div>\n", escape(why));
        return out;
    }
    let cell = |of: &Option<Latency>, show: &dyn Fn(&Latency) -> String| match of {
        Some(latency) => show(latency),
        None => "no readings".into(),
    };
    let row = |name: &str, show: &dyn Fn(&Latency) -> String| {
        vec![name.to_owned(), cell(&probe.baseline, show), cell(&probe.under_fault, show)]
    };
    let rows = [
        row("Looks (n)", &|l| l.n.to_string()),
        row("Failed", &|l| format!("{} ({})", l.failed, words::failed_share(l))),
        row("Median", &|l| words::percentile(l.p50_ms, 5)),
        row("99th percentile", &|l| words::percentile(l.p99_ms, 299)),
    ];
    let caption = format!(
        "{}, {}, timeout {}; in all {}, {} failed, {} missed",
        escape(&probe.kind),
        words::pace(probe.every, probe.every_at_rest),
        probe.timeout,
        count(probe.looks as usize, "look"),
        probe.failed,
        count(probe.missed as usize, "tick")
    );
    out += &table(&caption, "", &["", "Baseline", "Under fault"], &rows);
    out + "</div>\n"
}
