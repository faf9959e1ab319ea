//! `fracas faults`, `fracas probes` and `fracas ledgers`: the catalogue as a table, or one entry as a page with an example document.

use fracas_model::{
    catalogue::{Capability, FaultInfo, LedgerInfo, Nature, ProbeInfo},
    shape::{Field, Shape},
    tolerance::{FieldKind, ReadingField},
};

use crate::{Session, args::NameArgs, error::CliError, exit, table::table};

pub(crate) fn faults(session: &Session<'_>, given: &NameArgs) -> Result<u8, CliError> {
    let faults = &session.world.catalogue.faults;
    let Some(name) = &given.name else {
        if session.output.json {
            session.output.json("fracas.faults/v1", &serde_json::json!({ "faults": faults }))?;
        } else {
            let rows: Vec<Vec<String>> =
                faults.iter().map(|f| vec![f.name.clone(), nature(f.nature).into(), f.summary.clone()]).collect();
            session.output.text(&table(session.width(), &["fault", "nature", "what it does"], &rows))?;
            session.output.notice("\nparameters and an example: fracas faults NAME");
        }
        return Ok(exit::PASS);
    };
    let known = || faults.iter().map(|f| f.name.as_str()).collect::<Vec<_>>();
    let fault = session.world.catalogue.fault(name).ok_or_else(|| unknown("fault", name, &known()))?;
    if session.output.json {
        session.output.json("fracas.fault/v1", fault)?;
    } else {
        session.output.text(&fault_page(fault, session.width()))?;
    }
    Ok(exit::PASS)
}

pub(crate) fn probes(session: &Session<'_>, given: &NameArgs) -> Result<u8, CliError> {
    let probes = &session.world.catalogue.probes;
    let Some(name) = &given.name else {
        if session.output.json {
            session.output.json("fracas.probes/v1", &serde_json::json!({ "probes": probes }))?;
        } else {
            let rows: Vec<Vec<String>> = probes.iter().map(|p| vec![p.name.clone(), p.summary.clone()]).collect();
            session.output.text(&table(session.width(), &["probe", "what it looks at"], &rows))?;
            session.output.notice("\nparameters and an example: fracas probes NAME");
        }
        return Ok(exit::PASS);
    };
    let known = || probes.iter().map(|p| p.name.as_str()).collect::<Vec<_>>();
    let probe = session.world.catalogue.probe(name).ok_or_else(|| unknown("probe", name, &known()))?;
    if session.output.json {
        session.output.json("fracas.probe/v1", probe)?;
    } else {
        session.output.text(&probe_page(probe, session.width()))?;
    }
    Ok(exit::PASS)
}

pub(crate) fn ledgers(session: &Session<'_>, given: &NameArgs) -> Result<u8, CliError> {
    let ledgers = &session.world.catalogue.ledgers;
    let Some(name) = &given.name else {
        if session.output.json {
            session.output.json("fracas.ledgers/v1", &serde_json::json!({ "ledgers": ledgers }))?;
        } else {
            let rows: Vec<Vec<String>> =
                ledgers.iter().map(|l| vec![l.name.clone(), l.place.clone(), l.summary.clone()]).collect();
            session.output.text(&table(session.width(), &["ledger", "place", "where markers stand"], &rows))?;
            session.output.notice("\nparameters and an example: fracas ledgers NAME");
        }
        return Ok(exit::PASS);
    };
    let known = || ledgers.iter().map(|l| l.name.as_str()).collect::<Vec<_>>();
    let ledger = session.world.catalogue.ledger(name).ok_or_else(|| unknown("ledger", name, &known()))?;
    if session.output.json {
        session.output.json("fracas.ledger/v1", ledger)?;
    } else {
        session.output.text(&ledger_page(ledger, session.width()))?;
    }
    Ok(exit::PASS)
}

fn unknown(what: &str, name: &str, known: &[&str]) -> CliError {
    CliError::usage(format!("there is no {what} {name:?}; there are {}", known.join(", ")))
}

fn nature(nature: Nature) -> &'static str {
    match nature {
        Nature::Lasting => "lasting",
        Nature::Spent => "one-shot",
    }
}

