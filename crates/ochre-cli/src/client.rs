//! Asks a running server over HTTP.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use reqwest::{Certificate, Client, Method, StatusCode};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::output::Output;
use crate::run::Settings;

/// The environment variable that holds the server's address.
const URL: &str = "OCHRE_URL";
/// The environment variable that holds the key to ask with.
const TOKEN: &str = "OCHRE_TOKEN";
/// How long a connection may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How long the server may take for what it knows.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take for what has to read every record.
const LONG_PATIENCE: Duration = Duration::from_secs(3600);

/// Which server to ask, and how.
#[derive(Clone, clap::Args)]
pub(crate) struct Connection {
    /// The server's address, such as https://db.example.com [default: by host and port].
    /// Also OCHRE_URL, unless --host or --port is given.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The API key. Other users of the machine can see arguments: the environment variable OCHRE_TOKEN is safer.
    #[arg(long, value_name = "KEY")]
    token: Option<String>,
    /// PEM file of the certificate authority that signed the server's certificate.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

/// An answer, of the shape that this version knows.
pub(crate) fn parsed<T: DeserializeOwned>(body: &str) -> anyhow::Result<T> {
    serde_json::from_str(body).context("the server is of another version: its answer has another shape")
}

/// A server that can be asked.
pub(crate) struct Server {
    url: String,
    client: Client,
    token: Option<String>,
    patience: Duration,
}

impl Server {
    pub(crate) fn named_by(connection: Connection, output: &mut Output) -> anyhow::Result<Self> {
        let Connection { url, token, ca, settings } = connection;
        // Fails only if there is a provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // A redirect would send the key elsewhere, and turn a POST into a GET.
        let redirect = reqwest::redirect::Policy::none();
        let mut builder = Client::builder().connect_timeout(CONNECT_PATIENCE).no_proxy().redirect(redirect);
        let url = url.or_else(|| if settings.names_server() { None } else { std::env::var(URL).ok() });
        let url = if let Some(url) = url.filter(|url| !url.is_empty()) {
            let is_http = url.starts_with("http://") || url.starts_with("https://");
            anyhow::ensure!(is_http, "--url: {url:?} is no address of a server; write it like https://db.example.com");
            url.trim_end_matches('/').to_owned()
        } else {
            let server = settings.resolve()?.server;
            // A server on every address is asked on this machine's own.
            let host = match server.host.as_str() {
                "0.0.0.0" | "::" => "127.0.0.1".to_owned(),
                host if host.contains(':') => format!("[{host}]"),
                host => host.to_owned(),
            };
            if server.tls_certificate.is_empty() {
                format!("http://{host}:{}", server.port)
            } else {
                if ca.is_none() {
                    builder = builder.tls_backend_preconfigured(pinned_to(Path::new(&server.tls_certificate))?);
                }
                format!("https://{host}:{}", server.port)
            }
        };
        if let Some(file) = &ca {
            let read = || format!("--ca: could not read {}", file.display());
            let authorities =
                Certificate::from_pem_bundle(&std::fs::read(file).with_context(read)?).with_context(read)?;
            anyhow::ensure!(!authorities.is_empty(), "--ca: there is no certificate in {}", file.display());
            builder = builder.tls_certs_merge(authorities);
        }
        let token = token.or_else(|| std::env::var(TOKEN).ok()).filter(|token| !token.is_empty());
        if token.is_some() && is_readable_on_the_way(&url) {
            output.status(&format!("warning: the key goes to {url} unencrypted, readable on the way: use https://"));
        }
        Ok(Self { url, client: builder.build()?, token, patience: PATIENCE })
    }

    /// The same server, which may take its time.
    pub(crate) fn patiently(self) -> Self {
        Self { patience: LONG_PATIENCE, ..self }
    }

    /// The body of the answer to GET.
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<String> {
        self.ask("GET", path, None)
    }

    /// The body of the answer to POST without a body.
    pub(crate) fn post(&self, path: &str) -> anyhow::Result<String> {
        self.ask("POST", path, None)
    }

    /// The answer to any request, with a body of JSON or none.
    pub(crate) fn answer<T: DeserializeOwned>(
        &self, method: &str, path: &str, body: Option<&Json>,
    ) -> anyhow::Result<T> {
        let body = body.map(Json::to_string);
        parsed(&self.ask(method, path, body.as_deref())?)
    }

