//! Probe `prometheus`: asks a Prometheus server for the value of an expression and compares it. It keeps no history.

use std::{cmp::Ordering, rc::Rc};

use fracas_model::{
    catalogue::{Params, ProbeInfo},
    plan::Refusal,
    policy::Policy,
    shape::{Field, Shape},
    tolerance::{self, ReadingField, Values},
};
use hyper::{Method, Response, body::Incoming};
use serde::Deserialize;

use crate::{
    LookFuture, Lookout, PrepareFuture, Probe, Seen, brief,
    web::{self, Web},
};

/// Longest answer that is read, in bytes: some thousands of series.
const LONGEST_ANSWER: usize = 1 << 20;

/// The `prometheus` probe.
#[derive(Debug)]
pub struct Prometheus;

struct Ready {
    web: Web,
    limits: Limits,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    above: Option<f64>,
    below: Option<f64>,
    empty_is_ok: bool,
}

impl Probe for Prometheus {
    fn info(&self) -> ProbeInfo {
        ProbeInfo {
            name: "prometheus".into(),
            summary: "Asks Prometheus for the value of an expression and compares it.".into(),
            help: HELP.into(),
            params: [
                Field::required("url", Shape::Url, "Where Prometheus answers, without /api."),
                Field::required("query", Shape::Text { max: 4096 }, "Expression in PromQL, evaluated now."),
                Field::optional("above", Shape::Number, "Every value must be greater than this."),
                Field::optional("below", Shape::Number, "Every value must be less than this."),
                Field::with_default(
                    "onEmpty",
                    Shape::choice(&["fail", "ok"]),
                    "fail",
                    "What an answer without any series counts as.",
                ),
            ]
            .into_iter()
            .chain(web::fields())
            .collect(),
            reading: vec![
                ReadingField::number("value", "", "The value, when the expression gives just one."),
                ReadingField::number("series", "", "How many values the expression gives."),
            ],
            example: r#"{ url: "http://127.0.0.1:9090", query: "up{job='shop'}", above: 0 }"#.into(),
        }
    }

    fn ready(&self, params: &Params, policy: &Policy) -> Result<Box<dyn Lookout>, Refusal> {
        let uri = web::url("prometheus", params)?;
        let (above, below) = (params.number("above"), params.number("below"));
        let compared = tolerance::wants(params, "value") || tolerance::wants(params, "series");
        if above.is_none() && below.is_none() && !compared {
            let instead = "write above, below or both, or a tolerance of value or series";
            return Err(Refusal::new("prometheus: there is nothing to compare with", instead));
        }
        if uri.query().is_some() {
            return Err(Refusal::new("prometheus: the URL has a query of its own", "write the expression as `query`"));
        }
        let base = uri.path().trim_end_matches('/');
        let path = format!("{base}/api/v1/query?query={}", escaped(params.text("query").unwrap_or_default()));
        let web = Web::new("prometheus", &uri, Method::GET, &path, params, policy)?;
        let empty_is_ok = params.text("onEmpty") == Some("ok");
        Ok(Box::new(Rc::new(Ready { web, limits: Limits { above, below, empty_is_ok } })))
    }
}

impl Lookout for Rc<Ready> {
    fn prepare(&self) -> PrepareFuture {
        self.web.prepare()
    }

    fn look(&self) -> LookFuture {
        let ready = self.clone();
        Box::pin(async move {
            let told = ready.web.ask(answer).await?;
            ready.limits.judge(&told.answer)
        })
    }
}

/// The body, whatever its status: mistakes of the expression are told in it too.
async fn answer(response: Response<Incoming>) -> Result<Vec<u8>, String> {
    let status = response.status();
    let json =
        response.headers().get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if !status.is_success() && !json {
        return Err(format!("status {}", status.as_u16()));
    }
    match web::body(response, LONGEST_ANSWER).await? {
        (body, true) => Ok(body),
        (_, false) => Err("the answer has over 1 MiB: ask for fewer series".into()),
    }
}

