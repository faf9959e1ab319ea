//! Webhook, Slack and PagerDuty against a server that checks, refuses, fails, waits and falls silent.

use ring::hmac;
use serde_json::json;

use super::{
    receiver::{Answer, Heard, Receiver, TAKEN, certificate, closed_port},
    *,
};

fn webhook(name: &str, url: &str, key: &str) -> String {
    format!("  - name: {name}\n    webhook: {{ url: \"{url}/events?x=1\", secret: {{ file: \"{key}\" }} }}\n")
}

/// What a receiver does that follows the documentation: the event, if the request is signed with `key` and not old.
fn checked(heard: &Heard, key: &str, now: i64) -> Result<serde_json::Value, &'static str> {
    let header = heard.headers.get("fracas-signature").ok_or("it is not signed")?;
    let (at, hex) = header.strip_prefix("t=").and_then(|rest| rest.split_once(",v1=")).ok_or("not of this form")?;
    if (now - at.parse::<i64>().map_err(|_| "no instant")?).abs() > 300 {
        return Err("it is old");
    }
    let bytes = |hex: &str| (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16)).collect();
    let signature: Vec<u8> = Result::<_, _>::map_err(bytes(hex), |_: std::num::ParseIntError| "no digits")?;
    let signed = [at.as_bytes(), b".", &heard.body].concat();
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), &signed, &signature).map_err(|_| "forged")?;
    Ok(heard.json())
}

/// The wall clock of a history whose clock stands still, in seconds.
fn now() -> i64 {
    stamp().wall_ns / 1_000_000_000
}

#[tokio::test]
async fn a_webhook_gets_a_signed_cloud_event() {
    let folder = tempfile::tempdir().unwrap();
    let mut receiver = Receiver::start(vec![]).await;
    let (history, _, _) = history().await;
    let key = secret(folder.path(), "key", "whsec-1");
    let _notices = begin(&history, &webhook("audit", &receiver.url(), &key)).await;
    halt(&history, "real incident: Übung").await;
    let heard = receiver.next().await;
    assert_eq!(heard.line, "POST /events?x=1 HTTP/1.1");
    assert_eq!(heard.headers["content-type"], "application/cloudevents+json");
    assert_eq!(heard.headers["host"], format!("127.0.0.1:{}", receiver.port));
    assert!(heard.headers["user-agent"].starts_with("fracas/"));
    let event = checked(&heard, "whsec-1", now()).unwrap();
    let expected = json!({
        "specversion": "1.0",
        "id": "audit/c/1",
        "source": format!("urn:uuid:{CONTROLLER}"),
        "type": "dev.fracas.halt.set",
        "subject": "halt",
        "time": "2026-11-24T02:45:00.000Z",
        "datacontenttype": "application/json",
        "data": {
            "severity": "error",
            "summary": "everything is halted by admin: real incident: Übung",
            "by": "admin",
            "reason": "real incident: Übung",
            "text": "event: halt.set\ntime: 2026-11-24T02:45:00.000Z\nseverity: error\nby: admin\n\
                     reason: real incident: Übung",
        },
    });
    assert_eq!(event, expected);
    // What is forged, changed or replayed is found out.
    assert_eq!(checked(&heard, "whsec-2", now()), Err("forged"));
    assert_eq!(checked(&heard, "whsec-1", now() + 301), Err("it is old"));
    let mut changed = heard.clone();
    changed.body[10] ^= 1;
    assert_eq!(checked(&changed, "whsec-1", now()), Err("forged"));
    let mut renewed = heard.clone();
    let old = renewed.headers["fracas-signature"].clone();
    renewed.headers.insert("fracas-signature".into(), old.replace(&now().to_string(), &(now() + 400).to_string()));
    assert_eq!(checked(&renewed, "whsec-1", now() + 400), Err("forged"));
}

