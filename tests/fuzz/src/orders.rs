//! What a controller may send to an agent: whatever is desired, granted and taken back, the host is clean in the end.

use fracas_agent::{
    host::Host as _,
    reconcile::{Fault, Reconciler, Setup},
};
use fracas_model::{desired::Desired, id::ItemKey, policy::Policy, units::Dur};
use fracas_proto::{
    from_json, to_json,
    v1::{ControllerMessage, Desired as Wire, Grant, controller_message::Message},
};
use fracas_sim::{crash::Crash, fake_disk::FakeDisk, fake_host::FakeHost, fixture};
use prost::Message as _;

use crate::{Target, world};

pub(crate) const ORDERS: Target = Target { name: "orders", take, seeds };

/// The shortest and the longest lease an agent takes, as its session has them.
const LEASES: (Dur, Dur) = (Dur::from_secs(1), Dur::from_secs(86_400));
/// Ticks until nothing more may be left, a second apart.
const PATIENCE: usize = 120;

/// An agent with all real faults on a host in memory.
pub(crate) async fn agent(host: &FakeHost, disk: &FakeDisk) -> Reconciler<FakeHost, FakeDisk> {
    let setup = Setup {
        policy: Policy::builtin(),
        facts: fixture::host_facts(),
        faults: faults(),
        agent_version: "0.0.0".into(),
        fleet: "f".into(),
    };
    let mut agent = Reconciler::open(host.clone(), disk.clone(), setup).await;
    agent.recover().await;
    agent
}

fn faults() -> &'static [&'static dyn Fault] {
    fracas_faults::ALL
}

/// Parts are messages, decoded, a second apart; the first byte says how long each tick is in coming.
fn take(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let messages = world::parts(data).into_iter().filter_map(|part| ControllerMessage::decode(part).ok());
    world::run(async {
        let (host, disk) = (FakeHost::new("sim", Crash::default()), FakeDisk::default());
        let clean = host.world();
        let mut agent = agent(&host, &disk).await;
        for message in messages {
            heed(&mut agent, &host, message).await;
            agent.tick().await;
            host.advance(Dur::from_ms(i64::from(*first) * 50));
            drain(&mut agent);
        }
        // Nobody is heard of again; no lease is longer than this.
        host.advance(LEASES.1);
        for _ in 0..PATIENCE {
            agent.tick().await;
            drain(&mut agent);
            host.advance(Dur::from_secs(1));
        }
        assert_eq!(agent.open_items(), Vec::<ItemKey>::new(), "open without a lease");
        assert_eq!(host.world(), clean, "something of ours is left on the host");
    });
}

/// As a session does it.
async fn heed(agent: &mut Reconciler<FakeHost, FakeDisk>, host: &FakeHost, message: ControllerMessage) {
    match message.message {
        Some(Message::Grant(grant)) => {
            let lease = Dur::from_ms(i64::from(grant.lease_ms)).min(LEASES.1);
            agent.lease().grant(host.now().boot_ns, grant.echo_boot_ns, lease);
        }
        Some(Message::Desired(desired)) => {
            let Ok(mut desired) = from_json::<Desired>("desired", &desired.desired_json) else { return };
            desired.lease = desired.lease.clamp(LEASES.0, LEASES.1);
            agent.newer().hear(&desired);
            // What is older than what was taken is refused, and nothing else is.
            let _ = agent.take(desired).await;
        }
        Some(Message::Welcome(_) | Message::Ack(_)) | None => {}
    }
}

fn drain(agent: &mut Reconciler<FakeHost, FakeDisk>) {
    let told = agent.drain_events();
    assert!(told.iter().all(|(stream, _)| stream.starts_with("run/")), "{told:?}");
    agent.drain_rehearsals();
}

fn seeds() -> Vec<Vec<u8>> {
    let grant = || Message::Grant(Grant { echo_boot_ns: 1_000_000_000, lease_ms: 60_000, ..Grant::default() });
    let order = |revision: u64, faults: &[&str]| {
        let item = |(at, name): (usize, &&str)| {
            let info = world::catalogue().fault(name).expect("a fault");
            fracas_model::desired::FaultItem {
                params: fixture::example(info),
                ..fixture::item(&format!("e{at}"), name)
            }
        };
        let items = faults.iter().enumerate().map(item).collect();
        Message::Desired(Wire { desired_json: to_json(&fixture::desired(revision, items)) })
    };
    let names: Vec<&str> = faults().iter().map(|fault| fault.info().name).map(|name| &*name.leak()).collect();
    let mut all: Vec<Vec<Message>> = names.iter().map(|name| vec![grant(), order(1, &[name]), order(2, &[])]).collect();
    all.push(vec![grant(), order(1, &names), order(2, &names[..2]), grant(), order(3, &[])]);
    let seed = |says: Vec<Message>| {
        let message = |message| ControllerMessage { message: Some(message) }.encode_to_vec();
        let parts: Vec<Vec<u8>> = says.into_iter().map(message).collect();
        [vec![4], world::joined(parts.iter().map(Vec::as_slice))].concat()
    };
    all.into_iter().map(seed).collect()
}
