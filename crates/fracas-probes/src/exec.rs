//! Probe `exec`: runs one allowed program and judges its exit code and output. No shell, no environment, no privilege.

use std::{fs, path::Path, rc::Rc};

use fracas_model::{
    catalogue::{Params, ProbeInfo},
    plan::Refusal,
    policy::Policy,
    shape::{Field, Shape},
    tolerance::{self, ReadingField, Values},
};

use crate::{LookFuture, Lookout, OneCall, Probe, Seen};

pub(crate) mod child;
mod keeper;

use child::{Ended, Order};

/// How much output is in a reading, in bytes.
const SHOWN: usize = 4096;

/// The `exec` probe.
#[derive(Debug)]
pub struct Exec;

#[derive(Debug)]
struct Ready {
    order: Order,
    exit_code: i32,
    stdout: Option<String>,
    one: OneCall,
}

impl Probe for Exec {
    fn info(&self) -> ProbeInfo {
        ProbeInfo {
            name: "exec".into(),
            summary: "Runs a program that the host's policy allows and judges its exit code.".into(),
            help: "\
Ok when the program ends with `exitCode` and, if `stdout` is given, that text stands in the first 64 KiB it printed. \
The host's owner must allow the program: its absolute path, letter by letter, stands in `execAllow` of the host's \
policy. Everything else is refused before anything starts.

It runs as the policy's `execUser` (nobody, unless told otherwise), in `/`, with an empty environment and no input. \
There is no shell: each element of `command` is one argument, and nothing in it is expanded. It and \
everything it starts, also what runs away into the background, is killed when the program ends, when the probe's timeout passes and when the agent dies; it can \
gain no privilege (a setuid program stays what it was started as); and it has limits: 10 s of \
processor time, 4 GiB of address space, 256 open files, 16 MiB per written file.

Cost: one process per look, about a millisecond; ask at `every: 1s` or slower, and give it a timeout to match."
                .into(),
            params: vec![
                Field::required(
                    "command",
                    Shape::list(Shape::Text { max: 4096 }, 64),
                    "Absolute path of the program, then its arguments.",
                ),
                Field::with_default("exitCode", Shape::Integer { min: 0, max: 255 }, 0, "Exit code that counts as ok."),
                Field::optional("stdout", Shape::Text { max: 1024 }, "Text that its output must hold."),
            ],
            reading: vec![
                ReadingField::number("exitCode", "", "Exit code of the program."),
                ReadingField::text("output", "The first 4 KiB that it printed."),
            ],
            example: r#"{ command: ["/usr/bin/pg_isready", "--quiet"], exitCode: 0 }"#.into(),
        }
    }

    fn ready(&self, params: &Params, policy: &Policy) -> Result<Box<dyn Lookout>, Refusal> {
        let (program, arguments) = allowed(params, policy)?;
        let stdout = params.text("stdout").map(str::to_owned);
        let wanted = stdout.is_some() || tolerance::wants(params, "output");
        let keep = if wanted { child::LONGEST_OUTPUT } else { 0 };
        let order = Order { program, arguments, user: user(&policy.exec_user)?, keep };
        let exit_code = params.integer("exitCode").and_then(|c| i32::try_from(c).ok()).unwrap_or(0);
        Ok(Box::new(Rc::new(Ready { order, exit_code, stdout, one: OneCall::default() })))
    }
}

/// The program of `command` and its arguments.
///
/// # Errors
/// The host's policy does not allow it.
pub(crate) fn allowed(params: &Params, policy: &Policy) -> Result<(String, Vec<String>), Refusal> {
    let mut command = params.texts("command").into_iter().map(str::to_owned);
    let program = command.next().unwrap_or_default();
    if !Path::new(&program).is_absolute() {
        return Err(Refusal::new(
            format!("exec: {program:?} is not an absolute path"),
            "name the program by its whole path, for example /usr/bin/pg_isready",
        ));
    }
    if !policy.exec_allow.contains(&program) {
        return Err(Refusal::new(
            format!("exec: this host's policy does not allow {program}"),
            format!("have the host's owner add {program} to execAllow in the policy file"),
        ));
    }
    Ok((program, command.collect()))
}

/// User and group to change to; `None` when the agent already is that user. Only root can become somebody else.
pub(crate) fn user(name: &str) -> Result<Option<(u32, u32)>, Refusal> {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let entry = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (login, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        (login == name || uid == name).then(|| Some((uid.parse().ok()?, gid.parse().ok()?)))?
    });
    let Some((uid, gid)) = entry else {
        return Err(Refusal::new(
            format!("exec: this host has no user {name}"),
            "set execUser in the host's policy to a user in /etc/passwd",
        ));
    };
    let own = rustix::process::geteuid().as_raw();
    if own == uid {
        Ok(None)
    } else if own == 0 {
        Ok(Some((uid, gid)))
    } else {
        Err(Refusal::new(
            format!("exec: programs run as {name} here, and the agent (user {own}) cannot become that user"),
            format!("run the agent as root, or set execUser: \"{own}\" in the host's policy"),
        ))
    }
}

impl Lookout for Rc<Ready> {
    fn look(&self) -> LookFuture {
        let ready = self.clone();
        Box::pin(async move {
            let order = ready.order.clone();
            // Forking takes about a millisecond, which other probes' ticks must not feel.
            let running = ready.one.blocking(move || order.start()).await??;
            ready.judge(running.ended().await?)
        })
    }
}

impl Ready {
    fn judge(&self, ended: Ended) -> Seen {
        match (ended.code, ended.signal) {
            (Some(code), _) if code == self.exit_code => {}
            (Some(code), _) => return Err(format!("exit code {code}")),
            (None, Some(signal)) => return Err(format!("ended by signal {signal}")),
            (None, None) => return Err("ended without an exit code".into()),
        }
        match &self.stdout {
            Some(text) if !ended.stdout.windows(text.len().max(1)).any(|w| w == text.as_bytes()) => {
                Err("output lacks the text".into())
            }
            _ => {
                let shown = &ended.stdout[..ended.stdout.len().min(SHOWN)];
                let output = (self.order.keep > 0).then(|| String::from_utf8_lossy(shown).into_owned());
                Ok(Values::new().with("exitCode", f64::from(self.exit_code)).with_known("output", output))
            }
        }
    }
}

#[cfg(test)]
mod tests;
