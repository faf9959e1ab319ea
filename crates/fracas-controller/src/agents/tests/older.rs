//! An agent one version older, by what it really said: `tests/upgrade/said.bin` was recorded from it.

use fracas_model::event::Event;
use prost::Message as _;

use super::*;

const SAID: &[u8] = include_bytes!("../../../../../tests/upgrade/said.bin");

/// The messages, in order.
fn said() -> Vec<FromAgent> {
    let (mut all, mut rest) = (Vec::new(), SAID);
    while let Some((length, more)) = rest.split_first_chunk::<4>() {
        let (message, next) = more.split_at(u32::from_le_bytes(*length) as usize);
        all.extend(AgentMessage::decode(message).unwrap().message);
        rest = next;
    }
    all
}

fn facts() -> Vec<Reported> {
    let reports = said().into_iter().filter_map(|message| match message {
        FromAgent::Report(report) => Some(report.events),
        _ => None,
    });
    let mut facts: Vec<Reported> = reports
        .flatten()
        .map(|event| Reported {
            seq: event.seq,
            stream: event.stream,
            body: event.body,
            blob: (!event.blob.is_empty()).then_some(event.blob),
        })
        .collect();
    facts.sort_by_key(|fact| fact.seq);
    facts.dedup_by_key(|fact| fact.seq);
    facts
}

#[tokio::test]
async fn an_older_agent_is_welcomed_and_its_catalogue_is_known() {
    let Some(FromAgent::Hello(hello)) = said().into_iter().next() else { panic!("it began otherwise") };
    let rig = rig().await;
    let answers = session(&rig, vec![FromAgent::Hello(hello)], 2).await.unwrap();
    assert!(matches!(answers[0], ToAgent::Welcome(_)), "{answers:?}");
    assert_eq!(desired(&answers[1]).faults, []);
    let catalogue = rig.fleet.catalogue();
    assert!(!catalogue.faults.is_empty() && !catalogue.probes.is_empty(), "{catalogue:?}");
}

#[tokio::test]
async fn everything_an_older_agent_reports_is_taken() {
    let rig = rig().await;
    let facts = facts();
    let first: Body =
        serde_json::from_slice(&facts.iter().find(|f| f.stream.starts_with("run/")).unwrap().body).unwrap();
    let host = facts
        .iter()
        .find_map(|fact| serde_json::from_slice::<Body>(&fact.body).ok()?.item().map(|item| item.host.clone()))
        .unwrap_or_else(|| panic!("no item: {first:?}"));
    let streams: std::collections::BTreeSet<String> = facts.iter().map(|fact| fact.stream.clone()).collect();
    for stream in &streams {
        rig.history.append(stream, vec![Body::GateStarted { at: rig.history.now() }]).await.unwrap();
    }
    // The comparison of its clock with that of the controller it had is about another one here.
    let (clocks, facts): (Vec<Reported>, Vec<Reported>) =
        facts.into_iter().partition(|fact| matches!(serde_json::from_slice(&fact.body), Ok(Body::ClockSeen { .. })));
    assert!(!clocks.is_empty() && facts.len() > 20, "{} clocks, {} facts", clocks.len(), facts.len());
    let offered = facts.len();
    let ingested = rig.history.ingest(&host, "old", facts, &|_| true).await.unwrap();
    assert_eq!((ingested.taken, ingested.dropped), (offered, Vec::new()));
    let mut events: Vec<Event> = Vec::new();
    for stream in &streams {
        events.extend(rig.history.read(stream, 0).await.unwrap());
    }
    assert_eq!(events.len(), offered + streams.len());
}
