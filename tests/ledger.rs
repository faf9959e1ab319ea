//! Ledgers: what is lost of real data in real services, against what foreign programs find there and the trial's own clock.

use std::{collections::BTreeSet, time::Duration};

use fracas_sim::{lab::Program, need::Need};
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    history::Run,
    rig::{Going, Rig, until},
    services,
    stage::part,
    trial,
    truth::{Range, now_ns},
};

pub(crate) fn trials() -> Vec<Trial> {
    const REDIS: &[Need] = &[Need::Lab, Need::Program("redis-server"), Need::Program("redis-cli")];
    const SQL: &[Need] =
        &[Need::Lab, Need::Program("haproxy"), Need::Program("psql"), Need::AnyProgram(services::POSTGRES)];
    vec![
        trial("redis_loses_what_came_after_its_snapshot", REDIS, snapshot),
        trial("redis_with_an_append_only_file_loses_nothing", REDIS, append_only),
        trial("a_key_with_foreign_content_is_refused_and_never_touched", REDIS, foreign),
        trial("a_writer_that_is_killed_goes_on_in_another_life", REDIS, second_life),
        trial("asynchronous_replication_loses_what_the_standby_never_had", SQL, asynchronous),
        trial("synchronous_replication_loses_nothing", SQL, synchronous),
        trial("a_table_with_foreign_content_is_refused_and_never_touched", SQL, foreign_table),
    ]
}

/// Redis on host `db` is killed after a while; its supervisor starts it again.
fn redis_document(rpo: &str) -> String {
    format!(
        "apiVersion: fracas/v1\nkind: Experiment\nname: cache-is-killed\nservices: {{ cache: {{ rto: 20s, rpo: {rpo} }} }}\n\
         targets: {{ db: {{ select: \"role=db\" }}, edge: {{ select: \"role=edge\" }} }}\n\
         probes:\n  cache: {{ service: cache, redis: {{ address: \"db:6379\" }}, from: edge, every: 100ms, timeout: 1s }}\n\
         ledgers:\n  data: {{ service: cache, redis: {{ address: \"db:6379\" }}, from: edge, every: 50ms, timeout: 1s }}\n\
         steadyState: {{ probes: [cache], holdFor: 1s, giveUpAfter: 30s }}\n\
         timeline:\n  - {{ id: calm, at: 0s, wait: 6s }}\n\
         \x20 - {{ id: kill, after: {{ ended: calm }}, target: db, fault: {{ process-kill: {{ name: redis-server, signal: KILL }} }} }}\n\
         recovery: {{ stableFor: 2s, giveUpAfter: 1m }}\n"
    )
}

fn redis_rig(more: &[&str]) -> (Rig, Going) {
    let rig = Rig::start(&[("db", &[("role", "db")]), ("edge", &[("role", "edge")])]);
    let redis = services::redis_again(&rig, "db", 500, more);
    (rig, redis)
}

fn redis(rig: &Rig, words: &[&str]) -> String {
    rig.read("db", Program::new("/usr/bin/redis-cli").args(words.iter().copied())).trim().to_owned()
}

/// The numbers in the only ledger of a Redis, as redis-cli tells them.
fn in_redis(rig: &Rig, key: &str) -> BTreeSet<u64> {
    let listed = redis(rig, &["LRANGE", key, "1", "-1"]);
    listed.lines().filter_map(|name| name.split_once('-')?.1.parse().ok()).collect()
}

fn ledger(run: &Run) -> &Value {
    let ledgers = run.report["ledgers"].as_array().expect("ledgers");
    assert_eq!(ledgers.len(), 1, "{ledgers:#?}");
    &ledgers[0]
}

fn count(ledger: &Value, what: &str) -> u64 {
    ledger["account"][what].as_u64().unwrap_or_else(|| panic!("no {what}: {ledger:#}"))
}

fn place(run: &Going) -> String {
    run.event("ledgerOpened")["place"].as_str().expect("a place").to_owned()
}

fn point(run: &Run, service: &str) -> (String, Value) {
    let point = &run.service(service)["recoveryPoint"];
    (point["judgement"]["word"].as_str().unwrap_or_default().to_owned(), point["achieved"].clone())
}

