//! Members that stand twice in an object: JSON readers keep the last without a word, and half of a schema would be
//! gone.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The JSON pointer (RFC 6901) of the first member that stands twice in its object, of those whose pointer is wanted;
/// `None` if there is none, or if it is no JSON.
pub fn doubled_member(json: &[u8], is_wanted: &dyn Fn(&str) -> bool) -> Option<String> {
    let mut found = None;
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let _ = Look { at: &mut String::new(), found: &mut found, is_wanted }.deserialize(&mut deserializer);
    found
}

struct Look<'a> {
    at: &'a mut String,
    found: &'a mut Option<String>,
    is_wanted: &'a dyn Fn(&str) -> bool,
}

impl Look<'_> {
    /// The same for a part of it.
    fn part(&mut self, name: &str) -> (usize, Look<'_>) {
        let before = self.at.len();
        self.at.push('/');
        self.at.push_str(&name.replace('~', "~0").replace('/', "~1"));
        (before, Look { at: self.at, found: self.found, is_wanted: self.is_wanted })
    }
}

impl<'de> DeserializeSeed<'de> for Look<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Look<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            let (before, part) = self.part(&name);
            if names.contains(&name) && (part.is_wanted)(part.at) {
                *part.found = Some(part.at.clone());
                // Nothing more is wanted.
                return Err(A::Error::custom("a member stands twice"));
            }
            map.next_value_seed(part)?;
            self.at.truncate(before);
            names.insert(name);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut sequence: A) -> Result<(), A::Error> {
        for index in 0usize.. {
            let (before, part) = self.part(&index.to_string());
            let is_there = sequence.next_element_seed(part)?.is_some();
            self.at.truncate(before);
            if !is_there {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_member_that_stands_twice_is_found() {
        let doubled = |json: &str| doubled_member(json.as_bytes(), &|_| true);
        assert_eq!(doubled(r#"{"a": {"type": "int"}, "a": {"type": "string"}}"#).as_deref(), Some("/a"));
        assert_eq!(doubled(r#"{"a": [1, {"b/c": 1, "b/c": 1}]}"#).as_deref(), Some("/a/1/b~1c"));
        assert_eq!(doubled(r#"{"a": 1.5, "b": null, "c": [true, "a", -1], "d": {"a": {}}}"#), None);
        assert_eq!(doubled(r#"{"a": {"a": 1"#), None);
        let twice = br#"{"x": 1, "x": 2, "s": {"a": 1, "a": 2}}"#;
        assert_eq!(doubled_member(twice, &|at| at.starts_with("/s/")).as_deref(), Some("/s/a"));
        assert_eq!(doubled(&"[".repeat(10_000)), None, "deeper than JSON may be");
    }
}
