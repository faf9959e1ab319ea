//! One program, many roles: workers are this program started again with a role. It holds the only table of roles
//! and decides nothing else.

use std::process::ExitCode;

/// First argument of a worker: `/proc/self/exe __fracas-worker ROLE ARGS...`.
pub const MARK: &str = "__fracas-worker";

/// What a role runs: its further arguments in, its exit code out. It must end by itself when its standard input ends.
pub type Role = fn(&[String]) -> i32;

/// Every role there is.
const ROLES: &[(&str, Role)] = &[
    ("burn", crate::host::cpu::role),
    ("fill", crate::host::fill::role),
    (crate::guard::ROLE, crate::service::guard_role),
    ("net", crate::host::net::worker::role),
    ("rest", crate::host::worker::rest),
    ("seize", crate::host::seize::role),
];

/// Runs the worker this process was started as and returns its exit code; `None` in an ordinary start.
///
/// Each binary that links the agent calls it before anything else in `main`, before threads, a runtime or logging
/// exist, and returns from `main` with the code it gets:
///
/// ```no_run
/// use std::process::ExitCode;
///
/// fn main() -> ExitCode {
///     if let Some(code) = fracas_agent::reexec() {
///         return fracas_agent::reexec::exit_code(code);
///     }
///     ExitCode::SUCCESS // the ordinary program
/// }
/// ```
pub fn reexec() -> Option<i32> {
    let mut arguments = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned());
    if arguments.next()? != MARK {
        return None;
    }
    let name = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let Some((_, role)) = ROLES.iter().find(|(n, _)| *n == name) else {
        return Some(2);
    };
    crate::crash::bugs_end_the_process();
    crate::host::worker::settle(&name);
    Some(role(&rest))
}

/// A worker's code as what `main` returns; anything outside 0 to 255 becomes 1.
pub fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
