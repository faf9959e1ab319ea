//! Walks a tree along a shape, notes every mistake, and yields canonical JSON. It knows forms, not what documents mean.

mod scalar;

use serde_json::{Map, Value};

use crate::{
    diagnostic::{Diagnostic, Findings, Span, any_of, nearest},
    shape::{Field, Group, Shape},
    tree::{Kind, Meaning, Node, Pair, Scalar},
};

pub(crate) use scalar::is_name;

/// Longest key of a [`Shape::Map`], in bytes.
const LONGEST_KEY: usize = 253;

/// The node in canonical form: defaults filled in, quantities as their shortest text, networks normalised.
///
/// Mistakes go to `findings`. With mistakes the value is what could be read all the same, for further checks only:
/// bad keys are absent, bad elements `null`, and `None` says that nothing could be read.
pub fn check(node: &Node, shape: &Shape, findings: &mut Findings<'_>) -> Option<Value> {
    Walk { findings }.value(node, shape, Place { name: "", span: node.span, element: false })
}

/// [`check`] for a value that comes from no document. The error is every mistake.
pub fn check_value(value: &Value, shape: &Shape) -> Result<Value, Vec<Diagnostic>> {
    let mut findings = Findings::new("value", "");
    let checked = check(&as_node(value), shape, &mut findings);
    findings.finish()?;
    checked.ok_or_else(Vec::new)
}

fn as_node(value: &Value) -> Node {
    let span = Span::default();
    let kind = match value {
        Value::Array(items) => Kind::List(items.iter().map(as_node).collect()),
        Value::Object(fields) => {
            Kind::Map(fields.iter().map(|(key, v)| Pair { key: key.clone(), span, value: as_node(v) }).collect())
        }
        Value::String(text) => Kind::Scalar(Scalar { text: text.clone(), plain: false }),
        other => Kind::Scalar(Scalar { text: other.to_string(), plain: true }),
    };
    Node { span, kind }
}

/// [`check`] for a value that has a name; mistakes of the whole value are shown at `span`.
pub(crate) fn check_named(
    node: &Node,
    shape: &Shape,
    name: &str,
    span: Span,
    findings: &mut Findings<'_>,
) -> Option<Value> {
    Walk { findings }.value(node, shape, Place { name, span, element: false })
}

/// A form in words, for messages: `a duration such as 30s`.
pub fn expected(shape: &Shape) -> String {
    match shape {
        Shape::Text { .. } => "text".into(),
        Shape::Name => "a name".into(),
        Shape::Bool => "true or false".into(),
        Shape::Integer { .. } => "a whole number".into(),
        Shape::Number => "a number".into(),
        Shape::Duration { .. } => "a duration such as 30s".into(),
        Shape::Percent { .. } => "a percentage such as 25%".into(),
        Shape::Size { .. } => "a size such as 512MiB".into(),
        Shape::Cidr => "a network such as 10.0.0.0/8".into(),
        Shape::Pattern => "a pattern such as ^ok".into(),
        Shape::Ports => "a port or a range of ports such as 8000-8100".into(),
        Shape::Path => "an absolute path".into(),
        Shape::Url => "an http or https URL".into(),
        Shape::Address => "an address such as db:5432".into(),
        Shape::Choice(words) => any_of(words),
        Shape::Selector => "a label selector such as role=db".into(),
        Shape::Scalar => "a single value".into(),
        Shape::List { .. } => "a list".into(),
        Shape::Map { .. } | Shape::Object(_) | Shape::OneOf(_) | Shape::Record { .. } => "a mapping".into(),
        Shape::Either(shapes) => shapes.iter().map(expected).collect::<Vec<_>>().join(" or "),
    }
}

/// What a node is called, and where mistakes of the whole node are shown.
#[derive(Clone, Copy)]
struct Place<'n> {
    name: &'n str,
    span: Span,
    /// It is an element of the list called `name`.
    element: bool,
}

impl Place<'_> {
    /// ` in `name``, or nothing at the top.
    fn within(self) -> String {
        if self.name.is_empty() { String::new() } else { format!(" in {}", self.subject()) }
    }

    /// The name, or what stands at the top.
    fn subject(self) -> String {
        match self {
            Self { name: "", .. } => "the document".into(),
            Self { name, element: true, .. } => format!("an element of `{name}`"),
            Self { name, .. } => format!("`{name}`"),
        }
    }
}

struct Walk<'w, 'a> {
    findings: &'w mut Findings<'a>,
}

