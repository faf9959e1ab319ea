//! Reports as text, JSON, Markdown, HTML and JUnit XML, and trends as text and drawings: pure functions from the model's
//! data.
//!
//! They compute no new numbers and judge nothing; what is absent is printed as not measured.

mod alerts;
mod chart;
mod day;
mod html;
mod instants;
mod intent;
mod json;
mod junit;
mod ledgers;
mod listed;
mod markdown;
mod page;
mod plot;
mod svg;
mod terms;
#[cfg(test)]
mod tests;
mod text;
mod trend;
mod words;

pub use self::{
    html::{html, html_among},
    json::json,
    junit::junit,
    markdown::markdown,
    text::{Style, summary, text},
    trend::{html as trends_html, markdown as trends_markdown, png as trends_png, svg as trends_svg, text as trends},
    words::{offset, plain, wall_utc},
};

#[cfg(test)]
pub(crate) use self::trend::tests::fixture as trend_fixture;
