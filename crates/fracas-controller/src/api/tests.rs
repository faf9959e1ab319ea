//! Calls of operators: what they may change, what they are told, and callers that go away half-way.

use std::{collections::BTreeMap, time::Duration};

use fracas_model::{
    access::{Grant, Grants, Role},
    event::VerdictWord,
    time::{ClockId, Stamp},
};
use fracas_proto::v1::operator_server::Operator as _;
use tonic::Code;

use super::*;
use crate::{
    chain::{hex, sha256},
    clock::ManualClock,
    enrol::NoGate,
    feeds::Links,
    fleet::Offer,
    history::{Extra, Fact},
    people::Directory,
    store::{RunIndex, memory::MemoryStore},
};

const AUDIT: &str = "audit/c";

async fn api(store: &MemoryStore) -> Api {
    let clock = Arc::new(ManualClock::new(stamp()));
    let history = History::open(Arc::new(store.clone()), clock).await.unwrap();
    let fleet = Fleet::new(history.epoch());
    let runs = Runs::new(history.clone(), fleet.clone(), AUDIT.to_owned(), 1);
    let events = history.read(AUDIT, 0).await.unwrap();
    let people = People::new(history.clone(), AUDIT, Directory::default(), &events);
    let schedules = Schedules::new(history.clone(), runs.clone()).answering_to(people.clone());
    let notices = Notices::begin(&history, &"c".into(), Vec::new());
    let feeds = Feeds::new(history.clone(), schedules.clone(), AUDIT.to_owned(), Links::default());
    let audit = Audit::new(history.clone(), AUDIT);
    let approvals = Approvals::new(history.clone());
    let gate = Arc::new(NoGate);
    Api::new(Parts { runs, schedules, notices, feeds, history, fleet, audit, people, approvals, gate, keeper: None })
}

fn stamp() -> Stamp {
    Stamp { clock: ClockId { host: "c".into(), boot: "b".into() }, boot_ns: 0, wall_ns: 0, bound_ns: -1 }
}

fn asked<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Principal::admin());
    request
}

/// A call by somebody with these roles.
fn asked_by<T>(message: T, grants: &[(Role, &str)]) -> Request<T> {
    let grant = |(role, environment): &(Role, &str)| Grant { environment: (*environment).to_owned(), role: *role };
    let grants = Grants(grants.iter().map(grant).collect());
    let mut request = Request::new(message);
    request.extensions_mut().insert(Principal { id: "p-1".into(), grants, token: Some("t".into()) });
    request
}

/// The row of a run that has ended.
fn row(run: &str, environment: &str) -> RunIndex {
    RunIndex {
        run: run.into(),
        name: "n".into(),
        state: "finished".into(),
        verdict: "pass".into(),
        exit_code: 0,
        reason: String::new(),
        started_wall_ns: 0,
        ended_wall_ns: Some(1),
        by: "admin".into(),
        environment: environment.into(),
    }
}

