//! Whether an item may be applied here, and by which plan. The same questions answer a rehearsal; nothing is changed.

use fracas_faults::Fault;
use fracas_model::{
    catalogue::{FaultInfo, Nature},
    desired::FaultItem,
    digest,
    event::Rehearsal,
    facts::Facts,
    id::ItemKey,
    plan::{Claim, Plan, Refusal},
    units::Dur,
};

use super::{Reconciler, STEP_LIMIT, within};
use crate::{
    disk::Disk,
    host::Host,
    journal::{Trouble, is_spent},
};

/// An item that may be applied.
pub(super) struct Admitted {
    pub(super) plan: Plan,
    pub(super) slot: u16,
    pub(super) duration: Option<Dur>,
}

impl<H: Host, D: Disk> Reconciler<H, D> {
    /// Answers the rehearsals that were asked for since the last tick.
    pub(super) async fn rehearse(&mut self) {
        for item in std::mem::take(&mut self.to_rehearse) {
            if self.newer.than(self.taken()) {
                // What is still to be rehearsed is asked again there.
                return;
            }
            let answer = match self.planned(&item).await {
                Ok((admitted, mut refusals)) => {
                    refusals.extend(self.closed_to_orders());
                    refusals.extend(self.clash(&item.key, &admitted.plan.claims));
                    let digest = digest::of_plan(&admitted.plan);
                    Rehearsal { item: item.key, plan: Some(admitted.plan), refusals, digest }
                }
                Err(refusal) => {
                    Rehearsal { item: item.key, plan: None, refusals: vec![refusal], digest: String::new() }
                }
            };
            self.rehearsals.push(answer);
        }
    }

    /// The plan of an item that may be applied now, or why not.
    pub(super) async fn admit(&self, item: &FaultItem) -> Result<Admitted, Refusal> {
        if let Some(refusal) = self.closed_to_orders() {
            return Err(refusal);
        }
        let (admitted, refusals) = self.planned(item).await?;
        if let Some(refusal) = refusals.into_iter().next() {
            return Err(refusal);
        }
        if let Some(expected) = &item.plan_digest
            && *expected != digest::of_plan(&admitted.plan)
        {
            return Err(Refusal::new(
                format!("plan drifted: {} is no longer what was rehearsed ({})", item.fault, admitted.plan.summary),
                "look at what changed on the host, then plan and approve again",
            ));
        }
        match self.clash(&item.key, &admitted.plan.claims) {
            Some(refusal) => Err(refusal),
            None => Ok(admitted),
        }
    }

    /// Why nothing at all is applied here at the moment, if so.
    fn closed_to_orders(&self) -> Option<Refusal> {
        // A journal that cannot be written is tried once more when the plan is to be kept.
        let spoiled = self.journal.trouble().filter(Trouble::hides);
        self.barred.clone().or_else(|| spoiled.map(|trouble| trouble.refusal()))
    }

    /// The plan, and refusals that stand beside it; only a refusal when there is no plan.
    async fn planned(&self, item: &FaultItem) -> Result<(Admitted, Vec<Refusal>), Refusal> {
        let fault = self.setup.faults.iter().find(|f| f.info().name == item.fault).ok_or_else(|| {
            Refusal::new(
                format!("fault {} is not known to this agent", item.fault),
                "bring the agent to the controller's version, or choose a fault it lists",
            )
        })?;
        let info = fault.info();
        info.params_fit(&item.params)?;
        let mut refusals = self.against_policy(item, &info);
        refusals.extend(self.missing(&info));
        let slot =
            self.journal.state().free_slot().ok_or_else(|| {
                Refusal::new("all 65,536 slots of this host are taken", "end some of its faults first")
            })?;
        let facts = self.ask(*fault, item, slot).await?;
        let plan = fault.plan(&item.params, &facts)?;
        if plan.steps.is_empty() {
            return Err(Refusal::new(
                format!("fault {} has nothing to do on this host", item.fault),
                "report this as a bug of the fault's planner",
            ));
        }
        let duration = if is_spent(&plan) { None } else { item.duration };
        Ok((Admitted { plan, slot, duration }, refusals))
    }

