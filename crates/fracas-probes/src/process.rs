//! Probe `process`: are enough processes of a name, pid file or unit running? It does not ask whether they work.

pub(crate) mod between;

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
};

use fracas_model::{
    catalogue::{Params, ProbeInfo},
    plan::Refusal,
    policy::Policy,
    process::{ProcessRef, ProcessSelector},
    shape::{Field, Shape},
    tolerance::{ReadingField, Values},
};

use self::between::{Between, Looked, Table};
use crate::{
    Dated, LookFuture, Lookout, OneCall, Probe, Seen, Told,
    exits::Exits,
    files,
    procevents::{
        chronicle::Claim,
        feed::{Cursor, Feed},
    },
    proctable,
};

/// Longest part of a pid file that is read: PostgreSQL writes several lines, the number is the first.
const PID_FILE_BYTES: usize = 4096;

/// The `process` probe.
#[derive(Debug)]
pub struct ProcessProbe;

#[derive(Clone, Debug)]
struct Ready {
    selector: ProcessSelector,
    count: usize,
}

impl Probe for ProcessProbe {
    fn info(&self) -> ProbeInfo {
        ProbeInfo {
            name: "process".into(),
            summary: "Sees whether enough processes of a name, pid file or unit run.".into(),
            help: "\
Ok when at least `count` processes are found. Give exactly one of `name`, `pidFile` and `unit`. A name is compared \
with the process's own name, its executable and its first argument; only *roots* count, so a server with twenty \
children of the same name is one. A unit is found by its control group.

A process that exists may still hang: to see whether a service answers, use `http` or `tcp`. Zombies and, for a pid \
file, a number that no longer runs count as not running. There is no `port`: the `tcp` probe sees a listening port from \
outside, at less cost.

An exit is not left to the next tick: the kernel tells it, for up to 64 of the processes, and a look follows at once. So an \
outage is known to begin within some milliseconds of the exit at the latest, however slow the probe ticks, and a \
supervisor that is faster than the tick is seen at work.

Where the agent may listen to the kernel's process connector (root, in the first network, pid and user namespace), the \
kernel's own stamps date exits and starts: the outage begins at the exit at the latest, and ends between the fork of the \
new process and the program it executes, mostly a fraction of a millisecond, even when all of that lies between two ticks. \
That is so for `name` (not for processes that are known by their first argument alone, nor for traced ones); the start of \
what a `pidFile` or a `unit` names is seen at the next tick, and with a `tolerance` all is. Where processes come and go by \
the thousand a second, looks have to do as well.

Cost: `pidFile` reads one entry of /proc; `name` and `unit` read all of it, some ten microseconds per process, so ask \
them at `every: 100ms` or slower on busy hosts. Runs without privilege, unless /proc hides other users' processes."
                .into(),
            params: vec![
                Field::optional("name", Shape::Text { max: 255 }, "Name, executable or first argument, without path."),
                Field::optional("pidFile", Shape::Path, "Regular file on whose first line the process number stands."),
                Field::optional("unit", Shape::Text { max: 255 }, "Systemd unit, such as nginx.service."),
                Field::reserved("port", "use the tcp probe: it sees a listening port from outside"),
                Field::with_default("count", Shape::Integer { min: 1, max: 100_000 }, 1, "How many must run."),
            ],
            reading: vec![ReadingField::number("count", "processes", "How many run.")],
            example: "{ name: postgres, count: 1 }".into(),
        }
    }

    fn ready(&self, params: &Params, _policy: &Policy) -> Result<Box<dyn Lookout>, Refusal> {
        let text = |name| params.text(name).map(str::to_owned);
        let mut given = [
            text("name").map(ProcessSelector::Name),
            text("pidFile").map(ProcessSelector::PidFile),
            text("unit").map(ProcessSelector::Unit),
        ]
        .into_iter()
        .flatten();
        match (given.next(), given.next()) {
            (Some(selector), None) => {
                let count = params.integer("count").and_then(|n| usize::try_from(n).ok()).unwrap_or(1);
                Ok(Box::new(Rc::new(Watched {
                    ready: Ready { selector, count },
                    exits: Exits::default(),
                    one: OneCall::default(),
                    between: Arc::default(),
                    told: RefCell::default(),
                })))
            }
            _ => Err(Refusal::new(
                "process: which processes are meant is not clear",
                "give exactly one of name, pidFile and unit",
            )),
        }
    }
}

/// What is looked for, and those whose exit is waited for.
#[derive(Debug)]
struct Watched {
    ready: Ready,
    exits: Exits,
    one: OneCall,
    between: Arc<Mutex<Between>>,
    told: RefCell<Told>,
}

/// What one look found.
struct Found {
    running: Vec<ProcessRef>,
    complete: Option<i64>,
    claims: Vec<Claim>,
    /// Why nobody is meant.
    nobody: Option<String>,
}

impl Lookout for Rc<Watched> {
    fn look(&self) -> LookFuture {
        let this = self.clone();
        Box::pin(async move {
            let (ready, between) = (this.ready.clone(), this.between.clone());
            let find = move || ready.find(&mut between.lock().unwrap_or_else(PoisonError::into_inner));
            let Found { running, complete, claims, nobody } = this.one.blocking(find).await?;
            this.exits.set(&running);
            let before = claims.into_iter().map(|claim| this.ready.told(claim)).collect();
            this.told.replace(Told { before, complete });
            nobody.map_or_else(|| this.ready.judge(running.len()), Err)
        })
    }

    fn told(&self) -> Told {
        self.told.take()
    }

    fn stirred(&self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(self.exits.next())
    }
}

