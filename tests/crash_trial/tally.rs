//! What became of crash trials: one record each, and the table of all.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use fracas_agent::crash::BOUNDARIES;
use fracas_model::units::Dur;

use super::draw::Plan;

/// So many of the slowest are named.
const SLOWEST: usize = 5;

/// One trial.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) seed: u64,
    /// Who died, or what else was done.
    pub(super) kill: &'static str,
    /// Number and name of the boundary at which that was.
    pub(super) boundary: Option<(usize, &'static str)>,
    /// It was to be at a boundary.
    pub(super) at_boundary: bool,
    pub(super) faults: Vec<&'static str>,
    /// Kinds of steps that were applied before.
    pub(super) steps: Vec<String>,
    /// One of them stays until it is undone.
    pub(super) reversible: bool,
    /// Something was applied before; otherwise the trial does not count.
    pub(super) applied: bool,
    /// Something applied was on the host at that instant.
    pub(super) present: bool,
    /// Until the kernel had let go everything that ends with its holder.
    pub(super) freed: Option<Duration>,
    /// Until nothing of a fault was left.
    pub(super) clean: Option<Duration>,
    /// The same, from the next start of the agent.
    pub(super) after_start: Option<Duration>,
    /// That start was killed too, and another one followed.
    pub(super) again: bool,
    /// The dump was not at once as before.
    pub(super) late: bool,
    /// What was left, or went wrong otherwise.
    pub(super) residue: Option<String>,
}

impl Record {
    /// A trial that did not come to its end.
    pub(super) fn broken(plan: &Plan) -> Self {
        Self {
            seed: plan.seed,
            kill: "broken",
            boundary: None,
            at_boundary: plan.boundary().is_some(),
            faults: plan.faults(),
            steps: Vec::new(),
            reversible: false,
            applied: false,
            present: false,
            freed: None,
            clean: None,
            after_start: None,
            again: false,
            late: false,
            residue: Some("the trial did not come to its end; why is told above".into()),
        }
    }

