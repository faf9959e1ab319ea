//! `fracas-agent history`: what experiments did to this host, read from the journal alone. It changes nothing.

use std::path::Path;

use chrono::{DateTime, SecondsFormat};
use clap::Args;
use fracas_model::{id::ItemKey, report::cause_text, time::Stamp, units::Dur};
use serde_json::{Value, json};

use super::{StateArgs, code, journal_shown, say};
use crate::{
    journal::{CLOSED_KEPT, Ended, Look, OpenItem, Past},
    lock::{self, Lock},
};

/// Arguments of `history`.
#[derive(Clone, Debug, Args)]
pub struct HistoryArgs {
    /// Where the agent keeps everything.
    #[command(flatten)]
    pub state: StateArgs,
    /// Show this many runs, the last ones; 0 for all that are remembered
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub last: usize,
    /// Show only this run
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// One item as the journal tells of it.
struct Line {
    key: ItemKey,
    /// The experiment's name; empty where an older agent wrote the journal.
    experiment: String,
    fault: String,
    what: String,
    from: Option<Stamp>,
    to: Option<Stamp>,
    /// `None` while it is open.
    ended: Option<Ended>,
}

impl Line {
    fn of_past(key: &ItemKey, ended: Ended, past: Option<&Past>) -> Self {
        let past = past.cloned();
        Self {
            key: key.clone(),
            ended: Some(ended),
            from: past.as_ref().and_then(|p| p.from.clone()),
            to: past.as_ref().map(|p| p.to.clone()),
            experiment: past.as_ref().map(|p| p.experiment.clone()).unwrap_or_default(),
            fault: past.as_ref().map(|p| p.fault.clone()).unwrap_or_default(),
            what: past.map(|p| p.what).unwrap_or_default(),
        }
    }

    fn of_open(key: &ItemKey, open: &OpenItem) -> Self {
        Self {
            key: key.clone(),
            experiment: open.experiment.clone(),
            fault: open.fault.clone(),
            what: open.plan.summary.clone(),
            from: open.at.clone(),
            to: None,
            ended: None,
        }
    }

    /// From the plan to the end, on the clock that does not jump; `None` across a boot.
    fn lasted(&self) -> Option<Dur> {
        let (from, to) = (self.from.as_ref()?, self.to.as_ref()?);
        (from.clock.boot == to.clock.boot).then(|| Dur::from_ns(to.boot_ns - from.boot_ns))
    }

    fn end(&self) -> (&'static str, Option<&'static str>) {
        match self.ended {
            None => ("open", None),
            Some(Ended::Undone(cause)) => ("undone", Some(cause_text(cause))),
            Some(Ended::Spent) => ("spent", None),
            Some(Ended::Refused) => ("refused", None),
        }
    }

    fn text(&self) -> String {
        let begun = self.from.as_ref().or(self.to.as_ref()).map_or_else(|| "at an unknown time".into(), utc);
        let (end, why) = self.end();
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        let after = match (self.ended, self.lasted()) {
            (Some(Ended::Undone(_)), Some(lasted)) => format!(" after {}", lasted.human()),
            _ => String::new(),
        };
        let what = if self.fault.is_empty() { String::new() } else { format!("\n      {}: {}", self.fault, self.what) };
        format!("  {begun}  {}  {end}{after}{why}{what}\n", self.key.entry)
    }

