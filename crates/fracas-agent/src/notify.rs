//! What a service tells systemd over the socket it was given: ready, stopping, its state in a line, and that it lives. It
//! asks nothing and waits for nothing: who has no such socket, or a full one, goes on as if it had told.
//!
//! The protocol is `sd_notify(3)`: a datagram of lines to `NOTIFY_SOCKET`, whose name is a path, or an abstract one behind
//! an `@`. That a service lives is for its own loop to tell; a thread that does nothing else would live on in a service
//! that hangs.

use std::{
    cell::RefCell,
    convert::Infallible,
    future::Future,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::Duration,
};

/// The longest pause between two words that all is well, whatever systemd asks for.
const OFTEN: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub struct Notify {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// How often systemd must hear of us at least.
    watchdog: Option<Duration>,
    /// The state told last.
    status: RefCell<String>,
}

impl Notify {
    /// Nobody listens.
    pub fn nobody() -> Self {
        Self::default()
    }

    /// What this process's environment says.
    pub fn from_environment() -> Self {
        Self::from(&|name| std::env::var(name).ok(), std::process::id())
    }

    fn from(environment: &dyn Fn(&str) -> Option<String>, pid: u32) -> Self {
        let Some(name) = environment("NOTIFY_SOCKET") else { return Self::nobody() };
        let socket = match open(&name) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(%error, name, "systemd cannot be told anything");
                None
            }
        };
        // Without a number the watchdog is for whoever reads of it.
        let ours = environment("WATCHDOG_PID").is_none_or(|for_whom| for_whom == pid.to_string());
        let asked = environment("WATCHDOG_USEC").and_then(|text| text.parse().ok()).filter(|us| *us > 0);
        let watchdog = asked.filter(|_| ours).map(Duration::from_micros);
        Self { socket, watchdog, status: RefCell::default() }
    }

    /// The service does its work from now on.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The service has begun to end.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// One line for `systemctl status`; the same one again is not sent.
    pub fn status(&self, line: &str) {
        if self.socket.is_some() && *self.status.borrow() != line {
            line.clone_into(&mut self.status.borrow_mut());
            self.send(&format!("STATUS={line}"));
        }
    }

    /// The caller's loop goes round; see [`Notify::pause`].
    pub fn alive(&self) {
        if self.watchdog.is_some() {
            self.send("WATCHDOG=1");
        }
    }

    /// How long the caller may wait until it says the next time that it is alive: half of what systemd asks for, which is
    /// what `sd_watchdog_enabled(3)` recommends, and a second at most.
    pub fn pause(&self) -> Duration {
        self.watchdog.map_or(OFTEN, |whole| (whole / 2).min(OFTEN))
    }

    /// Says again and again that the task which awaits this is alive; never resolves.
    pub async fn living(&self) -> Infallible {
        loop {
            self.alive();
            tokio::time::sleep(self.pause()).await;
        }
    }

    /// The same while something else is awaited in the same task: a word goes out whenever that lets others have their turn.
    pub async fn living_while<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            done = work => done,
            never = self.living() => match never {},
        }
    }

    fn send(&self, text: &str) {
        let Some((socket, address)) = &self.socket else { return };
        // It does not wait; a word that is lost is followed by the next, and without any systemd does what it must.
        if let Err(error) = socket.send_to_addr(text.as_bytes(), address) {
            tracing::debug!(%error, text, "systemd was not told");
        }
    }
}

fn open(name: &str) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.strip_prefix('@') {
        Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name)?,
        None if name.starts_with('/') => SocketAddr::from_pathname(name)?,
        None => return Err(io::Error::other("only sockets of this host are spoken to")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 256];
        let next = || socket.recv(&mut buffer).ok().map(|n| String::from_utf8_lossy(&buffer[..n]).into_owned());
        std::iter::from_fn(next).collect()
    }

    fn told_by(name: &str, socket: &UnixDatagram, watchdog: &[(&str, &str)]) -> (Vec<String>, Duration) {
        socket.set_nonblocking(true).unwrap();
        let environment = |asked: &str| match asked {
            "NOTIFY_SOCKET" => Some(name.to_owned()),
            _ => watchdog.iter().find(|(n, _)| *n == asked).map(|(_, value)| (*value).to_owned()),
        };
        let notify = Notify::from(&environment, 7);
        notify.ready();
        notify.status("a");
        notify.status("a");
        notify.alive();
        notify.stopping();
        (heard(socket), notify.pause())
    }

    #[test]
    fn systemd_hears_over_a_path_and_over_an_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let told = told_by(path.to_str().unwrap(), &socket, &[("WATCHDOG_USEC", "300000"), ("WATCHDOG_PID", "7")]);
        assert_eq!(told.0, ["READY=1", "STATUS=a", "WATCHDOG=1", "STOPPING=1"]);
        assert_eq!(told.1, Duration::from_millis(150));

        let name = format!("fracas-notify-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let told = told_by(&format!("@{name}"), &socket, &[("WATCHDOG_USEC", "30000000")]);
        assert_eq!(told, (["READY=1", "STATUS=a", "WATCHDOG=1", "STOPPING=1"].map(str::to_owned).to_vec(), OFTEN));

        let told = told_by(&format!("@{name}"), &socket, &[("WATCHDOG_USEC", "30000000"), ("WATCHDOG_PID", "8")]);
        assert_eq!(told.0, ["READY=1", "STATUS=a", "STOPPING=1"], "the watchdog of another process");
    }

    #[test]
    fn without_a_listener_nothing_happens() {
        Notify::nobody().ready();
        let (told, _) = told_by("vsock:2:9", &UnixDatagram::unbound().unwrap(), &[]);
        assert!(told.is_empty());
    }
}
