//! The faults in the kernel and the packets they hold: adding, removing, receiving, releasing on time.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    io,
    os::fd::{AsFd as _, BorrowedFd},
};

use fracas_model::plan::{Direction, Effect, Impair};
use rand::RngExt as _;

use super::{
    super::{
        super::netlink::{
            Protocol, Socket,
            nft::{self, Batch, QueueForm, Rule},
            queue::{self, Copy, Fate, Queue},
        },
        histogram::Histogram,
        rules::{self, Act, Chains},
    },
    Stats,
    reinject::Reinject,
};

/// Our queues count up from here, far from the single digits that other programs use.
const FIRST_QUEUE: u16 = 40_000;
/// Numbers for queues that nobody binds count down from here.
const LAST_QUEUE: u16 = 65_000;
/// Bytes of copied packets kept at most; a worker that dies slowly ends its faults slowly.
const COPIES: usize = 256 << 20;
/// What the kernel keeps for each held packet beside its bytes, at least: its `sk_buff` and what that shares.
const PACKET_OVERHEAD: u64 = 768;
/// Bytes of held packets at most: a quarter of the memory that is free when the first fault comes, within these bounds.
const HELD: (u64, u64) = (32 << 20, 1 << 30);
/// Packets per second that a queue is sized for.
const RATE: u64 = 200_000;
/// Numbers tried for a queue.
const TRIES: usize = 100;
/// Datagrams read from one queue before others have their turn.
const TURNS: usize = 256;

/// The table with the faults in it.
#[derive(Debug)]
pub(super) struct Plane {
    socket: Socket,
    table: String,
    form: QueueForm,
    reinject_why_not: Option<String>,
    faults: BTreeMap<String, Fault>,
    next: u32,
}

/// A fault in the kernel.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) chains: Chains,
    /// Of the rule that switches it on.
    handle: u64,
    /// Keys into [`Lines`].
    pub(super) queues: Vec<u32>,
    pub(super) note: String,
}

/// All queues and everything they hold.
#[derive(Debug, Default)]
pub(super) struct Lines {
    lines: BTreeMap<u32, Line>,
    due: BinaryHeap<Reverse<Due>>,
    reinject: Option<Reinject>,
    copied_bytes: usize,
    /// In the kernel, for packets that are held there.
    held_bytes: u64,
    /// The most that may be; set with the first line.
    held_most: u64,
    next: u32,
    next_seq: u64,
}

#[derive(Debug)]
struct Line {
    queue: Queue,
    copies: bool,
    delay_ns: u64,
    jitter_ns: u64,
    held: u64,
    received: u64,
    released: u64,
    /// Let pass at once for want of room.
    passed: u64,
    /// Copies that could not be sent.
    unsent: u64,
    hold: Histogram,
}

/// A held packet; ordered by when it is due, then by arrival.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at_ns: u64,
    seq: u64,
    line: u32,
    id: u32,
    arrived_ns: u64,
    device: u32,
    copy: Option<Box<[u8]>>,
    /// What the kernel keeps for it.
    bytes: u64,
}

/// How much may be held: delays must not take the memory that the host needs.
fn held_most() -> u64 {
    let told = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = told.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: Option<u64> = line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok());
    (kib.unwrap_or(0) * 1024 / 4).clamp(HELD.0, HELD.1)
}

fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Plane {
    /// Makes the table; it dies with this process.
    pub(super) fn open() -> Result<Self, String> {
        let table = format!("fracas_{}", std::process::id());
        let mut socket = Socket::open(Protocol::Netfilter).map_err(text)?;
        let made = rules::foundation(&table).commit(&mut socket);
        made.map_err(|e| format!("cannot make the nftables table {table}: {e}"))?;
        // A table that outlived its owner would be the worst of faults.
        if nft::table_flags(&mut socket, &table).map_err(text)? != Some(nft::OWNER) {
            return Err(format!("the nftables table {table} is not tied to its owner; it was not used"));
        }
        let form = find_form(&mut socket, &table)?;
        Ok(Self { socket, table, form, reinject_why_not: None, faults: BTreeMap::new(), next: 0 })
    }

    pub(super) fn table(&self) -> &str {
        &self.table
    }

    pub(super) fn add(&mut self, id: &str, impair: &Impair, lines: &mut Lines) -> Result<Fault, String> {
        if self.faults.contains_key(id) {
            return Err(format!("fault {id} is already there"));
        }
        let delays = matches!(impair.effect, Effect::Delay { .. });
        let chains = Chains::of(self.next, impair.direction, delays);
        self.next += 1;
        let (act, queues, note) = self.prepare(impair, lines)?;
        let mut batch = Batch::default();
        let made = rules::add(&mut batch, &self.table, &chains, impair, act, self.form)
            .map_err(text)
            .and_then(|()| batch.commit(&mut self.socket).map_err(|e| format!("cannot add nftables rules: {e}")));
        let handle = made.and_then(|replies| {
            let found = replies.iter().filter_map(nft::handle).find(|(chain, _)| chain == chains.caller);
            found.map(|(_, handle)| handle).ok_or_else(|| "the kernel did not report the new rule".to_owned())
        });
        match handle {
            Ok(handle) => {
                let fault = Fault { chains, handle, queues, note };
                self.faults.insert(id.to_owned(), fault.clone());
                Ok(fault)
            }
            Err(error) => {
                for line in &queues {
                    lines.close(*line);
                }
                Err(error)
            }
        }
    }

    /// Binds the queues an effect needs.
    fn prepare(&mut self, impair: &Impair, lines: &mut Lines) -> Result<(Act, Vec<u32>, String), String> {
        let (delay, jitter) = match &impair.effect {
            Effect::Loss { percent } => {
                let below = (percent.0 * 10_000.0).round().clamp(0.0, 1_000_000.0) as u32;
                return Ok(match impair.direction {
                    Direction::Ingress => (Act::Drop(below), Vec::new(), String::new()),
                    Direction::Egress => (Act::Vanish(below, unbound()?), Vec::new(), String::new()),
                });
            }
            Effect::Delay { delay, jitter } => (delay.ns().max(0).cast_unsigned(), jitter.ns().max(0).cast_unsigned()),
        };
        let hold = lines.open(Copy::Meta, delay, jitter)?;
        let hold_queue = lines.number(hold);
        if impair.direction == Direction::Ingress {
            return Ok((Act::Hold(hold_queue), vec![hold], String::new()));
        }
        if lines.reinject.is_none() && self.reinject_why_not.is_none() {
            match Reinject::open() {
                Ok(reinject) => lines.reinject = Some(reinject),
                Err(error) => self.reinject_why_not = Some(error.to_string()),
            }
        }
        if let Some(why) = &self.reinject_why_not {
            let note = format!("no raw socket ({why}): local TCP is held, which also limits its throughput");
            return Ok((Act::Hold(hold_queue), vec![hold], note));
        }
        match lines.open(Copy::Whole, delay, jitter) {
            Ok(copy) => Ok((Act::CopyOrHold(lines.number(copy), hold_queue), vec![hold, copy], String::new())),
            Err(error) => {
                lines.close(hold);
                Err(error)
            }
        }
    }

    /// Switches a fault off, lets go what it holds, then removes what is left of it.
    pub(super) fn remove(&mut self, id: &str, lines: &mut Lines) -> Result<(), String> {
        let Some(fault) = self.faults.get(id) else { return Ok(()) };
        let mut off = Batch::default();
        off.delete_rule(&self.table, fault.chains.caller, fault.handle);
        match off.commit(&mut self.socket) {
            Err(error) if !error.is_absent() => return Err(format!("cannot delete the rule of {id}: {error}")),
            _ => {}
        }
        for line in &fault.queues {
            lines.drain(*line)?;
        }
        let removed = rules::remove(&self.table, &fault.chains).commit(&mut self.socket);
        let left = nft::rules(&mut self.socket, &self.table, &fault.chains.matching).map_err(text)?;
        if !left.is_empty() {
            let why = removed.err().map(text).unwrap_or_default();
            return Err(format!("chain {} is still there: {why}", fault.chains.matching));
        }
        for line in &fault.queues {
            // What met the rule just before it went may have come while the rest was let go.
            lines.drain(*line)?;
            lines.close(*line);
        }
        self.faults.remove(id);
        Ok(())
    }

    pub(super) fn stats(&mut self, id: &str, lines: &mut Lines) -> Result<Stats, String> {
        let fault = self.faults.get(id).ok_or_else(|| format!("no fault {id}"))?;
        let counters = nft::counters(&mut self.socket, &self.table, &fault.chains.acting).map_err(text)?;
        // Whatever matched so far has come by now, or it never will; a flood is not read to its end.
        for line in &fault.queues {
            lines.receive_some(*line, 1 << 16)?;
        }
        let mut stats = lines.stats(&fault.queues);
        stats.matched = counters.first().copied().unwrap_or(0);
        stats.lost = counters.get(1).copied().unwrap_or(0);
        stats.note =
            [fault.note.as_str(), &stats.note].iter().filter(|n| !n.is_empty()).copied().collect::<Vec<_>>().join("; ");
        if fault.queues.len() == 1 {
            // One packet, one message: what matched and never came did not fit and passed. Copies come in segments.
            stats.passed = stats.passed.max(stats.matched.saturating_sub(stats.received));
        }
        Ok(stats)
    }

    /// Takes everything down in the order that loses nothing: rules, held packets, the table.
    pub(super) fn close(mut self, lines: &mut Lines) -> Result<(), String> {
        let ids: Vec<String> = self.faults.keys().cloned().collect();
        let mut failed = Vec::new();
        for id in ids {
            failed.extend(self.remove(&id, lines).err());
        }
        let mut batch = Batch::default();
        batch.delete_table(&self.table);
        failed.extend(batch.commit(&mut self.socket).err().map(text));
        if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
    }
}

