//! The whole way: restarts, floods, secrets, and a real controller whose runs and schedules are told of.

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use fracas_model::{
    catalogue::{Catalogue, FaultInfo, Nature},
    facts::HostFacts,
};
use serde_json::json;

use super::{
    receiver::{Answer, Receiver},
    *,
};
use crate::{controller::Controller, fleet::Offer, runs::Request, schedules::Setting};

pub(super) fn planned(run: &str) -> Body {
    Body::Planned {
        files: std::collections::BTreeMap::new(),
        run: run.into(),
        document: json!({ "name": "kill-web" }),
        source: String::new(),
        source_name: String::new(),
        intent: String::new(),
        plan: String::new(),
        seed: 1,
        targets: BTreeMap::new(),
        hosts: BTreeMap::new(),
        canaries: BTreeMap::new(),
        rehearsed: vec![],
        by: "admin".into(),
        environment: "default".into(),
        at: stamp(),
    }
}

fn webhook(name: &str, url: &str, key: &str) -> String {
    format!("  - name: {name}\n    webhook: {{ url: \"{url}\", secret: {{ file: \"{key}\" }} }}\n")
}

async fn until(what: impl Fn() -> bool) {
    let turns = async {
        while !what() {
            tokio::task::yield_now().await;
        }
    };
    within(turns).await;
}

#[tokio::test]
async fn a_controller_that_dies_owes_what_it_did_not_send_and_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let key = secret(folder.path(), "key", "k1");
    let mut receiver = Receiver::start(vec![]).await;
    let list = webhook("audit", &receiver.url(), &key);
    let (history, store, clock) = history().await;
    let notices = begin(&history, &list).await;
    // A run, of which the first life tells nothing but the beginning of its end.
    history.append("run/r1", vec![planned("r1")]).await.unwrap();
    let index = crate::store::RunIndex {
        run: "r1".into(),
        name: "kill-web".into(),
        state: "running".into(),
        verdict: String::new(),
        exit_code: 0,
        reason: String::new(),
        started_wall_ns: stamp().wall_ns,
        ended_wall_ns: None,
        by: "admin".into(),
        environment: "default".into(),
    };
    quarantine(&history, "h1").await;
    receiver.next().await;
    within(notices.settled()).await;
    receiver.answer(vec![Answer::Status(503, "", ""); 10_000]);
    let abort = fracas_model::event::AbortKind::GuardRail;
    let aborted = Body::Aborted { cause: "web is down".into(), why: abort, at: stamp() };
    let extra = crate::history::Extra { index: Some(index), ..Default::default() };
    history.append_with("run/r1", vec![aborted], extra).await.unwrap();
    assert_eq!(receiver.next().await.json()["id"], "run/r1/2");
    notices.end();
    drop(notices);
    // While it is away something else happens, by whoever writes.
    clock.advance(Dur::from_secs(60));
    let history = again(&store, &clock).await;
    let verdict = fracas_model::event::VerdictWord::Aborted;
    let finished = Body::Finished { verdict, exit_code: 4, reasons: vec!["web is down".into()], at: stamp() };
    history.append("run/r1", vec![finished]).await.unwrap();
    halt(&history, "enough").await;
    receiver.rest();
    receiver.answer(vec![]);
    let notices = begin(&history, &list).await;
    let mut ids: Vec<String> = Vec::new();
    for _ in 0..3 {
        ids.push(receiver.next().await.json()["id"].as_str().unwrap().to_owned());
    }
    // In the order in which they happened.
    assert_eq!(ids[0], "run/r1/2");
    ids.sort();
    assert_eq!(ids, ["audit/c/1", "run/r1/2", "run/r1/3"]);
    within(notices.settled()).await;
    notices.end();
    drop(notices);
    // A third life owes nothing.
    let history = again(&store, &clock).await;
    let notices = begin(&history, &list).await;
    within(notices.settled()).await;
    let rest: Vec<_> = receiver.rest().iter().map(receiver::Heard::json).collect();
    assert!(rest.is_empty(), "{rest:?}");
    let mut settled: Vec<String> = became(&history, "audit").await.into_iter().map(|(id, ..)| id).collect();
    settled.sort();
    assert_eq!(settled, ["audit/c/1", "host/h1/1", "run/r1/2", "run/r1/3"]);
    assert_eq!(notices.standings()[0].last.as_ref().unwrap().gave_up, None, "it knows what an earlier life did");
}

