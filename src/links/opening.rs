//! Opens the logs of bridges, and waits for a broker before this one that has them until it has ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::BridgesError;
use crate::config::bridge::{BridgeSettings, SpoolSync};
use crate::disk::{Spool, SpoolError, SpoolSettings, SyncPolicy};
use crate::executor::sleep;

/// Between two looks whether a log is free.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// How long a broker that ends is waited for: it refuses new clients at once, and so leaves its ports to its successor, but
/// keeps its logs while it gives its clients what waits for them.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    pub time_max: Duration,
    /// Raised when this process is to end, too.
    pub is_ending: Arc<AtomicBool>,
}

/// Opens logs, one after the other.
pub(super) struct Opener {
    patience: Patience,
    /// Until when it waits, all logs together; `None`: it has not waited yet.
    until: Option<Instant>,
    /// The directories that it has opened: nobody waits for oneself.
    own: Vec<PathBuf>,
}

impl Opener {
    pub(super) fn new(patience: Patience) -> Opener {
        Opener { patience, until: None, own: Vec::new() }
    }

    pub(super) async fn open(
        &mut self,
        settings: &BridgeSettings,
        directory: &Path,
    ) -> Result<Spool, BridgesError> {
        let began = Instant::now();
        loop {
            match Spool::open(directory, spool_settings(settings)).await {
                Ok(spool) => {
                    self.own.extend(fs::canonicalize(directory));
                    if began.elapsed() > LOOK_PAUSE && self.until.is_some() {
                        info!("bridge {}: {} is free", settings.name, directory.display());
                    }
                    return Ok(spool);
                }
                Err(error @ SpoolError::Locked { .. }) if !self.has_opened(directory) => {
                    self.wait(settings, error).await?;
                }
                Err(error) => return Err(failed(settings, error)),
            }
        }
    }

    /// Whether it was opened here, maybe by another name.
    fn has_opened(&self, directory: &Path) -> bool {
        fs::canonicalize(directory).is_ok_and(|directory| self.own.contains(&directory))
    }

    /// For a moment; an error when there is nothing to wait for.
    async fn wait(
        &mut self,
        settings: &BridgeSettings,
        error: SpoolError,
    ) -> Result<(), BridgesError> {
        let Patience { time_max, is_ending } = &self.patience;
        if is_ending.load(Ordering::SeqCst) {
            return Err(BridgesError::Ended);
        }
        let now = Instant::now();
        if self.until.is_none()
            && let SpoolError::Locked { directory, holder } = &error
        {
            let holder = holder.as_ref().map_or("another process".to_owned(), |it| it.to_string());
            warn!(
                "bridge {}: its log in {} is in use by {holder}: waiting until that has ended, for {} s at most",
                settings.name,
                directory.display(),
                time_max.as_secs()
            );
        }
        let until = *self.until.get_or_insert(now + *time_max);
        if now >= until {
            return Err(failed(settings, error));
        }
        sleep(LOOK_PAUSE).await;
        Ok(())
    }
}

fn failed(settings: &BridgeSettings, error: SpoolError) -> BridgesError {
    BridgesError::Spool { bridge: settings.name.clone(), error }
}

fn spool_settings(settings: &BridgeSettings) -> SpoolSettings {
    let sync = match settings.spool_sync {
        SpoolSync::EachBatch => SyncPolicy::EachBatch,
        SpoolSync::Interval => SyncPolicy::Interval(settings.spool_sync_ms),
        SpoolSync::Never => SyncPolicy::Never,
    };
    SpoolSettings {
        segment_size: settings.spool_segment_size,
        bytes_max: settings.spool_bytes_max,
        messages_max: settings.spool_messages_max,
        memory_max: settings.memory_bytes_max,
        sync,
        ..SpoolSettings::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::each_io::{for_each_io, run};
    use crate::executor::spawn;
    use crate::system::folder::Folder;

    fn opener(time_max: Duration) -> Opener {
        Opener::new(Patience { time_max, is_ending: Arc::default() })
    }

    fn settings() -> BridgeSettings {
        BridgeSettings::new("north")
    }

    #[test]
    fn a_log_that_another_one_still_has_is_waited_for() {
        for_each_io(|io| {
            run(io, async {
                let folder = Folder::new("opening");
                let before = opener(Duration::ZERO).open(&settings(), &folder.path).await.unwrap();
                let began = Instant::now();
                spawn(async move {
                    sleep(Duration::from_millis(300)).await;
                    drop(before);
                });
                let mut opener = opener(Duration::from_secs(60));
                let spool = opener.open(&settings(), &folder.path).await.unwrap();
                assert!(began.elapsed() >= Duration::from_millis(300));
                // Not for itself, whatever it calls the place.
                let link = folder.path.with_extension("link");
                std::os::unix::fs::symlink(&folder.path, &link).unwrap();
                for path in [&folder.path, &link] {
                    let refused = opener.open(&settings(), path).await.err().unwrap();
                    assert!(refused.to_string().contains("in use by process"), "{refused}");
                }
                assert!(began.elapsed() < Duration::from_secs(30));
                fs::remove_file(&link).unwrap();
                drop(spool);
            });
        });
    }

    #[test]
    fn nobody_waits_without_bound_or_when_the_process_is_to_end() {
        for_each_io(|io| {
            run(io, async {
                let folder = Folder::new("opening-bound");
                let first = opener(Duration::ZERO).open(&settings(), &folder.path).await.unwrap();
                let mut late = opener(Duration::from_millis(200));
                let refused = late.open(&settings(), &folder.path).await.err().unwrap();
                assert!(matches!(refused, BridgesError::Spool { .. }), "{refused}");
                let mut ending = opener(Duration::from_secs(3600));
                ending.patience.is_ending.store(true, Ordering::SeqCst);
                let refused = ending.open(&settings(), &folder.path).await.err().unwrap();
                assert!(matches!(refused, BridgesError::Ended), "{refused}");
                drop(first);
                ending.open(&settings(), &folder.path).await.unwrap();
            });
        });
    }
}
