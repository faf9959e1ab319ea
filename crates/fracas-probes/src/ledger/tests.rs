//! Ledgers against services of their own making here; real ones are in the trials from end to end.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    rc::Rc,
};

use fracas_model::{document::read_generic, shape::Shape};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

fn place() -> Place {
    Place { name: "fracas_r_data_abc123".into(), token: "0123456789abcdef".into() }
}

fn book(ledger: &dyn Ledger, params: serde_json::Value, policy: &Policy) -> Box<dyn Book> {
    ready(ledger, &serde_json::from_value(params).unwrap(), policy, place()).unwrap()
}

#[test]
fn a_place_is_a_name_whoever_says_it() {
    let params: Params = serde_json::from_value(json!({ "address": "h:1" })).unwrap();
    for (name, token) in [
        ("orders", "00"),
        ("fracas_r\"; drop table orders; --", "00"),
        ("fracas_r/../orders", "00"),
        ("fracas_r", "0'0"),
        ("fracas_r", ""),
        (&format!("fracas_{}", "x".repeat(60)), "00"),
    ] {
        let place = Place { name: name.into(), token: token.into() };
        let refusal = ready(&redis::RedisLedger, &params, &Policy::builtin(), place).err().unwrap();
        assert!(refusal.why.contains("that is none"), "{name}: {refusal:?}");
    }
}

#[test]
fn names_are_unique_help_teaches_and_examples_are_what_documents_may_write() {
    let policy = Policy {
        exec_allow: vec!["/usr/local/bin/orders-ledger".into()],
        exec_user: rustix::process::geteuid().as_raw().to_string(),
        ..Policy::builtin()
    };
    let mut names: Vec<String> = ALL.iter().map(|ledger| ledger.info().name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), ALL.len());
    for ledger in ALL {
        let info = ledger.info();
        assert!(info.help.len() > 400 && info.help.contains("Cost: "), "{}", info.name);
        assert!(info.params.iter().all(|field| field.doc.ends_with('.')), "{}", info.name);
        let read = read_generic("example", &info.example, &Shape::Object(info.params));
        let (value, warnings) = read.unwrap_or_else(|mistakes| panic!("{}: {mistakes:?}", info.name));
        assert!(warnings.is_empty(), "{}: {warnings:?}", info.name);
        book(*ledger, value, &policy);
    }
}

