//! Probe `dns`: asks a name server one question and tells what it answers. It keeps no answer, and asks no other server.

use std::{net::SocketAddr, rc::Rc};

use fracas_model::{
    catalogue::{Params, ProbeInfo},
    plan::Refusal,
    policy::Policy,
    shape::{Field, Shape},
    tolerance::{ReadingField, Values},
    units::Dur,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UdpSocket,
};

use crate::{
    LookFuture, Lookout, OneCall, Probe, Seen, brief,
    connect::{resolve, split, world},
    dnswire::{self, Answer, Kind},
    files,
    wire::Wire,
};

/// Where the host's own name servers stand (resolv.conf(5)), and how much of it is read.
const RESOLV_CONF: (&str, usize) = ("/etc/resolv.conf", 16 * 1024);
/// The port of name servers.
const PORT: u16 = 53;
/// Longest answer over UDP that is taken, bytes; without an extension servers send 512.
const LONGEST_UDP: usize = 4096;
/// Longest answer over TCP with its length, bytes.
const LONGEST_TCP: usize = 2 + 65_535;

/// The `dns` probe.
#[derive(Debug)]
pub struct Dns;

#[derive(Debug)]
struct Ready {
    server: Option<(String, u16)>,
    asked: Asked,
    kind_name: String,
    name_text: String,
    empty_is_ok: bool,
    one: OneCall,
}

#[derive(Debug)]
struct Asked {
    name: Vec<u8>,
    kind: Kind,
}

impl Probe for Dns {
    fn info(&self) -> ProbeInfo {
        ProbeInfo {
            name: "dns".into(),
            summary: "Asks a name server for the records of a name.".into(),
            help: HELP.into(),
            params: vec![
                Field::required("name", Shape::Text { max: 254 }, "Whole name to ask for; no search domain is added."),
                Field::with_default("type", Shape::choice(&Kind::names()), "A", "Kind of record."),
                Field::optional("server", Shape::Address, "Server to ask; else the first of /etc/resolv.conf."),
                Field::with_default(
                    "onEmpty",
                    Shape::choice(&["fail", "ok"]),
                    "fail",
                    "What no such name, and a name without such a record, count as.",
                ),
            ],
            reading: vec![
                ReadingField::text("answers", "What the records say, sorted, with a comma and a space between them."),
                ReadingField::number("count", "records", "How many there are."),
                ReadingField::duration("ttl", "Shortest time that one of them may be kept."),
                ReadingField::word("rcode", "How the server answered: NOERROR, or NXDOMAIN with `onEmpty: ok`."),
            ],
            example:
                r#"{ name: db.shop.internal, server: "10.0.0.2:53", tolerance: { answers: { equals: 10.0.0.5 } } }"#
                    .into(),
        }
    }

    fn ready(&self, params: &Params, _policy: &Policy) -> Result<Box<dyn Lookout>, Refusal> {
        Ok(Box::new(Rc::new(Ready::of(params)?)))
    }
}

impl Ready {
    fn of(params: &Params) -> Result<Self, Refusal> {
        let text = params.text("name").unwrap_or_default();
        let name = dnswire::name(text).ok_or_else(|| {
            Refusal::new(format!("dns: {text:?} is no name"), "write a name such as db.shop.internal")
        })?;
        let kind_name = params.text("type").unwrap_or("A").to_owned();
        let unknown = || Refusal::new(format!("dns: records {kind_name} are not understood"), "ask for another type");
        let kind = Kind::named(&kind_name).ok_or_else(unknown)?;
        let server = match params.text("server") {
            Some(address) => Some(split(address).map(|(host, port)| (host.to_owned(), port)).ok_or_else(|| {
                Refusal::new(format!("dns: {address:?} is not an address"), "write host:port, for example 10.0.0.2:53")
            })?),
            None => None,
        };
        let empty_is_ok = params.text("onEmpty") == Some("ok");
        let asked = Asked { name, kind };
        let (name_text, one) = (text.to_owned(), OneCall::default());
        Ok(Self { server, asked, kind_name, name_text, empty_is_ok, one })
    }
}

impl Lookout for Rc<Ready> {
    fn look(&self) -> LookFuture {
        let ready = self.clone();
        Box::pin(async move {
            let server = match &ready.server {
                Some((host, port)) => resolve(host, *port).await?.into_iter().next(),
                None => ready.one.blocking(first_of_host).await??,
            };
            let server = server.ok_or("there is no name server to ask")?;
            let mut answer = ready.asked.over_udp(server).await?;
            if answer.truncated {
                answer = ready.asked.over_tcp(server).await?;
            }
            ready.judge(answer)
        })
    }
}

