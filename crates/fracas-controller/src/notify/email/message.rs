//! The mail itself: headers and body as they go over the wire (RFC 5322, MIME). Nothing that comes from outside can become
//! a header or end the mail, since all of it is encoded.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::DateTime;

use super::Email;
use crate::{
    chain::{hex, sha256},
    notify::Letter,
};

/// Longest line of base64, in characters (RFC 2045, 6.8).
const LINE: usize = 76;
/// Bytes of text in one encoded word: with its frame it has at most 75 characters (RFC 2047, 2).
const WORD_BYTES: usize = 45;
/// Longest subject that goes as it is, in characters: the line stays below 78 (RFC 5322, 2.1.1).
const PLAIN_SUBJECT: usize = 66;

/// A mail about a notice.
pub(super) struct Message<'m> {
    pub(super) email: &'m Email,
    pub(super) letter: &'m Letter<'m>,
}

impl Message<'_> {
    /// The whole mail, lines ending in CRLF.
    pub(super) fn text(&self) -> String {
        let Self { email, letter } = self;
        let notice = letter.notice;
        // The same at every try, so that a mail that comes twice is seen to be one.
        let id = hex(&sha256(format!("{}/{}", letter.source, notice.id).as_bytes()));
        let date = DateTime::from_timestamp_nanos(notice.at.wall_ns).to_rfc2822();
        let headers = [
            ("From", email.from.clone()),
            ("To", email.to.join(",\r\n ")),
            ("Subject", subject(&letter.words.subject)),
            ("Date", date),
            ("Message-ID", format!("<{}@fracas.invalid>", &id[..32])),
            ("Auto-Submitted", "auto-generated".to_owned()),
            ("MIME-Version", "1.0".to_owned()),
            ("Content-Type", "text/plain; charset=utf-8".to_owned()),
            ("Content-Transfer-Encoding", "base64".to_owned()),
        ];
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let (subject, text) = (&letter.words.subject, &letter.words.text);
        format!(
            "{headers}\r\n{}",
            body(&format!("{subject}\r\n\r\n{}\r\n", text.replace("\r\n", "\n").replace('\n', "\r\n")))
        )
    }
}

/// A subject that is one header whatever is in it.
fn subject(text: &str) -> String {
    let plain = |c: char| c == ' ' || c.is_ascii_graphic();
    if text.len() <= PLAIN_SUBJECT && text.chars().all(plain) && !text.contains("=?") {
        return text.to_owned();
    }
    let mut words = Vec::new();
    let mut word = String::new();
    for c in text.chars() {
        if word.len() + c.len_utf8() > WORD_BYTES {
            words.push(std::mem::take(&mut word));
        }
        word.push(c);
    }
    words.push(word);
    let encoded: Vec<String> = words.iter().map(|word| format!("=?utf-8?B?{}?=", STANDARD.encode(word))).collect();
    encoded.join("\r\n ")
}

fn body(text: &str) -> String {
    let encoded = STANDARD.encode(text);
    let lines = encoded.as_bytes().chunks(LINE).map(|line| String::from_utf8_lossy(line).into_owned() + "\r\n");
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads encoded words again, as a mail program does.
    fn decoded(header: &str) -> String {
        let bytes = |word: &str| STANDARD.decode(word.trim_start_matches("=?utf-8?B?").trim_end_matches("?=")).unwrap();
        header.split("\r\n ").map(|word| String::from_utf8(bytes(word)).unwrap()).collect()
    }

    #[test]
    fn a_plain_subject_stays_readable_and_any_other_is_encoded_within_the_limits() {
        assert_eq!(subject("run r1 of kill-web: pass"), "run r1 of kill-web: pass");
        for odd in ["Prüfung", &"ß".repeat(200), "line\r\nBcc: x", &"a".repeat(67), "=?utf-8?B?eA==?="] {
            let header = subject(odd);
            assert!(header.starts_with("=?utf-8?B?"), "{odd}");
            assert!(header.split("\r\n").all(|line| line.trim_start().len() <= 75), "{header}");
            assert_eq!(decoded(&header), odd);
        }
    }

    #[test]
    fn the_body_has_short_lines_and_comes_out_as_it_went_in() {
        let text = ".\r\n.\r\nü".repeat(100);
        let encoded = body(&text);
        assert!(encoded.split_terminator("\r\n").all(|line| line.len() <= LINE && !line.starts_with('.')));
        assert_eq!(STANDARD.decode(encoded.replace("\r\n", "")).unwrap(), text.as_bytes());
    }
}
