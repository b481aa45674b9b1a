//! Splitting a text into terms, for ranked search.
//!
//! Words are found by the rules of Unicode (UAX #29, "Unicode Text Segmentation"), then divided at whatever joins them,
//! such as apostrophes and underscores; points and commas between digits stay. They are folded: to lower case, without
//! accents, compatibility forms as what they stand for (UAX #15, "Unicode Normalization Forms"). Where words are not
//! divided by spaces, as in Chinese, Japanese and Thai, and in Korean, characters are terms, and so is each pair of
//! neighbours; queries ask for the pairs, and for single characters only where those stand alone.

use std::borrow::Cow;
use std::collections::HashSet;

use ochre_model::{Language, StopWords, TextAnalyzer};
use snowball_stemmers_rs::{Algorithm, Stemmer};
use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;
use unicode_segmentation::UnicodeSegmentation as _;

/// Raised whenever the same text is split into other terms than before: indexes are built again then.
const ANALYZER_VERSION: u32 = 1;
/// The most characters of a word that count.
const WORD_CHARACTERS_MAX: usize = 100;
/// Marks beyond these are characters of their own.
const MARKED_BYTES_MAX: usize = 64;
/// The most terms of a query that count.
pub(crate) const QUERY_TERMS_MAX: usize = 256;

/// Splits texts into terms.
pub struct Analyzer {
    stemmer: Option<Stemmer>,
    stop_words: HashSet<String>,
    fingerprint: u64,
}

/// How a term stands in a text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It is a word of its own.
    Word,
    /// It is one of the characters of a run without spaces.
    Character,
    /// It is two neighbours in such a run; the text is no longer for it.
    Pair,
}

/// Whether to go on.
type Continue = bool;

impl Analyzer {
    /// One with these settings.
    pub fn new(settings: &TextAnalyzer) -> Self {
        let mut analyzer = Self {
            stemmer: None,
            stop_words: HashSet::new(),
            fingerprint: hash(&format!("{ANALYZER_VERSION} {}", settings.to_text())),
        };
        let mut stop_words = HashSet::new();
        let mut leave_out = |words: &str| {
            analyzer.split_words(words, &mut |word| {
                stop_words.insert(lower(word).into_owned());
                true
            });
        };
        match &settings.stop_words {
            None => {}
            Some(StopWords::Of(language)) => {
                stop_words::lookup(code(*language)).unwrap_or_default().iter().for_each(|words| leave_out(words));
            }
            Some(StopWords::List(words)) => words.iter().for_each(|words| leave_out(words)),
        }
        analyzer.stop_words = stop_words;
        analyzer.stemmer = settings.stemmer.map(|language| Stemmer::create(algorithm(language)));
        analyzer
    }

    /// Tells what it does from what others do.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Gives `visit` every term of a document, and whether it counts for the document's length, until it says to stop.
    pub(crate) fn document_terms(&self, text: &str, visit: &mut dyn FnMut(&str, bool) -> Continue) {
        self.split(text, true, &mut |term, kind| visit(term, kind != Kind::Pair));
    }

    /// The different terms of a query, each with how often it is there, in the order in which they first stand.
    pub(crate) fn query_terms(&self, text: &str) -> Vec<(String, u32)> {
        let mut terms: Vec<(String, u32)> = Vec::new();
        let mut count = 0;
        self.split(text, false, &mut |term, _| {
            count += 1;
            match terms.iter_mut().find(|(other, _)| other == term) {
                Some((_, times)) => *times += 1,
                None => terms.push((term.to_owned(), 1)),
            }
            count < QUERY_TERMS_MAX
        });
        terms
    }

