//! What servers answer to the probes that speak their protocols: Redis, PostgreSQL, MySQL, name servers, gRPC, and systemd
//! behind a bus. Each answer is one stream of bytes, whatever was asked; the first byte of an input says what the document wants.

use fracas_model::{catalogue::Params, diagnostic::harmless};
use fracas_probes::{Seen, dns, grpc, mysql, postgres, redis, systemd_unit};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex, split};

use crate::{Target, world};

pub(crate) const REDIS: Target = Target { name: "redis", take: to_redis, seeds: of_redis };
pub(crate) const POSTGRES: Target = Target { name: "postgres", take: to_postgres, seeds: of_postgres };
pub(crate) const MYSQL: Target = Target { name: "mysql", take: to_mysql, seeds: of_mysql };
pub(crate) const DNS: Target = Target { name: "dns", take: to_dns, seeds: of_dns };
pub(crate) const GRPC: Target = Target { name: "grpc", take: to_grpc, seeds: of_grpc };
pub(crate) const SYSTEMD: Target = Target { name: "systemd", take: to_systemd, seeds: of_systemd };

/// What no reason may hold where it is known.
const PASSWORD: &str = "hush-hush-hush";
/// Of a session with PostgreSQL.
const NONCE: &str = "fuzzing-nonce";
/// Number of the question to a name server, and the name in it.
const ASKED: (u16, &str) = (7, "shop.example");
/// Most bytes that a client may send for each byte of an answer, and without any.
const MOST_SENT: (usize, usize) = (16, 8 << 10);

/// Looks at a server that answers this, and gives what the look sent: it comes to an end, the conversation has a bound, and a
/// reason may travel and holds nothing of the secret that the client has.
fn look(data: &[u8], secret: Option<&str>, look: impl AsyncFnOnce(DuplexStream) -> Seen) -> Vec<u8> {
    let (each, least) = MOST_SENT;
    let most = each * data.len() + least;
    let mut sent = Vec::new();
    let seen = world::run(async {
        let (ours, server) = duplex(1 << 12);
        let (from, mut to) = split(server);
        let answers = async {
            let _ = to.write_all(data).await;
            let _ = to.shutdown().await;
        };
        let hears = async {
            let _ = from.take(most as u64).read_to_end(&mut sent).await;
        };
        tokio::join!(look(ours), answers, hears).0
    });
    assert!(sent.len() < most, "{} bytes were sent", sent.len());
    match seen {
        Ok(values) => assert!(format!("{values:?}").len() < world::LONGEST, "a reading without measure"),
        Err(why) => {
            assert!(!why.is_empty() && why.len() <= 120, "{why:?}");
            assert!(!why.contains(char::is_control) && harmless(&why) == why, "{why:?}");
            assert!(!secret.is_some_and(|secret| why.contains(secret)), "{why:?}");
        }
    }
    sent
}

/// Parameters of a probe; `None` leaves one out.
fn params<const N: usize>(all: [(&str, Option<Value>); N]) -> Params {
    Params(all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect())
}

fn shows_password(sent: &[u8]) -> bool {
    sent.windows(PASSWORD.len()).any(|part| part == PASSWORD.as_bytes())
}

fn to_redis(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let wants = |bit: u8| first & bit == bit;
    let password = wants(1).then_some(PASSWORD);
    let params = params([
        ("address", Some("127.0.0.1:6379".into())),
        ("user", wants(3).then(|| "me".into())),
        ("password", password.map(Value::from)),
        ("database", wants(4).then(|| 3.into())),
        ("key", wants(8).then(|| "cart".into())),
        ("tolerance", wants(16).then(|| json!({ "role": { "equals": "master" }, "masterLinkUp": { "equals": true } }))),
    ]);
    look(data, password, async |stream| redis::judge(&params, stream).await);
}

