//! Administration of metadata indexes: declared, listed, changed, rebuilt, verified, suggested.

mod answers;

use std::collections::BTreeSet;
use std::sync::Arc;

use ochre_engine::scheduler::nearest;
use ochre_engine::{
    DEFAULT_DATABASE, DEFAULT_TENANT, Database, IndexChange, IndexDefinition, IndexSelection, IndexStatus,
    MetadataIndex, Suggestion,
};
use ochre_extension::{
    Access, Answer, ApiExtension, Call, Caller, Description, Failure, Operation, Parameter, Permission, StatusCode,
    Target,
};
use ochre_wire::admin::indexes as wire;
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use utoipa::OpenApi;
use uuid::Uuid;

/// One request declares at most so many indexes.
const DEFINITIONS_MAX: usize = 100;
const READ: Access = Access::Any(Permission::IndexRead);
const WRITE: Access = Access::Any(Permission::IndexWrite);
const TENANT: Parameter = Parameter::text("tenant");
const DATABASE: Parameter = Parameter::text("database");
const COLLECTION: Parameter = Parameter::text("collection");
const DRY_RUN: Parameter = Parameter::flag("dry_run");
/// The parameters that say which database an index is of.
const NAMESPACE: &[Parameter] = &[TENANT, DATABASE];

/// The extension.
pub(super) struct MetadataIndexes;

impl ApiExtension for MetadataIndexes {
    fn name(&self) -> &'static str {
        "metadata-indexes"
    }

    fn description(&self) -> &'static str {
        "administration of metadata indexes"
    }

    fn requires(&self) -> &'static [&'static str] {
        &["metadata-indexes"]
    }

    fn operations(self: Arc<Self>) -> Vec<Operation> {
        let many = "/_admin/metadata_indexes";
        let one = "/_admin/metadata_index/{index_name}";
        vec![
            Description::post(
                many,
                "Declare a metadata index, or several; with replace the list becomes the whole set of the collections, or the database, that it names",
                WRITE,
            )
            .takes("MetadataIndexes")
            .answers(202, "object")
            .query(const { &[DRY_RUN, Parameter::flag("replace"), COLLECTION, TENANT, DATABASE] })
            .does(create),
            Description::get(many, "List the declared metadata indexes", READ)
                .answers(200, "IndexList")
                .query(const { &[COLLECTION, Parameter::text("status"), TENANT, DATABASE] })
                .does(list),
            Description::delete(
                many,
                "Delete the metadata indexes of a collection, a database or a tenant; of the default database if none is named",
                WRITE,
            )
                .query(const { &[COLLECTION, TENANT, DATABASE, Parameter::flag("confirm"), DRY_RUN] })
                .does(delete_many),
            Description::get(
                "/_admin/metadata_indexes/suggestions",
                "Suggest metadata indexes for the filters of past requests, each with a ready request",
                READ,
            )
            .answers(200, "SuggestionList")
            .query(const { &[COLLECTION, TENANT, DATABASE] })
            .does(suggest),
            Description::get(one, "Get a metadata index: its definition, status, progress, size and usage", READ)
                .answers(200, "IndexAnswer")
                .query(NAMESPACE)
                .does(show),
            Description::put(
                one,
                "Create a metadata index, or change it to what the body says, its name included; rebuilt in the background if necessary",
                WRITE,
            )
            .takes("MetadataIndex")
            .answers(202, "IndexAnswer")
            .query(NAMESPACE)
            .does(replace),
            Description::delete(one, "Delete a metadata index, and stop its build", WRITE).query(NAMESPACE).does(delete),
            Description::post(
                "/_admin/metadata_index/{index_name}/rebuild",
                "Rebuild a metadata index in the background; the present one stays active until then",
                WRITE,
            )
            .answers(202, "IndexAnswer")
            .query(NAMESPACE)
            .does(rebuild),
            Description::post(
                "/_admin/metadata_index/{index_name}/cancel",
                "Cancel a build; the index that was active stays active",
                WRITE,
            )
            .answers(202, "IndexAnswer")
            .query(NAMESPACE)
            .does(cancel),
            Description::get(
                "/_admin/metadata_index/{index_name}/verify",
                "Compare a metadata index with the records; one that differs is not used until it is rebuilt",
                READ,
            )
            .answers(200, "IndexVerification")
            .query(NAMESPACE)
            .does(verify),
        ]
    }

    fn schemas(&self) -> Map<String, Json> {
        let one = json!({"$ref": "#/components/schemas/MetadataIndex"});
        let several = json!({"oneOf": [one, {"type": "array", "items": one}]});
        let answers = json!(Answers::openapi())["components"]["schemas"].take();
        let mut schemas = match answers {
            Json::Object(schemas) => schemas,
            _ => Map::new(),
        };
        schemas.extend([("MetadataIndex".to_owned(), schema()), ("MetadataIndexes".to_owned(), several)]);
        schemas
    }
}

