//! How the documents of a collection are split into terms for ranked text search, as the collection declares it.
//!
//! Not here: doing it (`ochre-index`).

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// The collection-metadata key under which an analyzer is declared.
pub const TEXT_ANALYZER_KEY: &str = "ochre:text_analyzer";
/// The most stop words in a list.
const STOP_WORDS_MAX: usize = 1000;
/// The longest stop word, in bytes.
const STOP_WORD_BYTES_MAX: usize = 100;

/// The settings of an analyzer. Without any, words are only folded: case, accents, compatibility forms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextAnalyzer {
    /// Words are reduced to their stems by the rules of this language.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stemmer: Option<Language>,
    /// These words are left out, of documents and of queries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_words: Option<StopWords>,
}

/// Words that are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum StopWords {
    /// The usual ones of a language; none if no list of them is known.
    Of(Language),
    /// These, whatever their case.
    List(Vec<String>),
}

/// Why a declaration of an analyzer was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidTextAnalyzer(String);

impl TextAnalyzer {
    /// The stemmer and the stop words of a language.
    pub fn of(language: Language) -> Self {
        Self { stemmer: Some(language), stop_words: Some(StopWords::Of(language)) }
    }

    /// Reads a declaration: the name of a language, or an object, which may be the text of a string.
    ///
    /// # Errors
    /// [`InvalidTextAnalyzer`], which says what is wrong and what there is.
    pub fn parse(written: &Json) -> Result<Self, InvalidTextAnalyzer> {
        let expected = || {
            InvalidTextAnalyzer(format!(
                "expected the name of a language, or an object with stemmer and stop_words, found {written}"
            ))
        };
        let object = match written {
            Json::String(text) if text.trim_start().starts_with('{') => {
                serde_json::from_str(text).map_err(|error| InvalidTextAnalyzer(format!("it is no JSON: {error}")))?
            }
            Json::String(name) => return language(name).map(Self::of),
            other => other.clone(),
        };
        let Json::Object(members) = object else { return Err(expected()) };
        let mut analyzer = Self::default();
        for (name, value) in &members {
            match (name.as_str(), value) {
                ("stemmer" | "stop_words", Json::Null) => {}
                ("stemmer", Json::String(name)) => analyzer.stemmer = Some(language(name)?),
                ("stop_words", Json::String(name)) => analyzer.stop_words = Some(StopWords::Of(language(name)?)),
                ("stop_words", Json::Array(words)) => analyzer.stop_words = Some(StopWords::List(stop_words(words)?)),
                ("stemmer", _) => return Err(InvalidTextAnalyzer("stemmer: expected the name of a language".into())),
                ("stop_words", _) => {
                    let text = "stop_words: expected the name of a language or a list of words";
                    return Err(InvalidTextAnalyzer(text.into()));
                }
                _ => {
                    return Err(InvalidTextAnalyzer(format!("there is no '{name}'; there are stemmer and stop_words")));
                }
            }
        }
        Ok(analyzer)
    }

    /// The declaration as a text that [`TextAnalyzer::parse`] reads.
    pub fn to_text(&self) -> String {
        match self {
            Self { stemmer: Some(language), stop_words: Some(StopWords::Of(other)) } if language == other => {
                language.name().to_owned()
            }
            _ => serde_json::to_string(self).expect("JSON has a text"),
        }
    }
}

fn language(name: &str) -> Result<Language, InvalidTextAnalyzer> {
    Language::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = Language::ALL.iter().map(|language| language.name()).collect();
        InvalidTextAnalyzer(format!("there is no language '{name}'; there are {}", names.join(", ")))
    })
}

fn stop_words(words: &[Json]) -> Result<Vec<String>, InvalidTextAnalyzer> {
    if words.len() > STOP_WORDS_MAX {
        let text = format!("stop_words: {} are more than the limit of {STOP_WORDS_MAX}", words.len());
        return Err(InvalidTextAnalyzer(text));
    }
    let word = |word: &Json| match word.as_str() {
        Some(word) if word.len() <= STOP_WORD_BYTES_MAX => Ok(word.to_owned()),
        Some(word) => Err(InvalidTextAnalyzer(format!(
            "stop_words: '{word}' has {} bytes, more than the limit of {STOP_WORD_BYTES_MAX}",
            word.len()
        ))),
        None => Err(InvalidTextAnalyzer(format!("stop_words: expected words, found {word}"))),
    };
    words.iter().map(word).collect()
}

/// Defines the languages with their names, so that no list of them can lack one.
macro_rules! languages {
    ($($variant:ident $name:literal),+ $(,)?) => {
        /// A language whose words can be reduced to stems.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        #[expect(missing_docs, reason = "languages by their names")]
        pub enum Language {
            $($variant),+
        }

        impl Language {
            /// Every language.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Its name, in lower case.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }
        }
    };
}

languages! {
    Arabic "arabic", Armenian "armenian", Basque "basque", Catalan "catalan", Czech "czech", Danish "danish",
    Dutch "dutch", English "english", Esperanto "esperanto", Estonian "estonian", Finnish "finnish", French "french",
    German "german", Greek "greek", Hindi "hindi", Hungarian "hungarian", Indonesian "indonesian", Irish "irish",
    Italian "italian", Lithuanian "lithuanian", Nepali "nepali", Norwegian "norwegian", Persian "persian",
    Polish "polish", Portuguese "portuguese", Romanian "romanian", Russian "russian", Serbian "serbian",
    Spanish "spanish", Swedish "swedish", Tamil "tamil", Turkish "turkish", Ukrainian "ukrainian", Yiddish "yiddish",
}

impl Language {
    /// The language of this name, whatever its case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|language| language.name().eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_declared_is_read_and_written_alike() {
        let english = TextAnalyzer::of(Language::English);
        let list = StopWords::List(vec!["der".into(), "die".into()]);
        for (written, expected) in [
            (json!("English"), english.clone()),
            (json!({"stemmer": "english", "stop_words": "english"}), english),
            (json!({}), TextAnalyzer::default()),
            (json!(r#"{"stop_words": ["der", "die"]}"#), TextAnalyzer { stemmer: None, stop_words: Some(list) }),
            (
                json!({"stemmer": "german", "stop_words": null}),
                TextAnalyzer { stemmer: Some(Language::German), stop_words: None },
            ),
        ] {
            let analyzer = TextAnalyzer::parse(&written).expect("is well-formed");
            assert_eq!(analyzer, expected, "{written}");
            assert_eq!(TextAnalyzer::parse(&analyzer.to_text().into()), Ok(analyzer));
        }
    }

    #[test]
    fn what_is_no_analyzer_is_refused_with_what_there_is() {
        for (written, part) in [
            (json!("klingon"), "no language 'klingon'; there are arabic, "),
            (json!(3), "expected the name of a language"),
            (json!("{"), "no JSON"),
            (json!({"stemer": "english"}), "no 'stemer'; there are stemmer and stop_words"),
            (json!({"stemmer": 1}), "stemmer: expected"),
            (json!({"stop_words": {}}), "stop_words: expected"),
            (json!({"stop_words": ["a", 1]}), "expected words, found 1"),
            (json!({"stop_words": ["a".repeat(101)]}), "101 bytes"),
            (json!({"stop_words": vec!["a"; 1001]}), "1001 are more than the limit of 1000"),
        ] {
            let error = TextAnalyzer::parse(&written).expect_err("is not well-formed").to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