#[tokio::test]
async fn a_new_channel_and_a_new_wish_tell_nothing_old_and_too_old_is_too_old() {
    let folder = tempfile::tempdir().unwrap();
    let key = secret(folder.path(), "key", "k1");
    let mut receiver = Receiver::start(vec![]).await;
    let (history, store, clock) = history().await;
    halt(&history, "long ago").await;
    clock.advance(Dur::from_secs(1));
    let only = |on: &str| format!("{}    on: [{on}]\n    giveUpAfter: 1h\n", webhook("audit", &receiver.url(), &key));
    let notices = begin(&history, &only("host.released")).await;
    quarantine(&history, "h1").await;
    within(heard(&notices)).await;
    notices.end();
    clock.advance(Dur::from_secs(1));
    let history = again(&store, &clock).await;
    release(&history, "h1").await;
    clock.advance(Dur::from_secs(1));
    let both = "halt.set, host.quarantined, host.released";
    let (first, second) = (only(both), only(both));
    let notices = begin(&history, &first).await;
    // The release was meant to be told when it happened; the halt and the quarantine were not.
    assert_eq!(receiver.next().await.json()["type"], "dev.fracas.host.released");
    within(notices.settled()).await;
    assert_eq!(receiver.rest().len(), 0);
    notices.end();
    let history = again(&store, &clock).await;
    release(&history, "h2").await;
    clock.advance(Dur::from_secs(3601));
    let notices = begin(&history, &second).await;
    within(notices.settled()).await;
    assert_eq!(receiver.rest().len(), 0);
}

#[tokio::test]
async fn a_flood_that_the_listener_cannot_follow_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let key = secret(folder.path(), "key", "k1");
    let mut receiver = Receiver::start(vec![]).await;
    let (history, _, _) = history().await;
    let notices = begin(&history, &webhook("audit", &receiver.url(), &key)).await;
    let mut bodies = vec![Body::HostQuarantined { run: "r1".into(), at: stamp() }];
    let label = Body::HostLabelled { labels: BTreeMap::new(), by: "admin".into(), at: stamp() };
    // More than a listener may be behind, in one commit.
    bodies.extend(std::iter::repeat_n(label, 9000));
    history.append("host/h1", bodies).await.unwrap();
    assert_eq!(receiver.next().await.json()["id"], "host/h1/1");
    within(notices.settled()).await;
    assert_eq!(receiver.rest().len(), 0);
}

#[tokio::test]
async fn more_than_may_wait_is_told_all_the_same_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let key = secret(folder.path(), "key", "k1");
    let mut receiver = Receiver::start(vec![Answer::Status(503, "", ""); 100_000]).await;
    let (history, _, clock) = history().await;
    let notices = begin(&history, &webhook("audit", &receiver.url(), &key)).await;
    for _ in 0..1050 {
        // The instants differ, so that there is an order.
        clock.advance(Dur::from_ms(1));
        quarantine(&history, "h1").await;
    }
    within(heard(&notices)).await;
    assert_eq!(notices.standings()[0].waiting, 1000);
    let first = receiver.next().await.json()["id"].clone();
    assert_eq!(first, "host/h1/1");
    receiver.answer(vec![]);
    let mut ids = vec![];
    while ids.last() != Some(&"host/h1/1050".to_owned()) {
        let id = receiver.next().await.json()["id"].as_str().unwrap().to_owned();
        if ids.last() != Some(&id) {
            ids.push(id);
        }
    }
    let all: Vec<String> = (1..=1050).map(|n| format!("host/h1/{n}")).collect();
    assert_eq!(ids, all);
    within(notices.settled()).await;
    assert_eq!(became(&history, "audit").await.len(), 1050);
}

#[tokio::test]
async fn a_full_disk_holds_up_no_notice() {
    let folder = tempfile::tempdir().unwrap();
    let key = secret(folder.path(), "key", "k1");
    let mut receiver = Receiver::start(vec![]).await;
    let (history, store, clock) = history().await;
    let list = webhook("audit", &receiver.url(), &key);
    let notices = begin(&history, &list).await;
    store.set_room(Some(2));
    quarantine(&history, "h1").await;
    quarantine(&history, "h2").await;
    let ids = [receiver.next().await, receiver.next().await].map(|heard| heard.json()["id"].clone());
    assert_eq!(ids, ["host/h1/1", "host/h2/1"]);
    within(notices.settled()).await;
    assert_eq!(became(&history, "audit").await, []);
    store.set_room(None);
    // What could not be recorded goes with the next one.
    quarantine(&history, "h3").await;
    receiver.next().await;
    within(notices.settled()).await;
    assert_eq!(became(&history, "audit").await.len(), 3);
    notices.end();
    let history = again(&store, &clock).await;
    let notices = begin(&history, &list).await;
    within(notices.settled()).await;
    assert_eq!(receiver.rest().len(), 0);
}

