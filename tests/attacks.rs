//! Attacks from outside on the real controller and real agents, each tried and refused, while an honest operator is served as
//! ever. What those may who are in already is [`crate::people`]'s business, hosts that may not join are [`crate::join`]'s.
//!
//! The attackers are programs in another language, with another gRPC or with bare bytes.

mod elsewhere;
mod flood;
mod names;
mod orders;
mod secrets;

use fracas_sim::{lab::Program, need::Need};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    rig::{DATA, Going, Rig, STATE},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    const NEEDS: &[Need] = &[
        Need::Lab,
        Need::Variable("FRACAS_PYTHON", "a Python with grpcio and grpcio-reflection, as .ci/run makes one"),
    ];
    vec![
        trial("a_flood_of_strangers_disturbs_nobody", NEEDS, flood::flood),
        trial("old_orders_and_old_grants_are_refused", NEEDS, orders::old_orders),
        trial("no_agent_speaks_with_a_false_controller", NEEDS, orders::false_controllers),
        trial("a_hosts_certificate_opens_no_method_of_the_operators", NEEDS, elsewhere::certificate),
        trial("no_method_reaches_into_another_environment", NEEDS, elsewhere::elsewhere),
        trial("bad_access_tokens_open_nothing", NEEDS, elsewhere::bad_tokens),
        trial("names_are_not_paths_and_steer_no_terminal", NEEDS, names::names),
        trial("what_an_agent_claims_gives_it_nothing", NEEDS, names::claims),
        trial("no_secret_is_told_anywhere", &[Need::Lab], secrets::secrets),
    ]
}

const WIRE: &str = include_str!("attacks/wire.py");
/// Where an attacker finds what it got hold of.
const CA: &str = "/run/data/stolen-ca.pem";
const ADMIN: &str = "/run/data/stolen-admin.token";

/// An attacker at work on a host.
fn attacker(rig: &Rig, host: &str, script: &str, words: &[&str]) -> Going {
    let python = std::env::var("FRACAS_PYTHON").expect("checked");
    let program = Program::new(python).args(["-c", &format!("{WIRE}\n{script}")]).args(words.iter().copied());
    rig.go(host, &format!("attacker on {host}"), program)
}

/// What an attacker told, a line for each thing.
fn told(going: Going) -> Vec<Value> {
    going.end(crate::rig::RUN_LIMIT).good().json()
}

/// Copies a file from one host to another.
fn stolen(rig: &Rig, from: &str, path: &str, host: &str, to: &str) {
    rig.keep(host, to, &rig.shell(from, &format!("cat {path}")));
}

/// What everybody may know, and the token by which an attacker learns the interface: with it alone nothing is attacked.
fn knows_the_interface(rig: &Rig, host: &str) {
    stolen(rig, "ctl", &format!("{DATA}/ca.pem"), host, CA);
    stolen(rig, "ctl", &format!("{DATA}/admin.token"), host, ADMIN);
}

/// Files of an agent's key and certificate on its host.
fn identity() -> [String; 2] {
    [format!("{STATE}/key.pem"), format!("{STATE}/cert.pem")]
}

/// A controller whose operators' listener can be reached from other hosts.
fn start_open(rig: &Rig) -> [String; 2] {
    rig.start_controller_as(rig.controller_program(DATA).args(["--front-listen", "0.0.0.0:7766"]));
    ["7766", "7767"].map(|port| format!("{}:{port}", rig.address("ctl")))
}
