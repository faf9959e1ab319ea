//! A journal on a real disk: what it says after every kind of end.

use fracas_model::{
    event::{Between, UndoCause},
    plan::{Burn, BurnMode, Check, Plan, Step},
    time::{ClockId, Stamp},
    units::{Dur, Percent},
};
use proptest::prelude::*;

use super::*;
use crate::disk::FileDisk;

fn key(entry: &str) -> fracas_model::id::ItemKey {
    fracas_model::id::ItemKey { run: "r".into(), entry: entry.into(), occurrence: 0, host: "h".into(), generation: 1 }
}

fn planned(entry: &str, slot: u16) -> Record {
    let burn = |core| Step::Burn(Burn { percent: Percent(50.0), mode: BurnMode::Added, cores: vec![core] });
    Record::Planned {
        key: key(entry),
        fault: "some-fault".into(),
        plan: Plan {
            steps: vec![burn(0), burn(1)],
            claims: Vec::new(),
            check: Check::Gone { processes: Vec::new() },
            summary: "burn".into(),
        },
        duration: Some(Dur::from_secs(5)),
        slot,
        boot: "b".into(),
        deadline_ns: 5_000_000_000,
        experiment: "x".into(),
        at: Some(stamp()),
    }
}

fn stamp() -> Stamp {
    Stamp { clock: ClockId { host: "h".into(), boot: "b".into() }, boot_ns: 7, wall_ns: 8, bound_ns: 9 }
}

fn closed(entry: &str) -> Record {
    Record::Closed { key: key(entry), ended: Ended::Undone(UndoCause::Expired), tell: Vec::new(), past: None }
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    async fn open(&self) -> Journal<FileDisk> {
        Journal::open(FileDisk::new(self.0.path()).expect("a disk")).await
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.0.path().join(FILE)).unwrap_or_default()
    }

    fn put(&self, bytes: &[u8]) {
        std::fs::write(self.0.path().join(FILE), bytes).expect("written");
    }
}

#[tokio::test]
async fn what_was_written_is_known_after_reopening() {
    let folder = Folder::new();
    let mut journal = folder.open().await;
    let records = [
        Record::Taken { epoch: 3, revision: 9 },
        planned("a", 0),
        Record::Intent { key: key("a"), step: 0 },
        Record::Done { key: key("a"), step: 0, handle: serde_json::json!({"pid": 5}) },
        Record::Undoing { key: key("a"), cause: UndoCause::Expired },
        planned("b", 1),
        closed("b"),
    ];
    journal.write(&records, true).await.unwrap();
    let again = folder.open().await;
    assert_eq!(again.state(), journal.state());
    assert_eq!(again.trouble(), None);
    assert_eq!(again.state().taken, (3, 9));
    let open = &again.state().open[&key("a")];
    assert_eq!(open.steps, [Progress::Done(serde_json::json!({"pid": 5})), Progress::Untouched]);
    assert_eq!(open.undoing, Some(UndoCause::Expired));
    assert_eq!(again.state().ended(&key("b")), Some(Ended::Undone(UndoCause::Expired)));
    assert_eq!(again.state().free_slot(), Some(1));
}

#[tokio::test]
async fn a_torn_tail_is_cut_off_and_writing_goes_on() {
    let folder = Folder::new();
    folder.open().await.write(&[planned("a", 0), closed("a")], true).await.unwrap();
    let whole = folder.bytes();
    let first = scan_frames(&whole).0[0].size;
    for cut in first + 1..whole.len() {
        folder.put(&whole[..cut]);
        let mut journal = folder.open().await;
        assert_eq!((journal.trouble(), journal.torn()), (None, (cut - first) as u64));
        assert!(journal.state().open.contains_key(&key("a")));
        journal.write(&[closed("a")], true).await.unwrap();
        assert_eq!(folder.bytes(), whole);
    }
}

