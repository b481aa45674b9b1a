//! Settings: one struct, one documented file with the defaults, and the order in which sources win.
//!
//! Flag > environment `OCHRE_*` > Chroma's environment names > file > default. The file is
//! `default.toml`'s form, or a Chroma server's YAML. A key nobody knows is an error that names the
//! nearest known one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ochre_engine::BackupTrust;
use ochre_engine::scheduler::nearest;
use serde::{Deserialize, Serialize};
use serde_json::Map;
use toml::{Table, Value};
use yaml_rust2::{Yaml, YamlLoader};

/// The file with every setting, its meaning and its default.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

/// All settings.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Config {
    pub server: ServerConfig,
    pub database: DatabaseConfig,
    pub memory: MemoryConfig,
    pub auth: AuthConfig,
    pub backup: BackupConfig,
    pub webhooks: WebhooksConfig,
    pub embedding: EmbeddingConfig,
    pub scheduler: SchedulerConfig,
    pub extensions: ExtensionsConfig,
    /// What differs from the defaults of jobs, by their names; checked when the database is opened.
    pub jobs: Table,
    pub log: LogConfig,
}

/// The least that resident memory can be limited to, in bytes.
const MEMORY_LIMIT_MIN: u64 = 32 << 20;

/// `[server]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct ServerConfig {
    pub host: String,
    pub port: u16,
    pub allow_reset: bool,
    pub allow_no_auth: bool,
    pub tls_certificate: String,
    pub tls_key: String,
    pub max_payload_size_bytes: usize,
    pub cors_allow_origins: Vec<String>,
    pub allowed_hosts: Vec<String>,
    pub public_url: String,
    pub concurrent_requests_max: usize,
    pub request_timeout_ms: u64,
    pub read_timeout_ms: u64,
    pub stop_timeout_ms: u64,
}

/// `[database]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct DatabaseConfig {
    pub path: PathBuf,
    pub map_segments: bool,
    pub segment_bytes: u64,
    pub graph_records_min: usize,
    pub unindexed_bytes_max: usize,
    pub unindexed_filters: String,
    pub unindexed_records_max: usize,
}

/// `[memory]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct MemoryConfig {
    pub limit_bytes: u64,
}

/// `[auth]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct AuthConfig {
    pub enabled: bool,
    pub root_key_variable: String,
    pub htpasswd: String,
    pub users: Vec<String>,
    pub roles: Vec<String>,
    pub authz_file: String,
    pub failures_per_minute: u32,
    pub audit_log: String,
}

/// `[backup]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct BackupConfig {
    pub target: String,
    pub targets: Vec<String>,
    pub accept_foreign: bool,
    pub key: String,
    pub accept_unsigned: bool,
}

impl BackupConfig {
    /// The targets that jobs may name, by name.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for one that is not `name=target`.
    pub fn targets(&self) -> Result<BTreeMap<String, String>, ConfigError> {
        let parsed = self.targets.iter().map(|target| match target.split_once('=') {
            Some((name, place)) if !name.trim().is_empty() && !place.trim().is_empty() => {
                Ok((name.trim().to_owned(), place.trim().to_owned()))
            }
            _ => Err(ConfigError::Value {
                source_name: "the configuration".into(),
                key: "backup.targets".into(),
                reason: format!("holds \"{target}\"; expected \"name=directory\" or \"name=s3://bucket/prefix\""),
            }),
        });
        parsed.collect()
    }

    /// Which backups are believed.
    pub fn trust(&self) -> BackupTrust {
        BackupTrust::with_key(&self.key).accepting_unsigned(self.accept_unsigned)
    }
}

/// `[webhooks]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct WebhooksConfig {
    pub endpoints: Vec<String>,
    pub secret_variable: String,
    pub jobs: String,
}

/// `[embedding]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct EmbeddingConfig {
    pub function: String,
    pub url: String,
    pub model: String,
    pub key_variable: String,
}

/// `[scheduler]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct SchedulerConfig {
    pub implementation: String,
}

