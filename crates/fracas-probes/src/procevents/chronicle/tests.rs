//! Claims against what really was: scripted, and in thousands of random worlds.

use fracas_model::process::{Process, ProcessRef, ProcessSelector};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::*;

const MEANT: &str = "meant";

fn matched(pids: &[i32]) -> BTreeMap<i32, Matched> {
    pids.iter().map(|pid| (*pid, Matched { start_ticks: 1, parent: 1, root: true, by_image: true })).collect()
}

fn snapshot(at: i64, pids: &[i32]) -> Snapshot {
    Snapshot { at, matched: matched(pids), others: BTreeSet::new() }
}

fn event(at: i64, pid: i32, what: What) -> Event {
    Event { at, pid, what }
}

fn forked(at: i64, pid: i32) -> Event {
    event(at, pid, What::Forked { parent: 1 })
}

fn told(before: &Snapshot, events: &[Event], after: &Snapshot) -> Vec<(i64, bool)> {
    claims(before, events, after, 1).iter().map(|c| (c.at, c.up)).collect()
}

#[test]
fn an_exit_is_the_instant_from_which_nothing_runs() {
    let events = [event(15, 7, What::Ended)];
    assert_eq!(told(&snapshot(10, &[7]), &events, &snapshot(30, &[])), [(15, false)]);
    // A thread that ends later ends it.
    let events = [event(15, 7, What::Ended), event(16, 7, What::ThreadEnded)];
    assert_eq!(told(&snapshot(10, &[7]), &events, &snapshot(30, &[])), [(16, false)]);
    // One that may have been another of them, and is gone, keeps the claim until it went.
    let events = [forked(12, 8), event(15, 7, What::Ended), event(20, 8, What::Ended)];
    assert_eq!(told(&snapshot(10, &[7]), &events, &snapshot(30, &[])), [(20, false)]);
    // Not told: nothing is claimed.
    assert_eq!(told(&snapshot(10, &[7]), &[], &snapshot(30, &[])), []);
}

#[test]
fn a_start_lies_between_its_fork_and_its_image() {
    let events = [forked(12, 8), event(14, 8, What::Executed)];
    assert_eq!(told(&snapshot(10, &[]), &events, &snapshot(30, &[8])), [(11, false), (14, true)]);
    // A copy that runs on as it is began somehow, and nobody knows how.
    assert_eq!(told(&snapshot(10, &[]), &events[..1], &snapshot(30, &[8])), [(11, false)]);
    // One that was there already may have been meant for some time before the stamp.
    assert_eq!(told(&snapshot(10, &[]), &events[1..], &snapshot(30, &[8])), [(14, true)]);
    // It is known by its title only.
    let mut after = snapshot(30, &[8]);
    after.matched.values_mut().for_each(|m| m.by_image = false);
    assert_eq!(told(&snapshot(10, &[]), &events, &after), [(11, false)]);
}

#[test]
fn a_restart_between_two_looks_is_seen() {
    let events = [event(15, 7, What::Ended), forked(17, 8), event(19, 8, What::Executed)];
    assert_eq!(told(&snapshot(10, &[7]), &events, &snapshot(30, &[8])), [(15, false), (16, false), (19, true)]);
    // The same number again.
    let events = [event(15, 7, What::Ended), forked(17, 7), event(19, 7, What::Executed)];
    let mut after = snapshot(30, &[7]);
    after.matched.values_mut().for_each(|m| m.start_ticks = 2);
    assert_eq!(told(&snapshot(10, &[7]), &events, &after), [(15, false), (16, false), (19, true)]);
    // One that executes another program by another thread than its first did not end.
    let events = [event(15, 7, What::Ended), event(15, 7, What::Executed)];
    assert_eq!(told(&snapshot(10, &[7]), &events, &snapshot(30, &[7])), []);
    // Another one ran all the time.
    let events = [event(15, 7, What::Ended), forked(17, 8), event(19, 8, What::Executed)];
    assert_eq!(told(&snapshot(10, &[6, 7]), &events, &snapshot(30, &[6, 8])), []);
}

/// A table says no more than it shows: of what is not in it any more nothing is known but what was told.
#[test]
fn what_left_the_table_untold_is_gone_at_no_known_time() {
    let mut titled = snapshot(10, &[7]);
    titled.matched.values_mut().for_each(|m| m.by_image = false);
    let gone = |others: &[i32]| Snapshot { others: others.iter().copied().collect(), ..snapshot(30, &[]) };
    let renamed = [event(15, 7, What::Renamed)];
    // It took a name, and lost its title some time after that.
    assert_eq!(told(&titled, &renamed, &gone(&[7])), []);
    // It is about to end, or its end was not told yet.
    assert_eq!(told(&snapshot(10, &[7]), &renamed, &gone(&[])), []);
    assert_eq!(told(&snapshot(10, &[7]), &renamed, &gone(&[7])), [(15, false)]);
    // What was told too late belongs to the time before the first look, which was not whole.
    let late = [event(9, 5, What::Executed), event(15, 7, What::Ended)];
    assert_eq!(told(&snapshot(10, &[7]), &late, &snapshot(30, &[])), []);
    // The number that ended runs on: the kernel gave it again before it told.
    let again = [forked(12, 7), event(15, 7, What::Ended)];
    assert_eq!(told(&snapshot(10, &[6]), &again, &snapshot(30, &[7])), []);
}

