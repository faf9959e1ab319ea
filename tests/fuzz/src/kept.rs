//! What is on disk: any bytes must open, or be refused with a reason, and nothing is undone that the journal does not
//! prove to be ours.

use fracas_agent::{journal, outbox, outbox::Outbox};
use fracas_controller::{
    chain::{Digest, link},
    clock::ManualClock,
    controller::Controller,
    history::History,
    store::{Batch, Commit, Head, NewEvent, Store as _, memory::MemoryStore},
    verify::verify,
};
use fracas_model::{event::Body, id::HostId, units::Dur};
use fracas_sim::{crash::Crash, fake_disk::FakeDisk, fake_host::FakeHost, fixture};
use std::sync::Arc;

use crate::{Target, events, orders, world};

pub(crate) const JOURNAL: Target = Target { name: "journal", take: journal, seeds: journals };
pub(crate) const OUTBOX: Target = Target { name: "outbox", take: outbox, seeds: outboxes };
pub(crate) const HISTORY: Target = Target { name: "history", take: history, seeds: histories };

/// Bytes of a frame before its payload, as the journal has them: length, CRC, version.
const FRAME: usize = 9;

/// Gives the lengths and sums that no fuzzer finds: parts are the payloads of frames. An odd first byte says that the bytes
/// are a file as they are.
fn file(data: &[u8]) -> Vec<u8> {
    match data.split_first() {
        Some((first, data)) if first % 2 == 0 => world::parts(data).into_iter().flat_map(framed).collect(),
        Some((_, data)) => data.to_vec(),
        None => Vec::new(),
    }
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let body = [&[1], payload].concat();
    let length = u32::try_from(body.len()).expect("a small part").to_le_bytes();
    [&length[..], &crc32fast::hash(&body).to_le_bytes(), &body].concat()
}

/// The payloads of whole frames.
fn payloads(mut file: &[u8]) -> Vec<&[u8]> {
    let mut all = Vec::new();
    while let Some(length) = file.get(..4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes) {
        let (frame, rest) = file.split_at(FRAME - 1 + length as usize);
        all.push(&frame[FRAME..]);
        file = rest;
    }
    all
}

fn journal(data: &[u8]) {
    let bytes = file(data);
    world::run(async {
        let (host, disk) = (FakeHost::new("sim", Crash::default()), FakeDisk::default());
        disk.put(journal::FILE, &bytes);
        let before = host.world();
        let mut agent = orders::agent(&host, &disk).await;
        for _ in 0..5 {
            agent.tick().await;
            host.advance(Dur::from_secs(60));
            agent.drain_events();
        }
        // The host has nothing of ours, whatever the journal says.
        assert_eq!(host.world(), before, "something was undone that was not ours");
        assert_eq!(host.applies(), 0, "a start applies nothing");
        let trouble = agent.trouble().is_some();
        drop(agent);
        // What was written since must be readable, if it was before.
        let again = orders::agent(&host, &disk).await;
        assert_eq!(again.trouble().is_some(), trouble, "{:?}", again.trouble());
    });
}

fn journals() -> Vec<Vec<u8>> {
    let files = world::run(async {
        let (host, disk) = (FakeHost::new("sim", Crash::default()), FakeDisk::default());
        let mut agent = orders::agent(&host, &disk).await;
        let mut files = Vec::new();
        for (revision, info) in (1..).zip(&world::catalogue().faults) {
            let now_ns = fracas_agent::host::Host::now(&host).boot_ns;
            agent.lease().grant(now_ns, now_ns, Dur::from_secs(600));
            let item = fracas_model::desired::FaultItem {
                params: fixture::example(info),
                ..fixture::item(&format!("e{revision}"), &info.name)
            };
            agent.take(fixture::desired(revision, vec![item])).await.expect("newer");
            agent.tick().await;
            files.push(disk.content(journal::FILE));
        }
        agent.take(fixture::desired(1000, Vec::new())).await.expect("newer");
        agent.tick().await;
        files.push(disk.content(journal::FILE));
        files
    });
    as_parts_and_as_file(&files)
}

