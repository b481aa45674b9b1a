//! Asks a running server over HTTP.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::Context;
use serde_json::Value as Json;

use crate::run::Settings;

/// The environment variable that holds the key to ask with.
const TOKEN: &str = "OCHRE_TOKEN";
/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A server that the settings name.
pub(crate) struct Server {
    host: String,
    port: u16,
}

impl Server {
    pub(crate) fn named_by(settings: Settings) -> anyhow::Result<Self> {
        let server = settings.resolve()?.server;
        anyhow::ensure!(
            server.tls_certificate.is_empty(),
            "the server speaks TLS, which this command does not: ask it through its API, or use --offline where there is one"
        );
        // A server on every address is asked on this machine's own.
        let host = if server.host == "0.0.0.0" || server.host == "::" { "127.0.0.1".to_owned() } else { server.host };
        Ok(Self { host, port: server.port })
    }

    /// The body of the answer to GET.
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<String> {
        self.ask("GET", path, None)
    }

    /// The body of the answer to POST without a body.
    pub(crate) fn post(&self, path: &str) -> anyhow::Result<String> {
        self.ask("POST", path, None)
    }

    /// The body of the answer to any request, with a body of JSON or none.
    pub(crate) fn ask(&self, method: &str, path: &str, body: Option<&str>) -> anyhow::Result<String> {
        let Self { host, port } = self;
        let address = (host.as_str(), *port).to_socket_addrs()?.next().context("the host has no address")?;
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)
            .with_context(|| format!("could not ask the server at {self}; is it running? `ochre run` starts one"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // HTTP/1.0: the answer is not cut into chunks, and ends with the connection.
        let body = body.unwrap_or_default();
        // Given by the environment: arguments are seen by everyone on the machine.
        let token = std::env::var(TOKEN).ok().filter(|token| !token.is_empty());
        let token = token.map_or(String::new(), |token| format!("authorization: Bearer {token}\r\n"));
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{token}\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("the answer is no HTTP")?;
        let status = head.lines().next().unwrap_or_default();
        if status.contains(" 200 ") || status.contains(" 201 ") || status.contains(" 202 ") {
            return Ok(body.to_owned());
        }
        let message =
            serde_json::from_str::<Json>(body).ok().and_then(|json| Some(json["message"].as_str()?.to_owned()));
        let is_unauthorized = status.contains(" 401 ");
        match message {
            Some(message) if is_unauthorized => {
                anyhow::bail!("{self}: {message}; this command takes a key from {TOKEN}")
            }
            Some(message) => anyhow::bail!(message),
            None if status.contains(" 404 ") => anyhow::bail!(
                "{self} does not serve {path}: it is no Ochre server, or runs without the extension that does (`extensions.api`)"
            ),
            None => anyhow::bail!("{self} answered `{status}` {body}"),
        }
    }
}

/// A text as a part of a path or a query.
pub(crate) fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}
