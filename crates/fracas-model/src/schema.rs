//! The JSON Schema (2020-12) of documents, made from the same shapes that check them, so that editors and `validate` agree.
//!
//! A schema cannot say what keys mean to each other (that a name is declared, that two faults clash): `validate` does.

use serde_json::{Map, Value, json};

use crate::{
    catalogue::Catalogue,
    document::{API_VERSION, experiment_shape},
    gameday::game_day_shape,
    guard::guard_rails_shape,
    pattern,
    schedule::schedule_shape,
    shape::{Field, Group, Shape},
};

/// The dialect that every schema here is written in.
pub const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Text with a parameter in it, which takes the place of any value.
const PARAMETER: &str = r"\$\{[a-z0-9]([-a-z0-9]*[a-z0-9])?\}";

/// The schema of an experiment, with the faults and probes of this catalogue.
pub fn json_schema(catalogue: &Catalogue) -> Value {
    whole("Experiment", "A fault-injection experiment for Fracas.", &experiment_shape(catalogue))
}

/// The schema of a game day, with the probes of this catalogue.
pub fn game_day_json_schema(catalogue: &Catalogue) -> Value {
    whole("GameDay", "Several experiments that Fracas runs one after another.", &game_day_shape(catalogue))
}

/// The schema of a schedule.
pub fn schedule_json_schema() -> Value {
    whole("Schedule", "When Fracas runs an experiment by itself.", &schedule_shape())
}

/// The schema of guard-rails.
pub fn guard_rails_json_schema() -> Value {
    whole("GuardRails", "What bounds all runs of Fracas together.", &guard_rails_shape())
}

fn whole(kind: &str, description: &str, shape: &Shape) -> Value {
    let mut schema = Map::new();
    schema.insert("$schema".into(), DIALECT.into());
    schema.insert("title".into(), format!("{API_VERSION} {kind}").into());
    schema.insert("description".into(), description.into());
    schema.extend(of(shape));
    schema.insert("$defs".into(), json!({ "parameter": { "type": "string", "pattern": PARAMETER } }));
    Value::Object(schema)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// A scalar that is no text may also be given by a parameter.
fn or_parameter(value: Value) -> Map<String, Value> {
    object(json!({ "anyOf": [value, { "$ref": "#/$defs/parameter" }] }))
}

fn text(pattern: &str) -> Map<String, Value> {
    or_parameter(json!({ "type": "string", "pattern": pattern }))
}

fn of(shape: &Shape) -> Map<String, Value> {
    match shape {
        Shape::Text { max } => object(json!({ "type": "string", "maxLength": max })),
        Shape::Pattern => object(json!({ "type": "string", "maxLength": pattern::LONGEST })),
        Shape::Name => text("^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"),
        Shape::Bool => or_parameter(json!({ "type": "boolean" })),
        Shape::Integer { min, max } => or_parameter(json!({ "type": "integer", "minimum": min, "maximum": max })),
        Shape::Number => or_parameter(json!({ "type": "number" })),
        Shape::Duration { .. } => text(r"^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h|d))+$"),
        Shape::Percent { .. } => text(r"^[0-9]+(\.[0-9]+)?%$"),
        Shape::Size { .. } => text(r"^[0-9]+(\.[0-9]+)?(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)$"),
        Shape::Cidr => text(r"^[0-9a-fA-F.:]+(/[0-9]{1,3})?$"),
        Shape::Ports => or_parameter(json!({ "anyOf": [
            { "type": "integer", "minimum": 1, "maximum": 65535 },
            { "type": "string", "pattern": "^[0-9]{1,5}(-[0-9]{1,5})?$" },
        ] })),
        Shape::Path => text("^/"),
        Shape::Url => text("^https?://"),
        Shape::Address => text("^.+:[0-9]{1,5}$"),
        Shape::Choice(words) => or_parameter(json!({ "enum": words })),
        Shape::Selector => object(json!({ "type": "string", "minLength": 1 })),
        Shape::Scalar => object(json!({ "type": ["string", "number", "boolean"] })),
        Shape::List { of: each, min, max } => {
            object(json!({ "type": "array", "items": of(each), "minItems": min, "maxItems": max }))
        }
        Shape::Map { of: each, max } => {
            object(json!({ "type": "object", "additionalProperties": of(each), "maxProperties": max }))
        }
        Shape::Object(fields) => record(fields, &[]),
        Shape::OneOf(fields) => record(&[], &[Group { what: "key".into(), of: fields.clone() }]),
        Shape::Record { fields, groups } => record(fields, groups),
        Shape::Either(shapes) => {
            let each: Vec<Value> = shapes.iter().map(|s| Value::Object(of(s))).collect();
            object(json!({ "anyOf": each }))
        }
    }
}

/// Keys that are reserved but not built are left out, so that editors mark them as `validate` does.
fn record(fields: &[Field], groups: &[Group]) -> Map<String, Value> {
    let built = |field: &&Field| field.not_built.is_none();
    let all = fields.iter().chain(groups.iter().flat_map(|g| &g.of)).filter(built);
    let properties: Map<String, Value> = all.map(|f| (f.name.clone(), Value::Object(property(f)))).collect();
    let required: Vec<&str> = fields.iter().filter(|f| f.required).map(|f| f.name.as_str()).collect();
    let mut schema = object(
        json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false }),
    );
    let one_of = |group: &Group| {
        let each: Vec<Value> = group.of.iter().filter(built).map(|f| json!({ "required": [f.name] })).collect();
        json!({ "oneOf": each })
    };
    match groups {
        [] => {}
        [one] => schema.extend(object(one_of(one))),
        several => {
            schema.insert("allOf".into(), several.iter().map(one_of).collect());
        }
    }
    schema
}

