//! The steps of the netem plane: our ifb, the netem on it, a clsact on a device, filters that send packets through the
//! ifb or lose them. Undone only where the mark in the kernel says that it is ours; it plans nothing.
//!
//! Marks that hold whatever the journal knows: an ifb has the address [`link::OURS`] from its first moment and the item
//! in its alias, netem has our handle, a clsact our overhead, each filter a cookie made from the item. Undo goes
//! filters, clsact, netem, ifb. A packet that netem holds is let go when its time is up, so undoing netem waits for
//! that, [`DRAIN`] at most; what is due later is lost, as at a kill. Jitter reorders packets, as on the other plane.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use fracas_model::{
    event::Between,
    id::ItemKey,
    plan::{Effect, Step},
    units::Percent,
};
use rustix::io::Errno;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{LinuxHost, calls::Go};
use crate::{
    crash::{self, Boundary},
    host::{
        Failure, Handle, Reverted,
        clock::Clock,
        netlink::{
            Error,
            link::{self, Link, Links},
            traffic::{self, Discipline, Hook, Netem, Traffic},
        },
    },
};

mod filters;

pub use filters::{Suffered, suffered};

/// Longest wait for what netem still holds. An undo is cut off after five seconds.
const DRAIN: Duration = Duration::from_secs(4);
/// First bytes of the cookie of each of our filters.
const COOKIE: &[u8; 4] = b"frac";

impl LinuxHost {
    /// Does one of these steps.
    pub(super) async fn shape(&self, key: &ItemKey, step: &Step) -> Result<(Handle, Between), Failure> {
        let (clock, key, step) = (self.clock.clone(), key.clone(), step.clone());
        let item = key.clone();
        self.act(&item, move |go| Tools::open(go)?.apply(&clock, &key, &step)).await
    }

    /// Undoes one of these steps.
    pub(super) async fn unshape(
        &self,
        key: &ItemKey,
        step: &Step,
        handle: Option<&Handle>,
    ) -> Result<Reverted, Failure> {
        let (item, step, handle) = (key.clone(), step.clone(), handle.cloned().unwrap_or_default());
        self.act(key, move |go| Tools::open(go)?.revert(&item, &step, &handle)).await
    }
}

/// Sockets for one step, and whether it is still wanted.
struct Tools {
    links: Links,
    traffic: Traffic,
    go: Arc<Go>,
}

/// What an ifb is called beside its name: the item it serves. The kernel keeps 255 bytes.
fn alias(key: &ItemKey) -> String {
    let mut alias = format!("fracas {key}");
    while alias.len() > 255 {
        alias.pop();
    }
    alias
}

/// What the filters of an item carry.
fn cookie(key: &ItemKey) -> [u8; 16] {
    let digest = Sha256::digest(key.to_string().as_bytes());
    let mut cookie = [0; 16];
    cookie[..4].copy_from_slice(COOKIE);
    cookie[4..].copy_from_slice(&digest[..12]);
    cookie
}

/// Whether a filter with this cookie was made by an agent.
pub fn marked(cookie: &[u8]) -> bool {
    cookie.len() == 16 && cookie.starts_with(COOKIE)
}

/// A failure with what was tried.
fn failed(what: impl std::fmt::Display) -> impl FnOnce(Error) -> Failure {
    move |error| Failure(format!("cannot {what}: {error}"))
}

/// The number of the device that a step was applied to, as its handle says.
fn index_in(handle: &Value) -> Option<u32> {
    handle.get("index")?.as_u64()?.try_into().ok()
}

/// What netem is told for an effect.
///
/// It takes 2^31 - 1 ns of jitter at most (`tabledist` of the kernel counts it in an i32) and would cut more silently.
fn parameters(effect: &Effect, limit: u32) -> Result<Netem, Failure> {
    Ok(match effect {
        Effect::Delay { delay, jitter } => {
            let (delay_ns, jitter_ns) = (delay.ns().max(0).cast_unsigned(), jitter.ns().max(0).cast_unsigned());
            if jitter_ns > i32::MAX as u64 {
                return Err(Failure(format!("netem draws a jitter of 2.147 s at most, {jitter} was asked")));
            }
            Netem { delay_ns, jitter_ns, loss: 0, limit }
        }
        Effect::Loss { percent } => Netem { loss: share(*percent), limit, ..Netem::default() },
    })
}

