//! TOML fleet files to validated, typed configuration.
