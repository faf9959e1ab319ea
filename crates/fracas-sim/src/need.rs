//! What an integration test needs of the machine, and what becomes of it where that is missing: it is counted as
//! ignored and says why, and fails when the environment says `FRACAS_REQUIRE=all`. It runs no tests.
//!
//! With `libtest-mimic`:
//!
//! ```text
//! Trial::ignorable_test(name, move || match need::check(needs) {
//!     Verdict::Go => { run(); Ok(Completion::Completed) }
//!     Verdict::Skip(why) => Ok(Completion::ignored_with(why)),
//!     Verdict::Fail(why) => Err(why.into()),
//! })
//! ```

use std::{env, os::unix::fs::PermissionsExt as _, path::Path, process::Command, sync::OnceLock};

use crate::lab::{Lab, Options};

/// Something a machine may not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// To be root.
    Root,
    /// A namespace lab, of whichever kind this user can have.
    Lab,
    /// A namespace lab whose hosts have cgroups.
    LabCgroup,
    /// A program of this name in `PATH`, or at this path.
    Program(&'static str),
    /// One of these programs.
    AnyProgram(&'static [&'static str]),
    /// A variable of the environment with this name, which is to hold this.
    Variable(&'static str, &'static str),
    /// A Python, named by `FRACAS_PYTHON` as `.ci/run` makes one, with this module.
    Python(&'static str),
    /// Time namespaces, and a program that makes one.
    TimeNamespace,
    /// That somebody has the time: it takes long, so it runs only where `FRACAS_REQUIRE` says `all` or `time`.
    Time,
}

/// What is to become of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Run it.
    Go,
    /// Count it as ignored, for this reason.
    Skip(String),
    /// Fail it, for this reason.
    Fail(String),
}

/// Whether a test with these needs runs here.
pub fn check(needs: &[Need]) -> Verdict {
    decide(needs.iter().find_map(|need| need.missing()), env::var("FRACAS_REQUIRE").ok().as_deref())
}

fn decide(missing: Option<String>, require: Option<&str>) -> Verdict {
    match (missing, require) {
        (None, _) => Verdict::Go,
        (Some(why), Some("all")) => Verdict::Fail(format!("{why}; FRACAS_REQUIRE=all forbids skipping")),
        (Some(why), _) => Verdict::Skip(why),
    }
}

impl Need {
    /// Why it is not there, if so.
    pub fn missing(self) -> Option<String> {
        match self {
            Self::Root => (!rustix::process::geteuid().is_root()).then(|| "needs root".to_owned()),
            Self::Lab => lab().as_ref().err().map(|why| format!("needs a namespace lab: {why}")),
            Self::LabCgroup => match lab() {
                Err(why) => Some(format!("needs a namespace lab: {why}")),
                Ok(limits) => limits.clone().map(|why| format!("needs cgroups in the lab: {why}")),
            },
            Self::Program(name) => (!found(name)).then(|| format!("needs the program {name}")),
            Self::AnyProgram(names) => {
                (!names.iter().any(|name| found(name))).then(|| format!("needs one of {}", names.join(", ")))
            }
            Self::Variable(name, what) => {
                env::var_os(name).is_none_or(|value| value.is_empty()).then(|| format!("needs {name}: {what}"))
            }
            Self::Python(module) => python(module),
            Self::TimeNamespace => time_namespace(),
            Self::Time => (!time()).then(|| "takes long; FRACAS_REQUIRE=time runs it".to_owned()),
        }
    }
}

fn python(module: &str) -> Option<String> {
    let lacking = || format!("needs FRACAS_PYTHON: a Python with {module}, as .ci/run makes one");
    let Some(python) = env::var_os("FRACAS_PYTHON").filter(|python| !python.is_empty()) else { return Some(lacking()) };
    let imported = Command::new(python).args(["-c", &format!("import {module}")]).output();
    (!imported.is_ok_and(|said| said.status.success())).then(lacking)
}

fn time_namespace() -> Option<String> {
    let kernel = Path::new("/proc/self/ns/time").exists();
    let unshare = Need::Program("unshare").missing();
    if kernel { unshare } else { Some("needs a kernel with time namespaces".to_owned()) }
}

fn time() -> bool {
    env::var("FRACAS_REQUIRE").is_ok_and(|require| ["all", "time"].contains(&require.as_str()))
}

/// Whether a lab can be had, tried once; inside, why it has no cgroups.
fn lab() -> &'static Result<Option<String>, String> {
    static TRIED: OnceLock<Result<Option<String>, String>> = OnceLock::new();
    TRIED.get_or_init(|| {
        let lab = Lab::start(Options::default()).map_err(|e| e.to_string())?;
        let limits = lab.limits().iter();
        Ok(limits.clone().find(|limit| limit.what.contains("cgroups")).map(|limit| limit.why.clone()))
    })
}

fn found(program: &str) -> bool {
    let executable = |path: &Path| path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    // Debian keeps some in a directory that is not in an ordinary user's path.
    let sbin = ["/usr/sbin".into(), "/sbin".into()];
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(sbin).any(|directory| executable(&directory.join(program)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_skips_unless_all_is_required() {
        let why = || Some("needs x".to_owned());
        assert_eq!(decide(None, Some("all")), Verdict::Go);
        assert_eq!(decide(why(), None), Verdict::Skip("needs x".into()));
        assert_eq!(decide(why(), Some("some")), Verdict::Skip("needs x".into()));
        assert!(matches!(decide(why(), Some("all")), Verdict::Fail(why) if why.starts_with("needs x")));
    }

    #[test]
    fn programs_are_looked_up() {
        assert_eq!(Need::Program("sh").missing(), None);
        assert_eq!(Need::Program("no-such-program").missing().as_deref(), Some("needs the program no-such-program"));
    }
}
