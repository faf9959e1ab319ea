//! Faults on the page: asked and measured per entry and host, and each fault's life with the events that tell it.

use std::fmt::Write as _;

use fracas_model::report::{EntryReport, ItemReport, ItemStep};

use super::{Page, at};
use crate::{
    render::{
        intent,
        page::{escape, table},
        words::{self, asked, number, offset},
    },
    words::count,
};

pub(super) fn section(page: &Page<'_>) -> String {
    let mut out = String::from("<section id=\"faults\">\n<h2>Faults: asked and measured</h2>\n");
    for (index, entry) in page.report.entries.iter().enumerate() {
        out += &card(page, index, entry);
    }
    if page.report.entries.is_empty() {
        out += "<p>The history holds no timeline.</p>\n";
    }
    out + "</section>\n"
}

fn card(page: &Page<'_>, index: usize, entry: &EntryReport) -> String {
    let mut out = format!(
        "<article class=\"card\" id=\"entry{index}\">\n<header><h3>{}</h3>{}</header>\n",
        escape(entry.entry.as_str()),
        state(entry)
    );
    let trigger = intent::trigger(page.report, entry);
    let when = if trigger.is_empty() { String::new() } else { format!(", {}", escape(&trigger)) };
    let on = entry.target.as_ref().map_or_else(String::new, |target| {
        let drawn = page.report.targets.get(target).map_or(0, Vec::len);
        format!(", on {} ({})", escape(target.as_str()), count(drawn, "host"))
    });
    let free = if entry.required { "" } else { " The run may pass without its effect being verified." };
    let _ = writeln!(out, "<p>Asked: <b>{}</b>{on}{when}.{free}</p>", escape(&asked(entry)));
    let started =
        entry.started_ns.map_or_else(|| "It was not started".to_owned(), |ns| format!("Started at {}", offset(ns)));
    let ended = entry.ended_ns.map_or_else(String::new, |ns| format!(", ended at {}", offset(ns)));
    let why = entry.skipped.as_ref().or(entry.failed.as_ref()).or(entry.answer.as_ref());
    let skipped = why.map_or_else(String::new, |why| format!(": {}", escape(why)));
    let _ = writeln!(out, "<p class=\"note\">{started}{ended}{skipped}.</p>");
    if !entry.items.is_empty() {
        out += &numbers(page, entry);
        out += &lives(page, entry);
    }
    for item in &entry.items {
        let host = page.host(&item.host);
        for trouble in &item.trouble {
            let _ = writeln!(out, "<p class=\"trouble-note\">{host}: {}</p>", escape(trouble));
        }
        for thing in &item.superseded {
            let _ = writeln!(out, "<p>{host}: found changed by others and left alone: {}</p>", escape(thing));
        }
    }
    out + "</article>\n"
}

/// The worst that can be said of an entry's items, as a coloured word.
fn state(entry: &EntryReport) -> String {
    let any = |test: &dyn Fn(&ItemReport) -> bool| entry.items.iter().any(test);
    let verified = |item: &ItemReport| matches!(item.proof, Some(fracas_model::event::Proof::Verified));
    let (class, word) = if entry.target.is_none() && entry.failed.is_some() {
        ("doubt", "■ came to nothing")
    } else if entry.target.is_none() {
        ("calm", entry.action.as_str())
    } else if any(&|i| i.unconfirmed) {
        ("fail", "! undo not confirmed")
    } else if entry.items.is_empty() {
        ("calm", "not applied")
    } else if any(&|i| !i.trouble.is_empty()) {
        ("fail", "✗ trouble")
    } else if any(&|i| !verified(i)) {
        ("doubt", "? not verified on every host")
    } else if any(&|i| !i.one_shot) {
        ("pass", "✓ verified, undone")
    } else {
        ("pass", "✓ verified")
    };
    format!("<span class=\"pill {class}\">{word}</span>")
}

fn numbers(page: &Page<'_>, entry: &EntryReport) -> String {
    let mut rows = Vec::new();
    for item in &entry.items {
        let host = attempt(page, item);
        let proof = escape(&words::proof(item));
        let check = item
            .moments
            .iter()
            .rev()
            .find(|m| matches!(m.step, ItemStep::Verified | ItemStep::Ineffective | ItemStep::Unverified));
        let rests = check.map_or_else(String::new, |m| format!("<small>{}</small>", page.refs(&[m.seq])));
        if item.measured.is_empty() {
            let none = "no number".to_owned();
            rows.push(vec![host, format!("{proof}{rests}"), "–".into(), "–".into(), none, "–".into()]);
            continue;
        }
        for m in &item.measured {
            let unit = escape(&m.unit);
            let asked = m.asked.map_or_else(|| "no number".into(), |a| format!("{} {unit}", number(a)));
            let p99 =
                m.p99.map_or_else(String::new, |p| format!("<small>99th percentile {} {unit}</small>", number(p)));
            rows.push(vec![
                host.clone(),
                format!("{proof}{rests}"),
                escape(&m.what),
                asked,
                format!("<b>{} {unit}</b>{p99}", number(m.got)),
                format!("n = {}<small>{}</small>", m.n, escape(&m.by)),
            ]);
        }
    }
    let caption = format!("{}: asked and measured on each host", escape(entry.entry.as_str()));
    table(&caption, "stacked", &["Host", "Effect", "What", "Asked", "Measured", "Seen by"], &rows)
}

fn attempt(page: &Page<'_>, item: &ItemReport) -> String {
    let mut host = page.host(&item.host);
    if item.occurrence > 0 {
        let _ = write!(host, "<small>repeat {}</small>", item.occurrence);
    }
    if item.generation > 1 {
        let _ = write!(host, "<small>attempt {}</small>", item.generation);
    }
    host
}

fn lives(page: &Page<'_>, entry: &EntryReport) -> String {
    let rows: Vec<Vec<String>> = entry
        .items
        .iter()
        .map(|item| {
            let told = |steps: &[ItemStep]| {
                let moment = item.moments.iter().find(|m| steps.contains(&m.step));
                moment.map_or_else(
                    || "–".into(),
                    |m| format!("{}<small>{}</small>", offset(m.at_ns), page.refs(&[m.seq])),
                )
            };
            let effective = match item.moments.iter().find(|m| matches!(m.step, ItemStep::Active | ItemStep::Spent)) {
                Some(m) => {
                    let word = if item.one_shot { "fired " } else { "" };
                    format!("{word}{}<small>{}</small>", at(item.effective_ns), page.refs(&[m.seq]))
                }
                None => "never".into(),
            };
            let summary = if item.summary.is_empty() {
                String::new()
            } else {
                format!("<small>{}</small>", escape(&item.summary))
            };
            vec![
                format!("{}{summary}", attempt(page, item)),
                told(&[ItemStep::Applying]),
                effective,
                told(&[ItemStep::Undoing]),
                format!("{}<small>{}</small>", words::undo(item), refs_of(page, item, ItemStep::Undone)),
            ]
        })
        .collect();
    let caption = format!("{}: its life on each host, as offsets from the gate", escape(entry.entry.as_str()));
    table(&caption, "stacked", &["Host", "Applying", "In effect", "Undoing", "End"], &rows)
}

fn refs_of(page: &Page<'_>, item: &ItemReport, step: ItemStep) -> String {
    let seqs: Vec<u64> = item.moments.iter().filter(|m| m.step == step).map(|m| m.seq).collect();
    page.refs(&seqs)
}
