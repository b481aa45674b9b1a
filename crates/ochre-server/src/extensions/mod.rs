//! Extensions: which there are, and which of them the configuration names.

mod introspection;
mod jobs;
mod mcp;
mod metadata_indexes;

use std::sync::{Arc, OnceLock};

use ochre_engine::model::Value as MetadataValue;
use ochre_engine::scheduler::{Error as ScheduleError, Scheduler, SchedulerConfig, SchedulerRegistry, nearest};
use ochre_engine::schema::{Functions, Subject};
use ochre_engine::{BackupTarget, BackupTargets, Error, Options, StoreExtension};
use ochre_extension::{ApiExtension, OwnPermission};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::app::App;
use crate::config::{Config, ConfigError};
use crate::embedding::{Embed, EmbeddingFunction};

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
    parts: Parts,
}

/// What else an embedder registers: parts that the configuration or a schema names.
#[derive(Clone, Default)]
struct Parts {
    schedulers: Vec<(&'static str, MakeScheduler)>,
    targets: Vec<(&'static str, OpenTarget)>,
    validators: Functions,
    embedding_functions: Vec<(&'static str, Arc<Embed>)>,
}

impl Parts {
    /// The kinds of backup targets there are.
    fn backup_targets(&self) -> BackupTargets {
        let mut targets = crate::s3::backup_targets();
        for (scheme, open) in &self.targets {
            let open = Arc::clone(open);
            targets.register(scheme, move |url| open(url));
        }
        targets
    }
}

type MakeScheduler = Arc<dyn Fn(SchedulerConfig) -> Result<Arc<dyn Scheduler>, ScheduleError> + Send + Sync>;
type OpenTarget = Arc<dyn Fn(&str) -> Result<Arc<dyn BackupTarget>, Error> + Send + Sync>;

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
    parts: Parts,
    server: Server,
}

impl Loaded {
    /// Those of the store: for [`Options::extensions`](ochre_engine::Options).
    pub fn store(&self) -> &[Arc<dyn StoreExtension>] {
        &self.store
    }

    /// The description of the HTTP API that a server with these extensions has, as OpenAPI.
    pub fn openapi_document(&self) -> Value {
        crate::openapi::document(&self.api)
    }

    /// Gives a database the schedulers, backup targets and validators that there are.
    pub fn register(&self, options: &mut Options) {
        let mut schedulers = SchedulerRegistry::default();
        for (name, make) in &self.parts.schedulers {
            let make = Arc::clone(make);
            schedulers.register(name, move |parts| make(parts));
        }
        options.schedulers = Arc::new(schedulers);
        options.backup_targets = Arc::new(self.parts.backup_targets());
        options.validators = self.parts.validators.clone();
    }

    /// The embedding function of this name.
    pub(crate) fn embedding_function(&self, name: &str) -> Result<Arc<Embed>, ConfigError> {
        let functions = &self.parts.embedding_functions;
        let found = functions.iter().find(|(known, _)| *known == name).map(|(_, embed)| Arc::clone(embed));
        found.ok_or_else(|| {
            let names: Vec<&str> = functions.iter().map(|(name, _)| *name).collect();
            let known = if names.is_empty() { "none is".to_owned() } else { format!("there are {}", names.join(", ")) };
            ConfigError::Value {
                source_name: "the configuration".into(),
                key: "embedding.function".into(),
                reason: format!("names '{name}', which this program does not register; {known}"),
            }
        })
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

impl App {
    /// Makes embeddings of texts by a function that the program registers, if the configuration names one.
    ///
    /// # Errors
    /// [`ConfigError`] for a name that none has.
    pub fn with_embedding_function(self, loaded: &Loaded) -> Result<Self, ConfigError> {
        let name = self.config().embedding.function.clone();
        if name.is_empty() {
            return Ok(self);
        }
        let embed = loaded.embedding_function(&name)?;
        Ok(self.with_function(EmbeddingFunction::Own { name, embed }))
    }
}

impl Extensions {
    /// Those that are built in.
    pub fn built_in() -> Self {
        let mut built_in = Self { api: Vec::new(), store: Vec::new(), parts: Parts::default() }
            .with_api("introspection", |options| options.none().map(|()| Arc::new(introspection::Introspection) as _))
            .with_api("metadata-indexes", |options| {
                options.none().map(|()| Arc::new(metadata_indexes::MetadataIndexes) as _)
            })
            .with_store("metadata-indexes", |options| options.none().map(|()| ochre_engine::metadata_indexes()));
        let tools: Make<dyn ApiExtension> =
            Box::new(|options, server| options.none().map(|()| Arc::new(mcp::Mcp::new(Arc::clone(server))) as _));
        let jobs: Make<dyn ApiExtension> =
            Box::new(|options, server| options.none().map(|()| Arc::new(jobs::Jobs::new(Arc::clone(server))) as _));
        built_in.api.insert(1, ("jobs", jobs));
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

    /// The kinds of backup targets there are.
    pub fn backup_targets(&self) -> BackupTargets {
        self.parts.backup_targets()
    }

    /// Adds an implementation of the scheduler, under the name that `[scheduler] implementation` has it by.
    #[must_use]
    pub fn with_scheduler(
        mut self, name: &'static str,
        make: impl Fn(SchedulerConfig) -> Result<Arc<dyn Scheduler>, ScheduleError> + Send + Sync + 'static,
    ) -> Self {
        self.parts.schedulers.push((name, Arc::new(make)));
        self
    }

    /// Adds a kind of backup target: those whose URLs begin with `scheme://`.
    #[must_use]
    pub fn with_backup_target(
        mut self, scheme: &'static str,
        open: impl Fn(&str) -> Result<Arc<dyn BackupTarget>, Error> + Send + Sync + 'static,
    ) -> Self {
        self.parts.targets.push((scheme, Arc::new(open)));
        self
    }

    /// Adds a function that schemas may name as a validator: what is wrong with a record, or nothing.
    #[must_use]
    pub fn with_validator(
        mut self, name: &str,
        function: impl Fn(&Subject<'_>, Option<&MetadataValue>) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.parts.validators.register(name, function);
        self
    }

    /// Adds a function that makes embeddings of texts, under the name that `[embedding] function` has it by.
    #[must_use]
    pub fn with_embedding_function(
        mut self, name: &'static str, embed: impl Fn(&str) -> Result<Vec<f32>, String> + Send + Sync + 'static,
    ) -> Self {
        self.parts.embedding_functions.push((name, Arc::new(embed)));
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
        Ok(Loaded { api, store, parts: self.parts.clone(), server })
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use ochre_engine::model::{Declaration, Metadata, Value as MetadataValue};
    use ochre_engine::scheduler::OffScheduler;
    use ochre_engine::{CollectionOptions, Database, DirectoryTarget, NewRecords};

    use super::*;

    #[test]
    fn parts_that_a_program_registers_are_found_by_their_names() {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let folder = std::env::temp_dir().join(format!("ochre-parts-{}", std::process::id()));
        let target = folder.clone();
        let extensions = Extensions::built_in()
            .with_scheduler("mine", |parts| {
                MADE.fetch_add(1, Ordering::SeqCst);
                Ok(Arc::new(OffScheduler::new(parts)?))
            })
            .with_backup_target("memo", move |_| Ok(Arc::new(DirectoryTarget::new(&target))))
            .with_validator("even", |_, value| match value {
                Some(MetadataValue::Int(n)) if n % 2 == 0 => Ok(()),
                _ => Err("it is odd".into()),
            })
            .with_embedding_function("length", |text| Ok(vec![text.len() as f32]));
        let loaded = extensions.load(&Config::default()).unwrap();
        let mut options = Options { scheduler: "mine".into(), ..Options::default() };
        loaded.register(&mut options);
        assert!(options.backup_targets.open("memo://x").is_ok() && options.backup_targets.open("memory://x").is_err());
        assert_eq!(loaded.embedding_function("length").unwrap()("abc"), Ok(vec![3.0]));
        let unknown = loaded.embedding_function("lenght").err().unwrap().to_string();
        assert!(unknown.contains("embedding.function") && unknown.contains("there are length"), "{unknown}");
        let database = Database::ephemeral_with(options).unwrap();
        assert_eq!(MADE.load(Ordering::SeqCst), 1);
        let schema = serde_json::json!({"n": {"validators": [{"function": "even"}]}});
        let declaration = Declaration { schema: Some(schema), ..Declaration::default() };
        let options = CollectionOptions { declaration, ..CollectionOptions::default() };
        let numbers = database.create_collection_in("default_tenant", "default_database", "numbers", options).unwrap();
        let add = |id: &str, n: i64| {
            let metadata = Metadata::from_iter([("n", MetadataValue::Int(n))]);
            numbers.add(NewRecords::new([id], [[1.0]]).metadatas([metadata]))
        };
        assert!(add("two", 2).is_ok());
        assert!(add("three", 3).unwrap_err().to_string().contains("it is odd"));
    }
}
