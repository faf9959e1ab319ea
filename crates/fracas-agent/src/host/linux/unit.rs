//! The step that stops a systemd unit, its inverse, and whether the unit stands still.

use std::{
    thread,
    time::{Duration, Instant},
};

use fracas_model::event::Measured;
use fracas_model::{
    event::{Between, Proof},
    facts::UnitSeen,
    id::ItemKey,
};
use serde_json::json;

use super::{LinuxHost, aside};
use crate::{
    crash::{self, Boundary},
    host::{
        Failure, Handle, Reverted, processes,
        systemd::{Systemd, Talk, at_rest},
    },
};

/// How long a unit may take to stop or start before the answer is given without it.
const SETTLE: Duration = Duration::from_secs(2);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(20);

impl LinuxHost {
    /// What systemd says of a unit, or why it says nothing.
    pub(super) async fn unit_seen(&self, name: &str) -> Result<Result<UnitSeen, String>, Failure> {
        let (systemd, name) = (self.systemd.clone(), name.to_owned());
        aside(move || look(&systemd, &name)).await
    }

    pub(super) async fn stop_unit(
        &self,
        key: &ItemKey,
        index: usize,
        unit: &str,
    ) -> Result<(Handle, Between), Failure> {
        let (systemd, name, clock) = (self.systemd.clone(), unit.to_owned(), self.clock.clone());
        let before = aside(move || systemd.talk().and_then(|mut talk| talk.active(&name))).await?.map_err(Failure)?;
        if before != "active" {
            self.untouched.borrow_mut().insert((key.clone(), index));
            return Err(Failure(format!("{unit} is {before} already, by somebody else: start it first")));
        }
        let (systemd, name) = (self.systemd.clone(), unit.to_owned());
        self.act(key, move |go| {
            let mut talk = systemd.talk().map_err(Failure)?;
            go.on()?;
            let from = clock.now();
            talk.stop(&name).map_err(Failure)?;
            crash::at(Boundary::AmidStep);
            // One that takes longer goes on stopping; until it has, the fault is not verified.
            settles(&mut talk, &name, at_rest).map_err(Failure)?;
            Ok((json!({ "stopped": true }), clock.since(from)))
        })
        .await
    }

    pub(super) async fn start_unit(
        &self,
        key: &ItemKey,
        index: usize,
        unit: &str,
        handle: Option<&Handle>,
    ) -> Result<Reverted, Failure> {
        let (systemd, name) = (self.systemd.clone(), unit.to_owned());
        let before = aside(move || {
            let mut talk = systemd.talk()?;
            talk.about(&name)
        });
        let (_, load, active, _) = before.await?.map_err(Failure)?;
        let again = self.restarted.borrow().contains(&(key.clone(), index));
        if active == "active" {
            return Ok(match (again, handle) {
                (true, _) => Reverted::Undone,
                (false, Some(_)) => Reverted::Superseded(format!(
                    "{unit} is active: somebody else started it, or an undo that was cut short"
                )),
                (false, None) => Reverted::NothingThere,
            });
        }
        if load != "loaded" {
            return Ok(Reverted::Superseded(format!("{unit} is {load} now: somebody else took it away")));
        }
        self.restarted.borrow_mut().insert((key.clone(), index));
        let (systemd, name) = (self.systemd.clone(), unit.to_owned());
        self.act(key, move |_| {
            let mut talk = systemd.talk().map_err(Failure)?;
            talk.start(&name).map_err(Failure)?;
            crash::at(Boundary::BeforeReadBack);
            match settles(&mut talk, &name, |active| active == "active").map_err(Failure)?.as_str() {
                "active" => Ok(Reverted::Undone),
                other => Err(Failure(format!("{name} was asked to start and is {other}: see systemctl status {name}"))),
            }
        })
        .await
    }

    /// Whether nothing of the unit runs.
    pub(super) async fn unit_stopped(&self, unit: &str) -> (Proof, Vec<Measured>) {
        let (systemd, name) = (self.systemd.clone(), unit.to_owned());
        let looked = aside(move || systemd.talk().and_then(|mut talk| talk.active(&name))).await;
        let proof = match looked {
            Ok(Ok(active)) if at_rest(&active) => Proof::Verified,
            Ok(Ok(active)) if active == "deactivating" => {
                Proof::Unverified { why: format!("{unit} is still about to stop") }
            }
            Ok(Ok(active)) => Proof::Ineffective { why: format!("{unit} is {active}: somebody else started it") },
            Ok(Err(why)) => Proof::Unverified { why },
            Err(failure) => Proof::Unverified { why: failure.0 },
        };
        (proof, Vec::new())
    }
}

fn look(systemd: &Systemd, name: &str) -> Result<UnitSeen, String> {
    let mut talk = systemd.talk()?;
    let (name, load, active, stoppable) = talk.about(name)?;
    let dependents = if active == "active" { talk.dependents(&name)? } else { Vec::new() };
    let ours = processes::own_unit().is_some_and(|own| own == name);
    Ok(UnitSeen { name, load, active, stoppable, dependents, ours })
}

/// Waits a while for a state; gives the last one that was seen.
fn settles(talk: &mut Talk, name: &str, wanted: impl Fn(&str) -> bool) -> Result<String, String> {
    let until = Instant::now() + SETTLE;
    loop {
        let active = talk.active(name)?;
        if wanted(&active) || Instant::now() >= until {
            return Ok(active);
        }
        thread::sleep(LOOK);
    }
}
