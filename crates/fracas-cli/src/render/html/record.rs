//! What the page keeps for the record: what was asked, who and where, clocks, limits, terms, and every event.

use std::fmt::Write as _;

use fracas_model::units::Dur;

use super::{EVENTS, Page};
use crate::{
    render::{
        intent::{conditions, looks_at, rule},
        listed::{self, known_later, where_seen},
        page::{escape, table},
        terms::{definitions, not_shown},
        words::{self, clock_utc},
    },
    times::from_zero,
};

pub(super) fn section(page: &Page<'_>) -> String {
    asked(page) + &clocks(page) + &limits(page) + &terms(page) + &events(page)
}

fn asked(page: &Page<'_>) -> String {
    let r = page.report;
    let mut out = String::from("<section id=\"asked\">\n<h2>What was asked</h2>\n");
    let rows: Vec<Vec<String>> = r
        .targets
        .iter()
        .map(|(target, hosts)| {
            let names: Vec<String> = hosts.iter().map(|h| page.host(h)).collect();
            let drawn = if names.is_empty() { "none".into() } else { names.join(", ") };
            vec![escape(target.as_str()), format!("<code>{}</code>", escape(&rule(r, target))), drawn]
        })
        .collect();
    if !rows.is_empty() {
        out += &table("Targets: the rule, and the hosts drawn by it", "stacked", &["Target", "Rule", "Hosts"], &rows);
    }
    if let Some(experiment) = &r.experiment {
        let rows: Vec<Vec<String>> = experiment
            .probes
            .iter()
            .map(|(id, probe)| {
                let speaks = probe
                    .service
                    .as_ref()
                    .map_or_else(String::new, |s| format!("<small>for {}</small>", escape(s.as_str())));
                let from =
                    probe.from.as_ref().map_or_else(|| "the controller's observer".into(), |t| escape(t.as_str()));
                vec![
                    format!("{}{speaks}", escape(id.as_str())),
                    format!("<span class=\"mono\">{}</span>", escape(&looks_at(r, id))),
                    format!(
                        "from {from}<small>{}, timeout {}</small>",
                        words::pace(probe.every, probe.every_at_rest),
                        probe.timeout
                    ),
                ]
            })
            .collect();
        if !rows.is_empty() {
            out += &table("Probes", "stacked", &["Probe", "Looks at", "How"], &rows);
        }
        let pairs: Vec<(&str, String)> =
            conditions(experiment).into_iter().map(|(term, text)| (term, escape(&text))).collect();
        out += &list(&pairs);
    }
    out += &list(&[
        ("Random seed", r.seed.to_string()),
        ("Digest of intent", format!("<code>{}</code>", escape(&r.intent))),
        ("Digest of the plan", format!("<code>{}</code>", escape(&r.plan))),
    ]);
    out + "</section>\n"
}

fn list(pairs: &[(&str, String)]) -> String {
    let mut out = String::from("<dl class=\"terms\">");
    for (term, text) in pairs {
        let _ = write!(out, "<div><dt>{term}</dt><dd>{text}</dd></div>");
    }
    out + "</dl>\n"
}

fn clocks(page: &Page<'_>) -> String {
    let mut out = String::from(
        "<section id=\"clocks\">\n<h2>Clocks</h2>\n<p>A length on one host is measured on that host's own clock and exact. \
         Between hosts it goes through a map to the controller's clock; the width of the map is part of the length's \
         bounds. Wall clocks serve people only.</p>\n",
    );
    let rows: Vec<Vec<String>> = page
        .report
        .clocks
        .iter()
        .map(|clock| {
            vec![
                page.host(&clock.host),
                clock.map_width.map_or_else(|| "no map".into(), Dur::human),
                clock.maps.to_string(),
                clock.wall_bound.map_or_else(|| "unsynchronised".into(), |b| format!("within {}", b.human())),
            ]
        })
        .collect();
    out += &table(
        "How well each host's clock was known",
        "stacked",
        &["Host", "Width of the tightest map", "Maps", "Wall clock"],
        &rows,
    );
    out + "</section>\n"
}

fn limits(page: &Page<'_>) -> String {
    let lines: String = not_shown(page.report).iter().map(|line| format!("<li>{line}</li>")).collect();
    format!("<section id=\"limits\">\n<h2>What this does not show</h2>\n<ul>{lines}</ul>\n</section>\n")
}

fn terms(page: &Page<'_>) -> String {
    format!("<section id=\"terms\">\n<h2>Terms</h2>\n{}</section>\n", list(&definitions(page.report)))
}

fn events(page: &Page<'_>) -> String {
    let r = page.report;
    let (lines, left_out) = listed::events(r, EVENTS);
    let mut out = String::from("<section id=\"events\">\n<h2>Events</h2>\n");
    let _ = writeln!(
        out,
        "<p class=\"note\">Each event at its own instant, placed on the controller's clock. {}</p>",
        if left_out == 0 {
            "All of the run's events are here.".to_owned()
        } else {
            format!(
                "{left_out} of {} are left out: routine ones (sealed readings, clock maps) on which no number rests by itself. \
                 The JSON form has all.",
                r.events.len()
            )
        }
    );
    out += "<table class=\"events\"><caption>Events by their number in the history</caption>\n<thead><tr>\
        <th scope=\"col\">No.</th><th scope=\"col\">When (offset, UTC)</th><th scope=\"col\">What</th></tr></thead>\n<tbody>";
    for line in lines {
        let place = where_seen(r, line)
            .map_or_else(String::new, |host| format!("<span class=\"where\">{}:</span> ", escape(host)));
        let late = known_later(r, line)
            .map_or_else(String::new, |late| format!(" <span class=\"where\">(known {late} later)</span>"));
        let _ = writeln!(
            out,
            "<tr id=\"e{0}\"><th scope=\"row\">{0}</th><td>{1}<small>{2}</small></td><td>{place}{3}{late}</td></tr>",
            line.seq,
            from_zero(Dur::from_ns(line.at_ns)),
            clock_utc(r, line.at_ns),
            escape(&line.text)
        );
    }
    out + "</tbody></table>\n</section>\n"
}
