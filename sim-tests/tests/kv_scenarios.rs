//! The kv scenarios of MIT 6.5840, against whole clusters.
#![cfg(madsim)]

use sim_tests::sim::{KvCluster, KvOptions};

#[madsim::test]
async fn basic() {
    let cluster = KvCluster::with_groups(KvOptions::default(), &[1]).await;
    let c = cluster.clone();
    cluster
        .nodes
        .run(async move {
            let client = c.client();
            assert_eq!(client.get(b"a").await, Ok(None));
            assert_eq!(client.put(b"a", b"1").await, Ok(()));
            assert_eq!(client.append(b"a", b"23").await, Ok(3));
            assert_eq!(client.get(b"a").await, Ok(Some("123".into())));
            assert_eq!(client.delete(b"a").await, Ok(true));
            assert_eq!(client.get(b"a").await, Ok(None));
        })
        .await;
    cluster.nodes.finish().await;
}

#[madsim::test]
async fn join_leave() {
    let options = KvOptions { groups: 2, ..KvOptions::default() };
    let cluster = KvCluster::with_groups(options, &[1]).await;
    let c = cluster.clone();
    cluster
        .nodes
        .run(async move {
            let client = c.client();
            let key = |i: u32| format!("key-{i}").into_bytes();
            for i in 0..30 {
                client.put(&key(i), &i.to_be_bytes()).await.expect("put");
            }
            c.join(&[2]).await;
            c.settled().await;
            for i in 0..30 {
                let value = client.get(&key(i)).await.expect("get");
                assert_eq!(value.as_deref(), Some(&i.to_be_bytes()[..]), "key {i}");
                client.append(&key(i), b"x").await.expect("append");
            }
            let num = c.leave(&[1]).await;
            c.left(1, num).await;
            c.kill_group(1);
            for i in 0..30 {
                let value = client.get(&key(i)).await.expect("get").expect("present");
                assert_eq!(&value[..4], &i.to_be_bytes()[..]);
                assert_eq!(&value[4..], b"x");
            }
        })
        .await;
    cluster.nodes.finish().await;
}
