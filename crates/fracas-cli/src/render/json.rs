//! The report as it is, indented: the form for machines, with every event.

use fracas_model::report::Report;

/// Pretty JSON with a final newline.
pub fn json(report: &Report) -> String {
    // Plain data with text keys always serialises.
    let mut text = serde_json::to_string_pretty(report).unwrap_or_default();
    text.push('\n');
    text
}
