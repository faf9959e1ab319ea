//! Experiments that run by themselves: each due time is a run, with its effect seen from outside, or a recorded skip; also
//! over the death of the controller.
//!
//! `FRACAS_SCHEDULE_STARTS=N` asks for so many starts, and `FRACAS_SCHEDULE_LOADED=N` for so many schedules beside them;
//! `cargo xtask schedule-trial` does.

use std::time::{Duration, Instant};

use fracas_sim::need::Need;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    controller_trial::given,
    halt_trial::figures,
    rig::{LIMIT, Rig, until},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_schedule_runs_by_itself_and_says_what_it_skipped", &[Need::Lab], by_itself),
        trial(
            "an_event_of_a_calendar_forbids_with_its_name_until_the_schedule_is_set_again",
            &[Need::Lab],
            by_calendar,
        ),
        trial("a_schedule_outlives_its_controller_and_starts_nothing_twice", &[Need::Lab], outlives),
        trial("a_schedule_takes_hosts_from_other_schedules_and_never_from_people", &[Need::Lab], takes_over),
        trial("scheduled_runs_start_in_time", &[Need::Lab], in_time),
        trial("a_schedule_with_mistakes_is_refused_with_all_of_them", &[Need::Lab], refused),
    ]
}

const PAGE: &str = "/run/data/page";