/// A percentage in units of 2^-32, as netem and classic BPF draw it.
fn share(percent: Percent) -> u32 {
    (percent.0 / 100.0 * f64::from(u32::MAX)).round().clamp(0.0, f64::from(u32::MAX)) as u32
}

impl Tools {
    fn open(go: &Arc<Go>) -> Result<Self, Failure> {
        let open = || Ok(Self { links: Links::open()?, traffic: Traffic::open()?, go: go.clone() });
        open().map_err(failed("speak to the kernel's network"))
    }

    fn apply(&mut self, clock: &Clock, key: &ItemKey, step: &Step) -> Result<(Handle, Between), Failure> {
        let from = clock.now();
        let handle = match step {
            Step::MakeIfb { name } => self.make_ifb(key, name)?,
            Step::MakeNetem { device, effect, limit_packets } => self.make_netem(device, effect, *limit_packets)?,
            Step::MakeClsact { device } => self.make_clsact(device)?,
            Step::Redirect { .. } | Step::Lose { .. } => return self.filter(clock, key, step),
            other => return Err(not_ours(other)),
        };
        crash::at(Boundary::AmidStep);
        Ok((handle, clock.since(from)))
    }

    fn revert(&mut self, key: &ItemKey, step: &Step, handle: &Value) -> Result<Reverted, Failure> {
        let reverted = match step {
            Step::MakeIfb { name } => self.remove_ifb(key, name, handle),
            Step::MakeNetem { device, effect, .. } => self.remove_netem(device, effect, handle),
            Step::MakeClsact { device } => self.remove_clsact(device, handle),
            Step::Redirect { .. } | Step::Lose { .. } => self.unfilter(key, step, handle),
            other => Err(not_ours(other)),
        };
        crash::at(Boundary::BeforeReadBack);
        reverted
    }

    /// The device a step means: the one it was applied to, under whatever name now, else the one of that name.
    fn device(&mut self, name: &str, handle: &Value) -> Result<Option<Link>, Failure> {
        let found = match index_in(handle) {
            Some(index) => self.links.find_index(index),
            None => self.links.find(name),
        };
        found.map_err(failed(format!("look up {name}")))
    }

    /// A device that must be there to be changed.
    fn present(&mut self, name: &str) -> Result<Link, Failure> {
        let found = self.links.find(name).map_err(failed(format!("look up {name}")))?;
        found.ok_or_else(|| Failure(format!("there is no device {name}")))
    }

    fn disciplines_of(&mut self, index: u32) -> Result<Vec<Discipline>, Failure> {
        let all = self.traffic.disciplines().map_err(failed("list qdiscs"))?;
        Ok(all.into_iter().filter(|d| d.index == index).collect())
    }

    fn make_ifb(&mut self, key: &ItemKey, name: &str) -> Result<Handle, Failure> {
        self.go.on()?;
        let index = self.links.add_ifb(name, &alias(key)).map_err(failed(format!("make the ifb {name}")))?;
        Ok(json!({ "index": index }))
    }

    fn remove_ifb(&mut self, key: &ItemKey, name: &str, handle: &Value) -> Result<Reverted, Failure> {
        let Some(link) = self.device(name, handle)? else { return Ok(Reverted::NothingThere) };
        // Between being made and being named it has an address and no alias.
        let ours =
            link.kind == "ifb" && (link.alias == alias(key) || (link.alias.is_empty() && link.address == link::OURS));
        if !ours {
            // After a boot another device may have its number; one of ours keeps its address.
            return Ok(if index_in(handle).is_some() && link.kind == "ifb" && link.address == link::OURS {
                Reverted::Superseded(format!("{} does not say any more that it is ours", link.name))
            } else {
                Reverted::NothingThere
            });
        }
        if let Some(feeder) = self.feeder(link.index)? {
            // Without its device such a filter would drop all that it catches.
            return Err(Failure(format!("{feeder} still sends packets to {}", link.name)));
        }
        self.go.on()?;
        match self.links.delete_index(link.index) {
            Err(error) if !error.is_absent() => return Err(failed(format!("delete {}", link.name))(error)),
            _ => {}
        }
        match self.links.find_index(link.index).map_err(failed(format!("look up {name}")))? {
            None => Ok(Reverted::Undone),
            Some(_) => Err(Failure(format!("{} is still there", link.name))),
        }
    }

