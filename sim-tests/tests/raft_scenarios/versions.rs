//! Members of builds of several ages.

use super::common::*;
use sim_tests::sim::RaftOptions;
use sim_tests::sim::nodes::eventually;
use std::sync::Arc;

/// A member that speaks an older protocol, whether it leads or follows, agrees with newer ones.
#[madsim::test]
async fn an_older_member_and_newer_ones_agree() {
    let options = RaftOptions {
        adjust: Arc::new(|options| {
            if options.node == 1 {
                options.protocol = (1, 1);
            }
        }),
        ..RaftOptions::of(3)
    };
    scenario(options, |c| async move {
        for node in c.ids() {
            eventually("the node is born", LONG, || async {
                c.status(node).is_some_and(|s| s.not_voting.is_none())
            })
            .await;
        }
        for round in 0..4 {
            // Node 1 and another one: each word of either is needed.
            let other = 2 + round % 2;
            c.isolate(&[5 - other]);
            c.wait_leader(&[1, other]).await;
            let pair = [1, other];
            for n in 0..3 {
                let command = command("pair", round as usize * 10 + n);
                c.agree_among(&pair, &command, LONG).await;
            }
            c.rejoin(&[5 - other]);
            c.agree(&command("all", round as usize), LONG).await;
        }
        heal_and_settle(&c).await;
    })
    .await;
}
