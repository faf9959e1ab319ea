//! From the form people write to the form of the typed experiment: probes and entries lose their sugar.

use serde_json::{Map, Value, json};

use crate::catalogue::Catalogue;

/// Finishes the canonical form: shares of hosts get their sign, a probe's `timeout` is its `every` unless it says else.
pub(crate) fn fill(document: &mut Value) {
    if let Some(share) = document.pointer_mut("/limits/maxPercent") {
        sign(share);
    }
    for target in document.get_mut("targets").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
        if let Some(share) = target.pointer_mut("/pick/percent") {
            sign(share);
        }
    }
    for entry in document.get_mut("timeline").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(share) = entry.pointer_mut("/rollout/canary/percent") {
            sign(share);
        }
    }
    let Some(probes) = document.get_mut("probes").and_then(Value::as_object_mut) else { return };
    for probe in probes.values_mut().filter_map(Value::as_object_mut) {
        if let (false, Some(every)) = (probe.contains_key("timeout"), probe.get("every").cloned()) {
            probe.insert("timeout".into(), every);
        }
    }
}

fn sign(share: &mut Value) {
    if let Some(number) = share.as_i64() {
        *share = format!("{number}%").into();
    }
}

/// The JSON of the typed experiment for a document without mistakes.
pub(crate) fn lower(document: &Value, catalogue: &Catalogue) -> Value {
    let mut typed = document.clone();
    if let Some(probes) = typed.get_mut("probes").and_then(Value::as_object_mut) {
        for probe in probes.values_mut() {
            *probe = lower_kind(probe, |key| catalogue.probe(key).is_some());
        }
    }
    if let Some(ledgers) = typed.get_mut("ledgers").and_then(Value::as_object_mut) {
        for ledger in ledgers.values_mut() {
            *ledger = lower_kind(ledger, |key| catalogue.ledger(key).is_some());
        }
    }
    if let Some(entries) = typed.get_mut("timeline").and_then(Value::as_array_mut) {
        for entry in entries {
            *entry = lower_entry(entry);
        }
    }
    typed
}

/// The key that names a kind becomes `kind`, and what stands there `params`.
fn lower_kind(one: &Value, is_kind: impl Fn(&str) -> bool) -> Value {
    let mut typed = Map::new();
    for (key, value) in one.as_object().into_iter().flatten() {
        if is_kind(key) {
            typed.insert("kind".into(), key.as_str().into());
            typed.insert("params".into(), value.clone());
        } else {
            typed.insert(key.clone(), value.clone());
        }
    }
    Value::Object(typed)
}

fn lower_entry(entry: &Value) -> Value {
    let trigger = if let Some(at) = entry.get("at") {
        json!({ "at": at })
    } else {
        let mut what = entry.get("after").cloned().unwrap_or_default();
        let delay = what.as_object_mut().and_then(|event| event.remove("delay"));
        json!({ "after": { "what": what, "delay": delay } })
    };
    let action = match entry.get("fault").and_then(Value::as_object).and_then(|f| f.iter().next()) {
        Some((fault, params)) => json!({ "fault": {
            "fault": fault, "params": params, "target": entry.get("target"), "duration": entry.get("for"),
            "rollout": entry.get("rollout"),
        }}),
        None => match ["check", "approval"].iter().find_map(|kind| Some((*kind, entry.get(*kind)?))) {
            Some((kind, said)) => json!({ kind: said }),
            None => json!({ "wait": { "duration": entry.get("wait") } }),
        },
    };
    json!({
        "id": entry.get("id"),
        "trigger": trigger,
        "action": action,
        "required": entry.get("required"),
        "onInterrupt": entry.get("onInterrupt"),
    })
}
