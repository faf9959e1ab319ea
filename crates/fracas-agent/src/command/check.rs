//! `fracas-agent check`: what this host can do and what it lacks, how its clock and its journal are. It tries things, and
//! leaves nothing changed.

use std::{fs, io, path::Path};

use clap::Args;
use fracas_model::{
    catalogue::{Capability, FaultInfo},
    facts::HostFacts,
    units::Dur,
};
use rustix::fs::{Access, access};
use serde_json::{Value, json};

use super::{StateArgs, code, journal_shown, policy_source, runtime, say};
use crate::{
    host::{
        Host as _,
        clock::{WallClock, boot_id, wall_clock},
        linux::LinuxHost,
    },
    journal::{FILE, Look},
    lock::{self, Lock},
    rules::{Origin, Rules},
    service::{self, VERSION},
};

/// Arguments of `check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Where the agent keeps everything.
    #[command(flatten)]
    pub state: StateArgs,
    /// The rules' file
    #[arg(long, value_name = "FILE", env = "FRACAS_POLICY")]
    pub policy: Option<std::path::PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Everything that is looked at.
struct Found<'d> {
    facts: HostFacts,
    rules: Rules,
    dir: &'d Path,
    look: Look,
    running: bool,
    clock: io::Result<WallClock>,
}

/// Prints it and gives the exit code.
pub(super) fn check(args: CheckArgs) -> anyhow::Result<u8> {
    let dir = args.state.dir();
    let found = Found {
        facts: runtime()?.block_on(async { LinuxHost::start("check".into(), VERSION).facts().await }),
        rules: Rules::read(policy_source(args.policy)),
        dir: &dir,
        look: Look::into_dir(&dir),
        running: Lock::is_held(&dir, lock::AGENT),
        clock: wall_clock(),
    };
    if args.json {
        say(&found.json().to_string())?;
    } else {
        say(found.text().trim_end())?;
    }
    Ok(code(&found.look))
}