fn of_redis() -> Vec<Vec<u8>> {
    let info = "# Replication\r\nrole:slave\r\nmaster_link_status:up\r\nslave_repl_offset:7\r\nconnected_slaves:2\r\n";
    let all = [
        "\0+PONG\r\n".to_owned(),
        "\x01+OK\r\n+PONG\r\n".to_owned(),
        "\x03-WRONGPASS invalid username-password pair\r\n".to_owned(),
        "\x01-ERR AUTH called without any password configured\r\n".to_owned(),
        format!("\x01+OK\r\n-ERR {PASSWORD} is wrong\r\n"),
        "\x08$-1\r\n".to_owned(),
        "\x0c+OK\r\n$6\r\n3 shoe\r\n".to_owned(),
        format!("\x10+PONG\r\n${}\r\n{info}\r\n", info.len()),
        format!("\x11+OK\r\n+PONG\r\n${}\r\nrole:{PASSWORD}\r\n", 5 + PASSWORD.len()),
        format!("\x11+OK\r\n-{}{PASSWORD}\r\n", "x".repeat(104)),
        "\0-LOADING Redis is loading the dataset in memory\r\n".to_owned(),
        "\0*3\r\n$6\r\nmaster\r\n:42\r\n*1\r\n-ERR x\r\n".to_owned(),
    ];
    all.into_iter().map(String::into_bytes).collect()
}

fn to_postgres(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let password = (first & 1 == 1).then_some(PASSWORD);
    let by = ["scram", "md5", "clear", "scram"][usize::from(first >> 1 & 3)];
    let recovery = || json!({ "recovery": { "equals": false }, "answer": { "equals": "1" } });
    let params = params([
        ("address", Some("127.0.0.1:5432".into())),
        ("user", Some("me".into())),
        ("password", password.map(Value::from)),
        ("passwordBy", Some(by.into())),
        ("tolerance", (first & 8 == 8).then(recovery)),
    ]);
    let sent = look(data, password, async |stream| postgres::judge(&params, NONCE, stream).await);
    assert!(by == "clear" || !shows_password(&sent), "the password was shown {by}");
}

fn of_postgres() -> Vec<Vec<u8>> {
    let say = |kind: u8, body: &[u8]| {
        [&[kind], &i32::try_from(body.len() + 4).expect("short").to_be_bytes()[..], body].concat()
    };
    let wants = |code: u8, rest: &[u8]| say(b'R', &[&[0, 0, 0, code], rest].concat());
    let row =
        |text: &str| say(b'D', &[&[0, 1, 0, 0, 0, u8::try_from(text.len()).expect("short")], text.as_bytes()].concat());
    let begun = [wants(0, b""), say(b'S', b"server_version\x0017.2\0"), say(b'K', &[7; 8]), say(b'Z', b"I")].concat();
    let head = say(b'T', b"\0\x01?column?\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0");
    let rows = |text: &str| [head.clone(), row(text), say(b'C', b"SELECT 1\0"), say(b'Z', b"I")].concat();
    let error = |text: &str| say(b'E', format!("SFATAL\0C28P01\0M{text}\0\0").as_bytes());
    let challenge = format!("r={NONCE}-joint,s=c2FsdHNhbHRzYWx0c2FsdA==,i=4096");
    // For this challenge, this nonce and this password.
    let proof = b"v=6q+7HAFYf3Xxfxuo3k7V3dSAqZZN0futDnSaCera/Qo=";
    let scram = [wants(10, b"SCRAM-SHA-256\0\0"), wants(11, challenge.as_bytes()), wants(12, proof)].concat();
    vec![
        [vec![0], begun.clone(), rows("1")].concat(),
        [vec![8], begun.clone(), rows("1"), rows("f")].concat(),
        [vec![1], scram, begun.clone(), rows("1")].concat(),
        [vec![3], wants(5, &[1, 2, 3, 4]), begun.clone(), rows("1")].concat(),
        [vec![5], wants(3, b""), begun.clone(), rows("1")].concat(),
        [vec![1], wants(3, b"")].concat(),
        [vec![1], error(&format!("{}{PASSWORD} is wrong", "x".repeat(90)))].concat(),
        [vec![0], begun.clone(), say(b'D', b"\0\x01\xff\xff\xff\xff"), error("it shuts down")].concat(),
        [vec![0], begun, say(b'G', b"\0\0\0"), wants(9, b"")].concat(),
        b"\0HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
    ]
}

