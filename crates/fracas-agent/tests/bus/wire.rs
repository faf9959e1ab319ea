//! The bytes of D-Bus that a stand-in for systemd reads and writes, made by hand so that the agent's own reading is not
//! asked. It knows no unit.
//!
//! The wire is described in the D-Bus specification: <https://dbus.freedesktop.org/doc/dbus-specification.html>.

/// The number at this place, little endian.
pub(crate) fn number(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four")) as usize
}

/// The text of a header field, by its code and type: fields begin at multiples of eight.
pub(crate) fn field(bytes: &[u8], code: u8, kind: u8) -> String {
    let at = (16..bytes.len() - 8).step_by(8).find(|at| bytes[*at..*at + 4] == [code, 1, kind, 0]).expect("field");
    String::from_utf8(bytes[at + 8..at + 8 + number(bytes, at + 4)].to_vec()).expect("UTF-8")
}

/// The texts that a body is made of.
pub(crate) fn texts(mut body: &[u8]) -> Vec<String> {
    let mut texts = Vec::new();
    while body.len() > 4 {
        let length = number(body, 0);
        texts.push(String::from_utf8(body[4..4 + length].to_vec()).expect("UTF-8"));
        body = &body[(4 + length + 1).next_multiple_of(4).min(body.len())..];
    }
    texts
}

/// An answer with a body of this signature: kind 2, or an error of kind 3.
pub(crate) fn answer(serial: usize, kind: u8, signature: &str, body: &[u8]) -> Vec<u8> {
    let mut out = vec![b'l', kind, 1, 1];
    out.extend((body.len() as u32).to_le_bytes());
    out.extend([9, 0, 0, 0, 0, 0, 0, 0]);
    out.extend([5, 1, b'u', 0]);
    out.extend((serial as u32).to_le_bytes());
    if kind == 3 {
        out.extend([4, 1, b's', 0, 3, 0, 0, 0]);
        out.extend(b"a.b\0");
        out.resize(out.len().next_multiple_of(8), 0);
    }
    out.extend([8, 1, b'g', 0, signature.len() as u8]);
    out.extend(signature.as_bytes());
    out.push(0);
    let fields = (out.len() - 16) as u32;
    out[12..16].copy_from_slice(&fields.to_le_bytes());
    out.resize(out.len().next_multiple_of(8), 0);
    out.extend(body);
    out
}

/// A text as it stands in a body.
pub(crate) fn text(value: &str) -> Vec<u8> {
    let mut out = (value.len() as u32).to_le_bytes().to_vec();
    out.extend(value.as_bytes());
    out.push(0);
    out
}

/// A variant of a type whose value begins at a multiple of four.
pub(crate) fn variant(kind: &str, value: &[u8]) -> Vec<u8> {
    let mut out = vec![kind.len() as u8];
    out.extend(kind.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend(value);
    out
}
