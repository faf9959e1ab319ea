//! Instants and the times between them on the page.

use std::fmt::Write as _;

use super::Page;
use crate::render::{
    instants,
    page::{escape, table},
};

pub(super) fn section(page: &Page<'_>) -> String {
    let report = page.report;
    let shown = instants::shown(report);
    if shown.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        "<section id=\"times\">\n<h2>Instants and the times between them</h2>\n<p class=\"note\">Each time is the difference of \
         two named instants, at the shortest and at the longest. What people told is their word, read on the controller's \
         clock.</p>\n",
    );
    for timing in shown {
        let of = escape(&instants::title(timing));
        let _ = writeln!(out, "<h3>{of}</h3>");
        let rows = instants::metrics(report, timing).into_iter().map(|row| {
            let caveat =
                if row.caveat.is_empty() { String::new() } else { format!("<small>{}</small>", escape(&row.caveat)) };
            let length = escape(&row.length);
            let shown = if row.known { format!("<b>{length}</b>{caveat}") } else { length };
            vec![format!("{}<small>{}</small>", escape(&row.name), escape(&row.definition)), shown, escape(&row.clocks)]
        });
        let caption = format!("Times of {of}");
        out += &table(&caption, "", &["Time", "Length", "Clocks"], &rows.collect::<Vec<_>>());
        let rows = instants::instants(report, timing).into_iter().zip(&timing.instants).map(|(row, told)| {
            vec![
                format!("{}<small>{}</small>", escape(&row.name), escape(&row.id)),
                escape(&row.when),
                escape(&row.clock),
                format!("{} {}", escape(&row.how), page.refs(&told.events)),
            ]
        });
        let caption = format!("Instants of {of}, as offsets from the gate");
        out += &table(&caption, "stacked", &["Instant", "When", "Clock", "How it is known"], &rows.collect::<Vec<_>>());
    }
    out + "</section>\n"
}
