//! Documents and their parameters from files or standard input. It reads and assembles; the model judges.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _},
    path::Path,
};

use fracas_model::gameday;

use crate::{
    args::{DocumentArgs, ParameterArgs},
    client::Submission,
    error::CliError,
    flat,
};

/// Name under which standard input appears in messages.
const STDIN: &str = "standard input";

/// The text of a file, or of standard input for `-`.
pub(crate) fn text(path: &Path) -> Result<String, CliError> {
    if path == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map_err(|e| CliError::file("read", Path::new(STDIN), &e))?;
        return Ok(text);
    }
    fs::read_to_string(path).map_err(|e| match e.kind() {
        io::ErrorKind::InvalidData => CliError::usage(format!("{} is not UTF-8 text", path.display())),
        _ => CliError { exit: crate::exit::USAGE, ..CliError::file("read", path, &e) },
    })
}

/// Its name in messages.
pub(crate) fn name(path: &Path) -> String {
    if path == Path::new("-") { STDIN.to_owned() } else { path.display().to_string() }
}

/// Parameters of the values file, each overridden by `--set`.
pub(crate) fn parameters(given: &ParameterArgs) -> Result<BTreeMap<String, String>, CliError> {
    let mut all = match &given.values {
        None => BTreeMap::new(),
        Some(path) => flat::read(&text(path)?).map_err(|why| CliError::usage(format!("{}: {why}", path.display())))?,
    };
    all.extend(given.set.iter().cloned());
    Ok(all)
}

/// The texts that a game day names, which stand beside it; nothing for other documents. One that is not there is left out,
/// and missed where the day names it.
pub(crate) fn beside(path: &Path, source: &str) -> Result<BTreeMap<String, String>, CliError> {
    let mut texts = BTreeMap::new();
    for file in gameday::files(source) {
        let place = path.parent().unwrap_or(Path::new("")).join(&file);
        if place.exists() {
            texts.insert(file, text(&place)?);
        }
    }
    Ok(texts)
}

/// The document as it is sent to a controller.
pub(crate) fn submission(given: &DocumentArgs) -> Result<Submission, CliError> {
    let source = text(&given.file)?;
    Ok(Submission {
        files: beside(&given.file, &source)?,
        source,
        source_name: name(&given.file),
        parameters: parameters(&given.parameters)?,
        seed: given.seed,
        environment: given.environment.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_beats_the_values_file() {
        let folder = tempfile::tempdir().unwrap();
        let values = folder.path().join("values.yaml");
        fs::write(&values, "delay: 100ms\nport: 5432\n").unwrap();
        let set = vec![("delay".to_owned(), "200ms".to_owned())];
        let all = parameters(&ParameterArgs { set, values: Some(values) }).unwrap();
        assert_eq!(all, [("delay".to_owned(), "200ms".to_owned()), ("port".to_owned(), "5432".to_owned())].into());
    }

    #[test]
    fn a_missing_document_is_a_usage_error_that_names_it() {
        let error = text(Path::new("/nonexistent/kill.yaml")).unwrap_err();
        assert_eq!((error.exit, error.text.contains("/nonexistent/kill.yaml")), (2, true));
    }
}
