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
            Ok(_) => tracing::info!(path = %path.display(), "the configuration file is read again"),
            Err(error) => tracing::error!("the configuration stays as it was: {error}"),
        }
        apply(file).await;
    }
}

/// The same where there may be no file to follow.
pub(crate) async fn follow_if_any(path: Option<PathBuf>, apply: impl AsyncFnMut(anyhow::Result<ConfigFile>)) {
    match path {
        Some(path) => follow(path, apply).await,
        None => std::future::pending().await,
    }
}
