//! Looks at a scripted systemd behind a bus of its own, whose bytes are made by hand.

use std::collections::BTreeMap;

use fracas_model::tolerance::Measured;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixListener,
};

use self::wire::{answer, field, number, text, texts, variant};
use super::*;

#[path = "../../../fracas-agent/tests/bus/wire.rs"]
mod wire;

/// Properties as systemd has them; one that is missing is refused.
type Properties = BTreeMap<&'static str, Vec<u8>>;

fn long(value: u64) -> Vec<u8> {
    [b"\x01t\0\0\0\0\0\0", &value.to_le_bytes()[..]].concat()
}

fn properties(active: &str, sub: &str, load: &str) -> Properties {
    let word = |word: &str| variant("s", &text(word));
    let now = u64::try_from(clock_gettime(ClockId::Monotonic).tv_sec).unwrap();
    BTreeMap::from([
        ("ActiveState", word(active)),
        ("SubState", word(sub)),
        ("LoadState", word(load)),
        // A whole second ago at the least.
        ("StateChangeTimestampMonotonic", long((now - 1) * 1_000_000)),
        ("Result", word(if active == "failed" { "exit-code" } else { "success" })),
        ("MainPID", variant("u", &4242_u32.to_le_bytes())),
        ("NRestarts", variant("u", &3_u32.to_le_bytes())),
    ])
}

/// Answers one conversation until whoever asks leaves; gives what was asked.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, of: &Properties) -> Vec<String> {
    let mut asked = Vec::new();
    let line = async |stream: &mut S| {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            line.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8(line).unwrap()
    };
    assert!(line(&mut stream).await.starts_with("\0AUTH EXTERNAL "));
    // As systemd does at its own socket, which would overlook a call that came together with it.
    assert_eq!(line(&mut stream).await, "BEGIN\r\n");
    stream.write_all(b"OK 0123456789abcdef0123456789abcdef\r\n").await.unwrap();
    let mut head = vec![0; 16];
    while stream.read_exact(&mut head).await.is_ok() {
        let (body, serial, fields) = (number(&head, 4), number(&head, 8), number(&head, 12));
        let mut bytes = head.clone();
        bytes.resize(16 + fields.next_multiple_of(8) + body, 0);
        stream.read_exact(&mut bytes[16..]).await.unwrap();
        let (path, member) = (field(&bytes, 1, b'o'), field(&bytes, 3, b's'));
        let words = texts(&bytes[bytes.len() - body..]);
        asked.push(format!("{member} {}", words.join(" ")).trim_end().to_owned());
        // A signal that concerns nobody comes before the answer.
        let signal = b"l\x04\x01\x01\0\0\0\0\x05\0\0\0\x0f\0\0\0\x01\x01o\0\x06\0\0\0/a/b/c\0\0";
        stream.write_all(signal).await.unwrap();
        let reply = match (member.as_str(), path.as_str()) {
            ("Hello", "/org/freedesktop/DBus") => answer(serial, 2, "s", &text(":1.1")),
            ("LoadUnit", MANAGER) => answer(serial, 2, "o", &text("/u/it")),
            ("Get", "/u/it") => match of.get(words[1].as_str()) {
                Some(value) => answer(serial, 2, "v", value),
                None => answer(serial, 3, "s", &text("there is no such property")),
            },
            other => panic!("nobody asks {other:?}"),
        };
        stream.write_all(&reply).await.unwrap();
    }
    asked
}

/// What a look sees of a unit with these properties, and what it asked for.
async fn looked(params: serde_json::Value, of: Properties) -> (Seen, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("bus");
    let listener = UnixListener::bind(&socket).unwrap();
    let params: Params = serde_json::from_value(params).unwrap();
    let info = crate::offered(&SystemdUnit);
    let lookout = crate::tolerated::tolerated(&info, &params, at(&params, &socket).unwrap()).unwrap();
    tokio::join!(lookout.look(), async { serve(listener.accept().await.unwrap().0, &of).await })
}

