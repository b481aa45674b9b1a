//! Formats of strings: what a whole value looks like, never a part of it.
//!
//! Formats are found in data as annotations, and enforced only where a schema asks for them. Each is tried
//! by its shape first, since a failed parse costs more than all the rest.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use regex::Regex;

/// What a string looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names say it; `about` says exactly what")]
pub enum Format {
    Date,
    DateTime,
    LocalDateTime,
    Time,
    Uuid,
    Email,
    Url,
    Ipv4,
    Ipv6,
    Semver,
    Hash,
    SlashDate,
    DotDate,
    CompactDate,
    WordDate,
    Number,
    Boolean,
    Json,
    Country,
    Language,
}

impl Format {
    /// Every format, the narrower before the wider.
    pub const ALL: [Self; 20] = [
        Self::Date,
        Self::DateTime,
        Self::LocalDateTime,
        Self::Time,
        Self::Uuid,
        Self::Email,
        Self::Url,
        Self::Ipv4,
        Self::Ipv6,
        Self::Hash,
        Self::SlashDate,
        Self::DotDate,
        Self::CompactDate,
        Self::WordDate,
        Self::Number,
        Self::Semver,
        Self::Boolean,
        Self::Json,
        Self::Country,
        Self::Language,
    ];

    /// The name, as schemas and reports spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Date => "date",
            Self::DateTime => "date-time",
            Self::LocalDateTime => "local-date-time",
            Self::Time => "time",
            Self::Uuid => "uuid",
            Self::Email => "email",
            Self::Url => "url",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Semver => "semver",
            Self::Hash => "hash",
            Self::SlashDate => "slash-date",
            Self::DotDate => "dot-date",
            Self::CompactDate => "compact-date",
            Self::WordDate => "word-date",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Json => "json",
            Self::Country => "country",
            Self::Language => "language",
        }
    }

    /// What a value of this format is, for messages.
    pub const fn about(self) -> &'static str {
        match self {
            Self::Date => "an ISO 8601 date such as 2026-01-31",
            Self::DateTime => "an RFC 3339 date and time with a zone such as 2026-01-31T12:00:00Z",
            Self::LocalDateTime => "an ISO 8601 date and time without a zone such as 2026-01-31T12:00:00",
            Self::Time => "a time of day such as 12:00 or 12:00:00",
            Self::Uuid => "a UUID in its form with hyphens",
            Self::Email => "an e-mail address",
            Self::Url => "an absolute URL",
            Self::Ipv4 => "an IPv4 address",
            Self::Ipv6 => "an IPv6 address",
            Self::Semver => "a semantic version such as 1.2.3",
            Self::Hash => "32, 40 or 64 hexadecimal digits",
            Self::SlashDate => "a date with slashes such as 31/01/2026",
            Self::DotDate => "a date with dots such as 31.01.2026",
            Self::CompactDate => "a date of eight digits such as 20260131",
            Self::WordDate => "a date with the month in words such as Jan 31, 2026",
            Self::Number => "a number in a string",
            Self::Boolean => "true, false, yes, no, t, f, y or n",
            Self::Json => "a JSON object or array",
            Self::Country => "an ISO 3166-1 alpha-2 country code",
            Self::Language => "an ISO 639-1 language code, with or without a region",
        }
    }

    /// The format of this name; `uri` and `datetime` are accepted too.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "uri" => Some(Self::Url),
            "datetime" => Some(Self::DateTime),
            name => Self::ALL.into_iter().find(|format| format.name() == name),
        }
    }

    /// Whether it says a day, in whatever notation.
    pub const fn is_date(self) -> bool {
        matches!(
            self,
            Self::Date
                | Self::DateTime
                | Self::LocalDateTime
                | Self::SlashDate
                | Self::DotDate
                | Self::CompactDate
                | Self::WordDate
        )
    }

    /// Whether the whole text is of this format.
    pub fn matches(self, text: &str) -> bool {
        let bytes = text.as_bytes();
        let starts_with_digit = bytes.first().is_some_and(u8::is_ascii_digit);
        match self {
            Self::Date => bytes.len() == 10 && starts_with_digit && bytes[4] == b'-' && is_civil_date(text),
            Self::DateTime => is_shaped_as_date_time(bytes) && text.parse::<jiff::Timestamp>().is_ok(),
            Self::LocalDateTime => {
                is_shaped_as_date_time(bytes)
                    && text.parse::<jiff::Timestamp>().is_err()
                    && !text.contains('[')
                    && text.parse::<jiff::civil::DateTime>().is_ok()
            }
            Self::Time => {
                (5..=15).contains(&bytes.len())
                    && starts_with_digit
                    && bytes[2] == b':'
                    && text.parse::<jiff::civil::Time>().is_ok()
            }
            Self::Uuid => is_uuid(bytes),
            Self::Email => text.contains('@') && EMAIL.is_match(text),
            Self::Url => text.contains("://") && URL.is_match(text),
            Self::Ipv4 => starts_with_digit && bytes.len() <= 15 && text.parse::<Ipv4Addr>().is_ok(),
            Self::Ipv6 => bytes.contains(&b':') && bytes.len() <= 45 && text.parse::<Ipv6Addr>().is_ok(),
            Self::Semver => {
                (starts_with_digit || bytes.first() == Some(&b'v')) && bytes.contains(&b'.') && SEMVER.is_match(text)
            }
            Self::Hash => {
                matches!(bytes.len(), 32 | 40 | 64)
                    && bytes.iter().all(u8::is_ascii_hexdigit)
                    && bytes.iter().any(u8::is_ascii_alphabetic)
            }
            Self::SlashDate => starts_with_digit && bytes.contains(&b'/') && SLASH_DATE.is_match(text),
            Self::DotDate => starts_with_digit && bytes.contains(&b'.') && DOT_DATE.is_match(text),
            Self::CompactDate => bytes.len() == 8 && is_compact_date(text),
            Self::WordDate => {
                (8..=30).contains(&bytes.len())
                    && bytes.iter().filter(|byte| byte.is_ascii_digit()).count() >= 5
                    && WORD_DATE.is_match(text)
            }
            Self::Number => is_number(text),
            Self::Boolean => {
                bytes.len() <= 5
                    && ["true", "false", "yes", "no", "t", "f", "y", "n"]
                        .iter()
                        .any(|word| text.eq_ignore_ascii_case(word))
            }
            Self::Json => {
                matches!(bytes.first(), Some(b'{' | b'['))
                    && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
            }
            Self::Country => bytes.len() == 2 && COUNTRIES.as_bytes().chunks(3).any(|code| code[..2] == *bytes),
            Self::Language => is_language(bytes),
        }
    }

    /// The narrowest format of a text, if it has any.
    pub fn of(text: &str) -> Option<Self> {
        // Most strings are words: a look at their characters says that they are nothing else.
        let has_length = text.len() <= 5 || matches!(text.len(), 32 | 40 | 64);
        let has_marks = text.bytes().any(|byte| byte.is_ascii_digit() || matches!(byte, b'@' | b':' | b'{' | b'['));
        if text.is_empty() || !(has_length || has_marks) {
            return None;
        }
        Self::ALL.into_iter().find(|format| format.matches(text))
    }
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a fixed pattern")
}

