//! Probe `log`: do lines that are appended to a file match a pattern? It reads nothing that stood there before it began.

use std::{
    cell::Cell,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::MetadataExt as _,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use fracas_model::{
    catalogue::{Params, ProbeInfo},
    pattern::pattern,
    plan::Refusal,
    policy::Policy,
    shape::{Field, Shape},
    tolerance::{ReadingField, Values},
    units::Dur,
};
use regex_lite::Regex;

use crate::{LookFuture, Lookout, OneCall, PrepareFuture, Probe, Seen, brief, files};

/// Most that one look reads, in bytes; the next look goes on where it stopped.
const MOST: u64 = 1 << 20;
/// Longest line, in bytes: what follows counts as another line.
const LONGEST_LINE: usize = 16 * 1024;

/// The `log` probe.
#[derive(Debug)]
pub struct Log;

#[derive(Debug)]
struct Wanted {
    path: String,
    policy: Policy,
    fail_on: Option<Regex>,
    expect: Option<(Regex, Duration)>,
}

/// How far the file was read, and what was found on the way.
#[derive(Debug, Default)]
struct Follower {
    /// The file that is read, though its name may lead to another one by now, and how far.
    at: Option<(File, u64)>,
    /// The beginning of a line whose end is not written yet.
    begun: Vec<u8>,
    found: Found,
}

/// All that was found since looking began.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    lines: usize,
    bad: usize,
    expected: usize,
    /// When the expected line came last; at first, when looking began.
    seen: Option<Instant>,
}

struct Ready {
    wanted: Arc<Wanted>,
    /// Locked by the blocking calls alone: whoever holds it may wait for a disk.
    follower: Arc<Mutex<Follower>>,
    one: OneCall,
    /// What looks have told of it. A look that is given up may still read: what it finds is told by the next.
    told: Cell<Found>,
}

impl Probe for Log {
    fn info(&self) -> ProbeInfo {
        ProbeInfo {
            name: "log".into(),
            summary: "Looks for patterns in the lines that are appended to a file.".into(),
            help: HELP.into(),
            params: vec![
                Field::required("path", Shape::Path, "Regular file on the host that looks."),
                Field::optional("failOn", Shape::Pattern, "A look with a new line that matches this pattern fails."),
                Field::optional(
                    "expect",
                    Shape::Pattern,
                    "A line that matches this pattern must come again and again.",
                ),
                Field::optional(
                    "within",
                    Shape::duration(Dur::from_ms(10), Dur::from_secs(86_400)),
                    "Longest time from one expected line to the next, and from the first look to the first.",
                ),
            ],
            reading: vec![
                ReadingField::number("lines", "", "Whole lines that came since the last look."),
                ReadingField::number(
                    "matches",
                    "",
                    "How many of them matched `expect`; one that matches `failOn` fails the look.",
                ),
            ],
            example:
                r#"{ path: /var/log/shop/shop.log, failOn: "ERROR|panicked", expect: "order taken", within: 10s }"#
                    .into(),
        }
    }

    fn ready(&self, params: &Params, policy: &Policy) -> Result<Box<dyn Lookout>, Refusal> {
        Ok(Box::new(made(params, policy)?))
    }
}

fn made(params: &Params, policy: &Policy) -> Result<Rc<Ready>, Refusal> {
    let bad = |why| Refusal::new(format!("log: {why}"), "write a shorter or simpler pattern");
    let read = |name| params.text(name).map(pattern).transpose().map_err(bad);
    let (fail_on, expect, within) = (read("failOn")?, read("expect")?, params.duration("within"));
    let expect = match (expect, within) {
        (Some(expect), Some(within)) => Some((expect, within.std())),
        (None, None) => None,
        _ => {
            return Err(Refusal::new("log: expect and within say nothing without each other", "write both, or none"));
        }
    };
    if fail_on.is_none() && expect.is_none() {
        return Err(Refusal::new("log: there is nothing to look for", "write failOn, or expect and within"));
    }
    let path = params.text("path").unwrap_or_default().to_owned();
    files::named("log", &path, policy)?;
    let wanted = Arc::new(Wanted { path, policy: policy.clone(), fail_on, expect });
    Ok(Rc::new(Ready { wanted, follower: Arc::default(), one: OneCall::default(), told: Cell::default() }))
}

impl Ready {
    async fn follow(&self, begin: bool) -> Result<Found, String> {
        let (wanted, follower) = (self.wanted.clone(), self.follower.clone());
        let read = move || {
            let mut follower = locked(&follower);
            follower.read(&wanted, begin, Instant::now()).map(|()| follower.found)
        };
        self.one.blocking(read).await?.map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => "there is no such file".into(),
            _ => brief(format_args!("the file cannot be read: {e}")),
        })
    }
}

/// A follower is whole after every step, also one that panicked.
fn locked(follower: &Mutex<Follower>) -> std::sync::MutexGuard<'_, Follower> {
    follower.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lookout for Rc<Ready> {
    fn prepare(&self) -> PrepareFuture {
        let ready = self.clone();
        Box::pin(async move {
            let instead = "check the path, and that the host's policy names its folder as readIn";
            let refused = |why| Refusal::new(brief(format_args!("log: {}: {why}", ready.wanted.path)), instead);
            ready.follow(true).await.map(|_| ()).map_err(refused)
        })
    }

    fn look(&self) -> LookFuture {
        let ready = self.clone();
        Box::pin(async move {
            let found = ready.follow(false).await?;
            let told = ready.told.get();
            // Of two looks that end at once the later may tell first, and all.
            if found.lines >= told.lines {
                ready.told.set(found);
            }
            found.tell(told, &ready.wanted, Instant::now())
        })
    }
}

