//! A server in process, and requests to it.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use ochre_auth::Roles;
use ochre_engine::{Database, Options};
use ochre_server::{App, Auth, Config, Extensions, Keys, Maker, NewKey, Source, service};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

/// Where collections of the default tenant and database are.
const BASE: &str = "/api/v2/tenants/default_tenant/databases/default_database/collections";

pub(crate) struct TestServer {
    pub(crate) database: Database,
    service: Router,
    /// Sent with every request, if any.
    token: Option<String>,
    /// Where its audit log is.
    _folder: Arc<TempDir>,
    /// A key that may do everything.
    admin_key: Option<String>,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    /// The body, of a request that has to succeed.
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert!(self.status.is_success(), "{}: {}", self.status, self.body);
        self.body
    }

    /// The message, of a request that has to be refused with this status.
    #[track_caller]
    pub(crate) fn refused(self, status: u16) -> String {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self.body["message"].as_str().unwrap_or_default().to_owned()
    }
}

impl TestServer {
    pub(crate) fn start() -> Self {
        Self::configured(&[])
    }

    /// With settings, by name.
    pub(crate) fn configured(settings: &[(&'static str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut flags: Vec<_> = settings.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        flags.push(("auth.audit_log", folder.path().join("audit.jsonl").to_str().unwrap().to_owned()));
        let config = Config::read(&Source { file: None, environment: Vec::new(), flags }).unwrap();
        let loaded = Extensions::built_in().load(&config).unwrap();
        let mut options = Options { extensions: loaded.store().to_vec(), ..Options::default() };
        loaded.register(&mut options);
        let database = Database::ephemeral_with(options).unwrap();
        let roles = Roles::default();
        let new = NewKey { name: "tests".into(), grants: vec!["admin".into()], ..NewKey::default() };
        let made = Keys::load(&database, &roles).unwrap().create(&database, &roles, new, Maker::Entitled).unwrap();
        let auth = Auth::new(&config, &database, loaded.permissions()).unwrap();
        let app = App::new(database.clone(), config).with_auth(auth);
        let admin_key = made.key.clone();
        Self { service: service(app, &loaded).unwrap(), database, token: None, admin_key, _folder: Arc::new(folder) }
    }

    /// A server that asks who sends a request; asked with a key that may do everything.
    pub(crate) fn secured() -> Self {
        Self::secured_with_roles("[]")
    }

    /// The same with roles of its own: a JSON list of `name=permission,permission`.
    pub(crate) fn secured_with_roles(roles: &str) -> Self {
        let mut server = Self::configured(&[("auth.enabled", "true"), ("auth.roles", roles)]);
        server.token = server.admin_key.clone();
        server
    }

    /// The same server, asked with a new key that has these grants.
    pub(crate) async fn as_key(&self, name: &str, grants: &[&str]) -> Self {
        let made = self.post("/_admin/keys", json!({"name": name, "grants": grants})).await.ok();
        let service = self.service.clone();
        Self {
            token: made["key"].as_str().map(str::to_owned),
            service,
            database: self.database.clone(),
            admin_key: None,
            _folder: Arc::clone(&self._folder),
        }
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        if let Some(token) = &self.token {
            request = request.header("x-chroma-token", token);
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let response = self.service.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
        Answer { status, headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask("POST", path, Some(body)).await
    }

    /// Makes a collection; the path of its routes.
    pub(crate) async fn collection(&self, name: &str) -> String {
        let made = self.post(BASE, json!({"name": name})).await.ok();
        format!("{BASE}/{}", made["id"].as_str().unwrap())
    }

    /// Makes a collection with records `r0`, `r1`, … whose metadata has `n` and, of every second, `kind`.
    pub(crate) async fn filled(&self, name: &str, records: usize) -> String {
        let path = self.collection(name).await;
        let ids: Vec<String> = (0..records).map(|n| format!("r{n}")).collect();
        let embeddings: Vec<[f32; 2]> = (0..records).map(|n| [n as f32, 1.0]).collect();
        let metadata = |n| if n % 2 == 0 { json!({"n": n, "kind": "even"}) } else { json!({"n": n}) };
        let metadatas: Vec<Value> = (0..records).map(metadata).collect();
        let documents: Vec<String> = (0..records).map(|n| format!("document number {n}")).collect();
        let body = json!({"ids": ids, "embeddings": embeddings, "metadatas": metadatas, "documents": documents});
        self.post(&format!("{path}/add"), body).await.ok();
        path
    }
}
