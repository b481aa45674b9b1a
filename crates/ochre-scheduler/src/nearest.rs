//! Names that someone who misspelt one may have meant.

/// Names longer than this, in bytes, are not compared with others.
const COMPARED_MAX: usize = 64;
/// No more names than this are compared with one.
const COMPARED_NAMES_MAX: usize = 1000;

/// The name among `known` that differs from `name` in the fewest letters, if it is at all like it: what someone
/// who misspelt it may have meant.
///
/// Names of more than 64 bytes are not compared: they are no slips of the pen, and comparing them takes long.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    if name.len() > COMPARED_MAX {
        return None;
    }
    let farthest = name.chars().count().max(4) / 2;
    // Whose lengths differ by more cannot be near.
    let may_be_near = |known: &&str| known.len() <= COMPARED_MAX && known.len().abs_diff(name.len()) <= 4 * farthest;
    let known = known.filter(may_be_near).take(COMPARED_NAMES_MAX);
    let best = known.map(|other| (strsim::damerau_levenshtein(name, other), other)).min()?;
    (best.0 <= farthest).then(|| best.1.to_owned())
}

/// What to say of a member that serde does not know, with the name that may have been meant; `None` of any other error.
pub fn unknown_member(error: &str) -> Option<String> {
    let mut names = error.split_once("unknown field `")?.1.split('`').step_by(2);
    let name = names.next()?;
    let known: Vec<&str> = names.filter(|known| !known.is_empty()).collect();
    let shown: String = name.chars().take(100).collect();
    Some(match nearest(name, known.iter().copied()) {
        Some(near) => format!("there is no member '{shown}' here; did you mean '{near}'?"),
        None => format!("there is no member '{shown}' here; there are {}", known.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_serde_does_not_know_is_named_with_the_nearest() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Two {
            #[serde(rename = "columns")]
            _columns: Vec<u8>,
            #[serde(rename = "hidden")]
            _hidden: bool,
        }
        let refused = |text: &str| unknown_member(&serde_json::from_str::<Two>(text).unwrap_err().to_string());
        let near = refused(r#"{"colums": []}"#);
        assert_eq!(near.as_deref(), Some("there is no member 'colums' here; did you mean 'columns'?"));
        let other = refused(r#"{"zzzzzzzz": []}"#);
        assert_eq!(other.as_deref(), Some("there is no member 'zzzzzzzz' here; there are columns, hidden"));
        assert_eq!(refused("[]"), None);
    }

    #[test]
    fn a_misspelt_name_finds_the_one_that_was_meant() {
        let known = ["vacuum", "log-prune", "index-sync"];
        let nearest = |name| nearest(name, known.into_iter());
        assert_eq!(nearest("vaccum").as_deref(), Some("vacuum"));
        assert_eq!(nearest("index_sync").as_deref(), Some("index-sync"));
        assert_eq!(nearest("zzzzzz"), None);
        assert_eq!(nearest(""), None);
        assert_eq!(nearest(&"vacuum".repeat(20)), None);
    }
}
