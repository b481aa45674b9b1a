//! Statistics of the values under one key, gathered value by value, and the report they make.
//!
//! Exact as far as the values given: quantiles are of the sorted values, cardinalities are counted. Formats are looked
//! for in at most [`FORMATS_MAX`] different strings.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use ochre_model::{Value, ValueType};
use serde_json::{Value as Json, json};

use crate::format::Format;
use crate::property::type_name;
use crate::report::{KeyReport, share};
use crate::validate::{for_each_element, list_len, shown};

/// Formats are looked for in so many different strings of a key.
const FORMATS_MAX: u64 = 100_000;
/// Case variants are looked for among so many different strings of a key.
const VARIANTS_MAX: u64 = 20_000;
/// How often lists have which length is told of so many lengths, the shortest.
const LENGTHS_MAX: usize = 50;
/// So many different elements of a key's lists are told apart.
const ELEMENTS_MAX: usize = 200_000;
/// Examples of case variants that are shown.
const VARIANT_EXAMPLES: usize = 5;
/// Values that stand alone are listed if there are at most so many.
const RARE_MAX: usize = 10;
/// A format is that of a key if so many of its values have it, as a share.
const FORMAT_SHARE: f64 = 0.999;
/// Integers between these are seconds of the years 2001 to 2100, or, times a thousand, milliseconds.
const EPOCH_SECONDS: std::ops::Range<i64> = 978_307_200..4_102_444_800;

/// What a report shows.
#[derive(Clone, Copy, Debug)]
pub struct ReportOptions {
    /// How many of the most frequent values.
    pub top: usize,
    /// Whether values are shown at all.
    pub values: bool,
    /// Whether quantiles of numbers are.
    pub quantiles: bool,
}

/// Gathers the values under one key.
#[derive(Clone, Debug, Default)]
pub struct KeyStatistics {
    bools: [u64; 2],
    ints: Vec<i64>,
    floats: Vec<f64>,
    strings: Strings,
    lists: Lists,
}

#[derive(Clone, Debug, Default)]
struct Strings {
    count: u64,
    distinct: u64,
    once: u64,
    rare: Vec<String>,
    top: Top<String>,
    /// By length in characters.
    lengths: BTreeMap<usize, u64>,
    blank: u64,
    padded: u64,
    formats: BTreeMap<Format, u64>,
    looked_at: u64,
    /// Hashes of the texts in lower case.
    variants: HashSet<u64, BuildHasherDefault<Hashed>>,
    /// How many are written in more than one way, and some of those.
    varied: u64,
    varied_examples: Vec<String>,
}

#[derive(Clone, Debug, Default)]
struct Lists {
    lengths: BTreeMap<u64, u64>,
    elements: HashMap<String, u64>,
    total: u64,
    /// Elements that were not counted, since there are too many different ones.
    overlooked: u64,
}

/// The most frequent values seen so far; of equally frequent ones the first.
#[derive(Clone, Debug)]
struct Top<T>(Vec<(u64, T)>);

impl<T> Default for Top<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Top<T> {
    /// More than any report shows.
    const KEPT: usize = 100;

    fn offer(&mut self, count: u64, value: impl FnOnce() -> T) {
        if self.0.len() == Self::KEPT && self.0.last().is_some_and(|(least, _)| *least >= count) {
            return;
        }
        let at = self.0.partition_point(|(other, _)| *other >= count);
        self.0.insert(at, (count, value()));
        self.0.truncate(Self::KEPT);
    }
}

impl KeyStatistics {
    /// Booleans of one value.
    pub fn bools(&mut self, value: bool, count: u64) {
        self.bools[usize::from(value)] += count;
    }

    /// An integer.
    pub fn int(&mut self, value: i64) {
        self.ints.push(value);
    }

    /// A float.
    pub fn float(&mut self, value: f64) {
        self.floats.push(value);
    }

