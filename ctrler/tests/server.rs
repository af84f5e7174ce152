//! Controllers on loopback: born, asked, stopped and started again.

mod common;
use common::group;
use ctrler::client::{Client, ClientError};
use ctrler::program::client_hello;
use ctrler::server::{self, ServerOptions};
use raft::replica::{Fatal, Options};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use world::disk::{SimDisk, SimDiskOptions};
use world::net::{Limits, Server};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(1500);

type Running = (oneshot::Sender<()>, JoinHandle<Result<(), Fatal>>);

struct Controllers {
    peers: BTreeMap<u64, String>,
    disks: BTreeMap<u64, SimDisk>,
    running: BTreeMap<u64, Running>,
}

impl Controllers {
    async fn start() -> Controllers {
        let mut peers = BTreeMap::new();
        for id in 1..=3 {
            // The simulation gives its lowest ports to clients; a server that comes back needs
            // one that stays its own.
            let address = if world::testing::SIMULATED {
                format!("127.0.0.1:{}", 7000 + id)
            } else {
                let free = Server::bind("127.0.0.1:0", Limits::default());
                free.await.unwrap().local_addr().to_string()
            };
            peers.insert(id, address);
        }
        let disk = |id| SimDisk::new(&format!("c{id}"), id, SimDiskOptions::default());
        let disks = peers.keys().map(|id| (*id, disk(*id))).collect();
        let mut all = Controllers {
            peers,
            disks,
            running: BTreeMap::new(),
        };
        for id in 1..=3 {
            all.run(id);
        }
        all
    }

    fn run(&mut self, id: u64) {
        let options = ServerOptions {
            replica: Options::new(0, id, self.peers.clone()),
            listen: self.peers[&id].clone(),
            shards: 10,
        };
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move {
            let _ = stopped.await;
        };
        let server = tokio::spawn(server::run(options, self.disks[&id].disk(), shutdown));
        self.running.insert(id, (stop, server));
    }

    async fn stop(&mut self, id: u64) {
        let (stop, server) = self.running.remove(&id).unwrap();
        let _ = stop.send(());
        server.await.unwrap().unwrap();
    }

    fn client(&self, ids: &[u64]) -> Client {
        let servers = ids.iter().map(|id| self.peers[id].clone()).collect();
        Client::new(servers, Arc::new(client_hello))
    }
}

#[test]
fn a_cluster_from_birth_to_restart() {
    world::testing::block_on_test(async {
        let mut all = Controllers::start().await;
        let client = all.client(&[1, 2, 3]);
        let (cluster, shards, latest) = client.cluster(LONG).await.unwrap();
        assert_eq!((shards, latest), (10, 0));
        let groups: BTreeMap<_, _> = [1, 2].map(|g| (g, group(g))).into();
        assert_eq!(client.join(groups.clone(), LONG).await, Ok(1));
        let twice = client.join(groups, LONG).await;
        assert!(
            matches!(&twice, Err(ClientError::Invalid(r)) if r.contains("member already")),
            "{twice:?}"
        );
        assert_eq!(client.move_shard(3, 2, LONG).await, Ok(2));
        let config = client.query(None, LONG).await.unwrap();
        assert_eq!((config.num, config.shards[3]), (2, Some(2)));
        client.settled(1, group(1), 2, true, LONG).await.unwrap();
        let record = client.record(1, LONG).await.unwrap().unwrap();
        assert_eq!((record.settled, record.holds, record.left), (2, true, None));
        assert_eq!(client.records(LONG).await.unwrap().len(), 2);
        let pages = client.status(SHORT).await;
        let nodes: BTreeSet<u64> = pages
            .into_iter()
            .map(|(_, page)| page.unwrap().node)
            .collect();
        assert_eq!(nodes, BTreeSet::from([1, 2, 3]));
        client.close(LONG).await;

        // Every controller answers, the others only hint or ask the leader.
        for id in 1..=3 {
            let one = all.client(&[id]);
            assert_eq!(one.query(None, LONG).await, Ok(config.clone()));
            assert_eq!(one.query(Some(2), LONG).await, Ok(config.clone()));
            let refused = one.leave(vec![9], LONG).await.unwrap_err().to_string();
            assert!(refused.contains("group 9"), "{refused}");
            let future = one.query(Some(3), LONG).await;
            assert!(
                matches!(&future, Err(ClientError::Invalid(r)) if r.contains("the latest is 2"))
            );
        }

        // One alone: history is answered, the present is not.
        all.stop(1).await;
        assert_eq!(all.client(&[2, 3]).leave(vec![2], LONG).await, Ok(3));
        all.stop(2).await;
        let alone = all.client(&[3]);
        assert_eq!(alone.query(Some(2), LONG).await, Ok(config.clone()));
        assert!(matches!(
            alone.query(None, SHORT).await,
            Err(ClientError::Unavailable(_))
        ));
        let change = alone.move_shard(0, 1, SHORT).await;
        assert!(
            matches!(change, Err(ClientError::Unavailable(_))),
            "{change:?}"
        );
        all.stop(3).await;

        // All start again from their disks.
        for id in 1..=3 {
            all.run(id);
        }
        let client = all.client(&[1, 2, 3]);
        assert_eq!(client.cluster(LONG).await, Ok((cluster, 10, 3)));
        assert_eq!(client.query(Some(2), LONG).await, Ok(config));
        let latest = client.query(None, LONG).await.unwrap();
        assert_eq!(latest.shards, vec![Some(1); 10]);
        for id in 1..=3 {
            all.stop(id).await;
        }
    });
}

#[test]
fn a_port_that_is_taken_is_said() {
    world::testing::block_on_test(async {
        let taken = Server::bind("127.0.0.1:0", Limits::default())
            .await
            .unwrap();
        let address = taken.local_addr().to_string();
        let options = ServerOptions {
            replica: Options::new(0, 1, [(1, address.clone())].into()),
            listen: address.clone(),
            shards: 10,
        };
        let disk = SimDisk::new("c", 1, SimDiskOptions::default());
        let error = server::run(options, disk.disk(), std::future::pending())
            .await
            .unwrap_err();
        assert!(error.to_string().contains(&address), "{error}");
        assert!(disk.files().is_empty(), "nothing was written");
    });
}
