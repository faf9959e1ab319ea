//! What faults and probes exist, as data: names, parameters, needs, help. Agents report it; the CLI embeds it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    check::check_value,
    plan::Refusal,
    shape::{Field, Shape},
    tolerance::ReadingField,
    units::{Dur, Percent, Size},
};

/// How a fault ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Nature {
    /// It lasts, and must be given `for`.
    Lasting,
    /// It is done once and leaves nothing to undo.
    Spent,
}

/// One ability of a host that a fault or probe rests on, found by trying it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// Signals reach processes of other users.
    SignalAny,
    /// Other processes can be seized with ptrace.
    Ptrace,
    /// An nftables table with the owner flag can be made.
    NftOwner,
    /// The xtables NFQUEUE target works through nft, or the native `queue` expression does.
    Nfqueue,
    /// Raw sockets with a mark can send.
    RawSocket,
    /// `sch_netem`, `ifb`, `clsact` and a usable classifier are there.
    Netem,
    /// A version 2 cgroup can be made below our own.
    Cgroup,
    /// More CPU time than one's share can be burned (always there).
    Cpu,
    /// Listening ports of other users' processes can be resolved to a process.
    PortOwner,
    /// systemd answers and stops and starts units for the agent.
    Systemd,
}

impl Capability {
    /// Every one.
    pub const ALL: [Self; 10] = [
        Self::SignalAny,
        Self::Ptrace,
        Self::NftOwner,
        Self::Nfqueue,
        Self::RawSocket,
        Self::Netem,
        Self::Cgroup,
        Self::Cpu,
        Self::PortOwner,
        Self::Systemd,
    ];

    /// Its name as people see it: `nft-owner`.
    pub fn word(self) -> String {
        serde_json::to_value(self).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
    }
}

/// What one fault is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultInfo {
    /// The word in documents: `net-delay`.
    pub name: String,
    /// One sentence.
    pub summary: String,
    /// Paragraphs: what happens, how it is undone, what to watch out for.
    pub help: String,
    /// Parameters.
    pub params: Vec<Field>,
    /// How it ends.
    pub nature: Nature,
    /// All of one inner list must be there; any inner list will do.
    pub needs: Vec<Vec<Capability>>,
    /// The value of `fault:` in a working document, as YAML on one line.
    pub example: String,
}

/// What one probe is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeInfo {
    /// The word in documents: `http`.
    pub name: String,
    /// One sentence.
    pub summary: String,
    /// Paragraphs: what counts as ok, what fails, what it costs.
    pub help: String,
    /// Parameters.
    pub params: Vec<Field>,
    /// The fields of its readings.
    #[serde(default)]
    pub reading: Vec<ReadingField>,
    /// The value of the probe's key in a working document, as YAML on one line.
    pub example: String,
}

/// What one kind of ledger is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerInfo {
    /// The word in documents: `postgres`.
    pub name: String,
    /// One sentence.
    pub summary: String,
    /// Paragraphs: what is written where, what counts as acknowledged, what it needs and leaves.
    pub help: String,
    /// Parameters.
    pub params: Vec<Field>,
    /// What its place is: `table`, `key`.
    pub place: String,
    /// The value of the ledger's key in a working document, as YAML on one line.
    pub example: String,
}

impl LedgerInfo {
    /// See [`ProbeInfo::params_fit`].
    pub fn params_fit(&self, params: &Params) -> Result<(), Refusal> {
        fit(&self.name, &self.params, params)
    }
}

impl FaultInfo {
    /// See [`ProbeInfo::params_fit`].
    pub fn params_fit(&self, params: &Params) -> Result<(), Refusal> {
        fit(&self.name, &self.params, params)
    }
}

impl ProbeInfo {
    /// Checks parameters that were checked elsewhere, perhaps by another version: each must be one of ours and have its
    /// form and bounds. Defaults may be missing.
    pub fn params_fit(&self, params: &Params) -> Result<(), Refusal> {
        fit(&self.name, &self.params, params)
    }
}

fn fit(name: &str, fields: &[Field], params: &Params) -> Result<(), Refusal> {
    if let Some(key) = params.0.keys().find(|key| !fields.iter().any(|f| f.name == **key && f.not_built.is_none())) {
        return Err(Refusal::new(
            format!("{name} has no parameter `{key}` here: this agent is older than the document"),
            format!("bring the agent to the controller's version, or leave `{key}` out"),
        ));
    }
    check_value(&Value::Object(params.0.clone()), &Shape::Object(fields.to_vec())).map(|_| ()).map_err(|mistakes| {
        let first = mistakes.into_iter().next();
        let (why, help) = first.map_or_else(Default::default, |m| (m.message, m.help.unwrap_or_default()));
        let instead = if help.is_empty() { "write a value that this agent's catalogue allows".into() } else { help };
        Refusal::new(format!("{name}: {why}"), instead)
    })
}

/// Everything a document may name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Catalogue {
    /// All faults, by name.
    pub faults: Vec<FaultInfo>,
    /// All probes, by name.
    pub probes: Vec<ProbeInfo>,
    /// All kinds of ledgers, by name.
    #[serde(default)]
    pub ledgers: Vec<LedgerInfo>,
}

impl Catalogue {
    /// The fault of this name.
    pub fn fault(&self, name: &str) -> Option<&FaultInfo> {
        self.faults.iter().find(|f| f.name == name)
    }

