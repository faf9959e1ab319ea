//! Game days in words: why and by whom, and a row for each section. It judges nothing and knows no layout.

use fracas_model::{event::VerdictWord, report::Report};

use super::words::offset;

/// Why a game day was held and by whom, as term and text; nothing for a single experiment.
pub(super) fn about(report: &Report) -> Vec<(&'static str, String)> {
    let Some(day) = report.experiment.as_ref().and_then(|asked| asked.day.as_ref()) else { return Vec::new() };
    let terms =
        [("Purpose", day.purpose.clone()), ("Owner", day.owner.clone()), ("Participants", day.participants.join(", "))];
    terms.into_iter().filter(|(_, said)| !said.is_empty()).collect()
}

/// One section, as a table shows it.
pub(super) struct Row<'a> {
    pub(super) id: &'a str,
    /// Its experiment and the file that is in.
    pub(super) what: String,
    pub(super) description: &'a str,
    pub(super) started: String,
    pub(super) ended: String,
    pub(super) word: &'a VerdictWord,
    pub(super) reasons: &'a [String],
    /// How its questions were answered.
    pub(super) answers: Vec<String>,
}

/// All sections, in order.
pub(super) fn rows(report: &Report) -> Vec<Row<'_>> {
    let at = |ns: Option<i64>, absent: &str| ns.map_or_else(|| absent.to_owned(), offset);
    let of = |name: &str| report.experiment.as_ref().and_then(|asked| Some(asked.section_of(name)?.id.clone()));
    let row = |section: &'_ fracas_model::report::SectionReport| {
        let asked = report.entries.iter().filter(|entry| of(entry.entry.as_str()).as_ref() == Some(&section.id));
        asked.filter_map(|entry| Some(format!("{}: {}", entry.params, entry.answer.as_ref()?))).collect()
    };
    let sections = report.sections.iter();
    sections
        .map(|section| Row {
            id: section.id.as_str(),
            what: format!("{} ({})", section.name, section.file),
            description: &section.description,
            started: at(section.started_ns, "not started"),
            ended: at(section.ended_ns, if section.started_ns.is_some() { "cut short" } else { "-" }),
            word: &section.verdict.word,
            reasons: &section.verdict.reasons,
            answers: row(section),
        })
        .collect()
}
