//! Tries the netem plane on devices made for it: ifb, netem, clsact, a bpf filter with each action.
//!
//! The devices live in a network namespace of a thread of ours, which takes them along whatever happens; an agent that may
//! not make one does not try. Modules are loaded only as the kernel itself does when one names
//! what they bring.

#![expect(unsafe_code, reason = "a thread of ours gets a network namespace of its own")]

use std::thread;

use fracas_model::plan::{Direction, Filter};
use rustix::{
    io::Errno,
    thread::{UnshareFlags, unshare_unsafe},
};

use super::{Tried, no};
use crate::host::{
    net::program::{Link, program},
    netlink::{
        Error,
        link::Links,
        traffic::{Act, Classifier, Hook, Netem, Traffic},
    },
};

/// What was being tried when it failed: in words, and what brings it.
type Stage = (&'static str, &'static str);

const IFB: Stage = ("no ifb device can be made", "load ifb");
const NETEM: Stage =
    ("netem does not work", "load sch_netem (Red Hat ships it in kernel-modules-extra, Ubuntu in linux-modules-extra)");
const CLSACT: Stage = ("no clsact qdisc can be added", "load sch_ingress");
const REDIRECT: Stage = ("no bpf filter with a redirect can be added", "load cls_bpf and act_mirred");
const LOSE: Stage = ("no bpf filter that drops can be added", "load cls_bpf and act_gact");
const RIGHT: &str = "run the agent as root or give it CAP_NET_ADMIN";

/// Where the trial ended.
enum Broken {
    /// Before it began.
    Apart(Errno),
    /// Doing this.
    At(Stage, Error),
}

/// Sets all of it and looks whether netem took what it was told.
pub fn works() -> Tried {
    // Who lacks the right over our own namespace is told so before the kernel looks for the device.
    let may = Links::open().and_then(|mut links| links.delete("frc-none"));
    if may.is_err_and(|e| e.errno() == Some(Errno::PERM)) {
        return no("devices and qdiscs cannot be changed", RIGHT);
    }
    let apart = thread::Builder::new().name("try-netem".into()).spawn(|| {
        // SAFETY: only this thread's network namespace becomes a new one; descriptors stay shared.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(Broken::Apart)?;
        among(&["a", "b"].map(|end| format!("frct{end}"))).map_err(|(stage, error)| Broken::At(stage, error))
    });
    match apart.map(thread::JoinHandle::join) {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(Broken::Apart(error)))) => no(
            format!("it was not tried: no network namespace can be made to try in ({error})"),
            "run the agent as root or give it CAP_SYS_ADMIN beside CAP_NET_ADMIN",
        ),
        Ok(Ok(Err(Broken::At((what, _), error)))) if error.errno() == Some(Errno::PERM) => {
            no(format!("{what}: {error}"), RIGHT)
        }
        Ok(Ok(Err(Broken::At((what, fix), error)))) => no(format!("{what}: {error}"), fix),
        Ok(Err(_)) | Err(_) => no("the trial of netem broke", "look into the agent's log and report it"),
    }
}

const ALIAS: &str = "fracas trial";

fn among([through, caught]: &[String; 2]) -> Result<(), (Stage, Error)> {
    let at = |stage: Stage| move |error| (stage, error);
    let mut links = Links::open().map_err(at(IFB))?;
    let mut traffic = Traffic::open().map_err(at(IFB))?;
    let through = links.add_ifb(through, ALIAS).map_err(at(IFB))?;
    let caught = links.add_ifb(caught, ALIAS).map_err(at(IFB))?;
    let asked = Netem { delay_ns: 1_000_001, jitter_ns: 1, loss: 1, limit: 1 };
    traffic.add_netem(through, &asked).map_err(at(NETEM))?;
    let set =
        traffic.disciplines().map_err(at(NETEM))?.into_iter().find_map(|d| d.netem.filter(|_| d.index == through));
    if set != Some(asked) {
        let detail = format!("asked for {asked:?} it took {set:?}");
        return Err((NETEM, Error::Refused { errno: Errno::NOTSUP, detail }));
    }
    traffic.add_clsact(caught).map_err(at(CLSACT))?;
    for (handle, act, stage) in [(1, Act::Redirect(through), REDIRECT), (2, Act::Count, LOSE), (3, Act::Vanish, LOSE)] {
        let program = program(Direction::Egress, &Filter::default(), Link::Ethernet, Some(1)).unwrap_or_default();
        let (index, hook, priority, cookie) = (caught, Hook::Egress, 1, [0; 16]);
        let filter = Classifier { index, hook, priority, handle, program, act, cookie };
        traffic.add_filter(&filter).map_err(at(stage))?;
    }
    Ok(())
}
