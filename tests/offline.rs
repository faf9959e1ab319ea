//! What the command line does without any controller: documents, schemas, the catalogue, completions, settings. These run
//! anywhere.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    thread,
};

use fracas_sim::need::Need;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{rig::Said, stage::fracas_here, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("every_printed_example_is_valid", &[], every_printed_example_is_valid),
        trial("a_starter_file_is_valid_and_never_overwrites", &[], a_starter_file_is_valid_and_never_overwrites),
        trial("the_schema_takes_what_validate_takes", &[], the_schema_takes_what_validate_takes),
        trial("parameters_are_typed", &[], parameters_are_typed),
        trial("settings_have_a_precedence", &[], settings_have_a_precedence),
        trial("wrong_usage_is_told", &[], wrong_usage_is_told),
        trial("bash_completes", &[Need::Program("bash")], bash_completes),
        trial("zsh_takes_its_completions", &[Need::Program("zsh")], || parses("zsh", &["-n"])),
        trial("fish_completes", &[Need::Program("fish")], fish_completes),
    ]
}

/// A command to its end, with this input; without the settings of whoever runs the tests.
pub(crate) fn here(words: &[&str], input: &str, environment: &[(&str, &str)]) -> Said {
    let mut command = fracas_here(words);
    for name in [
        "FRACAS_CONTEXT",
        "FRACAS_CONTROLLER",
        "FRACAS_DATA_DIR",
        "FRACAS_DRAIN",
        "FRACAS_CONFIG",
        "FRACAS_METRICS_LISTEN",
    ] {
        command.env_remove(name);
    }
    command.env("HOME", "/nonexistent").env_remove("XDG_CONFIG_HOME").env_remove("XDG_DATA_HOME");
    command.envs(environment.iter().copied());
    output(command, input)
}

