//! TLS: the certificate of the configuration, read again when its files change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::Config;

/// Files are looked at this often, when somebody connects.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A certificate and its key, as they are now.
pub(crate) struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    state: Mutex<State>,
}

struct State {
    acceptor: TlsAcceptor,
    stamps: [Option<SystemTime>; 2],
    looked: Instant,
}

impl Tls {
    /// What the configuration names, if it does.
    pub(crate) fn new(config: &Config) -> std::io::Result<Option<Self>> {
        if config.server.tls_certificate.is_empty() {
            return Ok(None);
        }
        let (certificate, key) = (PathBuf::from(&config.server.tls_certificate), PathBuf::from(&config.server.tls_key));
        let (acceptor, stamps) = (read(&certificate, &key)?, stamps(&certificate, &key));
        let state = Mutex::new(State { acceptor, stamps, looked: Instant::now() });
        Ok(Some(Self { certificate, key, state }))
    }

    /// What accepts a connection with the newest certificate.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let mut state = self.state.lock();
        if state.looked.elapsed() >= LOOK_EVERY {
            state.looked = Instant::now();
            let stamps = stamps(&self.certificate, &self.key);
            if stamps != state.stamps {
                match read(&self.certificate, &self.key) {
                    Ok(acceptor) => {
                        tracing::info!(certificate = %self.certificate.display(), "read the TLS certificate again");
                        (state.acceptor, state.stamps) = (acceptor, stamps);
                    }
                    // One file may be new before the other is: the old ones serve until both fit.
                    Err(error) => tracing::warn!(%error, "could not read the new TLS certificate; the old one is used"),
                }
            }
        }
        state.acceptor.clone()
    }
}

fn stamps(certificate: &Path, key: &Path) -> [Option<SystemTime>; 2] {
    [certificate, key].map(|path| std::fs::metadata(path).and_then(|file| file.modified()).ok())
}

fn read(certificate: &Path, key: &Path) -> std::io::Result<TlsAcceptor> {
    let wrong = |path: &Path, error: &dyn std::fmt::Display| {
        std::io::Error::new(std::io::ErrorKind::InvalidInput, format!("{}: {error}", path.display()))
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| wrong(certificate, &error))?;
    if chain.is_empty() {
        return Err(wrong(certificate, &"it holds no certificate in PEM form"));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|error| wrong(certificate, &error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
