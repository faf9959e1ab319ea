//! D-Bus messages as bytes: calls whose arguments are texts, and answers of texts, truth values and lists of texts. Whatever
//! else is in an answer makes it no message at all; nothing here trusts a length.

/// Bytes of the fixed part, with the length of the list of fields behind it.
pub const HEAD: usize = 16;
/// Longest message that is read: the properties asked for have some hundred bytes.
const LONGEST: usize = 1 << 20;

/// `METHOD_CALL`, `METHOD_RETURN` and `ERROR` of the specification.
const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;

/// A value of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text or an object path.
    Text(String),
    /// A truth value.
    Flag(bool),
    /// A list of texts.
    Texts(Vec<String>),
}

/// A message that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Number of the call that it answers.
    pub answers: Option<u32>,
    /// Name of the error, if it is one.
    pub error: Option<String>,
    /// What it says; empty where it is no answer.
    pub body: Vec<Value>,
}

/// A method call as bytes, little-endian.
pub fn call(serial: u32, to: &str, path: &str, interface: &str, member: &str, words: &[&str]) -> Vec<u8> {
    let mut body = Vec::new();
    for word in words {
        text(&mut body, word);
    }
    let mut out = vec![b'l', CALL, 0, 1];
    out.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend(serial.to_le_bytes());
    out.extend([0; 4]);
    for (code, kind, value) in [(1, b'o', path), (2, b's', interface), (3, b's', member), (6, b's', to)] {
        pad(&mut out, 8);
        out.extend([code, 1, kind, 0]);
        text(&mut out, value);
    }
    if !words.is_empty() {
        pad(&mut out, 8);
        out.extend([8, 1, b'g', 0, words.len() as u8]);
        out.extend(words.iter().map(|_| b's'));
        out.push(0);
    }
    let fields = u32::try_from(out.len() - HEAD).unwrap_or(u32::MAX).to_le_bytes();
    out[12..16].copy_from_slice(&fields);
    pad(&mut out, 8);
    out.extend(body);
    out
}

fn pad(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

fn text(out: &mut Vec<u8>, value: &str) {
    pad(out, 4);
    out.extend(u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend(value.as_bytes());
    out.push(0);
}

/// How many bytes follow the fixed part; `None` when it is none, or when they are too many.
pub fn rest(head: &[u8; HEAD]) -> Option<usize> {
    let mut reader = Reader::of(head)?;
    reader.at = 4;
    let body = reader.number()? as usize;
    reader.at = 12;
    let fields = reader.number()? as usize;
    let rest = fields.checked_next_multiple_of(8)?.checked_add(body)?;
    (rest <= LONGEST).then_some(rest)
}

impl Message {
    /// Reads one whole message.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let head: &[u8; HEAD] = bytes.get(..HEAD)?.try_into().ok()?;
        if bytes.len() != HEAD + rest(head)? {
            return None;
        }
        let mut reader = Reader::of(bytes)?;
        let kind = bytes[1];
        reader.at = 12;
        let end = HEAD + reader.number()? as usize;
        let (mut answers, mut error, mut signature) = (None, None, String::new());
        while reader.at < end {
            reader.align(8)?;
            let code = reader.byte()?;
            let value = reader.signature()?;
            match (code, value.as_str()) {
                (4, "s") => error = Some(reader.text()?),
                (5, "u") => answers = Some(reader.number()?),
                (8, "g") => signature = reader.signature()?,
                (_, "s" | "o") => drop(reader.text()?),
                (_, "u") => drop(reader.number()?),
                (_, "g") => drop(reader.signature()?),
                _ => return None,
            }
        }
        if reader.at != end {
            return None;
        }
        reader.align(8)?;
        if kind != RETURN && kind != ERROR {
            // A signal, such as the one that tells us our own name: of no concern, whatever it says.
            return Some(Self { answers: None, error: None, body: Vec::new() });
        }
        // An error without a name is none.
        let error = if kind == ERROR { Some(error?) } else { None };
        Some(Self { answers: Some(answers?), error, body: reader.values(&signature)? })
    }
}

/// Reads forward, and never beyond the end.
struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
    big: bool,
}

