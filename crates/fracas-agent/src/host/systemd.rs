//! The few words of D-Bus that stopping, starting and installing a unit takes, over the system bus or systemd's own socket. No other
//! bus, no signals, no introspection: one call, one answer, within a time and a size. The bytes of messages are read and written
//! by [`fracas_probes::dbus`].

use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use fracas_probes::dbus::{self, BOOTED, BUS, MANAGER, Message, OWN, SYSTEMD, Value, call};

/// How long one conversation may take; a step is cut off after five seconds.
const PATIENCE: Duration = Duration::from_secs(3);
/// The same where systemd reads all its files anew before it answers.
const LONG_PATIENCE: Duration = Duration::from_mins(1);
/// Longest line of the greeting.
const LONGEST_LINE: usize = 4096;
/// Messages that are not the answer and are passed over, in one call.
const MOST_OTHERS: usize = 1000;

/// Where systemd is spoken to.
#[derive(Clone, Debug, Default)]
pub struct Systemd {
    /// A bus at another socket than this host's.
    at: Option<PathBuf>,
}

/// A conversation with systemd.
#[derive(Debug)]
pub struct Talk {
    stream: UnixStream,
    until: Instant,
    serial: u32,
}

impl Systemd {
    /// A bus at this socket.
    pub fn at(socket: &Path) -> Self {
        Self { at: Some(socket.to_owned()) }
    }

    /// Begins to talk. The error says why nobody answers.
    pub fn talk(&self) -> Result<Talk, String> {
        if let Some(socket) = &self.at {
            return Talk::begin(socket, true).map_err(|e| format!("{} does not answer: {e}", socket.display()));
        }
        if !Path::new(BOOTED).is_dir() {
            return Err(format!("systemd does not run this host (there is no {BOOTED})"));
        }
        Talk::begin(Path::new(BUS), true)
            .or_else(|bus| Talk::begin(Path::new(OWN), false).map_err(|own| (bus, own)))
            .map_err(|(bus, own)| format!("systemd answers neither at {BUS} ({bus}) nor at {OWN} ({own})"))
    }
}

impl Talk {
    fn begin(socket: &Path, greets: bool) -> io::Result<Self> {
        let mut talk = Self { stream: UnixStream::connect(socket)?, until: Instant::now() + PATIENCE, serial: 0 };
        talk.send(&dbus::greeting(rustix::process::geteuid().as_raw()))?;
        let answer = talk.line()?;
        if !answer.starts_with("OK ") {
            return Err(io::Error::other(format!("it does not let us in: {answer}")));
        }
        if greets {
            talk.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello", &[])
                .map_err(io::Error::other)?;
        }
        Ok(talk)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write_all(bytes)
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }

