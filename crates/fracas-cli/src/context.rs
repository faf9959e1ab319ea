//! Where the controller is and how to prove who one is: flags and environment first, then context files.
//!
//! Everything the process knows (home, environment) comes in as an argument. Nothing here connects.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use crate::{args::Global, contexts::Contexts, flat};

/// Everything needed to call one controller.
#[derive(Clone)]
pub struct Access {
    /// `host:port` of the front listener.
    pub address: String,
    /// The CA's certificate, PEM.
    pub ca_pem: Vec<u8>,
    /// The bearer token.
    pub token: String,
    /// Where the CA came from, for messages.
    pub ca_source: String,
    /// Where the token came from, for messages.
    pub token_source: String,
}

/// What of the process's environment matters to this crate.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`.
    pub config_home: Option<PathBuf>,
    /// `XDG_DATA_HOME`.
    pub data_home: Option<PathBuf>,
    /// `FRACAS_TOKEN`: never an option, because options can be read by every user of a machine.
    pub token: Option<String>,
    /// `NO_COLOR` is set and not empty.
    pub no_color: bool,
    /// `TERM` is `dumb` or not set: no cursor movement.
    pub dumb_terminal: bool,
    /// The data directory of a controller that runs as a service.
    pub system_data: PathBuf,
}

/// Why no controller can be called.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ContextError {
    /// Nothing says where it is.
    #[error(
        "no controller is configured. Four ways:\n  \
        1. a context file: --context FILE or FRACAS_CONTEXT; looked for in {looked}\n  \
        2. options: --controller HOST:PORT --ca FILE --token-file FILE (or FRACAS_CONTROLLER, FRACAS_CA, FRACAS_TOKEN_FILE)\n  \
        3. for good, with a token of yours: fracas login --controller HOST:PORT --ca FILE\n  \
        4. no controller at all: fracas run FILE --local\n\
        `fracas controller` starts one; its first start prints where it wrote the context file."
    )]
    NotConfigured {
        /// Places without a file.
        looked: String,
    },
    /// An address, but not all of the rest.
    #[error("the controller {address} is given without {missing}: add {option}, or put it into a context file")]
    Incomplete {
        /// The controller.
        address: String,
        /// What is missing.
        missing: &'static str,
        /// What to add.
        option: &'static str,
    },
    /// A file is not there or not readable.
    #[error("cannot read {what} {path}: {why}")]
    Unreadable {
        /// What it should be.
        what: &'static str,
        /// Its path.
        path: String,
        /// What the system said.
        why: String,
    },
    /// A context file is not one.
    #[error("{path} is no context file: {why}")]
    Malformed {
        /// Its path.
        path: String,
        /// What is wrong.
        why: String,
    },
}

