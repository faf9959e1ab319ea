//! A sample game day: a first section that recovers in time, and a second one that somebody did not let begin.

use fracas_model::{event::Body, report::Report};
use serde_json::{Value, json};

use super::world::{MS, S, Vantage, World, entry, measured, moment};

fn section(id: &str) -> Value {
    json!({ "id": id, "name": "checkout-survives-db-kill", "file": "kill-db.yaml", "limits": { "maxTargets": 1 },
        "description": "Killing the primary must not take checkout down for more than 30 s." })
}

fn added(id: &str, what: Value, action: Value) -> Value {
    json!({ "id": id, "trigger": what, "action": action })
}

fn document() -> Value {
    let after = |id: &str| json!({ "after": { "what": { "ended": id }, "delay": "0s" } });
    let over = |ids: &[&str]| json!({ "after": { "what": { "over": ids }, "delay": "0s" } });
    let probe = |section: &str| {
        json!({ "service": format!("{section}.checkout"), "kind": "http", "from": format!("{section}.edge"),
            "params": { "url": "http://checkout.internal/health" }, "every": "100ms", "timeout": "100ms" })
    };
    let check = |section: &str| json!({ "check": { "probes": [format!("{section}.up")], "holdFor": "2s", "giveUpAfter": "1m", "onFailure": "stop" } });
    let kill = |section: &str| {
        let (id, trigger) = (format!("{section}.kill"), after(&format!("{section}:steady-state")));
        let target = format!("{section}.primary");
        entry(&id, trigger, "process-kill", json!({ "name": "postgres", "signal": "KILL" }), &target, None)
    };
    let recovery = |section: &str| json!({ "recovery": { "services": [format!("{section}.checkout")] } });
    let question = "Is the on-call team ready, and is no release under way?";
    json!({
        "apiVersion": "fracas/v1", "kind": "GameDay", "name": "autumn-game-day",
        "description": "The database dies twice, first alone and then with people watching.",
        "day": { "purpose": "Find out whether checkout survives the loss of its database, and whether we notice.",
            "owner": "Database team", "participants": ["Database team", "Operations", "Support"] },
        "sections": [section("rehearsal"), section("real")],
        "services": { "rehearsal.checkout": { "rto": "30s" }, "real.checkout": { "rto": "30s" } },
        "targets": {
            "rehearsal.primary": { "select": "role=db" }, "rehearsal.edge": { "select": "role=edge" },
            "real.primary": { "select": "role=db" }, "real.edge": { "select": "role=edge" }
        },
        "probes": { "rehearsal.up": probe("rehearsal"), "real.up": probe("real") },
        "timeline": [
            added("rehearsal:steady-state", json!({ "at": "0s" }), check("rehearsal")),
            kill("rehearsal"),
            added("rehearsal:recovery", over(&["rehearsal:steady-state", "rehearsal.kill"]), recovery("rehearsal")),
            added("real:wait", over(&["rehearsal:recovery"]), json!({ "wait": { "duration": "5s" } })),
            added("real:approval", after("real:wait"),
                json!({ "approval": { "question": question, "deadline": "30m", "otherwise": "skip" } })),
            added("real:steady-state", after("real:approval"), check("real")),
            kill("real"),
            added("real:recovery", over(&["real:wait", "real:approval", "real:steady-state", "real.kill"]), recovery("real")),
        ],
        "recovery": { "stableFor": "5s", "giveUpAfter": "5m" },
        "abortWhen": [{ "probe": "rehearsal.up", "failingFor": "2m" }],
        "limits": { "maxTargets": 2 }, "lease": "15s"
    })
}

/// Checkout is out for three seconds in the rehearsal; the real thing is called off.
pub(crate) fn day() -> Report {
    let targets: [(&str, &[&str]); 4] = [
        ("rehearsal.primary", &["h1"]),
        ("rehearsal.edge", &["e1"]),
        ("real.primary", &["h1"]),
        ("real.edge", &["e1"]),
    ];
    let mut world = World::new(document(), &targets, &[("h1", "db-1"), ("e1", "edge-1")]);
    let gate = 200 * MS;
    world.gate(gate);
    world.starts("rehearsal:steady-state", gate);
    let kill = gate + 3 * S;
    world.ends("rehearsal:steady-state", kill);
    world.starts("rehearsal.kill", kill);
    let gone = vec![measured("time to exit", "ms", None, 1.83, None, 1, "pidfd of the process")];
    world.fires("rehearsal.kill", "h1", kill + 20 * MS, "send KILL to 1 process named postgres", gone);
    world.ends("rehearsal.kill", kill + 90 * MS);
    world.starts("rehearsal:recovery", kill + 90 * MS);
    let back = kill + 3200 * MS;
    world.recovers("rehearsal.checkout", "e1", back, back + 5060 * MS);
    let over = back + 5070 * MS;
    world.ends("rehearsal:recovery", over);
    world.starts("real:wait", over);
    world.ends("real:wait", over + 5 * S);
    world.starts("real:approval", over + 5 * S);
    let said = over + 20 * S;
    let (note, by, at) = ("a release is under way".into(), "person-7".into(), moment(said));
    world.say(said, Body::Decided { entry: "real:approval".into(), go: false, by, note, at });
    let why = "no-go by person-7: a release is under way";
    world.say(said, Body::EntryFailed { entry: "real:approval".into(), why: why.into(), at: moment(said) });
    for (entry, why) in [
        ("real:steady-state", "entry real:approval: no-go by person-7: a release is under way"),
        ("real.kill", "entry real:steady-state was skipped"),
        ("real:recovery", "no fault of the section was started"),
    ] {
        world.say(said, Body::EntrySkipped { entry: entry.into(), why: why.into(), at: moment(said) });
    }
    let look = |probe, span, down| Vantage {
        probe,
        host: "e1",
        every: 100 * MS,
        span,
        down,
        slow: Vec::new(),
        missing: Vec::new(),
    };
    let refused = vec![(kill + 70 * MS, back, "connection refused")];
    world.looks(&look("rehearsal.up", (gate + 50 * MS, over), refused));
    world.looks(&look("real.up", (over + 50 * MS, said), Vec::new()));
    world.calms(Some(said), said + 50 * MS);
    world.finish(said + 200 * MS)
}
