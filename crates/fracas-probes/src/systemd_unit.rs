//! Probe `systemd-unit`: asks systemd in which state a unit is. It starts and stops nothing, and waits for no state.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use fracas_model::{
    catalogue::{Params, ProbeInfo},
    plan::Refusal,
    policy::Policy,
    shape::{Field, Shape},
    tolerance::{ReadingField, Values},
};
use rustix::time::{ClockId, Timespec, clock_gettime};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
};

use crate::{
    LookFuture, Lookout, Probe, Seen, brief,
    connect::world,
    dbus::{self, BOOTED, BUS, MANAGER, Message, OWN, SYSTEMD, Value, call},
    wire::Wire,
};

/// Longest answer, with everything that a bus says beside it, bytes.
const LONGEST: usize = 256 * 1024;
/// Longest line of the greeting.
const LONGEST_LINE: usize = 4096;
/// Longest name of a unit: `UNIT_NAME_MAX` of systemd, less the closing zero.
const LONGEST_NAME: usize = 255;
/// What `ActiveState` may be, besides what later versions of systemd have.
const STATES: [&str; 8] =
    ["active", "reloading", "inactive", "failed", "activating", "deactivating", "maintenance", "refreshing"];
/// How the names of units end, with the interface that has more to say of such a unit, and what of [`MORE`] it has.
const KINDS: [(&str, &str, usize); 11] = [
    ("service", "Service", 3),
    ("socket", "Socket", 1),
    ("timer", "Timer", 1),
    ("path", "Path", 1),
    ("mount", "Mount", 1),
    ("automount", "Automount", 1),
    ("swap", "Swap", 1),
    ("scope", "Scope", 1),
    ("target", "Target", 0),
    ("slice", "Slice", 0),
    ("device", "Device", 0),
];
/// What all units have, and what some have.
const ALL: [&str; 4] = ["ActiveState", "SubState", "LoadState", "StateChangeTimestampMonotonic"];
const MORE: [&str; 3] = ["Result", "MainPID", "NRestarts"];

/// The `systemd-unit` probe.
#[derive(Debug)]
pub struct SystemdUnit;

#[derive(Debug)]
struct Ready {
    unit: String,
    states: BTreeSet<String>,
    /// Where systemd is spoken to, if not at this host's own sockets.
    at: Option<PathBuf>,
}

impl Probe for SystemdUnit {
    fn info(&self) -> ProbeInfo {
        let state = || Shape::choice(&STATES);
        ProbeInfo {
            name: "systemd-unit".into(),
            summary: "Asks systemd in which state a unit is.".into(),
            help: HELP.into(),
            params: vec![
                Field::required("unit", Shape::Text { max: LONGEST_NAME }, "Name of the unit; nginx is nginx.service."),
                Field::with_default(
                    "state",
                    Shape::Either(vec![state(), Shape::list(state(), STATES.len())]),
                    "active",
                    "State, or list of states, that count as ok.",
                ),
            ],
            reading: vec![
                ReadingField::word("activeState", "What systemd calls its state: active, failed, ..."),
                ReadingField::word("subState", "The same in the words of its kind: running, auto-restart, ..."),
                ReadingField::word("result", "How it ended last: success, exit-code, oom-kill, ..."),
                ReadingField::number("restarts", "", "How often Restart= started it anew; of services only."),
                ReadingField::number("mainPid", "", "Its main process, 0 without one; of services only."),
                ReadingField::duration("since", "How long it has been in this state; not known before its first."),
            ],
            example: "{ unit: nginx, tolerance: { restarts: { max: 0 } } }".into(),
        }
    }

    fn ready(&self, params: &Params, _policy: &Policy) -> Result<Box<dyn Lookout>, Refusal> {
        Ok(Box::new(Rc::new(Ready::of(params, None)?)))
    }
}

/// The probe with a bus at another socket than this host's.
///
/// # Errors
/// As [`Probe::ready`].
pub fn at(params: &Params, socket: &Path) -> Result<Box<dyn Lookout>, Refusal> {
    Ok(Box::new(Rc::new(Ready::of(params, Some(socket.to_owned()))?)))
}

impl Ready {
    fn of(params: &Params, at: Option<PathBuf>) -> Result<Self, Refusal> {
        let given = params.text("unit").unwrap_or_default();
        let refused = |why: String, instead: &str| Err(Refusal::new(format!("systemd-unit: {why}"), instead));
        let allowed = |c: char| c.is_ascii_alphanumeric() || ":_.\\@-".contains(c);
        if given.is_empty() || !given.chars().all(allowed) {
            return refused(format!("{given:?} is not the name of a unit"), "write it as systemctl prints it");
        }
        let unit = if given.contains('.') { given.to_owned() } else { format!("{given}.service") };
        if kind(&unit).is_none() {
            return refused(format!("{unit} is no kind of unit"), "write its whole name, such as nginx.service");
        }
        let state = params.0.get("state");
        let list =
            state.and_then(|s| s.as_array()).map_or(state.into_iter().collect::<Vec<_>>(), |l| l.iter().collect());
        let mut states: BTreeSet<String> = list.iter().filter_map(|s| s.as_str().map(str::to_owned)).collect();
        if states.is_empty() {
            states.insert("active".into());
        }
        Ok(Self { unit, states, at })
    }

