//! How wide and how long things may be: comments, prose in Markdown, and functions. What is formatted (code) rustfmt
//! holds.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::root;

/// Comments and prose have at most so many characters in a line. Tables, code, and lines with a link may have more.
const WIDTH_MAX: usize = 120;
/// A function has at most so many lines.
const FUNCTION_LINES_MAX: usize = 80;

/// What is too wide or too long.
pub(crate) fn broken() -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for folder in ["crates", "bench", "fuzz", "xtask", "examples", "docs", "conformance"] {
        visit(&root().join(folder), &mut broken)?;
    }
    for entry in std::fs::read_dir(root())? {
        let path = entry?.path();
        if path.is_file() {
            look_at(&path, &mut broken)?;
        }
    }
    Ok(broken)
}

fn visit(folder: &Path, broken: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        match path.file_name().and_then(|name| name.to_str()) {
            Some("node_modules" | "target") => {}
            _ if path.is_dir() => visit(&path, broken)?,
            _ => look_at(&path, broken)?,
        }
    }
    Ok(())
}

fn look_at(path: &PathBuf, broken: &mut Vec<String>) -> Result<()> {
    let name = path.strip_prefix(root())?.to_string_lossy().replace('\\', "/");
    let wide: fn(&str) -> Vec<usize> = match path.extension().and_then(|extension| extension.to_str()) {
        Some("rs") => wide_comments,
        // It is generated.
        Some("md") if !name.starts_with("docs/reference/") => wide_prose,
        _ => return Ok(()),
    };
    let text = std::fs::read_to_string(path)?;
    for line in wide(&text) {
        broken.push(format!("{name}:{line} is wider than {WIDTH_MAX} characters"));
    }
    if name.ends_with(".rs") && !name.contains("/tests/") {
        for (function, lines) in long_functions(&text) {
            broken.push(format!("{name}: `{function}` has {lines} lines; split it ({FUNCTION_LINES_MAX} at most)"));
        }
    }
    Ok(())
}

/// The numbers of lines that are comments, wider than they may be, and no link.
fn wide_comments(text: &str) -> Vec<usize> {
    let is_wide = |line: &str| line.trim_start().starts_with("//") && line.chars().count() > WIDTH_MAX;
    let lines = text.lines().enumerate().filter(|(_, line)| is_wide(line) && !line.contains("://"));
    lines.map(|(number, _)| number + 1).collect()
}

/// The numbers of lines of prose that are wider than they may be.
fn wide_prose(text: &str) -> Vec<usize> {
    let (mut is_code, mut wide) = (false, Vec::new());
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        }
        let is_free = is_code || line.starts_with(['|', '#']) || line.starts_with("    ") || line.contains("](");
        if !is_free && line.chars().count() > WIDTH_MAX {
            wide.push(number + 1);
        }
    }
    wide
}

/// Functions with more lines than they may have, with their lines. As rustfmt writes them, a function ends with a brace
/// as far to the right as it begins.
fn long_functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut long = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let Some((before, after)) = code.split_once("fn ") else { continue };
        let is_item = before.split_whitespace().all(|word| {
            ["pub", "const", "async", "unsafe", "pub(crate)", "pub(super)"].contains(&word) || word.starts_with("pub(")
        });
        if !is_item || code.starts_with("//") {
            continue;
        }
        let end = format!("{}}}", &line[..line.len() - code.len()]);
        let signature = lines[start..].iter().position(|line| line.ends_with('{') || line.ends_with(';'));
        // Without a body it is a declaration.
        if signature.is_none_or(|at| lines[start + at].ends_with(';')) {
            continue;
        }
        let length = lines[start..].iter().position(|line| *line == end).map_or(0, |at| at + 1);
        if length > FUNCTION_LINES_MAX {
            let name = after.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
            long.push((name.to_owned(), length));
        }
    }
    long
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_lines_are_found_where_they_are_prose() {
        let wide = "x".repeat(WIDTH_MAX + 1);
        assert_eq!(wide_comments(&format!("let a = 1;\n    // {wide}\n{wide}\n// https://{wide}")), [2]);
        assert_eq!(wide_prose(&format!("{wide}\n| {wide} |\n```\n{wide}\n```\n- {wide}\n[a](b {wide})")), [1, 6]);
    }

    #[test]
    fn long_functions_are_found_and_declarations_are_none() {
        let body = "        x();\n".repeat(FUNCTION_LINES_MAX);
        let text = format!(
            "trait T {{\n    fn declared(\n        &self,\n    );\n}}\nimpl A {{\n    pub(crate) fn long() {{\n{body}    }}\n\n    fn short() {{\n    }}\n}}\n"
        );
        assert_eq!(long_functions(&text), [("long".to_owned(), FUNCTION_LINES_MAX + 2)]);
    }
}
