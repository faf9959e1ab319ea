//! The form of an experiment as data: every key with its documentation, bounds and default. What keys mean is elsewhere.

use serde_json::json;

use crate::{
    catalogue::{Catalogue, Nature},
    parameters::parameters_shape,
    shape::{Field, Group, Shape},
    units::Dur,
};

/// The version of the grammar that documents name.
pub const API_VERSION: &str = "fracas/v1";

const DAY: Dur = Dur::from_secs(86_400);
/// Longest planned time: a month.
pub(crate) const LONGEST: Dur = Dur::from_secs(31 * 86_400);
/// The longest time between two proofs of an objective: some are shown every few years.
const RAREST_PROOF: Dur = Dur::from_secs(10 * 366 * 86_400);
pub(crate) const MOST: usize = 1000;
/// Longest window of an error budget: agents remember the failed looks in it.
const LONGEST_WINDOW: Dur = Dur::from_secs(3600);
const MOST_HOSTS: i64 = 100_000;

/// The form of an experiment, with the faults and probes of this catalogue.
pub fn experiment_shape(catalogue: &Catalogue) -> Shape {
    Shape::Object(vec![
        Field::required("apiVersion", Shape::choice(&[API_VERSION]), "Version of this grammar."),
        Field::required("kind", Shape::choice(&["Experiment"]), "What this document is."),
        Field::required("name", Shape::Name, "Name of the experiment; runs are compared by it."),
        Field::with_default("description", Shape::Text { max: 4096 }, "", "What the experiment is to show."),
        Field::optional(
            "parameters",
            parameters_shape(),
            "Values that may be given from outside, put in place of ${name}.",
        ),
        Field::with_default("services", map(service()), json!({}), "Services under test, with their objectives."),
        Field::with_default("targets", map(target()), json!({}), "Rules that draw hosts by their labels."),
        Field::with_default("probes", map(probe(catalogue)), json!({}), "What is looked at, from where and how often."),
        if catalogue.ledgers.is_empty() {
            Field::reserved("ledgers", "no agent that this controller knows keeps ledgers: bring agents to its version")
        } else {
            let doc = "Where numbered markers are written through a service's own client path, so that lost data can be told.";
            Field::optional("ledgers", map(ledger(catalogue)), doc)
        },
        Field::optional(
            "detections",
            map(detection()),
            "By which alerts the trouble is known; alerting tools tell of them at /signals/alertmanager.",
        ),
        Field::optional(
            "steadyState",
            steady_state(),
            "What must hold before the timeline begins; without it, it begins at once.",
        ),
        Field::required("timeline", Shape::list(entry(catalogue), MOST), "What happens, and when."),
        Field::with_default(
            "recovery",
            recovery(),
            json!({"stableFor": "5s", "giveUpAfter": "5m"}),
            "How recovery is declared.",
        ),
        Field::with_default("abortWhen", list(abort_when()), json!([]), "What ends the run before its time."),
        Field::with_default("limits", limits(), json!({"rounding": "floor"}), "How many hosts may be under fault."),
        Field::with_default(
            "lease",
            Shape::duration(Dur::from_secs(1), Dur::from_secs(600)),
            "15s",
            "How long faults live when a host loses contact with the controller.",
        ),
    ])
}

pub(crate) fn map(of: Shape) -> Shape {
    Shape::Map { of: Box::new(of), max: MOST }
}

pub(crate) fn list(of: Shape) -> Shape {
    Shape::List { of: Box::new(of), min: 0, max: MOST }
}

/// A share of hosts. The keys that take one name the unit, so that it may be left out.
fn share() -> Shape {
    Shape::Either(vec![Shape::Percent { min: 0.001, max: 100.0 }, Shape::Integer { min: 1, max: 100 }])
}

