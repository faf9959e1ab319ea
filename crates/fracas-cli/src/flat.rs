//! Flat YAML or JSON: one mapping of names to scalars, as context files and value files are. Anything deeper is refused.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser};

/// Names and scalar texts; on error what is wrong and where.
pub(crate) fn read(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut found = BTreeMap::new();
    let mut key: Option<String> = None;
    let mut open = false;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|e| e.to_string())?;
        let line = span.start.line();
        match event {
            Event::MappingStart(..) if !open => open = true,
            Event::Scalar(value, ..) if open => match key.take() {
                None => key = Some(value.into_owned()),
                Some(name) => {
                    if found.insert(name.clone(), value.into_owned()).is_some() {
                        return Err(format!("line {line}: {name} stands there twice"));
                    }
                }
            },
            Event::MappingStart(..) | Event::SequenceStart(..) | Event::Scalar(..) | Event::Alias(_) => {
                return Err(format!("line {line}: write one name: value per line, nothing deeper"));
            }
            _ => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_scalars_of_yaml_and_json() {
        let yaml = read("# why\ndelay: 200ms\n\ncount: 3\nempty: ''\n").unwrap();
        assert_eq!(
            yaml.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(),
            ["count=3", "delay=200ms", "empty="]
        );
        assert_eq!(read("{\"a\": \"b\"}").unwrap()["a"], "b");
        assert!(read("").unwrap().is_empty());
    }

    #[test]
    fn depth_and_repeats_are_refused_with_their_line() {
        assert!(read("a: b\nc: [1]\n").unwrap_err().contains("line 2"));
        assert!(read("a: b\na: c\n").unwrap_err().contains("a stands there twice"));
        assert!(read("just text").is_err() && read("a: {").is_err());
    }
}
