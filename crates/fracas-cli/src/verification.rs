//! What a verification found, for people and for programs, and the exit code that goes with it. It judges nothing.

use std::fmt::Write as _;

use fracas_model::evidence::{NewerHead, Pruned, StreamFinding, Verification};
use serde_json::{Value, json};

use crate::{exit, times, words};

/// Exit code for a history that is not whole.
pub const BROKEN: u8 = 1;
/// Exit code for one that is whole, while signed heads know of more.
pub const INCOMPLETE: u8 = 3;

/// The exit code.
pub fn code(found: &Verification) -> u8 {
    match (found.whole(), found.complete()) {
        (false, _) => BROKEN,
        (true, false) => INCOMPLETE,
        (true, true) => exit::PASS,
    }
}

/// What is wrong with a stream: number of the record, and why.
fn wrong(stream: &StreamFinding) -> impl Iterator<Item = (u64, &str)> {
    stream.broken.iter().chain(&stream.blobs).map(|(seq, why)| (*seq, why.as_str()))
}

/// For people; `of` says whose history it is: `in /var/lib/fracas`.
pub fn text(of: &str, found: &Verification) -> String {
    let mut text = String::new();
    for why in &found.general {
        let _ = writeln!(text, "BROKEN: {why}");
    }
    for stream in &found.streams {
        for (seq, why) in wrong(stream) {
            let _ = writeln!(text, "BROKEN: {} record {seq}: {why}", stream.stream);
        }
    }
    for head in &found.newer {
        let _ = writeln!(text, "NOT HERE: {}", newer(head));
    }
    let word = if found.whole() { "whole" } else { "BROKEN" };
    let (records, streams) = (found.records(), found.streams.len());
    let _ = writeln!(text, "history {of}: {word}; {records} records in {streams} streams are chained");
    let last = found.last_signed_wall_ns.map(|at| format!(", the last signed {}", times::utc_second(at)));
    let _ = writeln!(text, "held against {} signed heads{}", found.signed, last.unwrap_or_default());
    for prune in &found.pruned {
        let _ = writeln!(text, "{}", pruned(prune));
    }
    let mut bare = found.unvouched().peekable();
    if bare.peek().is_some() {
        let _ = writeln!(text, "only the database vouches for:");
    }
    for stream in bare {
        let from = stream.vouched.max(stream.pruned) + 1;
        let _ = writeln!(text, "  {} records {from} to {}", stream.stream, stream.records);
    }
    text
}

fn newer(head: &NewerHead) -> String {
    format!(
        "head {} of {}, signed {}, is newer than this copy: the history was restored on {} from a backup that ends at \
         record {}",
        head.seq,
        head.stream,
        times::utc_second(head.signed_wall_ns),
        times::utc_second(head.restored_wall_ns),
        head.copy
    )
}

fn pruned(prune: &Pruned) -> String {
    let vouched = match (prune.vouched, prune.streams.len()) {
        (true, 1) => "head vouched",
        (true, _) => "heads vouched",
        (false, _) => "only the database says so",
    };
    let what = match &prune.streams[..] {
        [one] => one.clone(),
        all => words::count(all.len(), "stream"),
    };
    let (at, by, reason) = (times::utc_second(prune.at_wall_ns), &prune.by, &prune.reason);
    format!("pruned on {at} by {by} for \"{reason}\": {what}, {vouched}")
}

