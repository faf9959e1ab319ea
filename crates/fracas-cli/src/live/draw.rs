//! The screen's lines from what is known: header, services, timeline with faults per host, probe strips, hints.
//!
//! Pure: the instant and the size are arguments. Every line fits the width.

use fracas_model::{event::Proof, id::HostId, report::asked_and_measured, units::Dur};

use super::{
    span::{Line, Style},
    strip::Cell,
    view::{EntryView, Fate, ItemView, ProbeView, Progress, ServiceView, Stage, View},
};
use crate::{times, words};

/// Most cells of a probe strip.
const CELLS: usize = 60;
/// How much time a cell may stand for, nanoseconds: the first that shows all of the run so far, else the last.
const SPANS: [i64; 3] = [250_000_000, 500_000_000, 1_000_000_000];

/// Everything a frame depends on beside the view.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    /// Wall time on the controller's clock, nanoseconds.
    pub(crate) now: i64,
    /// Columns.
    pub(crate) width: usize,
    /// Rows that may be used.
    pub(crate) height: usize,
    /// Whether colours tell states apart; without them letters do.
    pub(crate) colour: bool,
    /// Why nothing arrives at the moment, if so.
    pub(crate) lost: Option<&'a str>,
    /// The last line: what keys do.
    pub(crate) hint: &'a str,
}

/// All lines, top to bottom.
pub(crate) fn frame(view: &View, frame: Frame<'_>) -> Vec<Line> {
    let now = view.ended_wall_ns.map_or(frame.now, |end| frame.now.min(end));
    let mut top = vec![header(view, now)];
    top.extend(view.services.iter().map(|s| service(s, now)));
    let mut bottom: Vec<Line> = view.notes.iter().map(|n| Line::new().with(Style::Yellow, format!("! {n}"))).collect();
    if let Some(why) = frame.lost {
        bottom.push(Line::new().with(Style::Red, format!("! connection lost: {why}; the run goes on, trying again")));
    }
    if let Some(ending) = &view.ending {
        bottom.push(verdict(ending));
    } else if !frame.hint.is_empty() {
        bottom.push(Line::new().with(Style::Dim, frame.hint));
    }
    let label =
        view.probes.iter().map(|p| probe_label(view, p).chars().count()).max().unwrap_or(0).min(frame.width / 3);
    let span = span(view, now, label, frame.width);
    let strips: Vec<Line> = view.probes.iter().map(|p| strip(view, p, now, label, span, frame)).collect();
    let legend = (!strips.is_empty()).then(|| legend(label, span, frame.colour));
    let room = frame.height.saturating_sub(top.len() + bottom.len()).max(1);
    let mut middle: Vec<Line> =
        timeline(view, now, false).into_iter().chain(strips.iter().cloned()).chain(legend).collect();
    if middle.len() > room {
        // What is over needs no line per host, and who knows the strips no legend.
        middle = timeline(view, now, true).into_iter().chain(strips).collect();
    }
    if middle.len() > room {
        let hidden = middle.len() + 1 - room;
        middle.truncate(room - 1);
        middle.push(Line::new().with(Style::Dim, format!("… {}", words::count(hidden, "more line"))));
    }
    top.into_iter().chain(middle).chain(bottom).map(|line| line.cut(frame.width)).collect()
}

fn header(view: &View, now: i64) -> Line {
    let stage = match view.stage {
        Stage::Waiting => "CONNECTING",
        Stage::Planned => "PLANNED",
        Stage::Gating => "WAITING FOR STEADY STATE",
        Stage::Running => "RUNNING",
        Stage::Recovering => "RECOVERING",
        Stage::Undoing => "UNDOING",
        Stage::Finished => "FINISHED",
    };
    let style = if matches!(view.stage, Stage::Running | Stage::Undoing) { Style::Yellow } else { Style::Bold };
    let elapsed = match (view.zero_wall_ns, view.planned_wall_ns) {
        (Some(zero), _) => format!("T+{}", times::running(Dur::from_ns(now - zero))),
        (None, Some(planned)) => times::running(Dur::from_ns(now - planned)),
        (None, None) => String::new(),
    };
    // The state first: it must survive forty columns, and a long name must not push it out.
    Line::new()
        .with(style, stage)
        .with(Style::Bold, format!(" {elapsed}"))
        .with(Style::Plain, format!("  {}", view.name))
        .with(Style::Dim, format!("  run {}", view.run))
}

