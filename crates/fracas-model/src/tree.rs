//! YAML or JSON text as a tree whose every node knows its place. It bounds what it takes and gives no meaning to keys.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle};

use crate::diagnostic::{Findings, Span};

/// Longest text, in bytes.
pub const MAX_BYTES: usize = 1 << 20;
/// Deepest nesting; a document of this grammar needs 8.
pub const MAX_DEPTH: usize = 64;
/// Most nodes, aliases expanded.
pub const MAX_NODES: usize = 50_000;

/// A piece of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it stands; of a list or mapping its beginning.
    pub span: Span,
    /// What it is.
    pub kind: Kind,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A single value.
    Scalar(Scalar),
    /// Values in order.
    List(Vec<Node>),
    /// Keys with values; no key twice.
    Map(Vec<Pair>),
    /// A value that could not be found out, and was already reported.
    Hole,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// The key's text.
    pub key: String,
    /// Where the key stands.
    pub span: Span,
    /// The value.
    pub value: Node,
}

/// A single value as it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Scalar {
    /// The text, quotes and escapes resolved.
    pub text: String,
    /// Written without quotes, so that `true`, `5` and `null` are not text.
    pub plain: bool,
}

/// What a scalar means by YAML 1.2's core schema, except that only `true` and `false` are truth values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Meaning {
    /// Nothing: `null`, `~` or empty.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number in range.
    Integer(i64),
    /// Any other number.
    Number(f64),
    /// Text.
    Text,
}

impl Scalar {
    /// What it means.
    pub fn meaning(&self) -> Meaning {
        let text = self.text.as_str();
        if !self.plain {
            return Meaning::Text;
        }
        match text {
            "" | "~" | "null" | "Null" | "NULL" => return Meaning::Null,
            "true" => return Meaning::Bool(true),
            "false" => return Meaning::Bool(false),
            _ => {}
        }
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
            || !digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'))
        {
            return Meaning::Text;
        }
        match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(whole), _) => Meaning::Integer(whole),
            (_, Ok(number)) => Meaning::Number(number),
            _ => Meaning::Text,
        }
    }
}

impl Node {
    /// The value of a key, if this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.pair(key).map(|p| &p.value)
    }

    /// The key with its value, if this is a mapping that has it.
    pub fn pair(&self, key: &str) -> Option<&Pair> {
        self.pairs().iter().find(|p| p.key == key)
    }

    /// Keys and values of a mapping; nothing for others.
    pub fn pairs(&self) -> &[Pair] {
        if let Kind::Map(pairs) = &self.kind { pairs } else { &[] }
    }

    /// Elements of a list; nothing for others.
    pub fn items(&self) -> &[Self] {
        if let Kind::List(items) = &self.kind { items } else { &[] }
    }

    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        if let Kind::Scalar(scalar) = &self.kind { Some(&scalar.text) } else { None }
    }

    /// What it is, for messages.
    pub fn described(&self) -> &'static str {
        match &self.kind {
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
            Kind::Hole => "nothing known",
            Kind::Scalar(scalar) => match scalar.meaning() {
                Meaning::Null => "nothing",
                Meaning::Bool(_) => "a truth value",
                Meaning::Integer(_) | Meaning::Number(_) => "a number",
                Meaning::Text => "text",
            },
        }
    }
}

