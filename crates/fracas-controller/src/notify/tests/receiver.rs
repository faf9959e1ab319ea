//! A real HTTP server on loopback that does to each request what a test tells it, and tells the test what it got.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpSocket},
    sync::mpsc,
    time::Instant,
};
use tokio_rustls::TlsAcceptor;

use super::within;

/// What is done with a request.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// This status, with these further lines of the head, and this body.
    Status(u16, &'static str, &'static str),
    /// This status, and a body that repeats the whole request.
    Echo(u16),
    /// A head that says that it was taken, and promises a body that never comes.
    Dangling,
    /// Nothing, for ever.
    Silence,
    /// The connection is closed.
    Close,
}

/// The usual answer.
pub(super) const TAKEN: Answer = Answer::Status(202, "", "");

/// A request that came.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub(super) at: Instant,
    /// Method and path.
    pub(super) line: String,
    /// By their names in small letters.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
}

impl Heard {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

/// See the module.
pub(super) struct Receiver {
    pub(super) port: u16,
    heard: mpsc::UnboundedReceiver<Heard>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A port of loopback at which nobody listens, and nobody else can.
pub(super) fn closed_port() -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

impl Receiver {
    /// Answers the first requests like this, and all others with [`TAKEN`].
    pub(super) async fn start(answers: Vec<Answer>) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), answers, None)
    }

    /// The same over TLS, with this certificate and key.
    pub(super) async fn secured(certificate: &str, key: &str) -> Self {
        let tls = acceptor(certificate, key);
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), vec![], Some(tls))
    }

    pub(super) fn on(listener: TcpListener, answers: Vec<Answer>, tls: Option<TlsAcceptor>) -> Self {
        let port = listener.local_addr().unwrap().port();
        let (tell, heard) = mpsc::unbounded_channel();
        let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
        let queue = Arc::clone(&answers);
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (tell, queue, tls) = (tell.clone(), Arc::clone(&queue), tls.clone());
                open.spawn(async move {
                    match tls {
                        None => serve(stream, &tell, &queue).await,
                        // A client that does not trust us goes away.
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, &tell, &queue).await,
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        Self { port, heard, answers, task }
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From the next request on.
    pub(super) fn answer(&self, answers: Vec<Answer>) {
        *self.answers.lock().unwrap() = answers.into();
    }

    /// The next request.
    pub(super) async fn next(&mut self) -> Heard {
        within(self.heard.recv()).await.expect("it listens")
    }

    /// Requests that came and were not asked for yet.
    pub(super) fn rest(&mut self) -> Vec<Heard> {
        std::iter::from_fn(|| self.heard.try_recv().ok()).collect()
    }
}

/// `None` when the other side went away.
async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    tell: &mpsc::UnboundedSender<Heard>,
    answers: &Mutex<VecDeque<Answer>>,
) -> Option<()> {
    let (mut head, at) = (Vec::new(), Instant::now());
    let mut stream = BufReader::new(stream);
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let line = lines.next()?.to_owned();
    let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    let headers: BTreeMap<String, String> = lines.filter_map(header).collect();
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    stream.read_exact(&mut body).await.ok()?;
    let answer = answers.lock().unwrap().pop_front().unwrap_or(TAKEN);
    let whole = format!("{head}{}", String::from_utf8_lossy(&body));
    tell.send(Heard { at, line, headers, body }).ok()?;
    let (status, more, said) = match answer {
        Answer::Status(status, more, said) => (status, more, said.to_owned()),
        Answer::Echo(status) => (status, "", whole),
        Answer::Dangling => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n").await.ok()?;
            std::future::pending().await
        }
        Answer::Silence => std::future::pending().await,
        Answer::Close => return None,
    };
    let answer = format!("HTTP/1.1 {status} Told\r\n{more}content-length: {}\r\n\r\n{said}", said.len());
    stream.write_all(answer.as_bytes()).await.ok()?;
    stream.shutdown().await.ok()
}

/// A certificate for loopback by an authority of its own: the authority's PEM, the certificate's, and its key's.
pub(super) fn certificate() -> (String, String, String) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(params, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    (authority.pem(), leaf.pem(), key.serialize_pem())
}

/// Takes TLS connections with this certificate.
pub(super) fn acceptor(certificate: &str, key: &str) -> TlsAcceptor {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let builder = ServerConfig::builder_with_provider(crate::identity::provider());
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()))
}
