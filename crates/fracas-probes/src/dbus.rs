//! D-Bus messages as bytes: calls and answers of texts, truth values, numbers, lists of texts and lists of changed links.
//! Whatever else is in an answer makes it no message at all; nothing here trusts a length, or talks to anybody.
//!
//! The wire is described in the D-Bus specification: <https://dbus.freedesktop.org/doc/dbus-specification.html>; the calls in
//! `org.freedesktop.systemd1(5)`.

/// The socket of a host's bus.
pub const BUS: &str = "/run/dbus/system_bus_socket";
/// The socket of systemd itself, which answers where there is no bus, and root only.
pub const OWN: &str = "/run/systemd/private";
/// What sd_booted(3) looks at.
pub const BOOTED: &str = "/run/systemd/system";
/// The name of systemd on a bus.
pub const SYSTEMD: &str = "org.freedesktop.systemd1";
/// Its object that knows all units.
pub const MANAGER: &str = "/org/freedesktop/systemd1";
/// Bytes of the fixed part, with the length of the list of fields behind it.
pub const HEAD: usize = 16;
/// Longest message that is read: the properties asked for have some hundred bytes.
const LONGEST: usize = 1 << 20;

/// `METHOD_CALL`, `METHOD_RETURN` and `ERROR` of the specification.
const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;