static EMAIL: LazyLock<Regex> = LazyLock::new(|| pattern(r"^[^\s@<>(),;]{1,64}@[A-Za-z0-9.-]{1,250}\.[A-Za-z]{2,}$"));
static URL: LazyLock<Regex> = LazyLock::new(|| pattern(r"^[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#]+\S*$"));
static SEMVER: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^v?\d{1,9}\.\d{1,9}\.\d{1,9}(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$"));
static SLASH_DATE: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^(\d{1,2}/\d{1,2}/(\d{4}|\d{2})|\d{4}/\d{1,2}/\d{1,2})$"));
static DOT_DATE: LazyLock<Regex> = LazyLock::new(|| pattern(r"^([0-3]?\d)\.([01]?\d)\.(\d{4})$"));
static WORD_DATE: LazyLock<Regex> = LazyLock::new(|| {
    let month = "(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*";
    pattern(&format!(
        r"(?i)^(\d{{1,2}}(st|nd|rd|th|\.)?[ -]{month}\.?,?[ -]\d{{4}}|{month}\.? \d{{1,2}}(st|nd|rd|th)?,? \d{{4}})$"
    ))
});

fn is_civil_date(text: &str) -> bool {
    text.parse::<jiff::civil::Date>().is_ok()
}

/// `dddd-dd-ddTdd:dd…`, with `T`, `t` or a blank.
fn is_shaped_as_date_time(bytes: &[u8]) -> bool {
    bytes.len() >= 16
        && bytes.len() <= 40
        && bytes[4] == b'-'
        && matches!(bytes[10], b'T' | b't' | b' ')
        && bytes[13] == b':'
}

fn is_uuid(bytes: &[u8]) -> bool {
    bytes.len() == 36
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn is_compact_date(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
        && (text.starts_with("19") || text.starts_with("20"))
        && is_civil_date(&format!("{}-{}-{}", &text[..4], &text[4..6], &text[6..]))
}

/// A decimal number, with a sign, fraction and exponent if need be; no `inf`, no `NaN`, and no code such as `007`.
fn is_number(text: &str) -> bool {
    let is_code = text.len() > 1 && text.starts_with('0') && !text[1..].starts_with('.');
    text.len() <= 40
        && !is_code
        && text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E'))
        && text.bytes().any(|byte| byte.is_ascii_digit())
        && text.parse::<f64>().is_ok_and(f64::is_finite)
}

fn is_language(bytes: &[u8]) -> bool {
    let (language, region) = bytes.split_at(bytes.len().min(2));
    let is_region = matches!(region, [] | [b'-' | b'_', b'A'..=b'Z', b'A'..=b'Z']);
    is_region && language.len() == 2 && LANGUAGES.as_bytes().chunks(3).any(|code| code[..2] == *language)
}

/// ISO 3166-1 alpha-2.
const COUNTRIES: &str = "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW ";
/// ISO 639-1.
const LANGUAGES: &str = "aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu ";

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<Format>) {
        assert_eq!(Format::of(text), expected, "{text:?}");
    }

    #[test]
    fn a_value_has_the_format_it_has_as_a_whole() {
        check("2026-01-31", Some(Format::Date));
        check("2026-02-31", None);
        check("2026-01-31T12:00:00Z", Some(Format::DateTime));
        check("2026-01-31T12:00:00+02:00", Some(Format::DateTime));
        check("2026-01-31 12:00:00", Some(Format::LocalDateTime));
        check("12:30", Some(Format::Time));
        check("f47ac10b-58cc-4372-a567-0e02b2c3d479", Some(Format::Uuid));
        check("a.b@example.org", Some(Format::Email));
        check("write to a.b@example.org now", None);
        check("https://example.org/a?b", Some(Format::Url));
        check("10.0.0.1", Some(Format::Ipv4));
        check("fe80::1", Some(Format::Ipv6));
        check("1.2.3", Some(Format::Semver));
        check("d41d8cd98f00b204e9800998ecf8427e", Some(Format::Hash));
        check("31/01/2026", Some(Format::SlashDate));
        check("31.01.2026", Some(Format::DotDate));
        check("20260131", Some(Format::CompactDate));
        check("Jan 31, 2026", Some(Format::WordDate));
        check("31 January 2026", Some(Format::WordDate));
        check("-1.5e3", Some(Format::Number));
        check("0.5", Some(Format::Number));
        check("000000001", None);
        check("yes", Some(Format::Boolean));
        check("{\"a\": 1}", Some(Format::Json));
        check("DE", Some(Format::Country));
        check("en-US", Some(Format::Language));
        check("plain words", None);
        check("", None);
    }

    #[test]
    fn every_format_is_found_by_its_name() {
        for format in Format::ALL {
            assert_eq!(Format::from_name(format.name()), Some(format));
        }
    }
}