    /// Gives every term of a text: of runs without spaces all characters and pairs, or for queries the pairs alone, and
    /// characters that stand alone.
    fn split(&self, text: &str, is_document: bool, visit: &mut dyn FnMut(&str, Kind) -> Continue) {
        if text.is_ascii() {
            self.split_words(text, &mut |word| self.word(word, visit));
            return;
        }
        let mut run = Run { is_document, ..Run::default() };
        for segment in text.split_word_bounds() {
            // What Unicode does not divide may be of both kinds: Korean letters beside those of others.
            let mut rest = segment;
            while let Some(first) = rest.chars().next() {
                let is_run = is_unspaced(first);
                let is_same = |c: char| is_unspaced(c) == is_run || is_combining_mark(c) || is_ignored(c);
                let (part, left) = rest.split_at(rest.find(|c| !is_same(c)).unwrap_or(rest.len()));
                rest = left;
                let goes_on = if is_run {
                    part.nfkc().all(|c| run.push(c, visit))
                } else {
                    run.end(visit) && self.split_words(part, &mut |word| self.word(word, visit))
                };
                if !goes_on {
                    return;
                }
            }
        }
        run.end(visit);
    }

    /// The words of a text that has no run of characters without spaces.
    fn split_words(&self, text: &str, visit: &mut dyn FnMut(&str) -> Continue) -> Continue {
        let mut start = None;
        let mut chars = text.char_indices().peekable();
        let mut before = ' ';
        while let Some((at, c)) = chars.next() {
            let after = chars.peek().map_or(' ', |(_, c)| *c);
            let is_number = matches!(c, '.' | ',') && before.is_ascii_digit() && after.is_ascii_digit();
            if is_part(c) || start.is_some() && is_number {
                start.get_or_insert(at);
            } else if let Some(start) = start.take()
                && !visit(&text[start..at])
            {
                return false;
            }
            before = c;
        }
        start.is_none_or(|start| visit(&text[start..]))
    }

    fn word(&self, word: &str, visit: &mut dyn FnMut(&str, Kind) -> Continue) -> Continue {
        let end = word.char_indices().nth(WORD_CHARACTERS_MAX).map_or(word.len(), |(at, _)| at);
        let lower = lower(&word[..end]);
        if self.stop_words.contains(&*lower) {
            return true;
        }
        let stem = match &self.stemmer {
            Some(stemmer) => stemmer.stem(&lower),
            None => Cow::Borrowed(&*lower),
        };
        let folded = fold(&stem);
        folded.is_empty() || visit(&folded, Kind::Word)
    }
}

/// Characters without spaces between them, as they come.
#[derive(Default)]
struct Run {
    is_document: bool,
    /// The character that may still get marks.
    open: String,
    /// The one before it, folded.
    before: String,
    /// How many there were before it.
    count: usize,
}

impl Run {
    /// Adds a character; marks belong to the one before.
    fn push(&mut self, c: char, visit: &mut dyn FnMut(&str, Kind) -> Continue) -> Continue {
        let is_mark =
            !self.open.is_empty() && self.open.len() < MARKED_BYTES_MAX && (is_combining_mark(c) || is_ignored(c));
        let goes_on = is_mark || self.close(visit);
        self.open.push(c);
        goes_on
    }

    /// Gives what is made of the open character.
    fn close(&mut self, visit: &mut dyn FnMut(&str, Kind) -> Continue) -> Continue {
        if self.open.is_empty() {
            return true;
        }
        let unit = fold(&lower(&self.open)).into_owned();
        self.open.clear();
        self.count += 1;
        let mut goes_on = !self.is_document || visit(&unit, Kind::Character);
        if self.count > 1 {
            self.before.push_str(&unit);
            goes_on = goes_on && visit(&self.before, Kind::Pair);
        }
        self.before = unit;
        goes_on
    }

    /// Ends the run.
    fn end(&mut self, visit: &mut dyn FnMut(&str, Kind) -> Continue) -> Continue {
        let mut goes_on = self.close(visit);
        if self.count == 1 && !self.is_document {
            goes_on = goes_on && visit(&self.before, Kind::Character);
        }
        (self.count, self.open) = (0, String::new());
        goes_on
    }
}

/// A text as a number (FNV-1a, 64 bits).
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}

