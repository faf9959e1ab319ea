//! Runs each trial as a process of its own with a time limit, tells why one was skipped, prints what was measured.

use std::{
    process::{Child, Command, ExitCode, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::{plane::Kind, stage};

/// First argument of a trial's own process.
const TRIAL: &str = "trial";
/// Exit code of a trial that cannot run here.
const SKIPPED: i32 = 77;
/// A trial that takes longer hangs.
const LIMIT: Duration = Duration::from_mins(1);
/// What a trial begins such lines with that are printed at the end.
const FIGURE: &str = "figure: ";

/// Measured figures, in order of the trials.
static FIGURES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// How long each trial took.
static TIMES: Mutex<Vec<(Duration, String)>> = Mutex::new(Vec::new());

/// One promise and how it is tried.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) planes: &'static [Kind],
    /// Whether it says anything on an emulated machine.
    pub(crate) emulated: bool,
    pub(crate) run: fn(Kind),
}

impl Case {
    /// A case for any machine.
    pub(crate) const fn new(name: &'static str, planes: &'static [Kind], run: fn(Kind)) -> Self {
        Self { name, planes, emulated: true, run }
    }

    /// A case whose figures would say something about the emulator only.
    pub(crate) const fn native(name: &'static str, planes: &'static [Kind], run: fn(Kind)) -> Self {
        Self { name, planes, emulated: false, run }
    }
}

/// Prints a figure at the end of the whole run.
pub(crate) fn figure(text: &str) {
    println!("{FIGURE}{text}");
}

/// Ends this trial as one that cannot run here.
#[expect(clippy::exit, reason = "a trial's process is over")]
pub(crate) fn skip(why: &str) -> ! {
    println!("{why}");
    std::process::exit(SKIPPED);
}

/// Whether the trials run in the virtual machine, where everything is slower and throughput says nothing.
pub(crate) fn emulated() -> bool {
    std::env::var_os("FRACAS_VM").is_some()
}

/// All trials, or the one this process was started for.
pub(crate) fn run(cases: &[Case]) -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    if let [_, first, name, plane] = words.as_slice()
        && first == TRIAL
    {
        let case = cases.iter().find(|c| c.name == name).expect("a trial of this name");
        let kind = *case.planes.iter().find(|k| k.word() == plane).expect("a plane of this name");
        stage::enter();
        (case.run)(kind);
        return ExitCode::SUCCESS;
    }
    let asked = std::env::var("FRACAS_PLANES").unwrap_or_else(|_| "owner".into());
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|k| asked.split(',').any(|a| a == k.word())).collect();
    let mut trials = Vec::new();
    for kind in kinds {
        for case in cases.iter().filter(|c| c.planes.contains(&kind) && (c.emulated || !emulated())) {
            let name = case.name;
            trials.push(Trial::ignorable_test(format!("{}::{name}", kind.word()), move || apart(name, kind)));
        }
    }
    let mut arguments = Arguments::from_args();
    // Trials measure time: one at a time.
    arguments.test_threads = Some(1);
    let conclusion = libtest_mimic::run(&arguments, trials);
    let figures = FIGURES.lock().expect("no trial panics here");
    for line in figures.iter() {
        println!("{line}");
    }
    let mut times = TIMES.lock().expect("no trial panics here");
    times.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
    for (time, name) in times.iter().take(5) {
        println!("among the longest: {:.1} s {name}", time.as_secs_f64());
    }
    conclusion.exit_code()
}

fn apart(name: &str, kind: Kind) -> Result<Completion, Failed> {
    let mut command = Command::new("/proc/self/exe");
    command.args([TRIAL, name, kind.word()]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let begun = Instant::now();
    let mut child = command.spawn()?;
    let out = drain(child.stdout.take());
    let err = drain(child.stderr.take());
    let code = ended(&mut child)?;
    TIMES.lock().expect("no trial panics here").push((begun.elapsed(), format!("{}::{name}", kind.word())));
    let out = out.join().expect("reading does not panic");
    let err = err.join().expect("reading does not panic");
    FIGURES
        .lock()
        .expect("no trial panics here")
        .extend(out.lines().filter_map(|l| l.strip_prefix(FIGURE)).map(str::to_owned));
    match code {
        Some(0) => Ok(Completion::Completed),
        Some(SKIPPED) if std::env::var("FRACAS_REQUIRE").is_ok_and(|r| r == "all") => {
            Err(format!("cannot run here, and FRACAS_REQUIRE=all forbids to skip: {}", out.trim()).into())
        }
        Some(SKIPPED) => Ok(Completion::ignored_with(out.trim())),
        Some(code) => Err(format!("exit code {code}\n{out}{err}").into()),
        None => Err(format!("ended by a signal or after {LIMIT:?}\n{out}{err}").into()),
    }
}

fn drain(pipe: Option<impl std::io::Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    })
}

fn ended(child: &mut Child) -> std::io::Result<Option<i32>> {
    let until = Instant::now() + LIMIT;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code());
        }
        if Instant::now() >= until {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(5));
    }
}