    fn json(&self) -> Value {
        let ended = self.ended.and_then(|ended| serde_json::to_value(ended).ok());
        let cause = ended.as_ref().and_then(|e| e.get("undone")).cloned();
        json!({
            "run": self.key.run, "experiment": self.experiment, "entry": self.key.entry,
            "occurrence": self.key.occurrence, "generation": self.key.generation,
            "fault": self.fault, "what": self.what, "state": self.end().0, "cause": cause,
            "from": self.from.as_ref().map(utc), "to": self.to.as_ref().map(utc),
            "seconds": self.lasted().map(|d| d.ns() as f64 / 1e9),
        })
    }
}

fn utc(stamp: &Stamp) -> String {
    DateTime::from_timestamp_nanos(stamp.wall_ns).to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Prints it and gives the exit code.
pub(super) fn history(args: &HistoryArgs) -> anyhow::Result<u8> {
    let dir = args.state.dir();
    say(shown(&dir, args).trim_end())?;
    Ok(code(&Look::into_dir(&dir)))
}

fn shown(dir: &Path, args: &HistoryArgs) -> String {
    let look = Look::into_dir(dir);
    let past = look.state.past().map(|(key, ended, past)| Line::of_past(key, ended, past));
    let open = look.state.open.iter().map(|(key, open)| Line::of_open(key, open));
    let mut lines: Vec<Line> = past.chain(open).collect();
    if let Some(run) = &args.run {
        lines.retain(|line| line.key.run.as_str() == run);
    }
    // Runs in the order of what they did last: one that is under way comes at the end.
    let mut runs: Vec<&str> = Vec::new();
    for line in lines.iter().rev() {
        if !runs.contains(&line.key.run.as_str()) {
            runs.push(line.key.run.as_str());
        }
    }
    let all = runs.len();
    if args.last > 0 {
        runs.truncate(args.last);
    }
    runs.reverse();
    let of = |run: &&str| lines.iter().filter(|line| line.key.run.as_str() == *run).collect::<Vec<_>>();
    let running = Lock::is_held(dir, lock::AGENT);
    if args.json {
        let items: Vec<Value> = runs.iter().flat_map(|run| of(run).into_iter().map(Line::json)).collect();
        let trouble = look.trouble.as_ref().map(ToString::to_string);
        return json!({ "stateDir": dir, "trouble": trouble, "runs": all, "items": items }).to_string();
    }
    let mut text = String::new();
    if look.trouble.is_some() {
        text += &journal_shown(&look, running);
        text += "what could be read of it:\n";
    }
    for run in &runs {
        let theirs = of(run);
        let experiment = theirs.iter().map(|l| l.experiment.as_str()).find(|name| !name.is_empty()).unwrap_or_default();
        text += format!("run {run}  {experiment}").trim_end();
        text.push('\n');
        for line in theirs {
            text += &line.text();
        }
    }
    match (&args.run, all) {
        (Some(run), 0) => text += &format!("run {run} did nothing to this host that {} tells of\n", dir.display()),
        (None, 0) => text += &format!("no run did anything to this host that {} tells of\n", dir.display()),
        _ if runs.len() < all => text += &format!("{} earlier runs: --last 0 shows all\n", all - runs.len()),
        _ if lines.len() >= CLOSED_KEPT => text += &format!("only the last {CLOSED_KEPT} faults are remembered\n"),
        _ => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use fracas_model::{
        event::UndoCause,
        plan::{Check, Plan},
        time::ClockId,
    };

    use super::*;
    use crate::journal::{FILE, Record, encode_frame};

    fn stamp(second: i64) -> Stamp {
        let clock = ClockId { host: "h".into(), boot: "b".into() };
        Stamp { clock, boot_ns: second * 1_000_000_000, wall_ns: (1_795_000_000 + second) * 1_000_000_000, bound_ns: 0 }
    }

    fn key(run: &str, entry: &str) -> ItemKey {
        ItemKey { run: run.into(), entry: entry.into(), occurrence: 0, host: "h".into(), generation: 1 }
    }

    fn closed(run: &str, entry: &str, ended: Ended, from: Option<i64>, to: i64) -> Record {
        let what = format!("what {entry} did");
        let past = Past { experiment: "taste".into(), fault: "f".into(), what, from: from.map(stamp), to: stamp(to) };
        Record::Closed { key: key(run, entry), ended, tell: Vec::new(), past: Some(past) }
    }

    fn args(last: usize, run: Option<&str>, json: bool) -> HistoryArgs {
        HistoryArgs { state: StateArgs::default(), last, run: run.map(str::to_owned), json }
    }

    #[test]
    fn runs_are_told_with_what_they_did_the_last_one_last() {
        let dir = tempfile::tempdir().unwrap();
        assert!(shown(dir.path(), &args(20, None, false)).starts_with("no run did anything"));
        let open = Record::Planned {
            key: key("r3", "now"),
            fault: "f".into(),
            plan: Plan {
                steps: Vec::new(),
                claims: Vec::new(),
                check: Check::Gone { processes: Vec::new() },
                summary: "going on".into(),
            },
            duration: None,
            slot: 0,
            boot: "b".into(),
            deadline_ns: 0,
            experiment: "taste".into(),
            at: Some(stamp(40)),
        };
        let records = [
            closed("r1", "slow", Ended::Undone(UndoCause::Expired), Some(0), 10),
            closed("r1", "kill", Ended::Spent, Some(11), 12),
            closed("r2", "no", Ended::Refused, None, 30),
            // As an agent wrote it that did not keep this yet.
            Record::Closed { key: key("r2", "old"), ended: Ended::Spent, tell: Vec::new(), past: None },
            open,
        ];
        let bytes: Vec<u8> = records.iter().flat_map(|r| encode_frame(1, &serde_json::to_vec(r).unwrap())).collect();
        fs::write(dir.path().join(FILE), bytes).unwrap();

        let text = shown(dir.path(), &args(20, None, false));
        let places: Vec<usize> = [
            "run r1  taste",
            "slow  undone after 10.0 s: its duration ended",
            "kill  spent",
            "run r2",
            "no  refused",
            "what no did",
            "at an unknown time  old  spent",
            "run r3",
            "now  open",
            "going on",
        ]
        .iter()
        .map(|part| text.find(part).unwrap_or_else(|| panic!("{part} is missing:\n{text}")))
        .collect();
        assert!(places.is_sorted(), "{text}");
        assert!(text.contains("2026-11-18T"), "{text}");

        let last = shown(dir.path(), &args(1, None, false));
        assert!(last.contains("run r3") && !last.contains("run r1") && last.contains("2 earlier runs"), "{last}");
        let one: Value = serde_json::from_str(&shown(dir.path(), &args(20, Some("r1"), true))).unwrap();
        assert_eq!(one["items"].as_array().unwrap().len(), 2, "{one}");
        assert_eq!(
            (one["items"][0]["state"].as_str(), one["items"][0]["cause"].as_str()),
            (Some("undone"), Some("expired"))
        );
        assert_eq!(one["items"][0]["seconds"], 10.0);
        assert!(shown(dir.path(), &args(20, Some("r9"), false)).starts_with("run r9 did nothing"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "asking makes no files");
    }
}