/// Makes the text fit for [`parse`]: no byte order mark, one kind of line end, no tabs before JSON's lines.
pub fn normalise(text: &str) -> String {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    // YAML forbids tabs as indentation; JSON allows them, and inside its brackets indentation has no meaning.
    if !text.trim_start().starts_with(['{', '[']) || !text.contains('\t') {
        return text;
    }
    let lines = text.split('\n').map(|line| {
        let rest = line.trim_start_matches(['\t', ' ']);
        format!("{}{rest}", " ".repeat(line.len() - rest.len()))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Reads one document. `None` says that an error was noted; duplicate keys are noted and the first one stands.
pub fn parse(text: &str, findings: &mut Findings<'_>) -> Option<Node> {
    if text.len() > MAX_BYTES {
        let message = format!("the text has {} bytes, at most {MAX_BYTES} are read", text.len());
        findings.error(Span::default(), message, "split the document");
        return None;
    }
    if let Some(place) = text.find(|c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{7f}'..='\u{9f}')) {
        let before = &text[..place];
        let line = before.matches(['\n', '\r']).count() + 1;
        let column = before.chars().rev().take_while(|c| !matches!(c, '\n' | '\r')).count() + 1;
        findings.error(
            Span { line, column, width: 1 },
            "a control character stands here",
            "remove it, or write it as \\u0000 in quotes",
        );
        return None;
    }
    let mut builder = Builder { findings, anchors: BTreeMap::new(), open: Vec::new(), root: None, nodes: 0, copied: 0 };
    for event in Parser::new_from_str(text) {
        let done = match event {
            Ok((event, span)) => builder.take(event, place(span)),
            Err(error) => {
                let span = Span { line: error.marker().line(), column: error.marker().col() + 1, width: 1 };
                builder.refuse_syntax(text, span, error.info());
                return None;
            }
        };
        if done.is_err() {
            return None;
        }
    }
    if builder.root.is_none() {
        findings.error(Span::default(), "the file is empty", "`fracas new` writes a document to start from");
        return None;
    }
    builder.root.map(|counted| counted.node)
}

fn place(span: saphyr_parser::Span) -> Span {
    let width = if span.start.line() == span.end.line() { span.end.col().saturating_sub(span.start.col()) } else { 1 };
    Span { line: span.start.line(), column: span.start.col() + 1, width: width.max(1) }
}

/// An error was noted; reading stops.
struct Stop;

/// A node, how many nodes it has and how deep it goes.
#[derive(Clone)]
struct Counted {
    node: Node,
    nodes: usize,
    depth: usize,
}

/// A list or mapping whose end has not been seen.
struct Open {
    node: Node,
    anchor: usize,
    nodes: usize,
    depth: usize,
    key: Option<(String, Span)>,
    keys: BTreeMap<String, Span>,
}

struct Builder<'b, 'a> {
    findings: &'b mut Findings<'a>,
    anchors: BTreeMap<usize, Counted>,
    open: Vec<Open>,
    root: Option<Counted>,
    nodes: usize,
    copied: usize,
}

impl Builder<'_, '_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Stop> {
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                self.stop(span, "a second document starts here", "write one document to a file")
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(())
            }
            Event::Alias(anchor) => self.alias(anchor, span),
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.is_some(), span)?;
                let scalar = Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain };
                self.count(span, 1)?;
                self.put(Counted { node: Node { span, kind: Kind::Scalar(scalar) }, nodes: 1, depth: 0 }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), span)?;
                self.begin(Kind::List(Vec::new()), span, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), span)?;
                self.begin(Kind::Map(Vec::new()), span, anchor)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Ok(()) };
                self.put(Counted { node: open.node, nodes: open.nodes, depth: open.depth }, open.anchor)
            }
        }
    }

    fn stop(&mut self, span: Span, message: &str, help: &str) -> Result<(), Stop> {
        self.findings.error(span, message, help);
        Err(Stop)
    }

    fn refuse_tag(&mut self, tagged: bool, span: Span) -> Result<(), Stop> {
        if tagged {
            return self.stop(span, "tags such as !!str are not used", "remove it; quotes make a value text");
        }
        Ok(())
    }

    fn refuse_syntax(&mut self, text: &str, span: Span, info: &str) {
        let line = text.split(['\n', '\r']).nth(span.line.saturating_sub(1)).unwrap_or("");
        if info.contains("recursion") {
            self.findings.error(span, too_deep(), "write it flatter");
        } else if line.contains("${") {
            let help = "between { } or [ ] a parameter stands in quotes: \"${name}\"";
            self.findings.error(span, format!("the text is not valid YAML: {info}"), help);
        } else if line.contains('\t') {
            let help = "this line has a tab; indent with spaces";
            self.findings.error(span, format!("the text is not valid YAML: {info}"), help);
        } else {
            self.findings.error(span, format!("the text is not valid YAML: {info}"), "");
        }
    }

    fn count(&mut self, span: Span, nodes: usize) -> Result<(), Stop> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            let message = format!("the document has more than {MAX_NODES} values, aliases expanded");
            return self.stop(span, &message, "split the document");
        }
        Ok(())
    }

    fn begin(&mut self, kind: Kind, span: Span, anchor: usize) -> Result<(), Stop> {
        self.count(span, 1)?;
        if self.open.len() >= MAX_DEPTH {
            return self.stop(span, &too_deep(), "write it flatter");
        }
        let node = Node { span, kind };
        self.open.push(Open { node, anchor, nodes: 1, depth: 1, key: None, keys: BTreeMap::new() });
        Ok(())
    }

    /// Copies are counted before they are made: an alias bomb costs no memory.
    fn copy(&mut self, span: Span, nodes: usize) -> Result<(), Stop> {
        self.copied += nodes;
        if self.copied > MAX_NODES {
            let message = format!("anchors and aliases copy more than {MAX_NODES} values");
            return self.stop(span, &message, "write out what is meant, or split the document");
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), Stop> {
        let Some((nodes, depth)) = self.anchors.get(&anchor).map(|c| (c.nodes, c.depth)) else {
            return self.stop(span, "this alias stands inside its own anchor", "write out what is meant");
        };
        if self.open.len() + depth > MAX_DEPTH {
            return self.stop(span, &too_deep(), "write it flatter");
        }
        self.copy(span, nodes)?;
        self.count(span, nodes)?;
        match self.anchors.get(&anchor).cloned() {
            Some(counted) => self.put(counted, 0),
            None => Ok(()),
        }
    }

    fn put(&mut self, counted: Counted, anchor: usize) -> Result<(), Stop> {
        if anchor > 0 {
            self.copy(counted.node.span, counted.nodes)?;
            self.anchors.insert(anchor, counted.clone());
        }
        let span = counted.node.span;
        let Some(open) = self.open.last_mut() else {
            self.root = Some(counted);
            return Ok(());
        };
        open.nodes += counted.nodes;
        open.depth = open.depth.max(counted.depth + 1);
        match &mut open.node.kind {
            Kind::List(items) => items.push(counted.node),
            Kind::Map(pairs) => match open.key.take() {
                None => return self.key(counted.node),
                Some((key, at)) => {
                    if let Some(first) = open.keys.get(&key) {
                        let message = format!("the key `{key}` stands here a second time");
                        let help = format!("it is already on line {}, column {}", first.line, first.column);
                        self.findings.error(at, message, help);
                    } else {
                        open.keys.insert(key.clone(), at);
                        pairs.push(Pair { key, span: at, value: counted.node });
                    }
                }
            },
            Kind::Scalar(_) | Kind::Hole => debug_assert!(false, "a scalar was left open at {span:?}"),
        }
        Ok(())
    }

    fn key(&mut self, node: Node) -> Result<(), Stop> {
        let span = node.span;
        let Kind::Scalar(scalar) = node.kind else {
            return self.stop(span, "a key must be text, not a list or mapping", "write a single word as the key");
        };
        if scalar.plain && scalar.text == "<<" {
            return self.stop(span, "the merge key `<<` is not used", "write out the keys");
        }
        if scalar.meaning() == Meaning::Null {
            return self.stop(span, "a key is missing", "write a word before the colon");
        }
        if scalar.text.contains("${") {
            return self.stop(span, "a parameter cannot stand in a key", "use parameters in values");
        }
        if let Some(open) = self.open.last_mut() {
            open.key = Some((scalar.text, span));
        }
        Ok(())
    }
}