/// A run that has ended, with a sealed report.
async fn ended(api: &Api) -> Vec<u8> {
    let index = row("r1", "default");
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

#[test]
fn a_key_means_the_run_of_its_caller_only() {
    let key = |person: &str, environment: &str, key: &str| {
        let wire = StartRunRequest {
            idempotency_key: key.into(),
            environment: environment.into(),
            ..StartRunRequest::default()
        };
        let by = Principal { id: person.into(), ..Principal::admin() };
        runs::asked_for(wire, &by).unwrap().idempotency_key
    };
    assert_eq!(key("p-1", "a", "k"), key("p-1", "a", "k"));
    assert_eq!(key("p-1", "a", ""), "");
    let own = key("p-1", "a", "schedule/nightly/1/0");
    assert!(!own.starts_with("schedule/"), "nobody takes the run of a schedule beforehand: {own}");
    assert!(key("p-2", "a", "k") != key("p-1", "a", "k") && key("p-1", "b", "k") != key("p-1", "a", "k"));
}

/// A host `h` that joined under the name `db-1`.
async fn enrolled(api: &Api) {
    let body = Body::HostEnrolled {
        host: "h".into(),
        name: "db-1".into(),
        labels: BTreeMap::new(),
        serial: String::new(),
        at: stamp(),
    };
    api.history.append("host/h", vec![body]).await.unwrap();
}

#[tokio::test]
async fn a_host_is_forgotten_for_good_and_on_the_record() {
    let store = MemoryStore::new();
    let api = self::api(&store).await;
    enrolled(&api).await;
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
async fn a_host_is_revoked_for_good_by_who_may_and_on_the_record() {
    let store = MemoryStore::new();
    let api = self::api(&store).await;
    enrolled(&api).await;
    api.fleet.record(&"h".into(), |record| record.name = "db-1".into());
    api.fleet.record(&"o".into(), |record| (record.name, record.observer) = ("o".into(), true));
    let ask = |host: &str, reason: &str| HostRequest { host: host.into(), reason: reason.into() };
    for roles in [&[(Role::Operator, "default")][..], &[(Role::Admin, "prod"), (Role::Viewer, "default")]] {
        let refused = api.revoke_host(asked_by(ask("db-1", "stolen"), roles)).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        let refused = api.trust_host(asked_by(ask("db-1", "stolen"), roles)).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    }
    assert_eq!(api.revoke_host(asked(ask("db-1", ""))).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(api.revoke_host(asked(ask("o", "x"))).await.unwrap_err().code(), Code::FailedPrecondition);
    store.set_full(true);
    assert!(api.revoke_host(asked(ask("db-1", "stolen"))).await.is_err());
    assert!(api.fleet.admitted(&"h".into()).is_ok(), "what is not written down has not happened");
    store.set_full(false);
    let admin = [(Role::Admin, "default")];
    let host = api.revoke_host(asked_by(ask("db-1", "stolen"), &admin)).await.unwrap().into_inner();
    assert_eq!(host.revoked, "by p-1, stolen");
    let again = api.revoke_host(asked(ask("db-1", "stolen"))).await.unwrap_err();
    assert!(again.code() == Code::FailedPrecondition && again.message().contains("revoked already"), "{again}");
    let history = History::open(Arc::new(store), Arc::new(ManualClock::new(stamp()))).await.unwrap();
    let next = crate::controller::Controller::open(history, &"c".into(), 1).await.unwrap();
    assert_eq!(next.fleet().hosts()[&"h".into()].revoked.as_deref(), Some("by p-1, stolen"));
}

#[tokio::test]
async fn a_host_that_seemed_to_be_two_is_one_on_the_word_of_a_person() {
    let api = api(&MemoryStore::new()).await;
    enrolled(&api).await;
    api.fleet.record(&"h".into(), |record| record.name = "db-1".into());
    let trust = || asked(HostRequest { host: "db-1".into(), reason: "the clone is off".into() });
    let none = api.trust_host(trust()).await.unwrap_err();
    assert!(none.message().contains("does not seem to be two"), "{none}");
    api.fleet.duplicate(&"h".into(), "two agents").unwrap();
    assert_eq!(api.trust_host(trust()).await.unwrap().into_inner().duplicate, "");
    let told = api.history.read("host/h", 0).await.unwrap();
    assert!(matches!(&told[1].body, Body::HostTrusted { reason, .. } if reason == "the clone is off"));
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

/// The calls on record: who, method, environment, whether refused.
async fn calls(api: &Api) -> Vec<(String, String, String, bool)> {
    let events = api.history.read(AUDIT, 0).await.unwrap();
    let call = |event: fracas_model::event::Event| match event.body {
        Body::Called { by, method, environment, refused, .. } => Some((by, method, environment, refused.is_some())),
        _ => None,
    };
    events.into_iter().filter_map(call).collect()
}

const EXPERIMENT: &str = "
apiVersion: fracas/v1
kind: Experiment
name: x
targets: {}
timeline: []
";

#[tokio::test]
async fn what_somebody_may_counts_in_its_environment_and_every_refusal_is_on_record() {
    let api = api(&MemoryStore::new()).await;
    let start = |environment: &str| StartRunRequest {
        source: EXPERIMENT.into(),
        environment: environment.into(),
        ..StartRunRequest::default()
    };
    let operator = [(Role::Operator, "staging")];
    let refused = api.start_run(asked_by(start("prod"), &operator)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("needs the right to run in environment prod"), "{refused}");
    assert!(refused.message().contains("runner or operator or admin"), "{refused}");
    let invalid = api.start_run(asked_by(start("staging"), &operator)).await.unwrap_err();
    assert_eq!(invalid.code(), Code::InvalidArgument, "allowed, and then the document is looked at: {invalid}");
    assert_eq!(
        calls(&api).await,
        [
            ("p-1".into(), "StartRun".into(), "prod".into(), true),
            ("p-1".into(), "StartRun".into(), "staging".into(), false),
            ("p-1".into(), "StartRun".into(), "staging".into(), true),
        ]
    );
    let odd = api.start_run(asked_by(start("../etc"), &operator)).await.unwrap_err();
    assert_eq!(odd.code(), Code::InvalidArgument, "{odd}");
}

#[tokio::test]
async fn what_somebody_may_not_see_is_not_there_and_can_be_stopped_all_the_same() {
    let api = api(&MemoryStore::new()).await;
    ended(&api).await;
    let viewer = [(Role::Viewer, "other")];
    for run in ["r1", "last"] {
        let gone = api.get_run(asked_by(GetRunRequest { run: run.into() }, &viewer)).await.unwrap_err();
        assert_eq!(gone.code(), Code::NotFound, "{gone}");
    }
    let gone = api.get_run(asked_by(GetRunRequest { run: "nothing".into() }, &viewer)).await.unwrap_err();
    assert_eq!(gone.message(), "no run `nothing` here: `fracas runs` lists them", "as for what is nowhere");
    let knocked =
        calls(&api).await.into_iter().filter(|(by, method, _, refused)| by == "p-1" && method == "GetRun" && *refused);
    assert_eq!(knocked.count(), 3, "each is on record");
    assert!(api.list_runs(asked_by(ListRunsRequest::default(), &viewer)).await.unwrap().into_inner().runs.is_empty());
    assert!(api.get_report(asked_by(GetReportRequest { run: "r1".into() }, &viewer)).await.is_err());
    assert!(api.watch_run(asked_by(WatchRunRequest { run: "r1".into(), after: 0 }, &viewer)).await.is_err());
    let seen = api.list_runs(asked_by(ListRunsRequest::default(), &[(Role::Viewer, "default")])).await.unwrap();
    assert_eq!(seen.into_inner().runs.len(), 1);
    let stop = StopRunRequest { run: "r1".into(), reason: String::new() };
    assert!(api.stop_run(asked_by(stop, &[])).await.unwrap().into_inner().ended, "ending harm needs no right");
    assert!(api.halt(asked_by(HaltRequest { reason: "incident".into() }, &[])).await.unwrap().into_inner().halted);
    let clear = |roles: &[(Role, &str)]| asked_by(HaltRequest { reason: "over".into() }, roles);
    assert_eq!(api.clear_halt(clear(&[(Role::Admin, "default")])).await.unwrap_err().code(), Code::PermissionDenied);
    assert!(api.clear_halt(clear(&[(Role::Admin, "*")])).await.is_ok());
}

#[tokio::test]
async fn hosts_belong_to_environments() {
    let api = api(&MemoryStore::new()).await;
    let record = |name: &str, environment: &str| {
        api.fleet.record(&name.into(), |record| {
            record.name = name.into();
            record.labels = [("fracas/environment".to_owned(), environment.to_owned())].into();
        });
    };
    record("a1", "a");
    record("b1", "b");
    let admin = [(Role::Admin, "a")];
    let names = |hosts: ListHostsReply| hosts.hosts.into_iter().map(|host| host.name).collect::<Vec<_>>();
    assert_eq!(
        names(api.list_hosts(asked_by(ListHostsRequest::default(), &admin)).await.unwrap().into_inner()),
        ["a1"]
    );
    let label = |host: &str, key: &str| LabelHostRequest {
        host: host.into(),
        set: [(key.to_owned(), "x".to_owned())].into(),
        remove: vec![],
    };
    assert!(api.label_host(asked_by(label("a1", "role"), &admin)).await.is_ok());
    assert_eq!(api.label_host(asked_by(label("b1", "role"), &admin)).await.unwrap_err().code(), Code::NotFound);
    for forged in ["fracas/environment", "fact/os", "fracas/observer"] {
        let refused = api.label_host(asked_by(label("a1", forged), &admin)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{forged}");
    }
    let moved = MoveHostRequest { host: "a1".into(), environment: "b".into() };
    assert_eq!(api.move_host(asked_by(moved.clone(), &admin)).await.unwrap_err().code(), Code::PermissionDenied);
    let both = [(Role::Admin, "a"), (Role::Admin, "b")];
    assert_eq!(api.move_host(asked_by(moved, &both)).await.unwrap().into_inner().environment, "b");
    let token = MakeJoinTokenRequest { environment: "b".into(), ..MakeJoinTokenRequest::default() };
    assert_eq!(api.make_join_token(asked_by(token, &admin)).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_cordon_is_on_record_and_holds_after_a_restart() {
    let store = MemoryStore::new();
    let api = self::api(&store).await;
    enrolled(&api).await;
    api.fleet.record(&"h".into(), |record| record.name = "db-1".into());
    let cordon = |reason: &str| asked(CordonHostRequest { host: "db-1".into(), reason: reason.into(), drain: false });
    assert_eq!(api.cordon_host(cordon("")).await.unwrap_err().code(), Code::InvalidArgument);
    let host = api.cordon_host(cordon("release")).await.unwrap().into_inner().host.unwrap();
    assert_eq!(host.cordoned, "release");
    let history = History::open(Arc::new(store), Arc::new(ManualClock::new(stamp()))).await.unwrap();
    let next = crate::controller::Controller::open(history, &"c".into(), 1).await.unwrap();
    assert_eq!(next.fleet().hosts()[&"h".into()].cordoned.as_deref(), Some("release"));
}

#[tokio::test]
async fn nobody_gives_what_they_may_not_do_and_tokens_are_made_by_those_who_govern_everywhere() {
    let api = api(&MemoryStore::new()).await;
    let grant = |role: &str, environment: &str| fracas_proto::v1::RoleGrant {
        role: role.into(),
        environment: environment.into(),
    };
    let add = |handle: &str, grants| AddPersonRequest { handle: handle.into(), grants, ..AddPersonRequest::default() };
    let admin = [(Role::Admin, "a")];
    let added = api.add_person(asked_by(add("anna", vec![grant("operator", "a")]), &admin)).await.unwrap();
    assert_eq!(added.into_inner().handle, "anna");
    for (role, environment) in [("operator", "b"), ("admin", "*")] {
        let more = asked_by(add("bert", vec![grant(role, environment)]), &admin);
        assert_eq!(api.add_person(more).await.unwrap_err().code(), Code::PermissionDenied);
        let set = SetRoleRequest { person: "anna".into(), grant: Some(grant(role, environment)), take: false };
        assert_eq!(api.set_role(asked_by(set, &admin)).await.unwrap_err().code(), Code::PermissionDenied);
    }
    let token = |person: &str| MakeAccessTokenRequest { person: person.into(), ..MakeAccessTokenRequest::default() };
    assert_eq!(
        api.make_access_token(asked_by(token("anna"), &admin)).await.unwrap_err().code(),
        Code::PermissionDenied,
        "it would speak for her elsewhere too"
    );
    let made = api.make_access_token(asked(token("anna"))).await.unwrap().into_inner();
    let shown = api.people.whose(&made.token).unwrap();
    assert!(shown.grants.allow(Right::Run, "a"));
    assert_eq!(api.list_people(asked_by(ListPeopleRequest {}, &[])).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn who_watches_with_a_token_that_is_revoked_sees_no_more() {
    let api = api(&MemoryStore::new()).await;
    let grants = Grants([Grant { environment: "default".into(), role: Role::Viewer }].into());
    let entry = crate::people::Entry { handle: "anna".into(), ..Default::default() };
    let anna = api.people.add(entry, grants, "admin").await.unwrap();
    let made = api.people.make_token(&anna.id, i64::MAX, "", "admin").await.unwrap();
    let index = RunIndex {
        run: "r2".into(),
        name: "n".into(),
        state: "running".into(),
        verdict: String::new(),
        exit_code: 0,
        reason: String::new(),
        started_wall_ns: 0,
        ended_wall_ns: None,
        by: "admin".into(),
        environment: "default".into(),
    };
    let extra = Extra { index: Some(index), ..Extra::default() };
    let gate = || Body::GateStarted { at: stamp() };
    api.history.append_with("run/r2", vec![gate()], extra).await.unwrap();
    let mut request = Request::new(WatchRunRequest { run: "r2".into(), after: 0 });
    request.extensions_mut().insert(api.people.whose(&made.text).unwrap());
    let mut watched = api.watch_run(request).await.unwrap().into_inner();
    let next = async |watched: &mut Pin<Box<dyn Stream<Item = Result<HistoryEvent, Status>> + Send>>| {
        let next = futures_util::StreamExt::next(watched);
        tokio::time::timeout(Duration::from_secs(10), next).await.expect("in time")
    };
    assert_eq!(next(&mut watched).await.unwrap().unwrap().seq, 1);
    api.people.revoke(&made.id, "lost", "admin").await.unwrap();
    api.history.append("run/r2", vec![gate()]).await.unwrap();
    assert_eq!(next(&mut watched).await.unwrap().unwrap_err().code(), Code::Unauthenticated);
    assert!(next(&mut watched).await.is_none());
}

#[tokio::test]
async fn a_schedule_of_somebody_who_may_not_any_more_starts_nothing() {
    let api = api(&MemoryStore::new()).await;
    let entry = crate::people::Entry { handle: "anna".into(), ..Default::default() };
    let grants = Grants([Grant { environment: "default".into(), role: Role::Operator }].into());
    let anna = api.people.add(entry, grants, "admin").await.unwrap();
    assert!(api.people.still_may(anna.id.as_str(), Right::Run, "default"));
    assert!(!api.people.still_may(anna.id.as_str(), Right::Run, "other"));
    api.people.remove("anna", "left", false, "admin").await.unwrap();
    assert!(!api.people.still_may(anna.id.as_str(), Right::Run, "default"));
    assert!(api.people.still_may("admin", Right::Run, "default") && !api.people.still_may("nobody", Right::View, "x"));
}

#[tokio::test]
async fn an_answer_to_a_run_that_is_not_there_is_on_record() {
    let api = api(&MemoryStore::new()).await;
    ended(&api).await;
    let decide = |run: &str| DecideRequest { run: run.into(), entry: "e".into(), go: true, note: String::new() };
    let approver = [(Role::Approver, "elsewhere")];
    for run in ["nothing", "r1"] {
        let refused = api.decide(asked_by(decide(run), &approver)).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "{run}");
    }
    let tried =
        calls(&api).await.into_iter().filter(|(by, method, _, refused)| by == "p-1" && method == "Decide" && *refused);
    assert_eq!(tried.count(), 2);
}

#[tokio::test]
async fn the_runs_of_a_quiet_environment_are_found_behind_those_of_a_busy_one() {
    let api = api(&MemoryStore::new()).await;
    ended(&api).await;
    for number in 0..1200 {
        let run = row(&format!("x{number}"), "busy");
        let extra = Extra { index: Some(run), ..Extra::default() };
        api.history
            .append_with(&format!("run/x{number}"), vec![Body::GateStarted { at: stamp() }], extra)
            .await
            .unwrap();
    }
    let viewer = [(Role::Viewer, "default")];
    let names = |reply: Response<ListRunsReply>| -> Vec<String> {
        reply.into_inner().runs.into_iter().map(|run| run.run).collect()
    };
    assert_eq!(names(api.list_runs(asked_by(ListRunsRequest::default(), &viewer)).await.unwrap()), ["r1"]);
    let last = api.get_run(asked_by(GetRunRequest { run: "last".into() }, &viewer)).await.unwrap();
    assert_eq!(last.into_inner().run, "r1");
    let everywhere = api.list_runs(asked(ListRunsRequest { limit: 5000 })).await.unwrap();
    assert_eq!(names(everywhere).len(), 1000);
    assert_eq!(names(api.list_runs(asked_by(ListRunsRequest::default(), &[])).await.unwrap()).len(), 0);
}

#[tokio::test]
async fn what_a_schedule_of_that_name_did_elsewhere_is_not_shown_here() {
    let api = api(&MemoryStore::new()).await;
    let text =
        "apiVersion: fracas/v1\nkind: Schedule\nname: nightly\nexperiment: e.yaml\nwhen: { cron: '0 2 1 1 *' }\n";
    let set = |environment: &str, description: &str| SetScheduleRequest {
        source: format!("{text}description: {description}\n"),
        experiment: "apiVersion: fracas/v1\nkind: Experiment\nname: e\ntimeline:\n  - { id: w, at: 0s, wait: 1s }\n"
            .into(),
        environment: environment.into(),
        ..SetScheduleRequest::default()
    };
    let of = |name: &str| ScheduleRequest { name: name.into(), reason: "secret of a".into() };
    api.set_schedule(asked(set("a", "secret of a"))).await.unwrap();
    api.pause_schedule(asked(of("nightly"))).await.unwrap();
    api.remove_schedule(asked(of("nightly"))).await.unwrap();
    api.set_schedule(asked(set("b", "of b"))).await.unwrap();
    api.pause_schedule(asked(ScheduleRequest { reason: "of b".into(), ..of("nightly") })).await.unwrap();
    let get = GetScheduleRequest { name: "nightly".into(), facts: 1000, ..GetScheduleRequest::default() };
    let shown = api.get_schedule(asked_by(get.clone(), &[(Role::Viewer, "b")])).await.unwrap().into_inner();
    let facts = shown.events_json.join("\n");
    assert!(!facts.contains("secret of a") && facts.contains("of b"), "{facts}");
    assert_eq!(shown.events_json.len(), 2);
    // Set anew where it is it keeps what it did.
    api.set_schedule(asked(set("b", "of b, again"))).await.unwrap();
    let shown = api.get_schedule(asked_by(get, &[(Role::Viewer, "b")])).await.unwrap().into_inner();
    assert_eq!(shown.events_json.len(), 3);
}

/// A run of `experiment` that has ended, whose report tells of one service.
async fn ended_with(api: &Api, run: &str, experiment: &str, environment: &str, service: &str) {
    use fracas_model::report::{self, Judgement, ServiceReport};
    let mut report = report::build(&[], &BTreeMap::new());
    report.run = run.into();
    report.name = experiment.into();
    report.environment = environment.into();
    report.times.finished = true;
    report.services = vec![ServiceReport {
        service: service.into(),
        rto: None,
        rto_from: fracas_model::experiment::RtoFrom::Impact,
        rpo: None,
        mtpd: None,
        prove_every: None,
        judgement: Judgement::NoObjective,
        outage: None,
        span: None,
        outages: 0,
        recovery_from_fault: None,
        residual: None,
        recovered_before_revert: None,
        downtime: None,
        blips: 0,
        down_edges: 0,
        up_edges: 0,
        pre_existing: 0,
        together: None,
        failing: None,
        degraded: None,
        recovery_point: None,
        events: Vec::new(),
    }];
    let stream = format!("run/{run}");
    let index = RunIndex { name: experiment.into(), ..row(run, environment) };
    let finished = Body::Finished { verdict: VerdictWord::Pass, exit_code: 0, reasons: vec![], at: stamp() };
    let extra = Extra { index: Some(index), ..Extra::default() };
    api.history.append_with(&stream, vec![finished], extra).await.unwrap();
    let bytes = to_json(&report).into_bytes();
    let body = Body::ReportSealed { model: "1".into(), digest: hex(&sha256(&bytes)) };
    api.history.seal(&stream, AUDIT, 1, Fact { body, origin: None, blob: Some(bytes) }, None).await.unwrap();
}

#[tokio::test]
async fn results_are_those_of_sealed_reports_and_no_more_than_may_be_seen() {
    let api = api(&MemoryStore::new()).await;
    ended(&api).await;
    ended_with(&api, "r2", "kill", "default", "shop").await;
    ended_with(&api, "r3", "kill", "prod", "shop").await;
    ended_with(&api, "r4", "day", "default", "first.shop").await;
    ended_with(&api, "r5", "kill", "default", "cart").await;
    let viewer = [(Role::Viewer, "default")];
    let all = ListResultsRequest::default;
    let found = |request: ListResultsRequest| {
        let api = api.clone();
        async move {
            let reply = api.list_results(asked_by(request, &viewer)).await.unwrap().into_inner();
            let points = reply.points_json.iter().map(|json| serde_json::from_str(json).unwrap());
            let runs: Vec<String> = points.map(|point: fracas_model::trend::Point| point.run.to_string()).collect();
            (runs.join(" "), reply.unread.join(" "), reply.more)
        }
    };
    let told = |runs: &str, unread: &str, more| (runs.to_owned(), unread.to_owned(), more);
    assert_eq!(found(all()).await, told("r5 r4 r2", "r1", false), "r1 has no report that is one");
    let kill = || ListResultsRequest { experiment: "kill".into(), ..all() };
    assert_eq!(found(kill()).await, told("r5 r2", "", false));
    assert_eq!(found(ListResultsRequest { limit: 1, ..kill() }).await, told("r5", "", true));
    let shop = ListResultsRequest { service: "shop".into(), ..all() };
    assert_eq!(found(shop.clone()).await, told("r4 r2", "r1", false), "that of the day's section is meant too");
    // Remembered, and still only what may be seen.
    assert_eq!(found(ListResultsRequest { environment: "default".into(), ..shop }).await, told("r4 r2", "r1", false));
    let elsewhere = ListResultsRequest { environment: "prod".into(), ..all() };
    let refused = api.list_results(asked_by(elsewhere, &viewer)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}