    /// The probe of this name.
    pub fn probe(&self, name: &str) -> Option<&ProbeInfo> {
        self.probes.iter().find(|p| p.name == name)
    }

    /// The kind of ledger of this name.
    pub fn ledger(&self, name: &str) -> Option<&LedgerInfo> {
        self.ledgers.iter().find(|l| l.name == name)
    }

    /// What a fleet knows whose agents offer these, the most trusted first: of two of one name the first one counts.
    pub fn united<'a>(offers: impl IntoIterator<Item = &'a Self>) -> Self {
        let (mut faults, mut probes, mut ledgers) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for offer in offers {
            for fault in &offer.faults {
                faults.entry(&fault.name).or_insert(fault);
            }
            for probe in &offer.probes {
                probes.entry(&probe.name).or_insert(probe);
            }
            for ledger in &offer.ledgers {
                ledgers.entry(&ledger.name).or_insert(ledger);
            }
        }
        Self {
            faults: faults.into_values().cloned().collect(),
            probes: probes.into_values().cloned().collect(),
            ledgers: ledgers.into_values().cloned().collect(),
        }
    }

    /// Whether it is no larger than any honest agent's.
    pub fn is_sane(&self) -> bool {
        let (faults, probes) = (self.faults.iter().map(|f| &f.name), self.probes.iter().map(|p| &p.name));
        let mut names = faults.chain(probes).chain(self.ledgers.iter().map(|l| &l.name));
        self.faults.len().max(self.probes.len()).max(self.ledgers.len()) <= MOST_KINDS
            && names.all(|name| name.len() <= LONGEST_NAME)
    }
}

/// Most faults, most probes and most ledgers that one agent may offer.
const MOST_KINDS: usize = 256;
/// Longest name of a fault or probe, bytes.
const LONGEST_NAME: usize = 64;

/// Version of an agent, as far as it decides whose word counts: three numbers; what is none counts as the oldest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct AgentVersion([u32; 3]);

impl AgentVersion {
    /// Reads `1.2.3`; anything that follows is left out.
    pub fn read(text: &str) -> Self {
        let mut numbers = [0; 3];
        for (number, part) in numbers.iter_mut().zip(text.split(['.', '-', '+'])) {
            let Ok(read) = part.parse() else { return Self::default() };
            *number = read;
        }
        Self(numbers)
    }
}

/// Checked parameters in canonical form (see [`crate::shape::Shape`]); absent keys had no default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Params(pub Map<String, Value>);

impl Params {
    /// Text of any text-like kind.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    /// A duration.
    pub fn duration(&self, name: &str) -> Option<Dur> {
        self.text(name).and_then(|t| t.parse().ok())
    }

    /// A percentage.
    pub fn percent(&self, name: &str) -> Option<Percent> {
        self.text(name).and_then(|t| t.parse().ok())
    }

    /// A size.
    pub fn size(&self, name: &str) -> Option<Size> {
        self.text(name).and_then(|t| t.parse().ok())
    }

    /// A whole number.
    pub fn integer(&self, name: &str) -> Option<i64> {
        self.0.get(name).and_then(Value::as_i64)
    }

    /// A decimal number.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.0.get(name).and_then(Value::as_f64)
    }

    /// A truth value; absent is false.
    pub fn flag(&self, name: &str) -> bool {
        self.0.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    /// The texts of a list; a single text counts as a list of one.
    pub fn texts(&self, name: &str) -> Vec<&str> {
        match self.0.get(name) {
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(one)) => vec![one],
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(name: &str, summary: &str) -> ProbeInfo {
        let (summary, help, example) = (summary.to_owned(), String::new(), String::new());
        ProbeInfo { name: name.to_owned(), summary, help, params: Vec::new(), reading: Vec::new(), example }
    }

    #[test]
    fn the_first_offer_counts_and_all_names_are_known() {
        let new = Catalogue { probes: vec![probe("http", "new"), probe("dns", "new")], ..Catalogue::default() };
        let old = Catalogue { probes: vec![probe("tcp", "old"), probe("http", "old")], ..Catalogue::default() };
        let united = Catalogue::united([&new, &old]);
        let told: Vec<_> = united.probes.iter().map(|p| (p.name.as_str(), p.summary.as_str())).collect();
        assert_eq!(told, [("dns", "new"), ("http", "new"), ("tcp", "old")]);
    }

    #[test]
    fn versions_are_numbers() {
        assert!(AgentVersion::read("0.10.0") > AgentVersion::read("0.9.9"));
        assert!(AgentVersion::read("1.0.0-rc1") == AgentVersion::read("1.0.0"));
        assert_eq!(AgentVersion::read("newest"), AgentVersion::default());
    }

    #[test]
    fn a_catalogue_without_measure_is_not_sane() {
        let many = (0..=MOST_KINDS).map(|n| probe(&format!("p{n}"), "")).collect();
        assert!(!Catalogue { probes: many, ..Catalogue::default() }.is_sane());
        assert!(!Catalogue { probes: vec![probe(&"x".repeat(65), "")], ..Catalogue::default() }.is_sane());
        assert!(Catalogue { probes: vec![probe("http", "")], ..Catalogue::default() }.is_sane());
    }
}
