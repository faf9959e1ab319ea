//! Joining when the disk fills, answers are lost, and strangers try: one token, one host, and nothing in between.

use rcgen::{CertificateParams, KeyPair};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::*;
use crate::{
    clock::ManualClock,
    datadir::DataDir,
    identity::{peer_host, peer_serial, peer_validity},
    store::{Store, memory::MemoryStore},
};
use fracas_model::time::{ClockId, Stamp};

const AUDIT: &str = "audit/c";
const LIFE: Dur = Dur::from_secs(1000);

struct Rig {
    _folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
    store: MemoryStore,
    fleet: Fleet,
    gate: Enrolment,
}

async fn rig() -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let dir = DataDir::open(&folder.path().join("d")).unwrap();
    let wall_ns = 1_795_000_000_000_000_000;
    let clock = ClockId { host: "c".into(), boot: "b".into() };
    let clock = Arc::new(ManualClock::new(Stamp { clock, boot_ns: 0, wall_ns, bound_ns: -1 }));
    let identity = Arc::new(Identity::open(&dir, &[], wall_ns).unwrap());
    let store = MemoryStore::new();
    let history = History::open(Arc::new(store.clone()), clock.clone()).await.unwrap();
    let fleet = Fleet::new(history.epoch());
    let gate = Enrolment::new(history, fleet.clone(), AUDIT.to_owned(), identity, LIFE);
    Rig { _folder: folder, clock, store, fleet, gate }
}

impl Rig {
    async fn token(&self) -> String {
        self.gate.make_token(60, [("role".to_owned(), "db".to_owned())].into(), "admin").await.unwrap().text
    }
}

fn request(token: &str, key: &KeyPair) -> EnrolRequest {
    let csr = CertificateParams::default().serialize_request(key).unwrap().pem().unwrap();
    EnrolRequest { token: token.to_owned(), signing_request_pem: csr, hostname: "db-1".to_owned() }
}

#[tokio::test]
async fn a_full_disk_leaves_either_a_host_or_a_good_token() {
    let rig = rig().await;
    let (token, key) = (rig.token().await, KeyPair::generate().unwrap());
    let mut refusals = 0;
    for room in 0..4 {
        rig.store.set_room(Some(room));
        if let Err(status) = rig.gate.enrol(request(&token, &key)).await {
            assert_eq!(status.code(), tonic::Code::Unavailable, "it is worth trying again: {status}");
            refusals += 1;
        }
        assert_eq!(rig.fleet.hosts().len(), rig.store.streams("host/").await.unwrap().len());
    }
    assert_eq!(refusals, 1, "only without any room: there is nothing between no commit and the whole of it");
    let hosts = rig.fleet.hosts();
    assert_eq!(hosts.len(), 1);
    assert_eq!(hosts.values().next().unwrap().labels["role"], "db");
}

#[tokio::test]
async fn who_did_not_hear_the_answer_is_the_same_host_again() {
    let rig = rig().await;
    let (token, key) = (rig.token().await, KeyPair::generate().unwrap());
    let first = rig.gate.enrol(request(&token, &key)).await.unwrap();
    let second = rig.gate.enrol(request(&token, &key)).await.unwrap();
    assert_eq!(first.host_id, second.host_id);
    assert_ne!(first.certificate_pem, second.certificate_pem);
    assert_eq!(rig.fleet.hosts().len(), 1, "no ghost");
    let thief = rig.gate.enrol(request(&token, &KeyPair::generate().unwrap())).await.unwrap_err();
    assert_eq!(thief.message(), "join token is not valid (unknown, expired or used): have a new one made");
    assert_eq!(rig.store.streams("host/").await.unwrap().len(), 1);
}

#[tokio::test]
async fn one_token_lets_one_of_many_in() {
    let rig = rig().await;
    let token = rig.token().await;
    let keys: Vec<KeyPair> = (0..8).map(|_| KeyPair::generate().unwrap()).collect();
    let all = keys.iter().map(|key| rig.gate.enrol(request(&token, key)));
    let let_in = futures_util::future::join_all(all).await.into_iter().flatten().count();
    assert_eq!((let_in, rig.fleet.hosts().len()), (1, 1));
}

#[tokio::test]
async fn nothing_is_signed_for_who_has_no_good_token() {
    let rig = rig().await;
    let forged = JoinToken::random([0; 32]).text();
    let asked = EnrolRequest { token: forged, signing_request_pem: "no request at all".into(), hostname: "x".into() };
    let status = rig.gate.enrol(asked).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::PermissionDenied, "the request was not even looked at: {status}");
    // A good token is not lost by a bad request.
    let (token, key) = (rig.token().await, KeyPair::generate().unwrap());
    let bad = EnrolRequest { signing_request_pem: "nothing".into(), ..request(&token, &key) };
    assert_eq!(rig.gate.enrol(bad).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    rig.gate.enrol(request(&token, &key)).await.unwrap();
}

/// The connection that the holder of a certificate makes.
fn shows(pem: &str) -> Peer {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let (host, serial, validity) = (peer_host(&der), peer_serial(&der), peer_validity(&der));
    Peer { host, serial, validity, address: Some("10.0.0.9:1".parse().unwrap()), ..Peer::default() }
}

fn next_key() -> RenewCertificateRequest {
    let csr = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    RenewCertificateRequest { signing_request_pem: csr }
}

