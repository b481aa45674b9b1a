//! Extensions: which there are, and which of them the configuration names.

mod introspection;
mod jobs;
mod mcp;
mod metadata_indexes;

use std::sync::{Arc, OnceLock};

use ochre_engine::StoreExtension;
use ochre_engine::scheduler::nearest;
use ochre_extension::{ApiExtension, OwnPermission};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::app::App;
use crate::config::{Config, ConfigError};

pub use self::mcp::serve_standard as serve_mcp;
pub(crate) use self::mcp::tools_of;

/// Where built-in extensions find the server once it runs.
type Server = Arc<OnceLock<App>>;
/// Makes an extension with its options; what is wrong with them.
type Make<T> = Box<dyn Fn(&ExtensionOptions, &Server) -> Result<Arc<T>, String> + Send + Sync>;

/// The extensions that a configuration may name: those that are built in, and those that an embedder adds.
pub struct Extensions {
    api: Vec<(&'static str, Make<dyn ApiExtension>)>,
    store: Vec<(&'static str, Make<dyn StoreExtension>)>,
}

/// The options of an extension: its section of the configuration.
#[derive(Clone, Debug, Default)]
pub struct ExtensionOptions(Map<String, Value>);

impl ExtensionOptions {
    /// The options as what they are expected to be.
    ///
    /// # Errors
    /// What is wrong with which.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, String> {
        T::deserialize(Value::Object(self.0.clone())).map_err(|error| error.to_string())
    }

    /// Refuses any.
    fn none(&self) -> Result<(), String> {
        match self.0.keys().next() {
            Some(key) => Err(format!("there is no option `{key}`; it takes none")),
            None => Ok(()),
        }
    }
}

/// The extensions that a configuration names, in its order: for one database and one server.
pub struct Loaded {
    api: Vec<Arc<dyn ApiExtension>>,
    store: Vec<Arc<dyn StoreExtension>>,
    server: Server,
}

impl Loaded {
    /// Those of the store: for [`Options::extensions`](ochre_engine::Options).
    pub fn store(&self) -> &[Arc<dyn StoreExtension>] {
        &self.store
    }

    /// Those of the API.
    pub(crate) fn api(&self) -> &[Arc<dyn ApiExtension>] {
        &self.api
    }

    /// The permissions that those of the API bring.
    pub fn permissions(&self) -> Vec<OwnPermission> {
        self.api.iter().flat_map(|extension| extension.permissions()).collect()
    }

    /// Lets built-in ones find the server.
    pub(crate) fn connect(&self, app: &App) {
        let _ = self.server.set(app.clone());
    }
}

impl Extensions {
    /// Those that are built in.
    pub fn built_in() -> Self {
        let mut built_in = Self { api: Vec::new(), store: Vec::new() }
            .with_api("introspection", |options| options.none().map(|()| Arc::new(introspection::Introspection) as _))
            .with_api("jobs", |options| options.none().map(|()| Arc::new(jobs::Jobs) as _))
            .with_api("metadata-indexes", |options| {
                options.none().map(|()| Arc::new(metadata_indexes::MetadataIndexes) as _)
            })
            .with_store("metadata-indexes", |options| options.none().map(|()| ochre_engine::metadata_indexes()));
        let tools: Make<dyn ApiExtension> =
            Box::new(|options, server| options.none().map(|()| Arc::new(mcp::Mcp::new(Arc::clone(server))) as _));
        built_in.api.push(("mcp", tools));
        built_in
    }

    /// Adds one of the API, under the name that it has in the configuration.
    #[must_use]
    pub fn with_api(
        mut self, name: &'static str,
        make: impl Fn(&ExtensionOptions) -> Result<Arc<dyn ApiExtension>, String> + Send + Sync + 'static,
    ) -> Self {
        self.api.push((name, Box::new(move |options, _| make(options))));
        self
    }

    /// Adds one of the store, under the name that it has in the configuration.
    #[must_use]
    pub fn with_store(
        mut self, name: &'static str,
        make: impl Fn(&ExtensionOptions) -> Result<Arc<dyn StoreExtension>, String> + Send + Sync + 'static,
    ) -> Self {
        self.store.push((name, Box::new(move |options, _| make(options))));
        self
    }

    /// Those of the store that need no options: what a database at rest is compared with, whichever of them it has.
    pub fn all_of_store(&self) -> Vec<Arc<dyn StoreExtension>> {
        let server = Server::default();
        self.store.iter().filter_map(|(_, make)| make(&ExtensionOptions::default(), &server).ok()).collect()
    }

    /// Makes those that the configuration names.
    ///
    /// # Errors
    /// [`ConfigError`]: one that there is not, one named twice, options that are wrong or of none that is named.
    pub fn load(&self, config: &Config) -> Result<Loaded, ConfigError> {
        let given = &config.extensions;
        let is_named = |name: &&String| given.api.contains(*name) || given.store.contains(*name);
        if let Some(name) = given.options.keys().find(|name| !is_named(name)) {
            let known = given.api.iter().chain(&given.store).map(String::as_str);
            let hint = nearest(name, known).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
            return Err(wrong(name, format!("are options of an extension that neither api nor store names{hint}")));
        }
        let server = Server::default();
        let api = load("api", &self.api, &given.api, (config, &server))?;
        let store = load("store", &self.store, &given.store, (config, &server))?;
        for extension in &api {
            let lacking = extension.requires().iter().find(|name| store.iter().all(|store| store.name() != **name));
            if let Some(name) = lacking {
                let text = format!("names '{}', which needs '{name}' in extensions.store", extension.name());
                return Err(wrong("api", text));
            }
        }
        crate::operations::check(&api).map_err(|text| wrong("api", text))?;
        Ok(Loaded { api, store, server })
    }
}

fn wrong(key: &str, reason: String) -> ConfigError {
    ConfigError::Value { source_name: "the configuration".into(), key: format!("extensions.{key}"), reason }
}

fn load<T: ?Sized>(
    list: &str, known: &[(&'static str, Make<T>)], given: &[String], (config, server): (&Config, &Server),
) -> Result<Vec<Arc<T>>, ConfigError> {
    let make = |(number, name): (usize, &String)| {
        if given[..number].contains(name) {
            return Err(wrong(list, format!("names '{name}' twice")));
        }
        let Some((_, make)) = known.iter().find(|(known, _)| known == name) else {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            let there_are = format!("there are {}", names.join(", "));
            let hint = nearest(name, names.iter().copied()).map_or(there_are, |near| format!("did you mean '{near}'?"));
            let text = format!("names '{name}', and there is no such extension; {hint}");
            return Err(wrong(list, text));
        };
        let options = config.extensions.options.get(name.as_str());
        let options = match options.map(serde_json::to_value) {
            None => Map::new(),
            Some(Ok(Value::Object(options))) => options,
            Some(_) => return Err(wrong(name, "must be a table of options".into())),
        };
        make(&ExtensionOptions(options), server).map_err(|reason| wrong(name, format!("cannot be used: {reason}")))
    };
    given.iter().enumerate().map(make).collect()
}
