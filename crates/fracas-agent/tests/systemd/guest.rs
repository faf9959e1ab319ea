//! Runs the trials in their order, over restarts of the machine, and says on the serial line how each ended.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    panic::{AssertUnwindSafe, catch_unwind},
    process::{Child, Command, ExitCode, Stdio},
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use rustix::system::{RebootCommand, reboot};
use serde_json::Value;

/// One trial: its name, and what it does. It fails by panicking.
pub(crate) type Case = (&'static str, fn());

/// How long a command may take, and what is waited for.
pub(crate) const LIMIT: Duration = Duration::from_mins(2);
/// How many trials are over, on the disk for the next boot.
const OVER: &str = "/var/lib/trials-over";

/// Runs what is left to run; powers off at the end.
pub(crate) fn run(cases: &[Case]) -> ExitCode {
    let wanted = wanted();
    let over: usize = fs::read_to_string(OVER).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let mut failed = false;
    for (number, (name, case)) in cases.iter().enumerate().skip(over) {
        fs::write(OVER, (number + 1).to_string()).expect("the disk takes a number");
        // Each stands on what those before it left, so that a filter leaves out only faults.
        if !wanted.is_empty() && name.starts_with("fault") && !wanted.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        let began = Instant::now();
        let ended = catch_unwind(AssertUnwindSafe(case));
        println!("{name}: {:.1} s", began.elapsed().as_secs_f64());
        println!("test {name} ... {}", if ended.is_ok() { "ok" } else { "FAILED" });
        if ended.is_err() {
            failed = true;
            println!("{}", say("/bin/journalctl", &["--no-pager", "-b", "-n", "60", "-o", "short-monotonic"]).out);
            // Faults stand for themselves; all else rests on what came before.
            if !name.starts_with("fault") {
                break;
            }
        }
    }
    println!("fracas-vm: exit {}", if failed { 101 } else { 0 });
    off(RebootCommand::PowerOff)
}

/// Restarts the machine at once: nothing is told, nothing is synced but that this trial is over. Its second half is the
/// next trial.
pub(crate) fn pull_the_plug(name: &str) -> ! {
    let file = fs::File::open(OVER).expect("the number of trials");
    file.sync_all().expect("the disk takes a number");
    println!("test {name} ... ok");
    println!("fracas-vm: again");
    // The serial line is slow.
    let _ = rustix::termios::tcdrain(std::io::stdout());
    off(RebootCommand::Restart);
    panic!("the machine does not restart");
}

fn off(how: RebootCommand) -> ExitCode {
    if how == RebootCommand::PowerOff {
        rustix::fs::sync();
    }
    let off = reboot(how);
    println!("the machine goes on: {off:?}");
    ExitCode::FAILURE
}

/// What the kernel's command line says behind `--`.
fn wanted() -> Vec<String> {
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let words = line.split_once(" -- ").map(|(_, words)| words).unwrap_or_default();
    words.split_whitespace().map(str::to_owned).collect()
}

/// What a program said until its end.
#[derive(Debug)]
pub(crate) struct Said {
    /// Exit code.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

impl Said {
    /// It must have succeeded; what it wrote.
    pub(crate) fn good(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }
}

/// Runs a program to its end.
pub(crate) fn say(program: &str, words: &[&str]) -> Said {
    Going::start(program, words).end()
}

/// A program under way.
pub(crate) struct Going {
    child: Child,
    what: String,
    lines: Arc<Mutex<Vec<String>>>,
    read: mpsc::Receiver<(String, String)>,
}

impl Going {
    /// Starts it.
    pub(crate) fn start(program: &str, words: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{program}: {e}"));
        let (out, mut err) = (child.stdout.take().expect("pipe"), child.stderr.take().expect("pipe"));
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let (done, read) = mpsc::channel();
        let (kept, errors) = (lines.clone(), done.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                kept.lock().expect("lock").push(line);
            }
            let _ = done.send(("out".to_owned(), String::new()));
        });
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = err.read_to_string(&mut text);
            let _ = errors.send(("err".to_owned(), text));
        });
        Self { child, what: format!("{program} {}", words.join(" ")), lines, read }
    }

    /// Its process number.
    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Waits for the first event of a kind among the lines of a run.
    pub(crate) fn event(&self, kind: &str) -> Value {
        let found = || {
            let lines = self.lines.lock().expect("lock");
            let bodies = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            bodies.map(|line| line["body"].clone()).find(|body| body["kind"] == kind)
        };
        until(&format!("the event {kind} of {}", self.what), || found().is_some());
        found().expect("it was there")
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Said {
        let until = Instant::now() + LIMIT * 3;
        let code = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status.code().unwrap_or(-1);
            }
            if Instant::now() > until {
                let _ = self.child.kill();
                panic!("{} does not end; it said {:?}", self.what, self.lines.lock().expect("lock"));
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut err = String::new();
        for _ in 0..2 {
            if let Ok((which, text)) = self.read.recv_timeout(LIMIT)
                && which == "err"
            {
                err = text;
            }
        }
        let out = self.lines.lock().expect("lock").join("\n");
        Said { code, out, err }
    }
}

impl Drop for Going {
    /// What it said is worth reading where a trial fails.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = self.lines.lock().expect("lock");
            println!("{} said:", self.what);
            for line in lines.iter() {
                println!("{line}");
            }
        }
    }
}

/// Waits until something holds; how long that took.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LIMIT, "in {LIMIT:?} it did not come to this: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    began.elapsed()
}