#[tokio::test]
async fn whoever_only_looks_changes_nothing_even_while_a_record_is_being_written() {
    let folder = Folder::new();
    folder.open().await.write(&[planned("a", 0), closed("a")], true).await.unwrap();
    let whole = folder.bytes();
    let first = scan_frames(&whole).0[0].size;
    for cut in first + 1..whole.len() {
        folder.put(&whole[..cut]);
        let look = Look::into_dir(folder.0.path());
        assert_eq!((look.trouble, look.torn), (None, (cut - first) as u64));
        assert!(look.state.open.contains_key(&key("a")));
        assert_eq!(folder.bytes(), whole[..cut], "what its owner is just writing must not be cut off");
    }
    assert_eq!(std::fs::read_dir(folder.0.path()).unwrap().count(), 1);
    let nowhere = folder.0.path().join("none");
    assert!(Look::into_dir(&nowhere).trouble.is_none() && !nowhere.exists());
}

#[tokio::test]
async fn damage_is_never_written_over_and_what_can_be_read_is_known() {
    let folder = Folder::new();
    folder.open().await.write(&[closed("x"), planned("a", 0)], true).await.unwrap();
    let mut bytes = folder.bytes();
    bytes[20] ^= 1;
    folder.put(&bytes);
    let mut journal = folder.open().await;
    assert_eq!(journal.trouble(), Some(Trouble::Damaged(0)));
    assert!(journal.state().open.contains_key(&key("a")), "the record behind the damage");
    assert_eq!(journal.write(&[planned("b", 1)], true).await, Err(Trouble::Damaged(0)));
    assert!(!journal.state().open.contains_key(&key("b")), "an order that is not kept does not count");
    journal.note(&[closed("a")], true).await;
    assert!(journal.state().open.is_empty(), "what has happened counts all the same");
    journal.tidy().await;
    assert_eq!(folder.bytes(), bytes);
}

#[tokio::test]
async fn records_of_a_newer_agent_stop_all_orders() {
    let folder = Folder::new();
    folder.put(&encode_frame(VERSION + 1, b"{}"));
    let mut journal = folder.open().await;
    assert_eq!(journal.trouble(), Some(Trouble::Newer(2)));
    assert!(journal.write(&[planned("a", 0)], true).await.is_err());
    assert!(journal.trouble().unwrap().refusal().instead.contains("restart"));
}

#[tokio::test]
async fn a_long_journal_is_shortened_without_losing_its_meaning() {
    let folder = Folder::new();
    let mut journal = folder.open().await;
    for i in 0..6000 {
        let entry = format!("entry-{}", i % 50);
        journal.note(&[planned(&entry, 0), closed(&entry)], false).await;
    }
    let (long, meaning) = (folder.bytes().len(), journal.state().clone());
    assert!(long as u64 > COMPACT_BYTES);
    journal.tidy().await;
    assert!(folder.bytes().len() < long / 10);
    assert_eq!(folder.open().await.state(), &meaning);
}

fn any_record() -> impl Strategy<Value = Record> {
    let entry = prop_oneof![Just("a"), Just("b"), Just("c")];
    (entry, 0..2usize, 0..9u8).prop_map(|(entry, step, kind)| match kind {
        0 => planned(entry, 0),
        1 => Record::Intent { key: key(entry), step },
        2 => Record::Done { key: key(entry), step, handle: serde_json::Value::Null },
        3 => Record::AboutToFire { key: key(entry), step, at: stamp() },
        4 => Record::Fired { key: key(entry), step, effective: Between { from: stamp(), to: stamp() } },
        5 => Record::Undoing { key: key(entry), cause: UndoCause::Local },
        6 => Record::Reverted { key: key(entry), step },
        7 => closed(entry),
        _ => Record::Reported { key: key(entry) },
    })
}

proptest! {
    #[test]
    fn the_short_form_means_the_same(records in proptest::collection::vec(any_record(), 0..40)) {
        let fold = |records: &[Record]| {
            let mut state = JournalState::default();
            for record in records {
                state.fold(record);
            }
            state
        };
        let state = fold(&records);
        prop_assert_eq!(fold(&state.records()), state);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let (frames, _) = scan_frames(&bytes);
        prop_assert!(frames.iter().all(|f| f.offset + f.size <= bytes.len()));
    }
}
