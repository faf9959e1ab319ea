//! Parameters of a document: declared with types, given from outside, put in place of `${name}` in the tree.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    check::{check_named, is_name},
    diagnostic::{Findings, Span, nearest},
    shape::{Field, Shape},
    tree::{Kind, MAX_BYTES, Node, Pair, Scalar},
    units::{Dur, Percent, Size},
};

/// Most parameters of one document.
const MOST: usize = 100;
/// Longest text of one value, in bytes.
const LONGEST: usize = 4096;
const TYPES: &[&str] = &["string", "integer", "number", "boolean", "duration", "percent", "size"];

/// The form of `parameters:`.
pub fn parameters_shape() -> Shape {
    let scalars = Shape::list(Shape::Scalar, 100);
    let declaration = Shape::Object(vec![
        Field::required("type", Shape::choice(TYPES), "What the value is."),
        Field::optional("default", Shape::Scalar, "The value when none is given; without one it must be given."),
        Field::optional("description", Shape::Text { max: LONGEST }, "What the value means."),
        Field::optional("choices", scalars, "The only values allowed."),
        Field::optional("min", Shape::Scalar, "The smallest value allowed."),
        Field::optional("max", Shape::Scalar, "The largest value allowed."),
    ]);
    Shape::Map { of: Box::new(declaration), max: MOST }
}

/// Values of all declared parameters; `None` where the value could not be found out, which was reported.
#[derive(Debug, Default)]
pub struct Parameters {
    values: BTreeMap<String, Option<Value>>,
    declared: BTreeMap<String, Span>,
}

impl Parameters {
    /// Checks the declarations and finds each value: the given one, else the default.
    pub fn resolve(declared: Option<&Pair>, given: &BTreeMap<String, String>, findings: &mut Findings<'_>) -> Self {
        let mut all = Self::default();
        let section = declared.map_or(Span::default(), |pair| pair.span);
        if let Some(pair) = declared {
            check_named(&pair.value, &parameters_shape(), "parameters", pair.span, findings);
            for declaration in pair.value.pairs() {
                let name = &declaration.key;
                if !is_name(name) {
                    let help = "use at most 63 small letters, digits and hyphens";
                    findings.error(declaration.span, format!("{name:?} is not a name"), help);
                }
                all.declared.insert(name.clone(), declaration.span);
                all.values.insert(name.clone(), value_of(declaration, given.get(name), findings));
            }
        }
        for name in given.keys().filter(|name| !all.values.contains_key(*name)) {
            let help = all.known(name);
            findings.error(section, format!("a value was given for `{name}`, which is not a parameter"), help);
        }
        all
    }

    /// Puts the values in place of `${name}` everywhere below the node. A scalar that is nothing but one `${name}`
    /// takes the type of the value, any other is text. `$${` stands for the characters `${`.
    pub fn substitute(&self, node: &mut Node, findings: &mut Findings<'_>) {
        let mut substitution = Substitution { all: self, used: BTreeSet::new(), bytes: 0, findings };
        substitution.walk(node);
        let used = substitution.used;
        for (name, span) in self.declared.iter().filter(|(name, _)| !used.contains(name.as_str())) {
            let help = format!("write \"${{{name}}}\" where it belongs, or remove it");
            findings.warning(*span, format!("the parameter `{name}` is not used"), help);
        }
    }

    /// The values found, by name.
    pub fn values(&self) -> BTreeMap<String, Value> {
        self.values.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect()
    }

    fn known(&self, name: &str) -> String {
        let names: Vec<&str> = self.values.keys().map(String::as_str).collect();
        match nearest(name, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if names.is_empty() => "the document declares no `parameters`".into(),
            None => format!("declared are: {}", names.join(", ")),
        }
    }
}

/// A canonical document in which every `${` stands for itself, so that reading it again changes nothing.
pub fn escape(value: &mut Value) {
    match value {
        Value::String(text) if text.contains("${") => *text = text.replace("${", "$${"),
        Value::Array(items) => items.iter_mut().for_each(escape),
        Value::Object(fields) => fields.values_mut().for_each(escape),
        _ => {}
    }
}

