//! `fracas services`: objectives, when they were last proven, and what is overdue. How each stands is the model's to say.

use fracas_model::{
    id::RunId,
    trend::{Standing, State, standings},
    units::Dur,
};
use serde_json::json;

use crate::{
    Session,
    args::ServicesArgs,
    client::ResultsQuery,
    error::CliError,
    exit,
    schema::SERVICES,
    table::table,
    times::{self, Zone},
};

/// The newest runs that are looked at.
const RUNS: u32 = 1000;

pub(crate) async fn services(session: &Session<'_>, given: &ServicesArgs) -> Result<u8, CliError> {
    let query = ResultsQuery { environment: given.environment.clone(), limit: RUNS, ..ResultsQuery::default() };
    let found = session.client()?.results(query).await?;
    let standings = standings(found.points, times::now());
    if found.more {
        session.output.notice("only the newest runs were looked at: what was proven before them is not shown");
    }
    if !found.unread.is_empty() {
        let runs: Vec<&str> = found.unread.iter().map(RunId::as_str).collect();
        session.output.notice(&format!("no report that can be read, left out: {}", runs.join(", ")));
    }
    if standings.is_empty() {
        session.output.notice("no finished run here looked at a service yet; objectives stand in documents");
    }
    if session.output.json {
        session.output.json(SERVICES, &json!({ "services": standings }))?;
    } else if !standings.is_empty() {
        let rows: Vec<Vec<String>> = standings.iter().map(|one| row(one, session.output.zone)).collect();
        let heading = ["service", "state", "rto", "achieved", "rpo", "lost", "last proof", "days", "why"];
        session.output.text(&table(session.width(), &heading, &rows))?;
    }
    Ok(if given.fail_on.is_some() { code(&standings, &found.unread) } else { exit::PASS })
}

/// Anything but proven fails; a service without an objective has nothing to prove. Where no run looked at any service, or one
/// that did cannot be read, nobody knows.
fn code(standings: &[Standing], unread: &[RunId]) -> u8 {
    let unproven = standings.iter().any(|one| !matches!(one.state, State::Proven | State::NoObjective));
    match unproven {
        true => exit::FAIL,
        false if standings.is_empty() || !unread.is_empty() => exit::INCONCLUSIVE,
        false => exit::PASS,
    }
}

fn row(one: &Standing, zone: Zone) -> Vec<String> {
    let length = |length: Option<Dur>| length.map_or_else(|| "-".to_owned(), |length| length.to_string());
    let proof = one.last_proof.as_ref();
    vec![
        one.service.to_string(),
        one.state.word().to_owned(),
        length(one.rto),
        proof.and_then(|proof| proof.achieved).map_or_else(|| "-".to_owned(), |achieved| achieved.to_string()),
        length(one.rpo),
        proof.and_then(|proof| proof.data).map_or_else(|| "-".to_owned(), |data| data.to_string()),
        proof.map_or_else(|| "never".to_owned(), |proof| times::local_second(proof.wall_ns, zone)),
        one.days_since.map_or_else(|| "-".to_owned(), |days| days.to_string()),
        one.why.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{output::tagged, render::trend_fixture, schema};

    #[test]
    fn where_nothing_is_known_nothing_is_proven() {
        assert_eq!(code(&[], &[]), exit::INCONCLUSIVE);
    }

    #[test]
    fn data_meets_its_published_schema_and_the_code_tells_what_is_overdue() {
        let schema = jsonschema::validator_for(&schema::services()).unwrap();
        let mut points = trend_fixture(3, 3000);
        for point in &mut points {
            point.prove_every = Some(Dur::from_secs(86_400));
        }
        let last = points[0].ended_wall_ns.max(points[2].ended_wall_ns);
        for (now, expected) in [(last + 1, exit::PASS), (last + 2 * 86_400_000_000_000, exit::FAIL)] {
            let standings = standings(points.clone(), now);
            assert_eq!(code(&standings, &[]), expected);
            let unread = if expected == exit::PASS { exit::INCONCLUSIVE } else { expected };
            assert_eq!(code(&standings, &["r9".into()]), unread);
            let value = tagged(SERVICES, &json!({ "services": standings }));
            let wrong: Vec<String> = schema.iter_errors(&value).map(|e| e.to_string()).collect();
            assert!(wrong.is_empty(), "{wrong:?}");
            assert_eq!(row(&standings[0], Zone::East(0))[2..4], ["5s", "3.00 s to 3.10 s"]);
        }
    }
}
