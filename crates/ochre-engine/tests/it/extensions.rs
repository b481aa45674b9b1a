//! Extensions of the store: tables, jobs and hooks, and a database without those that it had.

use std::sync::Arc;

use ochre_engine::model::{Filter, Metadata, Scalar, Test, Value};
use ochre_engine::scheduler::{Context, Defaults, Failure, Readiness, Status, Task, TaskSettings};
use ochre_engine::{
    Commit, Database, DeleteRequest, Error, IndexDefinition, IndexStatus, NewRecords, Options, StoreExtension, Uuid,
    WeakDatabase, metadata_indexes,
};
use parking_lot::Mutex;
use serde_json::json;

use crate::support::PATIENCE;

/// Notes down what it is told.
#[derive(Default)]
struct Diary {
    name: Option<&'static str>,
    told: Mutex<Vec<String>>,
    commits: Mutex<Vec<Commit>>,
    job: Option<&'static str>,
    panics: bool,
    refuses: bool,
}

impl StoreExtension for Diary {
    fn name(&self) -> &'static str {
        self.name.unwrap_or("diary")
    }

    fn migrations(&self) -> &'static [&'static str] {
        &["CREATE TABLE diary_pages (text TEXT NOT NULL)"]
    }

    fn tasks(&self, database: &WeakDatabase) -> Vec<Arc<dyn Task>> {
        vec![Arc::new(Write(database.clone(), self.job.unwrap_or("diary")))]
    }

    fn opened(&self, database: &Database) -> Result<(), Error> {
        if self.refuses {
            return Err(Error::invalid("the diary is full"));
        }
        let pages: i64 = database
            .read_tables(|tables| tables.query_row("SELECT count(*) FROM diary_pages", [], |row| row.get(0)))?;
        self.told.lock().push(format!("opened with {pages} pages and {} jobs", database.scheduler().jobs().len()));
        Ok(())
    }

    fn watches_commits(&self) -> bool {
        true
    }

    fn committed(&self, commit: &Commit) {
        self.commits.lock().push(*commit);
        assert!(!self.panics, "as a test wants it");
    }

    fn deleted(&self, _: &Database, collection: Option<Uuid>) {
        self.told.lock().push(format!("deleted {}", collection.map_or("all".into(), |id| id.to_string())));
    }
}

struct Write(WeakDatabase, &'static str);

impl Task for Write {
    fn name(&self) -> &'static str {
        self.1
    }

    fn description(&self) -> &'static str {
        "writes a page for each collection"
    }

    fn defaults(&self) -> Defaults {
        Defaults::every(std::time::Duration::from_secs(3600))
    }

    fn check(&self, _: &TaskSettings) -> Result<Readiness, Failure> {
        Ok(Readiness::Ready("there is something to write".into()))
    }

    fn run(&self, _: &Context<'_>) -> Result<String, Failure> {
        let database = self.0.open()?;
        for row in database.all_collections()? {
            database.change_tables(|tables| tables.execute("INSERT INTO diary_pages VALUES (?1)", [&row.name]))?;
        }
        Ok("wrote".into())
    }
}

fn with(diary: &Arc<Diary>) -> Options {
    let mut options = Options::default();
    options.extensions.push(Arc::clone(diary) as Arc<dyn StoreExtension>);
    options
}

fn records(ids: &[&str]) -> NewRecords {
    NewRecords::new(ids.iter().copied(), ids.iter().map(|_| [1.0, 2.0]))
}

#[test]
fn an_extension_has_tables_jobs_and_hooks() {
    for is_durable in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let diary = Arc::new(Diary::default());
        let open = || {
            let options = with(&diary);
            if is_durable { Database::open_with(folder.path(), options) } else { Database::ephemeral_with(options) }
        };
        let database = open().unwrap();
        let jobs = database.scheduler().jobs().len();
        let (films, books) =
            (database.create_collection("films").unwrap(), database.create_collection("books").unwrap());
        films.add(records(&["a", "b", "c"])).unwrap();
        books.add(records(&["a"])).unwrap();
        films
            .upsert(records(&["c", "d"]).metadatas([Metadata::from_iter([("x", Value::Int(1))]), Metadata::default()]))
            .unwrap();
        films.delete(DeleteRequest { ids: Some(vec!["a".into(), "b".into()]), ..DeleteRequest::default() }).unwrap();
        let seen = |collection, position, put, deleted| Commit { collection, position, put, deleted };
        let (film, book) = (films.id(), books.id());
        assert_eq!(
            *diary.commits.lock(),
            [seen(film, 1, 3, 0), seen(book, 1, 1, 0), seen(film, 2, 2, 0), seen(film, 3, 0, 2)]
        );
        database.scheduler().run_now("diary").unwrap();
        let patience = std::time::Instant::now() + PATIENCE;
        let ended = || database.scheduler().job("diary").unwrap().last_run.filter(|run| run.ended.is_some());
        while ended().is_none() {
            assert!(std::time::Instant::now() < patience);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert_eq!(ended().unwrap().status, Status::Succeeded);
        let pages: Vec<String> = database
            .read_tables(|tables| {
                let mut found = tables.prepare("SELECT text FROM diary_pages ORDER BY 1")?;
                found.query_map([], |row| row.get(0))?.collect()
            })
            .unwrap();
        assert_eq!(pages, ["books", "films"]);
        database.delete_collection_in("default_tenant", "default_database", "books").unwrap();
        drop((films, books));
        database.reset().unwrap();
        let told = [format!("opened with 0 pages and {jobs} jobs"), format!("deleted {book}"), "deleted all".into()];
        assert_eq!(*diary.told.lock(), told);
        if is_durable {
            database.close();
            let _database = open().unwrap();
            assert!(diary.told.lock().last().unwrap().starts_with("opened with"));
        }
    }
}