/// Every form of the report says it, and where it was.
fn is_told(rig: &Rig, run: &Run, words: &[&str]) {
    for form in ["text", "markdown", "html"] {
        let report = rig.fracas(&["report", &run.id, "--format", form]).good().out.replace('\n', " ");
        let report = report.split_whitespace().collect::<Vec<_>>().join(" ").replace("\\_", "_");
        let report = report.to_lowercase();
        for word in words {
            assert!(report.contains(&word.to_lowercase()), "{form}: no {word:?} in {report}");
        }
    }
}

fn snapshot() {
    let (rig, _redis) = redis_rig(&["--save", ""]);
    let plan_of = rig.document("plan", &redis_document("1s"));
    let plan = rig.fracas(&["plan", &plan_of]).good().out;
    assert!(plan.contains("data on edge: markers every 50ms by redis, into fracas_RUN_data_"), "{plan}");
    let going = rig.begin(&redis_document("1s"), &[]);
    let key = place(&going);
    assert!(key.starts_with(&format!("fracas_{}_data_", going.event("planned")["run"].as_str().expect("a run"))));
    going.event("gatePassed");
    let before = now_ns();
    assert_eq!(redis(&rig, &["SAVE"]), "OK");
    let after = now_ns();
    // The kill, by the trial's own eyes: the process that was there is gone.
    let first = redis_process(&rig).expect("redis runs");
    let mut alive = now_ns();
    until("redis is gone", || {
        let looked = now_ns();
        let there = redis_process(&rig) == Some(first);
        if there {
            alive = looked;
        }
        !there
    });
    let gone = now_ns();
    // What the snapshot held, and what came later under higher numbers.
    until("redis is written to again", || in_redis_if_up(&rig, &key).is_some_and(|found| gap(&found).is_some()));
    let found = in_redis(&rig, &key);
    let missing: BTreeSet<u64> = {
        let (last, next) = gap(&found).expect("a gap");
        (last + 1..next).collect()
    };
    let run = rig.finish(going);
    run.ended("fail", 1);
    let ledger = ledger(&run);
    let (lost, failed) = (count(ledger, "lost"), count(ledger, "failed"));
    let adrift = count(ledger, "unknown") - count(ledger, "unknownFound");
    assert_eq!(lost + failed + adrift, missing.len() as u64, "{ledger:#}\n{}", run.story());
    assert!(lost >= 40, "six seconds at twenty a second: {lost}");
    let spans = ledger["account"]["spans"].as_array().expect("spans");
    assert_eq!((spans.len(), spans[0]["first"].as_u64()), (1, missing.first().copied()), "{spans:#?}");
    let truth = Range { lo: alive - after, hi: gone - before };
    let (word, achieved) = point(&run, "cache");
    let told = Range::of(&achieved);
    eprintln!("redis with a snapshot: {lost} lost; between {told} of data; truth {truth}");
    assert!(word == "missed" && told.meets(truth), "{word}: {told} lies beside {truth}\n{}", run.story());
    // Two periods and what the writes around it took; a machine that stalls just then makes it wider, never wrong.
    assert!(told.width() < truth.hi, "{told}");
    assert_eq!(redis(&rig, &["EXISTS", &key]), "0", "removed with all that was in it");
    assert!(ledger["left"].is_null(), "{ledger:#}");
    let lost = format!("{lost} of {} acknowledged markers lost", count(ledger, "acknowledged"));
    is_told(&rig, &run, &["Data: what was written and is there", &lost, &key]);
    rig.stop();
}

/// The last number before the widest gap of a growing list, and the first one after it.
fn gap(found: &BTreeSet<u64>) -> Option<(u64, u64)> {
    let pairs = found.iter().zip(found.iter().skip(1)).filter(|(a, b)| *b - *a > 20);
    pairs.max_by_key(|(a, b)| *b - *a).map(|(a, b)| (*a, *b))
}

