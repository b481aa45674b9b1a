//! Bodies of search: filters, rank expressions, groups and selections, as Chroma's `Search` builders write them.

use std::collections::HashSet;

use ochre_model::{Filter, GroupBy, GroupOrder, Knn, KnnQuery, Rank};
use serde::Deserialize;
use serde_json::Value as Json;
use utoipa::ToSchema;

use super::embeddings::QueryNumber;
use super::filter::search_filter;
use super::metadata::SparseVector;
use crate::Refused;

/// The key that means a record's embedding.
const EMBEDDING: &str = "#embedding";
/// The key that means a record's document.
const DOCUMENT: &str = "#document";
/// The key that means a record's score.
const SCORE: &str = "#score";
/// How many records a `$knn` finds that does not say.
const KNN_LIMIT: u32 = 16;
/// The longest excerpt of a text in an error, in characters.
const SHOWN_CHARACTERS_MAX: usize = 60;

/// Body of search.
#[derive(Debug, Deserialize, ToSchema)]
pub struct SearchRequestPayload {
    /// The searches; each has an answer of its own, and all are answered from one state of the collection.
    pub searches: Vec<SearchPayload>,
    /// Accepted, and without effect: every read is of the newest state.
    #[serde(default)]
    pub read_level: Option<ReadLevel>,
}

/// How current an answer has to be: here all are of the newest state.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum ReadLevel {
    IndexAndWal,
    IndexOnly,
    IndexAndBoundedWal,
}

/// One search.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct SearchPayload {
    /// A `where` filter, in which `#id` is the id and `#document` the document; null or `{}` for none.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    filter: Option<Json>,
    /// What records are scored by, the lower the better: `$knn`, `$val`, `$sum`, `$sub`, `$mul`, `$div`, `$abs`,
    /// `$exp`, `$log`, `$max`, `$min`.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    rank: Option<RankPayload>,
    /// Keeps some of each group of what was scored.
    #[serde(default)]
    group_by: Option<GroupByPayload>,
    /// Which part of what was found to return.
    #[serde(default)]
    limit: Option<LimitPayload>,
    /// What to return of each record.
    #[serde(default)]
    select: Option<SelectPayload>,
}

/// A rank expression, or `{}` for none.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum RankPayload {
    None(Nothing),
    Some(Box<RankExpr>),
}

/// `{}`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// A rank expression.
#[derive(Debug, Deserialize)]
enum RankExpr {
    #[serde(rename = "$abs")]
    Abs(Box<RankExpr>),
    #[serde(rename = "$div")]
    Div { left: Box<RankExpr>, right: Box<RankExpr> },
    #[serde(rename = "$exp")]
    Exp(Box<RankExpr>),
    #[serde(rename = "$knn")]
    Knn {
        query: QueryVector,
        #[serde(default)]
        key: Option<String>,
        #[serde(default)]
        limit: Option<u32>,
        #[serde(default)]
        default: Option<QueryNumber>,
        #[serde(default)]
        return_rank: Option<bool>,
        #[serde(default)]
        max_distance: Option<QueryNumber>,
    },
    #[serde(rename = "$log")]
    Log(Box<RankExpr>),
    #[serde(rename = "$max")]
    Max(Vec<RankExpr>),
    #[serde(rename = "$min")]
    Min(Vec<RankExpr>),
    #[serde(rename = "$mul")]
    Mul(Vec<RankExpr>),
    #[serde(rename = "$sub")]
    Sub { left: Box<RankExpr>, right: Box<RankExpr> },
    #[serde(rename = "$sum")]
    Sum(Vec<RankExpr>),
    #[serde(rename = "$val")]
    Val(QueryNumber),
}

/// What a `$knn` looks for.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum QueryVector {
    Dense(Vec<QueryNumber>),
    Text(String),
    Sparse(SparseVector),
}

#[derive(Debug, Default, Deserialize, ToSchema)]
struct GroupByPayload {
    /// The metadata keys whose values make a group.
    #[serde(default)]
    keys: Vec<String>,
    /// Which records of each group to keep.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    aggregate: Option<AggregatePayload>,
}

