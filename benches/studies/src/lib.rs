//! Comparisons of policies in virtual time. Each study is a command (`src/bin`) that prints its table, writes its data and
//! its page; what they share lies here. State: none, a seed decides everything. Does not belong here: policies, physics.

pub mod arm;
pub mod chart;
pub mod decomposition;
pub mod outcome;
pub mod page;
pub mod parallel;
pub mod scenario;
pub mod setting;
pub mod speed;
pub mod statistics;
pub mod study;
pub mod verdict;
