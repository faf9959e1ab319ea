//! Installs the agent as a service of systemd, and removes it from a host that is proven clean. It starts no program: systemd
//! is asked over D-Bus, and below another root, an image, nobody is asked.
//!
//! Whoever removes an agent removes the only one that could undo. So nothing is taken away before the journal has nothing
//! open and the kernel shows nothing of ours; where that cannot be shown the agent stays, and is started again.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use clap::Args;

use self::files::{Became, Files, Wanted};
use crate::{
    command::POLICY,
    enrol::Token,
    guard::Outcome,
    host::{
        residue,
        systemd::{Systemd, at_rest},
    },
    identity::Identity,
    lock::{self, Lock},
    service,
};

pub mod files;
pub mod policy;

/// Name of the service.
pub const UNIT: &str = "fracas-agent.service";
/// The service as it stands in the sources, for a program in the default place.
const UNIT_TEXT: &str = include_str!("../../../deploy/fracas-agent.service");
/// The program in that text.
const UNIT_PROGRAM: &str = "/usr/local/bin/fracas-agent";
const UNIT_FILE: &str = "/etc/systemd/system/fracas-agent.service";
const WANTED_BY: &str = "/etc/systemd/system/multi-user.target.wants/fracas-agent.service";
const SETTINGS_DIR: &str = "/etc/fracas";
const SETTINGS: &str = "/etc/fracas/agent.env";
const TOKEN: &str = "/etc/fracas/join-token";
/// Where the service keeps its state, as its unit says.
pub const STATE: &str = "/var/lib/fracas-agent";
const LIST: &str = "/var/lib/fracas-agent/installed";

/// How long a service may take to be active once it was asked; it is ready before it has found its controller.
const STARTING: Duration = Duration::from_mins(1);
/// How long it may take to undo everything and end: the unit gives it 90 s.
const STOPPING: Duration = Duration::from_mins(2);
const LOOK: Duration = Duration::from_millis(100);

/// Exit code of a host that could not be proven clean.
const UNPROVEN: u8 = 6;

/// Help of `install`.
pub const INSTALL_HELP: &str = "Example:
  fracas-agent install --controller ctl.internal:7767 --join-token-file token
  fracas-agent install --root /mnt/image --controller ctl.internal:7767

Done again it changes what is otherwise than asked, and tells. Files that you have changed are left alone. Below --root \
systemd is not asked: the service starts when the image boots.

Exit codes: 0 installed, 2 wrong arguments, 5 failed.";

/// Help of `uninstall`.
pub const UNINSTALL_HELP: &str = "Example:
  fracas-agent uninstall
  fracas-agent uninstall --purge

It stops the service, which undoes everything, then looks whether anything of Fracas is on this host, and only then \
removes files. Policy and state stay, with the host's identity, unless --purge says otherwise; so do files that you have \
changed.

Exit codes: 0 removed, 2 wrong arguments, 5 failed, 6 refused: the host could not be proven clean, and the agent stays.";

/// Where the files of an installation are.
#[derive(Clone, Debug, Args)]
pub struct PlaceArgs {
    /// Directory for the program
    #[arg(long, value_name = "DIR", default_value = "/usr/local/bin")]
    pub bin_dir: PathBuf,
    /// Another root than this host's, of an image that is being made
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
}

