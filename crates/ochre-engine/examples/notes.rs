//! A tour of the embedded database: `cargo run --release -p ochre-engine --example notes`.

use ochre_engine::model::{Filter, Metadata, Scalar, Test, Value};
use ochre_engine::{Database, DeleteRequest, Error, GetRequest, Include, NewRecords, QueryRequest};

fn main() -> Result<(), Error> {
    let folder = std::env::temp_dir().join(format!("ochre-notes-{}", std::process::id()));
    let database = Database::open(&folder)?;
    let notes = database.create_collection("notes")?;

    let metadatas = [("fruit", 1.0), ("fruit", 2.5), ("drink", 9.0)].map(|(kind, price)| -> Metadata {
        [("kind", Value::Str(kind.into())), ("price", Value::Float(price))].into_iter().collect()
    });
    notes.add(
        NewRecords::new(["apple", "pear", "wine"], [[1.0, 0.1, 0.0], [0.9, 0.4, 0.0], [0.0, 0.2, 1.0]])
            .documents(["a red apple", "a green pear", "red wine"])
            .metadatas(metadatas),
    )?;

    let near = notes.query(&QueryRequest::nearest_to([1.0, 0.0, 0.0]).k(2).include(Include::ALL))?;
    for hit in &near.results[0] {
        report(&format!("{} at {:.3}: {:?}", hit.record.id, hit.distance, hit.record.document));
    }
    let dear = Filter::Key { key: "price".into(), test: Test::Compare(Test::GREATER, Scalar::Int(2)) };
    let dear = notes.get(&GetRequest { filter: Some(dear), ..GetRequest::default() })?;
    report(&format!("dearer than 2: {:?}", dear.iter().map(|record| &record.id).collect::<Vec<_>>()));
    notes.delete(DeleteRequest { ids: Some(vec!["wine".into()]), ..DeleteRequest::default() })?;
    report(&format!("{} notes are left", notes.count()?));

    drop(notes);
    database.close();
    report(&format!("closed; check says: {:?}", ochre_engine::check(&folder)?.findings));
    let _ = std::fs::remove_dir_all(&folder);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "an example shows what it does")]
fn report(line: &str) {
    println!("{line}");
}
