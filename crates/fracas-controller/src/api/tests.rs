//! Calls of operators: what they may change, what they are told, and callers that go away half-way.

use std::time::Duration;

use fracas_model::{
    event::VerdictWord,
    time::{ClockId, Stamp},
};
use fracas_proto::v1::operator_server::Operator as _;
use tonic::Code;

use super::*;
use crate::{
    chain::{hex, sha256},
    clock::ManualClock,
    enrol::{Later, MadeToken},
    feeds::Links,
    fleet::Offer,
    history::{Extra, Fact},
    store::memory::MemoryStore,
};

const AUDIT: &str = "audit/c";

struct NoGate;

impl Gate for NoGate {
    fn make<'a>(
        &'a self,
        _: u32,
        _: BTreeMap<String, String>,
        _: &'a str,
    ) -> Later<'a, Result<MadeToken, HistoryError>> {
        Box::pin(std::future::ready(Err(StoreError::Closed.into())))
    }

    fn enrol(&self, _: fracas_proto::v1::EnrolRequest) -> Later<'_, Result<fracas_proto::v1::EnrolReply, Status>> {
        Box::pin(std::future::ready(Err(Status::unimplemented("nobody joins here"))))
    }
}

async fn api(store: &MemoryStore) -> Api {
    let clock = Arc::new(ManualClock::new(stamp()));
    let history = History::open(Arc::new(store.clone()), clock).await.unwrap();
    let fleet = Fleet::new(history.epoch());
    let runs = Runs::new(history.clone(), fleet.clone(), AUDIT.to_owned(), 1);
    let schedules = Schedules::new(history.clone(), runs.clone());
    let feeds = Feeds::new(history.clone(), schedules.clone(), AUDIT.to_owned(), Links::default());
    Api::new(runs, schedules, feeds, history, fleet, AUDIT.to_owned(), Arc::new(NoGate))
}

fn stamp() -> Stamp {
    Stamp { clock: ClockId { host: "c".into(), boot: "b".into() }, boot_ns: 0, wall_ns: 0, bound_ns: -1 }
}

fn asked<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Principal { id: "admin".into() });
    request
}

/// A run that has ended, with a sealed report.
async fn ended(api: &Api) -> Vec<u8> {
    let index = RunIndex {
        run: "r1".into(),
        name: "n".into(),
        state: "finished".into(),
        verdict: "pass".into(),
        exit_code: 0,
        reason: String::new(),
        started_wall_ns: 0,
        ended_wall_ns: Some(1),
        by: "admin".into(),
        environment: "default".into(),
    };
    let finished = Body::Finished { verdict: VerdictWord::Pass, exit_code: 0, reasons: vec![], at: stamp() };
    let extra = Extra { index: Some(index), ..Extra::default() };
    api.history.append_with("run/r1", vec![finished], extra).await.unwrap();
    let bytes = br#"{"as":"it was sealed"}"#.to_vec();
    let body = Body::ReportSealed { model: "1".into(), digest: hex(&sha256(&bytes)) };
    let sealed = Fact { body, origin: None, blob: Some(bytes.clone()) };
    api.history.seal("run/r1", AUDIT, 1, sealed, None).await.unwrap();
    bytes
}

