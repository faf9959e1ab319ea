//! Hostile text in every field that can hold any: it must stay text in every form of a report.

use fracas_model::report::Report;
use proptest::prelude::*;
use pulldown_cmark::{Event, Options, Parser};
use serde_json::{Map, Value};

use super::{STYLE, sample, tags};
use crate::render::{Style, html, json, markdown, summary, text};

/// Keys whose values are quantities or words of a closed list: no foreign text can stand there.
const TYPED: &[&str] = &[
    "every",
    "timeout",
    "rto",
    "rtoFrom",
    "word",
    "state",
    "step",
    "cause",
    "stableFor",
    "giveUpAfter",
    "holdFor",
    "failingFor",
    "mapWidth",
    "wallBound",
    "undoTook",
    "duration",
    "settledByPeriod",
    "lo",
    "hi",
    "delay",
    "at",
    "lease",
    "onEmpty",
    "onInterrupt",
    "rounding",
    "maxPercent",
    "percent",
    "onFailure",
    "otherwise",
    "deadline",
];
/// Keys whose values are maps from foreign names.
const NAMED: &[&str] = &["targets", "hosts", "services", "probes", "params"];

/// Begins every replaced text and occurs nowhere else, so that no replaced text contains another.
const LEAD: char = '¤';

/// The report with `text` before the content of every free field, names included.
fn poisoned(report: &Report, text: &str) -> Report {
    let poison = format!("{LEAD}{text}");
    let mut value = serde_json::to_value(report).unwrap();
    replace(&mut value, "", &poison);
    serde_json::from_value(value).expect("the list of typed keys is complete")
}

fn replace(value: &mut Value, key: &str, poison: &str) {
    match value {
        Value::String(text) if !TYPED.contains(&key) => *text = format!("{poison}{text}"),
        Value::Array(values) => values.iter_mut().for_each(|v| replace(v, "", poison)),
        Value::Object(map) => {
            let named = NAMED.contains(&key);
            let old = std::mem::take(map);
            *map = old
                .into_iter()
                .map(|(name, mut v)| {
                    replace(&mut v, &name, poison);
                    (if named { format!("{poison}{name}") } else { name }, v)
                })
                .collect::<Map<_, _>>();
        }
        _ => {}
    }
}

/// Takes colours away, and nothing but colours.
pub(super) fn without_colours(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_once('m').expect("a colour ends with m");
        assert!(code.len() <= 2 && code.bytes().all(|b| b.is_ascii_digit()), "{code:?} is no colour of ours");
        plain.push_str(rest);
    }
    plain
}

/// What a Markdown reader sees, without the words.
fn structure(markdown: &str) -> Vec<String> {
    let mut options = Options::all();
    // This one changes letters only, and would tell texts apart by their quotation marks.
    options.remove(Options::ENABLE_SMART_PUNCTUATION);
    let told = |event: Event<'_>| match event {
        Event::Text(_) => None,
        Event::Code(_) => Some("code".to_owned()),
        other => Some(format!("{other:?}")),
    };
    Parser::new_ext(markdown, options).filter_map(told).collect()
}

fn check(report: &Report, poison: &str) {
    let (calm, bad) = (poisoned(report, "x"), poisoned(report, poison));
    let page = html(&bad);
    let found = tags::check(&page).unwrap_or_else(|why| panic!("{poison:?}: {why}"));
    let harmless = html(&calm);
    assert_eq!(found.skeleton(), tags::check(&harmless).unwrap().skeleton(), "{poison:?} changed the page");
    assert!(page.chars().all(|c| c == '\n' || !c.is_control()), "{poison:?}");

    for colour in [false, true] {
        let style = Style { colour, ..STYLE };
        for shown in [text(&bad, style), summary(&bad, style)] {
            let shown = if colour { without_colours(&shown) } else { shown };
            assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{poison:?}");
        }
    }
    let shown = markdown(&bad);
    assert_eq!(structure(&shown), structure(&markdown(&calm)), "{poison:?} changed the Markdown");
    assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{poison:?}");
    assert_eq!(serde_json::from_str::<Report>(&json(&bad)).unwrap(), bad);
}

#[test]
fn known_tricks_stay_text() {
    let tricks = [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "' onmouseover='x",
        "</style></title></textarea><b>",
        "</desc></svg><p>",
        "]]>--><!--",
        "&lt;b&gt; &#60;",
        "\x1b[2J\x1b]0;owned\x07\u{9b}31m",
        "\r\n\r\nPASS\n# PASS\n",
        "\u{202e}ssap\u{2066}",
        "| a | b |\n| --- | --- |",
        "`code` ``` ~~~ \\",
        "``",
        "[link](http://example.com) ![x](y) <http://a.b> www.a.b",
        "# h\n- l\n1. n\n> q\n- [ ] t",
        "***bold*** __b__ ~~s~~ $x$ $$y$$ ^a^ [^1] {#id .class}",
        "@everyone :tada: &copy; \\| \\",
        "</details><details open>",
        "\u{2028}\u{2029}\u{0}\u{7f}\u{85}",
    ];
    for trick in tricks {
        for name in ["pass", "unconfirmed", "refused"] {
            check(sample(name), trick);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_text_stays_text(text in any::<String>().prop_filter("the lead is ours", |t| !t.contains(LEAD))) {
        check(sample("pass"), &text);
    }

    #[test]
    fn any_signs_stay_text(text in "[<>&\"'/!?=`*_~#|$@:.()\\[\\]{}^\\\\ \\-+1aw\n\t\x1b]{0,24}") {
        check(sample("unconfirmed"), &text);
    }
}