fn in_redis_if_up(rig: &Rig, key: &str) -> Option<BTreeSet<u64>> {
    let said = rig.say("db", Program::new("/usr/bin/redis-cli").args(["PING"]));
    (said.out.trim() == "PONG").then(|| in_redis(rig, key))
}

fn redis_process(rig: &Rig) -> Option<i64> {
    let found = rig.processes("db").into_iter().find(|process| process["name"] == "redis-server");
    found.and_then(|process| process["pid"].as_i64())
}

fn append_only() {
    let (rig, _redis) = redis_rig(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
    let going = rig.begin(&redis_document("5s"), &[]);
    let key = place(&going);
    let run = rig.finish(going);
    run.ended("pass", 0);
    let ledger = ledger(&run);
    assert_eq!((count(ledger, "lost"), count(ledger, "resurrected")), (0, 0), "{ledger:#}");
    assert!(count(ledger, "acknowledged") >= 100 && count(ledger, "failed") > 0, "{ledger:#}");
    let (word, achieved) = point(&run, "cache");
    let told = Range::of(&achieved);
    eprintln!("redis with an append-only file: none of {} lost; {told} of data", count(ledger, "acknowledged"));
    assert!(word == "met" && told.lo == 0 && told.hi >= 50_000_000, "never nothing: {told}");
    let said = format!("none of {} acknowledged markers lost: at most", count(ledger, "acknowledged"));
    assert!(run.reasons().contains(&said), "{}", run.reasons());
    is_told(&rig, &run, &[&said]);
    assert_eq!(redis(&rig, &["EXISTS", &key]), "0");
    rig.stop();
}

fn foreign() {
    let rig = Rig::start(&[("db", &[("role", "db")]), ("edge", &[("role", "edge")])]);
    let _crew = rig.go("db", "crew", part(&["rest", "crew"])).ready();
    // The run begins without a server; one that has the key already is there from its first moment on.
    let going = rig.begin(&redis_document("5s").replace("name: redis-server", "name: crew"), &[]);
    let run = going.event("planned");
    let host = rig.hosts()["edge"]["id"].as_str().expect("an id").to_owned();
    let key =
        fracas_model::ledger::place(&run["run"].as_str().expect("a run").into(), &"data".into(), &host.as_str().into());
    going.event("ledgerTroubled");
    let elsewhere = rig.go("db", "redis", services::redis_program("6380", &["--save", ""]));
    until("it answers", || rig.say("db", Program::new("/usr/bin/redis-cli").args(["-p", "6380", "PING"])).code == 0);
    redis(&rig, &["-p", "6380", "RPUSH", &key, "orders of a customer", "another"]);
    redis(&rig, &["-p", "6380", "SAVE"]);
    elsewhere.kill();
    let _redis = rig.go("db", "redis", services::redis_program("6379", &["--save", ""]));
    let run = rig.finish(going);
    run.ended("error", 5);
    let why = "is there already, and it is not this ledger's: it was left as it is";
    assert!(run.reasons().contains(why) && run.bodies("applying").is_empty(), "{}\n{}", run.reasons(), run.story());
    assert_eq!(redis(&rig, &["LRANGE", &key, "0", "-1"]), "orders of a customer\nanother");
    assert_eq!(ledger(&run)["notMeasured"].as_str().map(|told| told.contains(why)), Some(true), "{}", run.story());
    rig.stop();
}

fn second_life() {
    let (rig, _redis) = redis_rig(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
    // The kill of the agent that looks and writes is no fault of the document, and takes no probe's word away for long.
    let document = redis_document("30s").replace("services: { cache: { rto: 20s,", "services: { cache: {");
    let going = rig.begin(&document, &[]);
    let key = place(&going);
    going.event("gatePassed");
    rig.signal_agent("edge", Signal::KILL);
    rig.end_agent("edge", Duration::from_secs(20));
    rig.start_agent("edge");
    let run = rig.finish(going);
    let lives: BTreeSet<u64> = run.bodies("ledgerOpened").iter().filter_map(|body| body["life"].as_u64()).collect();
    assert_eq!(lives.len(), 2, "{}", run.story());
    let ledger = ledger(&run);
    assert_eq!(count(ledger, "lost"), 0, "{ledger:#}");
    let (word, achieved) = point(&run, "cache");
    // While nobody wrote, nobody can tell: that is in the bound.
    eprintln!("a second life: {} in no log; {} of data", count(ledger, "unlogged"), Range::of(&achieved));
    assert!(word == "met" && Range::of(&achieved).hi > 100_000_000, "{achieved}");
    assert_eq!(redis(&rig, &["EXISTS", &key]), "0", "the second life removes what the first one made");
    rig.stop();
}

/// PostgreSQL on `first` is killed for good; what is written goes through haproxy on `front`.
fn sql_document(rpo: &str) -> String {
    let address = "{ address: \"front:5432\", user: postgres";
    format!(
        "apiVersion: fracas/v1\nkind: Experiment\nname: primary-is-lost\nservices: {{ shop: {{ rto: 30s, rpo: {rpo} }} }}\n\
         targets: {{ first: {{ select: \"role=first\" }}, edge: {{ select: \"role=edge\" }} }}\n\
         probes:\n  shop: {{ service: shop, postgres: {address}, tolerance: {{ recovery: {{ equals: false }} }} }}, from: edge, every: 200ms, timeout: 2s }}\n\
         ledgers:\n  orders: {{ service: shop, postgres: {address} }}, from: edge, every: 100ms, timeout: 2s }}\n\
         steadyState: {{ probes: [shop], holdFor: 2s, giveUpAfter: 1m }}\n\
         timeline:\n  - {{ id: calm, at: 0s, wait: 6s }}\n\
         \x20 - {{ id: kill, after: {{ ended: calm }}, target: first, fault: {{ process-kill: {{ name: postgres, signal: KILL }} }} }}\n\
         recovery: {{ stableFor: 3s, giveUpAfter: 1m }}\n"
    )
}

fn sql_rig() -> (Rig, Vec<Going>) {
    let rig = Rig::bare(&["first", "second", "front", "edge"]);
    rig.start_controller();
    for name in ["first", "edge"] {
        rig.join(name, &[("role", name)]);
    }
    rig.until_connected(&["first", "edge"]);
    let mut going = vec![services::postgres(&rig, "first")];
    let (first, second) = (rig.address("first"), rig.address("second"));
    going.extend(services::standby(&rig, "second", &first));
    going.push(services::haproxy(&rig, "front", "tcp", 5432, [&first, &second]));
    (rig, going)
}

/// The numbers in a table, as psql tells them.
fn in_table(rig: &Rig, host: &str, table: &str) -> BTreeSet<u64> {
    let address = rig.address(host);
    let listed = services::psql(rig, "edge", &address, &format!("select number from \"{table}\";\n"));
    listed.lines().map(|line| line.parse().expect("a number")).collect()
}

fn asynchronous() {
    let (rig, _going) = sql_rig();
    let (first, second) = (rig.address("first"), rig.address("second"));
    let going = rig.begin(&sql_document("1s"), &[]);
    let table = place(&going);
    going.event("gatePassed");
    // From here on the standby gets nothing more, and the primary goes on acknowledging.
    let before = now_ns();
    services::psql(&rig, "edge", &second, "alter system set primary_conninfo = '';\nselect pg_reload_conf();\n");
    until("the standby receives no more", || {
        services::psql(&rig, "edge", &second, "select count(*) from pg_stat_wal_receiver;\n").trim() == "0"
    });
    let after = now_ns();
    let postmaster = |rig: &Rig| rig.processes("first").iter().any(|process| process["name"] == "postgres");
    let mut alive = now_ns();
    until("the primary is gone", || {
        let looked = now_ns();
        let there = postmaster(&rig);
        if there {
            alive = looked;
        }
        !there
    });
    let gone = now_ns();
    until("the standby is promoted", || {
        services::psql(&rig, "edge", &second, "select pg_is_in_recovery();\n").trim() == "f"
    });
    let kept = in_table(&rig, "second", &table);
    let run = rig.finish(going);
    run.ended("fail", 1);
    // The old primary, started again where nobody is led to it, tells what it had committed.
    rig.shell("first", "rm -f /tmp/pg/postmaster.pid");
    let _old = services::serving(&rig, "first");
    let committed = in_table(&rig, "first", &table);
    let truly: BTreeSet<u64> = committed.difference(&kept).copied().collect();
    let ledger = ledger(&run);
    let (lost, adrift) = (count(ledger, "lost"), count(ledger, "unknown") - count(ledger, "unknownFound"));
    eprintln!("asynchronous: {lost} lost, {} committed and not there, {adrift} unknown", truly.len());
    assert!(truly.len() >= 20, "about six seconds at ten a second: {}", truly.len());
    // Committed and never acknowledged is what nobody knew of.
    assert!((lost..=lost + adrift).contains(&(truly.len() as u64)), "{ledger:#}\n{}", run.story());
    let spans = ledger["account"]["spans"].as_array().expect("spans");
    assert_eq!((spans.len(), spans[0]["first"].as_u64()), (1, truly.first().copied()), "{spans:#?}\n{truly:?}");
    assert_eq!((count(ledger, "resurrected"), count(ledger, "duplicated")), (0, 0), "{ledger:#}");
    let truth = Range { lo: alive - after, hi: gone - before };
    let (word, achieved) = point(&run, "shop");
    let told = Range::of(&achieved);
    eprintln!("asynchronous: between {told} of data; truth {truth}");
    assert!(word == "missed" && told.meets(truth), "{word}: {told} lies beside {truth}\n{}", run.story());
    let there = format!("select to_regclass('{table}') is null;\n");
    assert_eq!(services::psql(&rig, "edge", &second, &there).trim(), "t", "dropped");
    let _ = first;
    rig.stop();
}

fn synchronous() {
    let (rig, _going) = sql_rig();
    let first = rig.address("first");
    let wait = "alter system set synchronous_standby_names = '*';\nselect pg_reload_conf();\n";
    services::psql(&rig, "edge", &first, wait);
    until("the standby is synchronous", || {
        services::psql(&rig, "edge", &first, "select sync_state from pg_stat_replication;\n").trim() == "sync"
    });
    let run = rig.run(&sql_document("10s"));
    run.ended("pass", 0);
    let ledger = ledger(&run);
    assert_eq!(count(ledger, "lost"), 0, "{ledger:#}");
    assert!(count(ledger, "acknowledged") >= 60, "{ledger:#}");
    let (word, achieved) = point(&run, "shop");
    let told = Range::of(&achieved);
    eprintln!("synchronous: none of {} lost; {told} of data", count(ledger, "acknowledged"));
    assert!(word == "met" && told.lo == 0 && told.hi > 0, "{told}");
    rig.stop();
}

fn foreign_table() {
    let rig = Rig::bare(&["first", "front", "edge"]);
    rig.start_controller();
    for name in ["first", "edge"] {
        rig.join(name, &[("role", name)]);
    }
    rig.until_connected(&["first", "edge"]);
    let _primary = services::postgres(&rig, "first");
    let first = rig.address("first");
    // The way to the server is not there yet when the run begins; the table is, when it is.
    let going = rig.begin(&sql_document("10s"), &[]);
    let run = going.event("planned")["run"].as_str().expect("a run").to_owned();
    let host = rig.hosts()["edge"]["id"].as_str().expect("an id").to_owned();
    let table = fracas_model::ledger::place(&run.as_str().into(), &"orders".into(), &host.as_str().into());
    going.event("ledgerTroubled");
    let script =
        format!("create table \"{table}\" (life bigint, number bigint);\ninsert into \"{table}\" values (7, 7);\n");
    services::psql(&rig, "edge", &first, &script);
    let _haproxy = services::haproxy(&rig, "front", "tcp", 5432, [&first, &first]);
    let run = rig.finish(going);
    run.ended("error", 5);
    let why = "is there already, and it is not this ledger's: it was left as it is";
    assert!(run.reasons().contains(why) && run.bodies("applying").is_empty(), "{}\n{}", run.reasons(), run.story());
    assert_eq!(in_table(&rig, "first", &table), BTreeSet::from([7]));
    rig.stop();
}