#[tokio::test]
async fn a_receiver_that_fails_is_tried_until_it_takes_the_same_event() {
    let folder = tempfile::tempdir().unwrap();
    let busy = Answer::Status(503, "", "busy");
    let mut receiver = Receiver::start(vec![busy.clone(), Answer::Close, Answer::Status(500, "", ""), busy]).await;
    let (history, _, clock) = history().await;
    let key = secret(folder.path(), "key", "k1");
    let notices = begin(&history, &webhook("audit", &receiver.url(), &key)).await;
    quarantine(&history, "h1").await;
    let mut all = Vec::new();
    for n in 0..5 {
        let heard = receiver.next().await;
        all.push(checked(&heard, "k1", now() + n).unwrap());
        // Each try is signed as of its own instant.
        clock.advance(Dur::from_secs(1));
    }
    within(notices.settled()).await;
    assert!(all.iter().all(|event| *event == all[0]), "{all:?}");
    assert_eq!(all[0]["id"], "host/h1/1");
    within(async {
        while became(&history, "audit").await.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(became(&history, "audit").await, [("host/h1/1".to_owned(), 5, None)]);
    assert_eq!(receiver.rest().len(), 0);
    let standing = &notices.standings()[0];
    assert_eq!((standing.waiting, &standing.failing), (0, &None));
    assert_eq!(standing.last.as_ref().unwrap().attempts, 5);
}

#[tokio::test]
async fn a_receiver_that_wants_to_be_left_alone_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut receiver = Receiver::start(vec![Answer::Status(429, "retry-after: 1\r\n", "")]).await;
    let (history, _, _) = history().await;
    let key = secret(folder.path(), "key", "k1");
    let _notices = begin(&history, &webhook("audit", &receiver.url(), &key)).await;
    quarantine(&history, "h1").await;
    let (first, second) = (receiver.next().await, receiver.next().await);
    assert!(second.at - first.at >= Duration::from_secs(1), "{:?}", second.at - first.at);
}

#[tokio::test]
async fn nobody_listens_and_then_somebody_does() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, port) = closed_port();
    let (history, _, _) = history().await;
    let key = secret(folder.path(), "key", "k1");
    let notices = begin(&history, &webhook("audit", &format!("http://127.0.0.1:{port}"), &key)).await;
    quarantine(&history, "h1").await;
    release(&history, "h1").await;
    let failing = async {
        while notices.standings()[0].failing.is_none() {
            tokio::task::yield_now().await;
        }
    };
    within(failing).await;
    within(heard(&notices)).await;
    let standing = notices.standings().remove(0);
    assert_eq!(standing.failing, Some((stamp().wall_ns, "connection refused".to_owned())));
    assert_eq!((standing.waiting, standing.last), (2, None));
    let mut receiver = Receiver::on(socket.listen(16).unwrap(), vec![], None);
    let types = [receiver.next().await, receiver.next().await].map(|heard| heard.json()["type"].clone());
    assert_eq!(types, ["dev.fracas.host.quarantined", "dev.fracas.host.released"]);
    within(notices.settled()).await;
}

#[tokio::test]
async fn what_is_refused_for_good_is_not_tried_again_and_holds_nothing_up() {
    let folder = tempfile::tempdir().unwrap();
    let gone = Answer::Status(404, "", "no such\nhook");
    let moved = Answer::Status(301, "location: http://127.0.0.1:1/\r\n", "");
    let mut receiver = Receiver::start(vec![gone, moved]).await;
    let (history, _, _) = history().await;
    let key = secret(folder.path(), "key", "k1");
    let notices = begin(&history, &webhook("audit", &receiver.url(), &key)).await;
    for host in ["h1", "h2", "h3"] {
        quarantine(&history, host).await;
        receiver.next().await;
    }
    let settled = async {
        while became(&history, "audit").await.len() < 3 {
            tokio::task::yield_now().await;
        }
    };
    within(settled).await;
    let moved = "status 301 Moved Permanently (redirects are not followed: name the final URL)";
    assert_eq!(
        became(&history, "audit").await,
        [
            ("host/h1/1".to_owned(), 1, Some("status 404 Not Found".to_owned())),
            ("host/h2/1".to_owned(), 1, Some(moved.to_owned())),
            ("host/h3/1".to_owned(), 1, None),
        ]
    );
    assert!(notices.standings()[0].failing.is_none());
    receiver.answer(vec![Answer::Status(410, "", "the\nhook of sre@example.com is gone")]);
    let failed = within(notices.test("audit", "1", "admin")).await.unwrap().failed;
    assert_eq!(failed.unwrap(), "status 410 Gone: the hook of sre@example.com is gone", "people are told its words");
}

