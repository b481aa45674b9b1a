//! Why the scheduler refused or failed, grouped by what the caller can do about it.

/// Why the scheduler refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Never succeeds as written: fix it.
    #[error("invalid {what}: {reason}")]
    Invalid {
        /// What is wrong: a field of a cron expression, a zone, an interval, a knob.
        what: &'static str,
        /// Why, and what would be right.
        reason: String,
    },
    /// There is no such job.
    #[error("there is no job '{name}'{}", suggestion(.nearest.as_deref()))]
    UnknownJob {
        /// The name asked for.
        name: String,
        /// The name that is most like it.
        nearest: Option<String>,
    },
    /// The job has no such knob.
    #[error("job '{job}' has no knob '{name}'{}", suggestion(.nearest.as_deref()))]
    UnknownKnob {
        /// The job.
        job: String,
        /// The knob asked for.
        name: String,
        /// The knob that is most like it.
        nearest: Option<String>,
    },
    /// Two tasks of one name, or a second schedule for one.
    #[error("job '{0}' is scheduled already; change its schedule instead of adding another")]
    Duplicate(String),
    /// The scheduler in use does not run jobs.
    #[error("the scheduler is off; set `[scheduler] implementation = \"local\"` to run jobs")]
    Off,
    /// There is no scheduler implementation of this name.
    #[error("there is no scheduler implementation '{name}'; there are: {known}")]
    UnknownImplementation {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The job store failed; what was asked for did not happen.
    #[error("the job store failed: {0}")]
    Store(String),
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!("; did you mean '{nearest}'?")).unwrap_or_default()
}

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

#[cfg(test)]
mod tests {
    use super::*;

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