/// The shapes of answers.
#[derive(OpenApi)]
#[openapi(components(schemas(
    wire::IndexAnswer,
    wire::IndexList,
    wire::IndexEstimate,
    wire::IndexVerification,
    wire::SuggestionList,
)))]
struct Answers;

/// What a metadata index is declared to be.
fn schema() -> Json {
    json!({
        "type": "object",
        "required": ["index_name", "columns"],
        "additionalProperties": false,
        "properties": {
            "index_name": {"type": "string", "pattern": "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$"},
            "tenant": {"type": "string"},
            "database": {"type": "string"},
            "collection": {
                "type": ["string", "null"],
                "description": "By name or id. Without one the index is of every collection of the database, present and future; PUT keeps what it was",
            },
            "columns": {
                "type": "array",
                "minItems": 1,
                "maxItems": 8,
                "items": {"oneOf": [
                    {"type": "string"},
                    {
                        "type": "object", "required": ["key"], "additionalProperties": false,
                        "properties": {"key": {"type": "string"}, "type": {"type": "string"}},
                    },
                ]},
                "description": "Metadata keys in the order of lookups; string_value, int_value, float_value and bool_value are every key of a type",
            },
            "where": {"type": "object", "description": "Only records that pass this filter"},
            "hidden": {"type": "boolean"},
            "comment": {"type": "string"},
            "kind": {"enum": ["auto", "ordered"]},
        },
    })
}

#[derive(Deserialize)]
struct Scope {
    tenant: Option<String>,
    database: Option<String>,
    collection: Option<String>,
    status: Option<String>,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    replace: bool,
    #[serde(default)]
    confirm: bool,
}

impl Scope {
    fn home(&self) -> (&str, &str) {
        (self.tenant.as_deref().unwrap_or(DEFAULT_TENANT), self.database.as_deref().unwrap_or(DEFAULT_DATABASE))
    }

    fn selection(&self) -> Result<IndexSelection, Failure> {
        Ok(IndexSelection {
            tenant: self.tenant.clone(),
            database: self.database.clone(),
            collection: self.collection.clone(),
            status: self.status.as_deref().map(status).transpose()?,
        })
    }
}

fn status(name: &str) -> Result<IndexStatus, Failure> {
    let names = IndexStatus::ALL.map(IndexStatus::name);
    IndexStatus::ALL.into_iter().find(|status| status.name() == name).ok_or_else(|| {
        let hint = nearest(name, names.into_iter()).map_or(String::new(), |near| format!("; did you mean '{near}'?"));
        Failure::invalid(format!("status: no index has the status '{name}'; there are {}{hint}", names.join(", ")))
    })
}

/// The database that an index's name is unique in.
#[derive(Deserialize)]
struct Namespace {
    tenant: Option<String>,
    database: Option<String>,
}

impl Namespace {
    fn parts(&self) -> (&str, &str) {
        (self.tenant.as_deref().unwrap_or(DEFAULT_TENANT), self.database.as_deref().unwrap_or(DEFAULT_DATABASE))
    }
}

/// Fails unless the caller may do this to an index, as it is shown: as if it were not there, if nothing is granted
/// there. An index of a database needs a grant on all of it.
fn check(caller: &Caller, permission: Permission, index: &MetadataIndex) -> Result<(), Failure> {
    let IndexDefinition { tenant, database, collection, .. } = &index.definition;
    check_in(caller, permission, tenant, database, collection.as_deref())
}