impl Walk<'_, '_> {
    fn value(&mut self, node: &Node, shape: &Shape, place: Place<'_>) -> Option<Value> {
        match (shape, &node.kind) {
            (_, Kind::Hole) => None,
            (Shape::Either(shapes), _) => self.either(node, shapes, place),
            (Shape::List { of, min, max }, Kind::List(items)) => {
                if items.len() < *min || items.len() > *max {
                    let message =
                        format!("{} has {} elements, it must have {min} to {max}", place.subject(), items.len());
                    self.findings.error(place.span, message, "");
                }
                let mut read = |item: &Node| self.value(item, of, Place { span: item.span, element: true, ..place });
                // A bad element keeps its place, so that the index of the others still says where they stand.
                Some(Value::Array(items.iter().map(|item| read(item).unwrap_or(Value::Null)).collect()))
            }
            (Shape::Map { of, max }, Kind::Map(pairs)) => Some(self.map(pairs, of, *max, place)),
            (Shape::Object(fields), Kind::Map(pairs)) => Some(self.record(pairs, fields, &[], place)),
            (Shape::OneOf(fields), Kind::Map(pairs)) => {
                let group = Group { what: "key".into(), of: fields.clone() };
                Some(self.record(pairs, &[], &[group], place))
            }
            (Shape::Record { fields, groups }, Kind::Map(pairs)) => Some(self.record(pairs, fields, groups, place)),
            (Shape::List { .. } | Shape::Map { .. } | Shape::Object(_) | Shape::OneOf(_) | Shape::Record { .. }, _)
            | (_, Kind::List(_) | Kind::Map(_)) => {
                self.wrong_kind(node, shape, place);
                None
            }
            (_, Kind::Scalar(scalar)) => match scalar::read(scalar, shape) {
                Ok(value) => {
                    self.host_bits(shape, node, &value);
                    Some(value)
                }
                Err(wrong) => {
                    let name = if place.name.is_empty() { "this value" } else { place.name };
                    // A value that is not there is shown where it should follow.
                    let span = if scalar.plain && scalar.text.is_empty() { place.span } else { node.span };
                    self.findings.error(span, format!("`{name}`: {}", wrong.message), wrong.help);
                    None
                }
            },
        }
    }

    fn wrong_kind(&mut self, node: &Node, shape: &Shape, place: Place<'_>) {
        let nothing = matches!(&node.kind, Kind::Scalar(s) if s.meaning() == Meaning::Null);
        let (span, help) = match shape {
            _ if !nothing => (node.span, ""),
            Shape::List { .. } => (place.span, "write [] for none"),
            _ => (place.span, "write {} for none"),
        };
        let message = format!("{} must be {}, not {}", place.subject(), expected(shape), node.described());
        self.findings.error(span, message, help);
    }

    fn host_bits(&mut self, shape: &Shape, node: &Node, value: &Value) {
        let (Shape::Cidr, Some(written), Some(network)) = (shape, node.text(), value.as_str()) else { return };
        let parsed = written.parse::<ipnet::IpNet>();
        if parsed.is_ok_and(|net| net.addr() != net.network()) {
            let message = format!("{written} has bits beyond its prefix and is taken as {network}");
            self.findings.warning(node.span, message, "write the network, or the address alone");
        }
    }

    fn either(&mut self, node: &Node, shapes: &[Shape], place: Place<'_>) -> Option<Value> {
        let fitting: Vec<&Shape> = shapes.iter().filter(|s| fits(node, s)).collect();
        match fitting.as_slice() {
            [] => {
                self.wrong_kind(node, &Shape::Either(shapes.to_vec()), place);
                None
            }
            [one] => self.value(node, one, place),
            several => {
                let mut helps = Vec::new();
                for shape in several {
                    let mut trial = self.findings.scratch();
                    let value = Walk { findings: &mut trial }.value(node, shape, place);
                    if trial.errors() == 0 {
                        self.findings.absorb(trial);
                        return value;
                    }
                    let told = trial.finish().err().unwrap_or_default();
                    helps.extend(told.into_iter().filter_map(|d| d.help).take(1));
                }
                let wanted = several.iter().map(|s| expected(s)).collect::<Vec<_>>().join(" or ");
                let written = node.text().map_or_else(|| node.described().to_owned(), |text| format!("{text:?}"));
                let message = format!("{} must be {wanted}, not {written}", place.subject());
                self.findings.error(node.span, message, helps.join("; or "));
                None
            }
        }
    }

    fn map(&mut self, pairs: &[Pair], of: &Shape, max: usize, place: Place<'_>) -> Value {
        if pairs.len() > max {
            let message = format!("{} has {} entries, at most {max} are taken", place.subject(), pairs.len());
            self.findings.error(place.span, message, "");
        }
        let mut read = Map::new();
        for pair in pairs {
            if pair.key.is_empty() || pair.key.len() > LONGEST_KEY || pair.key.contains(char::is_control) {
                let help = format!("use 1 to {LONGEST_KEY} printable characters");
                self.findings.error(pair.span, format!("{:?} cannot be a name here", pair.key), help);
            } else if let Some(value) =
                self.value(&pair.value, of, Place { name: &pair.key, span: pair.span, element: false })
            {
                read.insert(pair.key.clone(), value);
            }
        }
        Value::Object(read)
    }

