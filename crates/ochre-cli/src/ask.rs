//! Asks a running server over HTTP.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::Context;

use crate::run::Settings;

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
        // A server on every address is asked on this machine's own.
        let host = if server.host == "0.0.0.0" || server.host == "::" { "127.0.0.1".to_owned() } else { server.host };
        Ok(Self { host, port: server.port })
    }

    /// The body of the answer to GET.
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<String> {
        let Self { host, port } = self;
        let address = (host.as_str(), *port).to_socket_addrs()?.next().context("the host has no address")?;
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // HTTP/1.0: the answer is not cut into chunks, and ends with the connection.
        write!(stream, "GET {path} HTTP/1.0\r\nhost: {host}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("the answer is no HTTP")?;
        let status = head.lines().next().unwrap_or_default();
        anyhow::ensure!(status.contains(" 200 "), "it answered `{status}` {body}");
        Ok(body.to_owned())
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}
