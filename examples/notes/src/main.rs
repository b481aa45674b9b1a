//! All of `ochre`, and notes on records: an extension with a route, a table, a job and permissions of its own.

use std::sync::Arc;
use std::time::Duration;

use ochre_engine::scheduler::{
    Context, Defaults, Failure as Stopped, Readiness, Setting, SettingValue, Task, TaskSettings,
};
use ochre_engine::{GetRequest, StoreExtension, WeakDatabase};
use ochre_extension::{
    Access, Answer, ApiExtension, Call, Description, Failure, Operation, OwnPermission, Permission, StatusCode,
};
use ochre_server::Extensions;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Whoever may read records may read notes on them; this is for writing some.
const WRITE: OwnPermission = OwnPermission { name: "notes:write", roles: &["writer"], is_audited: true };

fn main() -> std::process::ExitCode {
    let extensions = Extensions::built_in()
        .with_store("notes", |_| Ok(Arc::new(Tables)))
        .with_api("notes", |options| Ok(Arc::new(options.parse::<Notes>()?)));
    ochre_cli::main(&extensions)
}

/// The extension of the API, which is its options.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Notes {
    /// A note has at most so many characters.
    length_max: usize,
}

impl ApiExtension for Notes {
    fn name(&self) -> &'static str {
        "notes"
    }

    fn description(&self) -> &'static str {
        "notes on records"
    }

    fn permissions(&self) -> Vec<OwnPermission> {
        vec![WRITE]
    }

    fn requires(&self) -> &'static [&'static str] {
        &["notes"]
    }

    fn schemas(&self) -> Map<String, Value> {
        let text = json!({"type": "string", "minLength": 1, "maxLength": self.length_max});
        let members = json!({"id": {"type": "string"}, "text": text});
        Map::from_iter([("Note".into(), json!({"type": "object", "required": ["id", "text"], "properties": members}))])
    }

    fn operations(self: Arc<Self>) -> Vec<Operation> {
        let (read, write) = (Access::Scope(Permission::RecordRead), Access::Scope(Permission::Own(WRITE)));
        vec![
            Description::get("/notes/{collection}", "The notes on a collection's records", read).does(list),
            Description::post("/notes/{collection}", "Note something about a record", write)
                .takes("Note")
                .answers(201, "object")
                .does(move |call| self.add(call)),
        ]
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    id: String,
    text: String,
}

impl Notes {
    fn add(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        let (note, collection) = (call.body::<Note>()?, call.collection()?);
        if !(1..=self.length_max).contains(&note.text.chars().count()) {
            return Err(Failure::invalid(format!("text: expected 1 to {} characters", self.length_max)));
        }
        if collection.get(&GetRequest::of([&note.id]))?.is_empty() {
            return Err(Failure::not_found(format!("there is no record '{}'", note.id)));
        }
        let (sql, own) = ("INSERT INTO notes_text VALUES (?1, ?2, ?3, unixepoch())", collection.id().to_string());
        call.database().change_tables(|tables| tables.execute(sql, [&own, &note.id, &note.text]))?;
        Ok(Answer::from(json!({"id": note.id})).with_status(StatusCode::CREATED))
    }
}

fn list(call: &Call<'_>) -> Result<Answer, Failure> {
    let collection = call.collection()?.id().to_string();
    let notes: Vec<(String, String)> = call.database().read_tables(|tables| {
        let mut found = tables.prepare("SELECT id, text FROM notes_text WHERE collection = ?1 ORDER BY rowid")?;
        found.query_map([&collection], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    })?;
    let notes = notes.iter().map(|(id, text)| json!({"id": id, "text": text}));
    Ok(json!({"notes": notes.collect::<Value>()}).into())
}

/// The extension of the store: a table, and the job that keeps it tidy.
struct Tables;

impl StoreExtension for Tables {
    fn name(&self) -> &'static str {
        "notes"
    }

    fn migrations(&self) -> &'static [&'static str] {
        &["CREATE TABLE notes_text (collection TEXT NOT NULL, id TEXT NOT NULL, text TEXT NOT NULL, at INTEGER NOT NULL);
           CREATE INDEX notes_by_collection ON notes_text (collection);"]
    }

    fn tasks(&self, database: &WeakDatabase) -> Vec<Arc<dyn Task>> {
        vec![Arc::new(Prune(database.clone()))]
    }
}

/// Forgets notes after a while.
struct Prune(WeakDatabase);

impl Task for Prune {
    fn name(&self) -> &'static str {
        "notes-prune"
    }

    fn description(&self) -> &'static str {
        "forgets notes after a while"
    }

    fn defaults(&self) -> Defaults {
        Defaults::every(Duration::from_secs(3600))
    }

    fn settings(&self) -> &'static [Setting] {
        &[Setting { name: "keep", description: "how long notes are kept", default: SettingValue::Seconds(365 * 86400) }]
    }

    fn check(&self, _: &TaskSettings) -> Result<Readiness, Stopped> {
        Ok(Readiness::Ready("some notes may be old".into()))
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Stopped> {
        let (sql, keep) = ("DELETE FROM notes_text WHERE at <= unixepoch() - ?1", context.settings().span("keep"));
        let forgotten = self.0.open()?.change_tables(|tables| tables.execute(sql, [keep.as_secs().cast_signed()]))?;
        Ok(format!("forgot {forgotten} notes"))
    }
}