/// A server that keeps collections as the help of `http` says, and what it was asked. It answers so many requests.
async fn serve(listener: TcpListener, records: Rc<RefCell<BTreeMap<String, Vec<String>>>>, mut requests: usize) {
    while requests > 0 {
        requests -= 1;
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap().trim_start_matches("/l/").to_owned());
        let (status, body) = match method {
            "PUT" => {
                let (collection, name) = path.split_once('/').unwrap();
                if name.ends_with("-13") {
                    ("503 Busy", String::new())
                } else if name.ends_with("-14") {
                    ("422 No", String::new())
                } else {
                    records.borrow_mut().entry(collection.into()).or_default().push(name.to_owned());
                    ("201 Created", String::new())
                }
            }
            "GET" => match records.borrow().get(&path) {
                Some(names) => ("200 OK", names.join("\n")),
                None => ("404 Not Found", String::new()),
            },
            _ => {
                (if records.borrow_mut().remove(&path).is_some() { "204 Gone" } else { "404 Not Found" }, String::new())
            }
        };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_collection_is_made_written_read_back_and_removed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let book = book(&http::HttpLedger, json!({ "url": format!("http://{address}/l/") }), &Policy::builtin());
    let records = Rc::new(RefCell::new(BTreeMap::new()));
    let work = async {
        book.open(true, &Cell::new(false)).await.unwrap();
        book.open(true, &Cell::new(false)).await.unwrap();
        assert_eq!(book.write(7, 1, &Cell::new(false)).await, Written::Acknowledged);
        assert_eq!(book.write(7, 1, &Cell::new(false)).await, Written::Acknowledged);
        assert_eq!(book.write(7, 13, &Cell::new(false)).await, Written::Unknown("status 503".into()));
        assert_eq!(book.write(7, 14, &Cell::new(false)).await, Written::Failed("status 422".into()));
        assert_eq!(book.read().await.unwrap(), [(7, 1), (7, 1)]);
        records.borrow_mut().insert("others".into(), vec!["x".into()]);
        book.remove().await.unwrap();
        assert_eq!(book.read().await.unwrap(), []);
        book.remove().await.unwrap();
        assert_eq!(records.borrow().keys().collect::<Vec<_>>(), ["others"]);
        records.borrow_mut().insert(place().name, vec!["foreign".into()]);
        let Err(NotOpen::Refused(refusal)) = book.open(true, &Cell::new(false)).await else { panic!("not refused") };
        assert!(refusal.why.contains("left as it is"), "{refusal:?}");
        assert!(book.read().await.is_err() && book.remove().await.is_err());
        assert_eq!(records.borrow()[&place().name], ["foreign"]);
    };
    // Two to make it, one to find it, four to write, one to read, two to remove, one to read, one to remove, three in vain.
    tokio::join!(work, serve(listener, records.clone(), 15));
    // Nobody listens any more: nothing can have been made.
    let touched = Cell::new(false);
    assert_eq!(book.open(true, &touched).await, Err(NotOpen::Unreachable("connection refused".into())));
    assert!(!touched.get());
    assert_eq!(book.write(7, 2, &Cell::new(false)).await, Written::Failed("connection refused".into()));
}

/// A program that keeps its place as a file beside it.
#[tokio::test(flavor = "current_thread")]
async fn a_program_is_asked_as_its_help_says() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("ledger");
    let script = "#!/bin/sh\nset -eu\nfile=\"${0%/*}/$2\"\ncase \"$1\" in\n\
        open) [ -e \"$file\" ] || echo \"$3\" >\"$file\"; read -r owner <\"$file\"; [ \"$owner\" = \"$3\" ] || exit 3 ;;\n\
        append) case \"$4\" in *-13) exit 4 ;; *-14) exit 1 ;; esac; echo \"$4\" >>\"$file\" ;;\n\
        read) [ ! -e \"$file\" ] || { read -r owner; cat; } <\"$file\" ;;\n\
        drop) rm -f \"$file\" ;;\nesac\n";
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let program = program.to_str().unwrap().to_owned();
    let policy = Policy {
        exec_allow: vec![program.clone()],
        exec_user: rustix::process::geteuid().as_raw().to_string(),
        ..Policy::builtin()
    };
    let book = book(&exec::ExecLedger, json!({ "command": [program] }), &policy);
    book.open(true, &Cell::new(false)).await.unwrap();
    assert_eq!(book.write(7, 1, &Cell::new(false)).await, Written::Acknowledged);
    assert_eq!(book.write(7, 13, &Cell::new(false)).await, Written::Failed("exit code 4".into()));
    assert_eq!(book.write(7, 14, &Cell::new(false)).await, Written::Unknown("exit code 1".into()));
    for number in 2..5000 {
        // More than a pipe holds.
        let line = format!("7-{number}\n");
        let file = folder.path().join(place().name);
        std::io::Write::write_all(&mut std::fs::OpenOptions::new().append(true).open(file).unwrap(), line.as_bytes())
            .unwrap();
    }
    let read = book.read().await.unwrap();
    assert_eq!((read.len(), read.first(), read.last()), (4999, Some(&(7, 1)), Some(&(7, 4999))));
    book.remove().await.unwrap();
    assert_eq!(book.read().await.unwrap(), []);
    std::fs::write(folder.path().join(place().name), "another\n").unwrap();
    assert!(matches!(book.open(true, &Cell::new(false)).await, Err(NotOpen::Refused(_))));
}