/// `[extensions]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct ExtensionsConfig {
    pub api: Vec<String>,
    pub store: Vec<String>,
    /// The options of each, by its name.
    #[serde(flatten)]
    pub options: Table,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct LogConfig {
    pub filter: String,
    pub format: String,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The text is not TOML or YAML.
    #[error("{source_name} is not valid: {reason}")]
    Syntax {
        /// Where it came from.
        source_name: String,
        /// What is wrong and where.
        reason: String,
    },
    /// There is no such setting.
    #[error("{source_name}: there is no setting `{key}`{}", nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    UnknownKey {
        /// Where it came from.
        source_name: String,
        /// The unknown key.
        key: String,
        /// The known one most like it.
        nearest: Option<String>,
    },
    /// A value of the wrong type or out of range.
    #[error("{source_name}: `{key}` {reason}")]
    Value {
        /// Where it came from.
        source_name: String,
        /// The setting.
        key: String,
        /// What it must be.
        reason: String,
    },
}

/// The section whose keys are not settings but jobs.
const JOBS: &str = "jobs";
/// The section that has, beside settings, the options of each extension.
const EXTENSIONS: &str = "extensions";

/// Where settings come from, beside the defaults.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// A file in the form of `default.toml`, or with the ending `.yaml` or `.yml` a Chroma server's.
    pub file: Option<PathBuf>,
    /// The environment: names with values.
    pub environment: Vec<(String, String)>,
    /// What flags said: dotted keys with values.
    pub flags: Vec<(&'static str, String)>,
}

/// Environment names that people have, and the settings they stand for: ochre's short ones first, then
/// Chroma's from 1.x and before.
const ALIASES: [(&str, &str); 17] = [
    ("PERSIST_DIRECTORY", "database.path"),
    ("ALLOW_RESET", "server.allow_reset"),
    ("CHROMA_SERVER_HOST", "server.host"),
    ("CHROMA_SERVER_HTTP_PORT", "server.port"),
    ("CHROMA_SERVER_CORS_ALLOW_ORIGINS", "server.cors_allow_origins"),
    ("CHROMA_SERVER_PERSIST_DIRECTORY", "database.path"),
    ("CHROMA_HOST", "server.host"),
    ("CHROMA_LISTEN_ADDRESS", "server.host"),
    ("CHROMA_PORT", "server.port"),
    ("CHROMA_PERSIST_PATH", "database.path"),
    ("CHROMA_ALLOW_RESET", "server.allow_reset"),
    ("CHROMA_MAX_PAYLOAD_SIZE_BYTES", "server.max_payload_size_bytes"),
    ("CHROMA_CORS_ALLOW_ORIGINS", "server.cors_allow_origins"),
    ("OCHRE_PATH", "database.path"),
    ("OCHRE_HOST", "server.host"),
    ("OCHRE_PORT", "server.port"),
    ("OCHRE_ALLOW_RESET", "server.allow_reset"),
];

/// Keys of Chroma's YAML that have a setting here.
const CHROMA_KEYS: [(&str, &str); 6] = [
    ("port", "server.port"),
    ("listen_address", "server.host"),
    ("max_payload_size_bytes", "server.max_payload_size_bytes"),
    ("cors_allow_origins", "server.cors_allow_origins"),
    ("persist_path", "database.path"),
    ("allow_reset", "server.allow_reset"),
];

/// Keys of Chroma's YAML that mean nothing here and are passed over.
const CHROMA_IGNORED: [&str; 12] = [
    "sqlite_filename",
    "sqlitedb",
    "sysdb",
    "segment_manager",
    "default_knn_index",
    "enable_schema",
    "open_telemetry",
    "circuit_breaker",
    "scorecard_enabled",
    "scorecard",
    "log",
    "executor",
];

impl Default for Config {
    fn default() -> Self {
        Self::read(&Source::default()).expect("the defaults are tested to be valid")
    }
}

