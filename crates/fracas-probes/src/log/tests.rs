//! The log probe on files that grow, are renamed, cut short and made late.

use std::{fs, io::Write as _, path::Path};

use serde_json::json;

use super::*;

struct Place {
    dir: tempfile::TempDir,
    policy: Policy,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap().to_str().unwrap().to_owned();
        Self { dir, policy: Policy { read_in: vec![real], ..Policy::builtin() } }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    async fn begun(&self, mut params: serde_json::Value) -> Box<dyn Lookout> {
        params["path"] = self.path("log").into();
        let lookout = crate::ready(&Log, &serde_json::from_value(params).unwrap(), &self.policy).unwrap();
        lookout.prepare().await.unwrap();
        lookout
    }
}

fn append(path: impl AsRef<Path>, text: &str) {
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn values(lines: f64) -> Values {
    Values::new().with("lines", lines).with("matches", 0.0)
}

#[tokio::test(flavor = "current_thread")]
async fn only_new_and_whole_lines_count_once() {
    let place = Place::new();
    append(place.path("log"), "ERROR old\nERR");
    let lookout = place.begun(json!({ "failOn": "^ERROR|^OR " })).await;
    assert_eq!(lookout.look().await.unwrap(), values(0.0));
    append(place.path("log"), "OR begun before\nfine\nERROR ne");
    assert_eq!(lookout.look().await.unwrap_err(), "1 of 2 new lines match failOn", "the rest of the first line");
    append(place.path("log"), "w\r\n");
    assert_eq!(lookout.look().await.unwrap_err(), "1 of 1 new lines match failOn");
    assert_eq!(lookout.look().await.unwrap(), values(0.0));
}

#[tokio::test(flavor = "current_thread")]
async fn a_file_may_be_late_renamed_and_cut_short() {
    let place = Place::new();
    let lookout = place.begun(json!({ "failOn": "ERROR" })).await;
    assert_eq!(lookout.look().await.unwrap_err(), "there is no such file");
    append(place.path("log"), "ERROR early\n");
    assert_eq!(lookout.look().await.unwrap_err(), "1 of 1 new lines match failOn");
    append(place.path("log"), "ERROR last\n");
    fs::rename(place.path("log"), place.path("log.1")).unwrap();
    assert_eq!(lookout.look().await.unwrap_err(), "1 of 1 new lines match failOn");
    append(place.path("log.1"), "ERROR later still\n");
    append(place.path("log"), "ERROR first\n");
    assert_eq!(lookout.look().await.unwrap_err(), "2 of 2 new lines match failOn");
    fs::write(place.path("log"), "").unwrap();
    assert_eq!(lookout.look().await.unwrap(), values(0.0));
    append(place.path("log"), "ERROR\n");
    assert_eq!(lookout.look().await.unwrap_err(), "1 of 1 new lines match failOn");
    fs::remove_file(place.path("log")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", place.path("log")).unwrap();
    assert!(lookout.look().await.unwrap_err().contains("readIn"));
}

#[tokio::test(flavor = "current_thread")]
async fn the_old_file_is_read_until_the_new_one_is_written() {
    let place = Place::new();
    append(place.path("log"), "");
    let lookout = place.begun(json!({ "failOn": "ERROR" })).await;
    fs::rename(place.path("log"), place.path("log.1")).unwrap();
    append(place.path("log"), "");
    assert_eq!(lookout.look().await.unwrap(), values(0.0));
    append(place.path("log.1"), "ERROR of a program that was not told\n");
    assert_eq!(lookout.look().await.unwrap_err(), "1 of 1 new lines match failOn");
    append(place.path("log"), "ERROR first\n");
    assert_eq!(lookout.look().await.unwrap_err(), "1 of 1 new lines match failOn");
}

/// Another look may hold the file for as long as a disk takes: the probe's thread must not wait with it.
#[expect(clippy::await_holding_lock, reason = "nothing that is awaited here needs it")]
#[tokio::test(flavor = "current_thread")]
async fn a_look_that_is_given_up_holds_nobody_and_loses_nothing() {
    let place = Place::new();
    append(place.path("log"), "");
    let wanted = json!({ "path": place.path("log"), "failOn": "ERROR" });
    let Ok(ready) = made(&serde_json::from_value(wanted).unwrap(), &place.policy) else { panic!("it is refused") };
    ready.prepare().await.unwrap();
    append(place.path("log"), "ERROR\n");
    let held = ready.follower.clone();
    let guard = locked(&held);
    tokio::select! {
        biased;
        _ = ready.look() => panic!("the file is held"),
        () = tokio::task::yield_now() => {}
    }
    drop(guard);
    drop(ready.one.free.acquire().await.unwrap());
    assert_eq!(ready.look().await.unwrap_err(), "1 of 1 new lines match failOn");
}

#[tokio::test(flavor = "current_thread")]
async fn a_flood_is_read_in_pieces_and_a_line_without_end_too() {
    let place = Place::new();
    let lookout = place.begun(json!({ "failOn": "needle" })).await;
    let size = usize::try_from(MOST).unwrap();
    append(place.path("log"), &("x".repeat(size + LONGEST_LINE) + "needle\n"));
    assert_eq!(lookout.look().await.unwrap(), values(63.0));
    assert_eq!(lookout.look().await.unwrap_err(), "1 of 3 new lines match failOn");
}

#[test]
fn an_expected_line_must_come_again_and_again() {
    let place = Place::new();
    append(place.path("log"), "");
    let wanted = Wanted {
        path: place.path("log"),
        policy: place.policy.clone(),
        fail_on: None,
        expect: Some((pattern("taken$").unwrap(), Duration::from_secs(10))),
    };
    let mut follower = Follower::default();
    let begun = Instant::now();
    let at = |secs| begun + Duration::from_secs(secs);
    follower.read(&wanted, true, at(0)).unwrap();
    let told = follower.found;
    told.tell(told, &wanted, at(10)).unwrap();
    assert_eq!(told.tell(told, &wanted, at(11)).unwrap_err(), "no expected line for over 10s");
    append(place.path("log"), "order taken\nother\n");
    follower.read(&wanted, false, at(12)).unwrap();
    let found = follower.found;
    assert_eq!(found.tell(told, &wanted, at(12)).unwrap(), Values::new().with("lines", 2.0).with("matches", 1.0));
    // An earlier look that ends later tells nothing twice.
    assert_eq!(told.tell(found, &wanted, at(12)).unwrap(), values(0.0));
    found.tell(found, &wanted, at(22)).unwrap();
    assert!(found.tell(found, &wanted, at(23)).is_err());
}

#[test]
fn what_is_looked_for_must_be_said() {
    let refused = |params: serde_json::Value| {
        crate::ready(&Log, &serde_json::from_value(params).unwrap(), &Policy::builtin()).err().unwrap()
    };
    assert!(refused(json!({ "path": "/x" })).why.contains("nothing to look for"));
    assert!(refused(json!({ "path": "/x", "expect": "a" })).why.contains("within"));
    assert!(refused(json!({ "path": "/x", "failOn": "(" })).why.contains("not a pattern"));
    assert!(refused(json!({ "path": "/x", "failOn": "a" })).instead.contains("readIn"));
}
