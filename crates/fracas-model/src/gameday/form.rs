//! The form of a game day as data: every key with its documentation, bounds and default. What keys mean is elsewhere.

use serde_json::json;

use crate::{
    catalogue::Catalogue,
    document::{
        API_VERSION,
        form::{LONGEST, abort_when, approval, limits, list, map, on_failure, probe, recovery, target},
    },
    parameters::parameters_shape,
    shape::{Field, Shape},
    units::Dur,
};

/// Most sections of a day.
const SECTIONS: usize = 50;
/// Most people who take part.
const PEOPLE: usize = 200;

/// The form of a game day, with the probes of this catalogue.
pub fn game_day_shape(catalogue: &Catalogue) -> Shape {
    let text = |max| Shape::Text { max };
    Shape::Object(vec![
        Field::required("apiVersion", Shape::choice(&[API_VERSION]), "Version of this grammar."),
        Field::required("kind", Shape::choice(&["GameDay"]), "What this document is."),
        Field::required("name", Shape::Name, "Name of the game day; runs are compared by it."),
        Field::with_default("description", text(4096), "", "What happens in it."),
        Field::with_default("purpose", text(4096), "", "What it is to find out or to train."),
        Field::with_default("owner", text(256), "", "Who answers for it."),
        Field::with_default(
            "participants",
            Shape::List { of: Box::new(text(256)), min: 0, max: PEOPLE },
            json!([]),
            "Who takes part.",
        ),
        Field::optional(
            "parameters",
            parameters_shape(),
            "Values that may be given from outside, put in place of ${name}.",
        ),
        Field::required("sections", Shape::list(section(), SECTIONS), "Its experiments, one after another."),
        Field::with_default("targets", map(target()), json!({}), "Rules that draw the hosts its own probes look from."),
        Field::with_default(
            "probes",
            map(probe(catalogue)),
            json!({}),
            "What is looked at from the beginning to the end, beside what sections look at.",
        ),
        Field::optional(
            "recovery",
            recovery(),
            "How recovery is declared in all sections; the longest times of the sections when absent.",
        ),
        Field::with_default("abortWhen", list(abort_when()), json!([]), "What ends the whole day before its time."),
        Field::with_default(
            "limits",
            limits(),
            json!({"rounding": "floor"}),
            "How many hosts all sections together may put under fault; each keeps its own limits beside.",
        ),
        Field::optional(
            "lease",
            Shape::duration(Dur::from_secs(1), Dur::from_secs(600)),
            "How long faults live when a host loses contact with the controller; the shortest of the sections when absent.",
        ),
    ])
}

fn section() -> Shape {
    Shape::Object(vec![
        Field::required("id", Shape::Name, "Name of the section, unique in the day."),
        Field::required("experiment", Shape::Text { max: 1024 }, "File of its experiment, beside this one."),
        Field::with_default(
            "parameters",
            Shape::Map { of: Box::new(Shape::Scalar), max: 100 },
            json!({}),
            "Values of the experiment's parameters.",
        ),
        Field::optional("waitBefore", Shape::duration(Dur::from_ms(1), LONGEST), "How long to wait first."),
        Field::optional("approval", approval(), "Go or no-go: begin only when somebody else says so."),
        on_failure("What when its steady state is not met: abort the day, or skip this section."),
    ])
}
