//! The operating system's request to end.

use std::future::Future;
use std::io;

/// From this call on SIGTERM and SIGINT (Ctrl-C) do not end the process; the future resolves at
/// the first of them. In simulation: at madsim's Ctrl-C of the node.
pub fn termination() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    #[cfg(all(unix, not(madsim)))]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        Ok(async move {
            tokio::select! {
                biased;
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
    }
    #[cfg(not(all(unix, not(madsim))))]
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}
