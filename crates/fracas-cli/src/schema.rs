//! JSON Schemas of what `--output json` prints: of runs, reports, trends and services. Documents' schema is the model's.

mod report;
mod trend;

use fracas_model::schema::DIALECT;
use serde_json::{Value, json};

pub(crate) use self::{
    report::report,
    trend::{series, services, trend},
};

/// One event of a history.
pub(crate) const EVENT: &str = "fracas.event/v1";
/// The last line of `run` and `watch`.
pub(crate) const RESULT: &str = "fracas.result/v1";
/// The last line of `run --repeat`.
pub(crate) const SERIES: &str = "fracas.series/v1";
/// How services stand.
pub(crate) const SERVICES: &str = "fracas.services/v1";
/// Something about the connection or the command, on standard error.
pub(crate) const NOTICE: &str = "fracas.notice/v1";

/// Schema of a line with `schema: fracas.event/v1`. Bodies are told apart by `kind`; readers ignore kinds they do not know.
pub(crate) fn event() -> Value {
    let stamp = json!({
        "type": "object",
        "description": "an instant: wallNs is nanoseconds since the Unix epoch, bootNs counts on the named clock",
        "required": ["clock", "bootNs", "wallNs", "boundNs"],
        "properties": {
            "clock": {"type": "object", "required": ["host", "boot"]},
            "bootNs": {"type": "integer"},
            "wallNs": {"type": "integer"},
            "boundNs": {"type": "integer", "description": "how far the wall clock may be off; -1: unsynchronised"}
        }
    });
    let origin = json!({
        "description": "the host's own numbering, when a host reported it",
        "type": ["object", "null"],
        "required": ["host", "outbox", "seq"]
    });
    json!({
        "$schema": DIALECT,
        "title": EVENT,
        "type": "object",
        "required": ["schema", "stream", "seq", "received", "body"],
        "properties": {
            "schema": {"const": EVENT},
            "stream": {"type": "string", "pattern": "^run/"},
            "seq": {"type": "integer", "minimum": 1, "description": "without gaps; `watch --after SEQ` resumes here"},
            "received": stamp,
            "origin": origin,
            "body": {
                "type": "object",
                "required": ["kind"],
                "properties": {"kind": {"type": "string"}}
            }
        }
    })
}

/// The verdict as data holds it.
fn verdict_word() -> Value {
    json!({"enum": ["pass", "fail", "inconclusive", "aborted", "error", "undoUnconfirmed", "refused"]})
}

/// How a service stood against its objective.
fn judgement() -> Value {
    json!({
        "type": "object",
        "required": ["word"],
        "properties": {
            "word": {"enum": ["met", "missed", "inconclusive", "notMeasured", "noObjective"]},
            "why": {"type": "string"},
            "settledByPeriod": {"type": ["string", "null"], "description": "the probe period that would settle it"}
        }
    })
}

/// Schema of the last line.
pub(crate) fn result() -> Value {
    json!({
        "$schema": DIALECT,
        "title": RESULT,
        "type": "object",
        "required": ["schema", "run", "name", "verdict", "exitCode", "reasons"],
        "properties": {
            "schema": {"const": RESULT},
            "run": {"type": "string"},
            "name": {"type": "string"},
            "verdict": {
                "enum": ["pass", "fail", "inconclusive", "aborted", "error", "undo-unconfirmed", "refused"]
            },
            "exitCode": {"type": "integer", "minimum": 0, "maximum": 7},
            "reasons": {"type": "array", "items": {"type": "string"}},
            "report": {"type": "string", "description": "file the report was written to, if asked for"}
        },
        "additionalProperties": false
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixture, output::tagged};

    #[test]
    fn every_event_line_meets_the_published_schema() {
        let schema = jsonschema::validator_for(&event()).unwrap();
        for event in fixture::history() {
            let line = tagged(EVENT, &event);
            assert!(schema.is_valid(&line), "{line}");
        }
        assert!(!schema.is_valid(&json!({"schema": EVENT})));
    }

    #[test]
    fn event_lines_do_not_change_by_accident() {
        let line = tagged(EVENT, &fixture::history()[4]).to_string();
        assert_eq!(
            line,
            "{\"body\":{\"at\":{\"bootNs\":10000000000,\"boundNs\":0,\"clock\":{\"boot\":\"b\",\"host\":\"c\"},\
             \"wallNs\":1795488310000000000},\"entry\":\"kill\",\"generation\":1,\"kind\":\"entryStarted\",\"occurrence\":0},\
             \"origin\":null,\"received\":{\"bootNs\":0,\"boundNs\":0,\"clock\":{\"boot\":\"b\",\"host\":\"c\"},\
             \"wallNs\":1795488300000000000},\"schema\":\"fracas.event/v1\",\"seq\":5,\"stream\":\"run/r1\"}"
        );
    }
}