fn fault_page(fault: &FaultInfo, width: usize) -> String {
    let mut page =
        format!("{} ({})\n{}\n\n{}\n", fault.name, nature(fault.nature), fault.summary, fold(&fault.help, width));
    page += &parameters(&fault.params, width);
    if !fault.needs.is_empty() {
        let ways: Vec<String> = fault
            .needs
            .iter()
            .map(|all| all.iter().copied().map(Capability::word).collect::<Vec<_>>().join(" + "))
            .collect();
        page += &format!("\nneeds of the host: {}\n", ways.join(", or "));
    }
    page + "\nexample\n" + &indent(&fault_document(fault))
}

fn probe_page(probe: &ProbeInfo, width: usize) -> String {
    let page = format!("{}\n{}\n\n{}\n", probe.name, probe.summary, fold(&probe.help, width));
    page + &parameters(&probe.params, width) + &reading(probe, width) + "\nexample\n" + &indent(&probe_document(probe))
}

fn ledger_page(ledger: &LedgerInfo, width: usize) -> String {
    let page = format!("{}\n{}\n\n{}\n", ledger.name, ledger.summary, fold(&ledger.help, width));
    page + &parameters(&ledger.params, width) + "\nexample\n" + &indent(&ledger_document(ledger))
}

/// A whole document that keeps such a ledger; what is broken meanwhile is for its reader to say.
pub(crate) fn ledger_document(ledger: &LedgerInfo) -> String {
    format!(
        "apiVersion: fracas/v1\nkind: Experiment\nname: try-{0}\ntargets:\n  some: {{ select: \"role=web\", pick: {{ count: 1 }} }}\n\
         services:\n  web: {{ rpo: 5s }}\nledgers:\n  web-data:\n    service: web\n    {0}: {1}\n    from: some\n    every: 100ms\n\
         timeline:\n  - {{ id: your-fault, at: 0s, wait: 30s }}\n",
        ledger.name, ledger.example
    )
}

/// The fields of a probe's readings with the comparators of each.
fn reading(probe: &ProbeInfo, width: usize) -> String {
    if probe.reading.is_empty() {
        return String::new();
    }
    let row = |field: &ReadingField| {
        let (kind, comparators) = match field.kind {
            FieldKind::Number if field.unit.is_empty() => ("number", QUANTITY),
            FieldKind::Number => (field.unit.as_str(), QUANTITY),
            FieldKind::Duration => ("duration", QUANTITY),
            FieldKind::Text => ("text", "equals, notEquals, oneOf, contains, matches"),
            FieldKind::Flag => ("true or false", "equals"),
        };
        vec![field.name.clone(), kind.to_owned(), comparators.to_owned(), field.doc.clone()]
    };
    let rows: Vec<Vec<String>> = probe.reading.iter().map(row).collect();
    format!("\n{}", table(width, &["reading", "form", "comparators in tolerance", "meaning"], &rows))
}

/// By what a number or a duration is compared.
const QUANTITY: &str = "min, max, equals, notEquals, oneOf";

/// A whole document that runs this fault, ready to be saved.
pub(crate) fn fault_document(fault: &FaultInfo) -> String {
    let lasting = if fault.nature == Nature::Lasting { "    for: 30s\n" } else { "" };
    format!(
        "apiVersion: fracas/v1\nkind: Experiment\nname: try-{}\ntargets:\n  some: {{ select: \"role=web\", pick: {{ count: 1 }} }}\n\
         timeline:\n  - id: trouble\n    at: 0s\n    fault: {}\n    target: some\n{lasting}",
        fault.name, fault.example
    )
}

/// A whole document that looks with this probe.
pub(crate) fn probe_document(probe: &ProbeInfo) -> String {
    format!(
        "apiVersion: fracas/v1\nkind: Experiment\nname: try-{0}\ntargets:\n  some: {{ select: \"role=web\", pick: {{ count: 1 }} }}\n\
         services:\n  web: {{ rto: 30s }}\nprobes:\n  web-up:\n    service: web\n    {0}: {1}\n    from: some\n    every: 1s\n    timeout: 500ms\n\
         steadyState: {{ probes: [web-up], holdFor: 5s }}\ntimeline:\n  - {{ id: look, at: 0s, wait: 30s }}\n",
        probe.name, probe.example
    )
}

