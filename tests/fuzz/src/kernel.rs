//! What the kernel, the bus and peers answer: netlink, queues, /proc, D-Bus, and HTTP to a probe.

use fracas_agent::host::{netlink, netlink::message::Message as Netlink, processes};
use fracas_model::catalogue::Params;
use fracas_probes::{dbus, http, process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{Target, world};

pub(crate) const KERNEL: Target = Target { name: "kernel", take: kernel, seeds: datagrams };
pub(crate) const ANSWER: Target = Target { name: "answer", take: answer, seeds: answers };

/// The first byte says who speaks.
fn kernel(data: &[u8]) {
    let Some((who, data)) = data.split_first() else { return };
    match who % 4 {
        0 => assert!(netlink::read_datagram(data) <= 16 * data.len()),
        3 => {
            let claims = process::claimed(data);
            assert!(claims.len() <= 3 && claims.is_sorted_by_key(|(at, _)| *at));
            assert!(claims.iter().all(|(at, _)| *at > 0));
        }
        1 => {
            processes::read_text(&String::from_utf8_lossy(data));
        }
        _ => {
            if let Some(head) = data.get(..dbus::HEAD).and_then(|head| head.try_into().ok()) {
                dbus::rest(head);
            }
            dbus::Message::read(data);
        }
    }
}

fn datagrams() -> Vec<Vec<u8>> {
    let mut link = Netlink::new(16, 2, &[0, 0, 1, 0, 7, 0, 0, 0, 0x43, 0x10, 0, 0, 0, 0, 0, 0]);
    link.put_text(3, "eth0").put_u32(4, 1500).nest(18, |inside| {
        inside.put_text(1, "ifb");
    });
    let mut discipline = Netlink::new(36, 2, &[0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 1, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0]);
    discipline.put_text(1, "netem").put(2, &[0; 28]).nest(7, |inside| {
        inside.put(1, &[1; 16]).put(3, &[1; 20]);
    });
    let mut filter = Netlink::new(44, 2, &[0, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0xf2, 0xff, 0xff, 0xff, 0, 3, 1, 0]);
    filter.put_text(1, "bpf").nest(2, |inside| {
        inside.nest(1, |action| {
            action.nest(1, |one| {
                one.put_text(1, "mirred");
            });
        });
    });
    let mut rule = Netlink::new(10 << 8 | 6, 2, &[2, 0, 0, 0]);
    rule.put_text(1, "fracas").put_text(2, "out").put(3, &[0, 0, 0, 0, 0, 0, 0, 9]).nest(4, |all| {
        all.nest(1, |one| {
            one.put_text(1, "counter").nest(2, |counter| {
                counter.put(1, &[0, 0, 0, 0, 0, 0, 0, 5]).put(2, &[0, 0, 0, 0, 0, 0, 0, 1]);
            });
        });
    });
    let mut packet = Netlink::new(3 << 8, 0, &[0, 0, 0, 7]);
    packet.put(1, &[0, 0, 0, 9, 8, 0, 4, 0]).put_be32(6, 3).put(10, &[0x45, 0, 0, 20]).put_be32(13, 9000);
    let mut connection = Netlink::new(20, 2, &[2; 72]);
    connection.put(2, &[0; 104]);
    let refused = Netlink::new(2, 0, &[0xfe, 0xff, 0xff, 0xff, 20, 0, 0, 0, 16, 0, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    let done = Netlink::new(3, 0, &[0; 4]);
    let all = [link, discipline, filter, rule, packet, connection, refused, done];
    let mut seeds: Vec<Vec<u8>> = all.into_iter().map(|m| [vec![0], m.finish(1)].concat()).collect();
    let texts = [
        "42 (a) b (c)) S 7 42 42 0 -1 4194560 1 2 3 4 50 60 0 0 20 0 1 0 98765 1 2 3",
        "5:cpu:/x\n1:name=systemd:/system.slice/pg@13.service/sub\n0::/\n",
        "    7  31337     5 1     0     2     3       11  1\n",
        "  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 1000 0 12345 1 0 100 0 0 10 0",
    ];
    seeds.extend(texts.map(|text| [&[1], text.as_bytes()].concat()));
    let words = [dbus::Value::from("web.service"), dbus::Value::Texts(vec!["a".into()]), dbus::Value::Flag(true)];
    let call = dbus::call(7, "org.freedesktop.systemd1", "/p", "i.i", "M", &words);
    let hello: &[u8] = b"l\x02\x01\x01\x09\0\0\0\x01\0\0\0\x3d\0\0\0\x06\x01s\0\x04\0\0\0:1.0\0\0\0\0\
        \x05\x01u\0\x01\0\0\0\x08\x01g\0\x01s\0\0\x07\x01s\0\x14\0\0\0org.freedesktop.DBus\0\0\0\0\x04\0\0\0:1.0\0";
    seeds.extend([&call[..], hello].map(|message| [&[2], message].concat()));
    // Number 1 ends, 2 begins and executes; at first 1 ran, at last 2.
    let told = [(0x8000_0000, 10, [1, 1, 9, 17]), (1, 20, [9, 9, 2, 2]), (2, 30, [2, 2, 0, 0])];
    let told = told.map(|(kind, at, words): (u32, u32, [u32; 4])| {
        let head = [1, 1, 0, 0, 40, kind, 0, at, 0];
        let words = head.into_iter().chain(words).flat_map(u32::to_ne_bytes);
        // Its length, and the header that netlink puts before it.
        [68].into_iter().chain([0; 16]).chain(words).collect::<Vec<u8>>()
    });
    seeds.push([vec![3, 0b0010_0001], told.concat()].concat());
    seeds
}

/// What a server answers, after it has read the request or before, to probes that look for a text or do not.
fn answer(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let mut params = serde_json::Map::new();
    params.insert("status".to_owned(), serde_json::json!([200, 204, 301]));
    if first & 1 == 1 {
        params.insert("body".to_owned(), "well".into());
    }
    if first & 2 == 2 {
        params.insert("method".to_owned(), "HEAD".into());
    }
    world::run(async {
        let (ours, mut server) = tokio::io::duplex(1 << 12);
        let answers = async {
            if first & 4 == 0 {
                let _ = server.read(&mut [0; 1 << 12]).await;
            }
            let _ = server.write_all(data).await;
            let _ = server.shutdown().await;
            let _ = server.read_to_end(&mut Vec::new()).await;
        };
        let params = Params(params);
        let looks = async {
            if let Err(why) = http::judge(&params, ours).await {
                assert!(why.len() <= 120 && !why.contains(['\n', '\r', '\0']), "{why:?}");
            }
        };
        tokio::join!(answers, looks);
    });
}

fn answers() -> Vec<Vec<u8>> {
    let all = [
        "\0HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwell",
        "\x01HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nwell\r\n0\r\n\r\n",
        "\x01HTTP/1.0 301 Moved\r\nlocation: /\r\n\r\nwe are well",
        "\x02HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n",
        "\0HTTP/1.1 503 Busy\r\nretry-after: 1\r\n\r\n",
        "\0HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        "\0SSH-2.0-x\r\n",
    ];
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}