fn check_in(
    caller: &Caller, permission: Permission, tenant: &str, database: &str, collection: Option<&str>,
) -> Result<(), Failure> {
    caller.check_in(permission, Target { tenant: Some(tenant), database: Some(database), collection })
}

/// An index that a caller may do this to; where nothing is granted, as if it were not there.
fn find(
    call: &Call<'_>, permission: Permission, (tenant, home): (&str, &str), name: &str,
) -> Result<MetadataIndex, Failure> {
    let (caller, database) = (call.caller(), call.database());
    let hidden = || Failure::not_found(format!("there is no metadata index '{name}'"));
    let is_everywhere = caller.principal().may(permission, Target::default());
    let index = database.metadata_index(tenant, home, name).map_err(|error| {
        // Names that are alike are told to those who may see all of them.
        if is_everywhere { Failure::from(error) } else { hidden() }
    })?;
    check(caller, permission, &index)
        .map_err(|error| if error.status() == StatusCode::NOT_FOUND { hidden() } else { error })?;
    Ok(index)
}

/// Somebody else's index has the name.
fn taken(name: &str) -> Failure {
    Failure::conflict(format!("index_name: the name '{name}' is taken in this database; choose another"))
}

/// The name of a collection that a definition may name by its id.
fn collection_name(database: &Database, new: &IndexDefinition) -> Option<String> {
    let given = new.collection.as_ref()?;
    let row = Uuid::parse_str(given)
        .ok()
        .filter(|_| database.collection_in(&new.tenant, &new.database, given).is_err())
        .and_then(|id| database.collection_by_id(id).and_then(|collection| collection.info()).ok())
        .filter(|row| row.tenant == new.tenant && row.database == new.database);
    Some(row.map_or_else(|| given.clone(), |row| row.name.clone()))
}

/// Fails unless the caller may declare this.
fn may_write(caller: &Caller, database: &Database, new: &IndexDefinition) -> Result<(), Failure> {
    let name = collection_name(database, new);
    let target = Target { tenant: Some(&new.tenant), database: Some(&new.database), collection: name.as_deref() };
    match &new.collection {
        Some(given) => caller.check_given(Permission::IndexWrite, target, given)?,
        None => caller.check_in(Permission::IndexWrite, target)?,
    }
    may_filter(caller, new, name.as_deref())
}

/// Fails if the definition has a filter and the caller may see no values: counts of what passes it tell them.
fn may_filter(caller: &Caller, new: &IndexDefinition, collection: Option<&str>) -> Result<(), Failure> {
    let target = Target { tenant: Some(&new.tenant), database: Some(&new.database), collection };
    match &new.partial {
        Some(_) => caller.check_in(Permission::IntrospectValues, target),
        None => Ok(()),
    }
}

/// A definition, which the request may complete.
fn definition(mut json: Json, home: &[(&str, Option<&String>)]) -> Result<IndexDefinition, Failure> {
    if let Some(members) = json.as_object_mut() {
        for (name, value) in home {
            if let Some(value) = value {
                members.entry(*name).or_insert_with(|| value.as_str().into());
            }
        }
    }
    Ok(IndexDefinition::from_json(json)?)
}

