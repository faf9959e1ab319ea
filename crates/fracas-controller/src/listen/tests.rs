//! Real handshakes over loopback: with a certificate, without, with a wrong one, too many, too slow.

use std::net::Ipv4Addr;

use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_stream::StreamExt;

use super::*;
use crate::{datadir::DataDir, identity::SERVER_NAME};

const NOW_NS: fn() -> i64 = || {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
};
const HOST: &str = "0b9e4c1e-55d4-4b53-9f30-5e1c63b4b0aa";

struct Rig {
    _folder: tempfile::TempDir,
    identity: Identity,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(&folder.path().join("d")).unwrap();
        let identity = Identity::open(&dir, &[], NOW_NS()).unwrap();
        Self { _folder: folder, identity }
    }

    /// A host's key and the certificate this rig's authority gives it.
    fn host(&self) -> (KeyPair, String) {
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        let signed = self
            .identity
            .sign_csr(&csr, &HOST.into(), "web-1", fracas_model::units::Dur::from_secs(30 * 86_400), NOW_NS())
            .unwrap();
        (key, signed.pem)
    }

    fn client(&self, host: Option<(KeyPair, String)>) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.identity.ca_der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(crate::identity::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match host {
            None => config.with_no_client_auth(),
            Some((key, pem)) => {
                let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
                config.with_client_auth_cert(chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap()).unwrap()
            }
        };
        TlsConnector::from(Arc::new(config))
    }
}

async fn fleet(rig: &Rig, limits: Limits) -> (SocketAddr, impl Stream<Item = io::Result<Conn>> + Send + Unpin + use<>) {
    fleet_counted(rig, limits, &DoorMeters::default()).await
}

async fn fleet_counted(
    rig: &Rig,
    limits: Limits,
    meters: &DoorMeters,
) -> (SocketAddr, impl Stream<Item = io::Result<Conn>> + Send + Unpin + use<>) {
    let listener = bind((Ipv4Addr::LOCALHOST, 0).into(), "the fleet", "--fleet-listen").await.unwrap();
    (listener.local_addr().unwrap(), accept(listener, fleet_tls(&rig.identity).unwrap(), limits, meters.clone()))
}

async fn connect(connector: &TlsConnector, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
    connector.connect(ServerName::try_from(SERVER_NAME).unwrap(), TcpStream::connect(address).await?).await
}

const ROOMY: Limits = Limits { known: 8, strangers: 8, per_address: 8, patience: Duration::from_mins(1) };

#[tokio::test]
async fn a_host_is_known_by_its_certificate_and_a_stranger_is_nobody() {
    let rig = Rig::new();
    let (address, mut incoming) = fleet(&rig, ROOMY).await;
    let (key, pem) = rig.host();
    let serial = peer_serial(&CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    for (host, expected) in [(Some((key, pem)), Some((HOST.into(), serial))), (None, None)] {
        let mut client = connect(&rig.client(host), address).await.unwrap();
        let mut conn = incoming.next().await.unwrap().unwrap();
        let peer = conn.connect_info();
        assert_eq!(peer.host.zip(peer.serial), expected);
        assert_eq!(peer.address, Some(client.get_ref().0.local_addr().unwrap()));
        client.write_all(b"ping").await.unwrap();
        let mut word = [0; 4];
        conn.read_exact(&mut word).await.unwrap();
        conn.write_all(&word).await.unwrap();
        conn.flush().await.unwrap();
        client.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"ping");
    }
}

#[tokio::test]
async fn a_certificate_of_another_authority_ends_the_handshake() {
    let (rig, other) = (Rig::new(), Rig::new());
    let (address, mut incoming) = fleet(&rig, ROOMY).await;
    let mut foreign = connect(&rig.client(Some(other.host())), address).await.unwrap();
    // With TLS 1.3 a client hears of it at its first read.
    assert!(foreign.read_u8().await.is_err());
    connect(&rig.client(None), address).await.unwrap();
    assert_eq!(incoming.next().await.unwrap().unwrap().peer().host, None, "only the stranger came through");
}

#[tokio::test]
async fn strangers_cannot_take_the_hosts_places() {
    let rig = Rig::new();
    let (address, mut incoming) = fleet(&rig, Limits { known: 1, strangers: 1, ..ROOMY }).await;
    let stranger = rig.client(None);
    let _first = connect(&stranger, address).await.unwrap();
    let held = incoming.next().await.unwrap().unwrap();
    let mut second = connect(&stranger, address).await.unwrap();
    assert!(second.read_u8().await.is_err(), "the second stranger is let go");
    let _host = connect(&rig.client(Some(rig.host())), address).await.unwrap();
    assert!(incoming.next().await.unwrap().unwrap().peer().host.is_some());
    drop(held);
    let _third = connect(&stranger, address).await.unwrap();
    assert_eq!(incoming.next().await.unwrap().unwrap().peer().host, None, "a place was free again");
}