fn shape_of(word: &str) -> Option<Shape> {
    Some(match word {
        "string" => Shape::Text { max: LONGEST },
        "integer" => Shape::Integer { min: i64::MIN, max: i64::MAX },
        "number" => Shape::Scalar,
        "boolean" => Shape::Bool,
        "duration" => Shape::duration(Dur::ZERO, Dur::from_ns(i64::MAX)),
        "percent" => Shape::Percent { min: 0.0, max: f64::MAX },
        "size" => Shape::Size { min: Size(0), max: Size(u64::MAX) },
        _ => return None,
    })
}

/// Checks one declaration against its own type and finds the value.
fn value_of(declaration: &Pair, given: Option<&String>, findings: &mut Findings<'_>) -> Option<Value> {
    let name = &declaration.key;
    let word = declaration.value.get("type")?.text()?;
    let shape = shape_of(word)?;
    let mut typed = |node: &Node, called: &str, span: Span| {
        let value = check_named(node, &shape, called, span, findings)?;
        if word == "number" && !value.is_number() {
            findings.error(node.span, format!("`{called}` is not a number"), "write digits, with a point if need be");
            return None;
        }
        Some(value)
    };
    let mut part = |key: &str| declaration.value.pair(key).and_then(|p| typed(&p.value, key, p.span));
    let (default, min, max) = (part("default"), part("min"), part("max"));
    let choices: Option<Vec<Value>> = declaration
        .value
        .get("choices")
        .map(|list| list.items().iter().filter_map(|item| typed(item, "choices", item.span)).collect());
    let ordered = !matches!(word, "string" | "boolean");
    let (value, called, span) = if let Some(text) = given {
        let plain = matches!(word, "integer" | "number" | "boolean");
        let kind = Kind::Scalar(Scalar { text: text.clone(), plain });
        let called = format!("{name} as given");
        (typed(&Node { span: declaration.span, kind }, &called, declaration.span)?, called, declaration.span)
    } else if let Some(pair) = declaration.value.pair("default") {
        (default?, "default".to_owned(), pair.value.span)
    } else {
        let help = format!("give one with --set {name}=VALUE, or declare a default");
        findings.error(declaration.span, format!("the parameter `{name}` has no value"), help);
        return None;
    };
    for key in ["min", "max"] {
        if let (false, Some(pair)) = (ordered, declaration.value.pair(key)) {
            findings.error(pair.span, format!("`{key}` has no meaning for a {word}"), "use `choices`, or remove it");
        }
    }
    if let Some(choices) = choices.filter(|c| !c.contains(&value)) {
        let words: Vec<String> = choices.iter().map(text_of).collect();
        let help = format!("write {}", crate::diagnostic::any_of(&words));
        findings.error(span, format!("`{called}`: {:?} is not one of the choices", text_of(&value)), help);
        return None;
    }
    let below = |a: &Value, b: &Value| matches!((weight(a), weight(b)), (Some(a), Some(b)) if a < b);
    let breach = min.as_ref().filter(|min| below(&value, min)).map(|min| ("below the smallest", min));
    let breach = breach.or(max.as_ref().filter(|max| below(max, &value)).map(|max| ("above the largest", max)));
    if let Some((how, bound)) = breach.filter(|_| ordered) {
        let message = format!("`{called}`: {} is {how} value, {}", text_of(&value), text_of(bound));
        findings.error(span, message, "");
        return None;
    }
    Some(value)
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// For comparing two values of one type.
fn weight(value: &Value) -> Option<f64> {
    if let Some(number) = value.as_f64() {
        return Some(number);
    }
    let text = value.as_str()?;
    let duration = text.parse::<Dur>().ok().map(|d| d.ns() as f64);
    duration
        .or_else(|| text.parse::<Percent>().ok().map(|p| p.0))
        .or_else(|| text.parse::<Size>().ok().map(|s| s.0 as f64))
}

struct Substitution<'s, 'f, 'a> {
    all: &'s Parameters,
    used: BTreeSet<String>,
    bytes: usize,
    findings: &'f mut Findings<'a>,
}

