//! What is due, as calendar programs get it: by a signed link over TLS, with a client and a parser that nobody here wrote; and
//! whoever has no good link gets nothing.

use fracas_sim::{lab::Program, need::Need};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    rig::{DATA, Rig, until},
    trial,
};

const NEEDS: &[Need] = &[Need::Lab, Need::Program("curl"), Need::Python("icalendar")];

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("a_calendar_program_reads_what_is_due_by_its_link", NEEDS, read_by_link)]
}

const SCRIPT: &str = include_str!("feed.py");
const EXPERIMENT: &str = "apiVersion: fracas/v1\nkind: Experiment\nname: page\ntargets: { box: { select: role=box } }\n\
    timeline: [{ id: break, at: 0s, for: 1s, target: box, fault: { file-replace: { path: /run/x, content: y } } }]\n";
const HOLIDAYS: &str = "BEGIN:VCALENDAR\nVERSION:2.0\nBEGIN:VEVENT\nUID:1\nDTSTART;VALUE=DATE:20260104\n\
    RRULE:FREQ=WEEKLY\nSUMMARY:Sundays\\, all of them\nEND:VEVENT\nEND:VCALENDAR\n";

fn schedule(name: &str, more: &str) -> String {
    format!("apiVersion: fracas/v1\nkind: Schedule\nname: {name}\nexperiment: page.yaml\n{more}\n")
}

/// What came back for a URL: status, HTTP version, headers, body.
struct Answer {
    status: u16,
    version: String,
    headers: String,
    body: String,
}

fn curl(rig: &Rig, words: &[&str], url: &str) -> Answer {
    let fixed =
        ["-sS", "-m", "20", "-D", "/run/headers", "-o", "/run/body", "-w", "%{http_code} %{http_version}", "--cacert"];
    rig.shell("ctl", "rm -f /run/headers /run/body; touch /run/headers /run/body");
    let said = rig.say(
        "ctl",
        Program::new("curl").args(fixed).arg(format!("{DATA}/ca.pem")).args(words.iter().copied()).arg(url),
    );
    let (status, version) = said.out.split_once(' ').unwrap_or_else(|| panic!("{said:?}"));
    let read = |file: &str| rig.shell("ctl", &format!("cat {file}"));
    Answer {
        status: status.parse().unwrap_or_else(|_| panic!("{said:?}")),
        version: version.to_owned(),
        headers: read("/run/headers").to_lowercase(),
        body: read("/run/body"),
    }
}

fn link(rig: &Rig, words: &[&str]) -> (String, String) {
    let all: Vec<&str> = ["schedule", "feed", "--output", "json"].iter().chain(words).copied().collect();
    let made = rig.fracas(&all).good().json().remove(0);
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
    (text(&made["url"]), text(&made["feed"]["id"]))
}

