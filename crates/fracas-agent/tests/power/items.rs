//! The faults that are played: each leaves something else behind when the power goes.

use std::path::Path;

use fracas_model::{
    catalogue::{Capability, Params},
    desired::{FaultItem, Mode},
    facts::{Ability, HostFacts},
    id::ItemKey,
    units::Dur,
};
use rand::{RngExt as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// Where the disks are: the first has the agent's state and files, the second only files, so that a sync of one says
/// nothing of the other.
pub(crate) const DISKS: [&str; 2] = ["/a", "/b"];
/// The agent's state directory.
pub(crate) const STATE: &str = "/a/state";
/// Where the files are on each disk.
pub(crate) const FILES: [&str; 2] = ["/a/files", "/b/files"];
/// Processes that suffer, which the first program starts again when they are gone.
pub(crate) const VICTIMS: [&str; 2] = ["kill-me", "pause-me"];
/// A network device that leads nowhere.
pub(crate) const DEVICE: &str = "dummy0";
/// The host's name in items.
pub(crate) const HOST: &str = "guest";

/// Entry, fault, parameters. The first three replace files.
fn entries() -> Vec<(&'static str, &'static str, Value)> {
    let replace = |path: &str, content: String| json!({ "path": path, "content": content });
    vec![
        ("far-file", "file-replace", replace("/b/files/conf", "something else\n".into())),
        ("near-file", "file-replace", replace("/a/files/page", "x".repeat(5_000))),
        ("deep-file", "file-replace", replace("/b/files/sub/list", String::new())),
        ("kill", "process-kill", json!({ "name": VICTIMS[0], "signal": "KILL", "count": 1 })),
        ("pause", "process-pause", json!({ "name": VICTIMS[1], "count": 1 })),
        ("fill", "disk-fill", json!({ "path": DISKS[1], "size": "8MiB" })),
        ("delay", "net-delay", net(json!({ "delay": "50ms", "jitter": "0ms", "mechanism": "netem" }))),
        ("loss", "net-loss", net(json!({ "percent": "10%", "mechanism": "owned" }))),
    ]
}

fn net(mut own: Value) -> Value {
    own["protocol"] = json!("any");
    own["direction"] = json!("egress");
    own["device"] = json!(DEVICE);
    own
}

/// All items of one cycle of one life.
pub(crate) fn all(run: &str, cycle: u32) -> Vec<FaultItem> {
    entries().into_iter().map(|entry| item(run, cycle, entry)).collect()
}

/// A file on the second disk, a process, space of the second disk, in this order.
pub(crate) fn few(run: &str, cycle: u32) -> Vec<FaultItem> {
    let mut all = all(run, cycle);
    all.retain(|item| ["far-file", "kill", "fill"].contains(&item.key.entry.as_str()));
    all
}

/// Some of them, in some order; one file at least.
pub(crate) fn drawn(run: &str, cycle: u32, seed: u64) -> Vec<FaultItem> {
    let mut dice = ChaCha8Rng::seed_from_u64(seed ^ u64::from(cycle) << 48);
    let mut chosen = entries();
    let files = chosen.drain(..3).collect::<Vec<_>>();
    chosen.retain(|_| dice.random_bool(0.6));
    let sure = dice.random_range(0..files.len());
    chosen.extend(files.into_iter().enumerate().filter(|(i, _)| *i == sure || dice.random_bool(0.7)).map(|(_, f)| f));
    chosen.shuffle(&mut dice);
    chosen.into_iter().map(|entry| item(run, cycle, entry)).collect()
}

fn item(run: &str, cycle: u32, (entry, fault, params): (&str, &str, Value)) -> FaultItem {
    let known = fracas_faults::ALL.iter().find(|f| f.info().name == fault).expect("a fault of the catalogue");
    let lasts = known.info().nature == fracas_model::catalogue::Nature::Lasting;
    FaultItem {
        key: key(run, entry, cycle),
        mode: Mode::Apply,
        fault: fault.to_owned(),
        params: Params(params.as_object().expect("parameters").clone()),
        duration: lasts.then_some(Dur::from_secs(600)),
        plan_digest: None,
    }
}

/// The item of an entry.
pub(crate) fn key(run: &str, entry: &str, cycle: u32) -> ItemKey {
    ItemKey { run: run.into(), entry: entry.into(), occurrence: cycle, host: HOST.into(), generation: 1 }
}

/// What this guest can do; trying it would take longer than all the rest of its life.
pub(crate) fn facts(described: HostFacts) -> HostFacts {
    let able = [
        Capability::SignalAny,
        Capability::Netem,
        Capability::NftOwner,
        Capability::Nfqueue,
        Capability::RawSocket,
        Capability::Cpu,
    ];
    let works = Ability { works: true, why: String::new(), fix: String::new() };
    let abilities = able.into_iter().map(|capability| (capability, works.clone())).collect();
    HostFacts { abilities, ..described }
}

/// Whether the disks have their files already.
pub(crate) fn fresh() -> bool {
    !Path::new(FILES[1]).exists()
}
