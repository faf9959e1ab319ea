//! First start, second start, renewal, signing, and files that were tampered with.

use std::{fs, os::unix::fs::PermissionsExt};

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use x509_parser::parse_x509_certificate;

use super::*;

const DAY: i64 = 86_400_000_000_000;
const NOW: i64 = 1_795_000_000_000_000_000;
const MONTH: Dur = Dur::from_ns(30 * DAY);
const HOST: &str = "0b9e4c1e-55d4-4b53-9f30-5e1c63b4b0aa";

fn dir() -> (tempfile::TempDir, DataDir) {
    let folder = tempfile::tempdir().unwrap();
    let dir = DataDir::open(&folder.path().join("d")).unwrap();
    (folder, dir)
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

fn csr() -> String {
    let mut params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[test]
fn the_first_start_makes_everything_and_the_second_keeps_it() {
    let (_folder, dir) = dir();
    let first = Identity::open(&dir, &[], NOW).unwrap();
    let mode = |name: &str| fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777;
    for name in ["ca.key", "server.key", "audit.key", "admin.token", "admin.digest"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    let token = fs::read_to_string(dir.join("admin.token")).unwrap();
    assert!(first.is_admin(&token) && !first.is_admin("fat1.") && !first.is_admin(&format!("{token}0")));
    let second = Identity::open(&dir, &[], NOW + DAY).unwrap();
    assert_eq!(second.ca_pem(), first.ca_pem());
    assert_eq!(second.server().leaf(), first.server().leaf());
    assert_eq!(second.audit_public(), first.audit_public());
    assert!(second.is_admin(&token));
    let (_, ca) = parse_x509_certificate(first.ca_der()).unwrap();
    assert_eq!(ca.basic_constraints().unwrap().unwrap().value.path_len_constraint, Some(0));
}

#[test]
fn the_server_certificate_is_renewed_when_due_or_when_names_change() {
    let (_folder, dir) = dir();
    let identity = Identity::open(&dir, &[], NOW).unwrap();
    let leaf = identity.server().leaf();
    assert!(!identity.renew(&dir, NOW + 44 * DAY).unwrap());
    assert!(identity.renew(&dir, NOW + 46 * DAY).unwrap());
    assert_ne!(identity.server().leaf(), leaf);
    let leaf = identity.server().leaf();
    let named = Identity::open(&dir, &names(&["fracas.example.com", "2001:DB8::0:1"]), NOW + 47 * DAY).unwrap();
    assert_ne!(named.server().leaf(), leaf);
    let again = Identity::open(&dir, &names(&["2001:db8::1", "fracas.example.com"]), NOW + 47 * DAY).unwrap();
    assert_eq!(again.server().leaf(), named.server().leaf());
    let wrong = Identity::open(&dir, &names(&["not a name"]), NOW).err().unwrap().to_string();
    assert!(wrong.contains("`not a name` is neither"), "{wrong}");
}

#[test]
fn a_broken_server_certificate_is_replaced() {
    let (_folder, dir) = dir();
    let leaf = Identity::open(&dir, &[], NOW).unwrap().server().leaf();
    let another = KeyPair::generate().unwrap().serialize_pem();
    for (name, text) in [("server.key", another.as_str()), ("server.pem", "garbage"), ("server.key", "")] {
        dir.write(name, text.as_bytes(), Access::Private).unwrap();
        assert_ne!(Identity::open(&dir, &[], NOW).unwrap().server().leaf(), leaf, "{name}");
    }
}

#[test]
fn an_authority_that_does_not_fit_is_refused_and_an_interrupted_start_goes_on() {
    let (_folder, dir) = dir();
    let first = Identity::open(&dir, &[], NOW).unwrap();
    let late = Identity::open(&dir, &[], NOW + 3651 * DAY).err().unwrap().to_string();
    assert!(late.contains("expired"), "{late}");
    let key = fs::read(dir.join("ca.key")).unwrap();
    fs::remove_file(dir.join("ca.key")).unwrap();
    let gone = Identity::open(&dir, &[], NOW).err().unwrap().to_string();
    assert!(gone.contains("ca.key cannot be used (it is gone") && gone.contains("backup"), "{gone}");
    dir.write("ca.key", KeyPair::generate().unwrap().serialize_pem().as_bytes(), Access::Private).unwrap();
    let other = Identity::open(&dir, &[], NOW).err().unwrap().to_string();
    assert!(other.contains("does not belong to ca.key"), "{other}");
    dir.write("ca.key", &key, Access::Public).unwrap();
    let open = Identity::open(&dir, &[], NOW).err().unwrap().to_string();
    assert!(open.contains("chmod 600"), "{open}");
    dir.write("ca.key", &key, Access::Private).unwrap();
    fs::remove_file(dir.join("ca.pem")).unwrap();
    let resumed = Identity::open(&dir, &[], NOW).unwrap();
    assert_ne!(resumed.ca_pem(), first.ca_pem());
    assert_ne!(resumed.server().leaf(), first.server().leaf(), "signed by the certificate that hosts will be given");
}

#[test]
fn a_host_certificate_says_what_we_say_and_not_what_was_asked() {
    let (_folder, dir) = dir();
    let identity = Identity::open(&dir, &[], NOW).unwrap();
    let signed = identity.sign_csr(&csr(), &HOST.into(), "web-1", MONTH, NOW).unwrap();
    let der = der(&signed.pem);
    assert_eq!(peer_host(&der), Some(HOST.into()));
    assert_eq!(peer_serial(&der), Some(signed.serial.clone()));
    let (_, cert) = parse_x509_certificate(&der).unwrap();
    assert!(!cert.is_ca());
    assert_eq!(cert.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 1);
    let uses = cert.extended_key_usage().unwrap().unwrap().value;
    assert!(uses.client_auth && !uses.server_auth && !uses.any);
    let validity = cert.validity();
    let seconds = NOW / 1_000_000_000;
    assert_eq!(validity.not_after.timestamp(), seconds + 30 * 86_400);
    assert_eq!(validity.not_before.timestamp(), seconds - 3600);
    assert_eq!(cert.subject().iter_common_name().next().unwrap().as_str(), Ok("web-1"));
    assert_eq!(peer_validity(&der), Some(signed.validity));
    let late = identity.sign_csr(&csr(), &HOST.into(), "web-1", MONTH, NOW + 3649 * DAY).unwrap();
    assert_eq!(Some(late.validity.until_s), holds_until(identity.ca_der()), "none outlives its authority");
    let again = identity.sign_csr(&csr(), &HOST.into(), "web\n1", MONTH, NOW).unwrap();
    assert_ne!(again.serial, signed.serial);
    assert_eq!(peer_host(&identity.server().leaf()), None);
}

#[test]
fn hostile_signing_requests_are_refused() {
    let (_folder, dir) = dir();
    let identity = Identity::open(&dir, &[], NOW).unwrap();
    let csr = csr();
    let turned = {
        // One character of the signature, in the last line of the body.
        let mut lines: Vec<String> = csr.lines().map(str::to_owned).collect();
        let at = lines.len() - 2;
        let flipped = if lines[at].starts_with('A') { "B" } else { "A" };
        lines[at].replace_range(0..1, flipped);
        lines.join("\n")
    };
    for bad in ["", "garbage", &turned, &"A".repeat(20_000), identity.ca_pem()] {
        let refused = identity.sign_csr(bad, &HOST.into(), "h", MONTH, NOW);
        assert!(matches!(refused, Err(IdentityError::Request(_))), "{bad}");
    }
    assert!(identity.sign_csr(&csr, &"not-a-uuid".into(), "h", MONTH, NOW).is_err());
}

#[test]
fn heads_are_signed_so_that_anybody_can_check() {
    let (_folder, dir) = dir();
    let identity = Identity::open(&dir, &[], NOW).unwrap();
    let signature = identity.sign_head(b"head");
    let public = chain::unhex(&fs::read_to_string(dir.join("audit.pub")).unwrap()).unwrap();
    assert!(verify_head(&public, b"head", &signature));
    assert!(!verify_head(&public, b"tail", &signature) && !verify_head(&[0; 32], b"head", &signature));
}

#[test]
fn the_admin_token_may_be_moved_away_or_replaced() {
    let (_folder, dir) = dir();
    Identity::open(&dir, &[], NOW).unwrap();
    let token = fs::read_to_string(dir.join("admin.token")).unwrap();
    fs::remove_file(dir.join("admin.token")).unwrap();
    assert!(Identity::open(&dir, &[], NOW).unwrap().is_admin(&token));
    let mine = format!("fat1.{}\n", "m".repeat(40));
    dir.write("admin.token", mine.as_bytes(), Access::Private).unwrap();
    let replaced = Identity::open(&dir, &[], NOW).unwrap();
    assert!(replaced.is_admin(mine.trim()) && !replaced.is_admin(&token));
    dir.write("admin.token", b"", Access::Private).unwrap();
    assert!(Identity::open(&dir, &[], NOW).err().unwrap().to_string().contains("fat1."));
}

#[test]
fn the_context_file_points_at_this_machine() {
    let (_folder, dir) = dir();
    let path = write_context(&dir, "0.0.0.0:7444".parse().unwrap()).unwrap();
    let text = fs::read_to_string(path).unwrap();
    let ca = dir.join("ca.pem");
    assert!(text.starts_with("apiVersion: fracas/v1\nkind: Context\ncontroller: \"127.0.0.1:7444\"\n"), "{text}");
    assert!(text.contains(&format!("ca: \"{}\"", ca.display())), "{text}");
}
