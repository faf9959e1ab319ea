//! Contexts on disk: which controllers this person signs in to, and which of them commands mean. Nothing here connects.
//!
//! ```text
//! ~/.config/fracas/current                    the name of the one that commands mean
//! ~/.config/fracas/contexts/NAME/context.yaml, ca.pem, token (0600)
//! ```

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// Longest name of a context, bytes.
const MAX_NAME: usize = 64;

/// A person's contexts.
#[derive(Clone, Debug)]
pub struct Contexts {
    folder: PathBuf,
}

/// Why a context could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum ContextsError {
    /// Not a name.
    #[error("{0:?} cannot name a context: write 1 to {MAX_NAME} letters, digits, `.`, `-` or `_`, no dot first")]
    Name(String),
    /// There is none of that name.
    #[error("no context {0}: `fracas context list` names them, `fracas login` makes one")]
    Unknown(String),
    /// The machine said no.
    #[error("cannot {what} {path}: {source}")]
    Failed {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: String,
        /// What the machine said.
        source: io::Error,
    },
}

/// What a new context holds.
#[derive(Debug)]
pub struct NewContext<'a> {
    /// `host:port` of the front listener.
    pub controller: &'a str,
    /// The CA's certificate, PEM.
    pub ca_pem: &'a [u8],
    /// The access token.
    pub token: &'a str,
}

impl Contexts {
    /// Those below a configuration folder, `~/.config/fracas`.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The file of a context.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join("contexts").join(name).join("context.yaml")
    }

    /// Whether there is one of that name.
    pub fn has(&self, name: &str) -> bool {
        checked(name).is_ok() && self.file(name).is_file()
    }

    /// Names of all, in order.
    pub fn names(&self) -> Vec<String> {
        let found = fs::read_dir(self.folder.join("contexts")).into_iter().flatten().flatten();
        let mut names: Vec<String> = found.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.retain(|name| self.has(name));
        names.sort();
        names
    }

    /// The one that commands mean, if any.
    pub fn current(&self) -> Option<String> {
        let text = fs::read_to_string(self.folder.join("current")).ok()?;
        Some(text.trim().to_owned()).filter(|name| self.has(name))
    }

    /// From now on commands mean this one.
    pub fn choose(&self, name: &str) -> Result<(), ContextsError> {
        if !self.has(name) {
            return Err(ContextsError::Unknown(name.to_owned()));
        }
        write(&self.folder.join("current"), format!("{name}\n").as_bytes(), 0o644)
    }

    /// Keeps a context, replacing one of the same name.
    pub fn keep(&self, name: &str, new: &NewContext<'_>) -> Result<PathBuf, ContextsError> {
        checked(name)?;
        let file = self.file(name);
        let place = file.parent().expect("a context is in a folder").to_owned();
        DirBuilder::new().recursive(true).mode(0o700).create(&place).map_err(failed("create directory", &place))?;
        write(&place.join("ca.pem"), new.ca_pem, 0o644)?;
        write(&place.join("token"), format!("{}\n", new.token).as_bytes(), 0o600)?;
        // JSON text is YAML too.
        let controller = serde_json::to_string(new.controller).expect("a text is JSON");
        let text =
            format!("apiVersion: fracas/v1\nkind: Context\ncontroller: {controller}\nca: ca.pem\ntokenFile: token\n");
        write(&file, text.as_bytes(), 0o644)?;
        Ok(file)
    }

    /// Removes a context with its token.
    pub fn remove(&self, name: &str) -> Result<(), ContextsError> {
        if !self.has(name) {
            return Err(ContextsError::Unknown(name.to_owned()));
        }
        let file = self.file(name);
        let place = file.parent().expect("a context is in a folder");
        for ours in ["token", "ca.pem", "context.yaml"] {
            match fs::remove_file(place.join(ours)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", &place.join(ours))(e));
                }
                _ => {}
            }
        }
        // A file that is not ours keeps the folder.
        let _ = fs::remove_dir(place);
        Ok(())
    }
}

/// A name out of an address: its host.
pub fn name_for(address: &str) -> String {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let fits = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '-' };
    let name: String = host.chars().map(fits).take(MAX_NAME).collect();
    let name = name.trim_matches(['.', '-']).to_owned();
    if name.is_empty() { "controller".to_owned() } else { name }
}

fn checked(name: &str) -> Result<(), ContextsError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if name.is_empty() || name.len() > MAX_NAME || name.starts_with('.') || !name.chars().all(fits) {
        return Err(ContextsError::Name(name.chars().take(80).collect()));
    }
    Ok(())
}

/// Writes a file whole or not at all.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), ContextsError> {
    let new = path.with_extension("new");
    let put = || {
        let mut file = File::options().write(true).create(true).truncate(true).mode(mode).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    put().map_err(failed("write", path))
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ContextsError {
    let path = path.display().to_string();
    move |source| ContextsError::Failed { what, path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn contexts_are_kept_chosen_and_removed() {
        let place = tempfile::tempdir().unwrap();
        let contexts = Contexts::new(place.path().join("fracas"));
        assert!(contexts.names().is_empty() && contexts.current().is_none());
        assert!(matches!(contexts.choose("a"), Err(ContextsError::Unknown(_))));
        let new = NewContext { controller: "c:1", ca_pem: b"ca", token: "secret" };
        let file = contexts.keep("a", &new).unwrap();
        contexts.keep("b", &new).unwrap();
        let token = file.with_file_name("token");
        assert_eq!(fs::metadata(&token).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&token).unwrap(), "secret\n");
        contexts.choose("b").unwrap();
        assert_eq!((contexts.names(), contexts.current()), (vec!["a".into(), "b".into()], Some("b".into())));
        contexts.remove("b").unwrap();
        assert_eq!((contexts.names(), contexts.current()), (vec!["a".into()], None));
    }

    #[test]
    fn names_stay_in_their_folder() {
        let contexts = Contexts::new("/nowhere".into());
        let new = NewContext { controller: "c:1", ca_pem: b"", token: "" };
        for bad in ["", "..", "../x", "a/b", ".hidden", "a b"] {
            assert!(matches!(contexts.keep(bad, &new), Err(ContextsError::Name(_))), "{bad}");
        }
        assert_eq!(name_for("fracas.internal:7766"), "fracas.internal");
        assert_eq!(name_for("[::1]:7766"), "1", "whatever is left of it");
        assert_eq!(name_for(":1"), "controller");
    }
}
