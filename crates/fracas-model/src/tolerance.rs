//! What the fields of a reading must be: one parameter of every probe, made of the fields that the probe declares. It
//! judges values that were measured, and measures none.

use std::cmp::Ordering;

use regex_lite::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    catalogue::{Params, ProbeInfo},
    pattern::pattern,
    plan::Refusal,
    shape::{Field, Shape},
    units::Dur,
};

/// The parameter's name.
pub const TOLERANCE: &str = "tolerance";
/// The field that every reading has: how long the look took.
pub const LATENCY: &str = "latency";
/// Longest text to compare with, bytes.
const LONGEST_TEXT: usize = 1024;
/// Longest part of a measured text that a reason shows, characters.
const SHOWN: usize = 40;
/// Most alternatives of one `oneOf`.
const MOST_ALTERNATIVES: usize = 32;

/// What kind of value a field of a reading holds, which decides by what it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FieldKind {
    /// A number, whole or not.
    Number,
    /// A length of time.
    Duration,
    /// A text.
    Text,
    /// True or false.
    Flag,
}

/// One field of a probe's readings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadingField {
    /// Its name, camelCase.
    pub name: String,
    /// What it holds.
    pub kind: FieldKind,
    /// Unit of a number, in words; empty where it has none.
    #[serde(default)]
    pub unit: String,
    /// One sentence.
    pub doc: String,
    /// Whether reasons may show a text: a word for a state or a version, nothing of what somebody keeps.
    #[serde(default)]
    pub harmless: bool,
}

impl ReadingField {
    /// A number with its unit, which may be empty.
    pub fn number(name: &str, unit: &str, doc: &str) -> Self {
        Self { name: name.into(), kind: FieldKind::Number, unit: unit.into(), doc: doc.into(), harmless: false }
    }

    /// A length of time.
    pub fn duration(name: &str, doc: &str) -> Self {
        Self { kind: FieldKind::Duration, ..Self::number(name, "", doc) }
    }

    /// A text that may hold what is not for everybody: no reason shows any of it.
    pub fn text(name: &str, doc: &str) -> Self {
        Self { kind: FieldKind::Text, ..Self::number(name, "", doc) }
    }

    /// A text that says nothing of what somebody keeps, such as a status, a role, a version: reasons show how it begins.
    pub fn word(name: &str, doc: &str) -> Self {
        Self { harmless: true, ..Self::text(name, doc) }
    }

    /// True or false.
    pub fn flag(name: &str, doc: &str) -> Self {
        Self { kind: FieldKind::Flag, ..Self::number(name, "", doc) }
    }
}

/// The value of one field, as one look found it.
#[derive(Clone, Debug, PartialEq)]
pub enum Measured {
    /// A number.
    Number(f64),
    /// A length of time.
    Duration(Dur),
    /// A text; whoever measured it bounded it.
    Text(String),
    /// True or false.
    Flag(bool),
}

impl From<f64> for Measured {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<u64> for Measured {
    fn from(number: u64) -> Self {
        Self::Number(number as f64)
    }
}

impl From<usize> for Measured {
    fn from(number: usize) -> Self {
        Self::Number(number as f64)
    }
}

impl From<Dur> for Measured {
    fn from(length: Dur) -> Self {
        Self::Duration(length)
    }
}

impl From<std::time::Duration> for Measured {
    fn from(length: std::time::Duration) -> Self {
        Self::Duration(Dur::from_ns(i64::try_from(length.as_nanos()).unwrap_or(i64::MAX)))
    }
}

impl From<String> for Measured {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Measured {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

/// The values that one look found. A field that is absent was not known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values(Vec<(&'static str, Measured)>);

impl Values {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// With this value of this field.
    #[must_use]
    pub fn with(mut self, field: &'static str, value: impl Into<Measured>) -> Self {
        self.0.push((field, value.into()));
        self
    }

