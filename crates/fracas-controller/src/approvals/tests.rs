//! How many requests are kept, of whom, and how large: nobody fills the memory by asking.

use fracas_model::{
    time::{ClockId, Stamp},
    units::Dur,
};

use super::*;
use crate::{clock::ManualClock, store::memory::MemoryStore};

async fn rig() -> (Approvals, Arc<ManualClock>) {
    let stamp = Stamp { clock: ClockId { host: "c".into(), boot: "b".into() }, boot_ns: 0, wall_ns: 0, bound_ns: 0 };
    let clock = Arc::new(ManualClock::new(stamp));
    let history = History::open(Arc::new(MemoryStore::new()), clock.clone()).await.unwrap();
    (Approvals::new(history), clock)
}

fn asked(bytes: usize) -> Asked {
    Asked {
        name: "x".into(),
        source: "y".repeat(bytes),
        source_name: String::new(),
        files: BTreeMap::new(),
        parameters: BTreeMap::new(),
        environment: "prod".into(),
        intent: "i".into(),
        subject: Subject::Intent { max_hosts: 1 },
        hosts: BTreeMap::new(),
        steps: vec![],
        count: 1,
        rules: vec![],
        expires_ns: 60_000_000_000,
    }
}

#[tokio::test]
async fn whoever_asks_has_so_many_open_and_is_told_what_helps() {
    let (approvals, clock) = rig().await;
    let mut first = String::new();
    for _ in 0..MOST_OF_ONE {
        first = approvals.ask(asked(1), "anna").await.unwrap().0;
    }
    let refused = approvals.ask(asked(1), "anna").await.unwrap_err();
    assert!(matches!(refused, ApprovalError::TooManyOfOne), "{refused}");
    assert!(refused.to_string().contains("fracas approval withdraw"), "{refused}");
    approvals.ask(asked(1), "bert").await.unwrap();
    approvals.withdraw(&first, "anna").await.unwrap();
    approvals.ask(asked(1), "anna").await.unwrap();
    assert!(approvals.ask(asked(1), "anna").await.is_err());
    clock.advance(Dur::from_secs(60));
    approvals.ask(Asked { expires_ns: i64::MAX, ..asked(1) }, "anna").await.unwrap();
}

#[tokio::test]
async fn documents_take_so_much_memory_and_what_is_over_makes_room() {
    let (approvals, clock) = rig().await;
    let (each, mut ids) = (BYTES / 8, Vec::new());
    for number in 0..8 {
        clock.advance(Dur::from_secs(1));
        ids.push(approvals.ask(asked(each - 1), &format!("p-{number}")).await.unwrap().0);
    }
    let refused = approvals.ask(asked(each), "p-9").await.unwrap_err();
    assert!(refused.to_string().contains("fracas approval list"), "{refused}");
    // Shared, not copied.
    let (one, other) = (approvals.find(&ids[0]).unwrap().1, approvals.find(&ids[0][..6]).unwrap().1);
    assert!(Arc::ptr_eq(one.asked.as_ref().unwrap(), other.asked.as_ref().unwrap()));
    for id in &ids[..2] {
        approvals.reject(id, "no", "carl").await.unwrap();
    }
    let fresh = approvals.ask(asked(each), "p-9").await.unwrap().0;
    assert!(matches!(approvals.find(&ids[0]), Err(ApprovalError::Unknown(_))), "the oldest that was over is let go");
    assert!(approvals.find(&ids[2]).is_ok() && approvals.find(&fresh).is_ok());
    // The next controller keeps no more either.
    let again = Approvals::new(approvals.history.clone());
    again.resume().await.unwrap();
    let kept: usize =
        again.all().iter().map(|(_, request)| request.asked.as_ref().map_or(0, |asked| asked.size())).sum();
    assert!(kept <= BYTES && again.find(&fresh).is_ok() && again.find(&ids[7]).is_ok());
}

#[tokio::test]
async fn an_id_or_its_only_start_is_found() {
    let (approvals, _) = rig().await;
    let mut request = Request::default();
    request.apply(&Fact::Asked { asked: Box::new(asked(1)), by: "anna".into() }, 0);
    for id in ["a-1", "a-12", "a-2"] {
        approvals.lock().insert(id.into(), (1, request.clone()));
    }
    let found = |id: &str| approvals.find(id).map(|(id, _)| id).map_err(|error| error.to_string());
    assert_eq!(found("a-1").as_deref(), Ok("a-1"));
    assert_eq!(found("a-2").as_deref(), Ok("a-2"));
    assert!(found("a-").unwrap_err().contains("several") && found("").unwrap_err().contains("several"));
    assert!(found("a-3").unwrap_err().contains("no approval"));
    approvals.lock().retain(|id, _| id == "a-12");
    assert_eq!(found("a-1").as_deref(), Ok("a-12"));
    assert!(found("").is_err(), "nobody means the only one by nothing");
}
