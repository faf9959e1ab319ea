//! Trends drawn: every run is there, what cannot be told is said, and nothing foreign gets through.

use fracas_model::{
    event::VerdictWord,
    experiment::RtoFrom,
    time::Interval,
    trend::{ALPHA, Asked, Baseline, trends},
    units::Dur,
};

use super::*;
use crate::{fixture::START, times::Zone};

const DAY: i64 = 86_400_000_000_000;

/// So many runs of `kill-db`, a day apart, the newest first, in which `shop` took 3.0 s to 3.1 s; in the newest one another
/// time.
pub(crate) fn fixture(runs: usize, last_ms: i64) -> Vec<Point> {
    let point = |number: usize| {
        let ms = if number + 1 == runs { last_ms } else { 3000 };
        let length = Some(Interval::new(Dur::from_ms(ms), Dur::from_ms(ms + 100)));
        let met = ms <= 4900;
        let why = "as seen".to_owned();
        Point {
            run: fracas_model::id::RunId::new(format!("r{number:03}")),
            experiment: "kill-db".into(),
            service: "shop".into(),
            environment: "default".into(),
            started_wall_ns: START + number as i64 * DAY,
            ended_wall_ns: START + number as i64 * DAY + 60_000_000_000,
            seed: 7 + number as u64,
            intent: "aabbccddeeff".into(),
            faults: vec!["crash".into()],
            verdict: if met { VerdictWord::Pass } else { VerdictWord::Fail },
            judgement: if met { Judgement::Met { why } } else { Judgement::Missed { why } },
            rto: Some(Dur::from_secs(5)),
            rto_from: RtoFrom::Impact,
            rpo: None,
            mtpd: None,
            prove_every: None,
            length,
            outage: length,
            recovery_from_fault: None,
            residual: None,
            recovery_point: None,
        }
    };
    (0..runs).rev().map(point).collect()
}

fn folded(points: Vec<Point>) -> Vec<Trend> {
    trends(points, false, Some(&Asked { newest: 1, baseline: Baseline::Last(20), alpha: ALPHA }))
}

fn plain_style() -> Style {
    Style { colour: false, width: 100, zone: Zone::East(0) }
}

#[test]
fn text_says_what_is_known_and_what_n_is_too_small_for() {
    let mut points = fixture(21, 9000);
    points[3].length = Some(Interval::at_least(Dur::from_ms(1500)));
    points[4].length = None;
    let told = text(&folded(points), &[], plain_style());
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(
        lines[..8],
        [
            "shop  kill-db",
            "  n = 20, 1 cut short, 1 run without effect not counted; intent aabbccdd",
            "  objective 5s: met 19, missed 1 of 20",
            "  median 3.00 s to 3.10 s in these runs; of all such runs 3.00 s to 3.10 s (95 %)",
            "  n too small for P90 (29 needed)",
            "  n too small for P95 (59 needed)",
            "  n too small for P99 (299 needed)",
            "  SLOWER: slower than the 19 runs before, p = 0.05, n = 1 against 19",
        ]
    );
    assert_eq!(lines.len(), 8 + 2 + 21, "every run has its line:\n{told}");
    assert!(told.contains("at least 1.50 s") && told.contains("no fault took effect"), "{told}");
}

#[test]
fn earlier_intents_are_told_apart() {
    let mut points = fixture(6, 3000);
    points[5].intent = "0011223344".into();
    let mut all = folded(points);
    let earlier = all.split_off(1);
    let told = text(&all, &earlier, plain_style());
    assert!(told.contains("(intent 00112233): shop, 1 run; --all-intents mixes them"), "{told}");
    assert!(told.contains("cannot tell: n = 1 against 4"), "{told}");
}

#[test]
fn a_drawing_has_a_bar_for_every_run_and_is_sound() {
    let mut points = fixture(21, 9000);
    points[3].length = Some(Interval::at_least(Dur::from_ms(1500)));
    points[4].length = None;
    let drawn = svg(&folded(points));
    assert_eq!(drawn.matches("<title>run r").count(), 20);
    assert_eq!(drawn.matches("at least 1.50 s").count(), 1);
    assert!(drawn.contains("objective 5s") && drawn.contains("slower than"), "{drawn}");
    assert_eq!(drawn.matches("<rect").count(), drawn.matches("</rect>").count() + 1, "the paper has no end tag");
    assert!(svg(&[]).contains("no finished run"));
}

#[test]
fn foreign_names_open_no_tag() {
    let mut points = fixture(3, 3000);
    for point in &mut points {
        point.experiment = "</svg><script>alert(1)</script>|`x`".into();
    }
    let all = folded(points);
    for drawn in [svg(&all), html(&all, &all), markdown(&all, &[])] {
        assert!(!drawn.contains("<script>"), "{drawn}");
    }
}

#[test]
fn the_page_of_a_run_shows_those_before_it() {
    let report = fracas_model::report::build(&crate::fixture::history(), &std::collections::BTreeMap::new());
    let alone = crate::render::html(&report);
    let among = crate::render::html_among(&report, &folded(fixture(4, 3000)));
    assert!(!alone.contains("id=\"runs\"") && among.contains("id=\"runs\""));
    assert_eq!(among.matches("<title>run r").count(), 4);
}

#[test]
fn a_lone_run_is_drawn_too() {
    let all = folded(fixture(1, 3000));
    assert!(png(&all).len() > 1000 && svg(&all).contains("<title>run r000"));
    assert!(markdown(&all, &[]).contains("## ❔ shop: recovery in kill-db"));
}