    async fn connect(&self) -> Result<(UnixStream, bool), String> {
        if let Some(socket) = &self.at {
            return Ok((UnixStream::connect(socket).await.map_err(|e| world(&e))?, true));
        }
        if !Path::new(BOOTED).is_dir() {
            return Err("systemd does not run this host".into());
        }
        match UnixStream::connect(BUS).await {
            Ok(stream) => Ok((stream, true)),
            Err(bus) => match UnixStream::connect(OWN).await {
                Ok(stream) => Ok((stream, false)),
                Err(own) => {
                    let (bus, own) = (world(&bus), world(&own));
                    Err(brief(format_args!("neither the bus ({bus}) nor systemd itself ({own}) can be spoken to")))
                }
            },
        }
    }

    /// Asks over a stream that is there; only buses want to be greeted.
    async fn ask<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S, bus: bool) -> Seen {
        let mut talk = Talk::begin(stream, bus).await?;
        let words = ["org.freedesktop.systemd1.Manager", "LoadUnit", &self.unit];
        let found = talk.ask(SYSTEMD, MANAGER, &[&words]).await?.into_iter().next();
        let Some(Ok(Value::Text(path))) = found else { return Err(strange("LoadUnit", found)) };
        let (interface, more) = kind(&self.unit).unwrap_or_default();
        let get = |of: &str, name: &'static str| {
            ["org.freedesktop.DBus.Properties".to_owned(), "Get".into(), format!("{SYSTEMD}.{of}"), name.into()]
        };
        let all = ALL.into_iter().map(|name| get("Unit", name));
        let calls: Vec<_> = all.chain(MORE.into_iter().take(more).map(|name| get(interface, name))).collect();
        let calls: Vec<_> = calls.iter().map(|words| words.each_ref().map(String::as_str)).collect();
        let calls: Vec<&[&str]> = calls.iter().map(|words| &words[..]).collect();
        self.judge(talk.ask(SYSTEMD, &path, &calls).await?)
    }

    /// What the properties say: [`ALL`], then those of [`MORE`] that there are.
    fn judge(&self, given: Vec<Given>) -> Seen {
        let mut given = given.into_iter();
        let mut text = |name| match given.next() {
            Some(Ok(Value::Text(text))) => Ok(text),
            other => Err(strange(name, other)),
        };
        let (active, sub, load) = (text(ALL[0])?, text(ALL[1])?, text(ALL[2])?);
        // Which of the others there are depends on the version of systemd.
        let changed = number(given.next());
        let result = match given.next() {
            Some(Ok(Value::Text(result))) => Some(result),
            _ => None,
        };
        let (pid, restarts) = (number(given.next()), number(given.next()));
        // A unit that nobody has heard of is inactive too: most likely its name is mistyped.
        if load == "not-found" && active == "inactive" {
            return Err("systemd knows no such unit".into());
        }
        if !self.states.contains(&active) {
            let how = result.filter(|result| active == "failed" && result != "success").unwrap_or(sub);
            return Err(brief(format_args!("{active} ({how})")));
        }
        Ok(Values::new()
            .with("activeState", active)
            .with("subState", brief(sub))
            .with_known("result", result.map(brief))
            .with_known("restarts", restarts)
            .with_known("mainPid", pid)
            .with_known("since", changed.and_then(|at| since(at, clock_gettime(ClockId::Monotonic)))))
    }
}

impl Lookout for Rc<Ready> {
    fn look(&self) -> LookFuture {
        let ready = self.clone();
        Box::pin(async move {
            let (stream, bus) = ready.connect().await?;
            ready.ask(stream, bus).await
        })
    }
}

/// The interface of units that are named so, and how much of [`MORE`] it has.
fn kind(unit: &str) -> Option<(&'static str, usize)> {
    let (before, suffix) = unit.rsplit_once('.')?;
    let known = KINDS.iter().find(|(name, ..)| *name == suffix).filter(|_| !before.is_empty());
    known.map(|(_, interface, more)| (*interface, *more))
}

fn number(given: Option<Given>) -> Option<u64> {
    match given {
        Some(Ok(Value::Number(number))) => Some(number),
        _ => None,
    }
}

/// How long ago it was, by the clock that systemd stamps with, in microseconds; zero is never.
fn since(changed_us: u64, now: Timespec) -> Option<Duration> {
    let now = Duration::new(u64::try_from(now.tv_sec).ok()?, u32::try_from(now.tv_nsec).ok()?);
    (changed_us > 0).then(|| now.saturating_sub(Duration::from_micros(changed_us)))
}

