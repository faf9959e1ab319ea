//! Archives that are cut short, changed, of another kind or hostile.

use std::{collections::BTreeMap, io::Cursor};

use super::*;

fn manifest() -> Manifest {
    Manifest {
        format: FORMAT.to_owned(),
        program: "1".to_owned(),
        made_wall_ns: 1_795_000_000_000_000_000,
        epoch: 3,
        audit: "audit/c".to_owned(),
        audit_seq: 7,
        audit_hash: "00".repeat(32),
        with_keys: true,
        files: Vec::new(),
    }
}

fn packed(name: &'static str, bytes: &[u8]) -> Packed {
    Packed::new(name, Box::new(Cursor::new(bytes.to_vec()))).unwrap()
}

fn archive(files: Vec<Packed>) -> Vec<u8> {
    let mut to = Vec::new();
    write(&mut to, manifest(), files).unwrap();
    to
}

/// A tar file of these members.
fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        archive.append_data(&mut header, name, *bytes).unwrap();
    }
    archive.into_inner().unwrap()
}

#[derive(Clone, Default)]
struct Kept(std::sync::Arc<std::sync::Mutex<BTreeMap<&'static str, Vec<u8>>>>);

struct Into(Kept, &'static str);

impl Write for Into {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.0.lock().unwrap().entry(self.1).or_default().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn unpacked(bytes: &[u8]) -> Result<(Manifest, BTreeMap<&'static str, Vec<u8>>), String> {
    let kept = Kept::default();
    let read = read(bytes, |_, known| Ok(Into(kept.clone(), known.name)));
    let files = kept.0.lock().unwrap().clone();
    read.map(|manifest| (manifest, files)).map_err(|e| e.to_string())
}

#[test]
fn what_goes_in_comes_out() {
    let big: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
    let files = || vec![packed(STORE_FILE, &big), packed("audit.pub", b"abc"), packed("observer/key.pem", b"key")];
    let bytes = archive(files());
    let (read, kept) = unpacked(&bytes).unwrap();
    assert_eq!((read.epoch, read.files.len(), read.files[0].bytes), (3, 3, 200_000));
    assert_eq!(kept[STORE_FILE], big);
    assert_eq!((&kept["audit.pub"][..], &kept["observer/key.pem"][..]), (&b"abc"[..], &b"key"[..]));
    assert_eq!(archive(files()), bytes, "the same files make the same archive");
}

#[test]
fn every_cut_and_every_changed_byte_is_found() {
    let bytes = archive(vec![packed(STORE_FILE, b"the history"), packed("audit.pub", b"abc")]);
    let ends = bytes.len() - 1024;
    for length in (0..ends).step_by(97) {
        let why = unpacked(&bytes[..length]).expect_err("it is cut short");
        assert!(why.starts_with("it is damaged") || why.starts_with("it is not a backup"), "{length}: {why}");
    }
    for place in [b"the history".as_slice(), b"abc", b"\"sha256\"", b"history.sqlite\0"] {
        let mut changed = bytes.clone();
        let at = changed.windows(place.len()).rposition(|window| window == place).unwrap();
        changed[at] ^= 1;
        assert!(unpacked(&changed).is_err(), "{}", String::from_utf8_lossy(place));
    }
}

#[test]
fn other_kinds_and_later_formats_are_told_apart() {
    let said = |members: &[(&str, &[u8])]| unpacked(&tar(members)).unwrap_err();
    assert!(said(&[("README", b"hello")]).contains("does not begin with manifest.json"));
    assert!(said(&[("manifest.json", b"{}")]).contains("names no format"));
    assert!(said(&[("manifest.json", b"{")]).starts_with("it is damaged"));
    let later = said(&[("manifest.json", br#"{"format":"fracas.backup/v2","magic":1}"#)]);
    assert!(later.contains("fracas.backup/v2") && later.contains("with the program that made it"), "{later}");
    assert!(unpacked(b"").unwrap_err().contains("it is empty"));
    assert!(unpacked(&[7; 4096]).unwrap_err().starts_with("it is not a backup"));
}

#[test]
fn no_archive_decides_where_anything_is_written() {
    let member = |name: &str, bytes: &[u8]| {
        let (n, sha256) = copy(&mut &bytes[..], &mut io::sink()).unwrap();
        Member { name: name.to_owned(), bytes: n, sha256 }
    };
    let with = |files: Vec<Member>| serde_json::to_vec(&Manifest { files, ..manifest() }).unwrap();
    let refused = |members: &[(&str, &[u8])]| unpacked(&tar(members)).unwrap_err();
    for strange in ["etc/passwd", "lock", "admin.yaml", &"x".repeat(90)] {
        let text = with(vec![member(strange, b"x")]);
        let why = refused(&[("manifest.json", &text), (strange, b"x")]);
        assert!(why.contains("it has no place in a backup") && why.len() < 200, "{why}");
    }
    let twice = with(vec![member("audit.pub", b"x"), member("audit.pub", b"x")]);
    assert!(refused(&[("manifest.json", &twice), ("audit.pub", b"x"), ("audit.pub", b"x")]).contains("no place"));
    let one = with(vec![member("audit.pub", b"x")]);
    assert!(refused(&[("manifest.json", &one), ("audit.pub", b"x"), ("ca.pem", b"x")]).contains("more in it"));
    assert!(refused(&[("manifest.json", &one), ("ca.pem", b"x")]).contains("not what the manifest says"));
    assert!(refused(&[("manifest.json", &one)]).contains("audit.pub: it is missing"));
    // A link under a good name.
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(one.len() as u64);
    archive.append_data(&mut header, "manifest.json", &one[..]).unwrap();
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    archive.append_link(&mut link, "audit.pub", "/etc/passwd").unwrap();
    let why = unpacked(&archive.into_inner().unwrap()).unwrap_err();
    assert!(why.contains("not what the manifest says"), "{why}");
}

#[test]
fn a_disk_that_is_full_is_not_taken_for_damage() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let bytes = archive(vec![packed("audit.pub", b"abc")]);
    let error = read(&bytes[..], |_, _| Ok(Full)).unwrap_err();
    assert!(matches!(error, ArchiveError::Write { name: "audit.pub", .. }), "{error}");
}
