//! Sessions as an agent sees them: what a Hello may claim, and what becomes of a controller that is behind its hosts.

use std::collections::BTreeMap;

use fracas_model::{
    desired::Desired as DesiredSet,
    time::{ClockId, Stamp},
};
use fracas_proto::v1::{fleet_client::FleetClient, fleet_server::FleetServer};
use hyper_util::rt::TokioIo;
use tonic::{Code, transport::Endpoint};

use super::*;
use crate::{
    clock::ManualClock,
    enrol::{Later, MadeToken},
    listen::Conn,
    store::{Store, memory::MemoryStore},
};

struct NoGate;

impl Gate for NoGate {
    fn make<'a>(
        &'a self,
        _: u32,
        _: BTreeMap<String, String>,
        _: &'a str,
    ) -> Later<'a, Result<MadeToken, HistoryError>> {
        Box::pin(std::future::ready(Err(crate::store::StoreError::Closed.into())))
    }

    fn enrol(&self, _: EnrolRequest) -> Later<'_, Result<EnrolReply, Status>> {
        Box::pin(std::future::ready(Err(Status::unimplemented("nobody joins here"))))
    }
}

struct Rig {
    store: MemoryStore,
    history: History,
    fleet: Fleet,
    _close: watch::Sender<bool>,
    agents: Agents,
}

async fn rig() -> Rig {
    let clock = ClockId { host: "c".into(), boot: "b".into() };
    let clock = Arc::new(ManualClock::new(Stamp { clock, boot_ns: 0, wall_ns: 0, bound_ns: -1 }));
    let store = MemoryStore::new();
    let history = History::open(Arc::new(store.clone()), clock).await.unwrap();
    let fleet = Fleet::new(history.epoch());
    fleet.record(&"h".into(), |record| record.name = "db-1".into());
    let (close, closing) = watch::channel(false);
    let agents = Agents::new(history.clone(), fleet.clone(), Arc::new(NoGate), 0, closing, SessionMeters::default());
    Rig { store, history, fleet, _close: close, agents }
}

fn hello(epoch: u64, revision: u64) -> Hello {
    Hello {
        protocol: fracas_proto::PROTOCOL,
        agent_version: "0.1.0".into(),
        facts_json: to_json(&HostFacts::default()),
        catalogue_json: to_json(&Catalogue::default()),
        epoch,
        revision,
        ..Hello::default()
    }
}

/// Opens a session that says these things, and gives the first `count` answers, or why it ended before.
async fn session(rig: &Rig, says: Vec<FromAgent>, count: usize) -> Result<Vec<ToAgent>, Status> {
    session_of(rig, Peer { host: Some("h".into()), ..Peer::default() }, says, count).await
}

async fn session_of(rig: &Rig, peer: Peer, says: Vec<FromAgent>, count: usize) -> Result<Vec<ToAgent>, Status> {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let incoming = futures_util::StreamExt::chain(
        futures_util::stream::iter([Ok::<_, std::io::Error>(Conn::plain(theirs, peer))]),
        futures_util::stream::pending(),
    );
    let server = tonic::transport::Server::builder().add_service(FleetServer::new(rig.agents.clone()));
    let serving = tokio::spawn(server.serve_with_incoming(incoming));
    let mut ours = Some(ours);
    let endpoint = Endpoint::from_static("http://controller");
    let channel = endpoint.connect_with_connector(tower::service_fn(move |_| {
        let ours = ours.take();
        async move { ours.map(TokioIo::new).ok_or_else(|| std::io::Error::other("once")) }
    }));
    let mut client = FleetClient::new(channel.await.unwrap());
    let says = says.into_iter().map(|message| AgentMessage { message: Some(message) });
    let outgoing = futures_util::StreamExt::chain(futures_util::stream::iter(says), futures_util::stream::pending());
    let mut answers = Vec::new();
    let mut incoming = client.session(outgoing).await?.into_inner();
    let heard = async {
        while answers.len() < count {
            answers.extend(incoming.message().await?.and_then(|m| m.message));
        }
        Ok(answers)
    };
    let heard = tokio::time::timeout(Duration::from_secs(20), heard).await.expect("an answer in time");
    serving.abort();
    heard
}

