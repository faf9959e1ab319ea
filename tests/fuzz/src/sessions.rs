//! What an agent may send: a whole session over a real stream, and reports straight into the history. Whatever a host
//! says, its run folds, its report builds and the history verifies.

use std::{collections::BTreeMap, sync::Mutex};

use fracas_controller::{
    controller::Controller,
    driver::blobs,
    history::{History, Reported},
    listen::{Conn, Peer},
    store::memory::MemoryStore,
    verify::verify,
};
use fracas_model::{
    event::{Body, Event},
    report,
    run::Run,
};
use fracas_proto::{
    PROTOCOL, to_json,
    v1::{
        AgentMessage, Hello, Rehearsed, Renew, Report, ReportedEvent, TakenDesired, agent_message::Message,
        fleet_client::FleetClient,
    },
};
use fracas_sim::fixture;
use prost::Message as _;
use tonic::transport::Endpoint;

use crate::{
    Target, events,
    world::{self, HOSTS, catalogue},
};

pub(crate) const SESSION: Target = Target { name: "session", take: session, seeds: sessions };
pub(crate) const REPORT: Target = Target { name: "report", take: report, seeds: reports };

/// The run that both hosts take part in.
const RUN: &str = "run/r1";

async fn with_run(store: &MemoryStore) -> Controller {
    let controller = world::controller(store.clone()).await;
    controller.history().append(RUN, vec![events::planned()]).await.expect("planned");
    controller.fleet().join(&"r1".into(), world::small().experiment.lease, &HOSTS.map(Into::into));
    controller
}

/// All that is made of a history afterwards.
async fn aftermath(history: &History, store: &MemoryStore) {
    let events = history.read(RUN, 0).await.expect("readable");
    judge(&events, &blobs(history, &events).await.expect("readable"));
    let found = verify(store, Vec::new(), &[]).await.expect("verified");
    assert!(found.whole(), "{found:?}");
}

/// Folds a history, asks what is next, and reports on it.
pub(crate) fn judge(history: &[Event], readings: &BTreeMap<String, fracas_model::event::Readings>) {
    let Ok(run) = Run::fold(history) else { return };
    for later_ns in [0, 1_000_000_000, 86_400_000_000_000] {
        let decision = run.decide(&world::stamp("c", 2_000_000_000 + later_ns));
        assert!(decision.append.len() < 1000, "{} decisions at once", decision.append.len());
    }
    let resting = run.resting(&world::stamp("c", 2_000_000_000));
    for host in run.hosts() {
        run.desired_faults(&host);
        run.desired_probes(&host, &resting);
        run.desired_ledgers(&host);
    }
    let report = report::build(history, readings);
    let bytes = serde_json::to_vec(&report).expect("a report is JSON");
    assert!(bytes.len() < world::LONGEST, "a report of {} bytes", bytes.len());
    let again: report::Report = serde_json::from_slice(&bytes).expect("a report reads its own JSON");
    assert_eq!(again.verdict.word, report.verdict.word);
}

/// Parts are messages, decoded; a part that is none is left out. The first byte says whether a good Hello comes first.
fn session(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let mut says: Vec<AgentMessage> = (first % 4 != 0).then(|| said(Message::Hello(hello()))).into_iter().collect();
    says.extend(world::parts(data).into_iter().filter_map(|part| AgentMessage::decode(part).ok()));
    world::run(async {
        let store = MemoryStore::new();
        let controller = with_run(&store).await;
        talk(&controller, says).await;
        aftermath(controller.history(), &store).await;
    });
}

/// Says all this to the controller's real service, and hears what it answers until that is silent.
async fn talk(controller: &Controller, says: Vec<AgentMessage>) {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let peer = Peer { host: Some(HOSTS[0].into()), ..Peer::default() };
    let incoming =
        tokio_stream::StreamExt::chain(tokio_stream::iter([Ok(Conn::plain(theirs, peer))]), tokio_stream::pending());
    let ours = Mutex::new(Some(ours));
    let connector = tower::service_fn(move |_| {
        let ours = ours.lock().expect("no holder panics").take();
        async move { ours.map(hyper_util::rt::TokioIo::new).ok_or_else(|| std::io::Error::other("once")) }
    });
    let heard = async {
        let channel = Endpoint::from_static("http://controller").connect_with_connector(connector).await?;
        let outgoing = tokio_stream::StreamExt::chain(tokio_stream::iter(says), tokio_stream::pending());
        let mut incoming = FleetClient::new(channel).session(outgoing).await?.into_inner();
        while let Ok(Ok(Some(answer))) =
            tokio::time::timeout(std::time::Duration::from_secs(1), incoming.message()).await
        {
            assert!(answer.encoded_len() < world::LONGEST);
        }
        Ok::<_, Box<dyn std::error::Error>>(())
    };
    let serving = controller.serve_fleet(incoming, world::gate(controller), std::future::pending());
    tokio::select! {
        biased;
        _ = heard => {}
        served = serving => panic!("the controller serves no more: {served:?}"),
    }
}

