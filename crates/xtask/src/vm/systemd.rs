//! `cargo xtask vm systemd`: the same machine with a Debian whose first program is systemd, in which agent and controller are
//! installed as on a real host and then ill-treated. It decides nothing: what is tried stands in the guest's program,
//! `crates/fracas-agent/tests/systemd.rs`.
//!
//! The root file system is made from Debian packages that are only unpacked, never configured, once; each run adds today's
//! programs and units and makes a fresh disk. A guest that restarts on purpose is booted again with the disk it left.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

use super::{MODULES, artifact, guest, initramfs, kernel, limit_seconds};
use crate::codegen::root;

/// What the guest's own system is made of: systemd with its bus, and the foreign tools that confirm what happened.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,iproute2,nftables,iputils-ping";
/// What the disk needs of the kernel, before all else.
const DISK_MODULES: &[&str] = &["virtio_pci", "virtio_blk", "ext4"];
/// Parts of packages that no guest reads.
const UNREAD: &[&str] =
    &["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/lib/x86_64-linux-gnu/perl"];
/// Size of the disk; what is not written takes no room.
const DISK: &str = "600M";
/// Boots of one run: the first, and one for each restart on purpose.
const MOST_BOOTS: usize = 4;

/// Builds programs and disk, boots, and boots again as long as the guest asks for it; fails if a trial did.
pub(super) fn run(arguments: &[String]) -> Result<()> {
    let began = Instant::now();
    guest::present()?;
    let folder = root().join("target/vm");
    let kernel = kernel::find(&folder)?;
    let system = unpacked(&folder.join("systemd"))?;
    let programs = Programs::build()?;
    let built = began.elapsed().as_secs_f64();
    programs.lay(&system)?;
    let modules = [DISK_MODULES, MODULES].concat();
    let initramfs = initramfs(&kernel, &modules, &programs.trials, &folder.join("systemd.initramfs"))?;
    let live = || {
        let disks = [disk(&system, &folder.join("systemd.ext4"))?];
        life(&guest::Guest { kernel: &kernel.image, initramfs: &initramfs, disks: &disks, arguments })
    };
    let mut whole = live()?;
    if whole.hung {
        eprintln!("vm systemd: the emulator hung, not a trial: {}; begun once more", whole.words());
        whole = live()?;
    }
    eprintln!("vm systemd: {built:.0} s to build, {}", whole.words());
    match whole.code {
        Some(0) if whole.ran() && !whole.failed() => Ok(()),
        Some(0) => bail!("the guest ran no trial: is there one that matches {arguments:?}?"),
        _ => bail!("the guest's trials did not pass"),
    }
}

/// Boots, and boots again as long as the guest wants it.
fn life(guest: &guest::Guest<'_>) -> Result<guest::Outcome> {
    let (mut whole, limit) = (guest::Outcome::default(), limit_seconds()?);
    for _ in 0..MOST_BOOTS {
        let boot = guest::boot(guest, limit)?;
        let again = boot.again();
        whole.add(boot);
        if !again {
            break;
        }
    }
    Ok(whole)
}

/// Debian's packages, unpacked into `folder` when they are not yet.
fn unpacked(folder: &Path) -> Result<PathBuf> {
    let made_from = folder.join("etc/fracas-made-from");
    if fs::read_to_string(&made_from).is_ok_and(|text| text == PACKAGES) {
        return Ok(folder.to_owned());
    }
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    let release = fs::read_to_string("/etc/os-release").context("which Debian is this?")?;
    let suite = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap_or("bookworm");
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--variant=extract", "--aptopt=Apt::Install-Recommends \"false\""]);
    command.arg(format!("--include={PACKAGES}")).arg(suite).arg(folder);
    let done = command.output().context("mmdebstrap is missing: apt-get install mmdebstrap")?;
    if !done.status.success() {
        bail!("mmdebstrap failed: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    for unread in UNREAD {
        let _ = fs::remove_dir_all(folder.join(unread));
    }
    for empty in ["proc", "sys", "dev", "run", "tmp", "root", "var/tmp", "var/log/journal", "usr/local/bin", "opt"] {
        fs::create_dir_all(folder.join(empty))?;
    }
    fs::write(made_from, PACKAGES)?;
    Ok(folder.to_owned())
}

/// Linked statically.
struct Programs {
    fracas: PathBuf,
    agent: PathBuf,
    trials: PathBuf,
}

impl Programs {
    fn build() -> Result<Self> {
        let bins = ["build", "-p", "fracas", "-p", "fracas-agent", "--bins"];
        let found = artifact(&bins, &["fracas", "fracas-agent"])?;
        let trials = artifact(&["test", "--no-run", "-p", "fracas-agent", "--test", "systemd"], &["systemd"])?;
        Ok(Self { fracas: found[0].clone(), agent: found[1].clone(), trials: trials[0].clone() })
    }

