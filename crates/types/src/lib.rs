//! Ids, units, time, seeded random streams and small statistics.
//!
//! Everything above speaks in these words. Nothing here does I/O, reads a clock or asks the operating system for
//! randomness. Does not belong here: anything that knows what a GPU, a request or a policy is.

mod hash;
mod id;
mod mean;
mod random;
mod statistics;
mod time;
mod unit;

pub use hash::{IdHash, IdHasher};
pub use id::{DecisionId, InstanceId, ModelId, RequestId};
pub use mean::Mean;
pub use random::RandomStream;
pub use statistics::{Ewma, LogHistogram, quantile_of_sorted};
pub use time::Timestamp;
pub use unit::{Joules, MilliJoules, Watts, apportion};
