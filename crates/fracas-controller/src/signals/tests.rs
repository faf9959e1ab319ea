//! Alerts over a real HTTP router: who may tell them, what is taken, and what a run makes of being told twice.

use axum::{
    body::Body as Content,
    http::{Method, Request, StatusCode, Version},
};
use fracas_model::{
    access::{Grant, Grants, Role},
    event::Origin,
    signal::{LONGEST_PAYLOAD, alertmanager},
    time::{ClockId, Stamp},
};
use serde_json::{Value, json};
use tonic::service::Routes;
use tower::ServiceExt as _;

use super::*;
use crate::{
    access::Doorkeeper,
    audit::Audit,
    clock::ManualClock,
    fleet::Fleet,
    pages,
    people::{Directory, Entry, People},
    store::memory::MemoryStore,
};

const AUDIT: &str = "audit/c";

struct OneToken;

impl Doorkeeper for OneToken {
    fn is_admin(&self, token: &str) -> bool {
        token == "the admin's"
    }
}

fn stamp() -> Stamp {
    Stamp { clock: ClockId { host: "c".into(), boot: "b".into() }, boot_ns: 0, wall_ns: 0, bound_ns: 0 }
}

struct Rig {
    signals: Signals,
    people: People,
}

impl Rig {
    async fn new() -> Self {
        let clock = Arc::new(ManualClock::new(stamp()));
        let history = History::open(Arc::new(MemoryStore::new()), clock).await.unwrap();
        let people = People::new(history.clone(), AUDIT, Directory::default(), &[]);
        let audit = Audit::new(history.clone(), AUDIT);
        let doors = Authenticated { doors: Arc::new(OneToken), people: people.clone(), audit };
        let runs = Runs::new(history.clone(), Fleet::new(history.epoch()), AUDIT.to_owned(), 1);
        Self { signals: Signals::new(runs, history, doors), people }
    }

    async fn token(&self, handle: &str, role: Role) -> String {
        let grants = Grants([Grant { environment: "prod".into(), role }].into());
        let entry = Entry { handle: handle.into(), ..Entry::default() };
        let known = self.people.add(entry, grants, "admin").await.unwrap();
        self.people.make_token(&known.id, 1_000_000_000, "", "admin").await.unwrap().text
    }

    async fn post(&self, token: &str, payload: impl Into<Content>) -> (StatusCode, Value) {
        self.ask(Method::POST, token, payload).await
    }

    async fn ask(&self, method: Method, token: &str, payload: impl Into<Content>) -> (StatusCode, Value) {
        let request = Request::builder().method(method).uri(PATH).version(Version::HTTP_11);
        let request =
            if token.is_empty() { request } else { request.header("authorization", format!("Bearer {token}")) };
        let routes = pages::serve(Routes::default(), vec![(PATH, door(self.signals.clone()))]).into_axum_router();
        let answer = routes.oneshot(request.body(payload.into()).unwrap()).await.unwrap();
        let (parts, body) = answer.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 16).await.unwrap();
        (parts.status, serde_json::from_slice(&bytes).unwrap_or_default())
    }
}

fn payload(alerts: &[Value]) -> String {
    json!({ "version": "4", "alerts": alerts }).to_string()
}

fn alert(name: &str, fingerprint: &str, status: &str) -> Value {
    json!({
        "status": status, "labels": { "alertname": name }, "startsAt": "2026-01-01T00:00:00Z",
        "endsAt": "2026-01-01T00:01:00Z", "fingerprint": fingerprint
    })
}

