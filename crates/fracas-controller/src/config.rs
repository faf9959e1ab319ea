//! The controller's settings: what a file, the environment and flags say, in rising order of precedence, and the rest.
//!
//! Pure: texts are arguments. Flags and environment variables are read by whoever starts the controller.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use fracas_model::{
    diagnostic::Diagnostic,
    document::read_generic,
    shape::{Field, Shape},
    units::Dur,
};
use serde_json::{Value, json};

use crate::{identity::HOST_CERTIFICATE_DAYS, keep::Rules};

/// Where operators and programs call, unless told: loopback only.
pub const FRONT: &str = "127.0.0.1:7766";
/// Where agents dial in, unless told: loopback only.
pub const FLEET: &str = "127.0.0.1:7767";
/// How long a controller that was asked to end waits for runs to end by themselves.
pub const DRAIN: Dur = Dur::from_secs(30);

/// Settings of one controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Everything the controller keeps.
    pub data_dir: PathBuf,
    /// Front listener.
    pub front: SocketAddr,
    /// Fleet listener.
    pub fleet: SocketAddr,
    /// Further names and addresses under which clients reach it, for its certificate.
    pub names: Vec<String>,
    /// Life of hosts' certificates.
    pub host_certificate_days: u32,
    /// How long it waits for runs when it is asked to end; what is active then is stopped and undone.
    pub drain: Dur,
    /// Whether an observer runs beside it.
    pub observer: bool,
    /// What is pruned by itself; nothing unless told.
    pub retention: Option<Rules>,
}

/// What one source says; what it does not say is left to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// See [`Config::data_dir`].
    pub data_dir: Option<PathBuf>,
    /// See [`Config::front`].
    pub front: Option<SocketAddr>,
    /// See [`Config::fleet`].
    pub fleet: Option<SocketAddr>,
    /// See [`Config::names`]; the highest source that names any counts.
    pub names: Vec<String>,
    /// See [`Config::host_certificate_days`].
    pub host_certificate_days: Option<u32>,
    /// See [`Config::drain`].
    pub drain: Option<Dur>,
    /// See [`Config::observer`].
    pub observer: Option<bool>,
    /// See [`Config::retention`].
    pub retention: Option<Rules>,
}

/// The form of the configuration file.
fn shape() -> Shape {
    let day = Dur::from_secs(86_400);
    Shape::Object(vec![
        Field::required("apiVersion", Shape::choice(&["fracas/v1"]), "Version of this grammar."),
        Field::required("kind", Shape::choice(&["ControllerConfig"]), "What this document is."),
        Field::optional("dataDir", Shape::Path, "Directory of everything the controller keeps."),
        Field::optional("frontListen", Shape::Address, "Address for operators and programs, IP:PORT."),
        Field::optional("fleetListen", Shape::Address, "Address for agents, IP:PORT."),
        Field::optional(
            "names",
            Shape::list(Shape::Text { max: 253 }, 64),
            "Names and addresses under which clients reach this controller.",
        ),
        Field::optional("hostCertificateDays", Shape::Integer { min: 1, max: 3650 }, "Life of hosts' certificates."),
        Field::optional("drain", Shape::duration(Dur::ZERO, day), "How long runs may go on after a SIGTERM."),
        Field::optional("observer", Shape::Bool, "Whether an observer runs beside the controller."),
        Field::optional("retention", retention_shape(), "What is pruned by itself, looked at once a day."),
    ])
}

fn retention_shape() -> Shape {
    let day = Dur::from_secs(86_400);
    let century = Dur::from_secs(36_525 * 86_400);
    Shape::Object(vec![
        Field::required(
            "runs",
            Shape::duration(day, century),
            "Runs that ended longer ago than this go, and old facts of schedules.",
        ),
        Field::optional(
            "keepLast",
            Shape::Integer { min: 0, max: 1_000_000_000 },
            "So many runs stay, the newest, however old they are.",
        ),
    ])
}

fn retention(value: &Value) -> Option<Rules> {
    let older_than = value.get("runs").and_then(Value::as_str)?.parse().ok()?;
    Some(Rules { older_than, keep_last: value.get("keepLast").and_then(Value::as_u64).unwrap_or(0) })
}