/// The HTTP API's answer to an instant query: <https://prometheus.io/docs/prometheus/latest/querying/api/>.
#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    error: String,
    data: Option<Data>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: serde_json::Value,
}

#[derive(Deserialize)]
struct Series {
    value: Option<(f64, String)>,
}

const NEITHER: &str = "the expression gives neither a scalar nor a vector";

fn values(data: Data) -> Result<Vec<String>, String> {
    const STRANGE: &str = "the answer is not Prometheus's";
    match data.result_type.as_str() {
        "scalar" => {
            let (_, value): (f64, String) = serde_json::from_value(data.result).map_err(|_| STRANGE)?;
            Ok(vec![value])
        }
        "vector" => {
            let series: Vec<Series> = serde_json::from_value(data.result).map_err(|_| STRANGE)?;
            let values = series.into_iter().map(|one| one.value.map(|(_, value)| value));
            values.collect::<Option<_>>().ok_or_else(|| "a series of histograms cannot be compared".into())
        }
        _ => Err(NEITHER.into()),
    }
}

impl Limits {
    fn judge(self, answer: &[u8]) -> Seen {
        let answer: Answer = serde_json::from_slice(answer).map_err(|_| "the answer is not Prometheus's")?;
        if answer.status != "success" {
            return Err(brief(format_args!("Prometheus says: {}", answer.error)));
        }
        let values = answer.data.map_or_else(|| Err(NEITHER.into()), values)?;
        if values.is_empty() && !self.empty_is_ok {
            return Err("no series".into());
        }
        let values: Vec<f64> = values.iter().map(|value| self.judge_one(value)).collect::<Result<_, _>>()?;
        let only = if let [only] = values[..] { Some(only) } else { None };
        Ok(Values::new().with("series", values.len()).with_known("value", only))
    }

    fn judge_one(self, text: &str) -> Result<f64, String> {
        let value: f64 = text.parse().map_err(|_| brief(format_args!("{text:?} is no number")))?;
        // What is no number compares with nothing.
        let beyond = |limit: f64, wanted| value.partial_cmp(&limit) != Some(wanted);
        if self.above.is_some_and(|limit| beyond(limit, Ordering::Greater)) {
            return Err(brief(format_args!("{} is not above {}", figures(value), self.above.unwrap_or_default())));
        }
        if self.below.is_some_and(|limit| beyond(limit, Ordering::Less)) {
            return Err(brief(format_args!("{} is not below {}", figures(value), self.below.unwrap_or_default())));
        }
        Ok(value)
    }
}

/// Three figures, so that reasons stay few and readings small.
fn figures(value: f64) -> f64 {
    let scale = 10_f64.powi(2_i32.saturating_sub(value.abs().log10().floor() as i32));
    let rounded = (value * scale).round() / scale;
    if rounded.is_finite() { rounded } else { value }
}

/// Percent-encoded for the value of a query (RFC 3986, 2.1): all but what is unreserved.
fn escaped(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

const HELP: &str = "\
Ok when the expression gives at least one value (or `onEmpty: ok`) and every value is `above` and `below` what is given. \
Of a vector every series counts, so aggregate (`sum`, `max`) what is to be one number. NaN is neither above nor below \
anything, so a ratio without traffic fails: write `query: \"... or vector(0)\"` where that is well.

The answer is as fresh as the last scrape and the range in the expression: a fault shows after the scrape interval at the \
earliest, and `rate(x[1m])` takes a minute to forget it. For a recovery time use `http` or `tcp`, which see the service \
itself; this probe is for stop conditions and steady states that only metrics can tell, such as an error ratio or a queue.

A Prometheus that does not answer, answers an error or has no data fails the look: in a stop condition that ends the run \
after `failingFor`, so the loss of the condition is not overlooked. Tokens go into `headers`, by reference.

Cost: one query per look; at `every: 1s` an expression should cost Prometheus a few milliseconds.";

#[cfg(test)]
mod tests;
