//! People: tokens, rights, restarts, and names that can be erased.

use fracas_model::{
    access::Role,
    time::{ClockId, Stamp},
    units::Dur,
};

use super::*;
use crate::{clock::ManualClock, datadir::DataDir, store::memory::MemoryStore};

const AUDIT: &str = "audit/c";

async fn history() -> (History, MemoryStore, Arc<ManualClock>) {
    let stamp = Stamp { clock: ClockId { host: "c".into(), boot: "b".into() }, boot_ns: 0, wall_ns: 0, bound_ns: -1 };
    let (store, clock) = (MemoryStore::new(), Arc::new(ManualClock::new(stamp)));
    (History::open(Arc::new(store.clone()), clock.clone()).await.unwrap(), store, clock)
}

async fn people(history: &History) -> People {
    let events = history.read(AUDIT, 0).await.unwrap();
    People::new(history.clone(), AUDIT, Directory::default(), &events)
}

fn anna() -> Entry {
    Entry { handle: "anna".into(), name: "Anna".into(), email: "anna@example.org".into(), ..Entry::default() }
}

fn operator(environment: &str) -> Grant {
    Grant { environment: environment.into(), role: Role::Operator }
}

#[tokio::test]
async fn a_token_opens_what_its_owner_may_until_it_is_revoked_and_after_a_restart_too() {
    let (history, store, clock) = history().await;
    let people = people(&history).await;
    let known = people.add(anna(), Grants([operator("staging")].into()), "admin").await.unwrap();
    let made = people.make_token(&known.id, 1_000_000_000, "laptop", "admin").await.unwrap();
    let shown = people.whose(&made.text).unwrap();
    assert!(shown.grants.allow(Right::Run, "staging") && !shown.grants.allow(Right::Run, "prod"));
    assert!(people.stands(&shown));
    let stored: Vec<u8> =
        history.read_stored(AUDIT, 0, 100).await.unwrap().into_iter().flat_map(|r| r.stored).collect();
    let stored = String::from_utf8(stored).unwrap();
    let secret = made.text.rsplit('.').next().unwrap();
    for private in [secret, "anna", "Anna", "example.org"] {
        assert!(!stored.contains(private), "{private} is in the history");
    }
    // Another controller over the same history.
    let again = History::open(Arc::new(store), clock.clone()).await.unwrap();
    let people = self::people(&again).await;
    assert_eq!(people.whose(&made.text).unwrap().id, known.id.to_string());
    for bad in [
        "",
        "fpt1",
        &made.text[..made.text.len() - 1],
        &format!("{}x", made.text),
        &format!("{}.x", made.text),
        &made.text.replace("fpt1", "fat1"),
        &format!("fpt1.{}.{}", made.id, "0".repeat(64)),
    ] {
        assert!(people.whose(bad).is_err(), "{bad}");
    }
    let mut changes = people.changes();
    changes.mark_unchanged();
    people.revoke(&made.id, "lost", "admin").await.unwrap();
    assert!(changes.has_changed().unwrap(), "whoever watches is woken");
    assert_eq!(people.whose(&made.text).unwrap_err(), NotGood::Revoked);
    assert!(!people.stands(&shown));
    let second = people.make_token(&known.id, 5_000_000_000, "", "admin").await.unwrap();
    clock.advance(Dur::from_secs(5));
    assert_eq!(people.whose(&second.text).unwrap_err(), NotGood::Expired);
}

#[tokio::test]
async fn handles_are_unique_and_a_removed_person_frees_hers() {
    let (history, ..) = history().await;
    let people = people(&history).await;
    let known = people.add(anna(), Grants::default(), "admin").await.unwrap();
    assert!(matches!(people.add(anna(), Grants::default(), "admin").await, Err(PeopleError::Known(_))));
    let made = people.make_token(&known.id, i64::MAX, "", "admin").await.unwrap();
    people.remove("anna", "left", false, "admin").await.unwrap();
    let heir = people.add(anna(), Grants::default(), "admin").await.unwrap();
    assert_eq!(people.find("anna").unwrap().id, heir.id, "whoever is there goes before who has left");
    for _ in 0..2 {
        people.remove("anna", "left", true, "admin").await.unwrap();
    }
    assert_eq!(people.whose(&made.text).unwrap_err(), NotGood::Removed);
    assert!(matches!(people.find("anna"), Err(PeopleError::Unknown(_))), "her name is erased");
    assert!(people.find(known.id.as_str()).unwrap().removed, "that she was there is not");
    let next = people.add(anna(), Grants::default(), "admin").await.unwrap();
    assert_ne!(next.id, known.id);
    assert!(people.make_token(&known.id, i64::MAX, "", "admin").await.is_err());
}

