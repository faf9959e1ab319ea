//! `cargo xtask power-trial`: cuts the power of a virtual machine in the middle of faults, boots it again with the same disks,
//! and compares what is there with what was there first. It applies and undoes nothing itself: that is in the guest.
//!
//! The guest is killed with SIGKILL: what it had written to its disks stays, what it only had in memory is lost. Its
//! disks commit as late as they can every other time, and state and files lie on different ones as well as on the same,
//! so that a sync of one does not make up for a sync of another that was forgotten.

mod aim;
mod life;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use fracas_agent::forget::SYNCS;

use self::{
    aim::{Aim, When},
    life::{Life, Machine},
};
use crate::{
    codegen::root,
    vm::{self, guest, kernel},
};

const HELP: &str = "usage: cargo xtask power-trial [--cuts N] [--seed S] [--at BOUNDARY[:NTH[:recovery|death]]] [--planted] [--verbose]

Cuts the power of a virtual machine N times (30 unless told), every other time at a random instant, else at a numbered
boundary between the steps of a plan: while faults are applied, while they are undone, while an agent undoes at its start.
After each cut the machine boots with the same disks; the agent undoes as at every start; then files, attributes, free
space, devices and journal must be as before the first fault, what has ended must not be applied again when it is asked
for again, and every end must have been told. With --at each cut is at that place, with disks that keep what is written in
memory for as long as they can: while faults are applied and undone, or in the undo at the start, or in the first plan after
the agent alone was killed there. With --planted the same is done with a sync left out, once for each that can
be: that must be found, or this fails. Needs qemu-system-x86, musl-tools and e2fsprogs; no rights. Prints a table, and at
last `cuts N residues M seed S`; fails if M > 0.";

/// What the guest's kernel must have beside ext4.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "dummy",
    "ifb",
    "sch_netem",
    "sch_ingress",
    "cls_bpf",
    "act_mirred",
    "act_gact",
    "nf_tables",
    "nft_numgen",
    "nft_queue",
    "nft_compat",
    "nfnetlink_queue",
    "xt_NFQUEUE",
];
/// Size of each disk.
const DISK_BYTES: u64 = 96 << 20;
/// A planted omission must be found in so many cuts.
const PLANTED_CUTS: u32 = 3;

/// The words of the command line.
struct Words {
    cuts: u32,
    seed: u64,
    at: Option<When>,
    planted: bool,
    verbose: bool,
}

/// Runs the trial; the program's exit code says whether all went well.
pub(crate) fn run(words: &[String]) -> Result<ExitCode> {
    let Some(words) = read(words)? else {
        eprintln!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    };
    let mut machine = build(words.verbose)?;
    let mut trial = Trial::default();
    trial.cut(&mut machine, &words)?;
    let mut well = trial.residues == 0 && (words.cuts == 0 || trial.counted > 0);
    if words.cuts > 0 {
        trial.print(&machine);
    }
    if words.planted {
        let mut found = 0;
        for (_, name) in SYNCS {
            found += usize::from(planted(&mut machine, name)?);
        }
        println!("planted {} found {found}", SYNCS.len());
        well &= found == SYNCS.len();
    }
    // The last line, whatever it says.
    println!("cuts {} residues {} seed {}", trial.counted, trial.residues, words.seed);
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read(words: &[String]) -> Result<Option<Words>> {
    let mut read = Words { cuts: 30, seed: 0, at: None, planted: false, verbose: false };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut text = || words.next().with_context(|| format!("{word} needs a value\n{HELP}"));
        let number = |text: &String| text.parse::<u64>().with_context(|| format!("{word} {text}: not a number"));
        match word.as_str() {
            "--help" | "-h" => return Ok(None),
            "--cuts" => read.cuts = u32::try_from(number(text()?)?)?,
            "--seed" => read.seed = number(text()?)?,
            "--at" => read.at = Some(When::read(text()?).with_context(|| format!("{word}: no such place\n{HELP}"))?),
            "--planted" => read.planted = true,
            "--verbose" => read.verbose = true,
            other => bail!("unknown word {other:?}\n{HELP}"),
        }
    }
    Ok(Some(read))
}

fn build(verbose: bool) -> Result<Machine> {
    guest::present()?;
    let home = root().join("target/vm");
    let kernel = kernel::find(&home)?;
    let initramfs = home.join("power-initramfs");
    let program = vm::artifact(&["test", "--no-run", "-p", "fracas-agent", "--test", "power"], &["power"])?;
    vm::initramfs(&kernel, MODULES, &program[0], &initramfs)?;
    let home = tempfile::Builder::new().prefix("power-").tempdir_in(home)?;
    let disks = ["a", "b"].map(|name| home.path().join(name));
    Ok(Machine { kernel: kernel.image, initramfs, disks, _home: home, spans: BTreeMap::new(), verbose })
}

