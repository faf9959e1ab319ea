//! One program for all fuzz targets, so that they share one build; `cargo xtask fuzz` builds and runs it. It asserts what
//! holds for any bytes, and knows nothing that the product's own entry points do not tell.
//!
//! `FRACAS_FUZZ_TARGET=NAME` chooses one. `FRACAS_FUZZ_LIST=1` prints the names instead, and `FRACAS_FUZZ_SEEDS=DIR` writes
//! inputs to begin with for that target, or for all if there is none, made of the product's own examples.

#![cfg_attr(fuzzing, no_main)]

mod documents;
mod events;
mod kept;
mod kernel;
mod operators;
mod orders;
mod servers;
mod sessions;
mod signals;
mod strangers;
mod world;

use std::{env, fs, path::Path, sync::OnceLock};

/// Something that takes any bytes.
pub(crate) struct Target {
    /// Its name, also of its folder of inputs.
    pub(crate) name: &'static str,
    /// Takes one input; a panic is a finding.
    pub(crate) take: fn(&[u8]),
    /// Inputs to begin with.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
}

const TARGETS: &[Target] = &[
    documents::EXPERIMENT,
    documents::SCHEDULE,
    documents::HOUSE,
    documents::WORDS,
    sessions::SESSION,
    sessions::REPORT,
    orders::ORDERS,
    operators::OPERATOR,
    strangers::TLS,
    strangers::HTTP2,
    strangers::CERTIFICATE,
    kept::JOURNAL,
    kept::OUTBOX,
    kept::HISTORY,
    events::EVENTS,
    kernel::KERNEL,
    kernel::ANSWER,
    servers::REDIS,
    servers::POSTGRES,
    servers::MYSQL,
    servers::DNS,
    servers::GRPC,
    servers::SYSTEMD,
    signals::SIGNAL,
];

static CHOSEN: OnceLock<fn(&[u8])> = OnceLock::new();

fn choose() {
    if env::var_os("FRACAS_FUZZ_LIST").is_some() {
        TARGETS.iter().for_each(|target| println!("{}", target.name));
        std::process::exit(0);
    }
    let name = env::var("FRACAS_FUZZ_TARGET").unwrap_or_default();
    if let Some(folder) = env::var_os("FRACAS_FUZZ_SEEDS") {
        let wanted = TARGETS.iter().filter(|target| name.is_empty() || target.name == name);
        wanted.for_each(|target| write(target, Path::new(&folder)));
        std::process::exit(0);
    }
    let Some(target) = TARGETS.iter().find(|target| target.name == name) else {
        eprintln!("FRACAS_FUZZ_TARGET is {name:?}, which is no target: FRACAS_FUZZ_LIST=1 prints all");
        std::process::exit(2);
    };
    CHOSEN.get_or_init(|| target.take);
}

fn write(target: &Target, folder: &Path) {
    let folder = folder.join(target.name);
    fs::create_dir_all(&folder).expect("a folder for inputs");
    for (number, seed) in (target.seeds)().iter().enumerate() {
        fs::write(folder.join(format!("seed-{number:03}")), seed).expect("an input");
    }
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(init: choose(), |data: &[u8]| {
    CHOSEN.get().expect("chosen before the first input")(data);
});

/// Without the fuzzer, so that an ordinary compiler sees it all: takes the files that are named.
#[cfg(not(fuzzing))]
fn main() {
    choose();
    for path in env::args_os().skip(1) {
        CHOSEN.get().expect("chosen")(&fs::read(path).expect("an input"));
    }
}