/// For programs: the fields of an object of schema `fracas.verification/v1`. `from` is a name and a value that say whose
/// history it is.
pub fn data((name, value): (&str, &str), found: &Verification) -> Value {
    let broken = found
        .streams
        .iter()
        .flat_map(|stream| wrong(stream).map(|(seq, why)| json!({ "stream": stream.stream, "seq": seq, "why": why })));
    let general = found.general.iter().map(|why| json!({ "stream": null, "seq": null, "why": why }));
    let bare = found.unvouched().map(|stream| {
        json!({ "stream": stream.stream, "from": stream.vouched.max(stream.pruned) + 1, "to": stream.records })
    });
    json!({
        "schema": "fracas.verification/v1",
        name: value,
        "whole": found.whole(),
        "complete": found.complete(),
        "records": found.records(),
        "streams": found.streams.len(),
        "signedHeads": found.signed,
        "lastSignedWallNs": found.last_signed_wall_ns,
        "broken": general.chain(broken).collect::<Vec<_>>(),
        "pruned": found.pruned,
        "newer": found.newer,
        "onlyTheDatabase": bare.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(name: &str, vouched: u64, broken: Option<(u64, String)>) -> StreamFinding {
        StreamFinding { stream: name.into(), pruned: 0, records: 5, vouched, broken, blobs: vec![] }
    }

    #[test]
    fn what_is_wrong_comes_first_and_what_nothing_vouches_for_last() {
        let streams =
            vec![stream("audit/c", 5, None), stream("run/a", 0, Some((6, "its bytes do not have its hash".into())))];
        let (signed, last_signed_wall_ns) = (2, Some(1_795_488_301_000_000_000));
        let general = vec!["stream run/b is gone".into()];
        let found = Verification { streams, general, signed, last_signed_wall_ns, ..Verification::default() };
        assert_eq!(
            text("in /d", &found),
            "BROKEN: stream run/b is gone\nBROKEN: run/a record 6: its bytes do not have its hash\n\
             history in /d: BROKEN; 10 records in 2 streams are chained\n\
             held against 2 signed heads, the last signed 2026-11-24 02:45:01 UTC\n\
             only the database vouches for:\n  run/a records 1 to 5\n"
        );
        let data = data(("dataDir", "/d"), &found);
        assert_eq!(data["broken"][1], json!({ "stream": "run/a", "seq": 6, "why": "its bytes do not have its hash" }));
        assert_eq!(data["onlyTheDatabase"], json!([{ "stream": "run/a", "from": 1, "to": 5 }]));
        assert_eq!((&data["whole"], &data["dataDir"]), (&json!(false), &json!("/d")));
        assert_eq!(code(&found), BROKEN);
    }

    #[test]
    fn what_is_gone_by_a_prune_or_a_restore_is_said_plainly() {
        let at = 1_795_488_301_000_000_000;
        let prune = |streams: &[&str], vouched| Pruned {
            streams: streams.iter().map(|&name| name.to_owned()).collect(),
            by: "admin".into(),
            reason: "older than 400d".into(),
            at_wall_ns: at,
            vouched,
        };
        let head = NewerHead {
            stream: "audit/c".into(),
            seq: 57,
            signed_wall_ns: at,
            copy: 50,
            restored_wall_ns: at + 86_400_000_000_000,
        };
        let mut kept = stream("schedule/s", 0, None);
        kept.pruned = 3;
        let pruned = vec![prune(&["schedule/s"], true), prune(&["run/a", "run/b"], false)];
        let found = Verification { streams: vec![kept], pruned, newer: vec![head], ..Verification::default() };
        assert_eq!(
            text("of c:1", &found),
            "NOT HERE: head 57 of audit/c, signed 2026-11-24 02:45:01 UTC, is newer than this copy: the history was \
             restored on 2026-11-25 02:45:01 UTC from a backup that ends at record 50\n\
             history of c:1: whole; 2 records in 1 streams are chained\nheld against 0 signed heads\n\
             pruned on 2026-11-24 02:45:01 UTC by admin for \"older than 400d\": schedule/s, head vouched\n\
             pruned on 2026-11-24 02:45:01 UTC by admin for \"older than 400d\": 2 streams, only the database says so\n\
             only the database vouches for:\n  schedule/s records 4 to 5\n"
        );
        assert_eq!(code(&found), INCOMPLETE);
        assert_eq!(code(&Verification::default()), exit::PASS);
    }
}
