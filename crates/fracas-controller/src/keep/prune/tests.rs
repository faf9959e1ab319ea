//! What goes and what stays, that the rest is proved, and that a crash anywhere loses neither.

use std::sync::atomic::Ordering;

use fracas_model::units::Dur;

use super::*;
use crate::{
    keep::house::{AUDIT, DAY, House},
    verify::HEADS_FILE,
};

#[tokio::test]
async fn what_is_old_and_closed_goes_and_the_rest_is_proved_with_who_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::lived(&folder.path().join("d"), 0).await;
    let before = house.runs().await;
    let dry = house.keeper.prune(&Asked { dry_run: true, ..House::asked(0) }).await.unwrap();
    assert_eq!((house.runs().await, &dry.runs), (before, &vec!["old2".into(), "old1".into()]));
    let report = house.history().read("run/old1", 0).await.unwrap().pop().unwrap();
    let Body::ReportSealed { digest, .. } = report.body else { panic!("{report:?}") };
    let mut slow = house.controller.schedules().one("s").unwrap();

    let pruned = house.keeper.prune(&House::asked(0)).await.unwrap();
    assert_eq!((&pruned.runs, &pruned.schedules, pruned.records), (&dry.runs, &dry.schedules, dry.records));
    assert_eq!(pruned.schedules, ["s"]);
    assert_eq!(pruned.stay, BTreeMap::from([(Stays::Open, 1), (Stays::Young, 1)]));
    assert_eq!(house.runs().await, ["young", "open"]);
    for wiped in [false, true] {
        let found = house.verify().await;
        assert!(found.whole() && found.complete(), "{found:?}");
        let told: Vec<_> = found.pruned.iter().map(|one| (one.streams.join(" "), one.vouched)).collect();
        assert_eq!(told, [("run/old1 run/old2".into(), true), ("schedule/s".into(), true)]);
        let one = &found.pruned[0];
        assert_eq!((one.by.as_str(), one.reason.as_str()), ("admin", "they are old"));
        if !wiped {
            house.wipe().await.unwrap();
        }
    }
    // The digest of a report that is gone is in the audit stream still.
    let told = house.history().read(AUDIT, 0).await.unwrap();
    let gone = told.iter().find_map(|event| match &event.body {
        Body::Pruned { gone, .. } => gone.iter().find(|gone| gone.stream == "run/old1"),
        _ => None,
    });
    assert_eq!(gone.unwrap().report, Some(digest));
    // A key whose run is gone starts nothing a second time, and blobs of the others are there.
    assert_eq!(house.store().idempotency("key of old1").await, Ok(Some("old1".into())));
    let state = house.controller.schedules().one("s").unwrap();
    assert_eq!(state, std::mem::take(&mut slow), "a schedule is what it was");
    // There is nothing more to do.
    let again = house.keeper.prune(&House::asked(0)).await.unwrap();
    assert_eq!((again.runs.len(), again.schedules.len(), again.records), (0, 0, 0));
}

#[tokio::test]
async fn a_schedule_is_what_it_was_after_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d");
    let house = House::lived(&path, 0).await;
    let mut before = house.controller.schedules().one("s").unwrap();
    let records = house.history().read("schedule/s", 0).await.unwrap().len();
    house.keeper.prune(&House::asked(0)).await.unwrap();
    house.wipe().await.unwrap();
    drop(house);
    for days in [900, 1900] {
        let house = House::open(&path, Dur::from_secs(days * 86_400)).await;
        assert_eq!(house.controller.schedules().one("s").unwrap(), before);
        // It goes on from there, and is summed up anew when that is old too.
        assert!(house.history().read("schedule/s", 0).await.unwrap().len() < records);
        house.schedule(60).await;
        drop(house);
        let house = House::open(&path, Dur::from_secs((days + 500) * 86_400)).await;
        before = house.controller.schedules().one("s").unwrap();
        assert_eq!(house.keeper.prune(&House::asked(0)).await.unwrap().schedules, ["s"]);
        house.wipe().await.unwrap();
        assert!(house.verify().await.whole());
    }
}