fn to_mysql(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let password = (first & 1 == 1).then_some(PASSWORD);
    let compared = || json!({ "version": { "equals": "8.4.1" }, "answer": { "equals": "0" } });
    let params =
        params([("database", (first & 2 == 2).then(|| "shop".into())), ("tolerance", (first & 4 == 4).then(compared))]);
    let sent = look(data, password, async |stream| mysql::judge(&params, password.unwrap_or_default(), stream).await);
    assert!(!shows_password(&sent), "the password was shown");
}

fn of_mysql() -> Vec<Vec<u8>> {
    let greeting = |version: &str, plugin: &str| {
        let tail = [&[0; 19][..], b"ijklmnopqrst\0", plugin.as_bytes(), b"\0"].concat();
        [b"\x0a", version.as_bytes(), b"\0\x01\0\0\0abcdefgh", &tail].concat()
    };
    // Each with the number that it has in its exchange.
    let talk = |first: u8, messages: &[(u8, &[u8])]| {
        messages.iter().fold(vec![first], |mut all, (number, message)| {
            all.extend([u8::try_from(message.len()).expect("short"), 0, 0, *number]);
            all.extend_from_slice(message);
            all
        })
    };
    let (native, caching) = ("mysql_native_password", "caching_sha2_password");
    let switch = |plugin: &str| [&[0xfe], plugin.as_bytes(), b"\0abcdefghijklmnopqrst\0"].concat();
    let (ok, end): (&[u8], &[u8]) = (b"\0\0\0\x02\0\0\0", b"\xfe\0\0\0\0");
    let error = [b"\xff\x15\x04#28000", "x".repeat(90).as_bytes(), PASSWORD.as_bytes()].concat();
    let rows: [(u8, &[u8]); 5] = [(1, b"\x01"), (2, b"\x03def"), (3, end), (4, b"\x010"), (5, end)];
    let old = greeting("11.4-MariaDB", native);
    let new = greeting("8.4.1", caching);
    let told = greeting(&format!("{}{PASSWORD}", "8".repeat(20)), native);
    vec![
        talk(4, &[&[(0, &old[..]), (2, ok)][..], &rows].concat()),
        talk(5, &[&[(0, &new[..]), (2, b"\x01\x03"), (3, ok)][..], &rows].concat()),
        talk(3, &[(0, &new[..]), (2, b"\x01\x04"), (4, &error)]),
        talk(1, &[&[(0, &old[..]), (2, &switch(caching)), (4, b"\x01\x03"), (5, ok)][..], &rows].concat()),
        talk(1, &[(0, &old[..]), (2, &switch("sha256_password"))]),
        talk(1, &[(0, &old[..]), (2, b"\xfe")]),
        talk(1, &[(0, &error)]),
        talk(0, &[(0, &old[..]), (2, ok), (1, &error)]),
        talk(
            0,
            &[
                (0, &old[..]),
                (2, ok),
                (1, b"\x02"),
                (2, b"\x03def"),
                (3, b"\x03def"),
                (4, end),
                (5, b"\xfb\x03abc"),
                (6, end),
            ],
        ),
        talk(0, &[(0, &old[..]), (2, ok), (1, ok)]),
        talk(5, &[&[(0, &told[..]), (2, ok)][..], &rows].concat()),
    ]
}

fn to_dns(data: &[u8]) {
    let Some(([first, high, low], data)) = data.split_first_chunk::<3>() else { return };
    let (datagram, stream_data) = data.split_at(data.len().min(usize::from(u16::from_be_bytes([*high, *low]))));
    let kind = ["A", "AAAA", "CNAME", "TXT", "SRV"][usize::from(first & 7) % 5];
    let params = params([
        ("name", Some(ASKED.1.into())),
        ("type", Some(kind.into())),
        ("onEmpty", (first & 8 == 8).then(|| "ok".into())),
        ("tolerance", (first & 16 == 16).then(|| json!({ "rcode": { "equals": "NXDOMAIN" }, "ttl": { "max": "1h" } }))),
    ]);
    look(stream_data, None, async |stream| dns::judge(&params, ASKED.0, datagram, stream).await);
}

