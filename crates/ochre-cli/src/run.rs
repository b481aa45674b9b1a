//! `ochre run`: the server.

use std::path::PathBuf;

use anyhow::Context;
use ochre_engine::{Database, Options, set_mmap_threshold};
use ochre_server::{App, Auth, Config, ConfigError, Extensions, Loaded, Server, Source, Webhooks};
use tracing_subscriber::EnvFilter;

use crate::output::{Exit, Output};

/// Start the server.
#[derive(clap::Args)]
pub(crate) struct Run {
    #[command(flatten)]
    settings: Settings,
    /// Open a database that has lost acknowledged data, with what is left of it; the rest is moved to quarantine/
    #[arg(long)]
    accept_loss: bool,
}

/// Settings as typed. What is not given comes from the environment, the file, or the defaults.
#[derive(Clone, clap::Args)]
pub(crate) struct Settings {
    /// Directory of the database [default: ./ochre-data].
    #[arg(long, value_name = "DIR")]
    path: Option<String>,
    /// Address to listen on [default: 127.0.0.1].
    #[arg(long)]
    host: Option<String>,
    /// Port to listen on, 0 for a free one [default: 8000].
    #[arg(long)]
    port: Option<String>,
    /// Allow POST /api/v2/reset, which deletes everything.
    #[arg(long)]
    allow_reset: bool,
    /// Listen beyond this machine without authentication: anyone who reaches the port has full access.
    #[arg(long)]
    allow_no_auth: bool,
    /// Configuration file, ochre's TOML or a Chroma server's YAML [default: ./ochre.toml if it exists].
    #[arg(long, value_name = "FILE", env = "OCHRE_CONFIG")]
    config: Option<PathBuf>,
}

impl Settings {
    /// Whether a server was named as typed.
    pub(crate) const fn names_server(&self) -> bool {
        self.host.is_some() || self.port.is_some()
    }

    /// The configuration that these settings, the environment and the file amount to.
    pub(crate) fn resolve(self) -> anyhow::Result<Config> {
        let usual = PathBuf::from("ochre.toml");
        let mut flags = Vec::new();
        flags.extend(self.path.map(|path| ("database.path", path)));
        flags.extend(self.host.map(|host| ("server.host", host)));
        flags.extend(self.port.map(|port| ("server.port", port)));
        if self.allow_reset {
            flags.push(("server.allow_reset", "true".to_owned()));
        }
        if self.allow_no_auth {
            flags.push(("server.allow_no_auth", "true".to_owned()));
        }
        let source = Source {
            file: self.config.filter(|file| !file.as_os_str().is_empty()).or_else(|| usual.is_file().then_some(usual)),
            // Names and values that are no Unicode cannot be ours.
            environment: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            flags,
        };
        Ok(Config::read(&source)?)
    }
}

impl Run {
    pub(crate) fn run(self, extensions: &Extensions, output: &mut Output) -> anyhow::Result<Exit> {
        let config = self.settings.resolve()?;
        log_to_stderr(&config)?;
        // What the server writes is for its own user: data, backups, logs of who did what.
        #[cfg(unix)]
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        set_mmap_threshold();
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(
            config,
            self.accept_loss,
            extensions,
            output,
        ))
    }
}

/// How the configuration wants the database opened.
pub(crate) fn options(config: &Config, loaded: &Loaded) -> anyhow::Result<Options> {
    let mut options = Options {
        map_segments: config.database.map_segments,
        segment_bytes: config.database.segment_bytes,
        graph_records_min: config.database.graph_records_min,
        unindexed_bytes_max: config.database.unindexed_bytes_max,
        unindexed_filters: config.database.unindexed_filters.parse().unwrap_or_default(),
        unindexed_records_max: config.database.unindexed_records_max,
        memory_limit: Some(config.memory.limit_bytes).filter(|bytes| *bytes > 0),
        scheduler: config.scheduler.implementation.clone(),
        backup_target: Some(config.backup.target.clone()).filter(|target| !target.is_empty()),
        backup_accept_foreign: config.backup.accept_foreign,
        backup_trust: config.backup.trust(),
        jobs: config.jobs().context("the section [jobs] of the configuration")?,
        extensions: loaded.store().to_vec(),
        ..Options::default()
    };
    loaded.register(&mut options);
    Ok(options)
}

