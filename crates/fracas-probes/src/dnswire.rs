//! Questions to and answers of name servers as bytes (RFC 1035, RFC 2782, RFC 3596). It sends nothing.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, Ipv6Addr},
};

/// Longest name as text, bytes.
const LONGEST_NAME: usize = 253;
/// Longest label, bytes.
const LONGEST_LABEL: usize = 63;
/// Longest name in a message with its lengths (RFC 1035, 3.1), bytes.
const LONGEST_WIRE: usize = 255;
/// Most pointers in one name: as many as a name of that length has labels.
const MOST_POINTERS: usize = 127;
/// Most records of one answer: they are read on the thread that all probes tick on.
const MOST_RECORDS: u16 = 256;
const INTERNET: u16 = 1;
const RECURSION_DESIRED: u16 = 0x0100;
const ANSWER: u16 = 0x8000;
const TRUNCATED: u16 = 0x0200;

/// What is asked of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind(u16);

/// The kinds that are understood, and their numbers.
const KINDS: [(&str, u16); 5] = [("A", 1), ("CNAME", 5), ("TXT", 16), ("AAAA", 28), ("SRV", 33)];

impl Kind {
    /// Their names.
    pub(crate) fn names() -> [&'static str; 5] {
        KINDS.map(|(name, _)| name)
    }

    /// By its name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        KINDS.iter().find(|(known, _)| *known == name).map(|(_, number)| Self(*number))
    }
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// It did not fit: ask again over TCP.
    pub(crate) truncated: bool,
    /// Zero is success; see [`rcode`].
    pub(crate) rcode: u8,
    /// What the records of the asked kind say, sorted.
    pub(crate) records: Vec<String>,
    /// The shortest time that one of them may be kept, seconds.
    pub(crate) ttl: Option<u32>,
}

/// The word for a response code (RFC 1035, 4.1.1).
pub(crate) fn rcode(code: u8) -> String {
    match code {
        0 => "NOERROR".into(),
        1 => "FORMERR".into(),
        2 => "SERVFAIL".into(),
        3 => "NXDOMAIN".into(),
        4 => "NOTIMP".into(),
        5 => "REFUSED".into(),
        other => format!("RCODE{other}"),
    }
}

/// A name as bytes; `None` when it is none.
pub(crate) fn name(text: &str) -> Option<Vec<u8>> {
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.is_empty() || text.len() > LONGEST_NAME || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    let mut bytes = Vec::new();
    for label in text.split('.') {
        bytes.push(u8::try_from(label.len()).ok().filter(|l| (1..=LONGEST_LABEL).contains(&usize::from(*l)))?);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    Some(bytes)
}

/// A question about a name in bytes.
pub(crate) fn question(id: u16, name: &[u8], kind: Kind) -> Vec<u8> {
    let head = [id, RECURSION_DESIRED, 1, 0, 0, 0];
    let mut message: Vec<u8> = head.iter().flat_map(|word| word.to_be_bytes()).collect();
    message.extend_from_slice(name);
    message.extend([kind.0, INTERNET].iter().flat_map(|word| word.to_be_bytes()));
    message
}

/// What a message answers to this question; `None` when it is no answer to it, cut short, or beyond
/// measure.
pub(crate) fn answer(message: &[u8], id: u16, name: &[u8], kind: Kind) -> Option<Answer> {
    let mut reader = Reader { message, at: 0 };
    let head = (reader.word()?, reader.word()?, reader.word()?, reader.word()?);
    let (its, flags, questions, records) = head;
    reader.take(4)?;
    if its != id || flags & ANSWER == 0 {
        return None;
    }
    let (rcode, truncated) = ((flags & 0xf) as u8, flags & TRUNCATED != 0);
    let mut answer = Answer { truncated, rcode, records: Vec::new(), ttl: None };
    if questions == 0 && rcode != 0 {
        // Some servers repeat nothing of what they do not understand.
        return Some(answer);
    }
    let repeated = reader.take(name.len())?;
    if questions != 1 || !repeated.eq_ignore_ascii_case(name) || [reader.word()?, reader.word()?] != [kind.0, INTERNET]
    {
        return None;
    }
    if truncated {
        return Some(answer);
    }
    if records > MOST_RECORDS {
        return None;
    }
    for _ in 0..records {
        reader.name()?;
        let (its, class) = (reader.word()?, reader.word()?);
        let ttl = u32::from(reader.word()?) << 16 | u32::from(reader.word()?);
        let length = usize::from(reader.word()?);
        let start = reader.at;
        let data = reader.take(length)?;
        // Aliases on the way to what was asked stand here too.
        if (its, class) == (kind.0, INTERNET) {
            let mut inner = Reader { message: message.get(..start + length)?, at: start };
            answer.records.push(said(kind, data, &mut inner)?);
            answer.ttl = Some(answer.ttl.map_or(ttl, |least| least.min(ttl)));
        }
    }
    answer.records.sort();
    Some(answer)
}

/// The data of one record as text.
fn said(kind: Kind, data: &[u8], reader: &mut Reader<'_>) -> Option<String> {
    Some(match kind.0 {
        1 => Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).to_string(),
        28 => Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).to_string(),
        33 => {
            let numbers = (reader.word()?, reader.word()?, reader.word()?);
            format!("{} {} {} {}", numbers.0, numbers.1, numbers.2, reader.name()?)
        }
        16 => {
            let mut text = Vec::new();
            let mut rest = data;
            while let Some((length, after)) = rest.split_first() {
                let (piece, after) = after.split_at_checked(usize::from(*length))?;
                text.extend_from_slice(piece);
                rest = after;
            }
            String::from_utf8_lossy(&text).into_owned()
        }
        _ => reader.name()?,
    })
}