fn create(call: &Call<'_>) -> Result<Answer, Failure> {
    let (caller, database, scope): (_, _, Scope) = (call.caller(), call.database(), call.query()?);
    let Given { definitions, is_list } = Given::parse(call.body()?, &scope)?;
    for new in &definitions {
        may_write(caller, database, new)?;
        if let Ok(old) = database.metadata_index(&new.tenant, &new.database, &new.index_name) {
            // What has the name now may be of another collection.
            check(caller, Permission::IndexWrite, &old).map_err(|_| taken(&new.index_name))?;
        }
    }
    // All of them are looked at before any is made.
    let plans = definitions.iter().map(|new| Ok(answers::estimate(database.plan_metadata_index(new)?)));
    let mut plans: Vec<wire::IndexEstimate> = plans.collect::<Result<_, Failure>>()?;
    let gone = if scope.replace {
        let gone = replaced(database, &scope, &definitions)?;
        gone.iter().try_for_each(|index| check(caller, Permission::IndexWrite, index))?;
        let place = |IndexDefinition { tenant, database, index_name, .. }: &IndexDefinition| {
            [tenant.clone(), database.clone(), index_name.clone()]
        };
        let places: Vec<[String; 3]> = gone.iter().map(|index| place(&index.definition)).collect();
        database.check_metadata_index_room(&definitions, &places)?;
        gone
    } else {
        database.check_metadata_indexes(&definitions)?;
        Vec::new()
    };
    if scope.dry_run {
        let shown = match is_list {
            true => json!({"indexes": plans, "deletes": names(&gone)}),
            false if scope.replace => json!({"index": plans.remove(0), "deletes": names(&gone)}),
            false => json!(plans.remove(0)),
        };
        return Ok(shown.into());
    }
    // First, so that there is room for the new ones.
    for index in &gone {
        drop_index(database, index)?;
    }
    let mut is_building = false;
    let mut shown = Vec::new();
    for new in &definitions {
        let made = match scope.replace {
            true => database.put_metadata_index(&new.index_name, new),
            false => database.create_metadata_index(new),
        };
        let (index, change) = made?;
        is_building |= change == IndexChange::Building;
        shown.push(answers::changed(index, change));
    }
    let status = if is_building { StatusCode::ACCEPTED } else { StatusCode::OK };
    let audited = json!({"indexes": shown.iter().map(answers::audited).collect::<Vec<_>>(), "deleted": names(&gone)});
    let shown = if is_list {
        json!({"indexes": shown, "deleted": names(&gone)})
    } else {
        let deleted = scope.replace.then(|| names(&gone).into_iter().map(str::to_owned).collect());
        json!(wire::IndexAnswer { deleted, ..shown.remove(0) })
    };
    Ok(Answer::from(shown).with_status(status).with_audited(audited))
}

/// What a request asks to declare.
struct Given {
    definitions: Vec<IndexDefinition>,
    /// Whether it is a list, of which there may be one: the answer is one then.
    is_list: bool,
}

impl Given {
    fn parse(body: Json, scope: &Scope) -> Result<Self, Failure> {
        let is_list = body.is_array() || body.get("indexes").is_some();
        let list = match body {
            Json::Array(list) => list,
            Json::Object(mut members) if members.contains_key("indexes") => match members.remove("indexes") {
                Some(Json::Array(list)) if members.is_empty() => list,
                Some(Json::Array(_)) => {
                    let others: Vec<&str> = members.keys().map(String::as_str).collect();
                    let text = format!("indexes: there is nothing beside the list, found {}", others.join(", "));
                    return Err(Failure::invalid(text));
                }
                _ => return Err(Failure::invalid("indexes: expected a list of indexes")),
            },
            one => vec![one],
        };
        if list.len() > DEFINITIONS_MAX {
            let text = format!("{} indexes in one request are more than the limit of {DEFINITIONS_MAX}", list.len());
            return Err(Failure::invalid(text));
        }
        let home = [
            ("tenant", scope.tenant.as_ref()),
            ("database", scope.database.as_ref()),
            ("collection", scope.collection.as_ref()),
        ];
        let definitions: Vec<IndexDefinition> =
            list.into_iter().map(|json| definition(json, &home)).collect::<Result<_, _>>()?;
        for (number, definition) in definitions.iter().enumerate() {
            let name = &definition.index_name;
            if definitions[..number].iter().any(|other| other.index_name == *name) {
                return Err(Failure::invalid(format!("index_name: {name:?} stands twice in the list")));
            }
        }
        Ok(Self { definitions, is_list })
    }
}

/// The collection, or the database as a whole, that an index is of: tenant, database, name of the collection.
type IndexScope = (String, String, Option<String>);