impl Config {
    /// Puts the settings together.
    ///
    /// # Errors
    /// [`ConfigError`], naming the source, the key and what it should be.
    pub fn read(source: &Source) -> Result<Self, ConfigError> {
        let mut table: Table = DEFAULT_TOML.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
            source_name: "default.toml".into(),
            reason: error.to_string(),
        })?;
        if let Some(file) = &source.file {
            overlay_file(&mut table, file)?;
        }
        for (name, key) in ALIASES {
            if let Some((_, value)) = source.environment.iter().find(|(given, _)| given == name) {
                set_text(&mut table, name, key, value)?;
            }
        }
        let renamed = RENAMED.iter().map(|(old, _)| (*old).to_owned());
        for key in renamed.chain(dotted_keys(&table)) {
            let name = variable(&key);
            if let Some((_, value)) = source.environment.iter().find(|(given, _)| *given == name) {
                set_text(&mut table, &name, &key, value)?;
            }
        }
        for (key, value) in &source.flags {
            set_text(&mut table, &flag(key), key, value)?;
        }
        let config: Self =
            serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| ConfigError::Value {
                source_name: source.of(&error.path().to_string()),
                key: error.path().to_string(),
                reason: format!("is out of range: {}", in_numbers(error.inner().message())),
            })?;
        config.check(source)
    }

    fn check(self, source: &Source) -> Result<Self, ConfigError> {
        let wrong = |key: &str, reason: &str| ConfigError::Value {
            source_name: source.of(key),
            key: key.into(),
            reason: reason.into(),
        };
        if self.server.concurrent_requests_max == 0 {
            return Err(wrong("server.concurrent_requests_max", "must be at least 1"));
        }
        if self.server.max_payload_size_bytes == 0 {
            return Err(wrong("server.max_payload_size_bytes", "must be at least 1"));
        }
        if self.server.request_timeout_ms == 0 {
            return Err(wrong("server.request_timeout_ms", "must be at least 1"));
        }
        if let Some(bad) = self.server.cors_allow_origins.iter().find(|origin| {
            let is_url = origin.starts_with("http://") || origin.starts_with("https://");
            *origin != "*" && (!is_url || axum::http::HeaderValue::from_str(origin).is_err())
        }) {
            let reason = format!("must hold \"*\" or origins such as \"https://example.org\", not \"{bad}\"");
            return Err(wrong("server.cors_allow_origins", &reason));
        }
        let auth = &self.auth;
        for (key, is_set) in [
            ("auth.htpasswd", !auth.htpasswd.is_empty()),
            ("auth.authz_file", !auth.authz_file.is_empty()),
            ("auth.users", !auth.users.is_empty()),
        ] {
            // Whoever names users means them to be asked for.
            if is_set && !auth.enabled {
                return Err(wrong(key, "is set, but auth.enabled is false: set it to true"));
            }
        }
        let public = &self.server.public_url;
        if !public.is_empty() && !public.starts_with("http://") && !public.starts_with("https://") {
            return Err(wrong("server.public_url", "must begin with http:// or https://, or be empty"));
        }
        if self.server.tls_certificate.is_empty() != self.server.tls_key.is_empty() {
            return Err(wrong("server.tls_certificate", "and server.tls_key are given together or not at all"));
        }
        let embedding = &self.embedding;
        if !embedding.function.is_empty() && !embedding.url.is_empty() {
            return Err(wrong("embedding.function", "and embedding.url are both set: keep one of them"));
        }
        if !embedding.url.is_empty() {
            if !embedding.url.starts_with("http://") && !embedding.url.starts_with("https://") {
                return Err(wrong("embedding.url", "must begin with http:// or https://, or be empty"));
            }
            if embedding.model.is_empty() {
                return Err(wrong("embedding.model", "must name the endpoint's model, since embedding.url is set"));
            }
        }
        if self.database.path.as_os_str().is_empty() {
            return Err(wrong("database.path", "must name a directory"));
        }
        if (1..MEMORY_LIMIT_MIN).contains(&self.memory.limit_bytes) {
            let reason = format!(
                "must be 0 or at least {MEMORY_LIMIT_MIN} (32 MiB), in bytes: less leaves no room for data beside the process itself"
            );
            return Err(wrong("memory.limit_bytes", &reason));
        }
        if self.database.segment_bytes < 1 << 16 {
            return Err(wrong("database.segment_bytes", "must be at least 65536"));
        }
        if let Err(reason) = self.database.unindexed_filters.parse::<ochre_engine::UnindexedFilters>() {
            return Err(wrong("database.unindexed_filters", &reason));
        }
        if !["text", "json"].contains(&self.log.format.as_str()) {
            return Err(wrong("log.format", "must be \"text\" or \"json\""));
        }
        Ok(self)
    }

    /// What differs from the defaults of jobs, by their names.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for a job that is no table.
    pub fn jobs(&self) -> Result<BTreeMap<String, Map<String, serde_json::Value>>, ConfigError> {
        let jobs = self.jobs.iter().map(|(name, values)| match serde_json::to_value(values) {
            Ok(serde_json::Value::Object(values)) => Ok((name.clone(), values)),
            _ => Err(ConfigError::Value {
                source_name: "the configuration".into(),
                key: format!("jobs.{name}"),
                reason: "must be a table, such as [jobs.vacuum]".into(),
            }),
        });
        jobs.collect()
    }

    /// The settings as a file would have them, with what is secret left out.
    pub fn to_toml(&self) -> String {
        let mut shown = self.clone();
        if !shown.backup.key.is_empty() {
            shown.backup.key = "(set, not shown)".into();
        }
        let endpoints = &mut shown.webhooks.endpoints;
        endpoints.iter_mut().for_each(|endpoint| *endpoint = crate::webhooks::without_path(endpoint));
        toml::to_string(&shown).unwrap_or_default()
    }
}