    fn make_netem(&mut self, device: &str, effect: &Effect, limit: u32) -> Result<Handle, Failure> {
        let link = self.present(device)?;
        if link.kind != "ifb" || link.address != link::OURS {
            return Err(Failure(format!("{device} is not an ifb of ours; its qdisc is left alone")));
        }
        let asked = parameters(effect, limit)?;
        self.go.on()?;
        self.traffic.add_netem(link.index, &asked).map_err(failed(format!("set netem on {device}")))?;
        let set = self.disciplines_of(link.index)?.iter().find_map(|d| d.netem.filter(|_| d.handle == traffic::NETEM));
        if set != Some(asked) {
            // It stays until the device goes; nothing is sent there yet.
            return Err(Failure(format!("netem on {device} was asked for {asked:?} and took {set:?}")));
        }
        Ok(json!({ "index": link.index }))
    }

    fn remove_netem(&mut self, device: &str, effect: &Effect, handle: &Value) -> Result<Reverted, Failure> {
        let Some(link) = self.device(device, handle)? else { return Ok(Reverted::NothingThere) };
        if link.kind != "ifb" || link.address != link::OURS {
            return Ok(Reverted::NothingThere);
        }
        let longest = match effect {
            Effect::Delay { delay, jitter } => delay.std() + jitter.std() + Duration::from_millis(50),
            Effect::Loss { .. } => Duration::ZERO,
        };
        let until = Instant::now() + longest.min(DRAIN);
        loop {
            let all = self.disciplines_of(link.index)?;
            let Some(root) = all.iter().find(|d| d.parent == traffic::ROOT && d.kind == "netem") else {
                return Ok(Reverted::NothingThere);
            };
            if root.handle != traffic::NETEM {
                return Ok(Reverted::Superseded(format!("{device} has a netem that is not ours")));
            }
            if root.counts.held == 0 || Instant::now() >= until {
                break;
            }
            thread::sleep(Duration::from_millis(2));
        }
        self.go.on()?;
        match self.traffic.delete_netem(link.index) {
            Err(error) if !error.is_absent() => return Err(failed(format!("remove netem from {device}"))(error)),
            _ => {}
        }
        if self.disciplines_of(link.index)?.iter().any(|d| d.kind == "netem") {
            return Err(Failure(format!("netem is still on {device}")));
        }
        Ok(Reverted::Undone)
    }

    fn make_clsact(&mut self, device: &str) -> Result<Handle, Failure> {
        let link = self.present(device)?;
        self.go.on()?;
        let made = match self.traffic.add_clsact(link.index) {
            Ok(()) => true,
            Err(error) if error.errno() == Some(Errno::EXIST) => false,
            Err(error) => return Err(failed(format!("add a clsact qdisc to {device}"))(error)),
        };
        let side = self.disciplines_of(link.index)?.into_iter().find(|d| d.handle == traffic::SIDE);
        match side {
            Some(side) if side.kind == "clsact" => Ok(json!({ "index": link.index, "made": made })),
            Some(side) => Err(Failure(format!("{device} has an {} qdisc, where a clsact cannot be added", side.kind))),
            None => Err(Failure(format!("the clsact qdisc of {device} vanished at once"))),
        }
    }

    fn remove_clsact(&mut self, device: &str, handle: &Value) -> Result<Reverted, Failure> {
        let Some(link) = self.device(device, handle)? else { return Ok(Reverted::NothingThere) };
        let ours = |d: &Discipline| d.handle == traffic::SIDE && d.kind == "clsact" && d.marked;
        if !self.disciplines_of(link.index)?.iter().any(ours) {
            return Ok(Reverted::NothingThere);
        }
        let mut users = Vec::new();
        for hook in [Hook::Ingress, Hook::Egress] {
            users.extend(self.traffic.filters(link.index, hook).map_err(failed("list filters"))?);
        }
        if users.iter().any(|f| !marked(&f.cookie)) {
            let what = format!("others have put filters on the clsact qdisc of {}: it was left", link.name);
            return Ok(Reverted::Superseded(what));
        }
        if !users.is_empty() {
            // Of other items; the last one takes it away.
            return Ok(Reverted::NothingThere);
        }
        self.go.on()?;
        match self.traffic.delete_clsact(link.index) {
            Err(error) if !error.is_absent() => return Err(failed(format!("remove clsact from {device}"))(error)),
            _ => {}
        }
        if self.disciplines_of(link.index)?.iter().any(ours) {
            return Err(Failure(format!("the clsact qdisc is still on {device}")));
        }
        Ok(Reverted::Undone)
    }
}

fn not_ours(step: &Step) -> Failure {
    Failure(format!("{step:?} is not a step of the netem plane"))
}