impl Ready {
    fn judge(&self, answer: Answer) -> Seen {
        let (name, kind, rcode) = (&self.name_text, &self.kind_name, dnswire::rcode(answer.rcode));
        match answer.rcode {
            0 if answer.records.is_empty() && !self.empty_is_ok => {
                return Err(brief(format_args!("no {kind} record: {name} has none")));
            }
            3 if !self.empty_is_ok => return Err(brief(format_args!("no such name (NXDOMAIN): {name}"))),
            0 | 3 => {}
            _ => return Err(format!("the name server answers {rcode}")),
        }
        Ok(Values::new()
            .with("count", answer.records.len())
            .with("answers", answer.records.join(", "))
            .with("rcode", rcode)
            .with_known("ttl", answer.ttl.map(|secs| Dur::from_secs(i64::from(secs)))))
    }
}

impl Asked {
    async fn over_udp(&self, server: SocketAddr) -> Result<Answer, String> {
        let id = random()?;
        let any: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
        // The kernel draws the port; connected, the socket takes from nobody else.
        let socket = UdpSocket::bind(any).await.map_err(|e| world(&e))?;
        socket.connect(server).await.map_err(|e| world(&e))?;
        socket.send(&dnswire::question(id, &self.name, self.kind)).await.map_err(|e| world(&e))?;
        let mut message = [0; LONGEST_UDP];
        loop {
            let got = socket.recv(&mut message).await.map_err(|e| world(&e))?;
            // What is no answer to this may be forged: the true one may still come.
            if let Some(answer) = dnswire::answer(&message[..got], id, &self.name, self.kind) {
                return Ok(answer);
            }
        }
    }

    async fn over_tcp(&self, server: SocketAddr) -> Result<Answer, String> {
        let wire = Wire::connect(&server.ip().to_string(), server.port(), LONGEST_TCP).await?;
        self.over_stream(wire, random()?).await
    }

    async fn over_stream<S>(&self, mut wire: Wire<S>, id: u16) -> Result<Answer, String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let question = dnswire::question(id, &self.name, self.kind);
        let length = u16::try_from(question.len()).map_err(|_| "the name is too long")?;
        wire.send(&[&length.to_be_bytes()[..], &question].concat()).await?;
        let length = usize::from(wire.byte().await?) << 8 | usize::from(wire.byte().await?);
        let message = wire.exact(length).await?;
        let answer = dnswire::answer(&message, id, &self.name, self.kind).filter(|answer| !answer.truncated);
        answer.ok_or_else(|| "the answer over TCP is none".into())
    }
}

/// What a look with these parameters makes of this datagram as the answer to question `id`, and of what `stream` answers
/// where that says that it did not fit, for fuzzing.
#[cfg(fuzzing)]
pub async fn judge(params: &Params, id: u16, datagram: &[u8], stream: impl AsyncRead + AsyncWrite + Unpin) -> Seen {
    let ready = Ready::of(params).map_err(|refusal| refusal.why)?;
    let asked = &ready.asked;
    let mut answer =
        dnswire::answer(datagram, id, &asked.name, asked.kind).ok_or("the datagram answers something else")?;
    if answer.truncated {
        answer = asked.over_stream(Wire::over(stream, LONGEST_TCP), id).await?;
    }
    crate::tolerated::compared(&Dns, params, ready.judge(answer))
}

fn random() -> Result<u16, String> {
    let mut bytes = [0; 2];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "the host gives no random bytes")?;
    Ok(u16::from_be_bytes(bytes))
}

/// The first server of this host; like its own resolver, this one if the file names none.
fn first_of_host() -> Result<Option<SocketAddr>, String> {
    let (path, most) = RESOLV_CONF;
    let text = files::small(path, most).map_err(|e| brief(format_args!("{path}: {e}")))?;
    Ok(Some(first_of(&String::from_utf8_lossy(&text)).unwrap_or(([127, 0, 0, 1], PORT).into())))
}

fn first_of(resolv_conf: &str) -> Option<SocketAddr> {
    let servers = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok())?
    });
    servers.map(|ip| SocketAddr::new(ip, PORT)).next()
}

const HELP: &str = "\
Ok when the server answers NOERROR with at least one record of `type`. A name that does not exist, one without such a \
record and a server that fails or refuses (SERVFAIL, REFUSED) each fail with a reason of their own. With `onEmpty: ok` the \
first two are well, with `count` 0: `tolerance: { count: { max: 0 } }` then waits for a name to vanish.

The question goes straight to the server, over UDP with a new port and a new random number each time, and over TCP when \
the answer does not fit; the host's cache, its search domains and /etc/hosts have no say. So what is seen is the server, \
not what programs on this host are told: those take what is kept until its `ttl` is over. Answers that do not repeat \
number and question are ignored. Nothing is asked twice: a lost packet is a failed look, so give stop conditions some time.

