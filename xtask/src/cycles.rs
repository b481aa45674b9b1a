//! Import cycles between the files of a crate, found by reading `use` items and inline paths.
//!
//! A path counts for the file of the deepest module it names. Re-exports (`pub use`) and `mod` items are no imports:
//! what is imported through a re-export is looked up where it is re-exported. Tests inside files are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};

/// A module's path below `crate`.
type Module = Vec<String>;
/// By file, the files it imports from.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// The cycles of a crate's `src` folder: the files of each, if there are more than one.
pub(crate) fn cycles(source: &Path) -> Result<Vec<Vec<String>>> {
    let mut texts = BTreeMap::new();
    read(source, source, &mut texts)?;
    Ok(components(&imports(&texts)))
}

fn read(root: &Path, folder: &Path, texts: &mut BTreeMap<String, String>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            read(root, &path, texts)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
            texts.insert(name, std::fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

fn imports(texts: &BTreeMap<String, String>) -> Imports {
    let modules: BTreeMap<Module, &String> = texts.keys().map(|file| (module_of(file), file)).collect();
    let mut imports = Imports::new();
    for (file, text) in texts {
        let module = module_of(file);
        let text = without_comments(text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default());
        let found = imports.entry(file.clone()).or_default();
        for path in paths(&text) {
            if let Some(target) = resolve(&path, &module, &modules)
                && target != file
            {
                found.insert(target.clone());
            }
        }
    }
    imports
}

/// The module that a file is: `a/mod.rs` is `a`, `a/b.rs` is `a::b`, `lib.rs` the crate.
fn module_of(file: &str) -> Module {
    let mut parts: Module = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        parts.pop();
    }
    parts
}

fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The paths that begin with `crate`, `super` or `self`: of `use` items, each name in braces; and those in other code.
fn paths(text: &str) -> Vec<Module> {
    let mut paths = Vec::new();
    let mut rest = String::new();
    let mut items = text.split_inclusive(';');
    for item in items.by_ref() {
        // An item begins a line; other words that end so stand in texts.
        let is_item = |at: &usize| {
            let line = item[..*at].rsplit('\n').next().unwrap_or_default().trim();
            item[*at..].ends_with(';') && (line.is_empty() || line.starts_with("pub"))
        };
        let start = item.rfind("use ").filter(is_item);
        let Some(at) = start.filter(|at| item[at + 4..].trim_start().starts_with(['c', 's'])) else {
            rest += item;
            continue;
        };
        rest += &item[..at];
        let is_reexport = item[..at].trim_end().ends_with("pub") || item[..at].trim_end().ends_with(')');
        if !is_reexport {
            expand(&[], item[at + 4..].trim_end_matches(';'), &mut paths);
        }
    }
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    for word in rest.split(|c| !is_word(c)) {
        if ["crate::", "super::", "self::"].iter().any(|start| word.starts_with(start)) {
            paths.push(word.split("::").map(str::to_owned).collect());
        }
    }
    paths.retain(|path| ["crate", "super", "self"].contains(&path[0].as_str()));
    paths
}

/// The paths of a `use` tree.
fn expand(before: &[String], tree: &str, paths: &mut Vec<Module>) {
    let tree = tree.trim();
    let Some(brace) = tree.find('{') else {
        let name = tree.split(" as ").next().unwrap_or_default();
        paths.push(before.iter().cloned().chain(name.split("::").map(|part| part.trim().to_owned())).collect());
        return;
    };
    let own = tree[..brace]
        .trim_end_matches(':')
        .split("::")
        .filter(|part| !part.is_empty())
        .map(|part| part.trim().to_owned());
    let before: Vec<String> = before.iter().cloned().chain(own).collect();
    let inner = &tree[brace + 1..tree.rfind('}').unwrap_or(tree.len())];
    let (mut depth, mut start) = (0, 0);
    for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !inner[start..at].trim().is_empty() {
                    expand(&before, &inner[start..at], paths);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// The file of the deepest module that a path names, as seen from a module.
fn resolve<'t>(path: &[String], from: &Module, modules: &BTreeMap<Module, &'t String>) -> Option<&'t String> {
    let mut base = from.clone();
    let mut parts = path.iter().peekable();
    while let Some(part) = parts.next_if(|part| ["crate", "super", "self"].contains(&part.as_str())) {
        match part.as_str() {
            "crate" => base.clear(),
            "super" => drop(base.pop()),
            _ => {}
        }
    }
    let parts: Vec<&String> = parts.collect();
    (0..=parts.len()).rev().find_map(|length| {
        let module: Module = base.iter().chain(parts[..length].iter().copied()).cloned().collect();
        modules.get(&module).copied()
    })
}

/// The strongly connected components of more than one file: from each file, those that it reaches and that reach it.
fn components(imports: &Imports) -> Vec<Vec<String>> {
    let reached: BTreeMap<&String, BTreeSet<&String>> =
        imports.keys().map(|file| (file, reach(imports, file))).collect();
    let mut found: BTreeSet<Vec<String>> = BTreeSet::new();
    for (file, others) in &reached {
        let both = others.iter().filter(|other| reached[**other].contains(*file));
        let component: Vec<String> = both.map(|other| (*other).clone()).collect();
        if component.len() > 1 {
            found.insert(component);
        }
    }
    found.into_iter().collect()
}

fn reach<'i>(imports: &'i Imports, from: &'i String) -> BTreeSet<&'i String> {
    let (mut found, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(file) = open.pop() {
        for next in &imports[file] {
            if found.insert(next) {
                open.push(next);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)], expected: &[&[&str]]) {
        let texts = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        assert_eq!(components(&imports(&texts)), expected);
    }

    #[test]
    fn imports_in_a_circle_are_found_however_they_are_written() {
        check(&[("a.rs", "use crate::b::B;"), ("b.rs", "fn f() { super::a::g() }")], &[&["a.rs", "b.rs"]]);
        check(
            &[("x/mod.rs", "mod y;\nuse self::y::{Y, z::{Z}};"), ("x/y.rs", "use super::X;")],
            &[&["x/mod.rs", "x/y.rs"]],
        );
    }

    #[test]
    fn modules_re_exports_tests_and_comments_are_no_imports() {
        check(
            &[("x/mod.rs", "pub(crate) mod y;\npub use y::Y;\npub use self::y::Z;"), ("x/y.rs", "use super::X;")],
            &[],
        );
        check(
            &[
                ("a.rs", "// use crate::b::B;\n#[cfg(test)]\nmod tests {\n use crate::b::B; }"),
                ("b.rs", "use crate::a::A;"),
            ],
            &[],
        );
    }
}
