//! Bytes that a kernel accepted, and which `nft list ruleset` decoded as intended, against what is written here.

use super::*;
use crate::host::netlink::message::hex;

const BATCH_BEGIN: &str = "
    14 00 00 00 10 00 01 00 08 00 00 00 00 00 00 00
    00 00 00 0a
";
const NEW_TABLE_BYTES: &str = "
    28 00 00 00 00 0a 05 06 01 00 00 00 00 00 00 00
    01 00 00 00 0b 00 01 00 66 72 61 63 61 73 00 00
    08 00 02 00 00 00 00 02
";
const CHAIN_OUT: &str = "
    50 00 00 00 03 0a 05 04 02 00 00 00 00 00 00 00
    01 00 00 00 0b 00 01 00 66 72 61 63 61 73 00 00
    08 00 03 00 6f 75 74 00 14 00 04 80 08 00 01 00
    00 00 00 03 08 00 02 00 ff ff ff 6a 08 00 05 00
    00 00 00 01 0b 00 07 00 66 69 6c 74 65 72 00 00
";
const RULE_DROP: &str = "
    bc 01 00 00 06 0a 05 0c 04 00 00 00 00 00 00 00
    01 00 00 00 0b 00 01 00 66 72 61 63 61 73 00 00
    08 00 02 00 6f 75 74 00 94 01 04 80 24 00 01 80
    09 00 01 00 6d 65 74 61 00 00 00 00 14 00 02 80
    08 00 01 00 00 00 00 01 08 00 02 00 00 00 00 0f
    2c 00 01 80 08 00 01 00 63 6d 70 00 20 00 02 80
    08 00 01 00 00 00 00 01 08 00 02 00 00 00 00 00
    0c 00 03 80 05 00 01 00 02 00 00 00 34 00 01 80
    0c 00 01 00 70 61 79 6c 6f 61 64 00 24 00 02 80
    08 00 01 00 00 00 00 01 08 00 02 00 00 00 00 01
    08 00 03 00 00 00 00 10 08 00 04 00 00 00 00 04
    2c 00 01 80 08 00 01 00 63 6d 70 00 20 00 02 80
    08 00 01 00 00 00 00 01 08 00 02 00 00 00 00 00
    0c 00 03 80 08 00 01 00 0a 4d 00 09 24 00 01 80
    09 00 01 00 6d 65 74 61 00 00 00 00 14 00 02 80
    08 00 01 00 00 00 00 01 08 00 02 00 00 00 00 10
    2c 00 01 80 08 00 01 00 63 6d 70 00 20 00 02 80
    08 00 01 00 00 00 00 01 08 00 02 00 00 00 00 00
    0c 00 03 80 05 00 01 00 06 00 00 00 34 00 01 80
    0c 00 01 00 70 61 79 6c 6f 61 64 00 24 00 02 80
    08 00 01 00 00 00 00 01 08 00 02 00 00 00 00 02
    08 00 03 00 00 00 00 02 08 00 04 00 00 00 00 02
    2c 00 01 80 08 00 01 00 63 6d 70 00 20 00 02 80
    08 00 01 00 00 00 00 01 08 00 02 00 00 00 00 00
    0c 00 03 80 06 00 01 00 15 38 00 00 30 00 01 80
    0e 00 01 00 69 6d 6d 65 64 69 61 74 65 00 00 00
    1c 00 02 80 08 00 01 00 00 00 00 00 10 00 02 80
    0c 00 02 80 08 00 01 00 00 00 00 00
";
const RULE_LOSS: &str = "
    c0 01 00 00 06 0a 05 0c 05 00 00 00 00 00 00 00
    01 00 00 00 0b 00 01 00 66 72 61 63 61 73 00 00
    07 00 02 00 69 6e 00 00 98 01 04 80 24 00 01 80
    09 00 01 00 6d 65 74 61 00 00 00 00 14 00 02 80
    08 00 01 00 00 00 00 01 08 00 02 00 00 00 00 10
    2c 00 01 80 08 00 01 00 63 6d 70 00 20 00 02 80
    08 00 01 00 00 00 00 01 08 00 02 00 00 00 00 00
    0c 00 03 80 05 00 01 00 11 00 00 00 34 00 01 80
    0c 00 01 00 70 61 79 6c 6f 61 64 00 24 00 02 80
    08 00 01 00 00 00 00 01 08 00 02 00 00 00 00 02
    08 00 03 00 00 00 00 00 08 00 04 00 00 00 00 02
    2c 00 01 80 08 00 01 00 63 6d 70 00 20 00 02 80
    08 00 01 00 00 00 00 01 08 00 02 00 00 00 00 00
    0c 00 03 80 06 00 01 00 27 0f 00 00 34 00 01 80
    0b 00 01 00 6e 75 6d 67 65 6e 00 00 24 00 02 80
    08 00 01 00 00 00 00 01 08 00 02 00 00 0f 42 40
    08 00 03 00 00 00 00 01 08 00 04 00 00 00 00 00
    40 00 01 80 0e 00 01 00 62 79 74 65 6f 72 64 65
    72 00 00 00 2c 00 02 80 08 00 01 00 00 00 00 01
    08 00 02 00 00 00 00 01 08 00 03 00 00 00 00 01
    08 00 04 00 00 00 00 04 08 00 05 00 00 00 00 04
    2c 00 01 80 08 00 01 00 63 6d 70 00 20 00 02 80
    08 00 01 00 00 00 00 01 08 00 02 00 00 00 00 02
    0c 00 03 80 08 00 01 00 00 01 86 a0 14 00 01 80
    0c 00 01 00 63 6f 75 6e 74 65 72 00 04 00 02 80
    30 00 01 80 0e 00 01 00 69 6d 6d 65 64 69 61 74
    65 00 00 00 1c 00 02 80 08 00 01 00 00 00 00 00
    10 00 02 80 0c 00 02 80 08 00 01 00 00 00 00 00
