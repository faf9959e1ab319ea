//! The controller's settings: what a file, the environment and flags say, in rising order of precedence, and the rest.
//!
//! Pure: texts are arguments. Flags and environment variables are read by whoever starts the controller.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use fracas_model::{
    check::check,
    diagnostic::{Diagnostic, Findings},
    shape::{Field, Shape},
    tree,
    units::Dur,
};
use serde_json::{Value, json};

use crate::{
    identity::HOST_CERTIFICATE_LIFE,
    keep::Rules,
    notify::{self, Channel},
    signin,
};

/// Where operators and programs call, unless told: loopback only.
pub const FRONT: &str = "127.0.0.1:7766";
/// Where agents dial in, unless told: loopback only.
pub const FLEET: &str = "127.0.0.1:7767";
/// Where Prometheus calls, unless told: loopback only, since it needs no token.
pub const METRICS: &str = "127.0.0.1:7768";
/// How long a controller that was asked to end waits for runs to end by themselves.
pub const DRAIN: Dur = Dur::from_secs(30);

/// Shortest and longest life of a host's certificate. The shortest is for trying renewal out; hosts that are away for half
/// the life, or whose clocks are off by it, are locked out.
pub const CERTIFICATE_LIVES: (Dur, Dur) = (Dur::from_secs(20), days(3650));

/// So many days.
pub const fn days(days: i64) -> Dur {
    Dur::from_secs(days * 86_400)
}

/// Where a listener listens that may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// Nowhere.
    Off,
    /// Here.
    At(SocketAddr),
}

/// A text is neither an address nor `off`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not an address and port, write {METRICS} or off")]
pub struct NotListen(String);

impl FromStr for Listen {
    type Err = NotListen;

    fn from_str(text: &str) -> Result<Self, NotListen> {
        match text {
            "off" => Ok(Self::Off),
            address => address.parse().map(Self::At).map_err(|_| NotListen(address.to_owned())),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(address) => address.fmt(f),
        }
    }
}

