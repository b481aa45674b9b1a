//! What is told beside the records of an answer: how they were found, and what of the filter should be looked at.

use ochre_engine::{Considered, Explain, Plan, Reason, Strategy};
use ochre_wire::admin::explain as wire;

/// Puts the explanation beside what was found.
pub(super) fn explained(body: Vec<u8>, explain: Option<&Explain>) -> Vec<u8> {
    with_member(body, "explain", explain.map(shown))
}

/// Puts the explanation of each search beside what they found.
pub(super) fn explained_each(body: Vec<u8>, explain: Option<&[Explain]>) -> Vec<u8> {
    with_member(body, "explain", explain.map(|all| all.iter().map(shown).collect::<Vec<_>>()))
}

/// Puts a last member, if there is one, into an object that has others.
pub(super) fn with_member(mut body: Vec<u8>, name: &str, value: Option<impl serde::Serialize>) -> Vec<u8> {
    if let Some(value) = value {
        body.pop();
        body.extend(format!(",\"{name}\":").as_bytes());
        body.extend(serde_json::to_vec(&value).unwrap_or_else(|_| b"null".to_vec()));
        body.push(b'}');
    }
    body
}

fn shown(explain: &Explain) -> wire::Explain {
    wire::Explain {
        index: explain.index.clone(),
        strategy: explain.strategy.into(),
        matches_estimated: explain.matches_estimated,
        matches_actual: explain.matches_actual,
        rows_examined: explain.rows_examined,
        coverage: explain.coverage,
        indexes: explain.indexes.iter().map(considered).collect(),
        filter_micros: explain.filter_micros,
        search_micros: explain.search_micros,
        plans: explain.plans.iter().map(plan).collect(),
        text: explain.text.clone(),
    }
}

fn considered(index: &Considered) -> wire::ConsideredIndex {
    wire::ConsideredIndex {
        index: index.index.clone(),
        columns_used: index.columns.clone(),
        estimated: index.estimated,
        used: index.reason == Reason::Used,
        reason: index.reason.text().into(),
    }
}

fn plan(plan: &Plan) -> wire::SearchPlan {
    let Plan { strategy, visited, scanned, reranked, unindexed, unreachable, .. } = *plan;
    wire::SearchPlan {
        strategy: strategy.name().into(),
        visited,
        scanned,
        reranked,
        unindexed,
        unreachable,
        fell_back: strategy == Strategy::GraphThenScan,
        measured: reranked,
        tail: unindexed,
    }
}
