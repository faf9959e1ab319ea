//! What is gone, and who vouches for that; heads that are newer than a copy; forged excuses.

use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use serde_json::{Value, json};

use super::*;
use crate::chain::{Stored, hex, link};

const AUDIT: &str = "audit/c";

/// A stream as its keeper has it.
#[derive(Clone)]
struct Stream {
    name: &'static str,
    base: Head,
    records: Vec<Stored>,
}

impl Stream {
    fn new(name: &'static str) -> Self {
        Self { name, base: Head::genesis(name), records: Vec::new() }
    }

    fn end(&self) -> Head {
        self.records.last().map_or(self.base, |record| Head { seq: record.seq, hash: record.hash })
    }

    fn append(&mut self, body: Value) -> Head {
        let (seq, before) = (self.end().seq + 1, self.end().hash);
        let stored = json!({ "stream": self.name, "seq": seq, "body": body }).to_string().into_bytes();
        let hash = link(&before, &stored);
        self.records.push(Stored { seq, stored, hash });
        Head { seq, hash }
    }

    fn facts(name: &'static str, n: usize) -> Self {
        let mut stream = Self::new(name);
        for _ in 0..n {
            stream.append(json!({ "kind": "aKindOfALaterVersion", "x": 1 }));
        }
        stream
    }

    fn cut(&mut self, upto: Head) {
        self.records.retain(|record| record.seq > upto.seq);
        self.base = upto;
    }

    fn walk(&self) -> Walk {
        let mut walk = Walk::new(self.name, self.base);
        self.records.iter().for_each(|record| assert_eq!(walk.take(record), None));
        walk
    }
}

fn at(wall_ns: i64) -> Value {
    json!({ "clock": { "host": "c", "boot": "b" }, "bootNs": 1, "wallNs": wall_ns, "boundNs": -1 })
}

fn closed(stream: &str, head: Head) -> Value {
    json!({ "kind": "streamClosed", "stream": stream, "seq": head.seq, "hash": hex(&head.hash), "at": at(1) })
}

fn pruned(stream: &str, head: Head) -> Value {
    let gone = json!([{ "stream": stream, "seq": head.seq, "hash": hex(&head.hash) }]);
    json!({ "kind": "pruned", "gone": gone, "beforeWallNs": 5, "by": "admin", "reason": "old", "at": at(9) })
}

struct Signer(Ed25519KeyPair);

impl Signer {
    fn new() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self(Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap())
    }

    fn sign(&self, head: Head, wall_ns: i64) -> SignedHead {
        let (stream, hash) = (AUDIT.to_owned(), hex(&head.hash));
        let mut signed = SignedHead { stream, seq: head.seq, hash, wall_ns, signature: String::new() };
        signed.signature = hex(self.0.sign(signed.text().as_bytes()).as_ref());
        signed
    }

    fn public(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn verify(&self, heads: Vec<SignedHead>, audit: &Stream, others: &[&Stream]) -> Verification {
        let mut verifier = Verifier::new(heads, self.public());
        let ends = |stream: &Stream| Some(Ends { head: stream.end(), growing: false });
        verifier.audit(audit.walk(), ends(audit));
        others.iter().for_each(|stream| verifier.other(stream.walk(), ends(stream)));
        let names = others.iter().map(|stream| stream.name.to_owned()).chain([AUDIT.to_owned()]).collect();
        verifier.finish(&names)
    }
}

/// A closed run and a schedule, and the audit stream with the run's last head.
fn history() -> (Stream, Stream, Stream) {
    let (run, schedule, mut audit) =
        (Stream::facts("run/a", 4), Stream::facts("schedule/s", 6), Stream::facts(AUDIT, 2));
    audit.append(closed("run/a", run.end()));
    (run, schedule, audit)
}