    /// With this value, if it is known.
    #[must_use]
    pub fn with_known(self, field: &'static str, value: Option<impl Into<Measured>>) -> Self {
        match value {
            Some(value) => self.with(field, value),
            None => self,
        }
    }

    /// The value of this field.
    pub fn get(&self, field: &str) -> Option<&Measured> {
        self.0.iter().find(|(name, _)| *name == field).map(|(_, value)| value)
    }
}

/// A probe as it is offered: with the field that every reading has, and with the parameter that compares them all.
#[must_use]
pub fn offered(mut info: ProbeInfo) -> ProbeInfo {
    let doc = "How long the look took, from its beginning (a name is resolved, a connection is made) to the end of what it reads.";
    info.reading.insert(0, ReadingField::duration(LATENCY, doc));
    let doc = "What fields of the reading must be besides: { latency: { max: 250ms } }; every comparator must hold.";
    info.params.push(Field::optional(TOLERANCE, shape(&info.reading), doc));
    info
}

/// Whether these checked parameters compare this field: a probe may leave out what is dear to measure and not asked for.
pub fn wants(params: &Params, field: &str) -> bool {
    params.0.get(TOLERANCE).is_some_and(|given| given.get(field).is_some())
}

/// The form of the parameter.
fn shape(fields: &[ReadingField]) -> Shape {
    Shape::Object(
        fields
            .iter()
            .map(|field| {
                let unit = if field.unit.is_empty() { String::new() } else { format!(" ({})", field.unit) };
                Field::optional(&field.name, comparators(field.kind), &format!("{}{unit}", field.doc))
            })
            .collect(),
    )
}

fn comparators(kind: FieldKind) -> Shape {
    let of = match kind {
        FieldKind::Number => Shape::Number,
        FieldKind::Duration => Shape::duration(Dur::ZERO, Dur::from_secs(10 * 365 * 86_400)),
        FieldKind::Text => Shape::Text { max: LONGEST_TEXT },
        FieldKind::Flag => Shape::Bool,
    };
    let one = |name: &str, doc: &str| Field::optional(name, of.clone(), doc);
    let equals = one("equals", "It must be this.");
    let not_equals = one("notEquals", "It must not be this.");
    let one_of = Field::optional("oneOf", Shape::list(of.clone(), MOST_ALTERNATIVES), "It must be one of these.");
    Shape::Object(match kind {
        FieldKind::Flag => vec![equals],
        FieldKind::Number | FieldKind::Duration => {
            vec![
                one("min", "It must be at least this."),
                one("max", "It must be at most this."),
                equals,
                not_equals,
                one_of,
            ]
        }
        FieldKind::Text => vec![
            equals,
            not_equals,
            one_of,
            one("contains", "It must hold this text."),
            Field::optional("matches", Shape::Pattern, "A part of it must match this pattern."),
        ],
    })
}

/// What a document wants of the fields of a reading.
#[derive(Clone, Debug)]
pub struct Tolerance(Vec<(String, Rule)>);

#[derive(Clone, Debug)]
enum Rule {
    Number(Limits<f64>),
    Duration(Limits<Dur>),
    Text(Texts),
    Flag(bool),
}

#[derive(Clone, Debug)]
struct Limits<T> {
    min: Option<T>,
    max: Option<T>,
    equals: Option<T>,
    not_equals: Option<T>,
    one_of: Vec<T>,
}

#[derive(Clone, Debug)]
struct Texts {
    /// Whether reasons may show the value.
    harmless: bool,
    equals: Option<String>,
    not_equals: Option<String>,
    one_of: Vec<String>,
    contains: Option<String>,
    matches: Option<Regex>,
}

impl Tolerance {
    /// What the checked parameters of a probe with these fields want; `None` when they want nothing.
    ///
    /// # Errors
    /// A field without a comparator, a pattern that is none: what was forgotten or mistyped must not look like a check.
    pub fn read(fields: &[ReadingField], params: &Params) -> Result<Option<Self>, Refusal> {
        let Some(given) = params.0.get(TOLERANCE).and_then(Value::as_object) else { return Ok(None) };
        let instead = "write for example { latency: { max: 250ms } }, or leave it out";
        if given.is_empty() {
            return Err(Refusal::new("tolerance: it names no field", instead));
        }
        let mut rules = Vec::new();
        for (name, wanted) in given {
            let unknown = || Refusal::new(format!("tolerance: readings have no field {name}"), instead);
            let field = fields.iter().find(|field| field.name == *name).ok_or_else(unknown)?;
            if wanted.as_object().is_none_or(serde_json::Map::is_empty) {
                return Err(Refusal::new(format!("tolerance: {name} is compared with nothing"), instead));
            }
            rules.push((name.clone(), Rule::read(field, wanted)?));
        }
        Ok(Some(Self(rules)))
    }