impl<'b> Reader<'b> {
    /// Of a message; its first byte says in which order numbers are.
    fn of(bytes: &'b [u8]) -> Option<Self> {
        let big = match bytes.first()? {
            b'l' => false,
            b'B' => true,
            _ => return None,
        };
        // The version of the protocol.
        (*bytes.get(3)? == 1).then_some(Self { bytes, at: 0, big })
    }

    fn align(&mut self, to: usize) -> Option<()> {
        self.at = self.at.checked_next_multiple_of(to)?;
        (self.at <= self.bytes.len()).then_some(())
    }

    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    fn number(&mut self) -> Option<u32> {
        self.align(4)?;
        let bytes = self.take(4)?.try_into().ok()?;
        Some(if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    /// So many bytes of UTF-8 with a zero behind them.
    fn ended(&mut self, length: usize) -> Option<String> {
        let text = String::from_utf8(self.take(length)?.to_vec()).ok()?;
        (self.byte()? == 0).then_some(text)
    }

    fn text(&mut self) -> Option<String> {
        let length = self.number()? as usize;
        self.ended(length)
    }

    fn signature(&mut self) -> Option<String> {
        let length = self.byte()? as usize;
        self.ended(length)
    }

    fn values(&mut self, signature: &str) -> Option<Vec<Value>> {
        let (mut values, mut rest) = (Vec::new(), signature);
        while !rest.is_empty() {
            let kind = ["s", "o", "b", "v", "as"].into_iter().find(|kind| rest.starts_with(kind))?;
            let value = if kind == "v" {
                // A variant in a variant is nothing that systemd says.
                let inner = self.signature()?;
                if inner == "v" {
                    return None;
                }
                self.value(&inner)?
            } else {
                self.value(kind)?
            };
            values.push(value);
            rest = &rest[kind.len()..];
        }
        Some(values)
    }

    fn value(&mut self, kind: &str) -> Option<Value> {
        match kind {
            "s" | "o" => self.text().map(Value::Text),
            "b" => match self.number()? {
                0 => Some(Value::Flag(false)),
                1 => Some(Value::Flag(true)),
                _ => None,
            },
            "as" => {
                let length = self.number()? as usize;
                let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len())?;
                let mut texts = Vec::new();
                while self.at < end {
                    texts.push(self.text()?);
                }
                (self.at == end).then_some(Value::Texts(texts))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The answer to a Hello as dbus-daemon 1.14 sent it, recorded.
    const HELLO: &[u8] = b"l\x02\x01\x01\x09\0\0\0\x01\0\0\0\x3d\0\0\0\x06\x01s\0\x04\0\0\0:1.0\0\0\0\0\
        \x05\x01u\0\x01\0\0\0\x08\x01g\0\x01s\0\0\x07\x01s\0\x14\0\0\0org.freedesktop.DBus\0\0\0\0\x04\0\0\0:1.0\0";

    #[test]
    fn an_answer_of_a_real_bus_is_read() {
        let expected = Message { answers: Some(1), error: None, body: vec![Value::Text(":1.0".into())] };
        assert_eq!(Message::read(HELLO), Some(expected));
        for cut in 0..HELLO.len() {
            assert_eq!(Message::read(&HELLO[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn a_call_is_as_the_specification_has_it() {
        let call = call(7, "d", "/p", "i.i", "M", &["x"]);
        let expected: &[u8] = b"l\x01\0\x01\x06\0\0\0\x07\0\0\0\x47\0\0\0\
            \x01\x01o\0\x02\0\0\0/p\0\0\0\0\0\0\x02\x01s\0\x03\0\0\0i.i\0\0\0\0\0\
            \x03\x01s\0\x01\0\0\0M\0\0\0\0\0\0\0\x06\x01s\0\x01\0\0\0d\0\0\0\0\0\0\0\x08\x01g\0\x01s\0\0\x01\0\0\0x\0";
        assert_eq!(call, expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::read(&bytes);
        }

        #[test]
        fn no_change_of_a_good_answer_does_harm(at in 0..HELLO.len(), byte: u8, more in 0..HELLO.len(), other: u8) {
            let mut bytes = HELLO.to_vec();
            bytes[at] = byte;
            bytes[more] = other;
            let _ = Message::read(&bytes);
        }
    }
}
