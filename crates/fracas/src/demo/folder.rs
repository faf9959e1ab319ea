//! The demo's folder: the documents it runs, which may be changed, and the reports it writes. It overwrites nothing that
//! somebody else made.

use std::{
    fs,
    io::{self, ErrorKind, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

/// Most reports of one name that are told apart by a number.
const MOST: u32 = 10_000;

/// A document that comes with the program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Document {
    /// Its file's name without the ending; its experiment's name, too.
    pub(super) name: &'static str,
    /// What it does, for the heading.
    pub(super) what: &'static str,
    /// Parameters it declares.
    parameters: &'static [&'static str],
    text: &'static str,
}

impl Document {
    /// Those of these values that it takes.
    pub(super) fn takes(&self, values: &[(String, String)]) -> Vec<(String, String)> {
        values.iter().filter(|(name, _)| self.parameters.contains(&name.as_str())).cloned().collect()
    }
}

/// The primary dies.
pub(super) const KILL: Document = Document {
    name: "kill-primary",
    what: "the primary on db-1 is killed",
    parameters: &["shop", "primary"],
    text: include_str!("kill-primary.yaml"),
};
/// The primary's network becomes slow; needs hosts of their own.
pub(super) const SLOW: Document = Document {
    name: "slow-network",
    what: "the network of the primary becomes slow",
    parameters: &["shop"],
    text: include_str!("slow-network.yaml"),
};
/// The primary's host is busy; works everywhere.
pub(super) const BUSY: Document = Document {
    name: "busy-host",
    what: "the host of the primary becomes busy",
    parameters: &["shop"],
    text: include_str!("busy-host.yaml"),
};

/// A document as it is in the folder.
#[derive(Clone, Debug)]
pub(super) struct Written {
    /// Which.
    pub(super) document: Document,
    /// Where.
    pub(super) path: PathBuf,
    /// Somebody has changed it since the demo wrote it.
    pub(super) changed: bool,
}

impl Written {
    /// For people.
    pub(super) fn said(&self) -> String {
        let changed = if self.changed { " (was there already and has been changed: used as it is)" } else { "" };
        format!("{}{changed}", self.path.display())
    }
}

/// The folder.
#[derive(Clone, Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes it if need be.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(path)
            .with_context(|| format!("the folder {} cannot be made; choose another with --to DIR", path.display()))?;
        Ok(Self(path.to_owned()))
    }

    /// Writes a document, unless one of its name is there: that one is used as it is.
    pub(super) fn document(&self, document: Document) -> anyhow::Result<Written> {
        let path = self.0.join(document.name).with_extension("yaml");
        let failed = || format!("{} cannot be written; choose another folder with --to DIR", path.display());
        match write_new(&path, document.text) {
            Ok(()) => Ok(Written { document, path, changed: false }),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                let changed = fs::read_to_string(&path).with_context(failed)? != document.text;
                Ok(Written { document, path, changed })
            }
            Err(e) => Err(e).with_context(failed),
        }
    }

    /// Takes a name for a report that nobody has: an empty file, to be written over or given back.
    pub(super) fn report(&self, document: Document) -> anyhow::Result<PathBuf> {
        for n in 1..=MOST {
            let name = if n == 1 { document.name.to_owned() } else { format!("{}-{n}", document.name) };
            let path = self.0.join(name).with_extension("html");
            match write_new(&path, "") {
                Ok(()) => return Ok(path),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e).with_context(|| format!("{} cannot be written", path.display())),
            }
        }
        bail!("{} is full of reports; choose another folder with --to DIR", self.0.display())
    }
}

/// Gives back a name that was taken for nothing, with what stands in the file: half a report is none.
pub(super) fn give_back(path: &Path) {
    let _ = fs::remove_file(path);
}

/// Writes a file that must not exist; what could not be written wholly is removed.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes()).inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}

#[cfg(test)]
mod tests {
    use fracas_cli::{World, args::Command, context::Surroundings};

    use super::*;

    #[test]
    fn what_somebody_changed_is_used_and_what_is_there_is_not_overwritten() {
        let there = tempfile::tempdir().unwrap();
        let folder = Folder::open(&there.path().join("a/b")).unwrap();
        let written = folder.document(KILL).unwrap();
        assert_eq!(fs::read_to_string(&written.path).unwrap(), KILL.text);
        let again = folder.document(KILL).unwrap();
        assert!(!written.changed && !again.changed && again.path == written.path);
        fs::write(&written.path, "mine").unwrap();
        assert!(folder.document(KILL).unwrap().changed);
        assert_eq!(fs::read_to_string(&written.path).unwrap(), "mine");

        let first = folder.report(KILL).unwrap();
        fs::write(&first, "a report").unwrap();
        let second = folder.report(KILL).unwrap();
        assert!(first.ends_with("kill-primary.html") && second.ends_with("kill-primary-2.html"));
        give_back(&second);
        assert!(first.exists() && !second.exists());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named_with_what_to_do() {
        let there = tempfile::tempdir().unwrap();
        let file = there.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Folder::open(&file.join("x")).unwrap_err().to_string();
        assert!(error.contains("file/x cannot be made") && error.contains("--to DIR"), "{error}");
    }

    #[test]
    fn the_documents_are_valid_and_named_like_their_files() {
        let there = tempfile::tempdir().unwrap();
        let folder = Folder::open(there.path()).unwrap();
        for document in [KILL, SLOW, BUSY] {
            let path = folder.document(document).unwrap().path;
            assert!(document.text.contains(&format!("\nname: {}\n", document.name)), "{}", document.name);
            let world = World {
                catalogue: fracas_agent::service::catalogue(fracas_faults::ALL),
                tree: clap::Command::new("fracas"),
                surroundings: Surroundings::default(),
                local: &crate::local::InProcess,
                access: None,
            };
            // A value for a parameter that is not declared would be a mistake.
            let values = [("shop".to_owned(), "http://127.0.0.1:1".to_owned()), ("primary".to_owned(), "p".to_owned())];
            let parameters = fracas_cli::args::ParameterArgs { set: document.takes(&values), values: None };
            let validate = Command::Validate(fracas_cli::args::ValidateArgs { files: vec![path], parameters });
            let global = fracas_cli::args::Global { quiet: true, ..Default::default() };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            assert_eq!(runtime.block_on(fracas_cli::main(global, validate, world)), 0, "{}", document.name);
        }
    }
}