/// Empty file systems on both disks.
fn format(machine: &Machine) -> Result<()> {
    for disk in &machine.disks {
        fs::File::create(disk)?.set_len(DISK_BYTES)?;
        tool(Command::new("mke2fs").args(["-q", "-F", "-t", "ext4", "-I", "256"]).arg(disk))?;
    }
    Ok(())
}

/// Fails when the file system of a disk that was unmounted is not whole.
fn check(disk: &Path) -> Result<()> {
    tool(Command::new("e2fsck").args(["-f", "-n"]).arg(disk))
}

fn tool(command: &mut Command) -> Result<()> {
    // Debian keeps them where only root looks.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let done = command.env("PATH", path).output().context("e2fsprogs is missing: apt-get install e2fsprogs")?;
    if !done.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&done.stdout).trim());
    }
    Ok(())
}

/// What came out so far.
#[derive(Default)]
struct Trial {
    counted: u32,
    residues: u32,
    refused: BTreeSet<String>,
    rows: BTreeMap<(&'static str, &'static str), Row>,
    lives: Vec<Duration>,
    /// What was there before the first fault on these disks.
    base: Vec<String>,
}

/// One kind of cuts.
#[derive(Default)]
struct Row {
    cuts: u32,
    /// The next boot found open items in the journal.
    open: u32,
    /// The next boot found files otherwise than before the first fault.
    changed: u32,
    /// The journal ended in the middle of a record.
    torn: u32,
    residues: u32,
}

/// A cut that the next life shows the consequences of.
struct Cut {
    when: When,
    number: u32,
    life: Life,
}

impl Trial {
    /// Cuts so often, and boots once more.
    fn cut(&mut self, machine: &mut Machine, words: &Words) -> Result<()> {
        let (seed, cuts) = (words.seed, words.cuts);
        if cuts == 0 {
            return Ok(());
        }
        format(machine)?;
        let mut before: Option<Cut> = None;
        let mut number = 0;
        // A cut that was aimed at something which did not happen is drawn anew.
        while self.counted + u32::from(before.is_some()) < cuts && number < 2 * cuts + 10 {
            let mut aim = Aim::draw(seed, number, before.as_ref().map(|cut| &cut.when));
            if let Some(at) = &words.at {
                aim = Aim::hostile(at.clone(), aim.seed);
            }
            before = self.life(machine, &aim, None, number, before)?;
            number += 1;
        }
        if before.is_some() {
            let aim = Aim { when: When::Never, ..Aim::draw(seed, number, None) };
            self.life(machine, &aim, None, number, before)?;
        }
        let whole = machine.disks.iter().map(|disk| check(disk)).collect::<Result<Vec<()>>>();
        if let Err(error) = whole {
            println!("RESIDUE at the end: {error}");
            self.residues += 1;
        }
        Ok(())
    }

    /// One life: judges the cut before it, and is cut itself.
    fn life(
        &mut self,
        machine: &mut Machine,
        aim: &Aim,
        forget: Option<&str>,
        number: u32,
        before: Option<Cut>,
    ) -> Result<Option<Cut>> {
        let last = before.as_ref().map_or(number, |cut| cut.number);
        let mut words = vec![format!("life={number}"), format!("before={last}")];
        words.extend(forget.map(|sync| format!("forget={sync}")));
        let mut life = machine.live(aim, &words)?;
        if let Some(base) = life.dumps.remove("base") {
            self.base = base;
        }
        self.lives.push(life.whole);
        self.refused.extend(life.refused.iter().map(|line| line.split_once(' ').map_or("", |(_, why)| why).to_owned()));
        let mut well = true;
        // A life that was cut in its own recovery shows nothing; the one after it does.
        let looked = life.dumps.contains_key("again") && life.cut.as_deref() != Some("again 0");
        if let Some(before) = &before
            && looked
        {
            well = self.judge(before, &life);
        } else if !life.wrong.is_empty() {
            println!("RESIDUE in life {number}: {:?}", life.wrong);
            (well, self.residues) = (false, self.residues + 1);
        }
        let what = life.cut.as_ref().map_or("was not cut".into(), |phase| format!("cut in {phase}"));
        let found = format!("{} open, {} lines otherwise", life.open.len(), self.otherwise(&life, "found").len());
        let (mount, dirty) = (&aim.mount, aim.dirty);
        eprintln!(
            "life {number}: found {found}; {what} ({}); {:.1} s; {mount},dirty={dirty}",
            aim.when.words(),
            life.whole.as_secs_f64(),
        );
        if !well {
            // What was left would be found again and again.
            format(machine)?;
            self.base.clear();
            return Ok(None);
        }
        if life.cut.is_none() {
            return Ok(None);
        }
        if let Some(mut before) = before
            && !looked
        {
            // Nothing was done in this life but to undo; both cuts are judged by the next one.
            if !life.open.is_empty() {
                self.row(&life, &aim.when, 0);
            }
            before.life.did.append(&mut life.did);
            return Ok(Some(before));
        }
        Ok(Some(Cut { when: aim.when.clone(), number, life }))
    }