/// Processes as they really are.
#[derive(Clone, Debug)]
struct Real {
    parent: i32,
    began: u64,
    meant: bool,
    /// Meant by its title alone, until the next look at least.
    titled: bool,
    /// It got its title since the last look.
    fresh: bool,
    /// About to end: what it ran and how it was called is gone already.
    ending: bool,
}

struct World {
    random: StdRng,
    now: i64,
    processes: BTreeMap<i32, Real>,
    /// The number of roots since this instant.
    truth: Vec<(i64, usize)>,
    events: Vec<Event>,
}

impl World {
    fn process(pid: i32, real: &Real) -> Process {
        let name = if real.meant { MEANT } else { "other" };
        let id = ProcessRef { pid, start_ticks: real.began, name: name.into() };
        let argv0 = (!real.ending).then(|| if real.titled { MEANT } else { "program" }.to_owned());
        let exe = (!real.ending).then(|| "program".to_owned());
        Process { id, parent: real.parent, exe, argv0, uid: 0, kernel: false, ports: vec![], unit: None }
    }

    fn snapshot(&self) -> Snapshot {
        let table: Vec<Process> = self.processes.iter().map(|(pid, real)| Self::process(*pid, real)).collect();
        let selector = ProcessSelector::Name(MEANT.into());
        crate::process::between::snapshot(self.now, &selector, &table, None)
    }

    fn step(&mut self) {
        self.now += self.random.random_range(20..200);
        let all: Vec<i32> = self.processes.keys().copied().collect();
        let pid = all[self.random.random_range(0..all.len())];
        let busy = pid == 1 || self.processes[&pid].titled;
        let ending = self.processes[&pid].ending;
        let what = match self.random.random_range(0..10) {
            0..4 if !ending => {
                let child = self.random.random_range(2..9);
                if self.processes.contains_key(&child) {
                    return;
                }
                let copy = Real { parent: pid, began: self.now.unsigned_abs(), ..self.processes[&pid].clone() };
                self.processes.insert(child, Real { titled: false, ..copy });
                Some((child, What::Forked { parent: pid }))
            }
            4..7 if !busy && !ending => {
                let meant = self.random.random_bool(0.5);
                self.processes.get_mut(&pid).unwrap().meant = meant;
                Some((pid, if self.random.random_bool(0.8) { What::Executed } else { What::Renamed }))
            }
            7 if !busy && !ending && self.random.random_bool(0.2) => {
                let one = self.processes.get_mut(&pid).unwrap();
                (one.titled, one.fresh) = (true, true);
                None
            }
            // A title that comes and goes between two looks is seen by nobody.
            8 if pid != 1 && !ending && !self.processes[&pid].fresh => {
                let one = self.processes.get_mut(&pid).unwrap();
                (one.ending, one.titled) = (true, false);
                None
            }
            _ if !busy => {
                self.processes.remove(&pid);
                self.processes.values_mut().filter(|p| p.parent == pid).for_each(|p| p.parent = 1);
                Some((pid, What::Ended))
            }
            _ => None,
        };
        let late = self.random.random_range(0..10);
        self.events.extend(what.map(|(pid, what)| Event { at: self.now + late, pid, what }));
        let roots = self.snapshot().matched.values().filter(|m| m.root).count();
        self.truth.push((self.now, roots));
    }

    fn roots(&self, at: i64) -> usize {
        self.truth.iter().rev().find(|(since, _)| *since <= at).map_or(0, |(_, roots)| *roots)
    }
}

/// Whatever processes do, what is claimed was so; and looks that differ are mostly explained.
#[test]
fn claims_hold_in_any_world() {
    let base = std::env::var("FRACAS_SEED_BASE").ok().and_then(|b| b.parse().ok()).unwrap_or(0_u64);
    let (mut edges, mut told) = (0, 0);
    for seed in base..base + 3000 {
        let mut world = World {
            random: StdRng::seed_from_u64(seed),
            now: 0,
            processes: BTreeMap::from([(
                1,
                Real { parent: 0, began: 0, meant: false, titled: false, fresh: false, ending: false },
            )]),
            truth: vec![(0, 0)],
            events: vec![],
        };
        let count = world.random.random_range(1..3);
        let mut before = world.snapshot();
        for _ in 0..20 {
            for _ in 0..world.random.random_range(1..8) {
                world.step();
            }
            world.now += 10;
            let after = world.snapshot();
            world.processes.values_mut().for_each(|p| p.fresh = false);
            // Titles may go, and mostly stay.
            if world.random.random_bool(0.5) {
                world.processes.values_mut().for_each(|p| p.titled = false);
            }
            world.truth.push((world.now, world.snapshot().matched.values().filter(|m| m.root).count()));
            let claims = claims(&before, &world.events, &after, count);
            for claim in &claims {
                let roots = world.roots(claim.at);
                assert_eq!(roots >= count, claim.up, "seed {seed}: {claim:?} of {claims:?}, {roots} ran");
                assert!(before.at < claim.at && claim.at <= after.at, "seed {seed}");
            }
            if before.up(count) != after.up(count) {
                edges += 1;
                told += usize::from(claims.iter().any(|claim| claim.up == after.up(count)));
            }
            before = world.snapshot();
            world.events.clear();
        }
    }
    assert!(edges > 1000 && told * 10 > edges * 5, "{told} of {edges}");
}