const EXPERIMENT: &str = "
apiVersion: fracas/v1
kind: Experiment
name: page-is-broken
parameters: { length: { type: duration, default: 300ms } }
targets: { box: { select: \"role=box\" } }
timeline:
  - { id: break, at: 0s, fault: { file-replace: { path: /run/data/page, content: broken } }, target: box, for: \"${length}\" }
recovery: { stableFor: 0s, giveUpAfter: 1s }
";

fn schedule(more: &str) -> String {
    format!(
        "apiVersion: fracas/v1\nkind: Schedule\nname: often\nexperiment: page.yaml\n\
         when: {{ every: {{ period: 2s, from: 2026-01-01T00:00 }} }}\n{more}"
    )
}

/// A host with a page, and both documents beside each other where the operator works.
fn prepared(more: &str) -> (Rig, String) {
    let rig = Rig::start(&[("box", &[("role", "box")])]);
    rig.keep("box", PAGE, "as it was");
    rig.document("page", EXPERIMENT);
    let path = rig.document("often", &schedule(more));
    (rig, path)
}

fn show(rig: &Rig) -> Value {
    rig.fracas(&["schedule", "show", "often", "--limit", "1000", "--output", "json"]).good().json()[0].clone()
}

/// The facts of one kind.
fn facts(shown: &Value, what: &str) -> Vec<Value> {
    let events = shown["events"].as_array().expect("events");
    let of = events.iter().map(|event| event["body"]["fact"].clone());
    of.filter(|fact| fact["what"] == what).collect()
}

/// Each due of two seconds is settled once, and none is left out.
fn settled_once(shown: &Value) {
    let mut settled = Vec::new();
    for what in ["started", "skipped"] {
        for fact in facts(shown, what) {
            let at = |due: &str| fact[due]["nominalNs"].as_i64();
            let (from, to) = (at("due").or(at("from")).expect("from"), at("due").or(at("to")).expect("to"));
            let many = fact["count"].as_i64().unwrap_or(1);
            assert_eq!((to - from) / 2_000_000_000 + 1, many, "{fact}");
            settled.extend((0..many).map(|n| from + n * 2_000_000_000));
        }
    }
    settled.sort_unstable();
    let gaps: Vec<&[i64]> = settled.windows(2).filter(|pair| pair[1] - pair[0] != 2_000_000_000).collect();
    assert!(settled.len() > 2 && gaps.is_empty(), "{gaps:?}");
}

fn by_itself() {
    let (rig, path) = prepared("");
    let said = rig.fracas(&["schedule", "set", &path]).good();
    assert!(said.out.contains("often is set: next"), "{}", said.out);
    let page = || rig.shell("box", &format!("cat {PAGE}"));
    until("the page is broken by itself", || page().contains("broken"));
    until("and whole again", || page().contains("as it was"));
    until("three runs have started", || facts(&show(&rig), "started").len() >= 3);
    let runs = rig.fracas(&["runs", "--output", "json"]).good().json()[0].clone();
    let by = &runs["runs"][0]["by"];
    assert_eq!(by, "schedule:often", "{runs}");
    rig.fracas(&["schedule", "pause", "often", "--reason", "release week"]).good();
    let skipped =
        |shown: &Value| facts(shown, "skipped").iter().filter(|fact| fact["reason"]["why"] == "paused").count();
    until("times are skipped, with the reason", || skipped(&show(&rig)) >= 2);
    let started = facts(&show(&rig), "started").len();
    assert!(rig.fracas(&["schedule", "list"]).good().out.contains("paused: release week"));
    rig.fracas(&["schedule", "resume", "often"]).good();
    until("it goes on", || facts(&show(&rig), "started").len() > started);
    // A halt is a reason too.
    rig.fracas(&["halt", "--reason", "real incident"]).good();
    let halted = |shown: &Value| facts(shown, "skipped").iter().any(|fact| fact.to_string().contains("real incident"));
    until("times under a halt are skipped", || halted(&show(&rig)));
    rig.fracas(&["halt", "clear", "--reason", "over"]).good();
    let shown = show(&rig);
    settled_once(&shown);
    let text = rig.fracas(&["schedule", "show", "often"]).good().out;
    assert!(text.contains("skipped, refused: everything is halted: real incident"), "{text}");
    rig.fracas(&["schedule", "remove", "often", "--reason", "enough"]).good();
    let gone = rig.fracas(&["schedule", "show", "often"]);
    assert!(gone.code != 0 && gone.err.contains("fracas schedule list"), "{}", gone.err);
    rig.stop();
}

/// All of every day, with a line more in its event.
fn closing(more: &str) -> String {
    format!(
        "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nBEGIN:VEVENT\r\nUID:1\r\nDTSTART:20260101T000000Z\r\nDURATION:P1D\r\n\
         RRULE:FREQ=DAILY{more}\r\nSUMMARY:Quarter close\\, finance\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
    )
}

fn by_calendar() {
    const CALENDAR: &str = "/run/closing.ics";
    let (rig, path) = prepared("blackouts: [{ file: closing.ics }]\n");
    let skips = || {
        let named =
            |fact: &Value| fact["reason"]["why"] == "blackout" && fact["reason"]["name"] == "Quarter close, finance";
        let skipped = facts(&show(&rig), "skipped");
        assert!(skipped.iter().all(named), "{skipped:?}");
        skipped.iter().filter_map(|fact| fact["count"].as_u64()).sum::<u64>()
    };
    // What is not understood is refused with its place, and nothing is set.
    rig.keep("ctl", CALENDAR, &closing(";BYHOUR=9"));
    for words in [&["schedule", "set", &path][..], &["validate", &path], &["validate", CALENDAR]] {
        let refused = rig.fracas_going(words).end(LIMIT);
        assert!(
            refused.code == 2 && refused.text().contains("/run/closing.ics:7:18: error: `BYHOUR`"),
            "{}",
            refused.text()
        );
    }
    assert!(rig.fracas(&["schedule", "list"]).good().err.contains("no schedule yet"));
    rig.keep("ctl", CALENDAR, &closing(""));
    rig.fracas(&["validate", &path]).good();
    let next = rig.fracas(&["schedule", "next", &path, "--count", "1", "--from", "2027-01-01T00:00:00Z"]).good().out;
    let told = "skipped, in a blackout: Quarter close, finance, until Sat 2027-01-02 00:00:00 UTC";
    assert!(next.contains(told), "{next}");
    rig.fracas(&["schedule", "set", &path]).good();
    until("times are skipped", || skips() >= 2);
    assert!(
        rig.fracas(&["schedule", "show", "often"])
            .good()
            .out
            .contains("skipped, in a blackout: Quarter close, finance")
    );
    // The controller has all it needs; the file may change or go away, and a schedule that is refused changes nothing.
    rig.keep("ctl", CALENDAR, &closing("\r\nSTATUS:CANCELLED\r\nEXRULE:FREQ=DAILY"));
    assert_eq!(rig.fracas_going(&["schedule", "set", &path]).end(LIMIT).code, 2);
    rig.shell("ctl", &format!("rm {CALENDAR}"));
    assert_eq!(rig.fracas_going(&["schedule", "set", &path]).end(LIMIT).code, 2);
    rig.kill_controller();
    rig.start_controller();
    rig.until_connected(&["box"]);
    let before = skips();
    until("they still are", || skips() > before + 1);
    assert!(facts(&show(&rig), "started").is_empty());
    rig.keep("ctl", CALENDAR, &closing("\r\nSTATUS:CANCELLED"));
    rig.fracas(&["schedule", "set", &path]).good();
    until("set again, it starts", || !facts(&show(&rig), "started").is_empty());
    rig.fracas(&["schedule", "remove", "often", "--reason", "enough"]).good();
    rig.stop();
}

fn outlives() {
    // A run that lasts longer than the period, so that some times are forbidden.
    let (rig, path) = prepared("parameters: { length: 3s }\ncatchUp: latest\n");
    rig.fracas(&["schedule", "set", &path]).good();
    until("a run has started", || facts(&show(&rig), "started").len() == 1);
    for _ in 0..3 {
        rig.kill_controller();
        // Away for more than a period.
        let until_then = Instant::now() + Duration::from_secs(3);
        until("some times are missed", || Instant::now() > until_then);
        rig.start_controller();
        rig.until_connected(&["box"]);
        let before = facts(&show(&rig), "started").len();
        until("it goes on", || facts(&show(&rig), "started").len() > before);
    }
    let shown = show(&rig);
    settled_once(&shown);
    let runs = facts(&shown, "started");
    let runs: std::collections::BTreeSet<&str> = runs.iter().filter_map(|fact| fact["run"].as_str()).collect();
    assert_eq!(runs.len(), facts(&shown, "started").len(), "each due has a run of its own");
    assert!(!facts(&shown, "skipped").is_empty());
    rig.fracas(&["schedule", "remove", "often", "--reason", "enough"]).good();
    rig.fracas(&["stop", "last"]).good();
    rig.stop();
}

fn takes_over() {
    let (rig, path) = prepared("whenHostsAreTaken: replace\n");
    let page = || rig.shell("box", &format!("cat {PAGE}"));
    let long = schedule("parameters: { length: 1h }\n").replace("name: often", "name: long");
    let run_of = |name: &str| {
        let show = ["schedule", "show", name, "--limit", "1000", "--output", "json"];
        let started = facts(&rig.fracas(&show).good().json()[0], "started");
        started.first().and_then(|fact| fact["run"].as_str()).map(str::to_owned)
    };
    rig.fracas(&["schedule", "set", &rig.document("long", &long)]).good();
    until("the long one has the host", || page().contains("broken"));
    let taken = run_of("long").expect("a run");
    // It is not to come again.
    rig.fracas(&["schedule", "pause", "long", "--reason", "once is enough"]).good();

    rig.fracas(&["schedule", "set", &path]).good();
    until("the other one has started", || !facts(&show(&rig), "started").is_empty());
    let shown = show(&rig);
    let queued = facts(&shown, "queued").remove(0);
    let reason = queued["reason"].as_str().expect("a reason");
    assert_eq!(reason, format!("run {taken} is being stopped for it, to have its hosts"));
    assert_eq!(facts(&shown, "started")[0]["due"], queued["due"], "the due that waited is the one that started");
    let ended = rig.fracas(&["show", &taken, "--output", "json"]).good().out;
    assert!(ended.contains("schedule often takes its hosts"), "{ended}");
    // It began when the other one had undone everything.
    let history = rig.fracas(&["watch", &taken, "--output", "json"]).json();
    let undone = history.iter().find(|line| line["body"]["kind"] == "undone").expect("undone");
    let begins = rig.fracas(&["watch", &run_of("often").expect("a run"), "--output", "json"]).json();
    let at = |line: &Value| line["received"]["bootNs"].as_i64().expect("a stamp");
    assert!(at(undone) < at(&begins[0]), "{undone} {}", begins[0]);

    // What a person started stays.
    rig.fracas(&["schedule", "pause", "often", "--reason", "a moment"]).good();
    until("its runs are over", || {
        let runs = rig.fracas(&["runs", "--output", "json"]).good().json().remove(0);
        runs["runs"].as_array().expect("runs").iter().all(|run| run["state"] == "finished")
    });
    let by_hand = rig.document("by-hand", &EXPERIMENT.replace("300ms", "1h"));
    let started = rig.fracas(&["run", &by_hand, "--yes", "--detach", "--output", "json"]).good().json().remove(0);
    let mine = started["run"].as_str().expect("run").to_owned();
    until("it has the host", || page().contains("broken"));
    let before = facts(&show(&rig), "started").len();
    rig.fracas(&["schedule", "resume", "often"]).good();
    let kept = |fact: &Value| {
        let text = fact["reason"].to_string();
        text.contains(&mine) && text.contains("was not started by a schedule in environment default")
    };
    until("its times are skipped, with the reason", || {
        facts(&show(&rig), "skipped").iter().filter(|fact| kept(fact)).count() >= 1
    });
    assert_eq!(facts(&show(&rig), "started").len(), before);
    assert!(page().contains("broken"), "the run of a person goes on");
    rig.fracas(&["stop", &mine]).good();
    until("then it starts again", || facts(&show(&rig), "started").len() > before);
    settled_once(&show(&rig));
    rig.fracas(&["schedule", "remove", "often", "--reason", "enough"]).good();
    rig.stop();
}

/// Starts and idle schedules unless told.
const FEW: (u64, u64) = (8, 20);
/// Hosts that suffer, each by a schedule of its own.
const BUSY: [&str; 4] = ["b0", "b1", "b2", "b3"];

fn in_time() {
    let starts = given("FRACAS_SCHEDULE_STARTS").unwrap_or(FEW.0);
    let loaded = given("FRACAS_SCHEDULE_LOADED").unwrap_or(FEW.1);
    let rig = Rig::bare(&BUSY);
    rig.start_controller();
    let every = |name: &str, experiment: &str, when: &str| {
        let text = format!(
            "apiVersion: fracas/v1\nkind: Schedule\nname: {name}\nexperiment: {experiment}.yaml\nwhen: {{ {when} }}\n"
        );
        rig.fracas(&["schedule", "set", &rig.document(name, &text)]).good();
    };
    for name in BUSY {
        rig.join(name, &[("role", name)]);
        rig.keep(name, PAGE, "as it was");
        rig.document(&format!("{name}-page"), &EXPERIMENT.replace("role=box", &format!("role={name}")));
    }
    rig.until_connected(&BUSY);
    for n in 0..loaded {
        // Of every kind, and far away.
        let when = ["cron: 0 3 1 1 *", "at: 2190-01-01T00:00", "random: { opens: 0 3 29 2 *, within: 1h }"];
        every(&format!("idle-{n}"), "b0-page", when[n as usize % when.len()]);
    }
    for name in BUSY {
        every(name, &format!("{name}-page"), "every: { period: 2s, from: 2026-01-01T00:00 }");
    }
    let each = starts.div_ceil(BUSY.len() as u64) as usize;
    let deadline = Instant::now() + Duration::from_secs(each as u64 * 4 + 60);
    let mut dues: Vec<(String, i64)> = Vec::new();
    for name in BUSY {
        let show = ["schedule", "show", name, "--limit", "1000", "--output", "json"];
        let started = loop {
            let started = facts(&rig.fracas(&show).good().json()[0], "started");
            if started.len() >= each {
                break started;
            }
            assert!(Instant::now() < deadline, "{name}: {} of {each} runs", started.len());
            std::thread::sleep(Duration::from_millis(500));
        };
        rig.fracas(&["schedule", "remove", name, "--reason", "enough"]).good();
        let text = |fact: &Value| fact["run"].as_str().expect("run").to_owned();
        dues.extend(started.iter().map(|fact| (text(fact), fact["due"]["atNs"].as_i64().expect("due"))));
    }
    // The lab's hosts and its controller have one clock.
    let begun_after = |(run, due): &(String, i64)| {
        let history = rig.fracas(&["watch", run, "--output", "json"]).json();
        let active = history.iter().find(|line| line["body"]["kind"] == "active");
        let effective = active.and_then(|line| line["body"]["effective"]["to"]["wallNs"].as_i64());
        (effective.unwrap_or_else(|| panic!("run {run} had no effect: {history:?}")) - due) as f64 / 1e6
    };
    let mut late: Vec<f64> = dues.iter().map(begun_after).collect();
    assert!(late.len() as u64 >= starts, "{} starts", late.len());
    eprintln!("due to first effect, {loaded} other schedules: {}", figures(&mut late));
    assert!(late.iter().all(|ms| *ms < 1500.0), "{late:?}");
    rig.stop();
}

fn refused() {
    let rig = Rig::start(&[("box", &[("role", "box")])]);
    rig.document("page", EXPERIMENT);
    let path = rig.document("often", &schedule("zone: Europe/Londn\ncatchUp: sometimes\n"));
    let said = rig.fracas_going(&["schedule", "set", &path]).end(LIMIT);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("did you mean `Europe/London`?") && said.err.contains("catchUp"), "{}", said.err);
    // The experiment it names is read too, with the schedule's parameters.
    let path = rig.document("often", &schedule("parameters: { lenght: 1s }\n"));
    let said = rig.fracas_going(&["schedule", "set", &path]).end(LIMIT);
    assert!(said.code == 2 && said.err.contains("length"), "{}", said.err);
    let path = rig.document("often", &schedule(""));
    let next = rig.fracas(&["schedule", "next", &path, "--count", "3", "--from", "2027-01-01T00:00:00Z"]).good().out;
    assert_eq!(next.lines().next(), Some("Fri 2027-01-01 00:00:02 UTC  in 2s"), "{next}");
    assert_eq!(next.lines().count(), 3);
    rig.stop();
}