#[tokio::test]
async fn the_newest_and_those_that_explain_a_quarantine_stay() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::lived(&folder.path().join("d"), 3).await;
    house.controller.fleet().record(&"h".into(), |record| record.quarantined = Some("more1".into()));
    let pruned = house.keeper.prune(&House::asked(2)).await.unwrap();
    assert_eq!(pruned.stay[&Stays::Quarantine], 1);
    assert_eq!(house.runs().await, ["young", "more2", "more1", "open"]);
    assert!(house.verify().await.whole());
}

#[tokio::test]
async fn a_run_that_was_tampered_with_is_not_pruned_away() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d");
    let house = House::lived(&path, 1).await;
    let tamper =
        |statement: &str| rusqlite::Connection::open(path.join("history.sqlite")).unwrap().execute_batch(statement);
    let of = |run: &str| format!("stream = (SELECT id FROM stream WHERE name = 'run/{run}')");
    tamper(&format!("UPDATE event SET stored = CAST(stored || ' ' AS BLOB) WHERE seq = 2 AND {}", of("old1"))).unwrap();
    tamper("UPDATE stream SET hash = zeroblob(32) WHERE name = 'run/old2'").unwrap();
    let pruned = house.keeper.prune(&House::asked(0)).await.unwrap();
    assert_eq!(pruned.runs, ["more0".into()]);
    assert_eq!(pruned.stay[&Stays::Changed], 2);
    let found = house.verify().await;
    let broken: Vec<&str> =
        found.streams.iter().filter(|one| one.broken.is_some()).map(|one| &one.stream[..]).collect();
    assert_eq!(broken, ["run/old1", "run/old2"], "the traces are there");
}

#[tokio::test]
async fn nothing_goes_that_could_not_be_signed() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::lived(&folder.path().join("d"), 0).await;
    let heads = std::fs::read(house.dir.join(HEADS_FILE)).unwrap();
    std::fs::remove_file(house.dir.join(HEADS_FILE)).unwrap();
    std::fs::create_dir(house.dir.join(HEADS_FILE)).unwrap();
    let error = house.keeper.prune(&House::asked(0)).await.unwrap_err().to_string();
    assert!(error.starts_with("nothing is removed before that is signed"), "{error}");
    assert_eq!(house.runs().await.len(), 4);
    std::fs::remove_dir(house.dir.join(HEADS_FILE)).unwrap();
    std::fs::write(house.dir.join(HEADS_FILE), heads).unwrap();
    std::fs::set_permissions(house.dir.join(HEADS_FILE), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    // It was said, and not done: nothing is missing, and the next one does it.
    assert!(house.verify().await.whole());
    assert_eq!(house.keeper.prune(&House::asked(0)).await.unwrap().runs.len(), 2);
    assert!(house.verify().await.whole());
}

#[tokio::test]
async fn a_crash_after_any_write_leaves_all_of_a_run_or_nothing_and_the_rest_for_the_next_prune() {
    let mut finished = false;
    for writes in 0..40 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d");
        let house = House::lived(&path, 2).await;
        house.left.store(writes, Ordering::SeqCst);
        let pruned = house.keeper.prune(&House::asked(0)).await;
        finished = pruned.is_ok() && house.wipe().await.is_ok();
        // The process is gone; what it left is what the next one finds.
        drop(house);
        let house = House::open(&path, Dur::from_ns(DAY.ns() * 501)).await;
        let found = house.verify().await;
        assert!(found.whole() && found.complete(), "after {writes} writes: {found:?}");
        for run in house.runs().await {
            assert!(!house.history().read(&format!("run/{run}"), 0).await.unwrap().is_empty(), "{run} is a ghost");
        }
        house.keeper.prune(&House::asked(0)).await.unwrap();
        house.wipe().await.unwrap();
        assert_eq!(house.runs().await, ["young", "open"], "after {writes} writes");
        let found = house.verify().await;
        assert!(found.whole() && found.pruned.iter().all(|one| one.vouched), "after {writes} writes: {found:?}");
        assert_eq!(house.controller.schedules().one("s").unwrap().paused.as_deref(), Some("for good"));
        if finished {
            break;
        }
    }
    assert!(finished, "it never came to its end");
}

#[tokio::test]
async fn one_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::lived(&folder.path().join("d"), 0).await;
    let _turn = house.keeper.turn.lock().await;
    assert!(matches!(house.keeper.prune(&House::asked(0)).await, Err(PruneError::Busy)));
    assert!(house.keeper.backup("admin", true).await.unwrap_err().to_string().contains("under way"));
}
