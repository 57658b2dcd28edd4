//! The little linear algebra and optimisation that training needs. Everything is sequential, so a sum always runs in the
//! same order and the same input gives the same bits.

mod decomposition;
mod minimise;
mod quantised;
mod vector;
mod wide;

pub(crate) use decomposition::{eigen_symmetric, orthonormalise, solve_positive};
pub(crate) use minimise::minimise;
pub(crate) use quantised::{Quantised, Rounded};
pub(crate) use vector::{axpy, dot, dots, logit, normalise, sigmoid};
pub(crate) use wide::widened;
