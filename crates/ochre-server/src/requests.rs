//! Counts of requests by route and status, and how long they took.
//!
//! Routes are the patterns of the router, so there are only so many of them, whatever clients ask for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::exposition::Exposition;

/// Upper bounds of the classes of durations, in seconds.
const BOUNDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// What was counted since the server was started.
#[derive(Clone, Default)]
pub(crate) struct Requests(Arc<Mutex<BTreeMap<Key, Durations>>>);

/// Method, route and status.
pub(crate) type Key = (String, String, u16);

#[derive(Default)]
struct Durations {
    classes: [u64; BOUNDS.len()],
    count: u64,
    seconds: f64,
}

impl Requests {
    pub(crate) fn add(&self, key: Key, took: Duration) {
        let seconds = took.as_secs_f64();
        let mut all = self.0.lock();
        let durations = all.entry(key).or_default();
        durations.count += 1;
        durations.seconds += seconds;
        if let Some(class) = BOUNDS.iter().position(|bound| seconds <= *bound) {
            durations.classes[class] += 1;
        }
    }

    /// In Prometheus' text format.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus knows only floats")]
    pub(crate) fn render(&self) -> String {
        const NAME: &str = "ochre_request_seconds";
        let mut out = Exposition::default();
        out.metric(NAME, "histogram", "How long requests took, by method, route and status");
        for ((method, route, status), durations) in &*self.0.lock() {
            let status = status.to_string();
            let labels = [("method", method.as_str()), ("route", route.as_str()), ("status", status.as_str())];
            let mut below = 0;
            let bounds = BOUNDS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
            let counts = durations.classes.iter().map(|count| {
                below += count;
                below
            });
            let counts: Vec<u64> = counts.chain([durations.count]).collect();
            for (bound, count) in bounds.zip(counts) {
                let labels = [&labels[..], &[("le", bound.as_str())]].concat();
                out.value(&format!("{NAME}_bucket"), &labels, count as f64);
            }
            out.value(&format!("{NAME}_sum"), &labels, durations.seconds);
            out.value(&format!("{NAME}_count"), &labels, durations.count as f64);
        }
        out.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_route_with_cumulative_classes() {
        let requests = Requests::default();
        for millis in [1, 2, 80] {
            requests.add(("GET".into(), "/a/{b}".into(), 200), Duration::from_millis(millis));
        }
        let text = requests.render();
        let line = |le: &str, count: u64| {
            format!(
                "ochre_request_seconds_bucket{{method=\"GET\",route=\"/a/{{b}}\",status=\"200\",le=\"{le}\"}} {count}\n"
            )
        };
        for (le, count) in [("0.0005", 0), ("0.001", 1), ("0.0025", 2), ("0.05", 2), ("0.1", 3), ("+Inf", 3)] {
            assert!(text.contains(&line(le, count)), "{le}: {text}");
        }
    }
}
