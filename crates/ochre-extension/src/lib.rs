//! What extends the HTTP API: operations, each described once, with what they need and what they do.
//!
//! An extension is written against the engine and the types here; router, OpenAPI document and the table of permissions
//! are made from its operations by whatever serves them.
//!
//! ```
//! use std::sync::Arc;
//!
//! use ochre_extension::{Access, ApiExtension, Description, Operation, Permission};
//! use serde_json::json;
//!
//! struct Sizes;
//!
//! impl ApiExtension for Sizes {
//!     fn name(&self) -> &'static str {
//!         "sizes"
//!     }
//!
//!     fn description(&self) -> &'static str {
//!         "how many records a collection has"
//!     }
//!
//!     fn operations(self: Arc<Self>) -> Vec<Operation> {
//!         let access = Access::Scope(Permission::RecordRead);
//!         let size = Description::get("/sizes/{collection}", "Count the records of a collection", access);
//!         vec![size.does(|call| Ok(json!({"records": call.collection()?.count()?}).into()))]
//!     }
//! }
//! ```
//!
//! Not here: HTTP, routing, authentication (`ochre-server`).

mod access;
mod call;
mod failure;
mod operation;

use std::sync::Arc;

use ochre_engine::Database;
use serde_json::{Map, Value};

pub use access::Caller;
pub use call::{Answer, Call, find_collection, parse_json, parse_object, parse_query};
pub use failure::{Failure, declaring, unindexed_text, violation_members};
pub use http::StatusCode;
pub use ochre_auth::{OwnPermission, Permission, Target};
pub use operation::{Access, Body, Description, Handler, Kind, Method, Operation, Parameter, Serve, Streamed, Work};

/// An extension of the API: named in the configuration, started in its order, stopped in the reverse.
pub trait ApiExtension: Send + Sync {
    /// Its name, in kebab-case.
    fn name(&self) -> &'static str;

    /// What it is for, in a sentence.
    fn description(&self) -> &'static str;

    /// What can be asked of it.
    fn operations(self: Arc<Self>) -> Vec<Operation>;

    /// Permissions of its own, each named `<name>:<what>`. Operations may need these and those there are.
    fn permissions(&self) -> Vec<OwnPermission> {
        Vec::new()
    }

    /// JSON schemas that its operations name, for the OpenAPI document.
    fn schemas(&self) -> Map<String, Value> {
        Map::new()
    }

    /// Extensions of the store that it needs.
    fn requires(&self) -> &'static [&'static str] {
        &[]
    }

    /// The server is about to serve its first request.
    ///
    /// # Errors
    /// Whatever makes it impossible: the server does not start.
    fn started(&self, database: &Database) -> Result<(), Failure> {
        let _ = database;
        Ok(())
    }

    /// The server stops: what is under way for long is to end.
    fn stopped(&self) {}
}
