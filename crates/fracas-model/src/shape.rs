//! What a piece of a document may look like, as data: one description serves checking, JSON Schema and help.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::units::{Dur, Size};

/// The form a value must have. `check` (module `document`) turns a matching tree into canonical JSON:
/// durations, percents and sizes become their shortest text, ports become text, defaults are filled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Shape {
    /// Free text, at most `max` bytes.
    Text {
        /// Longest text in bytes.
        max: usize,
    },
    /// A name: `[a-z0-9]([-a-z0-9]*[a-z0-9])?`, at most 63 characters.
    Name,
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Integer {
        /// Smallest allowed.
        min: i64,
        /// Largest allowed.
        max: i64,
    },
    /// A decimal number such as `0.05` or `-3`, finite.
    Number,
    /// A duration with a unit.
    Duration {
        /// Shortest allowed.
        min: Dur,
        /// Longest allowed.
        max: Dur,
    },
    /// A percentage with its sign.
    Percent {
        /// Smallest allowed.
        min: f64,
        /// Largest allowed.
        max: f64,
    },
    /// A number of bytes with a unit.
    Size {
        /// Smallest allowed.
        min: Size,
        /// Largest allowed.
        max: Size,
    },
    /// An IP network such as `10.0.0.0/8` or a single address.
    Cidr,
    /// A regular expression; see [`crate::pattern`].
    Pattern,
    /// A port (`5432`) or a range of ports (`8000-8100`); canonical form is text.
    Ports,
    /// An absolute path without `..`.
    Path,
    /// An `http` or `https` URL.
    Url,
    /// `host:port`; an IPv6 address in brackets.
    Address,
    /// One of these words.
    Choice(Vec<String>),
    /// A Kubernetes label selector in text form: `role=db,tier in (a, b)`.
    Selector,
    /// Any scalar; for defaults whose type another field gives.
    Scalar,
    /// A list.
    List {
        /// Form of each element.
        of: Box<Shape>,
        /// Fewest elements.
        min: usize,
        /// Most elements.
        max: usize,
    },
    /// Names mapped to values.
    Map {
        /// Form of each value.
        of: Box<Shape>,
        /// Most entries.
        max: usize,
    },
    /// A mapping with known keys.
    Object(Vec<Field>),
    /// A mapping with exactly one of these keys.
    OneOf(Vec<Field>),
    /// A mapping with known keys, and exactly one key out of each group: `id` beside one trigger and one action.
    Record {
        /// Keys that stand by themselves.
        fields: Vec<Field>,
        /// Exactly one key of each.
        groups: Vec<Group>,
    },
    /// First shape that fits by node kind: a scalar, list and mapping form may stand side by side.
    Either(Vec<Shape>),
}

/// Keys of which exactly one stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// What such a key is, for messages: `trigger`, `fault`, `probe`.
    pub what: String,
    /// The keys.
    pub of: Vec<Field>,
}

/// A key of a mapping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Field {
    /// The key, camelCase (fault and probe names are kebab-case).
    pub name: String,
    /// One sentence for help, docs and schema.
    pub doc: String,
    /// The form of the value.
    pub shape: Shape,
    /// Whether it must be present.
    pub required: bool,
    /// What stands in when it is absent, in canonical form.
    pub default: Option<Value>,
    /// For keys that the grammar reserves but this version does not run: what to say instead.
    pub not_built: Option<String>,
}

impl Field {
    /// A key that must be present.
    pub fn required(name: &str, shape: Shape, doc: &str) -> Self {
        Self { required: true, ..Self::optional(name, shape, doc) }
    }

    /// A key that may be absent, without default.
    pub fn optional(name: &str, shape: Shape, doc: &str) -> Self {
        Self { name: name.into(), doc: doc.into(), shape, required: false, default: None, not_built: None }
    }

    /// A key with a default, given in canonical form.
    pub fn with_default(name: &str, shape: Shape, default: impl Into<Value>, doc: &str) -> Self {
        Self { default: Some(default.into()), ..Self::optional(name, shape, doc) }
    }

    /// A key that is refused by name, with advice.
    pub fn reserved(name: &str, advice: &str) -> Self {
        Self { not_built: Some(advice.into()), ..Self::optional(name, Shape::Scalar, "not built yet") }
    }
}

impl Shape {
    /// A duration between the bounds.
    pub fn duration(min: Dur, max: Dur) -> Self {
        Self::Duration { min, max }
    }

    /// A list of at least one and at most `max`.
    pub fn list(of: Self, max: usize) -> Self {
        Self::List { of: Box::new(of), min: 1, max }
    }

    /// One of the words.
    pub fn choice(words: &[&str]) -> Self {
        Self::Choice(words.iter().map(|w| (*w).to_owned()).collect())
    }
}