fn read_by_link() {
    let rig = Rig::bare(&["box"]);
    rig.start_controller_as(rig.controller_program(DATA).args(["--front-listen", "0.0.0.0:7766"]));
    rig.join("box", &[("role", "box")]);
    rig.until_connected(&["box"]);
    rig.document("page", EXPERIMENT);
    rig.keep("ctl", "/run/holidays.ics", HOLIDAYS);
    let set = |name: &str, environment: &str, more: &str| {
        let path = rig.document(name, &schedule(name, more));
        rig.fracas(&["schedule", "set", &path, "--environment", environment]).good();
    };
    set("nightly", "prod", "when: { cron: 30 2 * * * }\nblackouts: [{ file: holidays.ics }]\ndescription: 'a; b, c'");
    set("surprise", "prod", "when: { random: { opens: 0 9 * * mon, within: 8h } }");
    set("trial", "staging", "when: { cron: 0 12 * * * }");
    rig.fracas(&["schedule", "pause", "surprise", "--reason", "release week\r\nEND:VCALENDAR"]).good();

    // By both versions of HTTP, and in the forms that are printed for people.
    let (url, id) = link(&rig, &["--environment", "prod"]);
    assert!(url.starts_with("https://ctl:7766/schedules.ics?environment=prod&"), "{url}");
    let said = rig.fracas(&["schedule", "feed", "--name", "trial"]).good();
    assert!(said.out.starts_with("https://ctl:7766/") && said.out.lines().count() == 1, "{}", said.out);
    assert!(said.err.contains(&format!("{DATA}/ca.pem")) && said.err.contains("--revoke"), "{}", said.err);
    let trial = curl(&rig, &[], &said.out);
    assert!(trial.status == 200 && trial.body.contains("trial") && !trial.body.contains("nightly"), "{}", trial.body);
    let answer = curl(&rig, &[], &url);
    assert_eq!((answer.status, answer.version.as_str()), (200, "2"), "{}", answer.body);
    for header in ["content-type: text/calendar; charset=utf-8", "etag: \"", "cache-control: private"] {
        assert!(answer.headers.contains(header), "{header}: {}", answer.headers);
    }
    parsed(&rig);
    let old = curl(&rig, &["--http1.1"], &url);
    assert_eq!((old.status, old.version.as_str(), old.body == answer.body), (200, "1.1", true));
    let tag = answer.headers.lines().find_map(|line| line.strip_prefix("etag: ")).expect("a tag").trim().to_owned();
    assert_eq!(curl(&rig, &["-H", &format!("If-None-Match: {tag}")], &url).status, 304);
    let head = curl(&rig, &["-I"], &url);
    assert!(
        head.status == 200 && head.headers.contains("content-length: ") && head.body.len() < 2000,
        "{}",
        head.headers
    );

    attacked(&rig, &url);

    // One that expires, and one that is revoked; both also after the next start, at which the good one still is.
    let (short, _) = link(&rig, &["--ttl", "1s"]);
    let (leaked, leaked_id) = link(&rig, &["--name", "nightly"]);
    assert_eq!(curl(&rig, &[], &leaked).status, 200);
    rig.fracas(&["schedule", "feed", "--revoke", &leaked_id, "--reason", "leaked"]).good();
    until("the link has expired", || curl(&rig, &[], &short).status == 403);
    assert_eq!(curl(&rig, &[], &leaked).status, 403);
    let unknown = rig.fracas(&["schedule", "feed", "--revoke", "0123456789abcdef", "--reason", "x"]);
    assert!(unknown.code != 0 && unknown.err.contains("--list"), "{}", unknown.err);
    rig.kill_controller();
    rig.start_controller_as(rig.controller_program(DATA).args(["--front-listen", "0.0.0.0:7766"]));
    let after = [&url, &short, &leaked].map(|url| curl(&rig, &[], url).status);
    assert_eq!(after, [200, 403, 403]);
    let listed = rig.fracas(&["schedule", "feed", "--list"]).good().out;
    assert!(listed.contains(&id) && listed.contains("leaked"), "{listed}");

    // What opens a link is nowhere but in the link.
    let signature = url.rsplit_once('=').expect("a signature").1;
    assert!(signature.len() == 64 && !rig.controller_log().contains(signature));
    let key = rig.shell("ctl", &format!("stat -c %a {DATA}/feed.key; cat {DATA}/feed.key"));
    let (mode, key) = key.split_once('\n').expect("two lines");
    assert!(mode == "600" && key.len() == 64 && !rig.controller_log().contains(key), "{mode}");
    let kept = rig.shell("ctl", &format!("grep -c -e {signature} -e {key} {DATA}/history.sqlite* || true"));
    assert!(kept.lines().all(|line| line.ends_with(":0")), "{kept}");
    rig.stop();
}