    async fn ask(&self, fault: &dyn Fault, item: &FaultItem, slot: u16) -> Result<Facts, Refusal> {
        let base = Facts {
            host: self.setup.facts.clone(),
            policy: self.setup.policy.clone(),
            processes: Vec::new(),
            pid_in_file: None,
            devices: Vec::new(),
            file: None,
            volume: None,
            unit: None,
            own_paths: Vec::new(),
            own_pids: Vec::new(),
            controllers: self.controllers.clone(),
            near_ports: self.near_ports.clone(),
            slot,
        };
        let questions = fault.asks(&item.params);
        within(STEP_LIMIT, self.host.answer(base, &questions)).await.map_err(|failure| {
            Refusal::new(
                format!("what {} must know of the host could not be found out: {failure}", item.fault),
                "look at the host and at the parameters that select the target",
            )
        })
    }

    fn against_policy(&self, item: &FaultItem, info: &FaultInfo) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        let longest = self.setup.policy.max_duration;
        if !self.setup.policy.allows(&info.name) {
            refusals.push(Refusal::new(
                format!("this host's policy does not allow {}", info.name),
                "ask the owner of the host to allow it, or choose other targets",
            ));
        }
        if info.nature == Nature::Lasting {
            match item.duration {
                None => refusals.push(Refusal::new(
                    format!("{} lasts and was given no duration", info.name),
                    "write how long it may last, for example `for: 60s`",
                )),
                Some(asked) if asked <= Dur::ZERO => refusals.push(Refusal::new(
                    format!("{} was given the duration {asked}", info.name),
                    "write a duration above zero",
                )),
                Some(asked) if asked > longest => refusals.push(Refusal::new(
                    format!("{} for {asked} is longer than the {longest} this host's policy allows", info.name),
                    format!("ask for at most {longest}"),
                )),
                Some(_) => {}
            }
        }
        refusals
    }

    /// The ability that is missing, when no way of doing the fault has all it needs.
    fn missing(&self, info: &FaultInfo) -> Option<Refusal> {
        let facts = &self.setup.facts;
        if info.needs.is_empty() || info.needs.iter().any(|way| way.iter().all(|c| facts.can(*c))) {
            return None;
        }
        let first = info.needs.iter().flatten().find(|c| !facts.can(**c))?;
        let (why, fix) = match facts.abilities.get(first) {
            Some(ability) => (format!(": {}", ability.why), ability.fix.clone()),
            None => (String::new(), "see what `fracas hosts` says of this host's abilities".to_owned()),
        };
        Some(Refusal::new(format!("{} needs {}, which this host does not have{why}", info.name, first.word()), fix))
    }

    /// A claim of an open item that cannot hold together with one of these.
    fn clash(&self, key: &ItemKey, claims: &[Claim]) -> Option<Refusal> {
        self.journal.state().open.iter().filter(|(holder, _)| *holder != key).find_map(|(holder, open)| {
            let held = open.plan.claims.iter().find(|held| claims.iter().any(|c| c.clashes(held)))?;
            Some(Refusal::new(
                format!("{} of this host is held by {holder} ({})", named(held), open.fault),
                "wait until that item has ended, or choose other targets",
            ))
        })
    }
}

/// A claim for people.
fn named(claim: &Claim) -> String {
    match claim {
        Claim::Process(pid) => format!("process {pid}"),
        Claim::Core(core) => format!("core {core}"),
        Claim::File(path) => format!("file {path}"),
        Claim::Unit(unit) => format!("unit {unit}"),
        Claim::Space(device) => format!("free space of disk {device}"),
        Claim::Network { direction, dimension, .. } => format!("{direction:?} {dimension}").to_lowercase(),
    }
}
