//! Reports as text, JSON, Markdown and HTML: pure functions from the report's data to a string.
//!
//! They compute no new numbers and judge nothing; what is absent is printed as not measured.

mod chart;
mod day;
mod html;
mod instants;
mod intent;
mod json;
mod listed;
mod markdown;
mod page;
mod svg;
mod terms;
#[cfg(test)]
mod tests;
mod text;
mod words;

pub use self::{
    html::html,
    json::json,
    markdown::markdown,
    text::{Style, summary, text},
    words::{offset, plain, wall_utc},
};
