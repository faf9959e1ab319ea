//! The words of a notice as the operator wants them: a subject and a text with named places.
//!
//! A pattern is checked when the configuration is read; filling it in cannot fail.

use fracas_model::diagnostic::nearest;
use serde::{Deserialize, Serialize};

use super::notice::{Notice, PLACEHOLDERS, one_line};

/// Longest subject, in characters.
const LONGEST_SUBJECT: usize = 250;

/// Patterns for the words of a notice; where one is absent the usual words stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Template {
    /// For the one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Pattern>,
    /// For the text below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Pattern>,
}

/// A text with `${name}` in it; `$${` stands for the characters `${`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    source: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Place(&'static str),
}

/// Why a text is no pattern, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}: {instead}")]
pub struct BadPattern {
    /// What is wrong.
    pub why: String,
    /// The way out.
    pub instead: String,
}

/// The words of one notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Words {
    /// One line.
    pub(super) subject: String,
    /// Any number of lines.
    pub(super) text: String,
}

impl Template {
    /// The words for a notice.
    pub(super) fn words(&self, notice: &Notice) -> Words {
        let subject = self.subject.as_ref().map_or_else(|| notice.summary.clone(), |pattern| pattern.filled(notice));
        let text = self.text.as_ref().map_or_else(|| notice.details(), |pattern| pattern.filled(notice));
        Words { subject: one_line(&subject, LONGEST_SUBJECT), text }
    }
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// When a name is not one of [`PLACEHOLDERS`], or a brace is not closed.
    pub fn read(source: &str) -> Result<Self, BadPattern> {
        let (mut parts, mut rest) = (Vec::new(), source);
        while let Some(at) = rest.find("${") {
            let (before, after) = (&rest[..at], &rest[at + 2..]);
            if let Some(before) = before.strip_suffix('$') {
                parts.push(Part::Text(format!("{before}${{")));
                rest = after;
                continue;
            }
            let Some((name, behind)) = after.split_once('}') else {
                let (why, instead) = ("`${` is not closed", "write ${name}, or $${ for the characters themselves");
                return Err(BadPattern { why: why.into(), instead: instead.into() });
            };
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Place(place(name.trim())?));
            rest = behind;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self { source: source.to_owned(), parts })
    }

    fn filled(&self, notice: &Notice) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Place(name) => notice.value(name),
        };
        self.parts.iter().map(part).collect()
    }
}

fn place(name: &str) -> Result<&'static str, BadPattern> {
    let known = PLACEHOLDERS.into_iter().find(|known| *known == name);
    known.ok_or_else(|| BadPattern {
        why: format!("there is nothing called `{}` in a notice", one_line(name, 64)),
        instead: match nearest(name, PLACEHOLDERS) {
            Some(near) => format!("did you mean `${{{near}}}`?"),
            None => format!("there are {}", PLACEHOLDERS.join(", ")),
        },
    })
}

impl TryFrom<String> for Pattern {
    type Error = BadPattern;

    fn try_from(source: String) -> Result<Self, BadPattern> {
        Self::read(&source)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.source
    }
}

#[cfg(test)]
mod tests {
    use fracas_model::time::{ClockId, Stamp};

    use super::*;

    fn notice() -> Notice {
        let clock = ClockId { host: "c".into(), boot: "b".into() };
        let at = Stamp { clock, boot_ns: 0, wall_ns: 1_795_488_300_000_000_000, bound_ns: 0 };
        let mut notice = Notice::test("test/1".into(), at, "ops", "admin");
        notice.fields.push(("reason", vec!["one", "two"].into()));
        notice
    }

    fn filled(pattern: &str) -> String {
        Pattern::read(pattern).unwrap().filled(&notice())
    }

    #[test]
    fn places_are_filled_and_what_a_notice_does_not_have_is_empty() {
        assert_eq!(filled("[${event}] ${time}, ${ by }"), "[test] 2026-11-24T02:45:00.000Z, admin");
        assert_eq!(filled("run <${run}> ${reason}"), "run <> one; two");
        assert_eq!(filled("$${by} costs $5 {by}"), "${by} costs $5 {by}");
        assert_eq!(filled(""), "");
    }

    #[test]
    fn a_mistake_is_told_with_the_way_out() {
        let told = |pattern: &str| Pattern::read(pattern).unwrap_err().to_string();
        assert_eq!(told("${verdct}"), "there is nothing called `verdct` in a notice: did you mean `${verdict}`?");
        assert!(told("${}").contains("there are id, event"), "{}", told("${}"));
        assert!(told("a ${run").contains("not closed"));
    }

    #[test]
    fn a_subject_is_one_line_whatever_comes_into_it() {
        let template = Template { subject: Some(Pattern::read("a\r\nBcc: x ${by}").unwrap()), text: None };
        let words = template.words(&notice());
        assert_eq!(words.subject, "a  Bcc: x admin");
        assert!(words.text.starts_with("event: test\ntime: 2026-11-24"), "{}", words.text);
    }
}
