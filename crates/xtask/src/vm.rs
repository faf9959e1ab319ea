//! `cargo xtask vm`: runs a test program as the only program of a virtual machine with Debian's cloud kernel, which has
//! what this machine's kernel may lack. Emulated, so it needs no rights and no hardware; it measures nothing exactly.
//!
//! The guest is a kernel and an initramfs in memory: the static test program as `/init`, and the modules it needs. The
//! kernel's command line says which tests to run. The program prints `fracas-vm: exit N` at the end and powers off.

mod cpio;
pub(crate) mod guest;
pub(crate) mod kernel;
pub(crate) mod labs;
mod systemd;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use cargo_metadata::Message;

use crate::codegen::root;

/// What the guest's tests may ask of the kernel, beside what these depend on.
const MODULES: &[&str] = &[
    "sch_netem",
    "sch_ingress",
    "cls_bpf",
    "act_mirred",
    "act_gact",
    "ifb",
    "veth",
    "bridge",
    "dummy",
    "nf_tables",
    "nft_numgen",
    "nft_queue",
    "nft_compat",
    "nfnetlink_queue",
    "xt_NFQUEUE",
];
/// The C library that links statically without more than a package.
const TRIPLE: &str = "x86_64-unknown-linux-musl";
/// The guest is ended when it is as old as this; `FRACAS_VM_SECONDS` says otherwise.
const LIMIT_SECONDS: u64 = 420;

/// Builds program and guest, runs it, fails if a test of it did. `systemd` boots a guest with that, and `--labs WORDS...`
/// runs those of the workspace's end-to-end tests that the words choose.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    if let Some((_, words)) = arguments.split_first().filter(|(first, _)| *first == "--labs") {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (passed, _) = labs::run(&words, &[("FRACAS_REQUIRE", "all".into())], "dev", limit_seconds()?, "")?;
        return if passed { Ok(()) } else { bail!("the guest's tests did not pass, or none ran") };
    }
    if let Some(("systemd", rest)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return systemd::run(rest);
    }
    let began = Instant::now();
    guest::present()?;
    let folder = root().join("target/vm");
    let kernel = kernel::find(&folder)?;
    let program = artifact(&["test", "--no-run", "-p", "fracas-agent", "--test", "net"], &["net"])?;
    let built = began.elapsed().as_secs_f64();
    let initramfs = initramfs(&kernel, MODULES, &program[0], &folder.join("initramfs"))?;
    let guest = guest::Guest { kernel: &kernel.image, initramfs: &initramfs, disks: &[], arguments };
    let mut outcome = guest::boot(&guest, limit_seconds()?)?;
    if outcome.hung {
        eprintln!("vm: the emulator hung, not a test: {}; booted once more", outcome.words());
        outcome = guest::boot(&guest, limit_seconds()?)?;
    }
    eprintln!("vm: {built:.0} s to build, {}", outcome.words());
    match outcome.code {
        Some(0) if outcome.ran() => Ok(()),
        Some(0) => bail!("the guest ran no test: is there one that matches {arguments:?}?"),
        _ => bail!("the guest's tests did not pass"),
    }
}

/// Seconds that a guest may take.
fn limit_seconds() -> Result<u64> {
    match std::env::var("FRACAS_VM_SECONDS") {
        Ok(text) => text.parse().with_context(|| format!("FRACAS_VM_SECONDS is {text:?}, not a number")),
        Err(_) => Ok(LIMIT_SECONDS),
    }
}

/// The first file system of a guest: its first program, and modules in an order in which they can be loaded.
pub(crate) fn initramfs(kernel: &kernel::Kernel, modules: &[&str], program: &Path, place: &Path) -> Result<PathBuf> {
    let mut image = cpio::Archive::default();
    for folder in ["dev", "proc", "sys", "tmp", "run", "root", "modules"] {
        image.folder(folder);
    }
    image.console();
    image.file("init", 0o755, &std::fs::read(program)?);
    let mut order = String::new();
    for (name, bytes) in kernel.modules(modules)? {
        image.file(&format!("modules/{name}"), 0o644, &bytes);
        order.push_str(&name);
        order.push('\n');
    }
    image.file("modules/order", 0o644, order.as_bytes());
    std::fs::write(place, image.finish()).with_context(|| format!("cannot write {}", place.display()))?;
    Ok(place.to_owned())
}

/// Programs of these names that cargo makes when it is told this, linked statically.
pub(crate) fn artifact(words: &[&str], names: &[&str]) -> Result<Vec<PathBuf>> {
    let targets = Command::new("rustc").args(["--print", "target-libdir", "--target", TRIPLE]).output()?;
    if !PathBuf::from(String::from_utf8_lossy(&targets.stdout).trim()).is_dir() {
        bail!("the target {TRIPLE} is missing: rustup target add {TRIPLE}");
    }
    if Command::new("musl-gcc").arg("--version").output().is_err() {
        bail!("musl-gcc is missing: apt-get install musl-tools");
    }
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root()).args(words);
    // What cargo tells this program about itself would make build scripts run again each time.
    for (name, _) in std::env::vars().filter(|(n, _)| n.starts_with("CARGO_PKG_") || n.starts_with("CARGO_MANIFEST_")) {
        command.env_remove(name);
    }
    // Nobody debugs in there, and without line tables there is half as much to build, to load and to page in.
    command.env("CARGO_PROFILE_DEV_DEBUG", "0");
    // What computes all the time is slow enough under emulation.
    for package in ["sha2", "ring", "libsqlite3-sys"] {
        command.arg("--config").arg(format!("profile.dev.package.{package}.opt-level=2"));
    }
    let output =
        command.args(["--locked", "--target", TRIPLE, "--message-format", "json-render-diagnostics"]).output()?;
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    let made: Vec<(String, PathBuf)> = Message::parse_stream(output.stdout.as_slice())
        .filter_map(Result::ok)
        .filter_map(|message| match message {
            Message::CompilerArtifact(a) => Some((a.target.name, a.executable?.into())),
            _ => None,
        })
        .collect();
    let find = |name: &&str| made.iter().find(|(made, _)| made == name).map(|(_, path)| path.clone());
    names.iter().map(|name| find(name).with_context(|| format!("cargo did not build {name}"))).collect()
}
