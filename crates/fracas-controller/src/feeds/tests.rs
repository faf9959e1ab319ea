//! Links over a real HTTP router: good ones show what they were made for, and whatever is wrong with others looks the same.

use axum::{
    body::Body as Content,
    http::{HeaderMap, Method, Request, StatusCode, Version},
};
use fracas_model::{
    schedule::{Fact, read_schedule},
    time::{ClockId, Stamp},
    units::Dur,
};
use tonic::service::Routes;
use tower::ServiceExt as _;

use super::*;
use crate::{
    clock::ManualClock, controller::Controller, datadir::DataDir, fleet::Fleet, pages, runs::Runs,
    store::memory::MemoryStore,
};

const AUDIT: &str = "audit/c";
const NOW_NS: i64 = 1_798_000_000_000_000_000;
const CLOSED_TEXT: &str = "This link opens nothing: it was altered, has expired or was revoked, or whoever made it may not look there any more. Have a new one made.\n";
const YEAR: u32 = 365 * 86_400;

fn stamp(wall_ns: i64) -> Stamp {
    Stamp { clock: ClockId { host: "c".into(), boot: "b".into() }, boot_ns: 0, wall_ns, bound_ns: 0 }
}

struct Rig {
    store: MemoryStore,
    clock: Arc<ManualClock>,
    feeds: Feeds,
}

impl Rig {
    async fn new() -> Self {
        let (store, clock) = (MemoryStore::new(), Arc::new(ManualClock::new(stamp(NOW_NS))));
        let history = History::open(Arc::new(store.clone()), clock.clone()).await.unwrap();
        for (name, environment) in [("nightly", "prod"), ("weekly", "prod"), ("trial", "staging")] {
            let text = format!(
                "apiVersion: fracas/v1\nkind: Schedule\nname: {name}\nexperiment: x.yaml\nwhen: {{ cron: 30 2 * * * }}\n"
            );
            let set = Fact::Set {
                schedule: Box::new(read_schedule("s.yaml", &text).unwrap().schedule),
                source: text,
                experiment: String::new(),
                calendars: BTreeMap::new(),
                files: BTreeMap::new(),
                environment: environment.into(),
                by: "p".into(),
            };
            let body = Body::Schedule { fact: set, at: stamp(NOW_NS) };
            history.append(&format!("schedule/{name}"), vec![body]).await.unwrap();
        }
        let fleet = Fleet::new(history.epoch());
        let runs = Runs::new(history.clone(), fleet, AUDIT.to_owned(), 1);
        let schedules = Schedules::new(history.clone(), runs);
        schedules.resume().await.unwrap();
        let feeds = Feeds::new(history, schedules, AUDIT.to_owned(), Links::default());
        Self { store, clock, feeds }
    }

    async fn link(&self, environment: &str, schedule: &str) -> (Made, String) {
        self.feeds.make(environment.into(), schedule.into(), YEAR, "admin".into()).await.unwrap()
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, String) {
        let mut request = Request::builder().method(method).uri(path).version(Version::HTTP_11);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let routes = pages::serve(Routes::default(), vec![(PATH, calendar(self.feeds.clone()))]).into_axum_router();
        let answer = routes.oneshot(request.body(Content::empty()).unwrap()).await.unwrap();
        let (parts, body) = answer.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 22).await.unwrap();
        (parts.status, parts.headers, String::from_utf8(bytes.to_vec()).unwrap())
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        let (status, _, text) = self.ask(Method::GET, path, &[]).await;
        (status, text)
    }
}

