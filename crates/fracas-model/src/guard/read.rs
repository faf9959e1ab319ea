//! Source text to checked guard-rails, with every mistake told at once.

use serde_json::{Value, json};

use super::GuardRails;
use crate::{
    access,
    check::check,
    diagnostic::{Diagnostic, Findings, Span},
    document::API_VERSION,
    shape::{Field, Shape},
    tree::{self, Node},
    units::Dur,
};

const MOST: usize = 200;
const DAY: Dur = Dur::from_secs(86_400);

fn environments() -> Field {
    Field::with_default(
        "environments",
        Shape::List { of: Box::new(Shape::Text { max: access::MAX_ENVIRONMENT }), min: 0, max: MOST },
        json!([]),
        "Only in these environments; none means all.",
    )
}

fn limit() -> Shape {
    let count = || Shape::Integer { min: 0, max: 1_000_000 };
    Shape::Object(vec![
        Field::required("name", Shape::Name, "Its name, which refusals tell."),
        environments(),
        Field::optional("select", Shape::Selector, "Only hosts with these labels; without it all."),
        Field::optional("maxHosts", count(), "At most so many of them under fault at once, over all runs."),
        Field::optional(
            "maxPercent",
            Shape::Percent { min: 0.0, max: 100.0 },
            "At most this share of them under fault at once, over all runs.",
        ),
        Field::optional(
            "minHealthy",
            count(),
            "At least so many of them in contact, not quarantined and not under fault; when others are lost during a run and \
             it does not hold any more, the run ends.",
        ),
        Field::with_default(
            "rounding",
            Shape::choice(&["floor", "ceil", "atLeastOne"]),
            "floor",
            "How a share of hosts becomes a number.",
        ),
    ])
}

fn rule() -> Shape {
    Shape::Object(vec![
        Field::required("name", Shape::Name, "Its name, which refusals tell."),
        environments(),
        Field::with_default(
            "faults",
            Shape::List { of: Box::new(Shape::Text { max: 64 }), min: 0, max: MOST },
            json!([]),
            "With one of these faults; `net-*` stands for all that begin so; none means any.",
        ),
        Field::optional("moreHostsThan", Shape::Integer { min: 0, max: 1_000_000 }, "On more hosts than this."),
        Field::optional("longerThan", Shape::duration(Dur::ZERO, DAY), "With a fault that lasts longer than this."),
        Field::with_default(
            "count",
            Shape::Integer { min: 1, max: 10 },
            1,
            "So many people must approve; whoever asks for it does not count.",
        ),
        Field::with_default(
            "validFor",
            Shape::duration(Dur::from_secs(60), Dur::from_secs(366 * 86_400)),
            "1d",
            "How long an approval holds.",
        ),
    ])
}

/// The form of guard-rails.
pub fn guard_rails_shape() -> Shape {
    let list = |of| Shape::List { of: Box::new(of), min: 0, max: MOST };
    Shape::Object(vec![
        Field::required("apiVersion", Shape::choice(&[API_VERSION]), "Version of this grammar."),
        Field::required("kind", Shape::choice(&["GuardRails"]), "What this document is."),
        Field::with_default("limits", list(limit()), json!([]), "How much may suffer at once, over all runs."),
        Field::with_default("approvals", list(rule()), json!([]), "Which runs need approval."),
    ])
}

/// Whether a text says that it is guard-rails, whatever else is wrong with it.
pub fn is_guard_rails(text: &str) -> bool {
    let text = tree::normalise(text);
    let root = tree::parse(&text, &mut Findings::new("", &text));
    root.is_some_and(|root| root.get("kind").and_then(Node::text) == Some("GuardRails"))
}

/// Reads guard-rails; `file` is their name for messages. With them come the warnings.
///
/// # Errors
/// Every mistake found, in the order of the text; never empty.
pub fn read_guard_rails(file: &str, text: &str) -> Result<(GuardRails, Vec<Diagnostic>), Vec<Diagnostic>> {
    let text = tree::normalise(text);
    let mut findings = Findings::new(file, &text);
    let Some(root) = tree::parse(&text, &mut findings) else { return Err(told(findings)) };
    let value = check(&root, &guard_rails_shape(), &mut findings).unwrap_or(Value::Null);
    meaning(&root, &mut findings);
    let warnings = findings.finish()?;
    serde_json::from_value(value).map(|rails| (rails, warnings)).map_err(|error| {
        let mut findings = Findings::new(file, "");
        let help = "please report this as a mistake of fracas";
        findings.error(Span::default(), format!("the guard-rails could not be read: {error}"), help);
        told(findings)
    })
}

fn told(findings: Findings<'_>) -> Vec<Diagnostic> {
    findings.finish().err().unwrap_or_default()
}

fn meaning(root: &Node, findings: &mut Findings<'_>) {
    for section in ["limits", "approvals"] {
        let items = root.get(section).map(Node::items).unwrap_or_default();
        for (i, item) in items.iter().enumerate() {
            let name = item.get("name").and_then(Node::text);
            let twice = name.is_some() && items[..i].iter().any(|other| other.get("name").and_then(Node::text) == name);
            if twice {
                let help = "give each a name of its own, so that refusals can tell them apart";
                findings.error(item.span, format!("a second one is called `{}`", name.unwrap_or_default()), help);
            }
            for one in item.get("environments").map(Node::items).unwrap_or_default() {
                if let Some(Err(why)) = one.text().map(access::environment) {
                    findings.error(one.span, why, "name an environment as runs and hosts do");
                }
            }
            let bounds = ["maxHosts", "maxPercent", "minHealthy"];
            if section == "limits" && bounds.iter().all(|bound| item.get(bound).is_none()) {
                findings.error(item.span, "the limit bounds nothing", "write maxHosts, maxPercent or minHealthy");
            }
        }
    }
}
