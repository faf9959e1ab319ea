//! Why a command did not do what was asked: a text for people and the exit code that goes with it.

use std::{fmt, io, path::Path};

use crate::{client::ClientError, context::ContextError, exit};

/// The end of a command that could not go on. The text names the object and the way out.
#[derive(Debug)]
pub struct CliError {
    /// Exit code of the process.
    pub exit: u8,
    /// What is printed to standard error, possibly several lines.
    pub text: String,
}

impl CliError {
    /// The command line or a document is wrong.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self { exit: exit::USAGE, text: text.into() }
    }

    /// The world said no.
    pub(crate) fn failure(text: impl Into<String>) -> Self {
        Self { exit: exit::ERROR, text: text.into() }
    }

    /// Nobody reads what is printed any more.
    pub(crate) fn unread(&self) -> bool {
        self.exit == exit::PASS
    }

    /// A file could not be read or written.
    pub(crate) fn file(verb: &str, path: &Path, error: &io::Error) -> Self {
        Self::failure(format!("cannot {verb} {}: {error}", path.display()))
    }
}

/// What could not be written is lost; only a full disk or the like is worth ending for. For commands whose exit code says
/// more than that something was printed.
pub(crate) fn unless_closed(written: io::Result<()>) -> Result<(), CliError> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for CliError {}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        Self { exit: error.exit(), text: error.to_string() }
    }
}

impl From<ContextError> for CliError {
    fn from(error: ContextError) -> Self {
        Self::failure(error.to_string())
    }
}

/// Standard output is gone or full. A closed pipe (`| head`) is no complaint: the reader has what it wanted.
impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self { exit: exit::PASS, text: String::new() }
        } else {
            Self::failure(format!("cannot write the output: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_told_from_a_full_disk() {
        let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(CliError::from(closed()).unread() && unless_closed(Err(closed())).is_ok());
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        assert!(!CliError::from(full()).unread());
        assert_eq!(unless_closed(Err(full())).unwrap_err().exit, exit::ERROR);
    }
}