fn service() -> Shape {
    Shape::Object(vec![
        Field::optional("rto", Shape::duration(Dur::from_ms(1), LONGEST), "Recovery time objective."),
        Field::with_default(
            "rtoFrom",
            Shape::choice(&["impact", "fault"]),
            "impact",
            "From where the objective counts: the first failure seen, or the fault becoming effective.",
        ),
        Field::optional(
            "slowAbove",
            Shape::duration(Dur::from_ms(1), LONGEST),
            "An answer that takes longer is slow: the report tells for how long the service was up but degraded.",
        ),
        Field::optional(
            "rpo",
            Shape::duration(Dur::ZERO, LONGEST),
            "Recovery point objective: how much of what was written last may be lost. A ledger of the service measures it.",
        ),
        Field::optional(
            "mtpd",
            Shape::duration(Dur::from_ms(1), LONGEST),
            "Maximum tolerable period of disruption; `rto` must lie within it.",
        ),
        Field::optional(
            "proveEvery",
            Shape::duration(Dur::from_secs(60), RAREST_PROOF),
            "How often a run must prove the objective; `fracas services` says what is overdue.",
        ),
    ])
}

fn pick() -> Shape {
    Shape::OneOf(vec![
        Field::optional("count", Shape::Integer { min: 1, max: MOST_HOSTS }, "This many; refused when fewer match."),
        Field::optional(
            "percent",
            share(),
            "This share of the matching hosts that can be drawn, rounded as `limits.rounding` says.",
        ),
    ])
}

pub(crate) fn target() -> Shape {
    Shape::Object(vec![
        Field::required("select", Shape::Selector, "Labels that hosts must have, as a Kubernetes selector."),
        Field::optional("pick", pick(), "How many of the matching hosts, drawn by chance; all when absent."),
        Field::with_default(
            "onEmpty",
            Shape::choice(&["fail", "skip"]),
            "fail",
            "What when no host matches: refuse the run, or skip the entries on this target.",
        ),
    ])
}

pub(crate) fn probe(catalogue: &Catalogue) -> Shape {
    let of = catalogue
        .probes
        .iter()
        .map(|p| Field::optional(&p.name, Shape::Object(p.params.clone()), &p.summary))
        .collect();
    Shape::Record {
        fields: vec![
            Field::optional("service", Shape::Name, "The service that this probe speaks for."),
            Field::optional("from", Shape::Name, "The target whose hosts look; the controller's observer when absent."),
            Field::with_default(
                "every",
                Shape::duration(Dur::from_ms(10), Dur::from_secs(3600)),
                "1s",
                "From the start of one look to the start of the next.",
            ),
            Field::optional(
                "everyAtRest",
                Shape::duration(Dur::from_ms(10), Dur::from_secs(3600)),
                "The same while nothing is at stake: not from shortly before a fault until services were stable after it, \
                 while a check looks, or while something fails.",
            ),
            Field::optional(
                "timeout",
                Shape::duration(Dur::from_ms(1), Dur::from_secs(3600)),
                "When a look that has not ended counts as failed; as long as `every` when absent.",
            ),
        ],
        groups: vec![Group { what: "kind of probe".into(), of }],
    }
}

fn ledger(catalogue: &Catalogue) -> Shape {
    let of = catalogue
        .ledgers
        .iter()
        .map(|l| Field::optional(&l.name, Shape::Object(l.params.clone()), &l.summary))
        .collect();
    Shape::Record {
        fields: vec![
            Field::required("service", Shape::Name, "The service whose data it speaks for."),
            Field::optional(
                "from",
                Shape::Name,
                "The target whose hosts write, a ledger each; the controller's observer when absent.",
            ),
            Field::with_default(
                "every",
                Shape::duration(Dur::from_ms(10), Dur::from_secs(3600)),
                "100ms",
                "From the sending of one marker to the sending of the next: what lies between them cannot be told.",
            ),
            Field::with_default(
                "timeout",
                Shape::duration(Dur::from_ms(1), Dur::from_secs(60)),
                "1s",
                "When a marker that was not answered counts as neither written nor lost.",
            ),
        ],
        groups: vec![Group { what: "kind of ledger".into(), of }],
    }
}

fn detection() -> Shape {
    Shape::Object(vec![
        Field::optional(
            "service",
            Shape::Name,
            "The service whose trouble the alert tells of; of the whole run when absent.",
        ),
        Field::required(
            "match",
            Shape::list(Shape::Text { max: 512 }, 20),
            "Conditions on the labels of the alert, all of them, as Alertmanager writes them: `alertname=CheckoutDown`, \
             `severity=~\"critical|page\"`, `!=`, `!~`.",
        ),
    ])
}