fn property(field: &Field) -> Map<String, Value> {
    let mut schema = of(&field.shape);
    schema.insert("description".into(), field.doc.clone().into());
    if let Some(default) = &field.default {
        schema.insert("default".into(), default.clone());
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{starter, tests::catalogue};

    fn validator() -> jsonschema::Validator {
        jsonschema::draft202012::options().build(&json_schema(&catalogue())).expect("a schema that is one")
    }

    #[test]
    fn the_schema_is_one() {
        assert!(jsonschema::draft202012::meta::is_valid(&json_schema(&catalogue())));
    }

    #[test]
    fn what_is_read_meets_the_schema_and_mistakes_do_not() {
        let validator = validator();
        let read =
            crate::document::read_experiment("starter", starter(), &std::collections::BTreeMap::new(), &catalogue());
        let document = read.expect("the starter is valid").document;
        assert_eq!(validator.iter_errors(&document).map(|e| e.to_string()).collect::<Vec<_>>(), Vec::<String>::new());
        for (pointer, value) in [
            ("/lease", json!(15)),
            ("/timeline/0/at", json!("soon")),
            ("/timeline/0/manual", json!(true)),
            ("/timeline/0/after", json!({ "ended": "slow" })),
            ("/timeline/0/fault/process-kill/signal", json!("STOPP")),
            ("/timeline/1/fault/net-delay/ports/0", json!(70_000)),
            ("/kind", json!("Drill")),
            ("/surprise", json!(1)),
        ] {
            let mut changed = document.clone();
            let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
            match changed.pointer_mut(parent).expect(pointer) {
                Value::Object(map) => drop(map.insert(key.into(), value)),
                Value::Array(list) => list[key.parse::<usize>().expect("an index")] = value,
                other => panic!("{pointer}: {other}"),
            }
            assert!(!validator.is_valid(&changed), "{pointer}");
        }
    }

    #[test]
    fn a_parameter_may_stand_for_any_scalar() {
        let read = crate::document::read_experiment("s", starter(), &std::collections::BTreeMap::new(), &catalogue());
        let mut document = read.expect("valid").document;
        document["lease"] = json!("${lease}");
        document["timeline"][0]["required"] = json!("${on}");
        assert!(validator().is_valid(&document));
    }
}
