//! The store's vector blocks as the index sees them.

use std::sync::Arc;

use ochre_index::{Damaged, VectorBlock};
use ochre_kernels::{prefetch, prefetch_row};

pub(crate) struct Block(pub(crate) Arc<ochre_store::VectorBlock>);

impl VectorBlock for Block {
    fn row(&self, row: usize) -> Result<&[f32], Damaged> {
        self.0.row(row).map_err(|damage| Damaged(damage.to_string()))
    }

    fn norm(&self, row: usize) -> f32 {
        self.0.norms()[row]
    }

    fn prefetch(&self, row: usize) {
        prefetch(self.0.norms(), row);
        if let Ok(row) = self.0.row(row) {
            prefetch_row(row);
        }
    }

    fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }
}