async fn serve(
    config: Config, accept_loss: bool, extensions: &Extensions, output: &mut Output,
) -> anyhow::Result<Exit> {
    let path = config.database.path.clone();
    let loaded = extensions.load(&config)?;
    let webhooks = Webhooks::new(&config.webhooks)?;
    let options = Options { accept_loss, job_observer: webhooks.observer(), ..options(&config, &loaded)? };
    if let Some(kind) = network_file_system(&path) {
        tracing::warn!(path = %path.display(), kind, "the data directory is on a network file system, where locks and mapped files are not safe; use a local disk, or at least set database.map_segments = false");
    }
    let is_exposed = !is_loopback(&config.server.host) && !config.auth.enabled;
    anyhow::ensure!(
        !is_exposed || config.server.allow_no_auth,
        "listening on {} without authentication would let whoever reaches the port read and write everything: set auth.enabled = true (docs/guide/security.md), listen on 127.0.0.1, or say --allow-no-auth",
        config.server.host
    );
    let address = format!("{}:{}", config.server.host, config.server.port);
    let stop = stop_signal()?;
    anyhow::ensure!(
        path.join("ochre.sqlite3").exists() || !path.join("chroma.sqlite3").exists(),
        "{} holds a database of Chroma's, which this version cannot import; choose another directory with --path",
        path.display()
    );
    let bind = async || {
        Server::bind(&config).await.with_context(|| format!("cannot listen on {address}; choose another with --port"))
    };
    // Nothing is made for a server that cannot listen; but whose database is in use is told that first.
    let early = if path.exists() { None } else { Some(bind().await?) };
    let database = Database::open_with(&path, options)?;
    let server = match early {
        Some(server) => server,
        None => bind().await?,
    };
    let auth = Auth::new(&config, &database, loaded.permissions());
    let auth = auth.map_err(|error| match error.downcast::<ConfigError>() {
        Ok(wrong) => anyhow::Error::new(*wrong),
        Err(other) => anyhow::anyhow!("{other}"),
    })?;
    let app = App::new(database.clone(), config).with_auth(auth);
    let app = app.with_embedding_function(&loaded)?;
    let app = app.with_user_jobs(&webhooks).map_err(|error| match error.downcast::<ConfigError>() {
        Ok(wrong) => anyhow::Error::new(*wrong),
        Err(other) => anyhow::anyhow!("{other}"),
    })?;
    let url = format!("{}://{}", if server.is_secure() { "https" } else { "http" }, server.address()?);
    if is_exposed {
        tracing::warn!(
            "listening beyond this machine without authentication: whoever reaches the port can read and write everything"
        );
    }
    let shown = path.canonicalize().unwrap_or(path);
    output.status(&format!(
        "ochre {} listening on {url}, data in {}, docs at {url}/docs",
        env!("CARGO_PKG_VERSION"),
        shown.display()
    ));
    let served = server.run(app, loaded, stop, |requests| output.status(&stopping(requests))).await;
    tokio::task::spawn_blocking(move || database.close()).await?;
    served.map_err(anyhow::Error::msg)?;
    Ok(Exit::Ok)
}

/// What is said once the server was told to stop.
fn stopping(requests: usize) -> String {
    match requests {
        0 => "stopping; once more to stop at once".to_owned(),
        1 => "stopping: waiting for 1 request; once more to stop at once".to_owned(),
        more => format!("stopping: waiting for {more} requests; once more to stop at once"),
    }
}

/// Completes at the first SIGTERM or SIGINT; the second ends the process.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    /// As shells say that a signal ended a process: 128 and the number of SIGINT.
    const STOPPED_AT_ONCE: i32 = 130;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut next = async move || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    Ok(async move {
        next().await;
        tokio::spawn(async move {
            next().await;
            // What was answered is on disk.
            std::process::exit(STOPPED_AT_ONCE);
        });
    })
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The kind of network file system a directory is on, as far as Linux says.
fn network_file_system(path: &std::path::Path) -> Option<&'static str> {
    const KINDS: [&str; 7] = ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph"];
    let existing = path.ancestors().find_map(|ancestor| ancestor.canonicalize().ok())?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mount = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((fields.next()?, fields.next()?))
        })
        .filter(|(mounted_at, _)| existing.starts_with(mounted_at))
        .max_by_key(|(mounted_at, _)| mounted_at.len())?;
    KINDS.into_iter().find(|kind| *kind == mount.1)
}

/// Writes what can be written: where a log goes to a full disk, it ends, and requests go on.
struct Quiet<W>(W);

impl<W: std::io::Write> std::io::Write for Quiet<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = self.0.write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let _ = self.0.flush();
        Ok(())
    }
}

pub(crate) fn log_to_stderr(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log.filter).map_err(|error| ConfigError::Value {
        source_name: "the configuration".into(),
        key: "log.filter".into(),
        reason: format!("is no filter: {error}"),
    })?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Quiet(std::io::stderr()))
        .log_internal_errors(false);
    let set = if config.log.format == "json" { log.json().try_init() } else { log.compact().try_init() };
    set.map_err(|error| anyhow::anyhow!("cannot set up logging: {error}"))
}