/// Settings of one controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Everything the controller keeps.
    pub data_dir: PathBuf,
    /// Front listener.
    pub front: SocketAddr,
    /// Fleet listener.
    pub fleet: SocketAddr,
    /// Listener for metrics and health.
    pub metrics: Listen,
    /// Further names and addresses under which clients reach it, for its certificate.
    pub names: Vec<String>,
    /// Life of hosts' certificates; agents renew them when half of it is over.
    pub host_certificate_life: Dur,
    /// How long it waits for runs when it is asked to end; what is active then is stopped and undone.
    pub drain: Dur,
    /// Whether an observer runs beside it.
    pub observer: bool,
    /// Whom it tells what happens.
    pub notifications: Vec<Channel>,
    /// The identity provider by which people sign in.
    pub sign_in: Option<signin::Settings>,
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
    /// See [`Config::metrics`].
    pub metrics: Option<Listen>,
    /// See [`Config::names`]; the highest source that names any counts.
    pub names: Vec<String>,
    /// See [`Config::host_certificate_life`].
    pub host_certificate_life: Option<Dur>,
    /// See [`Config::drain`].
    pub drain: Option<Dur>,
    /// See [`Config::observer`].
    pub observer: Option<bool>,
    /// See [`Config::notifications`]; only a file can name some.
    pub notifications: Vec<Channel>,
    /// See [`Config::sign_in`]; only a file can name one.
    pub sign_in: Option<signin::Settings>,
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
        Field::optional("metricsListen", Shape::Text { max: 64 }, "Address for metrics and health, IP:PORT, or off."),
        Field::optional(
            "names",
            Shape::list(Shape::Text { max: 253 }, 64),
            "Names and addresses under which clients reach this controller.",
        ),
        Field::optional(
            "hostCertificateLife",
            Shape::duration(CERTIFICATE_LIVES.0, CERTIFICATE_LIVES.1),
            "Life of hosts' certificates; agents renew them when half of it is over.",
        ),
        Field::optional(
            "hostCertificateDays",
            Shape::Integer { min: 1, max: 3650 },
            "The same in days, where hostCertificateLife is not given.",
        ),
        Field::optional("drain", Shape::duration(Dur::ZERO, day), "How long runs may go on after a SIGTERM."),
        Field::optional("observer", Shape::Bool, "Whether an observer runs beside the controller."),
        Field::optional("notifications", notify::shape(), "Whom to tell what happens, and how."),
        Field::optional("signIn", signin::shape(), "The identity provider by which people sign in."),
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
    let text = tree::normalise(text);
    let mut findings = Findings::new(name, &text);
    let root = tree::parse(&text, &mut findings);
    let value = root.as_ref().and_then(|root| check(root, &shape(), &mut findings)).unwrap_or_default();
    let list = root.as_ref().and_then(|root| root.get("notifications"));
    let notifications = notify::read(list, value.get("notifications"), &mut findings);
    let provider = root.as_ref().and_then(|root| root.get("signIn"));
    let sign_in = signin::read(provider, value.get("signIn"), &mut findings);
    findings.finish().map_err(told)?;
    let address = |key: &str| {
        let Some(text) = value.get(key).and_then(Value::as_str) else { return Ok(None) };
        let parsed = text.parse::<SocketAddr>();
        parsed
            .map(Some)
            .map_err(|_| format!("{name}: `{key}`: {text} is not an address and port, write 127.0.0.1:7766"))
    };
    let metrics = value.get("metricsListen").and_then(Value::as_str).map(str::parse::<Listen>).transpose();
    let names = value.get("names").and_then(Value::as_array).into_iter().flatten();
    Ok(Given {
        data_dir: value.get("dataDir").and_then(Value::as_str).map(PathBuf::from),
        front: address("frontListen")?,
        fleet: address("fleetListen")?,
        metrics: metrics.map_err(|error| format!("{name}: `metricsListen`: {error}"))?,
        names: names.filter_map(Value::as_str).map(str::to_owned).collect(),
        host_certificate_life: value
            .get("hostCertificateLife")
            .and_then(Value::as_str)
            .and_then(|t| t.parse().ok())
            .or_else(|| value.get("hostCertificateDays").and_then(Value::as_i64).map(days)),
        drain: value.get("drain").and_then(Value::as_str).and_then(|t| t.parse().ok()),
        observer: value.get("observer").and_then(Value::as_bool),
        notifications,
        sign_in,
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
            metrics: self.metrics.or(lower.metrics),
            names: if self.names.is_empty() { lower.names } else { self.names },
            host_certificate_life: self.host_certificate_life.or(lower.host_certificate_life),
            drain: self.drain.or(lower.drain),
            observer: self.observer.or(lower.observer),
            notifications: if self.notifications.is_empty() { lower.notifications } else { self.notifications },
            sign_in: self.sign_in.or(lower.sign_in),
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
            metrics: self.metrics.unwrap_or_else(|| Listen::At(fixed(METRICS))),
            names: self.names,
            host_certificate_life: self.host_certificate_life.unwrap_or(HOST_CERTIFICATE_LIFE),
            drain: self.drain.unwrap_or(DRAIN),
            observer: self.observer.unwrap_or(true),
            notifications: self.notifications,
            sign_in: self.sign_in,
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
        lines.insert("metricsListen", self.metrics.to_string().into());
        if !self.names.is_empty() {
            lines.insert("names", self.names.clone().into());
        }
        lines.insert("hostCertificateLife", self.host_certificate_life.to_string().into());
        lines.insert("drain", self.drain.to_string().into());
        lines.insert("observer", self.observer.into());
        if let Some(Rules { older_than, keep_last }) = self.retention {
            lines.insert("retention", json!({ "runs": older_than.to_string(), "keepLast": keep_last }));
        }
        let mut body: String = lines.iter().map(|(key, value)| format!("{key}: {value}\n")).collect();
        if let Some(provider) = &self.sign_in {
            body.push_str(&signin::written(provider));
        }
        if !self.notifications.is_empty() {
            body.push_str(&format!("notifications:\n{}", notify::written(&self.notifications)));
        }
        format!("apiVersion: fracas/v1\nkind: ControllerConfig\n{body}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "apiVersion: fracas/v1\nkind: ControllerConfig\ndataDir: /srv/fracas\nfrontListen: 0.0.0.0:1\n\
                        metricsListen: off\nnames: [fracas.internal]\ndrain: 5s\nobserver: false\n\
                        retention: { runs: 400d, keepLast: 20 }\n";

    #[test]
    fn flags_beat_the_file_and_the_file_beats_defaults() {
        let file = read_file("c.yaml", FILE).unwrap();
        let flags = Given { front: Some("[::1]:2".parse().unwrap()), ..Given::default() };
        let config = flags.over(file).settle("/default".into());
        assert_eq!(config.front, "[::1]:2".parse().unwrap());
        assert_eq!((config.data_dir, config.fleet), ("/srv/fracas".into(), FLEET.parse().unwrap()));
        assert_eq!((config.drain, config.observer), (Dur::from_secs(5), false));
        assert_eq!(config.names, ["fracas.internal"]);
        assert_eq!(config.metrics, Listen::Off);
        let asked = Given { metrics: Some("[::1]:3".parse().unwrap()), ..Given::default() };
        let of_file = || read_file("c.yaml", FILE).unwrap();
        assert_eq!(asked.over(of_file()).settle("/default".into()).metrics.to_string(), "[::1]:3");
        assert_eq!(Given::default().settle("/default".into()).metrics.to_string(), METRICS);
        let retention = Rules { older_than: Dur::from_secs(400 * 86_400), keep_last: 20 };
        assert_eq!(config.retention, Some(retention));
        assert_eq!(Given::default().settle("/default".into()).retention, None, "nothing goes unless it is asked for");
    }

    #[test]
    fn certificates_live_as_long_as_is_said_in_bounds() {
        let life = |line: &str| {
            Ok::<_, String>(read_file("c.yaml", &format!("{FILE}{line}"))?.settle("/d".into()).host_certificate_life)
        };
        assert_eq!(life("").unwrap(), days(365));
        assert_eq!(life("hostCertificateDays: 30\n").unwrap(), days(30), "as older files have it");
        assert_eq!(life("hostCertificateLife: 20s\n").unwrap(), Dur::from_secs(20));
        assert_eq!(life("hostCertificateLife: 12h\nhostCertificateDays: 30\n").unwrap(), Dur::from_secs(12 * 3600));
        for wrong in ["19s", "0s", "3651d", "30"] {
            assert!(
                life(&format!("hostCertificateLife: {wrong}\n")).unwrap_err().contains("hostCertificateLife"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn what_is_shown_is_a_file_that_gives_the_same() {
        let config = read_file("c.yaml", FILE).unwrap().settle("/d".into());
        assert_eq!(read_file("again", &config.text()).unwrap().settle("/e".into()), config);
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        let told = read_file("c.yaml", &FILE.replace("drain: 5s", "drian: 5s")).unwrap_err();
        assert!(told.contains("c.yaml:7:1") && told.contains("did you mean `drain`?"), "{told}");
        let told = read_file("c.yaml", &FILE.replace("0.0.0.0:1", "\"fracas.internal:80\"")).unwrap_err();
        assert!(told.contains("`frontListen`: fracas.internal:80 is not an address"), "{told}");
        let told = read_file("c.yaml", &FILE.replace("Listen: off", "Listen: none")).unwrap_err();
        assert!(
            told.contains("`metricsListen`: none is not an address and port, write 127.0.0.1:7768 or off"),
            "{told}"
        );
    }
}