fn desired(answer: &ToAgent) -> DesiredSet {
    let ToAgent::Desired(desired) = answer else { panic!("{answer:?}") };
    from_json("desired", &desired.desired_json).unwrap()
}

#[tokio::test]
async fn a_restored_controller_outranks_what_its_hosts_have_taken() {
    for (taken, raised) in [((9, 3), 10), ((1, 40), 2)] {
        let rig = rig().await;
        let answers = session(&rig, vec![FromAgent::Hello(hello(taken.0, taken.1))], 2).await.unwrap();
        assert!(matches!(answers[0], ToAgent::Welcome(_)));
        let desired = desired(&answers[1]);
        assert!((desired.epoch, desired.revision) > taken, "the host would not take {desired:?}");
        assert_eq!((rig.history.epoch(), rig.fleet.mark().0), (raised, raised));
        // It stays the owner of its history, which tells of it, and so it is after the next start.
        let told = rig.history.read("host/h", 0).await.unwrap();
        assert!(matches!(told[0].body, Body::EpochRaised { epoch, taken: t, .. } if epoch == raised && t == taken));
        assert_eq!(rig.store.next_epoch().await.unwrap(), raised + 1);
    }
}

#[tokio::test]
async fn what_was_taken_from_ourselves_raises_nothing() {
    let rig = rig().await;
    rig.fleet.halt(Some("a revision".into()));
    let answers = session(&rig, vec![FromAgent::Hello(hello(1, 1))], 2).await.unwrap();
    assert_eq!((desired(&answers[1]).epoch, rig.history.epoch()), (1, 1));
}

#[tokio::test]
async fn a_controller_that_cannot_outrank_its_host_grants_nothing() {
    let renew = || FromAgent::Renew(Renew { open_items: 1, ..Renew::default() });
    let rig = rig().await;
    rig.store.set_full(true);
    let refused = session(&rig, vec![FromAgent::Hello(hello(9, 3)), renew()], 1).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let why = "the host has taken orders of epoch 9 and this controller is at 1; raising it failed";
    assert!(refused.message().starts_with(why), "{refused}");
    assert!(!rig.fleet.hosts()[&"h".into()].connected);
    // No host can push the number to where it ends.
    rig.store.set_full(false);
    let refused = session(&rig, vec![FromAgent::Hello(hello(u64::MAX, 0)), renew()], 1).await.unwrap_err();
    assert!(refused.message().contains("which no controller can have reached"), "{refused}");
    assert_eq!(rig.history.epoch(), 1);
}

#[tokio::test]
async fn a_host_that_took_anothers_orders_under_way_begins_anew() {
    let rig = rig().await;
    let taken = FromAgent::Taken(fracas_proto::v1::TakenDesired { epoch: 9, revision: 1 });
    let ended = session(&rig, vec![FromAgent::Hello(hello(0, 0)), taken], 3).await.unwrap_err();
    assert_eq!(ended.code(), Code::Aborted);
}

#[tokio::test]
async fn sessions_and_leases_are_counted() {
    let rig = rig().await;
    let SessionMeters { opened, closed, leases } = rig.agents.meters.clone();
    let hello = || FromAgent::Hello(self::hello(0, 0));
    let renew = || FromAgent::Renew(Renew::default());
    // Welcome, desired and two grants, after which the connection breaks.
    session(&rig, vec![hello(), renew(), renew()], 4).await.unwrap();
    session(&rig, vec![hello(), hello()], 3).await.unwrap_err();
    session(&rig, vec![renew()], 1).await.unwrap_err();
    assert_eq!((opened.get(), closed.of("rules"), leases.get()), (2, 1, 2), "the last one never began");
}

