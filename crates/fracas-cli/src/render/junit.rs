//! A report as JUnit XML, the form in which CI systems take test results: a case for the verdict, for each service's
//! objective, and for each fault on each host. What was not shown is an error there, never a success.

use std::fmt::Write as _;

use fracas_model::{
    event::{Proof, VerdictWord},
    report::{EntryReport, ItemReport, Judgement, Report, ServiceReport},
};

use super::{
    page::escape,
    words::{self, judgement_why},
};
use crate::times;

/// How a case came out.
enum Outcome {
    Passed,
    /// The thing under test is at fault.
    Failed(String, String),
    /// Nobody knows, or the tool is at fault.
    Unknown(String, String),
    /// It was not asked.
    Skipped(String),
}

struct Case {
    class: String,
    name: String,
    seconds: f64,
    outcome: Outcome,
}

/// The whole file.
pub fn junit(report: &Report) -> String {
    let mut cases = vec![verdict(report)];
    cases.extend(report.services.iter().map(|one| service(report, one)));
    for entry in report.entries.iter().filter(|entry| entry.target.is_some()) {
        cases.extend(entry.items.iter().map(|item| fault(report, entry, item)));
        if entry.items.is_empty() {
            cases.push(untouched(report, entry));
        }
    }
    let number = |wanted: fn(&Outcome) -> bool| cases.iter().filter(|case| wanted(&case.outcome)).count();
    let failures = number(|outcome| matches!(outcome, Outcome::Failed(..)));
    let errors = number(|outcome| matches!(outcome, Outcome::Unknown(..)));
    let skipped = number(|outcome| matches!(outcome, Outcome::Skipped(_)));
    let seconds = report.times.last_ns.saturating_sub(report.times.first_ns).max(0) as f64 / 1e9;
    let counts = format!("tests=\"{}\" failures=\"{failures}\" errors=\"{errors}\"", cases.len());
    let stamp = times::utc(report.times.planned_wall_ns);
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"fracas\" {counts} time=\"{seconds:.3}\">\n\
         <testsuite name=\"{}\" {counts} skipped=\"{skipped}\" time=\"{seconds:.3}\" timestamp=\"{}\">\n<properties>\n",
        xml(&report.name),
        stamp.get(..19).unwrap_or(&stamp)
    );
    let properties = [
        ("run", report.run.to_string()),
        ("environment", report.environment.clone()),
        ("seed", report.seed.to_string()),
        ("intent", report.intent.clone()),
        ("plan", report.plan.clone()),
        ("verdict", report.verdict.word.name().to_owned()),
        ("exitCode", report.verdict.exit_code.to_string()),
    ];
    for (name, value) in properties {
        let _ = writeln!(out, "<property name=\"{name}\" value=\"{}\"/>", xml(&value));
    }
    out += "</properties>\n";
    for case in &cases {
        write_case(case, &mut out);
    }
    let text: String = report.warnings.iter().map(|warning| format!("{}\n", xml(warning))).collect();
    if !text.is_empty() {
        let _ = writeln!(out, "<system-out>{text}</system-out>");
    }
    out + "</testsuite>\n</testsuites>\n"
}

fn write_case(case: &Case, out: &mut String) {
    let _ = write!(
        out,
        "<testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\"",
        xml(&case.class),
        xml(&case.name),
        case.seconds
    );
    let _ = match &case.outcome {
        Outcome::Passed => writeln!(out, "/>"),
        Outcome::Failed(kind, why) => {
            let (kind, why) = (xml(kind), xml(why));
            writeln!(out, "><failure type=\"{kind}\" message=\"{why}\">{why}</failure></testcase>")
        }
        Outcome::Unknown(kind, why) => {
            let (kind, why) = (xml(kind), xml(why));
            writeln!(out, "><error type=\"{kind}\" message=\"{why}\">{why}</error></testcase>")
        }
        Outcome::Skipped(why) => writeln!(out, "><skipped message=\"{}\"/></testcase>", xml(why)),
    };
}

/// Foreign text for attributes and content: what XML 1.0 cannot hold at all is left out as well.
fn xml(text: &str) -> String {
    escape(text).replace(['\u{fffe}', '\u{ffff}'], "")
}

fn verdict(report: &Report) -> Case {
    let (word, why) = (report.verdict.word.name().to_owned(), report.verdict.reasons.join("; "));
    let outcome = match report.verdict.word {
        _ if !report.times.finished => Outcome::Unknown("unfinished".into(), "the run has not ended".into()),
        VerdictWord::Pass => Outcome::Passed,
        VerdictWord::Fail => Outcome::Failed(word, why),
        _ => Outcome::Unknown(word, why),
    };
    Case { class: report.name.clone(), name: "verdict".into(), seconds: 0.0, outcome }
}