    /// Whether judging may take long enough for other work to feel it: patterns in texts do.
    pub fn is_slow(&self) -> bool {
        self.0.iter().any(|(_, rule)| matches!(rule, Rule::Text(Texts { matches: Some(_), .. })))
    }

    /// Whether everything that is wanted holds; else the first thing that does not, as `certificateDays was 6, at least 14
    /// wanted`. What is not known, and a number that is none, meets nothing.
    pub fn judge(&self, values: &Values) -> Result<(), String> {
        self.0.iter().try_for_each(|(name, rule)| {
            let Some(value) = values.get(name) else { return Err(format!("{name} is not known")) };
            match (rule, value) {
                (Rule::Number(limits), Measured::Number(value)) => limits.judge(name, *value),
                (Rule::Duration(limits), Measured::Duration(value)) => limits.judge(name, *value),
                (Rule::Text(texts), Measured::Text(value)) => texts.judge(name, value),
                (Rule::Flag(wanted), Measured::Flag(value)) if wanted == value => Ok(()),
                (Rule::Flag(wanted), Measured::Flag(value)) => Err(format!("{name} was {value}, {wanted} wanted")),
                _ => Err(format!("{name} is of another kind than its probe says")),
            }
        })
    }
}

impl Rule {
    fn read(field: &ReadingField, wanted: &Value) -> Result<Self, Refusal> {
        let text = |key: &str| wanted.get(key).and_then(Value::as_str).map(str::to_owned);
        Ok(match field.kind {
            FieldKind::Number => Self::Number(Limits::read(wanted)),
            FieldKind::Duration => Self::Duration(Limits::read(wanted)),
            FieldKind::Flag => Self::Flag(wanted.get("equals").and_then(Value::as_bool).unwrap_or_default()),
            FieldKind::Text => Self::Text(Texts {
                harmless: field.harmless,
                equals: text("equals"),
                not_equals: text("notEquals"),
                one_of: list(wanted).filter_map(Value::as_str).map(str::to_owned).collect(),
                contains: text("contains"),
                matches: text("matches")
                    .map(|text| pattern(&text))
                    .transpose()
                    .map_err(|why| Refusal::new(format!("tolerance: {why}"), "write a shorter or simpler pattern"))?,
            }),
        })
    }
}

fn list(wanted: &Value) -> impl Iterator<Item = &Value> {
    wanted.get("oneOf").and_then(Value::as_array).into_iter().flatten()
}

/// A quantity that is compared.
trait Quantity: PartialOrd + Copy {
    /// From its canonical form.
    fn read(value: &Value) -> Option<Self>;
    /// All of it.
    fn exact(self) -> String;
    /// With fewer figures, the candidates in order: reasons should be few, and readings small.
    fn rounded(self) -> [Self; 2];
}

impl Quantity for f64 {
    fn read(value: &Value) -> Option<Self> {
        value.as_f64()
    }

    fn exact(self) -> String {
        self.to_string()
    }