#[tokio::test]
async fn a_host_that_is_none_any_more_has_a_strangers_place_for_a_strangers_time() {
    let rig = Rig::new();
    let listener = bind((Ipv4Addr::LOCALHOST, 0).into(), "the fleet", "--fleet-listen").await.unwrap();
    let (address, tls) = (listener.local_addr().unwrap(), fleet_tls(&rig.identity).unwrap());
    let limits = Limits { known: 0, strangers: 1, patience: Duration::from_millis(300), ..ROOMY };
    let mut incoming = accept_hosts(listener, tls, limits, DoorMeters::default(), |host| host.as_str() != HOST);
    let _revoked = connect(&rig.client(Some(rig.host())), address).await.unwrap();
    let mut conn = incoming.next().await.unwrap().unwrap();
    assert_eq!(conn.peer().host, Some(HOST.into()), "so that it can be told why");
    let let_go = tokio::time::timeout(Duration::from_secs(20), conn.read_u8()).await.expect("not for ever");
    assert_eq!(let_go.unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn who_proves_who_he_is_keeps_no_place_of_strangers_and_stays() {
    let rig = Rig::new();
    let patience = Duration::from_millis(300);
    let (address, mut incoming) = fleet(&rig, Limits { known: 1, strangers: 1, per_address: 1, patience }).await;
    let stranger = rig.client(None);
    let mut operator = connect(&stranger, address).await.unwrap();
    let mut proved = incoming.next().await.unwrap().unwrap();
    assert!(connect(&stranger, address).await.is_err(), "one of an address at a time");
    assert!(proved.peer().pass.prove() && proved.peer().pass.prove());
    let mut silent = connect(&stranger, address).await.unwrap();
    let mut held = incoming.next().await.unwrap().unwrap();
    assert!(!held.peer().pass.prove(), "all places are taken");
    let ended = held.read_u8().await.unwrap_err();
    assert_eq!(ended.kind(), io::ErrorKind::TimedOut, "a stranger does not stay");
    drop(held);
    assert!(silent.read_u8().await.is_err());
    // By now that of the first one would have been over, too.
    operator.write_all(b"!").await.unwrap();
    assert_eq!(proved.read_u8().await.unwrap(), b'!', "whoever proved himself does");
    drop(proved);
    let _next = connect(&stranger, address).await.unwrap();
    assert!(incoming.next().await.unwrap().unwrap().peer().pass.prove(), "and leaves his place");
}

#[test]
fn an_address_is_one_stranger_whatever_it_calls_itself() {
    let sources = Arc::new(Sources::default());
    let admit = |text: &str| sources.admit(text.parse().unwrap(), 1);
    let first = admit("10.0.0.1:1").unwrap();
    assert!(admit("10.0.0.1:2").is_none() && admit("[::ffff:10.0.0.1]:3").is_none());
    let _other = admit("10.0.0.2:1").unwrap();
    let _six = admit("[2001:db8::1]:1").unwrap();
    assert!(admit("[2001:db8::2]:1").is_none());
    let _net = admit("[2001:db8:0:1::1]:1").unwrap();
    drop(first);
    assert!(admit("10.0.0.1:4").is_some());
    assert_eq!(sources.0.lock().unwrap().len(), 3, "nothing is kept of who has left");
}

#[tokio::test]
async fn connections_are_counted_whatever_becomes_of_them() {
    let (rig, other, meters) = (Rig::new(), Rig::new(), DoorMeters::default());
    let patience = Duration::from_millis(300);
    let limits = Limits { known: 1, strangers: 1, per_address: 2, patience };
    let (address, mut incoming) = fleet_counted(&rig, limits, &meters).await;
    let stranger = rig.client(None);
    let refused = |why: &str| meters.refusals().find(|(reason, _)| *reason == why).map(|(_, many)| many);
    let _first = connect(&stranger, address).await.unwrap();
    let mut held = incoming.next().await.unwrap().unwrap();
    assert_eq!(meters.counted(), (1, 1));
    // No place for a second stranger, and a certificate of another authority.
    assert!(connect(&stranger, address).await.unwrap().read_u8().await.is_err());
    assert!(connect(&rig.client(Some(other.host())), address).await.unwrap().read_u8().await.is_err());
    assert_eq!((refused("full"), refused("handshake")), (Some(1), Some(1)));
    // While one of the address is a stranger and one silent, a third is too many.
    let _silent = TcpStream::connect(address).await.unwrap();
    while meters.counted().1 < 4 {
        tokio::task::yield_now().await;
    }
    assert!(connect(&stranger, address).await.is_err());
    assert_eq!(refused("address"), Some(1));
    assert_eq!(held.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert_eq!((refused("stranger"), meters.counted()), (Some(1), (1, 5)));
    drop(held);
    assert_eq!((meters.counted().0, meters.is_stuck()), (0, false));
}

#[tokio::test]
async fn plain_text_does_not_disturb() {
    let rig = Rig::new();
    let (address, mut incoming) = fleet(&rig, ROOMY).await;
    let mut rude = TcpStream::connect(address).await.unwrap();
    rude.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let _silent = TcpStream::connect(address).await.unwrap();
    let _good = connect(&rig.client(None), address).await.unwrap();
    incoming.next().await.unwrap().unwrap();
}

#[tokio::test]
async fn dropping_the_stream_frees_the_port() {
    let rig = Rig::new();
    let (address, incoming) = fleet(&rig, ROOMY).await;
    let taken = bind(address, "the fleet", "--fleet-listen").await.unwrap_err().to_string();
    assert_eq!(
        taken,
        format!(
            "cannot listen on {address} for the fleet: another program uses that port; choose another with --fleet-listen"
        )
    );
    drop(incoming);
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    bind(address, "the fleet", "--fleet-listen").await.unwrap();
}

#[tokio::test]
async fn the_front_serves_http_by_both_names() {
    let rig = Rig::new();
    let listener = bind((Ipv4Addr::LOCALHOST, 0).into(), "the front", "--front-listen").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut incoming = accept(listener, front_tls(&rig.identity).unwrap(), ROOMY, DoorMeters::default());
    for name in ["localhost", "127.0.0.1", SERVER_NAME] {
        let name = ServerName::try_from(name).unwrap();
        let socket = TcpStream::connect(address).await.unwrap();
        let _stream = rig.client(Some(rig.host())).connect(name, socket).await.unwrap();
        assert_eq!(incoming.next().await.unwrap().unwrap().peer().host, None, "the front asks for no certificate");
    }
}