#[tokio::test]
async fn a_link_shows_what_it_was_made_for_and_no_more() {
    let rig = Rig::new().await;
    let (_, all) = rig.link("prod", "").await;
    let (status, headers, text) = rig.ask(Method::GET, &all, &[]).await;
    assert_eq!((status, headers["content-type"].to_str().unwrap()), (StatusCode::OK, "text/calendar; charset=utf-8"));
    assert!(text.contains("SUMMARY:nightly: x.yaml") && text.contains("SUMMARY:weekly: x.yaml"), "{text}");
    assert!(!text.contains("trial") && text.contains("@c\r\n"), "{text}");
    let (_, one) = rig.link("prod", "weekly").await;
    let text = rig.get(&one).await.1;
    assert!(!text.contains("nightly") && text.contains("X-WR-CALNAME:Fracas: weekly"), "{text}");
    // Whoever has it already is told so; another method does nothing.
    let tag = headers["etag"].to_str().unwrap();
    let (status, again, text) = rig.ask(Method::GET, &all, &[("if-none-match", &format!("\"x\", W/{tag}"))]).await;
    assert_eq!((status, again["etag"].to_str().unwrap(), text.as_str()), (StatusCode::NOT_MODIFIED, tag, ""));
    assert_eq!(rig.ask(Method::GET, &all, &[("if-none-match", "\"x\"")]).await.0, StatusCode::OK);
    let (status, head, text) = rig.ask(Method::HEAD, &all, &[]).await;
    assert_eq!((status, text.as_str(), &head["content-length"]), (StatusCode::OK, "", &headers["content-length"]));
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::TRACE] {
        let (status, headers, _) = rig.ask(method, &all, &[]).await;
        assert_eq!((status, headers["allow"].to_str().unwrap()), (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD"));
    }
}

#[tokio::test]
async fn a_link_shows_what_whoever_made_it_may_see_now() {
    use fracas_model::access::{Grant, Grants, Role};
    let rig = Rig::new().await;
    let people = People::new(rig.feeds.history.clone(), AUDIT, crate::people::Directory::default(), &[]);
    let sees = |environment: &str| Grant { environment: environment.into(), role: Role::Viewer };
    let entry = crate::people::Entry { handle: "anna".into(), ..Default::default() };
    let grants = Grants([sees("prod"), sees("staging")].into());
    let anna = people.add(entry, grants, "admin").await.unwrap();
    let rig = Rig { feeds: rig.feeds.clone().answering_to(people.clone()), ..rig };
    let made = async |by: &str| rig.feeds.make("prod".into(), String::new(), YEAR, by.into()).await.unwrap().1;
    let (hers, strange, admins) = (made(anna.id.as_str()).await, made("p-nobody").await, made("admin").await);
    let status = async |path: &str| rig.get(path).await.0;
    assert_eq!((status(&hers).await, status(&admins).await), (StatusCode::OK, StatusCode::OK));
    assert_eq!(rig.get(&strange).await, (StatusCode::FORBIDDEN, CLOSED_TEXT.to_owned()));
    people.grant("anna", sees("prod"), false, "admin").await.unwrap();
    assert_eq!(rig.get(&hers).await, (StatusCode::FORBIDDEN, CLOSED_TEXT.to_owned()), "she sees other places only");
    people.grant("anna", sees("prod"), true, "admin").await.unwrap();
    assert_eq!(status(&hers).await, StatusCode::OK);
    people.remove("anna", "left", true, "admin").await.unwrap();
    assert_eq!((status(&hers).await, status(&admins).await), (StatusCode::FORBIDDEN, StatusCode::OK));
}

#[test]
fn of_a_whole_link_only_its_id_is_public() {
    let id = "0a1b2c3d4e5f6071";
    let link = format!("https://c:7766{PATH}?environment=prod&expires=1&id={id}&key=ff&signature={}", "5".repeat(64));
    for text in [id, &format!(" {id}\n"), &link, link.split_once('?').unwrap().1] {
        assert_eq!(public_part(text), id, "{text}");
    }
    let signature = "5".repeat(64);
    for none in
        ["", "nightly", &signature, "https://c/?signature=00", &link.replace(id, "0a"), &link.replace("id=", "")]
    {
        assert_eq!(public_part(none), "", "{none}");
    }
}

#[tokio::test]
async fn whatever_is_wrong_with_a_link_is_told_alike() {
    let rig = Rig::new().await;
    let (made, good) = rig.link("prod", "nightly").await;
    assert_eq!(rig.get(&good).await.0, StatusCode::OK);
    let signature = good.rsplit_once('=').unwrap().1;
    let other = FeedKey::passing();
    let link = |environment: &str, expires_s| Link {
        id: made.id.clone(),
        environment: environment.into(),
        schedule: "nightly".into(),
        expires_s,
        key: rig.feeds.key.id().into(),
    };
    let unknown = Link { id: "0123456789abcdef".into(), ..link("prod", made.expires_ns / 1_000_000_000) };
    for bad in [
        PATH.to_owned(),
        format!("{PATH}?"),
        good.replace("prod", "staging"),
        good.replace("nightly", "weekly"),
        good.replace("&schedule=nightly", ""),
        good.replace("expires=1", "expires=2"),
        good.replace(&made.id, "0123456789abcdef"),
        good.replace(
            signature,
            &signature.replace(&signature[..1], if signature.starts_with('0') { "1" } else { "0" }),
        ),
        good.replace(signature, ""),
        good.replace(signature, &signature[..62]),
        good.replace(signature, &"0".repeat(64)),
        good.replace("&signature", "&x=y&signature"),
        format!("{good}&schedule=weekly"),
        format!("{good}&signature={signature}"),
        format!("{PATH}?{}", "a".repeat(20_000)),
        format!("{PATH}?{}", other.query(&link("prod", made.expires_ns / 1_000_000_000))),
        // Signed by the right key, and never made.
        format!("{PATH}?{}", rig.feeds.key.query(&unknown)),
    ] {
        assert_eq!(rig.get(&bad).await, (StatusCode::FORBIDDEN, CLOSED_TEXT.to_owned()), "{bad}");
    }
    for path in
        ["/", "/schedules.ics/", "/schedules.ics/..", "//schedules.ics", "/x/../schedules.ics", "/schedules%2eics"]
    {
        let query = good.split_once('?').unwrap().1;
        assert_eq!(rig.get(&format!("{path}?{query}")).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    rig.clock.advance(Dur::from_ns(made.expires_ns - NOW_NS));
    assert_eq!(rig.get(&good).await, (StatusCode::FORBIDDEN, CLOSED_TEXT.to_owned()));
}

#[tokio::test]
async fn a_revoked_link_opens_nothing_also_after_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let dir = DataDir::open(&folder.path().join("d")).unwrap();
    let mut rig = Rig::new().await;
    rig.feeds = rig.feeds.signed_by(FeedKey::open(&dir).unwrap(), Reached::default());
    let (kept, kept_path) = rig.link("prod", "").await;
    let (gone, gone_path) = rig.link("prod", "").await;
    assert!(matches!(rig.feeds.revoke("nothing", "x".into(), "p".into()).await, Err(FeedError::Unknown(_))));
    let revoked = rig.feeds.revoke(&gone.id, "leaked".into(), "p2".into()).await.unwrap();
    assert_eq!(revoked.revoked, Some(("leaked".to_owned(), "p2".to_owned())));
    assert_eq!(rig.feeds.revoke(&gone.id, "again".into(), "p3".into()).await.unwrap(), revoked, "the first counts");
    assert_eq!((rig.get(&gone_path).await.0, rig.get(&kept_path).await.0), (StatusCode::FORBIDDEN, StatusCode::OK));
    // Both were made at the same instant, so it is their names that order them.
    let mut both = [kept, revoked];
    both.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(rig.feeds.all(), both);
    // What history and data directory say is all there is.
    let history = History::open(Arc::new(rig.store.clone()), rig.clock.clone()).await.unwrap();
    let controller = Controller::open(history, &"c".into(), 1).await.unwrap();
    controller.schedules().resume().await.unwrap();
    rig.feeds = controller.feeds().clone().signed_by(FeedKey::open(&dir).unwrap(), Reached::default());
    assert_eq!(rig.feeds.all(), both);
    assert_eq!((rig.get(&gone_path).await.0, rig.get(&kept_path).await.0), (StatusCode::FORBIDDEN, StatusCode::OK));
    // A history in which it was never made does not know it, whoever signed it.
    let other = Rig::new().await;
    let other = Rig { feeds: other.feeds.clone().signed_by(FeedKey::open(&dir).unwrap(), Reached::default()), ..other };
    assert_eq!(other.get(&kept_path).await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_link_is_not_made_for_what_is_elsewhere() {
    let rig = Rig::new().await;
    let refused = |environment: &str, schedule: &str| {
        let (environment, schedule, feeds) = (environment.to_owned(), schedule.to_owned(), rig.feeds.clone());
        async move { feeds.make(environment, schedule, YEAR, "p".into()).await.unwrap_err().to_string() }
    };
    assert!(refused("staging", "nightly").await.contains("is in environment prod"));
    assert!(refused("prod", "nobody").await.contains("no schedule \"nobody\" here"));
    assert!(refused(&"é".repeat(400), "").await.contains("too long"));
    assert_eq!(
        (rig.feeds.environment("", "trial").as_str(), rig.feeds.environment("", "").as_str()),
        ("staging", "default")
    );
}

#[test]
fn the_key_is_private_kept_and_never_shown() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let dir = DataDir::open(&folder.path().join("d")).unwrap();
    let key = FeedKey::open(&dir).unwrap();
    let kept = std::fs::read_to_string(dir.join("feed.key")).unwrap();
    assert_eq!(std::fs::metadata(dir.join("feed.key")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!((FeedKey::open(&dir).unwrap().id(), kept.len()), (key.id(), 64));
    assert!(!format!("{key:?}").contains(&kept[..16]) && !kept.contains(key.id()));
    std::fs::write(dir.join("feed.key"), "short").unwrap();
    let unusable = FeedKey::open(&dir).unwrap_err().to_string();
    assert!(unusable.contains("feed.key cannot be used") && unusable.contains("remove it"), "{unusable}");
}
