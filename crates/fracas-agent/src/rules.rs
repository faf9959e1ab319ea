//! The host owner's rules as they stand now: where they come from, read again whenever that changes. What they mean is
//! for the model.

use std::{
    io,
    path::{Path, PathBuf},
};

use fracas_model::{
    diagnostic::Diagnostic,
    policy::{Policy, read_policy},
};
use fracas_probes::files;

/// Longest policy file that is read.
const LONGEST: usize = 1 << 20;

/// Where the host owner's rules come from.
#[derive(Clone, Debug, PartialEq)]
pub enum PolicySource {
    /// This file if it exists, else the built-in rules.
    IfThere(PathBuf),
    /// This file; without it nothing is allowed.
    File(PathBuf),
    /// These, for an observer or a test.
    Given(Box<Policy>),
}

/// What a source gave.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// There is no such file, so the built-in rules hold.
    Builtin(PathBuf),
    /// This file, which is valid.
    File(PathBuf),
    /// This file cannot be read or is wrong, so nothing is allowed; says why.
    Unusable(PathBuf, String),
    /// Nobody's file.
    Given,
}

/// See the module.
#[derive(Debug)]
pub struct Rules {
    source: PolicySource,
    /// What the file held when it was read last: its text, or why there was none.
    seen: Result<Vec<u8>, (io::ErrorKind, String)>,
    policy: Policy,
    origin: Origin,
}

impl Rules {
    /// Reads them. Never fails: see [`Rules::origin`].
    pub fn read(source: PolicySource) -> Self {
        let mut rules = Self { source, seen: Ok(Vec::new()), policy: Policy::nothing(), origin: Origin::Given };
        rules.seen = rules.look();
        rules.judge();
        rules
    }

    /// The rules that hold.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Where they come from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Looks again; the rules if they are not what they were. The whole text is compared: a file of a few lines is read
    /// faster than it is told apart by its times.
    pub fn refresh(&mut self) -> Option<&Policy> {
        let seen = self.look();
        if seen == self.seen {
            return None;
        }
        self.seen = seen;
        let before = self.policy.clone();
        self.judge();
        self.log();
        (self.policy != before).then_some(&self.policy)
    }

    /// Says in the log where the rules come from.
    pub fn log(&self) {
        match &self.origin {
            Origin::Builtin(path) => {
                tracing::info!(
                    "no policy file {}: the built-in rules hold (see `fracas-agent policy`)",
                    path.display()
                );
            }
            Origin::File(path) => tracing::info!("the rules of policy file {} hold", path.display()),
            Origin::Unusable(path, why) => {
                tracing::error!("policy file {}: nothing is allowed on this host: {why}", path.display());
            }
            Origin::Given => {}
        }
    }

    fn file(&self) -> Option<&Path> {
        match &self.source {
            PolicySource::IfThere(path) | PolicySource::File(path) => Some(path),
            PolicySource::Given(_) => None,
        }
    }

    fn look(&self) -> Result<Vec<u8>, (io::ErrorKind, String)> {
        let Some(path) = self.file() else { return Ok(Vec::new()) };
        let Some(path) = path.to_str() else {
            return Err((io::ErrorKind::InvalidInput, "its path is not UTF-8".into()));
        };
        files::small(path, LONGEST).map_err(|e| (e.kind(), e.to_string()))
    }

    fn judge(&mut self) {
        let (path, needed) = match &self.source {
            PolicySource::Given(policy) => {
                (self.policy, self.origin) = ((**policy).clone(), Origin::Given);
                return;
            }
            PolicySource::IfThere(path) => (path.clone(), false),
            PolicySource::File(path) => (path.clone(), true),
        };
        let name = path.display().to_string();
        (self.policy, self.origin) = match &self.seen {
            Err((io::ErrorKind::NotFound, _)) if !needed => (Policy::builtin(), Origin::Builtin(path)),
            Err((_, why)) => (Policy::nothing(), Origin::Unusable(path, format!("it cannot be read: {why}"))),
            Ok(bytes) => match std::str::from_utf8(bytes).map_err(|e| e.to_string()).and_then(|text| read(&name, text))
            {
                Ok(policy) => (policy, Origin::File(path)),
                Err(why) => (Policy::nothing(), Origin::Unusable(path, why)),
            },
        };
    }
}

fn read(name: &str, text: &str) -> Result<Policy, String> {
    read_policy(name, text).map_err(|mistakes| {
        let told: Vec<String> = mistakes.iter().map(Diagnostic::render).collect();
        format!("it is wrong\n{}", told.join("\n"))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const HEAD: &str = "apiVersion: fracas/v1\nkind: HostPolicy\n";

    #[test]
    fn every_change_of_the_file_counts_at_once_and_what_cannot_be_read_allows_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.yaml");
        let mut rules = Rules::read(PolicySource::IfThere(path.clone()));
        assert_eq!((rules.policy(), rules.origin()), (&Policy::builtin(), &Origin::Builtin(path.clone())));
        assert_eq!(rules.refresh(), None);
        // Two changes of the same length in the same instant.
        for fault in ["cpu-load", "net-loss"] {
            fs::write(&path, format!("{HEAD}allowFaults: [{fault}]\n")).unwrap();
            assert!(rules.refresh().is_some_and(|p| p.allow_faults == [fault]), "{fault}");
            assert_eq!(rules.origin(), &Origin::File(path.clone()));
        }
        fs::write(&path, format!("{HEAD}allowFaults: [net-loss]\n# a word\n")).unwrap();
        assert_eq!(rules.refresh(), None, "the same rules");
        fs::write(&path, format!("{HEAD}allowFault: [net-loss]\n")).unwrap();
        assert_eq!(rules.refresh(), Some(&Policy::nothing()));
        assert!(matches!(rules.origin(), Origin::Unusable(_, why) if why.contains("allowFaults")));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(rules.refresh(), None, "still nothing");
        fs::remove_dir(&path).unwrap();
        assert_eq!(rules.refresh(), Some(&Policy::builtin()));
        assert_eq!(
            Rules::read(PolicySource::File(path)).policy(),
            &Policy::nothing(),
            "a file that was named must be there"
        );
    }
}