#[tokio::test(flavor = "current_thread")]
async fn a_unit_is_told_with_all_that_systemd_says_of_it() {
    let (seen, asked) = looked(json!({ "unit": "web" }), properties("active", "running", "loaded")).await;
    let values = seen.unwrap();
    let word = |word: &str| Some(Measured::Text(word.to_owned()));
    assert_eq!(values.get("activeState").cloned(), word("active"));
    assert_eq!(values.get("subState").cloned(), word("running"));
    assert_eq!(values.get("result").cloned(), word("success"));
    assert_eq!(values.get("mainPid"), Some(&Measured::Number(4242.0)));
    assert_eq!(values.get("restarts"), Some(&Measured::Number(3.0)));
    let Some(Measured::Duration(since)) = values.get("since") else { panic!("{values:?}") };
    assert!((1.0..60.0).contains(&since.std().as_secs_f64()), "{since}");
    assert_eq!(asked[..2], ["Hello".to_owned(), "LoadUnit web.service".to_owned()]);
    assert!(
        asked.contains(&"Get org.freedesktop.systemd1.Service NRestarts".to_owned()) && asked.len() == 9,
        "{asked:?}"
    );
    // A target has nothing more to say, and was never in another state.
    let mut target = properties("active", "active", "loaded");
    target.insert("StateChangeTimestampMonotonic", long(0));
    let (seen, asked) = looked(json!({ "unit": "x.target" }), target).await;
    let wanted = Values::new().with("activeState", "active".to_owned()).with("subState", "active".to_owned());
    assert_eq!((seen.unwrap(), asked.len()), (wanted, 6));
}

#[tokio::test(flavor = "current_thread")]
async fn each_state_that_is_not_wanted_has_its_own_words() {
    for (state, active, sub, load, why) in [
        (json!("active"), "failed", "failed", "loaded", "failed (exit-code)"),
        (json!("active"), "activating", "auto-restart", "loaded", "activating (auto-restart)"),
        (json!("active"), "inactive", "dead", "masked", "inactive (dead)"),
        (json!(["inactive", "failed"]), "active", "running", "loaded", "active (running)"),
        (json!("inactive"), "inactive", "dead", "not-found", "systemd knows no such unit"),
    ] {
        let (seen, _) = looked(json!({ "unit": "web.service", "state": state }), properties(active, sub, load)).await;
        assert_eq!(seen.unwrap_err(), why);
    }
    for (state, active, sub) in [
        (json!(["inactive", "failed"]), "failed", "failed"),
        (json!("inactive"), "inactive", "dead"),
        // Of a later version: no document can want it, and none is misled by it.
        (json!(["active", "refreshing"]), "refreshing", "reload"),
    ] {
        looked(json!({ "unit": "web", "state": state }), properties(active, sub, "loaded")).await.0.unwrap();
    }
}

#[tokio::test(flavor = "current_thread")]
async fn what_an_older_systemd_does_not_say_is_not_known() {
    let mut old = properties("active", "running", "loaded");
    old.remove("NRestarts");
    let seen = looked(json!({ "unit": "web" }), old.clone()).await.0.unwrap();
    assert_eq!((seen.get("restarts"), seen.get("mainPid")), (None, Some(&Measured::Number(4242.0))));
    let wants = json!({ "unit": "web", "tolerance": { "restarts": { "max": 0 } } });
    assert_eq!(looked(wants.clone(), old.clone()).await.0.unwrap_err(), "restarts is not known");
    let why = looked(wants, properties("active", "running", "loaded")).await.0.unwrap_err();
    assert_eq!(why, "restarts was 3, at most 0 wanted");
    old.remove("ActiveState");
    assert_eq!(looked(json!({ "unit": "web" }), old).await.0.unwrap_err(), "ActiveState: there is no such property");
}

#[tokio::test(flavor = "current_thread")]
async fn systemd_itself_wants_no_greeting() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let ready = Ready::of(&serde_json::from_value(json!({ "unit": "a.mount" })).unwrap(), None).unwrap();
    let of = properties("active", "mounted", "loaded");
    let (seen, asked) = tokio::join!(ready.ask(ours, false), serve(theirs, &of));
    assert_eq!(seen.unwrap().get("subState"), Some(&Measured::Text("mounted".into())));
    assert_eq!(
        asked,
        [
            "LoadUnit a.mount",
            "Get org.freedesktop.systemd1.Unit ActiveState",
            "Get org.freedesktop.systemd1.Unit SubState",
            "Get org.freedesktop.systemd1.Unit LoadState",
            "Get org.freedesktop.systemd1.Unit StateChangeTimestampMonotonic",
            "Get org.freedesktop.systemd1.Mount Result",
        ]
    );
}

