//! Renderers against kept files, hostile text, a tag checker and a Markdown parser; the runs are those of the example.
//!
//! `FRACAS_UPDATE=1 cargo test -p fracas-cli goldens` writes the kept files anew; the difference is then for a person to read.

mod hostile;
mod tags;

#[path = "../../examples/sample_report/day.rs"]
mod day;
#[path = "../../examples/sample_report/histories.rs"]
mod histories;
#[path = "../../examples/sample_report/world.rs"]
mod world;

use std::{collections::BTreeMap, env, fs, path::PathBuf, sync::LazyLock};

use fracas_model::report::{MODEL, Report, build};
use unicode_width::UnicodeWidthStr as _;

use super::{Style, html, json, markdown, page, summary, text};
use crate::{fixture, times::Zone};

static SAMPLES: LazyLock<Vec<(&'static str, Report)>> = LazyLock::new(histories::samples);

const STYLE: Style = Style { colour: false, width: 100, zone: Zone::East(3600) };

fn sample(name: &str) -> &'static Report {
    SAMPLES.iter().find(|(known, _)| *known == name).map(|(_, report)| report).expect("a sample of this name")
}

/// Compares with a kept file; versions and the style sheet may change without a new one.
fn golden(file: &str, rendered: &str) {
    let style = [rendered.split_once("<style>"), rendered.split_once("</style>")];
    let text = match style {
        [Some((head, _)), Some((_, tail))] => format!("{head}<style></style>{tail}"),
        _ => rendered.to_owned(),
    };
    let text = text.replace(&format!("model {MODEL}"), "model VERSION");
    let mut text = text;
    for drawn in ["fracas ", "Fracas "] {
        let version = env!("CARGO_PKG_VERSION");
        text = text.replace(&format!("{drawn}{version}"), &format!("{drawn}VERSION"));
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/render/tests/goldens").join(file);
    if env::var_os("FRACAS_UPDATE").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    let differs = kept.lines().zip(text.lines()).enumerate().find(|(_, (a, b))| a != b);
    assert!(kept == text, "{file} differs (FRACAS_UPDATE=1 writes it anew), first at {differs:?}");
}

#[test]
fn goldens() {
    golden("pass.html", &html(sample("pass")));
    for name in ["pass", "fail", "aborted", "unconfirmed", "refused", "day"] {
        golden(&format!("{name}.txt"), &text(sample(name), STYLE));
    }
    for name in ["pass", "fail", "unconfirmed", "day"] {
        golden(&format!("{name}.md"), &markdown(sample(name)));
    }
    let summaries = SAMPLES.iter().map(|(name, report)| format!("== {name}\n{}", summary(report, STYLE)));
    golden("summaries.txt", &summaries.collect::<String>());
}

#[test]
fn pages_are_well_formed_and_every_link_leads_somewhere() {
    for (name, report) in SAMPLES.iter() {
        let page = html(report);
        let found = tags::check(&page).unwrap_or_else(|why| panic!("{name}: {why}"));
        let ids: Vec<&str> = found.values("id").collect();
        let mut unique = ids.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), ids.len(), "{name}: an id twice");
        let targets = found.values("href").chain(found.values("aria-labelledby").flat_map(|v| v.split(' ')));
        for target in targets {
            assert!(ids.contains(&target.trim_start_matches('#')), "{name}: {target} leads nowhere");
        }
    }
}

#[test]
fn pages_need_no_network_and_no_script() {
    for (name, report) in SAMPLES.iter() {
        let page = html(report);
        let found = tags::check(&page).unwrap();
        for tag in ["script", "link", "img", "iframe", "object", "embed", "form", "base"] {
            assert!(!found.names().any(|n| n == tag), "{name}: <{tag}>");
        }
        assert!(found.attributes().all(|a| !a.starts_with("on") && a != "src" && a != "style"), "{name}");
        assert!(found.values("href").all(|to| to.starts_with('#')), "{name}");
        assert!(page.split("url(").skip(1).all(|to| to.starts_with('#')) && !page.contains("@import"), "{name}");
    }
}

#[test]
fn every_drawing_can_be_heard_and_every_table_has_its_heads() {
    for (name, report) in SAMPLES.iter() {
        let page = html(report);
        for drawing in page.split("<svg class=\"drawing\"").skip(1) {
            let head = &drawing[..drawing.find("</desc>").unwrap_or(0)];
            assert!(head.contains("role=\"img\"") && head.contains("<title") && head.contains("<desc"), "{name}");
        }
        for table in page.split("<table").skip(1) {
            let table = &table[..table.find("</table>").unwrap_or(0)];
            assert!(table.contains("<caption>") && table.contains("scope=\"col\""), "{name}: {table}");
            assert_eq!(table.matches("<tr").count() - 1, table.matches("scope=\"row\"").count(), "{name}: {table}");
        }
    }
    let told = html(sample("pass"));
    assert!(told.contains("checkout checkout-up from edge-1: 1 outage, 1 blip: down from +0.103s to +1."), "{told}");
}

