//! Which two entries of a document certainly get into each other's way. Doubtful pairs are left to the rehearsal on hosts.

use ipnet::IpNet;
use serde_json::{Map, Value};

use crate::{
    catalogue::{FaultInfo, Nature},
    diagnostic::Findings,
    shape::Shape,
    tree::Node,
    units::Dur,
};

use super::meaning::{Entry, duration};

/// Notes each pair that puts the same fault on the same packets or processes of the same target at the same time.
pub(super) fn review(entries: &[Entry<'_>], findings: &mut Findings<'_>) {
    for (i, later) in entries.iter().enumerate() {
        let Some(earlier) = entries[..i].iter().find(|earlier| certain(earlier, later)) else { continue };
        let (Some(name), Some((fault, node))) = (earlier.id, later.fault) else { continue };
        let message =
            format!("{} would be on the same hosts at the same time as in `{name}`, for the same things", fault.name);
        let help =
            format!("let it begin when the other is over, with `after: {{ ended: {name} }}`, or make them differ");
        findings.error(node.span, message, help);
    }
}

/// Offset and end of an entry that starts at a fixed time. A spent fault is over at once.
fn window(entry: &Entry<'_>) -> Option<(Dur, Dur)> {
    let at = duration(entry.value?.get("at"))?;
    let (fault, _) = entry.fault?;
    let length = if fault.nature == Nature::Lasting { duration(entry.value?.get("for"))? } else { Dur::from_ns(1) };
    Some((at, at + length))
}

fn certain(a: &Entry<'_>, b: &Entry<'_>) -> bool {
    let (Some((from_a, to_a)), Some((from_b, to_b))) = (window(a), window(b)) else { return false };
    let (Some((fault, _)), Some((other, _))) = (a.fault, b.fault) else { return false };
    let targets = (a.node.get("target").and_then(Node::text), b.node.get("target").and_then(Node::text));
    fault.name == other.name
        && matches!(targets, (Some(t), Some(u)) if t == u)
        && from_a < to_b
        && from_b < to_a
        && same_things(fault, params(a, fault), params(b, fault))
}

fn params<'v>(entry: &Entry<'v>, fault: &FaultInfo) -> Option<&'v Map<String, Value>> {
    entry.value?.get("fault")?.get(&fault.name)?.as_object()
}

/// Whether the parameters surely mean common packets or processes. How strong the fault is makes no difference;
/// where a parameter of unknown meaning differs, they may mean different things.
fn same_things(fault: &FaultInfo, a: Option<&Map<String, Value>>, b: Option<&Map<String, Value>>) -> bool {
    let (Some(a), Some(b)) = (a, b) else { return false };
    fault.params.iter().all(|field| {
        let (one, two) = (a.get(&field.name), b.get(&field.name));
        match leaf(&field.shape) {
            Shape::Duration { .. } | Shape::Percent { .. } | Shape::Size { .. } => true,
            Shape::Cidr => meet(one, two, |x: &IpNet, y| x.contains(y) || y.contains(x), |t| t.parse().ok()),
            Shape::Ports => meet(one, two, |x: &(u16, u16), y| x.0 <= y.1 && y.0 <= x.1, port_range),
            _ => one == two,
        }
    })
}

/// What stands in lists and alternatives.
fn leaf(shape: &Shape) -> &Shape {
    match shape {
        Shape::List { of, .. } => leaf(of),
        Shape::Either(shapes) => shapes.first().map_or(shape, leaf),
        other => other,
    }
}

/// Whether two lists have something in common; an absent list means anything.
fn meet<T>(
    a: Option<&Value>,
    b: Option<&Value>,
    common: impl Fn(&T, &T) -> bool,
    read: impl Fn(&str) -> Option<T>,
) -> bool {
    let all = |value: Option<&Value>| -> Vec<T> {
        match value {
            Some(Value::Array(items)) => items.iter().filter_map(|i| read(i.as_str()?)).collect(),
            Some(Value::String(one)) => read(one).into_iter().collect(),
            _ => Vec::new(),
        }
    };
    let (a, b) = (all(a), all(b));
    a.is_empty() || b.is_empty() || a.iter().any(|x| b.iter().any(|y| common(x, y)))
}

fn port_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some((first.parse().ok()?, last.parse().ok()?))
}
