//! `ochre openapi`: the description of the HTTP API, without a server.

use ochre_server::Extensions;

use crate::output::{Exit, Output};
use crate::run::Settings;

/// Print the OpenAPI description of the HTTP API, with the extensions that the configuration names
#[derive(clap::Args)]
pub(crate) struct OpenApi {
    #[command(flatten)]
    settings: Settings,
}

impl OpenApi {
    pub(crate) fn run(self, extensions: &Extensions, output: &mut Output) -> anyhow::Result<Exit> {
        let document = extensions.load(&self.settings.resolve()?)?.openapi_document();
        output.data(&serde_json::to_string_pretty(&document)?)?;
        Ok(Exit::Ok)
    }
}
