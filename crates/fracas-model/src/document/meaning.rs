//! What a document of the right form may still get wrong: names that lead nowhere, entries that never start, objectives
//! that cannot be settled. Each is told at its place; the tree is used as far as it can be read.

use serde_json::Value;

use crate::{
    catalogue::{Catalogue, FaultInfo, Nature},
    check::is_name,
    diagnostic::{Findings, Span, nearest},
    ledger::MOST_MARKERS,
    signal::Matcher,
    tree::{Node, Pair},
    units::Dur,
};

use super::{form::lasting, overlap};

/// A timeline entry as written, beside what could be read of it.
pub(super) struct Entry<'d> {
    pub(super) node: &'d Node,
    pub(super) value: Option<&'d Value>,
    pub(super) id: Option<&'d str>,
    /// The fault with the node of its parameters.
    pub(super) fault: Option<(&'d FaultInfo, &'d Pair)>,
}

/// The longest period of a probe that a run depends on for being stopped.
const SLOWEST_STOP: Dur = Dur::from_secs(1);

/// A duration of the checked document.
pub(super) fn duration(value: Option<&Value>) -> Option<Dur> {
    value?.as_str()?.parse().ok()
}

/// Notes everything; `document` is what could be read of `root`.
pub(crate) fn review(root: &Node, document: &Value, catalogue: &Catalogue, findings: &mut Findings<'_>) {
    let entries = entries(root, document, catalogue);
    let mut review = Review { root, document, entries, findings };
    review.names();
    review.references();
    review.gates();
    review.probes();
    review.stops();
    review.objectives();
    review.ledgers();
    review.targets();
    for i in 0..review.entries.len() {
        review.action(i, catalogue);
        review.trigger(i);
    }
    review.circles();
    overlap::review(&review.entries, review.findings);
}

fn entries<'d>(root: &'d Node, document: &'d Value, catalogue: &'d Catalogue) -> Vec<Entry<'d>> {
    let nodes = root.get("timeline").map(Node::items).unwrap_or_default();
    let read = |(i, node): (usize, &'d Node)| {
        let pair = node.get("fault").and_then(|f| f.pairs().first());
        Entry {
            node,
            value: document.get("timeline").and_then(|t| t.get(i)),
            id: node.get("id").and_then(Node::text),
            fault: pair.and_then(|p| Some((catalogue.fault(&p.key)?, p))),
        }
    };
    nodes.iter().enumerate().map(read).collect()
}

struct Review<'r, 'a, 'd> {
    root: &'d Node,
    document: &'d Value,
    entries: Vec<Entry<'d>>,
    findings: &'r mut Findings<'a>,
}