    /// A string with how many records have it; each string once.
    pub fn strings(&mut self, text: &str, count: u64) {
        let strings = &mut self.strings;
        strings.count += count;
        strings.distinct += 1;
        if count == 1 {
            strings.once += 1;
            if strings.rare.len() <= RARE_MAX {
                strings.rare.push(text.to_owned());
            }
        }
        strings.top.offer(count, || text.to_owned());
        let length = if text.is_ascii() { text.len() } else { text.chars().count() };
        *strings.lengths.entry(length).or_default() += count;
        let trimmed = text.trim();
        strings.blank += if trimmed.is_empty() { count } else { 0 };
        strings.padded += if trimmed.len() != text.len() { count } else { 0 };
        if strings.distinct <= FORMATS_MAX {
            strings.looked_at += count;
            if let Some(format) = Format::of(text) {
                *strings.formats.entry(format).or_default() += count;
            }
        }
        if strings.distinct <= VARIANTS_MAX && !strings.variants.insert(hash_lower(trimmed)) {
            strings.varied += 1;
            if strings.varied_examples.len() < VARIANT_EXAMPLES {
                strings.varied_examples.push(text.to_owned());
            }
        }
    }

    /// A list.
    pub fn list(&mut self, list: &Value) {
        *self.lists.lengths.entry(list_len(list).unwrap_or(0)).or_default() += 1;
        for_each_element(list, &mut |element| {
            self.lists.total += 1;
            let is_room = self.lists.elements.len() < ELEMENTS_MAX;
            match self.lists.elements.entry(shown(element)) {
                Entry::Occupied(mut count) => *count.get_mut() += 1,
                Entry::Vacant(place) if is_room => drop(place.insert(1)),
                Entry::Vacant(_) => self.lists.overlooked += 1,
            }
        });
    }

    /// The formats found in strings, most frequent first, each with its share.
    pub fn formats(&self) -> Vec<(Format, f64)> {
        let of = self.strings.looked_at;
        let mut formats: Vec<_> =
            self.strings.formats.iter().map(|(format, count)| (*format, share(*count, of).unwrap_or(0.0))).collect();
        formats.sort_by(|a, b| b.1.total_cmp(&a.1));
        formats
    }

    /// The format that all strings have, if at least `min` of them were looked at.
    pub fn format(&self, min: u64) -> Option<Format> {
        let is_enough = self.strings.looked_at >= min && self.strings.looked_at == self.strings.count;
        let (format, count) = self.strings.formats.iter().max_by_key(|(_, count)| **count)?;
        (is_enough && *count == self.strings.count).then_some(*format)
    }

    /// How many different values there are.
    fn cardinality(&self) -> u64 {
        let bools = self.bools.iter().filter(|count| **count > 0).count() as u64;
        bools
            + distinct(&self.ints)
            + distinct_floats(&self.floats)
            + self.strings.distinct
            + self.lists.elements.len() as u64
    }

    /// Fills in what the values say. `report` has name, counts and majority already.
    pub fn report(mut self, report: &mut KeyReport, options: ReportOptions) {
        self.ints.sort_unstable();
        self.floats.sort_unstable_by(f64::total_cmp);
        let cardinality = self.cardinality();
        report.cardinality = Some(cardinality);
        report.distinct_ratio = share(cardinality, self.seen());
        self.numbers(report, options);
        if self.strings.count > 0 {
            self.describe_strings(report, options);
        }
        if self.bools[0] + self.bools[1] > 0 {
            let share = share(self.bools[1], self.bools[0] + self.bools[1]).unwrap_or(0.0);
            report.booleans = Some(json!({"true": self.bools[1], "false": self.bools[0], "share": share}));
            if options.values {
                let both = [(self.bools[0], false), (self.bools[1], true)];
                report.top.extend(
                    both.iter()
                        .filter(|(count, _)| *count > 0)
                        .map(|(count, value)| json!({"value": value, "count": count})),
                );
            }
        }
        if !self.lists.lengths.is_empty() {
            self.describe_lists(report, options);
        }
        report.top.sort_by_key(|entry| std::cmp::Reverse(entry["count"].as_u64()));
        report.top.truncate(options.top);
        self.alert(report, cardinality);
        if !options.values {
            // Of few records, statistics are values.
            (report.numbers, report.strings, report.booleans, report.lists) = (None, None, None, None);
        }
    }

    /// How many values were given.
    fn seen(&self) -> u64 {
        let lists: u64 = self.lists.lengths.values().sum();
        self.bools.iter().sum::<u64>() + (self.ints.len() + self.floats.len()) as u64 + self.strings.count + lists
    }