/// What a call was answered by that is of no use, in words.
fn strange(what: &str, given: Option<Given>) -> String {
    match given {
        Some(Err(why)) => brief(format_args!("{what}: {why}")),
        _ => brief(format_args!("the answer to {what} is not systemd's")),
    }
}

/// The first value of an answer, or what the error says.
type Given = Result<Value, String>;

/// A conversation over a bus, or with systemd itself.
struct Talk<S> {
    wire: Wire<S>,
    serial: u32,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<S> {
    async fn begin(stream: S, bus: bool) -> Result<Self, String> {
        let mut talk = Self { wire: Wire::over(stream, LONGEST), serial: 0 };
        talk.wire.send(&dbus::greeting(rustix::process::geteuid().as_raw())).await?;
        let answer = talk.wire.line(LONGEST_LINE).await?;
        if !answer.starts_with(b"OK ") {
            return Err(brief(format_args!("the bus does not let us in: {}", String::from_utf8_lossy(&answer))));
        }
        if bus {
            let words = ["org.freedesktop.DBus", "Hello"];
            talk.ask("org.freedesktop.DBus", "/org/freedesktop/DBus", &[&words])
                .await?
                .into_iter()
                .next()
                .transpose()?;
        }
        Ok(talk)
    }

    /// Calls of an object, each an interface, a method and its arguments; all are sent before the first is answered.
    async fn ask(&mut self, to: &str, path: &str, calls: &[&[&str]]) -> Result<Vec<Given>, String> {
        let first = self.serial + 1;
        let mut bytes = Vec::new();
        for words in calls {
            let [interface, member, words @ ..] = words else { continue };
            let words: Vec<Value> = words.iter().map(|word| Value::from(*word)).collect();
            self.serial += 1;
            bytes.extend(call(self.serial, to, path, interface, member, &words));
        }
        self.wire.send(&bytes).await?;
        let mut given: Vec<Option<Given>> = vec![None; calls.len()];
        while given.iter().any(Option::is_none) {
            let Message { answers, error, body } = self.message().await?;
            // Others are signals, of no concern.
            let place = answers.and_then(|serial| usize::try_from(serial.checked_sub(first)?).ok());
            let Some(place) = place.and_then(|place| given.get_mut(place)) else { continue };
            *place = Some(match (error, body.into_iter().next()) {
                (None, Some(value)) => Ok(value),
                (None, None) => Err("an empty answer".into()),
                (Some(_), Some(Value::Text(why))) => Err(why),
                (Some(name), _) => Err(name),
            });
        }
        Ok(given.into_iter().flatten().collect())
    }

    async fn message(&mut self) -> Result<Message, String> {
        const STRANGE: &str = "the answer is not D-Bus";
        let mut whole = self.wire.exact(dbus::HEAD).await?;
        let head: [u8; dbus::HEAD] = whole[..].try_into().map_err(|_| STRANGE)?;
        whole.extend(self.wire.exact(dbus::rest(&head).ok_or(STRANGE)?).await?);
        Message::read(&whole).ok_or_else(|| STRANGE.to_owned())
    }
}

/// What a look with these parameters makes of what `stream` answers as a bus, for fuzzing.
#[cfg(fuzzing)]
pub async fn judge(params: &Params, stream: impl AsyncRead + AsyncWrite + Unpin) -> Seen {
    let ready = Ready::of(params, None).map_err(|refusal| refusal.why)?;
    crate::tolerated::compared(&SystemdUnit, params, ready.ask(stream, true).await)
}

const HELP: &str = "\
Ok when `ActiveState` of the unit is `state`, or one of them: `active` unless told otherwise. A service whose process died \
and that waits for its restart is `activating (auto-restart)`, one that gave up `failed (exit-code)`: the reason of a look \
that fails is the state with its own word for it. A unit that systemd does not know fails whatever `state` is, also one that \
was made by systemd-run and vanished when it ended.

What a supervisor hides is in the other fields: `tolerance: { restarts: { max: 0 } }` sees each restart that was quicker than \
the tick, until systemctl reset-failed sets the number to zero; `{ since: { min: 30s } }` takes a service for well only when \
it has been so for a while; `{ mainPid: { notEquals: 0 } }` a unit that is active but runs nothing. `restarts` and `mainPid` \
are those of services; `result` is not known of targets, slices and devices.

systemd is asked over D-Bus, at /run/dbus/system_bus_socket or, where no bus answers, at its own socket, which takes root \
only; anybody may ask over the bus. A state says what systemd thinks of the process, not whether the service answers: for \
that use `http` or `tcp` beside it. `process` with `unit` counts processes and is told of their exit by the kernel; this \
probe sees a state at the next tick.

Cost: one connection and up to nine short calls per look, in four round trips; systemd answers them one after the other, so \
ask at `every: 200ms` or slower.";

#[cfg(test)]
mod tests;