/// What the foreign parser finds in the answer that was fetched last.
fn parsed(rig: &Rig) {
    let python = std::env::var("FRACAS_PYTHON").expect("checked");
    let told = rig.say("ctl", Program::new(python).args(["-c", SCRIPT, "/run/body"])).good().json().remove(0);
    assert_eq!((told["name"].as_str(), &told["errors"]), (Some("Fracas: prod"), &serde_json::json!([])));
    let events = told["events"].as_array().expect("events");
    assert!(events.iter().all(|event| event["errors"] == serde_json::json!([])), "{told}");
    let of = |name: &str| {
        events.iter().filter(|event| event["uid"].as_str().is_some_and(|uid| uid.starts_with(name))).collect::<Vec<_>>()
    };
    let (nightly, surprise) = (of("nightly."), of("surprise."));
    assert_eq!(nightly.len() + surprise.len(), events.len(), "nothing of another environment");
    // Ninety days at half past two, one of seven forbidden by the calendar.
    assert_eq!(nightly.len(), 90);
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let second = |event: &Value| event["start"].as_i64().expect("a time");
    assert!(
        nightly
            .iter()
            .all(|event| second(event) % 86_400 == 9000 && event["end"].as_i64() == Some(second(event) + 900))
    );
    let forbidden: Vec<_> = nightly.iter().filter(|event| event["status"] == "CANCELLED").collect();
    assert!((12..=13).contains(&forbidden.len()), "{}", forbidden.len());
    // 1970-01-04 was a Sunday.
    assert!(forbidden.iter().all(|event| (second(event) / 86_400 - 3) % 7 == 0));
    assert!(text(&forbidden[0]["summary"]).contains("in a blackout: Sundays, all of them"), "{}", forbidden[0]);
    let open = nightly.iter().find(|event| event["status"] == "CONFIRMED").expect("one that is not forbidden");
    let about = text(&open["description"]);
    assert!(about.contains("a; b, c\n") && about.contains("Environment: prod\nSet by: admin"), "{about}");
    // Windows of eight hours, not the moments in them; paused with a reason that stays one.
    assert!((12..=14).contains(&surprise.len()));
    assert!(surprise.iter().all(|event| event["end"].as_i64() == Some(second(event) + 8 * 3600)));
    let paused = text(&surprise[0]["description"]);
    assert!(paused.contains("Skipped, paused: release week\nEND:VCALENDAR."), "{paused}");
}

/// Everything that is no good link, made from one that is.
fn attacked(rig: &Rig, url: &str) {
    let signature = url.rsplit_once('=').expect("a signature").1;
    let (page, query) = url.split_once('?').expect("a query");
    let turned: String = signature.chars().rev().collect();
    let long = format!("{page}?{}", "a".repeat(3000));
    let refused = [
        page.to_owned(),
        url.replace(signature, &turned),
        url.replace(signature, &"0".repeat(64)),
        url.replace("environment=prod", "environment=staging"),
        url.replace("expires=", "expires=9"),
        format!("{url}&schedule=trial"),
        format!("{page}?{query}&{query}"),
        long,
    ];
    let mut texts = Vec::new();
    for bad in &refused {
        let answer = curl(rig, &[], bad);
        assert_eq!(answer.status, 403, "{bad}");
        texts.push(answer.body);
    }
    texts.dedup();
    assert!(texts.len() == 1 && texts[0].len() < 200, "all are told the same: {texts:?}");
    for path in [
        "/",
        "/schedules.ics/",
        "/x/../schedules.ics/..",
        "/schedules.ics%2f..%2f",
        "/../../etc/passwd",
        "/admin.token",
    ] {
        for version in ["--http1.1", "--http2"] {
            let answer = curl(rig, &["--path-as-is", version], &format!("https://ctl:7766{path}?{query}"));
            assert!(answer.status == 404 || !answer.headers.contains("text/"), "{version} {path}: {}", answer.body);
            assert!(!answer.body.contains("BEGIN:VCALENDAR"), "{version} {path}");
        }
    }
    for words in [&["-d", "x"][..], &["-X", "PUT"], &["-X", "DELETE"], &["-X", "OPTIONS"]] {
        let answer = curl(rig, words, url);
        assert!(answer.status == 405 && answer.headers.contains("allow: get, head"), "{words:?}: {}", answer.headers);
    }
    // gRPC by the old HTTP is not spoken, with or without a token.
    let call = "https://ctl:7766/fracas.v1.Operator/ListRuns";
    assert_eq!(curl(rig, &["--http1.1", "-d", "x", "-H", "content-type: application/grpc"], call).status, 404);
    for version in ["--http1.1", "--http2"] {
        let huge = format!("{page}?{}", "a".repeat(100_000));
        let answer = curl(rig, &[version], &huge);
        assert!(answer.status == 0 || (400..500).contains(&answer.status), "{version}: {}", answer.status);
    }
    assert_eq!(curl(rig, &[], url).status, 200, "and the good one still is");
}