fn service(service: &ServiceView, now: i64) -> Line {
    let line = Line::new().with(Style::Bold, &service.id).with(Style::Plain, " ");
    let objective = service.rto.map(|rto| format!("  objective {rto}")).unwrap_or_default();
    match (service.down_since, service.last_outage) {
        (Some(since), _) => {
            let down = Dur::from_ns(now - since);
            let late = service.rto.is_some_and(|rto| down > rto);
            line.with(Style::Red, format!("DOWN {}", times::running(down)))
                .with(if late { Style::Red } else { Style::Dim }, objective)
        }
        (None, _) if !service.seen => line.with(Style::Dim, format!("not seen yet{objective}")),
        (None, None) => line.with(Style::Green, "UP").with(Style::Dim, objective),
        (None, Some(outage)) => {
            let times = if service.outages > 1 { format!(" ({} outages)", service.outages) } else { String::new() };
            line.with(Style::Green, "UP")
                .with(Style::Plain, format!("  was down {}{times}", outage.human()))
                .with(Style::Dim, objective)
        }
    }
}

fn timeline(view: &View, now: i64, short: bool) -> Vec<Line> {
    let column = view.entries.iter().map(|e| e.id.chars().count()).max().unwrap_or(0).min(20);
    let mut lines = Vec::new();
    for e in &view.entries {
        lines.push(entry(view, e, now, column));
        lines.extend(question(view, e));
        let over = |item: &ItemView| matches!(item.fate, Fate::Undone | Fate::Fired);
        let items = e.items.iter().filter(|(_, item)| !(short && over(item)));
        lines.extend(items.map(|(host, item)| fault(view, host, item)));
    }
    lines
}

/// How a question that waits is answered, by whom and until when.
fn question(view: &View, entry: &EntryView) -> Vec<Line> {
    if !entry.asks || entry.progress != Progress::Started || entry.answer.is_some() {
        return Vec::new();
    }
    let id = entry.id.strip_suffix(":approval").unwrap_or(&entry.id);
    let until = entry.started_wall_ns.zip(entry.lasts).map(|(at, lasts)| times::utc_second(at + lasts.ns()));
    let until = until.map(|until| format!(", until {until}")).unwrap_or_default();
    vec![
        Line::new().with(Style::Yellow, format!("    fracas decide {} {id} go|no-go", view.run)),
        Line::new().with(Style::Dim, format!("    by an approver in {}, not {}{until}", view.environment, view.by)),
    ]
}

fn entry(view: &View, entry: &EntryView, now: i64, column: usize) -> Line {
    let failed = entry.items.values().any(|i| matches!(i.fate, Fate::Failed | Fate::Refused | Fate::UndoFailed));
    let undoing = entry.items.values().any(|i| i.fate == Fate::Undoing);
    let (glyph, style) = match (&entry.progress, failed, undoing) {
        (_, true, _) => ("✗", Style::Red),
        (Progress::Waiting, ..) => ("○", Style::Dim),
        (Progress::Started, _, true) => ("↺", Style::Yellow),
        (Progress::Started, ..) => ("●", Style::Yellow),
        (Progress::Ended, ..) => ("✓", Style::Green),
        (Progress::Skipped(_), ..) => ("–", Style::Dim),
        (Progress::Failed(_), ..) => ("✗", Style::Yellow),
    };
    let line = Line::new()
        .with(style, glyph)
        .with(Style::Bold, format!(" {}", entry.id))
        .pad(column + 4)
        .with(Style::Plain, &entry.what);
    match &entry.progress {
        Progress::Waiting => line.with(Style::Dim, format!("  {}", entry.trigger)),
        Progress::Skipped(why) => line.with(Style::Dim, format!("  skipped: {why}")),
        Progress::Failed(why) => line.with(Style::Yellow, format!("  {why}")),
        Progress::Ended if let Some(answer) = &entry.answer => line.with(Style::Dim, format!("  {answer}")),
        Progress::Started => match (entry.started_wall_ns, entry.lasts) {
            (Some(started), Some(lasts)) => {
                let left = Dur::from_ns((started + lasts.ns() - now).max(0));
                line.with(Style::Dim, format!("  {} left", times::running(left)))
            }
            _ => line,
        },
        Progress::Ended => match (entry.started_wall_ns, view.zero_wall_ns) {
            (Some(started), Some(zero)) => {
                line.with(Style::Dim, format!("  at {}", times::from_zero(Dur::from_ns(started - zero))))
            }
            _ => line,
        },
    }
}