#[test]
fn an_extension_that_panics_loses_no_commit() {
    let folder = tempfile::tempdir().unwrap();
    let database =
        Database::open_with(folder.path(), with(&Arc::new(Diary { panics: true, ..Diary::default() }))).unwrap();
    let films = database.create_collection("films").unwrap();
    films.add(records(&["a"])).unwrap();
    films.add(records(&["b"])).unwrap();
    assert_eq!(films.count().unwrap(), 2);
}

#[test]
fn extensions_that_do_not_go_together_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let diary = || Arc::new(Diary::default()) as Arc<dyn StoreExtension>;
    for (extensions, words) in [
        (vec![diary(), diary()], "'diary' is named twice"),
        (vec![Arc::new(Diary { job: Some("vacuum"), ..Diary::default() }) as _], "a job 'vacuum' already"),
        (vec![diary(), Arc::new(Diary { name: Some("other"), ..Diary::default() })], "a job 'diary' already"),
        (vec![Arc::new(Diary { refuses: true, ..Diary::default() })], "the diary is full"),
        (vec![Arc::new(Diary { name: Some("other"), ..Diary::default() })], "extension 'other': a migration fails"),
    ] {
        let opened = Database::open_with(folder.path(), Options { extensions, ..Options::default() });
        let error = opened.map(drop).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    Database::open_with(folder.path(), with(&Arc::new(Diary::default()))).unwrap();
}

#[test]
fn a_database_without_an_extension_keeps_what_it_had() {
    let folder = tempfile::tempdir().unwrap();
    let films = |database: &Database| database.collection("films").unwrap();
    let by_year = || json!({"index_name": "by_year", "collection": "films", "columns": ["year"]});
    let definition = IndexDefinition::from_json(by_year()).unwrap();
    let database = Database::open_with(folder.path(), Options { background: false, ..Options::default() }).unwrap();
    let year = |year: i64| Metadata::from_iter([("year", Value::Int(year))]);
    let ids: Vec<String> = (0..3000).map(|n| format!("f{n}")).collect();
    let many = NewRecords::new(&ids, ids.iter().map(|_| [1.0, 2.0]));
    database.create_collection("films").unwrap().add(many.metadatas((0..3000).map(|n| year(1000 + n)))).unwrap();
    database.create_metadata_index(&definition).unwrap();
    database.maintain().unwrap();
    database.close();
    let without = Options { extensions: Vec::new(), ..Options::default() };
    let database = Database::open_with(folder.path(), without).unwrap();
    assert!(database.scheduler().jobs().iter().all(|job| job.name != "metadata-indexes"));
    let error = database.create_metadata_index(&definition).unwrap_err().to_string();
    assert!(error.contains("without the store extension 'metadata-indexes'"), "{error}");
    assert!(database.metadata_index("default_tenant", "default_database", "by_year").is_err());
    // What changes meanwhile is found all the same.
    films(&database).upsert(records(&["f1", "new"]).metadatas([year(1979), year(1979)])).unwrap();
    database.close();
    let again = Options { extensions: vec![metadata_indexes()], background: false, ..Options::default() };
    let database = Database::open_with(folder.path(), again).unwrap();
    let shown = database.metadata_index("default_tenant", "default_database", "by_year").unwrap();
    assert_eq!(shown.status, IndexStatus::Ready);
    // Its files went, since nobody would have erased what was deleted meanwhile; once it is used they are built again.
    films(&database).peek(1).unwrap();
    database.maintain().unwrap();
    let filter = Filter::Key { key: "year".into(), test: Test::Eq(Scalar::Int(1979)) };
    let request = ochre_engine::GetRequest { filter: Some(filter), explain: true, ..Default::default() };
    let ochre_engine::GetResults { records: found, explain, .. } = films(&database).get_results(&request).unwrap();
    let explain = explain.unwrap();
    assert_eq!((found.len(), explain.index.as_deref()), (3, Some("by_year")), "{}", explain.text);
}