fn steady_state() -> Shape {
    Shape::Object(vec![
        Field::required("probes", Shape::list(Shape::Name, MOST), "All of them must be ok."),
        Field::with_default("holdFor", Shape::duration(Dur::ZERO, DAY), "5s", "For this long without a failure."),
        Field::with_default(
            "giveUpAfter",
            Shape::duration(Dur::from_secs(1), DAY),
            "1m",
            "The run is aborted when that was not reached within this time.",
        ),
    ])
}

pub(crate) fn recovery() -> Shape {
    Shape::Object(vec![
        Field::with_default(
            "stableFor",
            Shape::duration(Dur::ZERO, DAY),
            "5s",
            "A service has recovered when it was up this long; the instant that counts is its first success.",
        ),
        Field::with_default("giveUpAfter", Shape::duration(Dur::from_secs(1), DAY), "5m", "How long to wait for that."),
    ])
}

pub(crate) fn abort_when() -> Shape {
    let budget = Shape::Object(vec![
        Field::required(
            "allow",
            Shape::Percent { min: 0.0, max: 100.0 },
            "This share of the looks that the window holds may fail, rounded down.",
        ),
        Field::required(
            "within",
            Shape::duration(Dur::from_secs(1), LONGEST_WINDOW),
            "The window: always the last so much time.",
        ),
    ]);
    Shape::Record {
        fields: vec![Field::optional(
            "onLoss",
            Shape::choice(&["abort", "continue"]),
            "What when nobody can tell any more: abort the run, as when absent, or go on without this condition.",
        )],
        groups: vec![
            Group {
                what: "thing to look at".into(),
                of: vec![
                    Field::optional("probe", Shape::Name, "This probe."),
                    Field::optional("vantage", Shape::Name, "The hosts of this target, as vantages."),
                ],
            },
            Group {
                what: "limit".into(),
                of: vec![
                    Field::optional(
                        "failingFor",
                        Shape::duration(Dur::ZERO, DAY),
                        "The probe is failing without a success for this long; 0s: the first failure counts.",
                    ),
                    Field::optional("errorBudget", budget, "More of the probe's looks fail than this allows."),
                    Field::optional(
                        "lostFor",
                        Shape::duration(Dur::ZERO, DAY),
                        "A host of the vantage is out of contact for this long.",
                    ),
                ],
            },
        ],
    }
}

pub(crate) fn limits() -> Shape {
    Shape::Object(vec![
        Field::optional(
            "maxTargets",
            Shape::Integer { min: 1, max: MOST_HOSTS },
            "At most this many hosts under fault.",
        ),
        Field::optional(
            "maxPercent",
            share(),
            "At most this share of all hosts that the document's targets match, counting those that are down, quarantined or \
             another run's as used.",
        ),
        Field::with_default(
            "rounding",
            Shape::choice(&["floor", "ceil", "atLeastOne"]),
            "floor",
            "How a share of hosts becomes a number: down (none is refused), up, or down but at least one.",
        ),
    ])
}

const NO_PEOPLE: &str = "people take part in drills, which come later; use `wait` to leave them time";

fn entry(catalogue: &Catalogue) -> Shape {
    let offset = |doc| Field::optional("at", Shape::duration(Dur::ZERO, LONGEST), doc);
    let triggers = vec![
        offset("This long after the steady state was reached."),
        Field::optional("after", after(), "After another entry or a recovery."),
        Field::reserved("atTime", "use `at` with an offset, and start the run at the time you mean"),
        Field::reserved("when", "use `after` with one entry or service"),
        Field::reserved("manual", "use `at` or `after`; `fracas stop` ends a run by hand"),
    ];
    let faults = catalogue
        .faults
        .iter()
        .map(|f| Field::optional(&f.name, Shape::Object(f.params.clone()), &f.summary))
        .collect();
    let actions = vec![
        Field::optional(
            "fault",
            Shape::Record { fields: vec![], groups: vec![Group { what: "fault".into(), of: faults }] },
            "Inject a fault on the hosts of `target`.",
        ),
        Field::optional("wait", Shape::duration(Dur::from_ms(1), LONGEST), "Let time pass."),
        Field::optional("check", check(), "Go on only when these probes are ok."),
        Field::reserved("inject", "write `fault`"),
        Field::reserved("message", NO_PEOPLE),
        Field::reserved("checklist", NO_PEOPLE),
        Field::optional("approval", approval(), "Go on only when somebody else than whoever started the run says so."),
    ];
    Shape::Record {
        fields: vec![
            Field::required("id", Shape::Name, "Name of the entry, unique in the document."),
            Field::optional("target", Shape::Name, "The target whose hosts suffer the fault."),
            Field::optional(
                "for",
                Shape::duration(Dur::from_ms(1), LONGEST),
                "How long the fault lasts; mandatory for faults that last.",
            ),
            Field::optional("rollout", rollout(), "On a few hosts of the target first, its canary."),
            Field::with_default(
                "required",
                Shape::Bool,
                true,
                "Whether the run can only pass if this fault was verified.",
            ),
            Field::with_default(
                "onInterrupt",
                Shape::choice(&["fail", "reapply"]),
                "fail",
                "What when the fault ended before its time: abort the run, or apply it again.",
            ),
            Field::reserved("deadline", "`recovery.giveUpAfter` bounds how long a recovery is waited for"),
            Field::reserved("else", "an entry that cannot start is skipped, and the report says so"),
            Field::reserved("repeat", "write the entry several times, each with an id of its own"),
        ],
        groups: vec![Group { what: "trigger".into(), of: triggers }, Group { what: "action".into(), of: actions }],
    }
}