    /// Fills the whole buffer, however slowly it comes, within the time of the conversation.
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let mut at = 0;
        while at < buffer.len() {
            self.stream.set_read_timeout(Some(self.left()?))?;
            match self.stream.read(&mut buffer[at..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => at += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn line(&mut self) -> io::Result<String> {
        let (mut line, mut byte) = (Vec::new(), [0]);
        while line.len() < LONGEST_LINE {
            self.fill(&mut byte)?;
            if byte[0] == b'\n' {
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            line.push(byte[0]);
        }
        Err(io::Error::other("the greeting has no end"))
    }

    fn message(&mut self) -> io::Result<Message> {
        let mut head = [0; dbus::HEAD];
        self.fill(&mut head)?;
        let rest = dbus::rest(&head).ok_or_else(|| io::Error::other("that is no D-Bus message"))?;
        let mut whole = head.to_vec();
        whole.resize(dbus::HEAD + rest, 0);
        self.fill(&mut whole[dbus::HEAD..])?;
        Message::read(&whole).ok_or_else(|| io::Error::other("that is no D-Bus message"))
    }

    /// One call with texts as arguments, and the values of its answer.
    fn call(
        &mut self,
        to: &str,
        path: &str,
        interface: &str,
        member: &str,
        words: &[Value],
    ) -> Result<Vec<Value>, String> {
        self.serial += 1;
        let failed = |e: io::Error| format!("{member} was not answered: {e}");
        self.send(&call(self.serial, to, path, interface, member, words)).map_err(failed)?;
        for _ in 0..MOST_OTHERS {
            let answer = self.message().map_err(failed)?;
            if answer.answers != Some(self.serial) {
                continue;
            }
            return match answer.error {
                None => Ok(answer.body),
                Some(name) => Err(match answer.body.first() {
                    Some(Value::Text(why)) => format!("{member} was refused: {why} ({name})"),
                    _ => format!("{member} was refused: {name}"),
                }),
            };
        }
        Err(format!("{member} was not answered"))
    }

    fn manage(&mut self, member: &str, words: &[Value]) -> Result<Vec<Value>, String> {
        self.call(SYSTEMD, MANAGER, "org.freedesktop.systemd1.Manager", member, words)
    }

    /// Path of the unit of a name, which need not exist.
    fn unit(&mut self, name: &str) -> Result<String, String> {
        match self.manage("LoadUnit", &[name.into()])?.into_iter().next() {
            Some(Value::Text(path)) => Ok(path),
            other => Err(format!("LoadUnit was answered by {other:?}")),
        }
    }

    fn property(&mut self, path: &str, name: &str) -> Result<Value, String> {
        let words = ["org.freedesktop.systemd1.Unit".into(), name.into()];
        let answer = self.call(SYSTEMD, path, "org.freedesktop.DBus.Properties", "Get", &words)?;
        answer.into_iter().next().ok_or_else(|| format!("the property {name} has no value"))
    }

    fn text(&mut self, path: &str, name: &str) -> Result<String, String> {
        match self.property(path, name)? {
            Value::Text(text) => Ok(text),
            other => Err(format!("the property {name} is {other:?}")),
        }
    }

    /// The unit's own name, `LoadState`, `ActiveState`, and whether it may be stopped by hand.
    pub fn about(&mut self, name: &str) -> Result<(String, String, String, bool), String> {
        let path = self.unit(name)?;
        let (own, load, active) =
            (self.text(&path, "Id")?, self.text(&path, "LoadState")?, self.text(&path, "ActiveState")?);
        let stoppable = self.property(&path, "CanStop")? == Value::Flag(true)
            && self.property(&path, "RefuseManualStop")? == Value::Flag(false);
        Ok((own, load, active, stoppable))
    }

    /// `ActiveState`.
    pub fn active(&mut self, name: &str) -> Result<String, String> {
        let path = self.unit(name)?;
        self.text(&path, "ActiveState")
    }

    /// Units that are not at rest and stop when this one does.
    pub fn dependents(&mut self, name: &str) -> Result<Vec<String>, String> {
        let path = self.unit(name)?;
        let mut found = Vec::new();
        for relation in ["RequiredBy", "BoundBy", "ConsistsOf"] {
            let Value::Texts(others) = self.property(&path, relation)? else { continue };
            for other in others {
                // Targets only group others: who reaches them has been started, and nothing of it runs in them.
                let grouping = other.ends_with(".target");
                if !grouping && !found.contains(&other) && !at_rest(&self.active(&other)?) {
                    found.push(other);
                }
            }
        }
        Ok(found)
    }

    /// Asks for a stop; it may take as long as the unit likes.
    pub fn stop(&mut self, name: &str) -> Result<(), String> {
        self.manage("StopUnit", &[name.into(), "replace".into()]).map(|_| ())
    }

    /// Asks for a start.
    pub fn start(&mut self, name: &str) -> Result<(), String> {
        self.manage("StartUnit", &[name.into(), "replace".into()]).map(|_| ())
    }

    /// Asks for a stop and a start, or a start alone if nothing of it runs.
    pub fn restart(&mut self, name: &str) -> Result<(), String> {
        self.manage("RestartUnit", &[name.into(), "replace".into()]).map(|_| ())
    }

    /// Lets systemd read all unit files anew.
    pub fn reload(&mut self) -> Result<(), String> {
        self.until = Instant::now() + LONG_PATIENCE;
        self.manage("Reload", &[]).map(|_| ())
    }

    /// Lets a unit start at boot, as its file says; what was changed for that, in words.
    pub fn enable(&mut self, name: &str) -> Result<Vec<String>, String> {
        self.until = Instant::now() + LONG_PATIENCE;
        // For good, and no link of others is replaced.
        let words = [Value::Texts(vec![name.to_owned()]), Value::Flag(false), Value::Flag(false)];
        self.manage("EnableUnitFiles", &words).map(|answer| changes(&answer))
    }

    /// The opposite.
    pub fn disable(&mut self, name: &str) -> Result<Vec<String>, String> {
        self.until = Instant::now() + LONG_PATIENCE;
        let words = [Value::Texts(vec![name.to_owned()]), Value::Flag(false)];
        self.manage("DisableUnitFiles", &words).map(|answer| changes(&answer))
    }
}

fn changes(answer: &[Value]) -> Vec<String> {
    let lists = answer.iter().filter_map(|value| match value {
        Value::Changes(changes) => Some(changes),
        _ => None,
    });
    lists.flatten().map(|[what, link, _]| format!("{what} {link}")).collect()
}

/// Nothing of the unit runs.
pub fn at_rest(active: &str) -> bool {
    matches!(active, "inactive" | "failed")
}
