//! A small strict reader of the pages we write: every tag closed, every attribute quoted and told once. No general parser.

/// The tags of a page in order, with their attributes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tags(Vec<(String, Vec<(String, String)>)>);

impl Tags {
    /// Names of elements.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// Names of attributes.
    pub(super) fn attributes(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|(_, attributes)| attributes).map(|(name, _)| name.as_str())
    }

    /// All values of one attribute.
    pub(super) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().flat_map(|(_, attributes)| attributes).filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Elements and names of attributes alone: what must not depend on foreign text.
    pub(super) fn skeleton(&self) -> Vec<(&str, Vec<&str>)> {
        self.0.iter().map(|(name, a)| (name.as_str(), a.iter().map(|(n, _)| n.as_str()).collect())).collect()
    }
}

/// Reads a page; an error says where it is not well-formed.
pub(super) fn check(page: &str) -> Result<Tags, String> {
    let mut rest = page.strip_prefix("<!DOCTYPE html>").ok_or("no doctype")?;
    let (mut found, mut open) = (Tags::default(), Vec::<String>::new());
    while let Some(start) = rest.find('<') {
        text(&rest[..start])?;
        rest = &rest[start + 1..];
        if let Some(tail) = rest.strip_prefix('/') {
            let (name, tail) = tail.split_once('>').ok_or("an end tag does not end")?;
            let opened = open.pop().unwrap_or_default();
            if opened != name {
                return Err(format!("</{name}> closes <{opened}> before {:?}", near(tail)));
            }
            rest = tail;
            continue;
        }
        let (name, attributes, closed, tail) = tag(rest)?;
        found.0.push((name.clone(), attributes));
        rest = tail;
        if name == "style" {
            let end = rest.find("</style>").ok_or("a style does not end")?;
            rest = &rest[end + "</style>".len()..];
        } else if !closed {
            open.push(name);
        }
    }
    text(rest)?;
    if open.is_empty() { Ok(found) } else { Err(format!("left open: {open:?}")) }
}

fn near(text: &str) -> String {
    text.chars().take(60).collect()
}

/// Between tags: no `>`, and `&` only as a reference we write.
fn text(text: &str) -> Result<(), String> {
    let known = ["amp;", "lt;", "gt;", "quot;", "#39;"];
    let stray = text.split('&').skip(1).find(|tail| !known.iter().any(|k| tail.starts_with(k)));
    if let Some(tail) = stray {
        return Err(format!("a stray & before {:?}", near(tail)));
    }
    if text.contains('>') { Err(format!("a stray > in {:?}", near(text))) } else { Ok(()) }
}

type Tag<'a> = (String, Vec<(String, String)>, bool, &'a str);

/// One start tag, from behind its `<`.
fn tag(text_from: &str) -> Result<Tag<'_>, String> {
    let end = text_from.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(0);
    let (name, mut rest) = text_from.split_at(end);
    if name.is_empty() {
        return Err(format!("no tag at {:?}", near(text_from)));
    }
    let mut attributes: Vec<(String, String)> = Vec::new();
    loop {
        if let Some(tail) = rest.strip_prefix("/>") {
            return Ok((name.to_owned(), attributes, true, tail));
        }
        if let Some(tail) = rest.strip_prefix('>') {
            return Ok((name.to_owned(), attributes, false, tail));
        }
        let attribute = rest.strip_prefix(' ').ok_or_else(|| format!("in <{name}> at {:?}", near(rest)))?;
        let (key, tail) =
            attribute.split_once("=\"").ok_or_else(|| format!("<{name}> has no value at {:?}", near(rest)))?;
        let (value, tail) = tail.split_once('"').ok_or_else(|| format!("a value in <{name}> does not end"))?;
        let plain = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if !plain || value.contains('<') || attributes.iter().any(|(known, _)| known == key) {
            return Err(format!("attribute {key:?} of <{name}> is not well-formed"));
        }
        text(value)?;
        attributes.push((key.to_owned(), value.to_owned()));
        rest = tail;
    }
}

#[test]
fn the_reader_finds_what_is_wrong() {
    let page = |body: &str| check(&format!("<!DOCTYPE html><p>{body}</p>"));
    assert!(page("a &amp; <b title=\"x\">b</b><br/>").is_ok());
    for wrong in ["<b>", "</b>", "a & b", "a > b", "<b i>x</b>", "<b t='x'>x</b>", "<b t=\"1\" t=\"2\">x</b>", "<1>"] {
        assert!(page(wrong).is_err(), "{wrong}");
    }
}
