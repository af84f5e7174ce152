//! Every node of a simulation has a clock of its own.
#![cfg(madsim)]

use madsim::runtime::Handle;
use std::time::Duration;
use world::clock::{inject, now, sleep, sleep_until, timeout};

const SECOND: Duration = Duration::from_secs(1);

/// About equal: timers are coarse.
fn about(duration: Duration, seconds: f64) {
    let off = (duration.as_secs_f64() - seconds).abs();
    assert!(off < 0.01, "{duration:?} is not {seconds} s");
}

fn true_elapsed() -> Duration {
    madsim::time::TimeHandle::current().elapsed()
}

#[madsim::test]
async fn a_clock_that_is_fast_and_one_that_is_slow() {
    let handle = Handle::current();
    for (ppm, speed) in [(200_000, 1.2), (-200_000, 0.8), (0, 1.0)] {
        let node = handle.create_node().build();
        inject::set_rate_ppm(node.id(), ppm);
        let measured = node.spawn(async move {
            let (began, since) = (true_elapsed(), now());
            sleep(10 * SECOND).await;
            about(since.elapsed(), 10.0);
            about(true_elapsed() - began, 10.0 / speed);
            sleep_until(since + 20 * SECOND).await;
            about(now() - since, 20.0);
            about(true_elapsed() - began, 20.0 / speed);
            let late = timeout(10 * SECOND, std::future::pending::<()>()).await;
            assert!(late.is_err());
            about(true_elapsed() - began, 30.0 / speed);
        });
        measured.await.expect("no panic");
    }
    // Nobody else's clock was touched.
    let (began, since) = (true_elapsed(), now());
    sleep(SECOND).await;
    about(since.elapsed(), 1.0);
    about(true_elapsed() - began, 1.0);
    inject::clear();
}

#[madsim::test]
async fn a_clock_that_jumps() {
    let node = Handle::current().create_node().build();
    let id = node.id();
    let measured = node.spawn(async move {
        let since = now();
        sleep(SECOND).await;
        inject::jump(id, 30 * SECOND);
        about(since.elapsed(), 31.0);
        // What is measured from now on is not touched by it, nor is the rate.
        let (began, after) = (true_elapsed(), now());
        sleep(SECOND).await;
        about(after.elapsed(), 1.0);
        about(true_elapsed() - began, 1.0);
        inject::set_rate_ppm(id, 500_000);
        about(since.elapsed(), 32.0);
        sleep(3 * SECOND).await;
        about(since.elapsed(), 35.0);
        about(true_elapsed() - began, 3.0);
    });
    measured.await.expect("no panic");
    inject::clear();
}

#[madsim::test]
async fn a_clock_never_goes_back() {
    let node = Handle::current().create_node().build();
    let id = node.id();
    let measured = node.spawn(async move {
        let mut last = now();
        for ppm in [900_000, -900_000, 0, -500_000, 5_000_000, -999_999] {
            inject::set_rate_ppm(id, ppm);
            for _ in 0..10 {
                assert!(now() >= last);
                last = now();
                madsim::time::sleep(Duration::from_millis(7)).await;
            }
        }
    });
    measured.await.expect("no panic");
    inject::clear();
}