#[tokio::test]
async fn a_bug_in_a_lane_does_not_end_it() {
    let (lives, mut alive) = tokio::sync::watch::channel(0);
    let lives = Arc::new(lives);
    let mut tasks = JoinSet::new();
    tasks.spawn(kept("a trial", move || {
        let lives = Arc::clone(&lives);
        async move {
            lives.send_modify(|lives| *lives += 1);
            assert!(*lives.borrow() > 1, "a bug");
            std::future::pending::<()>().await;
        }
    }));
    within(alive.wait_for(|lives| *lives == 2)).await.unwrap();
    // What is dropped leaves nothing behind.
    drop(tasks);
    within(async { while alive.changed().await.is_ok() {} }).await;
}

/// Everything that is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_secret_comes_out_anywhere_but_at_its_receiver() {
    const SECRETS: [&str; 5] = ["CANARY-hmac", "CANARY-token", "CANARY-slack", "CANARY-pager", "CANARY-mail"];
    let log = Log::default();
    let in_base64 = STANDARD.encode(format!("\0u\0{}", SECRETS[4]));
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let folder = tempfile::tempdir().unwrap();
    // Receivers that repeat all they hear, as errors that are final and as such that are not.
    let mut echo = Receiver::start(vec![]).await;
    let (mut mail, ca) = super::mail::suspicious(folder.path()).await;
    let files: Vec<String> =
        SECRETS.iter().zip(0..).map(|(text, n)| secret(folder.path(), &format!("{n}.key"), text)).collect();
    let url = secret(folder.path(), "slack-url", &format!("{}/services/{}", echo.url(), SECRETS[2]));
    let list = format!(
        "  - name: a-hook\n    webhook: {{ url: \"{0}/\", secret: {{ file: \"{1}\" }}, headers: {{ authorization: {{ file: \"{2}\" }} }} }}\n\
         \x20 - name: b-chat\n    slack: {{ url: {{ file: \"{url}\" }} }}\n\
         \x20 - name: c-oncall\n    pagerduty: {{ url: \"{0}\", routingKey: {{ file: \"{3}\" }} }}\n\
         \x20 - name: d-mail\n    email: {{ server: \"127.0.0.1:{4}\", ca: \"{6}\", tls: implicit, from: a@b, to: [c@d], username: u, password: {{ file: \"{5}\" }} }}\n",
        echo.url(),
        files[0],
        files[1],
        files[3],
        mail.port,
        files[4],
        ca,
    );
    let (history, store, _) = history().await;
    let config = crate::config::Given { notifications: channels(&list), ..Default::default() }.settle("/d".into());
    let mut shown = vec![config.text(), format!("{config:?}")];
    echo.answer([Answer::Echo(400), Answer::Echo(503)].into_iter().cycle().take(1000).collect());
    let notices = begin(&history, &list).await;
    for host in ["h1", "h2", "h3"] {
        quarantine(&history, host).await;
    }
    let names = ["a-hook", "b-chat", "c-oncall", "d-mail"];
    for name in names {
        let trial = within(notices.test(name, "1", "admin")).await.unwrap();
        shown.push(trial.failed.expect("nobody takes anything"));
    }
    until(|| notices.standings().iter().all(|standing| standing.failing.is_some())).await;
    let given_up = async {
        for name in names {
            while !became(&history, name).await.iter().any(|(_, _, why)| why.is_some()) {
                tokio::task::yield_now().await;
            }
        }
    };
    within(given_up).await;
    shown.push(format!("{:?} {notices:?}", notices.standings()));
    notices.end();
    let heard: String = echo.rest().iter().map(|h| format!("{h:?} {}", String::from_utf8_lossy(&h.body))).collect();
    let said = mail.next().await.said;
    assert!(said.contains(&format!("AUTH PLAIN {in_base64}")), "{said:?}");
    assert!(SECRETS[1..4].iter().all(|secret| heard.contains(secret)), "they were used: {heard}");
    for stream in store_streams(&store).await {
        for record in history.read_stored(&stream, 0, usize::MAX).await.unwrap() {
            shown.push(String::from_utf8(record.stored).unwrap());
        }
    }
    shown.push(String::from_utf8(log.0.lock().unwrap().clone()).unwrap());
    let all = shown.join("\n");
    assert!(
        all.contains("a notice was given up") && all.contains("its answer repeats a secret and is not shown"),
        "{all}"
    );
    assert!(all.contains("the mail server answered 535 to the login"), "{all}");
    for secret in SECRETS {
        let place = all.find(secret).map(|at| all[..at].chars().rev().take(80).collect::<Vec<_>>());
        assert_eq!(
            place.map(|before| before.into_iter().rev().collect::<String>()),
            None,
            "{secret} stands behind that"
        );
    }
    assert!(!all.contains(&in_base64), "the login in base64");
}

