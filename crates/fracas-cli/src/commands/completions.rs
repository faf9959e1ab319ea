//! `fracas completions`: the completion script of a shell, made from the argument tree.

use crate::{Session, args::CompletionsArgs, error::CliError, exit};

pub(crate) fn completions(session: &Session<'_>, given: &CompletionsArgs) -> Result<u8, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(given.shell, &mut session.world.tree.clone(), "fracas", &mut script);
    session.output.text(&String::from_utf8_lossy(&script))?;
    Ok(exit::PASS)
}