/// A server that answers one connection after another with these, each after what it is asked.
async fn answers(listener: &TcpListener, of_each: &[&[&[u8]]]) {
    for answers in of_each {
        let (mut stream, _) = listener.accept().await.unwrap();
        for answer in *answers {
            let mut piece = [0; 1024];
            let _ = stream.read(&mut piece).await.unwrap();
            stream.write_all(answer).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "current_thread")]
async fn what_redis_did_not_do_is_told_from_what_it_may_have_done() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let book = book(&redis::RedisLedger, json!({ "address": address }), &Policy::builtin());
    let work = async {
        assert!(matches!(book.open(true, &Cell::new(false)).await, Err(NotOpen::Refused(_))), "a key of another type");
        assert_eq!(book.write(7, 1, &Cell::new(false)).await, Written::Acknowledged);
        assert_eq!(book.write(7, 2, &Cell::new(false)).await, Written::Failed("the key is gone".into()));
        assert_eq!(book.write(7, 3, &Cell::new(false)).await, Written::Failed("Redis says: READONLY x".into()));
        assert_eq!(book.write(7, 4, &Cell::new(false)).await, Written::Unknown("connection closed early".into()));
        assert!(book.read().await.unwrap_err().contains("no ledger wrote"));
    };
    let said: &[&[&[u8]]] = &[
        &[b"-WRONGTYPE x\r\n"],
        &[b":2\r\n"],
        &[b":0\r\n"],
        &[b"-READONLY x\r\n"],
        &[b""],
        &[b"$16\r\n0123456789abcdef\r\n", b"*1\r\n$1\r\nx\r\n"],
    ];
    tokio::join!(work, answers(&listener, said));
}

#[tokio::test(flavor = "current_thread")]
async fn what_postgres_did_not_do_is_told_from_what_it_may_have_done() {
    const OPEN: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
    const READY: &[u8] = b"Z\0\0\0\x05I";
    const DONE: &[u8] = b"C\0\0\0\x0fINSERT 0 1\0";
    let fields = |kind: u8, severity: &str, code: &str| {
        let body = format!("V{severity}\0C{code}\0Mx\0\0");
        [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body.as_bytes()].concat()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let book = book(&postgres::PostgresLedger, json!({ "address": address, "user": "me" }), &Policy::builtin());
    let work = async {
        assert_eq!(book.write(7, 1, &Cell::new(false)).await, Written::Acknowledged);
        assert_eq!(
            book.write(7, 2, &Cell::new(false)).await,
            Written::Failed("PostgreSQL says: x (25006)".into()),
            "a standby"
        );
        assert_eq!(
            book.write(7, 3, &Cell::new(false)).await,
            Written::Unknown("PostgreSQL says: x (57P01)".into()),
            "ended while it waited"
        );
        assert_eq!(
            book.write(7, 4, &Cell::new(false)).await,
            Written::Unknown("PostgreSQL says: x (01000)".into()),
            "not replicated"
        );
        assert_eq!(
            book.write(7, 5, &Cell::new(false)).await,
            Written::Failed("PostgreSQL says: x (57P03)".into()),
            "it never got so far"
        );
        assert_eq!(book.write(7, 6, &Cell::new(false)).await, Written::Unknown("connection closed early".into()));
    };
    let acknowledged = [DONE, READY].concat();
    let standby = [&fields(b'E', "ERROR", "25006")[..], READY].concat();
    let ended = fields(b'E', "FATAL", "57P01");
    let warned = [&fields(b'N', "WARNING", "01000")[..], DONE, READY].concat();
    let starting = fields(b'E', "FATAL", "57P03");
    let said: &[&[&[u8]]] =
        &[&[OPEN, &acknowledged], &[OPEN, &standby], &[OPEN, &ended], &[OPEN, &warned], &[&starting], &[OPEN, b""]];
    tokio::join!(work, answers(&listener, said));
}
