//! A finished run as its user sees it: exit code, events, result line and report, with the questions tests ask of them.

use serde_json::Value;

use crate::rig::Said;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// Its id.
    pub(crate) id: String,
    /// Exit code of the command.
    pub(crate) code: i32,
    /// Its events, in order.
    pub(crate) events: Vec<Value>,
    /// The last line.
    pub(crate) result: Value,
    /// The report as data.
    pub(crate) report: Value,
    /// Standard error.
    pub(crate) err: String,
}

impl Run {
    /// From what `fracas run --output json` said; `report` fetches the report of a run.
    pub(crate) fn read(said: Said, report: impl FnOnce(&str) -> Value) -> Self {
        let mut events = said.json();
        let result = events.pop().unwrap_or_default();
        assert_eq!(result["schema"], "fracas.result/v1", "there is no result: {}", said.text());
        let id = result["run"].as_str().expect("run").to_owned();
        assert_eq!(result["exitCode"], said.code, "the process exits with what the result says");
        let report = report(&id);
        Self { id, code: said.code, events, result, report, err: said.err }
    }

    /// The run must have ended so.
    pub(crate) fn ended(&self, verdict: &str, code: i32) -> &Self {
        let got = (self.result["verdict"].as_str().unwrap_or_default(), self.code);
        assert_eq!(got, (verdict, code), "{}\n{}", self.result["reasons"], self.story());
        self
    }

    /// All reasons of the verdict as one text.
    pub(crate) fn reasons(&self) -> String {
        self.result["reasons"].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join("; ")
    }

    /// Bodies of events of a kind.
    pub(crate) fn bodies(&self, kind: &str) -> Vec<&Value> {
        self.events.iter().map(|event| &event["body"]).filter(|body| body["kind"] == kind).collect()
    }

    /// The only event of a kind.
    pub(crate) fn body(&self, kind: &str) -> &Value {
        let found = self.bodies(kind);
        assert_eq!(found.len(), 1, "{kind}\n{}", self.story());
        found[0]
    }

    /// The only item of an entry, as the report has it.
    pub(crate) fn item(&self, entry: &str) -> &Value {
        let entries = self.report["entries"].as_array().expect("entries");
        let found = entries.iter().find(|e| e["entry"] == entry).unwrap_or_else(|| panic!("no entry {entry}"));
        let items = found["items"].as_array().expect("items");
        assert_eq!(items.len(), 1, "{found}");
        &items[0]
    }

    /// What a fault was measured to be: the observation called `what`.
    pub(crate) fn measured(&self, entry: &str, what: &str) -> &Value {
        let item = self.item(entry);
        let measured = item["measured"].as_array().expect("measured").iter();
        measured.clone().find(|m| m["what"] == what).unwrap_or_else(|| panic!("no {what}: {item}"))
    }

    /// The service's part of the report.
    pub(crate) fn service(&self, service: &str) -> &Value {
        let services = self.report["services"].as_array().expect("services").iter();
        services.clone().find(|s| s["service"] == service).unwrap_or_else(|| panic!("no service {service}"))
    }

    /// The probe's part of the report.
    pub(crate) fn probe(&self, probe: &str) -> &Value {
        let probes = self.report["probes"].as_array().expect("probes").iter();
        probes.clone().find(|p| p["probe"] == probe).unwrap_or_else(|| panic!("no probe {probe}"))
    }

    /// The causes for which items were undone, in order.
    pub(crate) fn undo_causes(&self) -> Vec<&str> {
        self.bodies("undone").iter().filter_map(|body| body["cause"].as_str()).collect()
    }

    /// The events as lines, for messages.
    pub(crate) fn story(&self) -> String {
        let lines = self.report["events"].as_array().into_iter().flatten();
        let line =
            |e: &Value| format!("{:>4} {:>9.3} s {}", e["seq"], e["atNs"].as_f64().unwrap_or(0.0) / 1e9, e["text"]);
        format!("{}\n{}", lines.map(line).collect::<Vec<_>>().join("\n"), self.err)
    }
}

/// A number at a place in a value.
pub(crate) fn number(value: &Value, place: &str) -> i64 {
    let found = value.pointer(place).unwrap_or_else(|| panic!("no {place} in {value}"));
    found.as_i64().unwrap_or_else(|| panic!("{place} is no number: {found}"))
}

/// A duration as the report writes it (`"1.5s"`), in nanoseconds.
pub(crate) fn nanoseconds(value: &Value) -> i64 {
    let text = value.as_str().unwrap_or_else(|| panic!("no duration: {value}"));
    text.parse::<fracas_model::units::Dur>().unwrap_or_else(|e| panic!("{text}: {e}")).ns()
}
