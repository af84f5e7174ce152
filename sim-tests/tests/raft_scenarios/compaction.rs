//! What of the log may go.

use super::common::*;
use sim_tests::sim::RaftOptions;
use std::sync::Arc;

/// Under load, with a log that keeps nothing more than it must: it never begins behind what the
/// state has on disk, although more is applied while a flush runs.
#[madsim::test]
async fn the_log_begins_where_the_durable_state_ends() {
    let mut options = RaftOptions::small_log(3);
    let small = options.adjust.clone();
    options.adjust = Arc::new(move |o| {
        small(o);
        o.keep_log_bytes = 0;
    });
    scenario(options, |c| async move {
        let leader = c.wait_leader(&c.ids()).await;
        let mut fired = Vec::new();
        let mut furthest = 0;
        for i in 0..400 {
            let mut command = command("load", i);
            command.resize(command.len() + 200, b'.');
            fired.push(fire(&c, leader, command, LONG));
            millis(2).await;
            for node in c.ids() {
                let status = c.status(node).expect("up");
                furthest = furthest.max(status.base);
                assert!(
                    status.base <= status.durable,
                    "node {node}: the log begins behind {}, the state is durable through {}",
                    status.base,
                    status.durable
                );
            }
        }
        assert!(furthest > 50, "the log was cut only through {furthest}");
        for task in fired {
            task.await.expect("not cancelled");
        }
        heal_and_settle(&c).await;
    })
    .await;
}