/// Reads a configuration file. The error is every mistake, rendered with its place.
pub fn read_file(name: &str, text: &str) -> Result<Given, String> {
    let told = |list: Vec<Diagnostic>| list.iter().map(Diagnostic::render).collect::<Vec<_>>().join("\n\n");
    let (value, _) = read_generic(name, text, &shape()).map_err(told)?;
    let address = |key: &str| {
        let Some(text) = value.get(key).and_then(Value::as_str) else { return Ok(None) };
        let parsed = text.parse::<SocketAddr>();
        parsed
            .map(Some)
            .map_err(|_| format!("{name}: `{key}`: {text} is not an address and port, write 127.0.0.1:7766"))
    };
    let names = value.get("names").and_then(Value::as_array).into_iter().flatten();
    Ok(Given {
        data_dir: value.get("dataDir").and_then(Value::as_str).map(PathBuf::from),
        front: address("frontListen")?,
        fleet: address("fleetListen")?,
        names: names.filter_map(Value::as_str).map(str::to_owned).collect(),
        host_certificate_days: value.get("hostCertificateDays").and_then(Value::as_u64).map(|n| n as u32),
        drain: value.get("drain").and_then(Value::as_str).and_then(|t| t.parse().ok()),
        observer: value.get("observer").and_then(Value::as_bool),
        retention: value.get("retention").and_then(retention),
    })
}

impl Given {
    /// This where it says something, else `lower`.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        Self {
            data_dir: self.data_dir.or(lower.data_dir),
            front: self.front.or(lower.front),
            fleet: self.fleet.or(lower.fleet),
            names: if self.names.is_empty() { lower.names } else { self.names },
            host_certificate_days: self.host_certificate_days.or(lower.host_certificate_days),
            drain: self.drain.or(lower.drain),
            observer: self.observer.or(lower.observer),
            retention: self.retention.or(lower.retention),
        }
    }

    /// With defaults for the rest; `data_dir` is where data go unless told.
    pub fn settle(self, data_dir: PathBuf) -> Config {
        let fixed = |text: &str| text.parse().expect("a constant address");
        Config {
            data_dir: self.data_dir.unwrap_or(data_dir),
            front: self.front.unwrap_or_else(|| fixed(FRONT)),
            fleet: self.fleet.unwrap_or_else(|| fixed(FLEET)),
            names: self.names,
            host_certificate_days: self.host_certificate_days.unwrap_or(HOST_CERTIFICATE_DAYS),
            drain: self.drain.unwrap_or(DRAIN),
            observer: self.observer.unwrap_or(true),
            retention: self.retention,
        }
    }
}

impl Config {
    /// The settings as a configuration file that gives them again.
    pub fn text(&self) -> String {
        let mut lines: BTreeMap<&str, Value> = BTreeMap::new();
        lines.insert("dataDir", self.data_dir.display().to_string().into());
        lines.insert("frontListen", self.front.to_string().into());
        lines.insert("fleetListen", self.fleet.to_string().into());
        if !self.names.is_empty() {
            lines.insert("names", self.names.clone().into());
        }
        lines.insert("hostCertificateDays", self.host_certificate_days.into());
        lines.insert("drain", self.drain.to_string().into());
        lines.insert("observer", self.observer.into());
        if let Some(Rules { older_than, keep_last }) = self.retention {
            lines.insert("retention", json!({ "runs": older_than.to_string(), "keepLast": keep_last }));
        }
        let body: String = lines.iter().map(|(key, value)| format!("{key}: {value}\n")).collect();
        format!("apiVersion: fracas/v1\nkind: ControllerConfig\n{body}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "apiVersion: fracas/v1\nkind: ControllerConfig\ndataDir: /srv/fracas\nfrontListen: 0.0.0.0:1\n\
                        names: [fracas.internal]\ndrain: 5s\nobserver: false\nretention: { runs: 400d, keepLast: 20 }\n";

    #[test]
    fn flags_beat_the_file_and_the_file_beats_defaults() {
        let file = read_file("c.yaml", FILE).unwrap();
        let flags = Given { front: Some("[::1]:2".parse().unwrap()), ..Given::default() };
        let config = flags.over(file).settle("/default".into());
        assert_eq!(config.front, "[::1]:2".parse().unwrap());
        assert_eq!((config.data_dir, config.fleet), ("/srv/fracas".into(), FLEET.parse().unwrap()));
        assert_eq!((config.drain, config.observer), (Dur::from_secs(5), false));
        assert_eq!(config.names, ["fracas.internal"]);
        let retention = Rules { older_than: Dur::from_secs(400 * 86_400), keep_last: 20 };
        assert_eq!(config.retention, Some(retention));
        assert_eq!(Given::default().settle("/default".into()).retention, None, "nothing goes unless it is asked for");
    }

    #[test]
    fn what_is_shown_is_a_file_that_gives_the_same() {
        let config = read_file("c.yaml", FILE).unwrap().settle("/d".into());
        assert_eq!(read_file("again", &config.text()).unwrap().settle("/e".into()), config);
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        let told = read_file("c.yaml", &FILE.replace("drain: 5s", "drian: 5s")).unwrap_err();
        assert!(told.contains("c.yaml:6:1") && told.contains("did you mean `drain`?"), "{told}");
        let told = read_file("c.yaml", &FILE.replace("0.0.0.0:1", "\"fracas.internal:80\"")).unwrap_err();
        assert!(told.contains("`frontListen`: fracas.internal:80 is not an address"), "{told}");
    }
}