#[tokio::test]
async fn only_whoever_may_tell_of_alerts_is_heard() {
    let rig = Rig::new().await;
    let (good, viewer) = (rig.token("alertmanager", Role::Signaller).await, rig.token("anna", Role::Viewer).await);
    let one = payload(&[alert("Down", "f", "firing")]);
    assert_eq!(rig.post("", one.clone()).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(rig.post("fpt1.0.0", one.clone()).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(rig.post("a\u{e4}b", one.clone()).await.0, StatusCode::UNAUTHORIZED);
    let (status, why) = rig.post(&viewer, one.clone()).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(why["error"].as_str().unwrap().contains("signaller"), "{why}");
    for token in [good.as_str(), "the admin's"] {
        assert_eq!(rig.post(token, one.clone()).await, (StatusCode::OK, json!({ "alerts": 1, "runs": 0, "news": 0 })));
    }
    rig.people.remove("alertmanager", "gone", true, "admin").await.unwrap();
    assert_eq!(rig.post(&good, one).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn what_is_no_payload_is_refused_with_why() {
    let rig = Rig::new().await;
    let good = rig.token("alertmanager", Role::Signaller).await;
    assert_eq!(rig.ask(Method::GET, &good, Content::empty()).await.0, StatusCode::METHOD_NOT_ALLOWED);
    for (bad, status, why) in [
        (String::new(), StatusCode::BAD_REQUEST, "not a payload"),
        ("{".into(), StatusCode::BAD_REQUEST, "not a payload"),
        (json!({ "version": "3", "alerts": [] }).to_string(), StatusCode::BAD_REQUEST, "version"),
        (" ".repeat(LONGEST_PAYLOAD + 1), StatusCode::PAYLOAD_TOO_LARGE, "max_alerts"),
    ] {
        let (got, told) = rig.post(&good, bad).await;
        assert_eq!(got, status, "{told}");
        assert!(told["error"].as_str().unwrap().contains(why), "{told}");
    }
}

fn heard(detections: &Value, told: &[Body]) -> Heard {
    let mut heard = Heard::default();
    let document = json!({
        "apiVersion": "fracas/v1", "kind": "Experiment", "name": "t", "targets": {}, "timeline": [],
        "detections": detections, "recovery": { "stableFor": "5s", "giveUpAfter": "5m" }, "limits": {}, "lease": "15s"
    });
    let planned = Body::Planned {
        run: "r".into(),
        document,
        source: String::new(),
        source_name: String::new(),
        files: BTreeMap::new(),
        intent: String::new(),
        plan: String::new(),
        seed: 1,
        targets: BTreeMap::new(),
        hosts: BTreeMap::new(),
        canaries: BTreeMap::new(),
        rehearsed: vec![],
        by: "admin".into(),
        environment: "prod".into(),
        at: stamp(),
    };
    for (seq, body) in std::iter::once(planned).chain(told.iter().cloned()).enumerate() {
        let origin: Option<Origin> = None;
        heard.apply(&Event { stream: "run/r".into(), seq: seq as u64 + 1, received: stamp(), origin, body });
    }
    heard
}

fn signalled(told: &Told) -> Body {
    let (source, by, signals) = (SOURCE.to_owned(), "p-1".to_owned(), told.signals.clone());
    Body::Signalled { source, by, signals, left_out: 0, at: stamp() }
}

#[test]
fn what_is_told_twice_is_recorded_once_and_a_storm_has_bounds() {
    let told = |alerts: &[Value]| alertmanager(payload(alerts).as_bytes()).unwrap();
    let rules = json!({ "down": { "match": ["alertname=Down"] } });
    let first = told(&[alert("Down", "f", "firing"), alert("Down", "f", "firing"), alert("Slow", "g", "firing")]);
    let fresh = heard(&rules, &[]);
    assert_eq!((fresh.environment.as_deref(), fresh.rules.len()), (Some("prod"), 1));
    assert_eq!(fresh.news(&first).0.len(), 2, "twice in one payload");
    let knows = heard(&rules, &[signalled(&first)]);
    assert_eq!(knows.news(&first), (vec![], 0));
    assert_eq!(knows.unknown, 1);
    let ended = told(&[alert("Down", "f", "resolved")]);
    assert_eq!(knows.news(&ended).0.len(), 1);
    // Others fill their own room only.
    let storm: Vec<Value> = (0..1000).map(|n| alert("Slow", &format!("s{n}"), "firing")).collect();
    let (news, left_out) = knows.news(&told(&storm));
    assert_eq!((news.len(), left_out), (MOST_UNKNOWN - 1, 1));
    let full = heard(&rules, &[signalled(&told(&storm))]);
    let (news, left_out) = full.news(&told(&[alert("Down", "f", "firing"), alert("Slow", "h", "firing")]));
    assert_eq!((news.len(), left_out), (1, 1));
    assert_eq!(news[0].name(), "Down");
}

#[test]
fn what_was_left_out_is_recorded_once_and_large_payloads_in_parts() {
    let odd = json!({ "version": "4", "truncatedAlerts": u64::MAX, "alerts": [{}, alert("Down", "f", "firing")] });
    let told = alertmanager(odd.to_string().as_bytes()).unwrap();
    let (news, left_out) = heard(&json!({}), &[]).news(&told);
    assert_eq!((news.len(), left_out), (1, u64::MAX));
    let body = Body::Signalled { source: SOURCE.into(), by: "p-1".into(), signals: news, left_out, at: stamp() };
    let knows = heard(&json!({}), &[body]);
    assert!(knows.left_out && knows.news(&told).0.is_empty());

    let long: Vec<Value> = (0..400)
        .map(|n| {
            let mut one = alert("Down", &format!("f{n}"), "firing");
            one["labels"]["text"] = "x".repeat(1000).into();
            one
        })
        .collect();
    let told = alertmanager(payload(&long).as_bytes()).unwrap();
    let parts = parts(told.signals);
    assert!(parts.len() > 2 && parts.iter().map(Vec::len).sum::<usize>() == 400);
    for part in parts {
        assert!(serde_json::to_string(&part).unwrap().len() < 2 * MOST_AT_ONCE);
    }
    assert_eq!(self::parts(vec![]).len(), 1, "what is left out has an event too");
}
