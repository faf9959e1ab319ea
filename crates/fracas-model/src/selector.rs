//! Kubernetes label selectors in text form: reading, writing and matching. Who has which labels is decided elsewhere.

use std::{collections::BTreeMap, fmt, str::FromStr};

/// All of its requirements must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Equals(String),
    /// Holds also where the label is absent, as in Kubernetes.
    Differs(String),
    In(Vec<String>),
    /// Holds also where the label is absent, as in Kubernetes.
    NotIn(Vec<String>),
    Exists,
    Absent,
}

/// Why a text is not a selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(String);

fn bad<T>(why: impl Into<String>) -> Result<T, SelectorError> {
    Err(SelectorError(why.into()))
}

impl Selector {
    /// Whether a host with these labels is meant.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements.iter().all(|r| {
            let value = labels.get(&r.key);
            match &r.test {
                Test::Equals(wanted) => value == Some(wanted),
                Test::Differs(unwanted) => value != Some(unwanted),
                Test::In(wanted) => value.is_some_and(|v| wanted.contains(v)),
                Test::NotIn(unwanted) => !value.is_some_and(|v| unwanted.contains(v)),
                Test::Exists => value.is_some(),
                Test::Absent => value.is_none(),
            }
        })
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        if text.trim().is_empty() {
            return bad("an empty selector would mean every host");
        }
        if text.len() > 4096 {
            return bad("the selector is longer than 4096 bytes");
        }
        let requirements = split(text)?.into_iter().map(requirement).collect::<Result<_, _>>()?;
        Ok(Self { requirements })
    }
}

