//! Energy accounting: attribution of measured joules to requests, ledger rows, report tables.
