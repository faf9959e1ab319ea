//! The text of one scalar against one shape: its canonical value, or what is wrong with it and what to write instead.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use crate::{
    check::expected,
    diagnostic::{any_of, nearest},
    pattern::pattern,
    selector::Selector,
    shape::Shape,
    tree::{Meaning, Scalar},
    units::{Dur, Percent, Size},
};

/// Longest URL, path and address, in bytes.
const LONGEST: usize = 4096;
const DURATION_UNITS: &[&str] = &["ns", "us", "ms", "s", "m", "h", "d"];
const SIZE_UNITS: &[&str] = &["B", "kB", "KB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB"];

/// Why a scalar does not fit.
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) help: String,
}

type Answer = Result<Value, Wrong>;

fn wrong(message: impl Into<String>, help: impl Into<String>) -> Wrong {
    Wrong { message: message.into(), help: help.into() }
}

/// The scalar in canonical form.
pub(super) fn read(scalar: &Scalar, shape: &Shape) -> Answer {
    let text = scalar.text.as_str();
    let meaning = scalar.meaning();
    if meaning == Meaning::Null {
        return Err(wrong("the value is missing", format!("write {}", expected(shape))));
    }
    match shape {
        Shape::Bool => match meaning {
            Meaning::Bool(value) => Ok(value.into()),
            _ => Err(wrong(format!("{text:?} is not a truth value"), "write true or false, without quotes")),
        },
        Shape::Integer { min, max } => integer(scalar, *min, *max),
        Shape::Number => number(scalar),
        Shape::Duration { min, max } => duration(text, *min, *max),
        Shape::Percent { min, max } => percent(text, *min, *max),
        Shape::Size { min, max } => size(text, *min, *max),
        Shape::Ports => ports(text),
        Shape::Scalar => any(scalar),
        Shape::Choice(words) => choice(text, words),
        // From here on everything is text.
        _ if meaning != Meaning::Text => {
            let help = format!("if it is meant, put it in quotes: \"{text}\"");
            Err(wrong(format!("{} is expected, and {text} is not text", expected(shape)), help))
        }
        Shape::Text { max } => free_text(text, *max),
        Shape::Name => name(text),
        Shape::Pattern => match pattern(text) {
            Ok(_) => Ok(text.into()),
            Err(why) => Err(wrong(why, "write a regular expression such as ^ok, at most 256 bytes long")),
        },
        Shape::Cidr => network(text),
        Shape::Path => path(text),
        Shape::Url => url(text),
        Shape::Address => address(text),
        Shape::Selector => match text.parse::<Selector>() {
            Ok(selector) => Ok(selector.to_string().into()),
            Err(error) => Err(wrong(error.to_string(), "write for example role=db,tier in (a, b)")),
        },
        Shape::List { .. }
        | Shape::Map { .. }
        | Shape::Object(_)
        | Shape::OneOf(_)
        | Shape::Record { .. }
        | Shape::Either(_) => Err(wrong(format!("{} is expected", expected(shape)), "")),
    }
}