#[tokio::test]
async fn one_notice_that_a_receiver_cannot_digest_does_not_block_the_others_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let mut receiver = Receiver::start(vec![Answer::Status(500, "", ""); 20]).await;
    let (history, _, _) = history().await;
    let key = secret(folder.path(), "key", "k1");
    let notices = begin(&history, &webhook("audit", &receiver.url(), &key)).await;
    quarantine(&history, "h1").await;
    quarantine(&history, "h2").await;
    for _ in 0..20 {
        assert_eq!(receiver.next().await.json()["id"], "host/h1/1");
    }
    assert_eq!(receiver.next().await.json()["id"], "host/h2/1");
    within(notices.settled()).await;
    let why = Some("status 500 Internal Server Error".to_owned());
    assert_eq!(became(&history, "audit").await[0], ("host/h1/1".to_owned(), 20, why));
}

#[tokio::test]
async fn what_is_too_old_is_given_up_on_the_record() {
    let folder = tempfile::tempdir().unwrap();
    let mut receiver = Receiver::start(vec![Answer::Status(503, "", "")]).await;
    let (history, _, clock) = history().await;
    let key = secret(folder.path(), "key", "k1");
    let list = format!("{}    giveUpAfter: 1h\n", webhook("audit", &receiver.url(), &key));
    let notices = begin(&history, &list).await;
    quarantine(&history, "h1").await;
    receiver.next().await;
    receiver.answer(vec![Answer::Status(503, "", ""); 1000]);
    clock.advance(Dur::from_secs(3600));
    let given_up = async {
        while became(&history, "audit").await.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    within(given_up).await;
    let (notice, _, why) = became(&history, "audit").await.remove(0);
    assert_eq!((notice.as_str(), why.as_deref()), ("host/h1/1", Some("status 503 Service Unavailable")));
    let standing = notices.standings().remove(0);
    assert_eq!((standing.waiting, standing.failing.is_some()), (0, true));
    assert!(standing.last.unwrap().gave_up.is_some());
}

#[tokio::test]
async fn a_silent_receiver_delays_no_other_channel() {
    let folder = tempfile::tempdir().unwrap();
    let (mut silent, mut quick) = (Receiver::start(vec![Answer::Silence; 10]).await, Receiver::start(vec![]).await);
    let (history, _, _) = history().await;
    let key = secret(folder.path(), "key", "k1");
    let list = webhook("a-silent", &silent.url(), &key) + &webhook("b-quick", &quick.url(), &key);
    let notices = begin(&history, &list).await;
    for host in ["h1", "h2", "h3"] {
        quarantine(&history, host).await;
    }
    assert_eq!(silent.next().await.json()["id"], "host/h1/1");
    for host in ["h1", "h2", "h3"] {
        assert_eq!(quick.next().await.json()["id"], format!("host/{host}/1"));
    }
    assert_eq!(notices.standings()[0].waiting, 3);
    assert_eq!(silent.rest().len(), 0);
}

#[tokio::test]
async fn an_answer_without_end_is_read_only_so_far() {
    let folder = tempfile::tempdir().unwrap();
    let long: &'static str = "x".repeat(3 << 20).leak();
    let mut receiver = Receiver::start(vec![Answer::Status(400, "", long)]).await;
    let (history, _, _) = history().await;
    let key = secret(folder.path(), "key", "k1");
    let notices = begin(&history, &webhook("audit", &receiver.url(), &key)).await;
    let trial = within(notices.test("audit", "1", "admin")).await.unwrap();
    assert!(trial.failed.unwrap().len() < 300);
    assert_eq!(receiver.next().await.json()["type"], "dev.fracas.test");
}

#[tokio::test]
async fn what_was_taken_is_not_sent_again_because_the_answer_does_not_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut receiver = Receiver::start(vec![Answer::Dangling]).await;
    let (history, _, _) = history().await;
    let key = secret(folder.path(), "key", "k1");
    let notices = begin(&history, &webhook("audit", &receiver.url(), &key)).await;
    quarantine(&history, "h1").await;
    quarantine(&history, "h2").await;
    let ids = [receiver.next().await, receiver.next().await].map(|heard| heard.json()["id"].clone());
    assert_eq!(ids, ["host/h1/1", "host/h2/1"]);
    within(notices.settled()).await;
}

