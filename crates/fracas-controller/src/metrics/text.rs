//! The two texts in which metrics are told: OpenMetrics 1.0, as the library writes it, and the older format 0.0.4, made of
//! that; and which of them a client wants. Pure.
//!
//! Formats: <https://prometheus.io/docs/instrumenting/exposition_formats/> and
//! <https://prometheus.io/docs/specs/om/open_metrics_spec/>.

use std::fmt::Write as _;

/// A format of the exposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `text/plain`, which everything reads.
    Plain,
    /// OpenMetrics, for those who ask.
    OpenMetrics,
}

impl Format {
    /// Its `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// What an `Accept` header asks for: OpenMetrics when it is named and not liked less than plain text.
    pub fn asked(accept: &str) -> Self {
        let (mut open, mut plain) = (0.0_f32, 0.0_f32);
        for wish in accept.split(',') {
            let mut parts = wish.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |q| q.trim().parse().ok());
            let weight = weight.filter(|q| (0.0..=1.0).contains(q)).unwrap_or(0.0);
            match kind.as_str() {
                "application/openmetrics-text" => open = open.max(weight),
                "text/plain" => plain = plain.max(weight),
                _ => {}
            }
        }
        if open > 0.0 && open >= plain { Self::OpenMetrics } else { Self::Plain }
    }
}

/// OpenMetrics text as format 0.0.4: there the family of a counter or an info bears the name of its samples, an info is a
/// gauge, and neither units nor an end are told.
pub(super) fn plain(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len());
    // The name is only known once the type is, which comes after it.
    let mut help = "";
    for line in open_metrics.lines() {
        if let Some(of) = line.strip_prefix("# HELP ") {
            help = of.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|of| of.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                kind => ("", kind),
            };
            let _ = write!(out, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n");
        } else if !line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_what_they_ask_for() {
        // As Prometheus 2.42 and 3 ask.
        let two = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                   text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let three = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                     application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for accept in
            [two, three, "Application/OpenMetrics-Text", "text/plain;q=0.4, application/openmetrics-text; q=0.4"]
        {
            assert_eq!(Format::asked(accept), Format::OpenMetrics, "{accept}");
        }
        let mistaken = "application/openmetrics-text;q=7,application/openmetrics-text;q=x,;;,,=;q";
        let less = "text/plain, application/openmetrics-text;q=0.9";
        for accept in ["", "*/*", "text/html", "text/*", "application/openmetrics-text;q=0", less, mistaken] {
            assert_eq!(Format::asked(accept), Format::Plain, "{accept}");
        }
    }

    #[test]
    fn counters_and_infos_are_named_as_their_samples_in_the_older_format() {
        let open = "# HELP f_runs Runs, total.\n# TYPE f_runs counter\nf_runs_total{v=\"a b\"} 3\n\
                    # HELP f_build It.\n# TYPE f_build info\nf_build_info{version=\"1\"} 1\n\
                    # HELP f_wait_seconds Wait.\n# TYPE f_wait_seconds histogram\n# UNIT f_wait_seconds seconds\n\
                    f_wait_seconds_sum 0.5\nf_wait_seconds_count 1\nf_wait_seconds_bucket{le=\"+Inf\"} 1\n\
                    # HELP f_none \n# TYPE f_none gauge\n# EOF\n";
        let expected = "# HELP f_runs_total Runs, total.\n# TYPE f_runs_total counter\nf_runs_total{v=\"a b\"} 3\n\
                        # HELP f_build_info It.\n# TYPE f_build_info gauge\nf_build_info{version=\"1\"} 1\n\
                        # HELP f_wait_seconds Wait.\n# TYPE f_wait_seconds histogram\n\
                        f_wait_seconds_sum 0.5\nf_wait_seconds_count 1\nf_wait_seconds_bucket{le=\"+Inf\"} 1\n\
                        # HELP f_none \n# TYPE f_none gauge\n";
        assert_eq!(plain(open), expected);
    }
}
