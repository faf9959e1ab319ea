//! The client against servers that answer as MySQL does, and as nobody should.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::*;

const SALT: &[u8; 20] = b"abcdefghijklmnopqrst";

fn message(sequence: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_le_bytes();
    [&length[..3], &[sequence], body].concat()
}

fn greeting(plugin: &str) -> Vec<u8> {
    let parts: [&[u8]; 7] = [b"\x0a8.4.1\0", &[1, 0, 0, 0], &SALT[..8], &[0; 19], &SALT[8..], &[0], plugin.as_bytes()];
    message(0, &[parts.concat(), vec![0]].concat())
}

fn client(answers: &[&[u8]]) -> impl Future<Output = (Client<DuplexStream>, DuplexStream)> {
    let all = answers.concat();
    async move {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        theirs.write_all(&all).await.unwrap();
        theirs.shutdown().await.unwrap();
        (Client::over(ours), theirs)
    }
}

async fn login(answers: &[&[u8]], password: &str) -> Result<String, String> {
    let (mut client, _server) = client(answers).await;
    client.authenticate(Login { user: "me", database: Some("shop"), password }).await
}

#[tokio::test(flavor = "current_thread")]
async fn a_session_opens_as_the_server_wants() {
    let ok = |sequence| message(sequence, &[OK, 0, 0]);
    assert_eq!(login(&[&greeting(NATIVE), &ok(2)], "p").await.unwrap(), "8.4.1");
    login(&[&greeting(CACHING), &message(2, &[MORE, 3]), &ok(3)], "p").await.unwrap();
    let denied = message(4, b"\xff\x15\x04#28000Access denied");
    let (mut refused, mut server) = client(&[&greeting(CACHING), &message(2, &[MORE, 4]), &denied]).await;
    let full = refused.authenticate(Login { user: "me", database: None, password: "p" }).await.unwrap_err();
    assert!(full.contains("tls: true"), "{full}");
    refused.quit().await;
    let mut sent = Vec::new();
    server.read_to_end(&mut sent).await.unwrap();
    assert!(sent.ends_with(b"\x01\0\0\x03\x01\x01\0\0\0\x01"), "something wrong, and then the end: {sent:?}");
    let switch = |to: &str| message(2, &[&[SWITCH], to.as_bytes(), b"\0", &SALT[..], b"\0"].concat());
    login(&[&greeting("sha256_password"), &switch(CACHING), &message(4, &[MORE, 3]), &ok(5)], "p").await.unwrap();
    let other = login(&[&greeting(NATIVE), &switch("dialog")], "p").await.unwrap_err();
    assert_eq!(other, "the server wants dialog, which is not built");
    for (answers, why) in [
        (vec![message(0, b"\xff\x10\x04Too many connections")], "MySQL says: Too many connections (1040)"),
        (vec![greeting(NATIVE), message(2, b"\xff\x15\x04#28000no")], "MySQL says: no (1045)"),
        (vec![greeting(NATIVE), message(2, &[SWITCH])], "the server wants a password of before MySQL 4.1"),
        (vec![message(0, b"\x0a8.4.1\0")], STRANGE),
        (vec![b"HTTP/1.1 400".to_vec()], STRANGE),
        (vec![greeting(NATIVE), ok(7)], STRANGE),
        (vec![vec![255, 255, 255, 0]], "an answer of over 262144 bytes"),
        (vec![], "connection closed early"),
    ] {
        let answers: Vec<&[u8]> = answers.iter().map(Vec::as_slice).collect();
        assert_eq!(login(&answers, "p").await.unwrap_err(), why);
    }
}

#[tokio::test(flavor = "current_thread")]
async fn rows_are_read_and_errors_told() {
    let asked = async |answers: &[&[u8]]| {
        let (mut client, mut server) = client(answers).await;
        let seen = client.query("select 1").await;
        drop(client);
        let mut sent = Vec::new();
        server.read_to_end(&mut sent).await.unwrap();
        assert_eq!(sent, b"\x09\0\0\0\x03select 1");
        seen
    };
    let end = |sequence| message(sequence, &[SWITCH, 0, 0, 2, 0]);
    let head = [message(1, &[2]), message(2, b"def"), message(3, b"def"), end(4)].concat();
    let rows = asked(&[&head, &message(5, b"\x011\xfb"), &message(6, b"\x012\xfb"), &end(7)]).await.unwrap();
    assert_eq!(rows, Rows { count: 2, first: Some(vec![Some("1".to_owned()), None]) });
    assert_eq!(asked(&[&message(1, &[OK, 0, 0])]).await.unwrap(), Rows::default());
    let why = asked(&[&message(1, b"\xff\x28\x04#42000syntax")]).await.unwrap_err();
    assert_eq!(why, "MySQL says: syntax (1064)");
    for cut in [&b""[..], b"\x01", b"\x051", b"\xfd\xff", b"\xfc\xff\xff1"] {
        assert_eq!(asked(&[&head, &message(5, cut), &end(6)]).await.unwrap_err(), STRANGE);
    }
    // A file of the client's, which is not given, and columns without number.
    assert_eq!(asked(&[&message(1, b"\xfb/etc/passwd")]).await.unwrap_err(), STRANGE);
    let many = asked(&[&message(1, &[0xfe, 255, 255, 255, 255, 255, 255, 255, 127])]).await.unwrap_err();
    assert_eq!(many, "connection closed early");
}

#[test]
fn a_proof_fits_what_the_server_keeps() {
    // The server keeps SHA1(SHA1(password)), undoes the mask with it, and hashes what comes out.
    let native = proof(NATIVE, "secret", SALT).unwrap();
    let kept = digest(&SHA1, digest(&SHA1, b"secret").as_ref());
    let mask = digest(&SHA1, &[&SALT[..], kept.as_ref()].concat());
    let undone: Vec<u8> = native.iter().zip(mask.as_ref()).map(|(a, b)| a ^ b).collect();
    assert_eq!(digest(&SHA1, &undone).as_ref(), kept.as_ref());
    assert_eq!((proof(CACHING, "secret", SALT).unwrap().len(), proof(CACHING, "", SALT).unwrap().len()), (32, 0));
}
