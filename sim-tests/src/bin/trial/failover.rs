//! How long nobody is acknowledged after the leader of a group is killed.

use super::server::Cluster;
use kv::api::{CHANNEL, Request, Response};
use raft::replica::ReplicaStatus;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use world::clock::{Instant, now, sleep};
use world::net::{Hello, Limits, Link};

/// Time for a group to be whole again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Writers, one write after another each.
const WRITERS: usize = 4;

/// Kills the leader of a group of three so many times, each time once all members are there again and
/// have applied the same; prints how long the next acknowledgement took.
pub async fn run(kills: u32) -> Result<(), String> {
    let mut cluster = Cluster::start(3, None).await?;
    let (acknowledged, mut seen) = watch::channel(now());
    let acknowledged = Arc::new(acknowledged);
    for writer in 0..WRITERS {
        let (client, acknowledged) = (cluster.client(), acknowledged.clone());
        tokio::spawn(async move {
            let key = format!("writer-{writer}");
            for number in 0u64.. {
                let sent = now();
                let put = client.put(key.as_bytes(), &number.to_le_bytes()).await;
                // One that was sent before the kill may be told of after it: it does not count.
                if put.is_ok() {
                    acknowledged.send_replace(sent);
                }
            }
        });
    }
    let links = links(&cluster.servers);
    let mut waits = Vec::new();
    for kill in 1..=kills {
        let leader = whole(&links).await?;
        let killed = now();
        cluster.kill(leader);
        // An acknowledgement of what was sent after the kill.
        let acknowledged = seen.wait_for(|sent| *sent > killed);
        let waited = world::clock::timeout(PATIENCE, acknowledged).await;
        if !matches!(waited, Ok(Ok(_))) {
            return Err(format!(
                "kill {kill}: nothing was acknowledged for {PATIENCE:?}"
            ));
        }
        waits.push(killed.elapsed());
        cluster.restart(leader)?;
    }
    waits.sort();
    let at = |part: f64| waits[((waits.len() - 1) as f64 * part).round() as usize].as_millis();
    println!(
        "{kills} kills of a leader; next acknowledged write after: p50 {} ms, p90 {} ms, p99 {} ms, max {} ms",
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
    Ok(())
}

/// A link to each of these servers.
pub fn links(servers: &[String]) -> Vec<Link> {
    let link = |at: &String| {
        let hello = Arc::new(ctrler::program::client_hello);
        let check = Arc::new(|_: &Hello| Ok(()));
        Link::new(at.clone(), Limits::default(), hello, check)
    };
    servers.iter().map(link).collect()
}

/// What the members say that answer within a second.
pub async fn pages(links: &[Link]) -> Vec<ReplicaStatus> {
    let mut pages = Vec::new();
    for link in links {
        let status = postcard::to_stdvec(&Request::Status).unwrap_or_default();
        let answer = link
            .call(CHANNEL, status.into(), Duration::from_secs(1))
            .await;
        if let Ok(answer) = answer
            && let Ok(Response::Status(page)) = postcard::from_bytes(&answer)
        {
            pages.push(page.replica);
        }
    }
    pages
}

/// Waits until all members answer, agree on a leader and lag by little; the leader's place.
pub async fn whole(links: &[Link]) -> Result<usize, String> {
    let since: Instant = now();
    loop {
        let pages = pages(links).await;
        let leader = pages.first().and_then(|page| page.leader);
        let newest = pages.iter().map(|page| page.commit).max().unwrap_or(0);
        let agreed = |leader| {
            pages
                .iter()
                .all(|page| page.leader == Some(leader) && page.applied + 1000 > newest)
        };
        if let Some(leader) = leader.filter(|leader| pages.len() == links.len() && agreed(*leader))
        {
            // A calm moment, so that the kill does not meet the restart before it.
            sleep(Duration::from_millis(500)).await;
            return Ok(leader as usize - 1);
        }
        if since.elapsed() > PATIENCE {
            return Err(format!(
                "the group is not whole after {PATIENCE:?}: {pages:#?}"
            ));
        }
        sleep(Duration::from_millis(50)).await;
    }
}
