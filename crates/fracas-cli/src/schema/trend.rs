//! JSON Schemas of what is said of many runs: trends, series, services. What a field means stands beside it in the model.

use fracas_model::{schema::DIALECT, trend};
use serde_json::{Value, json};

use super::{SERIES, SERVICES, judgement, verdict_word};

/// A length of time in text, such as `30s` or `1m30s`.
pub(super) fn length() -> Value {
    json!({"type": "string", "description": "a length of time: 250ms, 1m30s"})
}

/// The same where there may be none.
pub(super) fn maybe_length() -> Value {
    json!({"type": ["string", "null"], "description": "a length of time: 250ms, 1m30s; null: none"})
}

/// A length within bounds.
pub(super) fn interval() -> Value {
    json!({
        "type": "object",
        "description": "the truth lies between; without `hi` the end was not seen",
        "required": ["lo", "hi"],
        "properties": {"lo": length(), "hi": maybe_length()}
    })
}

/// The same where there may be none.
pub(super) fn maybe_interval() -> Value {
    json!({"oneOf": [{"type": "null"}, interval()]})
}

fn point() -> Value {
    json!({
        "type": "object",
        "required": [
            "run", "experiment", "service", "environment", "startedWallNs", "endedWallNs", "seed", "intent", "faults",
            "verdict", "judgement", "rto", "rtoFrom", "length", "outage", "recoveryFromFault", "residual"
        ],
        "properties": {
            "run": {"type": "string"},
            "experiment": {"type": "string"},
            "service": {"type": "string"},
            "environment": {"type": "string"},
            "startedWallNs": {"type": "integer"},
            "endedWallNs": {"type": "integer"},
            "seed": {"type": "integer", "minimum": 0},
            "intent": {"type": "string", "description": "only runs of one intent are alike"},
            "faults": {"type": "array", "items": {"type": "string"}},
            "verdict": verdict_word(),
            "judgement": judgement(),
            "rto": maybe_length(),
            "rtoFrom": {"enum": ["impact", "fault"]},
            "rpo": length(),
            "mtpd": length(),
            "proveEvery": length(),
            "length": {
                "description": "the recovery, counted from where the objective is; null: no fault took effect",
                "oneOf": [{"type": "null"}, interval()]
            },
            "outage": maybe_interval(),
            "recoveryFromFault": maybe_interval(),
            "residual": maybe_interval(),
            "recoveryPoint": {"type": "object", "description": "how much of its data was lost, as in the report"}
        }
    })
}

fn percentile() -> Value {
    json!({
        "type": "object",
        "required": ["p", "needs", "ofRuns", "atLeast", "atMost"],
        "properties": {
            "p": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            "needs": {"type": "integer", "minimum": 1},
            "ofRuns": {
                "description": "bounds of the percentile of these runs; null: n is smaller than needs",
                "oneOf": [{"type": "null"}, interval()]
            },
            "atLeast": maybe_length(),
            "atMost": maybe_length()
        }
    })
}

fn change() -> Value {
    json!({
        "type": ["object", "null"],
        "required": ["word", "why", "p", "alpha", "later", "baseline"],
        "properties": {
            "word": {"enum": ["slower", "notSlower", "cannotTell"]},
            "why": {"type": "string"},
            "p": {"type": ["number", "null"], "minimum": 0, "maximum": 1.000_001},
            "alpha": {"type": "number"},
            "later": {"type": "array", "items": {"type": "string"}},
            "baseline": {"type": "array", "items": {"type": "string"}}
        }
    })
}

fn one_trend() -> Value {
    json!({
        "type": "object",
        "required": [
            "service", "experiments", "intents", "points", "n", "censored", "met", "missed", "allMetBound", "percentiles",
            "change"
        ],
        "properties": {
            "service": {"type": "string"},
            "experiments": {"type": "array", "items": {"type": "string"}},
            "intents": {"type": "array", "minItems": 1, "items": {"type": "string"}},
            "points": {"type": "array", "minItems": 1, "items": point(), "description": "oldest first"},
            "n": {"type": "integer", "minimum": 0},
            "censored": {"type": "integer", "minimum": 0},
            "met": {"type": "integer", "minimum": 0},
            "missed": {"type": "integer", "minimum": 0},
            "allMetBound": {"type": ["number", "null"]},
            "percentiles": {"type": "array", "items": percentile()},
            "change": change()
        }
    })
}

/// Schema of what `trend --output json` prints.
pub(crate) fn trend() -> Value {
    json!({
        "$schema": DIALECT,
        "title": trend::SCHEMA,
        "type": "object",
        "required": ["schema", "trends", "earlier"],
        "properties": {
            "schema": {"const": trend::SCHEMA},
            "trends": {"type": "array", "items": one_trend()},
            "earlier": {"type": "array", "items": one_trend(), "description": "those of earlier intents"}
        },
        "additionalProperties": false
    })
}

/// Schema of the last line of `run --repeat --output json`.
pub(crate) fn series() -> Value {
    let run = json!({
        "type": "object",
        "required": ["run", "seed", "verdict", "exitCode"],
        "properties": {
            "run": {"type": "string"},
            "seed": {"type": "integer", "minimum": 1},
            "verdict": {"type": "string"},
            "exitCode": {"type": "integer"}
        }
    });
    json!({
        "$schema": DIALECT,
        "title": SERIES,
        "type": "object",
        "required": ["schema", "asked", "exitCode", "runs", "trends", "earlier"],
        "properties": {
            "schema": {"const": SERIES},
            "asked": {"type": "integer", "minimum": 1},
            "exitCode": {"type": "integer"},
            "endedEarly": {"type": "string", "description": "why not all runs were started"},
            "runs": {"type": "array", "items": run},
            "trends": {"type": "array", "items": one_trend()},
            "earlier": {"type": "array", "maxItems": 0}
        },
        "additionalProperties": false
    })
}

/// Schema of what `services --output json` prints.
pub(crate) fn services() -> Value {
    let proven = json!({
        "type": ["object", "null"],
        "required": ["run", "wallNs", "achieved"],
        "properties": {"run": {"type": "string"}, "wallNs": {"type": "integer"}, "achieved": maybe_interval(),
            "data": interval()}
    });
    let service = json!({
        "type": "object",
        "required": [
            "service", "environment", "experiment", "state", "why", "rto", "rpo", "mtpd", "proveEvery", "lastProof",
            "daysSince", "dueWallNs", "lastRun", "lastRunWallNs", "lastJudgement"
        ],
        "properties": {
            "service": {"type": "string"},
            "environment": {"type": "string"},
            "experiment": {"type": "string"},
            "state": {"enum": ["missed", "neverProven", "overdue", "proven", "noObjective"]},
            "why": {"type": "string"},
            "rto": maybe_length(),
            "rpo": maybe_length(),
            "mtpd": maybe_length(),
            "proveEvery": maybe_length(),
            "lastProof": proven,
            "daysSince": {"type": ["integer", "null"], "minimum": 0},
            "dueWallNs": {"type": ["integer", "null"]},
            "lastRun": {"type": "string"},
            "lastRunWallNs": {"type": "integer"},
            "lastJudgement": judgement()
        }
    });
    json!({
        "$schema": DIALECT,
        "title": SERVICES,
        "type": "object",
        "required": ["schema", "services"],
        "properties": {
            "schema": {"const": SERVICES},
            "services": {"type": "array", "items": service, "description": "the worst first"}
        },
        "additionalProperties": false
    })
}