impl<'d> Review<'_, '_, 'd> {
    fn section(&self, name: &str) -> &'d [Pair] {
        self.root.get(name).map(Node::pairs).unwrap_or_default()
    }

    fn known(&self, section: &str) -> Vec<&'d str> {
        self.section(section).iter().map(|p| p.key.as_str()).collect()
    }

    fn names(&mut self) {
        for section in ["services", "targets", "probes", "ledgers", "detections"] {
            for pair in self.section(section).iter().filter(|p| !is_name(&p.key)) {
                let help = "use at most 63 small letters, digits and hyphens, with a letter or digit at both ends";
                self.findings.error(pair.span, format!("{:?} is not a name", pair.key), help);
            }
        }
        for (i, entry) in self.entries.iter().enumerate() {
            let Some(id) = entry.id else { continue };
            let Some(first) = self.entries[..i].iter().find(|e| e.id == Some(id)) else { continue };
            let line = first.node.get("id").map_or(0, |n| n.span.line);
            let help = format!("the first stands on line {line}; give each entry an id of its own");
            let span = entry.node.get("id").map_or(entry.node.span, |n| n.span);
            self.findings.error(span, format!("a second entry is called `{id}`"), help);
        }
    }

    /// Notes a name that leads nowhere.
    fn refer(&mut self, node: Option<&Node>, what: &str, known: &[&str]) {
        let Some((node, name)) = node.and_then(|n| Some((n, n.text()?))) else { return };
        // What is no name was already told.
        if known.contains(&name) || !is_name(name) {
            return;
        }
        let help = match nearest(name, known.iter().copied()) {
            Some(near) if !is_name(near) => return,
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => format!("the document has no {what}"),
            None => format!("there are: {}", known.join(", ")),
        };
        self.findings.error(node.span, format!("there is no {what} `{name}`"), help);
    }

    fn references(&mut self) {
        let [services, targets, probes] = ["services", "targets", "probes"].map(|section| self.known(section));
        for probe in self.section("probes") {
            self.refer(probe.value.get("service"), "service", &services);
            self.refer(probe.value.get("from"), "target", &targets);
        }
        for ledger in self.section("ledgers") {
            self.refer(ledger.value.get("service"), "service", &services);
            self.refer(ledger.value.get("from"), "target", &targets);
        }
        for rule in self.section("detections") {
            self.refer(rule.value.get("service"), "service", &services);
            for node in rule.value.get("match").map(Node::items).unwrap_or_default() {
                if let Some(Err(why)) = node.text().map(Matcher::read) {
                    self.findings.error(node.span, why, "write for example `alertname=CheckoutDown`");
                }
            }
        }
        let gate = self.root.get("steadyState").and_then(|s| s.get("probes"));
        for node in gate.map(Node::items).unwrap_or_default() {
            self.refer(Some(node), "probe", &probes);
        }
        for guard in self.root.get("abortWhen").map(Node::items).unwrap_or_default() {
            self.refer(guard.get("probe"), "probe", &probes);
            self.refer(guard.get("vantage"), "target", &targets);
        }
        let ids: Vec<&str> = self.entries.iter().filter_map(|e| e.id).collect();
        for node in self.entries.iter().map(|e| e.node).collect::<Vec<_>>() {
            self.refer(node.get("target"), "target", &targets);
            for looks in ["check", "rollout"] {
                for probe in node.get(looks).and_then(|part| part.get("probes")).map(Node::items).unwrap_or_default() {
                    self.refer(Some(probe), "probe", &probes);
                }
            }
            if let Some(after) = node.get("after") {
                for event in ["started", "effective", "ended"] {
                    self.refer(after.get(event), "entry", &ids);
                }
                self.refer(after.get("recovered"), "service", &services);
            }
        }
    }

    /// Waiting times that can never be met.
    fn gates(&mut self) {
        for (section, hold) in [("steadyState", "holdFor"), ("recovery", "stableFor")] {
            let part = self.document.get(section);
            let read = |key: &str| duration(part.and_then(|p| p.get(key)));
            let Some((hold_for, give_up)) = read(hold).zip(read("giveUpAfter")) else { continue };
            if hold_for > give_up {
                let message =
                    format!("`{hold}` is {hold_for}, which cannot be reached before `giveUpAfter`, {give_up}");
                let help = format!("make `giveUpAfter` longer than {hold_for}");
                let place = self.root.pair(section);
                let span = place.and_then(|p| p.value.pair(hold)).or(place).map_or(Span::default(), |p| p.span);
                self.findings.error(span, message, help);
            }
        }
    }

    fn probes(&mut self) {
        for pair in self.section("probes") {
            self.secrets(pair);
            let probe = self.document.get("probes").and_then(|p| p.get(&pair.key));
            let read = |key: &str| duration(probe.and_then(|p| p.get(key)));
            let Some((every, timeout)) = read("every").zip(read("timeout")) else { continue };
            if let Some(at_rest) = read("everyAtRest") {
                self.rest(pair, every, at_rest);
            }
            if timeout.ns() > every.ns().saturating_mul(10) {
                let looks = timeout.ns() / every.ns().max(1);
                let message = format!("up to {looks} looks of `{}` are under way at once", pair.key);
                let span = pair.value.pair("timeout").map_or(pair.span, |p| p.span);
                self.findings.warning(span, message, "shorten `timeout`, or lengthen `every`");
            }
        }
    }

    /// A period at rest that is none, or with which the steady state may come too late to be seen.
    fn rest(&mut self, probe: &Pair, every: Dur, at_rest: Dur) {
        let span = probe.value.pair("everyAtRest").map_or(probe.span, |p| p.span);
        if at_rest < every {
            let message = format!("`everyAtRest` is {at_rest}, and `{}` looks every {every} when it is not", probe.key);
            return self.findings.error(span, message, format!("write {every} or more, or remove it"));
        }
        let gate = self.root.get("steadyState").and_then(|gate| gate.get("probes"));
        let mut names = gate.map(Node::items).unwrap_or_default().iter().filter_map(Node::text);
        let read = |key: &str| duration(self.document.get("steadyState").and_then(|gate| gate.get(key)));
        let Some((hold_for, give_up)) = read("holdFor").zip(read("giveUpAfter")) else { return };
        if names.any(|name| name == probe.key) && hold_for <= give_up && hold_for + at_rest >= give_up {
            let message = format!("the first look may come after {at_rest}, too late for {hold_for} within {give_up}");
            let help = "shorten `everyAtRest`, or make `giveUpAfter` of the steady state longer";
            self.findings.warning(span, message, help);
        }
    }

    /// Headers that are secrets, written where everybody reads them.
    fn secrets(&mut self, probe: &Pair) {
        const SECRET: [&str; 5] = ["authorization", "proxy-authorization", "cookie", "x-api-key", "x-auth-token"];
        let headers = probe.value.pairs().iter().filter_map(|kind| kind.value.get("headers")).flat_map(Node::pairs);
        let open = |header: &&Pair| {
            SECRET.contains(&header.key.to_ascii_lowercase().as_str()) && header.value.text().is_some()
        };
        for header in headers.filter(open).collect::<Vec<_>>() {
            let message = format!("the value of `{}` will stand in the history and in reports", header.key);
            let help = "write { file: PATH } or { env: NAME }, on the host that looks";
            self.findings.warning(header.span, message, help);
        }
    }

    /// Stop conditions: limits that do not go with what they are of, and probes that look too seldom.
    fn stops(&mut self) {
        for node in self.root.get("abortWhen").map(Node::items).unwrap_or_default() {
            let of_vantage = node.get("vantage").is_some();
            for limit in ["failingFor", "errorBudget", "lostFor", "onLoss"] {
                let Some(pair) = node.pair(limit) else { continue };
                let (wrong, help) = match (limit, of_vantage) {
                    ("lostFor", false) if node.get("probe").is_some() => {
                        ("`lostFor` is of a `vantage`", "write `failingFor` or `errorBudget`, or name a `vantage`")
                    }
                    ("failingFor" | "errorBudget", true) => {
                        ("a `vantage` does not fail, it is lost", "write `lostFor`, or name a `probe`")
                    }
                    ("onLoss", true) => ("the loss of a `vantage` is the condition itself", "remove `onLoss`"),
                    _ => continue,
                };
                self.findings.error(pair.span, wrong, help);
            }
            let Some(name) = node.get("probe").and_then(Node::text) else { continue };
            let every = self.document.get("probes").and_then(|p| duration(p.get(name)?.get("every")));
            let span = node.pair("probe").map_or(node.span, |pair| pair.span);
            if let Some(every) = every.filter(|every| *every > SLOWEST_STOP) {
                let message = format!("`{name}` looks every {every}: a stop condition is to be looked at every second");
                self.findings.error(span, message, "write `every: 1s` or less in the probe, or let another one look");
            }
            let at_rest = self.document.get("probes").and_then(|p| duration(p.get(name)?.get("everyAtRest")));
            if let Some(at_rest) = at_rest.filter(|at_rest| *at_rest > SLOWEST_STOP) {
                let message =
                    format!("`{name}` looks every {at_rest} at rest: a stop condition is to be looked at every second");
                let help = "write `everyAtRest: 1s` or less in the probe, or let another one look";
                self.findings.error(span, message, help);
            }
            // What hangs is known to fail only when it is given up.
            let timeout = self.document.get("probes").and_then(|p| duration(p.get(name)?.get("timeout")));
            let within = node.get("failingFor").or_else(|| node.get("errorBudget")?.get("within"));
            let within = within.and_then(|within| within.text()?.parse::<Dur>().ok()).unwrap_or(SLOWEST_STOP);
            if let Some(timeout) = timeout.filter(|timeout| *timeout > within.max(SLOWEST_STOP)) {
                let message = format!("a look of `{name}` that hangs is known to fail only after {timeout}");
                let help = format!("write `timeout: {}` or less in the probe", within.max(SLOWEST_STOP));
                self.findings.error(span, message, help);
            }
        }
    }

    /// The probes that speak for a service, with `every + timeout` where it is known.
    fn speakers(&self, service: &str) -> Vec<(&'d Pair, Option<Dur>)> {
        let speaks = |p: &&Pair| p.value.get("service").and_then(Node::text) == Some(service);
        let grain = |p: &Pair| {
            let probe = self.document.get("probes")?.get(&p.key)?;
            Some(duration(probe.get("every"))? + duration(probe.get("timeout"))?)
        };
        self.section("probes").iter().filter(speaks).map(|p| (p, grain(p))).collect()
    }

    /// Whether every probe's `service` is known: else that was told, and is most likely why nobody speaks for another.
    fn all_speak(&self) -> bool {
        let known = self.known("services");
        let mut named = self.section("probes").iter().filter_map(|p| p.value.get("service"));
        named.all(|node| node.text().is_some_and(|name| known.contains(&name)))
    }

    /// A recovery point objective that nothing measures, or that no ledger of the service could ever show.
    fn recovery_point(&mut self, service: &str, rpo: Option<Dur>, place: Span) {
        let Some(rpo) = rpo else { return };
        let mine = self.section("ledgers").iter();
        let mine =
            mine.filter(|l| l.value.get("service").and_then(Node::text) == Some(service)).map(|l| l.key.as_str());
        let coarsest = mine.filter_map(|name| duration(self.document.get("ledgers")?.get(name)?.get("every"))).max();
        let (message, help) = match coarsest {
            None => (
                format!("nothing measures how much data `{service}` loses: its `rpo` is not judged"),
                format!(
                    "write a ledger: `ledgers: {{ {service}-data: {{ service: {service}, postgres: {{ ... }} }} }}`"
                ),
            ),
            Some(every) if rpo <= every => (
                format!("markers every {every} cannot show that `{service}` loses at most {rpo}"),
                "of what lies between two markers nobody can tell: let `rpo` be longer, or `every` shorter".to_owned(),
            ),
            Some(_) => return,
        };
        self.findings.warning(place, message, help);
    }

    /// Ledgers that are full before what is written down to happen has happened.
    fn ledgers(&mut self) {
        let ends = self.entries.iter().filter_map(|entry| {
            let read = |key: &str| duration(entry.value?.get(key));
            Some(read("at")? + read("for").unwrap_or(Dur::ZERO))
        });
        let Some(last) = ends.max() else { return };
        for ledger in self.section("ledgers") {
            let written = self.document.get("ledgers").and_then(|l| l.get(&ledger.key));
            let Some(every) = written.and_then(|l| duration(l.get("every"))) else { continue };
            let lasts = Dur::from_ns(every.ns().saturating_mul(MOST_MARKERS.cast_signed()));
            if lasts < last {
                let message =
                    format!("`{}` holds {MOST_MARKERS} markers: after {lasts} it is full, before {last}", ledger.key);
                let shortest = Dur::from_ms(last.ns() / (1_000_000 * MOST_MARKERS.cast_signed()) + 1);
                let span = ledger.value.pair("every").map_or(ledger.span, |p| p.span);
                self.findings.warning(span, message, format!("write `every: {shortest}` or more"));
            }
        }
    }

    fn objectives(&mut self) {
        for pair in self.section("services") {
            let service = pair.key.as_str();
            let said = self.document.get("services").and_then(|s| s.get(service));
            let [rto, mtpd] = ["rto", "mtpd"].map(|key| duration(said.and_then(|s| s.get(key))));
            let place = |key: &str| pair.value.pair(key).map_or(pair.span, |p| p.span);
            self.recovery_point(service, said.and_then(|s| duration(s.get("rpo"))), place("rpo"));
            let objective = said.is_some_and(|s| s.get("rto").is_some() || s.get("rpo").is_some());
            if !objective && said.is_some_and(|s| s.get("proveEvery").is_some()) {
                let message = format!("`{service}` has neither `rto` nor `rpo` that could be proven");
                self.findings.error(place("proveEvery"), message, "write its recovery time: `rto: 30s`");
            }
            let Some(rto) = rto else { continue };
            if let Some(mtpd) = mtpd.filter(|mtpd| *mtpd < rto) {
                let message = format!("`rto` is {rto}, beyond the maximum tolerable period of disruption, {mtpd}");
                self.findings.error(place("rto"), message, "make `rto` shorter than `mtpd`");
            }
            let speakers = self.speakers(service);
            let Some((probe, grain)) = speakers.iter().min_by_key(|(_, grain)| grain.unwrap_or(Dur::ZERO)) else {
                if !self.all_speak() {
                    continue;
                }
                let message = format!("no probe speaks for `{service}`: its objective will not be measured");
                let help = format!("write `service: {service}` in a probe");
                self.findings.warning(pair.span, message, help);
                continue;
            };
            let Some(grain) = grain else { continue };
            // An outage is known to one period and one timeout at either end.
            let width = Dur::from_ns(grain.ns().saturating_mul(2));
            if width.ns() > rto.ns() / 10 {
                let message = format!(
                    "`{}` is too coarse for the objective of {rto}: an outage is known to within {width}",
                    probe.key
                );
                let span = probe.value.pair("every").map_or(probe.span, |p| p.span);
                self.findings.warning(span, message, settling(rto));
            }
        }
    }

    fn targets(&mut self) {
        let users: Vec<&str> = self
            .entries
            .iter()
            .filter_map(|e| e.node.get("target")?.text())
            .chain(self.section("probes").iter().filter_map(|p| p.value.get("from")?.text()))
            .chain(self.section("ledgers").iter().filter_map(|l| l.value.get("from")?.text()))
            .chain(
                self.root
                    .get("abortWhen")
                    .map(Node::items)
                    .into_iter()
                    .flatten()
                    .filter_map(|stop| stop.get("vantage")?.text()),
            )
            .collect();
        let under_fault =
            |name: &str| self.entries.iter().any(|e| e.node.get("target").and_then(Node::text) == Some(name));
        let most = self.document.get("limits").and_then(|l| l.get("maxTargets")?.as_i64());
        for pair in self.section("targets") {
            if !users.contains(&pair.key.as_str()) {
                let help = "name it in an entry's `target` or a probe's `from`, or remove it";
                self.findings.warning(pair.span, format!("the target `{}` is not used", pair.key), help);
            }
            let count = pair.value.get("pick").and_then(|p| p.get("count"));
            let number = count.and_then(|c| c.text()?.parse::<i64>().ok());
            if let (Some(count), Some(number), Some(most)) = (count, number, most)
                && number > most
                && under_fault(&pair.key)
            {
                let message = format!("`{}` picks {number} hosts, and `limits.maxTargets` is {most}", pair.key);
                self.findings.error(count.span, message, "pick fewer, or raise the limit");
            }
        }
    }

    fn action(&mut self, i: usize, catalogue: &Catalogue) {
        let node = self.entries[i].node;
        let place = node.get("id").map_or(node.span, |n| n.span);
        let name = self.entries[i].id.unwrap_or("this entry");
        if let Some(wait) = ["wait", "check", "approval"].iter().find_map(|action| node.pair(action)) {
            for key in ["target", "for", "rollout"] {
                if let Some(pair) = node.pair(key) {
                    let help = if key == "for" && wait.key == "wait" {
                        "its length is the value of `wait`"
                    } else {
                        "remove it"
                    };
                    let article = if wait.key == "approval" { "an" } else { "a" };
                    let message = format!("`{key}` has no meaning for {article} `{}`", wait.key);
                    self.findings.error(pair.span, message, help);
                }
            }
        }
        if node.get("fault").is_some() && node.get("target").is_none() {
            let known = self.known("targets");
            let help = if known.is_empty() {
                "write a rule under `targets:`, for example `primary: { select: \"role=db\" }`, and name it".to_owned()
            } else {
                format!("write `target:` with {}", crate::diagnostic::any_of(&known))
            };
            self.findings.error(place, format!("`{name}` does not say on which target"), help);
        }
        for part in ["check", "rollout"] {
            let part = self.entries[i].value.and_then(|value| value.get(part));
            let read = |key: &str| duration(part.and_then(|part| part.get(key)));
            if let Some((hold_for, give_up)) = read("holdFor").zip(read("giveUpAfter"))
                && hold_for >= give_up
            {
                let message =
                    format!("`holdFor` is {hold_for}, which cannot be reached before `giveUpAfter`, {give_up}");
                self.findings.error(place, message, format!("make `giveUpAfter` longer than {hold_for}"));
            }
        }
        let of = |key: &str| self.entries[i].value.and_then(|value| duration(value.pointer(key)));
        // A host that is silent is missed only after its lease, so the canary is looked at for that long at least.
        let lease = duration(self.document.get("lease")).unwrap_or_default();
        if let Some((hold_for, length)) = of("/rollout/holdFor").zip(of("/for"))
            && hold_for.max(lease) >= length
        {
            let held = hold_for.max(lease);
            let message = format!("the fault lasts {length}, and its canary is to be looked at for {held}");
            self.findings.error(place, message, "make `for` longer than `rollout.holdFor` and `lease`");
        }
        let Some((fault, pair)) = self.entries[i].fault else { return };
        match (fault.nature, node.pair("for")) {
            (Nature::Lasting, None) => {
                let message = format!("{} lasts, and `{name}` does not say for how long", fault.name);
                self.findings.error(pair.span, message, "write for example `for: 60s`");
            }
            (Nature::Spent, Some(length)) => {
                let lasting = lasting(catalogue);
                let help = if lasting.is_empty() {
                    "remove `for`".to_owned()
                } else {
                    format!("remove `for`; faults that last are: {}", lasting.join(", "))
                };
                self.findings.error(length.span, format!("{} is done once and has no length", fault.name), help);
            }
            (Nature::Lasting, Some(_)) | (Nature::Spent, None) => {}
        }
    }

    fn trigger(&mut self, i: usize) {
        let Some(after) = self.entries[i].node.get("after") else { return };
        if let Some(node) = after.get("effective") {
            let waits = |e: &Entry<'_>| {
                let action = ["wait", "check", "approval"].into_iter().find(|action| e.node.get(action).is_some());
                action.filter(|_| e.id == node.text())
            };
            if let Some(action) = self.entries.iter().find_map(waits) {
                let name = node.text().unwrap_or_default();
                let article = if action == "approval" { "an" } else { "a" };
                let message = format!("`{name}` is {article} {action}, which never becomes effective");
                self.findings.error(node.span, message, "use `started` or `ended`");
            }
        }
        let Some(node) = after.get("recovered") else { return };
        let Some(service) = node.text() else { return };
        if i == 0 {
            let message = format!("nothing comes before this entry that `{service}` could recover from");
            self.findings.error(node.span, message, "let the first entry start with `at`");
        } else if self.known("services").contains(&service) && self.speakers(service).is_empty() && self.all_speak() {
            let message = format!("no probe speaks for `{service}`: its recovery would never be seen");
            self.findings.error(node.span, message, format!("write `service: {service}` in a probe"));
        }
    }

    /// The entry that must happen first, if any.
    fn waits_for(&self, i: usize) -> Option<usize> {
        let after = self.entries[i].node.get("after").filter(|_| self.entries[i].node.get("at").is_none())?;
        if after.get("recovered").is_some() {
            return i.checked_sub(1);
        }
        let id = ["started", "effective", "ended"].iter().find_map(|event| after.get(event)?.text())?;
        self.entries.iter().position(|e| e.id == Some(id))
    }

    /// Each entry waits for at most one other, so a circle is found by walking on; each is told once, at its first entry.
    fn circles(&mut self) {
        let before: Vec<Option<usize>> = (0..self.entries.len()).map(|i| self.waits_for(i)).collect();
        let mut seen = vec![false; before.len()];
        for start in 0..before.len() {
            let (mut path, mut here) = (Vec::new(), Some(start));
            while let Some(i) = here.filter(|i| !seen[*i]) {
                seen[i] = true;
                path.push(i);
                here = before[i];
            }
            let Some(begin) = here.and_then(|i| path.iter().position(|p| *p == i)) else { continue };
            let mut circle = path[begin..].to_vec();
            let first = circle.iter().enumerate().min_by_key(|(_, i)| **i).map_or(0, |(at, _)| at);
            circle.rotate_left(first);
            let mut names: Vec<&str> = circle.iter().map(|i| self.entries[*i].id.unwrap_or("?")).collect();
            names.push(names[0]);
            let node = self.entries[circle[0]].node;
            let span = node.pair("after").map_or(node.span, |p| p.span);
            let message = format!("these entries wait for each other and never start: {}", names.join(" after "));
            self.findings.error(span, message, "let one of them start with `at`");
        }
    }
}

/// The period that makes an objective measurable to a tenth of itself, with a timeout of the same length.
fn settling(rto: Dur) -> String {
    // 2 x (every + timeout) <= rto / 10, rounded down to two figures.
    let exact = rto.ns() / 40;
    let scale = 10_i64.pow(exact.max(1).ilog10().saturating_sub(1));
    let period = Dur::from_ns(exact / scale * scale);
    if period < Dur::from_ms(10) {
        return "no period is short enough to measure it to a tenth; an objective of 400ms and more can be".into();
    }
    format!("`every: {period}` with a `timeout` of the same length measures it to a tenth")
}
