//! What records are sorted by, and cursors: places among sorted records, as texts.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ochre_model::{Cursor, OrderBy, OrderKey, Value};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::records::GetRequestPayload;
use crate::Refused;

/// The key that means when a record was first inserted.
const INSERTED: &str = "#inserted";

/// One of the things that records are sorted by.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum OrderByPayload {
    /// Smallest first.
    Key(String),
    /// In a direction.
    Directed {
        /// What is compared.
        key: String,
        /// In which direction.
        #[serde(default)]
        order: Direction,
    },
}

/// A direction of sorting.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Smallest first.
    #[default]
    Asc,
    /// Largest first.
    Desc,
}

impl OrderByPayload {
    fn key(&self) -> &str {
        match self {
            Self::Key(key) | Self::Directed { key, .. } => key,
        }
    }

    fn is_descending(&self) -> bool {
        matches!(self, Self::Directed { order: Direction::Desc, .. })
    }
}

impl GetRequestPayload {
    /// What records are sorted by.
    ///
    /// # Errors
    /// [`Refused::Invalid`] for keys that are none of metadata.
    pub fn order_by(&self) -> Result<Vec<OrderBy>, Refused> {
        let order_by = self.order_by.iter().flatten().enumerate().map(|(number, order)| {
            let key = match order.key() {
                INSERTED => OrderKey::Inserted,
                key if key.is_empty() || key.starts_with(['#', '$']) => {
                    return Err(Refused::Invalid(format!(
                        "order_by[{number}].key: '{key}' is neither a metadata key nor {INSERTED}"
                    )));
                }
                key => OrderKey::Metadata(key.to_owned()),
            };
            Ok(OrderBy { key, is_descending: order.is_descending() })
        });
        order_by.collect()
    }

    /// Tells requests for pages of the same records in the same order from others.
    fn fingerprint(&self) -> u32 {
        let order: Vec<(&str, bool)> =
            self.order_by.iter().flatten().map(|order| (order.key(), order.is_descending())).collect();
        let text = json!([self.ids, self.filter, self.where_document, order]).to_string();
        crc32c::crc32c(text.as_bytes())
    }

    /// The place that the cursor of the request names; `None` without one, or for the first page.
    ///
    /// # Errors
    /// [`Refused::Invalid`] for what is no cursor, or one of another request.
    pub fn after(&self) -> Result<Option<Cursor>, Refused> {
        let Some(text) = self.cursor.as_ref().filter(|text| !text.is_empty()) else { return Ok(None) };
        let no_cursor = || Refused::Invalid("cursor: it is no next_cursor of an answer; begin again without it".into());
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| no_cursor())?;
        let (fingerprint, offset, values): (u32, u32, Vec<Json>) =
            serde_json::from_slice(&bytes).map_err(|_| no_cursor())?;
        if fingerprint != self.fingerprint() {
            return Err(Refused::Invalid(
                "cursor: it is of a request with other ids, filters or order_by; send the same, or begin again without it"
                    .into(),
            ));
        }
        let value = |json: Json| if json.is_null() { Ok(None) } else { Value::from_json(json) };
        let values: Vec<Option<Value>> =
            values.into_iter().map(value).collect::<Result<_, _>>().map_err(|_| no_cursor())?;
        if values.len() != self.order_by.iter().flatten().count() {
            return Err(no_cursor());
        }
        Ok(Some(Cursor { values, offset }))
    }

    /// The text of a cursor for the page after this place.
    pub fn cursor_after(&self, place: &Cursor) -> String {
        let values: Vec<Json> =
            place.values.iter().map(|value| value.as_ref().map_or(Json::Null, Value::to_json)).collect();
        URL_SAFE_NO_PAD.encode(json!([self.fingerprint(), place.offset, values]).to_string())
    }

    /// Whether the answer names the cursor of the next page.
    pub fn is_paged(&self) -> bool {
        self.cursor.is_some() || self.order_by.as_ref().is_some_and(|order_by| !order_by.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(json: Json) -> GetRequestPayload {
        serde_json::from_value(json).expect("has the shape of a get")
    }

    #[test]
    fn a_cursor_names_a_place_of_its_own_request() {
        let order = json!(["a", {"key": "b", "order": "desc"}, {"key": "#inserted"}]);
        let request = payload(json!({"where": {"x": 1}, "order_by": order}));
        let place = Cursor { values: vec![Some(Value::Float(1.0)), None, Some(Value::Int(i64::MAX))], offset: 7 };
        let cursor = request.cursor_after(&place);
        let next = payload(json!({"where": {"x": 1}, "order_by": order, "cursor": cursor, "limit": 5}));
        assert_eq!(next.after(), Ok(Some(place)));
        assert_eq!(payload(json!({"cursor": ""})).after(), Ok(None));
        for other in [
            json!({"where": {"x": 2}, "order_by": order, "cursor": cursor}),
            json!({"where": {"x": 1}, "order_by": ["a", "b", "#inserted"], "cursor": cursor}),
            json!({"where": {"x": 1}, "order_by": order, "cursor": "WzEsMl0"}),
            json!({"where": {"x": 1}, "order_by": order, "cursor": "no cursor"}),
        ] {
            let refused = payload(other.clone()).after().expect_err("is of no such request").to_string();
            assert!(refused.starts_with("cursor: "), "{refused} for {other}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_with_its_place() {
        let refused = payload(json!({"order_by": ["a", "#document"]})).order_by().expect_err("is no key").to_string();
        assert!(refused.starts_with("order_by[1].key"), "{refused}");
    }
}