impl Source {
    /// What a setting was taken from, as messages name it.
    fn of(&self, key: &str) -> String {
        let is_in_environment = |name: &str| self.environment.iter().any(|(given, _)| given == name);
        let alias = || ALIASES.iter().find(|(name, of)| *of == key && is_in_environment(name));
        if self.flags.iter().any(|(given, _)| *given == key) {
            flag(key)
        } else if is_in_environment(&variable(key)) {
            variable(key)
        } else if let Some((name, _)) = alias() {
            (*name).to_owned()
        } else {
            self.file.as_ref().map_or("the configuration".into(), |file| file.display().to_string())
        }
    }
}

/// The flag of a setting.
fn flag(key: &str) -> String {
    format!("--{}", key.rsplit('.').next().unwrap_or(key).replace('_', "-"))
}

/// The environment variable of a setting.
fn variable(key: &str) -> String {
    format!("OCHRE_{}", key.to_uppercase().replace('.', "_"))
}

/// Types of numbers in a message as the numbers that they hold.
fn in_numbers(message: &str) -> String {
    message
        .replace("u16", "a whole number from 0 to 65535")
        .replace("u32", "a whole number from 0 to 4294967295")
        .replace("u64", "a whole number from 0")
        .replace("usize", "a whole number from 0")
}

fn overlay_file(table: &mut Table, file: &Path) -> Result<(), ConfigError> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| ConfigError::Unreadable { path: file.to_owned(), reason: error.to_string() })?;
    let source_name = file.display().to_string();
    if file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
        return overlay_yaml(table, &source_name, &text);
    }
    let given: Table = text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
        source_name: source_name.clone(),
        reason: error.to_string(),
    })?;
    for (section, values) in given {
        if section == JOBS {
            // Which jobs and settings there are, the engine knows.
            table.insert(section, values);
            continue;
        }
        let known = table.get(&section).is_some();
        let Value::Table(values) = values else {
            return Err(unknown(table, &source_name, &section));
        };
        if !known && values.is_empty() {
            return Err(unknown(table, &source_name, &section));
        }
        for (key, value) in values {
            if let (EXTENSIONS, Value::Table(_), Some(Value::Table(known))) =
                (section.as_str(), &value, table.get_mut(EXTENSIONS))
            {
                // Which extensions and options there are, whoever loads them knows.
                known.insert(key, value);
                continue;
            }
            set_value(table, &source_name, &format!("{section}.{key}"), value)?;
        }
    }
    Ok(())
}

fn overlay_yaml(table: &mut Table, source_name: &str, text: &str) -> Result<(), ConfigError> {
    let syntax = |reason: String| ConfigError::Syntax { source_name: source_name.to_owned(), reason };
    ochre_auth::check_yaml(text).map_err(&syntax)?;
    let documents = YamlLoader::load_from_str(text).map_err(|error| syntax(error.to_string()))?;
    let Some(document) = documents.first() else { return Ok(()) };
    let entries = document.as_hash().ok_or_else(|| syntax("a mapping of settings is expected".into()))?;
    for (key, value) in entries {
        let key = key.as_str().ok_or_else(|| syntax("keys must be strings".into()))?;
        if CHROMA_IGNORED.contains(&key) {
            tracing::warn!(
                key,
                file = source_name,
                "this setting of Chroma has no counterpart here and is passed over"
            );
            continue;
        }
        let Some((_, setting)) = CHROMA_KEYS.iter().find(|(name, _)| *name == key) else {
            return Err(ConfigError::UnknownKey {
                source_name: source_name.to_owned(),
                key: key.to_owned(),
                nearest: nearest(key, CHROMA_KEYS.iter().map(|(name, _)| *name)),
            });
        };
        let value = from_yaml(value).ok_or_else(|| syntax(format!("`{key}` has a value of no known type")))?;
        set_value(table, source_name, setting, value)?;
    }
    Ok(())
}