impl Substitution<'_, '_, '_> {
    fn walk(&mut self, node: &mut Node) {
        match &mut node.kind {
            Kind::List(items) => items.iter_mut().for_each(|item| self.walk(item)),
            Kind::Map(pairs) => pairs.iter_mut().for_each(|pair| self.walk(&mut pair.value)),
            Kind::Scalar(scalar) if scalar.text.contains("${") => {
                node.kind = self.scalar(&scalar.text, node.span).map_or(Kind::Hole, Kind::Scalar);
            }
            Kind::Scalar(_) | Kind::Hole => {}
        }
    }

    fn scalar(&mut self, text: &str, span: Span) -> Option<Scalar> {
        if let Some(name) = text.strip_prefix("${").and_then(|t| t.strip_suffix('}')).filter(|n| !n.contains('}')) {
            let value = self.value(name, span)?;
            return Some(Scalar { text: text_of(&value), plain: !value.is_string() });
        }
        let (mut built, mut rest, mut whole) = (String::new(), text, true);
        while let Some(dollar) = rest.find('$') {
            built.push_str(&rest[..dollar]);
            rest = &rest[dollar..];
            if let Some(tail) = rest.strip_prefix("$${") {
                built.push_str("${");
                rest = tail;
            } else if let Some(tail) = rest.strip_prefix("${") {
                let Some((name, tail)) = tail.split_once('}') else {
                    self.findings.error(span, "`${` is not closed", "write `$${` for the characters themselves");
                    return None;
                };
                match self.value(name, span) {
                    Some(value) => built.push_str(&text_of(&value)),
                    None => whole = false,
                }
                rest = tail;
            } else {
                built.push('$');
                rest = &rest[1..];
            }
            if self.bytes + built.len() > MAX_BYTES {
                self.findings.error(span, format!("parameters make more than {MAX_BYTES} bytes of text"), "");
                return None;
            }
        }
        built.push_str(rest);
        self.bytes += built.len();
        whole.then_some(Scalar { text: built, plain: false })
    }

    fn value(&mut self, name: &str, span: Span) -> Option<Value> {
        self.used.insert(name.to_owned());
        if let Some(value) = self.all.values.get(name) {
            value.clone()
        } else {
            let help = format!("{}; `$${{` stands for the characters themselves", self.all.known(name));
            self.findings.error(span, format!("there is no parameter `{name}`"), help);
            None
        }
    }
}