/// `[a-z0-9]([-a-z0-9]*[a-z0-9])?`, at most 63 characters: what Kubernetes calls a DNS label.
pub(crate) fn is_name(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    text.len() <= 63
        && edge(text.chars().next())
        && edge(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// Digits with at most one point between them.
fn is_number(text: &str) -> bool {
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    match text.split_once('.') {
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => digits(text),
    }
}

fn name(text: &str) -> Answer {
    if is_name(text) {
        return Ok(text.into());
    }
    let help = "use at most 63 small letters, digits and hyphens, with a letter or digit at both ends";
    Err(wrong(format!("{text:?} is not a name"), help))
}

fn free_text(text: &str, max: usize) -> Answer {
    if text.len() > max {
        return Err(wrong(format!("the text has {} bytes, at most {max} are taken", text.len()), ""));
    }
    // Line ends of either kind are text: many protocols end theirs with both characters.
    if text.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return Err(wrong("the text contains a control character", "remove it"));
    }
    Ok(text.into())
}

fn integer(scalar: &Scalar, min: i64, max: i64) -> Answer {
    let text = scalar.text.as_str();
    if !scalar.plain && text.parse::<i64>().is_ok() {
        return Err(wrong(format!("a whole number is expected, and \"{text}\" is text"), "remove the quotes"));
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain_form = !digits.is_empty()
        && digits.bytes().all(|b| b.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'))
        && text != "-0";
    if !plain_form {
        return Err(wrong(format!("{text:?} is not a whole number"), format!("write digits only, {min} to {max}")));
    }
    match text.parse::<i64>() {
        Ok(value) if (min..=max).contains(&value) => Ok(value.into()),
        _ => Err(wrong(format!("{text} is out of range"), format!("write a number from {min} to {max}"))),
    }
}

fn number(scalar: &Scalar) -> Answer {
    let text = scalar.text.as_str();
    let plain_form = is_number(text.strip_prefix('-').unwrap_or(text));
    if !scalar.plain && plain_form {
        return Err(wrong(format!("a number is expected, and \"{text}\" is text"), "remove the quotes"));
    }
    let value = text.parse::<f64>().ok().filter(|value| plain_form && value.is_finite());
    value.map(Value::from).ok_or_else(|| {
        wrong(format!("{text:?} is not a number"), "write it in digits with a decimal point, for example 0.05 or 250")
    })
}

fn no_unit(text: &str, examples: &[&str]) -> Wrong {
    let written: Vec<String> = examples.iter().map(|unit| format!("{text}{unit}")).collect();
    wrong(format!("the unit of {text} is missing"), format!("write {}", any_of(&written)))
}

/// Whether the text is numbers each followed by one of the units: one such pair, or `many`.
fn is_quantity(text: &str, units: &[&str], many: bool) -> bool {
    let mut rest = text;
    let mut pairs = 0;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len()));
        let (unit, tail) = tail.split_at(tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len()));
        if !is_number(number) || number.len() > 20 || !units.contains(&unit) {
            return false;
        }
        pairs += 1;
        rest = tail;
    }
    pairs == 1 || many && pairs > 1
}

fn duration(text: &str, min: Dur, max: Dur) -> Answer {
    if is_number(text) {
        return Err(no_unit(text, &["ms", "s", "m"]));
    }
    let bad =
        || wrong(format!("{text:?} is not a duration"), "write a number and a unit, for example 200ms, 30s or 1m30s");
    if !is_quantity(text, DURATION_UNITS, true) {
        return Err(bad());
    }
    let value: Dur = text.parse().map_err(|_| bad())?;
    if value < min || value > max {
        return Err(wrong(format!("{text} is out of range"), format!("write a duration from {min} to {max}")));
    }
    Ok(value.to_string().into())
}

fn percent(text: &str, min: f64, max: f64) -> Answer {
    if is_number(text) {
        return Err(no_unit(text, &["%"]));
    }
    let bad = || wrong(format!("{text:?} is not a percentage"), "write a number and a percent sign, for example 25%");
    if !text.strip_suffix('%').is_some_and(|n| is_number(n) && n.len() <= 18) {
        return Err(bad());
    }
    let value: Percent = text.parse().map_err(|_| bad())?;
    if value.0 < min || value.0 > max {
        let help = format!("write a percentage from {} to {}", Percent(min), Percent(max));
        return Err(wrong(format!("{text} is out of range"), help));
    }
    Ok(value.to_string().into())
}

fn size(text: &str, min: Size, max: Size) -> Answer {
    if is_number(text) {
        return Err(no_unit(text, &["MiB", "GiB", "B"]));
    }
    let bad =
        || wrong(format!("{text:?} is not a size"), "write a number and a unit, for example 512MiB, 5GB or 4096B");
    if !is_quantity(text, SIZE_UNITS, false) {
        return Err(bad());
    }
    let value: Size = text.parse().map_err(|_| bad())?;
    if value.0 > i64::MAX as u64 {
        // Beyond 8 EiB fractions are rounded to more than fits, and no host has it.
        return Err(bad());
    }
    if value < min || value > max {
        return Err(wrong(format!("{text} is out of range"), format!("write a size from {min} to {max}")));
    }
    Ok(value.to_string().into())
}