impl Ready {
    fn find(&self, between: &mut Between) -> Found {
        let in_file = match &self.selector {
            ProcessSelector::PidFile(path) => Some(pid_in(path)),
            _ => None,
        };
        let (of_file, nobody) = match in_file {
            Some(Err(why)) => (Some(None), Some(why)),
            Some(Ok(pid)) => (Some(Some(pid)), None),
            None => (None, None),
        };
        let with_unit = matches!(self.selector, ProcessSelector::Unit(_));
        let again = |pid| match of_file {
            Some(only) if only != Some(pid) => None,
            _ => proctable::one(pid, with_unit),
        };
        let pid_in_file = of_file.flatten();
        let read = || {
            let all = match of_file {
                Some(only) => only.and_then(&again).into_iter().collect(),
                None => proctable::all(with_unit),
            };
            let processes = all.into_iter().map(|process| (process.id.pid, process)).collect();
            Table { processes, again: &again, pid_in_file }
        };
        let Looked { table, complete, claims } = between.looked(&self.selector, self.count, read);
        let running = self.selector.select(&table, pid_in_file).into_iter().map(|process| process.id.clone()).collect();
        Found { running, complete, claims, nobody }
    }

    fn told(&self, claim: Claim) -> Dated {
        let seen = match (claim.up, self.count) {
            (true, _) => Ok(()),
            (false, 1) => Err("not running".into()),
            (false, count) => Err(format!("fewer than {count} running")),
        };
        Dated { at: claim.at, seen }
    }

    fn judge(&self, running: usize) -> Seen {
        match running {
            found if found >= self.count => Ok(Values::new().with("count", found)),
            0 => Err("not running".into()),
            found => Err(format!("{found} of {} running", self.count)),
        }
    }
}

/// Whether this host's kernel dates starts and exits for us, or why not.
///
/// # Errors
/// No right to listen, or another namespace than the first.
pub fn kernel_dates() -> std::io::Result<()> {
    let feed = Feed::shared()?;
    let mut cursor = Cursor::default();
    let told = (0..2).map(|_| feed.since(&mut cursor).1).last().flatten();
    told.map(|_| ()).ok_or_else(|| std::io::Error::other("it does not speak to this namespace"))
}

/// Up to four claims of the time between two looks from bytes as the kernel's messages, for fuzzing. The first byte says
/// who ran at each look.
#[cfg(fuzzing)]
pub fn claimed(bytes: &[u8]) -> Vec<(i64, bool)> {
    use crate::procevents::{
        chronicle::{Matched, Snapshot, claims},
        connector::told_in,
    };
    let Some((ran, bytes)) = bytes.split_first() else { return Vec::new() };
    let snapshot = |at, ran: u8| {
        let runs = (0..4).filter(|bit| ran >> bit & 1 == 1).map(|pid| pid + 1);
        let matched = Matched { start_ticks: 1, parent: 0, root: true, by_image: true };
        Snapshot { at, matched: runs.map(|pid| (pid, matched)).collect(), others: (5..9).collect() }
    };
    let (before, after) = (snapshot(0, *ran), snapshot(i64::MAX, ran >> 4));
    claims(&before, &told_in(bytes), &after, 1 + bytes.len() % 2).iter().map(|c| (c.at, c.up)).collect()
}

/// The number on the first line of a pid file.
fn pid_in(path: &str) -> Result<i32, String> {
    let (text, _) = files::start(path, PID_FILE_BYTES).map_err(|_| "the pid file cannot be read".to_owned())?;
    let text = String::from_utf8_lossy(&text);
    text.lines().next().unwrap_or_default().trim().parse().map_err(|_| "the pid file holds no number".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ready(params: serde_json::Value) -> Result<Box<dyn Lookout>, Refusal> {
        ProcessProbe.ready(&serde_json::from_value(params).unwrap(), &Policy::builtin())
    }

    #[tokio::test(flavor = "current_thread")]
    async fn counts_roots_and_reads_pid_files() {
        let dir = tempfile::tempdir().unwrap();
        // A name of its own: the test machine runs other things.
        let program = dir.path().join("fracas-looked");
        std::fs::copy("/bin/sleep", &program).unwrap();
        let mut children: Vec<_> =
            (0..2).map(|_| std::process::Command::new(&program).arg("60").spawn().unwrap()).collect();
        let by_name = |count| ready(json!({ "name": "fracas-looked", "count": count })).unwrap();
        by_name(2).look().await.unwrap();
        assert_eq!(by_name(3).look().await.unwrap_err(), "2 of 3 running");

        let file = dir.path().join("pid");
        std::fs::write(&file, format!("{}\n", children[0].id())).unwrap();
        let by_file = ready(json!({ "pidFile": file.to_str().unwrap() })).unwrap();
        by_file.look().await.unwrap();
        for child in &mut children {
            child.kill().unwrap();
        }
        // Killed and not yet waited for: a zombie does not run.
        children[0].try_wait().unwrap();
        children[0].wait().unwrap();
        assert_eq!(by_file.look().await.unwrap_err(), "not running");
        children[1].wait().unwrap();
        assert_eq!(by_name(1).look().await.unwrap_err(), "not running");
        std::fs::write(&file, "none").unwrap();
        assert_eq!(by_file.look().await.unwrap_err(), "the pid file holds no number");
        let endless = ready(json!({ "pidFile": "/dev/zero" })).unwrap();
        assert_eq!(endless.look().await.unwrap_err(), "the pid file cannot be read");
    }

    #[test]
    fn one_selector_is_needed() {
        assert!(ready(json!({})).is_err());
        assert!(ready(json!({ "name": "a", "unit": "b.service" })).is_err());
    }
}