/// Takes `parameters:` out of a document, resolves them and puts the values in place.
pub fn apply(root: &mut Node, given: &BTreeMap<String, String>, findings: &mut Findings<'_>) -> Parameters {
    let declared = match &mut root.kind {
        Kind::Map(pairs) => pairs.iter().position(|p| p.key == "parameters").map(|i| pairs.remove(i)),
        _ => None,
    };
    let parameters = Parameters::resolve(declared.as_ref(), given, findings);
    parameters.substitute(root, findings);
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Meaning, parse};

    type Applied = (Node, BTreeMap<String, Value>, Vec<String>);

    fn applied(text: &str, given: &[(&str, &str)]) -> Result<Applied, Vec<String>> {
        let mut findings = Findings::new("t", text);
        let mut root = parse(text, &mut findings).expect("a tree");
        let given = given.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let parameters = apply(&mut root, &given, &mut findings);
        let say = |list: Vec<crate::diagnostic::Diagnostic>| {
            list.into_iter()
                .map(|d| {
                    format!(
                        "{}:{} {}{}",
                        d.line,
                        d.column,
                        d.message,
                        d.help.map(|h| format!(" | {h}")).unwrap_or_default()
                    )
                })
                .collect::<Vec<_>>()
        };
        findings.finish().map(|list| (root, parameters.values(), say(list))).map_err(say)
    }

    fn scalar(node: &Node, key: &str) -> Scalar {
        match &node.get(key).unwrap().kind {
            Kind::Scalar(scalar) => scalar.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_lone_parameter_takes_its_type_and_an_embedded_one_is_text() {
        let text = "parameters:\n  n: { type: integer, default: 3, min: 1, max: 5 }\n  on: { type: boolean }\n  hold: { type: duration, default: 90s }\n\
                    a: ${n}\nb: \"${n}\"\nc: ${n}ms\nd: [\"${on}\"]\ne: ${hold}\nf: $${n} $ $$ $x ${n}$${\n";
        let (root, values, warnings) = applied(text, &[("on", "true"), ("n", "4")]).unwrap();
        assert_eq!(scalar(&root, "a").meaning(), Meaning::Integer(4));
        assert_eq!(scalar(&root, "b").meaning(), Meaning::Integer(4));
        assert_eq!(scalar(&root, "c"), Scalar { text: "4ms".into(), plain: false });
        assert_eq!(scalar(&root, "e"), Scalar { text: "1m30s".into(), plain: false });
        assert_eq!(scalar(&root, "f").text, "${n} $ $$ $x 4${");
        assert_eq!(root.get("d").unwrap().items()[0].described(), "a truth value");
        assert!(root.get("parameters").is_none());
        assert_eq!(serde_json::to_string(&values).unwrap(), r#"{"hold":"1m30s","n":4,"on":true}"#);
        assert_eq!(warnings, Vec::<String>::new());
    }

    #[test]
    fn mistakes_are_told_at_their_place() {
        let declare = |rest: &str| format!("parameters:\n  hold: {{ {rest} }}\na: \"${{hold}}\"\n");
        for (text, given, expected) in [
            (
                declare("type: duration"),
                "",
                "2:3 the parameter `hold` has no value | give one with --set hold=VALUE, or declare a default",
            ),
            (
                declare("type: duration, default: 5"),
                "",
                "2:36 `default`: the unit of 5 is missing | write `5ms`, `5s` or `5m`",
            ),
            (
                declare("type: duration"),
                "hold=5",
                "2:3 `hold as given`: the unit of 5 is missing | write `5ms`, `5s` or `5m`",
            ),
            (declare("type: duration, max: 1m"), "hold=2m", "2:3 `hold as given`: 2m is above the largest value, 1m"),
            (
                declare("type: size, min: 1MiB, default: 1kB"),
                "",
                "2:43 `default`: 1kB is below the smallest value, 1MiB",
            ),
            (
                declare("type: string, choices: [a, b], default: c"),
                "",
                "2:51 `default`: \"c\" is not one of the choices | write `a` or `b`",
            ),
            (
                declare("type: string, default: a, min: 3"),
                "",
                "2:37 `min` has no meaning for a string | use `choices`, or remove it",
            ),
            (
                declare("type: number, default: x"),
                "",
                "2:34 `default` is not a number | write digits, with a point if need be",
            ),
            (
                declare("type: integer, default: 3"),
                "hodl=3",
                "1:1 a value was given for `hodl`, which is not a parameter | did you mean `hold`?",
            ),
            (
                declare("type: int, default: 3"),
                "",
                "2:17 `type`: \"int\" is not one of the choices | write `string`, `integer`, `number`, `boolean`, `duration`, `percent` or `size`",
            ),
            (
                "a: \"${x}\"\n".into(),
                "",
                "1:4 there is no parameter `x` | the document declares no `parameters`; `$${` stands for the characters themselves",
            ),
            (
                "a: 1\n".into(),
                "x=1",
                "1:1 a value was given for `x`, which is not a parameter | the document declares no `parameters`",
            ),
            ("a: \"5 ${x\"\n".into(), "", "1:4 `${` is not closed | write `$${` for the characters themselves"),
            (
                "parameters:\n  A_b: { type: string, default: x }\na: ${A_b}\n".into(),
                "",
                "2:3 \"A_b\" is not a name | use at most 63 small letters, digits and hyphens",
            ),
        ] {
            let given: Vec<(&str, &str)> = given.split_once('=').into_iter().collect();
            assert_eq!(applied(&text, &given).unwrap_err()[0], expected, "{text}");
        }
    }

    #[test]
    fn one_unknown_value_is_told_once_and_a_useless_parameter_is_a_warning() {
        let text = "parameters: { x: { type: integer } }\na: \"${x}\"\nb: \"${x} and ${x}\"\n";
        assert_eq!(applied(text, &[]).unwrap_err().len(), 1);
        let (_, _, warnings) = applied("parameters: { x: { type: integer, default: 1 } }\na: b\n", &[]).unwrap();
        assert_eq!(warnings, ["1:15 the parameter `x` is not used | write \"${x}\" where it belongs, or remove it"]);
    }

    #[test]
    fn text_does_not_grow_without_bound() {
        let long = "x".repeat(4096);
        let text =
            format!("parameters: {{ x: {{ type: string, default: {long} }} }}\na: \"{}\"\n", "${x}".repeat(10_000));
        assert!(applied(&text, &[]).unwrap_err()[0].contains("parameters make more than 1048576 bytes of text"));
    }

    #[test]
    fn escaped_text_reads_as_itself() {
        for text in ["${x}", "$${x}", "$", "a$${b${c}", "$$$${"] {
            let mut value = Value::from(text);
            escape(&mut value);
            let source = format!("a: {value}\n");
            let (root, _, _) = applied(&source, &[]).unwrap();
            assert_eq!(scalar(&root, "a").text, text);
        }
    }
}