fn of_dns() -> Vec<Vec<u8>> {
    let reply = |flags: u16, kind: u16, records: &[(u16, &[u8])]| {
        let head = [ASKED.0, 0x8000 | flags, 1, u16::try_from(records.len()).expect("few"), 0, 0];
        let mut message: Vec<u8> = head.iter().flat_map(|word| word.to_be_bytes()).collect();
        message.extend_from_slice(b"\x04shop\x07example\0");
        message.extend([kind, 1].iter().flat_map(|word| word.to_be_bytes()));
        for (kind, data) in records {
            message.extend_from_slice(&[0xc0, 12]);
            message.extend([*kind, 1, 0, 60].iter().flat_map(|word| word.to_be_bytes()));
            message.extend_from_slice(&u16::try_from(data.len()).expect("short").to_be_bytes());
            message.extend_from_slice(data);
        }
        message
    };
    let measured = |message: &[u8]| [&u16::try_from(message.len()).expect("short").to_be_bytes()[..], message].concat();
    let one = |first: u8, message: &[u8]| [vec![first], measured(message)].concat();
    let whole = reply(0, 1, &[(5, &[1, b'w', 0xc0, 12]), (1, &[10, 0, 0, 1]), (1, &[10, 0, 0, 2])]);
    vec![
        one(0, &whole),
        one(1, &reply(0, 28, &[(28, &[1; 16])])),
        one(2, &reply(0, 5, &[(5, &[1, b'w', 0xc0, 12]), (5, &[0xc0, 41])])),
        one(3, &reply(0, 16, &[(16, b"\x02v=\x011"), (16, b"\x03a\x1bb")])),
        one(4, &reply(0, 33, &[(33, &[0, 1, 0, 2, 0x1f, 0x90, 0xc0, 12])])),
        one(24, &reply(3, 1, &[])),
        one(0, &reply(3, 1, &[])),
        one(0, &reply(2, 1, &[])),
        one(0, &reply(0, 1, &[])),
        [one(0, &reply(0x200, 1, &[])), measured(&whole)].concat(),
    ]
}

fn to_grpc(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let params = params([
        ("service", (first & 1 == 1).then(|| "shop.v1.Checkout".into())),
        ("tolerance", (first & 2 == 2).then(|| json!({ "status": { "notEquals": "SERVING" } }))),
    ]);
    look(data, None, async |stream| grpc::judge(&params, stream).await);
}

