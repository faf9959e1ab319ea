//! Scripted services on loopback: HTTP/1.1 listeners that refuse, fail, hang or limp when they are told to, and the instants
//! around each change. They draw no script and know no probe.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use fracas_agent::host::clock::boot_ns;
use rustix::net::{Shutdown, listen, shutdown};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    task::{LocalSet, spawn_local},
};

use super::{MS, truth::Span};

/// Longest queue of connections, for the kernel.
const BACKLOG: i32 = 1024;

/// What a service does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mode {
    /// Answers 200.
    Up,
    /// Does not listen.
    Refused,
    /// Answers 503.
    Failing,
    /// Holds requests until it does something else.
    Hanging,
    /// Answers 200, before `good_at` well after `timeout_ns`, from then on well within and ever sooner: no answer comes at
    /// about the timeout, so that it is beyond doubt which looks fail.
    Slow { good_at: i64, timeout_ns: i64 },
    /// Answers 503 to so many of 100 requests, by chance.
    Partial { percent: u64, salt: u64 },
}

/// One service. Its clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) port: u16,
    listener: Arc<TcpListener>,
    mode: watch::Sender<Mode>,
    served: Arc<Served>,
}

#[derive(Debug, Default)]
struct Served {
    /// Requests by path.
    asked: Mutex<BTreeMap<String, u64>>,
    /// When a partial outage failed a request, by path.
    failed: Mutex<Vec<(String, Span)>>,
    /// All requests, to draw by.
    count: AtomicU64,
    /// Whether nobody accepts, and that this changed.
    idle: (Mutex<bool>, Condvar),
}

impl Served {
    fn rest(&self, idle: bool) {
        *self.idle.0.lock().unwrap_or_else(PoisonError::into_inner) = idle;
        self.idle.1.notify_all();
    }

    /// Waits until nobody accepts any more: a socket that listens anew before its end was noticed looks closed to the
    /// runtime for ever, which then asks it without a pause.
    fn resting(&self) -> anyhow::Result<()> {
        let idle = self.idle.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.idle.1.wait_timeout_while(idle, Duration::from_secs(30), |idle| !*idle);
        anyhow::ensure!(!waited.unwrap_or_else(PoisonError::into_inner).1.timed_out(), "the service does not rest");
        Ok(())
    }
}

impl Service {
    /// So many services, up, on a thread of their own that ends with the process.
    pub(super) fn start(n: usize) -> anyhow::Result<Vec<Self>> {
        let mut services = Vec::new();
        for _ in 0..n {
            // The kernel lets a socket keep its port while it does not listen only where the port was asked for by number.
            let free = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
            let listener = TcpListener::bind(free)?;
            listener.set_nonblocking(true)?;
            services.push(Self {
                port: listener.local_addr()?.port(),
                listener: Arc::new(listener),
                mode: watch::Sender::new(Mode::Up),
                served: Arc::default(),
            });
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let accepting = services.clone();
        thread::Builder::new().name("services".into()).spawn(move || {
            LocalSet::new().block_on(&runtime, async {
                let all: Vec<_> = accepting.into_iter().map(|s| spawn_local(s.accept())).collect();
                for one in all {
                    let _ = one.await;
                }
            });
        })?;
        Ok(services)
    }

    /// Changes what it does; the change is at some instant of the span.
    pub(super) fn turn(&self, mode: Mode) -> anyhow::Result<Span> {
        let refused = *self.mode.borrow() == Mode::Refused;
        if refused && mode != Mode::Refused {
            self.served.resting()?;
        }
        let lo = boot_ns();
        if mode == Mode::Refused {
            // Stops listening but keeps the port, so that nobody else gets it. What waits to be accepted is reset.
            self.mode.send_replace(mode);
            shutdown(&self.listener, Shutdown::Read)?;
        } else {
            if refused {
                listen(&self.listener, BACKLOG)?;
            }
            self.mode.send_replace(mode);
        }
        Ok(Span { lo, hi: boot_ns() })
    }

    /// How many requests for this path came.
    pub(super) fn asked(&self, path: &str) -> u64 {
        self.served.asked.lock().unwrap_or_else(PoisonError::into_inner).get(path).copied().unwrap_or(0)
    }

    /// When a partial outage failed requests for this path.
    pub(super) fn failed(&self, path: &str) -> Vec<Span> {
        let failed = self.served.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.iter().filter(|(p, _)| p == path).map(|(_, span)| *span).collect()
    }

    async fn accept(self) {
        let mut mode = self.mode.subscribe();
        // A listener that once stopped stays readable for the runtime for ever: each time it listens, it is a new one to it.
        loop {
            self.served.rest(true);
            if mode.wait_for(|m| *m != Mode::Refused).await.is_err() {
                return;
            }
            self.served.rest(false);
            let Ok(listener) = self.listener.try_clone().and_then(tokio::net::TcpListener::from_std) else { return };
            // An error is its end, or, while it still waits for its turn, that of one connection.
            while let Ok((stream, _)) = listener.accept().await {
                let service = self.clone();
                spawn_local(async move {
                    // A prober that went away needs no answer.
                    let _ = service.serve(stream).await;
                });
            }
        }
    }

    async fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let _ = stream.set_nodelay(true);
        let path = path(&mut stream).await?;
        *self.served.asked.lock().unwrap_or_else(PoisonError::into_inner).entry(path.clone()).or_default() += 1;
        let well = self.decide(&path).await;
        let status = if well { "200 OK" } else { "503 Service Unavailable" };
        stream
            .write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").as_bytes())
            .await?;
        stream.shutdown().await
    }