    fn rounded(self) -> [Self; 2] {
        // Three figures.
        let scale = 10_f64.powi(2_i32.saturating_sub(self.abs().log10().floor() as i32));
        let rounded = (self * scale).round() / scale;
        [if rounded.is_finite() { rounded } else { self }, self]
    }
}

impl Quantity for Dur {
    fn read(value: &Value) -> Option<Self> {
        value.as_str()?.parse().ok()
    }

    fn exact(self) -> String {
        self.to_string()
    }

    fn rounded(self) -> [Self; 2] {
        // Two figures.
        let step = 10_i64.pow(self.ns().unsigned_abs().checked_ilog10().unwrap_or_default().saturating_sub(1));
        let down = self.ns().div_euclid(step).saturating_mul(step);
        [Self::from_ns(down), Self::from_ns(down.saturating_add(step))]
    }
}

impl<T: Quantity> Limits<T> {
    fn read(wanted: &Value) -> Self {
        let one = |key: &str| wanted.get(key).and_then(T::read);
        Self {
            min: one("min"),
            max: one("max"),
            equals: one("equals"),
            not_equals: one("notEquals"),
            one_of: list(wanted).filter_map(T::read).collect(),
        }
    }

    fn judge(&self, name: &str, value: T) -> Result<(), String> {
        let against = |limit: Option<T>, holds: &[Ordering], words: [&str; 2]| match limit {
            // What is no number compares with nothing.
            Some(limit) if !value.partial_cmp(&limit).is_some_and(|order| holds.contains(&order)) => {
                let [before, after] = words;
                Err(format!("{name} was {}, {before}{}{after} wanted", shown(value, limit), limit.exact()))
            }
            _ => Ok(()),
        };
        against(self.min, &[Ordering::Greater, Ordering::Equal], ["at least ", ""])?;
        against(self.max, &[Ordering::Less, Ordering::Equal], ["at most ", ""])?;
        against(self.equals, &[Ordering::Equal], ["", ""])?;
        against(self.not_equals, &[Ordering::Greater, Ordering::Less], ["anything but ", ""])?;
        let equal = |one: &T| value.partial_cmp(one) == Some(Ordering::Equal);
        match self.one_of.first() {
            Some(first) if !self.one_of.iter().any(equal) => {
                let all: Vec<String> = self.one_of.iter().map(|one| one.exact()).collect();
                Err(format!("{name} was {}, one of {} wanted", shown(value, *first), all.join(", ")))
            }
            _ => Ok(()),
        }
    }
}

/// A value in few figures that still lie on the same side of the limit.
fn shown<T: Quantity>(value: T, limit: T) -> String {
    let same = |rounded: &T| rounded.partial_cmp(&limit) == value.partial_cmp(&limit);
    value.rounded().into_iter().find(same).unwrap_or(value).exact()
}

impl Texts {
    fn judge(&self, name: &str, value: &str) -> Result<(), String> {
        let unwanted = |wanted: &str| {
            if !self.harmless {
                // Readings are kept and shown to many; files, keys and bodies may hold what is not for them.
                return Err(format!("{name} is not what is wanted"));
            }
            let start: String = value.chars().take(SHOWN).collect();
            let more = if start.len() < value.len() { "..." } else { "" };
            Err(format!("{name} was {start:?}{more}, {wanted} wanted"))
        };
        if let Some(wanted) = self.equals.as_ref().filter(|wanted| *wanted != value) {
            return unwanted(&format!("{wanted:?}"));
        }
        if self.not_equals.as_ref().is_some_and(|wanted| wanted == value) {
            return unwanted("anything else");
        }
        if !self.one_of.is_empty() && !self.one_of.iter().any(|one| one == value) {
            return unwanted(&format!("one of {}", self.one_of.join(", ")));
        }
        if let Some(part) = self.contains.as_ref().filter(|part| !value.contains(part.as_str())) {
            return Err(format!("{name} lacks {part:?}"));
        }
        match &self.matches {
            Some(pattern) if !pattern.is_match(value) => Err(format!("{name} does not match {}", pattern.as_str())),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