fn of_grpc() -> Vec<Vec<u8>> {
    // Kind, flags, stream and what is in it (RFC 9113, section 4.1).
    let frame = |kind: u8, flags: u8, stream: u8, body: &[u8]| {
        [&[0, 0, u8::try_from(body.len()).expect("short"), kind, flags, 0, 0, 0, stream], body].concat()
    };
    let settings = [frame(4, 0, 0, b""), frame(4, 1, 0, b"")].concat();
    // A header that is not to be kept (RFC 7541, section 6.2.2).
    let header = |name: &str, value: &str| {
        let text = |text: &str| [&[u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
        [vec![0], text(name), text(value)].concat()
    };
    // `:status: 200` of the static table.
    let head = frame(1, 4, 1, &[vec![0x88], header("content-type", "application/grpc")].concat());
    let end = |code: &str| frame(1, 5, 1, &[header("grpc-status", code), header("grpc-message", "why not")].concat());
    let alone = |code: &str| frame(1, 5, 1, &[vec![0x88], header("grpc-status", code)].concat());
    let body = |bytes: &[u8]| frame(0, 0, 1, bytes);
    let all = [
        [settings.clone(), head.clone(), body(b"\0\0\0\0\x02\x08\x01"), end("0")].concat(),
        [settings.clone(), head.clone(), body(b"\0\0\0\0\x02"), body(b"\x08\x02"), end("0")].concat(),
        [settings.clone(), head.clone(), body(b"\0\0\0\0\0"), end("14")].concat(),
        [settings.clone(), alone("12")].concat(),
        [settings.clone(), alone("5")].concat(),
        // `:status: 404`.
        [settings.clone(), frame(1, 5, 1, &[0x8d])].concat(),
        [settings.clone(), frame(7, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 11])].concat(),
        [settings.clone(), frame(3, 0, 1, &[0, 0, 0, 7])].concat(),
        [settings, frame(6, 0, 0, &[1; 8]), frame(8, 0, 0, &[0, 0, 1, 0]), head, frame(9, 4, 1, b"")].concat(),
        b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n".to_vec(),
    ];
    all.into_iter().flat_map(|answer| [0, 3].map(|first| [vec![first], answer.clone()].concat())).collect()
}

fn to_systemd(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let compared =
        || json!({ "restarts": { "max": 0 }, "subState": { "equals": "running" }, "since": { "min": "1s" } });
    let params = params([
        ("unit", Some(["web", "shop.target", "shop.mount", "shop.timer"][usize::from(first & 3)].into())),
        ("state", (first & 4 == 4).then(|| json!(["inactive", "failed"]))),
        ("tolerance", (first & 8 == 8).then(compared)),
    ]);
    look(data, None, async |stream| systemd_unit::judge(&params, stream).await);
}

fn of_systemd() -> Vec<Vec<u8>> {
    let text = |text: &str| [&u32::try_from(text.len()).expect("short").to_le_bytes(), text.as_bytes(), b"\0"].concat();
    let padded = |mut bytes: Vec<u8>, to: usize| {
        bytes.resize(bytes.len().next_multiple_of(to), 0);
        bytes
    };
    // An answer, or an error where it has a name.
    let answer = |serial: u8, error: &str, signature: &str, body: &[u8]| {
        let mut fields = vec![5, 1, b'u', 0, serial, 0, 0, 0];
        if !error.is_empty() {
            fields = padded([fields, b"\x04\x01s\0".to_vec(), text(error)].concat(), 8);
        }
        let signature = [&[8, 1, b'g', 0, u8::try_from(signature.len()).expect("short")], signature.as_bytes(), b"\0"];
        fields.extend(signature.concat());
        let kind = if error.is_empty() { 2 } else { 3 };
        let sizes = [body.len(), 9, fields.len()].map(|size| u32::try_from(size).expect("short").to_le_bytes());
        [padded([&[b'l', kind, 1, 1], &sizes.concat()[..], &fields].concat(), 8), body.to_vec()].concat()
    };
    let word = |serial: u8, word: &str| answer(serial, "", "v", &[b"\x01s\0\0", &text(word)[..]].concat());
    let number = |serial: u8, number: u8| answer(serial, "", "v", &[1, b'u', 0, 0, number, 0, 0, 0]);
    let moment = |serial: u8| answer(serial, "", "v", b"\x01t\0\0\0\0\0\x40\x42\x0f\0\0\0\0\0");
    let signal = b"l\x04\x01\x01\0\0\0\0\x05\0\0\0\x0f\0\0\0\x01\x01o\0\x06\0\0\0/a/b/c\0\0".to_vec();
    let begun = [b"OK 0123\r\n".to_vec(), answer(1, "", "s", &text(":1.0")), signal].concat();
    let loaded = [begun.clone(), answer(2, "", "o", &text("/u/it"))].concat();
    let state = |active: &str, sub: &str, load: &str| {
        [loaded.clone(), word(3, active), word(4, sub), word(5, load), moment(6)].concat()
    };
    let service = |result: &str| [word(7, result), number(8, 42), number(9, 3)].concat();
    let why = text("Unit web.service not found.");
    let all = [
        (0, [state("active", "running", "loaded"), service("success")].concat()),
        (8, [state("active", "running", "loaded"), service("success")].concat()),
        (4, [state("failed", "failed", "loaded"), service("exit-code")].concat()),
        (0, [state("activating", "auto-restart", "loaded"), service("exit-code")].concat()),
        (1, state("active", "active", "loaded")),
        (6, [state("inactive", "dead", "not-found"), word(7, "success")].concat()),
        (8, [state("active", "running", "loaded"), answer(7, "a.b", "s", &why), number(9, 3), number(8, 4)].concat()),
        (0, [begun.clone(), answer(2, "a.NoSuchUnit", "s", &why)].concat()),
        (0, [begun, answer(2, "a.b", "b", &[1, 0, 0, 0])].concat()),
        (0, b"REJECTED EXTERNAL\r\n".to_vec()),
        (0, b"OK 0123\r\nHTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
    ];
    all.into_iter().map(|(first, answer)| [vec![first], answer].concat()).collect()
}
