//! A request as an operation sees it, and its answer.

use std::collections::HashMap;

use http::StatusCode;
use ochre_engine::model::budget;
use ochre_engine::scheduler::unknown_member;
use ochre_engine::{Collection, DEFAULT_DATABASE, DEFAULT_TENANT, Database};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use uuid::Uuid;

use crate::access::Caller;
use crate::failure::Failure;

/// A request that may be answered: whoever sends it has what the operation needs.
pub struct Call<'a> {
    database: &'a Database,
    caller: &'a Caller,
    path: &'a HashMap<String, String>,
    query: &'a str,
    body: &'a [u8],
}

impl<'a> Call<'a> {
    /// A request: parameters of its path, its query string, its body.
    pub const fn new(
        database: &'a Database, caller: &'a Caller, path: &'a HashMap<String, String>, query: &'a str, body: &'a [u8],
    ) -> Self {
        Self { database, caller, path, query, body }
    }

    /// The database.
    pub const fn database(&self) -> &'a Database {
        self.database
    }

    /// Who asks.
    pub const fn caller(&self) -> &'a Caller {
        self.caller
    }

    /// A parameter of the path; empty if it has none of that name.
    pub fn path(&self, name: &str) -> &'a str {
        self.path.get(name).map_or("", String::as_str)
    }

    /// The query string.
    ///
    /// # Errors
    /// [`Failure`] with 400 that names what is wrong.
    pub fn query<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        parse_query(self.query)
    }

    /// The body, which is JSON.
    ///
    /// # Errors
    /// [`Failure`] with 400 or 422 that names what is wrong and where.
    pub fn body<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        parse_json(self.body)
    }

    /// The collection that the path names by name or UUID; in the tenant and the database of the path, or of the query,
    /// or the default ones.
    ///
    /// # Errors
    /// [`Failure`] with 404.
    pub fn collection(&self) -> Result<Collection, Failure> {
        #[derive(serde::Deserialize)]
        struct Home {
            tenant: Option<String>,
            database: Option<String>,
        }
        let home: Home = self.query()?;
        let part = |name: &str, given: Option<String>, default: &str| {
            self.path.get(name).cloned().or(given).unwrap_or_else(|| default.to_owned())
        };
        let tenant = part("tenant", home.tenant, DEFAULT_TENANT);
        let database = part("database", home.database, DEFAULT_DATABASE);
        find_collection(self.database, &tenant, &database, self.path("collection"))
    }
}

/// A collection by name or UUID, the name first.
///
/// # Errors
/// [`Failure`] with 404.
pub fn find_collection(database: &Database, tenant: &str, home: &str, name: &str) -> Result<Collection, Failure> {
    match database.collection_in(tenant, home, name) {
        Ok(collection) => return Ok(collection),
        Err(error) if error.not_found().is_none() => return Err(error.into()),
        Err(_) => {}
    }
    let missing = || Failure::not_found(format!("Collection [{name}] does not exist."));
    let id = Uuid::parse_str(name).map_err(|_| missing())?;
    let found = database.collection_by_id(id).and_then(|found| Ok((found.info()?, found)));
    match found {
        Ok((row, collection)) if row.tenant == tenant && row.database == home => Ok(collection),
        Err(error) if error.not_found().is_none() => Err(error.into()),
        _ => Err(missing()),
    }
}

/// Reads a JSON object into a struct, as Chroma does; what is wrong is said with its place.
///
/// # Errors
/// [`Failure`]: 400 if it is no JSON, 422 if it is not what is expected, an array among others, which serde takes for
/// the values of a struct in order; 413 if it would take more memory than a request may.
pub fn parse_object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    if bytes.trim_ascii_start().starts_with(b"[") && serde_json::from_slice::<IgnoredAny>(bytes).is_ok() {
        return Err(unexpected(&"invalid type: sequence, expected an object"));
    }
    parse(bytes, |error| unexpected(&error))
}

/// Reads a JSON document of Ochre's own interfaces; what is wrong is said with its place.
///
/// # Errors
/// [`Failure`]: 400 if it is no JSON, or has a member that nobody reads; 422 if it is not what is expected; 413 if it
/// would take more memory than a request may.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    parse(bytes, |error| match unknown_member(&error.to_string()) {
        Some(text) => Failure::invalid(format!("{text} Nothing was done")),
        None => unexpected(&error),
    })
}

type PathError = serde_path_to_error::Error<serde_json::Error>;

fn parse<T: DeserializeOwned>(bytes: &[u8], unexpected: fn(PathError) -> Failure) -> Result<T, Failure> {
    budget::charge(bytes.len().saturating_add(parsed_bytes(bytes)))?;
    // Keeping track of where in the document an error would be costs more than reading it again.
    if let Ok(value) = serde_json::from_slice(bytes) {
        return Ok(value);
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut deserializer);
    let value = parsed.map_err(|error| match error.inner().classify() {
        serde_json::error::Category::Data => unexpected(error),
        _ => malformed(&error),
    })?;
    deserializer.end().map_err(|error| malformed(&error))?;
    Ok(value)
}

