//! Services nobody here wrote, from Debian: how each is started on a lab host, with all it keeps in the host's own places.

use fracas_sim::lab::Program;

use crate::{
    rig::{Going, LIMIT, Rig, until},
    stage::part,
};

/// Where Debian and Ubuntu put each version of PostgreSQL, newest first.
pub(crate) const POSTGRES: &[&str] = &[
    "/usr/lib/postgresql/18/bin/postgres",
    "/usr/lib/postgresql/17/bin/postgres",
    "/usr/lib/postgresql/16/bin/postgres",
    "/usr/lib/postgresql/15/bin/postgres",
    "/usr/lib/postgresql/14/bin/postgres",
];

/// Where a program of the PostgreSQL is that is there.
fn postgres_path(name: &str) -> String {
    let postgres = POSTGRES.iter().find(|path| std::path::Path::new(path).exists()).expect("checked");
    format!("{}{name}", postgres.trim_end_matches("postgres"))
}

fn postgres_tool(name: &str) -> Program {
    Program::new(postgres_path(name)).env("LC_ALL", "C")
}

/// An nginx under a supervisor that starts it again after this pause; answers on port 80, writes `/run/nginx.pid`.
pub(crate) fn nginx(rig: &Rig, host: &str, pause_ms: u32) -> Going {
    nginx_saying(rig, host, pause_ms, "ok")
}

/// The same whose page says this, as its configuration writes it.
pub(crate) fn nginx_saying(rig: &Rig, host: &str, pause_ms: u32, text: &str) -> Going {
    let temporary =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|what| format!("{what}_temp_path /run/nginx-{what};"));
    let config = format!(
        "daemon off;\nuser root root;\nworker_processes 2;\npid /run/nginx.pid;\nerror_log stderr;\n\
         events {{}}\nhttp {{ access_log off; {} server {{ listen 80; return 200 \"{text}\"; }} }}\n",
        temporary.join(" ")
    );
    rig.keep(host, "/run/nginx.conf", &config);
    let pause = pause_ms.to_string();
    let words = ["supervise", &pause, "/usr/sbin/nginx", "-c", "/run/nginx.conf", "-e", "stderr"];
    rig.go(host, "nginx", part(&words))
}

