//! Answers about metadata indexes, from what the engine says of them.

use ochre_engine::scheduler::Timestamp;
use ochre_engine::{
    CollectionIndex, ColumnDefinition, IndexChange, IndexDefinition, IndexEstimate, IndexProgress, IndexStatistics,
    IndexUsage, IndexVerification, MetadataIndex, MissingIndex, Suggestion, SuggestionKind,
};
use ochre_extension::declaring;
use ochre_wire::admin::indexes as wire;
use serde_json::{Value as Json, json};

/// A declared index.
pub(super) fn index(index: MetadataIndex) -> wire::IndexAnswer {
    let MetadataIndex { definition, progress: at_work, statistics: size, usage: used, .. } = index;
    let IndexDefinition { index_name, tenant, database, collection, columns, partial, hidden, comment, kind } =
        definition;
    wire::IndexAnswer {
        id: index.id.to_string(),
        index_name,
        tenant,
        database,
        collection,
        collection_id: index.collection_id.map(|id| id.to_string()),
        columns: columns.into_iter().map(column).collect(),
        partial: partial.map(Json::from),
        hidden,
        comment,
        kind,
        status: index.status.name().into(),
        origin: index.origin.name().into(),
        progress: at_work.map(progress),
        error: index.error,
        created_at: time_text(index.created_at),
        built_at: index.built_at.map(time_text),
        verified_at: index.verified_at.map(time_text),
        serving_columns: index.serving_columns.map(|columns| columns.into_iter().map(column).collect()),
        statistics: statistics(size),
        usage: usage(used),
        collections: index.collections.map(|all| all.into_iter().map(in_collection).collect()),
        change: None,
        deleted: None,
    }
}

/// A declared index, and what a request did to it.
pub(super) fn changed(declared: MetadataIndex, change: IndexChange) -> wire::IndexAnswer {
    let change = match change {
        IndexChange::Building => "building",
        IndexChange::Changed => "changed",
        IndexChange::Nothing => "none",
    };
    wire::IndexAnswer { change: Some(change.into()), ..index(declared) }
}

/// What the audit log says of an index.
pub(super) fn audited(index: &wire::IndexAnswer) -> Json {
    json!({
        "index_name": index.index_name, "tenant": index.tenant, "database": index.database,
        "collection": index.collection, "columns": index.columns, "change": index.change,
    })
}

pub(super) fn estimate(estimate: IndexEstimate) -> wire::IndexEstimate {
    let IndexEstimate {
        index_name,
        collection,
        collections,
        records,
        columns,
        entries,
        bytes,
        seconds,
        overlaps,
        exists,
    } = estimate;
    let columns = columns.into_iter().map(|column| wire::ColumnEstimate {
        key: column.key,
        records: column.records,
        types: column.types.into_iter().map(|(ty, count)| (ty.name().to_owned(), count)).collect(),
    });
    wire::IndexEstimate {
        dry_run: true,
        index_name,
        columns: collection.is_some().then(|| columns.collect()),
        collection,
        collections,
        records,
        estimated_entries: entries,
        estimated_bytes: bytes,
        estimated_seconds: seconds,
        overlaps,
        exists,
    }
}

pub(super) fn verification(found: IndexVerification) -> wire::IndexVerification {
    let valid = found.is_valid();
    let IndexVerification { index_name, status, records_compared, records_wrong, records_outside, discarded } = found;
    let error = (!discarded.is_empty()).then(|| {
        format!(
            "the files of the index were missing or damaged and are used no more in {}; filters are answered from columns: rebuild it",
            discarded.join(", ")
        )
    });
    wire::IndexVerification {
        index_name,
        valid,
        records_compared,
        records_wrong,
        records_outside,
        status: status.name().into(),
        discarded,
        error,
    }
}

/// A suggestion with the request that follows it.
pub(super) fn suggestion(suggestion: Suggestion) -> wire::Suggestion {
    let definition = suggestion.definition();
    let Suggestion { tenant, database, collection, index_name, reason, kind } = suggestion;
    let (kind, missing) = match kind {
        SuggestionKind::Missing(missing) => ("missing", Some(missing)),
        SuggestionKind::Redundant => ("redundant", None),
        SuggestionKind::Unused => ("unused", None),
    };
    let request = match &definition {
        Some(definition) => wire::ReadyRequest {
            method: "POST".into(),
            path: "/_admin/metadata_indexes".into(),
            body: Some(declaring(definition)),
        },
        None => wire::ReadyRequest {
            method: "DELETE".into(),
            path: format!("/_admin/metadata_index/{index_name}?tenant={tenant}&database={database}"),
            body: None,
        },
    };
    let missing = missing.map(|MissingIndex { columns, asked, average_micros, gain, estimated_bytes }| {
        let columns = columns.into_iter().map(column).collect();
        let expected_gain = format!("about {gain}x fewer values looked at");
        wire::MissingIndex { columns, asked, average_micros, expected_gain, estimated_bytes }
    });
    let index_name = missing.is_none().then_some(index_name);
    wire::Suggestion { kind: kind.into(), tenant, database, collection, index_name, reason, missing, request }
}

fn column(column: ColumnDefinition) -> wire::Column {
    match column {
        ColumnDefinition { key, is_object: false, .. } => wire::Column::Key(key),
        ColumnDefinition { key, ty, .. } => wire::Column::Typed { key, ty },
    }
}

fn in_collection(index: CollectionIndex) -> wire::InCollection {
    let CollectionIndex {
        collection,
        collection_id,
        status,
        progress: at_work,
        error,
        built_at,
        verified_at,
        statistics: size,
    } = index;
    wire::InCollection {
        collection,
        collection_id: collection_id.to_string(),
        status: status.name().into(),
        progress: at_work.map(progress),
        error,
        built_at: built_at.map(time_text),
        verified_at: verified_at.map(time_text),
        statistics: size.map(statistics),
    }
}

fn progress(progress: IndexProgress) -> wire::Progress {
    let IndexProgress { done, total, started, elapsed_seconds } = progress;
    wire::Progress {
        phase: "collecting".into(),
        done,
        total,
        started: time_text(started),
        elapsed_seconds,
        eta_seconds: progress.eta_seconds(),
    }
}

fn statistics(statistics: IndexStatistics) -> wire::Statistics {
    let IndexStatistics {
        loaded,
        bytes_on_disk,
        bytes_in_memory,
        entries,
        distinct_keys,
        largest_key,
        segments,
        records_indexed,
        records,
    } = statistics;
    wire::Statistics {
        loaded,
        bytes_on_disk,
        bytes_in_memory,
        entries,
        distinct_keys,
        largest_key,
        segments,
        records_indexed,
        records,
    }
}

fn usage(usage: IndexUsage) -> wire::Usage {
    let IndexUsage { uses, rows, last_used, since } = usage;
    let at = |seconds: Option<u64>| seconds.map(|seconds| time_text(seconds.cast_signed()));
    wire::Usage { uses, rows, last_used: at(last_used), since: at(since) }
}

fn time_text(seconds: i64) -> String {
    Timestamp::from_seconds(seconds).to_string()
}