#[tokio::test]
async fn a_certificate_is_checked_against_the_authority_of_the_channel() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, certificate, its_key) = certificate();
    let (stranger, ..) = self::certificate();
    let mut receiver = Receiver::secured(&certificate, &its_key).await;
    let (history, _, _) = history().await;
    let key = secret(folder.path(), "key", "k1");
    let with_ca = |name: &str, pem: &str| {
        let ca = secret(folder.path(), name, pem);
        let url = format!("https://127.0.0.1:{}", receiver.port);
        format!("  - name: {name}\n    webhook: {{ url: \"{url}\", secret: {{ file: \"{key}\" }}, ca: \"{ca}\" }}\n")
    };
    let list = with_ca("good", &authority) + &with_ca("strange", &stranger) + &with_ca("empty", "");
    let notices = begin(&history, &list).await;
    assert_eq!(within(notices.test("good", "1", "admin")).await.unwrap().failed, None);
    checked(&receiver.next().await, "k1", now()).unwrap();
    let failed = within(notices.test("strange", "1", "admin")).await.unwrap().failed.unwrap();
    assert!(failed.starts_with("TLS: invalid peer certificate"), "{failed}");
    let failed = within(notices.test("empty", "1", "admin")).await.unwrap().failed.unwrap();
    assert!(failed.contains("holds no usable certificate"), "{failed}");
    assert_eq!(receiver.rest().len(), 0);
    assert!(notices.test("nobody", "1", "admin").await.is_err());
}

#[tokio::test]
async fn slack_gets_the_words_of_the_channel() {
    let folder = tempfile::tempdir().unwrap();
    let mut receiver = Receiver::start(vec![]).await;
    let (history, _, _) = history().await;
    let url = secret(folder.path(), "url", &format!("{}/services/T0/B0/xyz", receiver.url()));
    let list = format!(
        "  - name: chat\n    slack: {{ url: {{ file: \"{url}\" }} }}\n    template: {{ subject: \"[${{event}}] ${{host}}\" }}\n"
    );
    let notices = begin(&history, &list).await;
    quarantine(&history, "<!here>").await;
    let heard = receiver.next().await;
    assert_eq!(heard.line, "POST /services/T0/B0/xyz HTTP/1.1");
    assert_eq!(heard.headers["content-type"], "application/json");
    assert_eq!(heard.json()["text"], "[host.quarantined] &lt;!here&gt;");
    assert_eq!(heard.json()["blocks"][1]["text"]["type"], "plain_text");
    within(notices.settled()).await;
}

