//! What a schedule does after something broke between a start and its record.

use fracas_model::time::{ClockId, Stamp};

use super::*;
use crate::{clock::ManualClock, fleet::Fleet, history::Extra, store::memory::MemoryStore};

const DOCUMENT: &str = "
apiVersion: fracas/v1
kind: Schedule
name: often
experiment: page.yaml
when: { every: { period: 1m, from: 2026-01-01T00:00 } }
";

fn schedules(history: &History) -> Schedules {
    let fleet = Fleet::new(history.epoch());
    Schedules::new(history.clone(), Runs::new(history.clone(), fleet, "audit/c".to_owned(), 1))
}

#[tokio::test]
async fn a_run_that_was_started_and_not_recorded_is_found_by_its_due() {
    let stamp = Stamp {
        clock: ClockId { host: "c".into(), boot: "b".into() },
        boot_ns: 1,
        wall_ns: 1_795_000_000_500_000_000,
        bound_ns: 0,
    };
    let clock = Arc::new(ManualClock::new(stamp.clone()));
    let history = History::open(Arc::new(MemoryStore::default()), clock).await.unwrap();
    let schedule = schedule::read_schedule("s.yaml", DOCUMENT).unwrap().schedule;
    let set = Fact::Set {
        schedule: Box::new(schedule),
        source: DOCUMENT.into(),
        experiment: String::new(),
        calendars: BTreeMap::new(),
        files: BTreeMap::new(),
        environment: "default".into(),
        by: "p".into(),
    };
    let set = Body::Schedule { fact: set, at: stamp.clone() };
    history.append(&stream_of("often"), vec![set]).await.unwrap();
    let schedules = schedules(&history);
    let mut life = Life { unsure: true, ..Life::default() };
    schedules.read("often", &mut life).await.unwrap();
    let clockwork = life.clockwork.clone().unwrap();
    let due = clockwork.next(life.state.settled_ns).unwrap();
    // Nothing was begun: nothing is said.
    schedules.recover("often", &mut life, &clockwork).await.unwrap();
    assert_eq!((life.seq, life.state.runs.len(), life.unsure), (1, 0, false));
    // A run with the due's key is in the history, and the record of it was lost.
    let run = RunId::from("r1");
    let asked = Body::StopRequested { by: "p".into(), reason: "any fact".into(), at: stamp };
    let extra = Extra { idempotency: Some((life.key("often", due), run.clone())), ..Extra::default() };
    history.append_with("run/r1", vec![asked], extra).await.unwrap();
    life.unsure = true;
    schedules.recover("often", &mut life, &clockwork).await.unwrap();
    assert_eq!(life.state.last, Some(Fact::Started { due, run: run.clone() }));
    assert_eq!((life.state.settled_ns, life.state.runs.contains(&run)), (due.nominal_ns, true));
    // Once is enough.
    life.unsure = true;
    schedules.recover("often", &mut life, &clockwork).await.unwrap();
    assert_eq!(life.seq, 2);
    // Whoever set it is known also when it was removed, or set again by somebody else.
    assert!(schedules.was_set_by("often", "p").await.unwrap() && !schedules.was_set_by("often", "q").await.unwrap());
}
