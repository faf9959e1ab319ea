//! Channels as the controller's configuration file has them: their form, their checks, their defaults.
//!
//! Pure. Secrets are references here and stay so.

use std::collections::{BTreeMap, BTreeSet};

use fracas_model::{
    diagnostic::{Findings, Span},
    notice::{Interest, Kind},
    shape::{Field, Group, Shape},
    tree::Node,
    units::Dur,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    email::{self, Email},
    pagerduty::{self, PagerDuty},
    secret::{Secret, Text},
    slack::{self, Slack},
    template::{Pattern, Template},
    webhook::{self, Webhook},
};

/// Most channels of one controller.
const MOST: usize = 100;
/// How old a notice may become before nobody tries to send it any more, unless told.
const GIVE_UP_AFTER: &str = "24h";

/// One way to tell people or programs what happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Channel {
    /// Its name, unique in the configuration; its history is the stream `notify/NAME`.
    pub name: String,
    /// What it is told of. For PagerDuty: what opens an incident.
    #[serde(default)]
    pub on: Vec<Kind>,
    /// Of which environments; none: of all. Hosts and halts concern all of them.
    #[serde(default)]
    pub environments: Vec<String>,
    /// Its own words.
    #[serde(default)]
    pub template: Template,
    /// How old a notice may become before nobody tries to send it any more.
    pub give_up_after: Dur,
    /// Where it leads.
    #[serde(flatten)]
    pub to: To,
}

/// Where a channel leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum To {
    /// A program that takes CloudEvents.
    Webhook(Webhook),
    /// A room of Slack, or of something that takes the same.
    Slack(Slack),
    /// People's mail.
    Email(Email),
    /// People on call.
    PagerDuty(PagerDuty),
}

impl To {
    /// The word for it, the same as in the configuration.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Slack(_) => "slack",
            Self::Email(_) => "email",
            Self::PagerDuty(_) => "pagerduty",
        }
    }

    /// What such a channel is told of unless its configuration says so.
    fn usual(&self) -> &'static [Kind] {
        match self {
            // Nobody is woken by what may pass by itself.
            Self::PagerDuty(_) => &[Kind::RunAborted, Kind::UndoFailed, Kind::HostQuarantined, Kind::HaltSet],
            Self::Webhook(_) | Self::Slack(_) | Self::Email(_) => &[
                Kind::RunAborted,
                Kind::RunFinished,
                Kind::DecisionWanted,
                Kind::DecisionMade,
                Kind::HostLost,
                Kind::HostBack,
                Kind::UndoFailed,
                Kind::UndoDone,
                Kind::HostQuarantined,
                Kind::HostReleased,
                Kind::HaltSet,
                Kind::HaltCleared,
                Kind::ScheduleSkipped,
            ],
        }
    }
}

/// The kinds that open an incident.
const INCIDENTS: [Kind; 8] = [
    Kind::RunAborted,
    Kind::RunFinished,
    Kind::DecisionWanted,
    Kind::HostLost,
    Kind::UndoFailed,
    Kind::HostQuarantined,
    Kind::HaltSet,
    Kind::ScheduleSkipped,
];

impl Channel {
    /// What it is to be told.
    pub fn interest(&self) -> Interest {
        let incidents = matches!(self.to, To::PagerDuty(_));
        Interest { on: self.on.clone(), environments: self.environments.clone(), incidents }
    }

    /// Every secret it needs.
    pub(super) fn secrets(&self) -> Vec<&Secret> {
        match &self.to {
            To::Webhook(webhook) => {
                let texts = webhook.headers.values().chain([&webhook.url]).filter_map(Text::secret);
                texts.chain([&webhook.secret]).collect()
            }
            To::Slack(slack) => vec![&slack.url],
            To::Email(email) => email.password.iter().collect(),
            To::PagerDuty(pagerduty) => vec![&pagerduty.routing_key],
        }
    }
}

/// The form of a secret by reference.
pub(super) fn secret() -> Shape {
    Shape::OneOf(vec![
        Field::optional("env", Shape::Text { max: 256 }, "Variable of the controller's environment that holds it."),
        Field::optional("file", Shape::Path, "File that holds it; read anew whenever it is used."),
    ])
}

/// The form of `ca`, which every channel has.
pub(super) fn ca() -> Field {
    Field::optional("ca", Shape::Path, "PEM file of the authorities to trust, instead of the platform's.")
}