fn service(report: &Report, one: &ServiceReport) -> Case {
    let objective = one.rto.map(|rto| format!(" is back within {rto}")).unwrap_or_default();
    let why = judgement_why(&one.judgement).to_owned();
    let outcome = match &one.judgement {
        Judgement::Met { .. } => Outcome::Passed,
        Judgement::Missed { .. } => Outcome::Failed("missed".into(), why),
        Judgement::Inconclusive { .. } => Outcome::Unknown("inconclusive".into(), why),
        Judgement::NotMeasured { .. } => Outcome::Unknown("not measured".into(), why),
        Judgement::NoObjective => Outcome::Skipped(why),
    };
    let seconds = one.outage.map_or(0.0, |outage| outage.hi.unwrap_or(outage.lo).secs_f64());
    Case { class: format!("{}.services", report.name), name: format!("{}{objective}", one.service), seconds, outcome }
}

fn fault(report: &Report, entry: &EntryReport, item: &ItemReport) -> Case {
    let why = words::proof(item);
    let outcome = match &item.proof {
        _ if item.unconfirmed => Outcome::Unknown("undo unconfirmed".into(), words::undo(item)),
        Some(Proof::Verified) => Outcome::Passed,
        _ if !entry.required => Outcome::Skipped(format!("not required, and {why}")),
        _ => Outcome::Unknown("not verified".into(), why),
    };
    let lasted = item.effective_ns.zip(item.undone_ns).map_or(0, |(from, to)| to.saturating_sub(from).max(0));
    let repeat = if item.occurrence > 0 { format!(", repeat {}", item.occurrence) } else { String::new() };
    let attempt = if item.generation > 1 { format!(", attempt {}", item.generation) } else { String::new() };
    let host = report.host_name(&item.host);
    Case {
        class: format!("{}.faults", report.name),
        name: format!("{} {} on {host}{repeat}{attempt}", entry.entry, entry.action),
        seconds: lasted as f64 / 1e9,
        outcome,
    }
}

fn untouched(report: &Report, entry: &EntryReport) -> Case {
    let why = entry.skipped.clone().unwrap_or_else(|| "not applied on any host".into());
    let outcome = if entry.required { Outcome::Unknown("not applied".into(), why) } else { Outcome::Skipped(why) };
    let name = format!("{} {}", entry.entry, entry.action);
    Case { class: format!("{}.faults", report.name), name, seconds: 0.0, outcome }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fracas_model::report::build;

    use super::*;
    use crate::fixture;

    #[test]
    fn every_judgement_is_a_case() {
        let xml = junit(&build(&fixture::history(), &BTreeMap::new()));
        // The fixture has no clock maps, so that its second outage cannot be judged: that is no success.
        let head = "<testsuite name=\"shop-survives\" tests=\"4\" failures=\"0\" errors=\"1\" skipped=\"0\"";
        assert!(xml.contains(head), "{xml}");
        assert!(xml.contains("timestamp=\"2026-11-24T02:45:00\""), "{xml}");
        for name in ["verdict", "shop is back within 30s", "kill crash on db-1", "slow lag on db-1"] {
            assert!(xml.contains(&format!("name=\"{name}\"")), "{name}: {xml}");
        }
        assert!(xml.contains("<property name=\"seed\" value=\"7\"/>"), "{xml}");
    }

    #[test]
    fn what_was_not_shown_is_no_success_and_foreign_text_opens_no_tag() {
        let mut report = build(&fixture::history(), &BTreeMap::new());
        report.name = "a<b>&\"\u{0}\u{ffff}".into();
        report.services[0].judgement = Judgement::Missed { why: "out for 31 s".into() };
        report.entries[0].items[0].proof = None;
        report.entries[1].items[0].unconfirmed = true;
        report.verdict.word = VerdictWord::Fail;
        report.verdict.reasons = vec!["shop <missed> it".into()];
        let xml = junit(&report);
        assert!(xml.contains("tests=\"4\" failures=\"2\" errors=\"2\""), "{xml}");
        assert!(xml.contains("<failure type=\"missed\" message=\"out for 31 s\">"), "{xml}");
        assert!(xml.contains("type=\"undo unconfirmed\"") && xml.contains("type=\"not verified\""), "{xml}");
        assert!(!xml.contains("<b>") && !xml.contains('\u{ffff}') && !xml.contains("<missed>"), "{xml}");
        let mut open = 0_i32;
        for tag in xml.split('<').skip(2) {
            let end = tag.split('>').next().unwrap_or_default();
            open += i32::from(!end.ends_with('/')) * if end.starts_with('/') { -1 } else { 1 };
        }
        assert_eq!(open, 0, "{xml}");
    }

    #[test]
    fn a_run_that_goes_on_is_no_success() {
        let mut events = fixture::history();
        events.truncate(12);
        assert!(junit(&build(&events, &BTreeMap::new())).contains("<error type=\"unfinished\""));
    }
}