#[derive(Debug, Deserialize)]
enum AggregatePayload {
    #[serde(rename = "$min_k")]
    MinK { keys: Vec<String>, k: u32 },
    #[serde(rename = "$max_k")]
    MaxK { keys: Vec<String>, k: u32 },
}

#[derive(Debug, Default, Deserialize, ToSchema)]
struct LimitPayload {
    /// Skip this many.
    #[serde(default)]
    offset: Option<u32>,
    /// At most this many; all if absent.
    #[serde(default)]
    limit: Option<u32>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
struct SelectPayload {
    /// `#document`, `#embedding`, `#metadata`, `#score`, and metadata keys.
    #[serde(default)]
    keys: Vec<String>,
}

/// What a search returns of each record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selected {
    /// As the request lists it, each once.
    pub keys: Vec<String>,
    /// Embeddings.
    pub embedding: bool,
    /// Documents.
    pub document: bool,
    /// Metadata, whole.
    pub metadata: bool,
    /// Scores.
    pub score: bool,
    /// Of metadata, what is under these keys.
    pub metadata_keys: Vec<String>,
}

impl SearchPayload {
    /// What restricts it.
    ///
    /// # Errors
    /// [`Refused`] for what is no filter; `place` is where in the request the search is, here and below.
    pub fn filter(&self, place: &str) -> Result<Option<Filter>, Refused> {
        match &self.filter {
            None => Ok(None),
            Some(json) if json.as_object().is_some_and(serde_json::Map::is_empty) => Ok(None),
            Some(json) => search_filter(json).map(Some).map_err(|refused| match refused {
                Refused::Invalid(text) => Refused::Invalid(format!("{place}.filter: {text}")),
                other => other,
            }),
        }
    }

    /// What its records are scored by.
    ///
    /// # Errors
    /// [`Refused::Invalid`] for a number that is not finite, an operator of nothing and a key that cannot be searched.
    pub fn rank(&self, place: &str) -> Result<Option<Rank>, Refused> {
        match &self.rank {
            None | Some(RankPayload::None(_)) => Ok(None),
            Some(RankPayload::Some(expr)) => expr.to_rank(&format!("{place}.rank")).map(Some),
        }
    }

    /// What its records are grouped by.
    ///
    /// # Errors
    /// [`Refused::Invalid`] for keys that are none of metadata.
    pub fn group_by(&self, place: &str) -> Result<Option<GroupBy>, Refused> {
        let Some(GroupByPayload { keys, aggregate }) = &self.group_by else { return Ok(None) };
        let refused = |text: &str| Err(Refused::Invalid(format!("{place}.group_by.{text}")));
        let (order, k, keeps_largest) = match aggregate {
            None if keys.is_empty() => return Ok(None),
            None => return refused("aggregate: say which records of each group to keep, by $min_k or $max_k"),
            Some(AggregatePayload::MinK { keys, k }) => (keys, *k, false),
            Some(AggregatePayload::MaxK { keys, k }) => (keys, *k, true),
        };
        if let Some(key) = keys.iter().find(|key| key.starts_with('#')) {
            return refused(&format!("keys: '{key}' is no metadata key"));
        }
        if let Some(key) = order.iter().find(|key| key.starts_with('#') && *key != SCORE) {
            return refused(&format!("aggregate: '{key}' is neither a metadata key nor {SCORE}"));
        }
        let by = |key: &String| if key == SCORE { GroupOrder::Score } else { GroupOrder::Key(key.clone()) };
        Ok(Some(GroupBy { keys: keys.clone(), order_by: order.iter().map(by).collect(), keeps_largest, k }))
    }

    /// At most how many records to return.
    pub fn limit(&self) -> Option<u32> {
        self.limit.as_ref().and_then(|limit| limit.limit)
    }

    /// How many records to skip.
    pub fn offset(&self) -> u32 {
        self.limit.as_ref().and_then(|limit| limit.offset).unwrap_or(0)
    }