#[test]
fn what_was_pruned_is_told_from_what_is_gone() {
    let signer = Signer::new();
    let (run, schedule, mut audit) = history();
    let before = signer.sign(audit.end(), 1);
    let gone = signer.verify(vec![before.clone()], &audit, &[&schedule]);
    assert_eq!(gone.general, ["stream run/a is gone"]);

    audit.append(pruned("run/a", run.end()));
    let after = signer.sign(audit.end(), 2);
    let found = signer.verify(vec![before.clone(), after.clone()], &audit, &[&schedule]);
    assert!(found.whole() && found.complete(), "{found:?}");
    let streams = vec!["run/a".to_owned()];
    let (by, reason) = ("admin".to_owned(), "old".to_owned());
    assert_eq!(found.pruned, [Pruned { streams, by, reason, at_wall_ns: 9, vouched: true }]);

    // A database that says so by itself, to whoever has a head from before.
    let found = signer.verify(vec![before], &audit, &[&schedule]);
    assert_eq!(found.general, ["stream run/a is gone by a prune that no signed head covers"]);
    // And to somebody who has none, for whom nothing is vouched for.
    let found = signer.verify(vec![], &audit, &[&schedule]);
    assert!(found.whole() && !found.pruned[0].vouched, "{found:?}");
    // It was said and not done yet: all is there.
    let found = signer.verify(vec![after], &audit, &[&run, &schedule]);
    assert!(found.whole() && found.pruned.is_empty(), "{found:?}");
}

#[test]
fn a_prune_of_another_head_excuses_nothing() {
    let signer = Signer::new();
    let (run, schedule, mut audit) = history();
    audit.append(pruned("run/a", Head { seq: 4, hash: [7; 32] }));
    audit.append(pruned("run/a", Head { seq: 3, ..run.end() }));
    let found = signer.verify(vec![signer.sign(audit.end(), 2)], &audit, &[&schedule]);
    assert_eq!(found.general, ["stream run/a is gone"]);
}

#[test]
fn a_beginning_that_was_pruned_leaves_the_rest_proved() {
    let signer = Signer::new();
    let (run, mut schedule, mut audit) = history();
    let third = Head { seq: 3, hash: schedule.records[2].hash };
    let mut bare = schedule.clone();
    bare.cut(third);
    let unrecorded = signer.verify(vec![signer.sign(audit.end(), 1)], &audit, &[&run, &bare]);
    assert_eq!(unrecorded.streams[2].broken, Some((1, "records 1 to 3 are gone".to_owned())));

    audit.append(pruned("schedule/s", third));
    let signed = signer.sign(audit.end(), 2);
    schedule.cut(third);
    let found = signer.verify(vec![signed.clone()], &audit, &[&run, &schedule]);
    assert!(found.whole(), "{found:?}");
    let finding = &found.streams[2];
    assert_eq!((finding.pruned, finding.records, found.pruned.len()), (3, 6, 1));
    assert_eq!(found.records(), 4 + 4 + 3);

    // What follows a pruned beginning must follow from its head.
    let mut forged = schedule.clone();
    forged.base.hash = [1; 32];
    let found = signer.verify(vec![signed], &audit, &[&run, &forged]);
    assert_eq!(found.streams[2].broken, Some((1, "records 1 to 3 are gone".to_owned())));
}

#[test]
fn an_audit_stream_is_never_pruned() {
    let signer = Signer::new();
    let (run, schedule, mut audit) = history();
    let first = Head { seq: 1, hash: audit.records[0].hash };
    audit.append(pruned(AUDIT, first));
    let signed = signer.sign(audit.end(), 2);
    audit.cut(first);
    let found = signer.verify(vec![signed], &audit, &[&run, &schedule]);
    let why = "records 1 to 1 are gone: an audit stream is never pruned".to_owned();
    assert_eq!(found.streams[0].broken, Some((1, why)));
}

/// The audit stream went on to `lost` after the backup, which was then put back.
fn restored() -> (Stream, Stream, Signer) {
    let signer = Signer::new();
    let mut lost = Stream::facts(AUDIT, 3);
    let mut kept = lost.clone();
    for _ in 0..4 {
        lost.append(json!({ "kind": "called" }));
    }
    kept.append(json!({ "kind": "restored", "madeWallNs": 10, "at": at(50) }));
    kept.append(json!({ "kind": "controllerStarted" }));
    (kept, lost, signer)
}

