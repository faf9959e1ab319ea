//! Databases that are looked at over TLS: servers that nobody here wrote, a certificate that fits, and one that does not.

use std::collections::BTreeMap;

use fracas_sim::{lab::Program, need::Need};
use libtest_mimic::Trial;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::Value;

use crate::{
    rig::{Going, Rig, until},
    services, trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    const ALL: &[Need] = &[
        Need::Lab,
        Need::Program("redis-server"),
        Need::Program("redis-cli"),
        Need::Program("psql"),
        Need::AnyProgram(services::POSTGRES),
        Need::Program("mariadbd"),
        Need::Program("mariadb-install-db"),
        Need::Program("mariadb"),
    ];
    vec![trial("databases_are_looked_at_over_tls", ALL, secured)]
}

const DOCUMENT: &str = "\
apiVersion: fracas/v1
kind: Experiment
name: secured
services: { cache: { rto: 20s, rpo: 30s } }
targets: { db: { select: \"role=db\" }, edge: { select: \"role=edge\" } }
probes:
  cache: { service: cache, redis: { address: \"db:6380\", tls: true, caFile: /run/ca.pem }, from: edge, every: 100ms }
  sql: { postgres: { address: \"db:5432\", user: postgres, tls: true, caFile: /run/ca.pem }, from: edge, every: 250ms }
  my: { mysql: { address: \"db:3306\", user: secure, tls: true, caFile: /run/ca.pem }, from: edge, every: 250ms }
  my-anybody: { mysql: { address: \"db:3306\", user: secure, tls: true, insecure: true }, from: edge, every: 250ms }
  my-clear: { mysql: { address: \"db:3306\", user: secure }, from: edge, every: 500ms }
  cache-clear: { redis: { address: \"db:6380\" }, from: edge, every: 500ms }
  sql-clear: { postgres: { address: \"db:5432\", user: postgres }, from: edge, every: 500ms }
  sql-stranger: { postgres: { address: \"db:5432\", user: postgres, tls: true, caFile: /run/other.pem }, from: edge, every: 500ms }
  sql-misnamed: { postgres: { address: \"ADDRESS:5432\", user: postgres, tls: true, caFile: /run/ca.pem }, from: edge, every: 500ms }
ledgers:
  data: { service: cache, redis: { address: \"db:6380\", tls: true, caFile: /run/ca.pem }, from: edge, every: 100ms }
steadyState: { probes: [cache, sql, my, my-anybody], holdFor: 2s, giveUpAfter: 30s }
timeline: [{ id: kill, at: 0s, target: db, fault: { process-kill: { name: redis-server, signal: KILL } } }]
recovery: { stableFor: 2s, giveUpAfter: 1m }
";

/// An authority, and a certificate of its for the host `db` with the key.
fn authority() -> (String, [String; 2]) {
    let mut params = CertificateParams::new(vec![]).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed");
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(vec!["db".to_owned()]).expect("a name").signed_by(&key, &issuer).expect("signed");
    (issuer.pem(), [leaf.pem(), key.serialize_pem()])
}

/// A MariaDB on port 3306 whose user `secure` may come over TLS only, once it answers.
fn mariadb(rig: &Rig, host: &str) -> Going {
    let install = ["--datadir=/tmp/my", "--user=root", "--auth-root-authentication-method=normal", "--skip-test-db"];
    rig.read(host, Program::new("/usr/bin/mariadb-install-db").args(["--no-defaults"]).args(install));
    let words = [
        "--no-defaults",
        "--datadir=/tmp/my",
        "--user=root",
        "--socket=/tmp/my.sock",
        "--pid-file=/tmp/my.pid",
        "--bind-address=0.0.0.0",
        "--port=3306",
        "--ssl-cert=/run/leaf.pem",
        "--ssl-key=/run/key.pem",
    ];
    let going = rig.go(host, "mariadb", Program::new("/usr/sbin/mariadbd").args(words));
    let client = |script: &str| {
        Program::new("/usr/bin/mariadb").args(["--no-defaults", "-S", "/tmp/my.sock", "-u", "root", "-e", script])
    };
    until("MariaDB answers", || {
        assert!(going.runs(), "MariaDB ended");
        rig.say(host, client("select 1")).code == 0
    });
    rig.read(host, client("create user secure@'%' require ssl"));
    going
}

fn secured() {
    let rig = Rig::start(&[("db", &[("role", "db")]), ("edge", &[("role", "edge")])]);
    let (ca, [leaf, key]) = authority();
    let (other, _) = authority();
    for (host, path, text) in [
        ("db", "/run/leaf.pem", &leaf),
        ("db", "/run/key.pem", &key),
        ("db", "/run/ca.pem", &ca),
        ("edge", "/run/ca.pem", &ca),
        ("edge", "/run/other.pem", &other),
    ] {
        rig.keep(host, path, text);
    }
    let tls = ["--tls-port", "6380", "--tls-cert-file", "/run/leaf.pem", "--tls-key-file", "/run/key.pem"];
    let tls = [&tls[..], &["--tls-ca-cert-file", "/run/ca.pem", "--tls-auth-clients", "no"]].concat();
    let kept = ["--appendonly", "yes", "--appendfsync", "always"];
    let _redis = services::redis_again(&rig, "db", 500, &[&tls[..], &kept].concat());
    let _postgres = services::postgres_over_tls(&rig, "db", "/run/leaf.pem", "/run/key.pem");
    let _mariadb = mariadb(&rig, "db");

    let run = rig.run(&DOCUMENT.replace("ADDRESS", &rig.address("db")));
    run.ended("pass", 0);
    let probes = run.report["probes"].as_array().expect("probes");
    let number = |probe: &Value, key: &str| probe[key].as_u64().unwrap_or_default();
    let seen = probes.iter().map(|p| (p["probe"].as_str().expect("a name"), (number(p, "looks"), number(p, "failed"))));
    let seen: BTreeMap<&str, (u64, u64)> = seen.collect();
    eprintln!("{seen:?}");
    for good in ["sql", "my", "my-anybody"] {
        let (looks, failed) = seen[good];
        assert!(looks > 8 && failed == 0, "{good}: {seen:?}");
    }
    let why = |probe: &str| {
        let mine = run.bodies("edge").into_iter().filter(|body| body["probe"] == probe);
        mine.filter_map(|body| body["why"].as_str()).collect::<Vec<_>>().join("; ")
    };
    for (bad, reason) in [
        ("my-clear", "MySQL says: Access denied"),
        ("cache-clear", "connection "),
        ("sql-clear", "no encryption"),
        ("sql-stranger", "TLS: "),
        ("sql-misnamed", "TLS: "),
    ] {
        let (looks, failed) = seen[bad];
        assert!(looks > 4 && failed == looks && why(bad).contains(reason), "{bad}: {:?} {seen:?}", why(bad));
    }
    let ledger = &run.report["ledgers"][0]["account"];
    assert!(ledger["acknowledged"].as_u64() > Some(10) && ledger["lost"].as_u64() == Some(0), "{ledger}");
    rig.stop();
}