    /// Lines of a dump that differ from the first one.
    fn otherwise(&self, life: &Life, dump: &str) -> Vec<String> {
        let (Some(dump), base) = (life.dumps.get(dump), &self.base) else { return Vec::new() };
        let gone = base.iter().filter(|line| !dump.contains(line)).map(|line| format!("- {line}"));
        gone.chain(dump.iter().filter(|line| !base.contains(line)).map(|line| format!("+ {line}"))).collect()
    }

    /// Whether the life after a cut found all as it must be.
    fn judge(&mut self, cut: &Cut, after: &Life) -> bool {
        let changed = self.otherwise(after, "found");
        if after.open.is_empty() && changed.is_empty() && cut.life.did.is_empty() {
            // Nothing had been applied: it proves nothing.
            return true;
        }
        let mut residues = after.wrong.clone();
        for dump in ["after", "again"] {
            residues.extend(self.otherwise(after, dump).into_iter().map(|line| format!("{dump}: {line}")));
        }
        if !after.journal.ends_with("trouble=None") {
            residues.push(format!("journal: {}", after.journal));
        }
        for key in &cut.life.did {
            match after.known.iter().find(|known| known.split(' ').next() == Some(key)) {
                None => residues.push(format!("{key} was done, and nobody knows it")),
                Some(known) if !known.contains(" told ") => residues.push(format!("its end was not told: {known}")),
                Some(_) => {}
            }
        }
        let bad = u32::from(!residues.is_empty());
        self.residues += bad;
        self.row(after, &cut.when, bad);
        if bad > 0 {
            println!("RESIDUE of the cut of life {} ({}):", cut.number, cut.when.words());
            for line in residues.iter().chain(&after.open) {
                println!("  {line}");
            }
        }
        bad == 0
    }

    fn row(&mut self, after: &Life, when: &When, residues: u32) {
        let changed = !self.otherwise(after, "found").is_empty();
        self.counted += 1;
        let row = self.rows.entry(when.kind()).or_default();
        row.cuts += 1;
        row.open += u32::from(!after.open.is_empty());
        row.changed += u32::from(changed);
        row.torn += u32::from(!after.journal.starts_with("torn=0 "));
        row.residues += residues;
    }

    fn print(&self, machine: &Machine) {
        println!(
            "{:<16} {:<30} {:>5} {:>6} {:>8} {:>6} {:>9}",
            "cut at", "in", "cuts", "open", "changed", "torn", "residues"
        );
        for ((how, what), row) in &self.rows {
            let Row { cuts, open, changed, torn, residues } = row;
            println!("{how:<16} {what:<30} {cuts:>5} {open:>6} {changed:>8} {torn:>6} {residues:>9}");
        }
        for phase in ["recover", "apply", "undo"] {
            let n = machine.spans.get(phase).map_or(0, Vec::len);
            println!("{phase} takes {} ms (median, n = {n})", machine.usual(phase).as_millis());
        }
        let whole: Duration = self.lives.iter().sum();
        let each = whole.as_secs_f64() / self.lives.len().max(1) as f64;
        println!("{} boots in {:.0} s, {each:.1} s each", self.lives.len(), whole.as_secs_f64());
        for why in &self.refused {
            println!("refused or failed: {why}");
        }
    }
}

/// Leaves out a sync until that is found; whether it was.
fn planted(machine: &mut Machine, sync: &str) -> Result<bool> {
    let (mut trial, mut before, began) = (Trial::default(), None, Instant::now());
    format(machine)?;
    for number in 0..=PLANTED_CUTS {
        // The first plan of the next cycle, which is the fourth, takes the ends of the cycle before to the disk with it.
        let (name, nth) = if sync == "intent" { ("after-step", 1) } else { ("after-plan-record", 4) };
        let aim = Aim::hostile(When::Boundary { name, nth }, None);
        before = trial.life(machine, &aim, Some(sync), number, before)?;
        if trial.residues > 0 {
            break;
        }
    }
    let found = trial.residues > 0;
    let how = if found { "found" } else { "NOT FOUND" };
    println!("planted: {sync} not synced: {how} at cut {} after {:.0} s", trial.counted, began.elapsed().as_secs_f64());
    Ok(found)
}
