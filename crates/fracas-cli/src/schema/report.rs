//! JSON Schema of a report as data. It pins what other programs may rely on; they ignore keys that they do not know.

use fracas_model::{report, schema::DIALECT};
use serde_json::{Value, json};

use super::{
    judgement,
    trend::{interval, length, maybe_interval, maybe_length},
    verdict_word,
};

fn integer() -> Value {
    json!({"type": "integer"})
}

fn count() -> Value {
    json!({"type": "integer", "minimum": 0})
}

fn offset() -> Value {
    json!({"type": ["integer", "null"], "description": "nanoseconds from the origin; null: it did not happen"})
}

fn texts() -> Value {
    json!({"type": "array", "items": {"type": "string"}})
}

fn verdict() -> Value {
    json!({
        "type": "object",
        "required": ["word", "exitCode", "reasons"],
        "properties": {
            "word": verdict_word(),
            "exitCode": {"type": "integer", "minimum": 0, "maximum": 7},
            "reasons": texts()
        }
    })
}

fn service() -> Value {
    json!({
        "type": "object",
        "required": [
            "service", "rto", "rtoFrom", "judgement", "outage", "span", "outages", "recoveryFromFault", "residual",
            "recoveredBeforeRevert", "downtime", "blips", "downEdges", "upEdges", "preExisting", "events"
        ],
        "properties": {
            "service": {"type": "string"},
            "rto": maybe_length(),
            "rtoFrom": {"enum": ["impact", "fault"]},
            "rpo": length(),
            "mtpd": length(),
            "proveEvery": length(),
            "judgement": judgement(),
            "outage": maybe_interval(),
            "span": maybe_interval(),
            "outages": count(),
            "recoveryFromFault": maybe_interval(),
            "residual": maybe_interval(),
            "recoveredBeforeRevert": {"type": ["boolean", "null"]},
            "downtime": maybe_interval(),
            "blips": count(),
            "downEdges": count(),
            "upEdges": count(),
            "preExisting": count(),
            "together": {"type": "object", "description": "how much of it was out, over several vantages"},
            "failing": {
                "type": "object",
                "required": ["looks", "failed"],
                "properties": {"looks": count(), "failed": count()},
                "description": "looks from its first failure after the first fault to its last, and how many failed"
            },
            "degraded": {"type": "object", "description": "for how long it was up, but slow"},
            "recoveryPoint": {
                "type": "object",
                "required": ["achieved", "lost", "acknowledged", "judgement"],
                "properties": {
                    "achieved": maybe_interval(), "lost": count(), "acknowledged": count(), "judgement": judgement()
                },
                "description": "how much time of acknowledged writes was lost"
            },
            "events": {"type": "array", "items": count()}
        }
    })
}