/// Which way into NFQUEUE works here: found by adding a rule to a chain that nothing calls.
fn find_form(socket: &mut Socket, table: &str) -> Result<QueueForm, String> {
    let mut why = String::new();
    for form in [QueueForm::Native, QueueForm::Target] {
        let mut batch = Batch::default();
        batch.chain(table, "trial").rule(table, "trial", &Rule::new().queue(form, LAST_QUEUE, true));
        match batch.commit(socket) {
            Ok(_) => {
                let mut batch = Batch::default();
                batch.delete_rules(table, "trial").delete_chain(table, "trial");
                batch.commit(socket).map_err(text)?;
                return Ok(form);
            }
            Err(error) => why = error.to_string(),
        }
    }
    Err(format!("neither the nftables expression queue nor the target NFQUEUE works here: {why}"))
}

fn bound() -> Vec<u16> {
    // The file is absent until the module is loaded, which the first bind does.
    queue::counts().map(|all| all.iter().map(|c| c.queue).collect()).unwrap_or_default()
}

fn unbound() -> Result<u16, String> {
    let bound = bound();
    (FIRST_QUEUE..=LAST_QUEUE).rev().find(|n| !bound.contains(n)).ok_or_else(|| "all queue numbers are bound".into())
}

impl Lines {
    /// None yet; those to come may hold so many bytes together.
    pub(super) fn holding(most: Option<u64>) -> Self {
        Self { held_most: most.unwrap_or(0), ..Self::default() }
    }

    fn open(&mut self, copy: Copy, delay_ns: u64, jitter_ns: u64) -> Result<u32, String> {
        let longest =
            (delay_ns.saturating_add(jitter_ns).saturating_mul(RATE) / 1_000_000_000).clamp(8192, 1_000_000) as u32;
        if self.held_most == 0 {
            self.held_most = held_most();
        }
        let queue = self.bind(copy, longest)?;
        let key = self.next;
        self.next += 1;
        let line = Line {
            queue,
            copies: copy == Copy::Whole,
            delay_ns,
            jitter_ns,
            held: 0,
            received: 0,
            released: 0,
            passed: 0,
            unsent: 0,
            hold: Histogram::default(),
        };
        self.lines.insert(key, line);
        Ok(key)
    }

