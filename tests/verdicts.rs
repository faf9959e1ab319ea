//! Each verdict for its own reason: what a stop condition ends, what stays down, what had no effect, what cannot be settled.

use fracas_sim::need::Need;
use libtest_mimic::Trial;

use crate::{
    history::Run,
    rig::{Going, Rig},
    stage::part,
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("each_verdict_has_its_reason", &[Need::Lab, Need::Time], each_verdict_has_its_reason)]
}

/// A crew that `fault` hits, watched by a probe of its own host; `more` are further keys of the document.
fn document(fault: &str, more: &str) -> String {
    format!(
        "apiVersion: fracas/v1\nkind: Experiment\nname: verdicts\n\
         services: {{ crew: {{ rto: 1s }} }}\n\
         targets: {{ box: {{ select: \"role=box\" }} }}\n\
         probes:\n  crew: {{ service: crew, process: {{ name: crew }}, from: box, every: 50ms, timeout: 1s }}\n\
         steadyState: {{ probes: [crew], holdFor: 300ms }}\n\
         timeline:\n  - {{ id: hit, at: 0s, target: box, fault: {fault} }}\n\
         recovery: {{ stableFor: 500ms, giveUpAfter: 5s }}\n{more}"
    )
}

struct Stage {
    rig: Rig,
    crew: Option<Going>,
}

impl Stage {
    /// Runs a document against a fresh crew.
    fn run(&mut self, name: &str, document: &str) -> Run {
        if let Some(old) = self.crew.take() {
            old.kill();
        }
        self.crew = Some(self.rig.go("box", "crew", part(&[name, "crew"])).ready());
        self.rig.run(document)
    }
}

fn each_verdict_has_its_reason() {
    let mut stage = Stage { rig: Rig::start(&[("box", &[("role", "box")])]), crew: None };
    // Killed, and nobody starts it again: it is still out when the run gives up, longer than its objective.
    let run = stage.run("rest", &document("{ process-kill: { name: crew } }", ""));
    run.ended("fail", 1);
    assert!(run.reasons().contains("crew missed its objective"), "{}", run.reasons());
    assert_eq!(run.bodies("gaveUp").len(), 1, "{}", run.story());
    assert_eq!(run.service("crew")["outage"]["hi"], serde_json::Value::Null, "its end was not seen");

    // The same under a stop condition: it ends the run before that.
    let rail = "abortWhen:\n  - { probe: crew, failingFor: 500ms }\n";
    let run = stage.run("rest", &document("{ process-kill: { name: crew } }", rail));
    run.ended("aborted", 4);
    assert!(run.reasons().contains("stop condition: crew was failing for"), "{}", run.reasons());

    // A signal that is ignored has no effect, and a run without the effect it wanted never passes.
    let ignored = document("{ process-kill: { name: crew, signal: TERM } }", "");
    let run = stage.run("stubborn", &ignored);
    run.ended("inconclusive", 3);
    assert!(run.reasons().contains("hit on box had no effect: crew"), "{}", run.reasons());
    assert!(stage.crew.as_ref().is_some_and(Going::runs));
    // Unless that was not wanted, and no objective waits for it.
    let lenient = ignored.replace("id: hit,", "id: hit, required: false,").replace("{ rto: 1s }", "{}");
    stage.run("stubborn", &lenient).ended("pass", 0);

    // Held for longer than the objective, seen by a probe that notices no pause: nothing was out. But a look that may
    // take as long as the objective itself could have missed an outage.
    let pause = document("{ process-pause: { name: crew } }, for: 2s", "");
    let run = stage.run("rest", &pause);
    run.ended("inconclusive", 3);
    assert!(
        run.reasons().contains("no outage seen, but one of up to 1.05 s may have been missed"),
        "{}",
        run.reasons()
    );
    stage.run("rest", &pause.replace("timeout: 1s", "timeout: 200ms")).ended("pass", 0);
    stage.rig.stop();
}