fn rollout() -> Shape {
    Shape::Object(vec![
        Field::with_default("canary", pick(), json!({"count": 1}), "How many of the drawn hosts begin, by chance."),
        Field::with_default(
            "probes",
            list(Shape::Name),
            json!([]),
            "What must be ok while the fault is in effect on the canary, before it goes to the other hosts.",
        ),
        Field::with_default(
            "holdFor",
            Shape::duration(Dur::ZERO, DAY),
            "10s",
            "For this long without a failure; the other hosts wait for the time of the lease at least.",
        ),
        Field::with_default(
            "giveUpAfter",
            Shape::duration(Dur::from_secs(1), DAY),
            "1m",
            "Within this time from the fault being in effect on the canary.",
        ),
        on_failure(
            "What when it was not: abort the run, or undo the fault on the canary and skip what was to come after it.",
        ),
    ])
}

fn check() -> Shape {
    Shape::Object(vec![
        Field::required("probes", Shape::list(Shape::Name, MOST), "All of them must be ok."),
        Field::with_default("holdFor", Shape::duration(Dur::ZERO, DAY), "5s", "For this long without a failure."),
        Field::with_default("giveUpAfter", Shape::duration(Dur::from_secs(1), DAY), "1m", "Within this time."),
        on_failure("What when it was not: abort the run, or skip what was to come after the check."),
    ])
}

pub(crate) fn on_failure(doc: &str) -> Field {
    Field::with_default("onFailure", Shape::choice(&["stop", "continue"]), "stop", doc)
}

/// A question that is answered with `fracas decide`.
pub(crate) fn approval() -> Shape {
    Shape::Object(vec![
        Field::required("question", Shape::Text { max: 500 }, "What is asked; it is answered with `fracas decide`."),
        Field::with_default(
            "deadline",
            Shape::duration(Dur::from_secs(1), LONGEST),
            "30m",
            "How long an answer is waited for.",
        ),
        Field::with_default(
            "otherwise",
            Shape::choice(&["stop", "skip"]),
            "stop",
            "What at no-go, or without an answer: abort the run, or skip what was to come after the question.",
        ),
    ])
}

fn after() -> Shape {
    Shape::Record {
        fields: vec![Field::with_default("delay", Shape::duration(Dur::ZERO, LONGEST), "0s", "How much later.")],
        groups: vec![Group {
            what: "event".into(),
            of: vec![
                Field::optional("started", Shape::Name, "This entry has started."),
                Field::optional("effective", Shape::Name, "This entry's fault is active on every host of its target."),
                Field::optional("ended", Shape::Name, "This entry is over."),
                Field::optional(
                    "recovered",
                    Shape::Name,
                    "This service is stable again after the first outage since the entry above started.",
                ),
            ],
        }],
    }
}

/// Names of the faults that must be given `for`.
pub(crate) fn lasting(catalogue: &Catalogue) -> Vec<&str> {
    catalogue.faults.iter().filter(|f| f.nature == Nature::Lasting).map(|f| f.name.as_str()).collect()
}
