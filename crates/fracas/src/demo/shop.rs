//! The demo's victim: a shop that takes orders, of three processes and a supervisor. It knows nothing of Fracas.
//!
//! ```text
//! edge-1  front      GET /order   a new order, through the primary; 503 when there is none
//!                    GET /browse  how many there are, from the primary, or from the replica when that is slow or gone
//! db-1    supervisor starts the primary, and starts it again a second after it died
//!         primary    POST /order  counts it once the replica has it; begins with what the replica knows
//! db-2    replica    remembers
//! ```

mod http;

use std::{
    ffi::CString,
    io::{self, Write as _},
    net::SocketAddr,
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use http::{ask, serve};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::roles::MARK;

/// How long the supervisor waits before it starts the primary again.
const RESTART: Duration = Duration::from_secs(1);
/// How long the front waits for an order to be taken.
const ORDER: Duration = Duration::from_millis(350);
/// How long the front waits for the primary before it lets the replica answer.
const BROWSE: Duration = Duration::from_millis(100);
/// How long the primary waits for the replica.
const COPY: Duration = Duration::from_millis(300);
/// Between two attempts of something that is not there yet.
const PAUSE: Duration = Duration::from_millis(50);

/// `supervise NAME LISTEN REPLICA`: keeps a primary of this name running.
pub(super) fn supervise(words: &[String]) -> io::Result<()> {
    loop {
        let mut primary = Command::new("/proc/self/exe").args([MARK, "primary"]).args(words).spawn()?;
        let status = primary.wait()?;
        writeln!(io::stderr(), "the primary ended ({status}); it is started again in {} s", RESTART.as_secs())?;
        thread::sleep(RESTART);
    }
}

/// `primary NAME LISTEN REPLICA`, which ends with its supervisor.
pub(super) fn primary(words: &[String]) -> io::Result<()> {
    let [name, listen, replica] = words else { return Err(unclear(words)) };
    set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::thread::set_name(&CString::new(name.as_str())?)?;
    let replica = address(replica)?;
    let known = || match ask(replica, "GET /orders", COPY) {
        Ok((200, count)) => count.parse().ok(),
        _ => None,
    };
    let count: u64 = loop {
        match known() {
            Some(count) => break count,
            None => thread::sleep(PAUSE),
        }
    };
    let orders = Mutex::new(count);
    serve(address(listen)?, move |asked| {
        let mut orders = orders.lock().unwrap_or_else(PoisonError::into_inner);
        match asked {
            "GET /orders" => (200, orders.to_string()),
            // An order counts once it is in two places: then the death of one loses none.
            "POST /order" => match ask(replica, &format!("POST /orders/{}", *orders + 1), COPY) {
                Ok((200, _)) => {
                    *orders += 1;
                    (200, orders.to_string())
                }
                other => (503, format!("the replica did not take the order: {}", said(other))),
            },
            _ => unknown(),
        }
    })
}

/// `replica LISTEN`.
pub(super) fn replica(words: &[String]) -> io::Result<()> {
    let [listen] = words else { return Err(unclear(words)) };
    let orders = AtomicU64::new(0);
    serve(address(listen)?, move |asked| match asked.strip_prefix("POST /orders/").map(str::parse) {
        Some(Ok(count)) => (200, orders.fetch_max(count, Ordering::SeqCst).max(count).to_string()),
        None if asked == "GET /orders" => (200, orders.load(Ordering::SeqCst).to_string()),
        _ => unknown(),
    })
}

/// `front LISTEN PRIMARY REPLICA`.
pub(super) fn front(words: &[String]) -> io::Result<()> {
    let [listen, primary, replica] = words else { return Err(unclear(words)) };
    let (primary, replica) = (address(primary)?, address(replica)?);
    serve(address(listen)?, move |asked| match asked {
        "GET /order" => match ask(primary, "POST /order", ORDER) {
            Ok((200, number)) => (200, format!("order {number} is taken")),
            other => (503, format!("no orders at the moment: {}", said(other))),
        },
        "GET /browse" => match ask(primary, "GET /orders", BROWSE) {
            Ok((200, count)) => (200, format!("{count} orders so far")),
            _ => match ask(replica, "GET /orders", BROWSE) {
                Ok((200, count)) => (200, format!("{count} orders so far, says the replica")),
                other => (503, format!("nobody knows the orders: {}", said(other))),
            },
        },
        "GET /" => (200, "GET /order takes an order, GET /browse counts them".into()),
        _ => unknown(),
    })
}

/// `ask ADDRESS PATH SECONDS`: asks until the answer is 200.
pub(super) fn ask_until_ok(words: &[String]) -> io::Result<()> {
    let [to, path, seconds] = words else { return Err(unclear(words)) };
    let to = address(to)?;
    let until = Instant::now() + Duration::from_secs(seconds.parse().map_err(|_| unclear(words))?);
    loop {
        let answer = ask(to, &format!("GET {path}"), ORDER);
        match answer {
            Ok((200, _)) => return Ok(()),
            other if Instant::now() > until => {
                return Err(io::Error::other(format!("http://{to}{path}: {}", said(other))));
            }
            _ => thread::sleep(PAUSE),
        }
    }
}

fn unknown() -> http::Answer {
    (404, "there is no such page".into())
}

fn said(answer: io::Result<http::Answer>) -> String {
    match answer {
        Ok((status, body)) => format!("{status} {body}"),
        Err(error) => error.to_string(),
    }
}

fn address(word: &str) -> io::Result<SocketAddr> {
    word.parse().map_err(|_| io::Error::other(format!("{word} is no address")))
}

fn unclear(words: &[String]) -> io::Error {
    io::Error::other(format!("unclear arguments: {}", words.join(" ")))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn free() -> String {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
    }

    fn start(part: fn(&[String]) -> io::Result<()>, words: &[&str]) {
        let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        thread::spawn(move || part(&words));
    }

    fn get(address: &str, path: &str) -> http::Answer {
        ask(address.parse().unwrap(), &format!("GET {path}"), Duration::from_secs(5)).unwrap()
    }

    #[test]
    fn orders_are_in_two_places_and_browsing_needs_only_one() {
        let (primary_at, replica_at, gone, shop, lame) = (free(), free(), free(), free(), free());
        start(replica, &[&replica_at]);
        // The front of a shop without a primary.
        start(front, &[&lame, &gone, &replica_at]);
        let words = |to: &str, path: &str| [to, path, "10"].map(str::to_owned);
        ask_until_ok(&words(&lame, "/browse")).unwrap();
        let (status, why) = get(&lame, "/order");
        assert!(status == 503 && why.contains("no orders"), "{status} {why}");

        // In this process only the main thread's name may change with the part; threads of a test have their own.
        start(primary, &["shop-primary", &primary_at, &replica_at]);
        start(front, &[&shop, &primary_at, &replica_at]);
        ask_until_ok(&words(&shop, "/order")).unwrap();
        assert_eq!(get(&shop, "/order"), (200, "order 2 is taken".into()));
        assert_eq!(get(&shop, "/browse"), (200, "2 orders so far".into()));
        assert_eq!(get(&lame, "/browse"), (200, "2 orders so far, says the replica".into()));
        assert_eq!(get(&shop, "/nothing").0, 404);
    }

    #[test]
    fn what_is_never_there_is_said_in_the_end() {
        let words = [free().as_str(), "/order", "0"].map(str::to_owned);
        let error = ask_until_ok(&words).unwrap_err().to_string();
        assert!(error.contains("/order: ") && error.contains("refused"), "{error}");
    }
}
