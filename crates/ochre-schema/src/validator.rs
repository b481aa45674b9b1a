//! Validators that a schema brings itself: patterns, CEL expressions over the record, functions of the
//! program that embeds the database.
//!
//! A CEL expression is at most [`EXPRESSION_MAX`] characters. Its `all`, `exists`, `filter` and `map` do not nest, and
//! see nothing but the element they are at, and no value of it can become more than [`GROWTH_MAX`] times as large as
//! the record (`Growth`); patterns are compiled with the schema. So validation takes time and memory linear in the
//! record.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, LazyLock};

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue};
use cel::objects::Key;
use cel::{Context, Env, Program};
use ochre_model::{Metadata, Value};
use regex::Regex;

use crate::validate::Subject;

/// The longest CEL expression, in characters.
pub const EXPRESSION_MAX: usize = 1000;

/// So many times as large as the record, at the most, can a value become while a CEL expression is evaluated.
pub(crate) const GROWTH_MAX: u64 = 64;
/// So many times the record, at the most, are all values of an expression together.
const WORK_MAX: u64 = 2000;

/// One validator of a schema.
#[derive(Clone)]
pub struct Validator {
    /// What decides.
    pub(crate) test: Test,
    /// What to say of a record that fails it.
    pub(crate) message: Option<String>,
    /// Whether a validator that itself fails lets the record pass.
    pub(crate) accepts_on_error: bool,
}

#[derive(Clone)]
pub(crate) enum Test {
    /// Matches somewhere in the string, or in every string of the list.
    Regex(Regex),
    /// A CEL expression that is true.
    Cel(Arc<Expression>),
    /// A function registered under this name.
    Function(String),
}

/// A compiled CEL expression and its text.
pub(crate) struct Expression {
    pub(crate) text: String,
    program: Program,
    names_value: bool,
}