    /// Binds the first free number. Which ones are free is not to be seen in a user namespace of one's own, so a number
    /// that turns out to be somebody's is passed over; his answer is `EPERM`, as it is where nothing may be bound.
    fn bind(&self, copy: Copy, longest: u32) -> Result<Queue, String> {
        let mut bound = bound();
        bound.extend(self.lines.values().map(|l| l.queue.number));
        let mut why = "all queue numbers are bound".to_owned();
        for number in (FIRST_QUEUE..LAST_QUEUE).filter(|n| !bound.contains(n)).take(TRIES) {
            match Queue::bind(number, copy, longest) {
                Ok(queue) => return Ok(queue),
                Err(error) => why = format!("cannot bind NFQUEUE {number}: {error}"),
            }
        }
        Err(why)
    }

    fn number(&self, line: u32) -> u16 {
        self.lines.get(&line).map_or(0, |l| l.queue.number)
    }

    pub(super) fn descriptors_of<'a>(&'a self, lines: &'a [u32]) -> impl Iterator<Item = (u32, BorrowedFd<'a>)> {
        lines.iter().filter_map(|key| Some((*key, self.lines.get(key)?.queue.as_fd())))
    }

    fn close(&mut self, line: u32) {
        self.lines.remove(&line);
    }

    /// Takes in what a queue holds and notes when each packet is due.
    pub(super) fn receive(&mut self, key: u32) -> io::Result<()> {
        self.receive_some(key, TURNS).map(|_| ()).map_err(io::Error::other)
    }

    fn receive_some(&mut self, key: u32, turns: usize) -> Result<bool, String> {
        let Some(line) = self.lines.get_mut(&key) else { return Ok(false) };
        let (mut taken, mut last, mut over) = (Vec::new(), None, Vec::new());
        let (copies, mut room) = (line.copies, COPIES.saturating_sub(self.copied_bytes));
        let mut free = self.held_most.saturating_sub(self.held_bytes);
        let more = line.queue.read(turns, |packet| {
            let arrived_ns = now_ns();
            last = Some(packet.id);
            // A copied packet is let go at once, and weighs on the worker alone.
            let bytes = if copies { 0 } else { u64::from(packet.length) + PACKET_OVERHEAD };
            if (copies && packet.bytes.len() > room) || bytes > free {
                over.push(packet.id);
                return;
            }
            free -= bytes;
            let copy = copies.then(|| Box::from(packet.bytes));
            room -= if copies { packet.bytes.len() } else { 0 };
            taken.push((packet.id, packet.out, arrived_ns, copy, bytes));
        });
        let more = more.map_err(text)?;
        line.received += (taken.len() + over.len()) as u64;
        line.passed += over.len() as u64;
        for id in over {
            line.queue.judge(id, Fate::Accept).map_err(text)?;
        }
        line.queue.flush().map_err(text)?;
        if let (true, Some(last)) = (copies, last) {
            // The original is gone at once, which frees the sender's socket to go on.
            line.queue.judge_up_to(last, Fate::Drop).map_err(text)?;
        }
        line.held += taken.len() as u64;
        for (id, device, arrived_ns, copy, bytes) in taken {
            self.held_bytes += bytes;
            self.copied_bytes += copy.as_deref().map_or(0, <[u8]>::len);
            let spread = if line.jitter_ns == 0 { 0 } else { rand::rng().random_range(0..=2 * line.jitter_ns) };
            let at_ns = arrived_ns + (line.delay_ns + spread).saturating_sub(line.jitter_ns);
            let seq = self.next_seq;
            self.next_seq += 1;
            self.due.push(Reverse(Due { at_ns, seq, line: key, id, arrived_ns, device, copy, bytes }));
        }
        Ok(more)
    }

    /// Lets go what is due; returns when the next packet is.
    pub(super) fn release_due(&mut self) -> io::Result<Option<u64>> {
        // Consecutive packets of a queue without jitter leave in order of number: one judgement for all of them.
        let mut up_to: BTreeMap<u32, u32> = BTreeMap::new();
        let mut touched = Vec::new();
        let now = now_ns();
        while self.due.peek().is_some_and(|Reverse(due)| due.at_ns <= now) {
            let Some(Reverse(due)) = self.due.pop() else { break };
            self.release(due, &mut up_to, &mut touched).map_err(io::Error::other)?;
        }
        self.judge(up_to, touched).map_err(io::Error::other)?;
        Ok(self.due.peek().map(|Reverse(due)| due.at_ns))
    }

    fn release(&mut self, due: Due, up_to: &mut BTreeMap<u32, u32>, touched: &mut Vec<u32>) -> Result<(), String> {
        self.copied_bytes -= due.copy.as_ref().map_or(0, |c| c.len());
        self.held_bytes -= due.bytes;
        // A fault that is gone has been drained.
        let Some(line) = self.lines.get_mut(&due.line) else { return Ok(()) };
        line.held -= 1;
        match (&due.copy, &self.reinject) {
            (Some(packet), Some(reinject)) => {
                if reinject.send(packet, due.device).is_err() {
                    line.unsent += 1;
                }
            }
            (Some(_), None) => line.unsent += 1,
            (None, _) if line.jitter_ns == 0 => {
                up_to.insert(due.line, due.id);
            }
            (None, _) => {
                line.queue.judge(due.id, Fate::Accept).map_err(text)?;
                touched.push(due.line);
            }
        }
        line.released += 1;
        line.hold.add(now_ns().saturating_sub(due.arrived_ns));
        Ok(())
    }

    fn judge(&mut self, up_to: BTreeMap<u32, u32>, touched: Vec<u32>) -> Result<(), String> {
        for (key, id) in up_to {
            if let Some(line) = self.lines.get_mut(&key) {
                line.queue.judge_up_to(id, Fate::Accept).map_err(text)?;
            }
        }
        for key in touched {
            if let Some(line) = self.lines.get_mut(&key) {
                line.queue.flush().map_err(text)?;
            }
        }
        Ok(())
    }

    /// Lets go at once everything a queue holds; no rule feeds it any more.
    fn drain(&mut self, key: u32) -> Result<(), String> {
        while self.receive_some(key, usize::MAX)? {}
        let (mine, rest): (Vec<_>, Vec<_>) = self.due.drain().partition(|Reverse(due)| due.line == key);
        self.due = rest.into();
        let (mut up_to, mut touched) = (BTreeMap::new(), Vec::new());
        let mut mine: Vec<Due> = mine.into_iter().map(|Reverse(due)| due).collect();
        mine.sort();
        let last = mine.iter().map(|due| due.id).max();
        for due in mine {
            self.release(due, &mut up_to, &mut touched)?;
        }
        if let (Some(id), Some(line)) = (last, self.lines.get(&key))
            && !line.copies
        {
            up_to.insert(key, id);
        }
        self.judge(up_to, touched)
    }

    fn stats(&self, keys: &[u32]) -> Stats {
        let (mut stats, mut hold) = (Stats::default(), Histogram::default());
        let counts = queue::counts().unwrap_or_else(|error| {
            if !keys.is_empty() {
                stats.note = format!("what did not fit into a queue is not seen: its counts cannot be read ({error})");
            }
            Vec::new()
        });
        for line in keys.iter().filter_map(|key| self.lines.get(key)) {
            let count = counts.iter().find(|c| c.queue == line.queue.number).copied().unwrap_or_default();
            stats.held += line.held;
            stats.released += line.released;
            let unread = count.waiting.saturating_sub(if line.copies { 0 } else { line.held });
            // Numbers given to packets that never came to us: they passed because the socket's buffer was full.
            let unseen = count.numbered.saturating_sub(line.received + unread + count.user_dropped);
            stats.passed += line.passed + unseen;
            stats.received += line.received + unread;
            stats.unasked += count.queue_dropped + count.user_dropped + line.unsent;
            hold.merge(&line.hold);
        }
        (stats.hold_p50_ns, stats.hold_p99_ns) = (hold.quantile(0.5), hold.quantile(0.99));
        stats.hold_n = hold.n();
        stats
    }
}
