//! Each form against values that fit and values that do not, with the words a user reads.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    tree,
    units::{Dur, Size},
};

fn checked(text: &str, shape: &Shape) -> Result<Value, Vec<String>> {
    let mut findings = Findings::new("t", text);
    let value = tree::parse(text, &mut findings).and_then(|node| check(&node, shape, &mut findings));
    let say = |d: &crate::diagnostic::Diagnostic| {
        let help = d.help.as_ref().map(|h| format!(" | {h}")).unwrap_or_default();
        format!("{}:{} {}{help}", d.line, d.column, d.message)
    };
    match findings.finish() {
        Ok(_) => Ok(value.expect("no error, so a value")),
        Err(list) => Err(list.iter().map(say).collect()),
    }
}

fn example() -> Shape {
    let side = Shape::Object(vec![
        Field::required("to", Shape::list(Shape::Cidr, 3), "Far ends."),
        Field::with_default("share", Shape::Percent { min: 0.0, max: 100.0 }, "50%", "How much."),
    ]);
    Shape::Object(vec![
        Field::required("name", Shape::Name, "What it is called."),
        Field::optional("on", Shape::Bool, "Whether."),
        Field::optional("every", Shape::duration(Dur::from_ms(10), Dur::from_secs(3600)), "Period."),
        Field::optional("size", Shape::Size { min: Size(1), max: Size(1 << 40) }, "How big."),
        Field::optional("count", Shape::Integer { min: 1, max: 10 }, "How many."),
        Field::optional("port", Shape::Ports, "Ports."),
        Field::optional("note", Shape::Text { max: 10 }, "Words."),
        Field::optional("file", Shape::Path, "A file."),
        Field::optional("url", Shape::Url, "Where."),
        Field::optional("at", Shape::Address, "Where."),
        Field::optional("way", Shape::choice(&["ingress", "egress"]), "Direction."),
        Field::optional("who", Shape::Selector, "Hosts."),
        Field::optional("side", side, "More."),
        Field::optional("any", Shape::Scalar, "Anything."),
        Field::optional("headers", Shape::Map { of: Box::new(Shape::Text { max: 10 }), max: 2 }, "Headers."),
        Field::optional(
            "status",
            Shape::Either(vec![
                Shape::Integer { min: 100, max: 599 },
                Shape::choice(&["any"]),
                Shape::list(Shape::Integer { min: 100, max: 599 }, 5),
            ]),
            "Status.",
        ),
        Field::optional(
            "pick",
            Shape::OneOf(vec![
                Field::optional("count", Shape::Integer { min: 1, max: 9 }, "Number."),
                Field::optional("percent", Shape::Percent { min: 1.0, max: 100.0 }, "Share."),
            ]),
            "How many.",
        ),
        Field::optional(
            "does",
            Shape::Record {
                fields: vec![],
                groups: vec![Group {
                    what: "fault".into(),
                    of: vec![
                        Field::optional("net-delay", Shape::Object(vec![]), "Slow."),
                        Field::optional("net-loss", Shape::Object(vec![]), "Lossy."),
                    ],
                }],
            },
            "Trouble.",
        ),
        Field::reserved("later", "use `at` today"),
    ])
}

