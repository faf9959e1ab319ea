//! Ledger `exec`: a program of the user's that the host's policy allows writes and reads the markers. No shell.

use std::cell::Cell;

use fracas_model::{
    catalogue::{LedgerInfo, Params},
    plan::Refusal,
    policy::Policy,
    shape::{Field, Shape},
};

use super::{Book, Ledger, NotOpen, Now, Place, Written, foreign, marker, name};
use crate::{
    OneCall, brief,
    exec::{
        allowed,
        child::{Ended, Order},
        user,
    },
};

/// Longest list that is read, in bytes: as many markers as a ledger takes at most.
const LONGEST_LIST: usize = 8 << 20;
/// Exit code of what surely was not written: none that a program ends with by accident.
const FAILED: i32 = 4;
/// Exit code of a place that is not ours.
const FOREIGN: i32 = 3;

/// The `exec` ledger.
#[derive(Debug)]
pub(super) struct ExecLedger;

#[derive(Debug)]
struct Ready {
    order: Order,
    place: Place,
    one: OneCall,
}

impl Ledger for ExecLedger {
    fn info(&self) -> LedgerInfo {
        LedgerInfo {
            name: "exec".into(),
            summary: "Keeps markers by a program that the host's policy allows.".into(),
            help: HELP.into(),
            params: vec![Field::required(
                "command",
                Shape::list(Shape::Text { max: 4096 }, 64),
                "Absolute path of the program, then its first arguments.",
            )],
            place: "place".into(),
            example: r#"{ command: ["/usr/local/bin/orders-ledger"] }"#.into(),
        }
    }

    fn ready(&self, params: &Params, policy: &Policy, place: Place) -> Result<Box<dyn Book>, Refusal> {
        let (program, arguments) = allowed(params, policy)?;
        let order = Order { program, arguments, user: user(&policy.exec_user)?, keep: 0 };
        Ok(Box::new(Ready { order, place, one: OneCall::default() }))
    }
}

impl Ready {
    async fn run(&self, words: &[&str], keep: usize) -> Result<Ended, String> {
        let mut order = Order { keep, ..self.order.clone() };
        order.arguments.extend(words.iter().map(|word| (*word).to_owned()));
        // Forking takes about a millisecond, which other probes' ticks must not feel.
        self.one.blocking(move || order.start()).await??.ended().await
    }

    fn foreign(&self) -> Refusal {
        foreign("place", &self.place)
    }
}

/// How it ended, in words.
fn ended(ended: &Ended) -> String {
    match (ended.code, ended.signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended without an exit code".into(),
    }
}

impl Book for Ready {
    fn open<'a>(&'a self, make: bool, touched: &'a Cell<bool>) -> Now<'a, Result<(), NotOpen>> {
        Box::pin(async move {
            if !make {
                return Ok(());
            }
            touched.set(true);
            let run =
                self.run(&["open", &self.place.name, &self.place.token], 0).await.map_err(NotOpen::Unreachable)?;
            match run.code {
                Some(0) => Ok(()),
                Some(FOREIGN) => Err(NotOpen::Refused(self.foreign())),
                _ => Err(NotOpen::Unreachable(ended(&run))),
            }
        })
    }

    fn write<'a>(&'a self, life: u64, number: u64, sent: &'a Cell<bool>) -> Now<'a, Written> {
        Box::pin(async move {
            sent.set(true);
            match self.run(&["append", &self.place.name, &self.place.token, &name(life, number)], 0).await {
                Ok(run) if run.code == Some(0) => Written::Acknowledged,
                Ok(run) if run.code == Some(FAILED) => Written::Failed(ended(&run)),
                Ok(run) => Written::Unknown(ended(&run)),
                // It may have begun its work.
                Err(why) => Written::Unknown(why),
            }
        })
    }

    fn read(&self) -> Now<'_, Result<Vec<(u64, u64)>, String>> {
        Box::pin(async {
            let run = self.run(&["read", &self.place.name, &self.place.token], LONGEST_LIST).await?;
            match run.code {
                Some(0) if run.stdout.len() >= LONGEST_LIST => Err("the list is longer than 8 MiB".into()),
                Some(0) => {
                    let text = String::from_utf8_lossy(&run.stdout);
                    let names = text.lines().filter(|line| !line.is_empty());
                    let records: Option<Vec<_>> = names.map(marker).collect();
                    records.ok_or_else(|| brief("it printed what is no marker"))
                }
                Some(FOREIGN) => Err(self.foreign().why),
                _ => Err(ended(&run)),
            }
        })
    }

    fn remove(&self) -> Now<'_, Result<(), String>> {
        Box::pin(async {
            let run = self.run(&["drop", &self.place.name, &self.place.token], 0).await?;
            match run.code {
                Some(0) => Ok(()),
                Some(FOREIGN) => Err(self.foreign().why),
                _ => Err(ended(&run)),
            }
        })
    }
}

const HELP: &str = "\
For anything else: a queue, a file store, an interface of your own. The program of `command` is started with its arguments \
and then with one of these:

`open PLACE OWNER` makes the place and remembers its owner, or finds it made by the same: exit code 0. Made by somebody else: \
3, and nothing may be changed; the run ends before anything is broken. Any other code: tried again later. `append PLACE OWNER \
MARKER` stores a marker through the service's own client path: 0 when the service acknowledged it, 4 when it surely was not \
stored, anything else when nobody knows. `read PLACE OWNER` prints all markers that are there, one on each line, each as \
often as it is there, up to 8 MiB; nothing when the place is gone. `drop PLACE OWNER` removes the place; 0 too when it is \
gone. A place is of small letters, digits and `_`, a marker of digits and `-`.

The host's owner must allow the program by its path in `execAllow`; it runs as the policy's `execUser`, with the limits of the \
probe `exec`: no shell, an empty environment, killed with all it started when `timeout` passes.

Cost: one process for each marker; write `every: 500ms` or slower.";