fn as_parts_and_as_file(files: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = files.iter().map(|file| [vec![0], world::joined(payloads(file))].concat()).collect();
    all.extend(files.last().map(|file| [&[1], &file[..]].concat()));
    all
}

/// Most bytes of one page of an outbox, as a session asks for them.
const PAGE: usize = 512 << 10;

fn outbox(data: &[u8]) {
    let bytes = file(data);
    world::run(async {
        let disk = FakeDisk::default();
        disk.put(outbox::FILE, &bytes);
        for boot in ["b", "another"] {
            let mut outbox = Outbox::with_limit(disk.clone(), &boot.into(), "fresh".to_owned(), 4096).await;
            let (fact, blob) = events::of_a_host().swap_remove(2);
            let seq = outbox.append("run/r1", &fact, &blob).await;
            // More may follow: what is told of facts that were given up for want of room.
            assert!(seq <= outbox.last_seq());
            // What the disk does not give back is an error, not a fact.
            if let Ok(page) = outbox.pending(0, PAGE).await {
                assert!(page.windows(2).all(|two| two[0].seq < two[1].seq), "numbers that no controller takes");
            }
            let id = outbox.id().to_owned();
            outbox.ack(&id, seq).await;
        }
    });
}

fn outboxes() -> Vec<Vec<u8>> {
    let files = world::run(async {
        let disk = FakeDisk::default();
        let mut outbox = Outbox::open(disk.clone(), &"b".into(), "life".to_owned()).await;
        let mut files = Vec::new();
        for (number, (fact, blob)) in events::of_a_host().into_iter().enumerate() {
            let seq = outbox.append("run/r1", &fact, &blob).await;
            if number % 6 == 5 {
                outbox.ack("life", seq - 3).await;
                files.push(disk.content(outbox::FILE));
            }
        }
        files
    });
    as_parts_and_as_file(&files)
}

/// Streams a controller reads when it starts.
const STREAMS: [&str; 8] = ["audit/c", "run/r1", "run/r2", "host/h1", "host/h2", "schedule/often", "approval/a1", "x"];

/// Parts are records: a byte for the stream, then a body as JSON, which is wrapped, numbered and chained; or, with the
/// highest bit, the record's bytes as they are.
fn history(data: &[u8]) {
    world::run(async {
        let store = MemoryStore::new();
        let epoch = store.next_epoch().await.expect("an epoch");
        let mut heads: Vec<Head> = STREAMS.map(Head::genesis).to_vec();
        for part in world::parts(data) {
            let [which, bytes @ ..] = part else { continue };
            let at = usize::from(which & 0x7f) % STREAMS.len();
            let Some(stored) = record(STREAMS[at], heads[at].seq + 1, which & 0x80 != 0, bytes) else { continue };
            let hash: Digest = link(&heads[at].hash, &stored);
            let expected_seq = heads[at].seq;
            let events = vec![NewEvent { stored, hash, blob: None }];
            let batches = vec![Batch { stream: STREAMS[at].to_owned(), expected_seq, events }];
            store.commit(Commit { epoch, batches, ..Commit::default() }).await.expect("in order");
            heads[at] = Head { seq: expected_seq + 1, hash };
        }
        verify(&store, Vec::new(), &[]).await.expect("a finding, not an error");
        let clock = Arc::new(ManualClock::new(world::stamp("c", 5_000_000_000)));
        let history = History::open(Arc::new(store), clock).await.expect("opened");
        // A record that cannot be read is an error that names it.
        if let Ok(controller) = Controller::open(history, &HostId::from("c"), 7).await
            && controller.resume().await.is_ok()
        {
            tokio::time::sleep(std::time::Duration::from_secs(30)).await;
        }
    });
}

fn record(stream: &str, seq: u64, raw: bool, bytes: &[u8]) -> Option<Vec<u8>> {
    if raw {
        return Some(bytes.to_vec());
    }
    let body: Body = serde_json::from_slice(bytes).ok()?;
    let received = world::stamp("c", 1_000_000 * i64::try_from(seq).unwrap_or(0));
    let event = fracas_model::event::Event { stream: stream.to_owned(), seq, received, origin: None, body };
    serde_json::to_vec(&event).ok()
}