/// A validator that an embedder registers: the record, and the value for a validator of a key. An error says
/// what is wrong with the record.
pub type Function = dyn Fn(&Subject<'_>, Option<&Value>) -> Result<(), String> + Send + Sync;

/// Validators by name.
#[derive(Clone, Default)]
pub struct Functions(BTreeMap<String, Arc<Function>>);

impl Functions {
    /// Registers a validator; of two of one name the last counts.
    pub fn register(
        &mut self, name: &str,
        function: impl Fn(&Subject<'_>, Option<&Value>) -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.0.insert(name.to_owned(), Arc::new(function));
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl fmt::Debug for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl fmt::Debug for Validator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.rule(), self.expected())
    }
}

/// What a validator says of a record.
pub(crate) enum Finding {
    Passed,
    /// Refused, with the validator's own words if it has any.
    Refused(Option<String>),
    /// The validator could not decide.
    Broken(String),
}

static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

impl Expression {
    /// Compiles an expression; what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let length = text.chars().count();
        if length > EXPRESSION_MAX {
            return Err(format!("the expression has {length} characters, more than the limit of {EXPRESSION_MAX}"));
        }
        let program = Program::compile(text).map_err(|error| format!("the expression is not CEL: {error}"))?;
        let mut walk = Walk::default();
        walk.visit(program.expression(), 0);
        if let Some(problem) = walk.problem {
            return Err(problem);
        }
        Growth::check(program.expression())?;
        Ok(Self { text: text.to_owned(), program, names_value: walk.names_value })
    }

    /// What it gives if that can be no boolean, whatever the record is.
    pub(crate) fn gives_instead_of_a_boolean(&self) -> Option<&'static str> {
        gives_instead(self.program.expression(), &[])
    }

    /// Whether it names the value of a key.
    pub(crate) fn names_value(&self) -> bool {
        self.names_value
    }

    fn holds(&self, subject: &Subject<'_>, value: Option<&Value>) -> Result<bool, String> {
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        let pairs = subject.metadata.into_iter().flat_map(Metadata::iter);
        let record: HashMap<Key, cel::Value> = pairs.map(|(key, value)| (key.into(), to_cel(value))).collect();
        context.add_variable_from_value("record", record);
        context.add_variable_from_value("id", subject.id.to_owned());
        context.add_variable_from_value("document", subject.document.map_or(cel::Value::Null, cel::Value::from));
        context.add_variable_from_value("value", value.map_or(cel::Value::Null, to_cel));
        match self.program.execute(&context) {
            Ok(cel::Value::Bool(holds)) => Ok(holds),
            Ok(other) => Err(format!("the expression gives {:?}, not true or false", other.type_of())),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// What a search over an expression finds.
#[derive(Default)]
struct Walk {
    /// The first thing that cannot be allowed.
    problem: Option<String>,
    /// Whether it names the value of a key.
    names_value: bool,
    bound: Vec<String>,
}

/// What an expression may name besides what comprehensions bind: the record, and CEL's types.
const VARIABLES: [&str; 4] = ["value", "record", "id", "document"];
const TYPES: [&str; 10] = ["int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type", "type"];
/// The functions it may call; operators begin with another character than a letter.
const FUNCTIONS: [&str; 14] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "int",
    "uint",
    "double",
    "string",
    "bool",
    "bytes",
    "type",
    "dyn",
    "min",
    "max",
];

impl Walk {
    fn refuse(&mut self, problem: impl Into<String>) {
        self.problem.get_or_insert_with(|| problem.into());
    }

    fn visit(&mut self, expression: &IdedExpr, depth: usize) {
        match &expression.expr {
            Expr::Ident(name) if self.bound.contains(name) || TYPES.contains(&name.as_str()) => {}
            Expr::Ident(name) if VARIABLES.contains(&name.as_str()) => {
                self.names_value |= name == "value";
                if depth > 0 {
                    self.refuse(format!(
                        "inside all, exists, exists_one, filter and map only the element can be named, not {name}: otherwise validating a long list could take very long"
                    ));
                }
            }
            Expr::Ident(name) => self.refuse(format!(
                "the expression names {name}; there are value, record (the metadata), id and document"
            )),
            Expr::Call(call) => {
                let name = call.func_name.as_str();
                if name == "matches" {
                    self.refuse("matches is not there; use a validator with regex");
                } else if name.starts_with(|c: char| c.is_ascii_alphabetic()) && !FUNCTIONS.contains(&name) {
                    let near = crate::validate::nearest(name, FUNCTIONS.into_iter());
                    let hint = near.map_or_else(
                        || format!("there are {}", FUNCTIONS.join(", ")),
                        |near| format!("did you mean {near:?}?"),
                    );
                    self.refuse(format!("there is no function {name:?}; {hint}"));
                }
                call.args.iter().chain(call.target.as_deref()).for_each(|part| self.visit(part, depth));
            }
            Expr::Comprehension(inner) => {
                if depth > 0 {
                    self.refuse("all, exists, exists_one, filter and map must not stand inside each other");
                }
                self.visit(&inner.iter_range, depth);
                let before = self.bound.len();
                self.bound.extend([inner.iter_var.clone(), inner.accu_var.clone()]);
                self.bound.extend(inner.iter_var2.clone());
                for part in [&inner.accu_init, &inner.loop_cond, &inner.loop_step, &inner.result] {
                    self.visit(part, depth + 1);
                }
                self.bound.truncate(before);
            }
            Expr::List(list) => list.elements.iter().for_each(|part| self.visit(part, depth)),
            Expr::Select(select) => self.visit(&select.operand, depth),
            Expr::Map(map) => {
                for entry in &map.entries {
                    match &entry.expr {
                        EntryExpr::MapEntry(entry) => {
                            self.visit(&entry.key, depth);
                            self.visit(&entry.value, depth);
                        }
                        EntryExpr::StructField(field) => self.visit(&field.value, depth),
                    }
                }
            }
            _ => {}
        }
    }
}

/// What an expression gives if that can be no boolean; `bound` are names with what they stand for.
fn gives_instead(expression: &IdedExpr, bound: &[(&str, &IdedExpr)]) -> Option<&'static str> {
    let is_operator = |name: &str| !name.starts_with(|c: char| c.is_ascii_alphabetic());
    match &expression.expr {
        Expr::Literal(LiteralValue::Boolean(_)) => None,
        Expr::Literal(_) => Some("a constant"),
        Expr::List(_) => Some("a list"),
        Expr::Map(_) | Expr::Struct(_) => Some("a map"),
        Expr::Ident(name) => match bound.iter().find(|(own, _)| own == name) {
            Some((_, value)) => gives_instead(value, &[]),
            None => match name.as_str() {
                "id" | "document" => Some("a string"),
                "record" => Some("the whole record"),
                name if TYPES.contains(&name) => Some("a type"),
                _ => None,
            },
        },
        Expr::Call(call) => match (call.func_name.as_str(), &call.args[..]) {
            ("_?_:_", [_, yes, no]) => gives_instead(yes, bound).and(gives_instead(no, bound)),
            ("_+_" | "_-_" | "_*_" | "_/_" | "_%_" | "-_" | "size" | "int" | "uint" | "double", _) => {
                Some("a number or a text")
            }
            ("string" | "bytes", _) => Some("a text"),
            ("type", _) => Some("a type"),
            // What is looked up may be anything; every other operator compares.
            (name, _) => {
                debug_assert!(is_operator(name) || FUNCTIONS.contains(&name), "{name} passed");
                None
            }
        },
        Expr::Comprehension(inner) => gives_instead(&inner.result, &[(&inner.accu_var, &inner.accu_init)]),
        _ => None,
    }
}

