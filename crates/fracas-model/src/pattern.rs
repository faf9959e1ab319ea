//! Patterns of documents: regular expressions whose size is bounded, so that no document and no service can make a match
//! slow without measure. It looks for nothing itself.

use regex_lite::{Regex, RegexBuilder};

/// Longest pattern in bytes.
pub const LONGEST: usize = 256;
/// Largest compiled pattern in bytes: a match takes time in proportion to it and to the text.
const SIZE: usize = 16 * 1024;
/// Deepest nesting of groups.
const NEST: u32 = 16;

/// The pattern, which is found anywhere in a text unless it is anchored. Its classes are ASCII's.
///
/// # Errors
/// It is none, too long or too large; the error is a fragment for people.
pub fn pattern(text: &str) -> Result<Regex, String> {
    if text.is_empty() || text.len() > LONGEST {
        return Err(format!("a pattern has 1 to {LONGEST} bytes, not {}", text.len()));
    }
    RegexBuilder::new(text)
        .size_limit(SIZE)
        .nest_limit(NEST)
        .build()
        .map_err(|e| format!("{text:?} is not a pattern: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_found_anywhere_and_have_a_measure() {
        assert!(pattern("^v[0-9]+").unwrap().is_match("v17.2"));
        assert!(pattern("rea.y").unwrap().is_match("is ready"));
        for bad in ["", "(", "a{0,1000}{0,1000}", &"(".repeat(LONGEST), &"x".repeat(LONGEST + 1)] {
            assert!(pattern(bad).is_err(), "{bad}");
        }
    }
}