impl Follower {
    /// Reads what was appended. To begin is to skip what stands there; a file that is not there yet is read from its start.
    fn read(&mut self, wanted: &Wanted, begin: bool, now: Instant) -> io::Result<()> {
        self.found.seen.get_or_insert(now);
        let mut left = MOST;
        // What was written into the old file before its name was given to another comes first.
        if let Some((file, _)) = &self.at {
            let old = file.metadata()?;
            self.append(wanted, &mut left, now)?;
            let named = match files::allowed(&wanted.path, &wanted.policy) {
                // Between the two names of a rotation there is none.
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                named => named?,
            };
            let new = named.metadata()?;
            // Programs may write into the old file for long after its name was given to another: until they write into
            // the new one, and up to then.
            if (old.dev(), old.ino()) != (new.dev(), new.ino()) && new.len() > 0 {
                self.append(wanted, &mut left, now)?;
                if left > 0 {
                    self.at = Some((named, 0));
                    self.begun.clear();
                    self.append(wanted, &mut left, now)?;
                }
            }
            return Ok(());
        }
        let file = match files::allowed(&wanted.path, &wanted.policy) {
            // It may be made later, by the service that is looked at.
            Err(e) if e.kind() == io::ErrorKind::NotFound && begin => return Ok(()),
            file => file?,
        };
        let from = if begin { file.metadata()?.len() } else { 0 };
        self.at = Some((file, from));
        self.append(wanted, &mut left, now)
    }

    /// Reads the present file on, at most `left` bytes.
    fn append(&mut self, wanted: &Wanted, left: &mut u64, now: Instant) -> io::Result<()> {
        let Some((file, from)) = &mut self.at else { return Ok(()) };
        if file.metadata()?.len() < *from {
            // Cut short, to be written anew.
            *from = 0;
            self.begun.clear();
        }
        file.seek(SeekFrom::Start(*from))?;
        let mut bytes = Vec::new();
        let got = file.take(*left).read_to_end(&mut bytes)? as u64;
        *from += got;
        *left -= got;
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.line(wanted, now);
            }
            while self.begun.len() > LONGEST_LINE {
                let rest = self.begun.split_off(LONGEST_LINE);
                self.line(wanted, now);
                self.begun = rest;
            }
        }
        Ok(())
    }

    /// Judges the line that has begun, and begins another.
    fn line(&mut self, wanted: &Wanted, now: Instant) {
        let line = std::mem::take(&mut self.begun);
        for part in line.chunks(LONGEST_LINE) {
            let text = String::from_utf8_lossy(part);
            let text = text.trim_end_matches(['\n', '\r']);
            self.found.lines += 1;
            self.found.bad += usize::from(wanted.fail_on.as_ref().is_some_and(|bad| bad.is_match(text)));
            if wanted.expect.as_ref().is_some_and(|(expect, _)| expect.is_match(text)) {
                self.found.expected += 1;
                self.found.seen = Some(now);
            }
        }
    }
}

impl Found {
    /// What came besides what was told.
    fn tell(self, told: Self, wanted: &Wanted, now: Instant) -> Seen {
        let lines = self.lines.saturating_sub(told.lines);
        let bad = self.bad.saturating_sub(told.bad);
        if bad > 0 {
            // The lines themselves may hold what is not for everybody.
            return Err(format!("{bad} of {lines} new lines match failOn"));
        }
        if let (Some((_, within)), Some(seen)) = (&wanted.expect, self.seen.max(told.seen))
            && now.saturating_duration_since(seen) > *within
        {
            let within = Dur::from_ns(i64::try_from(within.as_nanos()).unwrap_or(i64::MAX));
            return Err(format!("no expected line for over {within}"));
        }
        Ok(Values::new().with("lines", lines).with("matches", self.expected.saturating_sub(told.expected)))
    }
}

const HELP: &str = "\
Fails when a line that was appended since the last look matches `failOn`, and as long as no line has matched `expect` for \
longer than `within`. Ok otherwise; with no new lines too, unless one is expected.

Lines that stood in the file before the probe began do not count. The file may be rotated, by renaming or by cutting it \
short, and may be missing for a moment: the old file is read until something stands in the new one, which is then read \
from its start. What is written between the last look and a cut is lost to it. A line counts when its end is written, \
and is judged in pieces of 16 KiB. Patterns are regular expressions (`ERROR|panicked`, `^5[0-9][0-9] `) found anywhere in the line; classes are ASCII's.

One matching line makes one failed look, so in a stop condition write `failingFor: 0s` for the first to count. Reasons tell \
how many lines matched and nothing of them. The host's owner decides what may be looked into: the folders that its policy \
names as readIn, /var/log unless told otherwise; the agent must be able to read there.

Cost: reading what is new, at most 1 MiB per look; of a log that grows faster than that the probe falls behind. While a \
disk still holds a look that was given up, the next ones fail at once.";

#[cfg(test)]
mod tests;