#[tokio::test]
async fn pagerduty_is_told_what_opens_an_incident_and_what_closes_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut receiver = Receiver::start(vec![]).await;
    let (history, _, _) = history().await;
    let key = secret(folder.path(), "key", "R0UT1NGKEY");
    let list = format!(
        "  - name: oncall\n    pagerduty: {{ url: \"{}\", routingKey: {{ file: \"{key}\" }} }}\n",
        receiver.url()
    );
    let notices = begin(&history, &list).await;
    quarantine(&history, "h1").await;
    halt(&history, "real incident").await;
    release(&history, "h1").await;
    let cleared = Body::HaltCleared { by: "admin".into(), reason: "over".into(), at: stamp() };
    history.append("audit/c", vec![cleared]).await.unwrap();
    let mut all = Vec::new();
    for _ in 0..4 {
        let heard = receiver.next().await;
        assert_eq!(heard.line, "POST /v2/enqueue HTTP/1.1");
        all.push(heard.json());
    }
    assert!(all.iter().all(|event| event["routing_key"] == "R0UT1NGKEY"));
    let told: Vec<_> = all.iter().map(|e| (e["event_action"].clone(), e["dedup_key"].clone())).collect();
    let key = |rest: &str| format!("urn:uuid:{CONTROLLER}/{rest}");
    let pair = |action: &str, rest: &str| (json!(action), json!(key(rest)));
    let expected =
        [pair("trigger", "host/h1"), pair("trigger", "halt"), pair("resolve", "host/h1"), pair("resolve", "halt")];
    assert_eq!(told, expected);
    let payload = &all[0]["payload"];
    assert_eq!(payload["severity"], "critical");
    assert_eq!(payload["summary"], "host h1 is quarantined: run r1 was left unconfirmed on it");
    assert_eq!(payload["timestamp"], "2026-11-24T02:45:00.000Z");
    assert_eq!((&payload["class"], &payload["component"]), (&json!("host.quarantined"), &json!("host/h1")));
    assert_eq!(payload["custom_details"]["run"], "r1");
    assert!(all[2].get("payload").is_none());
    // A test leaves nothing open.
    assert_eq!(within(notices.test("oncall", "7", "admin")).await.unwrap().failed, None);
    let tests = [receiver.next().await.json(), receiver.next().await.json()];
    let actions = tests.clone().map(|event| event["event_action"].clone());
    assert_eq!((actions, &tests[0]["dedup_key"]), ([json!("trigger"), json!("resolve")], &tests[1]["dedup_key"]));
}

#[tokio::test]
async fn a_pair_whose_end_fails_is_sent_whole_again_under_the_same_key() {
    let folder = tempfile::tempdir().unwrap();
    // The end of the run closes one incident and opens another; of these two the second fails first.
    let mut receiver = Receiver::start(vec![TAKEN, TAKEN, Answer::Status(429, "", "")]).await;
    let (history, _, _) = history().await;
    let key = secret(folder.path(), "key", "K3Y0");
    let list = format!(
        "  - name: oncall\n    pagerduty: {{ url: \"{}/\", routingKey: {{ file: \"{key}\" }} }}\n    on: [run.aborted, run.finished]\n",
        receiver.url()
    );
    let notices = begin(&history, &list).await;
    let planned = whole::planned("r1");
    let abort = fracas_model::event::AbortKind::GuardRail;
    let aborted = Body::Aborted { cause: "web is down".into(), why: abort, at: stamp() };
    let verdict = fracas_model::event::VerdictWord::Fail;
    let finished = Body::Finished { verdict, exit_code: 1, reasons: vec![], at: stamp() };
    history.append("run/r1", vec![planned, aborted, finished]).await.unwrap();
    let mut told = Vec::new();
    for _ in 0..5 {
        let event = receiver.next().await.json();
        let key = event["dedup_key"].as_str().unwrap().rsplit_once("000001/").unwrap().1.to_owned();
        told.push((event["event_action"].as_str().unwrap().to_owned(), key));
    }
    let told: Vec<(&str, &str)> = told.iter().map(|(action, key)| (action.as_str(), key.as_str())).collect();
    let (over, failed) = (("resolve", "run/r1"), ("trigger", "experiment/default/kill-web"));
    assert_eq!(told, [("trigger", "run/r1"), over, failed, over, failed]);
    within(notices.settled()).await;
}
