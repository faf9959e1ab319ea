//! One life of the agent between two cuts of power: undo as at every start, tell what is there, be asked again for what
//! has ended, then apply and undo until the power goes.
//!
//! The undo is the agent's own start (`service::serve`), which then finds no controller. What is asked for comes from here
//! and not over a wire; reconciler, host, journal and outbox are those of the agent.

use std::{
    fs,
    path::Path,
    rc::Rc,
    time::{Duration, Instant},
};

use fracas_agent::{
    crash::{self, Boundary},
    disk::FileDisk,
    host::{Host as _, linux::LinuxHost, processes::Stat},
    journal::Look,
    outbox::Outbox,
    reconcile::{ALL, Reconciler, Setup},
    service::{Kind, Options, PolicySource, VERSION, serve},
};
use fracas_model::{
    desired::{Desired, FaultItem},
    event::Body,
    id::ItemKey,
    policy::Policy,
    units::{Dur, Size},
};

use crate::{
    ground,
    init::ORDER,
    items::{self, DISKS, FILES, HOST, STATE, VICTIMS},
    words::{Words, say},
};

/// How often faults are applied and undone in one life.
const CYCLES: u32 = 8;
/// Nothing here takes longer, even emulated on a busy machine.
const LIMIT: Duration = Duration::from_mins(1);
/// What all is asked with.
const LEASE: Dur = Dur::from_secs(120);
/// A controller that nobody can reach, and a token that nobody made.
const NOWHERE: &str = "127.0.0.1:9";

pub(crate) async fn play(words: &Words) {
    let (run, again) = (format!("life-{}", words.text("life").expect("life=")), words.text("again").is_some());
    let before = if again { run.clone() } else { format!("life-{}", words.text("before").expect("before=")) };
    if items::fresh() {
        for files in FILES {
            fs::create_dir(files).expect("directory");
            ground::make(Path::new(files));
        }
        fs::create_dir(STATE).expect("directory");
        rustix::fs::sync();
        tell("base");
    }
    tell("found");
    let found = Look::into_dir(Path::new(STATE));
    say(&format!("journal torn={} trouble={:?}", found.torn, found.trouble.as_ref().map(ToString::to_string)));
    for (key, item) in &found.state.open {
        say(&format!("open {key} {} {:?}", item.fault, item.steps.iter().map(progress).collect::<Vec<_>>()));
    }
    order(words.text("recover"), &run);
    say("phase recover 0");
    start().await;
    order(None, &run);
    say("phase look 0");
    tell("after");
    let mut agent = Agent::open().await;
    let known = agent.known(&before, found.state.open.keys()).await;
    if !again {
        // After the agent's own death the next boot is still to look for what it told in this one.
        agent.acknowledge().await;
    }
    say("phase again 0");
    agent.again(&known).await;
    tell("again");
    if words.text("last").is_some() {
        return;
    }
    let after_death = words.text("then").filter(|_| again);
    order(after_death.or_else(|| words.text("work").filter(|_| !again)), &run);
    say("phase work 0");
    let first = if again { CYCLES } else { 0 };
    for cycle in first..first + CYCLES {
        let wanted = match words.text("seed") {
            Some(_) => items::drawn(&run, cycle, words.number("seed")),
            None => items::few(&run, cycle),
        };
        agent.cycle(&wanted, cycle).await;
    }
}

/// Sets the switch by which the player stops or dies between two steps.
fn order(what: Option<&str>, run: &str) {
    fs::write(ORDER, what.map(|what| format!("{what}:{run}")).unwrap_or_default()).expect("written");
}

fn progress(of: &fracas_agent::journal::Progress) -> String {
    let text = format!("{of:?}");
    text.split(['(', ' ']).next().unwrap_or_default().to_owned()
}

/// Says everything that must be the same.
fn tell(name: &str) {
    let mut lines: Vec<String> = FILES.iter().flat_map(|files| ground::describe(Path::new(files))).collect();
    lines.push(ground::room(Path::new(DISKS[1])));
    let devices = fs::read_dir("/sys/class/net").expect("devices").flatten();
    let mut devices: Vec<String> = devices.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    devices.sort();
    lines.push(format!("devices {}", devices.join(" ")));
    for line in lines {
        say(&format!("dump {name} {line}"));
    }
    say(&format!("dumped {name}"));
}