";
const RULE_QUEUE: &str = "
    10 01 00 00 06 0a 05 0c 07 00 00 00 00 00 00 00
    01 00 00 00 0b 00 01 00 66 72 61 63 61 73 00 00
    07 00 02 00 69 6e 00 00 e8 00 04 80 24 00 01 80
    09 00 01 00 6d 65 74 61 00 00 00 00 14 00 02 80
    08 00 01 00 00 00 00 01 08 00 02 00 00 00 00 10
    2c 00 01 80 08 00 01 00 63 6d 70 00 20 00 02 80
    08 00 01 00 00 00 00 01 08 00 02 00 00 00 00 00
    0c 00 03 80 05 00 01 00 11 00 00 00 34 00 01 80
    0c 00 01 00 70 61 79 6c 6f 61 64 00 24 00 02 80
    08 00 01 00 00 00 00 01 08 00 02 00 00 00 00 02
    08 00 03 00 00 00 00 00 08 00 04 00 00 00 00 02
    2c 00 01 80 08 00 01 00 63 6d 70 00 20 00 02 80
    08 00 01 00 00 00 00 01 08 00 02 00 00 00 00 00
    0c 00 03 80 06 00 01 00 15 3a 00 00 34 00 01 80
    0b 00 01 00 74 61 72 67 65 74 00 00 24 00 02 80
    0c 00 01 00 4e 46 51 55 45 55 45 00 08 00 02 00
    00 00 00 03 0c 00 03 00 07 00 01 00 01 00 00 00
";
const BATCH_END: &str = "
    14 00 00 00 11 00 01 00 09 00 00 00 00 00 00 00
    00 00 00 0a
";
const GET_TABLE_BYTES: &str = "
    20 00 00 00 01 0a 01 00 14 00 00 00 00 00 00 00
    01 00 00 00 0b 00 01 00 66 72 61 63 61 73 00 00
";

fn bytes(message: &Message, seq: u32) -> Vec<u8> {
    message.clone().finish(seq)
}

#[test]
fn batch_table_and_chain_are_the_accepted_bytes() {
    let mut batch = Batch::default();
    batch.new_table("fracas").base_chain("fracas", "out", Hook::Output, -150);
    let messages = batch.finish();
    for (message, seq, golden) in [(0, 0, BATCH_BEGIN), (1, 1, NEW_TABLE_BYTES), (2, 2, CHAIN_OUT), (3, 9, BATCH_END)]
        .map(|(i, s, g)| (&messages[i], s, g))
    {
        let mut golden = hex(golden);
        golden[8] = seq as u8;
        assert_eq!(bytes(message, seq), golden);
    }
}

#[test]
fn a_rule_on_address_and_port_is_the_accepted_bytes() {
    let rule = Rule::new()
        .is(Meta::Family, &[2])
        .payload(Base::Network, 16, 4)
        .compare(Cmp::Eq, &[10, 77, 0, 9])
        .transport(6)
        .payload(Base::Transport, 2, 2)
        .compare(Cmp::Eq, &5432_u16.to_be_bytes())
        .verdict(&Verdict::Drop);
    assert_eq!(bytes(&new_rule("fracas", "out", &rule, 0), 4), hex(RULE_DROP));
}

#[test]
fn a_loss_rule_is_the_accepted_bytes() {
    let rule = Rule::new()
        .transport(17)
        .payload(Base::Transport, 0, 2)
        .compare(Cmp::Eq, &9999_u16.to_be_bytes())
        .chance(100_000)
        .counter()
        .verdict(&Verdict::Drop);
    assert_eq!(bytes(&new_rule("fracas", "in", &rule, 0), 5), hex(RULE_LOSS));
}

#[test]
fn a_queue_rule_is_the_accepted_bytes() {
    let rule = Rule::new()
        .transport(17)
        .payload(Base::Transport, 0, 2)
        .compare(Cmp::Eq, &5434_u16.to_be_bytes())
        .queue(QueueForm::Target, 7, true);
    assert_eq!(bytes(&new_rule("fracas", "in", &rule, 0), 7), hex(RULE_QUEUE));
}

#[test]
fn a_question_for_a_table_is_the_accepted_bytes() {
    let mut m = header(GET_TABLE, 0);
    m.put_text(1, "fracas");
    assert_eq!(bytes(&m, 20), hex(GET_TABLE_BYTES));
}

#[test]
fn counters_are_found_in_a_rule() {
    let mut m = Message::attributes();
    m.nest(4, |m| {
        m.nest(1, |m| {
            m.put_text(1, "counter").nest(2, |m| {
                m.put(1, &7_u64.to_be_bytes()).put(2, &3_u64.to_be_bytes());
            });
        });
    });
    let body = [&[INET, 0, 0, 0], m.bytes()].concat();
    assert_eq!(counters_of(&Reply { kind: NEW_RULE, body }), [3]);
}
