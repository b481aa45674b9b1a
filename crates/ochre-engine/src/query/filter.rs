//! Evaluating filters against a snapshot: ids, declared indexes, columns, documents.

use std::collections::HashSet;
use std::time::Instant;

use ochre_index::{Bitmap, Hints, Rows, Trace, evaluate_with};
use ochre_model::{Filter, budget};

use crate::collection::snapshot::ReadSnapshot;
use crate::error::Error;

/// Documents that are asked of the store in one step.
const DOCUMENTS_AT_ONCE: usize = 1024;
/// After so many bytes of documents it is asked whether to go on.
const BYTES_BETWEEN_QUESTIONS: usize = 16 << 10;

/// What restricts a read.
pub(crate) struct Restriction<'a> {
    pub(crate) ids: Option<&'a [String]>,
    pub(crate) filter: Option<&'a Filter>,
    pub(crate) hints: &'a Hints,
}

impl ReadSnapshot<'_> {
    /// What passes; `None` if nothing restricts.
    pub(crate) fn matches(&self, ids: Option<&[String]>, filter: Option<&Filter>) -> Result<Option<Bitmap>, Error> {
        let hints = Hints { is_quiet: true, ..Hints::default() };
        self.candidates(&Restriction { ids, filter, hints: &hints }, &mut Trace::default())
    }

    /// As [`ReadSnapshot::matches`], with hints, and saying what it took.
    pub(crate) fn candidates(&self, lookup: &Restriction<'_>, trace: &mut Trace) -> Result<Option<Bitmap>, Error> {
        let Restriction { ids, filter, hints } = *lookup;
        if ids.is_none() && filter.is_none() {
            return Ok(None);
        }
        let mut candidates = self.view.live().clone();
        if let Some(ids) = ids {
            let offsets = self.reader.offsets(self.number, &mut ids.iter().map(String::as_str))?;
            candidates = candidates.and(&offsets.into_iter().collect());
        }
        match filter {
            None => Ok(Some(candidates)),
            Some(filter) => self.evaluate(filter, &candidates, hints, trace).map(Some),
        }
    }

    /// Evaluates a filter, and notes what it used and took.
    fn evaluate(
        &self, filter: &Filter, candidates: &Bitmap, hints: &Hints, trace: &mut Trace,
    ) -> Result<Bitmap, Error> {
        let began = Instant::now();
        let passed = evaluate_with(filter, &self.view, candidates, &mut ReaderRows(self), hints, trace)?;
        let by_index = trace.coverage.is_some();
        if by_index {
            self.registry.used(self.number, &trace.considered, passed.len());
        }
        let (matched, records) = (passed.len(), candidates.len());
        self.registry.workload().note(self.number, filter, began.elapsed(), matched, records, by_index);
        Ok(passed)
    }

    /// As [`ReadSnapshot::matches`], but maybe only the first ones, if those are `enough`: documents are read from
    /// the front, in steps that double.
    pub(crate) fn first_matches(
        &self, lookup: &Restriction<'_>, enough: usize, trace: &mut Trace,
    ) -> Result<Option<Bitmap>, Error> {
        let reading = lookup.filter.filter(|filter| filter.reads_documents() && enough < self.view.live().len());
        let Some(filter) = reading else { return self.candidates(lookup, trace) };
        let candidates = self.matches(lookup.ids, None)?;
        let candidates = candidates.as_ref().unwrap_or_else(|| self.view.live());
        let (mut passed, mut done, mut step) = (Bitmap::new(), 0, 1);
        while done < candidates.chunk_count() && passed.len() < enough {
            let part = candidates.within(done..done + step);
            if !part.is_empty() {
                passed =
                    passed.or(&evaluate_with(filter, &self.view, &part, &mut ReaderRows(self), lookup.hints, trace)?);
            }
            (done, step) = (done + step, step * 2);
        }
        Ok(Some(passed))
    }
}

/// What evaluation asks of the store, from the state that the view shows.
pub(super) struct ReaderRows<'a, 'b>(pub(super) &'a ReadSnapshot<'b>);

impl Rows for ReaderRows<'_, '_> {
    type Error = Error;

    fn documents(&mut self, offsets: &Bitmap, visit: &mut dyn FnMut(u32, &str)) -> Result<(), Error> {
        let offsets: Vec<u32> = offsets.iter().collect();
        for part in offsets.chunks(DOCUMENTS_AT_ONCE) {
            // One document can take long, so it is asked after some bytes; the rest of the part is then passed over.
            let (mut asked, mut bytes) = (budget::check(), 0);
            self.0.reader.documents(self.0.number, part, &mut |offset, document| {
                if asked.is_ok() {
                    visit(offset, document);
                    bytes += document.len();
                    if bytes >= BYTES_BETWEEN_QUESTIONS {
                        (asked, bytes) = (budget::check(), 0);
                    }
                }
            })?;
            asked?;
        }
        Ok(())
    }

    fn check_budget(&mut self) -> Result<(), Error> {
        Ok(budget::check()?)
    }

    fn charge(&mut self, bytes: usize) -> Result<(), Error> {
        Ok(budget::charge(bytes)?)
    }

    fn offsets(&mut self, ids: &HashSet<String>) -> Result<Bitmap, Error> {
        let offsets = self.0.reader.offsets(self.0.number, &mut ids.iter().map(String::as_str))?;
        Ok(offsets.into_iter().collect())
    }
}
