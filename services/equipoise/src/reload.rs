//! Following a configuration file: what changes in it holds without a restart.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use equipoise_config::ConfigFile;
use tokio::signal::unix::{SignalKind, signal};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// When it was written, and its length.
type Stamp = Option<(SystemTime, u64)>;

fn stamp(path: &Path) -> Stamp {
    let about = std::fs::metadata(path).ok()?;
    Some((about.modified().ok()?, about.len()))
}

/// Calls `apply` with the file's content, or with what is wrong with it, whenever it has changed, and on SIGHUP; never returns.
/// A file that is being written is left alone until it stays the same from one look to the next.
pub(crate) async fn follow(path: PathBuf, mut apply: impl AsyncFnMut(anyhow::Result<ConfigFile>)) {
    let mut hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => Some(hangups),
        Err(error) => {
            tracing::warn!("SIGHUP cannot be caught: {error}");
            None
        }
    };
    let mut held = ConfigFile::load(&path).ok();
    let mut applied = stamp(&path);
    let mut seen = applied;
    let mut ticks = tokio::time::interval(LOOK);
    loop {
        let asked = tokio::select! {
            _ = ticks.tick() => false,
            Some(()) = async { hangups.as_mut()?.recv().await } => true,
        };
        let now = stamp(&path);
        let settled = now == seen && now != applied;
        seen = now;
        if !(asked || settled) {
            continue;
        }
        applied = now;
        // A few kilobytes of a local file.
        let file = ConfigFile::load(&path).map_err(anyhow::Error::from);
        match &file {
            Ok(file) => {
                tracing::info!(path = %path.display(), "the configuration file is read again");
                if let Some(held) = &mut held {
                    warn_of(held, file);
                    held.clone_from(file);
                }
            }
            Err(error) => tracing::error!("the configuration stays as it was: {error}"),
        }
        apply(file).await;
    }
}

/// Says which of the changes from one file to the next hold after a restart only.
fn warn_of(held: &ConfigFile, file: &ConfigFile) {
    for section in needing_restart(held, file) {
        tracing::warn!("what has changed in {section} holds after a restart");
    }
}

fn needing_restart(held: &ConfigFile, file: &ConfigFile) -> Vec<&'static str> {
    let (old, new) = (&held.fleet, &file.fleet);
    let changes = [
        ("[pii]", old.pii != new.pii),
        ("[tls]", old.tls != new.tls),
        ("[grpc_tls]", old.grpc_tls != new.grpc_tls),
        ("[engine_tls]", old.engine_tls != new.engine_tls),
        ("`seed` of [scheduler]", old.scheduler.seed != new.scheduler.seed),
        ("[scheduler.prefix]", old.scheduler.prefix != new.scheduler.prefix),
        ("the services' own sections", held.services != file.services),
    ];
    let changed = changes.into_iter().filter(|(_, differs)| *differs);
    changed.map(|(section, _)| section).collect()
}

/// The same where there may be no file to follow.
pub(crate) async fn follow_if_any(path: Option<PathBuf>, apply: impl AsyncFnMut(anyhow::Result<ConfigFile>)) {
    match path {
        Some(path) => follow(path, apply).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_restart_is_named() {
        let fleet = "[[model]]\nname = \"m\"\n\n[[pool]]\nname = \"p\"\nmodel = \"m\"\nservice_ms = 5\ncount = 1\n";
        let file = |head: &str| ConfigFile::parse(&format!("{head}\n{fleet}"), "a test").expect("sound");
        let plain = file("");
        let changed = |head: &str| needing_restart(&plain, &file(head));
        assert_eq!(changed("[scheduler]\nqueue_limit = 7"), [""; 0], "that holds at once");
        assert_eq!(changed("[scheduler]\nseed = 7"), ["`seed` of [scheduler]"]);
        assert_eq!(changed("[pii]\naction = \"refuse\""), ["[pii]"]);
        assert_eq!(changed("[engine_tls]\nca = \"x\""), ["[engine_tls]"]);
        let both = changed("[router]\ndrain_timeout_s = 7\n[tls]\ncert = \"c\"\nkey = \"k\"");
        assert_eq!(both, ["[tls]", "the services' own sections"]);
    }
}