`answers` lists the records sorted, so that servers which turn them round give one text: addresses, the target of a CNAME, \
the text of a TXT, or priority, weight, port and target of an SRV. Aliases on the way are followed by the server. An \
answer of more than 256 records is taken for none. Of /etc/resolv.conf, addresses with a scope (fe80::1%eth0) are skipped.

Cost: two packets per look.";

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    fn ready(params: serde_json::Value) -> Result<Box<dyn Lookout>, Refusal> {
        crate::ready(&Dns, &serde_json::from_value(params).unwrap(), &Policy::builtin())
    }

    /// The question as an answer with this response code, and one address if there is one.
    fn reply(question: &[u8], rcode: u8, address: Option<[u8; 4]>) -> Vec<u8> {
        let mut message = question.to_vec();
        message[2..4].copy_from_slice(&[0x81, rcode]);
        if let Some(address) = address {
            message[7] = 1;
            message.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4]);
            message.extend_from_slice(&address);
        }
        message
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_answer_is_taken_from_the_server_and_for_the_question_only() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap().to_string();
        let wanted = json!({ "answers": { "equals": "10.0.0.5" }, "ttl": { "max": "30s" }, "count": { "max": 1 } });
        let lookout = ready(json!({ "name": "shop.example", "server": address, "tolerance": wanted })).unwrap();
        let serve = async {
            let mut asked = [0; 512];
            let (got, from) = server.recv_from(&mut asked).await.unwrap();
            let mut forged = reply(&asked[..got], 0, Some([6, 6, 6, 6]));
            forged[0] ^= 1;
            server.send_to(&forged, from).await.unwrap();
            server.send_to(b"noise", from).await.unwrap();
            let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            stranger.send_to(&reply(&asked[..got], 0, Some([6, 6, 6, 6])), from).await.unwrap();
            server.send_to(&reply(&asked[..got], 0, Some([10, 0, 0, 5])), from).await.unwrap();
        };
        tokio::join!(lookout.look(), serve).0.unwrap();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn nothing_is_a_reason_or_well_as_asked() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap().to_string();
        let seen = async |rcode: u8, on_empty: &str| {
            let lookout = ready(json!({ "name": "shop.example", "server": address, "onEmpty": on_empty })).unwrap();
            let serve = async {
                let mut asked = [0; 512];
                let (got, from) = server.recv_from(&mut asked).await.unwrap();
                server.send_to(&reply(&asked[..got], rcode, None), from).await.unwrap();
            };
            tokio::join!(lookout.look(), serve).0
        };
        assert_eq!(seen(0, "fail").await.unwrap_err(), "no A record: shop.example has none");
        assert_eq!(seen(3, "fail").await.unwrap_err(), "no such name (NXDOMAIN): shop.example");
        assert_eq!(seen(5, "ok").await.unwrap_err(), "the name server answers REFUSED");
        let values = seen(0, "ok").await.unwrap();
        assert_eq!(values.get("count"), Some(&0.0.into()));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_does_not_fit_is_asked_over_tcp() {
        let over_tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = over_tcp.local_addr().unwrap();
        let server = UdpSocket::bind(address).await.unwrap();
        let lookout = ready(json!({ "name": "shop.example", "server": address.to_string() })).unwrap();
        let serve = async {
            let mut asked = [0; 512];
            let (got, from) = server.recv_from(&mut asked).await.unwrap();
            let mut cut = reply(&asked[..got], 0, None);
            cut[2] |= 2;
            server.send_to(&cut, from).await.unwrap();
            let (mut stream, _) = over_tcp.accept().await.unwrap();
            let length = stream.read_u16().await.unwrap();
            let mut asked = vec![0; usize::from(length)];
            stream.read_exact(&mut asked).await.unwrap();
            let whole = reply(&asked, 0, Some([10, 0, 0, 5]));
            stream.write_u16(u16::try_from(whole.len()).unwrap()).await.unwrap();
            stream.write_all(&whole).await.unwrap();
        };
        let values = tokio::join!(lookout.look(), serve).0.unwrap();
        assert_eq!(values.get("answers"), Some(&"10.0.0.5".to_owned().into()));
    }

    #[test]
    fn the_hosts_first_server_is_asked_when_none_is_named() {
        let text = "# nameserver 1.1.1.1\nsearch x\nnameserver\t10.0.0.2\nnameserver ::1\n";
        assert_eq!(first_of(text), Some(([10, 0, 0, 2], PORT).into()));
        assert_eq!(first_of("nameserver fe80::1%eth0\n"), None);
        assert!(ready(json!({ "name": "a..b" })).err().unwrap().why.contains("no name"));
    }
}
