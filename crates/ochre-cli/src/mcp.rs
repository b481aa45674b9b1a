//! `ochre mcp`: tools for a language model on this machine, on standard input and output.

use anyhow::Context;
use ochre_engine::Database;
use ochre_server::{App, Extensions};

use crate::output::Exit;
use crate::run::{Settings, log_to_stderr, options};

/// Offer a database's collections as tools to a language model (Model Context Protocol, on standard input and output)
#[derive(clap::Args)]
pub(crate) struct Mcp {
    #[command(flatten)]
    settings: Settings,
}

impl Mcp {
    pub(crate) fn run(self, extensions: &Extensions) -> anyhow::Result<Exit> {
        let config = self.settings.resolve()?;
        log_to_stderr(&config)?;
        let path = config.database.path.clone();
        anyhow::ensure!(
            path.join("ochre.sqlite3").exists(),
            "there is no database in {}; name its directory with --path",
            path.display()
        );
        let loaded = extensions.load(&config)?;
        let database = Database::open_with(&path, options(&config, &loaded)?)
            .context("a server that has the directory open offers the same tools at /mcp")?;
        let app = App::new(database.clone(), config).with_embedding_function(&loaded)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let served = runtime.block_on(ochre_server::serve_mcp(app));
        // Standard input may still be waited for by a thread of its own.
        runtime.shutdown_background();
        database.close();
        served?;
        Ok(Exit::Ok)
    }
}