    async fn decide(&self, path: &str) -> bool {
        let mut changes = self.mode.subscribe();
        let lo = boot_ns();
        let mut mode = *changes.borrow_and_update();
        if mode == Mode::Hanging {
            match changes.wait_for(|m| *m != Mode::Hanging).await {
                Ok(now) => mode = *now,
                Err(_) => return false,
            }
        }
        match mode {
            // A connection that was accepted while it listened was made while it was up.
            Mode::Up | Mode::Refused => true,
            Mode::Failing | Mode::Hanging => false,
            Mode::Slow { good_at, timeout_ns } => {
                let over = boot_ns() - good_at;
                let share = if over < 0 { 1.2 } else { 0.8 * (-(over as f64) / timeout_ns as f64).exp() };
                let wait = (timeout_ns as f64 * share) as u64;
                tokio::time::sleep(Duration::from_nanos(wait)).await;
                true
            }
            Mode::Partial { percent, salt } => {
                let drawn = scattered(salt ^ self.served.count.fetch_add(1, Ordering::Relaxed));
                let well = drawn % 100 >= percent;
                if !well {
                    let span = Span { lo, hi: boot_ns() };
                    self.served.failed.lock().unwrap_or_else(PoisonError::into_inner).push((path.to_owned(), span));
                }
                well
            }
        }
    }
}

/// A number that looks drawn: the finaliser of splitmix64 (Steele, Lea, Flood 2014).
fn scattered(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// Reads a request and gives its path; at most 8 KiB in 5 s.
async fn path(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut read = Vec::new();
    let whole = async {
        let mut piece = [0; 1024];
        while !read.windows(4).any(|w| w == b"\r\n\r\n") && read.len() < 8192 {
            match stream.read(&mut piece).await? {
                0 => break,
                n => read.extend_from_slice(&piece[..n]),
            }
        }
        std::io::Result::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(5), whole).await??;
    let text = String::from_utf8_lossy(&read);
    Ok(text.split(' ').nth(1).unwrap_or_default().to_owned())
}

/// Waits for an instant of boot time on a thread that may block.
pub(super) fn wait_until(at_ns: i64) {
    loop {
        let left = at_ns - boot_ns();
        if left <= 0 {
            return;
        }
        thread::sleep(Duration::from_nanos(left.min(500 * MS).unsigned_abs()));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    fn status(service: &Service) -> std::io::Result<String> {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", service.port))?;
        stream.write_all(b"GET /look HTTP/1.1\r\nhost: x\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.split(' ').nth(1).unwrap_or_default().to_owned())
    }

    #[test]
    fn it_does_as_it_is_told_and_listens_again_on_its_port() {
        let service = Service::start(1).unwrap().remove(0);
        for _ in 0..3 {
            assert_eq!(status(&service).unwrap(), "200");
            let span = service.turn(Mode::Refused).unwrap();
            assert!(span.lo <= span.hi);
            assert_eq!(status(&service).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
            service.turn(Mode::Failing).unwrap();
            assert_eq!(status(&service).unwrap(), "503");
            service.turn(Mode::Partial { percent: 100, salt: 1 }).unwrap();
            assert_eq!(status(&service).unwrap(), "503");
            service.turn(Mode::Up).unwrap();
        }
        assert_eq!((service.asked("/look"), service.failed("/look").len(), service.failed("/other").len()), (9, 3, 0));
        service.turn(Mode::Hanging).unwrap();
        let held = service.clone();
        let asked = thread::spawn(move || status(&held));
        while service.asked("/look") < 10 {
            assert!(!asked.is_finished(), "{:?}", asked.join());
            thread::yield_now();
        }
        service.turn(Mode::Up).unwrap();
        assert_eq!(asked.join().unwrap().unwrap(), "200");
    }
}