fn from_yaml(yaml: &Yaml) -> Option<Value> {
    Some(match yaml {
        Yaml::Integer(i) => Value::Integer(*i),
        Yaml::String(s) => Value::String(s.clone()),
        Yaml::Boolean(b) => Value::Boolean(*b),
        Yaml::Array(list) => Value::Array(list.iter().map(from_yaml).collect::<Option<_>>()?),
        _ => return None,
    })
}

/// Settings that had another name before, which is still taken: the name before, and the present one.
const RENAMED: [(&str, &str); 1] = [("database.tail_bytes_max", "database.unindexed_bytes_max")];

/// The present name of a setting, also if it is given by the one before.
fn present_name(key: &str) -> &str {
    RENAMED.iter().find(|(old, _)| *old == key).map_or(key, |(_, new)| new)
}

/// Sets a key from text, read as the type the default has.
fn set_text(table: &mut Table, source_name: &str, key: &str, text: &str) -> Result<(), ConfigError> {
    let key = present_name(key);
    if key == "server.port" && text.starts_with("tcp://") {
        // Kubernetes puts such addresses under NAME_PORT for every service, ours among them.
        tracing::warn!(name = source_name, value = text, "passed over: this is the address of a service, not a port");
        return Ok(());
    }
    let wrong = |reason: &str| ConfigError::Value {
        source_name: source_name.to_owned(),
        key: key.to_owned(),
        reason: format!("{reason}, not `{text}`"),
    };
    let value = match lookup(table, key) {
        Some(Value::Integer(_)) => Value::Integer(text.trim().parse().map_err(|_| wrong("must be a whole number"))?),
        Some(Value::Boolean(_)) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Value::Boolean(true),
            "false" | "0" | "no" | "off" => Value::Boolean(false),
            _ => return Err(wrong("must be true or false")),
        },
        Some(Value::Array(_)) => {
            // A JSON list, as Chroma wants it, or a list with commas.
            let list = serde_json::from_str::<Vec<String>>(text).unwrap_or_else(|_| {
                text.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
            });
            Value::Array(list.into_iter().map(Value::String).collect())
        }
        _ => Value::String(text.to_owned()),
    };
    set_value(table, source_name, key, value)
}

fn set_value(table: &mut Table, source_name: &str, key: &str, value: Value) -> Result<(), ConfigError> {
    let key = present_name(key);
    let Some(known) = lookup(table, key) else { return Err(unknown(table, source_name, key)) };
    if known.type_str() != value.type_str() {
        return Err(ConfigError::Value {
            source_name: source_name.to_owned(),
            key: key.to_owned(),
            reason: format!("must be of type {}, not {}", known.type_str(), value.type_str()),
        });
    }
    if let Some((section, name)) = key.split_once('.')
        && let Some(Value::Table(section)) = table.get_mut(section)
    {
        section.insert(name.to_owned(), value);
    }
    Ok(())
}

fn lookup<'t>(table: &'t Table, key: &str) -> Option<&'t Value> {
    let (section, name) = key.split_once('.')?;
    table.get(section)?.get(name)
}

fn dotted_keys(table: &Table) -> Vec<String> {
    let sections = table.iter().filter(|(section, _)| *section != JOBS);
    let sections = sections.filter_map(|(section, values)| Some((section, values.as_table()?)));
    sections.flat_map(|(section, values)| values.keys().map(move |key| format!("{section}.{key}"))).collect()
}