#[tokio::test]
async fn whoever_signs_in_twice_at_once_or_was_removed_is_nobody_else() {
    let (history, ..) = history().await;
    let people = people(&history).await;
    let entry = |handle: &str| Entry { handle: handle.into(), subject: Some("https://id 7".into()), ..anna() };
    let (one, two) =
        (people.add(entry("a-1"), Grants::default(), "x"), people.add(entry("a-2"), Grants::default(), "x"));
    let (one, two) = tokio::join!(one, two);
    assert!(matches!((&one, &two), (Ok(_), Err(PeopleError::SubjectKnown))), "{one:?} {two:?}");
    assert!(!people.was_removed("https://id 7"));
    people.remove("a-1", "left", false, "admin").await.unwrap();
    assert!(people.was_removed("https://id 7") && people.by_subject("https://id 7").is_none());
    // An admin may take them back.
    people.add(entry("a-3"), Grants::default(), "admin").await.unwrap();
    assert!(!people.was_removed("https://id 7"));
}

#[tokio::test]
async fn whoever_was_erased_does_not_come_back_by_their_name_at_the_provider() {
    let folder = tempfile::tempdir().unwrap();
    let dir = Arc::new(DataDir::open(&folder.path().join("d")).unwrap());
    let (history, _, _) = history().await;
    let people = people(&history).await.named_in(Directory::open(dir.clone()).unwrap());
    let entry = Entry { subject: Some("https://id 7".into()), ..anna() };
    people.add(entry, Grants::default(), "admin").await.unwrap();
    let other = Entry { handle: "bert".into(), ..Entry::default() };
    people.add(other, Grants::default(), "admin").await.unwrap();
    assert!(!people.was_removed("https://id 7"));
    people.remove("anna", "left", true, "admin").await.unwrap();
    people.remove("bert", "left", true, "admin").await.unwrap();
    assert!(people.was_removed("https://id 7") && !people.was_removed("https://id 8"));
    // Erased twice is erased once, and nothing of a name is kept.
    let erased = people.all().into_iter().find(|known| known.entry.subject_digest.is_some()).unwrap();
    people.remove(erased.id.as_str(), "again", true, "admin").await.unwrap();
    assert!(people.was_removed("https://id 7"));
    let kept = std::fs::read_to_string(folder.path().join("d/people.json")).unwrap();
    assert!(!kept.contains("https://id") && !kept.contains("anna") && !kept.contains("bert"), "{kept}");
    assert!(people.find("").is_err(), "who was erased is called nothing");
    let again = self::people(&history).await.named_in(Directory::open(dir).unwrap());
    assert!(again.was_removed("https://id 7"), "nor after a restart");
}

#[test]
fn a_whole_token_is_known_by_its_public_part() {
    assert_eq!(["fpt1.ab.cd", "ab", "fpt1x.ab"].map(public_part), ["ab", "ab", "fpt1x.ab"]);
}

#[tokio::test]
async fn what_is_not_recorded_has_not_happened() {
    let (history, store, _) = history().await;
    let people = people(&history).await;
    people.add(anna(), Grants::default(), "admin").await.unwrap();
    store.set_full(true);
    assert!(people.grant("anna", operator("a"), true, "admin").await.is_err());
    assert!(!people.find("anna").unwrap().grants.allow(Right::Run, "a"));
    store.set_full(false);
    assert!(people.grant("anna", operator("a"), true, "admin").await.unwrap().grants.allow(Right::Run, "a"));
    assert!(!people.grant("anna", operator("a"), false, "admin").await.unwrap().grants.allow(Right::Run, "a"));
}

#[test]
fn names_are_kept_in_a_file_of_the_owner_and_nothing_is_left_of_those_erased() {
    let place = tempfile::tempdir().unwrap();
    let dir = Arc::new(DataDir::open(&place.path().join("d")).unwrap());
    let directory = Directory::open(Arc::clone(&dir)).unwrap();
    directory.set(&"p-1".into(), anna()).unwrap();
    let again = Directory::open(Arc::clone(&dir)).unwrap();
    assert_eq!(again.entry(&"p-1".into()), Some(anna()));
    let path = dir.join("people.json");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    again.erase(&"p-1".into()).unwrap();
    assert!(!std::fs::read_to_string(&path).unwrap().contains("anna"));
}

#[test]
fn nobody_passes_for_somebody_else() {
    for bad in ["", "p-1", "admin", "controller", "Anna", "a b", "../x", &"a".repeat(65)] {
        assert!(Entry { handle: bad.into(), ..anna() }.checked().is_err(), "{bad}");
    }
    assert!(anna().checked().is_ok());
    assert!(Entry { name: "a\nb".into(), ..anna() }.checked().is_err());
}