    #[expect(clippy::cast_precision_loss, reason = "statistics for people")]
    fn numbers(&self, report: &mut KeyReport, options: ReportOptions) {
        let count = self.ints.len() + self.floats.len();
        if count == 0 {
            return;
        }
        // Both are sorted: only together they have to be sorted again.
        let mut all: Vec<f64> = self.ints.iter().map(|int| *int as f64).chain(self.floats.iter().copied()).collect();
        if !self.ints.is_empty() && !self.floats.is_empty() {
            all.sort_unstable_by(f64::total_cmp);
        }
        let mean = all.iter().sum::<f64>() / count as f64;
        let variance = all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count as f64;
        let mut numbers = json!({
            "mean": mean,
            "standard_deviation": variance.sqrt(),
            "zeros": all.iter().filter(|x| **x == 0.0).count(),
            "negatives": all.iter().filter(|x| **x < 0.0).count(),
            "non_integral": share(self.floats.iter().filter(|x| x.fract() != 0.0).count() as u64, count as u64),
            "ints": self.ints.len(),
            "floats": self.floats.len(),
        });
        if options.values {
            // An integer is shown as one.
            let shown = |x: f64| if self.floats.is_empty() { json!(x as i64) } else { json!(x) };
            let (min, max) = match (self.ints.first(), self.ints.last(), self.floats.is_empty()) {
                (Some(min), Some(max), true) => (json!(min), json!(max)),
                _ => (json!(all[0]), json!(all[count - 1])),
            };
            numbers["min"] = min;
            numbers["max"] = max;
            if options.quantiles {
                let quantile = |q: f64| shown(all[((count - 1) as f64 * q).round() as usize]);
                numbers["quantiles"] = json!({
                    "5": quantile(0.05), "25": quantile(0.25), "50": quantile(0.5), "75": quantile(0.75),
                    "95": quantile(0.95),
                });
            }
            self.frequent_numbers(report);
        }
        let seconds = share(self.ints.iter().filter(|int| EPOCH_SECONDS.contains(int)).count() as u64, count as u64);
        let millis = share(
            self.ints.iter().filter(|int| EPOCH_SECONDS.contains(&(**int / 1000)) && **int > EPOCH_SECONDS.end).count()
                as u64,
            count as u64,
        );
        for (name, share) in [("epoch-seconds", seconds), ("epoch-milliseconds", millis)] {
            if share.is_some_and(|share| share >= FORMAT_SHARE) {
                numbers["format"] = name.into();
                report.alerts.push(name);
            }
        }
        report.numbers = Some(numbers);
    }

    /// The numbers that most records have, and those that only one has if they are few.
    fn frequent_numbers(&self, report: &mut KeyReport) {
        let (mut ints, mut floats, mut rare) = (Top::default(), Top::default(), Vec::new());
        for_each_run(&self.ints, |value, count| {
            ints.offer(count, || value);
            if count == 1 && rare.len() <= RARE_MAX {
                rare.push(json!(value));
            }
        });
        for_each_run(&self.floats, |value, count| floats.offer(count, || value));
        report.top.extend(ints.0.iter().map(|(count, value)| json!({"value": value, "count": count})));
        report.top.extend(floats.0.iter().map(|(count, value)| json!({"value": value, "count": count})));
        if rare.len() <= RARE_MAX && self.ints.len() > 100 {
            report.rare.extend(rare);
        }
    }