/// A redis on port 6379 that keeps nothing.
pub(crate) fn redis(rig: &Rig, host: &str) -> Going {
    let words = ["--port", "6379", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--dir", "/run"];
    rig.go(host, "redis", Program::new("/usr/bin/redis-server").args(words))
}

/// A redis on a port, whose data are below `/run`; further words are its options.
pub(crate) fn redis_program(port: &str, more: &[&str]) -> Program {
    let words = ["--port", port, "--bind", "0.0.0.0", "--protected-mode", "no", "--dir", "/run"];
    Program::new("/usr/bin/redis-server").args(words).args(more.iter().copied())
}

/// The same on port 6379 under a supervisor that starts it again after this pause, once it answers.
pub(crate) fn redis_again(rig: &Rig, host: &str, pause_ms: u32, more: &[&str]) -> Going {
    let pause = pause_ms.to_string();
    let words = ["--port", "6379", "--bind", "0.0.0.0", "--protected-mode", "no", "--dir", "/run"];
    let program = part(&["supervise", &pause, "/usr/bin/redis-server"]).args(words).args(more.iter().copied());
    let going = rig.go(host, "redis", program);
    until("redis answers", || rig.say(host, Program::new("/usr/bin/redis-cli").args(["PING"])).out.trim() == "PONG");
    going
}

/// A PostgreSQL primary on port 5432 that trusts the lab.
pub(crate) fn postgres(rig: &Rig, host: &str) -> Going {
    made(rig, host, "host");
    serving(rig, host)
}

/// The same, which speaks TLS and nothing else.
pub(crate) fn postgres_over_tls(rig: &Rig, host: &str, certificate: &str, key: &str) -> Going {
    made(rig, host, "hostssl");
    let ((uid, gid), own) = (user("postgres"), "/tmp/pg/server");
    rig.shell(host, &format!("cp {certificate} {own}.crt && cp {key} {own}.key && chmod 600 {own}.key"));
    rig.shell(host, &format!("chown {uid}:{gid} {own}.crt {own}.key 2>/dev/null || true"));
    rig.shell(host, "echo 'ssl = on' >> /tmp/pg/postgresql.conf");
    serving(rig, host)
}

/// The data of a PostgreSQL that trusts the lab over connections of this kind.
fn made(rig: &Rig, host: &str, kind: &str) {
    // It refuses to run as root, and wants to know the name of whoever it runs as.
    let (uid, gid) = user("postgres");
    let place = "/tmp/pg";
    rig.shell(host, &format!("mkdir -m 700 {place} && chown {uid}:{gid} {place} 2>/dev/null || true"));
    let tool = |name: &str| postgres_tool(name).user(uid, gid).directory("/tmp");
    rig.read(
        host,
        tool("initdb").args(["-D", place, "-U", "postgres", "-A", "trust", "--no-sync", "--no-instructions"]),
    );
    for whose in ["all", "replication"] {
        rig.shell(host, &format!("echo '{kind} {whose} all 10.77.0.0/16 trust' >> {place}/pg_hba.conf"));
    }
}

/// A standby of the primary on another host, under a watchdog that promotes it a second after the primary answers no more.
pub(crate) fn standby(rig: &Rig, host: &str, primary: &str) -> [Going; 2] {
    let (uid, gid) = user("postgres");
    let place = "/tmp/pg";
    let tool = |name: &str| postgres_tool(name).user(uid, gid).directory("/tmp");
    let from = ["-h", primary, "-U", "postgres", "-D", place, "-R", "-X", "stream", "-c", "fast", "--no-sync"];
    rig.read(host, tool("pg_basebackup").args(from));
    let postgres = serving(rig, host);
    let [ready, promote] = ["pg_isready", "pg_ctl"].map(postgres_path);
    let watchdog =
        format!("while {ready} -h {primary} -q -t 1; do sleep 0.05; done; sleep 1; exec {promote} promote -D {place}");
    let watchdog = Program::new("/bin/sh").args(["-c", &watchdog]).user(uid, gid).directory("/tmp").env("LC_ALL", "C");
    [postgres, rig.go(host, "watchdog", watchdog)]
}

/// A server over the data that are there, once it answers.
pub(crate) fn serving(rig: &Rig, host: &str) -> Going {
    let (uid, gid) = user("postgres");
    let tool = |name: &str| postgres_tool(name).user(uid, gid).directory("/tmp");
    let words = ["-D", "/tmp/pg", "-k", "/tmp", "-h", "0.0.0.0", "-c", "fsync=off"];
    let going = rig.go(host, "postgres", tool("postgres").args(words));
    until("PostgreSQL answers", || {
        assert!(going.runs(), "PostgreSQL ended");
        rig.say(host, tool("pg_isready").args(["-h", "127.0.0.1", "-q"])).code == 0
    });
    going
}

/// A haproxy that sends everything to the first of two servers while it answers, and else to the second.
pub(crate) fn haproxy(rig: &Rig, host: &str, mode: &str, port: u16, servers: [&str; 2]) -> Going {
    let [first, second] = servers;
    let config = format!(
        "defaults\n mode {mode}\n retries 0\n timeout connect 500ms\n timeout client 30s\n timeout server 30s\n\
         listen all\n bind 0.0.0.0:{port}\n default-server inter 100ms fall 2 rise 1 on-marked-down shutdown-sessions\n \
         server first {first}:{port} check\n server second {second}:{port} check backup\n"
    );
    rig.keep(host, "/run/haproxy.cfg", &config);
    rig.go(host, "haproxy", Program::new("/usr/sbin/haproxy").args(["-db", "-f", "/run/haproxy.cfg"]))
}

/// The numbers of a user of the machine.
fn user(name: &str) -> (u32, u32) {
    let users = std::fs::read_to_string("/etc/passwd").expect("users");
    let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == name);
    let number = |n: usize| fields.as_ref().and_then(|f| f.get(n)?.parse().ok()).expect("the user is there");
    (number(2), number(3))
}

/// psql on a host, against the primary on another; its input is the file of this path.
pub(crate) fn psql(rig: &Rig, from: &str, primary: &str, script: &str) -> String {
    rig.keep(from, "/run/script.sql", script);
    let words =
        ["-h", primary, "-U", "postgres", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "/run/script.sql"];
    let program = postgres_tool("psql").args(words);
    let said = Going::start(&rig.host(from), program).end(LIMIT * 2);
    said.good().out
}
