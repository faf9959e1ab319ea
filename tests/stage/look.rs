//! What `/proc` says of every process of a host, read by the test itself.

use std::fs;

use serde_json::{Value, json};

use super::say;

/// The part `processes`: one line each.
pub(super) fn processes() {
    all().iter().for_each(say);
}

/// Every process that this one can see.
pub(crate) fn all() -> Vec<Value> {
    let mut told = Vec::new();
    for entry in fs::read_dir("/proc").expect("processes").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // It may be gone by now.
        let read = |what: &str| fs::read_to_string(format!("/proc/{pid}/{what}")).unwrap_or_default();
        let status = read("status");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap_or_default().trim().to_owned()
        };
        if status.is_empty() {
            continue;
        }
        let number = |name: &str| field(name).parse::<i32>().unwrap_or_default();
        told.push(json!({
            "pid": pid,
            "parent": number("PPid"),
            "name": field("Name"),
            "state": field("State").chars().next().map(String::from).unwrap_or_default(),
            "tracer": number("TracerPid"),
            "command": read("cmdline").split('\0').filter(|word| !word.is_empty()).collect::<Vec<_>>(),
            "ticks": ticks(&read("stat")),
            "nice": nice(&read("stat")),
            "oom": read("oom_score_adj").trim(),
            // The version 2 hierarchy, as seen from here.
            "cgroup": read("cgroup").lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default(),
        }));
    }
    told
}

/// User and system time, clock ticks.
fn ticks(stat: &str) -> u64 {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name.split_whitespace().skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum()
}

/// How far it gives way to others.
fn nice(stat: &str) -> i32 {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name.split_whitespace().nth(16).and_then(|word| word.parse().ok()).unwrap_or_default()
}
