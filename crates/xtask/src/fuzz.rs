//! `cargo xtask fuzz`: builds the fuzz targets of `tests/fuzz` with the nightly compiler, runs all or one of them, and says
//! what that covered. It keeps what it finds below `target/fuzz`, and changes nothing else unless asked for seeds.

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::Mutex,
    time::{Instant, SystemTime},
};

use anyhow::{Context as _, Result, bail};

use crate::codegen::root;

const HELP: &str = "usage: cargo xtask fuzz [--target NAME]... [--seconds N] [--runs N] [--jobs N] [--seed N] [--ci] [--list] [--seeds]

Gives every fuzz target (or those named) random bytes for N seconds (10 unless told), and at least as many inputs as
--runs says (10000 unless told), --jobs of them at once (2 unless told). Prints for each target: inputs, inputs per second,
edges that were covered, how many inputs are worth keeping, and crashes. Fails on a crash, and where there were fewer inputs.

Inputs to begin with are in tests/fuzz/corpus; what was found beside them is kept in target/fuzz/found, and inputs that
crash in target/fuzz/crashes. --ci is for every change: each target for 5 seconds with a seed of its own time, and fails
where all of them together had fewer than 10000 inputs. With --seeds the inputs to begin with, of all targets or of those
named, are made anew from the product's own examples. Needs a nightly toolchain (`rustup toolchain install nightly
--profile minimal`) and a C++ compiler.

Example: cargo xtask fuzz --target journal --seconds 60";

/// Opens what is open to fuzzing only.
const FLAGS: &str = "--cfg fuzzing";
/// With it this program stands in for the compiler; its value does not matter.
const COMPILES: &str = "FRACAS_FUZZ_COMPILES";
/// Crates of others that count their edges too: what strangers' bytes reach first.
const PARSERS: [&str; 6] = ["h2", "httparse", "rustls", "saphyr_parser", "x509_parser", "croner"];
/// How edges are counted: what `cargo fuzz` has for all crates. There is no sanitizer: the code is safe Rust, and what
/// overflows or does not hold is a panic.
const COUNTING: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];
/// Longest time one input may take, seconds: a hundred times what the slowest good one takes.
const SLOWEST: u32 = 10;
/// Longest input, bytes; documents may be longer, but what they are made of is not.
const LONGEST: u32 = 16 << 10;
/// Most memory that a target may take, MiB.
const MEMORY: u32 = 2048;

struct Asked {
    targets: Vec<String>,
    seconds: u64,
    runs: u64,
    /// Least inputs of all targets together.
    total: u64,
    jobs: usize,
    seed: u64,
    list: bool,
    seeds: bool,
}

/// What became of one target.
struct Ran {
    target: String,
    seconds: f64,
    runs: u64,
    edges: u64,
    kept: u64,
    crash: Option<String>,
}

/// Builds, runs, prints; fails if anything was found.
pub(crate) fn run(words: &[String]) -> Result<()> {
    if words.iter().any(|word| ["--help", "-h"].contains(&word.as_str())) {
        println!("{HELP}");
        return Ok(());
    }
    let asked = read(words)?;
    let begun = Instant::now();
    let program = build()?;
    println!("built in {} s", begun.elapsed().as_secs());
    let place = root().join("target/fuzz");
    let known = play(&program, "", "FRACAS_FUZZ_LIST", "1".as_ref())?;
    let known: Vec<&str> = known.lines().collect();
    if asked.list {
        for name in &known {
            println!("{name}");
        }
        return Ok(());
    }
    let named: Vec<&str> = asked.targets.iter().map(String::as_str).collect();
    if let Some(unknown) = named.iter().find(|name| !known.contains(name)) {
        bail!("no fuzz target {unknown}; there are {}", known.join(", "));
    }
    if asked.seeds {
        let corpus = root().join("tests/fuzz/corpus");
        let all = if named.is_empty() { vec![""] } else { named };
        return all.iter().try_for_each(|name| play(&program, name, "FRACAS_FUZZ_SEEDS", corpus.as_os_str()).map(drop));
    }
    let waiting: VecDeque<&str> = if named.is_empty() { known.into() } else { named.into() };
    let ran = all(&program, &place, waiting, &asked)?;
    println!("seed {}, {} s in all", asked.seed, begun.elapsed().as_secs());
    tell(&ran, asked.runs, asked.total)
}

/// Plays the compiler for cargo, which gives its path first: crates that are to count their edges are told so. Others are
/// quicker to build and to run without, and nobody looks for new ways through them.
pub(crate) fn compile() -> Option<ExitCode> {
    std::env::var_os(COMPILES)?;
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (compiler, words) = words.split_first()?;
    let after = |flag: &str| words.iter().position(|word| word == flag).and_then(|at| words.get(at + 1));
    let name = after("--crate-name").map_or("", String::as_str);
    // Without a target it is a build script or a macro, which runs where it is built.
    let counts =
        after("--target").is_some() && (name.starts_with("fracas") || name == "fuzz" || PARSERS.contains(&name));
    let status = Command::new(compiler).args(words).args(COUNTING.iter().filter(|_| counts)).status();
    Some(if status.is_ok_and(|status| status.success()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read(words: &[String]) -> Result<Asked> {
    let (targets, list, seeds) = (Vec::new(), false, false);
    let mut asked = Asked { targets, seconds: 10, runs: 10_000, total: 0, jobs: 2, seed: 1, list, seeds };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value\n{HELP}"));
        let number = |text: &String| text.parse::<u64>().with_context(|| format!("{word} {text}: not a number"));
        match word.as_str() {
            "--target" => asked.targets.push(value()?.clone()),
            "--seconds" => asked.seconds = number(value()?)?,
            "--runs" => asked.runs = number(value()?)?,
            "--jobs" => asked.jobs = number(value()?)?.clamp(1, 64) as usize,
            "--seed" => asked.seed = number(value()?)?,
            "--ci" => {
                let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs() & u64::from(u32::MAX);
                (asked.seconds, asked.runs, asked.total, asked.seed) = (5, 0, 10_000, seed);
            }
            "--list" => asked.list = true,
            "--seeds" => asked.seeds = true,
            other => bail!("unknown word {other:?}\n{HELP}"),
        }
    }
    Ok(asked)
}

/// The program of all targets.
fn build() -> Result<PathBuf> {
    let toolchains = Command::new("rustup").args(["toolchain", "list"]).output();
    let toolchains = toolchains.map(|said| String::from_utf8_lossy(&said.stdout).into_owned()).unwrap_or_default();
    let Some(nightly) = toolchains.lines().filter_map(|l| l.split(' ').next()).find(|name| name.starts_with("nightly"))
    else {
        bail!("fuzzing needs a nightly toolchain: rustup toolchain install nightly --profile minimal");
    };
    let (folder, target) = (root().join("tests/fuzz"), "x86_64-unknown-linux-gnu");
    let status = Command::new("rustup")
        .args(["run", nightly, "cargo", "build", "--locked", "--target", target, "--target-dir"])
        .arg(root().join("target/fuzz"))
        .env("RUSTFLAGS", FLAGS)
        .env("RUSTC_WRAPPER", std::env::current_exe()?)
        .env(COMPILES, "1")
        // Those of the toolchain that runs this.
        .env_remove("CARGO")
        .env_remove("RUSTC")
        .env_remove("RUSTUP_TOOLCHAIN")
        .current_dir(folder)
        .status()
        .context("rustup does not start")?;
    if !status.success() {
        bail!("the fuzz targets do not build");
    }
    Ok(root().join("target/fuzz").join(target).join("debug/fuzz"))
}

/// Runs the program for something else than fuzzing, for one target or (empty) for all; what it says.
fn play(program: &Path, target: &str, variable: &str, value: &std::ffi::OsStr) -> Result<String> {
    let said = Command::new(program)
        .env("FRACAS_FUZZ_TARGET", target)
        .env(variable, value)
        .stderr(Stdio::inherit())
        .output()?;
    if !said.status.success() {
        bail!("{} failed: {}", program.display(), said.status);
    }
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}

fn all(program: &Path, place: &Path, waiting: VecDeque<&str>, asked: &Asked) -> Result<Vec<Ran>> {
    let (waiting, ran) = (Mutex::new(waiting), Mutex::new(Vec::new()));
    println!("{:12} {:>8} {:>10} {:>9} {:>7} {:>6}  crashes", "target", "seconds", "inputs", "each s", "edges", "kept");
    std::thread::scope(|scope| {
        let worker = || -> Result<()> {
            loop {
                let Some(target) = waiting.lock().expect("no holder panics").pop_front() else { return Ok(()) };
                let done = one(program, place, target, asked)?;
                let each = done.runs as f64 / done.seconds.max(0.001);
                let crash = done.crash.as_ref().map_or_else(|| "0".to_owned(), |file| format!("1: {file}"));
                println!(
                    "{:12} {:>8.1} {:>10} {each:>9.0} {:>7} {:>6}  {crash}",
                    done.target, done.seconds, done.runs, done.edges, done.kept
                );
                ran.lock().expect("no holder panics").push(done);
            }
        };
        let workers: Vec<_> = (0..asked.jobs).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })?;
    Ok(ran.into_inner().expect("no holder panics"))
}

fn one(program: &Path, place: &Path, target: &str, asked: &Asked) -> Result<Ran> {
    let (found, crashes) = (place.join("found").join(target), place.join("crashes").join(target));
    fs::create_dir_all(&found)?;
    fs::create_dir_all(&crashes)?;
    let begun = Instant::now();
    let mut said = String::new();
    let (mut runs, mut edges, mut kept, mut crash) = (0, 0, 0, None);
    // First for the time, then for what lacks in inputs.
    for limit in [format!("-max_total_time={}", asked.seconds), String::from("-runs=")] {
        let limit = match limit.as_str() {
            "-runs=" if runs < asked.runs => format!("-runs={}", asked.runs - runs),
            "-runs=" => break,
            _ => limit,
        };
        let mut command = Command::new(program);
        command
            .env("FRACAS_FUZZ_TARGET", target)
            // Entropic weights cost more than the inputs where there are many edges.
            .args([&limit, "-entropic=0", "-print_final_stats=1", &format!("-seed={}", asked.seed.max(1))])
            .args([&format!("-timeout={SLOWEST}"), &format!("-max_len={LONGEST}"), &format!("-rss_limit_mb={MEMORY}")])
            .arg(format!("-artifact_prefix={}/", crashes.display()))
            .arg(&found)
            .stdin(Stdio::null());
        let seeds = root().join("tests/fuzz/corpus").join(target);
        if seeds.is_dir() {
            command.arg(seeds);
        }
        let output = command.output().with_context(|| format!("{} does not start", program.display()))?;
        said = String::from_utf8_lossy(&output.stderr).into_owned();
        let mut figures = figures(&said);
        runs += figures.runs;
        edges = edges.max(figures.edges);
        kept = kept.max(figures.kept);
        if !output.status.success() {
            crash = Some(figures.file.take().unwrap_or_else(|| output.status.to_string()));
            break;
        }
    }
    if crash.is_some() {
        let lines: Vec<&str> = said.lines().collect();
        eprintln!("--- {target}\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
    }
    Ok(Ran { target: target.to_owned(), seconds: begun.elapsed().as_secs_f64(), runs, edges, kept, crash })
}

/// What libFuzzer said of itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct Figures {
    runs: u64,
    edges: u64,
    kept: u64,
    file: Option<String>,
}

fn figures(said: &str) -> Figures {
    let mut figures = Figures::default();
    let after = |line: &str, word: &str| -> Option<u64> {
        let rest = line.split(word).nth(1)?.trim_start();
        rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())].parse().ok()
    };
    for line in said.lines() {
        if let Some(runs) = after(line, "stat::number_of_executed_units:") {
            figures.runs = runs;
        } else if let Some(file) = line.split("Test unit written to ").nth(1) {
            figures.file = Some(file.to_owned());
        } else if line.starts_with('#') {
            figures.edges = after(line, " cov: ").unwrap_or(figures.edges);
            figures.kept = after(line, " corp: ").unwrap_or(figures.kept);
        }
    }
    figures
}

fn tell(ran: &[Ran], least: u64, total: u64) -> Result<()> {
    let crashes = ran.iter().filter(|one| one.crash.is_some()).count();
    let few: Vec<&str> = ran.iter().filter(|one| one.runs < least).map(|one| one.target.as_str()).collect();
    let (runs, edges) = ran.iter().fold((0, 0), |(runs, edges), one| (runs + one.runs, edges + one.edges));
    println!("{} targets, {runs} inputs, {edges} edges, {crashes} crashes", ran.len());
    if crashes > 0 {
        bail!(
            "{crashes} targets crashed: FRACAS_FUZZ_TARGET=NAME target/fuzz/x86_64-unknown-linux-gnu/debug/fuzz FILE repeats one"
        );
    }
    if runs < total {
        bail!("{runs} inputs in all, fewer than {total}");
    }
    if !few.is_empty() {
        bail!("fewer than {least} inputs: {}", few.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read() {
        let said = "INFO: seed corpus: files: 3\n#4\tINITED cov: 10 ft: 11 corp: 2/5b exec/s: 0 rss: 40Mb\n\
                    #9000\tDONE   cov: 123 ft: 456 corp: 7/99b lim: 4096 exec/s: 900 rss: 50Mb\n\
                    stat::number_of_executed_units: 9000\nstat::average_exec_per_sec:     900\n";
        assert_eq!(figures(said), Figures { runs: 9000, edges: 123, kept: 7, file: None });
        let crashed = "artifact_prefix='x/'; Test unit written to x/crash-1\nstat::number_of_executed_units: 5\n";
        assert_eq!(figures(crashed).file.as_deref(), Some("x/crash-1"));
    }

    #[test]
    fn words_are_read() {
        let words = |text: &str| read(&text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let asked = words("--target a --target b --seconds 5 --jobs 1").unwrap();
        assert_eq!((asked.targets.len(), asked.seconds, asked.jobs, asked.runs), (2, 5, 1, 10_000));
        let asked = words("--ci --seconds 7").unwrap();
        assert_eq!((asked.seconds, asked.runs, asked.total), (7, 0, 10_000));
        let ran = |runs| Ran { target: "a".into(), seconds: 1.0, runs, edges: 1, kept: 1, crash: None };
        assert!(tell(&[ran(9_999), ran(1)], 0, 10_000).is_ok() && tell(&[ran(9_999)], 0, 10_000).is_err());
        assert!(tell(&[Ran { crash: Some("x".into()), ..ran(20_000) }], 0, 10_000).is_err());
        assert!(words("--seconds").is_err() && words("--fast").is_err() && words("--seconds x").is_err());
    }
}
