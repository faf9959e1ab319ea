//! Chaos Toolkit on the same scripted services: its experiments, and what can be read from its journals. It judges nothing.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::{
    MS,
    truth::{Dip, Span},
};
use crate::bench::{Background, target, until};

/// What pip is asked for.
const PACKAGE: &str = "chaostoolkit==1.19.0";

/// An installed Chaos Toolkit.
pub(super) struct Peer {
    chaos: PathBuf,
}

/// One experiment that runs.
pub(super) struct Running {
    process: Background,
    journal: PathBuf,
}

/// What one journal tells.
#[derive(Debug)]
pub(super) struct Told {
    /// The probes of its continuous hypothesis, in order, nanoseconds of the wall clock.
    pub(super) samples: Vec<Sample>,
    /// Its last word: status, whether deviated, exit code.
    pub(super) ended: String,
}

/// One of its probes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) ok: bool,
}

impl Peer {
    /// Finds it in `target/chaostoolkit`, or makes it there with pip.
    pub(super) fn ready() -> anyhow::Result<Self> {
        let place = target().join("chaostoolkit");
        let chaos = place.join("bin/chaos");
        if !chaos.exists() {
            let made = |program: &Path, arguments: &[&str]| -> anyhow::Result<()> {
                let output = Command::new(program).args(arguments).output();
                let output = output.with_context(|| format!("cannot start {}", program.display()))?;
                if !output.status.success() {
                    bail!(
                        "{} {} ended with {}: {}\nrun with --without-peer to leave Chaos Toolkit out",
                        program.display(),
                        arguments.join(" "),
                        output.status,
                        String::from_utf8_lossy(&output.stderr).trim()
                    );
                }
                Ok(())
            };
            made(Path::new("python3"), &["-m", "venv", &place.display().to_string()])?;
            made(&place.join("bin/pip"), &["install", "--quiet", "--disable-pip-version-check", PACKAGE])?;
        }
        Ok(Self { chaos })
    }

    /// Starts one experiment: a continuous hypothesis, at its default frequency, on `port`, while a request to `over` is held.
    pub(super) fn start(&self, dir: &Path, port: u16, over: u16, timeout_ns: i64) -> anyhow::Result<Running> {
        let url = |port: u16, path: &str| format!("http://127.0.0.1:{port}{path}");
        let seconds = timeout_ns as f64 / 1e9;
        let experiment = json!({
            "title": "scripted outages",
            "description": "what a continuous hypothesis tells of them",
            "runtime": { "hypothesis": { "strategy": "continuously" }, "rollbacks": { "strategy": "default" } },
            "steady-state-hypothesis": { "title": "up", "probes": [{
                "type": "probe", "name": "up", "tolerance": 200,
                "provider": { "type": "http", "url": url(port, "/peer"), "timeout": seconds },
            }] },
            "method": [{
                "type": "action", "name": "the script lasts",
                "provider": { "type": "http", "url": url(over, "/over"), "timeout": 3600 },
            }],
            "rollbacks": [],
        });
        let (file, journal) = (dir.join(format!("{port}.json")), dir.join(format!("{port}.journal.json")));
        fs::write(&file, experiment.to_string())?;
        let (file, told) = (file.display().to_string(), journal.display().to_string());
        let log_file = dir.join("chaostoolkit.log").display().to_string();
        let arguments = ["--no-version-check", "--log-file", &log_file, "run", "--journal-path", &told, &file];
        let process = Background::start(&self.chaos, &arguments, &dir.join(format!("{port}.log")))?;
        Ok(Running { process, journal })
    }
}

impl Running {
    /// Its end and its journal; whoever holds the request to `over` must have answered it.
    pub(super) fn told(mut self) -> anyhow::Result<Told> {
        let status = until("Chaos Toolkit ends", || self.process.0.try_wait().ok().flatten())?;
        let text = fs::read_to_string(&self.journal).context("Chaos Toolkit left no journal")?;
        read(&text, status.code().unwrap_or(-1))
    }
}

fn read(journal: &str, code: i32) -> anyhow::Result<Told> {
    let journal: Value = serde_json::from_str(journal).context("its journal is not JSON")?;
    let during = journal["steady_states"]["during"].as_array().context("its journal has no samples")?;
    let samples = during
        .iter()
        .filter_map(|state| {
            let probe = state["probes"].get(0)?;
            let at = |name: &str| wall_ns(probe[name].as_str()?);
            Some(Sample { from: at("start")?, to: at("end")?, ok: state["steady_state_met"].as_bool()? })
        })
        .collect();
    let status = journal["status"].as_str().unwrap_or("?");
    let deviated = if journal["deviated"] == json!(true) { "deviated" } else { "not deviated" };
    Ok(Told { samples, ended: format!("{status}, {deviated}, exit code {code}") })
}

/// The length that the samples suggest for an outage, nanoseconds: from the first failing one to the next that is well.
/// `None` when no failing one met it.
pub(super) fn length(samples: &[Sample], outage: &Dip) -> Option<i64> {
    let meets = |s: &&Sample| !s.ok && s.from <= outage.up.hi && s.to >= outage.down.lo;
    let (first, last) = (samples.iter().find(meets)?, samples.iter().rfind(meets)?);
    let well = samples.iter().find(|s| s.ok && s.from > last.from)?;
    Some(well.from - first.from)
}

/// The same script on a clock that is `by` later.
pub(super) fn moved(outage: &Dip, by: i64) -> Dip {
    let span = |s: Span| Span { lo: s.lo + by, hi: s.hi + by };
    Dip { down: span(outage.down), up: span(outage.up) }
}

/// An instant as its journals write it, `2026-11-26T22:20:34.747999+00:00`, in nanoseconds since 1970.
fn wall_ns(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix("+00:00")?.split_once('T')?;
    let numbers = |text: &str, by: char| text.split(by).map(|n| n.parse::<i64>().ok()).collect::<Option<Vec<_>>>();
    let [year, month, day] = numbers(date, '-')?[..] else { return None };
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hours, minutes, seconds] = numbers(clock, ':')?[..] else { return None };
    let micros: i64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    // Years begin in March, so that the leap day is the last one.
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year - 719_468;
    Some((((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1000 * MS + micros * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_journal_is_read() {
        assert_eq!(wall_ns("1970-01-01T00:00:01+00:00"), Some(1000 * MS));
        assert_eq!(wall_ns("2024-02-29T12:00:00.5+00:00"), Some(1_709_208_000_500 * MS));
        assert_eq!(wall_ns("2026-11-26T22:20:34.747999+00:00"), Some(1_795_731_634_747_999_000));
        assert_eq!(wall_ns("2026-11-26 22:20:34"), None);
        let state = |met: bool, second: u32| {
            let at = |ms: u32| format!("1970-01-01T00:00:{second:02}.{ms:03}000+00:00");
            json!({ "steady_state_met": met, "probes": [{ "start": at(0), "end": at(5), "tolerance_met": met }] })
        };
        let during = [state(true, 1), state(false, 2), state(false, 3), state(true, 4)];
        let journal = json!({ "status": "completed", "deviated": false, "steady_states": { "during": during } });
        let told = read(&journal.to_string(), 0).unwrap();
        assert_eq!(told.ended, "completed, not deviated, exit code 0");
        let dip = |from: i64, to: i64| Dip { down: Span::at(from * MS), up: Span::at(to * MS) };
        assert_eq!(length(&told.samples, &dip(1100, 3500)), Some(2000 * MS));
        assert_eq!(length(&told.samples, &moved(&dip(100, 900), 1000 * MS)), None);
    }
}
