//! Filters of the netem plane on clsact hooks: setting, removing, and what they and their netem did.

use std::sync::Arc;

use fracas_model::{
    event::Between,
    id::ItemKey,
    plan::{Direction, Filter, Step},
};
use serde_json::{Value, json};

use super::{Tools, cookie, failed, marked, not_ours, share};
use crate::host::{
    Failure, Handle, Reverted,
    clock::Clock,
    net::program::{self, Link as Layer},
    netlink::traffic::{self, Act, Classifier, Found, Hook},
};

/// Handle of a filter that redirects, and of the one that counts beside one that loses.
const FIRST: u32 = 1;
/// Handle of a filter that loses. Later filters of one priority look first, so what is lost is not counted twice.
const SECOND: u32 = 2;

/// What the filters of an item and the netem behind them did since they were set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Suffered {
    /// Packets that matched.
    pub matched: u64,
    /// Of those, lost on purpose by a filter.
    pub lost: u64,
    /// Packets held by netem now.
    pub held: u64,
    /// Packets that netem let go.
    pub released: u64,
    /// Packets that netem dropped: the asked ones if its effect is loss, else for want of room, which nobody asked for.
    pub dropped: u64,
    /// Times that a filter could not hand a packet over.
    pub overlimits: u64,
}

/// What an item's packets suffered so far, over all its devices. Needs nothing but the kernel's own counts.
pub fn suffered(key: &ItemKey) -> Result<Suffered, Failure> {
    let mut tools = Tools::open(&Arc::default())?;
    let (mine, mut sum, mut ifbs) = (cookie(key), Suffered::default(), Vec::new());
    let disciplines = tools.traffic.disciplines().map_err(failed("list qdiscs"))?;
    for device in disciplines.iter().filter(|d| d.handle == traffic::SIDE) {
        for hook in [Hook::Ingress, Hook::Egress] {
            let found = tools.traffic.filters(device.index, hook).map_err(failed("list filters"))?;
            for filter in found.into_iter().filter(|f| f.cookie == mine) {
                sum.matched += filter.counts.packets;
                sum.overlimits += u64::from(filter.counts.overlimits);
                match filter.target {
                    Some(ifb) => ifbs.push(ifb),
                    None if filter.handle == SECOND => sum.lost += filter.counts.packets,
                    None => {}
                }
            }
        }
    }
    for netem in disciplines.iter().filter(|d| d.handle == traffic::NETEM && ifbs.contains(&d.index)) {
        sum.held += u64::from(netem.counts.held);
        sum.released += netem.counts.packets;
        sum.dropped += u64::from(netem.counts.dropped);
    }
    Ok(sum)
}

/// Where a step puts its filters.
struct Place<'a> {
    device: &'a str,
    hook: Hook,
    direction: Direction,
    filter: &'a Filter,
    priority: u16,
}

fn place(step: &Step) -> Result<Place<'_>, Failure> {
    let (Step::Redirect { device, direction, filter, priority, .. }
    | Step::Lose { device, direction, filter, priority, .. }) = step
    else {
        return Err(not_ours(step));
    };
    let hook = if *direction == Direction::Ingress { Hook::Ingress } else { Hook::Egress };
    Ok(Place { device, hook, direction: *direction, filter, priority: *priority })
}

impl Place<'_> {
    fn is(&self, found: &Found, handle: u32) -> bool {
        found.priority == self.priority && found.handle == handle && found.kind == "bpf"
    }
}

