//! `ochre health`: asks a running server whether it serves.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::output::{Exit, Output};
use crate::run::Settings;

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ask a running server whether it serves; for container health checks.
#[derive(clap::Args)]
pub(crate) struct Health {
    #[command(flatten)]
    settings: Settings,
}

impl Health {
    pub(crate) fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        let server = self.settings.resolve()?.server;
        // A server on every address is asked on this machine's own.
        let host = if server.host == "0.0.0.0" || server.host == "::" { "127.0.0.1".to_owned() } else { server.host };
        match ask(&host, server.port) {
            Ok(body) => {
                output.data(&body)?;
                Ok(Exit::Ok)
            }
            Err(error) => {
                output.words(&format!("{host}:{} is not healthy: {error:#}", server.port));
                Ok(Exit::NotHealthy)
            }
        }
    }
}

fn ask(host: &str, port: u16) -> anyhow::Result<String> {
    let address = (host, port).to_socket_addrs()?.next().ok_or_else(|| anyhow::anyhow!("the host has no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /api/v2/healthcheck HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| anyhow::anyhow!("the answer is no HTTP"))?;
    let status = head.lines().next().unwrap_or_default();
    anyhow::ensure!(status.contains(" 200 "), "it answered `{status}`");
    Ok(body.to_owned())
}