async fn store_streams(store: &MemoryStore) -> Vec<String> {
    crate::store::Store::streams(store, "").await.unwrap()
}

const WAITS: &str = "apiVersion: fracas/v1
kind: Experiment
name: only-waits
timeline: [{ id: pause, at: 0s, wait: 20ms }]
recovery: { stableFor: 0s, giveUpAfter: 1s }
";
const NOWHERE: &str = "apiVersion: fracas/v1
kind: Experiment
name: nowhere
targets: { db: { select: role=none } }
timeline: [{ id: slow, at: 0s, for: 10s, target: db, fault: { slow: {} } }]
";
const OFTEN: &str = "apiVersion: fracas/v1
kind: Schedule
name: often
experiment: nowhere.yaml
when: { every: { period: 1s, from: 2026-01-01T00:00 } }
";

/// A controller over a store in memory, with one host that is in contact.
async fn controller(list: &str) -> Controller {
    let clock = Arc::new(SystemClock::new(CONTROLLER.into(), || -1).unwrap());
    let history = History::open(Arc::new(MemoryStore::new()), clock).await.unwrap();
    let controller = Controller::open(history.clone(), &CONTROLLER.into(), 1).await.unwrap();
    let controller = controller.telling(channels(list));
    controller.resume().await.unwrap();
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
    let offer = Offer { catalogue, ..Offer::default() };
    controller.fleet().connect(&"h".into(), HostFacts::default(), offer, history.now()).unwrap();
    controller
}

fn run(environment: &str) -> Request {
    Request {
        source: WAITS.into(),
        source_name: "waits.yaml".into(),
        environment: environment.into(),
        by: "admin".into(),
        ..Request::default()
    }
}

#[tokio::test]
async fn a_run_that_ends_and_a_due_that_is_skipped_reach_a_receiver() {
    let folder = tempfile::tempdir().unwrap();
    let key = secret(folder.path(), "key", "k1");
    let mut receiver = Receiver::start(vec![]).await;
    let list = format!(
        "{}    on: [run.started, run.finished, schedule.skipped]\n    environments: [staging]\n",
        webhook("audit", &receiver.url(), &key)
    );
    let controller = controller(&list).await;
    // Somewhere else: not told.
    controller.runs().start(&run("production")).await.unwrap();
    let id = controller.runs().start(&run("staging")).await.unwrap();
    let (started, finished) = (receiver.next().await.json(), receiver.next().await.json());
    assert_eq!(
        (&started["type"], &finished["type"]),
        (&json!("dev.fracas.run.started"), &json!("dev.fracas.run.finished"))
    );
    assert_eq!(finished["subject"], format!("run/{id}"));
    let data = &finished["data"];
    assert_eq!((&data["experiment"], &data["environment"]), (&json!("only-waits"), &json!("staging")));
    assert!(data["verdict"].is_string() && data["exitCode"].is_number(), "{data}");
    let setting = Setting {
        calendars: std::collections::BTreeMap::new(),
        files: std::collections::BTreeMap::new(),
        source: OFTEN.into(),
        source_name: "often.yaml".into(),
        experiment: NOWHERE.into(),
        experiment_name: "nowhere.yaml".into(),
        environment: "staging".into(),
        by: "admin".into(),
    };
    controller.schedules().set(setting).await.unwrap();
    let skipped = receiver.next().await.json();
    assert_eq!(
        (&skipped["type"], &skipped["subject"]),
        (&json!("dev.fracas.schedule.skipped"), &json!("schedule/often"))
    );
    assert!(skipped["data"]["reason"].as_str().unwrap().contains("role=none"), "{skipped}");
    controller.schedules().remove("often", "enough".into(), "admin".into()).await.unwrap();
}

#[tokio::test]
async fn receivers_that_are_away_or_silent_delay_no_run() {
    let folder = tempfile::tempdir().unwrap();
    let key = secret(folder.path(), "key", "k1");
    let mut silent = Receiver::start(vec![Answer::Silence; 100]).await;
    let (_socket, port) = receiver::closed_port();
    let list = webhook("a-silent", &silent.url(), &key) + &webhook("b-away", &format!("http://127.0.0.1:{port}"), &key);
    let controller = controller(&list).await;
    for _ in 0..3 {
        controller.runs().start(&run("default")).await.unwrap();
        within(controller.runs().idle()).await;
    }
    let rows = controller.history().store().runs(10).await.unwrap();
    assert!(rows.len() == 3 && rows.iter().all(|(row, _)| row.state == "finished"), "{rows:?}");
    within(heard(controller.notices())).await;
    silent.next().await;
    let waiting: Vec<usize> = controller.notices().standings().iter().map(|standing| standing.waiting).collect();
    assert_eq!(waiting, [3, 3]);
}