    pub(super) fn counts(&self) -> bool {
        self.applied && self.kill != "nobody"
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Tally(Vec<Record>);

impl Tally {
    pub(super) fn add(&mut self, record: Record) {
        self.0.push(record);
    }

    pub(super) fn played(&self) -> usize {
        self.0.len()
    }

    pub(super) fn counted(&self) -> u64 {
        self.all().count() as u64
    }

    pub(super) fn residues(&self) -> u64 {
        self.0.iter().filter(|record| record.residue.is_some()).count() as u64
    }

    fn all(&self) -> impl Iterator<Item = &Record> {
        self.0.iter().filter(|record| record.counts())
    }

    /// The state of things.
    pub(super) fn line(&self) -> String {
        format!("{} played, {} count, {} residues", self.played(), self.counted(), self.residues())
    }

    /// The whole table.
    pub(super) fn table(&self, lease: Dur, took: Duration) -> String {
        let mut text = format!("\ncrash trial: {}, {} s, lease {lease}\n", self.line(), took.as_secs());
        let present = self.all().filter(|record| record.present).count();
        let reversible = self.all().filter(|record| record.reversible).count();
        let boundary = self.all().filter(|record| record.boundary.is_some()).count();
        let missed = self.all().filter(|record| record.at_boundary && record.boundary.is_none()).count();
        let nothing = self.0.iter().filter(|record| !record.counts() && record.residue.is_none()).count();
        let again = self.all().filter(|record| record.again).count();
        let late = self.all().filter(|record| record.late).count();
        let _ = writeln!(text, "  nothing had been applied, or nobody died (not counted): {nothing}");
        let _ = writeln!(text, "  something applied was on the host at that instant:      {present}");
        let _ = writeln!(text, "  reversible steps among those applied:                   {reversible}");
        let _ = writeln!(text, "  at a numbered boundary: {boundary}; meant to be, but it was not passed: {missed}");
        let _ = writeln!(text, "  the next agent was killed too, in the middle of its undoing: {again}");
        let _ = writeln!(text, "  dump not at once as before, but soon: {late}");

        let mut faults = BTreeMap::<String, u64>::new();
        let mut steps = BTreeMap::<String, u64>::new();
        for record in self.all() {
            let mut named = record.faults.clone();
            named.sort_unstable();
            named.dedup();
            for fault in named {
                *faults.entry(fault.into()).or_default() += 1;
            }
            for step in &record.steps {
                *steps.entry(step.clone()).or_default() += 1;
            }
        }
        let kills = self.all().fold(BTreeMap::<String, u64>::new(), |mut kills, record| {
            *kills.entry(record.kill.into()).or_default() += 1;
            kills
        });
        for (what, counts) in [("fault", faults), ("step kind applied", steps), ("kill", kills)] {
            let _ = writeln!(text, "\n  {what:<42} trials");
            for (name, count) in counts {
                let _ = writeln!(text, "  {name:<42} {count:>6}");
            }
        }
        let _ = writeln!(text, "\n  boundary                    hit");
        for (n, (_, name)) in BOUNDARIES.iter().enumerate() {
            let hit = self.all().filter(|record| record.boundary.is_some_and(|(number, _)| number == n + 1)).count();
            let _ = writeln!(text, "  {:>2} {name:<24} {hit:>4}", n + 1);
        }
        let _ = writeln!(
            text,
            "\n  time from the deed until clean, ms (grain 2 ms, with packet rules 10 ms; a p99 of n < 299 in brackets)\n  \
             {:<38} {:>5} {:>5} {:>8} {:>8} {:>8}",
            "who, and what had been applied", "count", "n", "p50", "p99", "max"
        );
        let mut kills: Vec<&str> = self.all().map(|record| record.kill).collect();
        kills.sort_unstable();
        kills.dedup();
        for kill in kills {
            for (what, reversible) in [("held only", false), ("with reversible", true)] {
                let these: Vec<&Record> = self.all().filter(|r| r.kill == kill && r.reversible == reversible).collect();
                row(&mut text, &format!("{kill}, {what}"), these.len(), &these, |record| record.clean);
            }
        }
        let everybody: Vec<&Record> = self.all().collect();
        let dead: Vec<&Record> = everybody.iter().copied().filter(|r| r.kill.contains("agent")).collect();
        for (name, packets) in [("agent dead: held, no packet rules", false), ("agent dead: held, packet rules", true)]
        {
            let held = |r: &&Record| {
                r.steps.iter().any(|s| s == "impair") == packets
                    && r.steps.iter().any(|s| ["burn", "fill", "seize", "impair"].contains(&s.as_str()))
            };
            let these: Vec<&Record> = dead.iter().copied().filter(held).collect();
            row(&mut text, name, these.len(), &these, |record| record.freed);
        }
        let both: Vec<&Record> = dead.into_iter().filter(|r| r.kill.contains("guard")).collect();
        row(&mut text, "agent+guard dead: from next start", both.len(), &both, |record| record.after_start);
        let alone: Vec<&Record> = everybody.iter().copied().filter(|r| r.kill == "agent").collect();
        row(&mut text, "agent dead, guard alive: all", alone.len(), &alone, |record| record.clean);
        let run_out: Vec<&Record> = everybody
            .iter()
            .copied()
            .filter(|r| ["controller", "lease expiry", "network cut"].contains(&r.kill))
            .collect();
        row(&mut text, "lease run out: all", run_out.len(), &run_out, |record| record.clean);
        let mut slow: Vec<&Record> = alone.into_iter().filter(|r| r.clean.is_some()).collect();
        slow.sort_by_key(|r| std::cmp::Reverse(r.clean));
        let _ = writeln!(text, "\n  the slowest with the agent dead and the guard alive:");
        for record in slow.into_iter().take(SLOWEST) {
            let (seed, clean) = (record.seed, record.clean.unwrap_or_default().as_secs_f64() * 1e3);
            let place = record.boundary.map_or("a random instant", |(_, name)| name);
            let _ = writeln!(text, "  {clean:>8.1} ms, seed {seed}, at {place}: {}", record.steps.join(", "));
        }
        text
    }
}

/// One row of times, of those records in which something applied was there to be undone.
fn row(text: &mut String, name: &str, count: usize, records: &[&Record], time: impl Fn(&Record) -> Option<Duration>) {
    if count == 0 {
        return;
    }
    let mut times: Vec<f64> =
        records.iter().filter(|r| r.present).filter_map(|r| time(r)).map(|t| t.as_secs_f64() * 1e3).collect();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let rank = (share * times.len() as f64).ceil() as usize;
        times.get(rank.saturating_sub(1)).map_or_else(|| "-".into(), |t| format!("{t:.1}"))
    };
    // A percentile of 99 needs 299 to be worth its name.
    let (n, p50, max) = (times.len(), at(0.5), at(1.0));
    let p99 = if n >= 299 { at(0.99) } else { format!("({})", at(0.99)) };
    let _ = writeln!(text, "  {name:<38} {count:>5} {n:>5} {p50:>8} {p99:>8} {max:>8}");
}