fn unknown(table: &Table, source_name: &str, key: &str) -> ConfigError {
    let nearest = nearest(key, dotted_keys(table).iter().map(String::as_str));
    ConfigError::UnknownKey { source_name: source_name.to_owned(), key: key.to_owned(), nearest }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_file(name: &str, text: &str) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        Config::read(&Source { file: Some(file), ..Source::default() })
    }

    #[test]
    fn the_documented_defaults_are_the_defaults() {
        let config = Config::default();
        assert_eq!((config.server.host.as_str(), config.server.port), ("127.0.0.1", 8000));
        assert_eq!(config.database.path, Path::new("./ochre-data"));
        let engine = ochre_engine::Options::default();
        assert_eq!(config.database.segment_bytes, engine.segment_bytes);
        assert_eq!(config.database.graph_records_min, engine.graph_records_min);
        assert_eq!(config.database.unindexed_bytes_max, engine.unindexed_bytes_max);
    }

    #[test]
    fn settings_are_taken_by_the_name_that_they_had_before() {
        let config = from_file("ochre.toml", "[database]\ntail_bytes_max = 7").unwrap();
        assert_eq!(config.database.unindexed_bytes_max, 7);
        let environment = vec![("OCHRE_DATABASE_TAIL_BYTES_MAX".into(), "8".into())];
        let config = Config::read(&Source { environment, ..Source::default() }).unwrap();
        assert_eq!(config.database.unindexed_bytes_max, 8);
        let text = from_file("ochre.toml", "[database]\ntail_byte_max = 7").unwrap_err().to_string();
        assert!(text.contains("database.tail_byte_max"), "{text}");
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ochre.toml");
        std::fs::write(&file, "[server]\nport = 1\nhost = \"a\"\nallow_reset = true\n").unwrap();
        let source = Source {
            file: Some(file),
            environment: vec![("OCHRE_SERVER_PORT".into(), "2".into()), ("CHROMA_HOST".into(), "b".into())],
            flags: vec![("server.port", "3".into())],
        };
        let server = Config::read(&source).unwrap().server;
        assert_eq!((server.port, server.host.as_str(), server.allow_reset), (3, "b", true));
    }

    #[test]
    fn a_chroma_configuration_is_understood() {
        let yaml = "port: 8123\nlisten_address: \"0.0.0.0\"\npersist_path: \"./x\"\nallow_reset: true\nsqlitedb:\n  hash_type: md5\ncors_allow_origins: [\"*\"]\n";
        let config = from_file("chroma.yaml", yaml).unwrap();
        assert_eq!((config.server.port, config.server.allow_reset), (8123, true));
        assert_eq!(config.server.cors_allow_origins, ["*"]);
    }

    #[test]
    fn an_unknown_key_names_the_nearest_known_one() {
        let error = from_file("ochre.toml", "[server]\nprot = 1\n").unwrap_err().to_string();
        assert!(error.contains("`server.prot`") && error.contains("`server.port`"), "{error}");
        assert!(from_file("x.yaml", "persist_pth: y\n").unwrap_err().to_string().contains("persist_path"));
    }

    #[test]
    fn values_out_of_range_name_their_setting() {
        for (text, key) in [
            ("[server]\nport = 70000\n", "server.port"),
            ("[server]\nrequest_timeout_ms = 0\n", "server.request_timeout_ms"),
            ("[server]\ncors_allow_origins = [\"nonsense\"]\n", "server.cors_allow_origins"),
            ("[memory]\nlimit_bytes = 1000\n", "memory.limit_bytes"),
            ("[database]\nsegment_bytes = 0\n", "database.segment_bytes"),
            ("[database]\npath = \"\"\n", "database.path"),
            ("[database]\nunindexed_filters = \"never\"\n", "database.unindexed_filters"),
            ("[log]\nformat = \"xml\"\n", "log.format"),
            ("[bogus]\n", "bogus"),
        ] {
            let error = from_file("ochre.toml", text).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn a_wrong_value_names_its_key_and_source() {
        let source = Source { environment: vec![("OCHRE_PORT".into(), "many".into())], ..Source::default() };
        let error = Config::read(&source).unwrap_err().to_string();
        assert!(error.contains("OCHRE_PORT") && error.contains("server.port") && error.contains("many"), "{error}");
        // Out of range, not of the wrong type: found only when all is put together.
        let flags = vec![("server.port", "70000".to_owned())];
        let error = Config::read(&Source { flags, ..Source::default() }).unwrap_err().to_string();
        assert!(error.contains("--port") && error.contains("65535"), "{error}");
        let source = Source { environment: vec![("OCHRE_SERVER_PORT".into(), "-1".into())], ..Source::default() };
        let error = Config::read(&source).unwrap_err().to_string();
        assert!(error.contains("OCHRE_SERVER_PORT") && error.contains("-1"), "{error}");
    }
}