fn parameters(fields: &[Field], width: usize) -> String {
    if fields.is_empty() {
        return "\nno parameters\n".to_owned();
    }
    let rows: Vec<Vec<String>> = fields.iter().filter(|f| f.not_built.is_none()).map(parameter).collect();
    format!("\n{}", table(width, &["parameter", "form", "default", "meaning"], &rows))
}

fn parameter(field: &Field) -> Vec<String> {
    let default = match &field.default {
        _ if field.required => "required".to_owned(),
        None => "-".to_owned(),
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    vec![field.name.clone(), form(&field.shape), default, field.doc.clone()]
}

/// A shape in words, units and bounds included.
fn form(shape: &Shape) -> String {
    let keys = |fields: &[Field]| fields.iter().map(|f| f.name.clone()).collect::<Vec<_>>().join(", ");
    match shape {
        Shape::Text { .. } => "text".into(),
        Shape::Name => "name".into(),
        Shape::Bool => "true or false".into(),
        Shape::Number => "number".into(),
        Shape::Integer { min, max } => format!("number {min} to {max}"),
        Shape::Duration { min, max } => format!("duration {min} to {max}"),
        Shape::Percent { min, max } => format!("percentage {min}% to {max}%"),
        Shape::Size { min, max } => format!("size {min} to {max}"),
        Shape::Cidr => "network or address".into(),
        Shape::Pattern => "pattern".into(),
        Shape::Ports => "port or range".into(),
        Shape::Path => "absolute path".into(),
        Shape::Url => "http(s) URL".into(),
        Shape::Address => "host:port".into(),
        Shape::Choice(words) => words.join(" | "),
        Shape::Selector => "label selector".into(),
        Shape::Scalar => "value".into(),
        Shape::List { of, .. } => format!("list of {}", form(of)),
        Shape::Map { of, .. } => format!("map to {}", form(of)),
        Shape::Object(fields) => format!("{{ {} }}", keys(fields)),
        Shape::OneOf(fields) => format!("one of {{ {} }}", keys(fields)),
        Shape::Record { fields, groups } => {
            let one: Vec<String> = groups.iter().map(|g| format!("one of {}", keys(&g.of))).collect();
            format!("{{ {}; {} }}", keys(fields), one.join("; "))
        }
        Shape::Either(shapes) => shapes.iter().map(form).collect::<Vec<_>>().join(", or "),
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// Paragraphs broken at spaces so that lines have at most `width` columns.
fn fold(text: &str, width: usize) -> String {
    let mut folded = String::new();
    for line in text.lines() {
        let mut column = 0;
        for word in line.split(' ') {
            let length = word.chars().count();
            if column > 0 && column + 1 + length > width {
                folded.push('\n');
                column = 0;
            } else if column > 0 {
                folded.push(' ');
                column += 1;
            }
            folded.push_str(word);
            column += length;
        }
        folded.push('\n');
    }
    folded
}

#[cfg(test)]
mod tests {
    use fracas_model::units::Dur;

    use super::*;

    #[test]
    fn a_page_teaches_parameters_needs_and_a_document() {
        let delay = Shape::duration(Dur::from_ms(1), Dur::from_secs(10));
        let fault = FaultInfo {
            name: "lag".into(),
            summary: "holds packets".into(),
            help: "Some help that is folded.".into(),
            params: vec![Field::required("delay", delay, "how long each packet is held")],
            nature: Nature::Lasting,
            needs: vec![vec![Capability::Netem], vec![Capability::NftOwner, Capability::Nfqueue]],
            example: "{ lag: { delay: 200ms } }".into(),
        };
        let page = fault_page(&fault, 80);
        for part in [
            "lag (lasting)",
            "delay      duration 1ms to 10s  required  how long each packet is held",
            "needs of the host: netem, or nft-owner + nfqueue",
            "      fault: { lag: { delay: 200ms } }\n      target: some\n      for: 30s\n",
        ] {
            assert!(page.contains(part), "{part:?} is not in:\n{page}");
        }
    }

    #[test]
    fn text_is_folded_at_spaces() {
        assert_eq!(fold("one two three\n\nfour", 8), "one two\nthree\n\nfour\n");
    }
}