impl Found<'_> {
    fn text(&self) -> String {
        let facts = &self.facts;
        let mut text = format!(
            "host     {}\nsystem   {}, kernel {}, {}\ncores    {}\nuser     {}\n\n",
            facts.hostname,
            facts.os,
            facts.kernel,
            facts.arch,
            facts.cpus,
            if facts.uid == 0 { "root".to_owned() } else { facts.uid.to_string() }
        );
        for (capability, ability) in &facts.abilities {
            text += &format!("{} {}\n", if ability.works { "yes" } else { "no " }, capability.word());
            if !ability.works {
                text += &format!("      why: {}\n      fix: {}\n", ability.why, ability.fix);
            }
        }
        let (mut can, mut cannot) = (Vec::new(), String::new());
        for info in service::catalogue(crate::reconcile::ALL).faults {
            match self.against(&info) {
                None => can.push(info.name),
                Some(why) => cannot += &format!("  {}: {why}\n", info.name),
            }
        }
        text += &format!("\nfaults that work here: {}\n", can.join(", "));
        if !cannot.is_empty() {
            text += &format!("faults that do not:\n{cannot}");
        }
        text += &format!("\npolicy   {}\n", self.policy());
        text += &format!("state    {}\n", self.directory());
        text += &journal_shown(&self.look, self.running);
        let (size, open, past) = (self.journal_bytes(), self.look.state.open.len(), self.look.state.past().count());
        text += &format!("         {size} bytes, {open} open, {past} ended ones remembered\n");
        text += &format!("clock    {}\n", self.clock_text());
        text
    }

    fn json(&self) -> Value {
        let faults: Vec<Value> = service::catalogue(crate::reconcile::ALL)
            .faults
            .iter()
            .map(|info| {
                let why = self.against(info);
                json!({ "name": info.name, "works": why.is_none(), "why": why })
            })
            .collect();
        let clock = self.clock.as_ref().ok().map(|clock| {
            json!({ "synchronised": clock.synchronised, "boundNs": clock.bound_ns, "estimateNs": clock.estimate_ns })
        });
        let trouble = self.look.trouble.as_ref().map(|trouble| {
            let refusal = trouble.refusal();
            json!({ "why": refusal.why, "instead": refusal.instead })
        });
        json!({
            "host": self.facts,
            "faults": faults,
            "policy": { "file": self.policy(), "usable": !matches!(self.rules.origin(), Origin::Unusable(..)) },
            "stateDir": self.dir,
            "agentRuns": self.running,
            "journal": {
                "trouble": trouble, "tornBytes": self.look.torn, "bytes": self.journal_bytes(),
                "open": self.look.state.open.len(), "ended": self.look.state.past().count(),
            },
            "clock": clock,
            "boot": boot_id(),
        })
    }

    /// Why a fault does not work here, if so: what the host lacks, or what its owner does not want.
    fn against(&self, info: &FaultInfo) -> Option<String> {
        let lacks = |way: &Vec<Capability>| way.iter().copied().find(|c| !self.facts.can(*c));
        let lacking: Vec<Capability> = info.needs.iter().filter_map(lacks).collect();
        if !info.needs.is_empty() && lacking.len() == info.needs.len() {
            let words: Vec<String> = lacking.into_iter().map(Capability::word).collect();
            return Some(format!("needs {} (see above)", words.join(" or ")));
        }
        let allowed = self.rules.policy().allows(&info.name);
        (!allowed).then(|| "this host's policy does not allow it (fracas-agent policy show)".to_owned())
    }

    fn policy(&self) -> String {
        match self.rules.origin() {
            Origin::Builtin(path) => format!("built-in, for there is no {}", path.display()),
            Origin::File(path) => format!("{}, valid", path.display()),
            Origin::Unusable(path, why) => {
                format!("{}: {why}; until that is mended nothing is allowed", path.display())
            }
            Origin::Given => "given by the program".into(),
        }
    }

    fn directory(&self) -> String {
        let dir = self.dir.display();
        let runs = if self.running { "an agent runs on it" } else { "no agent runs on it" };
        let way_out = "no fault is applied without a journal: make it writable, or choose another with --state-dir";
        match fs::metadata(self.dir) {
            Ok(_) => match access(self.dir, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
                Ok(()) => format!("{dir}, {runs}"),
                Err(e) => format!("{dir}, {runs}; it cannot be written: {e}\n         {way_out}"),
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => format!("{dir}: not there yet, the first start makes it"),
            Err(e) => format!("{dir}: {e}\n         {way_out}"),
        }
    }

    fn journal_bytes(&self) -> u64 {
        fs::metadata(self.dir.join(FILE)).map_or(0, |file| file.len())
    }

    fn clock_text(&self) -> String {
        match &self.clock {
            Ok(clock) if clock.synchronised => format!(
                "synchronised, the kernel says within {} (most likely {})",
                Dur::from_ns(clock.bound_ns).human(),
                Dur::from_ns(clock.estimate_ns).human()
            ),
            Ok(_) => "nobody disciplines it: durations and leases do not need it, but times of day in reports may be off\n         \
                      way out: run chrony, ntpd or systemd-timesyncd"
                .into(),
            Err(e) => format!("the kernel does not say how good it is: {e}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fracas_model::facts::Ability;

    use super::*;
    use crate::service::PolicySource;

    #[test]
    fn what_does_not_work_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let policy = dir.path().join("policy.yaml");
        fs::write(&policy, "apiVersion: fracas/v1\nkind: HostPolicy\nallowFaults: [net-delay, cpu-load]\n").unwrap();
        let no = |why: &str| Ability { works: false, why: why.into(), fix: "mend it".into() };
        let abilities: BTreeMap<Capability, Ability> = [
            (Capability::Cpu, Ability { works: true, why: String::new(), fix: String::new() }),
            (Capability::Netem, no("no sch_netem")),
            (Capability::NftOwner, no("old kernel")),
            (Capability::Systemd, no("systemd does not run this host")),
        ]
        .into();
        let found = Found {
            facts: HostFacts { abilities, ..HostFacts::default() },
            rules: Rules::read(PolicySource::File(policy)),
            dir: dir.path(),
            look: Look::into_dir(dir.path()),
            running: false,
            clock: Ok(WallClock { synchronised: false, bound_ns: 16_000_000_000, estimate_ns: 0 }),
        };
        let text = found.text();
        for part in [
            "why: no sch_netem",
            "fix: mend it",
            "net-delay: needs netem or nft-owner (see above)",
            "service-stop: needs systemd",
            "process-kill: this host's policy does not allow it",
            "journal  whole",
            "0 bytes, 0 open",
            "nobody disciplines it",
            "chrony",
        ] {
            assert!(text.contains(part), "{part} is missing:\n{text}");
        }
        assert!(text.lines().any(|l| l.starts_with("faults that work here:") && l.contains("cpu-load")), "{text}");
        let json = found.json();
        let kill = json["faults"].as_array().unwrap().iter().find(|f| f["name"] == "process-kill").unwrap();
        assert_eq!((kill["works"].as_bool(), json["clock"]["synchronised"].as_bool()), (Some(false), Some(false)));
    }
}
