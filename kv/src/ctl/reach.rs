//! Before a command: is there anybody to ask? Nothing is sent for it yet, so that what is said here is
//! certain.

use super::args::Common;
use super::{Failure, exit};
use crate::client::Client;
use std::time::Duration;
use world::clock::now;
use world::net::CallError;

/// The share of its time that a command gives controllers that all refuse the connection to start.
const GRACE: u32 = 5;
/// Pause before they are tried again.
const PAUSE: Duration = Duration::from_millis(100);

/// Fails early where no controller can answer: what listens at every address is something else, or
/// nothing does. A single one that only says nothing leaves it open, and the command finds out.
pub(super) async fn controllers(client: &Client, common: &Common) -> Result<(), Failure> {
    let end = now() + common.deadline() / GRACE;
    loop {
        let left = end.saturating_duration_since(now());
        let Err(errors) = client.ctrlers().reach(left).await else {
            return Ok(());
        };
        let strangers = errors.iter().all(is_refusal);
        if !strangers && !errors.iter().all(|e| is_refusal(e) || nobody_listens(e)) {
            return Ok(());
        }
        if strangers || left <= PAUSE {
            return Err(failure(&errors, strangers));
        }
        world::clock::sleep(PAUSE).await;
    }
}

fn is_refusal(error: &CallError) -> bool {
    matches!(error, CallError::Refused { .. })
}

/// True for a refused connection, as the system names it.
fn nobody_listens(error: &CallError) -> bool {
    matches!(error, CallError::NotSent { reason, .. } if reason.to_lowercase().contains("connection refused"))
}

fn failure(errors: &[CallError], strangers: bool) -> Failure {
    let list: Vec<String> = errors.iter().map(CallError::to_string).collect();
    let hint = match strangers {
        true => "expected the controllers' addresses in --ctrlers or KV_CTRLERS",
        false => {
            "is the cluster running? `kvctl up` runs one on this machine; --ctrlers or KV_CTRLERS \
             names the controllers of another"
        }
    };
    Failure {
        message: format!("no controller is there: {}\n{hint}", list.join("; ")),
        code: exit::UNAVAILABLE,
    }
}