#[test]
fn heads_that_are_newer_than_a_restored_copy_are_told_from_tampering() {
    let (kept, lost, signer) = restored();
    let older = signer.sign(Head { seq: 3, hash: lost.records[2].hash }, 9);
    let newer = |seq: usize| signer.sign(Head { seq: seq as u64, hash: lost.records[seq - 1].hash }, 20);
    let present = signer.sign(kept.end(), 60);
    let found = signer.verify(vec![older.clone(), newer(5), newer(7), present.clone()], &kept, &[]);
    assert!(found.whole() && !found.complete(), "{found:?}");
    let told: Vec<_> = found.newer.iter().map(|head| (head.seq, head.copy, head.restored_wall_ns)).collect();
    assert_eq!(told, [(5, 3, 50), (7, 3, 50)]);
    assert_eq!((found.streams[0].vouched, found.streams[0].records), (5, 5));

    // That it was restored must be vouched for itself.
    let found = signer.verify(vec![older.clone(), newer(5)], &kept, &[]);
    assert_eq!(found.streams[0].broken, Some((5, "it is not the record that a signed head knows".to_owned())));
    assert!(found.newer.is_empty());
    // A head that was signed after the restore, and is not of this history: somebody else signs with the key.
    let late = signer.sign(Head { seq: 5, hash: lost.records[4].hash }, 51);
    let found = signer.verify(vec![late, present.clone()], &kept, &[]);
    assert!(!found.whole(), "{found:?}");
    // Nor is a record from before the backup excused.
    let forged = signer.sign(Head { seq: 2, hash: [4; 32] }, 5);
    let found = signer.verify(vec![forged, present], &kept, &[]);
    assert_eq!(found.streams[0].broken.as_ref().map(|(seq, _)| *seq), Some(2));
}

#[test]
fn a_copy_that_says_nothing_of_a_restore_is_short_with_a_hint() {
    let (_, lost, signer) = restored();
    let mut copy = lost.clone();
    copy.records.truncate(3);
    let found = signer.verify(vec![signer.sign(lost.end(), 20)], &copy, &[]);
    let why = "it is missing: a signed head knows 7 records; it may be newer than this copy, if this is one";
    assert_eq!(found.streams[0].broken, Some((4, why.to_owned())));
}

#[test]
fn a_stream_that_grows_is_held_against_what_it_was() {
    let signer = Signer::new();
    let (run, schedule, mut audit) = history();
    let (signed, then) = (signer.sign(audit.end(), 1), audit.end());
    let mut verifier = Verifier::new(vec![signed], signer.public());
    verifier.audit(audit.walk(), Some(Ends { head: then, growing: true }));
    let early = schedule.end();
    let mut grown = schedule.clone();
    grown.append(json!({ "kind": "schedule" }));
    verifier.other(grown.walk(), Some(Ends { head: early, growing: true }));
    // Meanwhile the run was pruned, and that was signed.
    audit.append(pruned("run/a", run.end()));
    for walk in verifier.audits() {
        assert_eq!(walk.take(audit.records.last().unwrap()), None);
    }
    verifier.hold_against(vec![signer.sign(audit.end(), 2)], signer.public());
    let found = verifier.finish(&BTreeSet::from([AUDIT.to_owned(), "schedule/s".to_owned()]));
    assert!(found.whole() && found.pruned.len() == 1, "{found:?}");
    assert_eq!(found.streams[0].vouched, 4);

    let mut verifier = Verifier::new(vec![], signer.public());
    let ahead = Head { seq: 9, hash: [0; 32] };
    verifier.other(schedule.walk(), Some(Ends { head: ahead, growing: true }));
    let found = verifier.finish(&BTreeSet::from(["schedule/s".to_owned()]));
    assert_eq!(found.streams[0].broken, Some((7, "it is missing: the head says 9 records".to_owned())));
}

#[test]
fn strange_records_do_not_bring_it_down() {
    let first = |stored: &[u8]| {
        let mut walk = Walk::new("run/a", Head::genesis("run/a"));
        let hash = link(&Head::genesis("run/a").hash, stored);
        walk.take(&Stored { seq: 1, stored: stored.to_vec(), hash });
        walk.broken().map(|(_, why)| why.clone()).unwrap_or_default()
    };
    for bad in
        [&b""[..], b"\xff\xfe", b"[]", b"{\"stream\":\"run/a\",\"seq\":1}", b"{\"stream\":1,\"seq\":1,\"body\":{}}"]
    {
        assert!(first(bad).starts_with("it is not an event"), "{bad:?}: {}", first(bad));
    }
    let other = br#"{"stream":"run/b","seq":1,"body":{"kind":"x"}}"#;
    assert_eq!(first(other), "it says it is record 1 of run/b");
    let odd = br#"{"stream":"run/a","seq":1,"body":{"kind":"readingsSealed","digest":"not one"}}"#;
    assert_eq!(first(odd), "");
    let far = Head { seq: u64::MAX, hash: [0; 32] };
    assert_eq!(Walk::new("run/a", far).hash(0), None);
}
