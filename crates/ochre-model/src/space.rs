//! The three spaces a collection can measure distance in.

/// How the distance between two embeddings is measured. Smaller is nearer in all three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Space {
    /// Squared Euclidean distance, `Σ (aᵢ − bᵢ)²`.
    #[default]
    L2,
    /// `1 − cos(a, b)`; exactly 1 when either vector is zero.
    Cosine,
    /// `1 − ⟨a, b⟩`; can be negative.
    Ip,
}

impl Space {
    /// The name on the wire and on disk.
    pub const fn name(self) -> &'static str {
        match self {
            Self::L2 => "l2",
            Self::Cosine => "cosine",
            Self::Ip => "ip",
        }
    }

    /// The space with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::L2, Self::Cosine, Self::Ip].into_iter().find(|space| space.name() == name)
    }
}
