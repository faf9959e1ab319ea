//! The query of a link: what it shows and until when, in the one form that is signed. Pure text.

use std::fmt::Write as _;

/// What a link says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) id: String,
    pub(super) environment: String,
    /// Empty: all of the environment.
    pub(super) schedule: String,
    /// Until when, seconds since the Unix epoch.
    pub(super) expires_s: i64,
    /// Id of the key that signed it.
    pub(super) key: String,
}

impl Link {
    /// The part of a query that is signed. Two links that differ have two texts.
    pub(super) fn text(&self) -> String {
        let mut text = format!("environment={}", encoded(&self.environment));
        if !self.schedule.is_empty() {
            let _ = write!(text, "&schedule={}", encoded(&self.schedule));
        }
        let _ = write!(text, "&expires={}&id={}&key={}", self.expires_s, encoded(&self.id), encoded(&self.key));
        text
    }

    /// Reads a query: each name once, none that is unknown. Also what its `signature` says.
    pub(super) fn read(query: &str) -> Option<(Self, String)> {
        let (mut link, mut signature, mut expires) = (Self::default(), String::new(), String::new());
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=')?;
            let place = match name {
                "environment" => &mut link.environment,
                "schedule" => &mut link.schedule,
                "expires" => &mut expires,
                "id" => &mut link.id,
                "key" => &mut link.key,
                "signature" => &mut signature,
                _ => return None,
            };
            if !place.is_empty() {
                return None;
            }
            *place = decoded(value).filter(|value| !value.is_empty())?;
        }
        link.expires_s = expires.parse().ok()?;
        Some((link, signature))
    }
}

/// Letters and digits as they are, everything else in hexadecimal (RFC 3986, 2.1).
fn encoded(text: &str) -> String {
    let mut all = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => all.push(byte.into()),
            byte => drop(write!(all, "%{byte:02X}")),
        }
    }
    all
}

fn decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), text);
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend(before.bytes());
        let (code, after) = after.split_at_checked(2)?;
        bytes.extend(crate::chain::unhex(code)?);
        rest = after;
    }
    bytes.extend(rest.bytes());
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(environment: &str, schedule: &str) -> Link {
        let (environment, schedule) = (environment.to_owned(), schedule.to_owned());
        Link { id: "0a".into(), environment, schedule, expires_s: 1_798_000_000, key: "ff".into() }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for environment in ["default", "a b&c=d%2B+é/\u{0}\n", "%", "&signature=00"] {
            for schedule in ["", "nightly"] {
                let link = link(environment, schedule);
                let read = Link::read(&format!("{}&signature=ab", link.text()));
                assert_eq!(read, Some((link, "ab".to_owned())), "{environment:?}");
            }
        }
        assert_eq!(link("default", "").text(), "environment=default&expires=1798000000&id=0a&key=ff");
    }

    #[test]
    fn nothing_else_is_a_link() {
        let good = link("default", "nightly").text();
        assert!(Link::read(&good).is_some());
        for bad in [
            String::new(),
            "environment".into(),
            format!("{good}&x=y"),
            format!("{good}&id=0b"),
            format!("{good}&"),
            good.replace("default", "%"),
            good.replace("default", "%zz"),
            good.replace("default", "%ff"),
            good.replace("default", "%é"),
            good.replace("default", ""),
            good.replace("1798000000", "soon"),
            good.replace("1798000000", "99999999999999999999"),
        ] {
            assert_eq!(Link::read(&bad), None, "{bad}");
        }
    }
}
