//! Runs the guest under software emulation, shows what it prints, and ends it when its time is up.

use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

const EMULATOR: &str = "qemu-system-x86_64";
/// What the guest prints before its exit code.
const EXIT: &str = "fracas-vm: exit ";
/// What a guest prints that restarts on purpose, and wants to be booted again with the disks it leaves.
const AGAIN: &str = "fracas-vm: again";

/// A processor that is stuck for so long does not come back: a host that is busy elsewhere makes some seconds of it.
const HUNG_SECONDS: u64 = 60;

/// How a guest ended.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// What it said; `None` if it said nothing: it crashed or was too slow.
    pub(super) code: Option<i32>,
    passed: usize,
    failed: Vec<String>,
    skipped: Vec<String>,
    again: bool,
    boot: Option<Duration>,
    whole: Duration,
    /// An emulated processor hung: with several of them that happens to the emulator, and says nothing of the tests.
    pub(super) hung: bool,
    killed: bool,
}

/// Fails where the emulator is missing.
pub(crate) fn present() -> Result<()> {
    if Command::new(EMULATOR).arg("--version").output().is_err() {
        bail!("{EMULATOR} is missing: apt-get install qemu-system-x86");
    }
    Ok(())
}

/// What a guest is made of.
pub(crate) struct Guest<'g> {
    /// What the boot loader would load.
    pub(crate) kernel: &'g Path,
    /// Its first file system.
    pub(crate) initramfs: &'g Path,
    /// Raw images that stay when the guest is gone: `/dev/vda`, `/dev/vdb` and so on, for which it needs `virtio_pci`,
    /// `virtio_blk` and the file system's module. What the guest wrote to a disk is in the image at once, and stays there
    /// when the guest is killed; what it only had in its memory is lost, as with the power.
    pub(crate) disks: &'g [PathBuf],
    /// For the first program.
    pub(crate) arguments: &'g [String],
}

/// A guest that runs.
pub(crate) struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    reader: JoinHandle<()>,
}

/// What the serial line brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Serial {
    /// A line.
    Line(String),
    /// Nothing until the time was up.
    Silent,
    /// The guest has ended.
    End,
}

impl Guest<'_> {
    /// Boots.
    pub(crate) fn start(&self) -> Result<Running> {
        let mut append = String::from("console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on --");
        for argument in self.arguments {
            append.push(' ');
            append.push_str(argument);
        }
        // KVM is not used although it may be there: nested in another machine it may hang.
        // Trials measure time, so the guest comes before what else the machine does, where that is allowed.
        let mut command = Command::new("nice");
        command.args(["-n", "-15", EMULATOR]);
        command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"]);
        command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "768"]);
        command.arg("-kernel").arg(self.kernel).arg("-initrd").arg(self.initramfs).arg("-append").arg(append);
        for (number, disk) in self.disks.iter().enumerate() {
            let mut drive = OsString::from(format!("id=disk{number},if=none,format=raw,cache=writeback,file="));
            drive.push(disk);
            command.arg("-drive").arg(drive).args(["-device", &format!("virtio-blk-pci,drive=disk{number}")]);
        }
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start the guest")?;
        let serial = BufReader::new(child.stdout.take().context("the guest has no serial line")?);
        let (line, lines) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            for text in serial.split(b'\n').map_while(Result::ok) {
                let _ = line.send(String::from_utf8_lossy(&text).trim_end().to_owned());
            }
        });
        Ok(Running { child, lines, reader })
    }
}

impl Running {
    /// The next line of the serial line, awaited until then.
    pub(crate) fn next(&self, until: Instant) -> Serial {
        match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(text) => Serial::Line(text),
            Err(mpsc::RecvTimeoutError::Timeout) => Serial::Silent,
            Err(mpsc::RecvTimeoutError::Disconnected) => Serial::End,
        }
    }

    /// Pulls the plug.
    pub(crate) fn cut(&mut self) -> Result<()> {
        self.child.kill().context("cannot end the guest")
    }

    /// Waits for the end, which is near; the lines that were not read yet.
    pub(crate) fn end(mut self) -> Result<Vec<String>> {
        self.child.wait()?;
        let _ = self.reader.join();
        Ok(self.lines.try_iter().collect())
    }
}

/// Boots, shows the serial line, waits for the end.
pub(super) fn boot(guest: &Guest<'_>, limit_seconds: u64) -> Result<Outcome> {
    Ok(boot_and_hear(guest, limit_seconds, EXIT)?.0)
}

/// The same; gives also the rest of the last line that begins like this.
pub(super) fn boot_and_hear(guest: &Guest<'_>, limit_seconds: u64, mark: &str) -> Result<(Outcome, Option<String>)> {
    let mut heard = None;
    let began = Instant::now();
    let mut running = guest.start()?;
    let until = began + Duration::from_secs(limit_seconds);
    let mut outcome = Outcome::default();
    loop {
        match running.next(until) {
            Serial::Line(text) => {
                eprintln!("| {text}");
                outcome.boot.get_or_insert(began.elapsed());
                outcome.take(&text);
                if outcome.hung {
                    running.cut()?;
                    break;
                }
                heard = text.strip_prefix(mark).map(str::to_owned).or(heard);
            }
            Serial::End => break,
            Serial::Silent => {
                outcome.killed = true;
                running.cut()?;
                break;
            }
        }
    }
    running.end()?;
    outcome.whole = began.elapsed();
    Ok((outcome, heard))
}

/// How long a processor of the guest has not run anything else, if its kernel complains of that in this line.
fn stuck_seconds(text: &str) -> Option<u64> {
    let (_, behind) = text.split_once("soft lockup - CPU#")?;
    behind.split_once("stuck for ")?.1.split_once('s')?.0.parse().ok()
}

impl Outcome {
    /// Takes in a line: a test's end, or the guest's.
    fn take(&mut self, text: &str) {
        if let Some(code) = text.strip_prefix(EXIT) {
            self.code = code.trim().parse().ok();
        }
        self.again |= text == AGAIN;
        self.hung |= stuck_seconds(text).is_some_and(|seconds| seconds >= HUNG_SECONDS);
        let Some((name, how)) = text.strip_prefix("test ").and_then(|t| t.split_once(" ... ")) else { return };
        let name = name.trim().to_owned();
        match how.trim() {
            "ok" => self.passed += 1,
            "FAILED" => self.failed.push(name),
            other => self.skipped.push(format!("{name}: {other}")),
        }
    }

    /// Whether it wants to be booted again.
    pub(super) fn again(&self) -> bool {
        self.again && self.code.is_none() && !self.killed
    }

    /// Takes in what the next boot of the same guest brought.
    pub(super) fn add(&mut self, next: Self) {
        self.code = next.code;
        self.passed += next.passed;
        self.failed.extend(next.failed);
        self.skipped.extend(next.skipped);
        self.boot = self.boot.or(next.boot);
        self.whole += next.whole;
        self.killed |= next.killed;
        self.hung |= next.hung;
    }

    /// Whether a test failed, in whichever boot.
    pub(super) fn failed(&self) -> bool {
        !self.failed.is_empty()
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
        if self.hung {
            words.push_str("\n  one of its processors hung and it was ended");
        } else if self.killed {
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
    fn a_processor_that_hangs_is_told_from_a_slow_one() {
        let line =
            |seconds| format!("[  132.6] watchdog: BUG: soft lockup - CPU#0 stuck for {seconds}s! [kworker/0:1:17]");
        for (seconds, hung) in [(22, false), (71, true)] {
            let mut outcome = Outcome::default();
            outcome.take(&line(seconds));
            assert_eq!(outcome.hung, hung);
        }
    }

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