fn port(text: &str) -> Option<u16> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok().filter(|p| *p > 0)).flatten()
}

fn ports(text: &str) -> Answer {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (port(first), port(last)) {
        (Some(a), Some(b)) if a == b => Ok(a.to_string().into()),
        (Some(a), Some(b)) if a < b => Ok(format!("{a}-{b}").into()),
        (Some(a), Some(b)) => Err(wrong(format!("the range {text} runs backwards"), format!("write {b}-{a}"))),
        _ => Err(wrong(
            format!("{text:?} is not a port or a range of ports"),
            "write a number from 1 to 65535, or a range such as 8000-8100",
        )),
    }
}

fn any(scalar: &Scalar) -> Answer {
    match scalar.meaning() {
        Meaning::Null => Err(wrong("the value is missing", "")),
        Meaning::Bool(value) => Ok(value.into()),
        Meaning::Integer(value) => Ok(value.into()),
        Meaning::Number(value) if value.is_finite() => Ok(value.into()),
        Meaning::Number(_) => Err(wrong(format!("{} is out of range", scalar.text), "")),
        Meaning::Text => free_text(&scalar.text, LONGEST),
    }
}

fn network(text: &str) -> Answer {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    match network {
        Ok(network) => Ok(network.trunc().to_string().into()),
        Err(_) => Err(wrong(
            format!("{text:?} is not an IP network"),
            "write for example 10.0.0.0/8, fd00::/8 or 10.1.2.3; host names are not looked up here",
        )),
    }
}

fn path(text: &str) -> Answer {
    let ok = text.starts_with('/')
        && text.len() <= LONGEST
        && !text.contains(char::is_control)
        && !text.split('/').any(|part| part == "..");
    if ok {
        Ok(text.into())
    } else {
        Err(wrong(format!("{text:?} is not an absolute path without `..`"), "write for example /run/app.pid"))
    }
}

fn is_host(text: &str) -> bool {
    if let Some(inner) = text.strip_prefix('[') {
        return inner.strip_suffix(']').is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok());
    }
    !text.is_empty()
        && text.len() <= 253
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

/// `host` and `port` of `host:port`, when both are well formed.
fn host_and_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, number)| is_host(host) && port(number).is_some())
}

fn url(text: &str) -> Answer {
    let Some(rest) = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) else {
        return Err(wrong(format!("{text:?} is not a URL"), "begin it with http:// or https://"));
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    if authority.contains('@') {
        return Err(wrong("the URL holds credentials, and documents are stored", "remove them"));
    }
    let ok = text.len() <= LONGEST
        && !text.contains(|c: char| c.is_control() || c.is_whitespace())
        && (is_host(authority) || host_and_port(authority));
    if ok {
        Ok(text.into())
    } else {
        Err(wrong(format!("{text:?} is not a URL"), "write for example http://checkout.internal:8080/health"))
    }
}

fn address(text: &str) -> Answer {
    if host_and_port(text) {
        return Ok(text.into());
    }
    Err(wrong(format!("{text:?} is not an address"), "write host:port, for example db.internal:5432 or [fd00::1]:5432"))
}

fn choice(text: &str, words: &[String]) -> Answer {
    if words.iter().any(|w| w == text) {
        return Ok(text.into());
    }
    let help = match nearest(text, words.iter().map(String::as_str)) {
        Some(word) if words.len() > 1 => format!("did you mean `{word}`? write {}", any_of(words)),
        _ => format!("write {}", any_of(words)),
    };
    Err(wrong(format!("{text:?} is not one of the choices"), help))
}