fn histories() -> Vec<Vec<u8>> {
    let at = || world::stamp("c", 5);
    let (by, reason, why) = (|| "admin".to_owned(), || "a reason".to_owned(), || "why".to_owned());
    let set = fracas_model::schedule::Fact::Set {
        schedule: Box::new(
            fracas_model::schedule::read_schedule(
                "s",
                "apiVersion: fracas/v1\nkind: Schedule\nname: often\nexperiment: small.yaml\nwhen: { every: { period: 1h, from: 2026-01-01T00:00 } }\n",
            )
            .expect("a good schedule")
            .schedule,
        ),
        source: String::new(),
        experiment: world::SMALL.to_owned(),
        calendars: std::collections::BTreeMap::new(),
        files: std::collections::BTreeMap::new(),
        environment: "default".to_owned(),
        by: by(),
    };
    let enrolled = Body::HostEnrolled {
        host: "h1".into(),
        name: "one".into(),
        labels: [("role".to_owned(), "box".to_owned())].into(),
        serial: "00".into(),
        at: at(),
    };
    let made = Body::TokenMade {
        token: "t".into(),
        secret_digest: "0".repeat(64),
        labels: [].into(),
        expires_ns: 9,
        by: by(),
        at: at(),
    };
    let called = Body::Called {
        by: by(),
        method: "Halt".into(),
        environment: "*".into(),
        about: String::new(),
        refused: None,
        times: 1,
        at: at(),
    };
    let audit = vec![
        Body::ControllerStarted { version: "0.1.0".into(), epoch: 1, at: at() },
        made,
        Body::TokenUsed { token: "t".into(), host: "h1".into(), key: String::new(), at: at() },
        Body::Halted { by: by(), reason: reason(), at: at() },
        Body::HaltCleared { by: by(), reason: reason(), at: at() },
        called,
        Body::StreamClosed { stream: "run/r2".into(), seq: 1, hash: "0".repeat(64), at: at() },
    ];
    let host = vec![
        enrolled,
        Body::HostCertified { serial: "01".into(), at: at() },
        Body::HostRenewed { serial: "02".into(), until_s: 1_795_000_000, at: at() },
        Body::HostCertificateUsed { serial: "02".into(), superseded: "01".into(), at: at() },
        Body::HostCertificateLow { serial: "02".into(), until_s: 1_795_000_000, at: at() },
        Body::HostDuplicated { why: why(), at: at() },
        Body::HostTrusted { by: by(), reason: reason(), at: at() },
        Body::HostRevoked { by: by(), reason: reason(), at: at() },
        Body::HostCordoned { by: by(), reason: reason(), at: at() },
        Body::HostUncordoned { by: by(), at: at() },
        Body::HostQuarantined { run: "r1".into(), at: at() },
        Body::HostReleased { why: why(), at: at() },
        Body::EpochRaised { taken: (3, 4), epoch: 5, at: at() },
        Body::HostForgotten { by: by(), reason: reason(), at: at() },
    ];
    let schedule = vec![Body::Schedule { fact: set, at: at() }];
    let mut run = vec![events::planned(), Body::GateStarted { at: at() }, Body::GatePassed { at: at() }];
    run.extend(events::of_a_host().into_iter().map(|(body, _)| body));
    let finished = fracas_model::event::VerdictWord::Pass;
    run.push(Body::Finished { verdict: finished, exit_code: 0, reasons: vec![], at: at() });
    let story = |which: u8, bodies: &[Body]| {
        let part = |body: &Body| [vec![which], serde_json::to_vec(body).expect("JSON")].concat();
        let parts: Vec<Vec<u8>> = bodies.iter().map(part).collect();
        world::joined(parts.iter().map(Vec::as_slice))
    };
    let stories = [story(0, &audit), story(1, &run), story(3, &host), story(5, &schedule)];
    let mut all = stories.to_vec();
    all.push(stories.concat());
    all.push(story(0x81, &run[..2]));
    all
}