/// About how many bytes a JSON document takes once it is parsed, estimated from its characters alone: a few of them can
/// stand for many times as much memory. Numbers of embeddings become floats, everything else values of their own.
fn parsed_bytes(json: &[u8]) -> usize {
    const OBJECT: usize = 500;
    const MEMBER: usize = 200;
    const LIST: usize = 300;
    const ELEMENT: usize = 80;
    const FLOAT: usize = 8;
    let (mut bytes, mut at, mut last_text) = (0usize, 0, (0, 0));
    // What is open, innermost last: whether it is a list; and whether it is below the embeddings of the document.
    let (mut open, mut in_embeddings): (Vec<bool>, bool) = (Vec::new(), false);
    while let Some(sign) = json.get(at) {
        match sign {
            b'"' => {
                let start = at + 1;
                at = start;
                while let Some(next) = json.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
                    at += next;
                    if json[at] == b'"' {
                        break;
                    }
                    at += 2;
                }
                if json.get(at) != Some(&b'"') {
                    at = json.len();
                }
                last_text = (start, at.min(json.len()));
                bytes += last_text.1.saturating_sub(start);
            }
            b'{' => {
                bytes += OBJECT;
                open.push(false);
            }
            b'[' => {
                bytes += if in_embeddings { FLOAT * 4 } else { LIST };
                open.push(true);
            }
            b'}' | b']' => drop(open.pop()),
            b':' => {
                bytes += MEMBER;
                if open.len() == 1 {
                    let key = json.get(last_text.0..last_text.1).unwrap_or_default();
                    in_embeddings = matches!(key, b"embeddings" | b"query_embeddings");
                }
            }
            b',' if open.last() == Some(&true) => bytes += if in_embeddings { FLOAT } else { ELEMENT },
            // The numbers of an embedding, most of what there is to read.
            b'0'..=b'9' | b'-' if in_embeddings && open.last() == Some(&true) => {
                let rest = &json[at..];
                let numbers = &rest[..memchr::memchr3(b'[', b']', b'"', rest).unwrap_or(rest.len())];
                bytes += memchr::memchr_iter(b',', numbers).count() * FLOAT;
                at += numbers.len();
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    bytes
}

fn unexpected(error: &dyn std::fmt::Display) -> Failure {
    let text = format!("Failed to deserialize the JSON body into the target type: {error}");
    Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "ChromaError", text)
}

fn malformed(error: &dyn std::fmt::Display) -> Failure {
    Failure::invalid(format!("Failed to parse the request body as JSON: {error}"))
}

/// Reads a query string.
///
/// # Errors
/// [`Failure`] with 400.
pub fn parse_query<T: DeserializeOwned>(query: &str) -> Result<T, Failure> {
    let parts = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
    serde_path_to_error::deserialize(parts)
        .map_err(|error| Failure::invalid(format!("Failed to deserialize query string: {error}")))
}

/// What is answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// What the body is.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
    /// What the audit log says of it, beside the request: what was made, changed or deleted.
    pub audited: Option<Value>,
}

impl Answer {
    /// A text, with its media type.
    pub fn text(content_type: &'static str, text: String) -> Self {
        Self { status: StatusCode::OK, content_type, body: text.into_bytes(), audited: None }
    }

    /// JSON.
    ///
    /// # Errors
    /// [`Failure`] with 500 if the value cannot be JSON.
    pub fn json(value: &impl serde::Serialize) -> Result<Self, Failure> {
        let body = serde_json::to_vec(value).map_err(|error| Failure::internal(error.to_string()))?;
        Ok(Self { status: StatusCode::OK, content_type: "application/json", body, audited: None })
    }

    /// With what the audit log says of it.
    #[must_use]
    pub fn with_audited(self, audited: Value) -> Self {
        Self { audited: Some(audited), ..self }
    }

    /// With another status than 200.
    #[must_use]
    pub const fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }
}

impl From<Value> for Answer {
    fn from(value: Value) -> Self {
        let body = value.to_string().into_bytes();
        Self { status: StatusCode::OK, content_type: "application/json", body, audited: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_signs_that_stand_for_much_memory_count_for_it() {
        let times = |part: &str| {
            let json = format!("{{\"metadatas\":[{}]}}", vec![part; 10_000].join(","));
            parsed_bytes(json.as_bytes()) / json.len()
        };
        assert!(times("{}") > 100 && times("{\"a\":1}") > 60 && times("[]") > 80 && times("1") > 30);
        let embeddings =
            format!("{{\"embeddings\":[{}]}}", vec!["[0.25,-1.5,3,0.25,-1.5,3,0.25,-1.5,3]"; 10_000].join(","));
        assert!(parsed_bytes(embeddings.as_bytes()) < 4 * embeddings.len());
        assert!(parsed_bytes(b"{\"a\":\"\\\"{{{{{{{{{{{{{{\"}") < 1000);
        // Whatever it is, it ends.
        for odd in [&b"\"\\"[..], b"}}]]", b"\"", b"", b":::,,,", b"{\"\\u"] {
            parsed_bytes(odd);
        }
    }
}