    fn describe_strings(&self, report: &mut KeyReport, options: ReportOptions) {
        let strings = &self.strings;
        let total: u64 = strings.lengths.iter().map(|(length, count)| *length as u64 * count).sum();
        let mut so_far = 0;
        let p95 = strings.lengths.iter().find(|(_, count)| {
            so_far += **count;
            so_far * 100 >= strings.count * 95
        });
        let formats: serde_json::Map<String, Json> =
            self.formats().iter().map(|(format, share)| (format.name().to_owned(), json!(share))).collect();
        let mut described = json!({
            "length": {
                "min": strings.lengths.keys().next(), "max": strings.lengths.keys().next_back(),
                "mean": share(total, strings.count), "p95": p95.map(|(length, _)| length),
            },
            "blank": strings.blank,
            "leading_or_trailing_blanks": strings.padded,
            "case_variants": strings.varied,
            "formats": formats,
        });
        if strings.distinct > FORMATS_MAX {
            described["formats_of"] = strings.looked_at.into();
        }
        if options.values {
            described["case_variant_examples"] = json!(strings.varied_examples);
            let top = strings
                .top
                .0
                .iter()
                .map(|(count, text)| json!({"value": shown(&Value::Str(text.clone())), "count": count}));
            report.top.extend(top);
            if strings.rare.len() <= RARE_MAX && strings.count > 100 {
                report.rare.extend(strings.rare.iter().map(|text| json!(shown(&Value::Str(text.clone())))));
            }
        }
        if strings.varied > 0 {
            report.alerts.push("case-variants");
        }
        if strings.padded > 0 {
            report.alerts.push("untrimmed");
        }
        if strings.blank > 0 {
            report.alerts.push("blank");
        }
        for (format, alert) in [
            (Format::Number, "numbers-in-strings"),
            (Format::Boolean, "booleans-in-strings"),
            (Format::Json, "json-in-strings"),
        ] {
            if self.formats().iter().any(|(found, share)| *found == format && *share >= FORMAT_SHARE) {
                report.alerts.push(alert);
            }
        }
        if self.date_formats().len() > 1 {
            report.alerts.push("mixed-date-formats");
        }
        report.strings = Some(described);
    }

    /// The notations in which dates stand among the strings, most frequent first; none unless at least half of the
    /// strings are dates.
    pub fn date_formats(&self) -> Vec<Format> {
        let dates: Vec<(Format, f64)> = self.formats().into_iter().filter(|(format, _)| format.is_date()).collect();
        let share: f64 = dates.iter().map(|(_, share)| share).sum();
        if share < 0.5 { Vec::new() } else { dates.into_iter().map(|(format, _)| format).collect() }
    }

    fn describe_lists(&self, report: &mut KeyReport, options: ReportOptions) {
        let lists = &self.lists;
        let count: u64 = lists.lengths.values().sum();
        let lengths: serde_json::Map<String, Json> =
            lists.lengths.iter().take(LENGTHS_MAX).map(|(length, count)| (length.to_string(), json!(count))).collect();
        report.lists = Some(json!({
            "lengths": lengths,
            "length": {
                "min": lists.lengths.keys().next(), "max": lists.lengths.keys().next_back(),
                "mean": share(lists.total, count),
            },
            "elements": lists.total,
            "distinct_elements": lists.elements.len(),
            "elements_not_told_apart": lists.overlooked,
        }));
        if options.values {
            let mut top = Top::default();
            lists.elements.iter().for_each(|(text, count)| top.offer(*count, || text.clone()));
            report.top.extend(top.0.into_iter().map(|(count, text)| json!({"element": text, "count": count})));
        }
    }

    fn alert(&self, report: &mut KeyReport, cardinality: u64) {
        let seen = self.seen();
        if cardinality == 1 && seen > 1 {
            report.alerts.push("constant");
        }
        if cardinality == seen && seen >= 20 && self.lists.lengths.is_empty() {
            report.alerts.push("unique");
        } else if cardinality > 50 && cardinality.saturating_mul(2) > seen {
            report.alerts.push("high-cardinality");
        }
        let most = report.top.first().and_then(|top| top["count"].as_u64()).unwrap_or(0);
        if cardinality > 1 && most.saturating_mul(100) > seen.saturating_mul(95) && seen >= 20 {
            report.alerts.push("imbalanced");
        }
    }
}

/// A hash of the text in lower case (FNV-1a, 64 bits).
fn hash_lower(text: &str) -> u64 {
    let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    const START: u64 = 0xcbf2_9ce4_8422_2325;
    if text.is_ascii() {
        text.bytes().map(|byte| byte.to_ascii_lowercase()).fold(START, hash)
    } else {
        text.to_lowercase().bytes().fold(START, hash)
    }
}

/// What was hashed already is its own hash.
#[derive(Clone, Copy, Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Calls `visit` for each run of equal values of a sorted list.
fn for_each_run<T: PartialEq + Copy>(sorted: &[T], mut visit: impl FnMut(T, u64)) {
    for run in sorted.chunk_by(|a, b| a == b) {
        visit(run[0], run.len() as u64);
    }
}