fn fault(view: &View, host: &HostId, item: &ItemView) -> Line {
    let (word, style) = match (item.fate, &item.proof) {
        (Fate::Asked, _) => ("asked", Style::Dim),
        (Fate::Applying, _) => ("applying", Style::Yellow),
        (Fate::Active, Some(Proof::Verified)) => ("active, verified", Style::Yellow),
        (Fate::Active, Some(Proof::Ineffective { .. })) => ("ACTIVE, INEFFECTIVE", Style::Red),
        (Fate::Active, _) => ("active", Style::Yellow),
        (Fate::Fired, Some(Proof::Verified)) => ("done, verified", Style::Green),
        (Fate::Fired, Some(Proof::Ineffective { .. })) => ("DONE, INEFFECTIVE", Style::Red),
        (Fate::Fired, _) => ("done", Style::Green),
        (Fate::Undoing, _) => ("undoing", Style::Yellow),
        (Fate::Undone, _) => ("undone", Style::Green),
        (Fate::Refused, _) => ("REFUSED", Style::Red),
        (Fate::Failed, _) => ("FAILED", Style::Red),
        (Fate::UndoFailed, _) => ("UNDO FAILED, trying on", Style::Red),
    };
    let line = Line::new().with(Style::Plain, format!("    {} ", view.names.host(host))).with(style, word);
    let troubled = matches!(item.fate, Fate::Refused | Fate::Failed | Fate::UndoFailed);
    let more = match (&item.proof, item.measured.first()) {
        _ if troubled => item.detail.clone(),
        (Some(Proof::Ineffective { why } | Proof::Unverified { why }), _) => why.clone(),
        (_, Some(_)) => item.measured.iter().map(asked_and_measured).collect::<Vec<_>>().join("; "),
        _ => item.detail.clone(),
    };
    if more.is_empty() { line } else { line.with(Style::Dim, format!("  {more}")) }
}

fn probe_label(view: &View, probe: &ProbeView) -> String {
    format!("{} {}", probe.probe, view.names.host(&probe.host))
}

/// How much time a cell stands for, nanoseconds: short runs are shown finely, all strips alike.
fn span(view: &View, now: i64, label: usize, width: usize) -> i64 {
    let cells = width.saturating_sub(label + 2).clamp(1, CELLS) as i64;
    let elapsed = view.planned_wall_ns.map_or(0, |planned| now - planned);
    SPANS.into_iter().find(|span| elapsed < span * cells).unwrap_or(SPANS[SPANS.len() - 1])
}

fn legend(label: usize, span: i64, colour: bool) -> Line {
    let signs = if colour { "█ ok  ▄ both  ▁ failing  · no look" } else { "o ok  m both  x failing  ? no look" };
    Line::new().pad(label + 2).with(Style::Dim, format!("{signs}; one sign is {}", Dur::from_ns(span)))
}

fn strip(view: &View, probe: &ProbeView, now: i64, label: usize, span: i64, frame: Frame<'_>) -> Line {
    // Why it fails matters more than what was seen long ago.
    let why = match probe.strip.last() {
        Some((_, false)) => probe.why.chars().count() + 2,
        _ => 0,
    };
    let room = frame.width.saturating_sub(label + 2);
    let cells = room.saturating_sub(why).max(room / 3).clamp(1, CELLS);
    // Cells begin at multiples of their span on the wall clock, so that they do not flicker from frame to frame.
    let last = now.div_euclid(span);
    let mut line = Line::new().with(Style::Bold, probe_label(view, probe)).cut(label).pad(label + 2);
    for cell in (last + 1 - cells as i64)..=last {
        let (glyph, letter, style) = match probe.strip.cell(cell * span, (cell + 1) * span) {
            Cell::Before => (" ", " ", Style::Plain),
            Cell::Ok => ("█", "o", Style::Green),
            Cell::Mixed => ("▄", "m", Style::Yellow),
            Cell::Failing => ("▁", "x", Style::Red),
            Cell::Gap => ("·", "?", Style::Dim),
        };
        line = line.with(style, if frame.colour { glyph } else { letter });
    }
    match probe.strip.last() {
        Some((_, false)) => line.with(Style::Red, format!("  {}", probe.why)),
        _ => line,
    }
}

fn verdict(ending: &super::view::Ending) -> Line {
    let style = match ending.exit_code {
        0 => Style::Green,
        3 => Style::Yellow,
        _ => Style::Red,
    };
    let reasons = ending.reasons.first().map(|r| format!(": {r}")).unwrap_or_default();
    Line::new().with(style, ending.verdict.name().to_uppercase()).with(Style::Plain, reasons)
}

#[cfg(test)]
mod tests {
    use fracas_model::{event::Body, id::EntryId};

    use super::*;
    use crate::fixture;

    fn screen(seq: u64, ms: i64, width: usize, height: usize) -> Vec<String> {
        let mut view = View::default();
        for event in fixture::history().iter().filter(|e| e.seq <= seq) {
            view.apply(event);
        }
        let now = fixture::START + ms * 1_000_000;
        let at = Frame { now, width, height, colour: false, lost: None, hint: "Ctrl-C stops and undoes" };
        frame(&view, at).iter().map(|l| l.render(false).trim_end().to_owned()).collect()
    }