impl Surroundings {
    /// Takes what matters from environment variables, given by a lookup such as `std::env::var_os`.
    pub fn from_environment(var: impl Fn(&str) -> Option<OsString>) -> Self {
        let path = |name: &str| var(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let text = |name: &str| var(name).and_then(|v| v.into_string().ok()).filter(|v| !v.is_empty());
        Self {
            home: path("HOME"),
            config_home: path("XDG_CONFIG_HOME"),
            data_home: path("XDG_DATA_HOME"),
            token: text("FRACAS_TOKEN"),
            no_color: text("NO_COLOR").is_some(),
            dumb_terminal: text("TERM").is_none_or(|t| t == "dumb"),
            system_data: PathBuf::from("/var/lib/fracas"),
        }
    }

    fn config(&self) -> Option<PathBuf> {
        let config = self.config_home.clone().or_else(|| Some(self.home.as_ref()?.join(".config")));
        Some(config?.join("fracas"))
    }

    /// Context files in the order they are tried: where the person has signed in, the person's own file, then those of
    /// controllers on this machine.
    fn context_files(&self) -> Vec<PathBuf> {
        let data = self.data_home.clone().or_else(|| Some(self.home.as_ref()?.join(".local/share")));
        let signed_in = contexts(self).and_then(|contexts| Some(contexts.file(&contexts.current()?)));
        signed_in
            .into_iter()
            .chain(self.config().map(|config| config.join("context.yaml")))
            .chain(data.map(|d| d.join("fracas/admin.yaml")))
            .chain([self.system_data.join("admin.yaml")])
            .collect()
    }
}

/// The contexts of this person; `None` where there is no place for them.
pub fn contexts(surroundings: &Surroundings) -> Option<Contexts> {
    surroundings.config().map(Contexts::new)
}

/// A context by its name or its file.
fn named(given: &Path, surroundings: &Surroundings) -> PathBuf {
    let known = given.to_str().zip(contexts(surroundings)).filter(|(name, contexts)| contexts.has(name));
    match known {
        Some((name, contexts)) if !given.exists() => contexts.file(name),
        _ => given.to_owned(),
    }
}

/// What a context file says.
#[derive(Debug, Default)]
struct ContextFile {
    controller: Option<String>,
    ca: Option<PathBuf>,
    token_file: Option<PathBuf>,
}

/// Finds the controller. Options beat the context file, name by name.
pub fn find(flags: &Global, surroundings: &Surroundings) -> Result<Access, ContextError> {
    let candidates = match &flags.context {
        Some(given) => vec![named(given, surroundings)],
        None => surroundings.context_files(),
    };
    // A context file that this user may not read (another user's service) is passed over unless it was asked for.
    let chosen = candidates.iter().find(|c| flags.context.is_some() || fs::File::open(c).is_ok());
    let file = chosen.map(|path| read_context(path)).transpose()?.unwrap_or_default();
    let Some(address) = flags.controller.clone().or(file.controller) else {
        let looked = candidates.iter().map(|c| c.display().to_string()).collect::<Vec<_>>().join(", ");
        return Err(ContextError::NotConfigured { looked });
    };
    let missing = |missing, option| ContextError::Incomplete { address: address.clone(), missing, option };
    let ca = flags.ca.clone().or(file.ca).ok_or_else(|| missing("its CA certificate", "--ca FILE"))?;
    let ca_pem = fs::read(&ca).map_err(|e| unreadable("the CA certificate", &ca, &e))?;
    let (token, token_source) = match (&flags.token_file, &surroundings.token, file.token_file) {
        (None, Some(token), _) => (token.clone(), "FRACAS_TOKEN".to_owned()),
        (Some(path), _, _) => (read_token(path)?, path.display().to_string()),
        (None, None, Some(path)) => (read_token(&path)?, path.display().to_string()),
        (None, None, None) => return Err(missing("an access token", "--token-file FILE or FRACAS_TOKEN")),
    };
    Ok(Access { address, ca_pem, token, ca_source: ca.display().to_string(), token_source })
}

fn read_token(path: &Path) -> Result<String, ContextError> {
    let text = fs::read_to_string(path).map_err(|e| unreadable("the token file", path, &e))?;
    Ok(text.trim().to_owned())
}

fn unreadable(what: &'static str, path: &Path, error: &std::io::Error) -> ContextError {
    ContextError::Unreadable { what, path: path.display().to_string(), why: error.to_string() }
}

fn read_context(path: &Path) -> Result<ContextFile, ContextError> {
    let text = fs::read_to_string(path).map_err(|e| unreadable("the context file", path, &e))?;
    let malformed = |why: String| ContextError::Malformed { path: path.display().to_string(), why };
    let mut names: BTreeMap<String, String> = flat::read(&text).map_err(malformed)?;
    for (name, expected) in [("apiVersion", "fracas/v1"), ("kind", "Context")] {
        match names.remove(name) {
            Some(value) if value == expected => {}
            Some(value) => return Err(malformed(format!("{name} is {value}, not {expected}"))),
            None => return Err(malformed(format!("it does not say {name}: {expected}"))),
        }
    }
    // A relative path means beside the context file, wherever the command is typed.
    let beside = |name: String| path.parent().unwrap_or(Path::new("")).join(name);
    let file = ContextFile {
        controller: names.remove("controller"),
        ca: names.remove("ca").map(beside),
        token_file: names.remove("tokenFile").map(beside),
    };
    match names.keys().next() {
        Some(unknown) => Err(malformed(format!("{unknown} is unknown; it may hold controller, ca and tokenFile"))),
        None => Ok(file),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: &str =
        "apiVersion: fracas/v1\nkind: Context\ncontroller: c.example:7443\nca: ca.pem\ntokenFile: token\n";

    fn home(context: Option<(&str, &str)>) -> (tempfile::TempDir, Surroundings) {
        let home = tempfile::tempdir().unwrap();
        if let Some((place, text)) = context {
            let path = home.path().join(place);
            let folder = path.parent().unwrap();
            fs::create_dir_all(folder).unwrap();
            fs::write(&path, text).unwrap();
            fs::write(folder.join("ca.pem"), "the ca").unwrap();
            fs::write(folder.join("token"), "secret\n").unwrap();
        }
        let root = home.path().to_owned();
        let environment = move |name: &str| (name == "HOME").then(|| root.clone().into_os_string());
        let mut surroundings = Surroundings::from_environment(environment);
        surroundings.system_data = home.path().join("var");
        (home, surroundings)
    }

    #[test]
    fn each_place_is_found_and_paths_are_beside_the_file() {
        for place in [".config/fracas/context.yaml", ".local/share/fracas/admin.yaml", "var/admin.yaml"] {
            let (_home, surroundings) = home(Some((place, CONTEXT)));
            let access = find(&Global::default(), &surroundings).unwrap();
            assert_eq!((access.address.as_str(), access.token.as_str()), ("c.example:7443", "secret"), "{place}");
            assert_eq!(access.ca_pem, b"the ca");
        }
    }

    #[test]
    fn options_beat_the_file_and_the_token_variable_beats_its_token() {
        let (_home, mut surroundings) = home(Some(("var/admin.yaml", CONTEXT)));
        surroundings.token = Some("from env".into());
        let flags = Global { controller: Some("other:1".into()), ..Global::default() };
        let access = find(&flags, &surroundings).unwrap();
        assert_eq!((access.address.as_str(), access.token.as_str()), ("other:1", "from env"));
    }

    #[test]
    fn nothing_configured_says_the_ways() {
        let (_home, surroundings) = home(None);
        let text = find(&Global::default(), &surroundings).err().unwrap().to_string();
        for way in ["--context", "fracas login", "context.yaml", "--controller HOST:PORT", "--local", "admin.yaml"] {
            assert!(text.contains(way), "{way} is not in: {text}");
        }
        let flags = Global { controller: Some("c:1".into()), ..Global::default() };
        assert!(find(&flags, &surroundings).err().unwrap().to_string().contains("add --ca FILE"));
    }

    #[test]
    fn where_the_person_has_signed_in_comes_first_and_others_go_by_name() {
        let (_home, surroundings) = home(Some((".config/fracas/context.yaml", CONTEXT)));
        let contexts = contexts(&surroundings).unwrap();
        for name in ["one", "two"] {
            let new = crate::contexts::NewContext { controller: &format!("{name}:1"), ca_pem: b"ca", token: name };
            contexts.keep(name, &new).unwrap();
        }
        let address = |flags: &Global| find(flags, &surroundings).unwrap().address;
        assert_eq!(address(&Global::default()), "c.example:7443");
        contexts.choose("one").unwrap();
        assert_eq!(address(&Global::default()), "one:1");
        assert_eq!(address(&Global { context: Some("two".into()), ..Global::default() }), "two:1");
    }

    #[test]
    fn a_bad_context_file_is_named_with_its_fault() {
        for (text, why) in [
            ("kind: Context\n", "apiVersion"),
            ("apiVersion: fracas/v1\nkind: Experiment\n", "kind is Experiment"),
            ("apiVersion: fracas/v1\nkind: Context\ntoken: x\n", "token is unknown"),
            ("- a\n", "line 1"),
        ] {
            let (_home, surroundings) = home(Some(("var/admin.yaml", text)));
            let error = find(&Global::default(), &surroundings).err().unwrap().to_string();
            assert!(error.contains(why) && error.contains("admin.yaml"), "{error}");
        }
    }

    #[test]
    fn a_missing_file_that_was_asked_for_is_an_error() {
        let (_home, surroundings) = home(Some(("var/admin.yaml", CONTEXT)));
        let flags = Global { context: Some("/nonexistent/context.yaml".into()), ..Global::default() };
        assert!(find(&flags, &surroundings).err().unwrap().to_string().contains("/nonexistent/context.yaml"));
    }
}