#[test]
fn every_end_of_a_session_has_a_word() {
    let words = |closing| {
        let codes = [
            Code::Unavailable,
            Code::DeadlineExceeded,
            Code::Aborted,
            Code::InvalidArgument,
            Code::Unauthenticated,
            Code::PermissionDenied,
            Code::Unknown,
        ];
        let ended = codes.map(|code| end_word(&Err(Status::new(code, "")), closing));
        (end_word(&Ok(()), closing), ended)
    };
    assert_eq!(
        words(false),
        ("left", ["history", "silent", "superseded", "rules", "certificate", "revoked", "broken"])
    );
    assert_eq!(
        words(true),
        ("left", ["shutdown", "silent", "superseded", "rules", "certificate", "revoked", "broken"])
    );
    let meters = SessionMeters::default();
    for closing in [true, false] {
        let (left, ended) = words(closing);
        [left].into_iter().chain(ended).for_each(|word| meters.closed.one(word));
    }
    assert!(meters.closed.all().all(|(_, many)| many > 0), "{meters:?}");
}

#[tokio::test]
async fn a_hello_has_a_size() {
    let rig = rig().await;
    let long = |text: &str, most: usize| format!("{text}{}", " ".repeat(most));
    let mut facts = hello(0, 0);
    facts.facts_json = long(&facts.facts_json, HELLO_TEXTS.0);
    let mut catalogue = hello(0, 0);
    catalogue.catalogue_json = long(&catalogue.catalogue_json, HELLO_TEXTS.1);
    for (what, hello) in [("facts", facts), ("catalogue", catalogue)] {
        let refused = session(&rig, vec![FromAgent::Hello(hello)], 1).await.unwrap_err();
        assert!(refused.code() == Code::InvalidArgument && refused.message().starts_with(what), "{refused}");
    }
}

#[tokio::test]
async fn a_forgotten_host_is_told_so() {
    let rig = rig().await;
    rig.fleet.drop_host(&"h".into());
    let refused = session(&rig, vec![FromAgent::Hello(hello(0, 0))], 1).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("was forgotten here"), "{refused}");
}

fn renew() -> FromAgent {
    FromAgent::Renew(Renew::default())
}

/// Says hello as this process from that address, and answers.
async fn lives(rig: &Rig, instance: &str, port: u16) -> Result<Vec<ToAgent>, Status> {
    let peer = Peer { host: Some("h".into()), address: Some(([10, 0, 0, 1], port).into()), ..Peer::default() };
    let hello = Hello { instance: instance.into(), ..hello(0, 0) };
    session_of(rig, peer, vec![FromAgent::Hello(hello), renew()], 3).await
}

fn duplicated(events: &[fracas_model::event::Event]) -> Vec<&str> {
    let mut found = Vec::new();
    for event in events {
        if let Body::HostDuplicated { why, .. } = &event.body {
            found.push(why.as_str());
        }
    }
    found
}

#[tokio::test]
async fn two_agents_with_one_identity_are_seen_and_any_number_of_restarts_is_one() {
    let rig = rig().await;
    for life in 0..30 {
        for _ in 0..2 {
            lives(&rig, &format!("life-{life}"), 1).await.unwrap();
        }
    }
    // An older agent says nothing of itself.
    lives(&rig, "", 1).await.unwrap();
    lives(&rig, "", 1).await.unwrap();
    lives(&rig, "a", 1).await.unwrap();
    assert_eq!(rig.fleet.hosts()[&"h".into()].duplicate, None);
    lives(&rig, "b", 2).await.unwrap();
    lives(&rig, "a", 1).await.unwrap();
    let why = "two agents use its certificate, one at 10.0.0.1:1 and one at 10.0.0.1:2";
    assert_eq!(rig.fleet.hosts()[&"h".into()].duplicate.as_deref(), Some(why));
    assert_eq!(duplicated(&rig.history.read("host/h", 0).await.unwrap()), [why]);
    // After the next start too, until a person has seen to it.
    let next = crate::controller::Controller::open(rig.history.clone(), &"c".into(), 1).await.unwrap();
    assert_eq!(next.fleet().hosts()[&"h".into()].duplicate.as_deref(), Some(why));
}

