//! Runs the guest under software emulation, shows what it prints, and ends it when its time is up.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

const EMULATOR: &str = "qemu-system-x86_64";
/// What the guest prints before its exit code.
const EXIT: &str = "fracas-vm: exit ";

/// How a guest ended.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// What it said; `None` if it said nothing: it crashed or was too slow.
    pub(super) code: Option<i32>,
    passed: usize,
    failed: Vec<String>,
    skipped: Vec<String>,
    boot: Option<Duration>,
    whole: Duration,
    killed: bool,
}

/// Fails where the emulator is missing.
pub(super) fn present() -> Result<()> {
    if Command::new(EMULATOR).arg("--version").output().is_err() {
        bail!("{EMULATOR} is missing: apt-get install qemu-system-x86");
    }
    Ok(())
}

/// Boots, shows the serial line, waits for the end.
pub(super) fn boot(kernel: &Path, initramfs: &Path, arguments: &[String], limit_seconds: u64) -> Result<Outcome> {
    let began = Instant::now();
    let mut append = String::from("console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on --");
    for argument in arguments {
        append.push(' ');
        append.push_str(argument);
    }
    // KVM is not used although it may be there: nested in another machine it may hang.
    // Trials measure time, so the guest comes before what else the machine does, where that is allowed.
    let mut command = Command::new("nice");
    command.args(["-n", "-15", EMULATOR]);
    command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"]);
    command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "768"]);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs).arg("-append").arg(append);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start the guest")?;
    let serial = BufReader::new(child.stdout.take().context("the guest has no serial line")?);
    let (line, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for text in serial.split(b'\n').map_while(Result::ok) {
            let _ = line.send(String::from_utf8_lossy(&text).trim_end().to_owned());
        }
    });
    let until = began + Duration::from_secs(limit_seconds);
    let mut outcome = Outcome::default();
    loop {
        match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(text) => {
                eprintln!("| {text}");
                outcome.boot.get_or_insert(began.elapsed());
                outcome.take(&text);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                outcome.killed = true;
                child.kill()?;
                break;
            }
        }
    }
    child.wait()?;
    let _ = reader.join();
    outcome.whole = began.elapsed();
    Ok(outcome)
}

impl Outcome {
    /// Takes in a line: a test's end, or the guest's.
    fn take(&mut self, text: &str) {
        if let Some(code) = text.strip_prefix(EXIT) {
            self.code = code.trim().parse().ok();
        }
        let Some((name, how)) = text.strip_prefix("test ").and_then(|t| t.split_once(" ... ")) else { return };
        let name = name.trim().to_owned();
        match how.trim() {
            "ok" => self.passed += 1,
            "FAILED" => self.failed.push(name),
            other => self.skipped.push(format!("{name}: {other}")),
        }
    }

    /// Whether any test came to an end.
    pub(super) fn ran(&self) -> bool {
        self.passed + self.failed.len() > 0
    }

    /// In one line.
    pub(super) fn words(&self) -> String {
        let boot = self.boot.unwrap_or_default().as_secs_f64();
        let mut words =
            format!("{:.0} s in the guest, {boot:.1} s of them to its first word; ", self.whole.as_secs_f64());
        words.push_str(&format!(
            "{} passed, {} failed, {} skipped",
            self.passed,
            self.failed.len(),
            self.skipped.len()
        ));
        for name in &self.failed {
            words.push_str(&format!("\n  failed: {name}"));
        }
        for name in &self.skipped {
            words.push_str(&format!("\n  skipped: {name}"));
        }
        if self.killed {
            words.push_str("\n  its time was up and it was ended");
        } else if self.code.is_none() {
            words.push_str("\n  it ended without saying how");
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_serial_line_are_understood() {
        let mut outcome = Outcome::default();
        for line in ["test a   ... ok", "test b ... FAILED", "test c ... ignored, no netem", "x", "fracas-vm: exit 101"]
        {
            outcome.take(line);
        }
        assert_eq!((outcome.code, outcome.passed, outcome.failed.as_slice()), (Some(101), 1, &["b".to_owned()][..]));
        assert_eq!(outcome.skipped, ["c: ignored, no netem"]);
    }
}
