//! Starting runs beside each other: a host suffers for one run at a time, and a request that comes twice is one run.

use fracas_model::{
    catalogue::{Catalogue, FaultInfo, Nature},
    facts::HostFacts,
    time::{ClockId, Stamp},
};

use super::*;
use crate::{
    clock::ManualClock,
    fleet::{Connection, Offer},
    store::memory::MemoryStore,
};

const DOCUMENT: &str = "apiVersion: fracas/v1
kind: Experiment
name: x
targets: { db: { select: role=db } }
timeline: [{ id: slow, at: 0s, for: 10s, target: db, fault: { slow: {} } }]
limits: { maxTargets: 1 }
";

fn stamp() -> Stamp {
    Stamp { clock: ClockId { host: "c".into(), boot: "b".into() }, boot_ns: 0, wall_ns: 0, bound_ns: -1 }
}

async fn rig() -> (Runs, Fleet) {
    rig_where(|_| ()).await
}

/// Where something happens to the fleet while a rehearsal goes on.
async fn rig_where(meanwhile: fn(&Fleet)) -> (Runs, Fleet) {
    let history = History::open(Arc::new(MemoryStore::new()), Arc::new(ManualClock::new(stamp()))).await.unwrap();
    let fleet = Fleet::new(history.epoch());
    let fault = FaultInfo {
        name: "slow".into(),
        summary: String::new(),
        help: String::new(),
        params: vec![],
        nature: Nature::Lasting,
        needs: vec![],
        example: String::new(),
    };
    let catalogue = Arc::new(Catalogue { faults: vec![fault], ..Catalogue::default() });
    fleet.record(&"h".into(), |record| {
        record.name = "db-1".into();
        record.labels = [("role".to_owned(), "db".to_owned())].into();
    });
    let offer = Offer { catalogue, ..Offer::default() };
    let session = fleet.connect(&"h".into(), HostFacts::default(), offer, stamp()).unwrap();
    tokio::spawn(agent(fleet.clone(), session, meanwhile));
    (Runs::new(history, fleet.clone(), "audit/c".into(), 1), fleet)
}

/// Says to every rehearsal that nothing stands in its way.
async fn agent(fleet: Fleet, mut session: Connection, meanwhile: fn(&Fleet)) {
    while session.desired.changed().await.is_ok() {
        let faults = session.desired.borrow_and_update().faults.clone();
        for item in faults.into_iter().filter(|item| item.mode == Mode::Rehearse) {
            meanwhile(&fleet);
            let answer = Rehearsal { item: item.key, plan: None, refusals: vec![], digest: String::new() };
            fleet.rehearsed(&"h".into(), answer);
        }
    }
}

fn request(key: &str) -> Request {
    Request {
        source: DOCUMENT.into(),
        source_name: "x".into(),
        environment: "default".into(),
        idempotency_key: key.into(),
        ..Request::default()
    }
}

#[tokio::test]
async fn a_host_suffers_for_one_run_at_a_time() {
    let (runs, fleet) = rig().await;
    let (one, two) = (request("one"), request("two"));
    let both = tokio::join!(runs.start(&one), runs.start(&two));
    let (run, refused) = match both {
        (Ok(run), Err(refused)) | (Err(refused), Ok(run)) => (run, refused),
        other => panic!("one of them starts: {other:?}"),
    };
    let RunError::Refused(refusals) = refused else { panic!("{refused:?}") };
    assert!(refusals[0].to_string().contains(&format!("run {run} has host db-1 for a fault")), "{refusals:?}");
    // Later it is not even drawn.
    let RunError::Refused(refusals) = runs.start(&request("three")).await.unwrap_err() else { panic!() };
    assert!(refusals[0].to_string().contains(&format!("db-1: run {run} has it for a fault")), "{refusals:?}");
    let wrong = Request { source: "kind: Nothing".into(), ..request("four") };
    assert!(matches!(runs.start(&wrong).await, Err(RunError::Document(_))));
    fleet.halt(Some("enough".into()));
    assert!(matches!(runs.start(&request("five")).await, Err(RunError::Refused(_))));
    let counted: Vec<_> = runs.refused().all().collect();
    assert_eq!(counted, [("document", 1), ("halted", 1), ("refused", 2)]);
}

#[tokio::test]
async fn a_host_that_is_cordoned_or_moved_during_the_rehearsal_suffers_nothing() {
    fn cordoned(fleet: &Fleet) {
        fleet.record(&"h".into(), |record| record.cordoned = Some("kernel".into()));
    }
    fn moved(fleet: &Fleet) {
        let place = (crate::enrol::ENVIRONMENT_LABEL.to_owned(), "prod".to_owned());
        fleet.record(&"h".into(), |record| record.labels.extend([place]));
    }
    for meanwhile in [cordoned, moved] {
        let (runs, fleet) = rig_where(meanwhile).await;
        let RunError::Refused(refusals) = runs.start(&request("one")).await.unwrap_err() else { panic!() };
        assert!(refusals[0].to_string().contains("host db-1 was cordoned, or moved"), "{refusals:?}");
        assert_eq!(fleet.hosts()[&"h".into()].taken, None);
    }
}

#[tokio::test]
async fn a_request_that_comes_twice_is_one_run() {
    let (runs, _fleet) = rig().await;
    let one = request("one");
    let (first, second) = tokio::join!(runs.start(&one), runs.start(&one));
    assert_eq!(first.unwrap(), second.unwrap());
}

#[tokio::test]
async fn a_run_is_in_the_way_only_where_nothing_else_is() {
    let (runs, _fleet) = rig().await;
    assert_eq!(runs.holders(&request("two")), [], "nobody has the host");
    let run = runs.start(&request("one")).await.unwrap();
    assert_eq!(runs.holders(&request("two")), std::slice::from_ref(&run));
    let without = |gone: &[RunId]| runs.draws_without(&request("two"), &gone.iter().cloned().collect());
    assert!(!without(&[]) && without(&[run]));
    // The host is taken too, and that is not what a wait would help against.
    let source = DOCUMENT.replace("targets: {", "targets: { web: { select: role=web },");
    assert_eq!(runs.holders(&Request { source, ..request("three") }), []);
}