#[tokio::test]
async fn a_final_report_is_the_bytes_that_were_sealed() {
    let api = api(&MemoryStore::new()).await;
    let bytes = ended(&api).await;
    let request = GetReportRequest { run: "last".into() };
    let reply = api.get_report(asked(request)).await.unwrap().into_inner();
    assert_eq!((reply.report_json.as_bytes(), reply.r#final), (&bytes[..], true));
}

#[tokio::test]
async fn stopping_what_has_ended_changes_nothing_and_says_so() {
    let api = api(&MemoryStore::new()).await;
    ended(&api).await;
    let request = StopRunRequest { run: "r1".into(), reason: String::new() };
    let reply = api.stop_run(asked(request)).await.unwrap().into_inner();
    assert_eq!((reply.ended, reply.verdict.as_str()), (true, "pass"));
    assert_eq!(api.history.read("run/r1", 0).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_host_is_forgotten_for_good_and_on_the_record() {
    let store = MemoryStore::new();
    let api = self::api(&store).await;
    let body = Body::HostEnrolled {
        host: "h".into(),
        name: "db-1".into(),
        labels: BTreeMap::new(),
        serial: String::new(),
        at: stamp(),
    };
    api.history.append("host/h", vec![body]).await.unwrap();
    let facts = fracas_model::facts::HostFacts::default();
    let session = api.fleet.connect(&"h".into(), facts, Offer::default(), stamp()).unwrap();
    api.fleet.record(&"h".into(), |record| record.name = "db-1".into());
    let forget = |reason: &str| {
        let request = HostRequest { host: "db-1".into(), reason: reason.into() };
        let api = api.clone();
        async move { api.forget_host(asked(request)).await }
    };
    assert_eq!(forget(" ").await.unwrap_err().code(), Code::InvalidArgument, "a reason is needed");
    let connected = forget("scrapped").await.unwrap_err();
    assert!(connected.code() == Code::FailedPrecondition && connected.message().contains("in contact"), "{connected}");
    api.fleet.disconnect(&"h".into(), session.number);
    store.set_room(Some(1));
    assert_eq!(forget("scrapped").await.unwrap_err().code(), Code::ResourceExhausted);
    assert!(!api.fleet.is_forgotten(&"h".into()), "what is not written down has not happened");
    store.set_room(None);
    assert_eq!(forget("scrapped").await.unwrap().into_inner().id, "h");
    assert!(api.fleet.hosts().is_empty());
    // And after the next start.
    let id = "c".into();
    let history = History::open(Arc::new(store), Arc::new(ManualClock::new(stamp()))).await.unwrap();
    let next = crate::controller::Controller::open(history, &id, 1).await.unwrap();
    assert!(next.fleet().hosts().is_empty() && next.fleet().is_forgotten(&"h".into()));
}

#[tokio::test]
async fn a_quarantine_ends_on_the_word_of_a_person() {
    let api = api(&MemoryStore::new()).await;
    api.fleet.record(&"h".into(), |record| {
        record.name = "db-1".into();
        record.quarantined = Some("r1".into());
    });
    let request = || asked(HostRequest { host: "db-1".into(), reason: "reinstalled".into() });
    let host = api.write_off_host(request()).await.unwrap().into_inner();
    assert_eq!(host.quarantined, "");
    let told = api.history.read("host/h", 0).await.unwrap();
    assert!(matches!(&told[0].body, Body::HostReleased { why, .. } if why == "written off by admin: reinstalled"));
    let again = api.write_off_host(request()).await.unwrap_err();
    assert!(again.code() == Code::FailedPrecondition && again.message().contains("not quarantined"), "{again}");
}

/// Begins a call and drops it as soon as it waits, as a connection that is lost does.
fn abandon<T>(call: impl Future<Output = T>) {
    let mut call = Box::pin(call);
    assert!(futures_util::FutureExt::now_or_never(&mut call).is_none(), "it must not be done already");
}

async fn until(mut done: impl FnMut() -> bool) {
    let turns = async {
        while !done() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), turns).await.expect("in time");
}

#[tokio::test]
async fn who_goes_away_does_not_leave_a_change_half_made() {
    let api = api(&MemoryStore::new()).await;
    api.fleet.halt(Some("an incident".into()));
    abandon(api.clear_halt(asked(HaltRequest { reason: "over".into() })));
    until(|| api.fleet.halted().is_none()).await;
    api.fleet.record(&"h".into(), |record| record.name = "db-1".into());
    let set = [("role".to_owned(), "db".to_owned())].into();
    abandon(api.label_host(asked(LabelHostRequest { host: "db-1".into(), set, remove: vec![] })));
    until(|| api.fleet.hosts()[&"h".into()].labels.contains_key("role")).await;
}

#[test]
fn what_will_not_pass_is_not_told_as_if_it_might() {
    let path = || std::path::PathBuf::from("h");
    let unreadable = HistoryError::Unreadable {
        stream: "run/r".into(),
        seq: 1,
        source: serde_json::from_str::<u8>("x").unwrap_err(),
    };
    for (error, code) in [
        (unreadable, Code::DataLoss),
        (StoreError::Damaged { path: path(), detail: String::new() }.into(), Code::DataLoss),
        (StoreError::Foreign { path: path(), detail: String::new() }.into(), Code::DataLoss),
        (StoreError::Fenced { ours: 1, owner: 2 }.into(), Code::FailedPrecondition),
        (StoreError::Full { path: path() }.into(), Code::ResourceExhausted),
        (StoreError::Failed { path: path(), detail: String::new() }.into(), Code::Unavailable),
        (StoreError::Closed.into(), Code::Unavailable),
    ] {
        assert_eq!(status(&error).code(), code, "{error}");
    }
}
