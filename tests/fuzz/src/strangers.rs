//! What anybody may send who reaches a port: TLS to the real acceptors, HTTP/2 to the real services, certificates and
//! signing requests.

use std::sync::{Arc, OnceLock};

use fracas_controller::{
    controller::Controller,
    identity::{peer_host, peer_serial},
    listen::{Conn, Peer, fleet_tls, front_tls},
    store::memory::MemoryStore,
};
use fracas_model::id::HostId;
use rcgen::{CertificateParams, KeyPair};
use rustls::{RootCertStore, ServerConfig, pki_types::ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use crate::{
    Target,
    world::{self, HOSTS, NOW_NS, identity},
};

pub(crate) const TLS: Target = Target { name: "tls", take: tls, seeds: hellos };
pub(crate) const HTTP2: Target = Target { name: "http2", take: http2, seeds: frames };
pub(crate) const CERTIFICATE: Target = Target { name: "certificate", take: certificate, seeds: certificates };

/// The first byte says which listener.
fn tls(data: &[u8]) {
    static BOTH: OnceLock<[Arc<ServerConfig>; 2]> = OnceLock::new();
    let both = BOTH.get_or_init(|| [fleet_tls(identity()).expect("TLS"), front_tls(identity()).expect("TLS")]);
    let Some((which, data)) = data.split_first() else { return };
    let acceptor = TlsAcceptor::from(both[usize::from(which % 2)].clone());
    world::run(async {
        let (mut stranger, ours) = tokio::io::duplex(1 << 16);
        let says = async {
            // It hangs up when it is refused.
            let _ = stranger.write_all(data).await;
            let _ = stranger.shutdown().await;
            let mut heard = Vec::new();
            let _ = stranger.read_to_end(&mut heard).await;
            assert!(heard.len() < world::LONGEST);
        };
        let accepts = async {
            if let Ok(mut stream) = acceptor.accept(ours).await {
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        };
        tokio::join!(says, accepts);
    });
}

fn hellos() -> Vec<Vec<u8>> {
    let mut roots = RootCertStore::empty();
    roots.add(identity().ca_der().clone()).expect("our authority");
    let hello = |versions: &[&'static rustls::SupportedProtocolVersion], alpn: &[u8]| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        let name = ServerName::try_from("fracas-controller").expect("a name");
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("written");
        bytes
    };
    let (newest, both) = ([&rustls::version::TLS13], [&rustls::version::TLS13, &rustls::version::TLS12]);
    let hellos = [hello(&newest, b"h2"), hello(&both, b"http/1.1"), hello(&both[1..], b"h2")];
    let mut all: Vec<Vec<u8>> =
        hellos.iter().flat_map(|hello| [0, 1].map(|which| [&[which], &hello[..]].concat())).collect();
    all.push(b"\x01GET / HTTP/1.1\r\n\r\n".to_vec());
    all
}

/// The first byte says which service; the handshake is over, and the peer is a stranger.
fn http2(data: &[u8]) {
    let Some((which, data)) = data.split_first() else { return };
    world::run(async {
        let controller = world::controller(MemoryStore::new()).await;
        let (mut stranger, ours) = tokio::io::duplex(1 << 16);
        let incoming = tokio_stream::StreamExt::chain(
            tokio_stream::iter([Ok(Conn::plain(ours, Peer::default()))]),
            tokio_stream::pending(),
        );
        let says = async {
            if stranger.write_all(data).await.is_ok() {
                let _ = stranger.shutdown().await;
                let mut heard = Vec::new();
                let _ = stranger.read_to_end(&mut heard).await;
                assert!(heard.len() < world::LONGEST);
            }
        };
        let serves = serve(&controller, which % 2 == 0, incoming);
        tokio::select! {
            biased;
            () = says => {}
            () = serves => panic!("it serves no more"),
        }
    });
}

async fn serve(
    controller: &Controller,
    fleet: bool,
    incoming: impl tokio_stream::Stream<Item = std::io::Result<Conn>>,
) {
    let (gate, forever) = (world::gate(controller), std::future::pending());
    let served = if fleet {
        controller.serve_fleet(incoming, gate, forever).await
    } else {
        controller.serve_front(incoming, gate, identity().clone(), forever).await
    };
    served.expect("served");
}

fn frames() -> Vec<Vec<u8>> {
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let length = u32::try_from(payload.len()).expect("small").to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
    };
    // HPACK literals without indexing.
    let header = |name: &str, value: &str| {
        let text = |text: &str| [&[u8::try_from(text.len()).expect("small")], text.as_bytes()].concat();
        [&[0], &text(name)[..], &text(value)].concat()
    };
    let call = |path: &str| {
        let headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "c"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("authorization", "Bearer x"),
        ];
        headers.iter().flat_map(|(name, value)| header(name, value)).collect::<Vec<u8>>()
    };
    let begin = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[])].concat();
    let calls = [
        (0, "/fracas.v1.Fleet/Enrol"),
        (0, "/fracas.v1.Fleet/Session"),
        (1, "/fracas.v1.Operator/ListRuns"),
        (1, "/grpc.health.v1.Health/Check"),
        (1, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
    ];
    let asked = |(which, path): &(u8, &str)| {
        [&[*which], &begin[..], &frame(1, 4, 1, &call(path)), &frame(0, 1, 1, &[0, 0, 0, 0, 0])].concat()
    };
    let mut all: Vec<Vec<u8>> = calls.iter().map(asked).collect();
    let more = [
        frame(8, 0, 0, &[0, 0, 0, 9]),
        frame(6, 0, 0, &[0; 8]),
        frame(3, 0, 1, &[0, 0, 0, 8]),
        frame(7, 0, 0, &[0; 8]),
    ];
    all.push([&[1], &begin[..], &more.concat()].concat());
    all
}

/// The first byte says what it is: a certificate that a client showed, or a signing request.
fn certificate(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    if kind % 2 == 0 {
        let der = data.into();
        if let Some(host) = peer_host(&der) {
            assert!(peer_serial(&der).is_some());
            assert_eq!(host.as_str().len(), 36, "a host that is no UUID as they are written");
        }
    } else {
        let text = String::from_utf8_lossy(data);
        let Ok(signed) = identity().sign_csr(
            &text,
            &HostId::from(HOSTS[0]),
            "host",
            fracas_model::units::Dur::from_secs(30 * 86_400),
            NOW_NS,
        ) else {
            return;
        };
        let pem = rustls::pki_types::pem::PemObject::from_pem_slice(signed.pem.as_bytes()).expect("a certificate");
        assert_eq!(peer_host(&pem).as_ref().map(HostId::as_str), Some(HOSTS[0]), "only the key is the host's own");
    }
}

fn certificates() -> Vec<Vec<u8>> {
    let key = KeyPair::generate().expect("a key");
    let asked = CertificateParams::new(vec!["host.example.org".to_owned()]).expect("names").serialize_request(&key);
    let asked = asked.expect("a request").pem().expect("text");
    let signed = identity()
        .sign_csr(&asked, &HostId::from(HOSTS[0]), "host", fracas_model::units::Dur::from_secs(30 * 86_400), NOW_NS)
        .expect("signed");
    let der: rustls::pki_types::CertificateDer<'static> =
        rustls::pki_types::pem::PemObject::from_pem_slice(signed.pem.as_bytes()).expect("a certificate");
    vec![[&[0], &der[..]].concat(), [&[0], &identity().ca_der()[..]].concat(), [&[1], asked.as_bytes()].concat()]
}