/// A word in lower case, its compatibility forms as what they stand for.
fn lower(word: &str) -> Cow<'_, str> {
    if word.is_ascii() {
        if word.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Cow::Owned(word.to_ascii_lowercase());
        }
        return Cow::Borrowed(word);
    }
    let lower = word.nfkc().flat_map(char::to_lowercase).map(|c| if c == 'ς' { 'σ' } else { c });
    Cow::Owned(lower.nfc().collect())
}

/// A word without accents, and with letters of few languages as those that stand for them elsewhere.
fn fold(word: &str) -> Cow<'_, str> {
    if word.is_ascii() {
        return Cow::Borrowed(word);
    }
    let mut folded = String::with_capacity(word.len());
    for c in word.nfkd().filter(|c| !is_accent(*c) && !is_ignored(*c)) {
        match c {
            'ß' => folded.push_str("ss"),
            'æ' => folded.push_str("ae"),
            'œ' => folded.push_str("oe"),
            'þ' => folded.push_str("th"),
            'ø' => folded.push('o'),
            'đ' | 'ð' => folded.push('d'),
            'ħ' => folded.push('h'),
            'ł' => folded.push('l'),
            'ı' => folded.push('i'),
            c => folded.push(c),
        }
    }
    Cow::Owned(folded.nfc().collect())
}

/// Whether a character is a part of words.
fn is_part(c: char) -> bool {
    c.is_ascii_alphanumeric() || !c.is_ascii() && (c.is_alphanumeric() || is_combining_mark(c) || is_ignored(c))
}

/// Whether it is a mark that words are often written without: accents of European scripts, vowels of Hebrew and Arabic.
/// Vowels of Indian scripts are marks too, and are never left out.
fn is_accent(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36F}' | '\u{1AB0}'..='\u{1AFF}' | '\u{1DC0}'..='\u{1DFF}' | '\u{20D0}'..='\u{20FF}'
        | '\u{FE20}'..='\u{FE2F}' | '\u{591}'..='\u{5C7}' | '\u{610}'..='\u{61A}' | '\u{64B}'..='\u{65F}' | '\u{670}')
}

/// Whether it is one that is not seen: soft hyphens, joiners, directions, variants of others.
fn is_ignored(c: char) -> bool {
    matches!(c, '\u{AD}' | '\u{200C}'..='\u{200F}' | '\u{2060}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}')
}

/// Whether it is of a script that does not divide words by spaces, or is like Korean made of syllables.
fn is_unspaced(c: char) -> bool {
    matches!(c, '\u{E00}'..='\u{EFF}' | '\u{1000}'..='\u{109F}' | '\u{1100}'..='\u{11FF}' | '\u{1780}'..='\u{17FF}'
        | '\u{2E80}'..='\u{2FDF}' | '\u{3005}'..='\u{3007}' | '\u{3031}'..='\u{3035}' | '\u{3041}'..='\u{318F}'
        | '\u{31A0}'..='\u{31BF}' | '\u{31F0}'..='\u{31FF}' | '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}'
        | '\u{A960}'..='\u{A97F}' | '\u{AC00}'..='\u{D7FF}' | '\u{F900}'..='\u{FAFF}' | '\u{FF66}'..='\u{FFDC}'
        | '\u{1AFF0}'..='\u{1B16F}' | '\u{20000}'..='\u{3FFFF}')
        && !matches!(c, '\u{E3F}' | '\u{E4F}' | '\u{E5A}'..='\u{E5B}' | '\u{104A}'..='\u{104F}'
            | '\u{17D4}'..='\u{17DB}' | '\u{30FB}')
}

/// The code by which the stop words of a language are found (ISO 639-1).
fn code(language: Language) -> &'static str {
    match language {
        Language::Arabic => "ar",
        Language::Armenian => "hy",
        Language::Basque => "eu",
        Language::Catalan => "ca",
        Language::Czech => "cs",
        Language::Danish => "da",
        Language::Dutch => "nl",
        Language::English => "en",
        Language::Esperanto => "eo",
        Language::Estonian => "et",
        Language::Finnish => "fi",
        Language::French => "fr",
        Language::German => "de",
        Language::Greek => "el",
        Language::Hindi => "hi",
        Language::Hungarian => "hu",
        Language::Indonesian => "id",
        Language::Irish => "ga",
        Language::Italian => "it",
        Language::Lithuanian => "lt",
        Language::Nepali => "ne",
        Language::Norwegian => "no",
        Language::Persian => "fa",
        Language::Polish => "pl",
        Language::Portuguese => "pt",
        Language::Romanian => "ro",
        Language::Russian => "ru",
        Language::Serbian => "sr",
        Language::Spanish => "es",
        Language::Swedish => "sv",
        Language::Tamil => "ta",
        Language::Turkish => "tr",
        Language::Ukrainian => "uk",
        Language::Yiddish => "yi",
    }
}