    fn record(&mut self, pairs: &[Pair], fields: &[Field], groups: &[Group], place: Place<'_>) -> Value {
        let all = || fields.iter().chain(groups.iter().flat_map(|g| &g.of));
        let mut read = Map::new();
        let mut strangers = false;
        for pair in pairs {
            match all().find(|f| f.name == pair.key) {
                None => {
                    strangers = true;
                    self.unknown_key(pair, &all().collect::<Vec<_>>(), fields, groups, place);
                }
                Some(Field { not_built: Some(advice), .. }) => {
                    strangers = true;
                    self.findings.error(pair.span, format!("`{}` is not built yet", pair.key), advice);
                }
                Some(field) => {
                    let at = Place { name: &pair.key, span: pair.span, element: false };
                    if let Some(value) = self.value(&pair.value, &field.shape, at) {
                        read.insert(pair.key.clone(), value);
                    }
                }
            }
        }
        let present = |field: &Field| pairs.iter().any(|p| p.key == field.name);
        for field in fields.iter().filter(|f| !present(f)) {
            if let Some(default) = &field.default {
                read.insert(field.name.clone(), default.clone());
            } else if field.required {
                let message = format!("`{}` is missing{}", field.name, place.within());
                self.findings.error(place.span, message, format!("{}: {}", field.name, lower(&field.doc)));
            }
        }
        for group in groups {
            let chosen: Vec<&Pair> = pairs.iter().filter(|p| group.of.iter().any(|f| f.name == p.key)).collect();
            let words: Vec<&str> = group.of.iter().filter(|f| f.not_built.is_none()).map(|f| f.name.as_str()).collect();
            match chosen.as_slice() {
                // A mistyped key is most likely the missing one: one message is enough.
                [] if strangers => {}
                [] => {
                    let message = format!("{} needs a {}", place.subject(), group.what);
                    self.findings.error(place.span, message, format!("write {}", few(&words)));
                }
                [_] => {}
                [first, others @ ..] => {
                    for other in others {
                        let message = format!("`{}` and `{}` cannot stand together", first.key, other.key);
                        self.findings.error(other.span, message, format!("keep one {}", group.what));
                    }
                }
            }
        }
        Value::Object(read)
    }

    fn unknown_key(&mut self, pair: &Pair, all: &[&Field], fields: &[Field], groups: &[Group], place: Place<'_>) {
        let message = match (fields, groups) {
            ([], [group]) if group.what != "key" => format!("there is no {} `{}`", group.what, pair.key),
            _ => format!("unknown key `{}`{}", pair.key, place.within()),
        };
        let words: Vec<&str> = all.iter().filter(|f| f.not_built.is_none()).map(|f| f.name.as_str()).collect();
        let known = if words.is_empty() {
            let so = "so let a host join first: fracas hosts join-token";
            format!("none is known here yet: a controller learns from its agents what there is, {so}")
        } else {
            format!("known here: {}", listed(&words))
        };
        let help = match nearest(&pair.key, all.iter().map(|f| f.name.as_str())) {
            Some(word) => format!("did you mean `{word}`? {known}"),
            None => known,
        };
        self.findings.error(pair.span, message, help);
    }
}

/// Whether the kind of node could be this shape at all.
fn fits(node: &Node, shape: &Shape) -> bool {
    match (shape, &node.kind) {
        (Shape::Either(shapes), _) => shapes.iter().any(|s| fits(node, s)),
        (Shape::List { .. }, kind) => matches!(kind, Kind::List(_)),
        (Shape::Map { .. } | Shape::Object(_) | Shape::OneOf(_) | Shape::Record { .. }, kind) => {
            matches!(kind, Kind::Map(_))
        }
        (_, kind) => matches!(kind, Kind::Scalar(_)),
    }
}

fn listed(words: &[&str]) -> String {
    if words.is_empty() { "nothing".into() } else { words.join(", ") }
}

fn few(words: &[&str]) -> String {
    if words.len() > 8 { format!("one of {}", listed(words)) } else { any_of(words) }
}

/// A sentence as a fragment: first letter small unless it starts an abbreviation, no full stop.
fn lower(sentence: &str) -> String {
    let mut letters = sentence.trim_end_matches('.').chars();
    match (letters.next(), letters.clone().next()) {
        (Some(first), second) if !second.is_some_and(char::is_uppercase) => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => sentence.trim_end_matches('.').to_owned(),
    }
}

#[cfg(test)]
mod tests;
