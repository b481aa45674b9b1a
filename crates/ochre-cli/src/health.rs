//! `ochre health`: asks a running server whether it serves.

use crate::client::{Connection, Server};
use crate::output::{Exit, Output};

/// Ask a running server whether it serves; for container health checks.
#[derive(clap::Args)]
pub(crate) struct Health {
    #[command(flatten)]
    connection: Connection,
}

impl Health {
    pub(crate) fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        let server = Server::named_by(self.connection, output)?;
        match server.get("/api/v2/healthcheck") {
            Ok(body) => {
                output.data(&body)?;
                Ok(Exit::Ok)
            }
            Err(error) => {
                output.status(&format!("{server} is not healthy: {error:#}"));
                Ok(Exit::NotHealthy)
            }
        }
    }
}