/// How much larger than the record values can become, estimated from the expression alone.
///
/// A bound: what is joined adds up; a comprehension makes, of each element, as many times as its step names it. Chained
/// ranges multiply, which is how a few characters would ask for more memory than there is.
struct Growth {
    /// What comprehensions bind, with the size of all elements together.
    bound: Vec<(String, u64)>,
    work: u64,
    largest: u64,
}

impl Growth {
    fn check(expression: &IdedExpr) -> Result<(), String> {
        let mut growth = Self { bound: Vec::new(), work: 0, largest: 0 };
        growth.of(expression, 1);
        if growth.largest > GROWTH_MAX || growth.work > WORK_MAX {
            return Err(format!(
                "a value in the expression can become {} times as large as the record, and all of them together {} times; at most {GROWTH_MAX} and {WORK_MAX}: join less, and chain fewer map and filter",
                growth.largest, growth.work
            ));
        }
        Ok(())
    }

    /// The size of what a part gives; `unit` is the size of a constant, once for each element that it is made for.
    fn of(&mut self, expression: &IdedExpr, unit: u64) -> u64 {
        let size = match &expression.expr {
            Expr::Ident(name) => {
                self.bound.iter().rev().find(|(bound, _)| bound == name).map_or(unit, |(_, size)| *size)
            }
            Expr::Call(call) => {
                let parts = call.args.iter().chain(call.target.as_deref());
                let size = parts.fold(0u64, |size, part| size.saturating_add(self.of(part, unit)));
                // Comparisons and questions give true or false.
                let gives_truth = ["_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "_&&_", "_||_", "!_", "@in"];
                let gives_little =
                    ["size", "contains", "startsWith", "endsWith", "int", "uint", "double", "bool", "type"];
                let name = call.func_name.as_str();
                if gives_truth.contains(&name) || gives_little.contains(&name) { unit } else { size.max(unit) }
            }
            Expr::List(list) => list.elements.iter().fold(unit, |size, part| size.saturating_add(self.of(part, unit))),
            Expr::Map(map) => map.entries.iter().fold(unit, |size, entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    size.saturating_add(self.of(&entry.key, unit)).saturating_add(self.of(&entry.value, unit))
                }
                EntryExpr::StructField(field) => size.saturating_add(self.of(&field.value, unit)),
            }),
            Expr::Select(select) => self.of(&select.operand, unit),
            Expr::Comprehension(inner) => {
                let range = self.of(&inner.iter_range, unit);
                let before = self.bound.len();
                self.bound.push((inner.iter_var.clone(), range));
                self.bound.extend(inner.iter_var2.clone().map(|name| (name, range)));
                let begun = self.of(&inner.accu_init, unit);
                self.bound.push((inner.accu_var.clone(), 0));
                self.of(&inner.loop_cond, range);
                let step = self.of(&inner.loop_step, range);
                self.bound.push((inner.accu_var.clone(), begun.saturating_add(step)));
                let size = self.of(&inner.result, unit);
                self.bound.truncate(before);
                size
            }
            _ => unit,
        };
        self.work = self.work.saturating_add(size);
        self.largest = self.largest.max(size);
        size
    }
}

fn to_cel(value: &Value) -> cel::Value {
    match value {
        Value::Bool(b) => (*b).into(),
        Value::Int(i) => (*i).into(),
        Value::Float(f) => (*f).into(),
        Value::Str(s) => s.as_str().into(),
        Value::Bools(list) => list.iter().map(|b| cel::Value::from(*b)).collect::<Vec<_>>().into(),
        Value::Ints(list) => list.iter().map(|i| cel::Value::from(*i)).collect::<Vec<_>>().into(),
        Value::Floats(list) => list.iter().map(|f| cel::Value::from(*f)).collect::<Vec<_>>().into(),
        Value::Strs(list) => list.iter().map(|s| cel::Value::from(s.as_str())).collect::<Vec<_>>().into(),
        // Rules are about what people read.
        Value::Sparse(_) => cel::Value::Null,
    }
}