#[test]
fn the_large_run_is_drawn_with_closer_looks_and_stays_small() {
    let large = sample("large");
    let told = large.events.iter().filter(|e| !e.routine).count();
    assert!(told >= 400 && large.times.last_ns - large.times.first_ns > 7_190_000_000_000, "{told}");
    let page = html(large);
    assert_eq!(page.matches("<svg class=\"drawing\"").count(), 2 + 1 + 4, "two services, the whole, four closer looks");
    assert!(page.len() < 250_000, "{} bytes", page.len());
    assert!(markdown(large).len() < 1_000_000, "a job summary holds 1 MiB");
    for line in large.events.iter().filter(|e| !e.routine) {
        assert!(page.contains(&format!("<tr id=\"e{}\">", line.seq)), "{line:?}");
    }
}

#[test]
fn a_long_history_keeps_its_two_ends() {
    let mut report = sample("pass").clone();
    let line = report.events[0].clone();
    report.events =
        (1..=50_000).map(|seq| fracas_model::report::EventLine { seq, routine: false, ..line.clone() }).collect();
    let page = html(&report);
    assert_eq!(page.matches("<tr id=\"e").count(), 20_000);
    assert!(page.contains("id=\"e1\"") && page.contains("id=\"e50000\"") && !page.contains("id=\"e25000\""));
    assert!(page.contains("30000 of 50000 are left out"));
    assert!(markdown(&report).len() < 1_000_000);
}

#[test]
fn texts_fit_their_width_and_colours_change_nothing_else() {
    for (name, report) in SAMPLES.iter() {
        for width in [40, 80, 132] {
            let style = Style { width, ..STYLE };
            for plain in [text(report, style), summary(report, style)] {
                for line in plain.lines() {
                    assert!(line.width() <= width && !line.ends_with(' '), "{name} at {width}: {line:?}");
                }
            }
            // Strips use letters where there is no colour, so that part is left out.
            let coloured = summary(report, Style { colour: true, ..style });
            assert!(coloured.contains("\x1b["));
            assert_eq!(hostile::without_colours(&coloured), summary(report, style), "{name}");
        }
    }
}

#[test]
fn summaries_are_short() {
    for (name, report) in SAMPLES.iter() {
        let lines = summary(report, STYLE).lines().count();
        assert!((5..=24).contains(&lines), "{name}: {lines}");
    }
    let mut many = sample("large").clone();
    let item = many.entries[0].items[0].clone();
    many.entries[0].items = vec![item; 300];
    assert!(summary(&many, STYLE).contains("kill process-kill: verified on 300 of 300 hosts, clean on 300"));
    assert!(summary(&many, STYLE).lines().count() < 26);
    assert!(html(&many).len() < 1_000_000);
}

#[test]
fn data_comes_back_from_json() {
    let report = build(&fixture::history(), &BTreeMap::new());
    assert_eq!(serde_json::from_str::<Report>(&json(&report)).unwrap(), report);
}

#[test]
fn nothing_at_all_still_makes_a_report() {
    let empty = build(&[], &BTreeMap::new());
    tags::check(&html(&empty)).unwrap();
    assert!(text(&empty, STYLE).starts_with("ERROR"));
    assert!(markdown(&empty).starts_with("# ❌"));
}

/// WCAG 2.2: relative luminance, and the ratio of two.
fn contrast(a: &str, b: &str) -> f64 {
    let luminance = |hex: &str| {
        let channel = |at: usize| {
            let c = f64::from(u8::from_str_radix(&hex[at..at + 2], 16).unwrap()) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
    };
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

#[test]
fn words_and_drawings_stand_out_in_both_colour_schemes() {
    let schemes: Vec<BTreeMap<&str, &str>> = page::STYLE
        .split(":root {")
        .skip(1)
        .map(|block| block.split('}').next().unwrap_or_default())
        .map(|block| block.split(';').filter_map(|rule| rule.trim().strip_prefix("--")?.split_once(": ")).collect())
        .collect();
    assert_eq!(schemes.len(), 2);
    for scheme in schemes {
        let of = |name: &str| *scheme.get(name).unwrap_or_else(|| panic!("no colour {name}"));
        let backs = ["back", "panel", "window", "pass-back", "fail-back", "doubt-back", "calm-back"];
        let mut pairs: Vec<(&str, &str, f64)> = Vec::new();
        pairs.extend(backs.iter().flat_map(|back| [("ink", *back, 7.0), ("muted", *back, 7.0)]));
        pairs.extend(["back", "panel"].iter().flat_map(|back| [("link", *back, 7.0), ("fail", *back, 7.0)]));
        pairs.extend(
            [("pass", "pass-back"), ("fail", "fail-back"), ("doubt", "doubt-back"), ("calm", "calm-back")]
                .map(|(a, b)| (a, b, 7.0)),
        );
        for shape in ["up", "down", "changing", "gap", "fault", "length"] {
            pairs.extend(["back", "panel", "window"].map(|back| (shape, back, 3.0)));
        }
        for (a, b, least) in pairs {
            let ratio = contrast(of(a), of(b));
            assert!(ratio >= least, "{a} on {b}: {ratio:.2}, wanted {least}");
        }
    }
}