/// The indexes that a list replaces: those of the collections that it names, or of the database, that it has not. An
/// index of another collection is never replaced, nor is its name.
fn replaced(
    database: &Database, scope: &Scope, definitions: &[IndexDefinition],
) -> Result<Vec<MetadataIndex>, Failure> {
    let place = |new: &IndexDefinition| -> IndexScope {
        (new.tenant.clone(), new.database.clone(), collection_name(database, new))
    };
    let mut places: BTreeSet<IndexScope> = definitions.iter().map(place).collect();
    if definitions.is_empty() {
        if scope.collection.is_none() && scope.database.is_none() {
            return Err(Failure::invalid(
                "an empty list names nothing to replace: add ?collection=NAME to delete the indexes of a collection, or ?database=NAME for those of a database",
            ));
        }
        let (tenant, home) = scope.home();
        let given = IndexDefinition {
            tenant: tenant.to_owned(),
            database: home.to_owned(),
            collection: scope.collection.clone(),
            ..IndexDefinition::default()
        };
        places.insert(place(&given));
    }
    let mut gone = Vec::new();
    for index in database.metadata_indexes(&IndexSelection::default())? {
        let IndexDefinition { tenant, database: home, collection, index_name, .. } = &index.definition;
        let own: IndexScope = (tenant.clone(), home.clone(), collection.clone());
        let new =
            definitions.iter().find(|new| (&new.tenant, &new.database, &new.index_name) == (tenant, home, index_name));
        match new {
            Some(new) if place(new) != own => return Err(taken(&new.index_name)),
            None if places.contains(&own) => gone.push(index),
            _ => {}
        }
    }
    Ok(gone)
}

fn names(indexes: &[MetadataIndex]) -> Vec<&str> {
    indexes.iter().map(|index| index.definition.index_name.as_str()).collect()
}

fn drop_index(database: &Database, index: &MetadataIndex) -> Result<MetadataIndex, Failure> {
    let IndexDefinition { tenant, database: home, index_name, .. } = &index.definition;
    Ok(database.delete_metadata_index(tenant, home, index_name)?)
}

fn list(call: &Call<'_>) -> Result<Answer, Failure> {
    let mut indexes = call.database().metadata_indexes(&call.query::<Scope>()?.selection()?)?;
    indexes.retain(|index| check(call.caller(), Permission::IndexRead, index).is_ok());
    Answer::json(&wire::IndexList { indexes: indexes.into_iter().map(answers::index).collect() })
}

fn delete_many(call: &Call<'_>) -> Result<Answer, Failure> {
    let (caller, database, scope): (_, _, Scope) = (call.caller(), call.database(), call.query()?);
    let (tenant, home) = scope.home();
    // A tenant alone is all of its databases.
    let is_tenant = scope.tenant.is_some() && scope.database.is_none() && scope.collection.is_none();
    let selection = IndexSelection {
        tenant: Some(tenant.to_owned()),
        database: (!is_tenant).then(|| home.to_owned()),
        collection: scope.collection.clone(),
        status: None,
    };
    let mut indexes = database.metadata_indexes(&selection)?;
    // One that the database has for every collection is not a collection's to delete.
    indexes.retain(|index| scope.collection.is_none() || index.definition.collection.is_some());
    indexes.retain(|index| check(caller, Permission::IndexRead, index).is_ok());
    indexes.iter().try_for_each(|index| check(caller, Permission::IndexWrite, index))?;
    if !scope.dry_run && !scope.confirm {
        let of = match &scope.collection {
            Some(collection) => format!("collection '{collection}' of database '{home}' of tenant '{tenant}'"),
            None if is_tenant => format!("tenant '{tenant}', in all of its databases"),
            None => format!("database '{home}' of tenant '{tenant}', those of single collections included"),
        };
        return Err(Failure::invalid(format!(
            "this deletes all {} metadata indexes of {of}; add confirm=true to do it, or dry_run=true to see which",
            indexes.len()
        )));
    }
    if !scope.dry_run {
        indexes.iter().try_for_each(|index| drop_index(database, index).map(drop))?;
    }
    let verb = if scope.dry_run { "would_delete" } else { "deleted" };
    indexes.sort_by(|one, other| one.definition.index_name.cmp(&other.definition.index_name));
    let names = json!({verb: names(&indexes)});
    let audited = indexes.into_iter().map(|index| answers::audited(&answers::index(index)));
    Ok(Answer::from(names).with_audited(json!({verb: audited.collect::<Vec<_>>()})))
}