struct Reader<'m> {
    message: &'m [u8],
    at: usize,
}

impl<'m> Reader<'m> {
    fn take(&mut self, length: usize) -> Option<&'m [u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.message.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn word(&mut self) -> Option<u16> {
        self.take(2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes)
    }

    /// A name, which may end in a pointer to what stands before it. Pointers lead back only, so that they
    /// end, and are counted, so that they end soon.
    fn name(&mut self) -> Option<String> {
        let mut text = String::new();
        let mut after = None;
        let mut first = self.at;
        let (mut wire, mut pointers) = (1, 0);
        loop {
            let length = *self.take(1)?.first()?;
            match length {
                0 => break,
                1..=63 => {
                    wire += 1 + usize::from(length);
                    if wire > LONGEST_WIRE {
                        return None;
                    }
                    for byte in self.take(usize::from(length))? {
                        match byte {
                            b'!'..=b'~' => text.push(char::from(*byte)),
                            other => write!(text, "\\{other:03}").ok()?,
                        }
                    }
                    text.push('.');
                }
                192.. => {
                    let low = *self.take(1)?.first()?;
                    let target = usize::from(length & 0x3f) << 8 | usize::from(low);
                    pointers += 1;
                    if target >= first || pointers > MOST_POINTERS {
                        return None;
                    }
                    after = after.or(Some(self.at));
                    (self.at, first) = (target, target);
                }
                _ => return None,
            }
        }
        self.at = after.unwrap_or(self.at);
        Some(if text.len() > 1 { text.trim_end_matches('.').to_owned() } else { text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer to `question` with these records: kind, time to live, data; their names are pointers to the question's.
    pub(crate) fn reply(question: &[u8], flags: u16, records: &[(u16, u32, &[u8])]) -> Vec<u8> {
        let mut message = question.to_vec();
        message[2..4].copy_from_slice(&(ANSWER | flags).to_be_bytes());
        message[6..8].copy_from_slice(&u16::try_from(records.len()).unwrap().to_be_bytes());
        for (kind, ttl, data) in records {
            message.extend_from_slice(&[0xc0, 12]);
            message.extend([*kind, INTERNET].iter().flat_map(|word| word.to_be_bytes()));
            message.extend_from_slice(&ttl.to_be_bytes());
            message.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
            message.extend_from_slice(data);
        }
        message
    }

    #[test]
    fn records_of_each_kind_are_read() {
        let shop = name("shop.example").unwrap();
        let asked = |kind: &str, records: &[(u16, u32, &[u8])]| {
            let kind = Kind::named(kind).unwrap();
            answer(&reply(&question(7, &shop, kind), 0, records), 7, &shop, kind).unwrap()
        };
        let a = asked("A", &[(5, 1, &[0xc0, 12]), (1, 60, &[10, 0, 0, 2]), (1, 30, &[10, 0, 0, 1])]);
        assert_eq!((a.records, a.ttl, a.rcode), (vec!["10.0.0.1".to_owned(), "10.0.0.2".to_owned()], Some(30), 0));
        let v6 = Ipv6Addr::LOCALHOST.octets();
        assert_eq!(asked("AAAA", &[(28, 1, &v6)]).records, ["::1"]);
        assert_eq!(asked("CNAME", &[(5, 1, &[1, b'w', 0xc0, 12])]).records, ["w.shop.example"]);
        assert_eq!(asked("TXT", &[(16, 1, b"\x02v=\x011")]).records, ["v=1"]);
        assert_eq!(asked("SRV", &[(33, 1, &[0, 1, 0, 2, 0x1f, 0x90, 0xc0, 12])]).records, ["1 2 8080 shop.example"]);
        assert_eq!(asked("A", &[]).records, Vec::<String>::new());
    }

    #[test]
    fn only_an_answer_to_the_question_counts_and_nothing_is_endless() {
        let (shop, kind) = (name("shop.example").unwrap(), Kind::named("CNAME").unwrap());
        let asked = question(7, &shop, kind);
        let read = |message: &[u8]| answer(message, 7, &shop, kind);
        let good = reply(&asked, 0, &[(5, 1, &[1, b'w', 0xc0, 12])]);
        assert!(read(&good).is_some());
        for length in 0..good.len() {
            assert_eq!(read(&good[..length]), None, "{length} bytes");
        }
        assert_eq!(read(&asked), None, "a question");
        assert_eq!(answer(&good, 8, &shop, kind), None, "another id");
        assert_eq!(answer(&good, 7, &name("shop.exampl3").unwrap(), kind), None, "another name");
        assert_eq!(answer(&good, 7, &shop, Kind::named("TXT").unwrap()), None, "another kind");
        // A pointer to itself, one to a later place, and a label of a kind that is none.
        let own = u8::try_from(asked.len() + 12).unwrap();
        for data in [&[0xc0, own][..], &[0xc0, 255], &[0x80, 0], &[63, b'x']] {
            assert_eq!(read(&reply(&asked, 0, &[(5, 1, data)])), None, "{data:?}");
        }
        // Names of as many pointers and bytes as there may be, and of one more.
        let texts = |data: &[u8]| read(&reply(&asked, 0, &[(16, 1, &[0; 254]), (5, 1, data)]));
        let filled = asked.len() + 12;
        let chain = |pointers: usize| {
            let mut message = reply(&asked, 0, &[(16, 1, &[0; 300]), (5, 1, &[0; 2])]);
            let place = |hop: usize| u16::try_from(filled + 2 * hop).unwrap() | 0xc000;
            for hop in 1..pointers {
                message[filled + 2 * hop..][..2].copy_from_slice(&place(hop - 1).to_be_bytes());
            }
            let end = message.len();
            message[end - 2..].copy_from_slice(&place(pointers - 1).to_be_bytes());
            read(&message)
        };
        assert_eq!(chain(127).unwrap().records, [""]);
        assert_eq!(chain(128), None);
        let label = [&[49][..], &[b'x'; 49]].concat();
        let long = |last: u8| [label.repeat(5), vec![last], vec![b'x'; usize::from(last)], vec![0]].concat();
        assert!(texts(&long(3)).is_some());
        assert_eq!(texts(&long(4)), None);
        let many = |records: usize| read(&reply(&asked, 0, &vec![(5, 1, &[0xc0, 12][..]); records]));
        assert_eq!(many(256).unwrap().records.len(), 256);
        assert_eq!(many(257), None);
        assert!(read(&reply(&asked, TRUNCATED, &[])).unwrap().truncated);
        assert_eq!(rcode(read(&reply(&asked, 3, &[])).unwrap().rcode), "NXDOMAIN");
        for bad in ["", ".", "a..b", &"x".repeat(64), &"a.".repeat(130), "a b"] {
            assert_eq!(name(bad), None, "{bad}");
        }
    }
}
