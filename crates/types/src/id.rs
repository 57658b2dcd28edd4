//! Ids: small integers inside, names at the edges.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

id!(
    /// One instance as the fleet of this process knows it: a dense index, never reused within a run.
    InstanceId(u32),
    "i"
);
id!(
    /// One served model as the fleet of this process knows it: a dense index.
    ModelId(u32),
    "m"
);
id!(
    /// One client request, numbered by the driver in order of arrival.
    RequestId(u64),
    "r"
);
id!(
    /// One decision, numbered by the scheduler. A request that is retried has several.
    DecisionId(u64),
    "d"
);

impl InstanceId {
    /// The index into tables that are ordered by instance.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl ModelId {
    /// The index into tables that are ordered by model.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}
