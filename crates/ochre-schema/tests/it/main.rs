//! Schemas from the outside: what is accepted and refused, and by which words.

#![expect(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod parsing;
mod validation;