    /// Puts the programs and everything that a configured Debian would have besides where the guest expects it.
    fn lay(&self, system: &Path) -> Result<()> {
        for (program, place) in
            [(&self.fracas, "usr/local/bin/fracas"), (&self.agent, "opt/fracas-agent"), (&self.trials, "opt/trials")]
        {
            fs::copy(program, system.join(place)).with_context(|| format!("cannot write {place}"))?;
        }
        fs::copy(
            root().join("deploy/fracas-controller.service"),
            system.join("etc/systemd/system/fracas-controller.service"),
        )?;
        for (place, text) in FILES {
            let place = system.join(place);
            fs::create_dir_all(place.parent().context("a file below the root")?)?;
            fs::write(place, text)?;
        }
        for (target, place) in LINKS {
            let place = system.join(place);
            fs::create_dir_all(place.parent().context("a link below the root")?)?;
            if place.is_symlink() {
                fs::remove_file(&place)?;
            }
            symlink(target, place)?;
        }
        Ok(())
    }
}

/// What base-passwd, systemd and dbus write when they are configured, and the guest's own units.
const FILES: &[(&str, &str)] = &[
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nmessagebus:x:101:101::/nonexistent:/usr/sbin/nologin\n\
         nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    ),
    (
        "etc/group",
        "root:x:0:\nadm:x:4:\ntty:x:5:\ndisk:x:6:\nlp:x:7:\nkmem:x:15:\ndialout:x:20:\ncdrom:x:24:\nutmp:x:43:\nvideo:x:44:\n\
         staff:x:50:\ninput:x:102:\nkvm:x:103:\nrender:x:104:\nsgx:x:105:\nsystemd-journal:x:999:\nmessagebus:x:101:\n\
         nogroup:x:65534:\n",
    ),
    ("etc/hostname", "guest\n"),
    ("etc/machine-id", ""),
    ("etc/systemd/system.conf", "[Manager]\nShowStatus=no\nDefaultTimeoutStopSec=20s\n"),
    ("etc/systemd/journald.conf", "[Journal]\nStorage=persistent\nSystemMaxUse=16M\nRateLimitIntervalSec=0\n"),
    (
        "etc/systemd/system/trials.service",
        "[Unit]\nDescription=Trials of Fracas\nAfter=dbus.service\nWants=dbus.service\n[Service]\nExecStart=/opt/trials\n\
         TTYPath=/dev/ttyS0\nStandardOutput=tty\nStandardError=tty\nKillMode=process\n[Install]\nWantedBy=multi-user.target\n",
    ),
    (
        "etc/systemd/system/victim@.service",
        "[Unit]\nDescription=Something that serves on port %i\n[Service]\nExecStart=/opt/trials victim %i\nRestart=always\n\
         RestartSec=100ms\nStartLimitIntervalSec=0\n[Install]\nWantedBy=multi-user.target\n",
    ),
];

/// The same, as links.
const LINKS: &[(&str, &str)] = &[
    ("/lib/systemd/system/multi-user.target", "etc/systemd/system/default.target"),
    ("/etc/systemd/system/trials.service", "etc/systemd/system/multi-user.target.wants/trials.service"),
    ("/dev/null", "etc/systemd/system/systemd-logind.service"),
    ("/dev/null", "etc/systemd/system/getty.target"),
    ("/dev/null", "etc/systemd/system/systemd-hwdb-update.service"),
    ("/dev/null", "etc/systemd/system/systemd-firstboot.service"),
    // What they would do is in the files above, and each takes a second under emulation.
    ("/dev/null", "etc/systemd/system/systemd-sysusers.service"),
    ("/dev/null", "etc/systemd/system/systemd-update-utmp.service"),
    ("/dev/null", "etc/systemd/system/systemd-update-utmp-runlevel.service"),
    ("/dev/null", "etc/systemd/system/systemd-user-sessions.service"),
    ("/dev/null", "etc/systemd/system/systemd-tmpfiles-setup-dev.service"),
    ("/dev/null", "etc/systemd/system/systemd-tmpfiles-clean.timer"),
    ("/dev/null", "etc/systemd/system/systemd-random-seed.service"),
    ("/dev/null", "etc/systemd/system/systemd-journal-catalog-update.service"),
    ("/dev/null", "etc/systemd/system/e2scrub_all.timer"),
];

/// A file system with all of `system`, made without mounting anything.
fn disk(system: &Path, place: &Path) -> Result<PathBuf> {
    let _ = fs::remove_file(place);
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-t", "ext4", "-E", "lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0", "-d"]);
    command.arg(system).arg(place).arg(DISK);
    let done = command.output().context("mke2fs is missing: apt-get install e2fsprogs")?;
    if !done.status.success() {
        bail!("mke2fs failed: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(place.to_owned())
}