/// A value of a call or an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text or an object path.
    Text(String),
    /// A truth value.
    Flag(bool),
    /// A number without a sign. Only in answers.
    Number(u64),
    /// A list of texts.
    Texts(Vec<String>),
    /// What enabling or disabling a unit changed: what was done, to which link, and where that points. Only in answers.
    Changes(Vec<[String; 3]>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
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

/// What is sent first, by this user; nothing else may be until it was answered by a line that begins with `OK `.
///
/// It ends the greeting at once, as systemd's own clients do. Sent later, BEGIN could come together with the first call, and
/// systemd at its own socket would not look at that call before yet more came.
pub fn greeting(uid: u32) -> Vec<u8> {
    // A zero byte, then the user's number in decimal digits, those in hexadecimal.
    let uid: String = uid.to_string().bytes().map(|digit| format!("{digit:02x}")).collect();
    format!("\0AUTH EXTERNAL {uid}\r\nBEGIN\r\n").into_bytes()
}

/// A method call as bytes, little-endian.
pub fn call(serial: u32, to: &str, path: &str, interface: &str, member: &str, words: &[Value]) -> Vec<u8> {
    let (mut body, mut signature) = (Vec::new(), String::new());
    for word in words {
        signature.push_str(put(&mut body, word));
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
        out.extend([8, 1, b'g', 0, signature.len() as u8]);
        out.extend(signature.bytes());
        out.push(0);
    }
    let fields = u32::try_from(out.len() - HEAD).unwrap_or(u32::MAX).to_le_bytes();
    out[12..16].copy_from_slice(&fields);
    pad(&mut out, 8);
    out.extend(body);
    out
}

/// Writes an argument; its signature.
fn put(body: &mut Vec<u8>, value: &Value) -> &'static str {
    match value {
        Value::Text(word) => {
            text(body, word);
            "s"
        }
        Value::Flag(flag) => {
            pad(body, 4);
            body.extend(u32::from(*flag).to_le_bytes());
            "b"
        }
        Value::Texts(words) => {
            pad(body, 4);
            let at = body.len();
            body.extend([0; 4]);
            for word in words {
                text(body, word);
            }
            let length = u32::try_from(body.len() - at - 4).unwrap_or(u32::MAX).to_le_bytes();
            body[at..at + 4].copy_from_slice(&length);
            "as"
        }
        // No call takes them.
        Value::Number(_) | Value::Changes(_) => "",
    }
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

    fn long(&mut self) -> Option<u64> {
        self.align(8)?;
        let bytes = self.take(8)?.try_into().ok()?;
        Some(if self.big { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) })
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
            let kind =
                ["s", "o", "b", "u", "t", "v", "as", "a(sss)"].into_iter().find(|kind| rest.starts_with(kind))?;
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
            "u" => self.number().map(|number| Value::Number(number.into())),
            "t" => self.long().map(Value::Number),
            "as" => {
                let length = self.number()? as usize;
                let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len())?;
                let mut texts = Vec::new();
                while self.at < end {
                    texts.push(self.text()?);
                }
                (self.at == end).then_some(Value::Texts(texts))
            }
            "a(sss)" => {
                let length = self.number()? as usize;
                // The padding before the first element is not counted.
                self.align(8)?;
                let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len())?;
                let mut changes = Vec::new();
                while self.at < end {
                    self.align(8)?;
                    changes.push([self.text()?, self.text()?, self.text()?]);
                }
                (self.at == end).then_some(Value::Changes(changes))
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
    fn the_greeting_is_whole() {
        assert_eq!(greeting(1000), b"\0AUTH EXTERNAL 31303030\r\nBEGIN\r\n");
    }

    #[test]
    fn a_call_is_as_the_specification_has_it() {
        let call = call(7, "d", "/p", "i.i", "M", &["x".into()]);
        let expected: &[u8] = b"l\x01\0\x01\x06\0\0\0\x07\0\0\0\x47\0\0\0\
            \x01\x01o\0\x02\0\0\0/p\0\0\0\0\0\0\x02\x01s\0\x03\0\0\0i.i\0\0\0\0\0\
            \x03\x01s\0\x01\0\0\0M\0\0\0\0\0\0\0\x06\x01s\0\x01\0\0\0d\0\0\0\0\0\0\0\x08\x01g\0\x01s\0\0\x01\0\0\0x\0";
        assert_eq!(call, expected);
    }

    #[test]
    fn lists_and_flags_are_as_the_specification_has_them() {
        let words = [Value::Texts(vec!["a".into()]), Value::Flag(false), Value::Flag(true)];
        let call = call(7, "d", "/p", "i.i", "M", &words);
        let body: &[u8] = b"\x06\0\0\0\x01\0\0\0a\0\0\0\0\0\0\0\x01\0\0\0";
        assert!(call.ends_with(body) && call.windows(6).any(|w| w == b"\x04asbb\0"), "{call:?}");
    }

    #[test]
    fn the_answer_to_enabling_is_read() {
        let texts = ["symlink", "/etc/l", "/x"];
        let mut body = 1_u32.to_le_bytes().to_vec();
        let at = body.len();
        body.extend([0; 4]);
        pad(&mut body, 8);
        let from = body.len();
        for word in texts {
            text(&mut body, word);
        }
        let length = u32::try_from(body.len() - from).unwrap().to_le_bytes();
        body[at..at + 4].copy_from_slice(&length);
        let mut whole = vec![b'l', RETURN, 0, 1];
        whole.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
        whole.extend(9_u32.to_le_bytes());
        let fields = b"\x05\x01u\0\x03\0\0\0\x08\x01g\0\x07ba(sss)\0";
        whole.extend(u32::try_from(fields.len()).unwrap().to_le_bytes());
        whole.extend(fields);
        pad(&mut whole, 8);
        whole.extend(&body);
        let read = Message::read(&whole).expect("a message");
        assert_eq!(read.answers, Some(3));
        assert_eq!(read.body, [Value::Flag(true), Value::Changes(vec![texts.map(str::to_owned)])]);
        for cut in 0..whole.len() {
            assert_eq!(Message::read(&whole[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn numbers_stand_at_multiples_of_their_size() {
        // A truth value, a variant of 32 bits, one of 64.
        let body = b"\x01\0\0\0\x01u\0\0\x07\0\0\0\x01t\0\0\x09\0\0\0\0\0\0\x01";
        let mut whole = vec![b'l', RETURN, 0, 1, 24, 0, 0, 0, 9, 0, 0, 0, 17, 0, 0, 0];
        whole.extend(b"\x05\x01u\0\x03\0\0\0\x08\x01g\0\x03bvv\0");
        pad(&mut whole, 8);
        whole.extend(body);
        let numbers = [Value::Flag(true), Value::Number(7), Value::Number(9 | 1 << 56)];
        assert_eq!(Message::read(&whole).expect("a message").body, numbers);
        for cut in 0..whole.len() {
            assert_eq!(Message::read(&whole[..cut]), None, "cut at {cut}");
        }
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