    /// What to return of each record.
    pub fn selected(&self) -> Selected {
        let (mut selected, mut seen) = (Selected::default(), HashSet::new());
        for key in self.select.iter().flat_map(|select| &select.keys) {
            if !seen.insert(key) {
                continue;
            }
            selected.keys.push(key.clone());
            match key.as_str() {
                DOCUMENT => selected.document = true,
                EMBEDDING => selected.embedding = true,
                "#metadata" => selected.metadata = true,
                SCORE => selected.score = true,
                _ => selected.metadata_keys.push(key.clone()),
            }
        }
        selected
    }
}

impl RankExpr {
    fn to_rank(&self, place: &str) -> Result<Rank, Refused> {
        let refused = |text: String| Err(Refused::Invalid(format!("{place}{text}")));
        let finite = |number: &QueryNumber, name: &str| match number.0 {
            number if number.is_finite() => Ok(number),
            _ => Err(Refused::Invalid(format!("{place}.{name}: the number is too large for a score"))),
        };
        let all = |parts: &[RankExpr], name: &str| {
            if parts.is_empty() {
                return Err(Refused::Invalid(format!("{place}.{name}: give at least one expression")));
            }
            let rank = |(number, part): (usize, &RankExpr)| part.to_rank(&format!("{place}.{name}[{number}]"));
            parts.iter().enumerate().map(rank).collect::<Result<Vec<_>, _>>()
        };
        let one = |part: &RankExpr, name: &str| part.to_rank(&format!("{place}.{name}")).map(Box::new);
        let two = |left: &RankExpr, right: &RankExpr, name: &str| {
            let left = left.to_rank(&format!("{place}.{name}.left"))?;
            Ok(Box::new([left, right.to_rank(&format!("{place}.{name}.right"))?]))
        };
        Ok(match self {
            Self::Abs(part) => Rank::Abs(one(part, "$abs")?),
            Self::Exp(part) => Rank::Exp(one(part, "$exp")?),
            Self::Log(part) => Rank::Log(one(part, "$log")?),
            Self::Div { left, right } => Rank::Quotient(two(left, right, "$div")?),
            Self::Sub { left, right } => Rank::Difference(two(left, right, "$sub")?),
            Self::Max(parts) => Rank::Max(all(parts, "$max")?),
            Self::Min(parts) => Rank::Min(all(parts, "$min")?),
            Self::Mul(parts) => Rank::Product(all(parts, "$mul")?),
            Self::Sum(parts) => Rank::Sum(all(parts, "$sum")?),
            Self::Val(number) => Rank::Value(finite(number, "$val")?),
            Self::Knn { query, key, limit, default, return_rank, max_distance } => {
                let key = key.as_deref().unwrap_or(EMBEDDING);
                let query = match query {
                    QueryVector::Dense(query) if key == EMBEDDING => {
                        KnnQuery::Embedding(query.iter().map(|number| number.0).collect())
                    }
                    QueryVector::Dense(_) => {
                        return refused(format!(
                            ".$knn.key: '{key}' has no index of embeddings; those of records are searched under {EMBEDDING}"
                        ));
                    }
                    QueryVector::Sparse(_) if key.starts_with('#') => {
                        return refused(format!(
                            ".$knn.key: '{key}' is no metadata key, which sparse vectors are under"
                        ));
                    }
                    QueryVector::Sparse(vector) => match vector.clone().into_vector() {
                        Ok(vector) => KnnQuery::Sparse { key: key.to_owned(), vector },
                        Err(error) => {
                            return refused(format!(".$knn.query: Invalid sparse vector in KNN query: {error}"));
                        }
                    },
                    QueryVector::Text(text) if key == DOCUMENT => KnnQuery::Text(text.clone()),
                    QueryVector::Text(text) => {
                        let shown: String = text.chars().take(SHOWN_CHARACTERS_MAX).collect();
                        return refused(format!(
                            ".$knn.query: {shown:?} is text, which the client has to turn into an embedding; the words of documents are searched under {DOCUMENT}"
                        ));
                    }
                };
                Rank::Knn(Knn {
                    query,
                    limit: limit.unwrap_or(KNN_LIMIT),
                    default: default.as_ref().map(|number| finite(number, "$knn.default")).transpose()?,
                    return_rank: return_rank.unwrap_or(false),
                    max_distance: max_distance
                        .as_ref()
                        .map(|number| finite(number, "$knn.max_distance"))
                        .transpose()?,
                })
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(json: Json) -> SearchPayload {
        serde_json::from_value(json).expect("has the shape of a search")
    }

    #[test]
    fn what_the_clients_write_is_read() {
        let rrf = parsed(json!({
            "filter": {"$and": [{"#id": {"$in": ["a"]}}, {"#document": {"$contains": "x"}}, {"n": {"$gt": 1}}]},
            "rank": {"$mul": [{"$val": -1}, {"$div": {"left": {"$val": 1.0}, "right": {"$sum": [
                {"$val": 60}, {"$knn": {"query": [1, 0.5], "key": "#embedding", "limit": 3, "return_rank": true}}]}}}]},
            "group_by": {"keys": ["cat"], "aggregate": {"$min_k": {"keys": ["#score", "n"], "k": 3}}},
            "limit": {"offset": 2, "limit": 10},
            "select": {"keys": ["#score", "title", "#score"]},
        }));
        assert!(rrf.filter("").is_ok_and(|filter| filter.is_some()));
        let knn = Rank::Knn(Knn::new([1.0, 0.5]).limit(3).return_rank());
        let quotient = Rank::Quotient(Box::new([Rank::Value(1.0), Rank::Sum(vec![Rank::Value(60.0), knn])]));
        assert_eq!(rrf.rank(""), Ok(Some(Rank::Product(vec![Rank::Value(-1.0), quotient]))));
        let group_by = rrf.group_by("").expect("is well-formed").expect("is given");
        assert_eq!(group_by.order_by, [GroupOrder::Score, GroupOrder::Key("n".into())]);
        assert_eq!((rrf.limit(), rrf.offset()), (Some(10), 2));
        assert_eq!(rrf.selected().keys, ["#score", "title"]);
        for empty in [
            json!({}),
            json!({"filter": {}, "rank": {}, "group_by": {}, "limit": {}, "select": {}}),
            json!({"filter": null, "rank": null}),
        ] {
            let empty = parsed(empty);
            assert!(matches!((empty.filter(""), empty.rank(""), empty.group_by("")), (Ok(None), Ok(None), Ok(None))));
        }
    }

    #[test]
    fn what_is_no_search_is_refused_with_its_place() {
        for (search, place) in [
            (json!({"rank": {"$sum": []}}), "s.rank.$sum"),
            (json!({"rank": {"$abs": {"$mul": [{"$val": 1}, {"$val": 1e39}]}}}), "s.rank.$abs.$mul[1].$val"),
            (json!({"rank": {"$knn": {"query": [1], "key": "other"}}}), "s.rank.$knn.key"),
            (json!({"rank": {"$knn": {"query": [1], "default": 1e300}}}), "s.rank.$knn.default"),
            (json!({"rank": {"$knn": {"query": "words"}}}), "s.rank.$knn.query"),
            (
                json!({"group_by": {"keys": ["#document"], "aggregate": {"$max_k": {"keys": ["a"], "k": 1}}}}),
                "s.group_by.keys",
            ),
            (
                json!({"group_by": {"keys": ["a"], "aggregate": {"$max_k": {"keys": ["#id"], "k": 1}}}}),
                "s.group_by.aggregate",
            ),
            (json!({"group_by": {"keys": ["a"]}}), "s.group_by.aggregate"),
            (json!({"filter": {"#id": {"$gt": 1}}}), "s.filter"),
        ] {
            let search = parsed(search);
            let refused = search.rank("s").err().or(search.group_by("s").err()).or(search.filter("s").err());
            let text = refused.map(|refused| refused.to_string()).unwrap_or_default();
            assert!(text.starts_with(place), "{text} at {place}");
        }
        for search in
            [json!({"rank": {"$near": 1}}), json!({"rank": {"$knn": {}}}), json!({"rank": {"$val": 1, "$abs": {}}})]
        {
            assert!(serde_json::from_value::<SearchPayload>(search.clone()).is_err(), "{search}");
        }
    }
}
