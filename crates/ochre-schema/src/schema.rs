//! A schema as a whole: the properties by key, and what is said of the rest.

use std::collections::BTreeMap;

use ochre_model::ValueType;
use serde_json::Value as Json;

use crate::property::{Additional, EmbeddingRules, Property};
use crate::validator::{Functions, Validator};

/// The most properties of one schema.
pub const PROPERTIES_MAX: usize = 10_000;

/// A misspelt key is compared with so many declared ones.
const NEAREST_OF: usize = 1000;

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
    /// What is demanded of a key: by its own name, else by the pattern of that very text, else by the first pattern
    /// that matches it, else by what is said of all other keys.
    pub fn property(&self, key: &str) -> Option<&Property> {
        let by_pattern = || {
            let same = self.patterns.iter().find(|(pattern, _)| pattern.as_str() == key);
            let found = same.or_else(|| self.patterns.iter().find(|(pattern, _)| pattern.matches(key)));
            found.map(|(_, property)| property)
        };
        let of_others = || match &self.additional {
            Additional::Typed(property) if !key.starts_with(ochre_model::HIDDEN_PREFIX) => Some(&**property),
            _ => None,
        };
        self.properties.get(key).or_else(by_pattern).or_else(of_others)
    }

    /// The declared key that was most likely meant by one that is not; of the first thousand.
    pub fn nearest_key(&self, key: &str) -> Option<&str> {
        crate::validate::nearest(key, self.properties.keys().take(NEAREST_OF).map(String::as_str))
    }

    /// Whether validating a record can take long: there are patterns, formats or validators to run over its texts.
    pub fn is_costly(&self) -> bool {
        let is_costly = |property: &Property| {
            property.pattern.is_some() || property.format.is_some() || !property.validators.is_empty()
        };
        !self.validators.is_empty() || self.all().any(is_costly)
    }

    /// Every property there is, those of elements included.
    fn all(&self) -> impl Iterator<Item = &Property> {
        let of_others = match &self.additional {
            Additional::Typed(property) => Some(&**property),
            _ => None,
        };
        let of_keys = self.properties.values().chain(self.patterns.iter().map(|(_, property)| property));
        let all = of_keys.chain(&self.document).chain(of_others);
        all.flat_map(|property| std::iter::once(property).chain(property.items.as_deref()))
    }

    /// Whether any value is sensitive.
    pub(crate) fn has_sensitive(&self) -> bool {
        self.all().any(|property| property.sensitive)
    }

    /// How many regular expressions it has.
    pub(crate) fn pattern_count(&self) -> usize {
        let of = |property: &Property| {
            let validators = property.validators.iter().filter(|validator| validator.rule() == "regex").count();
            usize::from(property.pattern.is_some()) + validators
        };
        self.all().map(of).sum()
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
        let all = self.all().flat_map(|property| &property.validators);
        let needed = all.chain(&self.validators).filter_map(Validator::function);
        needed.filter(|name| !functions.names().any(|known| known == *name)).map(str::to_owned).collect()
    }

    /// Whether records have to be read whole to be validated: their documents or embeddings too.
    pub fn looks_beyond_metadata(&self) -> bool {
        let has_validators = !self.validators.is_empty() || self.all().any(|property| !property.validators.is_empty());
        self.document.is_some() || self.embedding.is_some() || has_validators
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
