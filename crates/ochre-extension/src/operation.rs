//! Operations: each described once, and feeding the router, the OpenAPI document and the table of permissions.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use ochre_auth::Permission;

use crate::call::{Answer, Call};
use crate::failure::Failure;

/// The methods of HTTP that operations have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
    Options,
}

impl Method {
    /// As requests have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
        }
    }
}

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing: it tells nothing.
    Public,
    /// To be somebody.
    Authenticated,
    /// A permission in the whole place that the path names by `{tenant}`, `{database}` and `{collection}`. Where only a
    /// collection is named, tenant and database are those of the query, or the default ones.
    Scope(Permission),
    /// A permission somewhere in the place that the path names; the handler asks for the part it acts on.
    Any(Permission),
    /// The first of these permissions, or the second where what is asked for changes nothing, somewhere in the place
    /// that the path names; the handler asks for the part it acts on.
    Either(Permission, Permission),
}

/// A parameter of the query string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// What it may be.
    pub kind: Kind,
}

/// What a parameter may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A whole number of at least 0.
    Count,
    /// `true` or `false`.
    Flag,
    /// One of these.
    OneOf(&'static [&'static str]),
}

impl Parameter {
    /// A text.
    pub const fn text(name: &'static str) -> Self {
        Self { name, kind: Kind::Text }
    }

    /// A whole number of at least 0.
    pub const fn count(name: &'static str) -> Self {
        Self { name, kind: Kind::Count }
    }

    /// `true` or `false`.
    pub const fn flag(name: &'static str) -> Self {
        Self { name, kind: Kind::Flag }
    }

    /// One of these.
    pub const fn one_of(name: &'static str, values: &'static [&'static str]) -> Self {
        Self { name, kind: Kind::OneOf(values) }
    }
}

/// What an operation is.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    /// Its method.
    pub method: Method,
    /// Its path, with parameters in braces: `/notes/{collection}`.
    pub path: &'static str,
    /// What it does, in a sentence.
    pub summary: &'static str,
    /// What it needs.
    pub access: Access,
    /// The parameters of its query string.
    pub query: &'static [Parameter],
    /// The schema of its body, if it takes one.
    pub request: Option<&'static str>,
    /// The status and the schema (or primitive type) of its answer.
    pub response: (u16, &'static str),
    /// Whether it is part of the OpenAPI document.
    pub is_listed: bool,
    /// Whether it writes records: reads keep half of the room from such.
    pub is_write: bool,
}

impl Description {
    /// An operation without a body that answers 200 with an object.
    pub const fn new(method: Method, path: &'static str, summary: &'static str, access: Access) -> Self {
        Self {
            method,
            path,
            summary,
            access,
            query: &[],
            request: None,
            response: (200, "object"),
            is_listed: true,
            is_write: false,
        }
    }

    /// As [`Description::new`], for GET.
    pub const fn get(path: &'static str, summary: &'static str, access: Access) -> Self {
        Self::new(Method::Get, path, summary, access)
    }

    /// As [`Description::new`], for POST.
    pub const fn post(path: &'static str, summary: &'static str, access: Access) -> Self {
        Self::new(Method::Post, path, summary, access)
    }

    /// As [`Description::new`], for PUT.
    pub const fn put(path: &'static str, summary: &'static str, access: Access) -> Self {
        Self::new(Method::Put, path, summary, access)
    }

    /// As [`Description::new`], for PATCH.
    pub const fn patch(path: &'static str, summary: &'static str, access: Access) -> Self {
        Self::new(Method::Patch, path, summary, access)
    }

    /// As [`Description::new`], for DELETE.
    pub const fn delete(path: &'static str, summary: &'static str, access: Access) -> Self {
        Self::new(Method::Delete, path, summary, access)
    }

    /// The parameters of its query string.
    #[must_use]
    pub const fn query(mut self, query: &'static [Parameter]) -> Self {
        self.query = query;
        self
    }

    /// The schema of its body.
    #[must_use]
    pub const fn takes(mut self, schema: &'static str) -> Self {
        self.request = Some(schema);
        self
    }

    /// The status and the schema of its answer.
    #[must_use]
    pub const fn answers(mut self, status: u16, schema: &'static str) -> Self {
        self.response = (status, schema);
        self
    }

    /// It writes records. How many at once a key may write, the work asks with [`Caller::check_batch`](crate::Caller).
    #[must_use]
    pub const fn writes(mut self) -> Self {
        self.is_write = true;
        self
    }

    /// Leaves it out of the OpenAPI document.
    #[must_use]
    pub const fn unlisted(mut self) -> Self {
        self.is_listed = false;
        self
    }

    /// The operation, with what it does. Called on a thread that may block; a client that goes away does not stop it.
    pub fn does(self, work: impl Fn(&Call<'_>) -> Result<Answer, Failure> + Send + Sync + 'static) -> Operation {
        Operation { description: self, handler: Handler::Work(Arc::new(work)) }
    }

    /// The operation, answered by something that speaks HTTP itself, such as a stream of events. Who asks is a
    /// [`Caller`](crate::Caller) among the request's extensions.
    pub fn streams(self, serve: impl Fn(http::Request<Body>) -> Streamed + Send + Sync + 'static) -> Operation {
        Operation { description: self, handler: Handler::Stream(Arc::new(serve)) }
    }
}

/// An operation: what it is, and what it does.
#[derive(Clone)]
pub struct Operation {
    /// What it is.
    pub description: Description,
    /// What it does.
    pub handler: Handler,
}

/// What an operation does.
#[derive(Clone)]
pub enum Handler {
    /// Reads a call whole and answers it whole.
    Work(Work),
    /// Speaks HTTP itself.
    Stream(Serve),
}

/// What reads a call whole and answers it whole.
pub type Work = Arc<dyn Fn(&Call<'_>) -> Result<Answer, Failure> + Send + Sync>;
/// What speaks HTTP itself.
pub type Serve = Arc<dyn Fn(http::Request<Body>) -> Streamed + Send + Sync>;
/// The body of a request or an answer that is streamed.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;
/// An answer that is streamed.
pub type Streamed = Pin<Box<dyn Future<Output = http::Response<Body>> + Send>>;
