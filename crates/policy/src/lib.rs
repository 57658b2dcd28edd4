//! Filters, scores and assignment: every policy a file.