/// The form of `notifications`.
pub(crate) fn shape() -> Shape {
    let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    let fields = vec![
        Field::required("name", Shape::Name, "Its name, for commands and for its history."),
        Field::optional("on", Shape::list(Shape::choice(&names), names.len()), "What it is told of."),
        Field::optional(
            "environments",
            Shape::list(Shape::Text { max: 256 }, MOST),
            "Only runs and schedules of these environments; hosts and halts concern all of them.",
        ),
        Field::optional(
            "template",
            Shape::Object(vec![
                Field::optional("subject", Shape::Text { max: 1024 }, "The one line, with ${name} in it."),
                Field::optional("text", Shape::Text { max: 16 << 10 }, "The text below it, with ${name} in it."),
            ]),
            "Its own words.",
        ),
        Field::with_default(
            "giveUpAfter",
            Shape::duration(Dur::from_secs(1), Dur::from_secs(7 * 86_400)),
            GIVE_UP_AFTER,
            "How old a notice may become before it is not tried any more.",
        ),
    ];
    let of = vec![
        Field::optional("webhook", webhook::shape(), "CloudEvents over HTTP, signed."),
        Field::optional("slack", slack::shape(), "An incoming webhook of Slack, or of something that takes the same."),
        Field::optional("email", email::shape(), "Mail over SMTP."),
        Field::optional("pagerduty", pagerduty::shape(), "The Events API v2 of PagerDuty."),
    ];
    let groups = vec![Group { what: "kind of channel".into(), of }];
    Shape::List { of: Box::new(Shape::Record { fields, groups }), min: 0, max: MOST }
}

/// The channels of a list that was checked against [`shape`]; what is wrong beyond its form goes to `findings`.
pub(crate) fn read(list: Option<&Node>, checked: Option<&Value>, findings: &mut Findings<'_>) -> Vec<Channel> {
    let nodes = list.map(Node::items).unwrap_or_default();
    let values = checked.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut names = BTreeSet::new();
    nodes.iter().zip(values).filter_map(|(node, value)| Reading { node, findings }.channel(value, &mut names)).collect()
}

/// One channel being read.
pub(super) struct Reading<'r, 'a> {
    node: &'r Node,
    findings: &'r mut Findings<'a>,
}

impl Reading<'_, '_> {
    /// `None` where its form was wrong already.
    fn channel(&mut self, value: &Value, names: &mut BTreeSet<String>) -> Option<Channel> {
        let mut value = value.clone();
        for key in ["subject", "text"] {
            let Some(template) = value.get_mut("template").and_then(Value::as_object_mut) else { break };
            let pattern = template.get(key).and_then(Value::as_str).map(Pattern::read);
            if let Some(Err(bad)) = pattern {
                // The rest of the channel is looked at all the same.
                template.remove(key);
                self.wrong(&["template", key], &format!("`{key}`: {}", bad.why), &bad.instead);
            }
        }
        let mut channel: Channel = serde_json::from_value(value).ok()?;
        if !names.insert(channel.name.clone()) {
            let message = format!("there are two channels called {}", channel.name);
            self.wrong(&["name"], &message, "give each a name of its own");
        }
        if channel.on.is_empty() {
            channel.on = channel.to.usual().to_vec();
        }
        match &channel.to {
            To::Webhook(webhook) => webhook.review(self),
            To::Email(email) => email.review(self),
            To::PagerDuty(_) => self.incidents(&channel.on),
            To::Slack(_) => {}
        }
        Some(channel)
    }

    fn incidents(&mut self, on: &[Kind]) {
        for kind in on.iter().filter(|kind| !INCIDENTS.contains(kind)) {
            let known: Vec<&str> = INCIDENTS.iter().map(|kind| kind.name()).collect();
            let help = format!("its end is told by itself; incidents are opened by {}", known.join(", "));
            self.wrong(&["on"], &format!("{kind} opens no incident"), &help);
        }
    }

    /// Notes a mistake at the deepest part of `path` that is there.
    pub(super) fn wrong(&mut self, path: &[&str], message: &str, help: &str) {
        let mut span: Span = self.node.span;
        let mut node = self.node;
        for key in path {
            let Some(pair) = node.pair(key) else { break };
            (node, span) = (&pair.value, pair.value.span);
        }
        self.findings.error(span, message, help);
    }
}

/// A list of channels as lines of a configuration file that give it again.
pub(crate) fn written(channels: &[Channel]) -> String {
    let line = |channel: &Channel| {
        let mut value = serde_json::to_value(channel).expect("a channel has only text keys");
        let unsaid = |value: &Value| {
            value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(serde_json::Map::is_empty)
        };
        let fields = value.as_object_mut().expect("a channel is a mapping");
        fields.retain(|_, value| !unsaid(value));
        // The name first, so that a person finds it.
        let name = fields.remove("name").unwrap_or_default();
        let rest: BTreeMap<&String, &Value> = fields.iter().collect();
        let rest: String = rest.iter().map(|(key, value)| format!("    {key}: {value}\n")).collect();
        format!("  - name: {name}\n{rest}")
    };
    channels.iter().map(line).collect()
}

#[cfg(test)]
mod tests;
