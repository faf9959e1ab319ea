//! One life of the guest, from power on to power off: what it told over the serial line. Whether that is well is judged
//! elsewhere.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use super::aim::{Aim, When};
use crate::vm::guest::{Guest, Serial};

/// A guest that says nothing for so long hangs.
const SILENCE: Duration = Duration::from_mins(2);
/// So many lines are told of a guest that does not do as it should.
const LAST: usize = 40;
/// How long a phase is taken to last before one was seen.
const UNSEEN: Duration = Duration::from_millis(400);

/// What does not change from life to life.
pub(crate) struct Machine {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
    pub(crate) disks: [PathBuf; 2],
    /// Where the disks are, and not any more when all is over.
    pub(crate) _home: TempDir,
    /// How long each phase took, over all lives.
    pub(crate) spans: BTreeMap<String, Vec<Duration>>,
    /// Shows the serial line.
    pub(crate) verbose: bool,
}

/// What a life told.
#[derive(Debug, Default)]
pub(crate) struct Life {
    /// What was on the machine, by the time it was looked at.
    pub(crate) dumps: BTreeMap<String, Vec<String>>,
    /// Items that were open when it began, with how far they were.
    pub(crate) open: Vec<String>,
    /// Items of the life before that have ended.
    pub(crate) known: Vec<String>,
    /// Items whose effect was seen.
    pub(crate) did: Vec<String>,
    /// Items that were refused, or failed.
    pub(crate) refused: Vec<String>,
    /// What the guest itself found wrong.
    pub(crate) wrong: Vec<String>,
    /// Bytes of an unfinished record in the journal, and what was wrong with it.
    pub(crate) journal: String,
    /// The power was cut in this phase.
    pub(crate) cut: Option<String>,
    /// The agent was killed in it.
    died: bool,
    /// It powered itself off.
    pub(crate) ended: bool,
    /// The phase it is in, and since when.
    phase: Option<(String, Instant)>,
    /// From power on to power off.
    pub(crate) whole: Duration,
}

impl Machine {
    /// Boots, cuts where it is aimed at.
    pub(crate) fn live(&mut self, aim: &Aim, words: &[String]) -> Result<Life> {
        let began = Instant::now();
        let arguments: Vec<String> = aim.words().into_iter().chain(words.iter().cloned()).collect();
        let (kernel, initramfs): (&Path, &Path) = (&self.kernel, &self.initramfs);
        let mut running = Guest { kernel, initramfs, disks: &self.disks, arguments: &arguments }.start()?;
        let (mut life, mut plug) = (Life::default(), None);
        let mut last = VecDeque::new();
        let told = |what: &str, last: VecDeque<String>| {
            format!("{what}; the last it said:\n{}", last.into_iter().collect::<Vec<_>>().join("\n"))
        };
        loop {
            let until = plug.unwrap_or_else(|| Instant::now() + SILENCE);
            match running.next(until) {
                Serial::Line(line) => {
                    self.show(&line);
                    last.extend((!line.contains("power dump ")).then(|| line.clone()));
                    last.drain(..last.len().saturating_sub(LAST));
                    let (stopped, phase) = (line.ends_with("power stopped"), life.take(&line, &mut self.spans));
                    if let (Some(phase), When::Instant { phase: aimed, cycle, share }) = (phase, &aim.when)
                        && phase == format!("{aimed} {cycle}")
                    {
                        plug = Some(Instant::now() + self.usual(aimed).mul_f64(*share));
                    }
                    if stopped {
                        break;
                    }
                }
                Serial::Silent if plug.is_some() => break,
                Serial::Silent => {
                    running.cut()?;
                    bail!(told("the guest says nothing", last));
                }
                Serial::End => {
                    life.whole = began.elapsed();
                    let ended = life.ended.then_some(life);
                    return ended.with_context(|| told("the guest ended by itself", last));
                }
            }
        }
        running.cut()?;
        life.cut = Some(life.phase.as_ref().map(|(phase, _)| phase.clone()).unwrap_or_default());
        // What it had said before is true nevertheless.
        for line in running.end()? {
            self.show(&line);
            life.take(&line, &mut self.spans);
        }
        life.whole = began.elapsed();
        Ok(life)
    }

    fn show(&self, line: &str) {
        if self.verbose {
            eprintln!("| {line}");
        }
    }

    /// How long a phase takes: the middle of all that were seen.
    pub(crate) fn usual(&self, phase: &str) -> Duration {
        let mut spans = self.spans.get(phase).cloned().unwrap_or_default();
        spans.sort();
        spans.get(spans.len() / 2).copied().unwrap_or(UNSEEN)
    }
}

impl Life {
    /// Takes in a line; the phase that begins with it, if one does.
    fn take(&mut self, line: &str, spans: &mut BTreeMap<String, Vec<Duration>>) -> Option<String> {
        // What the kernel prints may stand before it.
        let (_, said) = line.split_once("power ")?;
        let (word, rest) = said.split_once(' ').unwrap_or((said, ""));
        let rest = rest.trim().to_owned();
        match word {
            // What the agent's own death left has nothing to do with the cut.
            "dump" | "open" | "journal" if self.died && (word != "dump" || rest.starts_with("found ")) => {}
            "died" => self.died = true,
            "dump" => {
                let (name, line) = rest.split_once(' ')?;
                self.dumps.entry(name.to_owned()).or_default().push(line.to_owned());
            }
            "open" => self.open.push(rest),
            "known" => self.known.push(rest),
            "did" => self.did.push(rest),
            "refused" => self.refused.push(rest),
            "fail" => self.wrong.push(rest),
            "journal" => self.journal = rest,
            "ended" => {
                self.ended = true;
                if rest != "0" {
                    self.wrong.push(format!("the player ended with {rest}"));
                }
            }
            "reaped" if self.phase.as_ref().is_some_and(|(phase, _)| phase.starts_with("again")) => {
                self.wrong.push(format!("{rest} ended although nothing but what has ended was asked for"));
            }
            "phase" => {
                let now = Instant::now();
                if let Some((last, since)) = self.phase.replace((rest.clone(), now)) {
                    let name = last.split(' ').next().unwrap_or_default().to_owned();
                    spans.entry(name).or_default().push(now - since);
                }
                return Some(rest);
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_kept_by_its_first_word() {
        let (mut life, mut spans) = (Life::default(), BTreeMap::new());
        for line in [
            "power dump base /a/files mode=1",
            "[ 1.0] noise power did a/b#0.1",
            "power phase again 0",
            "power reaped kill-me",
            "power ended 0",
        ] {
            life.take(line, &mut spans);
        }
        assert_eq!(life.take("power phase work 0", &mut spans).as_deref(), Some("work 0"));
        assert_eq!(
            (life.dumps["base"].len(), life.did.as_slice(), life.wrong.len()),
            (1, &["a/b#0.1".to_owned()][..], 1)
        );
        assert!(life.ended && spans["again"].len() == 1);
    }
}