#[test]
fn values_become_canonical() {
    for (text, expected) in [
        ("name: a", json!({"name": "a"})),
        (
            "{name: a-1, on: true, every: 90s, size: 1024KiB}",
            json!({"name": "a-1", "on": true, "every": "1m30s", "size": "1MiB"}),
        ),
        ("{name: a, every: 1.5s, count: 10}", json!({"name": "a", "every": "1s500ms", "count": 10})),
        ("{name: a, port: 5432}", json!({"name": "a", "port": "5432"})),
        ("{name: a, port: \"5432\"}", json!({"name": "a", "port": "5432"})),
        ("{name: a, port: 8000-8100}", json!({"name": "a", "port": "8000-8100"})),
        ("{name: a, port: 80-80}", json!({"name": "a", "port": "80"})),
        ("{name: a, note: \"5\"}", json!({"name": "a", "note": "5"})),
        (
            "{name: a, side: {to: [10.1.2.3/8, 10.0.0.1, \"fd00::1\"]}}",
            json!({"name": "a", "side": {"to": ["10.0.0.0/8", "10.0.0.1/32", "fd00::1/128"], "share": "50%"}}),
        ),
        ("{name: a, who: \"role = db , tier in (b,a)\"}", json!({"name": "a", "who": "role=db,tier in (a,b)"})),
        (
            "{name: a, url: \"https://[fd00::1]:80/x?y\", at: \"[fd00::1]:80\", file: /run/x}",
            json!({"name": "a", "url": "https://[fd00::1]:80/x?y", "at": "[fd00::1]:80", "file": "/run/x"}),
        ),
        ("{name: a, any: 1.50}", json!({"name": "a", "any": 1.5})),
        ("{name: a, any: yes}", json!({"name": "a", "any": "yes"})),
        ("{name: a, status: 200}", json!({"name": "a", "status": 200})),
        ("{name: a, status: any}", json!({"name": "a", "status": "any"})),
        ("{name: a, status: [200, 204]}", json!({"name": "a", "status": [200, 204]})),
        ("{name: a, headers: {Content-Type: x}}", json!({"name": "a", "headers": {"Content-Type": "x"}})),
        ("{name: a, pick: {count: 1}}", json!({"name": "a", "pick": {"count": 1}})),
        ("{name: a, does: {net-loss: {}}}", json!({"name": "a", "does": {"net-loss": {}}})),
    ] {
        assert_eq!(checked(text, &example()), Ok(expected), "{text}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn mistakes_are_told_with_the_way_out() {
    let mut wrong = Vec::new();
    for (text, expected) in [
        ("[]", "1:1 the document must be a mapping, not a list"),
        ("on: true", "1:1 `name` is missing | name: what it is called"),
        ("name: 5", "1:7 `name`: a name is expected, and 5 is not text | if it is meant, put it in quotes: \"5\""),
        (
            "name: A_b",
            "1:7 `name`: \"A_b\" is not a name | use at most 63 small letters, digits and hyphens, with a letter or digit at both ends",
        ),
        ("name:", "1:1 `name`: the value is missing | write a name"),
        ("name: [a]", "1:7 `name` must be a name, not a list"),
        (
            "{name: a, nmae: b}",
            "1:11 unknown key `nmae` | did you mean `name`? known here: name, on, every, size, count, port, note, file, url, at, way, who, side, any, headers, status, pick, does",
        ),
        ("{name: a, later: b}", "1:11 `later` is not built yet | use `at` today"),
        ("{name: a, on: yes}", "1:15 `on`: \"yes\" is not a truth value | write true or false, without quotes"),
        ("{name: a, every: 50}", "1:18 `every`: the unit of 50 is missing | write `50ms`, `50s` or `50m`"),
        ("{name: a, every: 0}", "1:18 `every`: the unit of 0 is missing | write `0ms`, `0s` or `0m`"),
        (
            "{name: a, every: 50 ms}",
            "1:18 `every`: \"50 ms\" is not a duration | write a number and a unit, for example 200ms, 30s or 1m30s",
        ),
        (
            "{name: a, every: 1sec}",
            "1:18 `every`: \"1sec\" is not a duration | write a number and a unit, for example 200ms, 30s or 1m30s",
        ),
        ("{name: a, every: 5ms}", "1:18 `every`: 5ms is out of range | write a duration from 10ms to 1h"),
        ("{name: a, size: 5}", "1:17 `size`: the unit of 5 is missing | write `5MiB`, `5GiB` or `5B`"),
        (
            "{name: a, size: 5Mb}",
            "1:17 `size`: \"5Mb\" is not a size | write a number and a unit, for example 512MiB, 5GB or 4096B",
        ),
        ("{name: a, size: 2TiB}", "1:17 `size`: 2TiB is out of range | write a size from 1B to 1TiB"),
        ("{name: a, count: 11}", "1:18 `count`: 11 is out of range | write a number from 1 to 10"),
        ("{name: a, count: 1.5}", "1:18 `count`: \"1.5\" is not a whole number | write digits only, 1 to 10"),
        ("{name: a, count: \"5\"}", "1:18 `count`: a whole number is expected, and \"5\" is text | remove the quotes"),
        (
            "{name: a, port: 0}",
            "1:17 `port`: \"0\" is not a port or a range of ports | write a number from 1 to 65535, or a range such as 8000-8100",
        ),
        ("{name: a, port: 90-80}", "1:17 `port`: the range 90-80 runs backwards | write 80-90"),
        ("{name: a, note: aaaaaaaaaaa}", "1:17 `note`: the text has 11 bytes, at most 10 are taken"),
        (
            "{name: a, note: true}",
            "1:17 `note`: text is expected, and true is not text | if it is meant, put it in quotes: \"true\"",
        ),
        ("{name: a, note: \"\\e\"}", "1:17 `note`: the text contains a control character | remove it"),
        (
            "{name: a, file: /a/../b}",
            "1:17 `file`: \"/a/../b\" is not an absolute path without `..` | write for example /run/app.pid",
        ),
        ("{name: a, url: db:80}", "1:16 `url`: \"db:80\" is not a URL | begin it with http:// or https://"),
        (
            "{name: a, url: \"http://u:p@h/\"}",
            "1:16 `url`: the URL holds credentials, and documents are stored | remove them",
        ),
        (
            "{name: a, url: \"http:// x\"}",
            "1:16 `url`: \"http:// x\" is not a URL | write for example http://checkout.internal:8080/health",
        ),
        (
            "{name: a, at: db}",
            "1:15 `at`: \"db\" is not an address | write host:port, for example db.internal:5432 or [fd00::1]:5432",
        ),
        (
            "{name: a, way: Egres}",
            "1:16 `way`: \"Egres\" is not one of the choices | did you mean `egress`? write `ingress` or `egress`",
        ),
        (
            "{name: a, who: \"a in b\"}",
            "1:16 `who`: \"a in b\" is not a label: at most 63 letters, digits, `-`, `_` and `.`, after a prefix and `/` if any | write for example role=db,tier in (a, b)",
        ),
        ("{name: a, side: {}}", "1:11 `to` is missing in `side` | to: far ends"),
        ("{name: a, side: }", "1:11 `side` must be a mapping, not nothing | write {} for none"),
        ("{name: a, side: {to: []}}", "1:18 `to` has 0 elements, it must have 1 to 3"),
        (
            "{name: a, side: {to: [x]}}",
            "1:23 `to`: \"x\" is not an IP network | write for example 10.0.0.0/8, fd00::/8 or 10.1.2.3; host names are not looked up here",
        ),
        (
            "{name: a, side: {to: [10.0.0.1], share: 101%}}",
            "1:41 `share`: 101% is out of range | write a percentage from 0% to 100%",
        ),
        ("{name: a, side: {to: [10.0.0.1], share: 50}}", "1:41 `share`: the unit of 50 is missing | write `50%`"),
        (
            "{name: a, side: {to: [10.0.0.1], share: -5%}}",
            "1:41 `share`: \"-5%\" is not a percentage | write a number and a percent sign, for example 25%",
        ),
        (
            "{name: a, status: 99}",
            "1:19 `status` must be a whole number or `any`, not \"99\" | write a number from 100 to 599; or write `any`",
        ),
        ("{name: a, status: {}}", "1:19 `status` must be a whole number or `any` or a list, not a mapping"),
        ("{name: a, status: [99]}", "1:20 `status`: 99 is out of range | write a number from 100 to 599"),
        ("{name: a, headers: {a: b, c: d, e: f}}", "1:11 `headers` has 3 entries, at most 2 are taken"),
        ("{name: a, headers: {\"\": b}}", "1:21 \"\" cannot be a name here | use 1 to 253 printable characters"),
        ("{name: a, pick: {}}", "1:11 `pick` needs a key | write `count` or `percent`"),
        ("{name: a, pick: {count: 1, percent: 5%}}", "1:28 `count` and `percent` cannot stand together | keep one key"),
        (
            "{name: a, pick: {cuont: 1}}",
            "1:18 unknown key `cuont` in `pick` | did you mean `count`? known here: count, percent",
        ),
        (
            "{name: a, does: {net-dealy: {}}}",
            "1:18 there is no fault `net-dealy` | did you mean `net-delay`? known here: net-delay, net-loss",
        ),
        ("{name: a, does: {banana: {}}}", "1:18 there is no fault `banana` | known here: net-delay, net-loss"),
        ("{name: a, does: {}}", "1:11 `does` needs a fault | write `net-delay` or `net-loss`"),
        ("{name: a, any: ~}", "1:16 `any`: the value is missing | write a single value"),
    ] {
        let told = checked(text, &example());
        if told != Err(vec![expected.to_owned()]) {
            wrong.push(format!("{text}\n  told:     {told:?}\n  expected: {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_mistakes_are_told_at_once() {
    let list = checked("on: yes\nevery: 5\nside: { to: [x, 10.0.0.1, y] }\nextra: 1\n", &example()).unwrap_err();
    assert_eq!(list.len(), 6, "{list:#?}");
}

#[test]
fn bits_beyond_the_prefix_are_a_warning() {
    let text = "[10.1.2.3/8]";
    let mut findings = Findings::new("t", text);
    let node = tree::parse(text, &mut findings).unwrap();
    check(&node, &Shape::list(Shape::Cidr, 3), &mut findings);
    let warnings = findings.finish().unwrap();
    assert_eq!(warnings[0].message, "10.1.2.3/8 has bits beyond its prefix and is taken as 10.0.0.0/8");
}

fn scalar_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9]{1,20}(\\.[0-9]{1,3})?(ns|us|ms|s|m|h|d|%|B|kB|MiB|GB|TiB)?",
        "[0-9./:a-f]{1,20}",
        "[a-z0-9=!,() -]{1,20}",
        "(https?://)?[a-z.:@0-9/]{1,20}",
        "\\PC{0,20}",
    ]
}

proptest! {
    #[test]
    fn any_scalar_is_taken_or_refused_and_canonical_is_final(text in scalar_text(), plain: bool) {
        let shapes = [
            Shape::Text { max: 100 }, Shape::Name, Shape::Bool,
            Shape::Integer { min: i64::MIN, max: i64::MAX },
            Shape::duration(Dur::ZERO, Dur::from_ns(i64::MAX)),
            Shape::Percent { min: 0.0, max: f64::MAX },
            Shape::Size { min: Size(0), max: Size(u64::MAX) },
            Shape::Cidr, Shape::Ports, Shape::Path, Shape::Url, Shape::Address, Shape::Selector, Shape::Scalar,
        ];
        for shape in shapes {
            let kind = Kind::Scalar(tree::Scalar { text: text.clone(), plain });
            let mut findings = Findings::new("t", "");
            let value = check(&Node { span: Span::default(), kind }, &shape, &mut findings);
            prop_assert_eq!(value.is_some(), findings.errors() == 0);
            if let Some(value) = value {
                // Canonical JSON read as a document is itself.
                prop_assert_eq!(checked(&value.to_string(), &shape), Ok(value.clone()), "{:?}", shape);
            }
        }
    }

    #[test]
    fn any_text_is_survived(text in "([a-z]+: ?|[-{}\\[\\],&*!|>'\"#%@` \n\t]|\\PC){0,60}") {
        let text = tree::normalise(&text);
        let _ = checked(&text, &example());
    }
}