#[tokio::test]
async fn what_a_copy_tells_of_the_faults_it_was_copied_with_is_not_believed() {
    let rig = rig().await;
    let caller = Caller { instance: "a".into(), address: "10.0.0.1:1".into() };
    let connect = |caller| {
        let (facts, at) = (HostFacts::default(), rig.history.now());
        rig.fleet.connect_as(&"h".into(), caller, facts, Offer::default(), at).unwrap()
    };
    let first = connect(caller.clone());
    rig.fleet.lives(&"h".into(), first.number);
    rig.fleet.record(&"h".into(), |record| record.quarantined = Some("r".into()));
    let report = FromAgent::Report(Report { outbox: "o".into(), events: vec![] });
    let hello = || FromAgent::Hello(Hello { instance: "b".into(), ..hello(0, 0) });
    let answers = session(&rig, vec![hello(), report.clone(), renew()], 3).await.unwrap();
    assert!(matches!(answers[2], ToAgent::Grant(_)), "no report is acknowledged: {answers:?}");
    assert!(rig.fleet.hosts()[&"h".into()].quarantined.is_some(), "nor is it clean on its word");
    // Unless nobody else is heard of: an honest one is only late.
    connect(caller);
    let says = vec![FromAgent::Hello(Hello { instance: "c".into(), ..self::hello(0, 0) }), report, renew()];
    let answers = session(&rig, says, 4).await.unwrap();
    assert!(answers.iter().any(|answer| matches!(answer, ToAgent::Ack(_))), "{answers:?}");
}

#[tokio::test]
async fn an_earlier_certificate_opens_nothing_and_one_of_a_later_life_of_the_controller_does() {
    let rig = rig().await;
    let with = |serial: &str| Peer { host: Some("h".into()), serial: Some(serial.into()), ..Peer::default() };
    let open =
        async |serial: &str| session_of(&rig, with(serial), vec![FromAgent::Hello(hello(0, 0)), renew()], 3).await;
    for serial in ["01", "02"] {
        rig.fleet.certificate_signed(&"h".into(), serial, None, 0);
    }
    open("01").await.unwrap();
    open("02").await.unwrap();
    open("02").await.unwrap();
    let used = rig.history.read("host/h", 0).await.unwrap();
    assert!(
        matches!(&used[..], [event] if matches!(&event.body, Body::HostCertificateUsed { serial, superseded, .. }
        if serial == "02" && superseded == "01")),
        "{used:?}"
    );
    let refused = open("01").await.unwrap_err();
    assert!(refused.code() == Code::PermissionDenied && refused.message().contains("was renewed"), "{refused}");
    assert!(rig.fleet.hosts()[&"h".into()].duplicate.is_some());
    // This history is a copy from before that one was signed.
    open("77").await.unwrap();
    assert_eq!(open("02").await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_session_ends_with_its_certificate_and_little_life_is_told_once() {
    let rig = rig().await;
    let until = |until_s| Peer {
        host: Some("h".into()),
        serial: Some("01".into()),
        validity: Some(fracas_model::identity::Validity { from_s: -1000, until_s }),
        ..Peer::default()
    };
    let says = || vec![FromAgent::Hello(hello(0, 0)), renew(), renew()];
    let answers = session_of(&rig, until(100), says(), 4).await.unwrap();
    let ToAgent::Welcome(welcome) = &answers[0] else { panic!("{answers:?}") };
    assert_eq!((welcome.certificate_left_ms, welcome.certificate_life_ms), (100_000, 550_000));
    session_of(&rig, until(100), says(), 4).await.unwrap();
    let told = rig.history.read("host/h", 0).await.unwrap();
    let low = told.iter().filter(|event| matches!(event.body, Body::HostCertificateLow { until_s: 100, .. }));
    assert_eq!(low.count(), 1);
    let over = session_of(&rig, until(-1), says(), 1).await.unwrap_err();
    assert!(over.code() == Code::Unauthenticated && over.message().contains("is over"), "{over}");
}

#[test]
fn a_host_is_clean_only_if_it_knows_what_it_did() {
    let clean = Renew::default();
    assert!(says_clean(&clean));
    assert!(!says_clean(&Renew { open_items: 1, ..clean.clone() }));
    assert!(!says_clean(&Renew { journal_trouble: "the journal is damaged at byte 20".into(), ..clean }));
}

mod older;
