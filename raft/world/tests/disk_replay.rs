//! In simulation the seed decides chance and time; outside it does not.

use world::testing::block_on_test;

fn draw() -> (Vec<u64>, u128) {
    block_on_test(async {
        let numbers: Vec<u64> = (0..8).map(|_| world::entropy::random_u64()).collect();
        (numbers, world::entropy::random_u128())
    })
}

#[test]
fn chance_replays_in_simulation_only() {
    let (first, second) = (draw(), draw());
    assert!(first.0.iter().any(|n| *n != first.0[0]));
    #[cfg(madsim)]
    assert_eq!(first, second);
    #[cfg(not(madsim))]
    assert_ne!(first, second);
}

/// A thread's generator must not carry over from one simulation to the next on the same thread.
#[cfg(madsim)]
#[test]
fn chance_depends_on_the_seed_and_nothing_before() {
    let run = |seed| {
        madsim::runtime::Runtime::with_seed_and_config(seed, madsim::Config::default()).block_on(
            async {
                (0..100)
                    .map(|_| world::entropy::random_u64())
                    .collect::<Vec<_>>()
            },
        )
    };
    let (one, two) = (run(1), run(2));
    assert_ne!(one, two);
    for _ in 0..3 {
        assert_eq!(run(2), two);
        assert_eq!(run(1), one);
    }
}

#[cfg(madsim)]
#[test]
fn the_clock_is_the_simulation_s() {
    use world::clock::Duration;
    let real = std::time::Duration::from_secs(60);
    block_on_test(async move {
        let start = world::clock::now();
        tokio::time::sleep(real).await;
        let took = start.elapsed();
        assert!(
            took >= Duration::from_secs(60) && took < Duration::from_secs(61),
            "{took:?}"
        );
    });
}

#[cfg(madsim)]
#[test]
fn events_reach_the_listener_of_the_simulation() {
    use std::{cell::RefCell, rc::Rc};
    let seen = Rc::new(RefCell::new(Vec::new()));
    let heard = seen.clone();
    world::observe::sink::listen(Some(Box::new(move |event| heard.borrow_mut().push(event))));
    let site = world::Site { group: 1, node: 2 };
    block_on_test(async move { world::observe(site, "sync", &[("index", 7)]) });
    world::observe::sink::listen(None);
    world::observe(site, "sync", &[]);
    assert_eq!(seen.borrow().len(), 1);
    assert_eq!(seen.borrow()[0].fields, [("index", 7)]);
}