fn distinct(sorted: &[i64]) -> u64 {
    sorted.chunk_by(|a, b| a == b).count() as u64
}

fn distinct_floats(sorted: &[f64]) -> u64 {
    sorted.chunk_by(|a, b| a == b).count() as u64
}

/// The lower end of the 95 % confidence interval of a share (Wilson 1927).
#[expect(clippy::cast_precision_loss, reason = "statistics for people")]
pub(crate) fn wilson(part: u64, whole: u64) -> f64 {
    const Z: f64 = 1.96;
    if whole == 0 {
        return 0.0;
    }
    let (n, p) = (whole as f64, part as f64 / whole as f64);
    let middle = p + Z * Z / (2.0 * n);
    let spread = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    ((middle - spread) / (1.0 + Z * Z / n)).clamp(0.0, 1.0)
}

impl KeyReport {
    /// A report of the counts alone: `counts` by the order of [`ValueType::ALL`], of `records` records.
    pub fn of_counts(name: &str, counts: &[u64; ValueType::ALL.len()], records: u64) -> Self {
        let of =
            |ty: ValueType| counts[ValueType::ALL.iter().position(|other| *other == ty).expect("all types are there")];
        let count = counts.iter().sum();
        let (ints, floats) = (of(ValueType::Int), of(ValueType::Float));
        // Ties go to the type that says more.
        let order = [
            ValueType::Int,
            ValueType::Float,
            ValueType::Bool,
            ValueType::Str,
            ValueType::Ints,
            ValueType::Floats,
            ValueType::Bools,
            ValueType::Strs,
            ValueType::Sparse,
        ];
        let weight = |ty: ValueType| match ty {
            // Integers and floats together are numbers, and called floats.
            ValueType::Float if floats > 0 => ints + floats,
            ValueType::Int if floats > 0 => 0,
            ty => of(ty),
        };
        let majority = order.into_iter().rev().max_by_key(|ty| weight(*ty)).unwrap_or(ValueType::Str);
        let most = weight(majority);
        let present: Vec<ValueType> = ValueType::ALL.into_iter().filter(|ty| of(*ty) > 0).collect();
        let is_numeric = present == [ValueType::Int, ValueType::Float];
        let mut alerts = Vec::new();
        let presence = share(count, records).unwrap_or(0.0);
        if presence < 0.05 {
            alerts.push("sparse");
        }
        Self {
            name: name.to_owned(),
            count,
            presence,
            types: present.iter().map(|ty| (type_name(*ty), of(*ty))).collect(),
            majority: type_name(majority),
            confidence: wilson(most, count),
            verdict: if present.len() == 1 {
                "uniform"
            } else if is_numeric {
                "numeric"
            } else {
                "mixed"
            },
            alerts,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_values_come_first() {
        let mut top = Top::default();
        for (count, text) in [(1, "a"), (5, "b"), (3, "c"), (5, "d")] {
            top.offer(count, || text);
        }
        assert_eq!(top.0, [(5, "b"), (5, "d"), (3, "c"), (1, "a")]);
    }

    #[test]
    fn numbers_of_both_types_count_as_one_and_a_tie_goes_to_what_says_more() {
        let counts = |pairs: &[(ValueType, u64)]| {
            ValueType::ALL.map(|ty| pairs.iter().find(|(other, _)| *other == ty).map_or(0, |(_, count)| *count))
        };
        let check = |pairs: &[(ValueType, u64)], majority: &str, verdict: &str| {
            let report = KeyReport::of_counts("k", &counts(pairs), 100);
            assert_eq!((report.majority, report.verdict), (majority, verdict), "{pairs:?}");
        };
        check(&[(ValueType::Int, 90), (ValueType::Float, 10)], "float", "numeric");
        check(&[(ValueType::Int, 40), (ValueType::Float, 20), (ValueType::Str, 40)], "float", "mixed");
        check(&[(ValueType::Int, 50), (ValueType::Str, 50)], "int", "mixed");
        check(&[(ValueType::Strs, 3)], "list[string]", "uniform");
    }
}