fn output(mut command: Command, input: &str) -> Said {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("started");
    let (mut stdin, input) = (child.stdin.take().expect("pipe"), input.to_owned());
    // It may stop reading what is too long.
    let writer = thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().expect("output");
    writer.join().expect("written");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

/// Names in the first column of a table.
fn names(table: &str) -> Vec<String> {
    table.lines().skip(1).filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

fn every_printed_example_is_valid() {
    let mut tried = 0;
    for catalogue in ["faults", "probes"] {
        let list = here(&[catalogue], "", &[]).good();
        for name in names(&list.out) {
            let page = here(&[catalogue, &name], "", &[]).good().out;
            let (_, example) = page.split_once("\nexample\n").unwrap_or_else(|| panic!("{name} has no example"));
            let document: String =
                example.lines().map(|line| format!("{}\n", line.strip_prefix("  ").unwrap_or(line))).collect();
            let said = here(&["validate", "-"], &document, &[]);
            assert_eq!(said.code, 0, "the example of {name} is refused:\n{document}\n{}", said.text());
            tried += 1;
        }
        let wrong = here(&[catalogue, "no-such-thing"], "", &[]);
        assert!(wrong.code == 2 && wrong.err.contains("no-such-thing"), "{wrong:?}");
    }
    assert!(tried >= 9, "{tried}");
}

fn a_starter_file_is_valid_and_never_overwrites() {
    let starter = here(&["new"], "", &[]).good().out;
    here(&["validate", "-"], &starter, &[]).good();
    let folder = std::env::temp_dir().join(format!("fracas-tests-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("folder");
    let path = folder.join("try.yaml");
    let path = path.to_str().expect("text");
    here(&["new", path], "", &[]).good();
    assert_eq!(std::fs::read_to_string(path).expect("file"), starter);
    std::fs::write(path, "mine").expect("written");
    let said = here(&["new", path], "", &[]);
    assert!(said.code == 2 && said.err.contains("is already there"), "{said:?}");
    assert_eq!(std::fs::read_to_string(path).expect("file"), "mine");
    // All files are checked, and each error names its file.
    let both = here(&["validate", path, "/nonexistent/other.yaml"], "", &[]);
    assert!(both.code == 2 && both.text().contains("/nonexistent/other.yaml") && both.out.contains(path), "{both:?}");
    std::fs::remove_dir_all(folder).expect("removed");
}

fn the_schema_takes_what_validate_takes() {
    let schema: Value = serde_json::from_str(&here(&["schema"], "", &[]).good().out).expect("JSON");
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let document = json!({
        "apiVersion": "fracas/v1", "kind": "Experiment", "name": "kill",
        "services": { "web": { "rto": "30s" } },
        "targets": { "db": { "select": "role=db" } },
        "probes": { "up": { "service": "web", "tcp": { "address": "db:5432" }, "every": "500ms" } },
        "timeline": [
            { "id": "kill", "at": "0s", "target": "db", "fault": { "process-kill": { "name": "postgres" } } },
            { "id": "slow", "after": { "recovered": "web" }, "target": "db", "for": "10s",
              "fault": { "net-delay": { "delay": "200ms" } } }
        ]
    });
    let agree = |document: &Value, valid: bool| {
        assert_eq!(validator.is_valid(document), valid, "{document}");
        let said = here(&["validate", "-"], &document.to_string(), &[]);
        assert_eq!(said.code == 0, valid, "{}", said.text());
    };
    agree(&document, true);
    for (place, wrong) in [
        ("/timeline/0/at", json!("soon")),
        ("/timeline/0/fault", json!({ "process-kill": { "name": 5 } })),
        ("/timeline/1/fault", json!({ "net-delay": {} })),
        ("/kind", json!("Drill")),
        ("/probes/up", json!({ "tcp": { "address": "db:5432" }, "http": { "url": "http://x" } })),
        ("/name", json!("Not A Name")),
    ] {
        let mut bad = document.clone();
        *bad.pointer_mut(place).expect("place") = wrong;
        agree(&bad, false);
    }
}

const PARAMETERS: &str = "apiVersion: fracas/v1\nkind: Experiment\nname: slow\n\
    parameters:\n  delay: { type: duration, default: 10ms }\n  share: { type: percent }\n\
    targets: { db: { select: \"role=db\" } }\n\
    timeline:\n  - { id: slow, at: 0s, for: 10s, target: db, fault: { net-delay: { delay: \"${delay}\" } } }\n  \
    - { id: lose, at: 0s, for: 10s, target: db, fault: { net-loss: { percent: \"${share}\" } } }\n";

fn parameters_are_typed() {
    let said = here(&["validate", "-"], PARAMETERS, &[]);
    assert!(said.code == 2 && said.out.contains("share"), "a parameter without a default must be given: {said:?}");
    here(&["validate", "-", "--set", "share=5%"], PARAMETERS, &[]).good();
    let said = here(&["validate", "-", "--set", "share=5", "--set", "delay=fast"], PARAMETERS, &[]);
    assert!(said.code == 2 && said.out.contains("share") && said.out.contains("delay"), "{said:?}");
    let said = here(&["validate", "-", "--set", "share=5%", "--set", "shore=1"], PARAMETERS, &[]);
    assert!(said.code == 2 && said.out.contains("shore"), "{said:?}");
    let folder = std::env::temp_dir().join(format!("fracas-tests-values-{}", std::process::id()));
    std::fs::write(&folder, "share: 5%\ndelay: 20ms\n").expect("written");
    here(&["validate", "-", "--values", folder.to_str().expect("text")], PARAMETERS, &[]).good();
    std::fs::remove_file(folder).expect("removed");
}

fn settings_have_a_precedence() {
    let file = std::env::temp_dir().join(format!("fracas-tests-config-{}.yaml", std::process::id()));
    let text =
        "apiVersion: fracas/v1\nkind: ControllerConfig\ndataDir: /srv/file\ndrain: 11s\nfrontListen: 127.0.0.1:1111\n";
    std::fs::write(&file, text).expect("written");
    let config = file.to_str().expect("text");
    let check = |words: &[&str], environment: &[(&str, &str)]| {
        let words: Vec<&str> = ["controller", "--check-config"].iter().chain(words).copied().collect();
        here(&words, "", environment)
    };
    let given = |words: &[&str], environment: &[(&str, &str)]| check(words, environment).good().out;
    let with_home = ("XDG_DATA_HOME", "/home/x/data");
    let default = given(&[], &[with_home]);
    assert!(default.contains("frontListen: \"127.0.0.1:7766\"") && default.contains("drain: \"30s\""), "{default}");
    let from_file = given(&["--config", config], &[]);
    assert!(from_file.contains("dataDir: \"/srv/file\"") && from_file.contains("drain: \"11s\""), "{from_file}");
    assert_eq!(given(&[], &[("FRACAS_CONFIG", config)]), from_file);
    let environment = [("FRACAS_CONFIG", config), ("FRACAS_DRAIN", "22s"), ("FRACAS_DATA_DIR", "/srv/env")];
    let from_environment = given(&[], &environment);
    assert!(from_environment.contains("/srv/env") && from_environment.contains("drain: \"22s\""), "{from_environment}");
    assert!(from_environment.contains("127.0.0.1:1111"), "the rest is the file's: {from_environment}");
    let from_flags = given(&["--drain", "33s", "--front-listen", "127.0.0.1:3333"], &environment);
    assert!(from_flags.contains("drain: \"33s\"") && from_flags.contains("127.0.0.1:3333"), "{from_flags}");
    assert!(from_flags.contains("/srv/env"), "the rest is the environment's: {from_flags}");
    assert!(default.contains("metricsListen: \"127.0.0.1:7768\""), "{default}");
    let off = given(&[], &[with_home, ("FRACAS_METRICS_LISTEN", "off")]);
    assert!(off.contains("metricsListen: \"off\""), "{off}");
    let elsewhere = given(&["--metrics-listen", "[::1]:9"], &[with_home, ("FRACAS_METRICS_LISTEN", "off")]);
    assert!(elsewhere.contains("metricsListen: \"[::1]:9\""), "{elsewhere}");
    let said = check(&["--metrics-listen", "localhost"], &[with_home]);
    assert!(said.code == 2 && said.err.contains("write 127.0.0.1:7768 or off"), "{said:?}");
    // What it prints is a file that gives the same.
    std::fs::write(&file, &from_flags).expect("written");
    assert_eq!(given(&["--config", config], &[]), from_flags);
    std::fs::write(&file, text.replace("drain", "drian")).expect("written");
    let said = check(&["--config", config], &[]);
    assert!(said.code == 2 && said.err.contains(":4:1") && said.err.contains("did you mean `drain`?"), "{said:?}");
    std::fs::remove_file(file).expect("removed");
}

fn wrong_usage_is_told() {
    for (words, says) in [
        (&["rnu"][..], "run"),
        (&["run"], "FILE"),
        (&["run", "x.yaml", "--local", "--detach"], "--detach"),
        (&["halt"], "--reason"),
        (&["stop"], "RUN"),
        (&["hosts", "label", "db-1", "novalue"], "NAME=VALUE"),
    ] {
        let said = here(words, "", &[]);
        assert!(said.code == 2 && said.err.contains(says), "{words:?}: {said:?}");
    }
    // Nothing says where a controller is: the ways out are named.
    let said = here(&["runs"], "", &[]);
    assert_eq!(said.code, 5);
    for way in ["--context FILE", "--controller HOST:PORT", "--local"] {
        assert!(said.err.contains(way), "{}", said.err);
    }
    let said = here(&["run", "/nonexistent/x.yaml", "--controller", "127.0.0.1:1"], "", &[]);
    assert!(said.code == 2 && said.err.contains("/nonexistent/x.yaml"), "{said:?}");
    assert!(here(&["version"], "", &[]).good().out.contains("fracas"));
    assert!(here(&["--help"], "", &[]).good().out.contains("Exit codes:"));
}

fn script(shell: &str) -> String {
    let script = here(&["completions", shell], "", &[]).good().out;
    assert!(script.contains("fracas") && script.len() > 1000, "{script}");
    script
}

/// A shell takes the script as good.
fn parses(shell: &str, words: &[&str]) {
    let mut command = Command::new(shell);
    command.args(words);
    let said = output(command, &script(shell));
    assert!(said.code == 0 && said.err.is_empty(), "{said:?}");
}

fn bash_completes() {
    parses("bash", &["-n"]);
    let ask = |words: &str, current: &str, previous: &str| {
        let mut command = Command::new("bash");
        command.args(["--norc", "-s"]);
        let asked = format!(
            "{}\nCOMP_WORDS=({words} '{current}'); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
             _fracas fracas '{current}' {previous}\necho \"${{COMPREPLY[@]}}\"\n",
            script("bash")
        );
        output(command, &asked).good().out
    };
    assert_eq!(ask("fracas", "ru", "fracas").split_whitespace().collect::<Vec<_>>(), ["run", "runs"]);
    assert!(ask("fracas run", "--de", "run").contains("--detach"));
    assert!(ask("fracas halt", "cl", "halt").contains("clear"));
}

fn fish_completes() {
    parses("fish", &["--no-execute"]);
    let mut command = Command::new("fish");
    command.arg("--no-config");
    let asked = format!("{}\ncomplete --do-complete 'fracas ru'\n", script("fish"));
    let said = output(command, &asked).good();
    let offered: Vec<&str> = said.out.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(offered, ["run", "runs"], "{said:?}");
}