    /// The body of the answer to any request, with a body of JSON or none.
    pub(crate) fn ask(&self, method: &str, path: &str, body: Option<&str>) -> anyhow::Result<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (status, body) = runtime.block_on(self.send(method, path, body)).map_err(|error| self.unasked(error))?;
        if status.is_success() {
            return Ok(body);
        }
        let message =
            serde_json::from_str::<Json>(&body).ok().and_then(|json| Some(json["message"].as_str()?.to_owned()));
        match message {
            Some(message) if status == StatusCode::UNAUTHORIZED => {
                anyhow::bail!("{self}: {message}; this command takes a key from {TOKEN} or --token")
            }
            Some(message) => anyhow::bail!(message),
            None if status == StatusCode::NOT_FOUND => anyhow::bail!(
                "{self} does not serve {path}: it is no Ochre server, or runs without the extension that does (`extensions.api`)"
            ),
            None if status.is_redirection() => {
                anyhow::bail!("{self} answered `{status}`: it sends elsewhere; name the address that it sends to")
            }
            None => anyhow::bail!("{self} answered `{status}` {body}"),
        }
    }

    async fn send(&self, method: &str, path: &str, body: Option<&str>) -> reqwest::Result<(StatusCode, String)> {
        let method = Method::from_bytes(method.as_bytes()).unwrap_or_default();
        let mut request = self.client.request(method, format!("{}{path}", self.url)).timeout(self.patience);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_owned());
        }
        let answer = request.send().await?;
        Ok((answer.status(), answer.text().await?))
    }

    /// Why there is no answer.
    fn unasked(&self, error: reqwest::Error) -> anyhow::Error {
        if error.is_timeout() && !error.is_connect() {
            return anyhow::anyhow!(
                "{self} did not answer within {} s; it may still do what was asked",
                self.patience.as_secs()
            );
        }
        let is_connect = error.is_connect();
        let error = anyhow::Error::new(error.without_url());
        let is_tls = error.chain().any(|cause| cause.to_string().contains("certificate"));
        match (is_tls, is_connect) {
            (true, _) => error.context(format!(
                "could not trust the certificate of {self}; name the authority that signed it with --ca"
            )),
            (false, true) => {
                error.context(format!("could not ask the server at {self}; is it running? `ochre run` starts one"))
            }
            (false, false) => error.context(format!("could not ask the server at {self}")),
        }
    }
}

/// Whether what is sent to this address leaves the machine without encryption.
fn is_readable_on_the_way(url: &str) -> bool {
    let Some(host) = reqwest::Url::parse(url).ok().filter(|url| url.scheme() == "http").and_then(|url| {
        let host = url.host_str()?;
        Some(host.trim_matches(['[', ']']).to_owned())
    }) else {
        return false;
    };
    host != "localhost" && !host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A text as a part of a path or a query.
pub(crate) fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.url.trim_start_matches("http://"))
    }
}

/// Trusts just the certificate that a server on this machine is configured with: it is of a name, and asked by an
/// address.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    algorithms: WebPkiSupportedAlgorithms,
}

fn pinned_to(file: &Path) -> anyhow::Result<ClientConfig> {
    let certificate = CertificateDer::from_pem_file(file)
        .with_context(|| format!("could not read the server's certificate {}", file.display()))?;
    let provider = rustls::crypto::ring::default_provider();
    let algorithms = provider.signature_verification_algorithms;
    let config = ClientConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions()?;
    let pinned = Arc::new(Pinned { certificate, algorithms });
    Ok(config.dangerous().with_custom_certificate_verifier(pinned).with_no_client_auth())
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self, end_entity: &CertificateDer<'_>, _: &[CertificateDer<'_>], _: &ServerName<'_>, _: &[u8], _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *end_entity == self.certificate {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self, message: &[u8], certificate: &CertificateDer<'_>, signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self, message: &[u8], certificate: &CertificateDer<'_>, signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::is_readable_on_the_way;

    #[test]
    fn only_what_leaves_the_machine_unencrypted_is_readable_on_the_way() {
        for url in ["http://db.example.com", "http://10.0.0.2:8000", "http://[fd00::1]:8000"] {
            assert!(is_readable_on_the_way(url), "{url}");
        }
        for url in ["https://db.example.com", "http://localhost:8000", "http://127.0.0.1:8000", "http://[::1]:8000"] {
            assert!(!is_readable_on_the_way(url), "{url}");
        }
    }
}