#[tokio::test(flavor = "current_thread")]
async fn a_bus_that_answers_nonsense_is_no_bus() {
    let ready = Ready::of(&serde_json::from_value(json!({ "unit": "web" })).unwrap(), None).unwrap();
    let of = |said: Vec<u8>| {
        let ready = &ready;
        async move {
            let (ours, mut theirs) = tokio::io::duplex(1 << 20);
            theirs.write_all(&said).await.unwrap();
            theirs.shutdown().await.unwrap();
            ready.ask(ours, true).await.unwrap_err()
        }
    };
    let ok = |more: &[u8]| [b"OK 0\r\n", more].concat();
    assert_eq!(of(vec![]).await, "connection closed early");
    assert_eq!(of(b"REJECTED EXTERNAL\r\n".to_vec()).await, "the bus does not let us in: REJECTED EXTERNAL");
    assert_eq!(of(vec![b'x'; 10_000]).await, "a line of over 4096 bytes");
    assert_eq!(of(ok(b"")).await, "connection closed early");
    assert_eq!(of(ok(b"HTTP/1.1 400 Bad Request\r\n\r\n")).await, "the answer is not D-Bus");
    // As long as the codec lets them be, which is longer than a look does.
    assert_eq!(of(ok(b"l\x02\x01\x01\0\0\x08\0\x01\0\0\0\0\0\0\0")).await, "an answer of over 262144 bytes");
    // Signals without end.
    let signal = b"l\x04\x01\x01\0\0\0\0\x05\0\0\0\x0f\0\0\0\x01\x01o\0\x06\0\0\0/a/b/c\0\0";
    assert_eq!(of(ok(&signal.repeat(10_000))).await, "an answer of over 262144 bytes");
    // Not a number of ours, then an error without a text, then an answer of another kind.
    let hello = answer(1, 2, "s", &text(":1.1"));
    let refused = answer(2, 3, "b", &1_u32.to_le_bytes());
    let said = ok(&[answer(77, 2, "s", &text("x")), hello.clone(), refused].concat());
    assert_eq!(of(said).await, "LoadUnit: a.b");
    let said = ok(&[hello, answer(2, 2, "b", &1_u32.to_le_bytes())].concat());
    assert_eq!(of(said).await, "the answer to LoadUnit is not systemd's");
}

/// A bus that says nothing is left when the look is given up.
#[tokio::test(flavor = "current_thread")]
async fn a_look_that_is_given_up_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("bus");
    let listener = UnixListener::bind(&socket).unwrap();
    let lookout = at(&serde_json::from_value(json!({ "unit": "web" })).unwrap(), &socket).unwrap();
    let mut heard = Vec::new();
    let mut look = lookout.look();
    let (mut stream, _) = tokio::select! {
        biased;
        _ = &mut look => panic!("nobody answers"),
        accepted = listener.accept() => accepted.unwrap(),
    };
    tokio::select! {
        biased;
        _ = &mut look => panic!("nobody answers"),
        got = stream.read_buf(&mut heard) => assert!(got.unwrap() > 0),
    }
    drop(look);
    stream.read_to_end(&mut heard).await.unwrap();
    assert!(heard.starts_with(b"\0AUTH EXTERNAL ") && heard.ends_with(b"BEGIN\r\n"));
    drop((stream, listener));
    assert_eq!(lookout.look().await.unwrap_err(), "connection refused");
}

#[test]
fn names_of_units_are_whole_or_of_services() {
    let unit = |name: &str| Ready::of(&serde_json::from_value(json!({ "unit": name })).unwrap(), None).map(|r| r.unit);
    assert_eq!(unit("nginx").unwrap(), "nginx.service");
    assert_eq!(unit("getty@tty1.service").unwrap(), "getty@tty1.service");
    assert_eq!(unit("dev-sda.device").unwrap(), "dev-sda.device");
    for bad in ["", "a b", "a/b.service", ".service", "nginx.conf", "x\u{e4}.service"] {
        assert!(unit(bad).is_err(), "{bad}");
    }
}