impl Validator {
    /// The rule's name in violations.
    pub(crate) const fn rule(&self) -> &'static str {
        match self.test {
            Test::Regex(_) => "regex",
            Test::Cel(_) => "cel",
            Test::Function(_) => "function",
        }
    }

    /// What it demands, as it was written.
    pub(crate) fn expected(&self) -> &str {
        match &self.test {
            Test::Regex(regex) => regex.as_str(),
            Test::Cel(expression) => &expression.text,
            Test::Function(name) => name,
        }
    }

    /// The name of the function it needs, if it needs one.
    pub(crate) fn function(&self) -> Option<&str> {
        match &self.test {
            Test::Function(name) => Some(name),
            _ => None,
        }
    }

    pub(crate) fn validate(&self, subject: &Subject<'_>, value: Option<&Value>, functions: &Functions) -> Finding {
        let found = match &self.test {
            Test::Regex(regex) => Ok(match value {
                Some(Value::Str(text)) => regex.is_match(text),
                Some(Value::Strs(list)) => list.iter().all(|text| regex.is_match(text)),
                _ => true,
            }),
            Test::Cel(expression) => expression.holds(subject, value),
            Test::Function(name) => match functions.0.get(name) {
                None => Err(format!("no validator '{name}' is registered")),
                Some(function) => match function(subject, value) {
                    Ok(()) => Ok(true),
                    Err(words) => return Finding::Refused(Some(self.message.clone().unwrap_or(words))),
                },
            },
        };
        match found {
            Ok(true) => Finding::Passed,
            Ok(false) => Finding::Refused(self.message.clone()),
            Err(_) if self.accepts_on_error => Finding::Passed,
            Err(reason) => Finding::Broken(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, is_accepted: bool) {
        let parsed = Expression::parse(text).map(drop);
        assert_eq!(parsed.is_ok(), is_accepted, "{text}: {parsed:?}");
        if !is_accepted {
            let error = parsed.unwrap_err();
            assert!(error.contains("times as large as the record"), "{text}: {error}");
        }
    }

    #[test]
    fn expressions_that_people_write_are_accepted() {
        for text in [
            "value > 3 && value < 10",
            "record.a + record.b == record.c",
            "record.tags.all(t, t.startsWith('x') || t in ['a', 'b', 'c'])",
            "record.tags.filter(t, size(t) > 3).map(t, t + '!').exists(t, t == 'abcd!')",
            "document.contains(record.title) && size(document) > 10",
            "has(record.a) ? record.a.map(x, x * 2).all(x, x > 0) : true",
            "value in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]",
        ] {
            check(text, true);
        }
    }

    #[test]
    fn expressions_that_can_be_no_boolean_are_known() {
        for text in [
            "size(value)",
            "value + 1",
            "'x'",
            "record",
            "document",
            "[1]",
            "{'a': 1}",
            "record.a.map(x, x > 1)",
            "record.a.filter(x, x > 1)",
            "has(record.a) ? 1 : 2",
            "type(value)",
            "-value",
            "string(value)",
        ] {
            assert!(Expression::parse(text).unwrap().gives_instead_of_a_boolean().is_some(), "{text}");
        }
        for text in [
            "value",
            "record.seen",
            "record['seen']",
            "true",
            "has(record.a)",
            "!value",
            "value in [1]",
            "record.a.all(x, x > 1)",
            "record.a.exists_one(x, x > 1)",
            "has(record.a) ? 1 : true",
            "bool(value)",
            "document.contains('x')",
            "value ? record.a : record.b",
        ] {
            assert_eq!(Expression::parse(text).unwrap().gives_instead_of_a_boolean(), None, "{text}");
        }
    }

    #[test]
    fn expressions_that_double_a_value_again_and_again_are_refused() {
        let doubled = |start: &str, step: &str, times: usize| {
            let chain: String = (0..times).map(|_| format!(".map(x, {step})")).collect();
            format!("{start}{chain}.all(x, true)")
        };
        check(&doubled("[document]", "x + x", 60), false);
        check(&doubled("['aaaaaaaa']", "x + x", 20), false);
        check(&doubled("record.tags", "[x, x]", 20), false);
        check(&doubled("[value]", "{'a': x, 'b': x}", 20), false);
        check(&doubled("[document]", "x + x + x + x + x + x + x + x", 4), false);
        check(&doubled("[document]", "x", 4), true);
        check(&format!("[{}].all(x, true)", ["document"; 80].join(", ")), false);
        let nested = (0..9).fold("document".to_owned(), |inner, _| format!("({inner} + {inner})"));
        assert!(Expression::parse(&format!("{nested} == 'x'")).is_err());
    }
}
