//! The frame of the page: escaping, tables, and the one style sheet for screen, phone, paper and both colour schemes.

use std::fmt::Write as _;

use super::words;

/// Foreign text for element content and quoted attribute values.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in words::plain(text).chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

/// The whole document. The policy forbids scripts and every request, should anything foreign ever get through.
pub(super) fn page(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n<meta name=\"referrer\" content=\"no-referrer\"/>\n\
         <title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n",
        escape(title)
    )
}

/// A table with its caption. Cells are finished HTML; the first of each row heads it, and the last of a short row spans
/// what is left. On a phone, rows of a table of class `stacked` become blocks, each cell with its column's name; the roles
/// keep it a table for those who listen to it.
pub(super) fn table(caption: &str, class: &str, heads: &[&str], rows: &[Vec<String>]) -> String {
    let stacked = class.starts_with("stacked");
    let role = |name: &str| if stacked { format!(" role=\"{name}\"") } else { String::new() };
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    let mut out = format!("<table{class}{}><caption>{caption}</caption>\n", role("table"));
    let _ = write!(out, "<thead{}><tr{}>", role("rowgroup"), role("row"));
    for head in heads {
        let _ = write!(out, "<th scope=\"col\"{}>{head}</th>", role("columnheader"));
    }
    let _ = writeln!(out, "</tr></thead>\n<tbody{}>", role("rowgroup"));
    for row in rows {
        let _ = write!(out, "<tr{}>", role("row"));
        for (index, (cell, head)) in row.iter().zip(heads).enumerate() {
            let _ = match index {
                0 => write!(out, "<th scope=\"row\"{}>{cell}</th>", role("rowheader")),
                _ if stacked => write!(out, "<td role=\"cell\" data-label=\"{head}\"><div>{cell}</div></td>"),
                _ if index + 1 == row.len() && row.len() < heads.len() => {
                    write!(out, "<td colspan=\"{}\">{cell}</td>", heads.len() - index)
                }
                _ => write!(out, "<td>{cell}</td>"),
            };
        }
        out += "</tr>\n";
    }
    out + "</tbody></table>\n"
}

/// Terms and their values, both finished HTML.
pub(super) fn facts(pairs: &[(&str, String)]) -> String {
    let mut out = String::from("<dl class=\"facts\">");
    for (term, value) in pairs {
        let _ = write!(out, "<div><dt>{term}</dt><dd>{value}</dd></div>");
    }
    out + "</dl>\n"
}

/// Everything the page looks like.
pub(super) const STYLE: &str = include_str!("page.css");
