//! A client nobody here wrote, in another language, with another gRPC: it learns the interface from the controller itself.

use fracas_sim::{lab::Program, need::Need};
use libtest_mimic::Trial;

use crate::{
    rig::{DATA, Rig},
    stage::part,
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("python_talks_to_the_controller", &[Need::Lab, PYTHON], python_talks_to_the_controller)]
}

const PYTHON: Need = Need::Variable("FRACAS_PYTHON", "a Python with grpcio, as .ci/run makes one");

const SCRIPT: &str = include_str!("foreign.py");

const DOCUMENT: &str = "apiVersion: fracas/v1\nkind: Experiment\nname: from-python\n\
    targets: { box: { select: \"role=box\" } }\n\
    timeline:\n  - { id: kill, at: 0s, target: box, fault: { process-kill: { name: crew } } }\n";

fn python_talks_to_the_controller() {
    let rig = Rig::start(&[("box", &[("role", "box")])]);
    let _crew = rig.go("box", "crew", part(&["rest", "crew"])).ready();
    let run = rig.run(DOCUMENT);
    run.ended("pass", 0);

    let python = std::env::var("FRACAS_PYTHON").expect("checked");
    let files = [format!("{DATA}/ca.pem"), format!("{DATA}/admin.token")];
    let program = Program::new(python).args(["-c", SCRIPT, "127.0.0.1:7766"]).args(files);
    let told = rig.say("ctl", program).good().json().remove(0);
    assert_eq!((told["serving"].as_str(), told["unknown"].as_str()), (Some("SERVING"), Some("NOT_FOUND")));
    let list = |name: &str| {
        let items = told[name].as_array().unwrap_or_else(|| panic!("no {name}: {told}"));
        items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    for service in ["fracas.v1.Operator", "grpc.health.v1.Health"] {
        assert!(list("services").contains(&service.to_owned()), "{service}: {told}");
    }
    for method in ["StartRun", "StopRun", "WatchRun", "ListRuns", "GetReport", "Halt"] {
        assert!(list("methods").contains(&method.to_owned()), "{method}: {told}");
    }
    let runs = told["runs"].as_array().expect("runs");
    assert_eq!(
        (runs.len(), runs[0]["run"].as_str(), runs[0]["verdict"].as_str()),
        (1, Some(run.id.as_str()), Some("pass"))
    );
    let kinds: Vec<&str> = run.events.iter().filter_map(|event| event["body"]["kind"].as_str()).collect();
    assert_eq!(list("kinds"), kinds, "the same history");
    for (what, code) in [
        ("without token", "UNAUTHENTICATED"),
        ("wrong token", "UNAUTHENTICATED"),
        ("reflection without token", "UNAUTHENTICATED"),
        ("no such run", "NOT_FOUND"),
        ("bad document", "INVALID_ARGUMENT"),
    ] {
        assert_eq!(told[what], code, "{what}");
    }
    rig.stop();
}
