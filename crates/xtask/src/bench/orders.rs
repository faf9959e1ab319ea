//! From the decision that a fault is due, made and then committed by the controller, to its effect on the host.
//!
//! Both ends are read from `CLOCK_BOOTTIME` of one machine, so their difference is exact. The decision is stamped
//! before its commit: the commit's sync is part of what is measured.

use std::{collections::BTreeMap, process::Command};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::{Pair, Sample, built, fsyncs, table};

pub(super) fn run(quick: bool) -> anyhow::Result<()> {
    let n = if quick { 30 } else { 320 };
    let bin = built("release", &["fracas"])?;
    let dir = tempfile::tempdir()?;
    let pair = Pair::start(dir.path(), &bin.join("fracas"), &bin.join("fracas"))?;
    let file = dir.path().join("orders.yaml");
    std::fs::write(&file, document(n))?;
    let output = Command::new(&pair.fracas)
        .args(["run", "--yes", "--output", "json"])
        .arg(&file)
        .env("FRACAS_CONTEXT", &pair.context)
        .output()?;
    if !output.status.success() {
        bail!("the run ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    let (mut started, mut orders, mut undos) = (BTreeMap::new(), Vec::new(), Vec::new());
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let event: Value = serde_json::from_str(line).context("a line is not JSON")?;
        let body = &event["body"];
        let entry = body["entry"].as_str().or_else(|| body["item"]["entry"].as_str()).unwrap_or_default().to_owned();
        match body["kind"].as_str() {
            Some("entryStarted") => {
                started.insert(entry, body["at"]["bootNs"].as_i64().unwrap_or(0));
            }
            Some("active") => {
                let effective = body["effective"]["to"]["bootNs"].as_i64().context("no effective stamp")?;
                orders.push(effective - started.get(&entry).context("active before started")?);
            }
            Some("undone") => {
                let between = |end: &str| body["between"][end]["bootNs"].as_i64().unwrap_or(0);
                undos.push(between("to") - between("from"));
            }
            _ => {}
        }
    }
    let mut rows = Vec::new();
    for (what, sample) in [
        ("decision -> committed -> fault in effect", Sample::new(orders)),
        ("undo begun -> read back", Sample::new(undos)),
        ("fsync of 4 KiB in the same directory", fsyncs(dir.path(), n)?),
    ] {
        rows.push([vec![what.to_owned()], sample.cells()].concat());
    }
    table("orders (one agent over loopback, milliseconds)", &["what", "n", "p50", "p99", "max"], &rows)
}

/// So many short loads, each when the one before is over.
fn document(n: usize) -> String {
    let mut text = "apiVersion: fracas/v1\nkind: Experiment\nname: orders\ntargets: { here: { select: bench=true } }\n\
                    timeline:\n"
        .to_owned();
    for i in 0..n {
        let trigger = if i == 0 { "at: 0s".to_owned() } else { format!("after: {{ ended: e{} }}", i - 1) };
        text += &format!(
            "  - {{ id: e{i}, {trigger}, target: here, for: 50ms, required: false, fault: {{ cpu-load: {{ percent: 1%, cores: 1 }} }} }}\n"
        );
    }
    text
}
