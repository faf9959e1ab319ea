//! The client against servers that answer as PostgreSQL does, and as nobody should.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::*;

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(body.len() + 4).unwrap();
    [&[kind], &length.to_be_bytes()[..], body].concat()
}

fn auth(code: i32, rest: &[u8]) -> Vec<u8> {
    message(b'R', &[&code.to_be_bytes()[..], rest].concat())
}

/// A client, and a server that has said all this and says no more.
async fn client(answers: &[&[u8]]) -> (Client<DuplexStream>, DuplexStream) {
    let (ours, mut theirs) = tokio::io::duplex(1 << 20);
    theirs.write_all(&answers.concat()).await.unwrap();
    theirs.shutdown().await.unwrap();
    (Client::over(ours), theirs)
}

async fn login(answers: &[&[u8]], password: Option<&str>) -> Result<(), String> {
    login_by(answers, password, By::Scram).await
}

async fn login_by(answers: &[&[u8]], password: Option<&str>, by: By) -> Result<(), String> {
    let (mut client, _server) = client(answers).await;
    client.authenticate(Login { user: "me", database: "shop", password, by }, "abc").await
}

async fn asked(answers: &[&[u8]]) -> Result<Rows, String> {
    let (mut client, _server) = client(answers).await;
    client.query("select 1", 1).await
}

#[tokio::test(flavor = "current_thread")]
async fn a_session_opens_as_the_server_wants() {
    let ready = [auth(0, b""), message(b'S', b"a\0b\0"), message(b'K', &[0; 8]), message(b'Z', b"I")].concat();
    login(&[&ready], None).await.unwrap();
    login_by(&[&auth(3, b""), &ready], Some("p"), By::Clear).await.unwrap();
    login_by(&[&auth(5, b"salt"), &ready], Some("p"), By::Md5).await.unwrap();
    // Whoever answers on that address could ask for it.
    for (wants, by) in [(auth(3, b""), By::Scram), (auth(5, b"salt"), By::Scram), (auth(3, b""), By::Md5)] {
        assert!(login_by(&[&wants, &ready], Some("p"), by).await.unwrap_err().contains("passwordBy"), "{by:?}");
    }
    let none = "the server wants a password, and none is given";
    for wants in [auth(3, b""), auth(5, b"salt"), auth(10, b"SCRAM-SHA-256\0\0")] {
        assert_eq!(login(&[&wants], None).await.unwrap_err(), none);
    }
    for (answer, why) in [
        (auth(7, b""), "the server wants an authentication that is not built"),
        (auth(10, b"SCRAM-SHA-512\0\0"), "the server wants an authentication that is not built"),
        (message(b'E', b"SFATAL\0C28P01\0Mno\0\0"), "PostgreSQL says: no (28P01)"),
        (message(b'R', b""), STRANGE),
        (b"HTTP/1.1 400 Bad Request\r\n".to_vec(), STRANGE),
        (vec![b'R', 0, 0, 0, 3], STRANGE),
        (vec![b'R', 255, 255, 255, 255], STRANGE),
        (vec![b'R', 127, 255, 255, 255], "an answer of over 262144 bytes"),
        (vec![b'R', 0, 0, 0, 8, 0], "connection closed early"),
        (vec![], "connection closed early"),
    ] {
        assert_eq!(login(&[&answer], Some("p")).await.unwrap_err(), why);
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_server_must_prove_that_it_knows_the_password() {
    let challenge = "r=abcdef,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    let (_, signature) = scram::second("abc", challenge, "pencil").unwrap();
    let talk = |last: String| {
        let ready = [auth(0, b""), message(b'Z', b"I")].concat();
        [
            auth(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"),
            auth(11, challenge.as_bytes()),
            auth(12, last.as_bytes()),
            ready,
        ]
        .concat()
    };
    login(&[&talk(format!("v={signature}"))], Some("pencil")).await.unwrap();
    let either = "the server does not know the password either";
    assert_eq!(login(&[&talk(format!("v={signature}"))], Some("pencils")).await.unwrap_err(), either);
    assert_eq!(login(&[&talk(String::new())], Some("pencil")).await.unwrap_err(), either);
    let skips = [auth(10, b"SCRAM-SHA-256\0\0"), auth(0, b"")].concat();
    assert_eq!(login(&[&skips], Some("pencil")).await.unwrap_err(), STRANGE);
}

#[tokio::test(flavor = "current_thread")]
async fn rows_are_read_and_errors_told() {
    let row = |columns: &[u8]| message(b'D', columns);
    let done = [message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat();
    let rows = asked(&[&message(b'T', b"x"), &row(b"\0\x02\0\0\0\x01t\xff\xff\xff\xff"), &done]).await.unwrap();
    assert_eq!(rows, Rows { rows: vec![vec![Some("t".into()), None]], count: 1, tag: "SELECT 1".into() });
    let error = message(b'E', b"SERROR\0C42P01\0Mrelation \"x\"\ndoes not exist\0\0");
    let why = asked(&[&error, &message(b'Z', b"I")]).await.unwrap_err();
    assert_eq!(why, "PostgreSQL says: relation \"x\"\ndoes not exist (42P01)");
    for cut in [&b""[..], b"\0", b"\0\x01\0\0\0\x02t", b"\xff\xff", b"\0\x01\x7f\xff\xff\xff"] {
        assert_eq!(asked(&[&row(cut), &done]).await.unwrap_err(), STRANGE);
    }
    // A server that shuts down says why, and closes.
    assert!(asked(&[&error]).await.unwrap_err().contains("42P01"));
    let two = asked(&[&row(b"\0\0"), &row(b"\0\0"), &done]).await.unwrap();
    assert_eq!((two.rows.len(), two.count), (1, 2), "as many as are to be kept");
    assert!(asked(&[&message(b'G', b"")]).await.unwrap_err().contains("copies"));
    let endless = row(&[&b"\0\x01\0\0\x10\0"[..], &[b'x'; 4096]].concat()).repeat(100);
    assert_eq!(asked(&[&endless]).await.unwrap_err(), "an answer of over 262144 bytes");
}

#[test]
fn hashes_and_texts_are_as_the_server_reads_them() {
    // `md5(md5('secretme') || 'salt')`.
    assert_eq!(md5_answer("me", "secret", b"salt"), "md541c83370953958037c7298c50b238bda");
    assert!(terminated("a\0b").is_err());
}

#[tokio::test(flavor = "current_thread")]
async fn the_login_is_sent_whole() {
    let (mut client, mut server) = client(&[b"X"]).await;
    let login = Login { user: "me", database: "shop", password: None, by: By::Scram };
    assert_eq!(client.authenticate(login, "").await.unwrap_err(), STRANGE);
    drop(client);
    let mut sent = Vec::new();
    server.read_to_end(&mut sent).await.unwrap();
    let wanted = "\0\x03\0\0user\0me\0database\0shop\0application_name\0fracas-probe\0client_encoding\0UTF8\0\0";
    assert_eq!(sent, [&[0, 0, 0, 82], wanted.as_bytes()].concat());
}