fn algorithm(language: Language) -> Algorithm {
    match language {
        Language::Arabic => Algorithm::Arabic,
        Language::Armenian => Algorithm::Armenian,
        Language::Basque => Algorithm::Basque,
        Language::Catalan => Algorithm::Catalan,
        Language::Czech => Algorithm::Czech,
        Language::Danish => Algorithm::Danish,
        Language::Dutch => Algorithm::Dutch,
        Language::English => Algorithm::English,
        Language::Esperanto => Algorithm::Esperanto,
        Language::Estonian => Algorithm::Estonian,
        Language::Finnish => Algorithm::Finnish,
        Language::French => Algorithm::French,
        Language::German => Algorithm::German,
        Language::Greek => Algorithm::Greek,
        Language::Hindi => Algorithm::Hindi,
        Language::Hungarian => Algorithm::Hungarian,
        Language::Indonesian => Algorithm::Indonesian,
        Language::Irish => Algorithm::Irish,
        Language::Italian => Algorithm::Italian,
        Language::Lithuanian => Algorithm::Lithuanian,
        Language::Nepali => Algorithm::Nepali,
        Language::Norwegian => Algorithm::Norwegian,
        Language::Persian => Algorithm::Persian,
        Language::Polish => Algorithm::Polish,
        Language::Portuguese => Algorithm::Portuguese,
        Language::Romanian => Algorithm::Romanian,
        Language::Russian => Algorithm::Russian,
        Language::Serbian => Algorithm::Serbian,
        Language::Spanish => Algorithm::Spanish,
        Language::Swedish => Algorithm::Swedish,
        Language::Tamil => Algorithm::Tamil,
        Language::Turkish => Algorithm::Turkish,
        Language::Ukrainian => Algorithm::Ukrainian,
        Language::Yiddish => Algorithm::Yiddish,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(analyzer: &Analyzer, text: &str) -> Vec<String> {
        let mut terms = Vec::new();
        analyzer.document_terms(text, &mut |term, _| {
            terms.push(term.to_owned());
            true
        });
        terms
    }

    fn queried(analyzer: &Analyzer, text: &str) -> Vec<String> {
        analyzer.query_terms(text).into_iter().map(|(term, _)| term).collect()
    }

    #[test]
    fn words_are_divided_and_folded() {
        let plain = Analyzer::new(&TextAnalyzer::default());
        for (text, expected) in [
            ("Hello, World!", vec!["hello", "world"]),
            ("don't stop l’été", vec!["don", "t", "stop", "l", "ete"]),
            ("snake_case foo.bar a1.b2 v1.2", vec!["snake", "case", "foo", "bar", "a1", "b2", "v1.2"]),
            ("3.14 1,000.50 1. 2,", vec!["3.14", "1,000.50", "1", "2"]),
            ("Ünïcödé Straße STRASSE Ærø łódź", vec!["unicode", "strasse", "strasse", "aero", "lodz"]),
            ("ΟΔΟΣ οδός", vec!["οδοσ", "οδοσ"]),
            ("İstanbul ﬁne ①", vec!["istanbul", "fine", "1"]),
            ("е\u{301}лка ёлка", vec!["елка", "елка"]),
            ("हिन्दी", vec!["हिन्दी"]),
            ("מָה مَرْحَبًا", vec!["מה", "مرحبا"]),
            ("co\u{AD}operate", vec!["cooperate"]),
            ("🎉 — … \u{301}", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(terms(&plain, text), expected, "{text}");
            assert_eq!(terms(&plain, &format!("{text} é")).split_last().unwrap().1, expected, "{text} by Unicode");
        }
        assert_eq!(terms(&plain, &"x".repeat(500)), ["x".repeat(100)]);
        assert_eq!(terms(&plain, &"é".repeat(500)), ["e".repeat(100)]);
    }

    #[test]
    fn scripts_without_spaces_are_characters_and_pairs() {
        let plain = Analyzer::new(&TextAnalyzer::default());
        assert_eq!(terms(&plain, "東京 tower"), ["東", "京", "東京", "tower"]);
        for (text, expected) in [
            ("Python을 배우다", vec!["python", "을", "배우", "우다"]),
            ("2024년", vec!["2024", "년"]),
            ("LG전자", vec!["lg", "전자"]),
            ("파이썬Python", vec!["파이", "이썬", "python"]),
            ("カタ_hello", vec!["カタ", "hello"]),
        ] {
            assert_eq!(queried(&plain, text), expected);
        }
        assert_eq!(queried(&plain, "東京都"), ["東京", "京都"]);
        assert_eq!(queried(&plain, "猫 a"), ["猫", "a"]);
        assert_eq!(queried(&plain, "한국어"), ["한국", "국어"]);
        // Half-width forms and marks that are written apart are the same.
        assert_eq!(queried(&plain, "ｶﾞｽ"), queried(&plain, "ガス"));
        assert_eq!(queried(&plain, "カ\u{3099}ス"), queried(&plain, "ガス"));
        assert!(queried(&plain, "ภาษาไทย").contains(&"ภา".to_owned()));
        let mut length = 0;
        plain.document_terms("東京都 x", &mut |_, is_counted| {
            length += usize::from(is_counted);
            true
        });
        assert_eq!(length, 4);
    }

    #[test]
    fn languages_have_stems_and_stop_words() {
        let english = Analyzer::new(&TextAnalyzer::of(Language::English));
        assert_eq!(terms(&english, "The running of horses, don't they"), ["run", "hors"]);
        let french = Analyzer::new(&TextAnalyzer::of(Language::French));
        assert_eq!(terms(&french, "Les chevaux préférés"), terms(&french, "cheval préférer"));
        let greek = Analyzer::new(&TextAnalyzer::of(Language::Greek));
        assert_eq!(terms(&greek, "ΤΗΣ της"), Vec::<String>::new());
        assert_eq!(terms(&Analyzer::new(&TextAnalyzer::of(Language::Basque)), "ala aldiz"), Vec::<String>::new());
        let own = TextAnalyzer { stemmer: None, stop_words: Some(StopWords::List(vec!["don't".into()])) };
        assert_eq!(terms(&Analyzer::new(&own), "don't stop"), ["stop"]);
        let own = TextAnalyzer { stemmer: None, stop_words: Some(StopWords::List(vec!["ÉTÉ".into()])) };
        assert_eq!(terms(&Analyzer::new(&own), "été The"), ["the"]);
        for language in Language::ALL {
            let analyzer = Analyzer::new(&TextAnalyzer::of(*language));
            for text in ["a", "é", "日本", "мир", "שלום", "हिन्दी", "x\u{301}", "1", "ααααα", "iiiiiiiii", "ійїє"]
            {
                terms(&analyzer, text);
            }
        }
        let fingerprints: HashSet<u64> =
            Language::ALL.iter().map(|language| Analyzer::new(&TextAnalyzer::of(*language)).fingerprint()).collect();
        assert_eq!(fingerprints.len(), Language::ALL.len());
    }

    #[test]
    fn queries_count_their_terms_up_to_a_limit() {
        let plain = Analyzer::new(&TextAnalyzer::default());
        assert_eq!(plain.query_terms("a b A"), [("a".to_owned(), 2), ("b".to_owned(), 1)]);
        let long: String = (0..1000).map(|number| format!("{number} ")).collect();
        assert_eq!(plain.query_terms(&long).len(), QUERY_TERMS_MAX);
    }
}
