//! A schema as a whole: the properties by key, and what is said of the rest.

use std::collections::BTreeMap;

use ochre_model::ValueType;
use serde_json::Value as Json;

use crate::property::{Additional, EmbeddingRules, Property};
use crate::validator::{Functions, Validator};

/// The most properties of one schema.
pub const PROPERTIES_MAX: usize = 10_000;

/// What a collection declares about its records, compiled.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "the names are those of the schema language, docs/guide/schemas.md")]
pub struct MetadataSchema {
    /// One sentence on what the collection holds.
    pub description: Option<String>,
    pub version: Option<Json>,
    /// By key.
    pub properties: BTreeMap<String, Property>,
    /// For keys that match a name with `*` in it, where no property has the very name.
    pub patterns: Vec<(KeyPattern, Property)>,
    pub document: Option<Property>,
    pub embedding: Option<EmbeddingRules>,
    pub additional: Additional,
    /// Of the whole record.
    pub validators: Vec<Validator>,
}

/// A key with `*` in it, each of which stands for any number of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPattern(String);

impl KeyPattern {
    /// The pattern, if the text is one.
    pub(crate) fn new(text: &str) -> Option<Self> {
        text.contains('*').then(|| Self(text.to_owned()))
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn matches(&self, key: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = key.strip_prefix(first) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        for part in parts {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

impl MetadataSchema {
    /// What is demanded of a key: by its own name, else by the first pattern that matches it.
    pub fn property(&self, key: &str) -> Option<&Property> {
        self.properties.get(key).or_else(|| {
            let found = self.patterns.iter().find(|(pattern, _)| pattern.matches(key));
            found.map(|(_, property)| property)
        })
    }

    /// The scalar types of declared keys, for Chroma's own index configuration.
    pub fn scalar_types(&self) -> impl Iterator<Item = (&str, ValueType)> {
        let declared = self.properties.iter();
        declared.flat_map(|(key, property)| {
            let scalars = property.types.iter().filter(|ty| crate::property::list_of(**ty).is_some());
            scalars.map(|ty| (key.as_str(), *ty))
        })
    }

    /// The functions that its validators need and nobody registered.
    pub fn missing_functions(&self, functions: &Functions) -> Vec<String> {
        let of_keys = self.properties.values().chain(self.patterns.iter().map(|(_, property)| property));
        let all = of_keys.chain(&self.document).flat_map(|property| {
            property.validators.iter().chain(property.items.iter().flat_map(|items| &items.validators))
        });
        let needed = all.chain(&self.validators).filter_map(Validator::function);
        needed.filter(|name| !functions.names().any(|known| known == *name)).map(str::to_owned).collect()
    }

    /// Whether records have to be read whole to be judged: their documents or embeddings too.
    pub fn looks_beyond_metadata(&self) -> bool {
        self.document.is_some() || self.embedding.is_some() || !self.validators.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, key: &str, expected: bool) {
        assert_eq!(KeyPattern(pattern.into()).matches(key), expected, "{pattern} on {key}");
    }

    #[test]
    fn a_star_stands_for_any_characters_and_the_rest_for_itself() {
        check("price_*", "price_eur", true);
        check("price_*", "price_", true);
        check("price_*", "prize_eur", false);
        check("*_at", "created_at", true);
        check("a*b*c", "aXbYc", true);
        check("a*b*c", "acb", false);
        check("a*a", "a", false);
        check("*", "anything", true);
    }
}