fn suggest(call: &Call<'_>) -> Result<Answer, Failure> {
    let mut suggestions = call.database().suggest_metadata_indexes(&call.query::<Scope>()?.selection()?);
    suggestions.retain(|suggestion| {
        let Suggestion { tenant, database, collection, .. } = suggestion;
        check_in(call.caller(), Permission::IndexRead, tenant, database, collection.as_deref()).is_ok()
    });
    let suggestions = suggestions.into_iter().map(answers::suggestion).collect();
    Answer::json(&wire::SuggestionList { suggestions })
}

fn show(call: &Call<'_>) -> Result<Answer, Failure> {
    let (name, home) = (call.path("index_name"), call.query::<Namespace>()?);
    let (tenant, home) = home.parts();
    find(call, Permission::IndexRead, (tenant, home), name)?;
    Answer::json(&answers::index(call.database().metadata_index(tenant, home, name)?))
}

fn replace(call: &Call<'_>) -> Result<Answer, Failure> {
    let (caller, database, name) = (call.caller(), call.database(), call.path("index_name"));
    let (body, home): (Json, Namespace) = (call.body()?, call.query()?);
    let home = [
        ("index_name", Some(&name.to_owned())),
        ("tenant", home.tenant.as_ref()),
        ("database", home.database.as_ref()),
    ];
    let new = definition(body, &home)?;
    // Both where it is and where it shall be, by its name and by its new one.
    for taken_name in [name, &new.index_name] {
        if let Ok(old) = database.metadata_index(&new.tenant, &new.database, taken_name) {
            check(caller, Permission::IndexWrite, &old).map_err(|_| taken(taken_name))?;
            if new.collection.is_none() {
                may_filter(caller, &new, old.definition.collection.as_deref())?;
            }
        } else if new.collection.is_none() && taken_name == name {
            may_write(caller, database, &new)?;
        }
    }
    if new.collection.is_some() {
        may_write(caller, database, &new)?;
    }
    let (index, change) = database.put_metadata_index(name, &new)?;
    let status = if change == IndexChange::Building { StatusCode::ACCEPTED } else { StatusCode::OK };
    let shown = answers::changed(index, change);
    let audited = answers::audited(&shown);
    Ok(Answer::json(&shown)?.with_status(status).with_audited(audited))
}

fn delete(call: &Call<'_>) -> Result<Answer, Failure> {
    let (name, home) = (call.path("index_name"), call.query::<Namespace>()?);
    let (tenant, home) = home.parts();
    find(call, Permission::IndexWrite, (tenant, home), name)?;
    let index = call.database().delete_metadata_index(tenant, home, name)?;
    let deleted = json!({"deleted": index.definition.index_name});
    Ok(Answer::from(deleted).with_audited(answers::audited(&answers::index(index))))
}

fn rebuild(call: &Call<'_>) -> Result<Answer, Failure> {
    let (name, home) = (call.path("index_name"), call.query::<Namespace>()?);
    let (tenant, home) = home.parts();
    find(call, Permission::IndexWrite, (tenant, home), name)?;
    let index = call.database().rebuild_metadata_index(tenant, home, name)?;
    Ok(Answer::json(&answers::index(index))?.with_status(StatusCode::ACCEPTED))
}

fn cancel(call: &Call<'_>) -> Result<Answer, Failure> {
    let (name, home) = (call.path("index_name"), call.query::<Namespace>()?);
    let (tenant, home) = home.parts();
    find(call, Permission::IndexWrite, (tenant, home), name)?;
    let (index, was_building) = call.database().cancel_metadata_index(tenant, home, name)?;
    let change = Some(if was_building { "cancelled" } else { "none" }.into());
    let shown = wire::IndexAnswer { change, ..answers::index(index) };
    Ok(Answer::json(&shown)?.with_status(StatusCode::ACCEPTED))
}

fn verify(call: &Call<'_>) -> Result<Answer, Failure> {
    let (name, home) = (call.path("index_name"), call.query::<Namespace>()?);
    let (tenant, home) = home.parts();
    find(call, Permission::IndexRead, (tenant, home), name)?;
    Answer::json(&answers::verification(call.database().verify_metadata_index(tenant, home, name)?))
}