/// Arguments of `install`.
#[derive(Clone, Debug, Args)]
pub struct InstallArgs {
    /// Fleet address of a controller; may be repeated
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    pub controller: Vec<String>,
    /// File with a join token; a copy that only root can read is kept for the first start
    #[arg(long, value_name = "FILE")]
    pub join_token_file: Option<PathBuf>,
    /// Name of this host for people [default: its host name]
    #[arg(long)]
    pub name: Option<String>,
    /// Start nothing now; the service starts at the next boot
    #[arg(long)]
    pub no_start: bool,
    /// Where.
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// Arguments of `uninstall`.
#[derive(Clone, Debug, Args)]
pub struct UninstallArgs {
    /// Remove the policy too, and the state with the host's identity and its journal
    #[arg(long)]
    pub purge: bool,
    /// Where.
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// A line of what was done.
fn tell(line: &str) {
    // Who closed the output does not want to know.
    let _ = writeln!(io::stdout(), "{line}");
}

/// Installs; `program` is how this program is called to be an agent: `fracas-agent` or `fracas agent`.
pub fn install(args: &InstallArgs, program: &str) -> anyhow::Result<u8> {
    let (root, image) = root_of(&args.place)?;
    let name = program.split(' ').next().unwrap_or(program);
    let path = bin(&args.place, name)?;
    let token = args.join_token_file.as_deref().map(read_token).transpose()?;
    let mut files = Files::open(&root, Path::new(LIST)).map_err(anyhow::Error::msg)?;
    for (dir, mode) in [(SETTINGS_DIR, 0o755), (STATE, 0o700)].map(|(dir, mode)| (Path::new(dir), mode)) {
        if files.directory(dir, mode).map_err(anyhow::Error::msg)? {
            tell(&format!("made       {}", dir.display()));
        }
    }
    files.directory(&args.place.bin_dir, 0o755).map_err(anyhow::Error::msg)?;
    files.directory(Path::new("/etc/systemd/system"), 0o755).map_err(anyhow::Error::msg)?;
    let own = fs::read("/proc/self/exe").map_err(|e| anyhow::anyhow!("this program cannot be read: {e}"))?;
    let command = format!("{}{}", path.display(), program.strip_prefix(name).unwrap_or_default());
    let unit = Wanted { path: UNIT_FILE.into(), content: unit_for(&command).into_bytes(), mode: 0o644 };
    let mut changed = false;
    for wanted in [Wanted { path, content: own, mode: 0o755 }, unit] {
        let became = write(&mut files, &wanted)?;
        changed |= matches!(became, Became::Replaced | Became::Written);
        if became == Became::Kept && wanted.path.ends_with(name) {
            anyhow::bail!(
                "{} is there and was not installed by this program: remove it first, or choose another --bin-dir",
                wanted.path.display()
            );
        }
    }
    let rules = Wanted { path: POLICY.into(), content: policy::template().into_bytes(), mode: 0o644 };
    if files.there(&rules.path) {
        tell(&format!("left       {POLICY}, the owner's"));
    } else {
        write(&mut files, &rules)?;
    }
    if let Some(token) = &token {
        changed |= write(&mut files, &Wanted { path: TOKEN.into(), content: token.clone(), mode: 0o600 })?
            != Became::Unchanged;
    }
    let asked = !args.controller.is_empty() || args.name.is_some();
    if asked || !files.there(Path::new(SETTINGS)) {
        let content = settings(args).into_bytes();
        changed |= write(&mut files, &Wanted { path: SETTINGS.into(), content, mode: 0o600 })? != Became::Unchanged;
    }
    if image {
        return enable_in_image(&files).map(|()| 0);
    }
    let known =
        !args.controller.is_empty() || Identity::load(Path::new(STATE)).is_ok_and(|identity| identity.is_some());
    start(args.no_start, known, changed)
}

fn write(files: &mut Files, wanted: &Wanted) -> anyhow::Result<Became> {
    let became = files.write(wanted).map_err(anyhow::Error::msg)?;
    let (path, mode) = (wanted.path.display(), wanted.mode);
    tell(&match became {
        Became::Written => format!("wrote      {path} ({mode:04o})"),
        Became::Replaced => format!("replaced   {path}"),
        Became::Unchanged => format!("unchanged  {path}"),
        Became::Kept => format!("left       {path}: it has changes of yours"),
    });
    Ok(became)
}

/// The root, and whether it is another than this host's.
fn root_of(place: &PlaceArgs) -> anyhow::Result<(PathBuf, bool)> {
    match &place.root {
        Some(root) if !root.is_dir() => anyhow::bail!("--root {}: there is no such directory", root.display()),
        Some(root) => Ok((root.clone(), true)),
        None if !rustix::process::geteuid().is_root() => anyhow::bail!(
            "only root can install or remove the service (sudo fracas-agent ...); as an ordinary user start the agent by hand"
        ),
        None => Ok(("/".into(), false)),
    }
}

/// The program's path. Unit files have a syntax of their own, in which some characters mean something.
fn bin(place: &PlaceArgs, name: &str) -> anyhow::Result<PathBuf> {
    let dir = &place.bin_dir;
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if !dir.is_absolute() || !dir.to_str().is_some_and(|text| text.chars().all(plain)) {
        anyhow::bail!("--bin-dir {}: an absolute path of letters, digits and ._-+ is needed", dir.display());
    }
    Ok(dir.join(name))
}

/// The unit for a program elsewhere.
fn unit_for(command: &str) -> String {
    UNIT_TEXT.replace(UNIT_PROGRAM, command)
}

fn read_token(path: &Path) -> anyhow::Result<Vec<u8>> {
    let text = fs::read_to_string(path)
        .map_err(|e| anyhow::anyhow!("the join token cannot be read from {}: {e}", path.display()))?;
    text.parse::<Token>()?;
    Ok(format!("{}\n", text.trim()).into_bytes())
}

/// The environment of the service.
fn settings(args: &InstallArgs) -> String {
    let set = |on: bool, line: String| if on { line } else { format!("# {line}") };
    let controllers = if args.controller.is_empty() { "HOST:PORT".to_owned() } else { args.controller.join(",") };
    let name = args.name.as_deref().unwrap_or("NAME");
    format!(
        "# Environment of {UNIT}; after a change: systemctl restart fracas-agent\n\
         # Fleet addresses of the controllers, with commas between them.\n{}\n\
         # A join token, needed until the host is enrolled.\nFRACAS_JOIN_TOKEN_FILE={TOKEN}\n\
         # Name of this host for people.\n{}\n",
        set(!args.controller.is_empty(), format!("FRACAS_FLEET={controllers}")),
        set(args.name.is_some(), format!("FRACAS_NAME={name}")),
    )
}

/// What systemd would do in a running host.
fn enable_in_image(files: &Files) -> anyhow::Result<()> {
    let link = files.place(Path::new(WANTED_BY));
    let folder = Path::new(WANTED_BY).parent().unwrap_or(Path::new("/"));
    files.directory(folder, 0o755).map_err(anyhow::Error::msg)?;
    match symlink(UNIT_FILE, &link) {
        Ok(()) => tell(&format!("enabled    {UNIT}, which starts when the image boots")),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => tell(&format!("unchanged  {WANTED_BY}")),
        Err(error) => anyhow::bail!("{} cannot be made: {error}", link.display()),
    }
    Ok(())
}

fn start(no_start: bool, known: bool, changed: bool) -> anyhow::Result<u8> {
    let systemd = Systemd::default();
    let mut talk = match systemd.talk() {
        Ok(talk) => talk,
        Err(why) => {
            tell(&format!("not started: {why}"));
            tell("             all files are written; once systemd runs: systemctl enable --now fracas-agent");
            return Ok(5);
        }
    };
    talk.reload().map_err(anyhow::Error::msg)?;
    let links = talk.enable(UNIT).map_err(anyhow::Error::msg)?;
    tell(&if links.is_empty() { format!("unchanged  {UNIT} is enabled") } else { format!("enabled    {UNIT}") });
    let active = talk.active(UNIT).map_err(anyhow::Error::msg)?;
    if no_start {
        tell(&format!("not started, as asked; it is {active} now: systemctl start fracas-agent"));
        return Ok(0);
    }
    if at_rest(&active) && !known {
        tell(&format!(
            "not started: no controller is known; set FRACAS_FLEET in {SETTINGS}, then: systemctl start fracas-agent"
        ));
        return Ok(0);
    }
    match (at_rest(&active), changed) {
        (true, _) => talk.start(UNIT).map_err(anyhow::Error::msg)?,
        // What is active is undone first: that is how an agent ends.
        (false, true) => talk.restart(UNIT).map_err(anyhow::Error::msg)?,
        (false, false) => {
            tell(&format!("unchanged  {UNIT} is {active}"));
            return Ok(0);
        }
    }
    let state = settles(&systemd, STARTING, |state| state == "active")?;
    if state != "active" {
        anyhow::bail!("{UNIT} was asked to start and is {state}: see systemctl status fracas-agent");
    }
    tell(&format!("{}    {UNIT}", if at_rest(&active) { "started  " } else { "restarted" }.trim_end()));
    Ok(0)
}

/// Waits for a state of the service; the last one seen.
fn settles(systemd: &Systemd, limit: Duration, wanted: impl Fn(&str) -> bool) -> anyhow::Result<String> {
    let until = Instant::now() + limit;
    loop {
        let state = systemd.talk().and_then(|mut talk| talk.active(UNIT)).map_err(anyhow::Error::msg)?;
        if wanted(&state) || Instant::now() >= until {
            return Ok(state);
        }
        thread::sleep(LOOK);
    }
}

/// Removes the agent from a host on which nothing of it is left.
pub fn uninstall(args: &UninstallArgs, program: &str) -> anyhow::Result<u8> {
    let (root, image) = root_of(&args.place)?;
    let name = program.split(' ').next().unwrap_or(program);
    let path = bin(&args.place, name)?;
    let mut files = Files::open(&root, Path::new(LIST)).map_err(anyhow::Error::msg)?;
    if !image {
        let systemd = Systemd::default();
        let ran = stop(&systemd, &files)?;
        if let Err(why) = proven_clean(&files.place(Path::new(STATE))) {
            tell(&format!("refused: {why}"));
            if ran && let Err(error) = systemd.talk().and_then(|mut talk| talk.start(UNIT)) {
                tell(&format!("         and the agent could not be started again: {error}"));
            }
            tell("         nothing is removed; the agent stays, to undo it");
            return Ok(UNPROVEN);
        }
        tell("clean      nothing of Fracas is on this host");
        if let Ok(mut talk) = systemd.talk() {
            talk.disable(UNIT).map_err(anyhow::Error::msg)?;
            tell(&format!("disabled   {UNIT}"));
        }
    } else if fs::remove_file(files.place(Path::new(WANTED_BY))).is_ok() {
        tell(&format!("disabled   {UNIT}"));
    }
    for path in [Path::new(UNIT_FILE), Path::new(SETTINGS), Path::new(TOKEN), &path] {
        remove(&mut files, path, false)?;
    }
    if args.purge {
        remove(&mut files, Path::new(POLICY), true)?;
        if files.remove_all(Path::new(STATE)).map_err(anyhow::Error::msg)? {
            tell(&format!("removed    {STATE}"));
        }
    } else {
        tell(&format!("left       {POLICY} and {STATE} (--purge removes them)"));
    }
    if files.remove_empty(Path::new(SETTINGS_DIR)) {
        tell(&format!("removed    {SETTINGS_DIR}"));
    }
    if !image && let Ok(mut talk) = Systemd::default().talk() {
        talk.reload().map_err(anyhow::Error::msg)?;
    }
    Ok(0)
}

fn remove(files: &mut Files, path: &Path, whatever: bool) -> anyhow::Result<()> {
    match files.remove(path, whatever).map_err(anyhow::Error::msg)? {
        Some(true) => tell(&format!("removed    {}", path.display())),
        Some(false) => tell(&format!("left       {}: it has changes of yours", path.display())),
        None => {}
    }
    Ok(())
}

/// Stops the service, if there is one; whether it ran.
fn stop(systemd: &Systemd, files: &Files) -> anyhow::Result<bool> {
    let Ok(mut talk) = systemd.talk() else { return Ok(false) };
    let before = talk.active(UNIT).map_err(anyhow::Error::msg)?;
    if at_rest(&before) && !files.there(Path::new(UNIT_FILE)) {
        return Ok(false);
    }
    // Also one that waits to be started again.
    talk.stop(UNIT).map_err(anyhow::Error::msg)?;
    let state = settles(systemd, STOPPING, at_rest)?;
    if !at_rest(&state) {
        anyhow::bail!(
            "{UNIT} was asked to stop and is still {state}: see systemctl status fracas-agent; nothing is removed"
        );
    }
    tell(&format!("stopped    {UNIT}"));
    Ok(!at_rest(&before))
}

/// Nothing is open, and nothing of an agent is to be seen; else why not.
fn proven_clean(state: &Path) -> Result<(), String> {
    if Lock::stays_held(state, lock::AGENT) {
        return Err("an agent that systemd did not start is running on this host's state: end it first".into());
    }
    if state.is_dir() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        match runtime.block_on(service::undo_all(state)).map_err(|e| e.to_string())? {
            Outcome::Clean => {}
            Outcome::Unknown(trouble) => {
                let refusal = trouble.refusal();
                return Err(format!("{}; {}", refusal.why, refusal.instead));
            }
            Outcome::TakenOver => return Err("an agent was started meanwhile".into()),
        }
    }
    let found = residue::find()?;
    if found.is_empty() { Ok(()) } else { Err(format!("there is still {}", found.join(", "))) }
}

#[cfg(test)]
mod tests;