fn too_deep() -> String {
    format!("values are nested more than {MAX_DEPTH} deep")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn read(text: &str) -> Result<Node, String> {
        let text = normalise(text);
        let mut findings = Findings::new("t", &text);
        let node = parse(&text, &mut findings);
        match findings.finish() {
            Ok(_) => Ok(node.expect("no error, so a tree")),
            Err(list) => Err(list.iter().map(|d| format!("{}:{} {}", d.line, d.column, d.message)).collect()),
        }
    }

    #[test]
    fn nodes_know_their_places() {
        let tree = read("a: 1\nb:\n  - x\n  - { c: \"äö\", d: true }\n").unwrap();
        let inner = &tree.get("b").unwrap().items()[1];
        assert_eq!(inner.get("c").unwrap().span, Span { line: 4, column: 10, width: 4 });
        assert_eq!(inner.pair("d").unwrap().span, Span { line: 4, column: 16, width: 1 });
        assert_eq!(inner.get("c").unwrap().text(), Some("äö"));
    }

    #[test]
    fn json_is_read_with_tabs_too() {
        let tree = read("{\n\t\"a\":\t[1,\t2],\r\n\t\"b\": {\"c\":\"x\\ty\\u00e4\"}\n}").unwrap();
        assert_eq!(tree.get("a").unwrap().items().len(), 2);
        assert_eq!(tree.get("b").unwrap().get("c").unwrap().text(), Some("x\ty\u{e4}"));
        assert_eq!(tree.pair("a").unwrap().span, Span { line: 2, column: 2, width: 3 });
    }

    #[test]
    fn only_true_and_false_are_truth_values() {
        let tree =
            read("[true, false, yes, no, on, True, 'true', 5, -5, 1.5, 1e3, 0x10, ~, null, 5s, ., 1.2.3.4]").unwrap();
        let meaning = |i: usize| match &tree.items()[i].kind {
            Kind::Scalar(s) => s.meaning(),
            other => panic!("{other:?}"),
        };
        let expected = [
            Meaning::Bool(true),
            Meaning::Bool(false),
            Meaning::Text,
            Meaning::Text,
            Meaning::Text,
            Meaning::Text,
            Meaning::Text,
            Meaning::Integer(5),
            Meaning::Integer(-5),
            Meaning::Number(1.5),
            Meaning::Number(1000.0),
            Meaning::Text,
            Meaning::Null,
            Meaning::Null,
            Meaning::Text,
            Meaning::Text,
            Meaning::Text,
        ];
        for (i, expected) in expected.into_iter().enumerate() {
            assert_eq!(meaning(i), expected, "{i}");
        }
    }

    #[test]
    fn aliases_are_expanded() {
        let tree = read("a: &x { b: 1 }\nc: *x\n").unwrap();
        assert_eq!(tree.get("c").unwrap().get("b").unwrap().text(), Some("1"));
    }

    #[test]
    fn what_is_not_read_is_refused_by_name() {
        for (text, expected) in [
            ("", "1:1 the file is empty"),
            ("# only a comment\n", "1:1 the file is empty"),
            ("a: 1\n---\nb: 2\n", "2:1 a second document starts here"),
            ("a: &x {b: 1}\nc:\n  <<: *x\n", "3:3 the merge key `<<` is not used"),
            ("a: 1\nb: 2\na: 3\n", "3:1 the key `a` stands here a second time"),
            ("a: !!str 5", "1:4 tags such as !!str are not used"),
            ("? [a, b]\n: c\n", "1:3 a key must be text, not a list or mapping"),
            ("a: &x [1, *x]", "1:11 this alias stands inside its own anchor"),
            ("a: *y", "1:4 the text is not valid YAML: while parsing node, found unknown anchor"),
            ("a: b\0c", "1:5 a control character stands here"),
            ("a: \"\u{1b}[31m\"", "1:5 a control character stands here"),
            ("${x}: 1", "1:1 a parameter cannot stand in a key"),
        ] {
            assert_eq!(read(text).unwrap_err(), expected, "{text:?}");
        }
    }

    #[test]
    fn limits_hold_and_cost_little() {
        let started = Instant::now();
        let deep = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        assert!(read(&deep(64)).is_ok());
        for n in [65, 300, 100_000] {
            assert!(read(&deep(n)).unwrap_err().contains("nested more than 64 deep"), "{n}");
        }
        let block: String = (0..500).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
        assert!(read(&block).unwrap_err().contains("nested more than 64 deep"));
        assert!(read(&"- ".repeat(100_000)).unwrap_err().contains("nested more than 64 deep"));
        assert!(read(&format!("a: {}", "x".repeat(MAX_BYTES))).unwrap_err().contains("at most 1048576 are read"));
        assert!(read(&format!("[{}]", "1,".repeat(49_999))).is_ok());
        assert!(read(&format!("[{}]", "1,".repeat(50_000))).unwrap_err().contains("more than 50000 values"));
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..30 {
            let before = format!("*a{}", i - 1);
            bomb.push_str(&format!("a{i}: &a{i} [{}]\n", vec![before; 10].join(", ")));
        }
        assert!(read(&bomb).unwrap_err().contains("anchors and aliases copy more than 50000 values"));
        let mut chain = String::from("a0: &a0 [x]\n");
        for i in 1..70 {
            chain.push_str(&format!("a{i}: &a{i} [*a{}]\n", i - 1));
        }
        assert!(read(&chain).unwrap_err().contains("nested more than 64 deep"));
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }
}
