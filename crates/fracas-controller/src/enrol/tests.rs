//! Joining when the disk fills, answers are lost, and strangers try: one token, one host, and nothing in between.

use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::{
    clock::ManualClock,
    datadir::DataDir,
    store::{Store, memory::MemoryStore},
};
use fracas_model::time::{ClockId, Stamp};

const AUDIT: &str = "audit/c";

struct Rig {
    _folder: tempfile::TempDir,
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
    let history = History::open(Arc::new(store.clone()), clock).await.unwrap();
    let fleet = Fleet::new(history.epoch());
    let gate = Enrolment::new(history, fleet.clone(), AUDIT.to_owned(), identity, 30);
    Rig { _folder: folder, store, fleet, gate }
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
