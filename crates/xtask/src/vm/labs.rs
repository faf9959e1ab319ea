//! The workspace's end-to-end tests in a virtual machine, whose kernel has netem, clsact and ifb, and whose clock may be
//! set: the test program and the tools it looks with, taken from this machine with their libraries. Slow: all of it is
//! emulated.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use cargo_metadata::Message;

use super::{MODULES, cpio, guest, kernel};
use crate::codegen::root;

/// Programs that tests start in their labs.
const TOOLS: &[&str] = &[
    "cat", "chmod", "chown", "cp", "cut", "df", "find", "grep", "head", "ip", "ls", "ln", "mkdir", "mount", "mv",
    "nft", "renice", "rm", "rmdir", "sed", "seq", "sh", "sleep", "sort", "stat", "tail", "tc", "touch", "tr", "true",
    "umount", "uname", "xargs",
];
/// The same, where this machine has them; a test that needs one is skipped there.
const MORE_TOOLS: &[&str] = &["iptables-nft", "iptables-nft-save", "ip6tables-nft", "ip6tables-nft-save", "unshare"];
/// Where Debian keeps what iptables loads when it is asked for.
const EXTENSIONS: &str = "/usr/lib/x86_64-linux-gnu/xtables";
/// Where tools are looked for, there and here.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// What the lab needs of the kernel beside what the trials of network faults need.
const MORE: &[&str] =
    &["sch_fq_codel", "sch_htb", "sch_prio", "cls_u32", "xt_tcpudp", "xt_mark", "nft_chain_nat", "nft_reject_inet"];

/// Runs the tests that these words choose, built by this profile, with these variables of their environment; whether they
/// passed, and the rest of the last line that began with `mark`.
pub(crate) fn run(
    words: &[&str],
    environment: &[(&str, String)],
    profile: &str,
    limit_seconds: u64,
    mark: &str,
) -> Result<(bool, Option<String>)> {
    let began = Instant::now();
    guest::present()?;
    let kernel = kernel::find(&root().join("target/vm"))?;
    let program = stripped(&build(profile)?)?;
    let mut image = Image::default();
    for folder in ["dev", "proc", "sys", "tmp", "run", "modules", "etc", "root"] {
        image.folder(Path::new(folder));
    }
    image.archive.console();
    image.put(Path::new("/etc/hosts"), b"127.0.0.1 localhost\n")?;
    image.program(&program, Path::new("/init"))?;
    for tool in TOOLS {
        let found = PATH.split(':').map(|place| Path::new(place).join(tool)).find(|path| path.exists());
        let found = found.with_context(|| format!("{tool} is missing here"))?;
        image.program(&found, &Path::new("/usr/bin").join(tool))?;
    }
    for tool in MORE_TOOLS {
        if let Some(found) = PATH.split(':').map(|place| Path::new(place).join(tool)).find(|path| path.exists()) {
            image.program(&found, &Path::new("/usr/bin").join(tool))?;
        }
    }
    for extension in fs::read_dir(EXTENSIONS).into_iter().flatten().flatten() {
        image.put(&extension.path(), &fs::read(extension.path())?)?;
    }
    let (mut order, mut modules) = (String::new(), kernel.modules(MODULES)?);
    for more in MORE {
        // Not every kernel has them as modules, or at all.
        modules.extend(kernel.modules(&[more]).unwrap_or_default());
    }
    for (name, bytes) in modules {
        if !order.lines().any(|line| line == name) {
            image.put(&Path::new("/modules").join(&name), &bytes)?;
            order.push_str(&name);
            order.push('\n');
        }
    }
    image.put(Path::new("/modules/order"), order.as_bytes())?;
    let told: String = environment.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    let told = format!("PATH={PATH}\nRUST_BACKTRACE=0\n{told}");
    image.put(Path::new("/modules/environment"), told.as_bytes())?;
    let initramfs = root().join(format!("target/vm/labs-{}", std::process::id()));
    fs::write(&initramfs, image.archive.finish()).context("cannot write the initramfs")?;
    let mut arguments: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    // With one, a test's name would be told before it ran, and what it says itself would come in between.
    arguments.extend(["--test-threads", "2"].map(str::to_owned));
    let guest = guest::Guest { kernel: &kernel.image, initramfs: &initramfs, disks: &[], arguments: &arguments };
    eprintln!("vm: {:.0} s to build", began.elapsed().as_secs_f64());
    let outcome = guest::boot_and_hear(&guest, limit_seconds, mark);
    let _ = fs::remove_file(&initramfs);
    let (outcome, heard) = outcome?;
    eprintln!("vm: {}", outcome.words());
    Ok((outcome.code == Some(0) && outcome.ran(), heard))
}

/// The workspace's test program.
fn build(profile: &str) -> Result<PathBuf> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root()).args(["test", "--locked", "--no-run", "--profile", profile, "-p", "fracas-tests"]);
    // What cargo tells this program about itself would make build scripts run again each time.
    for (name, _) in std::env::vars().filter(|(n, _)| n.starts_with("CARGO_PKG_") || n.starts_with("CARGO_MANIFEST_")) {
        command.env_remove(name);
    }
    let output = command.args(["--message-format", "json-render-diagnostics"]).output()?;
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    let built = Message::parse_stream(output.stdout.as_slice()).filter_map(Result::ok).find_map(|m| match m {
        Message::CompilerArtifact(a) if a.target.name == "fracas" && a.target.is_test() => a.executable,
        _ => None,
    });
    Ok(built.context("cargo did not build the test program")?.into())
}

/// The same without what only a debugger needs.
fn stripped(program: &Path) -> Result<PathBuf> {
    let small = root().join("target/vm/fracas-tests");
    let done = Command::new("strip").arg("-o").arg(&small).arg(program).status();
    if !done.is_ok_and(|status| status.success()) {
        bail!("strip is missing, or cannot strip {}: apt-get install binutils", program.display());
    }
    Ok(small)
}

/// A first file system that is being filled.
#[derive(Default)]
struct Image {
    archive: cpio::Archive,
    there: BTreeSet<PathBuf>,
}

impl Image {
    fn folder(&mut self, path: &Path) {
        let path = path.strip_prefix("/").unwrap_or(path);
        let mut above: Vec<&Path> = path.ancestors().filter(|p| !p.as_os_str().is_empty()).collect();
        above.reverse();
        for folder in above {
            if self.there.insert(folder.to_owned()) {
                self.archive.folder(&folder.to_string_lossy());
            }
        }
    }

    fn put(&mut self, path: &Path, bytes: &[u8]) -> Result<()> {
        let path = path.strip_prefix("/")?;
        if let Some(above) = path.parent() {
            self.folder(above);
        }
        if self.there.insert(path.to_owned()) {
            self.archive.file(&path.to_string_lossy(), 0o755, bytes);
        }
        Ok(())
    }

    /// A program and the libraries it is linked with.
    fn program(&mut self, from: &Path, to: &Path) -> Result<()> {
        self.put(to, &fs::read(from).with_context(|| format!("{} cannot be read", from.display()))?)?;
        let told = Command::new("ldd").arg(from).output().context("ldd is missing: apt-get install libc-bin")?;
        for word in String::from_utf8_lossy(&told.stdout).split_whitespace().filter(|word| word.starts_with('/')) {
            let bytes = fs::read(word).with_context(|| format!("{word} cannot be read"))?;
            self.put(Path::new(word), &bytes)?;
        }
        Ok(())
    }
}