fn ledger() -> Value {
    json!({
        "type": "object",
        "required": ["ledger", "service", "kind", "host", "place", "every", "timeout", "account", "lostAt", "notMeasured",
            "left"],
        "properties": {
            "ledger": {"type": "string"},
            "service": {"type": "string"},
            "kind": {"type": "string"},
            "host": {"type": "string"},
            "place": {"type": "string", "description": "a table, a key"},
            "every": length(),
            "timeout": length(),
            "account": {
                "type": ["object", "null"],
                "required": ["written", "acknowledged", "failed", "unknown", "lost", "resurrected", "duplicated",
                    "unknownFound", "unlogged", "spans", "achieved"],
                "properties": {
                    "written": count(), "acknowledged": count(), "failed": count(), "unknown": count(), "lost": count(),
                    "resurrected": count(), "duplicated": count(), "unknownFound": count(), "unlogged": count(), "untold": count(),
                    "spans": {"type": "array", "items": {"type": "object", "required": ["life", "first", "last", "count",
                        "from", "to", "data"]}},
                    "achieved": maybe_interval()
                }
            },
            "lostAt": {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
            "notMeasured": {"type": ["string", "null"]},
            "left": {"type": ["string", "null"], "description": "why its place was left behind, or may have been"},
            "interrupted": texts()
        }
    })
}

fn item() -> Value {
    json!({
        "type": "object",
        "required": ["host", "occurrence", "generation", "summary", "moments", "oneShot", "effectiveNs", "undoneNs",
            "cause", "undoTook", "proof", "measured", "superseded", "trouble", "unconfirmed"],
        "properties": {
            "host": {"type": "string"},
            "occurrence": count(),
            "generation": count(),
            "summary": {"type": "string"},
            "moments": {"type": "array", "items": {"type": "object", "required": ["step", "atNs", "seq"]}},
            "oneShot": {"type": "boolean"},
            "effectiveNs": offset(),
            "undoneNs": offset(),
            "undoTook": maybe_length(),
            "measured": {"type": "array", "items": {"type": "object"}},
            "superseded": texts(),
            "trouble": texts(),
            "unconfirmed": {"type": "boolean"}
        }
    })
}

fn entry() -> Value {
    json!({
        "type": "object",
        "required": ["entry", "action", "params", "target", "duration", "required", "startedNs", "endedNs", "skipped",
            "items"],
        "properties": {
            "entry": {"type": "string"},
            "action": {"type": "string", "description": "name of the fault, or wait, check, approval, recovery"},
            "params": {"type": "string"},
            "target": {"type": ["string", "null"]},
            "duration": maybe_length(),
            "required": {"type": "boolean"},
            "startedNs": offset(),
            "endedNs": offset(),
            "skipped": {"type": ["string", "null"]},
            "items": {"type": "array", "items": item()}
        }
    })
}

fn probe() -> Value {
    let episode = json!({
        "type": "object",
        "required": ["preExisting", "startHiNs", "endLoNs", "outage", "judgement", "events"],
        "properties": {
            "startLoNs": offset(),
            "startHiNs": integer(),
            "endLoNs": integer(),
            "endHiNs": offset(),
            "outage": interval(),
            "judgement": judgement()
        }
    });
    let segment = json!({
        "type": "object",
        "required": ["fromNs", "toNs", "state"],
        "properties": {
            "fromNs": integer(),
            "toNs": integer(),
            "state": {"enum": ["up", "down", "changing", "gap"]}
        }
    });
    json!({
        "type": "object",
        "required": ["probe", "service", "kind", "host", "every", "timeout", "looks", "failed", "missed", "refused",
            "episodes", "strip", "baseline", "underFault"],
        "properties": {
            "probe": {"type": "string"},
            "service": {"type": ["string", "null"]},
            "kind": {"type": "string"},
            "host": {"type": "string"},
            "every": length(),
            "everyAtRest": length(),
            "rested": length(),
            "timeout": length(),
            "looks": count(),
            "failed": count(),
            "missed": count(),
            "refused": {"type": ["string", "null"]},
            "episodes": {"type": "array", "items": episode},
            "strip": {"type": "array", "items": segment}
        }
    })
}

/// Schema of what `report --format json` prints.
pub(crate) fn report() -> Value {
    let times = json!({
        "type": "object",
        "description": "wall times are nanoseconds since the Unix epoch, all others count from the origin",
        "required": ["plannedWallNs", "originWallNs", "gatePassed", "endedWallNs", "firstNs", "lastNs", "finished"],
        "properties": {
            "plannedWallNs": integer(),
            "originWallNs": integer(),
            "gatePassed": {"type": "boolean"},
            "endedWallNs": integer(),
            "firstNs": integer(),
            "lastNs": integer(),
            "finished": {"type": "boolean"}
        }
    });
    let event = json!({
        "type": "object",
        "required": ["seq", "wallNs", "atNs", "kind", "text", "host", "routine"],
        "properties": {
            "seq": count(),
            "wallNs": integer(),
            "atNs": integer(),
            "kind": {"type": "string"},
            "text": {"type": "string"},
            "host": {"type": ["string", "null"]},
            "routine": {"type": "boolean"}
        }
    });
    json!({
        "$schema": DIALECT,
        "title": report::SCHEMA,
        "type": "object",
        "required": [
            "schema", "model", "run", "name", "description", "experiment", "sourceName", "by", "environment", "times",
            "seed", "intent", "plan", "targets", "hosts", "verdict", "services", "entries", "probes", "events", "warnings",
            "clocks", "stableFor", "headSeq"
        ],
        "properties": {
            "schema": {"const": report::SCHEMA},
            "model": {"type": "string"},
            "run": {"type": "string"},
            "name": {"type": "string"},
            "description": {"type": "string"},
            "experiment": {"type": ["object", "null"], "description": "the canonical document"},
            "sourceName": {"type": "string"},
            "by": {"type": "string", "description": "a pseudonym"},
            "environment": {"type": "string"},
            "times": times,
            "seed": count(),
            "intent": {"type": "string"},
            "plan": {"type": "string"},
            "targets": {"type": "object", "additionalProperties": texts()},
            "hosts": {"type": "object", "additionalProperties": {"type": "string"}},
            "verdict": verdict(),
            "sections": {"type": "array", "items": {"type": "object", "required": ["id", "name", "verdict"]}},
            "services": {"type": "array", "items": service()},
            "timings": {
                "type": "array",
                "description": "instants t0 to t13 and the times between them, of each service",
                "items": {"type": "object"}
            },
            "entries": {"type": "array", "items": entry()},
            "probes": {"type": "array", "items": probe()},
            "ledgers": {"type": "array", "items": ledger()},
            "alerts": {"type": "array", "items": alert()},
            "events": {"type": "array", "items": event},
            "warnings": texts(),
            "clocks": {"type": "array", "items": {"type": "object", "required": ["host", "mapWidth", "maps", "wallBound"]}},
            "stableFor": maybe_length(),
            "headSeq": count()
        }
    })
}

/// What an alerting tool told.
fn alert() -> Value {
    json!({
        "type": "object",
        "required": [
            "source", "name", "labels", "summary", "detections", "standing", "firedNs", "cameNs", "resolvedNs", "events"
        ],
        "properties": {
            "source": {"type": "string"},
            "name": {"type": "string"},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "summary": {"type": "string"},
            "detections": texts(),
            "standing": {"enum": ["detects", "preExisting", "undated", "unexplained"]},
            "firedNs": {"type": "integer", "description": "by the clock of its source"},
            "cameNs": {"type": "integer"},
            "resolvedNs": {"type": ["integer", "null"], "description": "by the clock of its source"},
            "events": {"type": "array", "items": count()}
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fracas_model::report::build;

    use super::*;
    use crate::{fixture, render};

    #[test]
    fn what_is_printed_meets_the_published_schema() {
        let schema = jsonschema::validator_for(&report()).unwrap();
        for events in [fixture::history(), fixture::history()[..12].to_vec()] {
            let printed = render::json(&build(&events, &BTreeMap::new()));
            let value: Value = serde_json::from_str(&printed).unwrap();
            let wrong: Vec<String> =
                schema.iter_errors(&value).map(|e| format!("{}: {e}", e.instance_path())).collect();
            assert!(wrong.is_empty(), "{wrong:?}");
            for key in value.as_object().unwrap().keys() {
                assert!(report()["properties"].get(key).is_some(), "{key} is not published");
            }
            let mut lacking = value.clone();
            lacking.as_object_mut().unwrap().remove("verdict");
            assert!(!schema.is_valid(&lacking));
        }
    }
}