/// A host that has joined, and the certificate it got.
async fn joined(rig: &Rig) -> (HostId, String) {
    let reply = rig.gate.enrol(request(&rig.token().await, &KeyPair::generate().unwrap())).await.unwrap();
    (HostId::new(reply.host_id), reply.certificate_pem)
}

#[tokio::test]
async fn a_certificate_is_renewed_for_whom_it_names_and_for_nobody_else() {
    let rig = rig().await;
    let (host, first) = joined(&rig).await;
    let early = rig.gate.renew(shows(&first), next_key()).await.unwrap_err();
    assert!(early.message().contains("it is renewed at half its life"), "{early}");
    rig.clock.advance(Dur::from_secs(500));
    let next = rig.gate.renew(shows(&first), next_key()).await.unwrap().certificate_pem;
    let (old, new) = (shows(&first), shows(&next));
    assert_eq!((new.host.as_ref(), new.validity.unwrap().life()), (Some(&host), LIFE));
    assert_ne!(new.serial, old.serial);
    let told = rig.gate.history.read(&stream_of_host(&host), 0).await.unwrap();
    let Body::HostRenewed { serial, .. } = &told.last().unwrap().body else { panic!("{told:?}") };
    assert_eq!(Some(serial), new.serial.as_ref());
    // Its answer may be lost, so the former one still counts; but nobody gets them by the dozen.
    let soon = rig.gate.renew(shows(&first), next_key()).await.unwrap_err();
    assert_eq!(soon.code(), tonic::Code::ResourceExhausted, "{soon}");
    rig.clock.advance(Dur::from_secs(20));
    rig.gate.renew(shows(&first), next_key()).await.unwrap();
    for (peer, code) in [
        (Peer::default(), tonic::Code::Unauthenticated),
        (Peer { host: Some("somebody".into()), ..shows(&first) }, tonic::Code::PermissionDenied),
    ] {
        assert_eq!(rig.gate.renew(peer, next_key()).await.unwrap_err().code(), code);
    }
    rig.clock.advance(Dur::from_secs(481));
    let over = rig.gate.renew(shows(&first), next_key()).await.unwrap_err();
    assert!(over.code() == tonic::Code::Unauthenticated && over.message().contains("is over"), "{over}");
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_signed() {
    let rig = rig().await;
    let (host, first) = joined(&rig).await;
    rig.clock.advance(Dur::from_secs(500));
    rig.store.set_full(true);
    let full = rig.gate.renew(shows(&first), next_key()).await.unwrap_err();
    assert_eq!(full.code(), tonic::Code::Unavailable, "{full}");
    let bad = RenewCertificateRequest { signing_request_pem: "nothing".into() };
    rig.store.set_full(false);
    rig.clock.advance(Dur::from_secs(20));
    assert_eq!(rig.gate.renew(shows(&first), bad).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    assert_eq!(rig.gate.history.read(&stream_of_host(&host), 0).await.unwrap().len(), 1, "it was enrolled, no more");
}

#[tokio::test]
async fn whoever_shows_a_certificate_that_was_renewed_gets_nothing_and_is_told_of() {
    let rig = rig().await;
    let (host, first) = joined(&rig).await;
    rig.clock.advance(Dur::from_secs(500));
    let next = rig.gate.renew(shows(&first), next_key()).await.unwrap().certificate_pem;
    rig.fleet.certificate_used(&host, shows(&next).serial.as_deref().unwrap());
    for _ in 0..3 {
        let refused = rig.gate.renew(shows(&first), next_key()).await.unwrap_err();
        assert!(refused.message().contains("the next one was used since"), "{refused}");
    }
    let why = rig.fleet.hosts()[&host].duplicate.clone().unwrap();
    assert!(why.contains("was shown from 10.0.0.9:1; its agent is out of contact"), "{why}");
    let told = rig.gate.history.read(&stream_of_host(&host), 0).await.unwrap();
    assert_eq!(told.iter().filter(|event| matches!(event.body, Body::HostDuplicated { .. })).count(), 1, "once");
    // The later one does not spread either, as long as nobody knows whose it is.
    rig.clock.advance(Dur::from_secs(500));
    assert_eq!(rig.gate.renew(shows(&next), next_key()).await.unwrap_err().code(), tonic::Code::PermissionDenied);
    rig.fleet.trust(&host);
    rig.gate.renew(shows(&next), next_key()).await.unwrap();
}

#[tokio::test]
async fn a_revoked_host_gets_no_certificate_by_any_way() {
    let rig = rig().await;
    let (token, key) = (rig.token().await, KeyPair::generate().unwrap());
    let reply = rig.gate.enrol(request(&token, &key)).await.unwrap();
    let host = HostId::new(reply.host_id);
    rig.clock.advance(Dur::from_secs(500));
    rig.fleet.revoke(&host, "by admin, stolen");
    let refused = rig.gate.renew(shows(&reply.certificate_pem), next_key()).await.unwrap_err();
    assert!(refused.message().contains("is revoked: by admin, stolen; if it is to come back"), "{refused}");
    let again = rig.gate.enrol(request(&token, &key)).await.unwrap_err();
    assert_eq!(again.code(), tonic::Code::PermissionDenied, "{again}");
    let (other, _) = joined(&rig).await;
    assert_ne!(other, host);
}