/// The agent's own start, until nothing is open.
async fn start() {
    let options = Options {
        state_dir: STATE.into(),
        controllers: vec![NOWHERE.into()],
        token: format!("fjt1.none.none.{}", "0".repeat(64)).parse().ok(),
        name: Some(HOST.into()),
        policy: PolicySource::IfThere("/run/no-policy".into()),
        kind: Kind::Full,
    };
    let clean = async {
        let until = Instant::now() + LIMIT;
        loop {
            let look = Look::into_dir(Path::new(STATE));
            if look.state.open.is_empty() && look.trouble.is_none() && recovered() {
                return;
            }
            if Instant::now() > until {
                return say(&format!("fail after its start the agent has open {:?}", look.state.open.keys()));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if let Err(error) = serve(options, clean).await {
        say(&format!("fail the agent does not start: {error}"));
    }
}

/// Whether the agent of this start has come to its recovery: it is said in the journal that somebody opened it.
fn recovered() -> bool {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot");
    let opened = Look::into_dir(Path::new(STATE)).state.opened;
    opened.is_some_and(|(of, _)| of.as_str() == boot.trim())
}

/// Reconciler and outbox, as an agent has them at work.
struct Agent {
    reconciler: Reconciler<LinuxHost, Rc<FileDisk>>,
    outbox: Outbox<Rc<FileDisk>>,
    revision: u64,
}

impl Agent {
    async fn open() -> Self {
        let host = LinuxHost::start(HOST.into(), VERSION).owning(&[Path::new(STATE)]);
        let setup = Setup {
            policy: Policy { disk_reserve: Size(1 << 20), ..Policy::builtin() },
            facts: items::facts(host.described()),
            faults: ALL,
            agent_version: VERSION.into(),
            fleet: String::new(),
        };
        let boot = host.now().clock.boot;
        let disk = Rc::new(FileDisk::with_reserve(STATE).expect("the state directory"));
        let mut reconciler = Reconciler::open(host, disk, setup).await;
        reconciler.recover().await;
        let disk = Rc::new(FileDisk::new(STATE).expect("the state directory"));
        let outbox = Outbox::open(disk, &boot, format!("{boot}-{}", std::process::id())).await;
        let mut agent = Self { revision: reconciler.taken().1.max(1), reconciler, outbox };
        agent.keep().await;
        agent
    }

    /// Puts facts into the outbox, as an agent does after each round; those about items are given.
    async fn keep(&mut self) -> Vec<(ItemKey, Body)> {
        let events = self.reconciler.drain_events();
        if events.is_empty() {
            return Vec::new();
        }
        crash::at(Boundary::BeforeFactsKept);
        for (stream, body) in &events {
            self.outbox.append(stream, body, &[]).await;
        }
        crash::at(Boundary::AfterFactsKept);
        events.into_iter().filter_map(|(_, body)| Some((body.item()?.clone(), body))).collect()
    }

    /// Items of an earlier life that have ended here, those among them that were open when this life began, and whether
    /// their ends were told. Says all of it.
    async fn known(&mut self, run: &str, open: impl Iterator<Item = &ItemKey>) -> Vec<FaultItem> {
        let all = (0..2 * CYCLES).flat_map(|cycle| items::all(run, cycle));
        let state = self.reconciler.state();
        let known: Vec<FaultItem> = all.filter(|item| state.ended(&item.key).is_some()).collect();
        for key in open {
            if state.ended(key).is_none() {
                say(&format!("fail {key} was open and has not ended"));
            }
        }
        let mut told = Vec::new();
        for fact in self.outbox.pending(0, usize::MAX).await.unwrap_or_default() {
            match serde_json::from_slice::<Body>(&fact.body) {
                Ok(Body::Undone { item, .. } | Body::Spent { item, .. } | Body::Refused { item, .. }) => {
                    told.push(item);
                }
                Ok(_) => {}
                Err(error) => say(&format!("fail a fact cannot be read: {error}")),
            }
        }
        for item in &known {
            let ended = self.reconciler.state().ended(&item.key);
            let heard = if told.contains(&item.key) { "told" } else { "untold" };
            say(&format!("known {} {heard} {ended:?}", item.key));
        }
        known
    }

    /// All that was told is committed elsewhere.
    async fn acknowledge(&mut self) {
        let (life, last) = (self.outbox.id().to_owned(), self.outbox.last_seq());
        self.outbox.ack(&life, last).await;
    }

    /// Asks for something; the next round begins with it.
    async fn want(&mut self, faults: Vec<FaultItem>) {
        let desired = Desired { epoch: 1, revision: self.revision, lease: LEASE, faults, ..Desired::default() };
        if let Err(outdated) = self.reconciler.take(desired).await {
            say(&format!("fail {outdated}"));
        }
        let now_ns = self.reconciler.host().now().boot_ns;
        self.reconciler.lease().grant(now_ns, now_ns, LEASE);
    }

    /// Asks once more for what has ended: the same items, in the same revision, as a controller does that was not told.
    async fn again(&mut self, known: &[FaultItem]) {
        self.want(known.to_vec()).await;
        for _ in 0..3 {
            self.reconciler.tick().await;
            for (key, body) in self.keep().await {
                if let Body::Applying { .. } | Body::Active { .. } | Body::Spent { .. } = body {
                    say(&format!("fail {key} has ended and is applied again"));
                }
            }
        }
        if !self.reconciler.open_items().is_empty() {
            say("fail something that has ended is open again");
        }
        let stopped = |pid: i32| Stat::of(pid).is_some_and(|stat| stat.name == VICTIMS[1] && stat.state == 'T');
        let numbers = fs::read_dir("/proc").expect("processes").flatten();
        if numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).any(stopped) {
            say(&format!("fail {} stands still", VICTIMS[1]));
        }
    }

    /// Applies these, waits a little, undoes them.
    async fn cycle(&mut self, wanted: &[FaultItem], cycle: u32) {
        self.revision += 1;
        say(&format!("phase apply {cycle}"));
        self.want(wanted.to_vec()).await;
        self.reconciler.tick().await;
        for (key, body) in self.keep().await {
            match body {
                Body::Active { .. } | Body::Spent { .. } => say(&format!("did {key}")),
                Body::Refused { refusal, .. } => say(&format!("refused {key} {}", refusal.why)),
                Body::Failed { failure, .. } => say(&format!("refused {key} {failure}")),
                _ => {}
            }
        }
        say(&format!("phase hold {cycle}"));
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.revision += 1;
        say(&format!("phase undo {cycle}"));
        self.want(Vec::new()).await;
        let until = Instant::now() + LIMIT;
        loop {
            self.reconciler.tick().await;
            self.keep().await;
            if self.reconciler.open_items().is_empty() {
                break;
            }
            if Instant::now() > until {
                return say("fail something cannot be undone");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        say(&format!("phase rest {cycle}"));
    }
}