/// Cuts at commas that stand outside parentheses.
fn split(text: &str) -> Result<Vec<&str>, SelectorError> {
    let (mut parts, mut start, mut inside) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        match c {
            '(' if inside => return bad("a parenthesis stands inside parentheses"),
            '(' => inside = true,
            ')' if !inside => return bad("a closing parenthesis has no opening one"),
            ')' => inside = false,
            ',' if !inside => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    if inside {
        return bad("a parenthesis is not closed");
    }
    parts.push(&text[start..]);
    Ok(parts)
}

fn requirement(part: &str) -> Result<Requirement, SelectorError> {
    let part = part.trim();
    if part.is_empty() {
        return bad("a requirement is missing beside a comma");
    }
    if let Some((key, set)) = part.split_once('(') {
        let Some(set) = set.trim_end().strip_suffix(')') else {
            return bad(format!("something follows the parenthesis of {part:?}"));
        };
        let mut words = key.split_whitespace();
        let (key, operator, rest) = (words.next().unwrap_or(""), words.next().unwrap_or(""), words.next());
        let mut values = set.split(',').map(|v| value(v.trim())).collect::<Result<Vec<_>, _>>()?;
        values.sort();
        values.dedup();
        let test = match (operator, rest) {
            ("in", None) => Test::In(values),
            ("notin", None) => Test::NotIn(values),
            _ => return bad(format!("before the parenthesis of {part:?} must stand a label and `in` or `notin`")),
        };
        return Ok(Requirement { key: label(key)?, test });
    }
    if let Some(key) = part.strip_prefix('!') {
        return Ok(Requirement { key: label(key.trim())?, test: Test::Absent });
    }
    for (operator, make) in [("!=", Test::Differs as fn(String) -> Test), ("==", Test::Equals), ("=", Test::Equals)] {
        if let Some((key, wanted)) = part.split_once(operator) {
            return Ok(Requirement { key: label(key.trim())?, test: make(value(wanted.trim())?) });
        }
    }
    Ok(Requirement { key: label(part)?, test: Test::Exists })
}

/// 1 to 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends.
fn is_word(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && edge(text.chars().next())
        && edge(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

fn label(text: &str) -> Result<String, SelectorError> {
    let (prefix, name) = text.split_once('/').map_or((None, text), |(p, n)| (Some(p), n));
    let prefix_fits =
        prefix.is_none_or(|p| p.len() <= 253 && p.split('.').all(|part| is_word(part) && !part.contains('_')));
    if !prefix_fits || !is_word(name) {
        return bad(format!(
            "{text:?} is not a label: at most 63 letters, digits, `-`, `_` and `.`, after a prefix and `/` if any"
        ));
    }
    Ok(text.to_owned())
}

fn value(text: &str) -> Result<String, SelectorError> {
    if text.is_empty() || is_word(text) {
        return Ok(text.to_owned());
    }
    bad(format!("{text:?} is not a label's value: at most 63 letters, digits, `-`, `_` and `.`"))
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Requirement { key, test }) in self.requirements.iter().enumerate() {
            f.write_str(if i > 0 { "," } else { "" })?;
            match test {
                Test::Equals(value) => write!(f, "{key}={value}")?,
                Test::Differs(value) => write!(f, "{key}!={value}")?,
                Test::In(values) => write!(f, "{key} in ({})", values.join(","))?,
                Test::NotIn(values) => write!(f, "{key} notin ({})", values.join(","))?,
                Test::Exists => f.write_str(key)?,
                Test::Absent => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn selectors_match_as_in_kubernetes() {
        let host = labels(&[("role", "db"), ("tier", "primary"), ("fact/arch", "x86_64"), ("empty", "")]);
        for (selector, expected) in [
            ("role=db", true),
            ("role==db", true),
            ("role = db , tier=primary", true),
            ("role=db,tier=standby", false),
            ("role!=web", true),
            ("role!=db", false),
            ("absent!=x", true),
            ("tier in (primary, standby)", true),
            ("tier in(standby)", false),
            ("tier notin (standby)", true),
            ("tier notin (primary)", false),
            ("absent notin (a,b)", true),
            ("absent in (a,b)", false),
            ("role", true),
            ("absent", false),
            ("!absent", true),
            ("!role", false),
            ("fact/arch=x86_64", true),
            ("empty=", true),
            ("in=x", false),
        ] {
            let parsed: Selector = selector.parse().unwrap();
            assert_eq!(parsed.matches(&host), expected, "{selector}");
            assert_eq!(parsed.to_string().parse::<Selector>().unwrap(), parsed, "{selector}");
        }
        assert_eq!(" a in (c, b,c) ,!d, e != f".parse::<Selector>().unwrap().to_string(), "a in (b,c),!d,e!=f");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (selector, expected) in [
            ("", "an empty selector would mean every host"),
            (" ", "an empty selector would mean every host"),
            ("a=b,", "a requirement is missing beside a comma"),
            ("a in (b", "a parenthesis is not closed"),
            ("a in b)", "a closing parenthesis has no opening one"),
            ("a in ((b))", "a parenthesis stands inside parentheses"),
            ("a within (b)", "before the parenthesis of \"a within (b)\" must stand a label and `in` or `notin`"),
            ("a in (b) c", "something follows the parenthesis of \"a in (b) c\""),
            ("a=b c", "\"b c\" is not a label's value: at most 63 letters, digits, `-`, `_` and `.`"),
            ("a=b=c", "\"b=c\" is not a label's value: at most 63 letters, digits, `-`, `_` and `.`"),
            (
                "role db",
                "\"role db\" is not a label: at most 63 letters, digits, `-`, `_` and `.`, after a prefix and `/` if any",
            ),
            ("=x", "\"\" is not a label: at most 63 letters, digits, `-`, `_` and `.`, after a prefix and `/` if any"),
            (
                "a/b/c=x",
                "\"a/b/c\" is not a label: at most 63 letters, digits, `-`, `_` and `.`, after a prefix and `/` if any",
            ),
            ("*", "\"*\" is not a label: at most 63 letters, digits, `-`, `_` and `.`, after a prefix and `/` if any"),
        ] {
            assert_eq!(selector.parse::<Selector>().unwrap_err().to_string(), expected, "{selector:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_what_is_read_is_written_back(text in "[a-c!=(), /innot.]{0,30}|\\PC{0,40}") {
            if let Ok(selector) = text.parse::<Selector>() {
                prop_assert_eq!(selector.to_string().parse::<Selector>().unwrap(), selector);
            }
        }
    }
}