impl Tools {
    pub(super) fn filter(&mut self, clock: &Clock, key: &ItemKey, step: &Step) -> Result<(Handle, Between), Failure> {
        let at = place(step)?;
        let link = self.present(at.device)?;
        if link.loopback() {
            return Err(Failure(format!("{} is the loopback device, which always passes", at.device)));
        }
        let side = self.disciplines_of(link.index)?.into_iter().find(|d| d.handle == traffic::SIDE);
        if side.is_none_or(|s| s.kind != "clsact") {
            return Err(Failure(format!("{} has no clsact qdisc", at.device)));
        }
        let program = |part| program::program(at.direction, at.filter, Layer::of(link.hardware), part);
        let wanted = match step {
            Step::Redirect { to, .. } => {
                vec![(FIRST, program(None)?, Act::Redirect(self.present(to)?.index))]
            }
            // What loses all counts all: a packet that came between two filters would look as if it had been spared.
            Step::Lose { percent, .. } if percent.0 >= 100.0 => vec![(SECOND, program(None)?, Act::Vanish)],
            Step::Lose { percent, .. } => {
                let some = program(Some(share(*percent)))?;
                vec![(FIRST, program(None)?, Act::Count), (SECOND, some, Act::Vanish)]
            }
            other => return Err(not_ours(other)),
        };
        let handle = json!({ "index": link.index, "priority": at.priority });
        let from = clock.now();
        for (number, program, act) in wanted {
            let (index, hook, priority) = (link.index, at.hook, at.priority);
            let new = Classifier { index, hook, priority, handle: number, program, act, cookie: cookie(key) };
            self.go.on()?;
            let set = self.traffic.add_filter(&new).map_err(failed(format!("add a filter to {}", at.device)));
            if let Err(failure) = set.and_then(|()| self.took(&new)) {
                self.unfilter(key, step, &handle)?;
                return Err(failure);
            }
        }
        Ok((handle, clock.since(from)))
    }

    /// Reads back a filter just set.
    fn took(&mut self, new: &Classifier) -> Result<(), Failure> {
        let all = self.traffic.filters(new.index, new.hook).map_err(failed("list filters"))?;
        let target = if let Act::Redirect(to) = new.act { Some(to) } else { None };
        let same = |f: &&Found| f.priority == new.priority && f.handle == new.handle && f.cookie == new.cookie;
        match all.iter().find(same) {
            Some(found) if found.target == target => Ok(()),
            found => Err(Failure(format!("a filter was asked for and is not there: {found:?}"))),
        }
    }

    pub(super) fn unfilter(&mut self, key: &ItemKey, step: &Step, handle: &Value) -> Result<Reverted, Failure> {
        let at = place(step)?;
        let Some(link) = self.device(at.device, handle)? else { return Ok(Reverted::NothingThere) };
        let mine = cookie(key);
        let mut outcome = Reverted::NothingThere;
        // The losing one first: it must not act a moment longer than its count.
        for number in [SECOND, FIRST] {
            let before = self.traffic.filters(link.index, at.hook).map_err(failed("list filters"))?;
            let Some(found) = before.iter().find(|f| at.is(f, number)) else { continue };
            if found.cookie != mine {
                if !handle.is_null() {
                    let what = format!("filter {} of {} was replaced by somebody else", at.priority, link.name);
                    outcome = Reverted::Superseded(what);
                }
                continue;
            }
            self.go.on()?;
            match self.traffic.delete_filter(link.index, at.hook, at.priority, number) {
                Err(error) if !error.is_absent() => {
                    return Err(failed(format!("remove a filter from {}", link.name))(error));
                }
                _ => {}
            }
            let after = self.traffic.filters(link.index, at.hook).map_err(failed("list filters"))?;
            if after.iter().any(|f| at.is(f, number) && f.cookie == mine) {
                return Err(Failure(format!("a filter of priority {} is still on {}", at.priority, link.name)));
            }
            outcome = Reverted::Undone;
        }
        Ok(outcome)
    }

    /// The device of a filter of ours that still sends packets to this ifb.
    pub(super) fn feeder(&mut self, ifb: u32) -> Result<Option<String>, Failure> {
        let disciplines = self.traffic.disciplines().map_err(failed("list qdiscs"))?;
        for side in disciplines.iter().filter(|d| d.handle == traffic::SIDE) {
            for hook in [Hook::Ingress, Hook::Egress] {
                let found = self.traffic.filters(side.index, hook).map_err(failed("list filters"))?;
                if found.iter().any(|f| f.target == Some(ifb) && marked(&f.cookie)) {
                    let link = self.links.find_index(side.index).map_err(failed("look up a device"))?;
                    return Ok(Some(link.map_or_else(|| format!("device {}", side.index), |l| l.name)));
                }
            }
        }
        Ok(None)
    }
}
