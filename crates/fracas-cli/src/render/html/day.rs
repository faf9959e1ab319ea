//! The sections of a game day on the page: a table of all, and what each was judged by.

use std::fmt::Write as _;

use super::{Page, sentence, tone};
use crate::render::{
    day,
    page::{escape, facts, table},
};

/// Nothing for a single experiment.
pub(super) fn section(page: &Page<'_>) -> String {
    let rows = day::rows(page.report);
    if rows.is_empty() {
        return String::new();
    }
    let mut out = String::from("<section id=\"sections\">\n<h2>Sections</h2>\n");
    let about = day::about(page.report);
    let about: Vec<(&str, String)> = about.into_iter().map(|(term, said)| (term, escape(&said))).collect();
    if !about.is_empty() {
        out += &facts(&about);
    }
    let cells: Vec<Vec<String>> = rows
        .iter()
        .enumerate()
        .map(|(index, row)| {
            vec![
                format!("<a href=\"#section{index}\">{}</a>", escape(row.id)),
                escape(&row.what),
                row.started.clone(),
                row.ended.clone(),
                pill(row),
            ]
        })
        .collect();
    out += &table(
        "The run's verdict is the worst of its sections'.",
        "stacked",
        &["Section", "Experiment", "Started", "Ended", "Verdict"],
        &cells,
    );
    for (index, row) in rows.iter().enumerate() {
        out += &card(index, row);
    }
    out + "</section>\n"
}

fn card(index: usize, row: &day::Row<'_>) -> String {
    let mut out = format!(
        "<article class=\"card\" id=\"section{index}\">\n<header><h3>{}</h3>{}</header>\n",
        escape(row.id),
        pill(row)
    );
    if !row.description.is_empty() {
        let _ = writeln!(out, "<p>{}</p>", escape(row.description));
    }
    for answer in &row.answers {
        let _ = writeln!(out, "<p>Asked: <b>{}</b></p>", escape(answer));
    }
    let reasons: String = row.reasons.iter().map(|reason| format!("<li>{}</li>", escape(reason))).collect();
    let _ = writeln!(out, "<ul>{reasons}</ul>");
    out + "</article>\n"
}

fn pill(row: &day::Row<'_>) -> String {
    let (class, sign) = tone(row.word);
    format!("<span class=\"pill {class}\">{sign} {}</span>", sentence(row.word.name()))
}
