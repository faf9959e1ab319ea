//! `fracas new`: a commented starter document. An existing file is never touched.

use std::{
    fs::File,
    io::{ErrorKind, Write as _},
};

use fracas_model::{document, gameday};

use crate::{
    Session,
    args::{NewArgs, NewKind},
    error::CliError,
    exit,
};

pub(crate) fn new(session: &Session<'_>, given: &NewArgs) -> Result<u8, CliError> {
    let starter = match given.kind {
        NewKind::Experiment => document::starter(),
        NewKind::GameDay => gameday::starter(),
    };
    let Some(path) = given.file.as_ref().filter(|p| p.as_os_str() != "-") else {
        session.output.text(starter)?;
        return Ok(exit::PASS);
    };
    let mut file = File::create_new(path).map_err(|e| match e.kind() {
        ErrorKind::AlreadyExists => {
            CliError::usage(format!("{} is already there; choose another name or remove it first", path.display()))
        }
        _ => CliError::file("create", path, &e),
    })?;
    file.write_all(starter.as_bytes()).map_err(|e| CliError::file("write", path, &e))?;
    let path = path.display();
    session
        .output
        .notice(&format!("wrote {path}; check it: fracas validate {path}; see what it would do: fracas plan {path}"));
    Ok(exit::PASS)
}
