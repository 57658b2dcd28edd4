//! `equipoise key`.

use crate::cli::{Key, KeyAction};
use crate::terminal;

pub(crate) fn run(options: &Key) -> anyhow::Result<()> {
    let KeyAction::New { salted } = options.action;
    let new = equipoise_router::new_key(salted)?;
    terminal::say(&format!(
        "\
key   {}
hash  {}

Give the key to the client; it is not kept anywhere. The hash goes into the fleet file:

[tenants.NAME]
keys = [\"{}\"]",
        new.key, new.hash, new.hash
    ));
    Ok(())
}
