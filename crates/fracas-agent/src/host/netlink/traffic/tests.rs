//! Bytes that Debian's `tc` (iproute2 6.1) sends for the same wishes, against what is written here.

use super::*;
use crate::host::netlink::message::{ACK, REQUEST, hex};

fn sent(mut message: Message) -> Vec<u8> {
    message.add_flags(REQUEST | ACK);
    message.finish(0x6b07_0ee9)
}

/// `tc qdisc add dev IFB root handle 6672: netem limit 1234 delay 50ms 10ms`; `tc` leaves out what ticks can say.
const NETEM_DELAY: &str = "
    4c 00 00 00 24 00 05 06 e9 0e 07 6b 00 00 00 00
    00 00 00 00 02 00 00 00 00 00 72 66 ff ff ff ff
    00 00 00 00 0a 00 01 00 6e 65 74 65 6d 00 00 00
    1c 00 02 00 c2 eb 0b 00 d2 04 00 00 00 00 00 00
    00 00 00 00 00 00 00 00 5a 62 02 00
";
/// `tc qdisc add dev DEV stab overhead 5 linklayer ethernet clsact`
const CLSACT_STAB: &str = "
    50 00 00 00 24 00 05 06 e9 0e 07 6b 00 00 00 00
    00 00 00 00 03 00 00 00 00 00 ff ff f1 ff ff ff
    00 00 00 00 0b 00 01 00 63 6c 73 61 63 74 00 00
    20 00 08 00 1c 00 01 00 00 00 00 00 05 00 00 00
    01 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
";
/// `tc filter add dev DEV egress prio 77 protocol all handle 1 bpf bytecode '2,48 0 0 9,6 0 0 4294967295'
/// action mirred egress redirect dev IFB cookie 66726163`
const BPF_MIRRED: &str = "
    8c 00 00 00 2c 00 05 06 e9 0e 07 6b 00 00 00 00
    00 00 00 00 03 00 00 00 01 00 00 00 f3 ff ff ff
    00 03 4d 00 08 00 01 00 62 70 66 00 60 00 02 00
    40 00 01 00 3c 00 01 00 0b 00 01 00 6d 69 72 72
    65 64 00 00 24 00 02 80 20 00 02 00 00 00 00 00
    00 00 00 00 04 00 00 00 00 00 00 00 00 00 00 00
    01 00 00 00 02 00 00 00 08 00 06 00 66 72 61 63
    06 00 04 00 02 00 00 00 14 00 05 00 30 00 00 00
    09 00 00 00 06 00 00 00 ff ff ff ff
";
/// The same with `action gact pass`.
const BPF_GACT: &str = "
    7c 00 00 00 2c 00 05 06 e9 0e 07 6b 00 00 00 00
    00 00 00 00 03 00 00 00 01 00 00 00 f3 ff ff ff
    00 03 4e 00 08 00 01 00 62 70 66 00 50 00 02 00
    30 00 01 00 2c 00 01 00 09 00 01 00 67 61 63 74
    00 00 00 00 1c 00 02 80 18 00 02 00 00 00 00 00
    00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
    06 00 04 00 02 00 00 00 14 00 05 00 30 00 00 00
    09 00 00 00 06 00 00 00 ff ff ff ff
";

/// Replaces bytes and mends the lengths that count them.
fn patch(golden: &str, at: usize, cut: usize, with: &[u8], lengths: &[usize]) -> Vec<u8> {
    let mut bytes = hex(golden);
    let grown = with.len() as i32 - cut as i32;
    bytes.splice(at..at + cut, with.iter().copied());
    for at in lengths {
        let length = i32::from(u16::from_ne_bytes([bytes[*at], bytes[*at + 1]])) + grown;
        bytes[*at..*at + 2].copy_from_slice(&(length as u16).to_ne_bytes());
    }
    bytes
}

#[test]
fn netem_is_what_tc_sends_with_exact_times_behind() {
    let what = Netem { delay_ns: 50_000_000, jitter_ns: 10_000_000, loss: 0, limit: 1234 };
    let mut exact = vec![12, 0, 10, 0];
    exact.extend(50_000_000_u64.to_ne_bytes());
    exact.extend([12, 0, 11, 0]);
    exact.extend(10_000_000_u64.to_ne_bytes());
    assert_eq!(sent(netem(2, &what)), patch(NETEM_DELAY, 76, 0, &exact, &[0, 48]));
}

#[test]
fn clsact_is_what_tc_sends_with_our_overhead_and_no_link_layer() {
    let mut golden = hex(CLSACT_STAB);
    golden[60..64].copy_from_slice(b"carf");
    golden[64] = 0;
    assert_eq!(sent(clsact(3)), golden);
}

#[test]
fn filters_are_what_tc_sends_with_our_cookie() {
    let program = vec![Insn { code: 0x30, jt: 0, jf: 0, k: 9 }, Insn { code: 6, jt: 0, jf: 0, k: u32::MAX }];
    let cookie = *b"frac0123456789ab";
    let mut ours =
        Classifier { index: 3, hook: Hook::Egress, priority: 77, handle: 1, program, act: Act::Redirect(2), cookie };
    let golden = patch(BPF_MIRRED, 108, 4, &cookie, &[0, 44, 48, 52, 104]);
    assert_eq!(sent(classifier(CREATE | EXCL, &ours)), golden);
    (ours.act, ours.priority) = (Act::Vanish, 78);
    let mut with = vec![20, 0, 6, 0];
    with.extend(cookie);
    let mut golden = patch(BPF_GACT, 96, 0, &with, &[0, 44, 48, 52]);
    // Verdict STOLEN where `pass` is OK.
    golden[84] = 4;
    assert_eq!(sent(classifier(CREATE | EXCL, &ours)), golden);
}

#[test]
fn what_was_asked_is_read_back() {
    let what = Netem { delay_ns: 200_000_001, jitter_ns: 7, loss: 99, limit: 10 };
    let reply = |m: Message, kind| Reply { kind, body: m.finish(0)[16..].to_vec() };
    let read = discipline(&reply(netem(7, &what), NEW_QDISC)).expect("a qdisc");
    assert_eq!((read.netem, read.index, read.handle, read.marked), (Some(what), 7, NETEM, false));
    assert!(discipline(&reply(clsact(7), NEW_QDISC)).expect("a qdisc").marked);
    let c = Classifier {
        index: 7,
        hook: Hook::Ingress,
        priority: 9,
        handle: 2,
        program: Vec::new(),
        act: Act::Redirect(44),
        cookie: [3; 16],
    };
    let read = found(&reply(classifier(CREATE, &c), NEW_FILTER)).expect("a filter");
    assert_eq!((read.priority, read.handle, read.kind.as_str(), read.target), (9, 2, "bpf", Some(44)));
    assert_eq!((read.action.as_str(), read.cookie), ("mirred", vec![3; 16]));
}

#[test]
fn statistics_are_read() {
    let mut m = Message::attributes();
    let mut basic = 5000_u64.to_ne_bytes().to_vec();
    basic.extend(50_u32.to_ne_bytes());
    m.put(1, &basic).put(3, &[3, 300, 4, 0, 5_u32].map(u32::to_ne_bytes).concat());
    let expected = Counts { packets: 50, bytes: 5000, held: 3, held_bytes: 300, dropped: 4, overlimits: 5 };
    assert_eq!(counts(m.bytes()), expected);
}