fn said(message: Message) -> AgentMessage {
    AgentMessage { message: Some(message) }
}

fn hello() -> Hello {
    Hello {
        protocol: PROTOCOL,
        agent_version: "0.1.0".into(),
        boot_id: "b".into(),
        facts_json: to_json(&fixture::host_facts()),
        catalogue_json: to_json(&fracas_model::catalogue::Catalogue::default()),
        ..Hello::default()
    }
}

fn reported() -> Vec<ReportedEvent> {
    let event = |(seq, (body, blob)): (u64, (Body, Vec<u8>))| ReportedEvent {
        seq,
        stream: RUN.to_owned(),
        body: serde_json::to_vec(&body).expect("JSON"),
        blob,
    };
    (1..).zip(events::of_a_host()).map(event).collect()
}

fn sessions() -> Vec<Vec<u8>> {
    let renew = Renew { boot_ns: 5, wall_ns: 6, bound_ns: -1, open_items: 1, journal_trouble: "torn".into() };
    let rehearsal = fracas_model::event::Rehearsal {
        item: events::item(0, 0),
        plan: None,
        refusals: vec![fracas_model::plan::Refusal::new("no", "another")],
        digest: String::new(),
    };
    // All of it is longer than any input.
    let mut first = catalogue().clone();
    first.faults.truncate(1);
    first.probes.truncate(1);
    let full = Hello { catalogue_json: to_json(&first), epoch: 1, revision: 2, ..hello() };
    let all = [
        vec![Message::Hello(full)],
        vec![Message::Renew(renew), Message::Taken(TakenDesired { epoch: 1, revision: 1 })],
        vec![Message::Report(Report { outbox: "o".into(), events: reported() })],
        vec![Message::Rehearsed(Rehearsed { rehearsal_json: to_json(&rehearsal) })],
    ];
    let seed = |(first, says): (u8, Vec<Message>)| {
        let parts: Vec<Vec<u8>> = says.into_iter().map(|message| said(message).encode_to_vec()).collect();
        [vec![first], world::joined(parts.iter().map(Vec::as_slice))].concat()
    };
    (0..).zip(all).map(seed).collect()
}

/// Parts are facts as JSON; one that begins with a zero byte is the blob of the fact before.
fn report(data: &[u8]) {
    let mut facts: Vec<Reported> = Vec::new();
    for part in world::parts(data) {
        match (part, facts.last_mut()) {
            ([0, blob @ ..], Some(last)) => sealed(last, blob),
            _ => {
                let seq = facts.len() as u64 + 1;
                facts.push(Reported { seq, stream: RUN.to_owned(), body: part.to_vec(), blob: None });
            }
        }
    }
    let mut halves = [facts.split_off(facts.len() / 2), facts];
    halves.reverse();
    world::run(async {
        let store = MemoryStore::new();
        let history = world::history(store.clone()).await;
        history.append(RUN, vec![events::planned()]).await.expect("planned");
        for half in halves {
            let takes_part = |stream: &str| stream == RUN;
            let taken = history.ingest(&HOSTS[0].into(), "o", half, &takes_part).await;
            taken.expect("a report in order is taken, its bad facts dropped");
        }
        aftermath(&history, &store).await;
    });
}

/// Gives a fact its blob, with the digest that it must have, which no fuzzer finds.
fn sealed(fact: &mut Reported, blob: &[u8]) {
    use fracas_controller::chain::{hex, sha256};
    if let Ok(Body::ReadingsSealed { probe, between, ok, failed, at, .. }) = serde_json::from_slice(&fact.body) {
        let body = Body::ReadingsSealed { probe, digest: hex(&sha256(blob)), between, ok, failed, at };
        fact.body = serde_json::to_vec(&body).expect("JSON");
    }
    fact.blob = Some(blob.to_vec());
}

fn reports() -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    for event in reported() {
        parts.push(event.body);
        if !event.blob.is_empty() {
            parts.push([&[0], &event.blob[..]].concat());
        }
    }
    let one = |part: &Vec<u8>| world::joined([part.as_slice()]);
    let mut seeds: Vec<Vec<u8>> = parts.iter().map(one).collect();
    seeds.push(world::joined(parts.iter().map(Vec::as_slice)));
    seeds
}