    #[test]
    fn an_outage_at_eighty_columns() {
        assert_eq!(
            screen(9, 12_300, 80, 24),
            [
                "RUNNING T+2s  shop-survives  run r1",
                "shop DOWN 2s  objective 30s",
                "✓ kill  crash on primary  at +0.000s",
                "    db-1 done, verified",
                "○ slow  lag on primary for 20s  after shop recovered",
                "shop-up edge-1  oooooooooooooooooooooooooooooooooomxxxxxxxxx  connection refused",
                "                o ok  m both  x failing  ? no look; one sign is 250ms",
                "Ctrl-C stops and undoes",
            ]
        );
    }

    #[test]
    fn a_sign_stands_for_more_time_in_a_longer_run() {
        let signs = |ms| screen(9, ms, 80, 24).into_iter().find(|l| l.contains("one sign")).unwrap();
        assert!(signs(12_300).ends_with("is 250ms") && signs(20_000).ends_with("is 500ms"));
        assert!(signs(60_000).ends_with("is 1s") && signs(6_000_000).ends_with("is 1s"));
    }

    #[test]
    fn a_fault_in_force_shows_asked_next_to_measured() {
        let lines = screen(15, 21_000, 120, 24);
        assert_eq!(lines[1], "shop UP  was down 3.20 s  objective 30s");
        assert_eq!(lines[4], "● slow  lag on primary for 20s  17s left");
        assert_eq!(
            lines[5],
            "    db-1 active, verified  added delay: asked 200 ms, measured 201.3 ms, n = 50, by probe packets"
        );
        let narrow = screen(15, 21_000, 40, 24);
        assert_eq!(narrow[0], "RUNNING T+11s  shop-survives  run r1");
        assert_eq!(narrow[5], "    db-1 active, verified  added delay:…");
    }

    #[test]
    fn every_line_fits_and_the_verdict_replaces_the_hint() {
        for width in [40, 80, 120] {
            for seq in 0..23 {
                let lines = screen(seq, 45_000, width, 24);
                assert!(lines.iter().all(|l| l.chars().count() <= width), "{width} {seq}: {lines:#?}");
            }
        }
        assert_eq!(screen(22, 90_000, 80, 24).last().unwrap(), "PASS");
    }

    #[test]
    fn a_question_says_how_it_is_answered_by_whom_and_until_when() {
        let mut view = View::default();
        let asks = serde_json::json!({ "id": "real:approval", "trigger": { "at": "0s" },
            "action": { "approval": { "question": "All well?", "deadline": "30m", "otherwise": "stop" } } });
        let mut events = fixture::history();
        if let Body::Planned { document, .. } = &mut events[0].body {
            document["timeline"] = serde_json::json!([asks]);
        }
        let (entry, at) = (EntryId::from("real:approval"), fixture::stamp(11_000));
        let started =
            Body::EntryStarted { entry: entry.clone(), occurrence: 0, generation: 1, at: fixture::stamp(10_000) };
        let answer = Body::Decided { entry, go: true, by: "p7".into(), note: "all here".into(), at };
        events.truncate(4);
        events.extend([fixture::event(5, started), fixture::event(6, answer)]);
        let mut shown = Vec::new();
        for event in &events {
            view.apply(event);
            let at = Frame {
                now: fixture::START + 70_000_000_000,
                width: 80,
                height: 24,
                colour: false,
                lost: None,
                hint: "",
            };
            let lines: Vec<String> = frame(&view, at).iter().map(|l| l.render(false).trim_end().to_owned()).collect();
            shown.push(lines);
        }
        assert_eq!(
            shown[4][2..5],
            [
                "● real:approval  go or no-go: All well?  29m00s left",
                "    fracas decide r1 real go|no-go",
                "    by an approver in default, not p1, until 2026-11-24 03:15:10 UTC",
            ]
        );
        assert!(!shown[5].join(" ").contains("fracas decide"), "{:?}", shown[5]);
    }

    #[test]
    fn a_low_terminal_keeps_header_services_and_hint() {
        let lines = screen(15, 21_000, 80, 5);
        assert_eq!(lines.len(), 5);
        assert!(lines[0].starts_with("RUNNING") && lines[1].starts_with("shop UP"));
        assert_eq!(lines[3], "… 3 more lines");
        assert_eq!(lines[4], "Ctrl-C stops and undoes");
    }

    #[test]
    fn a_lost_connection_is_said_and_the_run_goes_on() {
        let at = Frame { now: 0, width: 80, height: 24, colour: false, lost: Some("refused"), hint: "" };
        let lines = frame(&View::default(), at);
        assert_eq!(lines[1].render(false), "! connection lost: refused; the run goes on, trying again");
    }
}
