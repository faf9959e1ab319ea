//! Enrolment: a one-time token becomes a certificate. The key is made here and never leaves the host.
//!
//! The token names the authority by the digest of its certificate, so that the first contact is already authenticated:
//! the controller must present a chain that ends in exactly that authority, and prove its name under it.

use std::{str::FromStr, sync::Arc};

use fracas_model::id::HostId;
use fracas_proto::v1::{EnrolRequest, fleet_client::FleetClient};
use rcgen::KeyPair;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use sha2::{Digest as _, Sha256};
use tonic::Code;

use crate::{
    dial::{Contact, Dial},
    identity::{Identity, certificates, request},
};

/// A join token: `fjt1.ID.SECRET.DIGEST`, the digest being SHA-256 of the authority's certificate (DER) in hex.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    text: String,
    authority: [u8; 32],
}

/// Why enrolment did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The text is not a token.
    #[error("the join token is malformed ({0}); copy it whole, as `fracas hosts join-token` printed it")]
    Token(&'static str),
    /// No controller was reached, or it was busy: worth trying again.
    #[error("enrolment at {address} did not succeed: {why}")]
    Unreachable {
        /// The controller.
        address: String,
        /// Why.
        why: String,
    },
    /// The controller said no, or is not the one that made the token.
    #[error("enrolment at {address} was refused: {why}")]
    Refused {
        /// The controller.
        address: String,
        /// Why.
        why: String,
    },
    /// Keys could not be made.
    #[error("the key or signing request cannot be made: {0}")]
    Key(rcgen::Error),
    /// The key could not be kept for another attempt.
    #[error("the key of this enrolment cannot be kept in the state directory: {0}")]
    Draft(std::io::Error),
}

impl std::fmt::Debug for Token {
    /// Only its public part.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Token").field(&self.text.split('.').nth(1)).finish()
    }
}

impl FromStr for Token {
    type Err = EnrolError;

    fn from_str(text: &str) -> Result<Self, EnrolError> {
        let text = text.trim();
        let parts: Vec<&str> = text.split('.').collect();
        let [version, id, secret, digest] = parts[..] else {
            return Err(EnrolError::Token("it has not four parts"));
        };
        if version != "fjt1" {
            return Err(EnrolError::Token("it does not begin with fjt1"));
        }
        if id.is_empty() || secret.is_empty() {
            return Err(EnrolError::Token("a part is empty"));
        }
        let mut authority = [0; 32];
        let digits = digest.as_bytes();
        if digits.len() != 64 || !digest.is_ascii() {
            return Err(EnrolError::Token("its digest has not 64 digits"));
        }
        for (byte, pair) in authority.iter_mut().zip(digits.chunks(2)) {
            let pair = std::str::from_utf8(pair).ok().and_then(|p| u8::from_str_radix(p, 16).ok());
            *byte = pair.ok_or(EnrolError::Token("its digest is not hexadecimal"))?;
        }
        Ok(Self { text: text.to_owned(), authority })
    }
}

impl Token {
    fn names(&self, certificate: &[u8]) -> bool {
        Sha256::digest(certificate)[..] == self.authority
    }
}

/// Enrols this host, which holds `key`, at `address` as `hostname`. Stores nothing.
///
/// Try again with the same key: a controller whose answer was lost knows the host by it.
pub async fn enrol(
    dial: Arc<dyn Dial>,
    address: &str,
    token: &Token,
    key: &KeyPair,
    hostname: &str,
) -> Result<Identity, EnrolError> {
    let request = request(key, hostname).map_err(EnrolError::Key)?;

    let unreachable = |why: String| EnrolError::Unreachable { address: address.to_owned(), why };
    let refused = |why: String| EnrolError::Refused { address: address.to_owned(), why };
    let contact =
        Contact { dial, tls: Some(first_contact(token).map_err(|e| refused(e.to_string()))?), addresses: vec![] };
    let opened = contact.open(address).await.map_err(|error| {
        let wrong = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
        match wrong {
            Some(rustls::Error::InvalidCertificate(why)) => {
                refused(format!("it is not the controller that made this token ({why:?}); check the address"))
            }
            _ => unreachable(error.to_string()),
        }
    })?;
    let request =
        EnrolRequest { token: token.text.clone(), signing_request_pem: request, hostname: hostname.to_owned() };
    let reply = FleetClient::new(opened.channel).enrol(request).await.map_err(|status| match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled | Code::ResourceExhausted => {
            unreachable(status.message().to_owned())
        }
        _ => refused(status.message().to_owned()),
    })?;
    let reply = reply.into_inner();
    let authority = certificates(&reply.ca_pem).map_err(|e| refused(format!("its authority is unreadable: {e}")))?;
    if !authority.first().is_some_and(|a| token.names(a)) {
        return Err(refused("it answered with another authority than the token names".into()));
    }
    let identity = Identity {
        host: HostId::new(reply.host_id),
        key_pem: key.serialize_pem(),
        certificate_pem: reply.certificate_pem,
        authority_pem: reply.ca_pem,
    };
    identity.client_config().map_err(|e| refused(format!("its certificate does not fit: {e}")))?;
    Ok(identity)
}

fn first_contact(token: &Token) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { token: token.clone(), provider }))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Trusts the one authority that the token names, if the peer presents it; everything else is checked as always.
#[derive(Debug)]
struct Pinned {
    token: Token,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let named = intermediates.iter().find(|c| self.token.names(c));
        let authority = named.ok_or(rustls::CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
